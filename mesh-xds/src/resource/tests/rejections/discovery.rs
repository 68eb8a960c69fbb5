//! Where a cluster's endpoints come from (gRFC A37, A75; Envoy's DNS clusters), and how they are checked.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::{cluster::good, *};
use crate::resource::cluster::{Discovery, DnsLookupFamily, HealthProbe};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                self as pb,
                cluster::{ClusterDiscoveryType, CustomClusterType, DiscoveryType, RefreshRate},
            },
            core::v3::{
                Address, HeaderValue, HeaderValueOption, HealthCheck, SocketAddress, address,
                health_check::{
                    GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload,
                },
                socket_address::PortSpecifier,
            },
            endpoint::v3::{
                ClusterLoadAssignment as Assignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
                lb_endpoint::HostIdentifier,
            },
        },
        extensions::clusters::{aggregate::v3::ClusterConfig, dns::v3::DnsCluster},
    },
    google::protobuf::{Any, Duration, UInt32Value},
};

fn host(name: &str) -> LocalityLbEndpoints {
    let socket = SocketAddress {
        address: name.into(),
        port_specifier: Some(PortSpecifier::PortValue(443)),
        ..Default::default()
    };
    let address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
    let endpoint = HostIdentifier::Endpoint(Endpoint { address, ..Default::default() });
    LocalityLbEndpoints {
        lb_endpoints: vec![LbEndpoint { host_identifier: Some(endpoint), ..Default::default() }],
        ..Default::default()
    }
}

fn of(kind: DiscoveryType, names: &[&str]) -> pb::Cluster {
    pb::Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        eds_cluster_config: None,
        load_assignment: Some(Assignment {
            endpoints: names.iter().map(|name| host(name)).collect(),
            ..Default::default()
        }),
        ..good()
    }
}

fn host_of(message: &mut pb::Cluster) -> &mut Endpoint {
    let locality = &mut message.load_assignment.as_mut().unwrap().endpoints[0];
    match &mut locality.lb_endpoints[0].host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        other => panic!("{other:?}"),
    }
}

fn socket(message: &mut pb::Cluster) -> &mut SocketAddress {
    match host_of(message).address.as_mut().unwrap().address.as_mut().unwrap() {
        address::Address::SocketAddress(socket) => socket,
        _ => panic!("no socket address"),
    }
}

fn extension(message: &mut pb::Cluster, name: &str, config: Option<Any>) {
    let custom = CustomClusterType { name: name.into(), typed_config: config };
    message.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(custom));
}

fn aggregate(clusters: &[&str]) -> Any {
    model::wire::any(&ClusterConfig { clusters: clusters.iter().map(|name| (*name).into()).collect() })
}

fn parsed(message: &pb::Cluster) -> Cluster {
    Cluster::parse(&message.encode_to_vec(), &context()).unwrap()
}

#[test]
fn a_cluster_of_clusters_names_some() {
    const AT: &str = "cluster_type.typed_config";
    refuses::<Cluster, _>(
        &good(),
        &[
            (|m| extension(m, "envoy.clusters.aggregate", None), AT, "is required"),
            (
                |m| extension(m, "envoy.clusters.aggregate", Some(model::wire::any(&DnsCluster::default()))),
                AT,
                "expected type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
            ),
            (
                |m| extension(m, "any", Some(aggregate(&[]))),
                "cluster_type.typed_config.clusters",
                "at least one",
            ),
            (
                |m| extension(m, "any", Some(aggregate(&["a", ""]))),
                "cluster_type.typed_config.clusters[1]",
                "must not be empty",
            ),
            (
                |m| extension(m, "envoy.clusters.redis", None),
                "cluster_type",
                "envoy.clusters.redis is not supported",
            ),
        ],
    );
    // The type is enough for gRPC, and what Envoy needs besides is not in the way (A75).
    let mut message = good();
    extension(&mut message, "any", Some(aggregate(&["a", "b", "a"])));
    message.lb_policy = pb::cluster::LbPolicy::ClusterProvided.into();
    let names = ["a", "b", "a"].map(Into::into);
    assert_eq!(parsed(&message).discovery, Discovery::Aggregate(names.into()));
}

