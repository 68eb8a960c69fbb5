//! Load balancing policies, to and from protobuf (gRFC A42, A48, A52, A58, A62, A68).
//!
//! A cluster says its policy in one of two ways: the older enum with its `*_lb_config`, or a list of which the
//! first supported entry counts (A52). Entries nest; what they nest to is one policy for endpoints, one way to
//! choose a locality and at most one subset, which is what [`LbPolicy`] and [`LbOptions`] hold.

mod encode;
mod enumerated;
mod leaf;

pub(super) use encode::{encode, override_host_status_proto};

use super::has;
use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature, ParseContext,
        cluster::{LbOptions, LbPolicy, LocalityLb, OverrideHostStatus, SubsetScope, Subsetting},
        endpoint, wire,
    },
};
use envoy_types::pb::{
    envoy::{
        config::cluster::v3::{self as proto, LoadBalancingPolicy},
        extensions::load_balancing_policies::{
            client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin as WeightedProto,
            least_request::v3::LeastRequest, maglev::v3::Maglev as MaglevProto, pick_first::v3::PickFirst,
            random::v3::Random, random_subsetting::v3::RandomSubsetting,
            ring_hash::v3::RingHash as RingHashProto, round_robin::v3::RoundRobin,
            wrr_locality::v3::WrrLocality,
        },
    },
    google::protobuf::Any,
};
use prost::Name as _;
use std::num::NonZeroU32;

/// How deep load balancing policies may nest (gRFC A52).
const MAX_DEPTH: usize = 16;

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
    faults.reject(at, format_args!("none of its policies is supported: {names}"))
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
            return faults.reject(at, format_args!("policies nest deeper than {MAX_DEPTH}"));
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
}
