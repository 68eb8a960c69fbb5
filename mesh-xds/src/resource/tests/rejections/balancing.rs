//! Load balancing of clusters (gRFC A42, A48, A52, A58, A68), from the older enum and from the list.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::{
    cluster::{good, policies},
    *,
};
use crate::resource::cluster::{
    LbOptions, LbPolicy, LocalityLb, Maglev, RingHash, SubsetScope, Subsetting, Utilization,
};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                self as pb, LoadBalancingPolicy,
                cluster::{
                    CommonLbConfig, LbConfig, LbPolicy as Enum, LeastRequestLbConfig, MaglevLbConfig,
                    RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
                    common_lb_config::{ConsistentHashingLbConfig as OldHashing, LocalityConfigSpecifier},
                    ring_hash_lb_config::HashFunction,
                },
                load_balancing_policy::Policy,
            },
            core::v3::{HealthStatus, HealthStatusSet, RuntimeDouble, TypedExtensionConfig},
        },
        extensions::load_balancing_policies::{
            client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin,
            common::v3::{
                ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig as NewSlowStart,
                locality_lb_config::{LocalityConfigSpecifier as NewSpecifier, ZoneAwareLbConfig},
            },
            least_request::v3::{LeastRequest, least_request::SelectionMethod},
            maglev::v3::Maglev as MaglevProto,
            pick_first::v3::PickFirst,
            random::v3::Random,
            random_subsetting::v3::RandomSubsetting,
            ring_hash::v3::RingHash as RingHashProto,
            round_robin::v3::RoundRobin,
            wrr_locality::v3::WrrLocality,
        },
    },
    google::protobuf::{Any, BoolValue, Duration, FloatValue, UInt32Value, UInt64Value},
};

const FIRST: &str = "load_balancing_policy.policies[0].typed_extension_config.typed_config";

fn first(rest: &str) -> &'static str {
    format!("{FIRST}{rest}").leak()
}

fn list(configs: Vec<Any>) -> LoadBalancingPolicy {
    let one = |typed_config| Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: String::new(),
            typed_config: Some(typed_config),
        }),
    };
    LoadBalancingPolicy { policies: configs.into_iter().map(one).collect() }
}

fn only<M: Message + MessageName>(message: &mut pb::Cluster, config: M) {
    message.load_balancing_policy = Some(list(vec![model::wire::any(&config)]));
}

/// Bytes that are none of the message.
fn garbled<M: MessageName>(message: &mut pb::Cluster) {
    let any = Any { type_url: M::type_url(), value: vec![0xff] };
    message.load_balancing_policy = Some(list(vec![any]));
}

fn around(inner: LoadBalancingPolicy) -> Any {
    model::wire::any(&WrrLocality { endpoint_picking_policy: Some(inner) })
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn u32_value(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn u64_value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn double(default_value: f64) -> Option<RuntimeDouble> {
    Some(RuntimeDouble { default_value, ..Default::default() })
}

fn enumerated(message: &mut pb::Cluster, policy: Enum, config: LbConfig) {
    message.lb_policy = policy.into();
    message.lb_config = Some(config);
}

fn common(message: &mut pb::Cluster) -> &mut CommonLbConfig {
    message.common_lb_config.get_or_insert_default()
}

fn ring(min: Option<u64>, max: Option<u64>) -> LbConfig {
    LbConfig::RingHashLbConfig(RingHashLbConfig {
        minimum_ring_size: min.and_then(u64_value),
        maximum_ring_size: max.and_then(u64_value),
        ..Default::default()
    })
}

fn maglev(size: u64) -> LbConfig {
    LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: u64_value(size) })
}

fn parsed(message: &pb::Cluster, context: &ParseContext) -> Cluster {
    Cluster::parse(&message.encode_to_vec(), context).unwrap()
}

