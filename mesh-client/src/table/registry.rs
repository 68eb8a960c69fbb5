//! The live clusters of a mesh, by name: one for all channels and all tables that name it.
//!
//! A cluster lives as long as a table or a call holds it; the registry alone keeps nothing alive. When the
//! same name comes with a new configuration, the cluster takes it in and keeps its connections. One that only
//! calls hold any more is subscribed by itself until they end (gRFC A74), so that they see its endpoints change.

use super::named::Found;
use crate::cluster::{Cluster, ClusterDeps, Leaf};
use futures_util::stream::{self, BoxStream, StreamExt};
use mesh_xds::{
    client::ClusterWatch,
    config::{ClusterConfig, XdsError},
    name::Name,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Watches one cluster by itself.
pub(crate) type Subscribe = Box<dyn Fn(&Name) -> ClusterWatch + Send + Sync>;

/// The live clusters.
pub(crate) struct Registry {
    deps: ClusterDeps,
    subscribe: Subscribe,
    /// For clusters that are made of others: those are live clusters of their own, shared like any.
    leaf: Leaf,
    clusters: Mutex<HashMap<Name, Entry>>,
}

struct Entry {
    cluster: Weak<Cluster>,
    /// It has a subscription of its own.
    subscribed: bool,
}

impl Registry {
    pub(crate) fn new(deps: ClusterDeps, subscribe: Subscribe) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let leaf: Leaf = Arc::new(move |config| Some(this.upgrade()?.live(config)));
            Self { deps, subscribe, leaf, clusters: Mutex::default() }
        })
    }

    /// The live cluster for this configuration, started if there is none. Needs a tokio runtime.
    pub(crate) fn live(&self, config: &Arc<ClusterConfig>) -> Arc<Cluster> {
        let name = &config.cluster.name;
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let live = clusters.get(name).and_then(|entry| entry.cluster.upgrade());
        if let Some(cluster) = live.filter(|live| live.fits(config)) {
            cluster.update(config.clone());
            return cluster;
        }
        clusters.retain(|_, entry| entry.cluster.strong_count() > 0);
        let cluster = Cluster::spawn(config.clone(), &self.deps, self.leaf.clone());
        clusters.insert(name.clone(), Entry { cluster: Arc::downgrade(&cluster), subscribed: false });
        cluster
    }

    /// A table named this cluster and does not any more. If it still lives, something holds it that will not be
    /// told of its changes: it is subscribed for as long as that lasts.
    pub(crate) fn released(&self, name: &Name) {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = clusters.get_mut(name).filter(|entry| !entry.subscribed) else { return };
        let Some(cluster) = entry.cluster.upgrade() else { return };
        entry.subscribed = true;
        tokio::spawn(follow((self.subscribe)(name), Arc::downgrade(&cluster), cluster.ended()));
    }

    /// The live cluster of a name that a request has, over time. Dropped, it leaves the cluster to the calls that hold
    /// it.
    pub(crate) fn follow(self: &Arc<Self>, name: &Name) -> BoxStream<'static, Found<Cluster>> {
        let following = Following { clusters: Arc::clone(self), name: Arc::clone(name) };
        let said = stream::unfold(
            (false, (self.subscribe)(name), following),
            |(looked, mut watch, following)| async move {
                if looked {
                    watch.changed().await.ok()?;
                }
                let said = watch.borrow_and_update().clone();
                let found = said.map(|said| following.found(said));
                Some((found, (true, watch, following)))
            },
        );
        said.filter_map(std::future::ready).boxed()
    }

    /// The live cluster of a name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Cluster>> {
        let clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.get(name)?.cluster.upgrade()
    }

    /// Those that are alive, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Cluster>> {
        let clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = clusters.values().filter_map(|entry| entry.cluster.upgrade()).collect();
        drop(clusters);
        all.sort_by(|one, other| one.name().cmp(other.name()));
        all
    }
}

/// A cluster that a request has named, followed until this is dropped.
struct Following {
    clusters: Arc<Registry>,
    name: Name,
}

impl Following {
    fn found(&self, said: Result<Arc<ClusterConfig>, XdsError>) -> Found<Cluster> {
        said.map(|config| self.clusters.live(&config)).map_err(|error| error.to_string().into())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Without a runtime the process ends, and its calls with it.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.clusters.released(&self.name);
        }
    }
}

/// Gives a cluster what its subscription says, until its last holder is gone. What is wrong with the cluster as a
/// whole, above all that it was removed, is no reason to take from calls what they have.
async fn follow(mut watch: ClusterWatch, cluster: Weak<Cluster>, ended: impl Future<Output = ()>) {
    let mut ended = std::pin::pin!(ended);
    loop {
        let config = watch.borrow_and_update().clone();
        if let Some(Ok(config)) = config
            && let Some(cluster) = cluster.upgrade().filter(|live| live.fits(&config))
        {
            cluster.update(config);
        }
        tokio::select! {
            () = &mut ended => return,
            changed = watch.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
