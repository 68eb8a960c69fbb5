//! What an HTTPRoute does with a request: destinations, headers, rewrites, timeouts, retries, faults,
//! copies. Istio's `translateRoute`.

use super::super::client::ClientKind;
use crate::model::{
    Abort, AbortStatus, Delay, DirectResponse as DirectResponseRule, Fault as FaultRule, HeaderChanges,
    HeaderOps, HttpRoute, PerMillion, Redirect as RedirectRule, RedirectPath as RedirectPathRule,
    RedirectPort, Retries, RetryOn as Word, UriRewrite,
};
use mesh_xds::{
    matcher::Fraction,
    name::Name,
    resource::{
        fault::{AbortKind, DelayKind, Fault, FaultAbort, FaultDelay},
        filter::{FilterConfig, FilterOverride, FilterOverrides},
        retry::{BackOff, RetryOn, RetryPolicy},
        route::{
            AppendAction, Destination, DirectResponse, Forward, HashPolicy, HeaderAddition, HeaderMutation,
            HeaderMutations, HeaderName, HeaderValue, Mirror, PathRewrite, Redirect, RedirectPath,
            RegexRewrite, RouteAction, RoutingPriority, WeightedCluster,
        },
    },
};
use std::{num::NonZeroU32, sync::Arc, time::Duration};

/// Name of the fault filter in every outbound connection manager, and key of its overrides.
pub(in crate::compile) const FAULT_FILTER: &str = "envoy.filters.http.fault";

/// The route to one cluster with the mesh's defaults.
pub(in crate::compile) fn plain(
    cluster: Name,
    kind: &ClientKind,
    hash: &impl Fn(&Name) -> Option<HashPolicy>,
) -> Forward {
    Forward {
        hash: hash(&cluster).into_iter().collect(),
        timeout: timeout(None, kind).0,
        max_stream_duration: None,
        grpc_timeout_header_max: timeout(None, kind).1,
        retry: Some(Arc::new(default_retry(hash(&cluster).is_some()))),
        destination: Destination::Cluster(cluster),
        priority: RoutingPriority::Default,
        hedge: None,
        authority: None,
        auto_host_rewrite: false,
        path_rewrite: None,
        mirrors: Vec::new(),
    }
}

/// The action of a route, and the header changes that belong beside it.
pub(in crate::compile) fn forward(
    route: &HttpRoute,
    kind: &ClientKind,
    cluster: &impl Fn(&crate::model::Destination) -> Name,
    hash: &impl Fn(&Name) -> Option<HashPolicy>,
) -> (Forward, HeaderMutations) {
    let top = route
        .rewrite
        .as_ref()
        .and_then(|rewrite| rewrite.authority.as_ref())
        .or(route.headers.authority.as_ref());
    let mut headers = mutations(&route.headers);
    let mut authority = top.and_then(|value| HeaderValue::from_str(value).ok());
    let below = |changes: &HeaderChanges| match &changes.authority {
        Some(value) if top.is_none() => HeaderValue::from_str(value).ok(),
        _ => None,
    };
    let destination = match route.destinations() {
        [only] => {
            // One destination takes everything, whatever its weight; what it does to headers comes after
            // what the route does, so both fit one level.
            let own = mutations(&only.headers);
            extend(&mut headers.request, own.request);
            extend(&mut headers.response, own.response);
            authority = authority.or_else(|| below(&only.headers));
            Destination::Cluster(cluster(&only.destination))
        }
        several => Destination::Weighted(
            several
                .iter()
                .filter_map(|one| {
                    Some(WeightedCluster {
                        cluster: cluster(&one.destination),
                        weight: NonZeroU32::new(one.weight)?,
                        headers: mutations(&one.headers),
                        overrides: FilterOverrides::new(),
                        authority: below(&one.headers),
                    })
                })
                .collect(),
        ),
    };
    let (timeout, grpc_timeout_header_max) = timeout(route.timeout, kind);
    // A route has one list for all its clusters: as in Istio, what any of them asks for, each once.
    let mut hash_policies = Vec::new();
    for one in route.destinations() {
        let policy = hash(&cluster(&one.destination));
        hash_policies.extend(policy.filter(|policy| !hash_policies.contains(policy)));
    }
    let forward = Forward {
        destination,
        timeout,
        max_stream_duration: route.timeout.filter(|_| !matches!(kind, ClientKind::Envoy(_))),
        grpc_timeout_header_max,
        retry: retry(route.retries.as_ref(), !hash_policies.is_empty()).map(Arc::new),
        priority: RoutingPriority::Default,
        hedge: None,
        hash: hash_policies,
        authority,
        auto_host_rewrite: false,
        path_rewrite: route.rewrite.as_ref().and_then(|rewrite| path_rewrite(rewrite.uri.as_ref()?)),
        mirrors: route
            .mirrors
            .iter()
            .filter(|mirror| mirror.share.millionths() > 0)
            .map(|mirror| Mirror {
                cluster: cluster(&mirror.destination),
                fraction: fraction(mirror.share),
                shadow_host: false,
            })
            .collect(),
    };
    (forward, headers)
}

