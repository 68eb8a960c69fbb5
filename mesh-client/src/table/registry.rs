//! The live clusters of a mesh, by name: one for all channels and all tables that name it.
//!
//! A cluster lives as long as a table or a call holds it; the registry alone keeps nothing alive. When the
//! same name comes with a new configuration, the cluster takes it in and keeps its connections.

use crate::cluster::{Cluster, ClusterDeps, Leaf};
use mesh_xds::{config::ClusterConfig, name::Name};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// The live clusters.
pub(crate) struct Registry {
    deps: ClusterDeps,
    /// For clusters that are made of others: those are live clusters of their own, shared like any.
    leaf: Leaf,
    clusters: Mutex<HashMap<Name, Weak<Cluster>>>,
}

impl Registry {
    pub(crate) fn new(deps: ClusterDeps) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let leaf: Leaf = Arc::new(move |config| Some(this.upgrade()?.live(config)));
            Self { deps, leaf, clusters: Mutex::default() }
        })
    }

    /// The live cluster for this configuration, started if there is none. Needs a tokio runtime.
    pub(crate) fn live(&self, config: &Arc<ClusterConfig>) -> Arc<Cluster> {
        let name = &config.cluster.name;
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = clusters.get(name).and_then(Weak::upgrade).filter(|live| live.fits(config)) {
            cluster.update(config.clone());
            return cluster;
        }
        clusters.retain(|_, cluster| cluster.strong_count() > 0);
        let cluster = Cluster::spawn(config.clone(), &self.deps, self.leaf.clone());
        clusters.insert(name.clone(), Arc::downgrade(&cluster));
        cluster
    }

    /// Those that are alive, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Cluster>> {
        let clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = clusters.values().filter_map(Weak::upgrade).collect();
        drop(clusters);
        all.sort_by(|one, other| one.name().cmp(other.name()));
        all
    }
}
