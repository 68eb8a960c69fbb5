//! From what the actor knows to the snapshot that calls read: which priorities are used, which endpoints are
//! connected, and the picker over them.

use super::{Actor, hash};
use crate::{
    cluster::{
        locality::View,
        priority::Aggregate,
        slots::{Id, Slot, Tier},
        snapshot::{Hope, Snapshot, Summary},
        standing::{Judge, Link, Standing},
    },
    endpoint::{machine::Connectivity, task::Want},
    lb::{Picker, hashed::Together, pick_first::PickFirst},
};
use mesh_xds::{
    balancing::{self, Counts, Hashing, Loads},
    config::ClusterConfig,
    resource::{
        cluster::{LbPolicy, LocalityLb, ZoneAware},
        endpoint::Priority,
    },
};
use std::{collections::HashSet, sync::Arc};
use tokio::time::Instant;

/// What the pick first policies were told of: as of which layout, and who judged by which rules.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Populated(Option<(u64, bool, Vec<Judge>)>);

impl Actor {
    pub(super) fn is_pick_first(&self) -> bool {
        matches!(self.config.cluster.lb, LbPolicy::PickFirst { .. })
    }

    /// How calls are hashed, if they are.
    pub(super) fn hashing(&self) -> Option<Hashing> {
        Hashing::of(&self.config.cluster.lb, self.ring_size_cap)
    }

    fn judge(&self, tier: &Tier, may_panic: bool) -> Judge {
        // Gated as in gRPC: ejection must not hit a top-level pick first.
        let panic_threshold = self.config.cluster.panic_threshold.filter(|_| may_panic);
        Judge::new(&tier.census, !self.is_pick_first(), self.counts_unchecked(), panic_threshold)
    }

