//! Load balancing: immutable pickers over endpoints (gRFC A27, A42, A48, A62).
//!
//! Promises: a pick takes no lock and allocates nothing; it chooses a priority by its share, a locality by
//! weight, then an endpoint in it by the cluster's policy, and tells the caller only of endpoints that were
//! connected when the picker was built. Consistent hashing ([`hashed`]) has no localities, and may tell a call
//! to wait for the endpoint that its hash leads to. Not here: who is ready, which priorities have which shares,
//! who is ejected (the cluster's actor decides and rebuilds).

pub(crate) mod draw;
pub(crate) mod hashed;
pub(crate) mod load_weight;
pub(crate) mod pick_first;
pub(crate) mod slow_start;
pub(crate) mod stride;
pub(crate) mod weighted;

use crate::endpoint::Endpoint;
use draw::Draw;
use hashed::{Hashed, Hit};
use mesh_xds::resource::cluster::LbPolicy;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use stride::Stride;
use tokio::time::Instant;
use weighted::{Weighted, Weights};

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

/// Picks an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Picker(Kind);

#[derive(Debug)]
enum Kind {
    Spread(Shared<Spread>),
    Hashed(Shared<Hashed>),
}

impl Default for Kind {
    fn default() -> Self {
        Self::Spread(Shared::default())
    }
}

