//! Valid values of every resource, for property tests.

use super::super::{
    Locality, cluster::*, endpoint::*, fault::*, filter::*, listener::*, rbac::*, retry::*, route::*, tls::*,
};
use crate::{
    matcher::{
        DomainPattern, Fraction, HeaderMatch, HeaderMatcher, HeaderOrPseudo, PathMatcher, StringMatcher,
    },
    name::Name,
};
use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

fn name() -> impl Strategy<Value = Name> {
    "[a-z][a-z0-9|.:_-]{0,20}".prop_map(Name::from)
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "[ -~é]{0,12}".prop_map(Arc::from)
}

fn some_text() -> impl Strategy<Value = Arc<str>> {
    "[ -~é]{1,12}".prop_map(Arc::from)
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..100_000_u64, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn positive() -> impl Strategy<Value = Duration> {
    duration().prop_map(|duration| duration + Duration::from_millis(1))
}

fn fraction() -> impl Strategy<Value = Fraction> {
    (0..=1_000_000_u32).prop_map(Fraction::per_million)
}

fn weight() -> impl Strategy<Value = NonZeroU32> {
    (1..1_000_000_u32).prop_map(|weight| NonZeroU32::new(weight).unwrap())
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn network() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=32_u8).prop_map(|(ip, length)| IpNet::new(ip, length).unwrap().trunc())
}

// ---- matchers ----

fn string() -> impl Strategy<Value = StringMatcher> {
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(text, fold)| StringMatcher::exact(&text, fold)),
        (some_text(), any::<bool>()).prop_map(|(text, fold)| StringMatcher::prefix(&text, fold).unwrap()),
        (some_text(), any::<bool>()).prop_map(|(text, fold)| StringMatcher::suffix(&text, fold).unwrap()),
        (some_text(), any::<bool>()).prop_map(|(text, fold)| StringMatcher::contains(&text, fold).unwrap()),
        some_text().prop_map(|text| StringMatcher::regex(&regex::escape(&text)).unwrap()),
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "x-[a-z0-9-]{1,10}".prop_map(|name| HeaderName::try_from(name).unwrap())
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    prop_oneof![
        "[ -~]{0,12}".prop_map(|value| HeaderValue::try_from(value).unwrap()),
        vec(0x80..=0xff_u8, 1..4).prop_map(|value| HeaderValue::from_bytes(&value).unwrap()),
    ]
}

fn authority() -> impl Strategy<Value = HeaderValue> {
    "[a-z.]{1,12}".prop_map(|value| HeaderValue::try_from(value).unwrap())
}

fn header() -> impl Strategy<Value = HeaderMatcher> {
    let name = prop_oneof![
        4 => header_name().prop_map(HeaderOrPseudo::Header),
        1 => Just(HeaderOrPseudo::Authority),
        1 => Just(HeaderOrPseudo::Path),
        1 => Just(HeaderOrPseudo::Method),
    ];
    let kind = prop_oneof![
        string().prop_map(HeaderMatch::String),
        any::<(i64, i64)>().prop_map(|(a, b)| HeaderMatch::Range { start: a.min(b), end: a.max(b) }),
        any::<bool>().prop_map(HeaderMatch::Present),
    ];
    (name, kind, any::<bool>(), any::<bool>()).prop_map(|(name, kind, invert, treat_missing_as_empty)| {
        HeaderMatcher { name, kind, invert, treat_missing_as_empty }
    })
}

fn headers() -> impl Strategy<Value = Vec<HeaderMatcher>> {
    vec(header(), 0..3)
}

fn path() -> impl Strategy<Value = PathMatcher> {
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(text, fold)| PathMatcher::prefix(&text, fold)),
        (text(), any::<bool>()).prop_map(|(text, fold)| PathMatcher::exact(&text, fold)),
        some_text().prop_map(|text| PathMatcher::regex(&regex::escape(&text)).unwrap()),
    ]
}

// ---- filters ----

