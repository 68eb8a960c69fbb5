//! What an Envoy makes of its configuration, for `recorded.rs`: `tests/peers/python/recorded_envoy.py` asks it.

use super::{
    AnyResource, ResourceType,
    recorded::{Accepted, Refused, cluster, forwards, listener, routes},
};
use crate::{
    matcher::{Fraction, MatcherKind, OnMatch, StringMatcher},
    resource::{
        cluster::{Discovery, DnsLookupFamily, HealthProbe, LbPolicy},
        composite::CompositeAction,
        endpoint::HealthStatus,
        filter::{FilterConfig, FilterOverride},
        jwt::{Jwks, JwtRequirement},
        listener::{ListenerKind, RouteSource, SourceType, TransportProtocol},
        rbac::RbacAction,
        route::{Destination, RouteAction},
        secret::SecretContent,
        stateful_session::SessionState,
        tls::{Identity, Roots, SanKind, SanMatcher},
    },
};
use ResourceType::{Cluster as CDS, Listener as LDS, RouteConfiguration as RDS, Secret as SDS};
use std::{net::IpAddr, time::Duration};

pub(super) const ACCEPTED: &[Accepted] = &[
    ("envoy-roots", SDS, |resource| {
        let AnyResource::Secret(secret) = resource else { panic!("{resource:?}") };
        let SecretContent::Validation(validation) = &secret.content else { panic!("{secret:?}") };
        assert!(validation.roots.starts_with(b"-----BEGIN CERTIFICATE-----\n"));
        let kinds: Vec<_> = validation.sans.iter().map(|san| san.kind).collect();
        assert_eq!(kinds, [Some(SanKind::Dns), Some(SanKind::Uri)]);
        assert!(validation.sans[1].name.matches("spiffe://td/ns/default/sa/reviews"));
    }),
    ("envoy-control-plane", CDS, |resource| {
        let cluster = cluster(resource);
        let Discovery::Static(assignment) = &cluster.discovery else { panic!("{cluster:?}") };
        let [near, draining] = &assignment.priorities[0].localities[0].endpoints[..] else {
            panic!("{assignment:?}")
        };
        assert_eq!(near.address().to_string(), "127.0.0.1:19802");
        assert_eq!((draining.health, draining.weight.get()), (HealthStatus::Draining, 3));
        assert_eq!(cluster.connection.max_concurrent_streams, Some(100));
        assert_eq!(cluster.connection.http2_keepalive.unwrap().interval, Duration::from_secs(30));
    }),
    ("envoy-reviews", CDS, |resource| {
        let cluster = cluster(resource);
        assert_eq!(cluster.discovery, Discovery::Eds("reviews-endpoints".into()));
        let LbPolicy::RingHash(ring) = &cluster.lb else { panic!("{cluster:?}") };
        assert_eq!(ring.min_size, 4096);
        let breakers = &cluster.circuit_breakers;
        assert_eq!((breakers.max_requests, breakers.max_connections), (70, Some(7)));
        assert_eq!(breakers.max_connections_per_endpoint, 4);
        assert_eq!(breakers.retry_budget.unwrap().budget, Fraction::per_million(250_000));
        let outliers = cluster.outlier_detection.as_ref().unwrap();
        assert_eq!(outliers.interval, Duration::from_millis(2500));
        assert_eq!((outliers.max_ejection_percent, outliers.success_rate), (40, None));
        assert_eq!(outliers.consecutive_5xx.unwrap().threshold, 3);
        assert_eq!(outliers.failure_percentage.unwrap().threshold, 60);
        let tls = cluster.tls.as_ref().unwrap();
        assert_eq!(tls.identity, Some(Identity::Secret("own".into())));
        assert_eq!(tls.roots, Roots::Secret("roots".into()));
        assert_eq!(tls.sni.as_deref(), Some("reviews.example.com"));
        let name = StringMatcher::exact("reviews@example.com", false);
        assert_eq!(tls.sans, [SanMatcher { kind: Some(SanKind::Email), name }]);
    }),
    ("envoy-either", CDS, |resource| {
        let names = vec!["reviews".into(), "by-name".into()];
        assert_eq!(cluster(resource).discovery, Discovery::Aggregate(names));
    }),
    ("envoy-by-name", CDS, |resource| {
        let cluster = cluster(resource);
        let Discovery::StrictDns(strict) = &cluster.discovery else { panic!("{cluster:?}") };
        assert_eq!((strict.dns.family, strict.dns.respect_ttl), (DnsLookupFamily::V4Preferred, true));
        assert_eq!(strict.dns.refresh_rate, Duration::from_secs(60));
        assert_eq!(strict.hosts().map(ToString::to_string).collect::<Vec<_>>(), ["localhost:19802"]);
        assert_eq!(cluster.lb, LbPolicy::least_request(3));
        let check = cluster.health_check.as_ref().unwrap();
        let HealthProbe::Grpc { service_name, .. } = &check.probe else { panic!("{check:?}") };
        assert_eq!((&**service_name, check.unhealthy_threshold), ("reviews", 3));
    }),
    ("envoy-routes", RDS, |resource| {
        let [reviews, moved, health, rest] = &routes(resource).virtual_hosts[0].routes[..] else {
            panic!("{resource:?}")
        };
        let RouteAction::Forward(forward) = &reviews.action else { panic!("{reviews:?}") };
        assert_eq!(forward.timeout, Some(Duration::from_millis(1500)));
        let retry = forward.retry.as_ref().unwrap();
        assert!(retry.on.unavailable && retry.on.reset_before_request && retry.num_retries == 3);
        assert_eq!((forward.hash.len(), reviews.matches.headers.len()), (1, 1));
        let FilterOverride::Config(FilterConfig::StatefulSession(session)) =
            &reviews.overrides["envoy.filters.http.stateful_session"]
        else {
            panic!("{reviews:?}")
        };
        let Some(SessionState::Cookie(cookie)) = &session.state else { panic!("{session:?}") };
        assert_eq!((&*cookie.name, cookie.ttl), ("session", Duration::from_secs(120)));
        let jwt = FilterOverride::JwtRequirement("either".into());
        assert_eq!(reviews.overrides["envoy.filters.http.jwt_authn"], jwt);
        let FilterOverride::Config(FilterConfig::LocalRateLimit(limit)) =
            &reviews.overrides["envoy.filters.http.local_ratelimit"]
        else {
            panic!("{reviews:?}")
        };
        assert_eq!(limit.bucket.unwrap().max_tokens.get(), 5);
        let RouteAction::Redirect(redirect) = &moved.action else { panic!("{moved:?}") };
        assert_eq!((redirect.host.as_deref(), redirect.status), (Some("new.example.com"), 308));
        let RouteAction::DirectResponse(response) = &health.action else { panic!("{health:?}") };
        assert_eq!((response.status, &response.body[..]), (503, &b"not here"[..]));
        // Their values are secrets to an Envoy.
        let settings = [("tier".into(), "[redacted]".into())].into();
        let overrides = &health.overrides;
        assert_eq!(overrides["envoy.filters.http.ext_authz"], FilterOverride::CheckSettings(settings));
        assert_eq!(overrides["envoy.filters.http.rbac"], FilterOverride::Disabled);
        let RouteAction::Forward(forward) = &rest.action else { panic!("{rest:?}") };
        let Destination::Weighted(clusters) = &forward.destination else { panic!("{forward:?}") };
        assert_eq!(clusters.iter().map(|cluster| cluster.weight.get()).collect::<Vec<_>>(), [90, 10]);
        assert_eq!(forward.mirrors[0].fraction, Fraction::per_million(100));
    }),
    ("envoy-server", LDS, |resource| {
        let ListenerKind::Server(server) = &listener(resource).kind else { panic!("{resource:?}") };
        assert_eq!((server.address, server.port), (IpAddr::from([127, 0, 0, 1]), 19803));
        let [near, far] = &server.filter_chains[..] else { panic!("{server:?}") };
        assert_eq!(near.matches.source_type, SourceType::SameIpOrLoopback);
        assert_eq!(near.matches.transport, TransportProtocol::RawBuffer);
        assert_eq!(near.matches.source_prefixes[0].to_string(), "127.0.0.0/8");
        assert_eq!(near.http.max_stream_duration, Some(Duration::from_secs(90)));
        let RouteSource::Inline(inline) = &near.http.routes else { panic!("{near:?}") };
        let inline = AnyResource::RouteConfiguration(inline.clone());
        assert_eq!(forwards(&inline).len(), 2);
        assert_eq!(far.matches.destination_prefixes[0].to_string(), "10.1.0.0/16");
        assert_eq!(far.matches.source_ports, [4000, 4001]);
        assert_eq!(far.http.routes, RouteSource::Rds("far-routes".into()));
        near.http.filters.iter().for_each(|filter| holds(&filter.config));
        let names: Vec<_> = near.http.filters.iter().map(|filter| &*filter.name).collect();
        assert_eq!(
            names,
            [
                "envoy.filters.http.jwt_authn",
                "envoy.filters.http.local_ratelimit",
                "envoy.filters.http.rbac",
                "composite",
                "envoy.filters.http.router"
            ]
        );
    }),
];

