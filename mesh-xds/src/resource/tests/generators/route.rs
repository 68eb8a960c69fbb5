//! Route configurations.

use super::{
    authority, duration, filter::overrides, fraction, header_name, header_value, headers, name, origin, path,
    positive, some_text, string, text, weight,
};
use crate::{
    matcher::{DomainPattern, Fraction},
    resource::{retry::*, route::*},
};
use proptest::{collection::vec, option, prelude::*};
use std::{num::NonZeroU32, sync::Arc};

pub(super) fn header_addition() -> impl Strategy<Value = HeaderAddition> {
    let action = prop_oneof![
        Just(AppendAction::AppendIfExistsOrAdd),
        Just(AppendAction::AddIfAbsent),
        Just(AppendAction::OverwriteIfExistsOrAdd),
        Just(AppendAction::OverwriteIfExists),
    ];
    (header_name(), header_value(), action).prop_map(|(name, value, action)| HeaderAddition {
        name,
        value,
        action,
    })
}

fn header_mutation() -> impl Strategy<Value = HeaderMutation> {
    (vec(header_addition(), 0..2), vec(header_name(), 0..2))
        .prop_map(|(add, remove)| HeaderMutation { add, remove })
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
    let priorities =
        option::of((1..=i32::MAX.unsigned_abs()).prop_map(|every| NonZeroU32::new(every).unwrap()));
    (
        (retry_on(), 1..10_u32, option::of(duration()), option::of(duration()), back_off),
        (
            any::<bool>(),
            1..=u32::MAX,
            priorities,
            vec(100..600_u16, 0..3),
            headers(),
            headers(),
            option::of(limited),
        ),
    )
        .prop_map(|((on, num_retries, per_try_timeout, per_try_idle_timeout, back_off), rest)| {
            let (
                avoid_previous_hosts,
                host_selection_attempts,
                previous_priorities,
                codes,
                response,
                request,
                rate_limited,
            ) = rest;
            RetryPolicy {
                on,
                num_retries,
                per_try_timeout,
                per_try_idle_timeout,
                back_off,
                avoid_previous_hosts,
                host_selection_attempts,
                previous_priorities,
                retriable_status_codes: codes,
                retriable_headers: response,
                retriable_request_headers: request,
                rate_limited,
            }
        })
}

fn hedge() -> impl Strategy<Value = HedgePolicy> {
    (1..5_u32, fraction(), any::<bool>()).prop_map(|(initial, additional_request_chance, flag)| HedgePolicy {
        initial_requests: NonZeroU32::new(initial).unwrap(),
        additional_request_chance,
        // It asks for something.
        on_per_try_timeout: flag || (initial == 1 && additional_request_chance == Fraction::ZERO),
    })
}

fn cookie() -> impl Strategy<Value = HashCookie> {
    let word = || "[a-z]{1,5}".prop_map(Arc::from);
    (word(), option::of(duration()), "/?[a-z]{0,5}", vec((word(), word()), 0..2))
        .prop_map(|(name, ttl, path, attributes)| HashCookie { name, ttl, path: path.into(), attributes })
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let status = prop::sample::select(vec![301_u16, 302, 303, 307, 308]);
    let path = prop_oneof![
        some_text().prop_map(RedirectPath::Exact),
        text().prop_map(RedirectPath::Prefix),
        regex_rewrite().prop_map(RedirectPath::Regex),
    ];
    let host = "[a-z.]{1,12}".prop_map(Arc::from);
    let scheme = prop::sample::select(vec!["http", "https", "x"]).prop_map(Arc::from);
    (status, option::of(scheme), option::of(host), option::of(1..=u16::MAX), option::of(path), any::<bool>())
        .prop_map(|(status, scheme, host, port, path, strip_query)| Redirect {
            status,
            scheme,
            host,
            port,
            path,
            strip_query,
        })
}

fn regex_rewrite() -> impl Strategy<Value = RegexRewrite> {
    (text(), "[a-z]{0,3}").prop_map(|(text, substitution)| {
        RegexRewrite::new(&format!("({})", regex::escape(&text)), &format!("{substitution}\\1")).unwrap()
    })
}

fn destination() -> BoxedStrategy<Destination> {
    let choice = (name(), weight(), mutations(), overrides(), option::of(authority())).prop_map(
        |(cluster, weight, headers, overrides, authority)| WeightedCluster {
            cluster,
            weight,
            headers,
            overrides,
            authority,
        },
    );
    prop_oneof![
        3 => name().prop_map(Destination::Cluster),
        3 => vec(choice, 1..3).prop_map(Destination::Weighted),
        1 => header_name().prop_map(Destination::Header),
    ]
    .boxed()
}

