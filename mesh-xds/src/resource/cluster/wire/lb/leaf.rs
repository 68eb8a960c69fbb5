//! Policies that pick endpoints, and their settings.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::{Balancing, Reader};
use crate::{
    field_path::{Faults, Path},
    matcher::Fraction,
    resource::{
        Feature,
        cluster::{
            ClientSideWeightedRoundRobin, LbPolicy, LocalityLb, Maglev, RingHash, SlowStart, Utilization,
            ZoneAware,
            wire::{has, percent},
        },
        wire,
    },
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::RuntimeDouble,
        extensions::load_balancing_policies::{
            client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin as WeightedProto,
            common::v3::{
                ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig,
                locality_lb_config::{
                    LocalityConfigSpecifier, ZoneAwareLbConfig, zone_aware_lb_config::LocalityBasis,
                },
            },
            least_request::v3::{LeastRequest, least_request::SelectionMethod},
            maglev::v3::Maglev as MaglevProto,
            pick_first::v3::PickFirst,
            random::v3::Random,
            ring_hash::v3::{RingHash as RingHashProto, ring_hash::HashFunction},
            round_robin::v3::RoundRobin,
        },
    },
    google::protobuf::{self as pb, Any, UInt32Value, UInt64Value},
};
use prost::Name as _;
use std::time::Duration;

/// gRFC A48.
const MOST_CHOICES: u32 = 10;
/// gRFC A58.
const LEAST_UPDATE_PERIOD: Duration = Duration::from_millis(100);

impl Reader<'_> {
    /// A policy that picks endpoints.
    pub(super) fn leaf(&self, any: &Any, at: &Path<'_>, faults: &mut Faults) -> Option<Balancing> {
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
            if config.enable_full_scan.as_ref().is_some_and(|scan| scan.value) {
                return faults.reject(&at.field("enable_full_scan"), "is not supported: choices are drawn");
            }
            if config.selection_method == SelectionMethod::FullScan as i32 {
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

    pub(super) fn least_request(
        &self,
        choices: &Option<UInt32Value>,
        bias: &Option<RuntimeDouble>,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<LbPolicy> {
        let choices = match choices.as_ref().map_or(2, |choices| choices.value) {
            choices @ 0..=1 => {
                return faults.reject(&at.field("choice_count"), format_args!("{choices} is less than 2"));
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

    pub(super) fn zone_aware(
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
    pub(super) fn slow_start(
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
            value => faults.reject(&at.field("aggression"), format_args!("{value} is not a positive number")),
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

pub(super) const ONLY_XX_HASH: &str = "only XX_HASH is supported (gRFC A42)";
pub(super) const NO_BOUNDED_LOADS: &str = "bounded loads are not supported";

pub(super) fn slowly(mut balancing: Balancing, slow_start: Option<SlowStart>) -> Balancing {
    balancing.options.slow_start = slow_start;
    balancing
}

pub(super) fn ring_hash(
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
            _ => faults
                .reject(&at.field(name), format_args!("{} is not in 1..={}", value.value, RingHash::LIMIT)),
        },
    };
    let min_size = size(min, "minimum_ring_size", default.min_size);
    let max_size = size(max, "maximum_ring_size", default.max_size);
    let (min_size, max_size) = (min_size?, max_size?);
    if min_size > max_size {
        let at = at.field("minimum_ring_size");
        return faults.reject(&at, format_args!("{min_size} is more than maximum_ring_size, {max_size}"));
    }
    Some(RingHash { min_size, max_size, use_hostname })
}

pub(super) fn maglev(
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
