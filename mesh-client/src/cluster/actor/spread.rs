//! The picker of policies that spread calls over ready endpoints, and its parts that are kept.
//!
//! Promises: a locality in which nothing changed keeps its part of the picker, its place in the round included;
//! where something did, one pass over the locality's standings and weights makes another. Degraded endpoints
//! are picked by their own share, or where nothing better is ready.

use super::Actor;
use crate::{
    cluster::{
        locality::View,
        slots::Slots,
        standing::{Judge, Link, Standing},
        zones,
    },
    endpoint::Endpoint,
    lb::{Balancer, Group, Picker, pick_first::PickFirst, slow_start, weighted::Weights},
};
use mesh_xds::{
    balancing::Loads,
    config::ClusterConfig,
    resource::cluster::{Cluster, LbPolicy, LocalityLb, ZoneAware},
};
use std::{collections::HashMap, net::SocketAddr, ops::Range, sync::Arc};
use tokio::time::Instant;

/// Which of those that are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Better,
    Degraded,
    /// In a panic nobody is worse than others.
    All,
}

impl Class {
    fn has(self, judge: Judge, standing: Standing) -> bool {
        standing.link() == Link::Ready
            && judge.is_offered(standing)
            && match self {
                Self::All => true,
                Self::Better => !judge.is_degraded(standing),
                Self::Degraded => judge.is_degraded(standing),
            }
    }
}

/// What one part of a picker is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// Localities taken as one.
    zones: Range<usize>,
    class: Class,
    judge: Judge,
}

#[derive(Debug)]
struct Kept {
    /// The latest change of its localities that it knows.
    changed: u64,
    reordered: u64,
    members: Arc<[Arc<Endpoint>]>,
    balancer: Arc<Balancer>,
}

/// The parts of the pickers in use.
#[derive(Debug, Default)]
pub(super) struct Balancers {
    cluster: Option<Arc<Cluster>>,
    kept: HashMap<Key, Kept>,
    /// Of the pickers before; while others are made.
    before: HashMap<Key, Kept>,
}

impl Balancers {
    /// Weighs the endpoints of all parts in use by their load, where that is the policy.
    pub(super) fn reweigh(&self, now: Instant) -> Option<Weights> {
        let weights = self.kept.values().filter_map(|kept| kept.balancer.reweigh(now));
        weights.reduce(|mut sum, weights| {
            sum += weights;
            sum
        })
    }

    /// Pickers are made: the parts that were not used for them are forgotten.
    pub(super) fn finish(&mut self) {
        self.before = HashMap::new();
    }
}

/// How pickers are made, now.
pub(super) struct Making<'a> {
    cluster: &'a Arc<Cluster>,
    slots: &'a Slots,
    rng: fastrand::Rng,
    now: Instant,
    balancers: Balancers,
    /// When weights change though nothing happens.
    reweigh_at: Option<Instant>,
    callers: Option<zones::Known>,
    /// How zones share the calls, or why they do not; where that is the option.
    zone_routing: Option<Arc<str>>,
}

