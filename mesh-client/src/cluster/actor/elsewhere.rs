//! What the actor does for calls that go to priorities they have not tried: it connects those that were asked for,
//! and publishes every priority by itself for as long as that is used.

use super::{Actor, Slot, hash::Hashing};
use crate::{
    cluster::{
        elsewhere::{Level, Levels, Set},
        locality::View,
        spill::Loads,
    },
    endpoint::machine::Connectivity,
    lb::{self, Picker, pick_first::PickFirst},
};
use mesh_xds::{config::ClusterConfig, resource::endpoint::Priority};
use std::time::Duration;
use tokio::time::Instant;

/// As long as priorities are kept that were needed (gRFC A56).
const RETENTION: Duration = Duration::from_secs(15 * 60);

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    priorities: Set,
    /// When to look whether it is still used.
    look_at: Option<Instant>,
}

impl Asked {
    pub(super) fn has(&self, priority: usize) -> bool {
        self.priorities.has(priority)
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.look_at
    }
}

impl Actor {
    /// Calls asked for priorities.
    pub(super) fn on_asked(&mut self, wanted: Set) {
        self.asked.priorities.join(wanted);
        self.asked.look_at.get_or_insert(Instant::now() + RETENTION);
    }

    /// Forgets what was not used for a while.
    pub(super) fn forget_asked_if_due(&mut self) {
        let now = Instant::now();
        if self.asked.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.asked = match self.shared.asks.forget() {
            true => Asked::default(),
            false => Asked { look_at: Some(now + RETENTION), ..self.asked },
        };
    }

    /// Tells endpoints their priorities; where there is one, nobody asks.
    pub(super) fn tell_priorities(&self) {
        let priorities = &self.config.endpoints.priorities;
        if priorities.len() < 2 {
            return;
        }
        for (index, priority) in priorities.iter().enumerate() {
            for endpoint in priority.localities.iter().flat_map(|locality| &locality.endpoints) {
                if let Some(slot) = self.slots.get(&endpoint.address()) {
                    slot.endpoint.set_priority(index);
                }
            }
        }
    }

    /// Every priority by itself, if that was asked for.
    pub(super) fn levels(&mut self, config: &ClusterConfig, loads: &Loads) -> Option<Box<Levels>> {
        let priorities = &config.endpoints.priorities;
        if self.asked.priorities.is_empty() || priorities.len() < 2 || lb::lacking(&config.cluster).is_some()
        {
            return None;
        }
        let counts = self.counts(priorities);
        let mut levels: Vec<Level> =
            counts.into_iter().map(|counts| Level { counts, ..Level::default() }).collect();
        for (index, (level, priority)) in levels.iter_mut().zip(priorities).enumerate() {
            level.started = self.priorities.is_started(index);
            if level.started {
                self.fill(level, index, priority, loads);
            }
        }
        let factor = config.endpoints.overprovisioning_factor.get();
        Some(Box::new(Levels { levels, factor }))
    }

    fn fill(&mut self, level: &mut Level, index: usize, priority: &Priority, loads: &Loads) {
        let may_panic = !loads.is_enough;
        if let Some(hashing) = self.hashing() {
            level.better = self.hashed_level(index, priority, may_panic, hashing, false);
            level.degraded = self.hashed_level(index, priority, may_panic, hashing, true);
            return;
        }
        let view = self.view(priority, may_panic);
        let asleep = view
            .endpoints()
            .filter(|endpoint| view.is_wanted(endpoint) && view.state(endpoint) == Some(Connectivity::Idle));
        level.idle =
            asleep.filter_map(|endpoint| self.slots.get(&endpoint.address())).map(Slot::handle).collect();
        let groups = |degraded| match self.pick_first.get(index).map(PickFirst::selected) {
            None if view.is_panicking() => view.groups(None, None),
            None => view.groups(None, Some(degraded)),
            Some(Some(selected)) => view.groups(Some(selected), Some(degraded)),
            Some(None) => Vec::new(),
        };
        let (better, degraded) = (groups(false), groups(true));
        let (better, degraded) = (self.weighed(better), self.weighed(degraded));
        let lb = &self.config.cluster.lb;
        level.better = Picker::spread(lb, vec![(100, better)], &mut self.rng);
        level.degraded = Picker::spread(lb, vec![(100, degraded)], &mut self.rng);
    }

    fn hashed_level(
        &mut self,
        index: usize,
        priority: &Priority,
        may_panic: bool,
        hashing: Hashing,
        degraded: bool,
    ) -> Picker {
        let mut tables = std::mem::take(&mut self.tables);
        let view: View<'_> = self.view(priority, may_panic);
        let hashed = tables.hashed(index, &view, hashing, degraded);
        self.tables = tables;
        Picker::hashed(hashed.map(|hashed| (100, hashed)).into_iter().collect())
    }
}
