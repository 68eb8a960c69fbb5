//! From the localities of a priority to the groups that a picker draws from.
//!
//! Promises: only ready endpoints that are neither ejected nor unusable by their health status; degraded ones
//! only when nothing better is ready; below the panic threshold health and ejection are ignored (but an endpoint
//! that drains never gets new calls).

use super::{actor::Slot, outlier::Ejector};
use crate::{
    endpoint::machine::Connectivity,
    lb::{Candidate, Group},
};
use mesh_xds::{
    matcher::Fraction,
    resource::endpoint::{Endpoint, HealthStatus, Priority},
};
use std::{collections::HashMap, net::SocketAddr, sync::Arc};

/// How the endpoints of one priority are judged.
pub(crate) struct View<'a> {
    pub(crate) priority: &'a Priority,
    pub(crate) slots: &'a HashMap<SocketAddr, Slot>,
    /// `None`: ejection does not matter (pick first).
    pub(crate) ejector: Option<&'a Ejector>,
    panicking: bool,
}

impl<'a> View<'a> {
    pub(crate) fn new(
        priority: &'a Priority,
        slots: &'a HashMap<SocketAddr, Slot>,
        ejector: Option<&'a Ejector>,
        panic_threshold: Option<Fraction>,
    ) -> Self {
        let mut view = Self { priority, slots, ejector, panicking: false };
        if let Some(threshold) = panic_threshold {
            let total = view.endpoints().filter(|endpoint| endpoint.health != HealthStatus::Draining).count();
            let healthy = view.endpoints().filter(|endpoint| view.is_offered(endpoint)).count();
            view.panicking = (healthy as u64) * 1_000_000 < u64::from(threshold.parts()) * (total as u64);
        }
        view
    }

    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &'a Endpoint> {
        self.priority.localities.iter().flat_map(|locality| &locality.endpoints)
    }

    /// Whether connections to it are wanted.
    pub(crate) fn is_usable(&self, endpoint: &Endpoint) -> bool {
        endpoint.health.is_usable() || (self.panicking && endpoint.health != HealthStatus::Draining)
    }

    pub(crate) fn is_ejected(&self, endpoint: &Endpoint) -> bool {
        !self.panicking && self.ejector.is_some_and(|ejector| ejector.is_ejected(endpoint.address()))
    }

    /// Whether its task is to keep connections.
    pub(crate) fn is_wanted(&self, endpoint: &Endpoint) -> bool {
        self.slots.get(&endpoint.address()).is_some_and(Slot::is_wanted)
    }

    pub(crate) fn is_offered(&self, endpoint: &Endpoint) -> bool {
        self.is_usable(endpoint) && !self.is_ejected(endpoint)
    }

    /// What the endpoint's task reported; none for one that is not used.
    pub(crate) fn state(&self, endpoint: &Endpoint) -> Option<Connectivity> {
        self.slots.get(&endpoint.address()).map(Slot::state)
    }

    /// Health and ejection are ignored: too few would be left.
    pub(crate) fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// Whether it takes what others leave.
    pub(crate) fn is_degraded(&self, endpoint: &Endpoint) -> bool {
        !self.panicking && endpoint.health == HealthStatus::Degraded
    }

    /// The ready endpoints by locality: those that are not degraded, else those that are.
    pub(crate) fn any_groups(&self, only: Option<SocketAddr>) -> Vec<Group> {
        let better = self.groups(only, Some(false));
        if better.iter().any(|group| !group.candidates.is_empty()) {
            return better;
        }
        self.groups(only, Some(true))
    }

    /// The ready endpoints by locality; of those that are degraded, or not, or both.
    pub(crate) fn groups(&self, only: Option<SocketAddr>, degraded: Option<bool>) -> Vec<Group> {
        let wanted = |endpoint: &&Endpoint| {
            degraded.is_none_or(|degraded| self.is_degraded(endpoint) == degraded)
                && self.is_offered(endpoint)
                && only.is_none_or(|only| only == endpoint.address())
        };
        let candidate = |endpoint: &Endpoint| {
            let slot = self.slots.get(&endpoint.address())?;
            (slot.state() == Connectivity::Ready)
                .then(|| Candidate { endpoint: Arc::clone(slot.endpoint()), weight: endpoint.weight.get() })
        };
        let localities = self.priority.localities.iter();
        localities
            .map(|locality| Group {
                weight: locality.weight.get(),
                candidates: locality.endpoints.iter().filter(wanted).filter_map(candidate).collect(),
            })
            .collect()
    }
}