/// Of each filter of the server, what has to be true.
fn holds(config: &FilterConfig) {
    match config {
        FilterConfig::JwtAuthn(jwt) => {
            let [idp, own] = ["idp", "own"].map(|name| &jwt.providers[name]);
            assert_eq!(idp.issuer.as_deref(), Some("https://idp.example"));
            let Jwks::Remote(remote) = &idp.keys else { panic!("{idp:?}") };
            assert_eq!(
                (remote.uri.to_string().as_str(), &*remote.cluster),
                ("https://idp.example/keys", "by-name")
            );
            assert!(remote.prefetch.is_some() && matches!(own.keys, Jwks::Local(_)));
            assert_eq!(&*own.from_headers[0].prefix, "Own ");
            let Some(JwtRequirement::All(all)) = &jwt.rules[0].requires else { panic!("{jwt:?}") };
            let audiences = Some(vec!["us".into()]);
            assert_eq!(all[1], JwtRequirement::Provider { name: "own".into(), audiences });
            assert!(jwt.requirements.contains_key("either"));
        }
        FilterConfig::LocalRateLimit(limit) => {
            let bucket = limit.bucket.unwrap();
            assert_eq!((bucket.max_tokens.get(), bucket.tokens_per_fill.get()), (1000, 100));
            assert_eq!((limit.enabled, limit.enforced), (Fraction::ONE, Fraction::per_million(500_000)));
            assert_eq!((limit.status, limit.response_headers.len()), (503, 1));
        }
        FilterConfig::Rbac(rbac) => {
            let rules = rbac.rules.as_ref().unwrap();
            assert_eq!((rules.action, rules.policies.len()), (RbacAction::Deny, 1));
        }
        FilterConfig::Composite(composite) => {
            let Some(MatcherKind::Exact { input, map }) = &composite.matcher.kind else {
                panic!("{composite:?}")
            };
            assert_eq!(input.as_str(), "x-tier");
            assert_eq!(map["staff"], OnMatch::Action(CompositeAction::Skip));
            let OnMatch::Action(CompositeAction::Execute { filters, .. }) = &map["free"] else {
                panic!("{composite:?}")
            };
            assert!(matches!(&filters[..], [(name, FilterConfig::Rbac(_))] if &**name == "deny"));
        }
        FilterConfig::Router => {}
        other => panic!("{other:?}"),
    }
}

