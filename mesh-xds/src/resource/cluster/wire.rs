//! Cluster, to and from protobuf.

use super::{
    CircuitBreakers, Cluster, ConnectionOptions, Discovery, Http2Keepalive, LbPolicy, RetryBudget,
    TcpKeepalive,
};
use crate::{
    field_path::{Faults, Path},
    matcher::Fraction,
    name::{Name, ResourceType},
    resource::{
        Origin, ParseContext, Resource,
        canonical::{self, Inside, METADATA, Shape},
        cluster::outlier,
        sealed, tls, wire,
    },
};
use bytes::Bytes;
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                self as proto, LoadBalancingPolicy,
                circuit_breakers::Thresholds,
                cluster::{
                    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, common_lb_config,
                },
                load_balancing_policy::Policy,
            },
            core::v3::{self as core, RoutingPriority, TypedExtensionConfig},
        },
        extensions::{
            load_balancing_policies::{
                common::v3::{
                    LocalityLbConfig,
                    locality_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig},
                },
                least_request::v3::LeastRequest,
                pick_first::v3::PickFirst,
                random::v3::Random,
                round_robin::v3::RoundRobin,
                wrr_locality::v3::WrrLocality,
            },
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config},
            },
        },
        r#type::v3::Percent,
    },
    google::protobuf::{Any, UInt32Value},
};
use prost::{Message, Name as _};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Where Envoy looks for HTTP/2 options; gRPC clients do not.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// How deep load balancing policies may nest (gRFC A52).
const MAX_POLICY_DEPTH: usize = 16;
/// gRFC A105.
const MAX_CONNECTIONS_PER_ENDPOINT: u32 = 10;

static SHAPE: Shape = Shape(&[(25, Inside::Message(&METADATA)), (36, Inside::Map)]);

impl Resource for Cluster {
    const TYPE: ResourceType = ResourceType::Cluster;

    fn to_proto(&self) -> Bytes {
        canonical::sorted(&encode(self).encode_to_vec(), &SHAPE).into()
    }

    fn name(&self) -> &Name {
        &self.name
    }

    fn references(&self) -> Vec<(ResourceType, Name)> {
        let Discovery::Eds(service) = &self.discovery;
        vec![(ResourceType::ClusterLoadAssignment, service.clone())]
    }
}

fn encode(cluster: &Cluster) -> proto::Cluster {
    let Discovery::Eds(service) = &cluster.discovery;
    let service_name = if *service == cluster.name { String::new() } else { service.to_string() };
    let connection = &cluster.connection;
    let breakers = &cluster.circuit_breakers;
    proto::Cluster {
        name: cluster.name.to_string(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(wire::ads()), service_name }),
        connect_timeout: Some(wire::duration_proto(connection.connect_timeout)),
        load_balancing_policy: lb_policy_proto(&cluster.lb),
        circuit_breakers: Some(proto::CircuitBreakers {
            thresholds: vec![thresholds_proto(breakers)],
            per_host_thresholds: if breakers.max_connections_per_endpoint == 1 {
                Vec::new()
            } else {
                vec![Thresholds {
                    max_connections: wire::u32_value(breakers.max_connections_per_endpoint),
                    ..Default::default()
                }]
            },
        }),
        outlier_detection: cluster.outlier_detection.as_ref().map(outlier::encode),
        transport_socket: cluster.tls.as_deref().map(tls::wire::upstream_proto),
        typed_extension_protocol_options: HashMap::from([(
            HTTP_OPTIONS.to_owned(),
            wire::any(&http_options_proto(connection)),
        )]),
        // Unless told otherwise, an Envoy panics at 50 % and ignores the weights of localities.
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(percent_proto(cluster.panic_threshold.unwrap_or(Fraction::ZERO))),
            // Said by the policies themselves where there are some.
            locality_config_specifier: (cluster.lb == LbPolicy::RoundRobin).then_some(
                common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
                    common_lb_config::LocalityWeightedLbConfig {},
                ),
            ),
            ..Default::default()
        }),
        metadata: wire::own_metadata(
            cluster.origin.as_ref(),
            cluster.tls.as_ref().is_some_and(|tls| tls.only_mesh_endpoints),
        ),
        upstream_connection_options: connection.tcp_keepalive.map(|keepalive| {
            proto::UpstreamConnectionOptions {
                tcp_keepalive: Some(tcp_keepalive_proto(&keepalive)),
                ..Default::default()
            }
        }),
        ..Default::default()
    }
}

