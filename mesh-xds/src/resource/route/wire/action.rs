//! Forwarding actions, to and from protobuf.

use super::{Scope, destination, hash};
use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature, ParseContext,
        retry::{self, RetryPolicy},
        route::{Forward, HeaderValue, Mirror, PathRewrite, RoutingPriority},
        wire,
    },
};
use envoy_types::pb::{
    envoy::config::{
        core::v3::RoutingPriority as ProtoPriority,
        route::v3::{
            self as proto,
            route_action::{HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy},
        },
    },
    google::protobuf::{Any, BoolValue},
};
use std::sync::Arc;

/// `Some(None)`: a way of choosing the cluster that gRPC passes over.
pub(super) fn parse(
    proto: &proto::RouteAction,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<Forward>> {
    let destination = match destination::parse(proto, scope, at, faults) {
        Some(None) => return Some(None),
        Some(Some(destination)) => Some(destination),
        None => None,
    };
    if proto.metadata_match.is_some() {
        let reason = "is not supported: endpoints are not chosen by metadata";
        faults.reject::<()>(&at.field("metadata_match"), reason);
    }
    let retry = retry_policy(&proto.retry_policy, &proto.retry_policy_typed_config, at, faults);
    let hedge = retry::wire::hedge(&proto.hedge_policy, scope.context, at, faults);
    let priority = match ProtoPriority::try_from(proto.priority) {
        // gRPC has one priority (A32).
        _ if !scope.context.support.has(Feature::HighPriority) => Some(RoutingPriority::Default),
        Ok(ProtoPriority::Default) => Some(RoutingPriority::Default),
        Ok(ProtoPriority::High) => Some(RoutingPriority::High),
        Err(_) => faults.reject(&at.field("priority"), format_args!("{} is unknown", proto.priority)),
    };
    let none = MaxStreamDuration::default();
    let limits = proto.max_stream_duration.as_ref().unwrap_or(&none);
    let limits_at = at.field("max_stream_duration");
    let (authority, auto_host_rewrite) = authority(proto, scope.context, at, faults);
    let hash = wire::every(&proto.hash_policy, &at.field("hash_policy"), faults, |policy, at, faults| {
        hash::parse(policy, scope.context, at, faults)
    });
    let mut mirrors = mirrors(&proto.request_mirror_policies, at, faults);
    if proto.request_mirror_policies.is_empty() {
        mirrors = Some(scope.mirrors.to_vec());
    }
    Some(Some(Forward {
        destination: destination?,
        timeout: wire::optional_duration(&proto.timeout, &at.field("timeout"), faults),
        max_stream_duration: wire::optional_duration(
            &limits.max_stream_duration,
            &limits_at.field("max_stream_duration"),
            faults,
        ),
        grpc_timeout_header_max: wire::optional_duration(
            &limits.grpc_timeout_header_max,
            &limits_at.field("grpc_timeout_header_max"),
            faults,
        ),
        priority: priority?,
        retry: retry?,
        hedge: hedge?,
        hash: hash?.into_iter().flatten().collect(),
        authority,
        auto_host_rewrite,
        path_rewrite: path_rewrite(proto, at, faults)?,
        mirrors: mirrors?,
    }))
}

/// Only a trusted control plane may change what a server is called (gRFC A81); from another, gRPC ignores it.
fn authority(
    proto: &proto::RouteAction,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> (Option<HeaderValue>, bool) {
    match &proto.host_rewrite_specifier {
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if context.trusted => {
            (host_value(host, &at.field("host_rewrite_literal"), faults), false)
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) if context.trusted => (None, auto.value),
        Some(other) if context.trusted => {
            let field = match other {
                HostRewriteSpecifier::HostRewriteHeader(_) => "host_rewrite_header",
                HostRewriteSpecifier::HostRewritePathRegex(_) => "host_rewrite_path_regex",
                _ => "host_rewrite",
            };
            let reason = "is not supported; use host_rewrite_literal or auto_host_rewrite";
            faults.reject::<()>(&at.field(field), reason);
            (None, false)
        }
        _ => (None, false),
    }
}

pub(super) fn host_value(host: &str, at: &Path<'_>, faults: &mut Faults) -> Option<HeaderValue> {
    match host.parse::<http::uri::Authority>() {
        Ok(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        Err(error) => faults.reject(at, format_args!("`{host}` is not an authority: {error}")),
    }
}

fn path_rewrite(
    proto: &proto::RouteAction,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<PathRewrite>> {
    for (unsupported, field) in [
        (proto.path_rewrite_policy.is_some(), "path_rewrite_policy"),
        (!proto.path_rewrite.is_empty(), "path_rewrite"),
    ] {
        if unsupported {
            return faults.reject(&at.field(field), "is not supported; use prefix_rewrite or regex_rewrite");
        }
    }
    match (&proto.regex_rewrite, proto.prefix_rewrite.as_str()) {
        (Some(_), prefix) if !prefix.is_empty() => {
            faults.reject(&at.field("prefix_rewrite"), "excludes regex_rewrite")
        }
        (Some(rewrite), _) => {
            let rewrite = wire::regex_rewrite(rewrite, &at.field("regex_rewrite"), faults)?;
            Some(Some(PathRewrite::Regex(rewrite)))
        }
        (None, "") => Some(None),
        (None, prefix) => Some(Some(PathRewrite::Prefix(prefix.into()))),
    }
}

/// `retry_policy` of a route or virtual host.
pub(super) fn retry_policy(
    proto: &Option<proto::RetryPolicy>,
    typed: &Option<Any>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<Arc<RetryPolicy>>> {
    if typed.is_some() {
        let reason = "is not supported; use retry_policy";
        return faults.reject(&at.field("retry_policy_typed_config"), reason);
    }
    match proto {
        Some(policy) => {
            retry::wire::parse(policy, &at.field("retry_policy"), faults).map(|policy| Some(Arc::new(policy)))
        }
        None => Some(None),
    }
}

/// `request_mirror_policies` of a route or of a level above.
pub(super) fn mirrors(
    protos: &[RequestMirrorPolicy],
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Vec<Mirror>> {
    wire::every(protos, &at.field("request_mirror_policies"), faults, mirror)
}

fn mirror(proto: &RequestMirrorPolicy, at: &Path<'_>, faults: &mut Faults) -> Option<Mirror> {
    for (unsupported, field, instead) in [
        (!proto.cluster_header.is_empty(), "cluster_header", "use cluster"),
        (
            !proto.request_headers_mutations.is_empty(),
            "request_headers_mutations",
            "the copy is as the request is sent",
        ),
        (
            !proto.host_rewrite_literal.is_empty(),
            "host_rewrite_literal",
            "the copy is as the request is sent",
        ),
    ] {
        if unsupported {
            return faults.reject(&at.field(field), format_args!("is not supported: {instead}"));
        }
    }
    if proto.cluster.is_empty() {
        return faults.reject(&at.field("cluster"), "is required");
    }
    let fraction = match &proto.runtime_fraction {
        None => crate::matcher::Fraction::ONE,
        Some(fraction) => {
            let at = at.field("runtime_fraction");
            let at = at.field("default_value");
            wire::fraction(faults.required(&at, &fraction.default_value)?, &at, faults)?
        }
    };
    let shadow_host = !proto.disable_shadow_host_suffix_append;
    Some(Mirror { cluster: proto.cluster.as_str().into(), fraction, shadow_host })
}

pub(super) fn encode(forward: &Forward) -> proto::RouteAction {
    let limits = MaxStreamDuration {
        max_stream_duration: forward.max_stream_duration.map(wire::duration_proto),
        grpc_timeout_header_max: forward.grpc_timeout_header_max.map(wire::duration_proto),
        ..Default::default()
    };
    let mut action = proto::RouteAction {
        cluster_specifier: Some(destination::encode(&forward.destination)),
        timeout: forward.timeout.map(wire::duration_proto),
        max_stream_duration: (limits != MaxStreamDuration::default()).then_some(limits),
        retry_policy: forward.retry.as_deref().map(retry::wire::encode),
        priority: match forward.priority {
            RoutingPriority::Default => ProtoPriority::Default,
            RoutingPriority::High => ProtoPriority::High,
        }
        .into(),
        hedge_policy: forward.hedge.as_ref().map(retry::wire::encode_hedge),
        hash_policy: forward.hash.iter().map(hash::encode).collect(),
        host_rewrite_specifier: match (&forward.authority, forward.auto_host_rewrite) {
            (Some(host), _) => Some(HostRewriteSpecifier::HostRewriteLiteral(
                String::from_utf8_lossy(host.as_bytes()).into(),
            )),
            (None, true) => Some(HostRewriteSpecifier::AutoHostRewrite(BoolValue { value: true })),
            (None, false) => None,
        },
        request_mirror_policies: forward
            .mirrors
            .iter()
            .map(|mirror| RequestMirrorPolicy {
                cluster: mirror.cluster.to_string(),
                runtime_fraction: Some(wire::runtime_fraction_proto(mirror.fraction)),
                disable_shadow_host_suffix_append: !mirror.shadow_host,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    match &forward.path_rewrite {
        Some(PathRewrite::Prefix(prefix)) => action.prefix_rewrite = prefix.to_string(),
        Some(PathRewrite::Regex(rewrite)) => action.regex_rewrite = Some(wire::regex_rewrite_proto(rewrite)),
        None => {}
    }
    action
}
