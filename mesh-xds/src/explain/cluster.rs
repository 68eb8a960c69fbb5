//! A cluster: how it is treated, and which of its endpoints may be picked as far as configuration says.

use super::{Cluster, Endpoint, Place, Setting, balancing, standing::Standing};
use crate::{
    config::{ClusterConfig, XdsConfig, XdsError},
    resource::{
        cluster::{
            CircuitBreakers, Cluster as Configured, ConnectionOptions, Consecutive, HealthCheck, HealthProbe,
            HttpConnect, LocalOrigin, OutlierDetection, ProxyProtocol, Thresholds,
        },
        endpoint::{ClusterLoadAssignment, HealthStatus},
        tls::{Roots, UpstreamTls},
    },
};
use std::sync::Arc;

/// A cluster, and what it is made of if it is one of clusters.
pub(super) fn clusters(config: &XdsConfig, name: &Arc<str>, by_request: bool) -> Vec<Cluster> {
    let Some(found) = config.clusters.get(name) else {
        if by_request {
            let note = "named by the request: the control plane is asked for it when a call comes";
            return vec![Cluster { note: Some(note.into()), ..empty(name) }];
        }
        let failure = Some(format!("cluster {name} is not part of the configuration"));
        return vec![Cluster { failure, ..empty(name) }];
    };
    let leaves = found.as_ref().ok().into_iter().flat_map(|found| &found.leaves);
    let leaves = leaves.map(|leaf| cluster(&leaf.name, &leaf.config));
    std::iter::once(cluster(name, found)).chain(leaves).collect()
}

fn cluster(name: &Arc<str>, found: &Result<Arc<ClusterConfig>, XdsError>) -> Cluster {
    let mut cluster = empty(name);
    match found {
        Err(error) => cluster.failure = Some(error.to_string()),
        Ok(found) => cluster.fill(found),
    }
    cluster
}

fn empty(name: &Arc<str>) -> Cluster {
    Cluster {
        name: name.clone(),
        origin: None,
        failure: None,
        note: None,
        settings: Vec::new(),
        leaves: Vec::new(),
        endpoints: Vec::new(),
        live: None,
    }
}

impl Cluster {
    /// Takes this for its configuration.
    pub fn fill(&mut self, found: &ClusterConfig) {
        self.origin = found.cluster.origin.as_ref().map(|origin| origin.place().clone());
        self.note.clone_from(&found.note);
        self.leaves = found.leaves.iter().map(|leaf| leaf.name.clone()).collect();
        self.settings = settings(&found.cluster, &found.endpoints);
        self.endpoints = endpoints(&found.cluster, &found.endpoints);
    }
}

fn settings(cluster: &Configured, endpoints: &ClusterLoadAssignment) -> Vec<Setting> {
    let Configured {
        name: _,
        discovery,
        lb,
        lb_options,
        circuit_breakers,
        outlier_detection,
        health_check,
        tls,
        http_connect,
        proxy_protocol,
        connection,
        panic_threshold,
        // None of these decides where a call goes, nor what becomes of it.
        load_reporting: _,
        telemetry: _,
        audiences: _,
        origin,
    } = cluster;
    let mut settings = Vec::new();
    let mut say = |name: &'static str, value: String| {
        settings.push(Setting { name, value, origin: Place::of(origin.as_ref(), name) });
    };
    if let Some(discovery) = balancing::discovery(discovery) {
        say("discovery", discovery);
    }
    let (name, policy) = balancing::policy(lb);
    say(name, policy);
    balancing::options(lb_options, &mut say);
    breakers(circuit_breakers, &mut say);
    match outlier_detection {
        None => say("outlierDetection", "off: nothing is ejected".to_owned()),
        Some(detection) => outliers(detection, &mut say),
    }
    if let Some(threshold) = panic_threshold {
        let value = format!("below {threshold} of healthy endpoints, health and ejections are ignored");
        say("outlierDetection.minHealthPercent", value);
    }
    match tls {
        None => say("tls.mode", "plaintext".to_owned()),
        Some(tls) => encryption(tls, &mut say),
    }
    if let Some(HttpConnect { default_proxy }) = http_connect {
        let otherwise = match default_proxy {
            Some(proxy) => format!("through {proxy}"),
            None => "directly".to_owned(),
        };
        say("http_connect", format!("through the endpoint's proxy; if it has none, {otherwise}"));
    }
    match proxy_protocol {
        None => {}
        Some(ProxyProtocol::V1) => say("proxyProtocol", "V1: connections begin with its header".to_owned()),
        Some(ProxyProtocol::V2 { tlvs }) => {
            let mut more = match tlvs.len() {
                0 => String::new(),
                count => format!(", with {count} TLVs"),
            };
            let localities = endpoints.priorities.iter().flat_map(|priority| &priority.localities);
            if localities.flat_map(|locality| &locality.endpoints).any(|endpoint| endpoint.tlvs.is_some()) {
                more.push_str("; endpoints have TLVs of their own, which go before");
            }
            say("proxyProtocol", format!("V2: connections begin with its header{more}"));
        }
    }
    connections(connection, &mut say);
    if let Some(check) = health_check {
        self::health_check(check, &mut say);
    }
    for drop in &endpoints.drops {
        say("drop_overload", format!("{} of the calls fail ({})", drop.fraction, drop.category));
    }
    settings
}

