//! Which cluster a request goes to, to and from protobuf.

use super::{Scope, action::host_value, headers};
use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature, filter,
        route::{Destination, HeaderName, WeightedCluster},
        wire,
    },
};
use envoy_types::pb::envoy::config::route::v3::{
    self as proto,
    route_action::ClusterSpecifier,
    weighted_cluster::{ClusterWeight, RandomValueSpecifier, cluster_weight},
};
use std::num::NonZeroU32;

/// `Some(None)`: a way of choosing the cluster that gRPC passes over.
pub(super) fn parse(
    proto: &proto::RouteAction,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<Destination>> {
    Some(Some(match &proto.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if name.is_empty() => {
            return faults.reject(&at.field("cluster"), "must not be empty");
        }
        Some(ClusterSpecifier::Cluster(name)) => Destination::Cluster(name.as_str().into()),
        Some(ClusterSpecifier::WeightedClusters(proto)) => {
            weighted(proto, scope, &at.field("weighted_clusters"), faults)?
        }
        Some(ClusterSpecifier::ClusterHeader(name)) if scope.context.support.has(Feature::ClusterHeader) => {
            let header = HeaderName::try_from(name.as_str());
            let header = header.map_err(|_| format!("`{name}` is not a header name"));
            Destination::Header(faults.take(&at.field("cluster_header"), header)?)
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(name)) => {
            if scope.plugins.contains(name.as_str()) {
                return Some(None);
            }
            let reason = format!("`{name}` is not declared in cluster_specifier_plugins");
            return faults.reject(&at.field("cluster_specifier_plugin"), reason);
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(proto)) => {
            plugin(proto, &at.field("inline_cluster_specifier_plugin"), faults)?;
            return Some(None);
        }
        Some(ClusterSpecifier::ClusterHeader(_)) | None => return Some(None),
    }))
}

/// The name of a plugin that may be left out. None is known here: one that is not optional is refused.
pub(super) fn plugin<'p>(
    proto: &'p proto::ClusterSpecifierPlugin,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<&'p str> {
    let at = at.field("extension");
    let extension = faults.required(&at, &proto.extension)?;
    let config_at = at.field("typed_config");
    let config = faults.required(&config_at, &extension.typed_config)?;
    if extension.name.is_empty() {
        return faults.reject(&at.field("name"), "is required");
    }
    if !proto.is_optional {
        let reason =
            format!("cluster specifier plugin type {} is not supported, and not optional", config.type_url);
        return faults.reject(&config_at, reason);
    }
    Some(&extension.name)
}

/// Entries of weight 0 are dropped; what remains must be something, and its sum a `u32`.
fn weighted(
    proto: &proto::WeightedCluster,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Destination> {
    let unsupported = match &proto.random_value_specifier {
        Some(RandomValueSpecifier::HeaderName(_)) => Some("header_name"),
        Some(RandomValueSpecifier::UseHashPolicy(used)) if used.value => Some("use_hash_policy"),
        Some(RandomValueSpecifier::UseHashPolicy(_)) | None => None,
    };
    if let Some(field) = unsupported {
        faults.reject::<()>(&at.field(field), "is not supported: the cluster is drawn at random");
    }
    let list = at.field("clusters");
    let clusters = wire::every(&proto.clusters, &list, faults, |cluster, at, faults| {
        weight(cluster, scope, at, faults)
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
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<WeightedCluster>> {
    for (unsupported, field) in [
        (!proto.cluster_header.is_empty(), "cluster_header"),
        (proto.metadata_match.is_some(), "metadata_match"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
    if proto.name.is_empty() {
        faults.reject::<()>(&at.field("name"), "is required");
    }
    let overrides = filter::wire::overrides(&proto.typed_per_filter_config, scope.context, at, faults);
    let headers = headers::parse(headers::protos!(proto), at, faults);
    let authority = match &proto.host_rewrite_specifier {
        Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) if scope.context.trusted => {
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

pub(super) fn encode(destination: &Destination) -> ClusterSpecifier {
    match destination {
        Destination::Cluster(name) => ClusterSpecifier::Cluster(name.to_string()),
        Destination::Header(name) => ClusterSpecifier::ClusterHeader(name.to_string()),
        Destination::Weighted(clusters) => ClusterSpecifier::WeightedClusters(proto::WeightedCluster {
            clusters: clusters.iter().map(encode_weight).collect(),
            ..Default::default()
        }),
    }
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
