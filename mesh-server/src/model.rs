//! The model: Istio's and Kubernetes' objects, parsed, indexed, and asked.
//!
//! [`parse`] turns one file into objects and findings. [`Config`] is an immutable set of objects
//! with the indexes that compilation needs; [`Workloads`] are the endpoints that registered
//! themselves; a [`Model`] is both. All questions are pure functions of the model.

use std::sync::Arc;

mod authorization;
mod config;
mod destination_rule;
mod distribution;
mod endpoints;
mod kubernetes;
mod node;
mod object;
mod peer_authentication;
mod read;
mod schema;
mod select;
mod service;
mod service_entry;
mod session;
mod shards;
mod value;
mod virtual_service;
mod workload;
mod written;

pub use authorization::{
    Action, AuthorizationPolicy, Condition, Operation, PathPattern, Rule, Source, Terms, TextPattern,
};
pub use config::Config;
pub use destination_rule::{
    Algorithm, ClientTls, ConnectionPool, ConsistentHash, DestinationRule, Distribute, EffectivePolicy,
    FailoverLabel, HashKey, HashTable, Http2Keepalive, LoadBalancer, LocalityLb, OutlierDetection,
    PolicyBlocks, ProxyProtocol, Refusal, RetryBudget, Subset, TcpKeepalive, TlsMode, TrafficPolicy, Warmup,
    ZoneAware,
};
pub(crate) use distribution::NODE_LABEL;
pub use distribution::TrafficDistribution;
pub use endpoints::Endpoint;
pub use kubernetes::{EndpointSlice, KubernetesService, SliceEndpoint};
pub use object::{Kind, Object, ObjectId, Origin, ParsedFile, Refused, parse};
pub use peer_authentication::{MtlsMode, PeerAuthentication};
pub use select::{ClientScope, EffectiveRoute};
pub use service::{EndpointSource, Location, Resolution, Service, ServicePort, TargetPort};
pub use service_entry::ServiceEntry;
pub use session::PersistentSession;
pub use value::{
    ExportTo, Host, Labels, Locality, Located, Pattern, PerMillion, Protocol, StringMatch, duration,
    expand_short_name, is_dns_label, is_header_name, is_label_key, is_label_value, selects,
};
pub use virtual_service::{
    Abort, AbortStatus, Delay, Delegate, Destination, DirectResponse, Fault, HeaderChanges, HeaderOps,
    HttpAction, HttpMatch, HttpRoute, Mirror, Redirect, RedirectPath, RedirectPort, Retries, RetryOn,
    Rewrite, RouteDestination, UriRewrite, VirtualService,
};
pub(crate) use virtual_service::{Problem, Unresolved};
pub use workload::{
    Address, Health, RegisteredWorkload, ServiceAccount, WorkloadEntry, WorkloadGroup, WorkloadSpec,
    Workloads,
};
pub use written::Written;

/// What configuration means depends on these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    /// The DNS domain of the mesh's services: `cluster.local`.
    pub domain: String,
    /// The namespace whose policies and rules are for the whole mesh: `istio-system`.
    pub root_namespace: String,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self { domain: "cluster.local".to_owned(), root_namespace: "istio-system".to_owned() }
    }
}

/// Everything the mesh knows at one moment; immutable and cheap to clone.
#[derive(Clone, Debug)]
pub struct Model {
    /// What was written.
    pub config: Arc<Config>,
    /// What registered itself.
    pub workloads: Arc<Workloads>,
}

pub(crate) use shards::Shards;

#[cfg(test)]
pub(crate) mod fixture;
