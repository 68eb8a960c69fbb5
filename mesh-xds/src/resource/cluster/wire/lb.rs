//! Load balancing policies, to and from protobuf (gRFC A42, A48, A52, A58, A62, A68).
//!
//! A cluster says its policy in one of two ways: the older enum with its `*_lb_config`, or a list of which the
//! first supported entry counts (A52). Entries nest; what they nest to is one policy for endpoints, one way to
//! choose a locality and at most one subset, which is what [`LbPolicy`] and [`LbOptions`] hold.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::{has, percent, percent_proto};
use crate::{
    field_path::{Faults, Path},
    matcher::Fraction,
    resource::{
        Feature, ParseContext,
        cluster::{
            ClientSideWeightedRoundRobin, Cluster, Discovery, LbOptions, LbPolicy, LocalityLb, Maglev,
            OverrideHostStatus, RingHash, SlowStart, SubsetScope, Subsetting, Utilization, ZoneAware,
        },
        endpoint, wire,
    },
};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                self as proto, LoadBalancingPolicy,
                cluster::{LbConfig, LbPolicy as Enum, common_lb_config, ring_hash_lb_config},
                load_balancing_policy::Policy,
            },
            core::v3::{HealthStatusSet, RuntimeDouble, TypedExtensionConfig},
        },
        extensions::load_balancing_policies::{
            client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin as WeightedProto,
            cluster_provided::v3::ClusterProvided,
            common::v3::{
                ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig,
                locality_lb_config::{
                    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
                    zone_aware_lb_config::LocalityBasis,
                },
            },
            least_request::v3::{LeastRequest, least_request::SelectionMethod},
            maglev::v3::Maglev as MaglevProto,
            pick_first::v3::PickFirst,
            random::v3::Random,
            random_subsetting::v3::RandomSubsetting,
            ring_hash::v3::{RingHash as RingHashProto, ring_hash::HashFunction},
            round_robin::v3::RoundRobin,
            wrr_locality::v3::WrrLocality,
        },
    },
    google::protobuf::{self as pb, Any, BoolValue, FloatValue, UInt32Value, UInt64Value},
};
use prost::Name as _;
use std::{num::NonZeroU32, time::Duration};

/// How deep load balancing policies may nest (gRFC A52).
const MAX_DEPTH: usize = 16;
/// gRFC A48.
const MOST_CHOICES: u32 = 10;
/// gRFC A58.
const LEAST_UPDATE_PERIOD: Duration = Duration::from_millis(100);

/// A policy and what goes with it.
pub(super) struct Balancing {
    pub(super) policy: LbPolicy,
    pub(super) options: LbOptions,
}

impl Default for Balancing {
    fn default() -> Self {
        Self::of(LbPolicy::RoundRobin, LocalityLb::Weighted)
    }
}

impl Balancing {
    fn of(policy: LbPolicy, localities: LocalityLb) -> Self {
        Self { policy, options: LbOptions { localities, ..LbOptions::default() } }
    }
}

pub(super) fn parse(
    proto: &proto::Cluster,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Balancing> {
    let reader = Reader { context };
    let found = match &proto.load_balancing_policy {
        Some(policies) => {
            let at = at.field("load_balancing_policy");
            match reader.list(policies, Around::default(), MAX_DEPTH, &at, faults)? {
                Some(found) => Some(found),
                None => none_supported(policies, &at, faults),
            }
        }
        None => reader.enumerated(proto, at, faults),
    };
    let status = proto.common_lb_config.as_ref().and_then(|lb| lb.override_host_status.as_ref());
    let mut found = found?;
    if let Some(status) = status {
        let statuses = status.statuses.iter().map(|status| endpoint::wire::health(*status));
        // Others cannot be asked for (gRFC A55).
        let known = statuses.filter(|status| *status != endpoint::HealthStatus::Unhealthy);
        found.options.override_host_status = OverrideHostStatus::of(known);
    }
    Some(found)
}

fn none_supported<T>(policies: &LoadBalancingPolicy, at: &Path<'_>, faults: &mut Faults) -> Option<T> {
    let configs = policies.policies.iter().filter_map(|policy| policy.typed_extension_config.as_ref());
    let urls = configs.filter_map(|config| config.typed_config.as_ref()).map(|any| any.type_url.as_str());
    let names = urls.collect::<Vec<_>>().join(", ");
    faults.reject(at, format!("none of its policies is supported: {names}"))
}

/// What stands around a policy in a list.
#[derive(Clone, Copy, Default)]
struct Around {
    /// A locality was chosen already.
    in_locality: bool,
    subsetting: Option<Subsetting>,
}

struct Reader<'a> {
    context: &'a ParseContext,
}

