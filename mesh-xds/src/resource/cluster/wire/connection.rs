//! Options of connections, to and from protobuf.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::errors;
use crate::{
    field_path::{Faults, Path},
    resource::{
        ParseContext,
        cluster::{ConnectionOptions, Http2Keepalive, HttpCodes, TcpKeepalive},
        wire,
    },
};
use envoy_types::pb::{
    envoy::{
        config::{cluster::v3 as proto, core::v3 as core},
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                explicit_http_config::ProtocolConfig,
            },
        },
    },
    google::protobuf::{Any, UInt32Value},
};
use std::{collections::HashMap, time::Duration};

/// Where Envoy looks for HTTP/2 options. gRPC looks at `upstream_config` (A75).
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// The one upstream filter that changes nothing.
const UPSTREAM_CODEC: &str =
    "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
/// HTTP/2's own first window, the least that can be asked for in Envoy.
const LEAST_WINDOW: u32 = 65_535;

/// What the options of connections say, and of outlier detection what stands among them.
pub(super) struct Parsed {
    pub(super) options: ConnectionOptions,
    /// Which responses are errors; absent: 5xx.
    pub(super) errors: Option<HttpCodes>,
}

pub(super) fn parse(
    proto: &proto::Cluster,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Parsed> {
    let mut options = ConnectionOptions::default();
    if proto.connect_timeout.is_some() {
        let at = at.field("connect_timeout");
        options.connect_timeout = wire::positive_duration(&proto.connect_timeout, &at, faults)?;
    }
    let upstream = proto.upstream_connection_options.as_ref();
    if let Some(keepalive) = upstream.and_then(|options| options.tcp_keepalive.as_ref()) {
        let seconds =
            |value: &Option<UInt32Value>| value.as_ref().map(|v| Duration::from_secs(v.value.into()));
        let core::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = keepalive;
        let numbers = [keepalive_probes, keepalive_time, keepalive_interval];
        // A zero switches it off.
        if numbers.iter().all(|number| number.as_ref().is_none_or(|number| number.value > 0)) {
            options.tcp_keepalive = Some(TcpKeepalive {
                probes: keepalive_probes.as_ref().map(|probes| probes.value),
                time: seconds(keepalive_time),
                interval: seconds(keepalive_interval),
            });
        }
    }
    let gathered = gather(proto, context, at, faults)?;
    if let Some((common, at)) = &gathered.common {
        let at = Path::ROOT.field(at);
        common_options(common, &at, &mut options, faults);
    }
    if let Some(max) = &gathered.max_requests {
        options.max_requests_per_connection = *max;
    }
    if let Some((http2, at)) = &gathered.http2 {
        let at = Path::ROOT.field(at);
        http2_options(http2, &at, &mut options, faults)?;
    }
    Some(Parsed { options, errors: gathered.errors })
}

/// The messages that hold the options, wherever they stand, and their places.
#[derive(Default)]
struct Gathered {
    common: Option<(core::HttpProtocolOptions, String)>,
    http2: Option<(core::Http2ProtocolOptions, String)>,
    max_requests: Option<u32>,
    errors: Option<HttpCodes>,
}

fn gather(
    proto: &proto::Cluster,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Gathered> {
    let list = at.field("typed_extension_protocol_options");
    let ours = list.key(HTTP_OPTIONS);
    let upstream_at = at.field("upstream_config.typed_config");
    // gRFC A75 has the same message in `upstream_config`; another one there is a fault.
    let upstream = proto.upstream_config.as_ref().and_then(|config| config.typed_config.as_ref());
    let upstream: Option<HttpProtocolOptions> = match upstream {
        Some(any) => Some(wire::unpack(any, &upstream_at, faults)?),
        None => None,
    };
    let (http, at) = match proto.typed_extension_protocol_options.get(HTTP_OPTIONS) {
        Some(any) => (wire::unpack(any, &ours, faults)?, ours),
        None => match upstream {
            Some(http) => (http, upstream_at),
            None => return Some(deprecated(proto, at)),
        },
    };
    refuse_unsupported(&http, &at, faults);
    let errors = errors::parse(http.outlier_detection.as_ref(), context, &at, faults);
    let http2 = match http.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config })) => {
            let at = at.field("explicit_http_config");
            match protocol_config {
                Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                    Some((http2, at.field("http2_protocol_options").to_string()))
                }
                Some(ProtocolConfig::HttpProtocolOptions(_)) => {
                    return faults.reject(&at.field("http_protocol_options"), ONLY_HTTP2);
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    return faults.reject(&at.field("http3_protocol_options"), ONLY_HTTP2);
                }
                None => None,
            }
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http2_protocol_options: Some(http2),
            ..
        })) => Some((http2, at.field("use_downstream_protocol_config.http2_protocol_options").to_string())),
        Some(UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
            http2_protocol_options: Some(http2),
            ..
        })) => Some((http2, at.field("auto_config.http2_protocol_options").to_string())),
        _ => None,
    };
    let common_at = at.field("common_http_protocol_options").to_string();
    let common = http.common_http_protocol_options.map(|common| (common, common_at));
    Some(Gathered { common, http2, max_requests: None, errors: errors? })
}

