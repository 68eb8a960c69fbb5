//! HTTPFault, to and from protobuf.

use super::{AbortKind, DelayKind, Fault, FaultAbort, FaultDelay};
use crate::{
    field_path::{Faults, Path},
    resource::{
        filter::{
            FilterConfig, FilterOverride,
            registry::{CLIENT, Kind},
        },
        wire,
    },
};
use envoy_types::pb::envoy::extensions::filters::{
    common::fault::v3::{FaultDelay as FaultDelayProto, fault_delay},
    http::fault::v3::{self as proto, fault_abort},
};
use std::{sync::Arc, time::Duration};

const MESSAGE: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";

pub(in crate::resource) static KIND: Kind = Kind {
    message: MESSAGE,
    sides: CLIENT,
    feature: None,
    read: |any, _, at, faults| {
        let fault = parse(&wire::unpack(any, at, faults)?, at, faults)?;
        Some(FilterConfig::Fault(Arc::new(fault)))
    },
    per_route: Some((MESSAGE, |any, _, at, faults| {
        let fault = parse(&wire::unpack(any, at, faults)?, at, faults)?;
        Some(FilterOverride::Config(FilterConfig::Fault(Arc::new(fault))))
    })),
};

fn parse(proto: &proto::HttpFault, at: &Path<'_>, faults: &mut Faults) -> Option<Fault> {
    for (unsupported, field) in [
        (proto.response_rate_limit.is_some(), "response_rate_limit"),
        (!proto.upstream_cluster.is_empty(), "upstream_cluster"),
        (!proto.downstream_nodes.is_empty(), "downstream_nodes"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
    let delay = match &proto.delay {
        Some(proto) => delay(proto, &at.field("delay"), faults),
        None => Some(None),
    };
    let abort = match &proto.abort {
        Some(proto) => abort(proto, &at.field("abort"), faults).map(Some),
        None => Some(None),
    };
    let headers = wire::every(&proto.headers, &at.field("headers"), faults, wire::header_matcher);
    Some(Fault {
        delay: delay?,
        abort: abort?,
        headers: headers?,
        max_active: proto.max_active_faults.as_ref().map(|max| max.value),
    })
}

/// A fixed delay of zero is no delay.
fn delay(proto: &FaultDelayProto, at: &Path<'_>, faults: &mut Faults) -> Option<Option<FaultDelay>> {
    let fraction = wire::optional_fraction(&proto.percentage, &at.field("percentage"), faults);
    let kind = match &proto.fault_delay_secifier {
        Some(fault_delay::FaultDelaySecifier::FixedDelay(delay)) => {
            match wire::duration(delay, &at.field("fixed_delay"), faults)? {
                Duration::ZERO => return Some(None),
                delay => DelayKind::Fixed(delay),
            }
        }
        Some(fault_delay::FaultDelaySecifier::HeaderDelay(_)) => DelayKind::Header,
        None => return faults.reject(at, "fixed_delay or header_delay is required"),
    };
    Some(Some(FaultDelay { kind, fraction: fraction? }))
}

fn abort(proto: &proto::FaultAbort, at: &Path<'_>, faults: &mut Faults) -> Option<FaultAbort> {
    let fraction = wire::optional_fraction(&proto.percentage, &at.field("percentage"), faults);
    let kind = match &proto.error_type {
        Some(fault_abort::ErrorType::HttpStatus(status)) => match u16::try_from(*status) {
            Ok(status @ 200..=599) => AbortKind::Http(status),
            _ => {
                return faults
                    .reject(&at.field("http_status"), format_args!("{status} is not within 200..=599"));
            }
        },
        Some(fault_abort::ErrorType::GrpcStatus(status)) => AbortKind::Grpc(*status),
        Some(fault_abort::ErrorType::HeaderAbort(_)) => AbortKind::Header,
        None => return faults.reject(at, "http_status, grpc_status or header_abort is required"),
    };
    Some(FaultAbort { kind, fraction: fraction? })
}

pub(in crate::resource) fn encode(fault: &Fault) -> proto::HttpFault {
    let delay = fault.delay.as_ref().map(|delay| FaultDelayProto {
        percentage: Some(wire::fraction_proto(delay.fraction)),
        fault_delay_secifier: Some(match delay.kind {
            DelayKind::Fixed(delay) => {
                fault_delay::FaultDelaySecifier::FixedDelay(wire::duration_proto(delay))
            }
            DelayKind::Header => fault_delay::FaultDelaySecifier::HeaderDelay(Default::default()),
        }),
    });
    let abort = fault.abort.as_ref().map(|abort| proto::FaultAbort {
        percentage: Some(wire::fraction_proto(abort.fraction)),
        error_type: Some(match abort.kind {
            AbortKind::Http(status) => fault_abort::ErrorType::HttpStatus(status.into()),
            AbortKind::Grpc(status) => fault_abort::ErrorType::GrpcStatus(status),
            AbortKind::Header => fault_abort::ErrorType::HeaderAbort(Default::default()),
        }),
        ..Default::default()
    });
    proto::HttpFault {
        delay,
        abort,
        headers: fault.headers.iter().map(wire::header_matcher_proto).collect(),
        max_active_faults: fault.max_active.and_then(wire::u32_value),
        ..Default::default()
    }
}
