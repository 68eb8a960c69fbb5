//! What the actor does for calls that go to priorities they have not tried: it connects those that were asked for,
//! and publishes every priority by itself for as long as that is used.

use super::{Actor, spread::Class};
use crate::{
    cluster::{
        asks::Retention,
        elsewhere::{Level, Levels, Set},
    },
    lb::{Picker, pick_first::PickFirst},
};
use mesh_xds::{
    balancing::{Hashing, Loads},
    config::ClusterConfig,
    resource::endpoint::Priority,
};
use tokio::time::Instant;

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    priorities: Set,
    retention: Retention,
}

impl Asked {
    pub(super) fn has(&self, priority: usize) -> bool {
        self.priorities.has(priority)
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.retention.wake_at()
    }
}

impl Actor {
    /// Calls asked for priorities.
    pub(super) fn on_asked(&mut self, wanted: Set) {
        self.asked.priorities.join(wanted);
        self.asked.retention.begin();
    }

    /// Forgets what was not used for a while.
    pub(super) fn forget_asked_if_due(&mut self) {
        if self.asked.retention.is_over(&self.shared.asks) {
            self.asked = Asked::default();
        }
    }

    /// Every priority by itself, if that was asked for.
    pub(super) fn levels(&mut self, config: &ClusterConfig, loads: &Loads) -> Option<Box<Levels>> {
        let priorities = &config.endpoints.priorities;
        if self.asked.priorities.is_empty() || priorities.len() < 2 {
            return None;
        }
        let counts = self.counts();
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
        if let Some(hashing) = self.hashing() {
            level.better = self.hashed_level(index, priority, loads, hashing, false);
            level.degraded = self.hashed_level(index, priority, loads, hashing, true);
            return;
        }
        self.making(|actor, making| {
            let Some(view) = actor.view(index, priority, loads) else { return };
            level.idle = view.asleep();
            let selected = actor.pick_first.get(index).map(PickFirst::selected);
            let mut picker = |class| {
                let class = if view.is_panicking() { Class::All } else { class };
                let groups = match selected {
                    None => making.groups(&view, class),
                    Some(Some(selected)) => making.only(&view, selected, class),
                    Some(None) => Vec::new(),
                };
                Picker::spread(vec![(100, groups)])
            };
            level.better = picker(Class::Better);
            level.degraded = picker(Class::Degraded);
        });
    }

    fn hashed_level(
        &mut self,
        index: usize,
        priority: &Priority,
        loads: &Loads,
        hashing: Hashing,
        degraded: bool,
    ) -> Picker {
        let mut tables = std::mem::take(&mut self.tables);
        let view = self.view(index, priority, loads);
        let hashed = view.and_then(|view| tables.hashed(index, &view, hashing, degraded));
        self.tables = tables;
        Picker::hashed(hashed.map(|hashed| (100, hashed)).into_iter().collect())
    }
}
