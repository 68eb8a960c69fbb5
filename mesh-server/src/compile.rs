//! From the model to xDS resources: pure, by name, for one kind of client at a time.
//!
//! A client asks for what it needs by Istio's names and gets that; an Envoy, which asks for everything,
//! is told the names first. Equal questions get equal answers: whoever publishes may keep them.
//!
//! | Asked for | Name |
//! |---|---|
//! | LDS | `reviews:9080`, `reviews.default.svc.cluster.local:9080`, …: a client's target |
//! | LDS | `xds.istio.io/grpc/lds/inbound/10.0.0.1:9080`: a server |
//! | RDS | `outbound\|9080\|\|reviews.default.svc.cluster.local` |
//! | CDS, EDS | `outbound\|9080\|v1\|reviews.default.svc.cluster.local` |

mod absence;
pub mod client;
mod cluster;
mod endpoint;
mod envoy;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod inbound;
mod listener;
pub mod names;
mod origin;
mod rbac;
mod route;

use crate::model::{Model, Service};
use client::{Client, ClientKind, EnvoyOptions};
use mesh_xds::{
    name::{Name, ResourceType},
    resource::{Cluster, ClusterLoadAssignment, Listener, Resource, RouteConfiguration},
};
use prost::bytes::Bytes;
use std::sync::Arc;

/// What the mesh is called by others, and what it asks of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// The trust domain of its identities.
    pub trust_domain: String,
    /// Further names of the same trust domain: accepted as peers, meant by policies.
    pub trust_domain_aliases: Vec<String>,
    /// Clients that can report what their calls did do.
    pub load_reports: bool,
}

impl Mesh {
    /// Its own trust domain, then the aliases.
    pub fn trust_domains(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.trust_domain).chain(&self.trust_domain_aliases).map(String::as_str)
    }
}

/// A compiled resource.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Compiled {
    /// LDS.
    Listener(Listener),
    /// RDS.
    Routes(RouteConfiguration),
    /// CDS.
    Cluster(Box<Cluster>),
    /// EDS.
    Endpoints(ClusterLoadAssignment),
    /// What only Envoy's own messages can say, encoded.
    Envoy(Bytes),
}

/// Compiles for one client. Cheap to make.
#[derive(Clone, Copy)]
pub struct Compiler<'m> {
    model: &'m Model,
    mesh: &'m Mesh,
    client: &'m Client,
}

impl<'m> Compiler<'m> {
    /// A compiler of what `client` may see of `model`.
    pub fn new(model: &'m Model, mesh: &'m Mesh, client: &'m Client) -> Self {
        Self { model, mesh, client }
    }

    /// The resource of that name; `None` when this client has none such. Names may be made up.
    pub fn resource(&self, kind: ResourceType, name: &str) -> Option<Compiled> {
        if let ClientKind::Envoy(options) = &self.client.kind {
            return self.envoy(options, kind, name);
        }
        match kind {
            ResourceType::Listener if name.starts_with(names::INBOUND_PREFIX) => self.inbound_listener(name),
            ResourceType::Listener => self.outbound_listener(name),
            ResourceType::RouteConfiguration => return self.routes(name).map(Compiled::Routes),
            ResourceType::Cluster => return self.cluster(name).map(Box::new).map(Compiled::Cluster),
            ResourceType::ClusterLoadAssignment => return self.assignment(name).map(Compiled::Endpoints),
            // Workloads have their keys from the certificate service, or make them: none is here to be sent.
            ResourceType::Secret => return None,
        }
        .map(Compiled::Listener)
    }

