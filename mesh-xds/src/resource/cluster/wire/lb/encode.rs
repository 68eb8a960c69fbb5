//! Policies as a list that every kind of client reads as it should.

use crate::resource::{
    cluster::{
        Cluster, Discovery, LbOptions, LbPolicy, LocalityLb, OverrideHostStatus, RingHash, SubsetScope,
        Subsetting, wire::percent_proto,
    },
    endpoint, wire,
};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{LoadBalancingPolicy, load_balancing_policy::Policy},
            core::v3::{HealthStatusSet, RuntimeDouble, TypedExtensionConfig},
        },
        extensions::load_balancing_policies::{
            client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin as WeightedProto,
            cluster_provided::v3::ClusterProvided,
            common::v3::{
                ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig,
                locality_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig},
            },
            least_request::v3::LeastRequest,
            maglev::v3::Maglev as MaglevProto,
            pick_first::v3::PickFirst,
            random::v3::Random,
            random_subsetting::v3::RandomSubsetting,
            ring_hash::v3::{RingHash as RingHashProto, ring_hash::HashFunction},
            round_robin::v3::RoundRobin,
            wrr_locality::v3::WrrLocality,
        },
    },
    google::protobuf::{Any, BoolValue, FloatValue, UInt64Value},
};
use std::time::Duration;

pub(in crate::resource::cluster::wire) fn override_host_status_proto(
    status: OverrideHostStatus,
) -> Option<HealthStatusSet> {
    (status != OverrideHostStatus::default()).then(|| HealthStatusSet {
        statuses: status.iter().map(|status| endpoint::wire::health_proto(status).into()).collect(),
    })
}

/// The policy, then one for whoever does not know it (the first known one is taken, gRFC A52). The older enum
/// stays ROUND_ROBIN: a client without the list that does not know another value would reject the cluster.
///
/// Round robin, least request and random stand at the top, not in a locality wrapper: C-core knows neither least
/// request nor random there and takes the second entry; an Envoy takes the first, and rejects a wrapper around
/// them.
pub(in crate::resource::cluster::wire) fn encode(cluster: &Cluster) -> Option<LoadBalancingPolicy> {
    let fallback = || {
        let round_robin = list([wire::any(&RoundRobin::default())]);
        wire::any(&WrrLocality { endpoint_picking_policy: Some(round_robin) })
    };
    if matches!(cluster.discovery, Discovery::Aggregate(_)) {
        // Envoy wants to be told; gRPC has no such policy, and does not use the one that it takes.
        return Some(list([wire::any(&ClusterProvided {}), fallback()]));
    }
    let (lb, options) = (&cluster.lb, &cluster.lb_options);
    let plain = LbOptions { override_host_status: options.override_host_status, ..LbOptions::default() };
    if *lb == LbPolicy::RoundRobin && *options == plain {
        // What everybody does by default.
        return None;
    }
    let wrapped = |child: Any| wire::any(&WrrLocality { endpoint_picking_policy: Some(list([child])) });
    let says_localities =
        matches!(lb, LbPolicy::RoundRobin | LbPolicy::LeastRequest { .. } | LbPolicy::Random);
    let weighted = options.localities == LocalityLb::Weighted;
    let policy = match options.subsetting {
        None if weighted && !says_localities => wrapped(leaf(lb, options, LocalityLb::Flat)),
        None => leaf(lb, options, options.localities),
        Some(Subsetting { size, scope }) => {
            let subset = |child: Any| {
                wire::any(&RandomSubsetting {
                    subset_size: wire::u32_value(size.get()),
                    child_policy: Some(list([child])),
                })
            };
            match (scope, weighted) {
                (SubsetScope::Locality, _) => wrapped(subset(leaf(lb, options, LocalityLb::Flat))),
                (SubsetScope::Priority, true) => subset(wrapped(leaf(lb, options, LocalityLb::Flat))),
                (SubsetScope::Priority, false) => subset(leaf(lb, options, options.localities)),
            }
        }
    };
    let fallback = match lb {
        // Envoy has no such policy.
        LbPolicy::PickFirst { .. } => wire::any(&RoundRobin {
            locality_lb_config: locality_proto(LocalityLb::Weighted),
            ..RoundRobin::default()
        }),
        _ => fallback(),
    };
    Some(list([policy, fallback]))
}

