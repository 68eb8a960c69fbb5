//! HTTP filters that need a feature of the data path.

use super::{
    duration,
    filter::leaf,
    fraction, header_name, header_value, name, positive,
    route::{header_addition, route_match},
    some_text, string, text,
};
use crate::{
    matcher::{FullRegex, HeaderMatcher, HeaderOrPseudo, MatcherKind, MatcherTree, OnMatch, Predicate},
    resource::{
        composite::*, ext_authz::*, filter::*, gcp_authn::*, jwt::*, local_rate_limit::*,
        rate_limit_quota::*, stateful_session::*,
    },
};
use proptest::{collection::vec, option, prelude::*};
use std::{
    fmt::Debug,
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    time::Duration,
};

fn word() -> impl Strategy<Value = Arc<str>> {
    "[a-z]{1,5}".prop_map(Arc::from)
}

fn session() -> BoxedStrategy<StatefulSession> {
    let cookie = (word(), duration(), "/[a-z]{0,5}", vec((word(), word()), 0..2))
        .prop_map(|(name, ttl, path, attributes)| SessionCookie { name, ttl, path: path.into(), attributes });
    let header = word().prop_map(|name| SessionState::Header(name.parse().unwrap()));
    let state = prop_oneof![cookie.prop_map(SessionState::Cookie), header];
    let strict = option::of((200..600_u16).prop_map(|status| http::StatusCode::from_u16(status).unwrap()));
    (option::of(state), strict).prop_map(|(state, strict)| StatefulSession { state, strict }).boxed()
}

fn token_bucket() -> impl Strategy<Value = TokenBucket> {
    (1..=u32::MAX, 1..=u32::MAX, positive()).prop_map(|(max, fill, fill_interval)| TokenBucket {
        max_tokens: NonZeroU32::new(max).unwrap(),
        tokens_per_fill: NonZeroU32::new(fill).unwrap(),
        fill_interval,
    })
}

fn local_rate_limit() -> BoxedStrategy<LocalRateLimit> {
    (
        (option::of(token_bucket()), fraction(), fraction(), 400..600_u16),
        (vec(header_addition(), 0..2), vec(header_addition(), 0..2), any::<(bool, bool)>()),
    )
        .prop_map(|((bucket, enabled, enforced, status), (request, response, flags))| LocalRateLimit {
            bucket,
            enabled,
            enforced,
            status,
            resource_exhausted: flags.0,
            request_headers: request,
            response_headers: response,
            per_connection: flags.1,
        })
        .boxed()
}

fn provider() -> BoxedStrategy<JwtProvider> {
    let remote = (name(), positive(), positive(), option::of((any::<bool>(), duration()))).prop_map(
        |(cluster, timeout, cache_duration, prefetch)| {
            Jwks::Remote(RemoteJwks {
                uri: http::Uri::from_static("https://issuer.example/keys"),
                cluster,
                timeout,
                cache_duration,
                prefetch: prefetch
                    .map(|(fast_listener, failed_refetch)| Prefetch { fast_listener, failed_refetch }),
            })
        },
    );
    let keys = prop_oneof![Just(Jwks::Local("{\"keys\": []}".into())), remote];
    let claim = prop_oneof![word().prop_map(Claim::Name), vec(some_text(), 1..3).prop_map(Claim::Path)];
    let claim = (header_name(), claim).prop_map(|(header, claim)| ClaimToHeader { header, claim });
    let header = (header_name(), text()).prop_map(|(name, prefix)| JwtHeader { name, prefix });
    let texts = || vec(some_text(), 0..2);
    (
        (option::of(some_text()), texts(), option::of(string()), option::of(duration()), 1..1000_u64),
        (keys, vec(header, 0..2), texts(), texts(), option::of(header_name())),
        (option::of(some_text()), texts(), vec(claim, 0..2), any::<[bool; 3]>()),
    )
        .prop_map(|(who, places, (payload_in_metadata, space_delimited_claims, claims, flags))| {
            let (issuer, audiences, subjects, max_lifetime, skew) = who;
            let (keys, from_headers, from_params, from_cookies, payload_header) = places;
            JwtProvider {
                issuer,
                audiences,
                subjects,
                require_expiration: flags[0],
                max_lifetime,
                clock_skew: Duration::from_secs(skew),
                keys,
                forward: flags[1],
                from_headers,
                from_params,
                from_cookies,
                payload_header,
                pad_payload_header: flags[2],
                payload_in_metadata,
                space_delimited_claims,
                claims,
            }
        })
        .boxed()
}

