//! Load balancing: immutable pickers over endpoints that are ready (gRFC A27, A48, A62).
//!
//! Promises: a pick takes no lock and allocates nothing; it chooses a locality by weight, then an endpoint in
//! it by the cluster's policy, and tells the caller only of endpoints that were connected when the picker was
//! built. Not here: who is ready, which priority, who is ejected (the cluster's actor decides and rebuilds).

pub(crate) mod draw;
pub(crate) mod pick_first;
pub(crate) mod stride;

use crate::endpoint::Endpoint;
use draw::Draw;
use mesh_xds::resource::cluster::{Cluster, Discovery, LbPolicy, LocalityLb};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use stride::Stride;

/// A source of random numbers for many threads, without a lock: every roll is a generator of its own, seeded
/// by a counter. The same seed and order of rolls give the same numbers.
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A fresh generator.
    pub(crate) fn roll(&self) -> fastrand::Rng {
        // Splitmix64's increment: odd, so that every seed comes once, and far from fastrand's own.
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut seed = self.0.fetch_add(STEP, Relaxed);
        seed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        fastrand::Rng::with_seed(seed ^ (seed >> 27))
    }
}

/// What a cluster asks of its balancing that is not here. The parser rejects such clusters (this crate's
/// features say what it has); should one come nevertheless, its calls fail with this, and none goes astray.
pub(crate) fn lacking(cluster: &Cluster) -> Option<&'static str> {
    let options = &cluster.lb_options;
    match (&cluster.discovery, &cluster.lb) {
        (Discovery::StrictDns(_) | Discovery::LogicalDns(_), _) => Some("discovery by DNS"),
        (Discovery::Aggregate(_), _) => Some("clusters of clusters"),
        (_, LbPolicy::RingHash(_)) => Some("ring hash"),
        (_, LbPolicy::Maglev(_)) => Some("Maglev"),
        (_, LbPolicy::ClientSideWeightedRoundRobin(_)) => Some("client-side weighted round robin"),
        _ if options.subsetting.is_some() => Some("random subsetting"),
        _ if options.slow_start.is_some() => Some("slow start"),
        _ if matches!(options.localities, LocalityLb::ZoneAware(_)) => Some("zone-aware routing"),
        _ if cluster.health_check.is_some() => Some("active health checks"),
        _ if cluster.http_connect.is_some() => Some("HTTP CONNECT"),
        _ => None,
    }
}

/// An endpoint that may be picked.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) endpoint: Arc<Endpoint>,
    /// Its share within the locality.
    pub(crate) weight: u32,
}

/// The candidates of a locality.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The locality's share within the priority.
    pub(crate) weight: u32,
    pub(crate) candidates: Vec<Candidate>,
}

impl Group {
    /// All candidates of all localities, each by its own weight only.
    pub(crate) fn flat(groups: Vec<Self>) -> Self {
        Self { weight: 1, candidates: groups.into_iter().flat_map(|group| group.candidates).collect() }
    }
}

/// Picks one of the ready endpoints of a priority.
#[derive(Debug, Default)]
pub(crate) struct Picker {
    localities: Draw,
    groups: Box<[Balancer]>,
}

#[derive(Debug)]
struct Balancer {
    endpoints: Box<[Arc<Endpoint>]>,
    policy: Policy,
}

#[derive(Debug)]
enum Policy {
    RoundRobin(Stride),
    LeastRequest {
        choices: u32,
        weights: Box<[u32]>,
        draw: Draw,
    },
    Random(Draw),
    First,
    /// This version has no such policy, see [`lacking`]: nothing is picked.
    Missing,
}

impl Picker {
    /// A picker of `policy` over these; groups without candidates are left out.
    pub(crate) fn new(policy: &LbPolicy, groups: Vec<Group>, rng: &mut fastrand::Rng) -> Self {
        let groups: Vec<_> = groups.into_iter().filter(|group| !group.candidates.is_empty()).collect();
        let localities = Draw::new(groups.iter().map(|group| group.weight));
        let groups = groups.into_iter().map(|group| Balancer::new(policy, group, rng)).collect();
        Self { localities, groups }
    }

    /// Nobody is ready.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How many may be picked.
    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.endpoints.len()).sum()
    }

    /// One of them. It was ready when the picker was built; whoever asks looks whether it still is.
    pub(crate) fn pick(&self, dice: &Dice) -> Option<&Arc<Endpoint>> {
        let group = match &*self.groups {
            [only] => only,
            groups => groups.get(self.localities.draw(&mut dice.roll())?)?,
        };
        group.pick(dice)
    }

    /// All of them, from a random one on; for when picks hit ones that are gone.
    pub(crate) fn iter(&self, dice: &Dice) -> impl Iterator<Item = &Arc<Endpoint>> {
        let skip = match self.len() {
            0 => 0,
            len => dice.roll().usize(0..len),
        };
        let all = || self.groups.iter().flat_map(|group| group.endpoints.iter());
        all().skip(skip).chain(all().take(skip))
    }
}

impl Balancer {
    fn new(policy: &LbPolicy, group: Group, rng: &mut fastrand::Rng) -> Self {
        let weights: Box<[u32]> = group.candidates.iter().map(|candidate| candidate.weight).collect();
        let policy = match policy {
            LbPolicy::RoundRobin => Policy::RoundRobin(Stride::new(&weights, rng)),
            LbPolicy::LeastRequest { choices, .. } => Policy::LeastRequest {
                choices: (*choices).clamp(2, 10),
                draw: Draw::new(weights.iter().copied()),
                weights,
            },
            LbPolicy::Random => Policy::Random(Draw::new(weights.iter().copied())),
            LbPolicy::PickFirst { .. } => Policy::First,
            LbPolicy::RingHash(_) | LbPolicy::Maglev(_) | LbPolicy::ClientSideWeightedRoundRobin(_) => {
                Policy::Missing
            }
        };
        Self { endpoints: group.candidates.into_iter().map(|candidate| candidate.endpoint).collect(), policy }
    }

    fn pick(&self, dice: &Dice) -> Option<&Arc<Endpoint>> {
        if let [only] = &*self.endpoints {
            return Some(only);
        }
        match &self.policy {
            Policy::RoundRobin(stride) => self.endpoints.get(stride.next()),
            Policy::LeastRequest { choices, weights, draw } => {
                self.least_loaded(*choices, weights, draw, &mut dice.roll())
            }
            Policy::Random(draw) => self.endpoints.get(draw.draw(&mut dice.roll())?),
            Policy::First => self.endpoints.first(),
            Policy::Missing => None,
        }
    }

    /// gRFC A48: independent samples, the lowest count wins, ties keep the first. Samples are drawn by weight
    /// and counts compared per weight, so that idle endpoints get their shares and busy ones are avoided; with
    /// equal weights this is A48 to the letter.
    fn least_loaded(
        &self,
        choices: u32,
        weights: &[u32],
        draw: &Draw,
        rng: &mut fastrand::Rng,
    ) -> Option<&Arc<Endpoint>> {
        let mut best: Option<(&Arc<Endpoint>, u64, u64)> = None;
        for _ in 0..choices {
            let index = draw.draw(rng)?;
            let endpoint = self.endpoints.get(index)?;
            let (active, weight) = (u64::from(endpoint.in_flight()), u64::from(*weights.get(index)?));
            if best.is_none_or(|(_, least, its_weight)| active * its_weight < least * weight) {
                best = Some((endpoint, active, weight));
            }
        }
        best.map(|(endpoint, ..)| endpoint)
    }
}

#[cfg(test)]
mod tests;