#[test]
fn names_that_cannot_be_resolved_are_refused() {
    refuses::<Cluster, _>(
        &of(DiscoveryType::StrictDns, &["reviews.example"]),
        &[
            (|m| m.load_assignment = None, "load_assignment", "is required"),
            (
                |m| socket(m).address = String::new(),
                "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
                "`` is not a host name",
            ),
            (
                |m| socket(m).address = "a b".into(),
                "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
                "`a b` is not a host name",
            ),
            (
                |m| socket(m).resolver_name = "mine".into(),
                "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.resolver_name",
                "custom resolvers",
            ),
            (
                |m| socket(m).port_specifier = None,
                "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value",
                "is required",
            ),
            (
                |m| host_of(m).additional_addresses.push(Default::default()),
                "load_assignment.endpoints[0].lb_endpoints[0].endpoint.additional_addresses",
                "a name has all addresses that DNS gives it",
            ),
            (
                |m| host_of(m).address = None,
                "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address",
                "is required",
            ),
            (
                |m| host_of(m).address = Some(Address::default()),
                "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address",
                "must be a socket_address",
            ),
            // Entries of one locality are one here, whose weights have to fit as well.
            (
                |m| {
                    let mut more = host("b");
                    more.lb_endpoints[0].load_balancing_weight = Some(UInt32Value { value: u32::MAX });
                    m.load_assignment.as_mut().unwrap().endpoints.push(more);
                },
                "load_assignment.endpoints[1]",
                "the weights of the locality sum to more than 4294967295",
            ),
            (
                |m| m.dns_resolution_config = Some(Default::default()),
                "dns_resolution_config",
                "the resolver of the process",
            ),
            (|m| m.dns_refresh_rate = Some(millis(1)), "dns_refresh_rate", "more than 1ms"),
            (|m| m.dns_lookup_family = 9, "dns_lookup_family", "9 is unknown"),
            (|m| m.use_tcp_for_dns_lookups = true, "use_tcp_for_dns_lookups", "the resolver of the process"),
            (
                |m| m.dns_failure_refresh_rate = Some(RefreshRate::default()),
                "dns_failure_refresh_rate.base_interval",
                "is required",
            ),
            (
                |m| {
                    m.dns_failure_refresh_rate =
                        Some(RefreshRate { base_interval: Some(millis(20)), max_interval: Some(millis(10)) });
                },
                "dns_failure_refresh_rate.max_interval",
                "less than base_interval",
            ),
            (
                |m| {
                    let config = DnsCluster { dns_min_refresh_rate: Some(millis(999)), ..Default::default() };
                    extension(m, "envoy.cluster.dns", Some(model::wire::any(&config)));
                },
                "cluster_type.typed_config.dns_min_refresh_rate",
                "at least 1s",
            ),
        ],
    );
}

#[test]
fn a_name_that_discovery_cannot_ask_for_is_refused() {
    let mut named = good();
    named.name = "xdstp://a/envoy.config.cluster.v3.Cluster/c".into();
    named.eds_cluster_config.as_mut().unwrap().service_name = "s".into();
    refuses::<Cluster, _>(
        &named,
        &[(
            |m| m.eds_cluster_config.as_mut().unwrap().service_name.clear(),
            "eds_cluster_config.service_name",
            "is required when the cluster's name is xdstp:",
        )],
    );
}

#[test]
fn the_newer_form_of_a_dns_cluster_has_the_rules_of_the_older() {
    const CONFIG: &str = "cluster_type.typed_config";
    fn dns(message: &mut pb::Cluster, change: impl FnOnce(&mut DnsCluster)) {
        let mut config = DnsCluster::default();
        change(&mut config);
        extension(message, "envoy.cluster.dns", Some(model::wire::any(&config)));
    }
    let at = |rest: &str| -> &'static str { format!("{CONFIG}{rest}").leak() };
    refuses::<Cluster, _>(
        &of(DiscoveryType::StrictDns, &["reviews.example"]),
        &[
            (
                |m| {
                    let type_url = DnsCluster::type_url();
                    extension(m, "envoy.cluster.dns", Some(Any { type_url, value: vec![0xff] }));
                },
                CONFIG,
                "failed to decode",
            ),
            (
                |m| dns(m, |d| d.typed_dns_resolver_config = Some(Default::default())),
                at(".typed_dns_resolver_config"),
                "the resolver of the process",
            ),
            (|m| dns(m, |d| d.dns_lookup_family = 9), at(".dns_lookup_family"), "9 is unknown"),
            (
                |m| dns(m, |d| d.dns_refresh_rate = Some(Duration { seconds: -1, nanos: 0 })),
                at(".dns_refresh_rate"),
                "not a valid duration",
            ),
            (
                |m| dns(m, |d| d.dns_jitter = Some(Duration { seconds: 0, nanos: -1 })),
                at(".dns_jitter"),
                "not a valid duration",
            ),
            (
                |m| dns(m, |d| d.dns_failure_refresh_rate = Some(Default::default())),
                at(".dns_failure_refresh_rate.base_interval"),
                "is required",
            ),
        ],
    );
}

