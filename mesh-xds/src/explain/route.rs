//! A route: its verdict, and what holds for the requests that it takes.

use super::{Decision, Destination, Place, Setting, Verdict};
use crate::{
    config::{Effective, Level, TimeLimit, XdsConfig},
    matcher::{Fraction, HeaderMatcher, Headers},
    resource::{
        Origin,
        fault::{AbortKind, DelayKind, Fault},
        retry::{BackOff, HedgePolicy, RateLimitedBackOff, RetryOn, RetryPolicy},
        route::{
            AppendAction, Destination as Configured, Forward, HashKey, HashPolicy, HeaderMutation, Mirror,
            PathRewrite, Route, RouteAction, RouteMatch, RoutingPriority, WeightedCluster,
        },
        stateful_session::{SessionCookie, SessionState, StatefulSession},
    },
};
use std::sync::Arc;

pub(super) fn verdict(
    matches: &RouteMatch,
    request: &Headers<'_>,
    query: Option<&str>,
    is_reached: bool,
) -> Verdict {
    if !is_reached {
        return Verdict::NotReached;
    }
    match (matches.miss(request, query), matches.fraction) {
        (Some(miss), _) => Verdict::Rejected { reason: miss.reason(request, query) },
        (None, Some(Fraction::ZERO)) => {
            Verdict::Rejected { reason: "it takes 0 % of the requests".to_owned() }
        }
        (None, Some(fraction)) if fraction < Fraction::ONE => {
            Verdict::Sometimes { percent: fraction.percent() }
        }
        (None, _) => Verdict::Matched,
    }
}

pub(super) fn decision(
    config: &XdsConfig,
    index: usize,
    route: &Route,
    share: f64,
    request: &Headers<'_>,
) -> Decision {
    let mut decision = Decision {
        route: index,
        share,
        settings: Vec::new(),
        destinations: Vec::new(),
        mirrors: Vec::new(),
        failure: None,
    };
    match &route.action {
        RouteAction::Forward(forward) => forwarded(&mut decision, config, route, forward, request),
        RouteAction::NonForwarding => {
            decision.failure = Some("its action is for servers (non_forwarding_action)".to_owned());
        }
        RouteAction::DirectResponse(response) => {
            let body = String::from_utf8_lossy(&response.body);
            let body = if body.is_empty() { body } else { format!(": {body}").into() };
            decision.failure =
                Some(format!("the route itself answers with HTTP status {}{body}", response.status));
        }
        RouteAction::Redirect(redirect) => {
            decision.failure = Some(format!(
                "it redirects (HTTP status {}), which a gRPC client does not follow",
                redirect.status
            ));
        }
        RouteAction::Unsupported(action) => {
            decision.failure = Some(format!("its action, {action}, is not one that a gRPC client has"));
        }
    }
    decision
}

fn forwarded(
    decision: &mut Decision,
    config: &XdsConfig,
    route: &Route,
    forward: &Forward,
    request: &Headers<'_>,
) {
    let origin = route.origin.as_ref();
    let place = |name: &str| Place::of(origin, name);
    // Cluster by cluster: what is the same for all of them is told once.
    let destination = |index: usize, cluster: &Arc<str>, share: f64, weighted: Option<&WeightedCluster>| {
        let effective = config.effective(route, forward, weighted);
        Destination {
            cluster: cluster.clone(),
            share,
            origin: place(&format!("route[{index}]")),
            settings: of_destination(&effective, origin, index, request),
            hashed: None,
        }
    };
    decision.destinations = match &forward.destination {
        Configured::Cluster(name) => vec![destination(0, name, 100.0, None)],
        Configured::Weighted(weighted) => {
            let total: f64 = weighted.iter().map(|one| f64::from(one.weight.get())).sum();
            let share = |one: &WeightedCluster| f64::from(one.weight.get()) * 100.0 / total;
            let all = weighted.iter().enumerate();
            all.map(|(index, one)| destination(index, &one.cluster, share(one), Some(one))).collect()
        }
        Configured::Header(name) => match request.map.get(name).map(|value| value.to_str()) {
            Some(Ok(cluster)) if !cluster.is_empty() => vec![destination(0, &cluster.into(), 100.0, None)],
            Some(_) => {
                decision.failure = Some(format!("what header {name} says cannot be the name of a cluster"));
                Vec::new()
            }
            None => {
                let why = format!("header {name} is to name the cluster, and the request does not have it");
                decision.failure = Some(why);
                Vec::new()
            }
        },
    };
    decision.settings = of_route(&config.effective(route, forward, None), forward, origin, request);
    if let Some((first, others)) = decision.destinations.split_first() {
        let shared = |setting: &Setting| others.iter().all(|other| other.settings.contains(setting));
        let shared: Vec<Setting> = first.settings.iter().filter(|setting| shared(setting)).cloned().collect();
        for destination in &mut decision.destinations {
            destination.settings.retain(|setting| !shared.contains(setting));
        }
        decision.settings.extend(shared);
    }
    let mirrors = forward.mirrors.iter().enumerate();
    decision.mirrors = mirrors
        .map(|(index, Mirror { cluster, fraction, shadow_host: _ })| Destination {
            cluster: cluster.clone(),
            share: fraction.percent(),
            origin: place(&format!("mirrors[{index}]")),
            settings: Vec::new(),
            hashed: None,
        })
        .collect();
}

