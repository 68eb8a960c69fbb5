//! The blocks of a traffic policy from YAML.

use super::{
    ConnectionPool, Http2Keepalive, OutlierDetection, PolicyBlocks, ProxyProtocol, RetryBudget, TcpKeepalive,
    load_balancer, tls,
};
use crate::analysis::Code;
use crate::model::node::Node;
use crate::model::read::{self, Map, Report, located};
use crate::model::written::Written;
use mesh_xds::resource::origin::CLUSTER_SETTINGS;

/// Where blocks were written, for messages that differ by it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Destination,
    Port,
}

pub(super) fn blocks(map: &Map<'_>, used: Level, report: &mut Report) -> PolicyBlocks {
    PolicyBlocks {
        load_balancer: map.one("loadBalancer", report, load_balancer::read),
        connection_pool: map.one("connectionPool", report, connection_pool),
        outlier_detection: map.one("outlierDetection", report, outlier_detection),
        tls: map.one("tls", report, |node, report| tls::read(node, used, report)),
        proxy_protocol: map.one("proxyProtocol", report, located(proxy_protocol)),
        written: Written::of(map, CLUSTER_SETTINGS, report),
    }
}

fn proxy_protocol(node: &Node, report: &mut Report) -> Option<ProxyProtocol> {
    const VERSIONS: [(&str, ProxyProtocol); 2] = [("V1", ProxyProtocol::V1), ("V2", ProxyProtocol::V2)];
    let map = report.map(node, "proxyProtocol", &["version"])?;
    let version = match map.get("version") {
        // Protobuf's default: the first value.
        None => ProxyProtocol::V1,
        Some(version) => read::word("version of the PROXY protocol", &VERSIONS)(version, report)?,
    };
    let what = "`proxyProtocol`, for gRPC clients that are not of the mesh: they do not have it, so that their calls \
                fail. Servers of the mesh do not read the header: it is for servers that do, or that have something \
                before them that does (Envoy's listener filter `proxy_protocol`, a load balancer)";
    report.partly(node.at, what);
    Some(version)
}

fn connection_pool(node: &Node, report: &mut Report) -> Option<ConnectionPool> {
    let map = report.map(node, "connectionPool", &["tcp", "http"])?;
    if !map.has("tcp") && !map.has("http") {
        report.error(node.at, "connectionPool needs `tcp` or `http`");
    }
    let mut pool = ConnectionPool::default();
    map.one("tcp", report, |node, report| tcp_pool(node, &mut pool, report));
    map.one("http", report, |node, report| http_pool(node, &mut pool, report));
    Some(pool)
}

/// Zero is "not said": protobuf cannot tell them apart, so Istio does not.
fn limit(map: &Map<'_>, key: &str, report: &mut Report) -> Option<u32> {
    map.one(key, report, read::count).filter(|limit| *limit > 0)
}

fn tcp_pool(node: &Node, pool: &mut ConnectionPool, report: &mut Report) -> Option<()> {
    const FIELDS: &[&str] =
        &["connectTimeout", "idleTimeout", "maxConnectionDuration", "maxConnections", "tcpKeepalive"];
    let map = report.map(node, "connectionPool.tcp", FIELDS)?;
    pool.max_connections = limit(&map, "maxConnections", report);
    pool.connect_timeout = map.one("connectTimeout", report, read::duration);
    pool.max_connection_duration = map.one("maxConnectionDuration", report, read::duration);
    pool.tcp_idle_timeout = map.one("idleTimeout", report, read::duration_or_zero);
    pool.tcp_keepalive = map.one("tcpKeepalive", report, |node, report| {
        let map = report.map(node, "tcpKeepalive", &["probes", "time", "interval"])?;
        Some(TcpKeepalive {
            probes: limit(&map, "probes", report),
            time: map.one("time", report, read::duration),
            interval: map.one("interval", report, read::duration),
        })
    });
    Some(())
}

