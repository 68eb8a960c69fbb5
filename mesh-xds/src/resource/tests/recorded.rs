//! Bytes that our encoder did not make: resources as other control planes send them, encodings that no encoder of
//! ours would choose, and what has to be refused. `tests/peers/python/recorded.py` writes them, with Google's
//! protobuf; those of gRPC-Go's tests and of go-control-plane's example come from `tests/peers/go/recorded.go`, those of
//! an Envoy are in `envoy.rs`.

use super::*;
use crate::{
    matcher::{DomainPattern, Fraction},
    resource::{
        cluster::{Discovery, LbPolicy},
        endpoint::HealthStatus,
        ext_authz::grpc_service::Credentials,
        filter::{FilterConfig, FilterOverride},
        listener::{HttpConnectionManager, ListenerKind, RouteSource},
        rbac::RbacAction,
        retry::RetryPolicy,
        route::{Destination, Forward, RouteAction},
        stateful_session::SessionState,
        tls::{Identity, Roots},
    },
};
use ResourceType::{
    Cluster as CDS, ClusterLoadAssignment as EDS, Listener as LDS, RouteConfiguration as RDS,
};
use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/resource/tests/recorded")
}

pub(super) fn bytes(file: &str) -> Vec<u8> {
    fs::read(directory().join(format!("{file}.bin"))).unwrap()
}

pub(super) fn listener(resource: &AnyResource) -> &Listener {
    let AnyResource::Listener(listener) = resource else { panic!("{resource:?}") };
    listener
}

fn api(resource: &AnyResource) -> &HttpConnectionManager {
    let ListenerKind::Api(http) = &listener(resource).kind else { panic!("{resource:?}") };
    http
}

fn inbound(resource: &AnyResource) -> &listener::FilterChain {
    let ListenerKind::Server(server) = &listener(resource).kind else { panic!("{resource:?}") };
    assert_eq!((server.address.to_string().as_str(), server.port), ("0.0.0.0", 9080));
    let [chain] = server.filter_chains.as_slice() else { panic!("{server:?}") };
    chain
}

fn filters(http: &HttpConnectionManager) -> Vec<&str> {
    http.filters.iter().map(|filter| &*filter.name).collect()
}

pub(super) fn routes(resource: &AnyResource) -> &RouteConfiguration {
    let AnyResource::RouteConfiguration(routes) = resource else { panic!("{resource:?}") };
    routes
}

pub(super) fn forwards(resource: &AnyResource) -> Vec<&Forward> {
    let all = routes(resource).virtual_hosts.iter().flat_map(|host| &host.routes);
    all.filter_map(|route| match &route.action {
        RouteAction::Forward(forward) => Some(&**forward),
        _ => None,
    })
    .collect()
}

pub(super) fn cluster(resource: &AnyResource) -> &Cluster {
    let AnyResource::Cluster(cluster) = resource else { panic!("{resource:?}") };
    cluster
}

fn assignment(resource: &AnyResource) -> &ClusterLoadAssignment {
    let AnyResource::ClusterLoadAssignment(assignment) = resource else { panic!("{resource:?}") };
    assignment
}

/// The names of gRPC-Go's certificate providers.
const GO_CLIENT: &str = "client-side-certificate-provider-instance";
const GO_SERVER: &str = "server-side-certificate-provider-instance";

/// A bootstrap that has those as well.
pub(super) fn context() -> ParseContext {
    let certificate_providers = ["default", GO_CLIENT, GO_SERVER].map(Into::into).into();
    ParseContext { certificate_providers, ..super::context() }
}

