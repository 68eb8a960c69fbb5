//! Forwarding actions, to and from protobuf.

use super::headers;
use crate::{
    field_path::{Faults, Path},
    resource::{
        ParseContext, filter, retry,
        route::{
            Destination, Forward, HashKey, HashPolicy, HeaderName, HeaderValue, Mirror, PathRewrite,
            WeightedCluster,
        },
        wire,
    },
};
use envoy_types::pb::{
    envoy::config::route::v3::{
        self as proto,
        route_action::{
            ClusterSpecifier, HashPolicy as HashPolicyProto, HostRewriteSpecifier, MaxStreamDuration,
            RequestMirrorPolicy, hash_policy::PolicySpecifier,
        },
        weighted_cluster::{ClusterWeight, cluster_weight},
    },
    google::protobuf::BoolValue,
};
use std::{num::NonZeroU32, sync::Arc};

/// gRFC A42: the one filter state that clients know.
const CHANNEL_ID: &str = "io.grpc.channel_id";

/// `Some(None)`: a way of choosing the cluster that gRPC passes over.
pub(super) fn parse(
    proto: &proto::RouteAction,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<Forward>> {
    let destination = match &proto.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if name.is_empty() => {
            faults.reject(&at.field("cluster"), "must not be empty")
        }
        Some(ClusterSpecifier::Cluster(name)) => Some(Destination::Cluster(name.as_str().into())),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            self::weighted(weighted, context, &at.field("weighted_clusters"), faults)
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(name)) => faults.reject(
            &at.field("cluster_specifier_plugin"),
            format!("`{name}`: cluster specifier plugins are not supported by this version"),
        ),
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => faults.reject(
            &at.field("inline_cluster_specifier_plugin"),
            "cluster specifier plugins are not supported by this version",
        ),
        Some(ClusterSpecifier::ClusterHeader(_)) | None => return Some(None),
    };
    let retry = match &proto.retry_policy {
        Some(policy) => {
            retry::wire::parse(policy, &at.field("retry_policy"), faults).map(|policy| Some(Arc::new(policy)))
        }
        None => Some(None),
    };
    let none = MaxStreamDuration::default();
    let limits = proto.max_stream_duration.as_ref().unwrap_or(&none);
    let limits_at = at.field("max_stream_duration");
    let (authority, auto_host_rewrite) = authority(proto, context, at, faults);
    let hash = wire::every(&proto.hash_policy, &at.field("hash_policy"), faults, hash_policy);
    let mirrors =
        wire::every(&proto.request_mirror_policies, &at.field("request_mirror_policies"), faults, mirror);
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
        retry: retry?,
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
        _ => (None, false),
    }
}

