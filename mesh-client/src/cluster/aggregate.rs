//! A cluster of clusters (gRFC A37, A75): calls go to the first of its leaves that can take them.
//!
//! Promises: leaves are live clusters of their own, each with its policy, breakers, ejection and drops; one is
//! started when those before it failed, or did not connect within ten seconds, and kept for 15 minutes after
//! they are back ([`Priorities`], as between the priorities of one cluster; calls do not spill between leaves).
//! A call that waits for a leaf goes on to the next as soon as that is decided.

use super::{
    AttemptContext, AttemptError,
    AttemptErrorKind::{DeadlineExceeded, NoEndpoint},
    Cluster, Exchange,
    priority::{Aggregate, Priorities},
};
use crate::{body::CallBody, call::Started};
use arc_swap::ArcSwap;
use futures_util::future::select_all;
use http::Request;
use mesh_xds::{
    config::{ClusterConfig, LeafCluster},
    name::Name,
};
use std::{fmt, sync::Arc};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tonic::Status;

/// Gives the live cluster for a leaf's configuration; none when the mesh is gone.
pub(crate) type Leaf = Arc<dyn Fn(&Arc<ClusterConfig>) -> Option<Arc<Cluster>> + Send + Sync>;

/// Which leaf is in use.
#[derive(Clone)]
enum Choice {
    /// Nothing was decided yet.
    Pending,
    /// This one, which was in that state.
    Live(Arc<Cluster>, Aggregate),
    /// None can be: why.
    Nobody(Arc<str>),
}

/// The leaves, as calls see them.
pub(crate) struct Leaves {
    name: Name,
    choice: Arc<ArcSwap<Choice>>,
    /// Told whenever `choice` was replaced.
    moved: watch::Sender<()>,
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaves").field("current", &self.current().map(|leaf| leaf.name().clone())).finish()
    }
}

/// The leaves of a cluster, and the task that chooses.
pub(super) fn start(
    config: &ClusterConfig,
    updates: watch::Receiver<Arc<ClusterConfig>>,
    live: Leaf,
) -> (Leaves, Aggregator) {
    let choice = Arc::new(ArcSwap::from_pointee(Choice::Pending));
    let moved = watch::Sender::new(());
    let aggregator = Aggregator {
        updates,
        live,
        leaves: Vec::new(),
        priorities: Priorities::default(),
        choice: Arc::clone(&choice),
        moved: moved.clone(),
    };
    (Leaves { name: Arc::clone(&config.cluster.name), choice, moved }, aggregator)
}

impl Leaves {
    /// The leaf in use.
    pub(super) fn current(&self) -> Option<Arc<Cluster>> {
        match &**self.choice.load() {
            Choice::Live(leaf, _) => Some(Arc::clone(leaf)),
            Choice::Pending | Choice::Nobody(_) => None,
        }
    }

    /// Why none of the leaves can be used.
    pub(super) fn nobody(&self) -> Option<Arc<str>> {
        match &**self.choice.load() {
            Choice::Nobody(why) => Some(Arc::clone(why)),
            Choice::Pending | Choice::Live(..) => None,
        }
    }

