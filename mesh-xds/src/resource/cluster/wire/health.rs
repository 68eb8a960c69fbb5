//! Active health checks, to and from protobuf (Envoy's rules).

use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature, ParseContext,
        cluster::{HealthCheck, HealthProbe},
        wire,
    },
};
use bytes::Bytes;
use envoy_types::pb::{
    envoy::config::{
        cluster::v3 as cluster,
        core::v3::{
            self as proto, HeaderValue as HeaderProto, HeaderValueOption,
            health_check::{GrpcHealthCheck, HealthChecker, Payload, TcpHealthCheck, payload},
        },
    },
    google::protobuf::{self as pb, BoolValue},
};
use http::{HeaderName, HeaderValue};
use std::time::Duration;

const NO_TRAFFIC: Duration = Duration::from_secs(60);

/// `None` inside when there is none.
pub(super) fn parse(
    proto: &cluster::Cluster,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<HealthCheck>> {
    let list = at.field("health_checks");
    let check = match &*proto.health_checks {
        [] => return Some(None),
        [check] => check,
        checks => return faults.reject(&list, format_args!("one is supported, not {}", checks.len())),
    };
    context.support.require(Feature::HealthChecks, &list, faults)?;
    let ignore_new = proto.common_lb_config.as_ref().is_some_and(|lb| lb.ignore_new_hosts_until_first_hc);
    one(check, ignore_new, &list.index(0), faults).map(Some)
}

fn one(
    proto: &proto::HealthCheck,
    ignore_new_until_first_check: bool,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<HealthCheck> {
    if proto.transport_socket_match_criteria.is_some() {
        let reason = "is not supported: checks use the cluster's transport socket";
        faults.reject::<()>(&at.field("transport_socket_match_criteria"), reason);
    }
    if proto.tls_options.is_some() {
        faults.reject::<()>(&at.field("tls_options"), "is not supported: checks speak what calls speak");
    }
    let probe = probe(proto, at, faults);
    let mut threshold = |value: &Option<pb::UInt32Value>, name: &str| {
        let at = at.field(name);
        match faults.required(&at, value)?.value {
            0 => faults.reject(&at, "must not be 0"),
            threshold => Some(threshold),
        }
    };
    let unhealthy_threshold = threshold(&proto.unhealthy_threshold, "unhealthy_threshold");
    let healthy_threshold = threshold(&proto.healthy_threshold, "healthy_threshold");
    let alt_port = match &proto.alt_port {
        None => Some(None),
        Some(port) => match u16::try_from(port.value) {
            Ok(port) if port > 0 => Some(Some(port)),
            _ => faults.reject(&at.field("alt_port"), format_args!("{} is not a port", port.value)),
        },
    };
    // Present and positive, or a fault.
    let needed = |value: &Option<pb::Duration>, name: &str, faults: &mut Faults| {
        let at = at.field(name);
        faults.required(&at, value)?;
        wire::positive_duration(value, &at, faults)
    };
    // Absent, positive, or a fault.
    let may = |value: &Option<pb::Duration>, name: &str, faults: &mut Faults| match value {
        None => Some(None),
        Some(_) => wire::positive_duration(value, &at.field(name), faults).map(Some),
    };
    // Zero when absent.
    let jitter = |value: &Option<pb::Duration>, name: &str, faults: &mut Faults| match value {
        None => Some(Duration::ZERO),
        Some(value) => wire::duration(value, &at.field(name), faults),
    };
    let timeout = needed(&proto.timeout, "timeout", faults);
    let interval = needed(&proto.interval, "interval", faults);
    let initial_jitter = jitter(&proto.initial_jitter, "initial_jitter", faults);
    let interval_jitter = jitter(&proto.interval_jitter, "interval_jitter", faults);
    let no_traffic = may(&proto.no_traffic_interval, "no_traffic_interval", faults);
    let no_traffic_healthy = may(&proto.no_traffic_healthy_interval, "no_traffic_healthy_interval", faults);
    let unhealthy = may(&proto.unhealthy_interval, "unhealthy_interval", faults);
    let unhealthy_edge = may(&proto.unhealthy_edge_interval, "unhealthy_edge_interval", faults);
    let healthy_edge = may(&proto.healthy_edge_interval, "healthy_edge_interval", faults);
    Some(HealthCheck {
        probe: probe?,
        timeout: timeout?,
        interval: interval?,
        initial_jitter: initial_jitter?,
        interval_jitter: interval_jitter?,
        interval_jitter_percent: proto.interval_jitter_percent,
        unhealthy_threshold: unhealthy_threshold?,
        healthy_threshold: healthy_threshold?,
        alt_port: alt_port?,
        reuse_connection: proto.reuse_connection.as_ref().is_none_or(|reuse| reuse.value),
        no_traffic_interval: no_traffic?.unwrap_or(NO_TRAFFIC),
        no_traffic_healthy_interval: no_traffic_healthy?,
        unhealthy_interval: unhealthy?,
        unhealthy_edge_interval: unhealthy_edge?,
        healthy_edge_interval: healthy_edge?,
        ignore_new_until_first_check,
    })
}

fn probe(proto: &proto::HealthCheck, at: &Path<'_>, faults: &mut Faults) -> Option<HealthProbe> {
    match &proto.health_checker {
        Some(HealthChecker::GrpcHealthCheck(check)) => {
            let list = at.field("grpc_health_check.initial_metadata");
            let metadata = wire::every(&check.initial_metadata, &list, faults, |option, at, faults| {
                let at = at.field("header");
                let header = faults.required(&at, &option.header)?;
                let name = faults.take(&at.field("key"), header.key.parse::<HeaderName>());
                let value =
                    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
                let value = faults.take(&at.field("value"), HeaderValue::from_bytes(value));
                Some((name?, value?))
            });
            Some(HealthProbe::Grpc {
                service_name: check.service_name.as_str().into(),
                authority: (!check.authority.is_empty()).then(|| check.authority.as_str().into()),
                metadata: metadata?,
            })
        }
        Some(HealthChecker::TcpHealthCheck(check)) => {
            let at = at.field("tcp_health_check");
            if check.proxy_protocol_config.is_some() {
                faults.reject::<()>(&at.field("proxy_protocol_config"), "is not supported");
            }
            let send = match &check.send {
                Some(send) => payload(send, &at.field("send"), faults),
                None => Some(Bytes::new()),
            };
            let receive = wire::every(&check.receive, &at.field("receive"), faults, payload);
            Some(HealthProbe::Tcp { send: send?, receive: receive? })
        }
        Some(HealthChecker::HttpHealthCheck(_)) => faults.reject(
            &at.field("http_health_check"),
            "is not supported: gRPC servers are asked by grpc_health_check, others by tcp_health_check",
        ),
        Some(HealthChecker::CustomHealthCheck(_)) => faults.reject(
            &at.field("custom_health_check"),
            "is not supported: use grpc_health_check or tcp_health_check",
        ),
        None => faults
            .reject(&at.field("health_checker"), "one of grpc_health_check and tcp_health_check is required"),
    }
}

/// Bytes, or the hexadecimal text of some.
fn payload(proto: &Payload, at: &Path<'_>, faults: &mut Faults) -> Option<Bytes> {
    match &proto.payload {
        Some(payload::Payload::Binary(bytes)) if !bytes.is_empty() => Some(bytes.clone().into()),
        Some(payload::Payload::Text(text)) if !text.is_empty() => {
            let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
            let pairs = digits.filter(|digits| digits.len() % 2 == 0);
            let bytes = pairs.map(|digits| {
                let byte = |pair: &[u32]| pair.iter().fold(0, |byte, digit| byte << 4 | digit) as u8;
                digits.chunks(2).map(byte).collect::<Vec<u8>>()
            });
            match bytes {
                Some(bytes) => Some(bytes.into()),
                None => faults.reject(&at.field("text"), "must be an even number of hexadecimal digits"),
            }
        }
        _ => faults.reject(at, "must have a text or binary payload that is not empty"),
    }
}

pub(super) fn encode(check: &HealthCheck) -> proto::HealthCheck {
    let time = |value: Duration| Some(wire::duration_proto(value));
    let jitter = |value: Duration| (!value.is_zero()).then(|| wire::duration_proto(value));
    let checker = match &check.probe {
        HealthProbe::Grpc { service_name, authority, metadata } => {
            let header = |(name, value): &(HeaderName, HeaderValue)| HeaderValueOption {
                header: Some(HeaderProto {
                    key: name.as_str().into(),
                    raw_value: value.as_bytes().to_vec(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
                service_name: service_name.to_string(),
                authority: authority.as_deref().unwrap_or_default().into(),
                initial_metadata: metadata.iter().map(header).collect(),
            })
        }
        HealthProbe::Tcp { send, receive } => {
            let payload = |bytes: &Bytes| Payload { payload: Some(payload::Payload::Binary(bytes.to_vec())) };
            HealthChecker::TcpHealthCheck(TcpHealthCheck {
                send: (!send.is_empty()).then(|| payload(send)),
                receive: receive.iter().map(payload).collect(),
                ..Default::default()
            })
        }
    };
    proto::HealthCheck {
        timeout: time(check.timeout),
        interval: time(check.interval),
        initial_jitter: jitter(check.initial_jitter),
        interval_jitter: jitter(check.interval_jitter),
        interval_jitter_percent: check.interval_jitter_percent,
        unhealthy_threshold: wire::u32_value(check.unhealthy_threshold),
        healthy_threshold: wire::u32_value(check.healthy_threshold),
        alt_port: check.alt_port.and_then(|port| wire::u32_value(port.into())),
        reuse_connection: (!check.reuse_connection).then_some(BoolValue { value: false }),
        no_traffic_interval: time(check.no_traffic_interval),
        no_traffic_healthy_interval: check.no_traffic_healthy_interval.and_then(time),
        unhealthy_interval: check.unhealthy_interval.and_then(time),
        unhealthy_edge_interval: check.unhealthy_edge_interval.and_then(time),
        healthy_edge_interval: check.healthy_edge_interval.and_then(time),
        health_checker: Some(checker),
        ..Default::default()
    }
}