/// What the route itself does to headers.
pub(in crate::compile) fn headers(route: &HttpRoute) -> HeaderMutations {
    mutations(&route.headers)
}

/// Istio's `ApplyRedirect`. `port`: the one that the request came to.
pub(in crate::compile) fn redirect(redirect: &RedirectRule, port: u16) -> RouteAction {
    let scheme = redirect.scheme.as_deref();
    let port = match redirect.port {
        None | Some(RedirectPort::ProtocolDefault) => None,
        Some(RedirectPort::Number(number)) => Some(number),
        Some(RedirectPort::OfRequest) => Some(port),
    };
    let usual = if scheme == Some("https") { 443 } else { 80 };
    RouteAction::Redirect(Arc::new(Redirect {
        status: redirect.code,
        scheme: scheme.map(Into::into),
        host: redirect.authority.as_deref().map(Into::into),
        port: port.filter(|port| *port != usual),
        path: redirect.path.as_ref().map(|path| match path {
            RedirectPathRule::Whole(path) => RedirectPath::Exact(path.as_str().into()),
            RedirectPathRule::Prefix(path) => RedirectPath::Prefix(path.as_str().into()),
        }),
        strip_query: false,
    }))
}

pub(in crate::compile) fn direct_response(answer: &DirectResponseRule) -> RouteAction {
    let DirectResponseRule { status, body } = answer;
    RouteAction::DirectResponse(Arc::new(DirectResponse { status: *status, body: body.clone().into() }))
}

fn path_rewrite(uri: &UriRewrite) -> Option<PathRewrite> {
    match uri {
        UriRewrite::Prefix(uri) => Some(PathRewrite::Prefix(uri.as_str().into())),
        // That it can be built was seen when it was read.
        UriRewrite::Regex { pattern, substitution } => {
            RegexRewrite::new(pattern, substitution).ok().map(PathRewrite::Regex)
        }
    }
}

/// Envoy needs to be told that there is no timeout (its own default is 15 s), and that the caller's
/// `grpc-timeout` counts. gRPC clients take `max_stream_duration` and honour the caller's deadline anyway.
fn timeout(timeout: Option<Duration>, kind: &ClientKind) -> (Option<Duration>, Option<Duration>) {
    match kind {
        ClientKind::Envoy(_) => {
            let timeout = Some(timeout.unwrap_or_default());
            (timeout, timeout)
        }
        ClientKind::Mesh | ClientKind::Grpc { .. } => (None, None),
    }
}

/// Of Istio's `retryRemoteLocalities`: two attempts in the first locality that has the calls, two in the next.
const PREVIOUS_PRIORITIES: NonZeroU32 = NonZeroU32::new(2).unwrap();

/// Istio's `defaultHttpRetryPolicy`. Of a call that is `hashed`, the endpoint of its hash is not avoided.
pub(in crate::compile) fn default_retry(hashed: bool) -> RetryPolicy {
    RetryPolicy {
        on: default_retry_on(),
        num_retries: 2,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        back_off: back_off(None),
        avoid_previous_hosts: !hashed,
        host_selection_attempts: if hashed { 1 } else { 5 },
        previous_priorities: None,
        retriable_status_codes: Vec::new(),
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        rate_limited: None,
    }
}

fn default_retry_on() -> RetryOn {
    RetryOn {
        connect_failure: true,
        refused_stream: true,
        unavailable: true,
        cancelled: true,
        retriable_status_codes: true,
        ..RetryOn::default()
    }
}

fn back_off(base: Option<Duration>) -> BackOff {
    let base = base.unwrap_or(Duration::from_millis(25));
    BackOff { base, max: base.saturating_mul(10) }
}