/// The policy, then one for whoever does not know it (the first known one is taken, gRFC A52). The older enum
/// stays ROUND_ROBIN: a client without the list that does not know LEAST_REQUEST would reject the cluster.
///
/// Least request and random stand at the top, not in a locality wrapper: C-core knows neither and takes the
/// second entry; an Envoy takes the first, and rejects a wrapper around them.
fn lb_policy_proto(lb: &LbPolicy) -> Option<LoadBalancingPolicy> {
    let weighted = || {
        Some(LocalityLbConfig {
            locality_config_specifier: Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(
                LocalityWeightedLbConfig {},
            )),
        })
    };
    let by_locality = || {
        wire::any(&WrrLocality { endpoint_picking_policy: Some(list([wire::any(&RoundRobin::default())])) })
    };
    let policies = match lb {
        // What everybody does by default.
        LbPolicy::RoundRobin => return None,
        LbPolicy::LeastRequest { choices } => [
            wire::any(&LeastRequest {
                choice_count: wire::u32_value(*choices),
                locality_lb_config: weighted(),
                ..Default::default()
            }),
            by_locality(),
        ],
        LbPolicy::Random => [wire::any(&Random { locality_lb_config: weighted() }), by_locality()],
        // Envoy has no such policy.
        LbPolicy::PickFirst { shuffle } => [
            wire::any(&PickFirst { shuffle_address_list: *shuffle }),
            wire::any(&RoundRobin { locality_lb_config: weighted(), ..Default::default() }),
        ],
    };
    Some(list(policies))
}

fn list<const N: usize>(policies: [Any; N]) -> LoadBalancingPolicy {
    let policies = policies.map(|typed_config| Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: typed_config.type_url.rsplit('/').next().unwrap_or_default().into(),
            typed_config: Some(typed_config),
        }),
    });
    LoadBalancingPolicy { policies: policies.into() }
}

fn thresholds_proto(breakers: &CircuitBreakers) -> Thresholds {
    let value = |limit: Option<u32>| limit.and_then(wire::u32_value);
    Thresholds {
        priority: RoutingPriority::Default.into(),
        max_requests: wire::u32_value(breakers.max_requests),
        max_pending_requests: value(breakers.max_pending_requests),
        max_connections: value(breakers.max_connections),
        max_retries: value(breakers.max_retries),
        retry_budget: breakers.retry_budget.map(|budget| proto::circuit_breakers::thresholds::RetryBudget {
            budget_percent: Some(percent_proto(budget.budget)),
            min_retry_concurrency: wire::u32_value(budget.min_retry_concurrency),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn http_options_proto(connection: &ConnectionOptions) -> HttpProtocolOptions {
    let keepalive = connection.http2_keepalive.map(|keepalive| core::KeepaliveSettings {
        interval: Some(wire::duration_proto(keepalive.interval)),
        timeout: Some(wire::duration_proto(keepalive.timeout)),
        ..Default::default()
    });
    let http2 = core::Http2ProtocolOptions {
        max_concurrent_streams: connection.max_concurrent_streams.and_then(wire::u32_value),
        connection_keepalive: keepalive,
        ..Default::default()
    };
    let max_requests = connection.max_requests_per_connection;
    HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: connection.idle_timeout.map(wire::duration_proto),
            max_connection_duration: connection.max_connection_duration.map(wire::duration_proto),
            max_requests_per_connection: (max_requests > 0).then_some(UInt32Value { value: max_requests }),
            ..Default::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(explicit_http_config::ProtocolConfig::Http2ProtocolOptions(http2)),
        })),
        ..Default::default()
    }
}

