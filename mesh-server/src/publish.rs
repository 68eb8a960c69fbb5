//! The served state: one immutable snapshot, replaced as a whole, and the resources made of it.
//!
//! Configuration and workloads change apart. Either way the new snapshot is visible when the call that
//! made it returns; nothing is debounced here. A resource is compiled when somebody asks for it, and kept
//! for everybody who would get the same; a change throws away only what it can reach.

mod cache;
mod view;

use crate::{
    analysis::Finding,
    compile::{Compiled, Compiler, Mesh, Touches, client::Client, names::Outbound},
    model::{Config, Model, RegisteredWorkload, Shards, Workloads},
    source::Loaded,
};
use arc_swap::ArcSwap;
use cache::{Shared, Stamp};
use mesh_xds::{
    name::{Name, ResourceType},
    server::Encoded,
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;
pub use view::{AnonymousPeers, Peer, Served};

/// Everything that is served at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The model it is compiled from.
    pub model: Model,
    /// What there is to say about its configuration.
    pub findings: Arc<[Finding]>,
    /// Names it: hash of the configuration, and a count of the changes of workloads.
    pub revision: Arc<str>,
    /// Counts configurations.
    config: u64,
    /// Labels of clients that the configuration asks about.
    labels: Arc<BTreeSet<String>>,
    /// When the workloads of a service last changed, by its host.
    services: Shards<String, u64>,
    /// Counts snapshots.
    generation: u64,
    /// The latest changes of workloads that led here, one a generation; none before the configuration's last.
    recent: VecDeque<Arc<Change>>,
}

/// How many changes of workloads are remembered for streams that follow; one that is further behind compares all
/// that it holds.
const REMEMBERED: usize = 64;

/// A change of one workload.
#[derive(Debug)]
struct Change {
    /// Of which snapshot.
    generation: u64,
    /// The hosts of the services that it answers, or answered, for.
    hosts: BTreeSet<String>,
    /// As it was, and as it is.
    workload: [Option<Arc<RegisteredWorkload>>; 2],
}

/// Owns the current snapshot. Cheap to clone.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    mesh: Mesh,
    current: ArcSwap<Snapshot>,
    /// Held while a snapshot is made from the one before.
    writer: Mutex<Counters>,
    changes: watch::Sender<u64>,
    shared: Shared,
}

#[derive(Default)]
struct Counters {
    config: u64,
    workloads: u64,
}

impl Publisher {
    /// Publishes a first configuration, without workloads.
    pub fn new(mesh: Mesh, loaded: &Loaded) -> Self {
        let snapshot = Snapshot {
            model: Model { config: loaded.config.clone(), workloads: Arc::default() },
            findings: loaded.findings.clone().into(),
            revision: revision(&loaded.revision, 0),
            config: 0,
            labels: Arc::new(labels_asked_for(&loaded.config)),
            services: Shards::default(),
            generation: 0,
            recent: VecDeque::new(),
        };
        Self(Arc::new(Inner {
            mesh,
            current: ArcSwap::from_pointee(snapshot),
            writer: Mutex::default(),
            changes: watch::Sender::new(0),
            shared: Shared::default(),
        }))
    }

    /// What is served now.
    pub fn current(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }

    /// How the mesh is called.
    pub fn mesh(&self) -> &Mesh {
        &self.0.mesh
    }

    /// Counts up with each snapshot.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Replaces the configuration.
    pub fn set_config(&self, loaded: &Loaded) -> Arc<Snapshot> {
        self.replace(|current, counters| {
            counters.config += 1;
            Snapshot {
                model: Model { config: loaded.config.clone(), workloads: current.model.workloads.clone() },
                findings: loaded.findings.clone().into(),
                revision: revision(&loaded.revision, counters.workloads),
                config: counters.config,
                labels: Arc::new(labels_asked_for(&loaded.config)),
                services: current.services.clone(),
                generation: current.generation + 1,
                recent: VecDeque::new(),
            }
        })
    }

    /// Adds a workload, or replaces the one of that name.
    pub fn add_workload(&self, workload: RegisteredWorkload) -> Arc<Snapshot> {
        let (namespace, name) = (workload.namespace.clone(), workload.name.clone());
        self.change_workload(&namespace, &name, |workloads| workloads.with(workload))
    }

    /// Removes a workload; nothing happens when there is none such.
    pub fn remove_workload(&self, namespace: &str, name: &str) -> Arc<Snapshot> {
        self.change_workload(namespace, name, |workloads| workloads.without(namespace, name))
    }

