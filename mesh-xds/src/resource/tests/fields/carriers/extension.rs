//! A good resource around each message of `resource/fields/extension.rs`.

use super::*;
use crate::{
    matcher::{HeaderMatcher, HeaderOrPseudo, MatcherKind, MatcherTree, OnMatch, Predicate, StringMatcher},
    resource::{
        Resource as _,
        composite::*,
        ext_authz::*,
        filter::{FilterConfig, FilterOverride, HttpFilter},
        gcp_authn::*,
        jwt::*,
        listener as listeners,
        local_rate_limit::*,
        rate_limit_quota::*,
        rbac as policies, route as routes,
        stateful_session::*,
    },
};
use std::{num::NonZeroU32, sync::Arc, time::Duration};

fn listener(config: FilterConfig, on_server: bool) -> Vec<u8> {
    let filter = |name: &str, config| HttpFilter { name: name.into(), config, disabled: false };
    let http = listeners::HttpConnectionManager {
        routes: listeners::RouteSource::Rds("r".into()),
        filters: vec![filter("f", config), filter("router", FilterConfig::Router)],
        max_stream_duration: None,
    };
    let kind = if on_server {
        let (name, matches) = ("c".into(), listeners::FilterChainMatch::default());
        let chain = listeners::FilterChain { name, matches, tls: None, http };
        listeners::ListenerKind::Server(listeners::ServerListener {
            address: [10, 0, 0, 1].into(),
            port: 80,
            filter_chains: vec![chain],
            default_filter_chain: None,
        })
    } else {
        listeners::ListenerKind::Api(http)
    };
    model::Listener { name: "l".into(), kind }.to_proto().to_vec()
}

fn route_with(config: FilterOverride) -> Vec<u8> {
    let route = routes::Route {
        name: "".into(),
        matches: routes::RouteMatch {
            path: crate::matcher::PathMatcher::any(),
            headers: vec![],
            query: vec![],
            fraction: None,
        },
        action: routes::RouteAction::NonForwarding,
        overrides: [("f".into(), config)].into(),
        headers: Default::default(),
        origin: None,
    };
    let host = routes::VirtualHost {
        name: "h".into(),
        domains: vec![crate::matcher::DomainPattern::Any],
        routes: vec![Arc::new(route)],
        retry: None,
        hedge: None,
        overrides: Default::default(),
        headers: Default::default(),
    };
    model::RouteConfiguration::new("r".into(), vec![Arc::new(host)]).to_proto().to_vec()
}

fn bucket() -> TokenBucket {
    TokenBucket {
        max_tokens: NonZeroU32::new(7).unwrap(),
        tokens_per_fill: NonZeroU32::new(7).unwrap(),
        fill_interval: Duration::from_secs(7),
    }
}

fn session() -> StatefulSession {
    let cookie = SessionCookie {
        name: "n".into(),
        ttl: Duration::ZERO,
        path: "/".into(),
        attributes: vec![("x".into(), "y".into())],
    };
    StatefulSession { state: Some(SessionState::Cookie(cookie)), strict: None }
}

fn session_by_header() -> FilterConfig {
    let state = Some(SessionState::Header(http::HeaderName::from_static("x-session")));
    FilterConfig::StatefulSession(Arc::new(StatefulSession { state, strict: None }))
}

fn jwt() -> JwtAuthn {
    let remote = RemoteJwks {
        uri: http::Uri::from_static("https://issuer.example/keys"),
        cluster: "keys".into(),
        timeout: Duration::from_secs(7),
        cache_duration: Duration::from_secs(7),
        prefetch: Some(Prefetch { fast_listener: false, failed_refetch: Duration::from_secs(7) }),
    };
    let header = routes::HeaderName::from_static("x-token");
    let provider = JwtProvider {
        issuer: None,
        audiences: vec![],
        subjects: None,
        require_expiration: false,
        max_lifetime: None,
        clock_skew: Duration::from_secs(60),
        keys: Jwks::Remote(remote),
        forward: false,
        from_headers: vec![JwtHeader { name: header.clone(), prefix: "".into() }],
        from_params: vec![],
        from_cookies: vec![],
        payload_header: None,
        pad_payload_header: false,
        payload_in_metadata: None,
        space_delimited_claims: vec![],
        claims: vec![ClaimToHeader { header, claim: Claim::Name("sub".into()) }],
    };
    let matches = routes::RouteMatch {
        path: crate::matcher::PathMatcher::any(),
        headers: vec![],
        query: vec![],
        fraction: None,
    };
    let requires = Some(JwtRequirement::Provider { name: "p".into(), audiences: None });
    JwtAuthn {
        providers: [("p".into(), Arc::new(provider))].into(),
        rules: vec![JwtRule { matches, requires }],
        requirements: Default::default(),
    }
}

