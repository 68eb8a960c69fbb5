//! The control planes and the targets that are resolved from them: everything of the client but the IO.

use super::{
    authority::{Actions, Federation, Id},
    listing::{AllTarget, ResourceSet},
    machine::{Input, Key, Parse},
    slot::{Outstanding, Receipt, Slot},
};
use crate::{
    config::{
        ClientTarget, ClusterConfig, ClusterTarget, ServerTarget, ServerXdsConfig, XdsConfig, XdsError,
    },
    name::{Name, ResourceType, WILDCARD},
    resource::{AnyResource, Cluster, Listener},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

/// What handles ask of the task. Targets have ids so that one may end while its successor begins.
pub(super) enum Command {
    WatchClient { id: u64, listener: Name, authority: Arc<str>, slot: Slot<XdsConfig> },
    WatchServer { id: u64, listener: Name, slot: Slot<ServerXdsConfig> },
    WatchCluster { id: u64, cluster: Name, slot: Slot<ClusterConfig> },
    WatchListeners { id: u64, slot: Slot<ResourceSet<Listener>> },
    WatchClusters { id: u64, slot: Slot<ResourceSet<Cluster>> },
    Unwatch { id: u64 },
}

enum Target {
    Client(ClientTarget, Slot<XdsConfig>),
    Server(ServerTarget, Slot<ServerXdsConfig>),
    Cluster(ClusterTarget, Slot<ClusterConfig>),
    Listeners(AllTarget<Listener>),
    Clusters(AllTarget<Cluster>),
}

struct Watched {
    target: Target,
    wanted: BTreeSet<Key>,
}

pub(super) struct Core<P: Parse<Resource = AnyResource>> {
    pub(super) federation: Federation<P>,
    targets: BTreeMap<u64, Watched>,
}

impl<P: Parse<Resource = AnyResource>> Core<P> {
    pub(super) fn new(federation: Federation<P>) -> Self {
        Self { federation, targets: BTreeMap::new() }
    }

    /// Carries out commands, together, so that they become as few requests as possible.
    pub(super) fn command(&mut self, now: Instant, commands: impl IntoIterator<Item = Command>) -> Actions {
        let mut dirty = BTreeSet::new();
        let mut remove = Vec::new();
        for command in commands {
            let (id, target) = match command {
                Command::WatchClient { id, listener, authority, slot } => {
                    (id, Target::Client(ClientTarget::new(listener, authority), slot))
                }
                Command::WatchServer { id, listener, slot } => {
                    (id, Target::Server(ServerTarget::new(listener), slot))
                }
                Command::WatchCluster { id, cluster, slot } => {
                    (id, Target::Cluster(ClusterTarget::new(cluster), slot))
                }
                Command::WatchListeners { id, slot } => (id, Target::Listeners(AllTarget::new(slot))),
                Command::WatchClusters { id, slot } => (id, Target::Clusters(AllTarget::new(slot))),
                Command::Unwatch { id } => {
                    remove.extend(self.targets.remove(&id).into_iter().flat_map(|watched| watched.wanted));
                    continue;
                }
            };
            self.targets.insert(id, Watched { target, wanted: BTreeSet::new() });
            dirty.insert(id);
        }
        let mut out = Actions::default();
        self.settle(now, dirty, remove, None, &mut out);
        out
    }

    /// Something happened on the stream of a control plane; publishes what follows.
    pub(super) fn on(&mut self, now: Instant, server: Id, input: Input) -> Actions {
        let (receipt, outstanding) = Outstanding::new();
        let receipt = matches!(input, Input::Response(_)).then_some(receipt);
        let out = self.federation.on(now, server, input);
        let mut out = self.follow(now, out, receipt.as_ref());
        drop(receipt);
        if !outstanding.is_over() {
            let held = self.federation.on(now, server, Input::Held);
            out.merge(self.follow(now, held, None));
            out.outstanding = Some(outstanding);
        }
        out
    }

    /// Time passed; publishes what follows.
    pub(super) fn tick(&mut self, now: Instant) -> Actions {
        let out = self.federation.tick(now);
        self.follow(now, out, None)
    }

    fn follow(&mut self, now: Instant, mut out: Actions, receipt: Option<&Receipt>) -> Actions {
        let dirty = self.affected(&out.changed);
        self.settle(now, dirty, Vec::new(), receipt, &mut out);
        out
    }

    fn affected(&self, changed: &BTreeSet<Key>) -> BTreeSet<u64> {
        let affected = self.targets.iter().filter(|(_, watched)| !watched.wanted.is_disjoint(changed));
        affected.map(|(id, _)| *id).collect()
    }

    /// Resolves targets until nothing more follows. `receipt` is that of the response that it follows from.
    fn settle(
        &mut self,
        now: Instant,
        mut dirty: BTreeSet<u64>,
        mut remove: Vec<Key>,
        receipt: Option<&Receipt>,
        out: &mut Actions,
    ) {
        while !dirty.is_empty() || !remove.is_empty() {
            let mut add = Vec::new();
            for id in std::mem::take(&mut dirty) {
                let Some(watched) = self.targets.get_mut(&id) else { continue };
                let wanted = watched.target.resolve(&self.federation, receipt);
                add.extend(wanted.difference(&watched.wanted).cloned());
                remove.extend(watched.wanted.difference(&wanted).cloned());
                watched.wanted = wanted;
            }
            if add.is_empty() && remove.is_empty() {
                return;
            }
            let more = self.federation.interest(now, add, std::mem::take(&mut remove));
            dirty = self.affected(&more.changed);
            out.merge(more);
        }
    }
}

impl Target {
    /// Publishes what follows from what is known; returns what has to be watched.
    fn resolve<P: Parse<Resource = AnyResource>>(
        &mut self,
        federation: &Federation<P>,
        receipt: Option<&Receipt>,
    ) -> BTreeSet<Key> {
        let mut wanted = match self {
            Self::Client(target, slot) => {
                let resolution = target.resolve(federation);
                publish(slot, resolution.publish, receipt);
                resolution.wanted
            }
            Self::Server(target, slot) => {
                let resolution = target.resolve(federation);
                publish(slot, resolution.publish, receipt);
                resolution.wanted
            }
            Self::Cluster(target, slot) => {
                let resolution = target.resolve(federation);
                publish(slot, resolution.publish, receipt);
                resolution.wanted
            }
            Self::Listeners(target) => {
                target.resolve(federation, receipt);
                return [(ResourceType::Listener, WILDCARD.into())].into();
            }
            Self::Clusters(target) => {
                target.resolve(federation, receipt);
                return [(ResourceType::Cluster, WILDCARD.into())].into();
            }
        };
        // What a program or a route calls so is known to be nothing, and must not become a wildcard.
        wanted.retain(|(_, name)| **name != *WILDCARD);
        wanted
    }
}

fn publish<T>(slot: &Slot<T>, config: Option<Result<Arc<T>, XdsError>>, receipt: Option<&Receipt>) {
    if let Some(config) = config {
        if let Err(error) = &config {
            tracing::warn!(%error, "a target cannot be resolved");
        }
        slot.publish(config, receipt);
    }
}

#[cfg(test)]
mod coherence;
#[cfg(test)]
mod tests;