fn limit(limit: u32) -> String {
    if limit == u32::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

fn breakers(breakers: &CircuitBreakers, say: &mut impl FnMut(&'static str, String)) {
    let CircuitBreakers {
        max_requests,
        max_pending_requests,
        max_connections,
        max_retries,
        retry_budget,
        max_connections_per_endpoint,
        high,
    } = breakers;
    say("connectionPool.http.http2MaxRequests", limit(*max_requests));
    for (name, value) in [
        ("connectionPool.http.http1MaxPendingRequests", max_pending_requests),
        ("connectionPool.tcp.maxConnections", max_connections),
        ("connectionPool.http.maxRetries", max_retries),
    ] {
        if let Some(value) = value {
            say(name, limit(*value));
        }
    }
    if let Some(budget) = retry_budget {
        let (share, least) = (budget.budget, budget.min_retry_concurrency);
        say(
            "retryBudget",
            format!("retries are at most {share} of the calls in flight, {least} are always allowed"),
        );
    }
    if *high != Thresholds::default() {
        let Thresholds { max_requests, max_pending_requests, max_retries, retry_budget } = high;
        let mut limits = vec![format!("requests {}", limit(*max_requests))];
        limits.extend(max_pending_requests.map(|pending| format!("waiting {}", limit(pending))));
        match retry_budget {
            None => limits.extend(max_retries.map(|retries| format!("retries {}", limit(retries)))),
            Some(budget) => limits.push(format!(
                "retries {} of the calls in flight, at least {}",
                budget.budget, budget.min_retry_concurrency
            )),
        }
        say("circuit_breakers.thresholds[HIGH]", limits.join(", "));
    }
    if *max_connections_per_endpoint > 1 {
        say("max_connections_per_endpoint", max_connections_per_endpoint.to_string());
    }
}

fn outliers(detection: &OutlierDetection, say: &mut impl FnMut(&'static str, String)) {
    let OutlierDetection {
        interval,
        base_ejection_time,
        max_ejection_time,
        max_ejection_percent,
        errors,
        consecutive_5xx,
        consecutive_gateway_failure,
        consecutive_local_origin_failure,
        split_external_local_origin_errors,
        success_rate,
        failure_percentage,
        local_origin,
        max_ejection_time_jitter,
        uneject_by_health_check: _,
    } = detection;
    if let Some(codes) = errors {
        let value = format!("{codes}, and the gRPC statuses that map to them, are the errors of servers");
        say("outlierDetection.outlierDetectionHttpErrorCodes", value);
    }
    for (name, what, counter) in [
        ("outlierDetection.consecutive5xxErrors", "server errors", consecutive_5xx),
        ("outlierDetection.consecutiveGatewayErrors", "gateway errors", consecutive_gateway_failure),
        (
            "outlierDetection.consecutiveLocalOriginFailures",
            "connection failures",
            consecutive_local_origin_failure,
        ),
    ] {
        if let Some(Consecutive { threshold, enforcing }) = counter {
            let often =
                if *enforcing < 100 { format!(" ({enforcing} % of the times)") } else { String::new() };
            say(name, format!("{threshold} {what} in a row eject{often}"));
        }
    }
    if *split_external_local_origin_errors {
        say(
            "outlierDetection.splitExternalLocalOriginErrors",
            "connection failures are counted apart".to_owned(),
        );
    }
    if let Some(rate) = success_rate {
        let factor = f64::from(rate.stdev_factor) / 1000.0;
        say("success_rate", format!("{factor} standard deviations below the mean eject"));
    }
    if let Some(share) = failure_percentage {
        say("failure_percentage", format!("more than {} % of failures eject", share.threshold));
    }
    if *local_origin != LocalOrigin::default() {
        say("local_origin", "both statistics are also taken over connection failures".to_owned());
    }
    say("outlierDetection.interval", format!("{interval:?}"));
    let jitter = match max_ejection_time_jitter.is_zero() {
        true => String::new(),
        false => format!(", and up to {max_ejection_time_jitter:?} more"),
    };
    let time = format!(
        "{base_ejection_time:?} times the number of ejections, at most {max_ejection_time:?}{jitter}"
    );
    say("outlierDetection.baseEjectionTime", time);
    say("outlierDetection.maxEjectionPercent", format!("{max_ejection_percent} % of the endpoints"));
}

fn encryption(tls: &UpstreamTls, say: &mut impl FnMut(&'static str, String)) {
    let UpstreamTls {
        identity,
        roots,
        crl,
        sans,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        only_mesh_endpoints,
    } = tls;
    let kind = if identity.is_some() { "mutual TLS" } else { "TLS without an own certificate" };
    let to = if *only_mesh_endpoints { ", with endpoints that speak it" } else { "" };
    say("tls.mode", format!("{kind}{to}"));
    if let Some(identity) = identity {
        say("tls.identity", format!("of {identity}"));
    }
    let roots = match roots {
        Roots::Provider(name) => format!("of certificate provider {name}"),
        Roots::System => "the system's".to_owned(),
        Roots::Secret(name) => format!("of secret {name}"),
        Roots::File(path) => format!("of file {path}"),
    };
    say("tls.roots", roots);
    if let Some(crl) = crl {
        let whose = if crl.only_leaf { "the server's own certificate" } else { "certificates" };
        say("tls.caCrl", format!("{whose} must not be revoked, by file {}", crl.path));
    }
    let names: Vec<String> = sans.iter().map(ToString::to_string).collect();
    let names = match (auto_sni_san_validation, names.is_empty()) {
        (true, _) => "the server must have the name that it is asked for".to_owned(),
        (false, true) if matches!(tls.roots, Roots::Secret(_)) => "those of the secret".to_owned(),
        (false, true) => "any that the roots vouch for".to_owned(),
        (false, false) => names.join(" or "),
    };
    say("tls.subjectAltNames", names);
    match (auto_host_sni, sni) {
        (true, _) => say("tls.sni", "the endpoint's hostname".to_owned()),
        (false, Some(sni)) => say("tls.sni", sni.to_string()),
        (false, None) => {}
    }
}

fn connections(options: &ConnectionOptions, say: &mut impl FnMut(&'static str, String)) {
    let ConnectionOptions {
        connect_timeout,
        max_requests_per_connection,
        idle_timeout,
        max_connection_duration,
        http2_keepalive,
        tcp_keepalive,
        max_concurrent_streams,
        initial_stream_window,
        initial_connection_window,
    } = options;
    say("connectionPool.tcp.connectTimeout", format!("{connect_timeout:?}"));
    if *max_requests_per_connection > 0 {
        say("connectionPool.http.maxRequestsPerConnection", max_requests_per_connection.to_string());
    }
    if let Some(time) = idle_timeout {
        say(
            "connectionPool.http.idleTimeout",
            if time.is_zero() { "never".to_owned() } else { format!("{time:?}") },
        );
    }
    if let Some(time) = max_connection_duration {
        say("connectionPool.tcp.maxConnectionDuration", format!("{time:?}"));
    }
    if let Some(pings) = http2_keepalive {
        let value = format!("a ping every {:?}, an answer within {:?}", pings.interval, pings.timeout);
        say("connectionPool.http.http2KeepAlive", value);
    }
    if tcp_keepalive.is_some() {
        say("connectionPool.tcp.tcpKeepalive", "on".to_owned());
    }
    if let Some(streams) = max_concurrent_streams {
        say("connectionPool.http.maxConcurrentStreams", streams.to_string());
    }
    for (name, window) in [
        ("initial_stream_window", initial_stream_window),
        ("initial_connection_window", initial_connection_window),
    ] {
        if let Some(bytes) = window {
            say(name, format!("{bytes} bytes"));
        }
    }
}

fn health_check(check: &HealthCheck, say: &mut impl FnMut(&'static str, String)) {
    let HealthCheck { probe, timeout, interval, unhealthy_threshold, healthy_threshold, .. } = check;
    let what = match probe {
        HealthProbe::Grpc { service_name, .. } if service_name.is_empty() => "grpc.health.v1".to_owned(),
        HealthProbe::Grpc { service_name, .. } => format!("grpc.health.v1 of {service_name}"),
        HealthProbe::Tcp { .. } => "TCP".to_owned(),
    };
    let value = format!(
        "{what} every {interval:?}, within {timeout:?}; unhealthy after {unhealthy_threshold}, healthy after {healthy_threshold}"
    );
    say("health_check", value);
}

fn endpoints(cluster: &Configured, assignment: &ClusterLoadAssignment) -> Vec<Endpoint> {
    let standing = Standing::new(cluster, assignment);
    let mut endpoints = Vec::new();
    for (index, priority) in assignment.priorities.iter().enumerate() {
        for locality in &priority.localities {
            for endpoint in &locality.endpoints {
                endpoints.push(Endpoint {
                    address: endpoint.address(),
                    priority: index,
                    locality: locality.locality.to_string(),
                    locality_weight: locality.weight.get(),
                    weight: endpoint.weight.get(),
                    health: health(endpoint.health),
                    tls: cluster
                        .tls
                        .as_ref()
                        .is_some_and(|tls| !tls.only_mesh_endpoints || endpoint.mesh_tls),
                    proxy: cluster.proxy_to(endpoint),
                    not_picked: standing.not_picked(index, endpoint),
                    live: None,
                });
            }
        }
    }
    endpoints
}

fn health(health: HealthStatus) -> &'static str {
    match health {
        HealthStatus::Unknown => "unknown",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Degraded => "degraded",
        HealthStatus::Draining => "draining",
        HealthStatus::Unhealthy => "unhealthy",
    }
}