fn fault() -> impl Strategy<Value = Fault> {
    let delay = prop_oneof![positive().prop_map(DelayKind::Fixed), Just(DelayKind::Header)];
    let abort = prop_oneof![
        (200..=599_u16).prop_map(AbortKind::Http),
        (0..20_u32).prop_map(AbortKind::Grpc),
        Just(AbortKind::Header),
    ];
    let delay = (delay, fraction()).prop_map(|(kind, fraction)| FaultDelay { kind, fraction });
    let abort = (abort, fraction()).prop_map(|(kind, fraction)| FaultAbort { kind, fraction });
    (option::of(delay), option::of(abort), headers(), any::<Option<u32>>())
        .prop_map(|(delay, abort, headers, max_active)| Fault { delay, abort, headers, max_active })
}

fn permission() -> impl Strategy<Value = Permission> {
    let leaf = prop_oneof![
        Just(Permission::Any),
        header().prop_map(Permission::Header),
        string().prop_map(Permission::UrlPath),
        network().prop_map(Permission::DestinationIp),
        any::<(u16, u16)>().prop_map(|(a, b)| Permission::DestinationPort(a.min(b)..=a.max(b))),
        string().prop_map(Permission::RequestedServerName),
        any::<bool>().prop_map(|invert| Permission::Metadata { invert }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Permission::Not(Box::new(inner))),
            vec(inner.clone(), 1..3).prop_map(Permission::And),
            vec(inner, 1..3).prop_map(Permission::Or),
        ]
    })
}

fn principal() -> impl Strategy<Value = Principal> {
    let leaf = prop_oneof![
        Just(Principal::Any),
        option::of(string()).prop_map(Principal::Authenticated),
        network().prop_map(Principal::RemoteIp),
        header().prop_map(Principal::Header),
        string().prop_map(Principal::UrlPath),
        any::<bool>().prop_map(|invert| Principal::Metadata { invert }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Principal::Not(Box::new(inner))),
            vec(inner.clone(), 1..3).prop_map(Principal::And),
            vec(inner, 1..3).prop_map(Principal::Or),
        ]
    })
}

fn rbac() -> impl Strategy<Value = Rbac> {
    let policy = (vec(permission(), 1..3), vec(principal(), 1..3))
        .prop_map(|(permissions, principals)| Policy { permissions, principals });
    let action = prop_oneof![Just(RbacAction::Allow), Just(RbacAction::Deny)];
    let policies = vec((text(), policy), 0..4).prop_map(|policies| policies.into_iter().collect());
    let rules = (action, policies).prop_map(|(action, policies)| Rules { action, policies });
    option::of(rules).prop_map(|rules| Rbac { rules })
}

fn overrides() -> impl Strategy<Value = FilterOverrides> {
    let one = prop_oneof![
        Just(FilterOverride::Disabled),
        fault().prop_map(|fault| FilterOverride::Config(FilterConfig::Fault(Arc::new(fault)))),
        rbac().prop_map(|rbac| FilterOverride::Config(FilterConfig::Rbac(Arc::new(rbac)))),
    ];
    vec((name(), one), 0..3).prop_map(|overrides| overrides.into_iter().collect())
}

/// Filters of one side, the router last.
fn filters(server: bool) -> impl Strategy<Value = Vec<HttpFilter>> {
    let of_client = fault().prop_map(|fault| FilterConfig::Fault(Arc::new(fault))).boxed();
    let of_server = rbac().prop_map(|rbac| FilterConfig::Rbac(Arc::new(rbac))).boxed();
    let config = if server { of_server } else { of_client };
    vec((name(), config, any::<bool>()), 0..3).prop_map(|filters| {
        let mut seen = BTreeSet::new();
        let filters = filters.into_iter().filter(|(name, ..)| seen.insert(name.clone()));
        let one = |(name, config, disabled)| HttpFilter { name, config, disabled };
        let router = HttpFilter { name: "ROUTER".into(), config: FilterConfig::Router, disabled: false };
        filters.map(one).chain([router]).collect()
    })
}

// ---- routes ----

