//! DestinationRules to clusters.

use crate::{
    compile::{
        client::ClientKind,
        fixture::{GRPC, MESH, World, envoy, workload, world},
    },
    model::{Config, RegisteredWorkload, fixture::parsed},
};
use mesh_xds::{
    matcher::{Fraction, StringMatcher},
    resource::tls::{CrlFile, Identity, KeyFiles, Roots, UpstreamTls},
    resource::{
        Cluster, ParseContext, Resource, Support,
        cluster::{
            Consecutive, Discovery, Http2Keepalive, LbPolicy, LocalityLb, Maglev, ProxyProtocol, RingHash,
            SlowStart, ZoneAware,
        },
        route::{HashCookie, HashKey, HashPolicy, RouteAction},
    },
};
use std::{sync::Arc, time::Duration};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

fn rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  \
         host: reviews\n  trafficPolicy: {policy}\n  subsets:\n  - {{name: v1, labels: {{version: v1}}}}\n"
    )
}

/// All calls to a host go to a subset.
fn routes_to(host: &str, subset: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: routes}}\nspec:\n  \
         hosts: [{host}]\n  http: [{{route: [{{destination: {{host: {host}, subset: {subset}}}}}]}}]\n"
    )
}

const STRICT: &str = "
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
";

fn tls(world: &World) -> Option<UpstreamTls> {
    world.cluster(REVIEWS).unwrap().tls.map(|tls| (*tls).clone())
}

fn sans(tls: &UpstreamTls) -> Vec<String> {
    tls.sans.iter().map(|san| format!("{:?}", san.name.pattern)).collect()
}

#[test]
fn without_a_rule_a_cluster_has_istios_defaults() {
    let cluster = world(MESH, "").cluster(REVIEWS).unwrap();
    assert_eq!(cluster.discovery, Discovery::Eds(REVIEWS.into()));
    assert_eq!(cluster.lb, LbPolicy::least_request(2));
    assert_eq!(cluster.circuit_breakers.max_requests, u32::MAX);
    assert_eq!(cluster.circuit_breakers.max_pending_requests, None);
    assert_eq!(cluster.connection.connect_timeout, Duration::from_secs(10));
    assert_eq!((cluster.outlier_detection, cluster.panic_threshold), (None, None));
    assert!(cluster.origin.unwrap().ends_with("Service default/reviews"));
}

#[test]
fn our_own_clients_report_their_load_if_the_mesh_wants_it() {
    for (wanted, kind, expected) in [(true, MESH, true), (false, MESH, false), (true, GRPC, false)] {
        let mut world = world(kind, "");
        world.mesh.load_reports = wanted;
        assert_eq!(world.cluster(REVIEWS).unwrap().load_reporting.is_some(), expected);
    }
}

#[test]
fn each_client_is_asked_only_for_the_balancing_it_implements() {
    use crate::compile::client::ClientKind::Grpc;
    let least = LbPolicy::least_request(2);
    let go = Grpc { least_request: true };
    let cases = [
        ("ROUND_ROBIN", MESH, LbPolicy::RoundRobin),
        ("RANDOM", MESH, LbPolicy::Random),
        ("RANDOM", go.clone(), LbPolicy::RoundRobin),
        ("LEAST_REQUEST", MESH, least.clone()),
        ("LEAST_REQUEST", GRPC, LbPolicy::RoundRobin),
        ("LEAST_REQUEST", go.clone(), least),
    ];
    for (simple, kind, expected) in cases {
        let world = world(kind.clone(), &rule(&format!("{{loadBalancer: {{simple: {simple}}}}}")));
        assert_eq!(world.cluster(REVIEWS).unwrap().lb, expected, "{simple} for {kind:?}");
    }
    assert_eq!(world(go, "").cluster(REVIEWS).unwrap().lb, LbPolicy::RoundRobin);
}

