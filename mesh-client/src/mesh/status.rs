//! How a mesh fares, for people and for status pages.

use crate::{
    CallCounts, WeightedRoundRobinStatus,
    channel::Subscription,
    cluster::{Cluster, breaker::Held},
    snapshot::State,
    table::Action,
    tls::Providers,
};
use mesh_ca::workload::WorkloadIdentity;
use mesh_xds::{client::ClientStatus, resource::route::RoutingPriority};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::UNIX_EPOCH,
};

/// A mesh's state at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MeshStatus {
    /// The control plane and every resource asked of it.
    pub control_plane: ClientStatus,
    /// What becomes of the reports of load.
    pub load_reports: LoadReportStatus,
    /// By certificate provider instance.
    pub identities: BTreeMap<Arc<str>, IdentityStatus>,
    /// By target, those that a channel or layer is for.
    pub targets: BTreeMap<Arc<str>, TargetStatus>,
    /// By name, those that a target's routes name.
    pub clusters: BTreeMap<Arc<str>, ClusterStatus>,
}

/// Reports of load to the control plane (LRS). There are none until a cluster's configuration asks for them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LoadReportStatus {
    /// When the last one was sent, in seconds since the epoch.
    pub last: Option<f64>,
    /// Why they do not arrive; absent while they do.
    pub error: Option<Arc<str>>,
}

/// A target's state at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TargetStatus {
    /// Version of the configuration that calls follow; absent when there is none.
    pub version: Option<Arc<str>>,
    /// Why there is none; absent while the control plane has not answered.
    pub error: Option<String>,
    /// Name of the virtual host.
    pub virtual_host: Option<Arc<str>>,
    /// How many routes it has.
    pub routes: usize,
    /// Clusters that its routes name.
    pub clusters: BTreeSet<Arc<str>>,
    /// Of those, the ones that calls cannot be sent to, and why.
    pub unusable: BTreeMap<Arc<str>, Arc<str>>,
    /// What became of its calls.
    pub calls: CallCounts,
}

/// A cluster's state at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Endpoints that are configured.
    pub endpoints: usize,
    /// Of those, the ones that calls can be sent to now.
    pub ready: usize,
    /// Attempts in flight, of both priorities.
    pub in_flight: u32,
    /// What circuit breakers count of calls of priority DEFAULT.
    pub breakers: BreakerStatus,
    /// The same of priority HIGH.
    pub high_priority_breakers: BreakerStatus,
    /// What is wrong with its endpoints' configuration, if anything is.
    pub note: Option<Arc<str>>,
    /// How its endpoints are weighed by their load, if that is the policy.
    pub weighted_round_robin: Option<WeightedRoundRobinStatus>,
}

/// What the circuit breakers of a cluster count, over all channels of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// Attempts in flight.
    pub requests: u32,
    /// Calls that wait for a connection.
    pub pending: u32,
    /// Retries in flight.
    pub retries: u32,
    /// Attempts that a limit did not let through, so far.
    pub refused: u64,
}

impl From<Held> for BreakerStatus {
    fn from(Held { requests, pending, retries, refused }: Held) -> Self {
        Self { requests, pending, retries, refused }
    }
}

/// An identity's state at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct IdentityStatus {
    /// Where it comes from.
    pub origin: Arc<str>,
    /// The SPIFFE id; absent before the first certificate.
    pub id: Option<String>,
    /// When the certificate ends: seconds since 1970.
    pub not_after: Option<u64>,
    /// How many certificates have been had.
    pub issued: u64,
    /// Why the last attempt to get one failed.
    pub last_error: Option<String>,
}

impl MeshStatus {
    pub(super) fn new(
        control_plane: ClientStatus,
        load_reports: LoadReportStatus,
        providers: &Providers,
        targets: &[Arc<Subscription>],
        clusters: &[Arc<Cluster>],
    ) -> Self {
        let identities = providers.iter().map(|(name, identity)| (name.clone(), of(identity)));
        let targets = targets.iter().map(|target| (target.core.target.clone(), of_target(target)));
        let clusters = clusters.iter().map(|cluster| (cluster.name().clone(), of_cluster(cluster)));
        Self {
            control_plane,
            load_reports,
            identities: identities.collect(),
            targets: targets.collect(),
            clusters: clusters.collect(),
        }
    }
}

fn of_target(subscription: &Subscription) -> TargetStatus {
    let mut status = TargetStatus {
        version: None,
        error: None,
        virtual_host: None,
        routes: 0,
        clusters: BTreeSet::new(),
        unusable: BTreeMap::new(),
        calls: subscription.core.counters.read(),
    };
    match &**subscription.core.snapshot.load() {
        State::Pending => {}
        State::Failed(error) => status.error = Some(error.to_string()),
        State::Closed => status.error = Some("the mesh has been shut down".to_owned()),
        State::Table(table) => {
            status.version = Some(subscription.core.snapshot.version());
            status.virtual_host = Some(table.virtual_host.clone());
            status.routes = table.routes().len();
            for route in table.routes() {
                let Action::Forward(forwarding) = &route.action else { continue };
                for choice in forwarding.choices() {
                    status.clusters.insert(choice.name.clone());
                    if let Err(why) = &choice.cluster {
                        status.unusable.insert(choice.name.clone(), why.clone());
                    }
                }
            }
        }
    }
    status
}

fn of_cluster(cluster: &Cluster) -> ClusterStatus {
    let config = cluster.config();
    let localities = config.endpoints.priorities.iter().flat_map(|priority| &priority.localities);
    ClusterStatus {
        endpoints: localities.map(|locality| locality.endpoints.len()).sum(),
        ready: cluster.ready(),
        in_flight: cluster.in_flight(),
        breakers: cluster.held(RoutingPriority::Default).into(),
        high_priority_breakers: cluster.held(RoutingPriority::High).into(),
        note: config.note.clone(),
        weighted_round_robin: cluster.weighed(),
    }
}

fn of(identity: &WorkloadIdentity) -> IdentityStatus {
    let status = identity.status();
    let since_1970 = |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs());
    IdentityStatus {
        origin: status.origin,
        id: status.id.map(|id| id.to_string()),
        not_after: status.not_after.and_then(since_1970),
        issued: status.rotations,
        last_error: status.last_error.map(|error| error.to_string()),
    }
}