fn header_mutation() -> impl Strategy<Value = HeaderMutation> {
    let action = prop_oneof![
        Just(AppendAction::AppendIfExistsOrAdd),
        Just(AppendAction::AddIfAbsent),
        Just(AppendAction::OverwriteIfExistsOrAdd),
        Just(AppendAction::OverwriteIfExists),
    ];
    let addition = (header_name(), header_value(), action).prop_map(|(name, value, action)| HeaderAddition {
        name,
        value,
        action,
    });
    (vec(addition, 0..2), vec(header_name(), 0..2)).prop_map(|(add, remove)| HeaderMutation { add, remove })
}

fn mutations() -> impl Strategy<Value = HeaderMutations> {
    (header_mutation(), header_mutation())
        .prop_map(|(request, response)| HeaderMutations { request, response })
}

fn retry_on() -> impl Strategy<Value = RetryOn> {
    const TOKENS: [&str; 15] = [
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "refused-stream",
        "retriable-4xx",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
    ];
    prop::sample::subsequence(TOKENS.to_vec(), 0..15).prop_map(|tokens| RetryOn::parse(&tokens.join(",")))
}

fn retry() -> impl Strategy<Value = RetryPolicy> {
    let back_off = (positive(), duration()).prop_map(|(base, more)| BackOff { base, max: base + more });
    let format = prop_oneof![Just(ResetFormat::Seconds), Just(ResetFormat::UnixTimestamp)];
    let limited = (vec((header_name(), format), 1..3), positive())
        .prop_map(|(headers, max)| RateLimitedBackOff { headers, max });
    (
        (retry_on(), 1..10_u32, option::of(duration()), option::of(duration()), back_off),
        (any::<bool>(), 1..=u32::MAX, vec(100..600_u16, 0..3), headers(), headers(), option::of(limited)),
    )
        .prop_map(|((on, num_retries, per_try_timeout, per_try_idle_timeout, back_off), rest)| {
            let (avoid_previous_hosts, host_selection_attempts, codes, response, request, rate_limited) =
                rest;
            RetryPolicy {
                on,
                num_retries,
                per_try_timeout,
                per_try_idle_timeout,
                back_off,
                avoid_previous_hosts,
                host_selection_attempts,
                retriable_status_codes: codes,
                retriable_headers: response,
                retriable_request_headers: request,
                rate_limited,
            }
        })
}

fn regex_rewrite() -> impl Strategy<Value = RegexRewrite> {
    (text(), "[a-z]{0,3}").prop_map(|(text, substitution)| {
        RegexRewrite::new(&format!("({})", regex::escape(&text)), &format!("{substitution}\\1")).unwrap()
    })
}

fn destination() -> impl Strategy<Value = Destination> {
    let choice = (name(), weight(), mutations(), overrides(), option::of(authority())).prop_map(
        |(cluster, weight, headers, overrides, authority)| WeightedCluster {
            cluster,
            weight,
            headers,
            overrides,
            authority,
        },
    );
    prop_oneof![name().prop_map(Destination::Cluster), vec(choice, 1..3).prop_map(Destination::Weighted),]
}

fn forward() -> impl Strategy<Value = Forward> {
    let key = prop_oneof![
        (header_name(), option::of(regex_rewrite()))
            .prop_map(|(name, rewrite)| HashKey::Header { name, rewrite }),
        Just(HashKey::ChannelId),
    ];
    let hash = (key, any::<bool>()).prop_map(|(key, terminal)| HashPolicy { key, terminal });
    let rewrite =
        prop_oneof![some_text().prop_map(PathRewrite::Prefix), regex_rewrite().prop_map(PathRewrite::Regex),];
    let mirror = (name(), fraction()).prop_map(|(cluster, fraction)| Mirror { cluster, fraction });
    let host = prop_oneof![
        Just((None, false)),
        Just((None, true)),
        authority().prop_map(|authority| (Some(authority), false)),
    ];
    let bounds = (option::of(duration()), option::of(duration()), option::of(duration()));
    (
        destination(),
        bounds,
        option::of(retry()),
        vec(hash, 0..2),
        host,
        option::of(rewrite),
        vec(mirror, 0..2),
    )
        .prop_map(|(destination, bounds, retry, hash, host, path_rewrite, mirrors)| Forward {
            destination,
            timeout: bounds.0,
            max_stream_duration: bounds.1,
            grpc_timeout_header_max: bounds.2,
            retry: retry.map(Arc::new),
            hash,
            authority: host.0,
            auto_host_rewrite: host.1,
            path_rewrite,
            mirrors,
        })
}