#[test]
fn the_connection_pool_becomes_limits_and_connection_options() {
    let yaml = rule(
        "{connectionPool: {tcp: {maxConnections: 7, connectTimeout: 3s, maxConnectionDuration: 60s},
          http: {http1MaxPendingRequests: 1, http2MaxRequests: 2, maxRequestsPerConnection: 9, maxRetries: 4,
          idleTimeout: 30s, http2KeepAlive: {interval: 5s, timeout: 1s}}}}",
    );
    let cluster = world(MESH, &yaml).cluster(REVIEWS).unwrap();
    let limits = cluster.circuit_breakers;
    assert_eq!(
        (limits.max_requests, limits.max_pending_requests, limits.max_connections, limits.max_retries),
        (2, Some(1), Some(7), Some(4))
    );
    let connection = cluster.connection;
    assert_eq!(connection.connect_timeout, Duration::from_secs(3));
    assert_eq!(connection.max_requests_per_connection, 9);
    assert_eq!(connection.idle_timeout, Some(Duration::from_secs(30)));
    assert_eq!(connection.max_connection_duration, Some(Duration::from_secs(60)));
    let pings = Http2Keepalive { interval: Duration::from_secs(5), timeout: Duration::from_secs(1) };
    assert_eq!(connection.http2_keepalive, Some(pings));
}

#[test]
fn an_envoy_is_told_that_unset_limits_are_none_and_that_there_is_no_panic() {
    let cluster = world(envoy(), "");
    let cluster = cluster.compiler().cluster(REVIEWS).unwrap();
    assert_eq!(cluster.circuit_breakers.max_connections, Some(u32::MAX));
    assert_eq!(cluster.panic_threshold, Some(Fraction::ZERO));
}

#[test]
fn outlier_detection_has_istios_defaults_and_zero_switches_a_counter_off() {
    let eject =
        |block: &str| world(MESH, &rule(&format!("{{outlierDetection: {block}}}"))).cluster(REVIEWS).unwrap();
    let five = |threshold| Some(Consecutive { threshold, enforcing: 100 });
    let default = eject("{interval: 10s}").outlier_detection.unwrap();
    assert_eq!(default.consecutive_5xx, five(5));
    assert_eq!((default.consecutive_gateway_failure, default.consecutive_local_origin_failure), (None, None));
    assert_eq!(default.base_ejection_time, Duration::from_secs(30));
    assert_eq!(default.max_ejection_time, Duration::from_secs(300));
    assert_eq!(default.max_ejection_percent, 10);
    assert_eq!((default.success_rate, default.failure_percentage), (None, None));

    let cluster = eject(
        "{consecutive5xxErrors: 0, consecutiveGatewayErrors: 3, splitExternalLocalOriginErrors: true,
          baseEjectionTime: 400s, maxEjectionPercent: 100, minHealthPercent: 40}",
    );
    let written = cluster.outlier_detection.unwrap();
    assert_eq!((written.consecutive_5xx, written.consecutive_gateway_failure), (None, five(3)));
    assert_eq!(written.consecutive_local_origin_failure, five(5));
    assert_eq!(written.max_ejection_time, Duration::from_secs(400));
    assert_eq!(cluster.panic_threshold, Some(Fraction::per_million(400_000)));

    assert_eq!(written.errors, None);
    for (codes, expected) in [("[503, 429, 503]", Some("429, 503")), ("[]", None)] {
        let told = eject(&format!("{{outlierDetectionHttpErrorCodes: {codes}}}")).outlier_detection.unwrap();
        assert_eq!(told.errors.map(|codes| codes.to_string()).as_deref(), expected);
        assert_eq!(told.consecutive_5xx, five(5), "the counters are what they are without");
    }
}

