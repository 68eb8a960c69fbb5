//! Which endpoints of a cluster calls go to, as far as configuration says: by health statuses, and by the shares of
//! priorities, degraded endpoints and panic that come of them. What processes find out is not known here.

use crate::{
    balancing::{self, Counts, Loads},
    resource::{
        cluster::Cluster,
        endpoint::{ClusterLoadAssignment, Endpoint, HealthStatus, Priority},
    },
};
use std::num::NonZeroU32;

pub(super) struct Standing<'c> {
    assignment: &'c ClusterLoadAssignment,
    loads: Loads,
    /// Of each priority.
    panics: Vec<bool>,
}

/// Endpoints that share a part of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// In percent.
    pub(super) share: u32,
    priority: usize,
    degraded: bool,
}

impl<'c> Standing<'c> {
    pub(super) fn new(cluster: &Cluster, assignment: &'c ClusterLoadAssignment) -> Self {
        let counts: Vec<Counts> = assignment.priorities.iter().map(counted).collect();
        let loads = balancing::split(&counts, assignment.overprovisioning_factor.get());
        let threshold = cluster.panic_threshold.filter(|_| !loads.is_enough);
        let panics = |one: &Counts| balancing::is_panic(one.healthy + one.degraded, one.total, threshold);
        Self { assignment, panics: counts.iter().map(panics).collect(), loads }
    }

    /// Why an endpoint of this priority is not picked; none: it may be.
    pub(super) fn not_picked(&self, priority: usize, endpoint: &Endpoint) -> Option<String> {
        let panics = self.panics(priority);
        let load = self.loads.loads.get(priority).copied().unwrap_or_default();
        let (reason, share) = match endpoint.health {
            HealthStatus::Draining => return Some("it drains: new calls go elsewhere".to_owned()),
            _ if panics => ("", load.healthy + load.degraded),
            HealthStatus::Unhealthy => return Some("its health status is unhealthy".to_owned()),
            HealthStatus::Degraded => ("it is degraded, and others are not", load.degraded),
            HealthStatus::Unknown | HealthStatus::Healthy => ("", load.healthy),
        };
        match (share, reason) {
            (0, "") => Some(self.elsewhere()),
            (0, reason) => Some(reason.to_owned()),
            _ => None,
        }
    }

    /// Where the calls go instead.
    fn elsewhere(&self) -> String {
        let used: Vec<String> = self
            .loads
            .loads
            .iter()
            .enumerate()
            .filter(|(_, load)| load.healthy + load.degraded > 0)
            .map(|(index, _)| index.to_string())
            .collect();
        match &*used {
            [one] => format!("priority {one} is used as long as one of its endpoints can be reached"),
            several => format!("priorities {} share the calls", several.join(", ")),
        }
    }

    fn panics(&self, priority: usize) -> bool {
        self.panics.get(priority).copied().unwrap_or(false)
    }

    /// The parts that have a share, in the order in which hashes are shared between them.
    pub(super) fn parts(&self) -> Vec<Part> {
        let shares = self.loads.loads.iter().enumerate().flat_map(|(priority, load)| {
            let shares = if self.panics(priority) {
                [(load.healthy + load.degraded, false), (0, true)]
            } else {
                [(load.healthy, false), (load.degraded, true)]
            };
            shares.map(|(share, degraded)| Part { share, priority, degraded })
        });
        shares.filter(|part| part.share > 0).collect()
    }

    /// The endpoints of a part by locality, with its weight.
    pub(super) fn of(&self, part: Part) -> impl Iterator<Item = (NonZeroU32, Vec<&'c Endpoint>)> {
        let panics = self.panics(part.priority);
        let is_of = move |endpoint: &&Endpoint| {
            let degraded = !panics && endpoint.health == HealthStatus::Degraded;
            let usable = endpoint.health.is_usable() || panics && endpoint.health == HealthStatus::Unhealthy;
            usable && degraded == part.degraded
        };
        let priority = self.assignment.priorities.get(part.priority);
        priority.into_iter().flat_map(|priority| &priority.localities).map(move |locality| {
            let endpoints = locality.endpoints.iter().map(|endpoint| &**endpoint);
            (locality.weight, endpoints.filter(is_of).collect())
        })
    }
}

fn counted(priority: &Priority) -> Counts {
    let mut counts = Counts::default();
    for endpoint in priority.localities.iter().flat_map(|locality| &locality.endpoints) {
        counts.total += usize::from(endpoint.health != HealthStatus::Draining);
        match endpoint.health {
            HealthStatus::Unknown | HealthStatus::Healthy => counts.healthy += 1,
            HealthStatus::Degraded => counts.degraded += 1,
            HealthStatus::Draining | HealthStatus::Unhealthy => {}
        }
    }
    counts
}
