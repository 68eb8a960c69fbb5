//! What becomes of a cluster whose endpoints are all gone: it fails at once, or goes on with the last ones for a
//! while.
//!
//! Promises: only endpoints are kept, and only those that came from the same place (a cluster that is now found by
//! another EDS resource or name has none to keep); drops, TLS and policies are the present ones. The time counts from
//! when the last endpoint went, and begins anew only after there were some again. Whatever happens is in the
//! cluster's note, which status, explanations and the failures of calls show, and in the log.

use mesh_xds::{
    config::ClusterConfig,
    resource::{cluster::Discovery, endpoint::ClusterLoadAssignment},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// What a client does when the control plane, or the DNS, leaves a cluster without any endpoint.
///
/// Endpoints that are there but unhealthy or draining are no empty set: those are avoided whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyEndpoints {
    /// Calls fail at once with `UNAVAILABLE`, naming the cluster and where its endpoints come from. As in xDS.
    #[default]
    Fail,
    /// The last endpoints that there were are used for this long, then calls fail. For control planes that may lose
    /// their view of endpoints for a moment. A service that is scaled to zero fails as late as its connections do,
    /// and a cluster of clusters goes on to the next one as late.
    Keep(Duration),
}

/// The policy, and what it needs to remember of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Empty {
    policy: EmptyEndpoints,
    /// Had endpoints; absent when nothing is to be kept.
    last: Option<Arc<ClusterConfig>>,
    /// Present while what is given has none.
    since: Option<Instant>,
}

impl Empty {
    pub(crate) fn new(policy: EmptyEndpoints) -> Self {
        Self { policy, last: None, since: None }
    }

    /// When the endpoints that are kept have had their time.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match (self.policy, self.since, &self.last) {
            // Out of the clock's reach is for good.
            (EmptyEndpoints::Keep(time), Some(since), Some(_)) => since.checked_add(time),
            _ => None,
        }
    }

    /// The configuration that is used for the one that is given.
    pub(crate) fn apply(&mut self, now: Instant, given: Arc<ClusterConfig>) -> Arc<ClusterConfig> {
        // A cluster of clusters has no endpoints of its own.
        if !given.leaves.is_empty() {
            return given;
        }
        let cluster = &given.cluster.name;
        if count(&given.endpoints) > 0 {
            if self.since.take().is_some() && self.last.is_some() {
                tracing::info!(%cluster, "there are endpoints again; those that were kept are forgotten");
            }
            self.last = (self.policy != EmptyEndpoints::Fail).then(|| Arc::clone(&given));
            return given;
        }
        let begins = self.since.is_none();
        self.since.get_or_insert(now);
        if self.last.as_ref().is_some_and(|last| last.cluster.discovery != given.cluster.discovery) {
            self.last = None;
        }
        if self.wake_at().is_some_and(|at| at <= now) {
            self.last = None;
            tracing::warn!(%cluster, "the last endpoints were kept for as long as they may be; calls fail now");
        }
        let why = why(&given);
        let (endpoints, note) = match (&self.last, self.policy) {
            (Some(last), EmptyEndpoints::Keep(time)) => {
                let endpoints = count(&last.endpoints);
                if begins {
                    tracing::warn!(%cluster, endpoints, ?time, "{why}: the last endpoints are kept for a while");
                }
                let kept = ClusterLoadAssignment {
                    priorities: last.endpoints.priorities.clone(),
                    ..(*given.endpoints).clone()
                };
                (Arc::new(kept), format!("{why}: the last {endpoints} endpoints are kept for {time:?}"))
            }
            _ => (Arc::clone(&given.endpoints), why),
        };
        Arc::new(ClusterConfig { endpoints, note: Some(note.into()), ..(*given).clone() })
    }
}

fn count(endpoints: &ClusterLoadAssignment) -> usize {
    let localities = endpoints.priorities.iter().flat_map(|priority| &priority.localities);
    localities.map(|locality| locality.endpoints.len()).sum()
}

/// Who says that there are none.
fn why(config: &ClusterConfig) -> String {
    match (&config.note, &config.cluster.discovery) {
        (Some(note), _) => note.to_string(),
        (None, Discovery::Eds(service)) => format!("EDS resource {service} is empty"),
        (None, Discovery::StrictDns(_) | Discovery::LogicalDns(_)) => {
            "the DNS has no address for it".to_owned()
        }
        (None, Discovery::Static(_) | Discovery::Aggregate(_)) => "its CDS resource has none".to_owned(),
    }
}