fn host_value(host: &str, at: &Path<'_>, faults: &mut Faults) -> Option<HeaderValue> {
    match host.parse::<http::uri::Authority>() {
        Ok(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        Err(error) => faults.reject(at, format!("`{host}` is not an authority: {error}")),
    }
}

fn path_rewrite(
    proto: &proto::RouteAction,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<PathRewrite>> {
    if proto.path_rewrite_policy.is_some() || !proto.path_rewrite.is_empty() {
        return faults
            .reject(&at.field("path_rewrite"), "is not supported; use prefix_rewrite or regex_rewrite");
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

/// Entries of weight 0 are dropped; what remains must be something, and its sum a `u32`.
fn weighted(
    proto: &proto::WeightedCluster,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Destination> {
    let list = at.field("clusters");
    let clusters = wire::every(&proto.clusters, &list, faults, |cluster, at, faults| {
        weight(cluster, context, at, faults)
    })?;
    let clusters: Vec<_> = clusters.into_iter().flatten().collect();
    let sum: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight.get())).sum();
    if sum == 0 {
        return faults.reject(&list, "the weights sum to 0");
    }
    if sum > u64::from(u32::MAX) {
        return faults.reject(&list, "the weights sum to more than 4294967295");
    }
    Some(Destination::Weighted(clusters))
}

/// `Some(None)`: of weight 0.
fn weight(
    proto: &ClusterWeight,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<WeightedCluster>> {
    if proto.name.is_empty() {
        faults.reject::<()>(&at.field("name"), "is required");
    }
    let overrides =
        filter::wire::overrides(&proto.typed_per_filter_config, &at.field("typed_per_filter_config"), faults);
    let headers = headers::parse(headers::protos!(proto), at, faults);
    let authority = match &proto.host_rewrite_specifier {
        Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) if context.trusted => {
            host_value(host, &at.field("host_rewrite_literal"), faults)
        }
        _ => None,
    };
    let (overrides, headers) = (overrides?, headers?);
    let weight = NonZeroU32::new(proto.weight.as_ref().map_or(0, |weight| weight.value));
    Some(weight.map(|weight| WeightedCluster {
        cluster: proto.name.as_str().into(),
        weight,
        headers,
        overrides,
        authority,
    }))
}

/// `Some(None)`: a kind that produces no hash in gRPC (A42).
fn hash_policy(proto: &HashPolicyProto, at: &Path<'_>, faults: &mut Faults) -> Option<Option<HashPolicy>> {
    let key = match &proto.policy_specifier {
        // gRPC sees no pseudo headers (A42).
        Some(PolicySpecifier::Header(header)) if header.header_name.starts_with(':') => return Some(None),
        Some(PolicySpecifier::Header(header)) => {
            let at = at.field("header");
            let name = HeaderName::try_from(header.header_name.as_str());
            let name = name.map_err(|_| format!("`{}` is not a header name", header.header_name));
            let name = faults.take(&at.field("header_name"), name);
            let rewrite = match &header.regex_rewrite {
                Some(rewrite) => Some(wire::regex_rewrite(rewrite, &at.field("regex_rewrite"), faults)?),
                None => None,
            };
            HashKey::Header { name: name?, rewrite }
        }
        Some(PolicySpecifier::FilterState(state)) if state.key == CHANNEL_ID => HashKey::ChannelId,
        _ => return Some(None),
    };
    Some(Some(HashPolicy { key, terminal: proto.terminal }))
}

fn mirror(proto: &RequestMirrorPolicy, at: &Path<'_>, faults: &mut Faults) -> Option<Mirror> {
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
    Some(Mirror { cluster: proto.cluster.as_str().into(), fraction })
}

pub(super) fn encode(forward: &Forward) -> proto::RouteAction {
    let limits = MaxStreamDuration {
        max_stream_duration: forward.max_stream_duration.map(wire::duration_proto),
        grpc_timeout_header_max: forward.grpc_timeout_header_max.map(wire::duration_proto),
        ..Default::default()
    };
    let mut action = proto::RouteAction {
        cluster_specifier: Some(match &forward.destination {
            Destination::Cluster(name) => ClusterSpecifier::Cluster(name.to_string()),
            Destination::Weighted(clusters) => ClusterSpecifier::WeightedClusters(proto::WeightedCluster {
                clusters: clusters.iter().map(encode_weight).collect(),
                ..Default::default()
            }),
        }),
        timeout: forward.timeout.map(wire::duration_proto),
        max_stream_duration: (limits != MaxStreamDuration::default()).then_some(limits),
        retry_policy: forward.retry.as_deref().map(retry::wire::encode),
        hash_policy: forward.hash.iter().map(encode_hash).collect(),
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
                // Istio's default: the copy goes to the same host name.
                disable_shadow_host_suffix_append: true,
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

fn encode_weight(cluster: &WeightedCluster) -> ClusterWeight {
    let headers = headers::encode(&cluster.headers);
    ClusterWeight {
        name: cluster.cluster.to_string(),
        weight: wire::u32_value(cluster.weight.get()),
        request_headers_to_add: headers.request_add,
        request_headers_to_remove: headers.request_remove,
        response_headers_to_add: headers.response_add,
        response_headers_to_remove: headers.response_remove,
        typed_per_filter_config: filter::wire::encode_overrides(&cluster.overrides),
        host_rewrite_specifier: cluster.authority.as_ref().map(|host| {
            let host = String::from_utf8_lossy(host.as_bytes()).into();
            cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)
        }),
        ..Default::default()
    }
}

fn encode_hash(policy: &HashPolicy) -> HashPolicyProto {
    use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{FilterState, Header};
    HashPolicyProto {
        terminal: policy.terminal,
        policy_specifier: Some(match &policy.key {
            HashKey::Header { name, rewrite } => PolicySpecifier::Header(Header {
                header_name: name.to_string(),
                regex_rewrite: rewrite.as_ref().map(wire::regex_rewrite_proto),
            }),
            HashKey::ChannelId => PolicySpecifier::FilterState(FilterState { key: CHANNEL_ID.into() }),
        }),
    }
}