#[test]
fn subsets_that_no_rule_defines_are_absent_for_us_and_empty_for_those_who_would_wait() {
    let name = "outbound|9080|v9|reviews.default.svc.cluster.local";
    let yaml = format!("{}{}", rule("{loadBalancer: {simple: RANDOM}}"), routes_to("reviews", "v9"));
    let mesh = world(MESH, &yaml).with(workload("10.0.0.1"));
    assert_eq!((mesh.cluster(name), mesh.endpoints(name)), (None, None));
    let grpc = world(GRPC, &yaml).with(workload("10.0.0.1"));
    assert!(grpc.cluster(name).is_some());
    assert_eq!(grpc.endpoints(name).unwrap().priorities, []);
    let made_up = name.replace("v9", "v8");
    assert_eq!((grpc.cluster(&made_up), grpc.endpoints(&made_up)), (None, None), "nobody sends calls there");
    let known = mesh.cluster("outbound|9080|v1|reviews.default.svc.cluster.local").unwrap();
    assert!(known.origin.unwrap().ends_with("DestinationRule default/reviews"));
}

#[test]
fn automatic_mtls_names_the_accounts_of_the_servers() {
    let tls = tls(&world(MESH, "").with(workload("10.0.0.1"))).unwrap();
    let expected = UpstreamTls {
        identity: Some(Identity::Provider("default".into())),
        roots: Roots::Provider("default".into()),
        sans: vec![
            StringMatcher::exact("spiffe://cluster.local/ns/default/sa/bookinfo-reviews", false).into(),
        ],
        sni: Some("outbound_.9080_._.reviews.default.svc.cluster.local".into()),
        crl: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: true,
    };
    assert_eq!(tls, expected);
}

#[test]
fn aliases_of_the_trust_domain_are_names_too() {
    let mut world = world(MESH, "").with(workload("10.0.0.1"));
    world.mesh.trust_domain_aliases = vec!["old.test".into()];
    let names = sans(&tls(&world).unwrap());
    assert_eq!(names.len(), 2);
    assert!(names[1].contains("spiffe://old.test/ns/default/sa/bookinfo-reviews"), "{names:?}");
}

#[test]
fn when_no_account_is_known_nobody_is_accepted() {
    let tls = tls(&world(MESH, "")).unwrap();
    let [name] = tls.sans.as_slice() else { panic!("{:?}", tls.sans) };
    assert!(!name.name.matches("spiffe://cluster.local/ns/default/sa/bookinfo-reviews"));
    assert!(sans(&tls)[0].contains("no service account of reviews.default.svc.cluster.local is known"));
}

#[test]
fn a_rule_decides_before_anything_automatic() {
    let with = |policy: &str| tls(&world(MESH, &rule(policy)).with(workload("10.0.0.1")));
    assert_eq!(with("{tls: {mode: DISABLE}}"), None);
    let mutual =
        with("{tls: {mode: ISTIO_MUTUAL, subjectAltNames: [\"spiffe://x/ns/a/sa/b\"], sni: s}}").unwrap();
    assert!(!mutual.only_mesh_endpoints);
    assert_eq!((mutual.sni.as_deref(), mutual.sans.len()), (Some("s"), 1));
    assert!(mutual.sans[0].name.matches("spiffe://x/ns/a/sa/b"));
}

#[test]
fn another_grpc_client_gets_tls_only_where_servers_insist() {
    let workload = workload("10.0.0.1");
    assert_eq!(tls(&world(GRPC, "").with(workload.clone())), None);
    let strict = tls(&world(GRPC, STRICT).with(workload.clone())).unwrap();
    assert!(!strict.only_mesh_endpoints);
    // Nothing there speaks TLS, so nothing there can insist.
    let plain = RegisteredWorkload {
        labels: crate::compile::fixture::labels(&[("app", "reviews")]),
        ..workload.clone()
    };
    assert_eq!(tls(&world(GRPC, STRICT).with(plain)), None);
    assert!(tls(&world(GRPC, &rule("{tls: {mode: ISTIO_MUTUAL}}")).with(workload)).is_some());
}

#[test]
fn a_service_outside_the_mesh_is_not_spoken_to_with_mtls() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: external}
spec:
  hosts: [api.example.com]
  ports: [{name: grpc, number: 80, protocol: GRPC}]
  resolution: STATIC
  location: MESH_EXTERNAL
  endpoints: [{address: 10.9.9.9}]