fn route() -> impl Strategy<Value = Arc<Route>> {
    let query = (some_text(), option::of(string())).prop_map(|(name, value)| QueryMatcher { name, value });
    let matches = (path(), headers(), vec(query, 0..2), option::of(fraction()))
        .prop_map(|(path, headers, query, fraction)| RouteMatch { path, headers, query, fraction });
    let action = prop_oneof![
        4 => forward().prop_map(|forward| RouteAction::Forward(Box::new(forward))),
        1 => Just(RouteAction::NonForwarding),
        1 => Just(RouteAction::Unsupported("redirect")),
        1 => Just(RouteAction::Unsupported("direct_response")),
        1 => Just(RouteAction::Unsupported("filter_action")),
    ];
    (text(), matches, action, overrides(), mutations(), option::of(some_text())).prop_map(
        |(name, matches, action, overrides, headers, origin)| {
            Arc::new(Route { name, matches, action, overrides, headers, origin })
        },
    )
}

pub(super) fn route_configuration() -> impl Strategy<Value = RouteConfiguration> {
    let host = (
        some_text(),
        vec("[*]?[a-z]{1,8}", 1..3),
        vec(route(), 0..3),
        option::of(retry()),
        overrides(),
        mutations(),
    );
    (name(), vec(host, 0..3)).prop_map(|(name, hosts)| {
        let hosts = hosts.into_iter().enumerate().map(|(i, host)| {
            let (name, domains, routes, retry, overrides, headers) = host;
            let domains = domains.iter().enumerate();
            let domains =
                domains.map(|(j, domain)| DomainPattern::parse(&format!("{domain}{i}{j}")).unwrap());
            let (domains, retry) = (domains.collect(), retry.map(Arc::new));
            Arc::new(VirtualHost { name, domains, routes, retry, overrides, headers })
        });
        RouteConfiguration { name, virtual_hosts: hosts.collect() }
    })
}

// ---- listeners ----

fn manager(server: bool) -> impl Strategy<Value = HttpConnectionManager> {
    let routes = prop_oneof![
        name().prop_map(RouteSource::Rds),
        route_configuration().prop_map(|routes| RouteSource::Inline(Arc::new(routes))),
    ];
    (routes, filters(server), option::of(duration())).prop_map(|(routes, filters, max_stream_duration)| {
        HttpConnectionManager { routes, filters, max_stream_duration }
    })
}

fn downstream_tls() -> impl Strategy<Value = DownstreamTls> {
    any::<(bool, bool)>().prop_map(|(verifies, requires)| DownstreamTls {
        identity: "default".into(),
        client_roots: verifies.then(|| "default".into()),
        require_client_certificate: verifies && requires,
    })
}

fn chain_match() -> impl Strategy<Value = FilterChainMatch> {
    let transport = prop_oneof![
        Just(TransportProtocol::Any),
        Just(TransportProtocol::RawBuffer),
        Just(TransportProtocol::Tls)
    ];
    let source_type =
        prop_oneof![Just(SourceType::Any), Just(SourceType::SameIpOrLoopback), Just(SourceType::External)];
    (vec(network(), 0..2), transport, source_type, vec(network(), 0..2), vec(any::<u16>(), 0..2)).prop_map(
        |(destination_prefixes, transport, source_type, source_prefixes, source_ports)| FilterChainMatch {
            destination_prefixes,
            transport,
            source_type,
            source_prefixes,
            source_ports,
        },
    )
}