fn jwt() -> BoxedStrategy<JwtAuthn> {
    let leaf = prop_oneof![
        option::of(vec(some_text(), 0..2))
            .prop_map(|audiences| JwtRequirement::Provider { name: "p".into(), audiences }),
        Just(JwtRequirement::AllowMissing),
        Just(JwtRequirement::AllowMissingOrFailed),
    ];
    let requirement = leaf
        .prop_recursive(2, 6, 3, |inner| {
            prop_oneof![
                vec(inner.clone(), 2..4).prop_map(JwtRequirement::Any),
                vec(inner, 2..4).prop_map(JwtRequirement::All),
            ]
        })
        .boxed();
    let rule = (route_match(), option::of(requirement.clone()))
        .prop_map(|(matches, requires)| JwtRule { matches, requires });
    let named = |one| vec((text(), one), 0..2);
    (vec((text(), provider()), 0..2), provider(), vec(rule, 0..2), named(requirement))
        .prop_map(|(others, known, rules, requirements)| {
            let others = others.into_iter().map(|(name, provider)| (name, Arc::new(provider)));
            let known = ("p".into(), Arc::new(known));
            let providers = others.chain([known]).collect();
            JwtAuthn { providers, rules, requirements: requirements.into_iter().collect() }
        })
        .boxed()
}

fn service() -> BoxedStrategy<GrpcService> {
    let credentials =
        prop_oneof![Just(Credentials::Insecure), Just(Credentials::Xds(Box::new(Credentials::Insecure)))];
    // A value of no bytes is one of no raw bytes.
    let metadata = vec((header_name(), header_value()), 0..2);
    (some_text(), credentials, option::of(positive()), metadata)
        .prop_map(|(target, credentials, timeout, metadata)| GrpcService {
            target,
            credentials,
            timeout,
            metadata,
        })
        .boxed()
}

fn ext_authz() -> BoxedStrategy<ExtAuthz> {
    let regex = || option::of(Just(FullRegex::new("x-.*").unwrap()));
    let rules = (any::<(bool, bool)>(), regex(), regex()).prop_map(|(flags, allow, disallow)| {
        MutationRules { disallow_all: flags.0, allow, disallow, disallow_is_error: flags.1 }
    });
    (
        (service(), fraction(), 200..600_u16, rules, any::<[bool; 4]>()),
        (vec(string(), 0..2), vec(string(), 0..2)),
    )
        .prop_map(|((service, enabled, status, mutation_rules, flags), (allowed, disallowed))| ExtAuthz {
            service,
            enabled,
            deny_at_disable: flags[0],
            failure_mode_allow: flags[1],
            failure_mode_allow_header: flags[2],
            status_on_error: status,
            allowed_headers: allowed,
            disallowed_headers: disallowed,
            mutation_rules,
            include_peer_certificate: flags[3],
        })
        .boxed()
}

fn tree<A: Debug + Clone + 'static>(action: BoxedStrategy<A>) -> BoxedStrategy<MatcherTree<A>> {
    let header = (header_name(), string())
        .prop_map(|(name, value)| HeaderMatcher::string(HeaderOrPseudo::Header(name), value));
    let predicate = header.prop_map(Predicate::Header).prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Predicate::Not(Box::new(inner))),
            vec(inner.clone(), 2..3).prop_map(Predicate::And),
            vec(inner, 2..3).prop_map(Predicate::Or),
        ]
    });
    let predicate = predicate.boxed();
    let leaf = action
        .prop_map(|action| MatcherTree { kind: None, on_no_match: Some(Box::new(OnMatch::Action(action))) });
    leaf.prop_recursive(2, 6, 3, move |inner| {
        let on = inner.prop_map(|tree| match tree {
            MatcherTree { kind: None, on_no_match: Some(on) } => *on,
            tree => OnMatch::Matcher(Box::new(tree)),
        });
        let on = on.boxed();
        let input = header_name().prop_map(HeaderOrPseudo::Header).boxed();
        let map = || vec((text(), on.clone()), 1..3).prop_map(|map| map.into_iter().collect());
        let kind = prop_oneof![
            vec((predicate.clone(), on.clone()), 1..3).prop_map(MatcherKind::List),
            (input.clone(), map()).prop_map(|(input, map)| MatcherKind::Exact { input, map }),
            (input, map()).prop_map(|(input, map)| MatcherKind::Prefix { input, map }),
        ];
        (kind, option::of(on))
            .prop_map(|(kind, on)| MatcherTree { kind: Some(kind), on_no_match: on.map(Box::new) })
    })
    .boxed()
}