";
    let cluster = world(MESH, yaml).cluster("outbound|80||api.example.com").unwrap();
    assert_eq!(cluster.tls, None);
}

const EXTERNAL_SERVICE: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: external}
spec:
  hosts: [api.example.com]
  ports: [{name: grpc, number: 443, protocol: GRPC}]
  resolution: DNS
  location: MESH_EXTERNAL
---
";

#[test]
fn a_refused_rule_that_asks_for_tls_fails_the_calls_and_says_why() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: api.example.com
  trafficPolicy: {tls: {mode: MUTUAL, credentialName: a}}
  subsets: [{name: v1}]
";
    for kind in [MESH, GRPC, envoy()] {
        let yaml = format!("{EXTERNAL_SERVICE}{}", routes_to("api.example.com", "v1"));
        let mut world = world(kind, &yaml);
        let parsed = parsed(rule);
        let stand_in = parsed.refused[0].stand_in.clone().unwrap();
        let objects = world.model.config.objects().iter().cloned().chain([stand_in]);
        world.model.config = Config::new(Arc::default(), objects).into();
        for subset in ["", "v1"] {
            let name = format!("outbound|443|{subset}|api.example.com");
            let cluster = world.cluster(&name).unwrap();
            let Discovery::Eds(endpoints) = cluster.discovery else { panic!("{:?}", cluster.discovery) };
            // What the client already has of the cluster must not be met with this.
            assert_ne!(*endpoints, *name);
            let endpoints = world.endpoints(&endpoints).unwrap();
            assert_eq!(endpoints.priorities, vec![]);
            let [drop] = endpoints.drops.as_slice() else { panic!("{:?}", endpoints.drops) };
            assert_eq!(drop.fraction, Fraction::per_million(1_000_000));
            for told in ["DestinationRule default/api asks for TLS to api.example.com", "mesh.yaml:7:39: "] {
                assert!(drop.category.contains(told), "{}", drop.category);
            }
        }
    }
}

#[test]
fn simple_tls_names_the_server_by_the_rule_then_the_service_then_the_sni() {
    let named = |tls: &str, service: &str| {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api}}\nspec:\n  \
             host: api.example.com\n  trafficPolicy: {{tls: {tls}}}\n"
        );
        let service = EXTERNAL_SERVICE.replace("location:", &format!("{service}\n  location:"));
        move |kind| {
            let cluster = world(kind, &format!("{service}{rule}")).cluster(EXTERNAL).unwrap();
            // As it is sent, to a client without any certificate provider.
            let context = ParseContext { support: Support::all(), ..ParseContext::default() };
            assert_eq!(Cluster::parse(&cluster.to_proto(), &context).unwrap().tls, cluster.tls);
            cluster
        }
    };
    let by_service = "subjectAltNames: [a.example.com]";
    for (tls, service, name, sni) in [
        ("{mode: SIMPLE}", "", "api.example.com", "api.example.com"),
        ("{mode: SIMPLE, caCertificates: system, sni: b.example.com}", "", "b.example.com", "b.example.com"),
        ("{mode: SIMPLE, sni: b.example.com}", by_service, "a.example.com", "b.example.com"),
        ("{mode: SIMPLE, subjectAltNames: [c.example.com]}", by_service, "c.example.com", "api.example.com"),
    ] {
        for kind in [MESH, GRPC] {
            let expected = UpstreamTls {
                identity: None,
                roots: Roots::System,
                sans: vec![StringMatcher::exact(name, false).into()],
                sni: Some(sni.into()),
                crl: None,
                auto_host_sni: false,
                auto_sni_san_validation: false,
                only_mesh_endpoints: false,
            };
            let cluster = named(tls, service)(kind);
            assert_eq!(cluster.tls.as_deref(), Some(&expected), "{tls} {service}");
            assert!(!matches!(cluster.discovery, Discovery::Eds(_)), "it can be reached");
        }
    }
    // An Envoy would believe whoever answers: it is told why it gets none.
    let cluster = named("{mode: SIMPLE}", "")(envoy());
    assert_eq!(cluster.discovery, Discovery::Eds(format!("failing|{EXTERNAL}").into()));
}