/// Priorities that share the calls: those up to `point`, in percent.
#[derive(Debug)]
struct Shared<T>(Box<[(u32, T)]>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T> Shared<T> {
    fn new(parts: impl Iterator<Item = (u32, T)>) -> Self {
        let running = parts.filter(|(share, _)| *share > 0).scan(0, |sum, (share, part)| {
            *sum += share;
            Some((*sum, part))
        });
        Self(running.collect())
    }

    fn parts(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter().map(|(_, part)| part)
    }

    /// The part of a number, which is only asked for where there are several; the same number always has the
    /// same part, as in Envoy.
    fn part(&self, number: impl FnOnce() -> u64) -> Option<&T> {
        match &*self.0 {
            [(_, only)] => Some(only),
            parts => {
                let (sum, _) = parts.last()?;
                let point = number() % u64::from(*sum);
                parts.iter().find(|(up_to, _)| point < u64::from(*up_to)).map(|(_, part)| part)
            }
        }
    }
}

/// The ready endpoints of a priority, for the policies that spread calls over them.
#[derive(Debug)]
struct Spread {
    localities: Draw,
    groups: Box<[Arc<Balancer>]>,
}

/// The ready endpoints of a locality, and the policy over them. Pickers that follow one another share it for as
/// long as it stays what it is.
#[derive(Debug)]
pub(crate) struct Balancer {
    /// All of the locality, ready or not, shared with the actor.
    members: Arc<[Arc<Endpoint>]>,
    /// Which of them are ready; none: all are.
    ready: Option<Box<[u32]>>,
    policy: Policy,
}

/// A locality in a picker: its share within the priority, and who is in it.
pub(crate) type Group = (u32, Arc<Balancer>);

#[derive(Debug)]
enum Policy {
    RoundRobin(Stride),
    LeastRequest(LeastRequest),
    Random(Draw),
    First,
    Weighted(Weighted),
    /// Of consistent hashing, which has pickers of its own: nothing is picked.
    Missing,
}

#[derive(Debug)]
struct LeastRequest {
    choices: u32,
    bias: f64,
    weights: Box<[u32]>,
    draw: Draw,
}

impl Picker {
    /// A picker over priorities with shares in percent. Groups in which nobody is ready are left out, and so are
    /// priorities without groups.
    pub(crate) fn spread(priorities: Vec<(u32, Vec<Group>)>) -> Self {
        let spread = priorities.into_iter().map(|(share, groups)| (share, Spread::new(groups)));
        Self(Kind::Spread(Shared::new(spread.filter(|(_, spread)| !spread.groups.is_empty()))))
    }

    /// A picker by hash over priorities with shares in percent.
    pub(crate) fn hashed(priorities: Vec<(u32, Hashed)>) -> Self {
        Self(Kind::Hashed(Shared::new(priorities.into_iter())))
    }

    /// Calls are picked for by [`Self::pick_by_hash`].
    pub(crate) fn is_hashed(&self) -> bool {
        matches!(self.0, Kind::Hashed(_))
    }

    /// Nobody is ready, nor will be because a call comes.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.0 {
            Kind::Spread(spread) => spread.0.is_empty(),
            Kind::Hashed(hashed) => hashed.parts().all(Hashed::is_hopeless),
        }
    }

    /// The parts that pickers which follow one another may share.
    #[cfg(test)]
    pub(crate) fn parts(&self) -> Vec<*const ()> {
        let Kind::Spread(spread) = &self.0 else { return Vec::new() };
        let groups = spread.parts().flat_map(|part| &part.groups);
        groups.map(|group| Arc::as_ptr(group).cast()).collect()
    }

    /// How many are ready.
    pub(crate) fn ready(&self) -> usize {
        match &self.0 {
            Kind::Spread(spread) => {
                spread.parts().flat_map(|part| &part.groups).map(|group| group.len()).sum()
            }
            Kind::Hashed(hashed) => hashed.parts().map(Hashed::ready).sum(),
        }
    }

    /// One of them. It was ready when the picker was built; whoever asks looks whether it still is.
    pub(crate) fn pick(&self, dice: &Dice) -> Option<&Arc<Endpoint>> {
        match &self.0 {
            Kind::Spread(spread) => spread.part(|| dice.roll().u64(..))?.pick(dice),
            Kind::Hashed(_) => match self.pick_by_hash(None, dice, |_| false) {
                Hit::Ready(endpoint) => Some(endpoint),
                Hit::Wait(_) | Hit::Nobody => None,
            },
        }
    }

    /// The endpoint of a call's hash; of a call without one, any. Those to be avoided are taken when there is
    /// no other.
    pub(crate) fn pick_by_hash(
        &self,
        hash: Option<u64>,
        dice: &Dice,
        avoid: impl Fn(&Endpoint) -> bool,
    ) -> Hit<'_> {
        let Kind::Hashed(hashed) = &self.0 else {
            return self.pick(dice).map_or(Hit::Nobody, Hit::Ready);
        };
        let chosen = hashed.part(|| hash.unwrap_or_else(|| dice.roll().u64(..)));
        for part in chosen.into_iter().chain(hashed.parts()) {
            let hit = match hash {
                Some(hash) => part.pick(hash, &avoid),
                None => part.pick_any(dice, &avoid),
            };
            if !matches!(hit, Hit::Nobody) {
                return hit;
            }
        }
        Hit::Nobody
    }

    /// Where a hash leads, as [`Self::pick_by_hash`] goes; looking changes nothing.
    pub(crate) fn find_by_hash(&self, hash: u64) -> Option<(&Arc<Endpoint>, hashed::State)> {
        let Kind::Hashed(hashed) = &self.0 else { return None };
        let mut parts = hashed.part(|| hash).into_iter().chain(hashed.parts());
        parts.find_map(|part| part.find(hash, |_| false))
    }

    /// All that are ready, from a random one on; for when picks hit ones that are gone.
    pub(crate) fn iter(&self, dice: &Dice) -> impl Iterator<Item = &Arc<Endpoint>> {
        let skip = match self.ready() {
            0 => 0,
            len => dice.roll().usize(0..len),
        };
        let all = || {
            let (spread, hashed) = match &self.0 {
                Kind::Spread(spread) => (Some(spread), None),
                Kind::Hashed(hashed) => (None, Some(hashed)),
            };
            let groups = spread.into_iter().flat_map(Shared::parts).flat_map(|part| &part.groups);
            let spread = groups.flat_map(|group| group.iter());
            spread.chain(hashed.into_iter().flat_map(Shared::parts).flat_map(Hashed::iter))
        };
        all().skip(skip).chain(all().take(skip))
    }
}

impl Spread {
    fn new(groups: Vec<Group>) -> Self {
        let groups: Vec<_> = groups.into_iter().filter(|(_, group)| group.len() > 0).collect();
        let localities = Draw::new(groups.iter().map(|(weight, _)| *weight));
        Self { localities, groups: groups.into_iter().map(|(_, group)| group).collect() }
    }

    fn pick(&self, dice: &Dice) -> Option<&Arc<Endpoint>> {
        let group = match &*self.groups {
            [only] => only,
            groups => groups.get(self.localities.draw(&mut dice.roll())?)?,
        };
        group.pick(dice)
    }
}