fn limit() -> impl Strategy<Value = QuotaLimit> {
    let per = prop::sample::select(vec![1, 60, 3_600, 86_400]).prop_map(Duration::from_secs);
    prop_oneof![
        Just(QuotaLimit::AllowAll),
        Just(QuotaLimit::DenyAll),
        (any::<u64>(), per).prop_map(|(requests, per)| QuotaLimit::PerTime { requests, per }),
        token_bucket().prop_map(QuotaLimit::TokenBucket),
    ]
}

fn bucket() -> BoxedStrategy<Bucket> {
    let id = prop_oneof![
        text().prop_map(IdValue::Text),
        header_name().prop_map(|name| IdValue::Header(HeaderOrPseudo::Header(name)))
    ];
    let expired = (option::of(positive()), option::of(limit()))
        .prop_map(|(timeout, limit)| ExpiredQuota { timeout, limit });
    let deny = (1..=16_u32, text(), vec(header_addition(), 0..2))
        .prop_map(|(code, message, headers)| DenyResponse { code, message, headers });
    (vec((text(), id), 0..3), positive(), limit(), option::of(expired), deny)
        .prop_map(|(id, interval, no_assignment, expired, deny)| Bucket {
            id: id.into_iter().collect(),
            reporting_interval: interval + Duration::from_millis(100),
            no_assignment,
            expired,
            deny,
        })
        .boxed()
}

fn quota() -> BoxedStrategy<RateLimitQuota> {
    (service(), some_text(), tree(bucket().boxed()), fraction(), fraction(), vec(header_addition(), 0..2))
        .prop_map(|(service, domain, buckets, enabled, enforced, request_headers)| RateLimitQuota {
            service,
            domain,
            buckets,
            enabled,
            enforced,
            request_headers,
        })
        .boxed()
}

fn actions(server: bool) -> impl Strategy<Value = CompositeAction> {
    let execute = (vec((some_text(), leaf(server)), 1..3), fraction())
        .prop_map(|(filters, sample)| CompositeAction::Execute { filters, sample });
    prop_oneof![Just(CompositeAction::Skip), execute]
}

pub(super) fn composite(server: bool) -> BoxedStrategy<FilterConfig> {
    tree(actions(server).boxed())
        .prop_map(|matcher| FilterConfig::Composite(Arc::new(Composite { matcher })))
        .boxed()
}

pub(super) fn of_client() -> BoxedStrategy<FilterConfig> {
    prop_oneof![
        session().prop_map(|session| FilterConfig::StatefulSession(Arc::new(session))),
        (1..=i64::MAX.unsigned_abs()).prop_map(|size| {
            FilterConfig::GcpAuthn(Arc::new(GcpAuthn { cache_size: NonZeroU64::new(size).unwrap() }))
        }),
    ]
    .boxed()
}

pub(super) fn of_server() -> BoxedStrategy<FilterConfig> {
    prop_oneof![
        jwt().prop_map(|jwt| FilterConfig::JwtAuthn(Arc::new(jwt))),
        local_rate_limit().prop_map(|limit| FilterConfig::LocalRateLimit(Arc::new(limit))),
        quota().prop_map(|quota| FilterConfig::RateLimitQuota(Arc::new(quota))),
    ]
    .boxed()
}

pub(super) fn of_both() -> BoxedStrategy<FilterConfig> {
    ext_authz().prop_map(|authz| FilterConfig::ExtAuthz(Arc::new(authz))).boxed()
}

pub(super) fn overrides() -> BoxedStrategy<FilterOverride> {
    let config = |config| FilterOverride::Config(config);
    prop_oneof![
        session().prop_map(move |session| config(FilterConfig::StatefulSession(Arc::new(session)))),
        local_rate_limit().prop_map(move |limit| config(FilterConfig::LocalRateLimit(Arc::new(limit)))),
        some_text().prop_map(FilterOverride::JwtRequirement),
        vec((text(), text()), 0..3)
            .prop_map(|context| FilterOverride::CheckSettings(context.into_iter().collect())),
        (option::of(some_text()), option::of(tree(bucket().boxed()))).prop_map(|(domain, buckets)| {
            FilterOverride::RateLimitQuota(Arc::new(QuotaOverride { domain, buckets }))
        }),
        tree(actions(true).boxed()).prop_map(|tree| FilterOverride::Composite(Arc::new(tree))),
    ]
    .boxed()
}
