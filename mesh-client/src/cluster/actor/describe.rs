//! What the cluster would say of its endpoints if it were asked: for explanations.
//!
//! Decided by what decides for calls: the picker that they use, the view that judges an endpoint, the ejector.

use super::Actor;
use crate::cluster::{locality::Member, slots::Slot};
use crate::{
    endpoint::machine::Connectivity,
    health::Checked,
    lb::{Dice, load_weight::Unusable},
};
use mesh_xds::{
    config::ClusterConfig,
    explain::{ClusterState, EndpointState},
    resource::{
        cluster::LbPolicy,
        endpoint::{Endpoint, HealthStatus},
        route::RoutingPriority,
    },
};
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};
use tokio::{sync::oneshot, time::Instant};

/// Where an answer goes.
pub(crate) type Question = oneshot::Sender<Description>;

/// A cluster at one moment.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) config: Arc<ClusterConfig>,
    pub(crate) state: ClusterState,
    /// With the reason why it is not picked, unless it may be.
    pub(crate) endpoints: HashMap<SocketAddr, (EndpointState, Option<String>)>,
}

impl Actor {
    pub(super) fn describe(&self) -> Description {
        let now = Instant::now();
        let priorities = &self.config.endpoints.priorities;
        let current = self.priorities.current();
        let loads = self.loads();
        // What calls read. Its own dice, so that a question changes no draw.
        let snapshot = self.shared.snapshot.load();
        let picked: HashSet<SocketAddr> =
            snapshot.picker.iter(&Dice::new(0)).map(|endpoint| endpoint.address).collect();
        let mut endpoints = HashMap::new();
        for (index, priority) in priorities.iter().enumerate() {
            let Some(view) = self.view(index, priority, &loads) else { continue };
            for member in view.members() {
                let Member { endpoint, standing, .. } = member;
                let address = endpoint.address();
                let slot = view.slot(member);
                let connectivity = slot.map_or(Connectivity::Idle, Slot::state);
                let (left, ejections) = self.ejector.ejection(now, address);
                let reason = (!picked.contains(&address)).then(|| match current {
                    _ if !view.is_usable(standing) => unusable(slot, endpoint),
                    _ if view.is_ejected(standing) => "it is ejected as an outlier".to_owned(),
                    Some(current) if current != index => format!("priority {current} is in use"),
                    _ => unconnected(slot, endpoint, &connectivity),
                });
                let (connectivity, last_failure) = match connectivity {
                    Connectivity::Idle => ("idle", None),
                    Connectivity::Connecting => ("connecting", None),
                    Connectivity::Ready => ("ready", None),
                    Connectivity::TransientFailure(reason) => ("backing off", Some(reason)),
                };
                let by_load = slot.and_then(|slot| self.load_weight(slot, now));
                let live = EndpointState {
                    load_weight: by_load.and_then(Result::ok),
                    no_load_weight: by_load.and_then(Result::err),
                    connectivity,
                    last_failure,
                    in_flight: slot.map_or(0, |slot| slot.endpoint().in_flight()),
                    ejected_for_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
                    ejections,
                };
                endpoints.insert(address, (live, reason));
            }
        }
        // What calls are told.
        let unavailable = picked.is_empty().then(|| snapshot.hope.reason().clone());
        let counters = &self.shared.counters;
        let high = counters.held(RoutingPriority::High);
        let state = ClusterState {
            in_flight: counters.active(),
            high_priority_in_flight: high.requests,
            refused: counters.held(RoutingPriority::Default).refused + high.refused,
            priority: current,
            leaf: None,
            unavailable,
            zone_routing: self.zone_routing.clone(),
        };
        Description { config: Arc::clone(&self.config), state, endpoints }
    }

    /// The weight of an endpoint by its load, or why it has none; where that is the policy.
    fn load_weight(&self, slot: &Slot, now: Instant) -> Option<Result<f64, &'static str>> {
        let LbPolicy::ClientSideWeightedRoundRobin(policy) = &self.config.cluster.lb else { return None };
        Some(slot.endpoint().load_weight().get(policy, now).map_err(|unusable| match unusable {
            Unusable::NotYet => "no load reported yet, or too short a time ago",
            Unusable::Stale => "it has not reported its load for too long",
        }))
    }
}

fn unusable(slot: Option<&Slot>, endpoint: &Endpoint) -> String {
    match (endpoint.health, slot.map(|slot| &slot.checked)) {
        (HealthStatus::Draining, _) => "it drains: new calls go elsewhere".to_owned(),
        (_, Some(Checked::Unhealthy(why))) => format!("its health check failed: {why}"),
        (_, Some(Checked::Pending)) => "its first health check has not been answered yet".to_owned(),
        _ => "its health status is unhealthy".to_owned(),
    }
}

/// Why an endpoint of the priority in use that may be used is not among those that are picked.
fn unconnected(slot: Option<&Slot>, endpoint: &Endpoint, connectivity: &Connectivity) -> String {
    match connectivity {
        Connectivity::Ready if endpoint.health == HealthStatus::Degraded => {
            "it is degraded, and others are not".to_owned()
        }
        Connectivity::Ready => "the policy uses another one".to_owned(),
        Connectivity::Connecting => "it is being connected".to_owned(),
        Connectivity::Idle if slot.is_some_and(Slot::is_wanted) => {
            "it has no connection: one is made when a call needs it".to_owned()
        }
        Connectivity::Idle => "no connection to it is wanted".to_owned(),
        Connectivity::TransientFailure(reason) => format!("no connection: {reason}"),
    }
}
