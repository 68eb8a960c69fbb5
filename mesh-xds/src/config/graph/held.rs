//! What is in force while what is to replace it is awaited: its structure stays, and its endpoints and secrets move.
//!
//! A cluster that is complete as it is now takes the place of the one in force. One that is not, because something new
//! below it is not known yet, stays as it is, with the newest endpoints of the name that it has had so far: a drain
//! must not wait for another change. The leaves of an aggregate that is to change are the same, each for itself.
//!
//! One of which a secret is taken away cannot be used until the secret is back, whatever else is awaited.

use super::{Clusters, Walk, Withheld, XdsError, also};
use crate::{
    config::{ClusterConfig, LeafCluster, Lookup},
    name::{Name, ResourceType},
    resource::cluster::Discovery,
};
use std::sync::Arc;

impl<L: Lookup> Walk<'_, L> {
    /// These clusters, all of which are in force, or would be but for their secrets. `next` looks at what they are to
    /// become.
    pub(in crate::config) fn clusters_in_force<'n>(
        &mut self,
        next: &mut Self,
        names: impl IntoIterator<Item = &'n Name>,
        before: &Clusters,
        withheld: &Withheld,
    ) -> Clusters {
        let names: Vec<&Name> = names.into_iter().collect();
        // Those that are complete come first: a leaf that one that is not has too is the same.
        let complete = |name: &&'n Name| {
            // Looked at once more if so: all that it is made of is to be known.
            next.cluster(name, before).and_then(|_| Some(((*name).clone(), self.cluster(name, before)?)))
        };
        let mut clusters: Clusters = names.iter().filter_map(complete).collect();
        for name in names {
            if let Some(held) = before.get(name).filter(|_| !clusters.contains_key(name)) {
                let held = self.held(next, name, held, before, withheld);
                clusters.insert(name.clone(), held);
            }
        }
        clusters
    }

    /// A cluster that is in force.
    fn held(
        &mut self,
        next: &mut Self,
        name: &Name,
        held: &Result<Arc<ClusterConfig>, XdsError>,
        before: &Clusters,
        withheld: &Withheld,
    ) -> Result<Arc<ClusterConfig>, XdsError> {
        self.keep(ResourceType::Cluster, name);
        let config = match held {
            Ok(config) if matches!(config.cluster.discovery, Discovery::Aggregate(_)) => config,
            leaf => return self.held_leaf(name, leaf, withheld),
        };
        let leaf = |leaf: &LeafCluster| {
            let name = &leaf.name;
            self.keep(ResourceType::Cluster, name);
            let now = next.leaf_now(name, before).and_then(|_| self.leaf_now(name, before));
            let config = now.map_or_else(|| self.held_leaf(name, &leaf.config, withheld), Ok);
            LeafCluster { name: name.clone(), config }
        };
        let leaves: Vec<_> = config.leaves.iter().map(leaf).collect();
        if leaves.iter().zip(&config.leaves).all(|(now, before)| now.same(before)) {
            return Ok(config.clone());
        }
        Ok(Arc::new(ClusterConfig { leaves, ..ClusterConfig::clone(config) }))
    }

    /// A leaf as it is now, if it is one, is complete and can be used.
    fn leaf_now(&mut self, name: &Name, before: &Clusters) -> Option<Arc<ClusterConfig>> {
        let (cluster, note) = self.resource(name)?.ok()?;
        let is_leaf = !matches!(cluster.discovery, Discovery::Aggregate(_));
        is_leaf.then(|| self.leaf(name, cluster, note, before))??.ok()
    }

    /// A cluster with endpoints that is in force. Secrets that are taken away are gone, whatever else is awaited.
    fn held_leaf(
        &mut self,
        name: &Name,
        held: &Result<Arc<ClusterConfig>, XdsError>,
        withheld: &Withheld,
    ) -> Result<Arc<ClusterConfig>, XdsError> {
        let (held, lacks) = match (held, withheld.get(name)) {
            (Ok(held), _) => (held, None),
            (Err(error), Some(withheld)) => (withheld, Some(error)),
            (Err(error), None) => return Err(error.clone()),
        };
        if let Some(leaf) = self.leaves.get(&held.cluster.name) {
            return Ok(leaf.clone());
        }
        let cluster = &held.cluster;
        let secrets = self.secrets(cluster, Some(&held.secrets));
        let endpoints = self.endpoints(cluster, Some(held));
        let nothing_new = endpoints.is_none();
        let (endpoints, endpoints_note) = endpoints.unwrap_or_else(|| (held.endpoints.clone(), None));
        let secrets = match (secrets, lacks) {
            (Some(secrets), _) => secrets,
            // Nobody has said that it is back.
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Ok((held.secrets.clone(), None)),
        };
        let (secrets, secrets_note) = match secrets {
            Ok(secrets) => secrets,
            Err(error) => {
                let note = if nothing_new { held.note.clone() } else { endpoints_note };
                self.withhold(name, cluster.clone(), endpoints, note);
                return Err(error);
            }
        };
        let note = if nothing_new { held.note.clone() } else { also(endpoints_note, secrets_note) };
        let leaf = held.or_same(ClusterConfig {
            cluster: cluster.clone(),
            endpoints,
            leaves: Vec::new(),
            secrets,
            note,
        });
        self.leaves.insert(cluster.name.clone(), leaf.clone());
        Ok(leaf)
    }
}
