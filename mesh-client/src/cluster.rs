//! A live cluster: from "cluster and request" to the response of a connected endpoint.
//!
//! Promises: the request path ([`Cluster::begin`]) reads one snapshot, takes no lock and never passes through
//! another task; an update keeps the connections, counters and ejections of every endpoint that stays; the tasks
//! end with the last handle, while streams that are open go on. gRFC A27, A32, A48, A50, A56, A61, A62.
//!
//! Time is tokio's, which tests pause; randomness is seeded; the network and TLS come in through
//! [`ClusterDeps`]. Must be spawned within a tokio runtime.

mod actor;
mod aggregate;
pub(crate) mod answer;
mod asks;
mod attempt;
pub(crate) mod breaker;
pub(crate) mod by_hash;
mod elsewhere;
pub(crate) mod empty;
pub(crate) mod failure;
mod locality;
pub(crate) mod names;
pub(crate) mod outcome;
mod outlier;
mod priority;
mod session;
mod slots;
mod snapshot;
mod standing;
mod subset;
pub(crate) mod track;
mod weighed;
pub(crate) mod zones;

pub(crate) use aggregate::Leaf;
pub(crate) use attempt::{AttemptContext, AttemptError, AttemptErrorKind, Exchange};
pub(crate) use elsewhere::Elsewhere;
pub use empty::EmptyEndpoints;
pub(crate) use session::Session;
pub(crate) use standing::Link;
pub use weighed::WeightedRoundRobinStatus;

use crate::{
    connector::Connect,
    endpoint::{Room, TlsConfigs},
    lb::Dice,
    retry::replay::Budget,
};
use actor::{
    Actor,
    describe::{Description, Question},
};
use arc_swap::{ArcSwap, ArcSwapOption};
use asks::Asks;
use breaker::{Breakers, Counters, Held, Permit};
use mesh_xds::{
    config::ClusterConfig,
    explain::ClusterState,
    lrs::{ClusterLoad, LoadStore},
    name::Name,
    resource::{cluster::Discovery, route::RoutingPriority},
};
use snapshot::Snapshot;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// What clusters need of their surroundings; one for a mesh.
#[derive(Clone)]
pub(crate) struct ClusterDeps {
    /// TLS of new connections.
    pub(crate) tls: Arc<dyn TlsConfigs>,
    /// The network; [`crate::connector::Tcp`] unless the program has one of its own.
    pub(crate) connect: Arc<dyn Connect>,
    /// Finds the addresses of names; [`names::System`] outside tests.
    pub(crate) resolve: Arc<dyn names::Resolve>,
    /// The circuit breakers' counters, shared by all channels.
    pub(crate) breakers: Arc<Breakers>,
    /// Where calls are counted for the control plane.
    pub(crate) loads: Arc<LoadStore>,
    /// Of every random choice.
    pub(crate) seed: u64,
    /// No ring of consistent hashing is larger, whatever the control plane asks for (gRPC's ring size cap).
    pub(crate) ring_size_cap: u32,
    /// What becomes of clusters that are left without endpoints.
    pub(crate) empty_endpoints: EmptyEndpoints,
    /// The service that endpoints are to say the health of (gRFC A17).
    pub(crate) health_service: Option<Arc<str>>,
    /// Where the callers are, for zone-aware routing.
    pub(crate) callers: zones::Watched,
}

/// Of a cluster's requests without a retry policy, so much is kept at most until their responses begin.
const SPARES: usize = 16 << 20;

/// A live cluster. Dropping it ends its tasks.
#[derive(Debug)]
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    updates: watch::Sender<Arc<ClusterConfig>>,
    questions: mpsc::UnboundedSender<Question>,
    /// Of a cluster of clusters, which has no endpoints of its own.
    leaves: Option<aggregate::Leaves>,
}

/// What calls and the actor share.
#[derive(Debug)]
struct Shared {
    name: Name,
    snapshot: ArcSwap<Snapshot>,
    /// Told whenever `snapshot` was replaced; for calls that wait.
    changed: watch::Sender<()>,
    dice: Dice,
    counters: Arc<Counters>,
    room: Arc<Room>,
    /// Memory for requests that may be sent again though no policy says so.
    spares: Arc<Budget>,
    /// Of calls that go to priorities they have not tried.
    asks: Asks<elsewhere::Set>,
    /// Of calls that have a session.
    session_asks: Asks<bool>,
    /// Present while the control plane wants to know.
    load: ArcSwapOption<ClusterLoad>,
    /// How many snapshots there were.
    #[cfg(test)]
    published: std::sync::atomic::AtomicUsize,
    weighed: weighed::Weighed,
}

