//! Cluster, to and from protobuf. One file for each part.

mod breakers;
mod connection;
mod discovery;
mod errors;
mod health;
mod lb;
mod metadata;
mod outlier;
mod socket;
pub(in crate::resource) mod tlv;

use super::{Cluster, Discovery, LbPolicy, LocalityLb, OutlierDetection};
use crate::{
    field_path::{Faults, Path},
    matcher::Fraction,
    name::{Name, ResourceType},
    resource::{
        Feature, Origin, ParseContext, Resource,
        canonical::{self, Inside, METADATA, Shape},
        endpoint, sealed, wire,
    },
};
use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::cluster::v3::{
        self as proto,
        cluster::{CommonLbConfig, common_lb_config},
    },
    r#type::v3::Percent,
};
use prost::Message;
use std::sync::Arc;

static SHAPE: Shape = Shape(&[
    (25, Inside::Message(&METADATA)),
    (33, Inside::Message(&endpoint::wire::SHAPE)),
    (36, Inside::Map),
]);

impl Resource for Cluster {
    const TYPE: ResourceType = ResourceType::Cluster;

    fn to_proto(&self) -> Bytes {
        canonical::sorted(&encode(self).encode_to_vec(), &SHAPE).into()
    }

    fn name(&self) -> &Name {
        &self.name
    }

    fn references(&self) -> Vec<(ResourceType, Name)> {
        let mut all: Vec<_> = match &self.discovery {
            Discovery::Eds(service) => vec![(ResourceType::ClusterLoadAssignment, service.clone())],
            Discovery::Aggregate(clusters) => {
                clusters.iter().map(|name| (ResourceType::Cluster, name.clone())).collect()
            }
            Discovery::Static(_) | Discovery::StrictDns(_) | Discovery::LogicalDns(_) => Vec::new(),
        };
        let secrets = self.tls.iter().flat_map(|tls| tls.secrets());
        all.extend(secrets.map(|name| (ResourceType::Secret, name.clone())));
        all
    }
}

fn encode(cluster: &Cluster) -> proto::Cluster {
    let mut message = proto::Cluster {
        name: cluster.name.to_string(),
        connect_timeout: Some(wire::duration_proto(cluster.connection.connect_timeout)),
        load_balancing_policy: lb::encode(cluster),
        circuit_breakers: Some(breakers::encode(&cluster.circuit_breakers)),
        outlier_detection: cluster.outlier_detection.as_ref().map(outlier::encode),
        health_checks: cluster.health_check.as_deref().map(health::encode).into_iter().collect(),
        transport_socket: socket::encode(
            cluster.tls.as_deref(),
            cluster.http_connect.as_ref(),
            cluster.proxy_protocol.as_ref(),
        ),
        typed_extension_protocol_options: connection::http_options_proto(
            &cluster.connection,
            cluster.outlier_detection.as_ref().and_then(|outlier| outlier.errors.as_ref()),
        ),
        // Unless told otherwise, an Envoy panics at 50 % and ignores the weights of localities.
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(percent_proto(cluster.panic_threshold.unwrap_or(Fraction::ZERO))),
            // Said by the policies themselves where there are some.
            locality_config_specifier: (cluster.lb == LbPolicy::RoundRobin
                && cluster.lb_options.localities == LocalityLb::Weighted)
                .then_some(common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
                    common_lb_config::LocalityWeightedLbConfig {},
                )),
            override_host_status: lb::override_host_status_proto(cluster.lb_options.override_host_status),
            ignore_new_hosts_until_first_hc: cluster
                .health_check
                .as_ref()
                .is_some_and(|check| check.ignore_new_until_first_check),
            ..Default::default()
        }),
        lrs_server: cluster.load_reporting.as_ref().map(|_| wire::own_server()),
        lrs_report_endpoint_metrics: cluster
            .load_reporting
            .as_ref()
            .map(metadata::reported_names)
            .unwrap_or_default(),
        metadata: metadata::encode(cluster),
        upstream_connection_options: connection::upstream_options_proto(&cluster.connection),
        ..Default::default()
    };
    discovery::encode(cluster, &mut message);
    message
}

impl sealed::Parse for Cluster {
    type Proto = proto::Cluster;

    fn proto_name(proto: &Self::Proto) -> &str {
        &proto.name
    }

    fn origin(proto: &Self::Proto) -> Option<Origin> {
        wire::origin(&proto.metadata)
    }