#[test]
fn files_of_clients_are_named_to_those_that_read_them() {
    let external = |tls: &str| {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api}}\nspec:\n  \
             host: api.example.com\n  trafficPolicy: {{tls: {tls}}}\n"
        );
        move |kind| world(kind, &format!("{EXTERNAL_SERVICE}{rule}"))
    };
    let mutual =
        "{mode: MUTUAL, clientCertificate: /own.pem, privateKey: /own.key, caCertificates: /roots.pem}";
    let files = KeyFiles { certificate: "/own.pem".into(), key: "/own.key".into() };
    for (tls, identity) in
        [(mutual, Some(Identity::Files(files))), ("{mode: SIMPLE, caCertificates: /roots.pem}", None)]
    {
        let cluster = external(tls)(MESH).cluster(EXTERNAL).unwrap();
        let context = ParseContext { support: Support::all(), ..ParseContext::default() };
        assert_eq!(Cluster::parse(&cluster.to_proto(), &context).unwrap().tls, cluster.tls);
        let sent = cluster.tls.unwrap();
        assert_eq!((&sent.identity, &sent.roots), (&identity, &Roots::File("/roots.pem".into())), "{tls}");
        // The roots may be anybody's.
        assert_eq!(sent.sans, [StringMatcher::exact("api.example.com", false).into()]);
        // Others have no way to be told, and must not go without.
        let refused = external(tls)(GRPC);
        let Discovery::Eds(endpoints) = refused.cluster(EXTERNAL).unwrap().discovery else {
            panic!("{tls}: has endpoints")
        };
        let told = &refused.endpoints(&endpoints).unwrap().drops[0].category;
        assert!(told.contains("in files, which only clients of the mesh and Envoys read"), "{told}");
    }
    for (tls, roots) in [
        ("{mode: SIMPLE, caCertificates: /roots.pem, caCrl: /crl.pem}", Roots::File("/roots.pem".into())),
        ("{mode: SIMPLE, caCrl: /crl.pem}", Roots::System),
    ] {
        let sent = external(tls)(MESH).cluster(EXTERNAL).unwrap().tls.unwrap();
        let crl = Some(CrlFile { path: "/crl.pem".into(), only_leaf: false });
        assert_eq!((&sent.crl, &sent.roots), (&crl, &roots), "{tls}");
        let refused = external(tls)(GRPC).cluster(EXTERNAL).unwrap();
        assert_eq!(refused.discovery, Discovery::Eds(format!("failing|{EXTERNAL}").into()), "{tls}");
    }
    let world = external("{mode: MUTUAL, clientCertificate: /own.pem, privateKey: /own.key}");
    assert_eq!(world(MESH).cluster(EXTERNAL).unwrap().tls.unwrap().roots, Roots::System);
    let cluster = world(envoy()).cluster(EXTERNAL).unwrap();
    assert_eq!(cluster.discovery, Discovery::Eds(format!("failing|{EXTERNAL}").into()));
}