const HTTP: &str = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.";
const COMMON: &str = "transport_socket.typed_config.common_tls_context.";

#[rustfmt::skip]
pub(super) const REFUSED: &[(Refused, &str)] = &[
    (("bad-envoy-tcp", LDS, "filter_chains[0].filters[0].typed_config", "TcpProxy"), ""),
    (("bad-envoy-lua", LDS, "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config", "lua.v3.Lua is not supported on a server"), ""),
    (("bad-envoy-authz-by-cluster", LDS, "grpc_service.envoy_grpc", "use google_grpc"), HTTP),
    // gRPC asks for credentials (A102), which this Envoy does not know.
    (("bad-envoy-authz-without-credentials", LDS, "grpc_service.google_grpc.channel_credentials_plugin", "names no credentials"), HTTP),
    (("bad-envoy-internal-headers", RDS, "internal_only_headers", "not supported"), ""),
    (("bad-envoy-require-tls", RDS, "virtual_hosts[0].require_tls", "not supported"), ""),
    (("bad-envoy-checked-over-http", CDS, "health_checks[0].http_health_check", "grpc_health_check"), ""),
    (("bad-envoy-original-dst", CDS, "type", "ORIGINAL_DST"), ""),
    (("bad-envoy-key-in-the-cluster", CDS, "validation_context.trusted_ca", "must be a filename"), COMMON),
    // It shows no key.
    (("bad-envoy-identity", SDS, "tls_certificate.private_key", "no PEM private key"), ""),
    (("bad-envoy-token", SDS, "generic_secret", "nothing here uses one"), ""),
];