    fn change_workload(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&Workloads) -> Workloads,
    ) -> Arc<Snapshot> {
        self.replace(|current, counters| {
            let workloads = change(&current.model.workloads);
            let before = current.model.workloads.find(namespace, name);
            let after = workloads.find(namespace, name);
            if before == after {
                return current.clone();
            }
            counters.workloads += 1;
            // Who selects it may differ before and after, when its labels did.
            let hosts = before
                .into_iter()
                .chain(after)
                .flat_map(|workload| current.model.services_selecting(namespace, &workload.labels))
                .map(|service| service.hostname.clone())
                .collect();
            let workload = [before.cloned(), after.cloned()];
            let change = Change { generation: current.generation + 1, hosts, workload };
            let config = current.revision.split_once('.').map_or(&*current.revision, |(config, _)| config);
            let revision = revision(config, counters.workloads);
            current.with(workloads, revision, change, counters.workloads)
        })
    }

    fn replace(&self, make: impl FnOnce(&Snapshot, &mut Counters) -> Snapshot) -> Arc<Snapshot> {
        let mut counters = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Arc::new(make(&self.0.current.load(), &mut counters));
        self.0.current.store(next.clone());
        self.0.changes.send_modify(|count| *count += 1);
        next
    }

    /// A resource as one client sees it, encoded.
    fn resource(
        &self,
        snapshot: &Snapshot,
        client: &Client,
        shared: &cache::Resources,
        kind: ResourceType,
        name: &str,
    ) -> Option<Arc<Encoded>> {
        let compile =
            |client: &Client| Compiler::new(&snapshot.model, &self.0.mesh, client).resource(kind, name);
        let workloads = match Touches::of(kind, name) {
            // Nobody else asks for it, so there is nobody to keep it for.
            Touches::Client => return compile(client).map(|compiled| encode(name, &compiled)),
            Touches::Configuration => 0,
            Touches::Service(host) => snapshot.services.get(host).copied().unwrap_or(0),
        };
        let stamp = Stamp { config: snapshot.config, workloads };
        shared.find_or_make(kind, name, stamp, compile)
    }
}

impl Snapshot {
    fn with(&self, workloads: Workloads, revision: Arc<str>, change: Change, count: u64) -> Self {
        let mut services = self.services.clone();
        for host in &change.hosts {
            services.insert(host.clone(), count);
        }
        let generation = change.generation;
        let mut recent = self.recent.clone();
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(Arc::new(change));
        Self {
            model: Model { config: self.model.config.clone(), workloads: Arc::new(workloads) },
            findings: self.findings.clone(),
            revision,
            config: self.config,
            labels: self.labels.clone(),
            services,
            generation,
            recent,
        }
    }

    /// The changes of workloads since an earlier snapshot; `None` when there were others, or they are forgotten.
    fn changes_since(&self, earlier: &Self) -> Option<impl Iterator<Item = &Change>> {
        let (from, to) = (earlier.generation, self.generation);
        let missed = usize::try_from(to.checked_sub(from)?).ok()?;
        (missed <= self.recent.len()).then(|| self.recent.iter().rev().take(missed).map(Arc::as_ref))
    }

    /// Whether anybody may have a cluster of that name. Cheap, whatever the size of the mesh: clients ask as often as they
    /// make names up.
    pub(crate) fn has_cluster(&self, name: &str) -> bool {
        Outbound::parse(name).is_some_and(|name| {
            let config = &self.model.config;
            let services = config.services_named(name.host);
            let has_port = services.iter().any(|one| one.ports.iter().any(|port| port.number == name.port));
            has_port && (name.subset.is_empty() || config.has_subset(name.host, name.subset))
        })
    }

    /// The part of a client that decides what it shares with others: not who it is, and only the labels
    /// that the configuration asks about.
    fn sharing(&self, client: &Client) -> Client {
        let mut client = client.clone();
        client.service_account = None;
        client.workload = None;
        client.group = None;
        client.scope.labels.retain(|key, _| self.labels.contains(key));
        client
    }
}

/// `configuration.workloads`.
fn revision(config: &str, workloads: u64) -> Arc<str> {
    format!("{config}.{workloads}").into()
}

/// Keys of the labels that routes and rules ask of clients.
fn labels_asked_for(config: &Config) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for service in config.virtual_services() {
        for condition in service.http.iter().flat_map(|route| &route.matches) {
            keys.extend(condition.source_labels.keys().cloned());
        }
    }
    for rule in config.destination_rules() {
        keys.extend(rule.selector.iter().flatten().map(|(key, _)| key.clone()));
        let policies =
            rule.policy.iter().chain(rule.subsets.iter().filter_map(|subset| subset.policy.as_ref()));
        for blocks in policies.flat_map(|policy| std::iter::once(&policy.blocks).chain(policy.ports.values()))
        {
            let locality = blocks.load_balancer.as_ref().and_then(|block| block.locality.as_ref());
            keys.extend(
                locality.iter().flat_map(|block| &block.failover_priority).map(|label| label.key.clone()),
            );
        }
    }
    for service in config.services() {
        keys.extend(service.distribution.labels().iter().map(|label| (*label).to_owned()));
    }
    keys
}

fn encode(name: &str, compiled: &Compiled) -> Arc<Encoded> {
    let body = compiled.encode();
    let version = format!("{:016x}", twox_hash::XxHash64::oneshot(0, &body));
    Arc::new(Encoded { name: Name::from(name), version: version.into(), body })
}

#[cfg(test)]
mod tests;