fn millis(millis: i32) -> Duration {
    Duration { seconds: 0, nanos: millis * 1_000_000 }
}

#[test]
fn logical_dns_has_one_endpoint() {
    refuses::<Cluster, _>(
        &of(DiscoveryType::LogicalDns, &["reviews.example"]),
        &[
            (
                |m| m.load_assignment.as_mut().unwrap().endpoints.push(host("b")),
                "load_assignment.endpoints",
                "exactly one locality, not 2",
            ),
            (|m| m.load_assignment = None, "load_assignment.endpoints", "exactly one locality, not 0"),
            (
                |m| m.load_assignment.as_mut().unwrap().endpoints[0].lb_endpoints.clear(),
                "load_assignment.endpoints[0].lb_endpoints",
                "exactly one endpoint, not 0",
            ),
            (
                |m| {
                    let locality = &mut m.load_assignment.as_mut().unwrap().endpoints[0];
                    locality.lb_endpoints.extend(host("b").lb_endpoints);
                },
                "load_assignment.endpoints[0].lb_endpoints",
                "exactly one endpoint, not 2",
            ),
            (
                |m| {
                    m.load_assignment.as_mut().unwrap().endpoints[0].load_balancing_weight =
                        Some(UInt32Value { value: 0 });
                },
                "load_assignment.endpoints",
                "must not have weight 0",
            ),
        ],
    );
}

#[test]
fn both_forms_of_a_dns_cluster_mean_the_same() {
    let mut old = of(DiscoveryType::StrictDns, &["a", "b"]);
    old.dns_refresh_rate = Some(millis(7));
    old.respect_dns_ttl = true;
    old.dns_lookup_family = pb::cluster::DnsLookupFamily::V4Only.into();
    let mut new = of(DiscoveryType::StrictDns, &["a", "b"]);
    let config = DnsCluster {
        dns_refresh_rate: Some(millis(7)),
        respect_dns_ttl: true,
        dns_lookup_family: 2,
        ..Default::default()
    };
    extension(&mut new, "envoy.cluster.dns", Some(model::wire::any(&config)));
    assert_eq!(parsed(&old), parsed(&new));
    let Discovery::StrictDns(strict) = parsed(&old).discovery else { panic!("another kind") };
    assert_eq!(strict.dns.family, DnsLookupFamily::V4Only);
    assert_eq!(strict.hosts().map(ToString::to_string).collect::<Vec<_>>(), ["a:443", "b:443"]);
}

#[test]
fn an_answer_of_dns_becomes_endpoints() {
    let Discovery::StrictDns(strict) = parsed(&of(DiscoveryType::StrictDns, &["a", "b"])).discovery else {
        panic!("another kind")
    };
    let ip = |last: u8| std::net::IpAddr::from([10, 0, 0, last]);
    let resolve = |host: &model::cluster::HostPort| match &*host.host {
        "a" => vec![ip(1), ip(2)],
        _ => vec![ip(2), ip(3)],
    };
    let assignment = strict.assignment("c".into(), resolve);
    let localities = assignment.priorities.iter().flat_map(|priority| &priority.localities);
    let addresses: Vec<_> = localities
        .flat_map(|locality| &locality.endpoints)
        .map(|endpoint| endpoint.address().to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.1:443", "10.0.0.2:443", "10.0.0.3:443"], "each once");
    assert_eq!(ClusterLoadAssignment::parse(&assignment.to_proto(), &context()), Ok(assignment));

    let Discovery::LogicalDns(logical) = parsed(&of(DiscoveryType::LogicalDns, &["a"])).discovery else {
        panic!("another kind")
    };
    let assignment = logical.assignment("c".into(), [ip(1), ip(2), ip(1)]);
    let endpoints = &assignment.priorities[0].localities[0].endpoints;
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].addresses.len(), 2, "all its addresses");
    assert!(logical.assignment("c".into(), []).priorities[0].localities[0].endpoints.is_empty());
}