#[test]
fn a_policy_of_the_enum_with_faulty_settings_is_refused() {
    refuses::<Cluster, _>(
        &good(),
        &[
            (|m| m.lb_policy = Enum::ClusterProvided.into(), "lb_policy", "aggregate clusters only"),
            (
                |m| m.lb_policy = Enum::LoadBalancingPolicyConfig.into(),
                "lb_policy",
                "needs load_balancing_policy",
            ),
            (
                |m| {
                    let config = LeastRequestLbConfig { choice_count: u32_value(1), ..Default::default() };
                    enumerated(m, Enum::LeastRequest, LbConfig::LeastRequestLbConfig(config));
                },
                "least_request_lb_config.choice_count",
                "1 is less than 2",
            ),
            (
                |m| {
                    let config =
                        LeastRequestLbConfig { active_request_bias: double(-1.0), ..Default::default() };
                    enumerated(m, Enum::LeastRequest, LbConfig::LeastRequestLbConfig(config));
                },
                "least_request_lb_config.active_request_bias",
                "at least 0",
            ),
            (
                |m| {
                    let config = RoundRobinLbConfig { slow_start_config: Some(SlowStartConfig::default()) };
                    enumerated(m, Enum::RoundRobin, LbConfig::RoundRobinLbConfig(config));
                },
                "round_robin_lb_config.slow_start_config.slow_start_window",
                "is required",
            ),
            (
                |m| {
                    let slow = SlowStartConfig {
                        slow_start_window: Some(Duration { seconds: 1, nanos: 0 }),
                        aggression: double(0.0),
                        ..Default::default()
                    };
                    let config = RoundRobinLbConfig { slow_start_config: Some(slow) };
                    enumerated(m, Enum::RoundRobin, LbConfig::RoundRobinLbConfig(config));
                },
                "round_robin_lb_config.slow_start_config.aggression",
                "not a positive number",
            ),
            (
                |m| {
                    let hash_function = HashFunction::MurmurHash2.into();
                    let config = RingHashLbConfig { hash_function, ..Default::default() };
                    enumerated(m, Enum::RingHash, LbConfig::RingHashLbConfig(config));
                },
                "ring_hash_lb_config.hash_function",
                "only XX_HASH",
            ),
            (
                |m| enumerated(m, Enum::RingHash, ring(Some(0), None)),
                "ring_hash_lb_config.minimum_ring_size",
                "0 is not in 1..=8388608",
            ),
            (
                |m| enumerated(m, Enum::RingHash, ring(None, Some(8_388_609))),
                "ring_hash_lb_config.maximum_ring_size",
                "8388609 is not in 1..=8388608",
            ),
            (
                |m| enumerated(m, Enum::RingHash, ring(None, Some(1_023))),
                "ring_hash_lb_config.minimum_ring_size",
                "1024 is more than maximum_ring_size, 1023",
            ),
            (
                |m| {
                    enumerated(m, Enum::RingHash, ring(None, None));
                    common(m).consistent_hashing_lb_config =
                        Some(OldHashing { hash_balance_factor: u32_value(150), ..Default::default() });
                },
                "common_lb_config.consistent_hashing_lb_config.hash_balance_factor",
                "bounded loads",
            ),
            (
                |m| enumerated(m, Enum::Maglev, maglev(65_536)),
                "maglev_lb_config.table_size",
                "65536 is not a prime number",
            ),
            (
                |m| enumerated(m, Enum::Maglev, maglev(5_000_077)),
                "maglev_lb_config.table_size",
                "at most 5000011",
            ),
            (
                |m| {
                    let zone = pb::cluster::common_lb_config::ZoneAwareLbConfig {
                        routing_enabled: Some(envoy_types::pb::envoy::r#type::v3::Percent { value: 101.0 }),
                        ..Default::default()
                    };
                    common(m).locality_config_specifier =
                        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone));
                },
                "common_lb_config.zone_aware_lb_config.routing_enabled",
                "not between 0 and 100",
            ),
        ],
    );
}

