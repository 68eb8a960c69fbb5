//! Outlier detection, to and from protobuf (Envoy's defaults; gRFC A50's rules of rejection).

use super::has;
use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature, ParseContext,
        cluster::{Consecutive, FailurePercentage, LocalOrigin, OutlierDetection, SuccessRate},
        wire,
    },
};
use envoy_types::pb::{
    envoy::config::cluster::v3 as proto,
    google::protobuf::{self as pb, BoolValue, UInt32Value},
};
use std::time::Duration;

pub(super) fn parse(
    proto: &proto::OutlierDetection,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<OutlierDetection> {
    let value = |field: &Option<UInt32Value>, default| field.as_ref().map_or(default, |field| field.value);
    let mut percent = |field: &Option<UInt32Value>, name: &str, default| {
        let percent = value(field, default);
        if percent > 100 {
            faults.reject::<()>(&at.field(name), format_args!("{percent} is more than 100"));
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
    let local_success =
        percent(&proto.enforcing_local_origin_success_rate, "enforcing_local_origin_success_rate", 100);
    let local_failure = percent(
        &proto.enforcing_failure_percentage_local_origin,
        "enforcing_failure_percentage_local_origin",
        0,
    );
    let threshold = percent(&proto.failure_percentage_threshold, "failure_percentage_threshold", 85);

    let yes = |field: &Option<BoolValue>| field.as_ref().is_some_and(|field| field.value);
    for (unsupported, name) in [
        (!proto.monitors.is_empty(), "monitors"),
        (yes(&proto.detect_degraded_hosts), "detect_degraded_hosts"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(name), "is not supported");
        }
    }
    let jitter = match &proto.max_ejection_time_jitter {
        Some(jitter) => wire::duration(jitter, &at.field("max_ejection_time_jitter"), faults),
        None => Some(Duration::ZERO),
    };
    let mut time = |field: &Option<pb::Duration>, name: &str, default| match field {
        // Zero is one (A50), though Envoy refuses it.
        Some(time) => wire::duration(time, &at.field(name), faults),
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
    let success = |enforcing: u32| {
        (enforcing > 0).then(|| SuccessRate {
            stdev_factor: value(&proto.success_rate_stdev_factor, 1900),
            enforcing,
            minimum_hosts: value(&proto.success_rate_minimum_hosts, 5),
            request_volume: value(&proto.success_rate_request_volume, 100),
        })
    };
    let failure = |enforcing: u32| {
        (enforcing > 0).then(|| FailurePercentage {
            threshold,
            enforcing,
            minimum_hosts: value(&proto.failure_percentage_minimum_hosts, 5),
            request_volume: value(&proto.failure_percentage_request_volume, 50),
        })
    };
    let split = proto.split_external_local_origin_errors;
    // gRPC leaves these out (A50).
    let more = has(context, Feature::LocalOriginOutliers);
    Some(OutlierDetection {
        interval: interval?.max(OutlierDetection::LEAST_INTERVAL),
        base_ejection_time: base?,
        max_ejection_time: max?.max(base?),
        max_ejection_percent,
        // Said elsewhere: the options of the connections hold it.
        errors: None,
        consecutive_5xx: consecutive(&proto.consecutive_5xx, 5, enforcing_5xx),
        consecutive_gateway_failure: consecutive(&proto.consecutive_gateway_failure, 5, enforcing_gateway),
        consecutive_local_origin_failure: if split {
            consecutive(&proto.consecutive_local_origin_failure, 5, enforcing_local)
        } else {
            None
        },
        split_external_local_origin_errors: split,
        success_rate: success(enforcing_success),
        failure_percentage: failure(enforcing_failure),
        local_origin: if split && more {
            LocalOrigin { success_rate: success(local_success), failure_percentage: failure(local_failure) }
        } else {
            LocalOrigin::default()
        },
        max_ejection_time_jitter: jitter?.min(if more { Duration::MAX } else { Duration::ZERO }),
        uneject_by_health_check: proto
            .successful_active_health_check_uneject_host
            .as_ref()
            .is_none_or(|uneject| uneject.value),
    })
}

pub(super) fn encode(outlier: &OutlierDetection) -> proto::OutlierDetection {
    let threshold = |consecutive: &Option<Consecutive>| {
        consecutive.and_then(|consecutive| wire::u32_value(consecutive.threshold))
    };
    let enforcing = |consecutive: &Option<Consecutive>| {
        wire::u32_value(consecutive.map_or(0, |consecutive| consecutive.enforcing))
    };
    let (success, failure) = (outlier.success_rate, outlier.failure_percentage);
    let local = outlier.local_origin;
    // The numbers of both are the same; only the chances differ.
    let either_success = success.or(local.success_rate);
    let either_failure = failure.or(local.failure_percentage);
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
        success_rate_stdev_factor: either_success.and_then(|s| wire::u32_value(s.stdev_factor)),
        success_rate_minimum_hosts: either_success.and_then(|s| wire::u32_value(s.minimum_hosts)),
        success_rate_request_volume: either_success.and_then(|s| wire::u32_value(s.request_volume)),
        enforcing_failure_percentage: wire::u32_value(failure.map_or(0, |f| f.enforcing)),
        failure_percentage_threshold: either_failure.and_then(|f| wire::u32_value(f.threshold)),
        failure_percentage_minimum_hosts: either_failure.and_then(|f| wire::u32_value(f.minimum_hosts)),
        failure_percentage_request_volume: either_failure.and_then(|f| wire::u32_value(f.request_volume)),
        enforcing_local_origin_success_rate: wire::u32_value(local.success_rate.map_or(0, |s| s.enforcing)),
        enforcing_failure_percentage_local_origin: wire::u32_value(
            local.failure_percentage.map_or(0, |f| f.enforcing),
        ),
        max_ejection_time_jitter: (!outlier.max_ejection_time_jitter.is_zero())
            .then(|| wire::duration_proto(outlier.max_ejection_time_jitter)),
        successful_active_health_check_uneject_host: (!outlier.uneject_by_health_check)
            .then_some(BoolValue { value: false }),
        ..Default::default()
    }
}