#[test]
fn the_proxy_protocol_is_for_those_that_have_it_and_others_are_told_why_their_calls_fail() {
    let header = |kind| world(kind, &rule("{proxyProtocol: {version: V2}}"));
    let cluster = header(MESH).cluster(REVIEWS).unwrap();
    assert_eq!(cluster.proxy_protocol, Some(ProxyProtocol::V2 { tlvs: [].into() }));
    let certificate_providers = ["default".into()].into();
    let context = ParseContext { support: Support::all(), certificate_providers, ..ParseContext::default() };
    let read = Cluster::parse(&cluster.to_proto(), &context).unwrap();
    assert_eq!((read.proxy_protocol, read.tls), (cluster.proxy_protocol, cluster.tls));
    assert_eq!(world(MESH, "").cluster(REVIEWS).unwrap().proxy_protocol, None);

    let refused = header(GRPC);
    let cluster = refused.cluster(REVIEWS).unwrap();
    assert_eq!((&cluster.proxy_protocol, &cluster.tls), (&None, &None), "gRPC would reject it");
    let Discovery::Eds(endpoints) = cluster.discovery else { panic!("has endpoints") };
    let told = &refused.endpoints(&endpoints).unwrap().drops[0].category;
    assert!(told.starts_with("DestinationRule default/reviews (mesh.yaml:"), "{told}");
    assert!(
        told.contains("asks for the PROXY protocol, which only clients of the mesh and Envoys have"),
        "{told}"
    );
}

fn balanced(kind: ClientKind, balancer: &str) -> World {
    world(kind, &rule(&format!("{{loadBalancer: {balancer}}}")))
}

/// What the calls of the only route to `reviews` are hashed by.
fn hashed_by(world: &World) -> Vec<HashKey> {
    let routes = world.routes(REVIEWS).unwrap();
    let RouteAction::Forward(forward) = &routes.virtual_hosts[0].routes[0].action else {
        panic!("no cluster")
    };
    forward.hash.iter().map(|HashPolicy { key, .. }| key.clone()).collect()
}

#[test]
fn consistent_hash_becomes_a_ring_or_a_table_and_the_routes_hash_policy() {
    let ring = |min_size| LbPolicy::RingHash(RingHash { min_size, ..RingHash::default() });
    let maglev = LbPolicy::Maglev(Maglev { table_size: 11, ..Maglev::default() });
    let header = || HashKey::Header { name: "x-user".parse().unwrap(), rewrite: None };
    let cookie = || {
        HashKey::Cookie(HashCookie {
            name: "session".into(),
            ttl: Some(Duration::from_secs(60)),
            path: "/".into(),
            attributes: Vec::new(),
        })
    };
    let parameter = || HashKey::QueryParameter("user".into());
    let cases = [
        ("{httpHeaderName: x-user}", MESH, ring(1024), vec![header()]),
        ("{httpHeaderName: x-user, ringHash: {minimumRingSize: 9}}", GRPC, ring(9), vec![header()]),
        ("{useSourceIp: true, maglev: {tableSize: 11}}", MESH, maglev.clone(), vec![HashKey::SourceIp]),
        ("{useSourceIp: true, maglev: {tableSize: 11}}", envoy(), maglev, vec![HashKey::SourceIp]),
        // No other gRPC client has Maglev, nor an address of its caller.
        ("{useSourceIp: true, maglev: {tableSize: 11}}", GRPC, ring(1024), vec![HashKey::ChannelId]),
        ("{httpCookie: {name: session, path: /, ttl: 60s}}", MESH, ring(1024), vec![cookie()]),
        ("{httpCookie: {name: session, path: /, ttl: 60s}}", GRPC, ring(1024), vec![]),
        ("{httpQueryParameterName: user}", MESH, ring(1024), vec![parameter()]),
        ("{httpQueryParameterName: user}", GRPC, ring(1024), vec![]),
    ];
    for (hash, kind, lb, keys) in cases {
        let world = balanced(kind.clone(), &format!("{{consistentHash: {hash}}}"));
        let cluster = world.cluster(REVIEWS).unwrap();
        assert_eq!(
            (cluster.lb, cluster.lb_options.localities),
            (lb, LocalityLb::Flat),
            "{hash} for {kind:?}"
        );
        assert_eq!(hashed_by(&world), keys, "{hash} for {kind:?}");
    }
    assert_eq!(hashed_by(&balanced(MESH, "{simple: RANDOM}")), []);
}

