//! The blocks of a traffic policy, one by one, with Istio's defaults.

use crate::{
    compile::client::ClientKind,
    model::{
        Algorithm, ConnectionPool, HashKey, HashTable, LoadBalancer, Located, OutlierDetection as Ejection,
        ProxyProtocol as Header, RetryBudget as Budget, Service,
    },
};
use mesh_xds::{
    matcher::Fraction,
    resource::{
        cluster::{
            CircuitBreakers, ConnectionOptions, Consecutive, Http2Keepalive, LbPolicy, LocalityLb, Maglev,
            OutlierDetection, OverrideHostStatus, ProxyProtocol, RetryBudget, RingHash, SlowStart,
            TcpKeepalive, ZoneAware,
        },
        endpoint::HealthStatus,
        route::{self as xds, HashCookie, HashPolicy, HeaderName},
    },
};
use std::time::Duration;

/// What the endpoints of sessions may be: of a service that has some, one that drains keeps them (Istio). Only our own
/// clients are sent the filter.
pub(super) fn override_host_status(service: &Service, kind: &ClientKind) -> OverrideHostStatus {
    if service.session.is_none() || *kind != ClientKind::Mesh {
        return OverrideHostStatus::default();
    }
    use HealthStatus::{Degraded, Draining, Healthy, Unknown};
    OverrideHostStatus::of([Healthy, Unknown, Degraded, Draining])
}

/// Istio has no TLVs.
pub(super) fn proxy_protocol(version: &Located<Header>) -> ProxyProtocol {
    match version.value {
        Header::V1 => ProxyProtocol::V1,
        Header::V2 => ProxyProtocol::V2 { tlvs: [].into() },
    }
}

/// Istio's default is LEAST_REQUEST for Envoy and ROUND_ROBIN for gRPC; a client of the mesh does what
/// the Envoy would have done. No other gRPC client has RANDOM, and few have LEAST_REQUEST: a cluster that
/// asks for more than a client implements is rejected as a whole, so those get ROUND_ROBIN.
///
/// All of them have ring hash; what they do not have, Maglev, is replaced by it: a key still stays where it is.
pub(super) fn load_balancing(block: Option<&LoadBalancer>, kind: &ClientKind) -> LbPolicy {
    if let Some(hash) = block.and_then(|block| block.consistent_hash.as_ref()) {
        return match hash.table {
            HashTable::Maglev { size } if !matches!(kind, ClientKind::Grpc { .. }) => {
                LbPolicy::Maglev(Maglev { table_size: size, ..Maglev::default() })
            }
            HashTable::Maglev { .. } => LbPolicy::RingHash(RingHash::default()),
            HashTable::Ring { minimum } => {
                let default = RingHash::default();
                LbPolicy::RingHash(RingHash { min_size: minimum.unwrap_or(default.min_size), ..default })
            }
        };
    }
    let algorithm = block.and_then(|block| block.algorithm);
    let grpc = matches!(kind, ClientKind::Grpc { .. });
    match algorithm {
        Some(Algorithm::RoundRobin) => LbPolicy::RoundRobin,
        Some(Algorithm::Random) if !grpc => LbPolicy::Random,
        None if !grpc => LbPolicy::least_request(2),
        Some(Algorithm::LeastRequest) if !grpc || *kind == (ClientKind::Grpc { least_request: true }) => {
            LbPolicy::least_request(2)
        }
        _ => LbPolicy::RoundRobin,
    }
}

/// How a locality is chosen. A ring or a table holds all of them, by their weights: C-core and Node end their
/// processes over one in each locality. gRPC knows no zones.
pub(super) fn localities(block: Option<&LoadBalancer>, policy: &LbPolicy, kind: &ClientKind) -> LocalityLb {
    let zones = block.and_then(|block| block.locality.as_ref()?.zone_aware);
    match (policy, zones) {
        (LbPolicy::RingHash(_) | LbPolicy::Maglev(_), _) => LocalityLb::Flat,
        (_, Some(zones)) if !matches!(kind, ClientKind::Grpc { .. }) => LocalityLb::ZoneAware(ZoneAware {
            min_cluster_size: zones.min_cluster_size.into(),
            ..ZoneAware::default()
        }),
        _ => LocalityLb::default(),
    }
}

/// Warming up. gRPC has it in no policy that these clients are sent.
pub(super) fn slow_start(
    block: Option<&LoadBalancer>,
    policy: &LbPolicy,
    kind: &ClientKind,
) -> Option<SlowStart> {
    let fits = matches!(policy, LbPolicy::RoundRobin | LbPolicy::LeastRequest { .. });
    let warmup = block?.warmup.filter(|_| fits && !matches!(kind, ClientKind::Grpc { .. }))?;
    Some(SlowStart {
        window: warmup.duration,
        aggression: warmup.aggression,
        min_weight: percent(warmup.minimum_percent),
    })
}