fn chain() -> impl Strategy<Value = FilterChain> {
    (text(), chain_match(), option::of(downstream_tls()), manager(true))
        .prop_map(|(name, matches, tls, http)| FilterChain { name, matches, tls, http })
}

pub(super) fn listener() -> impl Strategy<Value = Listener> {
    let server = (any::<IpAddr>(), any::<u16>(), vec(chain(), 1..3), option::of(chain())).prop_map(
        |(address, port, chains, default_filter_chain)| {
            // No two chains match the same.
            let chains = chains.into_iter().enumerate().map(|(i, mut chain)| {
                chain.matches.source_ports = vec![u16::try_from(i).unwrap() + 1];
                chain
            });
            ServerListener { address, port, filter_chains: chains.collect(), default_filter_chain }
        },
    );
    let kind = prop_oneof![manager(false).prop_map(ListenerKind::Api), server.prop_map(ListenerKind::Server)];
    (name(), kind).prop_map(|(name, kind)| Listener { name, kind })
}

// ---- clusters ----

fn upstream_tls() -> impl Strategy<Value = UpstreamTls> {
    let roots = prop_oneof![Just(Roots::Provider("default".into())), Just(Roots::System)];
    (
        option::of(Just(Arc::from("default"))),
        roots,
        vec(string(), 0..3),
        option::of(some_text()),
        any::<[bool; 3]>(),
    )
        .prop_map(|(identity, roots, sans, sni, flags)| UpstreamTls {
            identity,
            roots,
            sans,
            sni,
            auto_host_sni: flags[0],
            auto_sni_san_validation: flags[1],
            only_mesh_endpoints: flags[2],
        })
}

fn breakers() -> impl Strategy<Value = CircuitBreakers> {
    let budget = (fraction(), any::<u32>())
        .prop_map(|(budget, min_retry_concurrency)| RetryBudget { budget, min_retry_concurrency });
    let limits = any::<(u32, Option<u32>, Option<u32>, Option<u32>)>();
    (limits, option::of(budget), 1..=10_u32).prop_map(
        |((max_requests, max_pending_requests, max_connections, max_retries), retry_budget, per_endpoint)| {
            CircuitBreakers {
                max_requests,
                max_pending_requests,
                max_connections,
                max_retries,
                retry_budget,
                max_connections_per_endpoint: per_endpoint,
            }
        },
    )
}

fn outlier() -> impl Strategy<Value = OutlierDetection> {
    let consecutive = || {
        option::of(
            (1..=u32::MAX, 1..=100_u32)
                .prop_map(|(threshold, enforcing)| Consecutive { threshold, enforcing }),
        )
    };
    let success = (any::<u32>(), 1..=100_u32, any::<u32>(), any::<u32>()).prop_map(
        |(stdev_factor, enforcing, minimum_hosts, request_volume)| SuccessRate {
            stdev_factor,
            enforcing,
            minimum_hosts,
            request_volume,
        },
    );
    let failure = (0..=100_u32, 1..=100_u32, any::<u32>(), any::<u32>()).prop_map(
        |(threshold, enforcing, minimum_hosts, request_volume)| FailurePercentage {
            threshold,
            enforcing,
            minimum_hosts,
            request_volume,
        },
    );
    (
        (positive(), positive(), duration(), 0..=100_u32, any::<bool>()),
        (consecutive(), consecutive(), consecutive()),
        (option::of(success), option::of(failure)),
    )
        .prop_map(|((interval, base, more, max_ejection_percent, split), consecutive, statistics)| {
            OutlierDetection {
                interval,
                base_ejection_time: base,
                max_ejection_time: base + more,
                max_ejection_percent,
                consecutive_5xx: consecutive.0,
                consecutive_gateway_failure: consecutive.1,
                consecutive_local_origin_failure: consecutive.2.filter(|_| split),
                split_external_local_origin_errors: split,
                success_rate: statistics.0,
                failure_percentage: statistics.1,
            }
        })
}