#[test]
fn the_first_supported_policy_of_the_list_must_be_right() {
    refuses::<Cluster, _>(
        &good(),
        &[
            (|m| policies(m, &["type.googleapis.com/x.Y"]), "load_balancing_policy", "none of its policies"),
            (
                |m| {
                    let url = <LeastRequest as MessageName>::type_url();
                    m.load_balancing_policy = Some(list(vec![Any { type_url: url, value: vec![0xff] }]));
                },
                FIRST,
                "failed to decode",
            ),
            (|m| garbled::<WrrLocality>(m), FIRST, "failed to decode"),
            (|m| garbled::<RandomSubsetting>(m), FIRST, "failed to decode"),
            (|m| garbled::<RoundRobin>(m), FIRST, "failed to decode"),
            (|m| garbled::<Random>(m), FIRST, "failed to decode"),
            (|m| garbled::<PickFirst>(m), FIRST, "failed to decode"),
            (|m| garbled::<RingHashProto>(m), FIRST, "failed to decode"),
            (|m| garbled::<MaglevProto>(m), FIRST, "failed to decode"),
            (|m| garbled::<ClientSideWeightedRoundRobin>(m), FIRST, "failed to decode"),
            (
                |m| {
                    let enable_full_scan = Some(BoolValue { value: true });
                    only(m, LeastRequest { enable_full_scan, ..Default::default() });
                },
                first(".enable_full_scan"),
                "not supported",
            ),
            (
                |m| {
                    let zone =
                        ZoneAwareLbConfig { force_locality_direct_routing: true, ..Default::default() };
                    let specifier = NewSpecifier::ZoneAwareLbConfig(zone);
                    let localities = LocalityLbConfig { locality_config_specifier: Some(specifier) };
                    only(m, RoundRobin { locality_lb_config: Some(localities), ..Default::default() });
                },
                first(".locality_lb_config.zone_aware_lb_config.force_locality_direct_routing"),
                "not supported",
            ),
            (
                |m| {
                    let slow_start_window = Some(Duration::default());
                    let slow = NewSlowStart { slow_start_window, ..Default::default() };
                    only(m, RoundRobin { slow_start_config: Some(slow), ..Default::default() });
                },
                first(".slow_start_config.slow_start_window"),
                "greater than zero",
            ),
            (
                |m| {
                    let share = envoy_types::pb::envoy::r#type::v3::Percent { value: -1.0 };
                    let slow = NewSlowStart {
                        slow_start_window: Some(Duration { seconds: 1, nanos: 0 }),
                        min_weight_percent: Some(share),
                        ..Default::default()
                    };
                    only(m, RoundRobin { slow_start_config: Some(slow), ..Default::default() });
                },
                first(".slow_start_config.min_weight_percent"),
                "not between 0 and 100",
            ),
            (
                |m| {
                    let hashing = ConsistentHashingLbConfig {
                        hash_balance_factor: u32_value(150),
                        ..Default::default()
                    };
                    only(
                        m,
                        RingHashProto { consistent_hashing_lb_config: Some(hashing), ..Default::default() },
                    );
                },
                first(".consistent_hashing_lb_config.hash_balance_factor"),
                "bounded loads",
            ),
            (
                |m| {
                    let oob_reporting_config = Some(Default::default());
                    only(m, ClientSideWeightedRoundRobin { oob_reporting_config, ..Default::default() });
                },
                first(".oob_reporting_config"),
                "reports come from the endpoint itself",
            ),
            (
                |m| only(m, LeastRequest { choice_count: u32_value(0), ..Default::default() }),
                first(".choice_count"),
                "0 is less than 2",
            ),
            (
                |m| {
                    let selection_method = SelectionMethod::FullScan.into();
                    only(m, LeastRequest { selection_method, ..Default::default() });
                },
                first(".selection_method"),
                "FULL_SCAN",
            ),
            (
                |m| only(m, RingHashProto { hash_function: 2, ..Default::default() }),
                first(".hash_function"),
                "only XX_HASH",
            ),
            (
                |m| only(m, RingHashProto { hash_balance_factor: u32_value(150), ..Default::default() }),
                first(".hash_balance_factor"),
                "bounded loads",
            ),
            (
                |m| {
                    let hashing = ConsistentHashingLbConfig {
                        hash_policy: vec![Default::default()],
                        ..Default::default()
                    };
                    only(
                        m,
                        MaglevProto { consistent_hashing_lb_config: Some(hashing), ..Default::default() },
                    );
                },
                first(".consistent_hashing_lb_config.hash_policy"),
                "hash at the route",
            ),
            (
                |m| only(m, MaglevProto { table_size: u64_value(1), ..Default::default() }),
                first(".table_size"),
                "1 is not a prime",
            ),
            (
                |m| {
                    only(
                        m,
                        ClientSideWeightedRoundRobin {
                            error_utilization_penalty: Some(FloatValue { value: -0.5 }),
                            ..Default::default()
                        },
                    );
                },
                first(".error_utilization_penalty"),
                "at least 0",
            ),
            (
                |m| {
                    only(
                        m,
                        ClientSideWeightedRoundRobin {
                            blackout_period: Some(Duration { seconds: -1, nanos: 0 }),
                            ..Default::default()
                        },
                    );
                },
                first(".blackout_period"),
                "not a valid duration",
            ),
            (|m| only(m, RandomSubsetting::default()), first(".subset_size"), "is required"),
            (
                |m| only(m, RandomSubsetting { subset_size: u32_value(0), ..Default::default() }),
                first(".subset_size"),
                "must not be 0",
            ),
            (
                |m| only(m, RandomSubsetting { subset_size: u32_value(1), ..Default::default() }),
                first(".child_policy"),
                "is required",
            ),
            (|m| only(m, WrrLocality::default()), first(".endpoint_picking_policy"), "is required"),
            (
                |m| only(m, WrrLocality { endpoint_picking_policy: Some(list(vec![])) }),
                first(".endpoint_picking_policy"),
                "none of its policies is supported",
            ),
        ],
    );
}

