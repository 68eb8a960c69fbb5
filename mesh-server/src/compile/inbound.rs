//! Listeners of servers: `xds.istio.io/grpc/lds/inbound/10.0.0.1:9080`.
//!
//! PeerAuthentication decides the filter chains, AuthorizationPolicies their RBAC filters. PERMISSIVE is
//! two chains for our own servers, which look at the first bytes of a connection; other gRPC servers
//! cannot, and get what Istio gives them: TLS when the workload is labelled
//! `security.istio.io/tlsMode: istio`, else plaintext.
//!
//! A server asks before it has registered, or without registering: its identity's namespace, its node's
//! labels and its WorkloadGroup's say who it is, and its registration, once there is one, adds to them. It
//! configures only itself, so labels it makes up harm nobody else.

use super::{
    Compiler,
    client::Client,
    cluster::PROVIDER,
    listener::router,
    names::{INBOUND_PREFIX, parse_inbound},
    rbac::{self, TrustDomains},
};
use crate::model::{Labels, MtlsMode, RegisteredWorkload};
use mesh_xds::{
    matcher::DomainPattern,
    resource::{
        filter::FilterOverrides,
        listener::{
            FilterChain, FilterChainMatch, HttpConnectionManager, Listener, ListenerKind, RouteSource,
            ServerListener, TransportProtocol,
        },
        route::{HeaderMutations, Route, RouteAction, RouteConfiguration, VirtualHost},
        tls::DownstreamTls,
    },
};
use mesh_xds::{name::ResourceType, server::Touched};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

/// Istio's mark of a workload that speaks the mesh's mTLS.
const TLS_MODE: &str = "security.istio.io/tlsMode";

/// The inbound listeners of a client that a workload may be about, when it comes, goes or changes.
pub(crate) fn touched_by(workload: &RegisteredWorkload, client: &Client) -> Vec<Touched> {
    let Client { scope, service_account, workload: name, group, .. } = client;
    if scope.namespace != workload.namespace
        || service_account.as_ref().is_some_and(|account| *account != workload.service_account)
    {
        return Vec::new();
    }
    let called = group.as_ref().or(name.as_ref()).is_none_or(|name| workload.is_called(name));
    // An IPv6 address has several spellings.
    if called || workload.address.is_ipv6() {
        return vec![Touched::Prefix(ResourceType::Listener, INBOUND_PREFIX)];
    }
    // Of another name, it is looked at only by a server that listens on its very address.
    let ports: BTreeSet<u16> = workload.ports.values().copied().collect();
    let name = |port| format!("{INBOUND_PREFIX}{}:{port}", workload.address).into();
    ports.into_iter().map(|port| Touched::Resource(ResourceType::Listener, name(port))).collect()
}

impl Compiler<'_> {
    /// The listener of the server that this node is.
    pub(super) fn inbound_listener(&self, name: &str) -> Option<Listener> {
        let (address, port) = parse_inbound(name)?;
        let labels = self.own_labels(address, port);
        let namespace = &self.client.scope.namespace;
        let policies = self.model.config.authorization_policies(namespace, &labels);
        let domains = TrustDomains { own: &self.mesh.trust_domain, aliases: &self.mesh.trust_domain_aliases };
        let mut filters = rbac::filters(policies.map(Arc::as_ref), &domains);
        filters.push(router());
        let http = HttpConnectionManager {
            routes: RouteSource::Inline(Arc::new(served_here())),
            filters,
            max_stream_duration: None,
        };

        let chain = |name: &str, transport, tls: bool| FilterChain {
            name: name.into(),
            matches: FilterChainMatch { transport, ..FilterChainMatch::default() },
            tls: tls.then(|| DownstreamTls {
                identity: PROVIDER.into(),
                client_roots: Some(PROVIDER.into()),
                require_client_certificate: true,
            }),
            http: http.clone(),
        };
        let encrypted = |transport| chain("inbound-mtls", transport, true);
        let plaintext = |transport| chain("inbound-plaintext", transport, false);
        let mode = self.model.config.peer_authentication_mode(namespace, &labels, port);
        let speaks_mtls = labels.get(TLS_MODE).is_some_and(|mode| mode == "istio");
        let filter_chains = match mode {
            MtlsMode::Strict => vec![encrypted(TransportProtocol::Any)],
            MtlsMode::Disable => vec![plaintext(TransportProtocol::Any)],
            MtlsMode::Permissive if self.client.is_mesh() => {
                vec![encrypted(TransportProtocol::Tls), plaintext(TransportProtocol::RawBuffer)]
            }
            MtlsMode::Permissive if speaks_mtls => vec![encrypted(TransportProtocol::Any)],
            MtlsMode::Permissive => vec![plaintext(TransportProtocol::Any)],
        };
        let server = ServerListener { address, port, filter_chains, default_filter_chain: None };
        Some(Listener { name: name.into(), kind: ListenerKind::Server(server) })
    }

    /// The labels of the workload that listens there: its group's, then those it registered with, then
    /// those its node names.
    fn own_labels(&self, address: IpAddr, port: u16) -> Labels {
        let scope = &self.client.scope;
        let group = self.client.group.as_ref();
        let group = group.and_then(|group| self.model.config.workload_group(&scope.namespace, group));
        let mut labels = group.map(|group| group.labels.clone()).unwrap_or_default();
        let mut extend =
            |more: &Labels| labels.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
        if let Some(own) = self.own_registration(address, port) {
            extend(&own.labels);
        }
        extend(&scope.labels);
        labels
    }

    /// The registration of the workload that listens there: the one by its name, else the one at this very
    /// address. A server on every address that has no name is one among others at its port only when there
    /// are no others.
    fn own_registration(&self, address: IpAddr, port: u16) -> Option<&RegisteredWorkload> {
        let Client { scope, service_account, workload, group, .. } = self.client;
        let workloads = &self.model.workloads;
        let those: Vec<&Arc<RegisteredWorkload>> = if address.is_unspecified() {
            workloads.in_namespace(&scope.namespace).collect()
        } else {
            workloads.at_address(&scope.namespace, address).collect()
        };
        let candidates: Vec<&RegisteredWorkload> = those
            .into_iter()
            .map(Arc::as_ref)
            .filter(|one| {
                service_account.as_ref().is_none_or(|account| *account == one.service_account)
                    && one.ports.values().any(|registered| *registered == port)
            })
            .collect();
        let name = group.as_ref().or(workload.as_ref());
        let named = candidates.iter().find(|one| name.is_some_and(|name| one.is_called(name)));
        named.copied().or(match candidates.as_slice() {
            [one] if name.is_none() || !address.is_unspecified() => Some(one),
            _ => None,
        })
    }
}

/// The routes of a server: everything is served by the server itself.
fn served_here() -> RouteConfiguration {
    let route = Route {
        name: "default".into(),
        matches: super::route::matching::everything().route,
        action: RouteAction::NonForwarding,
        overrides: FilterOverrides::new(),
        headers: HeaderMutations::default(),
        origin: None,
    };
    let host = VirtualHost {
        name: "inbound".into(),
        domains: vec![DomainPattern::Any],
        routes: vec![Arc::new(route)],
        retry: None,
        hedge: None,
        overrides: FilterOverrides::new(),
        headers: HeaderMutations::default(),
    };
    RouteConfiguration::new("inbound".into(), vec![Arc::new(host)])
}

#[cfg(test)]
mod tests;
