//! Clusters.

use super::{duration, fraction, name, origin, positive, tls::upstream_tls};
use crate::{matcher::Fraction, resource::cluster::*};
use proptest::{option, prelude::*};
use std::{sync::Arc, time::Duration};

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

pub(in crate::resource::tests) fn cluster() -> impl Strategy<Value = Cluster> {
    let lb = prop_oneof![
        Just(LbPolicy::RoundRobin),
        (2..=10_u32).prop_map(|choices| LbPolicy::LeastRequest { choices }),
        Just(LbPolicy::Random),
        any::<bool>().prop_map(|shuffle| LbPolicy::PickFirst { shuffle }),
    ];
    let panic = (1..=1_000_000_u32).prop_map(Fraction::per_million);
    (
        (name(), name(), lb, breakers(), option::of(outlier())),
        (option::of(upstream_tls()), connection(), option::of(panic), option::of(origin())),
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
