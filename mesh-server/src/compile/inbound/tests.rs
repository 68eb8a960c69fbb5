//! PeerAuthentication to filter chains.

use crate::{
    compile::fixture::{GRPC, MESH, World, labels, workload, world},
    model::RegisteredWorkload,
};
use mesh_xds::resource::{
    filter::FilterConfig,
    listener::{ListenerKind, RouteSource, ServerListener, TransportProtocol},
    route::RouteAction,
};

const NAME: &str = "xds.istio.io/grpc/lds/inbound/10.0.0.1:9080";

fn mtls(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: default}}\n\
         spec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

fn server(world: &World, name: &str) -> ServerListener {
    match world.listener(name).unwrap().kind {
        ListenerKind::Server(server) => server,
        ListenerKind::Api(manager) => panic!("for a client: {manager:?}"),
    }
}

/// Which connections are served, and whether with TLS.
fn chains(world: &World) -> Vec<(TransportProtocol, bool)> {
    server(world, NAME)
        .filter_chains
        .iter()
        .map(|chain| (chain.matches.transport, chain.tls.is_some()))
        .collect()
}

#[test]
fn the_mode_decides_the_chains_and_permissive_depends_on_who_serves() {
    use TransportProtocol::{Any, RawBuffer, Tls};
    let both = vec![(Tls, true), (RawBuffer, false)];
    let cases = [
        ("STRICT", MESH, vec![(Any, true)]),
        ("STRICT", GRPC, vec![(Any, true)]),
        ("DISABLE", MESH, vec![(Any, false)]),
        ("DISABLE", GRPC, vec![(Any, false)]),
        ("PERMISSIVE", MESH, both.clone()),
        ("PERMISSIVE", GRPC, vec![(Any, false)]),
        ("UNSET", MESH, both),
    ];
    for (mode, kind, expected) in cases {
        assert_eq!(chains(&world(kind.clone(), &mtls(mode))), expected, "{mode} for {kind:?}");
    }
    let mut marked = world(GRPC, &mtls("PERMISSIVE"));
    marked.client.scope.labels = labels(&[("security.istio.io/tlsMode", "istio")]);
    assert_eq!(chains(&marked), [(Any, true)]);
}

#[test]
fn tls_asks_for_a_certificate_and_everything_is_served_here() {
    let server = server(&world(MESH, &mtls("STRICT")), NAME);
    assert_eq!((server.address.to_string().as_str(), server.port), ("10.0.0.1", 9080));
    let chain = &server.filter_chains[0];
    let tls = chain.tls.as_ref().unwrap();
    assert!(tls.require_client_certificate && tls.client_roots.is_some());
    let RouteSource::Inline(routes) = &chain.http.routes else { panic!("{:?}", chain.http) };
    assert_eq!(routes.virtual_hosts[0].routes[0].action, RouteAction::NonForwarding);
    assert_eq!(chain.http.filters.last().unwrap().config, FilterConfig::Router);
}

#[test]
fn policies_are_found_by_the_labels_a_server_registered_with() {
    let yaml = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec: {selector: {matchLabels: {app: reviews}}}
";
    let filters = |world: &World, name: &str| server(world, name).filter_chains[0].http.filters.len();
    let mut world = world(MESH, yaml);
    assert_eq!(filters(&world, NAME), 1, "a stranger: the router only");
    // By its node's labels, before it registers.
    world.client.scope.labels = labels(&[("app", "reviews")]);
    assert_eq!(filters(&world, NAME), 2);
    // By its registration, also when it listens on every address.
    world.client.scope.labels.clear();
    let mut world = world.with(workload("10.0.0.1"));
    assert_eq!(filters(&world, NAME), 2);
    assert_eq!(filters(&world, "xds.istio.io/grpc/lds/inbound/0.0.0.0:9080"), 2);
    // By nobody else's.
    world.client.service_account = Some("other".into());
    assert_eq!(filters(&world, NAME), 1);
    let other =
        RegisteredWorkload { service_account: "other".into(), labels: labels(&[]), ..workload("10.0.0.2") };
    assert_eq!(filters(&world.with(other), "xds.istio.io/grpc/lds/inbound/0.0.0.0:9080"), 1);
}

const FOR_V2: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: second}
spec: {metadata: {labels: {version: v2}}, template: {serviceAccount: bookinfo-reviews}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec: {selector: {matchLabels: {version: v2}}}
";

#[test]
fn policies_are_found_by_the_labels_of_the_group_before_a_server_registers() {
    let filters = |world: &World| server(world, NAME).filter_chains[0].http.filters.len();
    let mut world = world(MESH, FOR_V2);
    assert_eq!(filters(&world), 1);
    world.client.group = Some("second".into());
    assert_eq!(filters(&world), 2);
    world.client.scope.namespace = "other".into();
    assert_eq!(filters(&world), 1, "groups are of a namespace");
}

#[test]
fn one_of_several_servers_with_an_account_and_port_is_found_by_its_name() {
    let second = RegisteredWorkload {
        name: "second-10.0.0.2-9080".into(),
        labels: labels(&[("version", "v2")]),
        ..workload("10.0.0.2")
    };
    let mut world = world(MESH, FOR_V2).with(workload("10.0.0.1")).with(second);
    let filters = |world: &World| {
        let server = server(world, "xds.istio.io/grpc/lds/inbound/0.0.0.0:9080");
        server.filter_chains[0].http.filters.len()
    };
    for (name, expected) in [(Some("reviews"), 1), (Some("second"), 2), (Some("secon"), 1), (None, 1)] {
        world.client.workload = name.map(Into::into);
        assert_eq!(filters(&world), expected, "{name:?}");
    }
}

#[test]
fn a_policy_of_the_root_namespace_holds_everywhere() {
    let yaml = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: istio-system}
spec: {}
";
    assert_eq!(server(&world(MESH, yaml), NAME).filter_chains[0].http.filters.len(), 2);
}

#[test]
fn a_name_without_a_literal_address_is_nobodys() {
    assert_eq!(world(MESH, "").listener("xds.istio.io/grpc/lds/inbound/reviews:9080"), None);
}