impl Reader<'_> {
    /// The first supported policy of the list; `None` inside when there is none.
    #[allow(clippy::option_option)]
    fn list(
        &self,
        policies: &LoadBalancingPolicy,
        around: Around,
        depth: usize,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Option<Balancing>> {
        if depth == 0 {
            return faults.reject(at, format!("policies nest deeper than {MAX_DEPTH}"));
        }
        let list = at.field("policies");
        for (i, policy) in policies.policies.iter().enumerate() {
            let at = list.index(i);
            let at = at.field("typed_extension_config.typed_config");
            let config =
                policy.typed_extension_config.as_ref().and_then(|config| config.typed_config.as_ref());
            let Some(any) = config.filter(|any| self.knows(&any.type_url)) else { continue };
            return self.one(any, around, depth, &at, faults).map(Some);
        }
        Some(None)
    }

    /// Policies beyond the core are as good as unknown where the data path does not have them.
    fn knows(&self, url: &str) -> bool {
        let has = |feature| has(self.context, feature);
        let core = [
            RoundRobin::type_url(),
            Random::type_url(),
            LeastRequest::type_url(),
            PickFirst::type_url(),
            WrrLocality::type_url(),
        ];
        core.iter().any(|core| core == url)
            || url == RingHashProto::type_url() && has(Feature::RingHash)
            || url == MaglevProto::type_url() && has(Feature::Maglev)
            || url == WeightedProto::type_url() && has(Feature::ClientSideWeightedRoundRobin)
            || url == RandomSubsetting::type_url() && has(Feature::RandomSubsetting)
    }

    fn one(
        &self,
        any: &Any,
        around: Around,
        depth: usize,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Balancing> {
        let url = any.type_url.as_str();
        if url == WrrLocality::type_url() {
            let config: WrrLocality = wire::unpack(any, at, faults)?;
            let at = at.field("endpoint_picking_policy");
            let around = Around { in_locality: true, ..around };
            return self.nested(&config.endpoint_picking_policy, around, depth, &at, faults);
        }
        if url == RandomSubsetting::type_url() {
            let config: RandomSubsetting = wire::unpack(any, at, faults)?;
            if around.subsetting.is_some() {
                return faults.reject(at, "a subset of a subset is not supported");
            }
            let size_at = at.field("subset_size");
            let size = faults.required(&size_at, &config.subset_size)?.value;
            let Some(size) = NonZeroU32::new(size) else {
                return faults.reject(&size_at, "must not be 0");
            };
            let scope = if around.in_locality { SubsetScope::Locality } else { SubsetScope::Priority };
            let around = Around { subsetting: Some(Subsetting { size, scope }), ..around };
            let at = at.field("child_policy");
            return self.nested(&config.child_policy, around, depth, &at, faults);
        }
        let mut found = self.leaf(any, at, faults)?;
        if around.in_locality {
            found.options.localities = LocalityLb::Weighted;
        }
        found.options.subsetting = around.subsetting;
        Some(found)
    }

    fn nested(
        &self,
        policies: &Option<LoadBalancingPolicy>,
        around: Around,
        depth: usize,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Balancing> {
        let policies = faults.required(at, policies)?;
        match self.list(policies, around, depth - 1, at, faults)? {
            Some(found) => Some(found),
            None => none_supported(policies, at, faults),
        }
    }

    /// A policy that picks endpoints.
    fn leaf(&self, any: &Any, at: &Path<'_>, faults: &mut Faults) -> Option<Balancing> {
        let url = any.type_url.as_str();
        if url == RoundRobin::type_url() {
            let config: RoundRobin = wire::unpack(any, at, faults)?;
            let localities = self.localities(&config.locality_lb_config, at, faults)?;
            let slow_start = self.slow_start(&config.slow_start_config, at, faults)?;
            return Some(slowly(Balancing::of(LbPolicy::RoundRobin, localities), slow_start));
        }
        if url == Random::type_url() {
            let config: Random = wire::unpack(any, at, faults)?;
            let localities = self.localities(&config.locality_lb_config, at, faults)?;
            return Some(Balancing::of(LbPolicy::Random, localities));
        }
        if url == LeastRequest::type_url() {
            let config: LeastRequest = wire::unpack(any, at, faults)?;
            let full_scan = config.selection_method == SelectionMethod::FullScan as i32
                || config.enable_full_scan.as_ref().is_some_and(|scan| scan.value);
            if full_scan {
                return faults
                    .reject(&at.field("selection_method"), "FULL_SCAN is not supported: use N_CHOICES");
            }
            let localities = self.localities(&config.locality_lb_config, at, faults)?;
            let slow_start = self.slow_start(&config.slow_start_config, at, faults)?;
            let lb = self.least_request(&config.choice_count, &config.active_request_bias, at, faults)?;
            return Some(slowly(Balancing::of(lb, localities), slow_start));
        }
        if url == PickFirst::type_url() {
            let config: PickFirst = wire::unpack(any, at, faults)?;
            let lb = LbPolicy::PickFirst { shuffle: config.shuffle_address_list };
            return Some(Balancing::of(lb, LocalityLb::Flat));
        }
        if url == RingHashProto::type_url() {
            let config: RingHashProto = wire::unpack(any, at, faults)?;
            let function = config.hash_function;
            if function != HashFunction::DefaultHash as i32 && function != HashFunction::XxHash as i32 {
                return faults.reject(&at.field("hash_function"), ONLY_XX_HASH);
            }
            if config.hash_balance_factor.is_some() {
                return faults.reject(&at.field("hash_balance_factor"), NO_BOUNDED_LOADS);
            }
            let common = self.hashing(&config.consistent_hashing_lb_config, at, faults)?;
            let sizes = (&config.minimum_ring_size, &config.maximum_ring_size);
            let ring = ring_hash(sizes, config.use_hostname_for_hashing || common, at, faults)?;
            return Some(Balancing::of(LbPolicy::RingHash(ring), LocalityLb::Flat));
        }
        if url == MaglevProto::type_url() {
            let config: MaglevProto = wire::unpack(any, at, faults)?;
            let use_hostname = self.hashing(&config.consistent_hashing_lb_config, at, faults)?;
            let maglev = maglev(&config.table_size, use_hostname, at, faults)?;
            return Some(Balancing::of(LbPolicy::Maglev(maglev), LocalityLb::Flat));
        }
        let config: WeightedProto = wire::unpack(any, at, faults)?;
        let slow_start = self.slow_start(&config.slow_start_config, at, faults)?;
        let weighted = weighted(&config, at, faults)?;
        let lb = LbPolicy::ClientSideWeightedRoundRobin(Box::new(weighted));
        Some(slowly(Balancing::of(lb, LocalityLb::Flat), slow_start))
    }

    /// The older form: localities are weighed (gRFC A27), except in a ring (A42).
    fn enumerated(&self, proto: &proto::Cluster, at: &Path<'_>, faults: &mut Faults) -> Option<Balancing> {
        let here = at.field("lb_policy");
        let require = |feature, faults: &mut Faults| self.context.support.require(feature, &here, faults);
        let common = proto.common_lb_config.as_ref();
        let localities = match common.and_then(|lb| lb.locality_config_specifier.as_ref()) {
            Some(common_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
                let at = at.field("common_lb_config.zone_aware_lb_config");
                self.zone_aware(
                    &ZoneAwareLbConfig {
                        routing_enabled: zone.routing_enabled,
                        min_cluster_size: zone.min_cluster_size,
                        fail_traffic_on_panic: zone.fail_traffic_on_panic,
                        ..ZoneAwareLbConfig::default()
                    },
                    &at,
                    faults,
                )?
            }
            _ => LocalityLb::Weighted,
        };
        let use_hostname = |faults: &mut Faults| {
            let Some(hashing) = common.and_then(|lb| lb.consistent_hashing_lb_config.as_ref()) else {
                return Some(false);
            };
            let at = at.field("common_lb_config.consistent_hashing_lb_config");
            if hashing.hash_balance_factor.is_some() {
                return faults.reject(&at.field("hash_balance_factor"), NO_BOUNDED_LOADS);
            }
            Some(hashing.use_hostname_for_hashing)
        };
        match Enum::try_from(proto.lb_policy) {
            Ok(Enum::RoundRobin) => {
                let at = at.field("round_robin_lb_config");
                let slow_start = match &proto.lb_config {
                    Some(LbConfig::RoundRobinLbConfig(config)) => {
                        self.slow_start(&newer(&config.slow_start_config), &at, faults)?
                    }
                    _ => None,
                };
                Some(slowly(Balancing::of(LbPolicy::RoundRobin, localities), slow_start))
            }
            Ok(Enum::LeastRequest) => {
                let at = at.field("least_request_lb_config");
                let none = proto::cluster::LeastRequestLbConfig::default();
                let config = match &proto.lb_config {
                    Some(LbConfig::LeastRequestLbConfig(config)) => config,
                    _ => &none,
                };
                let slow_start = self.slow_start(&newer(&config.slow_start_config), &at, faults)?;
                let lb =
                    self.least_request(&config.choice_count, &config.active_request_bias, &at, faults)?;
                Some(slowly(Balancing::of(lb, localities), slow_start))
            }
            Ok(Enum::Random) => Some(Balancing::of(LbPolicy::Random, localities)),
            Ok(Enum::RingHash) => {
                require(Feature::RingHash, faults)?;
                let at = at.field("ring_hash_lb_config");
                let none = proto::cluster::RingHashLbConfig::default();
                let config = match &proto.lb_config {
                    Some(LbConfig::RingHashLbConfig(config)) => config,
                    _ => &none,
                };
                if config.hash_function != ring_hash_lb_config::HashFunction::XxHash as i32 {
                    return faults.reject(&at.field("hash_function"), ONLY_XX_HASH);
                }
                let sizes = (&config.minimum_ring_size, &config.maximum_ring_size);
                let ring = ring_hash(sizes, use_hostname(faults)?, &at, faults)?;
                Some(Balancing::of(LbPolicy::RingHash(ring), LocalityLb::Flat))
            }
            Ok(Enum::Maglev) => {
                require(Feature::Maglev, faults)?;
                let at = at.field("maglev_lb_config");
                let size = match &proto.lb_config {
                    Some(LbConfig::MaglevLbConfig(config)) => &config.table_size,
                    _ => &None,
                };
                let maglev = maglev(size, use_hostname(faults)?, &at, faults)?;
                Some(Balancing::of(LbPolicy::Maglev(maglev), LocalityLb::Flat))
            }
            Ok(Enum::ClusterProvided) => {
                faults.reject(&here, "CLUSTER_PROVIDED is for aggregate clusters only")
            }
            Ok(Enum::LoadBalancingPolicyConfig) => {
                faults.reject(&here, "LOAD_BALANCING_POLICY_CONFIG needs load_balancing_policy")
            }
            Err(_) => faults.reject(&here, format!("{} is unknown", proto.lb_policy)),
        }
    }

    fn least_request(
        &self,
        choices: &Option<UInt32Value>,
        bias: &Option<RuntimeDouble>,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<LbPolicy> {
        let choices = match choices.as_ref().map_or(2, |choices| choices.value) {
            choices @ 0..=1 => {
                return faults.reject(&at.field("choice_count"), format!("{choices} is less than 2"));
            }
            choices => choices.min(MOST_CHOICES),
        };
        let bias = match bias {
            // gRPC leaves it out (A48).
            Some(bias) if has(self.context, Feature::LeastRequestBias) => {
                let value = bias.default_value;
                if !(value.is_finite() && value >= 0.0) {
                    let reason = format!("{value} is not a number that is at least 0");
                    return faults.reject(&at.field("active_request_bias"), reason);
                }
                value
            }
            _ => 1.0,
        };
        Some(LbPolicy::LeastRequest { choices, active_request_bias: bias })
    }

    /// Of a policy at the top of a list, or of one that is asked for it.
    fn localities(
        &self,
        config: &Option<LocalityLbConfig>,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<LocalityLb> {
        match config.as_ref().and_then(|config| config.locality_config_specifier.as_ref()) {
            None => Some(LocalityLb::Flat),
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => Some(LocalityLb::Weighted),
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
                self.zone_aware(zone, &at.field("locality_lb_config.zone_aware_lb_config"), faults)
            }
        }
    }

    fn zone_aware(
        &self,
        config: &ZoneAwareLbConfig,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<LocalityLb> {
        self.context.support.require(Feature::ZoneAware, at, faults)?;
        let default = ZoneAware::default();
        for (unsupported, field) in [
            (config.force_locality_direct_routing, "force_locality_direct_routing"),
            (config.force_local_zone.is_some(), "force_local_zone"),
            (config.locality_basis != LocalityBasis::HealthyHostsNum as i32, "locality_basis"),
        ] {
            if unsupported {
                faults.reject::<()>(&at.field(field), "is not supported");
            }
        }
        let routing_enabled = match &config.routing_enabled {
            Some(share) => percent(share, &at.field("routing_enabled"), faults)?,
            None => default.routing_enabled,
        };
        let least = config.min_cluster_size.as_ref();
        Some(LocalityLb::ZoneAware(ZoneAware {
            routing_enabled,
            min_cluster_size: least.map_or(default.min_cluster_size, |least| least.value),
            fail_traffic_on_panic: config.fail_traffic_on_panic,
        }))
    }

    /// gRPC leaves it out (A48): so does whoever does not have it.
    fn slow_start(
        &self,
        config: &Option<SlowStartConfig>,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Option<SlowStart>> {
        let Some(config) = config.as_ref().filter(|_| has(self.context, Feature::SlowStart)) else {
            return Some(None);
        };
        let at = at.field("slow_start_config");
        let window_at = at.field("slow_start_window");
        faults.required(&window_at, &config.slow_start_window)?;
        let window = wire::positive_duration(&config.slow_start_window, &window_at, faults);
        let aggression = match config.aggression.as_ref().map_or(1.0, |value| value.default_value) {
            value if value.is_finite() && value > 0.0 => Some(value),
            value => faults.reject(&at.field("aggression"), format!("{value} is not a positive number")),
        };
        let min_weight = match &config.min_weight_percent {
            Some(share) => percent(share, &at.field("min_weight_percent"), faults),
            None => Some(Fraction::per_million(100_000)),
        };
        Some(Some(SlowStart { window: window?, aggression: aggression?, min_weight: min_weight? }))
    }

    /// Whether the hostname is hashed.
    fn hashing(
        &self,
        config: &Option<ConsistentHashingLbConfig>,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<bool> {
        let Some(config) = config else { return Some(false) };
        let at = at.field("consistent_hashing_lb_config");
        if config.hash_balance_factor.is_some() {
            return faults.reject(&at.field("hash_balance_factor"), NO_BOUNDED_LOADS);
        }
        if !config.hash_policy.is_empty() {
            return faults.reject(&at.field("hash_policy"), "is not supported: hash at the route");
        }
        Some(config.use_hostname_for_hashing)
    }
}

const ONLY_XX_HASH: &str = "only XX_HASH is supported (gRFC A42)";
const NO_BOUNDED_LOADS: &str = "bounded loads are not supported";

fn slowly(mut balancing: Balancing, slow_start: Option<SlowStart>) -> Balancing {
    balancing.options.slow_start = slow_start;
    balancing
}

/// The older message, as the newer one.
fn newer(config: &Option<proto::cluster::SlowStartConfig>) -> Option<SlowStartConfig> {
    config.as_ref().map(|config| SlowStartConfig {
        slow_start_window: config.slow_start_window,
        aggression: config.aggression.clone(),
        min_weight_percent: config.min_weight_percent,
    })
}

fn ring_hash(
    (min, max): (&Option<UInt64Value>, &Option<UInt64Value>),
    use_hostname: bool,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<RingHash> {
    let default = RingHash::default();
    let mut size = |value: &Option<UInt64Value>, name: &str, default: u32| match value {
        None => Some(default),
        Some(value) => match u32::try_from(value.value) {
            Ok(size) if (1..=RingHash::LIMIT).contains(&size) => Some(size),
            _ => faults.reject(&at.field(name), format!("{} is not in 1..={}", value.value, RingHash::LIMIT)),
        },
    };
    let min_size = size(min, "minimum_ring_size", default.min_size);
    let max_size = size(max, "maximum_ring_size", default.max_size);
    let (min_size, max_size) = (min_size?, max_size?);
    if min_size > max_size {
        let at = at.field("minimum_ring_size");
        return faults.reject(&at, format!("{min_size} is more than maximum_ring_size, {max_size}"));
    }
    Some(RingHash { min_size, max_size, use_hostname })
}

fn maglev(
    size: &Option<UInt64Value>,
    use_hostname: bool,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Maglev> {
    let Some(size) = size else { return Some(Maglev { use_hostname, ..Maglev::default() }) };
    match u32::try_from(size.value) {
        Ok(table_size) if table_size <= Maglev::LIMIT && is_prime(table_size) => {
            Some(Maglev { table_size, use_hostname })
        }
        _ => {
            let reason = format!("{} is not a prime number of at most {}", size.value, Maglev::LIMIT);
            faults.reject(&at.field("table_size"), reason)
        }
    }
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

fn weighted(
    config: &WeightedProto,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<ClientSideWeightedRoundRobin> {
    let default = ClientSideWeightedRoundRobin::default();
    if config.oob_reporting_config.is_some() {
        let reason = "is not supported: reports come from the endpoint itself";
        faults.reject::<()>(&at.field("oob_reporting_config"), reason);
    }
    let mut time = |value: &Option<pb::Duration>, name: &str, default: Duration| match value {
        None => Some(default),
        Some(value) => wire::duration(value, &at.field(name), faults),
    };
    let reporting = time(&config.oob_reporting_period, "oob_reporting_period", Duration::from_secs(10));
    let blackout = time(&config.blackout_period, "blackout_period", default.blackout_period);
    let expiration =
        time(&config.weight_expiration_period, "weight_expiration_period", default.weight_expiration_period);
    let update = time(&config.weight_update_period, "weight_update_period", default.weight_update_period);
    let penalty = config.error_utilization_penalty.as_ref();
    let penalty = match penalty.map_or(default.error_utilization_penalty, |penalty| penalty.value) {
        value if value.is_finite() && value >= 0.0 => Some(value),
        value => {
            let reason = format!("{value} is not a number that is at least 0");
            faults.reject(&at.field("error_utilization_penalty"), reason)
        }
    };
    let out_of_band = config.enable_oob_load_report.as_ref().is_some_and(|enable| enable.value);
    let reporting = reporting?;
    Some(ClientSideWeightedRoundRobin {
        out_of_band: out_of_band.then_some(reporting),
        blackout_period: blackout?,
        weight_expiration_period: expiration?,
        weight_update_period: update?.max(LEAST_UPDATE_PERIOD),
        error_utilization_penalty: penalty?,
        utilization: config
            .metric_names_for_computing_utilization
            .iter()
            .filter_map(|name| utilization(name))
            .collect(),
    })
}

/// Names that are none count as missing metrics (gRFC A114).
fn utilization(name: &str) -> Option<Utilization> {
    match name {
        "application_utilization" => Some(Utilization::Application),
        "cpu_utilization" => Some(Utilization::Cpu),
        "mem_utilization" => Some(Utilization::Memory),
        _ => match name.split_once('.')? {
            ("utilization", key) => Some(Utilization::Named(key.into())),
            ("named_metrics", key) => Some(Utilization::NamedMetric(key.into())),
            _ => None,
        },
    }
}

pub(super) fn override_host_status_proto(status: OverrideHostStatus) -> Option<HealthStatusSet> {
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
pub(super) fn encode(cluster: &Cluster) -> Option<LoadBalancingPolicy> {
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
            minimum_ring_size: Some(UInt64Value { value: ring.min_size.into() }),
            maximum_ring_size: Some(UInt64Value { value: ring.max_size.into() }),
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