fn retry(retries: Option<&Retries>, hashed: bool) -> Option<RetryPolicy> {
    let Some(retries) = retries else { return Some(default_retry(hashed)) };
    if retries.attempts == 0 {
        return None;
    }
    let (on, retriable_status_codes) = if retries.on.is_empty() {
        (default_retry_on(), Vec::new())
    } else {
        let mut on = RetryOn::default();
        let mut statuses = Vec::new();
        for word in &retries.on {
            match word {
                Word::Condition(condition) => set(&mut on, condition),
                Word::Status(status) => {
                    on.retriable_status_codes = true;
                    statuses.push(*status);
                }
            }
        }
        (on, statuses)
    };
    let avoid_previous_hosts = retries.ignore_previous_hosts.unwrap_or(!hashed);
    Some(RetryPolicy {
        on,
        num_retries: retries.attempts,
        per_try_timeout: retries.per_try_timeout,
        back_off: back_off(retries.backoff),
        avoid_previous_hosts,
        host_selection_attempts: if avoid_previous_hosts { 5 } else { 1 },
        previous_priorities: retries.remote_localities.then_some(PREVIOUS_PRIORITIES),
        retriable_status_codes,
        ..default_retry(hashed)
    })
}

fn set(on: &mut RetryOn, condition: &str) {
    match condition {
        "5xx" => on.server_error = true,
        "gateway-error" => on.gateway_error = true,
        "reset" => on.reset = true,
        "reset-before-request" => on.reset_before_request = true,
        "connect-failure" => on.connect_failure = true,
        "retriable-4xx" => on.retriable_4xx = true,
        "refused-stream" => on.refused_stream = true,
        "retriable-status-codes" => on.retriable_status_codes = true,
        "retriable-headers" => on.retriable_headers = true,
        "envoy-ratelimited" => on.envoy_ratelimited = true,
        "cancelled" => on.cancelled = true,
        "deadline-exceeded" => on.deadline_exceeded = true,
        "internal" => on.internal = true,
        "resource-exhausted" => on.resource_exhausted = true,
        "unavailable" => on.unavailable = true,
        // `http3-post-connect-failure`: nobody here speaks HTTP/3, so it cannot happen.
        _ => {}
    }
}

/// The override that injects a fault; none when nothing ever would be.
pub(in crate::compile) fn fault(rule: Option<&FaultRule>) -> FilterOverrides {
    let Some(rule) = rule else { return FilterOverrides::new() };
    let delay = rule.delay.filter(|Delay { fixed, share }| share.millionths() > 0 && !fixed.is_zero());
    let abort = rule.abort.filter(|Abort { share, .. }| share.millionths() > 0);
    if delay.is_none() && abort.is_none() {
        return FilterOverrides::new();
    }
    let fault = Fault {
        delay: delay
            .map(|delay| FaultDelay { kind: DelayKind::Fixed(delay.fixed), fraction: fraction(delay.share) }),
        abort: abort.map(|abort| FaultAbort {
            kind: match abort.status {
                AbortStatus::Http(status) => AbortKind::Http(status),
                AbortStatus::Grpc(code) => AbortKind::Grpc(code as u32),
            },
            fraction: fraction(abort.share),
        }),
        headers: Vec::new(),
        max_active: None,
    };
    let config = FilterOverride::Config(FilterConfig::Fault(Arc::new(fault)));
    FilterOverrides::from([(FAULT_FILTER.into(), config)])
}

fn fraction(share: PerMillion) -> Fraction {
    Fraction::per_million(share.millionths())
}

fn mutations(changes: &HeaderChanges) -> HeaderMutations {
    HeaderMutations { request: mutation(&changes.request), response: mutation(&changes.response) }
}

fn mutation(ops: &HeaderOps) -> HeaderMutation {
    let addition = |(name, value): &(String, String), action| {
        let name = mutable(name)?;
        Some(HeaderAddition { name, value: HeaderValue::from_str(value).ok()?, action })
    };
    let set = ops.set.iter().filter_map(|pair| addition(pair, AppendAction::OverwriteIfExistsOrAdd));
    let add = ops.add.iter().filter_map(|pair| addition(pair, AppendAction::AppendIfExistsOrAdd));
    HeaderMutation {
        add: set.chain(add).collect(),
        remove: ops.remove.iter().filter_map(|name| mutable(name)).collect(),
    }
}

/// Headers that a mesh may change: those of gRPC's own transport are not among them.
fn mutable(name: &str) -> Option<HeaderName> {
    let transport =
        matches!(name, "host" | "content-type" | "te" | "user-agent") || name.starts_with("grpc-");
    if transport {
        tracing::warn!(
            header = name,
            "a header of gRPC's transport cannot be changed; the change is left out"
        );
        return None;
    }
    HeaderName::from_bytes(name.as_bytes()).ok()
}

fn extend(base: &mut HeaderMutation, more: HeaderMutation) {
    base.add.extend(more.add);
    base.remove.extend(more.remove);
}