const ONLY_HTTP2: &str = "gRPC is HTTP/2: use http2_protocol_options";

/// What the cluster itself says, which counts when there is no `HttpProtocolOptions`.
fn deprecated(proto: &proto::Cluster, at: &Path<'_>) -> Gathered {
    let common_at = at.field("common_http_protocol_options").to_string();
    let http2_at = at.field("http2_protocol_options").to_string();
    Gathered {
        common: proto.common_http_protocol_options.map(|common| (common, common_at)),
        http2: proto.http2_protocol_options.clone().map(|http2| (http2, http2_at)),
        max_requests: proto.max_requests_per_connection.as_ref().map(|max| max.value),
        errors: None,
    }
}

fn refuse_unsupported(http: &HttpProtocolOptions, at: &Path<'_>, faults: &mut Faults) {
    let is_codec = |any: &Any| any.type_url == UPSTREAM_CODEC;
    let filters = http.http_filters.iter().any(|filter| {
        use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter;
        !matches!(&filter.config_type, Some(http_filter::ConfigType::TypedConfig(any)) if is_codec(any))
    });
    for (unsupported, field, reason) in [
        (filters, "http_filters", "filters of a cluster are not supported: use the listener's"),
        (
            !http.request_mirror_policies.is_empty(),
            "request_mirror_policies",
            "is not supported: mirror at the route",
        ),
        (!http.hash_policy.is_empty(), "hash_policy", "is not supported: hash at the route"),
        (http.retry_policy.is_some(), "retry_policy", "is not supported: retry at the route"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), reason);
        }
    }
}

fn common_options(
    common: &core::HttpProtocolOptions,
    at: &Path<'_>,
    options: &mut ConnectionOptions,
    faults: &mut Faults,
) {
    for (unsupported, field, reason) in [
        (
            common.max_stream_duration.as_ref().is_some_and(|limit| *limit != Default::default()),
            "max_stream_duration",
            "is not supported: limit the route",
        ),
        (common.max_headers_count.is_some(), "max_headers_count", "is not supported"),
        (common.max_response_headers_kb.is_some(), "max_response_headers_kb", "is not supported"),
        (
            common.max_connection_duration_jitter.is_some(),
            "max_connection_duration_jitter",
            "is not supported",
        ),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), reason);
        }
    }
    options.idle_timeout = wire::optional_duration(&common.idle_timeout, &at.field("idle_timeout"), faults);
    options.max_connection_duration = wire::positive_duration(
        &common.max_connection_duration,
        &at.field("max_connection_duration"),
        faults,
    );
    options.max_requests_per_connection =
        common.max_requests_per_connection.as_ref().map_or(0, |max| max.value);
}