fn local() -> LocalRateLimit {
    LocalRateLimit {
        bucket: Some(bucket()),
        enabled: crate::matcher::Fraction::per_million(7),
        enforced: crate::matcher::Fraction::per_million(7),
        status: 503,
        resource_exhausted: false,
        request_headers: vec![],
        response_headers: vec![],
        per_connection: false,
    }
}

fn authz() -> ExtAuthz {
    let anything = crate::matcher::FullRegex::new(".*").unwrap();
    ExtAuthz {
        service: service(),
        enabled: crate::matcher::Fraction::per_million(7),
        deny_at_disable: false,
        failure_mode_allow: false,
        failure_mode_allow_header: false,
        status_on_error: 503,
        allowed_headers: vec![],
        disallowed_headers: vec![],
        mutation_rules: MutationRules { allow: Some(anything), ..Default::default() },
        include_peer_certificate: false,
    }
}

fn service() -> GrpcService {
    GrpcService { target: "t".into(), credentials: Credentials::Insecure, timeout: None, metadata: vec![] }
}

fn header() -> HeaderOrPseudo {
    HeaderOrPseudo::Header(routes::HeaderName::from_static("x"))
}

/// By the value of a header: this action.
fn by_value<A>(action: A) -> MatcherTree<A> {
    let map = [("v".into(), OnMatch::Action(action))].into();
    MatcherTree { kind: Some(MatcherKind::Exact { input: header(), map }), on_no_match: None }
}

/// Where a header is as wanted: this action.
fn by_predicate<A>(action: A) -> MatcherTree<A> {
    let matcher = HeaderMatcher::string(header(), StringMatcher::exact("v", false));
    let list = vec![(Predicate::Header(matcher), OnMatch::Action(action))];
    MatcherTree { kind: Some(MatcherKind::List(list)), on_no_match: None }
}

fn quota_bucket(limit: QuotaLimit) -> Bucket {
    Bucket {
        id: [("k".into(), IdValue::Text("v".into()))].into(),
        reporting_interval: Duration::from_secs(7),
        no_assignment: limit,
        expired: Some(ExpiredQuota { timeout: None, limit: Some(QuotaLimit::DenyAll) }),
        deny: DenyResponse { code: 8, message: "".into(), headers: vec![] },
    }
}

fn quota(limit: QuotaLimit) -> FilterConfig {
    FilterConfig::RateLimitQuota(Arc::new(RateLimitQuota {
        service: service(),
        domain: "d".into(),
        buckets: by_predicate(quota_bucket(limit)),
        enabled: crate::matcher::Fraction::per_million(7),
        enforced: crate::matcher::Fraction::per_million(7),
        request_headers: vec![],
    }))
}

fn execute() -> CompositeAction {
    let filters = vec![("inner".into(), FilterConfig::StatefulSession(Arc::new(session())))];
    CompositeAction::Execute { filters, sample: crate::matcher::Fraction::per_million(7) }
}

fn composite(matcher: MatcherTree<CompositeAction>) -> FilterConfig {
    FilterConfig::Composite(Arc::new(Composite { matcher }))
}

fn audited() -> FilterConfig {
    let audit =
        policies::Audit { denied: true, allowed: false, loggers: vec![policies::AuditLogger::Stdout] };
    let rules = policies::Rules {
        action: policies::RbacAction::Deny,
        policies: Default::default(),
        audit: Some(audit),
    };
    FilterConfig::Rbac(Arc::new(policies::Rbac { rules: Some(rules) }))
}

