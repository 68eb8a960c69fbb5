//! Small typed resources for tests.

use crate::{
    matcher::{DomainPattern, PathMatcher},
    resource::{
        AnyResource, Cluster, ClusterLoadAssignment, Listener, Locality, RouteConfiguration,
        cluster::Discovery,
        endpoint::{Endpoint, HealthStatus, LocalityEndpoints, Priority},
        filter::{FilterConfig, HttpFilter},
        listener::{FilterChain, HttpConnectionManager, ListenerKind, RouteSource, ServerListener},
        route::{Destination, Forward, HeaderMutations, Route, RouteAction, RouteMatch, VirtualHost},
        secret::{PrivateKey, Secret, SecretContent, TlsCertificate, ValidationContext},
        tls::{Identity, Roots, UpstreamTls},
    },
};
use std::{num::NonZeroU32, sync::Arc};

fn http(routes: &str) -> HttpConnectionManager {
    HttpConnectionManager {
        routes: RouteSource::Rds(routes.into()),
        filters: vec![HttpFilter { name: "router".into(), config: FilterConfig::Router, disabled: false }],
        max_stream_duration: None,
    }
}

/// A client's listener.
pub(crate) fn listener(name: &str, routes: &str) -> AnyResource {
    AnyResource::Listener(Arc::new(Listener { name: name.into(), kind: ListenerKind::Api(http(routes)) }))
}

/// A server's listener, with a chain for each of the routes.
pub(crate) fn server_listener(name: &str, routes: &[&str]) -> AnyResource {
    let chain = |routes: &&str| FilterChain {
        name: (*routes).into(),
        matches: Default::default(),
        tls: None,
        http: http(routes),
    };
    let mut chains: Vec<_> = routes.iter().map(chain).collect();
    let server = ServerListener {
        address: [127, 0, 0, 1].into(),
        port: 80,
        default_filter_chain: chains.pop(),
        filter_chains: chains,
    };
    AnyResource::Listener(Arc::new(Listener { name: name.into(), kind: ListenerKind::Server(server) }))
}

fn route(cluster: &str) -> Arc<Route> {
    let forward = Forward {
        destination: Destination::Cluster(cluster.into()),
        timeout: None,
        max_stream_duration: None,
        grpc_timeout_header_max: None,
        retry: None,
        priority: Default::default(),
        hedge: None,
        hash: vec![],
        authority: None,
        auto_host_rewrite: false,
        path_rewrite: None,
        mirrors: vec![],
    };
    Arc::new(Route {
        name: cluster.into(),
        matches: RouteMatch { path: PathMatcher::any(), headers: vec![], query: vec![], fraction: None },
        action: RouteAction::Forward(Box::new(forward)),
        overrides: Default::default(),
        headers: HeaderMutations::default(),
        origin: None,
    })
}

/// Virtual hosts: a domain and the clusters of its routes.
pub(crate) fn routes(name: &str, hosts: &[(&str, &[&str])]) -> AnyResource {
    let host = |(domain, clusters): &(&str, &[&str])| {
        Arc::new(VirtualHost {
            name: (*domain).into(),
            domains: vec![DomainPattern::parse(domain).unwrap()],
            routes: clusters.iter().map(|cluster| route(cluster)).collect(),
            retry: None,
            hedge: None,
            overrides: Default::default(),
            headers: HeaderMutations::default(),
        })
    };
    AnyResource::RouteConfiguration(Arc::new(RouteConfiguration::new(
        name.into(),
        hosts.iter().map(host).collect(),
    )))
}

/// A cluster whose endpoints have the same name.
pub(crate) fn cluster(name: &str) -> AnyResource {
    AnyResource::Cluster(Arc::new(Cluster::eds(name)))
}

/// A cluster of clusters.
pub(crate) fn aggregate(name: &str, clusters: &[&str]) -> AnyResource {
    let clusters = clusters.iter().map(|cluster| (*cluster).into()).collect();
    AnyResource::Cluster(Arc::new(Cluster::new(name, Discovery::Aggregate(clusters))))
}

/// A cluster with an endpoint on this port inside.
pub(crate) fn fixed(name: &str, port: u16) -> AnyResource {
    let AnyResource::ClusterLoadAssignment(endpoints) = endpoints(name, port) else { panic!("it is one") };
    AnyResource::Cluster(Arc::new(Cluster::new(name, Discovery::Static(endpoints))))
}

/// One endpoint on this port.
pub(crate) fn endpoints(name: &str, port: u16) -> AnyResource {
    let endpoint =
        Endpoint { health: HealthStatus::Healthy, ..Endpoint::new(vec![([127, 0, 0, 1], port).into()]) };
    let locality = LocalityEndpoints {
        locality: Locality::default(),
        weight: NonZeroU32::MIN,
        endpoints: vec![Arc::new(endpoint)],
    };
    AnyResource::ClusterLoadAssignment(Arc::new(ClusterLoadAssignment {
        priorities: vec![Priority { localities: vec![locality] }],
        ..ClusterLoadAssignment::new(name)
    }))
}

/// A cluster with endpoints of the same name, whose TLS takes certificate and roots from these secrets.
pub(crate) fn secured(name: &str, identity: &str, roots: &str) -> AnyResource {
    let tls = UpstreamTls {
        identity: Some(Identity::Secret(identity.into())),
        roots: Roots::Secret(roots.into()),
        sans: vec![],
        sni: None,
        crl: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    };
    AnyResource::Cluster(Arc::new(Cluster { tls: Some(Arc::new(tls)), ..Cluster::eds(name) }))
}

fn pem(label: &str, text: &str) -> String {
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// A secret with this text for a key.
pub(crate) fn key_pair(name: &str, key: &str) -> AnyResource {
    let chain = pem("CERTIFICATE", "AAAA").into_bytes().into();
    let key = PrivateKey::new(pem("PRIVATE KEY", key).as_bytes());
    let content = SecretContent::Certificate(TlsCertificate { chain, key });
    AnyResource::Secret(Arc::new(Secret { name: name.into(), content }))
}

/// A secret with this text for roots.
pub(crate) fn secret_roots(name: &str, text: &str) -> AnyResource {
    let roots = pem("CERTIFICATE", text).into_bytes().into();
    let content = SecretContent::Validation(ValidationContext { roots, sans: vec![] });
    AnyResource::Secret(Arc::new(Secret { name: name.into(), content }))
}
