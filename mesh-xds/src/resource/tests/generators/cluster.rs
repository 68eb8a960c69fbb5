//! Clusters.

use super::{
    address, duration,
    endpoint::{assignment, drops, endpoint, host, locality, priorities},
    fraction, name, origin, positive, some_text, text,
    tls::upstream_tls,
    weight,
};
use crate::{
    matcher::Fraction,
    name::Name,
    resource::{ClusterLoadAssignment, cluster::*, endpoint::HealthStatus},
};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
};
use std::{sync::Arc, time::Duration};

fn breakers() -> impl Strategy<Value = CircuitBreakers> {
    let budget = || {
        (fraction(), any::<u32>())
            .prop_map(|(budget, min_retry_concurrency)| RetryBudget { budget, min_retry_concurrency })
    };
    let limits = any::<(u32, Option<u32>, Option<u32>, Option<u32>)>();
    let high = (any::<(u32, Option<u32>, Option<u32>)>(), option::of(budget())).prop_map(
        |((max_requests, max_pending_requests, max_retries), retry_budget)| Thresholds {
            max_requests,
            max_pending_requests,
            max_retries,
            retry_budget,
        },
    );
    (limits, option::of(budget()), 1..=10_u32, high).prop_map(
        |(
            (max_requests, max_pending_requests, max_connections, max_retries),
            retry_budget,
            per_endpoint,
            high,
        )| {
            CircuitBreakers {
                max_requests,
                max_pending_requests,
                max_connections,
                max_retries,
                retry_budget,
                max_connections_per_endpoint: per_endpoint,
                high,
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
        (duration(), duration(), duration(), 0..=100_u32, any::<[bool; 2]>()),
        (consecutive(), consecutive(), consecutive()),
        (option::of(success), option::of(failure)),
        (option::of(1..=100_u32), option::of(1..=100_u32), option::of(duration()), option::of(codes())),
    )
        .prop_map(
            |((interval, base, more, max_ejection_percent, flags), consecutive, statistics, rest)| {
                let [split, uneject_by_health_check] = flags;
                let (success, failure) = statistics;
                let (local_success, local_failure, jitter, errors) = rest;
                // The numbers are the same, only the chances differ.
                let numbers =
                    SuccessRate { stdev_factor: 1, enforcing: 1, minimum_hosts: 2, request_volume: 3 };
                let local_success = local_success.filter(|_| split);
                let local_success =
                    local_success.map(|enforcing| SuccessRate { enforcing, ..success.unwrap_or(numbers) });
                let numbers =
                    FailurePercentage { threshold: 4, enforcing: 1, minimum_hosts: 5, request_volume: 6 };
                let local_failure = local_failure.filter(|_| split);
                let local_failure = local_failure
                    .map(|enforcing| FailurePercentage { enforcing, ..failure.unwrap_or(numbers) });
                OutlierDetection {
                    interval: interval.max(OutlierDetection::LEAST_INTERVAL),
                    base_ejection_time: base,
                    max_ejection_time: base + more,
                    max_ejection_percent,
                    errors,
                    consecutive_5xx: consecutive.0,
                    consecutive_gateway_failure: consecutive.1,
                    consecutive_local_origin_failure: consecutive.2.filter(|_| split),
                    split_external_local_origin_errors: split,
                    success_rate: success,
                    failure_percentage: failure,
                    local_origin: LocalOrigin {
                        success_rate: local_success,
                        failure_percentage: local_failure,
                    },
                    max_ejection_time_jitter: jitter.unwrap_or_default(),
                    uneject_by_health_check,
                }
            },
        )
}

fn codes() -> impl Strategy<Value = HttpCodes> {
    btree_set(HttpCodes::RANGE, 1..7).prop_map(HttpCodes::from_iter)
}

fn window() -> impl Strategy<Value = u32> {
    65_535..=i32::MAX.unsigned_abs()
}

fn connection() -> impl Strategy<Value = ConnectionOptions> {
    let http2 = (positive(), positive()).prop_map(|(interval, timeout)| Http2Keepalive { interval, timeout });
    let seconds = || option::of((1..1000_u64).prop_map(Duration::from_secs));
    let tcp = (option::of(1..=u32::MAX), seconds(), seconds())
        .prop_map(|(probes, time, interval)| TcpKeepalive { probes, time, interval });
    (
        (positive(), any::<u32>(), option::of(duration()), option::of(duration())),
        (option::of(http2), option::of(tcp), option::of(1..=i32::MAX.unsigned_abs())),
        (option::of(window()), option::of(window())),
    )
        .prop_map(
            |(
                (connect_timeout, max_requests, idle_timeout, max_duration),
                (http2, tcp, streams),
                windows,
            )| {
                ConnectionOptions {
                    connect_timeout,
                    max_requests_per_connection: max_requests,
                    idle_timeout,
                    max_connection_duration: max_duration,
                    http2_keepalive: http2,
                    tcp_keepalive: tcp,
                    max_concurrent_streams: streams,
                    initial_stream_window: windows.0,
                    initial_connection_window: windows.1,
                }
            },
        )
}

fn resolution() -> impl Strategy<Value = DnsResolution> {
    let least = || duration().prop_map(|time| time + Duration::from_millis(2));
    let failure = (least(), duration()).prop_map(|(base, more)| DnsRefresh { base, max: base + more });
    let floor = duration().prop_map(|time| time + Duration::from_secs(1));
    let family = prop_oneof![
        Just(DnsLookupFamily::Auto),
        Just(DnsLookupFamily::V4Only),
        Just(DnsLookupFamily::V6Only),
        Just(DnsLookupFamily::V4Preferred),
        Just(DnsLookupFamily::All),
    ];
    (least(), option::of(failure), any::<bool>(), option::of(floor), duration(), family).prop_map(
        |(refresh_rate, failure_refresh, respect_ttl, min_refresh_rate, jitter, family)| DnsResolution {
            refresh_rate,
            failure_refresh,
            respect_ttl,
            min_refresh_rate,
            jitter,
            family,
        },
    )
}

/// The endpoints of a STATIC cluster get its name.
fn discovery() -> impl Strategy<Value = Discovery> {
    let strict = (priorities(host(), |_, _| true), drops(), resolution())
        .prop_map(|(priorities, drops, dns)| StrictDns { priorities, drops, dns });
    let logical = (locality(), endpoint(host()), drops(), resolution())
        .prop_map(|(locality, endpoint, drops, dns)| LogicalDns { locality, endpoint, drops, dns });
    // Boxed, as below: strategies by value, and their trees, grow too large for the stack of a test.
    prop_oneof![
        3 => name().prop_map(Discovery::Eds),
        1 => assignment().prop_map(|assignment| Discovery::Static(Arc::new(assignment))).boxed(),
        1 => strict.prop_map(|strict| Discovery::StrictDns(Arc::new(strict))).boxed(),
        1 => logical.prop_map(|logical| Discovery::LogicalDns(Arc::new(logical))).boxed(),
        1 => vec(name(), 1..4).prop_map(Discovery::Aggregate),
    ]
}

fn named(discovery: Discovery, name: &Name) -> Discovery {
    match discovery {
        Discovery::Static(assignment) => {
            Discovery::Static(Arc::new(ClusterLoadAssignment { name: name.clone(), ..(*assignment).clone() }))
        }
        other => other,
    }
}

fn weighted() -> impl Strategy<Value = ClientSideWeightedRoundRobin> {
    let metric = prop_oneof![
        Just(Utilization::Application),
        Just(Utilization::Cpu),
        Just(Utilization::Memory),
        text().prop_map(Utilization::Named),
        text().prop_map(Utilization::NamedMetric),
    ];
    let update = duration().prop_map(|time| time + Duration::from_millis(100));
    (option::of(duration()), duration(), duration(), update, 0_f32..9.0, vec(metric, 0..3)).prop_map(
        |(out_of_band, blackout, expiration, update, penalty, utilization)| ClientSideWeightedRoundRobin {
            out_of_band,
            blackout_period: blackout,
            weight_expiration_period: expiration,
            weight_update_period: update,
            error_utilization_penalty: penalty,
            utilization,
        },
    )
}

fn lb_policy() -> impl Strategy<Value = LbPolicy> {
    let ring = (1..=1024_u32, 1024..=RingHash::LIMIT, any::<bool>())
        .prop_map(|(min_size, max_size, use_hostname)| RingHash { min_size, max_size, use_hostname });
    let prime = prop_oneof![Just(2), Just(3), Just(251), Just(65_537), Just(Maglev::LIMIT)];
    let maglev =
        (prime, any::<bool>()).prop_map(|(table_size, use_hostname)| Maglev { table_size, use_hostname });
    prop_oneof![
        2 => Just(LbPolicy::RoundRobin),
        1 => (2..=10_u32, prop_oneof![Just(1.0), 0_f64..3.0]).prop_map(|(choices, active_request_bias)| {
            LbPolicy::LeastRequest { choices, active_request_bias }
        }),
        1 => Just(LbPolicy::Random),
        1 => any::<bool>().prop_map(|shuffle| LbPolicy::PickFirst { shuffle }),
        1 => ring.prop_map(LbPolicy::RingHash),
        1 => maglev.prop_map(LbPolicy::Maglev),
        1 => weighted().prop_map(|weighted| LbPolicy::ClientSideWeightedRoundRobin(Box::new(weighted))),
    ]
}

fn lb_options() -> impl Strategy<Value = LbOptions> {
    let zone = (fraction(), any::<u64>(), any::<bool>()).prop_map(|(routing, min_cluster_size, fail)| {
        LocalityLb::ZoneAware(ZoneAware {
            routing_enabled: routing,
            min_cluster_size,
            fail_traffic_on_panic: fail,
        })
    });
    let localities = prop_oneof![2 => Just(LocalityLb::Weighted), 1 => Just(LocalityLb::Flat), 1 => zone];
    let scope = prop_oneof![Just(SubsetScope::Priority), Just(SubsetScope::Locality)];
    let subsetting = (weight(), scope).prop_map(|(size, scope)| Subsetting { size, scope });
    let slow_start = (positive(), 0.01_f64..9.0, fraction())
        .prop_map(|(window, aggression, min_weight)| SlowStart { window, aggression, min_weight });
    let status = prop_oneof![
        Just(HealthStatus::Unknown),
        Just(HealthStatus::Healthy),
        Just(HealthStatus::Degraded),
        Just(HealthStatus::Draining)
    ];
    let statuses = prop_oneof![
        2 => Just(OverrideHostStatus::default()),
        1 => vec(status, 0..4).prop_map(OverrideHostStatus::of),
    ];
    (localities, option::of(subsetting), option::of(slow_start), statuses).prop_map(
        |(localities, subsetting, slow_start, override_host_status)| LbOptions {
            localities,
            subsetting,
            slow_start,
            override_host_status,
        },
    )
}

/// What a parser can read out of one cluster.
fn fitting(discovery: &Discovery, lb: LbPolicy, mut options: LbOptions) -> (LbPolicy, LbOptions) {
    if matches!(discovery, Discovery::Aggregate(_)) {
        return (LbPolicy::RoundRobin, LbOptions::default());
    }
    let says_localities =
        matches!(lb, LbPolicy::RoundRobin | LbPolicy::LeastRequest { .. } | LbPolicy::Random);
    if matches!(options.localities, LocalityLb::ZoneAware(_)) && !says_localities {
        options.localities = LocalityLb::Flat;
    }
    if options.subsetting.is_some_and(|subset| subset.scope == SubsetScope::Locality) {
        options.localities = LocalityLb::Weighted;
    }
    if !matches!(
        lb,
        LbPolicy::RoundRobin | LbPolicy::LeastRequest { .. } | LbPolicy::ClientSideWeightedRoundRobin(_)
    ) {
        options.slow_start = None;
    }
    (lb, options)
}

fn health_check() -> impl Strategy<Value = HealthCheck> {
    let header = ("[a-z][a-z-]{0,8}", "[a-z ]{0,8}").prop_map(|(name, value)| {
        (name.parse().unwrap(), http::HeaderValue::try_from(value.trim()).unwrap())
    });
    let grpc = (text(), option::of(some_text()), vec(header, 0..3)).prop_map(
        |(service_name, authority, metadata)| HealthProbe::Grpc { service_name, authority, metadata },
    );
    let bytes = |least| vec(any::<u8>(), least..4_usize).prop_map(bytes::Bytes::from);
    let tcp = (bytes(0), vec(bytes(1), 0..3)).prop_map(|(send, receive)| HealthProbe::Tcp { send, receive });
    let some = || option::of(positive());
    (
        (prop_oneof![grpc, tcp], positive(), positive(), duration(), duration(), any::<u32>()),
        (1..=u32::MAX, 1..=u32::MAX, option::of(1..=u16::MAX), any::<[bool; 2]>()),
        (positive(), some(), some(), some(), some()),
    )
        .prop_map(|((probe, timeout, interval, initial, jitter, percent), rest, intervals)| {
            HealthCheck {
                probe,
                timeout,
                interval,
                initial_jitter: initial,
                interval_jitter: jitter,
                interval_jitter_percent: percent,
                unhealthy_threshold: rest.0,
                healthy_threshold: rest.1,
                alt_port: rest.2,
                reuse_connection: rest.3[0],
                no_traffic_interval: intervals.0,
                no_traffic_healthy_interval: intervals.1,
                unhealthy_interval: intervals.2,
                unhealthy_edge_interval: intervals.3,
                healthy_edge_interval: intervals.4,
                ignore_new_until_first_check: rest.3[1],
            }
        })
}

fn reported() -> impl Strategy<Value = ReportedMetrics> {
    (any::<[bool; 4]>(), btree_set("[a-z]{0,6}".prop_map(Arc::from), 0..3)).prop_map(
        |([cpu, memory, application, all_named], named)| ReportedMetrics {
            cpu,
            memory,
            application,
            all_named,
            named,
        },
    )
}

pub(super) fn tlv() -> impl Strategy<Value = Tlv> {
    (any::<u8>(), vec(any::<u8>(), 1..5)).prop_map(|(kind, value)| Tlv { kind, value: value.into() })
}

fn proxy_protocol() -> impl Strategy<Value = ProxyProtocol> {
    prop_oneof![
        Just(ProxyProtocol::V1),
        vec(tlv(), 0..3).prop_map(|tlvs| ProxyProtocol::V2 { tlvs: tlvs.into() })
    ]
}

pub(crate) fn cluster() -> impl Strategy<Value = Cluster> {
    let panic = (1..=1_000_000_u32).prop_map(Fraction::per_million);
    let telemetry = (option::of(text()), option::of(text()))
        .prop_map(|(service_name, service_namespace)| TelemetryLabels { service_name, service_namespace });
    let proxy = option::of(address()).prop_map(|default_proxy| HttpConnect { default_proxy });
    let around = (option::of(proxy), option::of(proxy_protocol()));
    (
        (
            name(),
            discovery().boxed(),
            lb_policy().boxed(),
            lb_options().boxed(),
            breakers(),
            option::of(outlier().boxed()),
        ),
        (
            option::of(upstream_tls().boxed()),
            around,
            connection().boxed(),
            option::of(panic),
            option::of(origin().boxed()),
        ),
        (
            option::of(health_check().boxed()),
            option::of(reported().boxed()),
            telemetry,
            btree_map(some_text(), some_text(), 0..3),
        ),
    )
        .prop_map(|((name, discovery, lb, lb_options, circuit_breakers, outlier), rest, more)| {
            let (lb, lb_options) = fitting(&discovery, lb, lb_options);
            Cluster {
                discovery: named(discovery, &name),
                name,
                lb,
                lb_options,
                circuit_breakers,
                outlier_detection: outlier,
                health_check: more.0.map(Arc::new),
                tls: rest.0.map(Arc::new),
                http_connect: rest.1.0,
                proxy_protocol: rest.1.1,
                connection: rest.2,
                panic_threshold: rest.3,
                load_reporting: more.1,
                telemetry: more.2,
                audiences: more.3,
                origin: rest.4,
            }
        })
}