    fn from_message(
        proto: &Self::Proto,
        name: Name,
        context: &ParseContext,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        refuse_unsupported(proto, at, faults);
        let discovery = discovery::parse(proto, &name, context, at, faults);
        let lb = match &discovery {
            // Its leaves balance (gRFC A75), and Envoy wants CLUSTER_PROVIDED here.
            Some(Discovery::Aggregate(_)) => Some(Default::default()),
            _ => lb::parse(proto, context, at, faults),
        };
        let auto = wire::auto_mtls(&proto.metadata);
        let socket = match &proto.transport_socket {
            Some(socket) => socket::parse(socket, auto, context, &at.field("transport_socket"), faults),
            None => Some(socket::Socket::default()),
        };
        let circuit_breakers = breakers::parse(proto, context, at, faults);
        let outlier_detection = match &proto.outlier_detection {
            Some(outlier) => {
                outlier::parse(outlier, context, &at.field("outlier_detection"), faults).map(Some)
            }
            None => Some(None),
        };
        let health_check = health::parse(proto, context, at, faults);
        let connection = connection::parse(proto, context, at, faults);
        let panic = proto.common_lb_config.as_ref().and_then(|lb| lb.healthy_panic_threshold.as_ref());
        let panic_threshold = match panic {
            Some(value) => {
                percent(value, &at.field("common_lb_config.healthy_panic_threshold"), faults).map(Some)
            }
            None => Some(None),
        };
        let load_reporting = metadata::load_reporting(proto, at, faults);
        let audiences = metadata::audiences(&proto.metadata, &at.field("metadata"), faults);
        let (lb, lb_options) = lb.map(|balancing: lb::Balancing| (balancing.policy, balancing.options))?;
        let socket::Socket { tls, http_connect, proxy_protocol } = socket?;
        let connection::Parsed { options: connection, errors } = connection?;
        Some(Self {
            name,
            discovery: discovery?,
            lb,
            lb_options,
            circuit_breakers: circuit_breakers?,
            // Without detection it does not matter what an error is.
            outlier_detection: outlier_detection?.map(|outlier| OutlierDetection { errors, ..outlier }),
            health_check: health_check?.map(Arc::new),
            tls: tls.map(Arc::new),
            http_connect,
            proxy_protocol,
            connection,
            // Zero is Envoy's way to say never.
            panic_threshold: panic_threshold?.filter(|threshold| *threshold != Fraction::ZERO),
            load_reporting: load_reporting?,
            telemetry: metadata::telemetry(&proto.metadata),
            audiences: audiences?,
            origin: wire::origin(&proto.metadata),
        })
    }
}

/// What would change where calls go, or how, if it were left out.
fn refuse_unsupported(proto: &proto::Cluster, at: &Path<'_>, faults: &mut Faults) {
    let lb = proto.common_lb_config.as_ref();
    let upstream = proto.upstream_connection_options.as_ref();
    for (unsupported, field, reason) in [
        (!proto.transport_socket_matches.is_empty(), "transport_socket_matches", "is not supported"),
        (proto.transport_socket_matcher.is_some(), "transport_socket_matcher", "is not supported"),
        (
            proto.lb_subset_config.as_ref().is_some_and(|config| !config.subset_selectors.is_empty()),
            "lb_subset_config",
            "is not supported: make a cluster of each subset",
        ),
        (
            proto.upstream_bind_config.is_some(),
            "upstream_bind_config",
            "is not supported: connections come from any local address",
        ),
        (!proto.filters.is_empty(), "filters", "network filters are not supported"),
        (proto.queuing_policies.is_some(), "queuing_policies", "is not supported"),
        (
            proto.close_connections_on_host_health_failure,
            "close_connections_on_host_health_failure",
            "is not supported: calls on such connections end by themselves",
        ),
        (
            lb.is_some_and(|lb| lb.close_connections_on_host_set_change),
            "common_lb_config.close_connections_on_host_set_change",
            "is not supported: connections of endpoints that stay are kept",
        ),
        (
            upstream.is_some_and(|options| options.happy_eyeballs_config.is_some()),
            "upstream_connection_options.happy_eyeballs_config",
            "is not supported: the first address's family goes first (gRFC A61)",
        ),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), reason);
        }
    }
}

fn percent_proto(fraction: Fraction) -> Percent {
    Percent { value: f64::from(fraction.parts()) / 10_000.0 }
}

fn percent(proto: &Percent, at: &Path<'_>, faults: &mut Faults) -> Option<Fraction> {
    if !(0.0..=100.0).contains(&proto.value) {
        return faults.reject(at, format_args!("{} is not between 0 and 100", proto.value));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some(Fraction::per_million((proto.value * 10_000.0).round() as u32))
}

/// Whether what gRPC leaves out anyway is taken, because this data path has it.
fn has(context: &ParseContext, feature: Feature) -> bool {
    context.support.has(feature)
}