#[test]
fn a_static_cluster_has_its_endpoints_inside_and_localities_unsaid() {
    let Discovery::Static(assignment) = parsed(&of(DiscoveryType::Static, &["10.0.0.1"])).discovery else {
        panic!("another kind")
    };
    assert_eq!(&*assignment.name, "c");
    assert_eq!(assignment.priorities[0].localities[0].weight.get(), 1);
    refuses::<Cluster, _>(
        &of(DiscoveryType::Static, &["10.0.0.1"]),
        &[(
            |m| socket(m).address = "name".into(),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
            "not a literal IP address",
        )],
    );
}

#[test]
fn a_kind_that_the_data_path_lacks_is_refused_with_its_name() {
    let mut dns = good();
    let all_in_one = DnsCluster { all_addresses_in_single_endpoint: true, ..Default::default() };
    extension(&mut dns, "envoy.cluster.dns", Some(model::wire::any(&all_in_one)));
    let mut aggregated = good();
    extension(&mut aggregated, "envoy.clusters.aggregate", Some(aggregate(&["a"])));
    let mut checked = good();
    checked.health_checks.push(HealthCheck::default());
    for (message, path, feature) in [
        (of(DiscoveryType::Static, &["10.0.0.1"]), "type", Feature::StaticCluster),
        (of(DiscoveryType::StrictDns, &["a"]), "type", Feature::StrictDns),
        (of(DiscoveryType::LogicalDns, &["a"]), "type", Feature::LogicalDns),
        (dns, "cluster_type", Feature::LogicalDns),
        (aggregated, "cluster_type", Feature::AggregateCluster),
        (checked, "health_checks", Feature::HealthChecks),
    ] {
        let others: Vec<_> = Support::all().iter().filter(|other| *other != feature).collect();
        let context = ParseContext { support: Support::of(&others), ..context() };
        let error = Cluster::parse(&message.encode_to_vec(), &context).unwrap_err();
        let fault = &error.rejected.faults[0];
        assert_eq!(fault.path, path, "{error}");
        assert!(fault.reason.contains(feature.name()), "{error}");
    }
}

// ---- health checks ----

fn checked() -> pb::Cluster {
    let second = Some(Duration { seconds: 1, nanos: 0 });
    let check = HealthCheck {
        timeout: second,
        interval: second,
        unhealthy_threshold: Some(UInt32Value { value: 1 }),
        healthy_threshold: Some(UInt32Value { value: 1 }),
        health_checker: Some(HealthChecker::GrpcHealthCheck(GrpcHealthCheck::default())),
        ..Default::default()
    };
    pb::Cluster { health_checks: vec![check], ..good() }
}

fn tcp(message: &mut pb::Cluster, text: &str) {
    let payload = Payload { payload: Some(payload::Payload::Text(text.into())) };
    let check = TcpHealthCheck { send: Some(payload), ..Default::default() };
    message.health_checks[0].health_checker = Some(HealthChecker::TcpHealthCheck(check));
}

fn asking(message: &mut pb::Cluster, key: &str, value: &str) {
    let header = Some(HeaderValue { key: key.into(), value: value.into(), ..Default::default() });
    let initial_metadata = vec![HeaderValueOption { header, ..Default::default() }];
    let check = GrpcHealthCheck { initial_metadata, ..Default::default() };
    message.health_checks[0].health_checker = Some(HealthChecker::GrpcHealthCheck(check));
}