fn leaf(lb: &LbPolicy, options: &LbOptions, localities: LocalityLb) -> Any {
    let locality_lb_config = locality_proto(localities);
    let slow_start_config = options.slow_start.map(|slow| SlowStartConfig {
        slow_start_window: Some(wire::duration_proto(slow.window)),
        aggression: Some(double(slow.aggression)),
        min_weight_percent: Some(percent_proto(slow.min_weight)),
    });
    let hashing = |use_hostname_for_hashing: bool| {
        use_hostname_for_hashing
            .then(|| ConsistentHashingLbConfig { use_hostname_for_hashing, ..Default::default() })
    };
    match lb {
        LbPolicy::RoundRobin => wire::any(&RoundRobin { slow_start_config, locality_lb_config }),
        LbPolicy::LeastRequest { choices, active_request_bias } => {
            #[expect(clippy::float_cmp, reason = "the default, bit by bit")]
            let default = *active_request_bias == 1.0;
            wire::any(&LeastRequest {
                choice_count: wire::u32_value(*choices),
                active_request_bias: (!default).then(|| double(*active_request_bias)),
                slow_start_config,
                locality_lb_config,
                ..LeastRequest::default()
            })
        }
        LbPolicy::Random => wire::any(&Random { locality_lb_config }),
        LbPolicy::PickFirst { shuffle } => wire::any(&PickFirst { shuffle_address_list: *shuffle }),
        LbPolicy::RingHash(ring) => wire::any(&RingHashProto {
            hash_function: HashFunction::XxHash.into(),
            // Left out where they are the default: grpc-js cannot read 64-bit numbers here, and rejects the cluster.
            minimum_ring_size: (ring.min_size != RingHash::default().min_size)
                .then(|| UInt64Value { value: ring.min_size.into() }),
            maximum_ring_size: (ring.max_size != RingHash::default().max_size)
                .then(|| UInt64Value { value: ring.max_size.into() }),
            consistent_hashing_lb_config: hashing(ring.use_hostname),
            locality_weighted_lb_config: Some(LocalityWeightedLbConfig {}),
            ..RingHashProto::default()
        }),
        LbPolicy::Maglev(maglev) => wire::any(&MaglevProto {
            table_size: Some(UInt64Value { value: maglev.table_size.into() }),
            consistent_hashing_lb_config: hashing(maglev.use_hostname),
            locality_weighted_lb_config: Some(LocalityWeightedLbConfig {}),
        }),
        LbPolicy::ClientSideWeightedRoundRobin(weighted) => {
            let time = |value: Duration| Some(wire::duration_proto(value));
            wire::any(&WeightedProto {
                enable_oob_load_report: weighted.out_of_band.map(|_| BoolValue { value: true }),
                oob_reporting_period: weighted.out_of_band.and_then(time),
                blackout_period: time(weighted.blackout_period),
                weight_expiration_period: time(weighted.weight_expiration_period),
                weight_update_period: time(weighted.weight_update_period),
                error_utilization_penalty: Some(FloatValue { value: weighted.error_utilization_penalty }),
                metric_names_for_computing_utilization: weighted
                    .utilization
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                slow_start_config,
                ..WeightedProto::default()
            })
        }
    }
}

fn locality_proto(localities: LocalityLb) -> Option<LocalityLbConfig> {
    let specifier = match localities {
        LocalityLb::Flat => return None,
        LocalityLb::Weighted => {
            LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})
        }
        LocalityLb::ZoneAware(zone) => LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig {
            routing_enabled: Some(percent_proto(zone.routing_enabled)),
            min_cluster_size: Some(UInt64Value { value: zone.min_cluster_size }),
            fail_traffic_on_panic: zone.fail_traffic_on_panic,
            ..ZoneAwareLbConfig::default()
        }),
    };
    Some(LocalityLbConfig { locality_config_specifier: Some(specifier) })
}

fn double(value: f64) -> RuntimeDouble {
    RuntimeDouble { default_value: value, runtime_key: String::new() }
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
