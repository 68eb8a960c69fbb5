//! Everything that is compiled is accepted by those it is compiled for.

use super::{
    Compiled,
    fixture::{GRPC, MESH, World, envoy, workload, world},
};
use crate::compile::client::{CertificateFiles, ClientKind, EnvoyOptions};
use envoy_types::pb::envoy::{
    config::{
        cluster::v3 as cds,
        core::v3::{TransportSocket, transport_socket::ConfigType},
        listener::v3 as lds,
    },
    extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport,
};
use mesh_xds::{
    name::ResourceType,
    resource::{
        AnyResource, Cluster, ParseContext, Resource, Support,
        tls::{Identity, KeyFiles, Roots},
    },
};
use prost::Message;

/// A bit of everything.
const YAML: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: faulty
    match:
    - {headers: {end-user: {exact: jason}}, withoutHeaders: {x: {regex: a+}}, uri: {regex: /a.*}, method: {exact: POST}}
    - {authority: {prefix: reviews.default}, queryParams: {q: {exact: a}}}
    fault:
      delay: {percentage: {value: 50}, fixedDelay: 7s}
      abort: {percentage: {value: 10}, httpStatus: 503}
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{uri: {prefix: /old.}}]
    rewrite: {uri: /new., authority: other}
    timeout: 3s
    retries: {attempts: 3, perTryTimeout: 1s, retryOn: \"unavailable,5xx,503\"}
    mirrors: [{destination: {host: reviews, subset: v2}, percentage: {value: 25}}]
    headers: {request: {set: {a: b, c: d}, remove: [e]}, response: {add: {f: g}}}
    route:
    - {destination: {host: reviews, subset: v1}, weight: 80, headers: {request: {add: {h: i}}}}
    - {destination: {host: reviews, subset: v2}, weight: 20}
  - route: [{destination: {host: reviews}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: LEAST_REQUEST}
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, minHealthPercent: 20}
    connectionPool: {tcp: {maxConnections: 3}, http: {http2MaxRequests: 10, maxRetries: 2}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/productpage], notNamespaces: [\"x*\"]}}]
    to: [{operation: {paths: [\"/bookinfo.v1.Reviews/*\", \"/a/{*}/b\"], hosts: [\"*.local\"], methods: [POST]}}]
    when: [{key: \"request.headers[x]\", values: [\"*\"]}, {key: source.ip, notValues: [\"10.0.0.0/8\"]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny}
spec: {action: DENY, rules: [{from: [{source: {ipBlocks: [\"192.168.0.0/16\"]}}]}]}
";

const INBOUND: &str = "xds.istio.io/grpc/lds/inbound/10.0.0.1:9080";

/// A client with the bootstrap that `meshctl` prints.
fn context() -> ParseContext {
    let mut context = ParseContext { trusted: true, ..ParseContext::default() };
    context.certificate_providers.insert("default".into());
    context
}

fn all(world: &World) -> Vec<(ResourceType, String, Compiled)> {
    let compiler = world.compiler();
    let mut all = Vec::new();
    for kind in ResourceType::ALL {
        for name in compiler.names(kind) {
            let compiled =
                world.compiler().resource(kind, &name).unwrap_or_else(|| panic!("{kind} {name} is missing"));
            assert!(
                compiler.lists(kind, &name) && !compiler.lists(kind, &format!("{name}0")),
                "{kind} {name}"
            );
            all.push((kind, name.to_string(), compiled));
        }
    }
    all
}

#[test]
fn our_own_client_reads_back_exactly_what_was_compiled() {
    let world = world(MESH, YAML).with(workload("10.0.0.1"));
    let context = context();
    let inbound = world.compiler().resource(ResourceType::Listener, INBOUND).unwrap();
    let mut resources = all(&world);
    assert_eq!(resources.len(), 3 + 3 + 5 + 5);
    resources.push((ResourceType::Listener, INBOUND.to_owned(), inbound));
    for (kind, name, compiled) in resources {
        let read = AnyResource::parse(kind, &compiled.encode(), &context)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let same = match (&compiled, &read) {
            (Compiled::Listener(one), AnyResource::Listener(two)) => *one == **two,
            (Compiled::Routes(one), AnyResource::RouteConfiguration(two)) => *one == **two,
            (Compiled::Cluster(one), AnyResource::Cluster(two)) => **one == **two,
            (Compiled::Endpoints(one), AnyResource::ClusterLoadAssignment(two)) => *one == **two,
            _ => false,
        };
        assert!(same, "{kind} {name}\nwritten: {compiled:#?}\nread: {read:#?}");
    }
}

#[test]
fn equal_questions_have_equal_bytes() {
    for kind in [MESH, GRPC, envoy()] {
        let world = world(kind, YAML).with(workload("10.0.0.1"));
        for ((_, name, one), (_, _, two)) in all(&world).into_iter().zip(all(&world)) {
            assert_eq!(one.encode(), two.encode(), "{name}");
        }
    }
}

#[test]
fn what_a_resource_refers_to_exists() {
    for kind in [MESH, GRPC] {
        let world = world(kind, YAML).with(workload("10.0.0.1"));
        let context = context();
        for (kind, name, compiled) in all(&world) {
            let read = AnyResource::parse(kind, &compiled.encode(), &context).unwrap();
            for (kind, referred) in read.references() {
                assert!(
                    world.compiler().resource(kind, &referred).is_some(),
                    "{name} refers to {kind} {referred}"
                );
            }
        }
    }
}

#[test]
fn an_envoy_gets_a_proxy_on_loopback_and_http2_clusters() {
    let world = world(envoy(), YAML).with(workload("10.0.0.1"));
    let listener = world.compiler().resource(ResourceType::Listener, "http_proxy").unwrap();
    let listener = lds::Listener::decode(listener.encode()).unwrap();
    assert_eq!(listener.filter_chains.len(), 1);
    assert!(listener.api_listener.is_none());
    let name = "outbound|9080||reviews.default.svc.cluster.local";
    let cluster = world.compiler().resource(ResourceType::Cluster, name).unwrap();
    let cluster = cds::Cluster::decode(cluster.encode()).unwrap();
    assert!(
        cluster
            .typed_extension_protocol_options
            .contains_key("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")
    );
    assert!(cluster.transport_socket.is_none() && cluster.transport_socket_matches.is_empty());
}

#[test]
fn an_envoy_with_certificate_files_speaks_mtls_to_marked_endpoints_and_others_send_nothing_in_the_clear() {
    let files = CertificateFiles { chain: "/c".into(), key: "/k".into(), root: "/r".into() };
    let with = ClientKind::Envoy(EnvoyOptions { proxy_port: None, certificate: Some(files) });
    let cluster = |kind: ClientKind, name: &str| {
        let world = world(kind, YAML).with(workload("10.0.0.1"));
        let compiled = world.compiler().resource(ResourceType::Cluster, name)?;
        Some(cds::Cluster::decode(compiled.encode()).unwrap())
    };
    let whole = cluster(with.clone(), "outbound|9080||reviews.default.svc.cluster.local").unwrap();
    let names: Vec<_> = whole.transport_socket_matches.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["tlsMode-istio", "tlsMode-disabled"]);
    let demanded = "outbound|9080|v2|reviews.default.svc.cluster.local";
    assert!(cluster(with, demanded).unwrap().transport_socket.is_some());
    assert_eq!(cluster(envoy(), demanded), None);
}

/// Each socket of a cluster, as Istio has it.
#[test]
fn an_envoy_has_the_proxy_protocol_around_whatever_socket_it_gets() {
    let files = CertificateFiles { chain: "/c".into(), key: "/k".into(), root: "/r".into() };
    let with = ClientKind::Envoy(EnvoyOptions { proxy_port: None, certificate: Some(files) });
    let inner = |socket: &Option<TransportSocket>| {
        let Some(ConfigType::TypedConfig(any)) = &socket.as_ref()?.config_type else { return None };
        let wrapper = ProxyProtocolUpstreamTransport::decode(&*any.value).unwrap();
        assert_eq!(wrapper.config.unwrap().version, 1, "V2");
        Some(wrapper.transport_socket.unwrap().name)
    };
    let (tls, raw) = ("envoy.transport_sockets.tls", "envoy.transport_sockets.raw_buffer");
    for (policy, kind, expected, matched) in [
        ("", envoy(), Some(raw), vec![]),
        ("", with.clone(), None, vec![tls, raw]),
        (", tls: {mode: ISTIO_MUTUAL}", with.clone(), Some(tls), vec![]),
        (", tls: {mode: DISABLE}", with, Some(raw), vec![]),
        (", tls: {mode: SIMPLE, caCertificates: /roots.pem}", envoy(), Some(tls), vec![]),
    ] {
        let yaml = format!(
            "\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  \
             host: reviews\n  trafficPolicy: {{proxyProtocol: {{version: V2}}{policy}}}\n"
        );
        let world = world(kind, &yaml);
        let name = "outbound|9080||reviews.default.svc.cluster.local";
        let compiled = world.compiler().resource(ResourceType::Cluster, name).unwrap();
        let cluster = cds::Cluster::decode(compiled.encode()).unwrap();
        let matches = &cluster.transport_socket_matches;
        assert_eq!(inner(&cluster.transport_socket).as_deref(), expected, "{policy}");
        let found: Vec<_> = matches.iter().filter_map(|one| inner(&one.transport_socket)).collect();
        assert_eq!(found, matched, "{policy}");
    }
}

#[test]
fn an_envoy_reads_the_files_that_a_rule_names_and_no_certificate_of_the_mesh() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 443, name: grpc, protocol: GRPC}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: api.example.com
  trafficPolicy:
    tls: {mode: MUTUAL, clientCertificate: /own.pem, privateKey: /own.key, caCertificates: /roots.pem,
          caCrl: /crl.pem}
";
    let mesh = CertificateFiles { chain: "/c".into(), key: "/k".into(), root: "/r".into() };
    for certificate in [None, Some(mesh)] {
        let kind = ClientKind::Envoy(EnvoyOptions { proxy_port: None, certificate });
        let name = "outbound|443||api.example.com";
        let compiled = world(kind, yaml).compiler().resource(ResourceType::Cluster, name).unwrap();
        // As our own client would read it.
        let context = ParseContext { support: Support::all(), ..context() };
        let cluster = Cluster::parse(&compiled.encode(), &context).unwrap();
        let tls = cluster.tls.unwrap();
        let files = KeyFiles { certificate: "/own.pem".into(), key: "/own.key".into() };
        assert_eq!(tls.identity, Some(Identity::Files(files)));
        assert_eq!(tls.roots, Roots::File("/roots.pem".into()));
        assert_eq!(tls.crl.as_ref().map(|crl| (&*crl.path, crl.only_leaf)), Some(("/crl.pem", false)));
        let kinds: Vec<_> = tls.sans.iter().map(|san| (san.kind, san.name.to_string())).collect();
        assert_eq!(kinds.len(), 4, "{kinds:?}");
        assert!(
            kinds.iter().all(|(kind, name)| kind.is_some() && name.contains("api.example.com")),
            "{kinds:?}"
        );
        assert_eq!(tls.sni.as_deref(), Some("api.example.com"));
    }
}