fn http_pool(node: &Node, pool: &mut ConnectionPool, report: &mut Report) -> Option<()> {
    const FIELDS: &[&str] = &[
        "h2UpgradePolicy",
        "http1MaxPendingRequests",
        "http2KeepAlive",
        "http2MaxRequests",
        "idleTimeout",
        "maxConcurrentStreams",
        "maxRequestsPerConnection",
        "maxRetries",
        "useClientProtocol",
    ];
    const UPGRADES: [(&str, bool); 3] = [("DEFAULT", false), ("DO_NOT_UPGRADE", false), ("UPGRADE", true)];
    let map = report.map(node, "connectionPool.http", FIELDS)?;
    pool.max_pending_requests = limit(&map, "http1MaxPendingRequests", report);
    pool.max_requests = limit(&map, "http2MaxRequests", report);
    pool.max_requests_per_connection = limit(&map, "maxRequestsPerConnection", report);
    pool.max_retries = limit(&map, "maxRetries", report);
    pool.max_concurrent_streams = limit(&map, "maxConcurrentStreams", report);
    pool.idle_timeout = map.one("idleTimeout", report, read::duration);
    let upgrade = map.one("h2UpgradePolicy", report, read::word("h2UpgradePolicy", &UPGRADES));
    let keeps_protocol = map.one("useClientProtocol", report, read::boolean);
    if upgrade == Some(true) && keeps_protocol == Some(true) {
        report.error(
            map.key_at("useClientProtocol"),
            "`useClientProtocol` excludes `h2UpgradePolicy: UPGRADE`",
        );
    }
    map.ignored("h2UpgradePolicy", report, "`h2UpgradePolicy` (gRPC is always HTTP/2)");
    map.ignored("useClientProtocol", report, "`useClientProtocol` (gRPC is always HTTP/2)");
    pool.http2_keepalive = map.one("http2KeepAlive", report, |node, report| {
        let map = report.map(node, "http2KeepAlive", &["interval", "timeout"])?;
        let interval = map.required("interval", "http2KeepAlive", report, read::duration);
        let timeout = map.required("timeout", "http2KeepAlive", report, read::duration);
        Some(Http2Keepalive { interval: interval?, timeout: timeout? })
    });
    Some(())
}

fn outlier_detection(node: &Node, report: &mut Report) -> Option<OutlierDetection> {
    const FIELDS: &[&str] = &[
        "baseEjectionTime",
        "consecutive5xxErrors",
        "consecutiveErrors",
        "consecutiveGatewayErrors",
        "consecutiveLocalOriginFailures",
        "interval",
        "maxEjectionPercent",
        "minHealthPercent",
        "outlierDetectionHttpErrorCodes",
        "splitExternalLocalOriginErrors",
    ];
    let map = report.map(node, "outlierDetection", FIELDS)?;
    if map.one("consecutiveErrors", report, read::count).is_some() {
        let message = "`consecutiveErrors` is deprecated and has no effect: write `consecutive5xxErrors`";
        report.warn(Code::Deprecated, map.key_at("consecutiveErrors"), message);
    }
    let codes = map.many("outlierDetectionHttpErrorCodes", report, read::integer::<u16>(100..=599));
    if !codes.is_empty() {
        let what = "`outlierDetectionHttpErrorCodes`, for clients that are not of the mesh: Envoys do not look at the \
                    codes of gRPC calls, whose errors stay HTTP 5xx and the gRPC statuses that map to them, and other \
                    gRPC clients count no errors in a row. For clients of the mesh these codes take the place of 5xx: \
                    UNAVAILABLE (503) and its like are errors only if they are listed";
        report.partly(map.key_at("outlierDetectionHttpErrorCodes"), what);
    }
    let split = map.one("splitExternalLocalOriginErrors", report, read::boolean).unwrap_or(false);
    let local = map.one("consecutiveLocalOriginFailures", report, read::count);
    if local.is_some_and(|local| local > 0) && !split {
        let message = "`consecutiveLocalOriginFailures` needs `splitExternalLocalOriginErrors: true`";
        report.error(map.key_at("consecutiveLocalOriginFailures"), message);
    }
    let percent = read::integer::<u32>(0..=100);
    Some(OutlierDetection {
        consecutive_5xx_errors: map.one("consecutive5xxErrors", report, read::count),
        consecutive_gateway_errors: map.one("consecutiveGatewayErrors", report, read::count),
        consecutive_local_origin_failures: local,
        split_external_local_origin_errors: split,
        interval: map.one("interval", report, read::duration),
        base_ejection_time: map.one("baseEjectionTime", report, read::duration),
        max_ejection_percent: map.one("maxEjectionPercent", report, &percent).filter(|percent| *percent > 0),
        // An empty list says nothing, as in protobuf.
        http_error_codes: (!codes.is_empty()).then(|| codes.into_iter().collect()),
        min_health_percent: map.one("minHealthPercent", report, &percent).unwrap_or(0),
    })
}

pub(super) fn retry_budget(node: &Node, report: &mut Report) -> Option<RetryBudget> {
    let map = report.map(node, "retryBudget", &["percent", "minRetryConcurrency", "budgetInterval"])?;
    let percent = match map.get("percent") {
        Some(node) => read::percent_value(node, report)?,
        None => 20.0,
    };
    // Zero, the default, is what is done.
    if map.one("budgetInterval", report, read::duration_or_zero).is_some_and(|interval| !interval.is_zero()) {
        let what = "`budgetInterval` (the budget is a share of the calls in flight, not of those of a time)";
        map.ignored("budgetInterval", report, what);
    }
    Some(RetryBudget {
        percent,
        min_retry_concurrency: map.one("minRetryConcurrency", report, read::count).unwrap_or(3),
    })
}