/// What holds whichever cluster is drawn.
fn of_route(
    effective: &Effective<'_>,
    forward: &Forward,
    origin: Option<&Origin>,
    request: &Headers<'_>,
) -> Vec<Setting> {
    let Forward {
        // Told for each destination.
        destination: _,
        authority: _,
        mirrors: _,
        // Envoy's: it is not for gRPC clients (A31).
        timeout: _,
        // In `Effective`.
        max_stream_duration: _,
        grpc_timeout_header_max: _,
        retry: _,
        hedge: _,
        priority,
        hash,
        auto_host_rewrite,
        path_rewrite,
    } = forward;
    let mut settings = Vec::new();
    let mut say = |name: &'static str, value: String| {
        settings.push(Setting { name, value, origin: Place::of(origin, name) });
    };
    say(
        "timeout",
        match effective.time_limit() {
            None => "none".to_owned(),
            Some(TimeLimit::Route(limit)) => format!("{limit:?}"),
            Some(TimeLimit::Listener(limit)) => format!("{limit:?} (of the listener)"),
        },
    );
    if let Some(timeout) = request.map.get("grpc-timeout") {
        say("grpc-timeout", format!("{timeout:?} of the caller, which wins when it is shorter"));
    }
    match effective.retry() {
        None => say("retries.attempts", "0: nothing is retried".to_owned()),
        Some(policy) => retries(policy, request, &mut say),
    }
    if let Some(HedgePolicy { initial_requests, additional_request_chance, on_per_try_timeout }) =
        effective.hedge()
    {
        let more = if *on_per_try_timeout { ", and one more at each per-try timeout" } else { "" };
        let value =
            format!("{initial_requests} attempts at once, {additional_request_chance} of one more{more}");
        say("hedge_policy", value);
    }
    if *priority == RoutingPriority::High {
        say("priority", "HIGH: the circuit breakers' limits of that priority count".to_owned());
    }
    match path_rewrite {
        Some(PathRewrite::Prefix(value)) => {
            say("rewrite.uri", format!("the matched part of the path becomes {value:?}"));
        }
        Some(PathRewrite::Regex(rewrite)) => {
            let (from, to) = (rewrite.as_str(), rewrite.substitution());
            say("rewrite.uriRegexRewrite", format!("{from:?} becomes {to:?}"));
        }
        None => {}
    }
    if *auto_host_rewrite {
        say("auto_host_rewrite", ":authority becomes the endpoint's hostname".to_owned());
    }
    for HashPolicy { key, terminal } in hash {
        let key = match key {
            HashKey::Header { name, rewrite: None } => format!("header {name}"),
            HashKey::Header { name, rewrite: Some(rewrite) } => {
                format!("header {name}, {:?} replaced by {:?}", rewrite.as_str(), rewrite.substitution())
            }
            HashKey::ChannelId => "the channel".to_owned(),
            HashKey::Cookie(cookie) => format!("cookie {}", cookie.name),
            HashKey::SourceIp => "the caller's address".to_owned(),
            HashKey::QueryParameter(name) => format!("query parameter {name}"),
        };
        say("hash_policy", if *terminal { format!("{key}; if there is one, nothing else") } else { key });
    }
    settings
}