#[test]
fn warming_up_is_slow_start_where_it_is_known_and_fits() {
    let warmup = "warmup: {duration: 30s, minimumPercent: 20, aggression: 2}";
    let expected = Some(SlowStart {
        window: Duration::from_secs(30),
        aggression: 2.0,
        min_weight: Fraction::per_million(200_000),
    });
    for (simple, kind, slow_start) in [
        ("ROUND_ROBIN", MESH, expected),
        ("LEAST_REQUEST", envoy(), expected),
        ("ROUND_ROBIN", GRPC, None),
        ("RANDOM", MESH, None),
    ] {
        let world = balanced(kind, &format!("{{simple: {simple}, {warmup}}}"));
        assert_eq!(world.cluster(REVIEWS).unwrap().lb_options.slow_start, slow_start, "{simple}");
    }
}

#[test]
fn zone_awareness_is_for_clients_that_have_it_and_policies_that_fit() {
    let aware =
        |min_cluster_size| LocalityLb::ZoneAware(ZoneAware { min_cluster_size, ..ZoneAware::default() });
    for (balancer, kind, expected) in [
        ("zoneAwareLbSetting: {enabled: true}", MESH, aware(6)),
        ("zoneAwareLbSetting: {minClusterSize: 2}", MESH, aware(2)),
        ("zoneAwareLbSetting: {minClusterSize: 2}", envoy(), aware(2)),
        ("zoneAwareLbSetting: {enabled: true}", GRPC, LocalityLb::Weighted),
        ("zoneAwareLbSetting: {enabled: false}", MESH, LocalityLb::Weighted),
        ("zoneAwareLbSetting: {}, consistentHash: {useSourceIp: true}", MESH, LocalityLb::Flat),
    ] {
        let world = balanced(kind.clone(), &format!("{{{balancer}}}"));
        let found = world.cluster(REVIEWS).unwrap().lb_options.localities;
        assert_eq!(found, expected, "{balancer} for {kind:?}");
    }
}

const EXTERNAL: &str = "outbound|443||api.example.com";

fn external(kind: ClientKind, spec: &str) -> Discovery {
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api}}\nspec:\n  \
         hosts: [api.example.com]\n  ports: [{{number: 443, name: grpc, protocol: GRPC}}]\n  {spec}\n"
    );
    world(kind, &yaml).cluster(EXTERNAL).unwrap().discovery
}

#[test]
fn names_are_for_the_client_to_resolve_as_far_as_it_can() {
    let two = "resolution: DNS\n  endpoints: [{address: a.example.com, ports: {grpc: 8443}, weight: 3}, {address: 10.0.0.1}]";
    let Discovery::StrictDns(dns) = external(MESH, two) else { panic!("not strict") };
    let names: Vec<_> = dns.hosts().map(ToString::to_string).collect();
    assert_eq!(names, ["10.0.0.1:443", "a.example.com:8443"]);
    assert_eq!(dns.priorities[0].localities[0].endpoints[1].weight.get(), 3);
    assert_eq!(dns.dns.refresh_rate, Duration::from_secs(60));
    // Others have one name for one endpoint, or what is no name at all.
    assert_eq!(external(GRPC, two), Discovery::Eds(EXTERNAL.into()));

    let Discovery::StrictDns(dns) = external(envoy(), "resolution: DNS") else { panic!("not strict") };
    assert_eq!(dns.hosts().map(ToString::to_string).collect::<Vec<_>>(), ["api.example.com:443"]);
    for (kind, resolution) in [(GRPC, "DNS"), (MESH, "DNS_ROUND_ROBIN"), (envoy(), "DNS_ROUND_ROBIN")] {
        let Discovery::LogicalDns(dns) = external(kind, &format!("resolution: {resolution}")) else {
            panic!("not logical")
        };
        assert_eq!(dns.endpoint.addresses.to_string(), "api.example.com:443");
    }
    let fixed = "resolution: STATIC\n  endpoints: [{address: 10.0.0.1}]";
    assert_eq!(external(MESH, fixed), Discovery::Eds(EXTERNAL.into()));
}