#[rustfmt::skip]
pub(super) fn carriers() -> Vec<Carrier> {
    let client = |message, config: FilterConfig, at| Carrier {
        message, kind: ResourceType::Listener, good: listener(config, false), at,
    };
    let server = |message, config: FilterConfig, at| Carrier {
        message, kind: ResourceType::Listener, good: listener(config, true), at,
    };
    let route = |message, config: FilterOverride, at| Carrier {
        message, kind: ResourceType::RouteConfiguration, good: route_with(config), at,
    };
    let sessions = || FilterConfig::StatefulSession(Arc::new(session()));
    let jwts = || FilterConfig::JwtAuthn(Arc::new(jwt()));
    let locals = || FilterConfig::LocalRateLimit(Arc::new(local()));
    let authzs = || FilterConfig::ExtAuthz(Arc::new(authz()));
    let gcp = || FilterConfig::GcpAuthn(Arc::new(GcpAuthn { cache_size: 7.try_into().unwrap() }));
    let all = || quota(QuotaLimit::AllowAll);
    let rate = || quota(QuotaLimit::PerTime { requests: 7, per: Duration::from_secs(3_600) });
    let listed = || composite(by_predicate(execute()));
    vec![
        server(&AUDIT, audited(), in_server!(1, 3)),
        server(&AUDIT_LOGGER, audited(), in_server!(1, 3, 2)),
        client(&SESSION, sessions(), in_client!()),
        route(&SESSION_PER_ROUTE, FilterOverride::Config(sessions()), in_override!()),
        client(&SESSION_COOKIE_STATE, sessions(), in_client!(1, 2, 2)),
        client(&SESSION_HEADER_STATE, session_by_header(), in_client!(1, 2, 2)),
        client(&SESSION_COOKIE, sessions(), in_client!(1, 2, 2, 1)),
        client(&SESSION_COOKIE_ATTRIBUTE, sessions(), in_client!(1, 2, 2, 1, 4)),
        server(&JWT, jwts(), in_server!()),
        server(&JWT_PROVIDER, jwts(), in_server!(1, 2)),
        server(&JWT_HEADER, jwts(), in_server!(1, 2, 6)),
        server(&JWT_REMOTE, jwts(), in_server!(1, 2, 3)),
        server(&JWT_HTTP_URI, jwts(), in_server!(1, 2, 3, 1)),
        server(&JWT_ASYNC_FETCH, jwts(), in_server!(1, 2, 3, 3)),
        server(&JWT_CLAIM, jwts(), in_server!(1, 2, 15)),
        server(&JWT_RULE, jwts(), in_server!(2)),
        server(&JWT_REQUIREMENT, jwts(), in_server!(2, 2)),
        route(&JWT_PER_ROUTE, FilterOverride::JwtRequirement("r".into()), in_override!()),
        server(&LOCAL_RATE_LIMIT, locals(), in_server!()),
        server(&TOKEN_BUCKET, locals(), in_server!(3)),
        client(&EXT_AUTHZ, authzs(), in_client!()),
        route(&EXT_AUTHZ_PER_ROUTE, FilterOverride::CheckSettings(Default::default()), in_override!()),
        route(&CHECK_SETTINGS, FilterOverride::CheckSettings(Default::default()), in_override!(2)),
        client(&MUTATION_RULES, authzs(), in_client!(26)),
        client(&GRPC_SERVICE, authzs(), in_client!(1)),
        client(&GOOGLE_GRPC, authzs(), in_client!(1, 2)),
        client(&GCP_AUTHN, gcp(), in_client!()),
        client(&GCP_CACHE, gcp(), in_client!(3)),
        server(&QUOTA, all(), in_server!()),
        route(
            &QUOTA_OVERRIDE,
            FilterOverride::RateLimitQuota(Arc::new(QuotaOverride { domain: None, buckets: None })),
            in_override!(),
        ),
        // matchers, on_match, action, its configuration
        server(&QUOTA_BUCKET, all(), in_server!(3, 1, 1, 2, 2, 2, 2)),
        server(&QUOTA_ID, all(), in_server!(3, 1, 1, 2, 2, 2, 2, 1)),
        server(&QUOTA_ID_VALUE, all(), in_server!(3, 1, 1, 2, 2, 2, 2, 1, 1, 2)),
        server(&QUOTA_NO_ASSIGNMENT, all(), in_server!(3, 1, 1, 2, 2, 2, 2, 4)),
        server(&QUOTA_EXPIRED, all(), in_server!(3, 1, 1, 2, 2, 2, 2, 5)),
        server(&QUOTA_DENY, all(), in_server!(3, 1, 1, 2, 2, 2, 2, 3)),
        server(&QUOTA_STRATEGY, all(), in_server!(3, 1, 1, 2, 2, 2, 2, 4, 1)),
        server(&QUOTA_RATE, rate(), in_server!(3, 1, 1, 2, 2, 2, 2, 4, 1, 2)),
        client(&COMPOSITE, listed(), in_client!()),
        client(&COMPOSITE_INNER, listed(), in_client!(2, 2, 2)),
        route(&COMPOSITE_PER_ROUTE, FilterOverride::Composite(Arc::new(by_value(execute()))), in_override!()),
        client(&COMPOSITE_ACTION, listed(), in_client!(3, 1, 1, 2, 2, 2, 2)),
        client(&COMPOSITE_CHAIN, listed(), in_client!(3, 1, 1, 2, 2, 2, 2, 4)),
        client(&MATCHER, listed(), in_client!(3)),
        client(&ON_MATCH, listed(), in_client!(3, 1, 1, 2)),
        client(&FIELD_MATCHER, listed(), in_client!(3, 1, 1)),
        client(&PREDICATE, listed(), in_client!(3, 1, 1, 1)),
        client(&SINGLE_PREDICATE, listed(), in_client!(3, 1, 1, 1, 1)),
        client(&MATCHER_TREE, composite(by_value(execute())), in_client!(3, 2)),
    ]
}