/// Whether a setting of a route is about the attempts of its calls.
fn is_of_attempts(name: &str) -> bool {
    name.starts_with("retries.")
        || matches!(name, "per_try_idle_timeout" | "rate_limited_retry_back_off" | "hedge_policy")
}

impl Decision {
    /// A program decides on the attempts, whatever the route says of them.
    pub(super) fn replace_attempts(&mut self, own: Setting) {
        // A route that forwards says something of them, if only that there is one.
        if let Some(first) = self.settings.iter().position(|setting| is_of_attempts(setting.name)) {
            self.settings.retain(|setting| !is_of_attempts(setting.name));
            self.settings.insert(first, own);
        }
    }
}

fn retries(policy: &RetryPolicy, request: &Headers<'_>, say: &mut impl FnMut(&'static str, String)) {
    let RetryPolicy {
        on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        back_off: BackOff { base, max },
        avoid_previous_hosts,
        host_selection_attempts,
        previous_priorities,
        retriable_status_codes,
        retriable_headers,
        retriable_request_headers,
        rate_limited,
    } = policy;
    let refused = !retriable_request_headers.is_empty()
        && !retriable_request_headers.iter().any(|matcher| matcher.matches(request));
    let refused = if refused { "; but not for this request, by its headers" } else { "" };
    say("retries.attempts", format!("{num_retries} after the first{refused}"));
    say("retries.retryOn", conditions(on, retriable_status_codes, retriable_headers));
    if let Some(timeout) = per_try_timeout {
        say("retries.perTryTimeout", format!("{timeout:?}"));
    }
    if let Some(timeout) = per_try_idle_timeout {
        say("per_try_idle_timeout", format!("{timeout:?}"));
    }
    say("retries.backoff", format!("{base:?}, doubling up to {max:?}, fully jittered"));
    if let Some(RateLimitedBackOff { headers, max }) = rate_limited {
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        say("rate_limited_retry_back_off", format!("as {} says, at most {max:?}", names.join(" or ")));
    }
    let hosts = match avoid_previous_hosts {
        true => format!("prefers endpoints not tried yet, in {host_selection_attempts} picks"),
        false => "any endpoint again".to_owned(),
    };
    say("retries.retryIgnorePreviousHosts", hosts);
    if let Some(every) = previous_priorities {
        let value = format!("other priorities than those tried, decided anew after every {every} attempts");
        say("retries.retryRemoteLocalities", value);
    }
}

/// `retry_on`, in Envoy's words.
fn conditions(on: &RetryOn, codes: &[u16], headers: &[HeaderMatcher]) -> String {
    let RetryOn {
        cancelled,
        deadline_exceeded,
        internal,
        resource_exhausted,
        unavailable,
        server_error,
        gateway_error,
        reset,
        reset_before_request,
        connect_failure,
        refused_stream,
        retriable_4xx,
        retriable_status_codes,
        retriable_headers,
        envoy_ratelimited,
    } = *on;
    let mut words: Vec<String> = [
        (cancelled, "cancelled"),
        (deadline_exceeded, "deadline-exceeded"),
        (internal, "internal"),
        (resource_exhausted, "resource-exhausted"),
        (unavailable, "unavailable"),
        (server_error, "5xx"),
        (gateway_error, "gateway-error"),
        (reset, "reset"),
        (reset_before_request, "reset-before-request"),
        (connect_failure, "connect-failure"),
        (refused_stream, "refused-stream"),
        (retriable_4xx, "retriable-4xx"),
        (envoy_ratelimited, "envoy-ratelimited"),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .map(|(_, word)| word.to_owned())
    .collect();
    if retriable_status_codes {
        words.extend(codes.iter().map(|code| format!("HTTP {code}")));
    }
    if retriable_headers {
        words.extend(headers.iter().map(|header| format!("a response with {header}")));
    }
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// What may differ by cluster; `index` is its place among the route's.
fn of_destination(
    effective: &Effective<'_>,
    origin: Option<&Origin>,
    index: usize,
    request: &Headers<'_>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    for fault in effective.faults() {
        self::fault(fault, request, &mut |name, value| {
            settings.push(Setting { name, value, origin: Place::of(origin, name) });
        });
    }
    if let Some(session) = effective.session() {
        let name = "stateful_session";
        settings.push(Setting { name, value: affinity(session, request), origin: Place::of(origin, name) });
    }
    // What a destination says for itself stands where it does.
    let own = Place::of(origin, &format!("route[{index}]"));
    let mut say = |name: &'static str, value: String, level: Level| {
        let origin = match Place::of(origin, name) {
            Place::Written(place) if level != Level::WeightedCluster => Place::Written(place),
            _ => own.clone(),
        };
        settings.push(Setting { name, value, origin });
    };
    for (level, headers) in effective.headers() {
        for (name, mutation) in
            [("headers.request", &headers.request), ("headers.response", &headers.response)]
        {
            if let Some(changes) = changes(mutation) {
                say(name, changes, level);
            }
        }
    }
    if let Some((level, authority)) = effective.authority() {
        say("rewrite.authority", String::from_utf8_lossy(authority.as_bytes()).into_owned(), level);
    }
    settings
}

