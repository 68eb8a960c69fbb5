//! The older form: an enum, and a message for each policy.

use super::{
    Balancing, Reader,
    leaf::{NO_BOUNDED_LOADS, ONLY_XX_HASH, maglev, ring_hash, slowly},
};
use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature,
        cluster::{LbPolicy, LocalityLb},
    },
};
use envoy_types::pb::envoy::{
    config::cluster::v3::{
        self as proto,
        cluster::{LbConfig, LbPolicy as Enum, common_lb_config, ring_hash_lb_config},
    },
    extensions::load_balancing_policies::common::v3::{
        SlowStartConfig, locality_lb_config::ZoneAwareLbConfig,
    },
};

impl Reader<'_> {
    /// The older form: localities are weighed (gRFC A27), except in a ring (A42).
    pub(super) fn enumerated(
        &self,
        proto: &proto::Cluster,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Balancing> {
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
            Err(_) => faults.reject(&here, format_args!("{} is unknown", proto.lb_policy)),
        }
    }
}

/// The older message, as the newer one.
fn newer(config: &Option<proto::cluster::SlowStartConfig>) -> Option<SlowStartConfig> {
    config.as_ref().map(|config| SlowStartConfig {
        slow_start_window: config.slow_start_window,
        aggression: config.aggression.clone(),
        min_weight_percent: config.min_weight_percent,
    })
}