/// `depth` wrappers around round robin, that one counted.
fn nested(depth: usize) -> LoadBalancingPolicy {
    let leaf = list(vec![model::wire::any(&RoundRobin::default())]);
    (1..depth).fold(leaf, |inner, _| list(vec![around(inner)]))
}

#[test]
fn policies_nest_sixteen_deep() {
    let mut message = good();
    message.load_balancing_policy = Some(nested(16));
    assert_eq!(parsed(&message, &context()).lb, LbPolicy::RoundRobin);
    message.load_balancing_policy = Some(nested(17));
    let error = Cluster::parse(&message.encode_to_vec(), &context()).unwrap_err();
    assert!(error.to_string().contains("policies nest deeper than 16"), "{error}");
}

#[test]
fn what_is_not_known_or_not_there_is_passed_over_in_the_list_and_refused_in_the_enum() {
    let mut message = good();
    let ring = RingHashProto::default();
    let unknown = Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![0xff] };
    message.load_balancing_policy =
        Some(list(vec![unknown, model::wire::any(&ring), model::wire::any(&Random::default())]));
    let with = |features: &[Feature]| ParseContext { support: Support::of(features), ..context() };
    assert_eq!(parsed(&message, &with(&[])).lb, LbPolicy::Random);
    let cluster = parsed(&message, &with(&[Feature::RingHash]));
    assert_eq!(cluster.lb, LbPolicy::RingHash(RingHash::default()));
    assert_eq!(cluster.lb_options.localities, LocalityLb::Flat, "a ring has the localities' weights in it");
    for (policy, feature, name) in
        [(Enum::RingHash, Feature::RingHash, "ring-hash"), (Enum::Maglev, Feature::Maglev, "maglev")]
    {
        let mut message = good();
        message.lb_policy = policy.into();
        let error = Cluster::parse(&message.encode_to_vec(), &with(&[])).unwrap_err();
        assert_eq!(error.rejected.faults[0].path, "lb_policy");
        assert!(error.to_string().contains(&format!("this client does not have {name}")), "{error}");
        let lb = parsed(&message, &with(&[feature])).lb;
        assert!(
            lb == LbPolicy::RingHash(RingHash::default()) || lb == LbPolicy::Maglev(Maglev::default()),
            "{lb:?}"
        );
    }
}

#[test]
fn a_locality_is_drawn_where_somebody_says_so() {
    let weighted = LocalityLbConfig {
        locality_config_specifier: Some(NewSpecifier::LocalityWeightedLbConfig(Default::default())),
    };
    let round_robin =
        |locality_lb_config| model::wire::any(&RoundRobin { locality_lb_config, ..Default::default() });
    let wrapped = around(list(vec![round_robin(None)]));
    for (config, expected) in [
        (None, LocalityLb::Weighted),
        (Some(round_robin(None)), LocalityLb::Flat),
        (Some(round_robin(Some(weighted))), LocalityLb::Weighted),
        (Some(wrapped), LocalityLb::Weighted),
    ] {
        let mut message = good();
        message.load_balancing_policy = config.map(|config| list(vec![config]));
        assert_eq!(parsed(&message, &context()).lb_options.localities, expected);
    }
}