/// File, type, and what has to be true of it.
pub(super) type Accepted = (&'static str, ResourceType, fn(&AnyResource));

pub(super) const ACCEPTED: &[Accepted] = &[
    // Istio, for proxyless gRPC.
    ("istio-listener-outbound", LDS, |resource| {
        let RouteSource::Rds(name) = &api(resource).routes else { panic!("{resource:?}") };
        assert_eq!(&**name, "outbound|9080||reviews.default.svc.cluster.local");
        assert_eq!(filters(api(resource)), ["envoy.filters.http.fault", "envoy.filters.http.router"]);
    }),
    ("istio-listener-inbound-plaintext", LDS, |resource| {
        let chain = inbound(resource);
        assert_eq!((&*chain.name, &chain.tls), ("inbound-plaintext", &None));
        let RouteSource::Inline(routes) = &chain.http.routes else { panic!("{chain:?}") };
        assert_eq!(routes.virtual_hosts[0].routes[0].action, RouteAction::NonForwarding);
    }),
    ("istio-listener-inbound-mtls", LDS, |resource| {
        let chain = inbound(resource);
        let tls = chain.tls.as_ref().unwrap();
        assert_eq!((&*tls.identity, tls.client_roots.as_deref()), ("default", Some("default")));
        assert!(tls.require_client_certificate);
        let actions = chain.http.filters.iter().filter_map(|filter| match &filter.config {
            FilterConfig::Rbac(rbac) => Some(rbac.rules.as_ref().unwrap().action),
            _ => None,
        });
        assert_eq!(actions.collect::<Vec<_>>(), [RbacAction::Deny, RbacAction::Allow]);
    }),
    ("istio-routes", RDS, |resource| {
        let host = &routes(resource).virtual_hosts[0];
        assert!(host.domains.contains(&DomainPattern::parse("reviews:9080").unwrap()));
        assert_eq!(host.routes[0].matches.headers.len(), 1);
        assert!(host.routes[0].overrides.contains_key("envoy.filters.http.fault"));
        let [jason, weighted, default] = forwards(resource)[..] else { panic!("{resource:?}") };
        assert_eq!(jason.max_stream_duration, Some(Duration::from_secs(3)));
        let retry: &RetryPolicy = jason.retry.as_ref().unwrap();
        assert_eq!((retry.num_retries, retry.on.unavailable, retry.on.cancelled), (2, true, true));
        let Destination::Weighted(clusters) = &weighted.destination else { panic!("{weighted:?}") };
        assert_eq!(clusters.iter().map(|cluster| cluster.weight.get()).collect::<Vec<_>>(), [80, 20]);
        assert_eq!(weighted.hash.len(), 1);
        assert_eq!(default.retry, None);
    }),
    ("istio-cluster", CDS, |resource| {
        let cluster = cluster(resource);
        assert_eq!(cluster.discovery, Discovery::Eds(cluster.name.clone()));
        let LbPolicy::RingHash(ring) = &cluster.lb else { panic!("{cluster:?}") };
        assert_eq!(ring.min_size, 1024);
        assert_eq!(cluster.circuit_breakers.max_requests, 100);
        let tls = cluster.tls.as_ref().unwrap();
        assert_eq!(
            (&tls.identity, &tls.roots),
            (&Some(Identity::Provider("default".into())), &Roots::Provider("default".into()))
        );
        assert!(tls.sans[0].name.matches("spiffe://cluster.local/ns/default/sa/reviews"));
    }),
    ("istio-endpoints", EDS, |resource| {
        let [first, second] = &assignment(resource).priorities[..] else { panic!("{resource:?}") };
        let here = &first.localities[0];
        assert_eq!((&*here.locality.sub_zone, here.weight.get()), ("rack-7", 2));
        let health: Vec<_> = here.endpoints.iter().map(|endpoint| endpoint.health).collect();
        assert_eq!(health, [HealthStatus::Healthy, HealthStatus::Draining]);
        assert_eq!((here.endpoints[0].mesh_tls, here.endpoints[1].mesh_tls), (true, false));
        let there = &second.localities[0].endpoints[0];
        assert_eq!((there.address().to_string().as_str(), there.weight.get()), ("[fd00::7]:9080", 3));
    }),
    // The fields of the gRFCs.
    ("grpc-listener-inline-routes", LDS, |resource| {
        let http = api(resource);
        assert_eq!(filters(http), ["envoy.filters.http.router"], "an unknown optional filter is ignored");
        assert_eq!(http.max_stream_duration, Some(Duration::from_secs(30)));
        let RouteSource::Inline(routes) = &http.routes else { panic!("{http:?}") };
        let [unary, rest] = &routes.virtual_hosts[0].routes[..] else { panic!("{routes:?}") };
        let RouteAction::Forward(forward) = &unary.action else { panic!("{unary:?}") };
        assert_eq!(forward.max_stream_duration, Some(Duration::from_secs(10)));
        assert_eq!(forward.grpc_timeout_header_max, Some(Duration::from_secs(5)));
        assert_eq!(rest.matches.fraction, Some(Fraction::per_million(250_000)));
        assert_eq!(rest.matches.headers.len(), 4);
    }),
    ("grpc-cluster-policies", CDS, |resource| {
        let cluster = cluster(resource);
        assert_eq!(cluster.lb, LbPolicy::RoundRobin, "an unknown policy is passed over");
        assert_eq!(cluster.circuit_breakers.max_requests, 50, "of the default priority");
        let outliers = cluster.outlier_detection.as_ref().unwrap();
        assert_eq!(outliers.success_rate.as_ref().unwrap().stdev_factor, 1900);
        assert_eq!(outliers.failure_percentage, None, "it is never enforced");
    }),
    ("grpc-cluster-aggregate", CDS, |resource| {
        let names = vec!["primary".into(), "secondary".into()];
        assert_eq!(cluster(resource).discovery, Discovery::Aggregate(names));
    }),
    ("grpc-cluster-logical-dns", CDS, |resource| {
        let Discovery::LogicalDns(dns) = &cluster(resource).discovery else { panic!("{resource:?}") };
        assert_eq!(dns.endpoint.addresses.to_string(), "backend.example.com:443");
    }),
    ("grpc-endpoints-drops", EDS, |resource| {
        let assignment = assignment(resource);
        let drops: Vec<_> = assignment.drops.iter().map(|drop| drop.fraction.parts()).collect();
        assert_eq!(drops, [50_000, 25_000]);
        assert_eq!(assignment.overprovisioning_factor.get(), 200);
        let localities = &assignment.priorities[0].localities;
        assert_eq!(localities.len(), 1, "one without a weight gets nothing");
        let [_, second] = &localities[0].endpoints[..] else { panic!("{localities:?}") };
        assert_eq!((second.addresses.len(), second.weight.get()), (2, 5));
        assert_eq!(second.health, HealthStatus::Unhealthy);
    }),
    ("grpc-listener-authz-and-session", LDS, |resource| {
        let http = api(resource);
        let [authz, session, _] = &http.filters[..] else { panic!("{http:?}") };
        let FilterConfig::ExtAuthz(authz) = &authz.config else { panic!("{authz:?}") };
        assert_eq!(&*authz.service.target, "dns:///authz.example.com:9000");
        assert_eq!(authz.service.credentials, Credentials::Xds(Box::new(Credentials::Insecure)));
        assert_eq!(authz.service.timeout, Some(Duration::from_millis(250)));
        assert_eq!(authz.service.metadata[0].1, "reviews");
        assert_eq!((authz.failure_mode_allow, authz.status_on_error), (true, 502));
        assert!(authz.allowed_headers[0].matches("X-User"));
        assert!(authz.mutation_rules.disallow.as_ref().unwrap().matches("x-internal-a"));
        let FilterConfig::StatefulSession(session) = &session.config else { panic!("{session:?}") };
        let Some(SessionState::Header(name)) = &session.state else { panic!("{session:?}") };
        assert_eq!((name.as_str(), session.strict.unwrap().as_u16()), ("x-session", 503));
    }),
    // gRPC-Go's end-to-end tests.
    ("go-listener", LDS, |resource| {
        assert_eq!(api(resource).routes, RouteSource::Rds("route-greeter".into()));
    }),
    ("go-listener-server", LDS, |resource| assert_eq!(go_chains(resource), [(None, false); 2])),
    ("go-listener-server-tls", LDS, |resource| {
        assert_eq!(go_chains(resource), [(Some(GO_SERVER), false); 2]);
    }),
    ("go-listener-server-mtls", LDS, |resource| {
        assert_eq!(&**resource.name(), "grpc/server?xds.resource.listening_address=[::1]:50051");
        assert_eq!(go_chains(resource), [(Some(GO_SERVER), true); 2]);
    }),
    ("go-listener-server-rds", LDS, |resource| {
        let ListenerKind::Server(server) = &listener(resource).kind else { panic!("{resource:?}") };
        let rds =
            |chain: &listener::FilterChain| chain.http.routes == RouteSource::Rds("route-greeter".into());
        assert!(server.filter_chains.iter().all(rds));
    }),
    ("go-routes", RDS, |resource| {
        let Destination::Weighted(clusters) = &forwards(resource)[0].destination else {
            panic!("{resource:?}")
        };
        assert_eq!((&*clusters[0].cluster, clusters[0].weight.get()), ("cluster-greeter", 100));
    }),
    ("go-routes-weighted", RDS, |resource| {
        let Destination::Weighted(clusters) = &forwards(resource)[0].destination else {
            panic!("{resource:?}")
        };
        assert_eq!(clusters.iter().map(|cluster| cluster.weight.get()).collect::<Vec<_>>(), [75, 25]);
    }),
    ("go-routes-non-forwarding", RDS, |resource| {
        assert_eq!(routes(resource).virtual_hosts[0].routes[0].action, RouteAction::NonForwarding);
    }),
    ("go-routes-filter-action", RDS, |resource| {
        let action = &routes(resource).virtual_hosts[0].routes[0].action;
        assert_eq!(*action, RouteAction::Unsupported("filter_action"), "calls to it fail (gRFC A36)");
    }),
    ("go-cluster", CDS, |resource| {
        let cluster = cluster(resource);
        assert_eq!(cluster.discovery, Discovery::Eds("endpoints-greeter".into()));
        assert_eq!((&cluster.lb, &cluster.tls), (&LbPolicy::RoundRobin, &None));
    }),
    ("go-cluster-mtls", CDS, |resource| {
        let tls = cluster(resource).tls.as_ref().unwrap();
        assert_eq!(
            (&tls.identity, &tls.roots),
            (&Some(Identity::Provider(GO_CLIENT.into())), &Roots::Provider(GO_CLIENT.into()))
        );
    }),
    ("go-cluster-ring-hash-lrs", CDS, |resource| {
        let cluster = cluster(resource);
        assert!(matches!(cluster.lb, LbPolicy::RingHash(_)) && cluster.load_reporting.is_some());
    }),
    ("go-cluster-dns", CDS, |resource| {
        let Discovery::LogicalDns(dns) = &cluster(resource).discovery else { panic!("{resource:?}") };
        assert_eq!(dns.endpoint.addresses.to_string(), "greeter.example.com:8080");
    }),
    ("go-cluster-aggregate", CDS, |resource| {
        let names = vec!["cluster-greeter".into(), "cluster-dns".into()];
        assert_eq!(cluster(resource).discovery, Discovery::Aggregate(names));
    }),
    ("go-endpoints", EDS, |resource| {
        let assignment = assignment(resource);
        let [near, far] = &assignment.priorities[..] else { panic!("{assignment:?}") };
        let [one, draining] = &near.localities[0].endpoints[..] else { panic!("{near:?}") };
        assert_eq!(
            (one.addresses.len(), one.weight.get(), one.hostname.as_deref()),
            (2, 7, Some("one.example.com"))
        );
        assert_eq!(draining.health, HealthStatus::Draining);
        assert_eq!((&*far.localities[0].locality.zone, assignment.drops[0].fraction.parts()), ("b", 50_000));
    }),
    // go-control-plane's example.
    ("go-example-listener", LDS, |resource| {
        let ListenerKind::Server(server) = &listener(resource).kind else { panic!("{resource:?}") };
        assert_eq!(server.filter_chains[0].http.routes, RouteSource::Rds("routes".into()));
    }),
    ("go-example-routes", RDS, |resource| {
        assert_eq!(forwards(resource)[0].destination, Destination::Cluster("cluster".into()));
    }),
    ("go-example-cluster", CDS, |resource| {
        let cluster = cluster(resource);
        assert_eq!(cluster.discovery, Discovery::Eds("cluster".into()));
        assert_eq!(cluster.connection.connect_timeout, Duration::from_secs(5));
    }),
    // Encodings that are as good as any.
    ("odd-order-and-unknown-fields", EDS, |resource| assert_eq!(endpoints(resource), 2)),
    ("odd-field-twice", EDS, |resource| {
        assert_eq!((&**resource.name(), endpoints(resource)), ("odd", 2), "the last of them counts");
    }),
    ("odd-message-in-halves", EDS, |resource| {
        let assignment = assignment(resource);
        assert_eq!(assignment.overprovisioning_factor.get(), 150);
        assert_eq!(&*assignment.drops[0].category, "half");
    }),
    ("odd-defaults-on-the-wire", EDS, |resource| {
        assert_eq!(
            assignment(resource).priorities[0].localities[0].endpoints[0].health,
            HealthStatus::Unknown
        );
    }),
    ("odd-long-varint", EDS, |resource| assert_eq!(endpoints(resource), 2)),
    ("odd-numbers-unpacked", RDS, |resource| assert_eq!(codes(resource), [503, 504])),
    ("odd-numbers-packed", RDS, |resource| assert_eq!(codes(resource), [503, 504])),
    ("odd-numbers-mixed", RDS, |resource| assert_eq!(codes(resource), [503, 504])),
    ("odd-map-key-twice", RDS, |resource| {
        let overrides = &routes(resource).virtual_hosts[0].routes[0].overrides;
        assert_eq!(overrides.keys().map(|key| &**key).collect::<Vec<_>>(), ["a", "z"]);
        let Some(FilterOverride::Config(last)) = overrides.get("z") else { panic!("{overrides:?}") };
        assert!(format!("{last:?}").contains("3s"), "the last of them counts: {last:?}");
    }),
];

/// Of each filter chain of one of gRPC-Go's servers: the provider of its certificate, and whether it asks for theirs.
fn go_chains(resource: &AnyResource) -> Vec<(Option<&str>, bool)> {
    let ListenerKind::Server(server) = &listener(resource).kind else { panic!("{resource:?}") };
    let chains = server.filter_chains.iter().map(|chain| chain.tls.as_ref());
    chains
        .map(|tls| (tls.map(|tls| &*tls.identity), tls.is_some_and(|tls| tls.require_client_certificate)))
        .collect()
}

fn endpoints(resource: &AnyResource) -> usize {
    assignment(resource).priorities[0].localities[0].endpoints.len()
}

fn codes(resource: &AnyResource) -> Vec<u32> {
    let retry = forwards(resource)[0].retry.as_ref().unwrap();
    retry.retriable_status_codes.iter().map(|code| u32::from(*code)).collect()
}

/// File, type, path of a fault, and a part of its reason.
pub(super) type Refused = (&'static str, ResourceType, &'static str, &'static str);

const API: &str = "api_listener.api_listener.";
const ROUTE: &str = "virtual_hosts[0].routes[0].";
const FIRST_ENDPOINT: &str = "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.";

#[rustfmt::skip]
pub(super) const REFUSED: &[(Refused, &str)] = &[
    (("bad-truncated", EDS, "", "not a ClusterLoadAssignment"), ""),
    (("bad-name-not-utf8", EDS, "", "not UTF-8"), ""),
    (("bad-wire-type", EDS, "", "wire type"), ""),
    (("bad-group", EDS, "", "wire type"), ""),
    (("bad-length", EDS, "", "not a ClusterLoadAssignment"), ""),
    (("bad-no-name", EDS, "", "without a name"), ""),
    (("bad-listener-unknown-filter", LDS, "http_filters[0].typed_config", "com.example.Later is not supported"), API),
    (("bad-listener-no-router", LDS, "http_filters", "must be the router"), API),
    (("bad-listener-router-not-last", LDS, "http_filters", "must be the router"), API),
    (("bad-listener-filter-name-twice", LDS, "http_filters[1].name", "stands twice"), API),
    (("bad-listener-routes-from-a-file", LDS, "rds.config_source", "`ads` or `self`"), API),
    (("bad-listener-trusted-hops", LDS, "xff_num_trusted_hops", "must be 0"), API),
    (("bad-listener-unknown-provider", LDS, "filter_chains[0].transport_socket.typed_config.common_tls_context.tls_certificate_provider_instance", "`nobody's`"), ""),
    (("bad-routes-regex", RDS, "match.safe_regex", "a `(` is not closed"), ROUTE),
    (("bad-routes-no-path", RDS, "match.path_specifier", "required"), ROUTE),
    (("bad-routes-weights", RDS, "route.weighted_clusters.clusters", "more than 4294967295"), ROUTE),
    (("bad-routes-no-weight", RDS, "route.weighted_clusters.clusters", "sum to 0"), ROUTE),
    (("bad-routes-retries", RDS, "route.retry_policy.num_retries", "must not be 0"), ROUTE),
    (("bad-routes-domain-twice", RDS, "virtual_hosts[1].domains[0]", "two virtual hosts"), ""),
    (("bad-cluster-original-dst", CDS, "type", "ORIGINAL_DST"), ""),
    (("bad-cluster-eds-from-a-file", CDS, "eds_cluster_config.eds_config", "`ads` or `self`"), ""),
    (("bad-cluster-ring", CDS, "ring_hash_lb_config.minimum_ring_size", "2048 is more than"), ""),
    (("bad-cluster-ejection-percent", CDS, "outlier_detection.max_ejection_percent", "101"), ""),
    (("bad-cluster-negative-interval", CDS, "outlier_detection.interval", "not a valid duration"), ""),
    (("bad-cluster-only-unknown-policy", CDS, "load_balancing_policy", "none of its policies"), ""),
    (("bad-cluster-aggregate-of-nothing", CDS, "cluster_type.typed_config.clusters", "at least one"), ""),
    (("bad-go-listener-tcp", LDS, "filter_chains[0].filters[0].typed_config", "TcpProxy"), ""),
    (("bad-go-listener-scoped", LDS, "filter_chains[0].filters[0].typed_config.scoped_routes", "not supported"), ""),
    (("bad-go-routes-vhds", RDS, "vhds", "not supported"), ""),
    (("bad-go-routes-no-match", RDS, "match", "required"), ROUTE),
    (("bad-go-cluster-other-server", CDS, "eds_cluster_config.eds_config", "`ads` or `self`"), ""),
    // gRPC takes it, and with it any certificate of the web's authorities.
    (("bad-go-cluster-system-roots", CDS, "transport_socket.typed_config.common_tls_context.validation_context", "every site"), ""),
    (("bad-go-endpoints-no-locality", EDS, "endpoints[0].locality", "required"), ""),
    (("bad-endpoints-priority-gap", EDS, "endpoints", "priority 1 is missing"), ""),
    (("bad-endpoints-locality-twice", EDS, "endpoints[1].locality", "stands twice"), ""),
    (("bad-endpoints-weight-sum", EDS, "endpoints[1].load_balancing_weight", "more than 4294967295"), ""),
    (("bad-endpoints-address-name", EDS, "address", "not a literal IP address"), FIRST_ENDPOINT),
    (("bad-endpoints-port", EDS, "port_value", "not a port"), FIRST_ENDPOINT),
    (("bad-endpoints-address-twice", EDS, "endpoints[1].lb_endpoints[0].endpoint.address", "stands twice"), ""),
];

#[test]
fn what_other_encoders_make_is_read_for_what_it_says() {
    for (file, kind, holds) in ACCEPTED.iter().chain(envoy::ACCEPTED) {
        let resource = AnyResource::parse(*kind, &bytes(file), &context());
        let resource = resource.unwrap_or_else(|error| panic!("{file}: {error}"));
        holds(&resource);
        let ours = resource.to_proto();
        assert_eq!(AnyResource::parse(*kind, &ours, &context()).as_ref(), Ok(&resource), "{file}");
    }
}

#[test]
fn what_is_wrong_is_refused_whoever_made_it() {
    for ((file, kind, path, reason), below) in REFUSED.iter().chain(envoy::REFUSED) {
        let error = AnyResource::parse(*kind, &bytes(file), &context()).expect_err(file);
        let path = format!("{below}{path}");
        let found = error.rejected.faults.iter().any(|f| f.path == path && f.reason.contains(reason));
        assert!(found, "{file}, {path}: {error}");
    }
}

#[test]
fn every_file_is_expected() {
    let there: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let accepted = ACCEPTED.iter().chain(envoy::ACCEPTED).map(|(file, ..)| *file);
    let refused = REFUSED.iter().chain(envoy::REFUSED).map(|((file, ..), _)| *file);
    let expected = accepted.chain(refused);
    assert_eq!(expected.map(str::to_owned).collect::<BTreeSet<_>>(), there);
}

/// What Istio sends to every proxyless client needs nothing that a data path may lack, but for a policy that an
/// operator has to ask for.
#[test]
fn a_data_path_of_the_core_alone_can_follow_istio() {
    let core = ParseContext { support: Support::NONE, ..context() };
    for (file, kind, _) in ACCEPTED.iter().filter(|(file, ..)| file.starts_with("istio-")) {
        let support =
            if *file == "istio-cluster" { Support::of(&[Feature::RingHash]) } else { Support::NONE };
        let context = ParseContext { support, ..core.clone() };
        let result = AnyResource::parse(*kind, &bytes(file), &context);
        assert!(result.is_ok(), "{file}: {}", result.unwrap_err());
    }
}
