//! Outlier detection, to and from protobuf (Envoy's defaults; gRFC A50's rules of rejection).

use super::{Consecutive, FailurePercentage, OutlierDetection, SuccessRate};
use crate::{
    field_path::{Faults, Path},
    resource::wire,
};
use envoy_types::pb::{
    envoy::config::cluster::v3 as proto,
    google::protobuf::{self as pb, UInt32Value},
};
use std::time::Duration;

pub(super) fn parse(
    proto: &proto::OutlierDetection,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<OutlierDetection> {
    let value = |field: &Option<UInt32Value>, default| field.as_ref().map_or(default, |field| field.value);
    let mut percent = |field: &Option<UInt32Value>, name: &str, default| {
        let percent = value(field, default);
        if percent > 100 {
            faults.reject::<()>(&at.field(name), format!("{percent} is more than 100"));
        }
        percent
    };
    let max_ejection_percent = percent(&proto.max_ejection_percent, "max_ejection_percent", 10);
    let enforcing_5xx = percent(&proto.enforcing_consecutive_5xx, "enforcing_consecutive_5xx", 100);
    let enforcing_gateway =
        percent(&proto.enforcing_consecutive_gateway_failure, "enforcing_consecutive_gateway_failure", 0);
    let enforcing_local = percent(
        &proto.enforcing_consecutive_local_origin_failure,
        "enforcing_consecutive_local_origin_failure",
        100,
    );
    let enforcing_success = percent(&proto.enforcing_success_rate, "enforcing_success_rate", 100);
    let enforcing_failure = percent(&proto.enforcing_failure_percentage, "enforcing_failure_percentage", 0);
    let threshold = percent(&proto.failure_percentage_threshold, "failure_percentage_threshold", 85);

    let mut time = |field: &Option<pb::Duration>, name: &str, default| match field {
        Some(_) => wire::positive_duration(field, &at.field(name), faults),
        None => Some(default),
    };
    let interval = time(&proto.interval, "interval", Duration::from_secs(10));
    let base = time(&proto.base_ejection_time, "base_ejection_time", Duration::from_secs(30));
    let longest = base.unwrap_or_default().max(Duration::from_secs(300));
    let max = time(&proto.max_ejection_time, "max_ejection_time", longest);

    let consecutive = |field: &Option<UInt32Value>, default, enforcing: u32| {
        let threshold = value(field, default);
        (threshold > 0 && enforcing > 0).then_some(Consecutive { threshold, enforcing })
    };
    let split = proto.split_external_local_origin_errors;
    Some(OutlierDetection {
        interval: interval?,
        base_ejection_time: base?,
        max_ejection_time: max?.max(base?),
        max_ejection_percent,
        consecutive_5xx: consecutive(&proto.consecutive_5xx, 5, enforcing_5xx),
        consecutive_gateway_failure: consecutive(&proto.consecutive_gateway_failure, 5, enforcing_gateway),
        consecutive_local_origin_failure: if split {
            consecutive(&proto.consecutive_local_origin_failure, 5, enforcing_local)
        } else {
            None
        },
        split_external_local_origin_errors: split,
        success_rate: (enforcing_success > 0).then(|| SuccessRate {
            stdev_factor: value(&proto.success_rate_stdev_factor, 1900),
            enforcing: enforcing_success,
            minimum_hosts: value(&proto.success_rate_minimum_hosts, 5),
            request_volume: value(&proto.success_rate_request_volume, 100),
        }),
        failure_percentage: (enforcing_failure > 0).then(|| FailurePercentage {
            threshold,
            enforcing: enforcing_failure,
            minimum_hosts: value(&proto.failure_percentage_minimum_hosts, 5),
            request_volume: value(&proto.failure_percentage_request_volume, 50),
        }),
    })
}

pub(super) fn encode(outlier: &OutlierDetection) -> proto::OutlierDetection {
    let threshold = |consecutive: &Option<Consecutive>| {
        consecutive.and_then(|consecutive| wire::u32_value(consecutive.threshold))
    };
    let enforcing = |consecutive: &Option<Consecutive>| {
        wire::u32_value(consecutive.map_or(0, |consecutive| consecutive.enforcing))
    };
    let success = outlier.success_rate;
    let failure = outlier.failure_percentage;
    proto::OutlierDetection {
        interval: Some(wire::duration_proto(outlier.interval)),
        base_ejection_time: Some(wire::duration_proto(outlier.base_ejection_time)),
        max_ejection_time: Some(wire::duration_proto(outlier.max_ejection_time)),
        max_ejection_percent: wire::u32_value(outlier.max_ejection_percent),
        consecutive_5xx: threshold(&outlier.consecutive_5xx),
        enforcing_consecutive_5xx: enforcing(&outlier.consecutive_5xx),
        consecutive_gateway_failure: threshold(&outlier.consecutive_gateway_failure),
        enforcing_consecutive_gateway_failure: enforcing(&outlier.consecutive_gateway_failure),
        consecutive_local_origin_failure: threshold(&outlier.consecutive_local_origin_failure),
        enforcing_consecutive_local_origin_failure: enforcing(&outlier.consecutive_local_origin_failure),
        split_external_local_origin_errors: outlier.split_external_local_origin_errors,
        enforcing_success_rate: wire::u32_value(success.map_or(0, |s| s.enforcing)),
        success_rate_stdev_factor: success.and_then(|s| wire::u32_value(s.stdev_factor)),
        success_rate_minimum_hosts: success.and_then(|s| wire::u32_value(s.minimum_hosts)),
        success_rate_request_volume: success.and_then(|s| wire::u32_value(s.request_volume)),
        enforcing_failure_percentage: wire::u32_value(failure.map_or(0, |f| f.enforcing)),
        failure_percentage_threshold: failure.and_then(|f| wire::u32_value(f.threshold)),
        failure_percentage_minimum_hosts: failure.and_then(|f| wire::u32_value(f.minimum_hosts)),
        failure_percentage_request_volume: failure.and_then(|f| wire::u32_value(f.request_volume)),
        ..Default::default()
    }
}