fn connection() -> impl Strategy<Value = ConnectionOptions> {
    let http2 = (positive(), positive()).prop_map(|(interval, timeout)| Http2Keepalive { interval, timeout });
    let seconds = || option::of((1..1000_u64).prop_map(Duration::from_secs));
    let tcp = (any::<Option<u32>>(), seconds(), seconds())
        .prop_map(|(probes, time, interval)| TcpKeepalive { probes, time, interval });
    (
        (positive(), any::<u32>(), option::of(duration()), option::of(duration())),
        (option::of(http2), option::of(tcp), option::of(1..=i32::MAX.unsigned_abs())),
    )
        .prop_map(
            |((connect_timeout, max_requests, idle_timeout, max_duration), (http2, tcp, streams))| {
                ConnectionOptions {
                    connect_timeout,
                    max_requests_per_connection: max_requests,
                    idle_timeout,
                    max_connection_duration: max_duration,
                    http2_keepalive: http2,
                    tcp_keepalive: tcp,
                    max_concurrent_streams: streams,
                }
            },
        )
}

pub(super) fn cluster() -> impl Strategy<Value = Cluster> {
    let lb = prop_oneof![
        Just(LbPolicy::RoundRobin),
        (2..=10_u32).prop_map(|choices| LbPolicy::LeastRequest { choices }),
        Just(LbPolicy::Random),
        any::<bool>().prop_map(|shuffle| LbPolicy::PickFirst { shuffle }),
    ];
    let panic = (1..=1_000_000_u32).prop_map(Fraction::per_million);
    (
        (name(), name(), lb, breakers(), option::of(outlier())),
        (option::of(upstream_tls()), connection(), option::of(panic), option::of(some_text())),
    )
        .prop_map(|((name, eds, lb, circuit_breakers, outlier_detection), rest)| Cluster {
            name,
            discovery: Discovery::Eds(eds),
            lb,
            circuit_breakers,
            outlier_detection,
            tls: rest.0.map(Arc::new),
            connection: rest.1,
            panic_threshold: rest.2,
            origin: rest.3,
        })
}

// ---- endpoints ----

pub(super) fn assignment() -> impl Strategy<Value = ClusterLoadAssignment> {
    let health = prop_oneof![
        Just(HealthStatus::Unknown),
        Just(HealthStatus::Healthy),
        Just(HealthStatus::Degraded),
        Just(HealthStatus::Draining),
        Just(HealthStatus::Unhealthy),
    ];
    let endpoint = (vec(address(), 1..3), weight(), health, option::of(some_text()), any::<bool>()).prop_map(
        |(addresses, weight, health, hostname, mesh_tls)| Endpoint {
            addresses,
            weight,
            health,
            hostname,
            mesh_tls,
        },
    );
    let locality =
        (text(), text(), text()).prop_map(|(region, zone, sub_zone)| Locality { region, zone, sub_zone });
    let endpoints = (locality, weight(), vec(endpoint, 0..3));
    let drop = (text(), fraction()).prop_map(|(category, fraction)| DropOverload { category, fraction });
    (name(), vec(vec(endpoints, 1..3), 0..3), vec(drop, 0..2)).prop_map(|(name, priorities, drops)| {
        let mut addresses = BTreeSet::new();
        let priorities = priorities.into_iter().map(|localities| {
            let mut by_locality = BTreeMap::new();
            for (locality, weight, endpoints) in localities {
                let endpoints: Vec<Endpoint> = endpoints
                    .into_iter()
                    .map(|mut endpoint| {
                        endpoint.addresses.retain(|address| addresses.insert(*address));
                        endpoint
                    })
                    .filter(|endpoint| !endpoint.addresses.is_empty())
                    .collect();
                by_locality.insert(locality, (weight, endpoints));
            }
            let localities = by_locality
                .into_iter()
                .map(|(locality, (weight, endpoints))| LocalityEndpoints { locality, weight, endpoints });
            Priority { localities: localities.collect() }
        });
        ClusterLoadAssignment { name, priorities: priorities.collect(), drops }
    })
}