    /// Sends a request to the leaf in use, if that can be done at once. A leaf that has nobody may have failed a
    /// moment ago: what that means is found out by [`Self::begin_later`].
    pub(super) fn begin(
        &self,
        request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> Started<Exchange> {
        let Some(leaf) = self.current() else { return Started::Later(request) };
        match leaf.begin(request, context) {
            Started::Failed(AttemptError { kind: NoEndpoint, request: Some(back), .. }) => {
                Started::Later(*back)
            }
            started => started,
        }
    }

    /// As [`Self::begin`], to whichever leaf is in use when it can be done.
    pub(super) async fn begin_later(
        &self,
        mut request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> Result<Exchange, AttemptError> {
        loop {
            // Listens before it looks.
            let mut moved = self.moved.subscribe();
            let choice = Choice::clone(&self.choice.load());
            let nobody = match choice {
                Choice::Live(leaf, state) => {
                    context.moved = Some(moved.clone());
                    let result = leaf.shared.start_later(request, context).await;
                    context.moved = None;
                    match result {
                        Err(error @ AttemptError { kind: NoEndpoint, request: Some(_), .. }) => {
                            let news = moved.has_changed().unwrap_or(false);
                            if !news && state == Aggregate::TransientFailure {
                                return Err(error);
                            }
                            error
                        }
                        result => return result,
                    }
                }
                Choice::Nobody(why) if !context.wait_for_ready => return Err(self.unsent(request, &why)),
                Choice::Nobody(why) => self.unsent(request, &why),
                Choice::Pending => self.unsent(request, "none of its clusters was looked at yet"),
            };
            let AttemptError { status, request: Some(back), .. } = nobody else { return Err(nobody) };
            // An error would be the end of the task, which lives as long as this.
            let change = moved.changed();
            let in_time = match context.deadline {
                Some(deadline) => timeout_at(deadline, change).await.is_ok(),
                None => change.await.is_ok(),
            };
            if !in_time {
                let message = format!("deadline exceeded while waiting: {}", status.message());
                let (status, kind) = (Status::deadline_exceeded(message), DeadlineExceeded);
                return Err(AttemptError { status, kind, request: Some(back), spare: None });
            }
            request = *back;
        }
    }

    fn unsent(&self, request: Request<CallBody>, reason: &str) -> AttemptError {
        let status = Status::unavailable(format!("cluster {}: {reason}", self.name));
        AttemptError { status, kind: NoEndpoint, request: Some(Box::new(request)), spare: None }
    }
}

/// A leaf, and its live cluster while it is needed.
struct Held {
    leaf: LeafCluster,
    live: Option<Arc<Cluster>>,
}

impl Held {
    fn state(&self) -> Aggregate {
        match &self.live {
            Some(live) => live.shared.snapshot.load().state,
            None if self.leaf.config.is_err() => Aggregate::TransientFailure,
            None => Aggregate::Connecting,
        }
    }
}

/// The task that chooses; ends with its cluster.
pub(super) struct Aggregator {
    updates: watch::Receiver<Arc<ClusterConfig>>,
    live: Leaf,
    leaves: Vec<Held>,
    priorities: Priorities,
    choice: Arc<ArcSwap<Choice>>,
    moved: watch::Sender<()>,
}

impl Aggregator {
    pub(super) async fn run(mut self) {
        loop {
            let config = Arc::clone(&self.updates.borrow_and_update());
            self.configure(&config);
            loop {
                // Listens before it looks.
                let mut changes: Vec<_> = self
                    .leaves
                    .iter()
                    .filter_map(|leaf| Some(leaf.live.as_ref()?.shared.changed.subscribe()))
                    .collect();
                if self.choose() {
                    // Other leaves are live now.
                    continue;
                }
                let leaf_changed = async {
                    if changes.is_empty() {
                        return std::future::pending().await;
                    }
                    let waits = changes.iter_mut().map(|change| Box::pin(change.changed()));
                    drop(select_all(waits).await);
                };
                let wake = self.priorities.wake_at();
                tokio::select! {
                    updated = self.updates.changed() => match updated {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    () = leaf_changed => {}
                    () = async {
                        match wake {
                            Some(at) => sleep_until(at).await,
                            None => std::future::pending().await,
                        }
                    } => {}
                }
            }
        }
    }

    /// Leaves that stay keep their live clusters.
    fn configure(&mut self, config: &ClusterConfig) {
        let mut before = std::mem::take(&mut self.leaves);
        for leaf in &config.leaves {
            let known = before.iter().position(|started| started.leaf.name == leaf.name);
            let live = known.and_then(|index| before.swap_remove(index).live);
            // Takes in the leaf's new configuration; a leaf without one is of no use any more.
            let live = match (live, &leaf.config) {
                (Some(_), Ok(config)) => (self.live)(config),
                _ => None,
            };
            self.leaves.push(Held { leaf: leaf.clone(), live });
        }
        self.priorities.resize(self.leaves.len());
    }

    /// Chooses until nothing moves, and publishes. True: a leaf was started or stopped.
    fn choose(&mut self) -> bool {
        let now = Instant::now();
        let mut changed = false;
        loop {
            let states: Vec<Aggregate> = self.leaves.iter().map(Held::state).collect();
            let moved = self.priorities.choose(now, &states, &[]);
            for (index, leaf) in self.leaves.iter_mut().enumerate() {
                match (self.priorities.is_started(index), &leaf.live, &leaf.leaf.config) {
                    (true, None, Ok(config)) => {
                        leaf.live = (self.live)(config);
                        changed = true;
                    }
                    (false, Some(_), _) => {
                        leaf.live = None;
                        changed = true;
                    }
                    _ => {}
                }
            }
            if !moved {
                break;
            }
        }
        self.publish();
        changed
    }

    fn publish(&self) {
        let current = self.priorities.current().and_then(|current| self.leaves.get(current));
        // The last one is waited for when all failed: rather one that can be.
        let usable = current
            .filter(|leaf| leaf.live.is_some())
            .or_else(|| self.leaves.iter().find(|leaf| leaf.live.is_some()));
        let choice = match usable.and_then(|leaf| Some((leaf.live.clone()?, leaf.state()))) {
            Some((live, state)) => Choice::Live(live, state),
            None => {
                let why = self.leaves.iter().filter_map(|leaf| leaf.leaf.config.as_ref().err());
                let why: Vec<String> = why.map(ToString::to_string).collect();
                Choice::Nobody(format!("none of its clusters can be used: {}", why.join("; ")).into())
            }
        };
        let same = match (&**self.choice.load(), &choice) {
            (Choice::Live(old, was), Choice::Live(new, is)) => Arc::ptr_eq(old, new) && was == is,
            (Choice::Nobody(old), Choice::Nobody(new)) => old == new,
            _ => false,
        };
        if !same {
            self.choice.store(Arc::new(choice));
            self.moved.send_replace(());
        }
    }
}