impl Balancer {
    /// `ready` are the indices of those who are; `weights` are theirs, one for each.
    pub(crate) fn new(
        policy: &LbPolicy,
        members: Arc<[Arc<Endpoint>]>,
        ready: Vec<u32>,
        weights: Vec<u32>,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let policy = match policy {
            LbPolicy::RoundRobin => Policy::RoundRobin(Stride::new(&weights, rng)),
            LbPolicy::LeastRequest { choices, active_request_bias } => Policy::LeastRequest(LeastRequest {
                choices: (*choices).clamp(2, 10),
                bias: *active_request_bias,
                draw: Draw::new(weights.iter().copied()),
                weights: weights.into(),
            }),
            LbPolicy::Random => Policy::Random(Draw::new(weights.iter().copied())),
            LbPolicy::PickFirst { .. } => Policy::First,
            LbPolicy::ClientSideWeightedRoundRobin(policy) => {
                Policy::Weighted(Weighted::new(policy, weights, rng))
            }
            LbPolicy::RingHash(_) | LbPolicy::Maglev(_) => Policy::Missing,
        };
        let balancer = Self { ready: (ready.len() < members.len()).then(|| ready.into()), members, policy };
        balancer.reweigh(Instant::now());
        balancer
    }

    fn len(&self) -> usize {
        self.ready.as_ref().map_or(self.members.len(), |ready| ready.len())
    }

    /// One of those that are ready.
    fn get(&self, index: usize) -> Option<&Arc<Endpoint>> {
        match &self.ready {
            None => self.members.get(index),
            Some(ready) => self.members.get(usize::try_from(*ready.get(index)?).ok()?),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    fn pick(&self, dice: &Dice) -> Option<&Arc<Endpoint>> {
        if self.len() == 1 {
            return self.get(0);
        }
        match &self.policy {
            Policy::RoundRobin(stride) => self.get(stride.next()),
            Policy::LeastRequest(policy) => self.least_loaded(policy, &mut dice.roll()),
            Policy::Random(draw) => self.get(draw.draw(&mut dice.roll())?),
            Policy::First => self.get(0),
            Policy::Weighted(weighted) => self.get(weighted.next()),
            Policy::Missing => None,
        }
    }

    /// Weighs endpoints by what they say of their load, where that is the policy; calls go on picking meanwhile.
    pub(crate) fn reweigh(&self, now: Instant) -> Option<Weights> {
        match &self.policy {
            Policy::Weighted(weighted) => Some(weighted.reweigh(now, self.iter())),
            _ => None,
        }
    }

    /// gRFC A48: independent samples, the lowest count wins, ties keep the first. Samples are drawn by weight
    /// and counts compared per weight, so that idle endpoints get their shares and busy ones are avoided; with
    /// equal weights and the usual bias this is A48 to the letter. Another bias makes calls in flight count more
    /// or less against the weight, as in Envoy; with 0 they do not count, and the weights alone decide.
    fn least_loaded(&self, policy: &LeastRequest, rng: &mut fastrand::Rng) -> Option<&Arc<Endpoint>> {
        let LeastRequest { choices, bias, weights, draw } = policy;
        #[allow(clippy::float_cmp)] // Exactly what was configured.
        let usual = *bias == 1.0;
        let mut best: Option<(&Arc<Endpoint>, u32, u32)> = None;
        for _ in 0..*choices {
            let index = draw.draw(rng)?;
            let endpoint = self.get(index)?;
            let (active, weight) = (endpoint.in_flight(), *weights.get(index)?);
            let is_less = |(least, its_weight): (u32, u32)| {
                let (active, least) = if usual {
                    (f64::from(active), f64::from(least))
                } else {
                    let counted = |active: u32| (f64::from(active) + 1.0).powf(*bias) - 1.0;
                    (counted(active), counted(least))
                };
                active * f64::from(its_weight) < least * f64::from(weight)
            };
            if best.is_none_or(|(_, least, its_weight)| is_less((least, its_weight))) {
                best = Some((endpoint, active, weight));
            }
        }
        best.map(|(endpoint, ..)| endpoint)
    }
}

#[cfg(test)]
pub(crate) mod tests;
