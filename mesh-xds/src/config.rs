//! One coherent configuration per target (gRFC A74).
//!
//! An [`XdsConfig`] is published only when every resource it references is there or is known not to be;
//! a call that reads one therefore never sees half of a change.

mod effective;
mod graph;
mod lookup;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use effective::{Effective, Level, TimeLimit};
pub(crate) use lookup::sharing;
pub use lookup::{Lookup, Source};
pub use target::{ClientTarget, ClusterTarget, Resolution, ServerTarget};

use crate::{
    name::{Name, ResourceType},
    resource::{
        cluster::Cluster,
        endpoint::ClusterLoadAssignment,
        listener::{HttpConnectionManager, Listener},
        route::{RouteConfiguration, VirtualHost},
        secret::Secret,
    },
};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Everything that one client target needs, at one moment. Parts that did not change keep their `Arc`.
#[derive(Clone, Debug, PartialEq)]
pub struct XdsConfig {
    /// The target's listener.
    pub listener: Arc<Listener>,
    /// Its connection manager (the listener is an API listener by construction).
    pub http: Arc<HttpConnectionManager>,
    /// Its routes.
    pub routes: Arc<RouteConfiguration>,
    /// The virtual host of `routes` that the target's authority selects.
    pub virtual_host: Arc<VirtualHost>,
    /// Every cluster that `virtual_host` or a subscription names.
    pub clusters: BTreeMap<Name, Result<Arc<ClusterConfig>, XdsError>>,
    /// Version of the configuration, as the control plane calls it; for errors and status. Empty if unknown.
    pub version: Arc<str>,
}

/// One cluster, and its endpoints or the clusters it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Its endpoints; without priorities when there are none. Always so for a cluster of clusters, and for one
    /// whose endpoints are found by DNS, which is for the data path to ask.
    pub endpoints: Arc<ClusterLoadAssignment>,
    /// What a cluster of clusters comes down to, in order of preference, each name once (gRFC A37, A74): at
    /// least one. Empty for any other cluster.
    pub leaves: Vec<LeafCluster>,
    /// What the secrets that its TLS context names are now.
    pub secrets: ClusterSecrets,
    /// Why `endpoints` is empty or old, if something went wrong: goes into the errors of calls.
    pub note: Option<Arc<str>>,
}

impl ClusterConfig {
    /// What a cluster with endpoints is now: the `Arc` of what it was, when nothing differs.
    fn or_same(self: &Arc<Self>, now: Self) -> Arc<Self> {
        let same = Arc::ptr_eq(&self.cluster, &now.cluster)
            && Arc::ptr_eq(&self.endpoints, &now.endpoints)
            && self.secrets == now.secrets
            && self.note == now.note;
        if same { self.clone() } else { Arc::new(now) }
    }
}

/// The secrets of a cluster. One that its TLS context names is here: a cluster without it is an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterSecrets {
    /// With the own certificate; absent: none is named.
    pub identity: Option<Arc<Secret>>,
    /// With the roots; absent: none is named.
    pub roots: Option<Arc<Secret>>,
}

/// A cluster with endpoints, below a cluster of clusters.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafCluster {
    /// Its name.
    pub name: Name,
    /// What is known of it. A leaf that cannot be used is one that calls pass over.
    pub config: Result<Arc<ClusterConfig>, XdsError>,
}

impl LeafCluster {
    /// Whether nothing differs; no endpoint is looked at.
    fn same(&self, other: &Self) -> bool {
        self.name == other.name
            && match (&self.config, &other.config) {
                (Ok(one), Ok(other)) => Arc::ptr_eq(one, other),
                (Err(one), Err(other)) => one == other,
                _ => false,
            }
    }
}

/// Why a resource, and with it a target or a cluster, cannot be used. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsError {
    /// Which type.
    pub resource_type: ResourceType,
    /// Which one.
    pub name: Name,
    /// Why.
    pub cause: XdsErrorCause,
    /// The control plane that said so, or that could not be reached.
    pub server: Arc<str>,
    /// Node id sent to it.
    pub node: Arc<str>,
}

/// Why a resource cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XdsErrorCause {
    /// The control plane does not have it: said so, left it out, or did not send it in time.
    DoesNotExist(Arc<str>),
    /// It was sent and rejected, and there is no earlier good one. The faults.
    Rejected(Arc<str>),
    /// The control plane cannot be reached, and nothing is cached.
    Unreachable(Arc<str>),
    /// The control plane reported an error for it (xRFC TP3), or it does not fit its use.
    Failed(Arc<str>),
}

impl fmt::Display for XdsErrorCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoesNotExist(why) => write!(f, "does not exist: {why}"),
            Self::Rejected(why) => write!(f, "was rejected: {why}"),
            Self::Unreachable(why) => write!(f, "is not known: control plane unreachable: {why}"),
            Self::Failed(why) => write!(f, "cannot be used: {why}"),
        }
    }
}

impl fmt::Display for XdsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource_type, name, cause, server, node } = self;
        write!(f, "{resource_type} {name} {cause} (control plane {server}, node {node})")
    }
}

impl std::error::Error for XdsError {}

/// Everything that one server listener needs, at one moment (gRFC A36). Parts that did not change keep their
/// `Arc`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerXdsConfig {
    /// The listener; a server listener by construction.
    pub listener: Arc<Listener>,
    /// Every RouteConfiguration that its filter chains name.
    pub routes: BTreeMap<Name, Result<Arc<RouteConfiguration>, XdsError>>,
    /// Version of the configuration, as the control plane calls it; for errors and status. Empty if unknown.
    pub version: Arc<str>,
}