fn tcp_keepalive_proto(keepalive: &TcpKeepalive) -> core::TcpKeepalive {
    let seconds = |value: Option<Duration>| {
        value.and_then(|value| wire::u32_value(u32::try_from(value.as_secs()).unwrap_or(u32::MAX)))
    };
    core::TcpKeepalive {
        keepalive_probes: keepalive.probes.and_then(wire::u32_value),
        keepalive_time: seconds(keepalive.time),
        keepalive_interval: seconds(keepalive.interval),
    }
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
        let discovery = discovery(proto, &name, at, faults);
        let lb = lb(proto, at, faults);
        if !proto.transport_socket_matches.is_empty() {
            faults.reject::<()>(&at.field("transport_socket_matches"), "is not supported");
        }
        if proto.lrs_server.as_ref().is_some_and(|lrs| {
            !matches!(lrs.config_source_specifier, Some(core::config_source::ConfigSourceSpecifier::Self_(_)))
        }) {
            faults.reject::<()>(&at.field("lrs_server"), "must be `self`");
        }
        let auto = wire::auto_mtls(&proto.metadata);
        let tls = match &proto.transport_socket {
            Some(socket) => {
                let at = at.field("transport_socket");
                tls::wire::upstream(socket, auto, context, &at, faults).map(|tls| Some(Arc::new(tls)))
            }
            None => Some(None),
        };
        let circuit_breakers = breakers(proto, at, faults);
        let outlier_detection = match &proto.outlier_detection {
            Some(outlier) => outlier::parse(outlier, &at.field("outlier_detection"), faults).map(Some),
            None => Some(None),
        };
        let connection = connection(proto, at, faults);
        let panic = proto.common_lb_config.as_ref().and_then(|lb| lb.healthy_panic_threshold.as_ref());
        let panic_threshold = match panic {
            Some(value) => {
                percent(value, &at.field("common_lb_config.healthy_panic_threshold"), faults).map(Some)
            }
            None => Some(None),
        };
        Some(Self {
            name,
            discovery: discovery?,
            lb: lb?,
            circuit_breakers: circuit_breakers?,
            outlier_detection: outlier_detection?,
            tls: tls?,
            connection: connection?,
            // Zero is Envoy's way to say never.
            panic_threshold: panic_threshold?.filter(|threshold| *threshold != Fraction::ZERO),
            origin: wire::origin(&proto.metadata),
        })
    }
}

fn discovery(proto: &proto::Cluster, name: &Name, at: &Path<'_>, faults: &mut Faults) -> Option<Discovery> {
    let kind = match &proto.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => {
            DiscoveryType::try_from(*kind).map_or("?", |kind| kind.as_str_name())
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) => custom.name.as_str(),
        // STATIC is the default of protobuf.
        None => "STATIC",
    };
    if kind != "EDS" {
        return faults.reject(
            &at.field("type"),
            format!("cluster type {kind} is not supported by this version: use EDS"),
        );
    }
    let at = at.field("eds_cluster_config");
    let eds = faults.required(&at, &proto.eds_cluster_config)?;
    wire::require_ads(&eds.eds_config, &at.field("eds_config"), faults)?;
    if eds.service_name.is_empty() {
        if name.starts_with("xdstp:") {
            return faults.reject(&at.field("service_name"), "is required when the cluster's name is xdstp:");
        }
        return Some(Discovery::Eds(name.clone()));
    }
    Some(Discovery::Eds(eds.service_name.as_str().into()))
}