/// What the calls to a cluster are hashed by. A gRPC client that is not the mesh's has headers and its channel
/// only: the channel stands for the address of the process that it is in; other keys it would not know.
pub(in crate::compile) fn hash(block: Option<&LoadBalancer>, kind: &ClientKind) -> Option<HashPolicy> {
    let grpc = matches!(kind, ClientKind::Grpc { .. });
    let key = match &block?.consistent_hash.as_ref()?.key {
        HashKey::Header(name) => {
            xds::HashKey::Header { name: HeaderName::from_bytes(name.as_bytes()).ok()?, rewrite: None }
        }
        HashKey::SourceIp if grpc => xds::HashKey::ChannelId,
        HashKey::SourceIp => xds::HashKey::SourceIp,
        HashKey::Cookie { .. } | HashKey::QueryParameter(_) if grpc => return None,
        HashKey::QueryParameter(name) => xds::HashKey::QueryParameter(name.as_str().into()),
        HashKey::Cookie { name, path, ttl, attributes } => xds::HashKey::Cookie(HashCookie {
            name: name.as_str().into(),
            ttl: *ttl,
            path: path.as_str().into(),
            attributes: attributes
                .iter()
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
        }),
    };
    Some(HashPolicy { key, terminal: false })
}

/// Unset limits are no limits; Envoy has to be told so (its own default is 1024).
pub(super) fn circuit_breakers(
    pool: Option<&ConnectionPool>,
    budget: Option<Budget>,
    kind: &ClientKind,
) -> CircuitBreakers {
    let unlimited = matches!(kind, ClientKind::Envoy(_)).then_some(u32::MAX);
    CircuitBreakers {
        max_requests: pool.and_then(|pool| pool.max_requests).unwrap_or(u32::MAX),
        max_pending_requests: pool.and_then(|pool| pool.max_pending_requests).or(unlimited),
        max_connections: pool.and_then(|pool| pool.max_connections).or(unlimited),
        max_retries: pool.and_then(|pool| pool.max_retries).or(unlimited),
        retry_budget: budget.map(|budget| RetryBudget {
            budget: percent(budget.percent),
            min_retry_concurrency: budget.min_retry_concurrency,
        }),
        ..CircuitBreakers::default()
    }
}

pub(super) fn connection(pool: Option<&ConnectionPool>) -> ConnectionOptions {
    let default =
        ConnectionOptions { connect_timeout: Duration::from_secs(10), ..ConnectionOptions::default() };
    let Some(pool) = pool else { return default };
    ConnectionOptions {
        connect_timeout: pool.connect_timeout.unwrap_or(default.connect_timeout),
        max_requests_per_connection: pool.max_requests_per_connection.unwrap_or(0),
        idle_timeout: pool.idle_timeout.or(pool.tcp_idle_timeout),
        max_connection_duration: pool.max_connection_duration,
        http2_keepalive: pool
            .http2_keepalive
            .map(|pings| Http2Keepalive { interval: pings.interval, timeout: pings.timeout }),
        tcp_keepalive: pool.tcp_keepalive.map(|tcp| TcpKeepalive {
            probes: tcp.probes,
            time: tcp.time,
            interval: tcp.interval,
        }),
        max_concurrent_streams: pool.max_concurrent_streams,
        ..default
    }
}

/// Envoy's numbers for Istio's block; an absent counter has Istio's default, zero switches it off.
pub(super) fn outlier_detection(block: &Ejection) -> OutlierDetection {
    let counter = |threshold: u32| (threshold > 0).then_some(Consecutive { threshold, enforcing: 100 });
    let base_ejection_time = block.base_ejection_time.unwrap_or(Duration::from_secs(30));
    let split = block.split_external_local_origin_errors;
    OutlierDetection {
        interval: block.interval.unwrap_or(Duration::from_secs(10)),
        base_ejection_time,
        max_ejection_time: base_ejection_time.max(Duration::from_secs(300)),
        max_ejection_percent: block.max_ejection_percent.unwrap_or(10),
        errors: block.http_error_codes,
        consecutive_5xx: counter(block.consecutive_5xx_errors.unwrap_or(5)),
        consecutive_gateway_failure: counter(block.consecutive_gateway_errors.unwrap_or(0)),
        consecutive_local_origin_failure: if split {
            counter(block.consecutive_local_origin_failures.unwrap_or(5))
        } else {
            None
        },
        split_external_local_origin_errors: split,
        ..OutlierDetection::default()
    }
}

/// `minHealthPercent`; Istio's zero is no panic mode, which only an Envoy has to be told.
pub(super) fn panic_threshold(block: Option<&Ejection>, kind: &ClientKind) -> Option<Fraction> {
    let threshold = block.map_or(0, |block| block.min_health_percent);
    (threshold > 0 || matches!(kind, ClientKind::Envoy(_))).then(|| Fraction::per_million(threshold * 10_000))
}

fn percent(percent: f64) -> Fraction {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range")]
    Fraction::per_million((percent.clamp(0.0, 100.0) * 10_000.0).round() as u32)
}