impl Making<'_> {
    /// The ready endpoints of a class by locality, or as one list, as the cluster's options have it.
    pub(super) fn groups(&mut self, view: &View<'_>, class: Class) -> Vec<Group> {
        let zones = view.tier.zones.clone();
        match self.cluster.lb_options.localities {
            LocalityLb::Flat => self.one_list(view, class),
            LocalityLb::Weighted => {
                let weights = view.priority.localities.iter().map(|locality| locality.weight.get());
                let of_zone = |(zone, weight)| (weight, self.balancer(zone..zone + 1, class, view.judge));
                zones.zip(weights).map(of_zone).collect()
            }
            LocalityLb::ZoneAware(settings) => self.zone_aware(&settings, view, class),
        }
    }

    fn one_list(&mut self, view: &View<'_>, class: Class) -> Vec<Group> {
        vec![(1, self.balancer(view.tier.zones.clone(), class, view.judge))]
    }

    /// Only of the first priority, and while it does not panic, as in Envoy.
    fn zone_aware(&mut self, settings: &ZoneAware, view: &View<'_>, class: Class) -> Vec<Group> {
        if view.is_panicking() && settings.fail_traffic_on_panic {
            self.zone_routing = Some("calls fail in panic (fail_traffic_on_panic)".into());
            return Vec::new();
        }
        let zones = view.tier.zones.clone();
        if view.index > 0 || class != Class::Better {
            return self.one_list(view, class);
        }
        let ready = zones.clone().zip(&view.priority.localities).map(|(zone, locality)| {
            let positions = self.slots.zones(zone..zone + 1).first().map(|zone| zone.positions.clone());
            let standings = self.slots.standings(positions.unwrap_or_default());
            let ready = standings.iter().filter(|standing| class.has(view.judge, **standing));
            (&locality.locality, ready.count() as u64)
        });
        let ready: Vec<_> = ready.collect();
        match zones::plan(settings, self.callers.as_ref(), &ready) {
            Err(reason) => {
                self.zone_routing = Some(format!("off: {reason}").into());
                self.one_list(view, class)
            }
            Ok(plan) => {
                self.zone_routing = Some(plan.describe(&ready).into());
                let mut groups = Vec::new();
                for (zone, share) in zones.clone().zip(&plan.localities).filter(|(_, share)| **share > 0) {
                    groups.push((*share, self.balancer(zone..zone + 1, class, view.judge)));
                }
                if plan.all > 0 {
                    groups.push((plan.all, self.balancer(zones, class, view.judge)));
                }
                groups
            }
        }
    }

    /// Those that are not degraded, else those that are.
    fn any_groups(&mut self, view: &View<'_>) -> Vec<Group> {
        let is_better = |standing| Class::Better.has(view.judge, standing);
        let class = if view.tier.census.any(is_better) { Class::Better } else { Class::Degraded };
        self.groups(view, class)
    }

    fn balancer(&mut self, zones: Range<usize>, class: Class, judge: Judge) -> Arc<Balancer> {
        let key = Key { zones, class, judge };
        if let Some(kept) = self.balancers.kept.get(&key) {
            return Arc::clone(&kept.balancer);
        }
        let zones = self.slots.zones(key.zones.clone());
        let changed = zones.iter().map(|zone| zone.changed).max().unwrap_or(0);
        let reordered = zones.iter().map(|zone| zone.reordered).max().unwrap_or(0);
        let before = self.balancers.before.remove(&key);
        let kept = match before {
            Some(kept) if kept.changed == changed => kept,
            before => {
                let members = match (before, zones) {
                    (Some(kept), _) if kept.reordered == reordered => kept.members,
                    (_, [zone]) => Arc::clone(&zone.members),
                    _ => zones.iter().flat_map(|zone| zone.members.iter().cloned()).collect(),
                };
                let (ready, weights) = self.ready(&key);
                let lb = &self.cluster.lb;
                let balancer = Balancer::new(lb, Arc::clone(&members), ready, weights, &mut self.rng);
                Kept { changed, reordered, members, balancer: Arc::new(balancer) }
            }
        };
        let balancer = Arc::clone(&kept.balancer);
        self.balancers.kept.insert(key, kept);
        balancer
    }

    /// Who is ready, counted from the first of its localities, and with which weights.
    fn ready(&mut self, key: &Key) -> (Vec<u32>, Vec<u32>) {
        let zones = self.slots.zones(key.zones.clone());
        let first = zones.first().map_or(0, |zone| zone.positions.start);
        let positions = first..zones.last().map_or(first, |zone| zone.positions.end);
        let standings = self.slots.standings(positions.clone()).iter();
        let known = standings.zip(self.slots.weights(positions.clone()));
        // Weights of load take the place of those that the control plane gives.
        let by_load = matches!(self.cluster.lb, LbPolicy::ClientSideWeightedRoundRobin(_));
        let mut ready = Vec::with_capacity(positions.len());
        let mut weights = Vec::with_capacity(positions.len());
        for (index, (standing, weight)) in (0..).zip(known) {
            if key.class.has(key.judge, *standing) {
                ready.push(index);
                weights.push(if by_load { 1 } else { *weight });
            }
        }
        let Some(settings) = &self.cluster.lb_options.slow_start else { return (ready, weights) };
        let ids = self.slots.ids(positions);
        for (index, weight) in ready.iter().zip(&mut weights) {
            let id = usize::try_from(*index).ok().and_then(|index| ids.get(index));
            let Some(slot) = id.and_then(|id| self.slots.get(*id)) else { continue };
            let age = self.now.saturating_duration_since(slot.since);
            *weight = slow_start::weight(settings, *weight, age);
            if age < settings.window {
                self.reweigh_at = Some(self.now + slow_start::step(settings));
            }
        }
        (ready, weights)
    }

    /// Of one endpoint, if it is ready and of this class.
    pub(super) fn only(&mut self, view: &View<'_>, address: SocketAddr, class: Class) -> Vec<Group> {
        let id = self.slots.find(address);
        let standing = id.and_then(|id| self.slots.standing(id));
        let positions = &view.tier.positions;
        let ready = standing.is_some_and(|(position, standing)| {
            positions.contains(&position) && class.has(view.judge, standing)
        });
        let Some(slot) = id.and_then(|id| self.slots.get(id)).filter(|_| ready) else { return Vec::new() };
        let members = Arc::new([Arc::clone(slot.endpoint())]);
        vec![(1, Arc::new(Balancer::new(&self.cluster.lb, members, vec![0], vec![1], &mut self.rng)))]
    }
}