fn forward() -> BoxedStrategy<Forward> {
    let key = prop_oneof![
        (header_name(), option::of(regex_rewrite()))
            .prop_map(|(name, rewrite)| HashKey::Header { name, rewrite }),
        Just(HashKey::ChannelId),
        Just(HashKey::SourceIp),
        some_text().prop_map(HashKey::QueryParameter),
        cookie().prop_map(HashKey::Cookie),
    ];
    let hash = (key, any::<bool>()).prop_map(|(key, terminal)| HashPolicy { key, terminal });
    let rewrite =
        prop_oneof![some_text().prop_map(PathRewrite::Prefix), regex_rewrite().prop_map(PathRewrite::Regex),];
    let mirror = (name(), fraction(), any::<bool>()).prop_map(|(cluster, fraction, shadow_host)| Mirror {
        cluster,
        fraction,
        shadow_host,
    });
    let host = prop_oneof![
        Just((None, false)),
        Just((None, true)),
        authority().prop_map(|authority| (Some(authority), false)),
    ];
    let bounds = (option::of(duration()), option::of(duration()), option::of(duration()));
    (
        destination(),
        bounds,
        (
            option::of(retry()),
            option::of(hedge()),
            prop_oneof![Just(RoutingPriority::Default), Just(RoutingPriority::High)],
        ),
        vec(hash, 0..2),
        host,
        option::of(rewrite),
        vec(mirror, 0..2),
    )
        .prop_map(|(destination, bounds, (retry, hedge, priority), hash, host, path_rewrite, mirrors)| {
            Forward {
                destination,
                timeout: bounds.0,
                max_stream_duration: bounds.1,
                grpc_timeout_header_max: bounds.2,
                retry: retry.map(Arc::new),
                hedge,
                priority,
                hash,
                authority: host.0,
                auto_host_rewrite: host.1,
                path_rewrite,
                mirrors,
            }
        })
        .boxed()
}

pub(super) fn route_match() -> BoxedStrategy<RouteMatch> {
    let query = (some_text(), option::of(string())).prop_map(|(name, value)| QueryMatcher { name, value });
    (path(), headers(), vec(query, 0..2), option::of(fraction()))
        .prop_map(|(path, headers, query, fraction)| RouteMatch { path, headers, query, fraction })
        .boxed()
}

fn route() -> BoxedStrategy<Arc<Route>> {
    let action = prop_oneof![
        4 => forward().prop_map(|forward| RouteAction::Forward(Box::new(forward))),
        1 => Just(RouteAction::NonForwarding),
        1 => redirect().prop_map(|redirect| RouteAction::Redirect(Arc::new(redirect))),
        1 => (200..600_u16, vec(any::<u8>(), 0..20)).prop_map(|(status, body)| {
            RouteAction::DirectResponse(Arc::new(DirectResponse { status, body: body.into() }))
        }),
        1 => Just(RouteAction::Unsupported("filter_action")),
    ];
    (text(), route_match(), action, overrides(), mutations(), option::of(origin()))
        .prop_map(|(name, matches, action, overrides, headers, origin)| {
            Arc::new(Route { name, matches, action, overrides, headers, origin })
        })
        .boxed()
}

pub(crate) fn route_configuration() -> impl Strategy<Value = RouteConfiguration> {
    let host = (
        some_text(),
        vec(prop_oneof![4 => "[*]?[a-z]{1,8}", 1 => "[a-z]{1,8}[*]", 1 => Just("*".to_owned())], 1..3),
        vec(route(), 0..3),
        (option::of(retry()), option::of(hedge())),
        overrides(),
        mutations(),
    );
    let flags = (mutations(), any::<(bool, bool)>());
    (name(), vec(host, 0..3), flags).prop_map(|(name, hosts, (headers, flags))| {
        let hosts = hosts.into_iter().enumerate().map(|(i, host)| {
            let (name, domains, routes, (retry, hedge), overrides, headers) = host;
            let domains = domains.iter().enumerate();
            // None is in the configuration twice.
            let domains = domains.map(|(j, domain)| match domain.strip_suffix('*') {
                Some("") if (i, j) == (0, 0) => "*".to_owned(),
                Some(start) => format!("{start}{i}{j}*"),
                None => format!("{domain}{i}{j}"),
            });
            let domains = domains.map(|domain| DomainPattern::parse(&domain).unwrap());
            let (domains, retry) = (domains.collect(), retry.map(Arc::new));
            Arc::new(VirtualHost { name, domains, routes, retry, hedge, overrides, headers })
        });
        RouteConfiguration {
            name,
            virtual_hosts: hosts.collect(),
            headers,
            most_specific_headers_last: flags.0,
            ignore_port: flags.1,
            max_direct_response_body: Some(20),
        }
    })
}