#[test]
fn a_subset_is_taken_of_all_or_of_each_locality() {
    let subset = |child: Any| {
        let subset_size = u32_value(3);
        model::wire::any(&RandomSubsetting { subset_size, child_policy: Some(list(vec![child])) })
    };
    let round_robin = || model::wire::any(&RoundRobin::default());
    let wrapped = |inner: Any| around(list(vec![inner]));
    for (config, localities, scope) in [
        (subset(round_robin()), LocalityLb::Flat, SubsetScope::Priority),
        (subset(wrapped(round_robin())), LocalityLb::Weighted, SubsetScope::Priority),
        (wrapped(subset(round_robin())), LocalityLb::Weighted, SubsetScope::Locality),
    ] {
        let mut message = good();
        message.load_balancing_policy = Some(list(vec![config]));
        let subsetting = Some(Subsetting { size: 3.try_into().unwrap(), scope });
        let expected = LbOptions { localities, subsetting, ..LbOptions::default() };
        assert_eq!(parsed(&message, &context()).lb_options, expected);
    }
    let mut message = good();
    message.load_balancing_policy = Some(list(vec![subset(subset(round_robin()))]));
    let error = Cluster::parse(&message.encode_to_vec(), &context()).unwrap_err();
    assert!(error.to_string().contains("a subset of a subset is not supported"), "{error}");
}

#[test]
fn what_grpc_leaves_out_is_left_out_by_whoever_does_not_have_it() {
    let mut message = good();
    let slow =
        SlowStartConfig { slow_start_window: Some(Duration { seconds: 60, nanos: 0 }), ..Default::default() };
    let config = LeastRequestLbConfig {
        active_request_bias: double(0.5),
        slow_start_config: Some(slow),
        ..Default::default()
    };
    enumerated(&mut message, Enum::LeastRequest, LbConfig::LeastRequestLbConfig(config));
    let cluster = parsed(&message, &ParseContext { support: Support::NONE, ..context() });
    assert_eq!((cluster.lb, cluster.lb_options.slow_start), (LbPolicy::least_request(2), None));
    let cluster = parsed(&message, &context());
    assert_eq!(cluster.lb, LbPolicy::LeastRequest { choices: 2, active_request_bias: 0.5 });
    assert_eq!(cluster.lb_options.slow_start.unwrap().min_weight.parts(), 100_000);
}

#[test]
fn choices_update_periods_metrics_and_statuses_are_brought_into_their_range() {
    let mut message = good();
    only(&mut message, LeastRequest { choice_count: u32_value(99), ..Default::default() });
    assert_eq!(parsed(&message, &context()).lb, LbPolicy::least_request(10), "A48");
    let names = ["cpu_utilization", "named_metrics.a.b", "utilization.", "wrong", "x.y"];
    only(
        &mut message,
        ClientSideWeightedRoundRobin {
            weight_update_period: Some(Duration { seconds: 0, nanos: 1 }),
            metric_names_for_computing_utilization: names.map(String::from).into(),
            ..Default::default()
        },
    );
    let LbPolicy::ClientSideWeightedRoundRobin(weighted) = parsed(&message, &context()).lb else {
        panic!("another policy")
    };
    assert_eq!(weighted.weight_update_period, std::time::Duration::from_millis(100), "A58");
    let expected = [Utilization::Cpu, Utilization::NamedMetric("a.b".into()), Utilization::Named("".into())];
    assert_eq!(weighted.utilization, expected, "A114");
    let statuses = [HealthStatus::Draining, HealthStatus::Timeout, HealthStatus::Unhealthy];
    common(&mut message).override_host_status =
        Some(HealthStatusSet { statuses: statuses.map(Into::into).into() });
    let status = parsed(&message, &context()).lb_options.override_host_status;
    assert_eq!(status.iter().collect::<Vec<_>>(), [model::endpoint::HealthStatus::Draining], "A55");
}