impl Actor {
    /// Pickers are made anew, of the parts that are still right.
    pub(super) fn begin_weighing(&mut self) {
        let cluster = &self.config.cluster;
        let balancers = &mut self.balancers;
        let kept = std::mem::take(&mut balancers.kept);
        let same = balancers.cluster.as_ref().is_some_and(|before| before == cluster);
        // Weights that grow are weighed anew each time.
        balancers.before = if same && self.reweigh_at.take().is_none() { kept } else { HashMap::new() };
        balancers.cluster = Some(Arc::clone(cluster));
        self.reweigh_at = None;
        self.zone_routing = None;
    }

    pub(super) fn making<R>(&mut self, make: impl FnOnce(&Self, &mut Making<'_>) -> R) -> R {
        let balancers = std::mem::take(&mut self.balancers);
        let mut making = Making {
            cluster: &self.config.cluster,
            slots: &self.slots,
            rng: self.rng.clone(),
            now: Instant::now(),
            balancers,
            reweigh_at: self.reweigh_at,
            callers: self.callers.as_ref().map(|callers| callers.borrow().clone()),
            // Further pickers of the same weighing say nothing about it.
            zone_routing: self.zone_routing.take(),
        };
        let made = make(self, &mut making);
        let Making { rng, balancers, reweigh_at, zone_routing, .. } = making;
        (self.rng, self.balancers, self.reweigh_at) = (rng, balancers, reweigh_at);
        self.zone_routing = zone_routing;
        made
    }

    /// A picker that spreads calls over ready endpoints: by the priorities' shares, and where nobody who has a
    /// share is ready, over the priority that is waited for.
    pub(super) fn spread_picker(&mut self, config: &ClusterConfig, loads: &Loads) -> Picker {
        self.making(|actor, making| actor.spread(making, config, loads))
    }

    fn spread(&self, making: &mut Making<'_>, config: &ClusterConfig, loads: &Loads) -> Picker {
        let priorities = &config.endpoints.priorities;
        let views = || (0..).zip(priorities).map(|(index, priority)| self.view(index, priority, loads));
        let mut parts = Vec::new();
        if !self.is_pick_first() {
            for (index, (view, load)) in views().zip(&loads.loads).enumerate() {
                let Some(view) = view.filter(|_| self.priorities.is_started(index)) else { continue };
                let shares = if view.is_panicking() {
                    [(load.healthy + load.degraded, Class::All), (0, Class::Degraded)]
                } else {
                    [(load.healthy, Class::Better), (load.degraded, Class::Degraded)]
                };
                for (share, class) in shares.into_iter().filter(|(share, _)| *share > 0) {
                    parts.push((share, making.groups(&view, class)));
                }
            }
        }
        let picker = Picker::spread(parts);
        let current = self.priorities.current();
        let waited_for = current.and_then(|index| Some((index, views().nth(index)??)));
        let Some((index, view)) = waited_for.filter(|_| picker.is_empty()) else { return picker };
        let groups = match self.pick_first.get(index).map(PickFirst::selected) {
            None => making.any_groups(&view),
            Some(Some(selected)) => making.only(&view, selected, Class::All),
            Some(None) => Vec::new(),
        };
        Picker::spread(vec![(100, groups)])
    }
}