fn fault(fault: &Fault, request: &Headers<'_>, say: &mut impl FnMut(&'static str, String)) {
    let Fault { delay, abort, headers, max_active } = fault;
    let mut limits = String::new();
    if let Some(missed) = headers.iter().find(|matcher| !matcher.matches(request)) {
        limits = format!("; not for this request, which would need {missed}");
    }
    if let Some(most) = max_active {
        limits.push_str(&format!("; at most {most} at once"));
    }
    if let Some(delay) = delay {
        let what = match delay.kind {
            DelayKind::Fixed(length) => format!("{length:?}"),
            DelayKind::Header => "as x-envoy-fault-delay-request says".to_owned(),
        };
        say("fault.delay", format!("{what} for {} of the calls{limits}", delay.fraction));
    }
    if let Some(abort) = abort {
        let what = match abort.kind {
            AbortKind::Http(status) => format!("HTTP {status}"),
            AbortKind::Grpc(code) => {
                let name = i32::try_from(code).map_or(tonic::Code::Unknown, tonic::Code::from_i32);
                format!("gRPC status {code} ({name:?})")
            }
            AbortKind::Header => "as x-envoy-fault-abort-request says".to_owned(),
        };
        say("fault.abort", format!("{what} for {} of the calls{limits}", abort.fraction));
    }
}

/// How calls stay with their endpoint.
fn affinity(session: &StatefulSession, request: &Headers<'_>) -> String {
    let StatefulSession { state, strict } = session;
    let kept = match state {
        None => return "none".to_owned(),
        Some(SessionState::Cookie(cookie)) => {
            let SessionCookie { name, ttl, path, attributes: _ } = cookie;
            let lifetime = if ttl.is_zero() { String::new() } else { format!(" for {ttl:?}") };
            let misses = if cookie.is_for(request.path) { "" } else { ", which this one is not" };
            format!("by cookie {name}{lifetime}, for calls of path {path}{misses}")
        }
        Some(SessionState::Header(name)) => format!("by header {name}"),
    };
    match strict {
        None => kept,
        Some(status) => format!("{kept}; strictly: fails if the endpoint is gone (as HTTP status {status})"),
    }
}

fn changes(mutation: &HeaderMutation) -> Option<String> {
    let HeaderMutation { add, remove } = mutation;
    let added = add.iter().map(|addition| {
        let verb = match addition.action {
            AppendAction::AppendIfExistsOrAdd => "add",
            AppendAction::AddIfAbsent => "add if absent",
            AppendAction::OverwriteIfExistsOrAdd => "set",
            AppendAction::OverwriteIfExists => "set if present",
        };
        format!("{verb} {}: {}", addition.name, String::from_utf8_lossy(addition.value.as_bytes()))
    });
    let all: Vec<String> = added.chain(remove.iter().map(|name| format!("remove {name}"))).collect();
    (!all.is_empty()).then(|| all.join("; "))
}
