//! What the actor does for sessions: it keeps connections that they may ask for, and publishes what they look in.

use super::Actor;
use crate::cluster::{
    asks::Retention,
    session::{Hosts, Index},
};
use mesh_xds::{config::ClusterConfig, resource::cluster::OverrideHostStatus};
use std::{collections::HashMap, sync::Arc};
use tokio::time::Instant;

/// What is kept for sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    asked: bool,
    retention: Retention,
    /// As of this [`Slots::reviewed`](crate::cluster::slots::Slots::reviewed).
    index: Option<(u64, Arc<Index>)>,
}

impl Sessions {
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.retention.wake_at()
    }
}

impl Actor {
    /// A call has a session.
    pub(super) fn on_session(&mut self) {
        self.sessions.asked = true;
        self.sessions.retention.begin();
    }

    /// Keeps nothing for sessions of which there are none.
    pub(super) fn forget_sessions_if_due(&mut self) {
        if self.sessions.retention.is_over(&self.shared.session_asks) {
            self.sessions = Sessions::default();
        }
    }

    /// The statuses of endpoints that sessions may ask for, if there are sessions.
    pub(super) fn session_statuses(&self) -> Option<OverrideHostStatus> {
        self.sessions.asked.then(|| self.config.cluster.lb_options.override_host_status)
    }

    /// What sessions look in, if there are any.
    pub(super) fn hosts(&mut self, config: &ClusterConfig) -> Option<Hosts> {
        let statuses = self.session_statuses()?;
        let reviewed = self.slots.reviewed();
        let kept = self.sessions.index.take().filter(|(as_of, _)| *as_of == reviewed);
        let (_, index) = kept.unwrap_or_else(|| (reviewed, Arc::new(self.index(config))));
        self.sessions.index = Some((reviewed, Arc::clone(&index)));
        let ejection = !self.is_pick_first();
        let states = self.slots.iter().map(|slot| slot.host(statuses, ejection)).collect();
        Some(Hosts { index, states })
    }

    fn index(&self, config: &ClusterConfig) -> Index {
        let localities = config.endpoints.priorities.iter().flat_map(|priority| &priority.localities);
        let endpoints = localities.flat_map(|locality| &locality.endpoints);
        let mut positions = HashMap::new();
        for (position, endpoint) in (0..).zip(endpoints) {
            positions.extend(endpoint.addresses.iter().map(|address| (*address, position)));
        }
        let members = self.slots.iter().map(|slot| Arc::clone(slot.endpoint())).collect();
        Index { positions, members }
    }
}