#[test]
fn a_health_check_that_cannot_be_made_is_refused() {
    refuses::<Cluster, _>(
        &checked(),
        &[
            (|m| m.health_checks.push(HealthCheck::default()), "health_checks", "one is supported, not 2"),
            (|m| m.health_checks[0].timeout = None, "health_checks[0].timeout", "is required"),
            (
                |m| m.health_checks[0].interval = Some(Duration::default()),
                "health_checks[0].interval",
                "than zero",
            ),
            (
                |m| m.health_checks[0].unhealthy_threshold = None,
                "health_checks[0].unhealthy_threshold",
                "is required",
            ),
            (
                |m| m.health_checks[0].healthy_threshold = Some(UInt32Value { value: 0 }),
                "health_checks[0].healthy_threshold",
                "must not be 0",
            ),
            (
                |m| m.health_checks[0].alt_port = Some(UInt32Value { value: 65_536 }),
                "health_checks[0].alt_port",
                "65536 is not a port",
            ),
            (
                |m| m.health_checks[0].no_traffic_interval = Some(Duration::default()),
                "health_checks[0].no_traffic_interval",
                "greater than zero",
            ),
            (
                |m| m.health_checks[0].transport_socket_match_criteria = Some(Default::default()),
                "health_checks[0].transport_socket_match_criteria",
                "checks use the cluster's transport socket",
            ),
            (
                |m| m.health_checks[0].tls_options = Some(Default::default()),
                "health_checks[0].tls_options",
                "checks speak what calls speak",
            ),
            (
                |m| m.health_checks[0].interval_jitter = Some(Duration { seconds: -1, nanos: 0 }),
                "health_checks[0].interval_jitter",
                "not a valid duration",
            ),
            (
                |m| m.health_checks[0].initial_jitter = Some(Duration { seconds: -1, nanos: 0 }),
                "health_checks[0].initial_jitter",
                "not a valid duration",
            ),
            (
                |m| m.health_checks[0].no_traffic_healthy_interval = Some(Duration::default()),
                "health_checks[0].no_traffic_healthy_interval",
                "greater than zero",
            ),
            (
                |m| m.health_checks[0].unhealthy_interval = Some(Duration::default()),
                "health_checks[0].unhealthy_interval",
                "greater than zero",
            ),
            (
                |m| m.health_checks[0].unhealthy_edge_interval = Some(Duration::default()),
                "health_checks[0].unhealthy_edge_interval",
                "greater than zero",
            ),
            (
                |m| m.health_checks[0].healthy_edge_interval = Some(Duration::default()),
                "health_checks[0].healthy_edge_interval",
                "greater than zero",
            ),
            (
                |m| {
                    m.health_checks[0].health_checker =
                        Some(HealthChecker::CustomHealthCheck(Default::default()));
                },
                "health_checks[0].custom_health_check",
                "use grpc_health_check or tcp_health_check",
            ),
            (
                |m| {
                    let proxy_protocol_config = Some(Default::default());
                    let check = TcpHealthCheck { proxy_protocol_config, ..Default::default() };
                    m.health_checks[0].health_checker = Some(HealthChecker::TcpHealthCheck(check));
                },
                "health_checks[0].tcp_health_check.proxy_protocol_config",
                "not supported",
            ),
            (
                |m| {
                    let check = TcpHealthCheck { receive: vec![Payload::default()], ..Default::default() };
                    m.health_checks[0].health_checker = Some(HealthChecker::TcpHealthCheck(check));
                },
                "health_checks[0].tcp_health_check.receive[0]",
                "not empty",
            ),
            (
                |m| asking(m, "a b", "v"),
                "health_checks[0].grpc_health_check.initial_metadata[0].header.key",
                "invalid HTTP header name",
            ),
            (
                |m| asking(m, "a", "\n"),
                "health_checks[0].grpc_health_check.initial_metadata[0].header.value",
                "failed to parse header value",
            ),
            (|m| m.health_checks[0].health_checker = None, "health_checks[0].health_checker", "is required"),
            (
                |m| {
                    m.health_checks[0].health_checker =
                        Some(HealthChecker::HttpHealthCheck(HttpHealthCheck::default()));
                },
                "health_checks[0].http_health_check",
                "gRPC servers are asked by grpc_health_check",
            ),
            (|m| tcp(m, "0g"), "health_checks[0].tcp_health_check.send.text", "hexadecimal"),
            (|m| tcp(m, "000"), "health_checks[0].tcp_health_check.send.text", "even number"),
            (|m| tcp(m, ""), "health_checks[0].tcp_health_check.send", "not empty"),
            (
                |m| {
                    let check =
                        GrpcHealthCheck { initial_metadata: vec![Default::default()], ..Default::default() };
                    m.health_checks[0].health_checker = Some(HealthChecker::GrpcHealthCheck(check));
                },
                "health_checks[0].grpc_health_check.initial_metadata[0].header",
                "is required",
            ),
        ],
    );
    let mut message = checked();
    tcp(&mut message, "00fF");
    let probe = &parsed(&message).health_check.unwrap().probe;
    assert_eq!(*probe, HealthProbe::Tcp { send: bytes::Bytes::from_static(b"\x00\xff"), receive: vec![] });
}
