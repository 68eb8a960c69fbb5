//! The pure steps from one resource to the next: which names a resource stands for, and what they resolve to.

mod held;
mod secrets;

use super::{ClusterConfig, LeafCluster, Lookup, Source, XdsError, XdsErrorCause};
use crate::{
    client::{Key, Known},
    name::{Name, ResourceType, canonical},
    resource::{
        AnyResource, Cluster, ClusterLoadAssignment, Listener, RouteConfiguration,
        cluster::Discovery,
        listener::{HttpConnectionManager, ListenerKind, RouteSource, ServerListener},
        route::VirtualHost,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Every RouteConfiguration that a server's filter chains name.
pub(super) fn routes_of(listener: &ServerListener) -> BTreeSet<Name> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let sources = chains.filter_map(|chain| match &chain.http.routes {
        RouteSource::Rds(name) => Some(name.clone()),
        RouteSource::Inline(_) => None,
    });
    sources.collect()
}

/// The `Arc` of `before` when both say the same: control planes that replace one another often do.
pub(super) fn or_equal<T: PartialEq>(now: Arc<T>, before: Option<&Arc<T>>) -> Arc<T> {
    before.filter(|before| **before == now).cloned().unwrap_or(now)
}

/// Resources read on the way, and what they turned out to be.
pub(super) struct Walk<'a, L> {
    lookup: &'a L,
    /// Every name that was looked at.
    pub(super) wanted: BTreeSet<Key>,
    /// Clusters with endpoints that are complete: one that is named twice is one configuration.
    leaves: BTreeMap<Name, Arc<ClusterConfig>>,
    /// What leaves below aggregate clusters were before; looked up when the first of them is needed.
    earlier: Option<BTreeMap<Name, Arc<ClusterConfig>>>,
    /// Who was asked.
    pub(super) sources: BTreeSet<Source>,
    /// Clusters that lack a secret and nothing else.
    pub(super) withheld: Withheld,
    /// Something is in force meanwhile: what cannot be had because its control plane is away is waited for.
    patient: bool,
}

impl<'a, L: Lookup> Walk<'a, L> {
    pub(super) fn new(lookup: &'a L, patient: bool) -> Self {
        Self {
            lookup,
            wanted: BTreeSet::new(),
            leaves: BTreeMap::new(),
            earlier: None,
            sources: BTreeSet::new(),
            withheld: Withheld::new(),
            patient,
        }
    }

    /// Another one over the same, that has seen nothing yet.
    pub(super) fn anew(&self) -> Self {
        Self::new(self.lookup, self.patient)
    }

    fn known(&mut self, kind: ResourceType, name: &Name) -> Known<AnyResource> {
        let name = canonical(kind, name);
        let known = self.lookup.known(kind, &name);
        self.sources.insert(self.lookup.source(kind, &name));
        self.wanted.insert((kind, name));
        match known {
            Known::Bad(XdsError { cause: XdsErrorCause::Unreachable(_), .. }) if self.patient => {
                Known::Pending
            }
            known => known,
        }
    }

    /// Keeps watched, without looking at it.
    pub(super) fn keep(&mut self, kind: ResourceType, name: &Name) {
        let name = canonical(kind, name);
        self.sources.insert(self.lookup.source(kind, &name));
        self.wanted.insert((kind, name));
    }

    /// Version of what is looked at, by its listener.
    pub(super) fn version(&self, listener: &Name) -> Arc<str> {
        let kind = ResourceType::Listener;
        self.lookup.version(kind, &canonical(kind, listener))
    }

    fn misfit(&self, kind: ResourceType, name: &Name, why: impl Into<String>) -> XdsError {
        self.lookup.misfit(kind, name, why.into())
    }

    /// A listener; `None` while it is not known.
    pub(super) fn listener(&mut self, name: &Name) -> Option<Result<Arc<Listener>, XdsError>> {
        match self.known(ResourceType::Listener, name) {
            Known::Pending => None,
            Known::Good { resource: AnyResource::Listener(listener), .. } => Some(Ok(listener)),
            Known::Good { .. } => Some(Err(self.misfit(ResourceType::Listener, name, "it has another type"))),
            Known::Bad(error) => Some(Err(error)),
        }
    }