    /// What a wildcard subscription stands for, sorted.
    pub fn names(&self, kind: ResourceType) -> Vec<Name> {
        let mut names: Vec<Name> = match (&self.client.kind, kind) {
            (ClientKind::Envoy(options), ResourceType::Listener) => {
                options.proxy_port.iter().map(|_| route::HTTP_PROXY.into()).collect()
            }
            (ClientKind::Envoy(_), ResourceType::RouteConfiguration) => vec![route::HTTP_PROXY.into()],
            (_, ResourceType::Listener) => {
                self.ports().map(|(service, port)| format!("{}:{port}", service.hostname).into()).collect()
            }
            (_, ResourceType::RouteConfiguration) => {
                self.ports().map(|(service, port)| route::cluster_name(port, "", &service.hostname)).collect()
            }
            (_, ResourceType::Cluster | ResourceType::ClusterLoadAssignment) => self.clusters(),
            (_, ResourceType::Secret) => Vec::new(),
        };
        if let ClientKind::Envoy(EnvoyOptions { certificate: None, .. }) = &self.client.kind {
            // Without a certificate there are clusters that it cannot have.
            if kind == ResourceType::Cluster {
                names.retain(|name| self.resource(kind, name).is_some());
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether [`Self::names`] has a name.
    pub fn lists(&self, kind: ResourceType, name: &str) -> bool {
        let has_port = |host, port| self.service(host).is_some_and(|service| service.port(port).is_some());
        match kind {
            ResourceType::Listener | ResourceType::RouteConfiguration if self.client.is_envoy() => {
                self.names(kind).iter().any(|listed| **listed == *name)
            }
            ResourceType::Listener => names::Target::parse(name).is_some_and(|target| {
                let port = target.port.filter(|port| has_port(target.host, *port));
                port.is_some_and(|port| *name == format!("{}:{port}", target.host))
            }),
            ResourceType::RouteConfiguration => names::Outbound::parse(name)
                .is_some_and(|route| route.subset.is_empty() && has_port(route.host, route.port)),
            ResourceType::Cluster | ResourceType::ClusterLoadAssignment => {
                let is_bare =
                    matches!(self.client.kind, ClientKind::Envoy(EnvoyOptions { certificate: None, .. }));
                let host = names::Outbound::parse(name).map(|name| name.host);
                host.is_some_and(|host| self.clusters_of(host).iter().any(|listed| **listed == *name))
                    && (!is_bare || kind != ResourceType::Cluster || self.resource(kind, name).is_some())
            }
            ResourceType::Secret => false,
        }
    }

    fn clusters(&self) -> Vec<Name> {
        self.services().flat_map(|service| self.clusters_to(service)).collect()
    }

    /// The clusters of a host: what a change of its workloads may change, and their endpoints.
    pub(crate) fn clusters_of(&self, host: &str) -> Vec<Name> {
        self.service(host).map(|service| self.clusters_to(service)).unwrap_or_default()
    }

    fn clusters_to(&self, service: &Service) -> Vec<Name> {
        let rule = self.model.config.destination_rule_for(&self.client.scope, service);
        let mut names = Vec::new();
        for port in &service.ports {
            names.push(route::cluster_name(port.number, "", &service.hostname));
            for subset in rule.iter().flat_map(|rule| &rule.subsets) {
                names.push(route::cluster_name(port.number, &subset.name.value, &service.hostname));
            }
        }
        names
    }

    /// The service that this client means by a fully qualified host.
    fn service(&self, host: &str) -> Option<&'m Service> {
        self.model.config.service(&self.client.scope.namespace, host).map(Arc::as_ref)
    }

    /// Every service that this client can see, by host name.
    fn services(&self) -> impl Iterator<Item = &'m Service> {
        let this = *self;
        self.model
            .config
            .services()
            .filter(move |service| {
                this.service(&service.hostname)
                    .is_some_and(|chosen| std::ptr::eq(chosen, Arc::as_ptr(service)))
            })
            .map(Arc::as_ref)
    }

    fn ports(&self) -> impl Iterator<Item = (&'m Service, u16)> {
        self.services().flat_map(|service| service.ports.iter().map(move |port| (service, port.number)))
    }
}

/// What a resource is made from besides the written configuration: what makes it old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touches<'n> {
    /// Nothing.
    Configuration,
    /// The workloads of the service of this host.
    Service(&'n str),
    /// The client itself: the workload that it is, or how it likes to write a name.
    Client,
}

impl<'n> Touches<'n> {
    /// What the resource of that name is made from.
    pub fn of(kind: ResourceType, name: &'n str) -> Self {
        match kind {
            ResourceType::Listener if name.starts_with(names::INBOUND_PREFIX) => Self::Client,
            // Hosts are the same in either case, so a host has more such names than can be kept for all.
            ResourceType::Listener if name.bytes().any(|byte| byte.is_ascii_uppercase()) => Self::Client,
            ResourceType::Listener | ResourceType::RouteConfiguration | ResourceType::Secret => {
                Self::Configuration
            }
            ResourceType::Cluster | ResourceType::ClusterLoadAssignment => names::Outbound::parse(name)
                .map_or(Self::Configuration, |outbound| Self::Service(outbound.host)),
        }
    }
}

impl Compiled {
    /// The message as it is sent.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Listener(resource) => resource.to_proto(),
            Self::Routes(resource) => resource.to_proto(),
            Self::Cluster(resource) => resource.to_proto(),
            Self::Endpoints(resource) => resource.to_proto(),
            Self::Envoy(message) => message.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
