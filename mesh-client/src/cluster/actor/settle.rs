//! From what the actor knows to the snapshot that calls read: which priorities are used, which endpoints are
//! connected, and the picker over them.

use super::{
    Actor, Slot,
    hash::{self, Hashing},
};
use crate::{
    cluster::{
        locality::View,
        priority::Aggregate,
        snapshot::{Hope, Snapshot, Summary},
        spill::{self, Counts, Loads},
    },
    endpoint::{machine::Connectivity, task::Want},
    lb::{
        self, Group, Picker,
        hashed::{self, Together},
        pick_first::PickFirst,
        slow_start,
    },
};
use mesh_xds::{
    config::ClusterConfig,
    resource::{
        self,
        cluster::{LbPolicy, LocalityLb},
        endpoint::{HealthStatus, Priority},
    },
};
use std::{collections::HashMap, sync::Arc};
use tokio::time::Instant;

impl Actor {
    fn is_pick_first(&self) -> bool {
        matches!(self.config.cluster.lb, LbPolicy::PickFirst { .. })
    }

    /// How calls are hashed, if they are.
    pub(super) fn hashing(&self) -> Option<Hashing> {
        Hashing::of(&self.config.cluster.lb, self.ring_size_cap)
    }

    pub(super) fn view<'a>(&'a self, priority: &'a Priority, may_panic: bool) -> View<'a> {
        // Gated as in gRPC: ejection must not hit a top-level pick first.
        let ejector = (!self.is_pick_first()).then_some(&self.ejector);
        let panic_threshold = self.config.cluster.panic_threshold.filter(|_| may_panic);
        View::new(priority, &self.slots, ejector, panic_threshold)
    }