fn http2_options(
    http2: &core::Http2ProtocolOptions,
    at: &Path<'_>,
    options: &mut ConnectionOptions,
    faults: &mut Faults,
) -> Option<()> {
    const MOST: u32 = i32::MAX.unsigned_abs();
    let mut within = |value: &Option<UInt32Value>, name: &str, least: u32| match value {
        None => Some(None),
        Some(value) if (least..=MOST).contains(&value.value) => Some(Some(value.value)),
        Some(_) => faults.reject(&at.field(name), format_args!("must be in {least}..={MOST}")),
    };
    options.max_concurrent_streams = within(&http2.max_concurrent_streams, "max_concurrent_streams", 1)?;
    options.initial_stream_window =
        within(&http2.initial_stream_window_size, "initial_stream_window_size", LEAST_WINDOW)?;
    options.initial_connection_window =
        within(&http2.initial_connection_window_size, "initial_connection_window_size", LEAST_WINDOW)?;
    if !http2.custom_settings_parameters.is_empty() {
        faults.reject::<()>(&at.field("custom_settings_parameters"), "is not supported");
    }
    if let Some(keepalive) = &http2.connection_keepalive {
        let at = at.field("connection_keepalive");
        // Without an interval Envoy pings only what was idle.
        if keepalive.interval.is_none() && keepalive.connection_idle_interval.is_some() {
            let reason = "is not supported without interval: pings come in intervals";
            return faults.reject(&at.field("connection_idle_interval"), reason);
        }
        let timeout_at = at.field("timeout");
        faults.required(&timeout_at, &keepalive.timeout)?;
        let timeout = wire::positive_duration(&keepalive.timeout, &timeout_at, faults)?;
        if keepalive.interval.is_some() {
            let interval = wire::positive_duration(&keepalive.interval, &at.field("interval"), faults)?;
            options.http2_keepalive = Some(Http2Keepalive { interval, timeout });
        }
    }
    Some(())
}

pub(super) fn http_options_proto(
    connection: &ConnectionOptions,
    errors: Option<&HttpCodes>,
) -> HashMap<String, Any> {
    let keepalive = connection.http2_keepalive.map(|keepalive| core::KeepaliveSettings {
        interval: Some(wire::duration_proto(keepalive.interval)),
        timeout: Some(wire::duration_proto(keepalive.timeout)),
        ..Default::default()
    });
    let http2 = core::Http2ProtocolOptions {
        max_concurrent_streams: connection.max_concurrent_streams.and_then(wire::u32_value),
        initial_stream_window_size: connection.initial_stream_window.and_then(wire::u32_value),
        initial_connection_window_size: connection.initial_connection_window.and_then(wire::u32_value),
        connection_keepalive: keepalive,
        ..Default::default()
    };
    let max_requests = connection.max_requests_per_connection;
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: connection.idle_timeout.map(wire::duration_proto),
            max_connection_duration: connection.max_connection_duration.map(wire::duration_proto),
            max_requests_per_connection: (max_requests > 0).then_some(UInt32Value { value: max_requests }),
            ..Default::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2)),
        })),
        outlier_detection: errors.map(errors::encode),
        ..Default::default()
    };
    HashMap::from([(HTTP_OPTIONS.to_owned(), wire::any(&options))])
}

pub(super) fn upstream_options_proto(
    connection: &ConnectionOptions,
) -> Option<proto::UpstreamConnectionOptions> {
    connection.tcp_keepalive.map(|keepalive| proto::UpstreamConnectionOptions {
        tcp_keepalive: Some(tcp_keepalive_proto(&keepalive)),
        ..Default::default()
    })
}

fn tcp_keepalive_proto(keepalive: &TcpKeepalive) -> core::TcpKeepalive {
    // A part of a second is one: zero would switch it off.
    let seconds = |value: Option<Duration>| {
        let whole = value?.as_millis().div_ceil(1000).max(1);
        wire::u32_value(u32::try_from(whole).unwrap_or(u32::MAX))
    };
    core::TcpKeepalive {
        keepalive_probes: keepalive.probes.and_then(wire::u32_value),
        keepalive_time: seconds(keepalive.time),
        keepalive_interval: seconds(keepalive.interval),
    }
}