fn lb(proto: &proto::Cluster, at: &Path<'_>, faults: &mut Faults) -> Option<LbPolicy> {
    use proto::cluster::{LbConfig, LbPolicy as Enum};
    if let Some(policies) = &proto.load_balancing_policy {
        let at = at.field("load_balancing_policy");
        return match first_supported(policies, MAX_POLICY_DEPTH) {
            Ok(Some(lb)) => Some(lb),
            Ok(None) => faults.reject(&at, format!("none of its policies is supported: {}", names(policies))),
            Err(reason) => faults.reject(&at, reason),
        };
    }
    match Enum::try_from(proto.lb_policy) {
        Ok(Enum::RoundRobin) => Some(LbPolicy::RoundRobin),
        Ok(Enum::Random) => Some(LbPolicy::Random),
        Ok(Enum::LeastRequest) => {
            let at = at.field("least_request_lb_config.choice_count");
            let config = match &proto.lb_config {
                Some(LbConfig::LeastRequestLbConfig(config)) => config.choice_count.as_ref(),
                _ => None,
            };
            faults.take(&at, least_request(config))
        }
        Ok(other) => faults.reject(
            &at.field("lb_policy"),
            format!("{} is not supported by this version", other.as_str_name()),
        ),
        Err(_) => faults.reject(&at.field("lb_policy"), format!("{} is unknown", proto.lb_policy)),
    }
}

fn least_request(choices: Option<&UInt32Value>) -> Result<LbPolicy, String> {
    match choices.map_or(2, |choices| choices.value) {
        choices @ 0..=1 => Err(format!("{choices} is less than 2")),
        choices => Ok(LbPolicy::LeastRequest { choices: choices.min(10) }),
    }
}

/// The first policy of the list that is supported, looking into locality wrappers.
fn first_supported(policies: &LoadBalancingPolicy, depth: usize) -> Result<Option<LbPolicy>, String> {
    if depth == 0 {
        return Err(format!("policies nest deeper than {MAX_POLICY_DEPTH}"));
    }
    for policy in &policies.policies {
        let Some(any) =
            policy.typed_extension_config.as_ref().and_then(|config| config.typed_config.as_ref())
        else {
            continue;
        };
        if any.type_url == RoundRobin::type_url() {
            return Ok(Some(LbPolicy::RoundRobin));
        } else if any.type_url == Random::type_url() {
            return Ok(Some(LbPolicy::Random));
        } else if any.type_url == LeastRequest::type_url() {
            let config = LeastRequest::decode(&*any.value).map_err(|error| error.to_string())?;
            return least_request(config.choice_count.as_ref()).map(Some);
        } else if any.type_url == PickFirst::type_url() {
            let config = PickFirst::decode(&*any.value).map_err(|error| error.to_string())?;
            return Ok(Some(LbPolicy::PickFirst { shuffle: config.shuffle_address_list }));
        } else if any.type_url == WrrLocality::type_url() {
            let config = WrrLocality::decode(&*any.value).map_err(|error| error.to_string())?;
            let inner = config.endpoint_picking_policy.unwrap_or_default();
            if let Some(lb) = first_supported(&inner, depth - 1)? {
                return Ok(Some(lb));
            }
        }
    }
    Ok(None)
}

fn names(policies: &LoadBalancingPolicy) -> String {
    let configs = policies.policies.iter().filter_map(|policy| policy.typed_extension_config.as_ref());
    let urls = configs.filter_map(|config| config.typed_config.as_ref()).map(|any| any.type_url.as_str());
    urls.collect::<Vec<_>>().join(", ")
}

fn percent_proto(fraction: Fraction) -> Percent {
    Percent { value: f64::from(fraction.parts()) / 10_000.0 }
}