    /// The connection manager of a client's listener.
    pub(super) fn api<'l>(&self, listener: &'l Listener) -> Result<&'l HttpConnectionManager, XdsError> {
        match &listener.kind {
            ListenerKind::Api(http) => Ok(http),
            ListenerKind::Server(_) => Err(self.misfit(
                ResourceType::Listener,
                &listener.name,
                "it is a server's listener; a client's target needs an api_listener",
            )),
        }
    }

    /// A server's listener.
    pub(super) fn server<'l>(&self, listener: &'l Listener) -> Result<&'l ServerListener, XdsError> {
        match &listener.kind {
            ListenerKind::Server(server) => Ok(server),
            ListenerKind::Api(_) => Err(self.misfit(
                ResourceType::Listener,
                &listener.name,
                "it is a client's api_listener; a server needs a listener with an address",
            )),
        }
    }

    /// A RouteConfiguration; `None` while it is not known.
    pub(super) fn routes(&mut self, name: &Name) -> Option<Result<Arc<RouteConfiguration>, XdsError>> {
        let kind = ResourceType::RouteConfiguration;
        match self.known(kind, name) {
            Known::Pending => None,
            Known::Good { resource: AnyResource::RouteConfiguration(routes), .. } => Some(Ok(routes)),
            Known::Good { .. } => Some(Err(self.misfit(kind, name, "it has another type"))),
            Known::Bad(error) => Some(Err(error)),
        }
    }

    /// The virtual host that an authority selects.
    pub(super) fn virtual_host(
        &self,
        routes: &RouteConfiguration,
        authority: &str,
    ) -> Result<Arc<VirtualHost>, XdsError> {
        routes.virtual_host(authority).cloned().ok_or_else(|| {
            let why = format!("no virtual host has a domain for {authority}");
            self.misfit(ResourceType::RouteConfiguration, &routes.name, why)
        })
    }

    /// A cluster with its endpoints, or with those it is made of; `None` while one of them is not known.
    fn cluster(&mut self, name: &Name, before: &Clusters) -> Option<Result<Arc<ClusterConfig>, XdsError>> {
        let (cluster, note) = match self.resource(name)? {
            Ok(known) => known,
            Err(error) => return Some(Err(error)),
        };
        if matches!(cluster.discovery, Discovery::Aggregate(_)) {
            self.aggregate(name, cluster, note, before)
        } else {
            self.leaf(name, cluster, note, before)
        }
    }

    /// A Cluster resource, with what is wrong though it can be used; `None` while it is not known.
    fn resource(&mut self, name: &Name) -> Option<Result<Noted, XdsError>> {
        let kind = ResourceType::Cluster;
        Some(match self.known(kind, name) {
            Known::Pending => return None,
            Known::Good { resource: AnyResource::Cluster(cluster), note } => Ok((cluster, note)),
            Known::Good { .. } => Err(self.misfit(kind, name, "it has another type")),
            Known::Bad(error) => Err(error),
        })
    }

    /// A cluster that has endpoints; `None` while they, or secrets of it, are not known. Keeps the `Arc` of `before`
    /// when nothing differs. `named`: as it is asked for, which may be in other words than its own.
    fn leaf(
        &mut self,
        named: &Name,
        cluster: Arc<Cluster>,
        cluster_note: Option<Arc<str>>,
        before: &Clusters,
    ) -> Option<Result<Arc<ClusterConfig>, XdsError>> {
        if let Some(leaf) = self.leaves.get(&cluster.name) {
            return Some(Ok(leaf.clone()));
        }
        let before = self.earlier(before, named);
        let before = before.as_ref();
        let cluster = or_equal(cluster, before.map(|before| &before.cluster));
        // Asked for together with the endpoints.
        let secrets = self.secrets(&cluster, before.map(|before| &before.secrets));
        let (endpoints, endpoints_note) = self.endpoints(&cluster, before)?;
        let note = also(endpoints_note, cluster_note);
        let (secrets, secrets_note) = match secrets? {
            Ok(secrets) => secrets,
            Err(error) => {
                self.withhold(named, cluster, endpoints, note);
                return Some(Err(error));
            }
        };
        let note = also(note, secrets_note);
        let name = cluster.name.clone();
        let now = ClusterConfig { cluster, endpoints, leaves: Vec::new(), secrets, note };
        let leaf = match before {
            Some(before) => before.or_same(now),
            None => Arc::new(now),
        };
        self.leaves.insert(name, leaf.clone());
        Some(Ok(leaf))
    }

    /// What a leaf was before, in its own right or below an aggregate cluster.
    fn earlier(&mut self, before: &Clusters, name: &Name) -> Option<Arc<ClusterConfig>> {
        if let Some(Ok(own)) = before.get(name) {
            return Some(own.clone());
        }
        let below = self.earlier.get_or_insert_with(|| {
            let mut below = BTreeMap::new();
            let aggregates = before.values().filter_map(|config| config.as_ref().ok());
            for leaf in aggregates.flat_map(|config| &config.leaves) {
                if let Ok(config) = &leaf.config {
                    below.entry(leaf.name.clone()).or_insert_with(|| config.clone());
                }
            }
            below
        });
        below.get(name).cloned()
    }

    /// Keeps what a cluster is but for its secrets.
    fn withhold(
        &mut self,
        named: &Name,
        cluster: Arc<Cluster>,
        endpoints: Arc<ClusterLoadAssignment>,
        note: Option<Arc<str>>,
    ) {
        let (leaves, secrets) = Default::default();
        let withheld = ClusterConfig { cluster, endpoints, leaves, secrets, note };
        self.withheld.insert(named.clone(), Arc::new(withheld));
    }

    /// The endpoints of a cluster, with what is wrong with them; `None` while they are not known. Keeps the `Arc` of
    /// `before` when nothing differs.
    fn endpoints(
        &mut self,
        cluster: &Cluster,
        before: Option<&Arc<ClusterConfig>>,
    ) -> Option<(Arc<ClusterLoadAssignment>, Option<Arc<str>>)> {
        let none = |name: &Name| {
            let endpoints = ClusterLoadAssignment::new(name.clone());
            before
                .map(|before| &before.endpoints)
                .filter(|before| ***before == endpoints)
                .cloned()
                .unwrap_or_else(|| Arc::new(endpoints))
        };
        Some(match &cluster.discovery {
            Discovery::Static(endpoints) => (endpoints.clone(), None),
            // Resolved by whoever makes the calls.
            Discovery::StrictDns(_) | Discovery::LogicalDns(_) | Discovery::Aggregate(_) => {
                (none(&cluster.name), None)
            }
            Discovery::Eds(service) => match self.known(ResourceType::ClusterLoadAssignment, service) {
                Known::Pending => return None,
                Known::Good { resource: AnyResource::ClusterLoadAssignment(endpoints), note } => {
                    (or_equal(endpoints, before.map(|before| &before.endpoints)), note)
                }
                Known::Good { .. } => (none(service), Some(format!("{service} has another type").into())),
                Known::Bad(error) => (none(service), Some(error.to_string().into())),
            },
        })
    }

    /// A cluster of clusters (gRFC A37, A74); `None` while one of them is not known.
    fn aggregate(
        &mut self,
        named: &Name,
        cluster: Arc<Cluster>,
        note: Option<Arc<str>>,
        before: &Clusters,
    ) -> Option<Result<Arc<ClusterConfig>, XdsError>> {
        let name = cluster.name.clone();
        let own = before.get(named).and_then(|before| before.as_ref().ok());
        let cluster = or_equal(cluster, own.map(|own| &own.cluster));
        let mut found = Found { seen: BTreeSet::from([name.clone()]), ..Found::default() };
        self.flatten(&cluster, 1, &mut found, before);
        if found.too_deep {
            let why = format!("clusters of clusters nest deeper than {MAX_DEPTH}");
            return Some(Err(self.misfit(ResourceType::Cluster, &name, why)));
        }
        if !found.complete {
            return None;
        }
        if found.leaves.is_empty() {
            let why = "it leads back to itself only: no leaf clusters";
            return Some(Err(self.misfit(ResourceType::Cluster, &name, why)));
        }
        let same = own.filter(|before| {
            Arc::ptr_eq(&before.cluster, &cluster)
                && before.note == note
                && before.leaves.len() == found.leaves.len()
                && before.leaves.iter().zip(&found.leaves).all(|(before, leaf)| before.same(leaf))
        });
        Some(Ok(match same {
            Some(before) => before.clone(),
            None => Arc::new(ClusterConfig {
                endpoints: Arc::new(ClusterLoadAssignment::new(name)),
                cluster,
                leaves: found.leaves,
                secrets: Default::default(),
                note,
            }),
        }))
    }

    /// Adds the leaves below an aggregate cluster, depth first, each name where it comes first. A name that
    /// was seen already adds nothing, which ends every loop. Looks at all even when one is missing, so that
    /// all are asked for at once.
    fn flatten(&mut self, aggregate: &Cluster, depth: usize, found: &mut Found, before: &Clusters) {
        let Discovery::Aggregate(children) = &aggregate.discovery else { return };
        for name in children {
            if !found.seen.insert(name.clone()) {
                continue;
            }
            if depth == MAX_DEPTH {
                found.too_deep = true;
                return;
            }
            let config = match self.resource(name) {
                None => {
                    found.complete = false;
                    continue;
                }
                Some(Ok((child, _))) if matches!(child.discovery, Discovery::Aggregate(_)) => {
                    self.flatten(&child, depth + 1, found, before);
                    continue;
                }
                Some(Ok((child, note))) => match self.leaf(name, child, note, before) {
                    Some(leaf) => leaf,
                    None => {
                        found.complete = false;
                        continue;
                    }
                },
                Some(Err(error)) => Err(error),
            };
            found.leaves.push(LeafCluster { name: name.clone(), config });
        }
    }

    /// All of these clusters; `None` while one of them is not known.
    pub(super) fn clusters<'n>(
        &mut self,
        names: impl IntoIterator<Item = &'n Name>,
        before: &Clusters,
    ) -> Option<Clusters> {
        let mut clusters = BTreeMap::new();
        let mut complete = true;
        for name in names {
            // Looks at all of them even when one is missing, so that all are asked for at once.
            match self.cluster(name, before) {
                Some(cluster) => {
                    clusters.insert(name.clone(), cluster);
                }
                None => complete = false,
            }
        }
        complete.then_some(clusters)
    }
}

/// One note after the other.
fn also(one: Option<Arc<str>>, other: Option<Arc<str>>) -> Option<Arc<str>> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => Some(format!("{one}; {other}").into()),
        (one, other) => one.or(other),
    }
}

/// A cluster, and what is wrong though it can be used.
type Noted = (Arc<Cluster>, Option<Arc<str>>);

/// How deep clusters of clusters may nest (gRFC A37).
const MAX_DEPTH: usize = 16;

pub(super) type Clusters = BTreeMap<Name, Result<Arc<ClusterConfig>, XdsError>>;

/// Clusters with endpoints that cannot be used for want of a secret, by the names that they are asked for by: what they
/// are as soon as it is there. Of the secrets that they had nothing is in them.
pub(super) type Withheld = BTreeMap<Name, Arc<ClusterConfig>>;

/// What was found below an aggregate cluster.
struct Found {
    leaves: Vec<LeafCluster>,
    seen: BTreeSet<Name>,
    complete: bool,
    too_deep: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self { leaves: Vec::new(), seen: BTreeSet::new(), complete: true, too_deep: false }
    }
}