    /// Lets policy and priorities decide until nothing moves, then publishes.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        let config = Arc::clone(&self.config);
        let priorities = &config.endpoints.priorities;
        let mut loads = self.loads(priorities);
        let mut state;
        self.populate_pick_first(priorities, &loads);
        loop {
            for policy in &mut self.pick_first {
                let slots = &self.slots;
                while policy.choose(now, |address| slots.get(&address).map(Slot::state)) {}
            }
            let aggregate = |(index, priority)| self.aggregate(index, priority, &loads);
            let states: Vec<Aggregate> = priorities.iter().enumerate().map(aggregate).collect();
            let needed = loads.loads.iter().enumerate();
            let needed: Vec<bool> = needed
                .map(|(index, load)| load.healthy + load.degraded > 0 || self.asked.has(index))
                .collect();
            let moved = self.priorities.choose(now, &states, &needed);
            state = self.priorities.current().and_then(|current| states.get(current).copied());
            let told = self.apply_wanted(priorities, &loads);
            loads = self.loads(priorities);
            if !told && !moved {
                break;
            }
        }
        self.wake_where_no_call_would(priorities, &loads);
        self.publish(&config, &loads, state);
    }

    /// How calls are shared between the priorities.
    pub(super) fn loads(&self, priorities: &[Priority]) -> Loads {
        spill::split(&self.counts(priorities), self.config.endpoints.overprovisioning_factor.get())
    }

    /// The endpoints of the priorities, counted. An endpoint is available unless the control plane, outlier
    /// detection or its own connection says otherwise; a priority that was passed over (A56) has none.
    pub(super) fn counts(&self, priorities: &[Priority]) -> Vec<Counts> {
        let count = |(index, priority): (usize, &Priority)| {
            let view = self.view(priority, false);
            let mut counts = Counts::default();
            for endpoint in view.endpoints().filter(|endpoint| endpoint.health != HealthStatus::Draining) {
                counts.total += 1;
                let failed = matches!(view.state(endpoint), Some(Connectivity::TransientFailure(_)));
                if !view.is_offered(endpoint) || failed || self.priorities.is_passed_over(index) {
                    continue;
                }
                if endpoint.health == HealthStatus::Degraded {
                    counts.degraded += 1;
                } else {
                    counts.healthy += 1;
                }
            }
            counts
        };
        priorities.iter().enumerate().map(count).collect()
    }

    fn populate_pick_first(&mut self, priorities: &[Priority], loads: &Loads) {
        let LbPolicy::PickFirst { shuffle } = self.config.cluster.lb else {
            self.pick_first.clear();
            return;
        };
        self.pick_first.resize_with(priorities.len(), PickFirst::default);
        let mut policies = std::mem::take(&mut self.pick_first);
        for (policy, priority) in policies.iter_mut().zip(priorities) {
            let view = self.view(priority, !loads.is_enough);
            let mut endpoints = Vec::new();
            for locality in &priority.localities {
                let all: f64 =
                    locality.endpoints.iter().map(|endpoint| f64::from(endpoint.weight.get())).sum();
                let usable = locality.endpoints.iter().filter(|endpoint| view.is_usable(endpoint));
                endpoints.extend(usable.map(|endpoint| {
                    let share = f64::from(endpoint.weight.get()) / all;
                    (endpoint.address(), f64::from(locality.weight.get()) * share)
                }));
            }
            policy.populate(&endpoints, shuffle, &mut self.rng);
        }
        self.pick_first = policies;
    }

    fn aggregate(&self, index: usize, priority: &Priority, loads: &Loads) -> Aggregate {
        let view = self.view(priority, !loads.is_enough);
        if let Some(hashing) = self.hashing() {
            let states = hash::states(&view, hashing);
            return match hashed::together(states.iter().map(|(_, state)| *state)) {
                Together::Ready => Aggregate::Ready,
                Together::Connecting => Aggregate::Connecting,
                Together::Idle => Aggregate::Idle,
                Together::TransientFailure => Aggregate::TransientFailure,
            };
        }
        let (mut connecting, mut idle) = (false, false);
        for endpoint in view.endpoints().filter(|endpoint| view.is_offered(endpoint)) {
            match view.state(endpoint) {
                Some(Connectivity::Ready) => return Aggregate::Ready,
                Some(Connectivity::Connecting) => connecting = true,
                // Only what is wanted can be idle: pick first leaves out the others.
                Some(Connectivity::Idle) => idle |= view.is_wanted(endpoint),
                Some(Connectivity::TransientFailure(_)) | None => {}
            }
        }
        if connecting || self.pick_first.get(index).is_some_and(PickFirst::has_more) {
            Aggregate::Connecting
        } else if idle {
            Aggregate::Idle
        } else {
            Aggregate::TransientFailure
        }
    }

    /// Tells endpoints whether they are wanted. True: some were told something new.
    fn apply_wanted(&mut self, priorities: &[Priority], loads: &Loads) -> bool {
        let want = if self.hashing().is_some() { Want::Lazily } else { Want::Now };
        let mut wanted = HashMap::new();
        for (index, priority) in priorities.iter().enumerate() {
            if !self.priorities.is_started(index) {
                continue;
            }
            let view = self.view(priority, !loads.is_enough);
            let usable = view.endpoints().filter(|endpoint| view.is_usable(endpoint));
            let policy = self.pick_first.get(index);
            let chosen = usable.map(resource::endpoint::Endpoint::address);
            let chosen = chosen.filter(|address| policy.is_none_or(|policy| policy.is_wanted(*address)));
            wanted.extend(chosen.map(|address| (address, want)));
        }
        let mut changed = false;
        for (address, slot) in &mut self.slots {
            changed |= slot.want(wanted.get(address).copied().unwrap_or(Want::No));
        }
        changed
    }

    /// Hashing connects an endpoint when a call comes to it. None comes to a priority that is passed over.
    fn wake_where_no_call_would(&mut self, priorities: &[Priority], loads: &Loads) {
        let Some(hashing) = self.hashing() else { return };
        for (index, priority) in priorities.iter().enumerate() {
            if !self.priorities.is_started(index) {
                continue;
            }
            let states = hash::states(&self.view(priority, !loads.is_enough), hashing);
            let only: Vec<hashed::State> = states.iter().map(|(_, state)| *state).collect();
            let woken = hashed::to_wake(&only, &mut self.rng).and_then(|index| states.get(index));
            if let Some(slot) = woken.and_then(|(address, _)| self.slots.get_mut(address)) {
                slot.wake();
            }
        }
    }

    fn publish(&mut self, config: &Arc<ClusterConfig>, loads: &Loads, state: Option<Aggregate>) {
        let priorities = &config.endpoints.priorities;
        self.reweigh_at = None;
        let lacking = lb::lacking(&config.cluster);
        let picker = match self.hashing() {
            _ if lacking.is_some() => Picker::default(),
            Some(hashing) => self.hashed_picker(priorities, loads, hashing),
            None => self.spread_picker(config, loads),
        };
        let current = self.priorities.current();
        let mut idle = Vec::new();
        if !picker.is_hashed() {
            for priority in priorities.iter().take(current.map_or(0, |current| current + 1)) {
                let view = self.view(priority, !loads.is_enough);
                let asleep = view.endpoints().filter(|endpoint| {
                    view.is_wanted(endpoint) && view.state(endpoint) == Some(Connectivity::Idle)
                });
                idle.extend(
                    asleep.filter_map(|endpoint| self.slots.get(&endpoint.address())).map(Slot::handle),
                );
            }
        }
        let hope = if let Some(lacking) = lacking {
            Hope::Fail(format!("this client does not have {lacking}, which the cluster asks for").into())
        } else if picker.ready() == 0 {
            self.hope(priorities, loads)
        } else {
            Hope::Wait("connections were lost a moment ago".into())
        };
        let state = match state {
            _ if lacking.is_some() => Aggregate::TransientFailure,
            _ if picker.ready() > 0 => Aggregate::Ready,
            _ if self.names.is_pending() => Aggregate::Connecting,
            state => state.unwrap_or(Aggregate::TransientFailure),
        };
        let levels = self.levels(config, loads);
        let config = Arc::clone(config);
        self.shared.snapshot.store(Arc::new(Snapshot { config, picker, levels, idle, hope, state }));
        self.shared.changed.send_replace(());
    }

    /// A picker that spreads calls over ready endpoints: by the priorities' shares, and where nobody who has a
    /// share is ready, over the priority that is waited for.
    fn spread_picker(&mut self, config: &Arc<ClusterConfig>, loads: &Loads) -> Picker {
        let priorities = &config.endpoints.priorities;
        let current = self.priorities.current();
        let mut parts = Vec::new();
        if !self.is_pick_first() {
            for (index, (priority, load)) in priorities.iter().zip(&loads.loads).enumerate() {
                if self.priorities.is_started(index) && load.healthy + load.degraded > 0 {
                    let view = self.view(priority, !loads.is_enough);
                    if view.is_panicking() {
                        parts.push((load.healthy + load.degraded, view.groups(None, None)));
                    } else {
                        parts.push((load.healthy, view.groups(None, Some(false))));
                        parts.push((load.degraded, view.groups(None, Some(true))));
                    }
                }
            }
        }
        let parts = parts.into_iter().map(|(share, groups)| (share, self.weighed(groups))).collect();
        let lb = &config.cluster.lb;
        let picker = Picker::spread(lb, parts, &mut self.rng);
        let Some((index, priority)) = current.and_then(|index| Some((index, priorities.get(index)?))) else {
            return picker;
        };
        if !picker.is_empty() {
            return picker;
        }
        let view = self.view(priority, !loads.is_enough);
        let groups = match self.pick_first.get(index).map(PickFirst::selected) {
            None => view.any_groups(None),
            Some(Some(selected)) => view.any_groups(Some(selected)),
            Some(None) => Vec::new(),
        };
        let groups = self.weighed(groups);
        Picker::spread(lb, vec![(100, groups)], &mut self.rng)
    }

    /// Groups as the cluster's options have them: by locality or as one list, new endpoints with less weight.
    pub(super) fn weighed(&mut self, mut groups: Vec<Group>) -> Vec<Group> {
        let options = &self.config.cluster.lb_options;
        if options.localities == LocalityLb::Flat {
            groups = vec![Group::flat(groups)];
        }
        let Some(settings) = &options.slow_start else { return groups };
        let now = Instant::now();
        for candidate in groups.iter_mut().flat_map(|group| &mut group.candidates) {
            let Some(slot) = self.slots.get(&candidate.endpoint.address) else { continue };
            let age = now.saturating_duration_since(slot.since);
            candidate.weight = slow_start::weight(settings, candidate.weight, age);
            if age < settings.window {
                self.reweigh_at = Some(now + slow_start::step(settings));
            }
        }
        groups
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
            let view = self.view(priority, !loads.is_enough);
            for (share, degraded) in [(load.healthy, false), (load.degraded, true)] {
                if share > 0 {
                    parts
                        .extend(tables.hashed(index, &view, hashing, degraded).map(|hashed| (share, hashed)));
                }
            }
        }
        if parts.iter().all(|(_, hashed)| hashed.is_hopeless())
            && let Some((index, priority)) =
                self.priorities.current().and_then(|index| Some((index, priorities.get(index)?)))
        {
            let view = self.view(priority, !loads.is_enough);
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
        for (index, priority) in priorities.iter().enumerate() {
            let started = self.priorities.is_started(index);
            more |= started && self.pick_first.get(index).is_some_and(PickFirst::has_more);
            let view = self.view(priority, !loads.is_enough);
            for endpoint in view.endpoints() {
                if !view.is_usable(endpoint) {
                    summary.unhealthy += 1;
                } else if view.is_ejected(endpoint) {
                    summary.ejected += 1;
                } else {
                    match view.state(endpoint) {
                        Some(Connectivity::Ready) => summary.ready += 1,
                        Some(Connectivity::Connecting) => summary.connecting += 1,
                        Some(Connectivity::Idle) | None => summary.idle += 1,
                        Some(Connectivity::TransientFailure(reason)) => {
                            summary.backing_off += 1;
                            summary.failure = Some(reason);
                        }
                    }
                }
            }
        }
        let reason = summary.to_string().into();
        if more || summary.connecting > 0 || summary.idle > 0 {
            Hope::Wait(reason)
        } else {
            Hope::Fail(reason)
        }
    }
}