pub(super) fn percent(proto: &Percent, at: &Path<'_>, faults: &mut Faults) -> Option<Fraction> {
    if !(0.0..=100.0).contains(&proto.value) {
        return faults.reject(at, format!("{} is not between 0 and 100", proto.value));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some(Fraction::per_million((proto.value * 10_000.0).round() as u32))
}

fn breakers(proto: &proto::Cluster, at: &Path<'_>, faults: &mut Faults) -> Option<CircuitBreakers> {
    let Some(breakers) = &proto.circuit_breakers else { return Some(CircuitBreakers::default()) };
    let at = at.field("circuit_breakers");
    let default = |thresholds: &&Thresholds| thresholds.priority == RoutingPriority::Default as i32;
    let value = |limit: &Option<UInt32Value>| limit.as_ref().map(|limit| limit.value);
    let mut parsed = CircuitBreakers::default();
    // Only the first one of priority DEFAULT counts (gRFC A32).
    if let Some(thresholds) = breakers.thresholds.iter().find(default) {
        parsed.max_requests = value(&thresholds.max_requests).unwrap_or(parsed.max_requests);
        parsed.max_pending_requests = value(&thresholds.max_pending_requests);
        parsed.max_connections = value(&thresholds.max_connections);
        parsed.max_retries = value(&thresholds.max_retries);
        if let Some(budget) = &thresholds.retry_budget {
            let at = at.field("thresholds.retry_budget.budget_percent");
            let share = match &budget.budget_percent {
                Some(share) => percent(share, &at, faults)?,
                None => Fraction::per_million(200_000),
            };
            parsed.retry_budget = Some(RetryBudget {
                budget: share,
                min_retry_concurrency: value(&budget.min_retry_concurrency).unwrap_or(3),
            });
        }
    }
    let per_host = breakers.per_host_thresholds.iter().find(default);
    if let Some(connections) = per_host.and_then(|thresholds| value(&thresholds.max_connections)) {
        if connections == 0 {
            return faults.reject(&at.field("per_host_thresholds.max_connections"), "must not be 0");
        }
        parsed.max_connections_per_endpoint = connections.min(MAX_CONNECTIONS_PER_ENDPOINT);
    }
    Some(parsed)
}

fn connection(proto: &proto::Cluster, at: &Path<'_>, faults: &mut Faults) -> Option<ConnectionOptions> {
    let mut options = ConnectionOptions::default();
    if proto.connect_timeout.is_some() {
        let at = at.field("connect_timeout");
        options.connect_timeout = wire::positive_duration(&proto.connect_timeout, &at, faults)?;
    }
    if let Some(keepalive) = proto.upstream_connection_options.as_ref().and_then(|o| o.tcp_keepalive.as_ref())
    {
        let seconds =
            |value: &Option<UInt32Value>| value.as_ref().map(|v| Duration::from_secs(v.value.into()));
        options.tcp_keepalive = Some(TcpKeepalive {
            probes: keepalive.keepalive_probes.as_ref().map(|probes| probes.value),
            time: seconds(&keepalive.keepalive_time),
            interval: seconds(&keepalive.keepalive_interval),
        });
    }
    let list = at.field("typed_extension_protocol_options");
    let at = list.key(HTTP_OPTIONS);
    // gRFC A75 has the same message in `upstream_config`.
    let upstream = proto.upstream_config.as_ref().and_then(|config| config.typed_config.as_ref());
    let Some(any) = proto.typed_extension_protocol_options.get(HTTP_OPTIONS).or(upstream) else {
        return Some(options);
    };
    let http: HttpProtocolOptions = wire::unpack(any, &at, faults)?;
    if let Some(common) = &http.common_http_protocol_options {
        let at = at.field("common_http_protocol_options");
        options.idle_timeout =
            wire::optional_duration(&common.idle_timeout, &at.field("idle_timeout"), faults);
        options.max_connection_duration = wire::positive_duration(
            &common.max_connection_duration,
            &at.field("max_connection_duration"),
            faults,
        );
        options.max_requests_per_connection =
            common.max_requests_per_connection.as_ref().map_or(0, |max| max.value);
    }
    if let Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
        protocol_config: Some(explicit_http_config::ProtocolConfig::Http2ProtocolOptions(http2)),
    })) = &http.upstream_protocol_options
    {
        options.max_concurrent_streams = http2.max_concurrent_streams.as_ref().map(|max| max.value);
        if options.max_concurrent_streams.is_some_and(|max| max == 0 || max > i32::MAX.unsigned_abs()) {
            return faults.reject(&at.field("max_concurrent_streams"), "must be in 1..=2147483647");
        }
        if let Some(keepalive) = &http2.connection_keepalive {
            let at = at.field("connection_keepalive");
            options.http2_keepalive = Some(Http2Keepalive {
                interval: wire::positive_duration(&keepalive.interval, &at.field("interval"), faults)?,
                timeout: wire::positive_duration(&keepalive.timeout, &at.field("timeout"), faults)?,
            });
        }
    }
    Some(options)
}
