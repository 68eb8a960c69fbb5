//! The pure steps from one resource to the next: which names a resource stands for, and what they resolve to.

use super::{ClusterConfig, Lookup, XdsError};
use crate::{
    client::{Key, Known},
    name::{Name, ResourceType},
    resource::{
        AnyResource, ClusterLoadAssignment, Listener, RouteConfiguration,
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

/// Resources read on the way, and what they turned out to be.
pub(super) struct Walk<'a, L> {
    lookup: &'a L,
    /// Every name that was looked at.
    pub(super) wanted: BTreeSet<Key>,
}

impl<'a, L: Lookup> Walk<'a, L> {
    pub(super) fn new(lookup: &'a L) -> Self {
        Self { lookup, wanted: BTreeSet::new() }
    }

    fn known(&mut self, kind: ResourceType, name: &Name) -> Known<AnyResource> {
        self.wanted.insert((kind, name.clone()));
        self.lookup.known(kind, name)
    }

    /// Version of what is looked at.
    pub(super) fn version(&self) -> Arc<str> {
        self.lookup.version()
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

    /// A cluster with its endpoints; `None` while one of them is not known. Keeps the `Arc` of `before` when
    /// nothing differs.
    pub(super) fn cluster(
        &mut self,
        name: &Name,
        before: Option<&Arc<ClusterConfig>>,
    ) -> Option<Result<Arc<ClusterConfig>, XdsError>> {
        let kind = ResourceType::Cluster;
        let (cluster, cluster_note) = match self.known(kind, name) {
            Known::Pending => return None,
            Known::Good { resource: AnyResource::Cluster(cluster), note } => (cluster, note),
            Known::Good { .. } => return Some(Err(self.misfit(kind, name, "it has another type"))),
            Known::Bad(error) => return Some(Err(error)),
        };
        let Discovery::Eds(service) = &cluster.discovery;
        let none = || {
            let endpoints =
                ClusterLoadAssignment { name: service.clone(), priorities: vec![], drops: vec![] };
            before
                .map(|before| &before.endpoints)
                .filter(|before| ***before == endpoints)
                .cloned()
                .unwrap_or_else(|| Arc::new(endpoints))
        };
        let (endpoints, endpoints_note) = match self.known(ResourceType::ClusterLoadAssignment, service) {
            Known::Pending => return None,
            Known::Good { resource: AnyResource::ClusterLoadAssignment(endpoints), note } => {
                (endpoints, note)
            }
            Known::Good { .. } => (none(), Some(format!("{service} has another type").into())),
            Known::Bad(error) => (none(), Some(error.to_string().into())),
        };
        let note = match (endpoints_note, cluster_note) {
            (Some(endpoints), Some(cluster)) if endpoints != cluster => {
                Some(format!("{endpoints}; {cluster}").into())
            }
            (endpoints, cluster) => endpoints.or(cluster),
        };
        let same = before.filter(|before| {
            Arc::ptr_eq(&before.cluster, &cluster)
                && Arc::ptr_eq(&before.endpoints, &endpoints)
                && before.note == note
        });
        Some(Ok(same.cloned().unwrap_or_else(|| Arc::new(ClusterConfig { cluster, endpoints, note }))))
    }

    /// All of these clusters; `None` while one of them is not known.
    pub(super) fn clusters<'n>(
        &mut self,
        names: impl IntoIterator<Item = &'n Name>,
        before: &BTreeMap<Name, Result<Arc<ClusterConfig>, XdsError>>,
    ) -> Option<BTreeMap<Name, Result<Arc<ClusterConfig>, XdsError>>> {
        let mut clusters = BTreeMap::new();
        let mut complete = true;
        for name in names {
            let before = before.get(name).and_then(|before| before.as_ref().ok());
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