    pub(super) fn view<'a>(
        &'a self,
        index: usize,
        priority: &'a Priority,
        loads: &Loads,
    ) -> Option<View<'a>> {
        let tier = self.slots.tiers().get(index)?;
        let judge = self.judge(tier, !loads.is_enough);
        Some(View { index, priority, tier, slots: &self.slots, judge })
    }

    fn views<'a>(
        &'a self,
        priorities: &'a [Priority],
        loads: &Loads,
    ) -> impl Iterator<Item = (usize, View<'a>)> {
        let views = priorities.iter().enumerate();
        views.filter_map(move |(index, priority)| Some((index, self.view(index, priority, loads)?)))
    }

    /// Lets policy and priorities decide until nothing moves, then publishes.
    pub(in crate::cluster) fn settle(&mut self) {
        let now = Instant::now();
        let config = Arc::clone(&self.config);
        let priorities = &config.endpoints.priorities;
        let mut loads = self.loads();
        let mut state;
        self.populate_pick_first(priorities, &loads);
        loop {
            for policy in &mut self.pick_first {
                let slots = &self.slots;
                while policy.choose(now, |address| slots.at(address).map(Slot::state)) {}
            }
            let states: Vec<Aggregate> =
                self.views(priorities, &loads).map(|(index, view)| self.aggregate(index, &view)).collect();
            let needed = loads.loads.iter().enumerate();
            let needed: Vec<bool> = needed
                .map(|(index, load)| load.healthy + load.degraded > 0 || self.asked.has(index))
                .collect();
            let moved = self.priorities.choose(now, &states, &needed);
            state = self.priorities.current().and_then(|current| states.get(current).copied());
            let told = self.apply_wanted(&loads);
            loads = self.loads();
            if !told && !moved {
                break;
            }
        }
        self.wake_where_no_call_would(priorities, &loads);
        self.publish(&config, &loads, state);
    }

    /// How calls are shared between the priorities.
    pub(super) fn loads(&self) -> Loads {
        balancing::split(&self.counts(), self.config.endpoints.overprovisioning_factor.get())
    }

    /// The endpoints of the priorities, counted. An endpoint is available unless the control plane, outlier
    /// detection or its own connection says otherwise; a priority that was passed over (A56) has none.
    pub(super) fn counts(&self) -> Vec<Counts> {
        let count = |(index, tier): (usize, &Tier)| {
            let judge = self.judge(tier, false);
            let mut counts = Counts { total: judge.total(&tier.census), ..Counts::default() };
            if self.priorities.is_passed_over(index) {
                return counts;
            }
            for (standing, count) in tier.census.iter() {
                if !judge.is_offered(standing) || standing.link() == Link::Failed {
                    continue;
                }
                if judge.is_degraded(standing) {
                    counts.degraded += count;
                } else {
                    counts.healthy += count;
                }
            }
            counts
        };
        self.slots.tiers().iter().enumerate().map(count).collect()
    }

    /// Tells the policies of the usable endpoints, when those may be others than before.
    fn populate_pick_first(&mut self, priorities: &[Priority], loads: &Loads) {
        let LbPolicy::PickFirst { shuffle } = self.config.cluster.lb else {
            self.pick_first.clear();
            self.populated = Populated::default();
            return;
        };
        let judges = self.views(priorities, loads).map(|(_, view)| view.judge).collect();
        let populated = Populated(Some((self.slots.reviewed(), shuffle, judges)));
        if populated == self.populated {
            return;
        }
        self.populated = populated;
        self.pick_first.resize_with(priorities.len(), PickFirst::default);
        let mut policies = std::mem::take(&mut self.pick_first);
        let mut rng = self.rng.clone();
        for (policy, (_, view)) in policies.iter_mut().zip(self.views(priorities, loads)) {
            let mut endpoints = Vec::new();
            for (locality, members) in view.priority.localities.iter().zip(view.localities()) {
                let all: f64 =
                    locality.endpoints.iter().map(|endpoint| f64::from(endpoint.weight.get())).sum();
                let usable = members.filter(|member| view.is_usable(member.standing));
                endpoints.extend(usable.map(|member| {
                    let share = f64::from(member.endpoint.weight.get()) / all;
                    (member.endpoint.address(), f64::from(locality.weight.get()) * share)
                }));
            }
            policy.populate(&endpoints, shuffle, &mut rng);
        }
        self.rng = rng;
        self.pick_first = policies;
    }

    fn aggregate(&self, index: usize, view: &View<'_>) -> Aggregate {
        match self.connected(index, view) {
            // Who has not been asked may be well.
            Aggregate::TransientFailure if view.tier.census.any(Standing::is_unchecked) => {
                Aggregate::Connecting
            }
            aggregate => aggregate,
        }
    }

    fn connected(&self, index: usize, view: &View<'_>) -> Aggregate {
        if self.hashing().is_some() {
            return match hash::together(view) {
                Together::Ready => Aggregate::Ready,
                Together::Connecting => Aggregate::Connecting,
                Together::Idle => Aggregate::Idle,
                Together::TransientFailure => Aggregate::TransientFailure,
            };
        }
        let any = |link: Link, wanted: bool| {
            view.tier.census.any(|standing: Standing| {
                view.is_offered(standing)
                    && standing.link() == link
                    && (!wanted || standing.want().is_of_policy())
            })
        };
        if any(Link::Ready, false) {
            Aggregate::Ready
        } else if any(Link::Connecting, false) || self.pick_first.get(index).is_some_and(PickFirst::has_more)
        {
            Aggregate::Connecting
        } else if any(Link::Idle, true) {
            // Only what is wanted can be idle: pick first leaves out the others.
            Aggregate::Idle
        } else {
            Aggregate::TransientFailure
        }
    }

    /// Tells endpoints whether they are wanted. True: some were told something new.
    fn apply_wanted(&mut self, loads: &Loads) -> bool {
        let want = if self.hashing().is_some() { Want::Lazily } else { Want::Now };
        let tiers = self.slots.tiers().iter().enumerate();
        let tiers: Vec<_> = tiers
            .map(|(index, tier)| {
                let judge = self.judge(tier, !loads.is_enough);
                (judge, self.priorities.is_started(index), tier.positions.clone())
            })
            .collect();
        let statuses = self.session_statuses();
        let mut changed = false;
        for (index, (judge, started, positions)) in tiers.into_iter().enumerate() {
            let wants = |standing: Standing, chosen| match statuses {
                _ if started && chosen && judge.is_usable(standing) => want,
                Some(statuses) if standing.may_be_one_of(statuses) => Want::Aside,
                _ => Want::No,
            };
            changed |= match self.pick_first.get(index) {
                None => self.slots.want(index, |standing| wants(standing, true)),
                Some(policy) => {
                    let wanted: HashSet<Id> =
                        policy.wanted().filter_map(|address| self.slots.find(address)).collect();
                    self.slots.want_each(positions, |standing, id| wants(standing, wanted.contains(&id)))
                }
            };
        }
        changed
    }

    /// Hashing connects an endpoint when a call comes to it. None comes to a priority that is passed over.
    fn wake_where_no_call_would(&mut self, priorities: &[Priority], loads: &Loads) {
        if self.hashing().is_none() {
            return;
        }
        let mut rng = self.rng.clone();
        let started = self.views(priorities, loads).filter(|(index, _)| self.priorities.is_started(*index));
        let woken: Vec<Id> = started.filter_map(|(_, view)| hash::to_wake(&view, &mut rng)).collect();
        self.rng = rng;
        for id in woken {
            self.slots.update(id, Slot::wake);
        }
    }

    fn publish(&mut self, config: &Arc<ClusterConfig>, loads: &Loads, state: Option<Aggregate>) {
        let priorities = &config.endpoints.priorities;
        self.begin_weighing();
        let picker = match self.hashing() {
            Some(hashing) => self.hashed_picker(priorities, loads, hashing),
            None => self.spread_picker(config, loads),
        };
        let current = self.priorities.current();
        let mut idle = Vec::new();
        if !picker.is_hashed() {
            let views = self.views(priorities, loads).map(|(_, view)| view);
            for view in views.take(current.map_or(0, |current| current + 1)) {
                idle.extend(view.asleep());
            }
        }
        let hope = if picker.ready() == 0 {
            match self.hope(priorities, loads) {
                hope if !self.fails_in_panic(priorities, loads) => hope,
                hope => Hope::Fail(
                    format!(
                        "in panic calls fail (zone_aware_lb_config.fail_traffic_on_panic): {}",
                        hope.reason()
                    )
                    .into(),
                ),
            }
        } else {
            Hope::Wait("connections were lost a moment ago".into())
        };
        let state = match state {
            _ if picker.ready() > 0 => Aggregate::Ready,
            _ if self.names.is_pending() => Aggregate::Connecting,
            state => state.unwrap_or(Aggregate::TransientFailure),
        };
        let levels = self.levels(config, loads);
        let hosts = self.hosts(config);
        self.balancers.finish();
        let config = Arc::clone(config);
        self.shared.snapshot.store(Arc::new(Snapshot { config, picker, levels, hosts, idle, hope, state }));
        #[cfg(test)]
        self.shared.published.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.shared.changed.send_replace(());
    }

    fn fails_in_panic(&self, priorities: &[Priority], loads: &Loads) -> bool {
        let localities = self.config.cluster.lb_options.localities;
        matches!(localities, LocalityLb::ZoneAware(ZoneAware { fail_traffic_on_panic: true, .. }))
            && self.views(priorities, loads).any(|(_, view)| view.is_panicking())
    }

    /// A picker by hash: by the priorities' shares, and where nobody who has a share can be hoped for, over the
    /// priority that is waited for.
    fn hashed_picker(&mut self, priorities: &[Priority], loads: &Loads, hashing: Hashing) -> Picker {
        let mut tables = std::mem::take(&mut self.tables);
        tables.resize(priorities.len());
        let mut parts = Vec::new();
        for (index, (priority, load)) in priorities.iter().zip(&loads.loads).enumerate() {
            if !self.priorities.is_started(index) {
                continue;
            }
            let Some(view) = self.view(index, priority, loads) else { continue };
            // In panic nobody is degraded: all stand in one table, for all that the priority gets.
            let shares = if view.is_panicking() {
                [(load.healthy + load.degraded, false), (0, true)]
            } else {
                [(load.healthy, false), (load.degraded, true)]
            };
            for (share, degraded) in shares {
                if share > 0 {
                    parts
                        .extend(tables.hashed(index, &view, hashing, degraded).map(|hashed| (share, hashed)));
                }
            }
        }
        if parts.iter().all(|(_, hashed)| hashed.is_hopeless())
            && let Some((index, priority)) =
                self.priorities.current().and_then(|index| Some((index, priorities.get(index)?)))
            && let Some(view) = self.view(index, priority, loads)
        {
            for degraded in [false, true] {
                parts.extend(tables.hashed(index, &view, hashing, degraded).map(|hashed| (1, hashed)));
            }
        }
        self.tables = tables;
        Picker::hashed(parts)
    }

    fn hope(&self, priorities: &[Priority], loads: &Loads) -> Hope {
        let mut summary = Summary { note: self.config.note.clone(), ..Summary::default() };
        let mut more = self.names.is_pending();
        for (index, view) in self.views(priorities, loads) {
            let started = self.priorities.is_started(index);
            more |= started && self.pick_first.get(index).is_some_and(PickFirst::has_more);
            for (standing, count) in view.tier.census.iter() {
                if standing.is_unchecked() {
                    summary.unchecked += count;
                } else if !view.is_usable(standing) {
                    summary.unhealthy += count;
                } else if view.is_ejected(standing) {
                    summary.ejected += count;
                } else {
                    match standing.link() {
                        Link::Ready => summary.ready += count,
                        Link::Connecting => summary.connecting += count,
                        Link::Idle => summary.idle += count,
                        Link::Failed => summary.backing_off += count,
                    }
                }
            }
            let is_new = |standing| view.is_offered(standing) && standing.link() == Link::Connecting;
            if summary.connecting_to.is_none() && view.tier.census.any(is_new) {
                let new = view.members().find(|member| is_new(member.standing));
                summary.connecting_to = new.map(|member| member.endpoint.address());
            }
            let is_lost = |standing| view.is_offered(standing) && standing.link() == Link::Failed;
            if view.tier.census.any(is_lost) {
                let lost = view.members().filter(|member| is_lost(member.standing)).last();
                if let Some(Connectivity::TransientFailure(reason)) =
                    lost.and_then(|member| view.slot(member)).map(Slot::state)
                {
                    summary.failure = Some(reason);
                }
            }
        }
        if summary.failure.is_none() && summary.unhealthy > 0 {
            summary.failure = self.slots.iter().find_map(Slot::failed_check);
        }
        let reason = summary.to_string().into();
        if more || summary.connecting > 0 || summary.idle > 0 || summary.unchecked > 0 {
            Hope::Wait(reason)
        } else {
            Hope::Fail(reason)
        }
    }
}