#[cfg(test)]
impl Shared {
    /// What calls hold beside what its breakers count.
    fn guards(&self) -> [(&'static str, u64); 3] {
        let in_progress = self.load.load().as_ref().map_or(0, |load| load.in_progress());
        [
            ("load in progress", in_progress),
            ("bytes for retries", (SPARES - self.spares.left()) as u64),
            ("waiting for room", self.room.waiting().into()),
        ]
    }
}

impl Cluster {
    /// Starts a cluster; its first endpoints are dialled at once. `leaf` gives the live cluster for a leaf of a
    /// cluster of clusters.
    pub(crate) fn spawn(config: Arc<ClusterConfig>, deps: &ClusterDeps, leaf: Leaf) -> Arc<Self> {
        let service = match &config.cluster.discovery {
            Discovery::Eds(service) => service,
            _ => &config.cluster.name,
        };
        let counters = deps.breakers.counters(&config.cluster.name, service);
        let (updates, receiver) = watch::channel(Arc::clone(&config));
        let (questions, asked) = mpsc::unbounded_channel();
        let (shared, actor) = Actor::new(Arc::clone(&config), deps, counters, receiver.clone(), asked);
        if config.leaves.is_empty() {
            tokio::spawn(actor.run());
            return Arc::new(Self { shared, updates, questions, leaves: None });
        }
        let (leaves, aggregator) = aggregate::start(&config, receiver, leaf);
        tokio::spawn(aggregator.run());
        Arc::new(Self { shared, updates, questions, leaves: Some(leaves) })
    }

    /// Whether it can take in this configuration: a cluster does not begin or cease to be made of clusters.
    pub(crate) fn fits(&self, config: &ClusterConfig) -> bool {
        self.leaves.is_some() != config.leaves.is_empty()
    }

    pub(crate) fn name(&self) -> &Name {
        &self.shared.name
    }

    /// Of a cluster of clusters, the one in use.
    fn leaf(&self) -> Option<Arc<Self>> {
        self.leaves.as_ref()?.current()
    }

    /// The configuration that calls see now; an update is seen as soon as the actor took it in.
    pub(crate) fn config(&self) -> Arc<ClusterConfig> {
        if self.leaves.is_some() {
            return Arc::clone(&self.updates.borrow());
        }
        Arc::clone(&self.shared.snapshot.load().config)
    }

    /// How many endpoints calls can be sent to now.
    pub(crate) fn ready(&self) -> usize {
        if let Some(leaf) = self.leaf() {
            return leaf.ready();
        }
        self.shared.snapshot.load().picker.ready()
    }

    /// How endpoints are weighed by their load; absent: they are not.
    pub(crate) fn weighed(&self) -> Option<WeightedRoundRobinStatus> {
        if let Some(leaf) = self.leaf() {
            return leaf.weighed();
        }
        self.shared.weighed.read()
    }

    /// Attempts in flight, those of other channels included.
    pub(crate) fn in_flight(&self) -> u32 {
        if let Some(leaf) = self.leaf() {
            return leaf.in_flight();
        }
        self.shared.counters.active()
    }

    /// What there is to say of its endpoints at this moment; none while it ends. Waits for the actor to have
    /// taken in what came before; cancelling forgets the question.
    pub(crate) async fn describe(&self) -> Option<Description> {
        let (question, answer) = oneshot::channel();
        self.questions.send(question).ok()?;
        answer.await.ok()
    }

    /// Of a cluster of clusters, what is known of it now; its endpoints are its leaves' affair.
    pub(crate) fn describe_leaves(&self) -> Option<ClusterState> {
        let leaves = self.leaves.as_ref()?;
        let leaf = leaves.current();
        let held = |priority| leaf.as_ref().map(|leaf| leaf.held(priority)).unwrap_or_default();
        let high = held(RoutingPriority::High);
        Some(ClusterState {
            in_flight: leaf.as_ref().map_or(0, |leaf| leaf.in_flight()),
            high_priority_in_flight: high.requests,
            refused: held(RoutingPriority::Default).refused + high.refused,
            priority: None,
            unavailable: leaves.nobody(),
            zone_routing: None,
            leaf: leaf.as_ref().map(|leaf| leaf.name().clone()),
        })
    }

    /// Takes in a new configuration of the same cluster.
    pub(crate) fn update(&self, config: Arc<ClusterConfig>) {
        self.updates.send_if_modified(|current| {
            // Most updates of a mesh are about another cluster: that is seen without looking at endpoints.
            let changed = !Arc::ptr_eq(current, &config) && *current != config;
            *current = config;
            changed
        });
    }

    /// Waits until its last holder is gone, without being one.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut updates = self.updates.subscribe();
        async move { while updates.changed().await.is_ok() {} }
    }

    /// What calls hold of it: all of it is given back when they end. The endpoints' part is in
    /// [`Self::describe`]. For tests.
    #[cfg(test)]
    pub(crate) fn guards(&self) -> [(&'static str, u64); 6] {
        let [requests, pending, retries] = self.shared.counters.guards();
        let [load, spares, room] = self.shared.guards();
        [requests, pending, retries, load, spares, room]
    }

    /// What the circuit breakers of a priority count, those of other channels included.
    pub(crate) fn held(&self, priority: RoutingPriority) -> Held {
        if let Some(leaf) = self.leaf() {
            return leaf.held(priority);
        }
        self.shared.counters.held(priority)
    }

    /// Room for one retry, held while it is in flight; none: the retry must not be made.
    pub(crate) fn retry_permit(&self, priority: RoutingPriority) -> Option<Permit> {
        if let Some(leaf) = self.leaf() {
            return leaf.retry_permit(priority);
        }
        let breakers = &self.shared.snapshot.load().config.cluster.circuit_breakers;
        self.shared.counters.retry(priority, &breakers.of(priority))
    }
}

#[cfg(test)]
mod tests;
