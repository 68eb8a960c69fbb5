//! HTTP filters (gRFC A33, A55, A59, A77, A83, A92, A102), composites and matcher trees (A103, A106), overrides.

mod authz;
mod limits;
mod others;
mod tokens;
mod trees;

use super::*;
use crate::resource::{
    composite::*,
    filter::{FilterConfig, HttpFilter},
    listener::{HttpConnectionManager, ListenerKind, RouteSource},
};
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::TypedExtensionConfig,
            listener::v3 as listener,
            rbac::v3::rbac::{AuditLoggingOptions, audit_logging_options::AuditLoggerConfig},
        },
        extensions::{
            common::matching::v3::ExtensionWithMatcher,
            filters::{
                http::{
                    composite::v3::{Composite as CompositeProto, ExecuteFilterAction},
                    gcp_authn::v3::{GcpAuthnFilterConfig, TokenCacheConfig},
                    jwt_authn::v3 as jwt,
                    local_ratelimit::v3 as local,
                    rbac::v3::Rbac,
                    stateful_session::v3::StatefulSession,
                },
                network::http_connection_manager::v3 as hcm,
            },
            http::stateful_session::{
                cookie::v3::CookieBasedSessionState, envelope::v3::EnvelopeSessionState,
                header::v3::HeaderBasedSessionState,
            },
            rbac::audit_loggers::stream::v3::StdoutAuditLog,
        },
        r#type::{
            http::v3::Cookie,
            v3::{HttpStatus, TokenBucket},
        },
    },
    google::protobuf::{Any, UInt64Value},
    xds::r#type::matcher::v3::{
        Matcher,
        matcher::{OnMatch, on_match},
    },
};
use model::wire::any;

/// A listener with this filter, of unknown configuration, before the router.
fn with(config: Any, server: bool, is_optional: bool) -> Vec<u8> {
    let filter = |name: &str, config| HttpFilter { name: name.into(), config, disabled: false };
    let nothing = model::fault::Fault { delay: None, abort: None, headers: vec![], max_active: None };
    let none = model::rbac::Rbac { rules: None };
    let placeholder =
        if server { FilterConfig::Rbac(none.into()) } else { FilterConfig::Fault(nothing.into()) };
    let http = HttpConnectionManager {
        routes: RouteSource::Rds("r".into()),
        filters: vec![filter("f", placeholder), filter("router", FilterConfig::Router)],
        max_stream_duration: None,
    };
    let kind = if server {
        let (name, matches) = ("".into(), Default::default());
        ListenerKind::Server(model::listener::ServerListener {
            address: [10, 0, 0, 1].into(),
            port: 80,
            filter_chains: vec![model::listener::FilterChain { name, matches, tls: None, http }],
            default_filter_chain: None,
        })
    } else {
        ListenerKind::Api(http)
    };
    let mut message = listener::Listener::decode(Listener { name: "l".into(), kind }.to_proto()).unwrap();
    let manager = if server {
        match &mut message.filter_chains[0].filters[0].config_type {
            Some(listener::filter::ConfigType::TypedConfig(any)) => any,
            _ => panic!("no manager"),
        }
    } else {
        message.api_listener.as_mut().unwrap().api_listener.as_mut().unwrap()
    };
    within::<hcm::HttpConnectionManager>(Some(manager), |manager| {
        manager.http_filters[0].config_type = Some(hcm::http_filter::ConfigType::TypedConfig(config));
        manager.http_filters[0].is_optional = is_optional;
    });
    message.encode_to_vec()
}

/// What a filter is refused with: the end of the path, and the reason.
fn refused(config: Any, server: bool) -> Vec<(String, String)> {
    let error = Listener::parse(&with(config, server, true), &context()).expect_err("it is accepted");
    let faults = error.rejected.faults.into_iter();
    let end = |path: String| {
        path.rsplit_once("http_filters[0].typed_config").map_or(path.clone(), |(_, end)| end.to_owned())
    };
    faults.map(|fault| (end(fault.path), fault.reason)).collect()
}

/// [`refuses`] of a filter's message, whose path begins with `.` here: of a good listener, each change alone.
fn refuses_filter<M: Message + MessageName + Default + Clone>(good: &M, server: bool, cases: &[Case<M>]) {
    assert!(Listener::parse(&with(any(good), server, false), &context()).is_ok());
    for (change, path, reason) in cases {
        let mut message = good.clone();
        change(&mut message);
        let faults = refused(any(&message), server);
        let found = faults.iter().any(|(at, why)| at == path && why.contains(reason));
        assert!(found, "{path}: {reason}: {faults:?}");
    }
}

/// Routes with this override.
fn overriding(config: Any) -> Vec<u8> {
    let mut message = super::route::good();
    message.virtual_hosts[0].routes[0].typed_per_filter_config.insert("f".into(), config);
    message.encode_to_vec()
}

/// The same of the message of an override.
fn refuses_override<M: Message + MessageName + Default + Clone>(good: &M, cases: &[Case<M>]) {
    let parse = |message: &M| RouteConfiguration::parse(&overriding(any(message)), &context());
    assert!(parse(good).is_ok());
    for (change, path, reason) in cases {
        let mut message = good.clone();
        change(&mut message);
        let error = parse(&message).expect_err(&format!("{path}: {reason} is accepted"));
        let path = format!("virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]{path}");
        let found =
            error.rejected.faults.iter().any(|fault| fault.path == path && fault.reason.contains(reason));
        assert!(found, "{path}: {reason}: {error}");
    }
}

fn extension(name: &str, config: &impl MessageName) -> Option<TypedExtensionConfig> {
    Some(TypedExtensionConfig { name: name.into(), typed_config: Some(any(config)) })
}

#[test]
fn a_faulty_filter_is_refused_with_the_place_though_it_is_optional() {
    let session = |cookie: Option<Cookie>| {
        let session_state = extension("cookie", &CookieBasedSessionState { cookie });
        any(&StatefulSession { session_state, ..Default::default() })
    };
    let by_header = |name: &str| {
        let session_state = extension("header", &HeaderBasedSessionState { name: name.into() });
        any(&StatefulSession { session_state, ..Default::default() })
    };
    let in_envelope = StatefulSession {
        session_state: extension("envelope", &EnvelopeSessionState::default()),
        ..Default::default()
    };
    let strictly = |status| {
        let status_on_strict_destination_not_found = status;
        any(&StatefulSession { strict: true, status_on_strict_destination_not_found, ..Default::default() })
    };
    let named = |name: &str| Cookie { name: name.into(), ..Default::default() };
    let jwt = |provider: jwt::JwtProvider| {
        any(&jwt::JwtAuthentication { providers: [("p".into(), provider)].into(), ..Default::default() })
    };
    let local = |max_tokens, code| {
        let token_bucket = Some(TokenBucket { max_tokens, ..Default::default() });
        any(&local::LocalRateLimit { token_bucket, status: Some(HttpStatus { code }), ..Default::default() })
    };
    let gcp = |value| {
        let cache_config = Some(TokenCacheConfig { cache_size: Some(UInt64Value { value }) });
        any(&GcpAuthnFilterConfig { cache_config, ..Default::default() })
    };
    let rule = jwt::RequirementRule {
        requirement_type: Some(jwt::requirement_rule::RequirementType::RequirementName("r".into())),
        ..Default::default()
    };
    let by_name = any(&jwt::JwtAuthentication { rules: vec![rule], ..Default::default() });
    for (config, server, path, reason) in [
        (session(None), false, ".session_state.typed_config.cookie", "required"),
        (session(Some(named(""))), false, ".session_state.typed_config.cookie.name", "required"),
        (
            session(Some(named("a;b"))),
            false,
            ".session_state.typed_config.cookie.name",
            "cannot stand in a cookie",
        ),
        (by_header(""), false, ".session_state.typed_config.name", "invalid HTTP header name"),
        (by_header(":path"), false, ".session_state.typed_config.name", "invalid HTTP header name"),
        (any(&in_envelope), false, ".session_state.typed_config", "EnvelopeSessionState is not supported"),
        (strictly(99), false, ".status_on_strict_destination_not_found", "not within 200..=599"),
        (jwt(Default::default()), true, ".providers[\"p\"]", "has no keys"),
        (by_name.clone(), true, ".rules[0].requirement_name", "`r` is not in the requirement_map"),
        (by_name, true, ".rules[0].match", "required"),
        (local(0, 429), true, ".token_bucket.max_tokens", "must not be 0"),
        (local(1, 429), true, ".token_bucket.fill_interval", "required"),
        (gcp(0), false, ".cache_config.cache_size", "0 is not within"),
        (gcp(u64::MAX), false, ".cache_config.cache_size", "is not within"),
    ] {
        let faults = refused(config, server);
        let found = faults.iter().any(|(at, why)| at == path && why.contains(reason));
        assert!(found, "{path}: {reason}: {faults:?}");
    }
}

#[test]
fn a_filter_that_the_data_path_does_not_have_is_as_good_as_unknown() {
    let config = || any(&GcpAuthnFilterConfig::default());
    let core = ParseContext { support: Support::NONE, ..context() };
    let error = Listener::parse(&with(config(), false, false), &core).unwrap_err();
    assert!(error.to_string().contains("it does not have gcp-authn"), "{error}");
    let parsed = Listener::parse(&with(config(), false, true), &core).unwrap();
    let ListenerKind::Api(http) = parsed.kind else { panic!("not a client's") };
    assert_eq!(http.filters.len(), 1);
    assert!(Listener::parse(&with(config(), false, false), &context()).is_ok());
    let error = Listener::parse(&with(config(), true, false), &context()).unwrap_err();
    assert!(error.to_string().contains("is not supported on a server"), "{error}");
}

#[test]
fn an_audit_logger_that_is_not_known_is_refused_unless_optional() {
    let audited = |logger: Any, is_optional| {
        let audit_logger = Some(TypedExtensionConfig { name: "l".into(), typed_config: Some(logger) });
        let options = AuditLoggingOptions {
            audit_condition: 1,
            logger_configs: vec![AuditLoggerConfig { audit_logger, is_optional }],
        };
        let rules = envoy_types::pb::envoy::config::rbac::v3::Rbac {
            audit_logging_options: Some(options),
            ..Default::default()
        };
        with(any(&Rbac { rules: Some(rules), ..Default::default() }), true, false)
    };
    let unknown = || Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] };
    let error = Listener::parse(&audited(unknown(), false), &context()).unwrap_err();
    assert!(error.to_string().contains("audit logger type.googleapis.com/x.Y is not supported"), "{error}");
    assert!(Listener::parse(&audited(unknown(), true), &context()).is_ok());
    let core = ParseContext { support: Support::NONE, ..context() };
    let known = || any(&StdoutAuditLog {});
    let error = Listener::parse(&audited(known(), false), &core).unwrap_err();
    assert!(error.to_string().contains("audit-logging"), "{error}");
    assert!(Listener::parse(&audited(known(), true), &core).is_ok());
    assert!(Listener::parse(&audited(known(), false), &context()).is_ok());
}

/// A composite whose matcher leads, through `matchers` of them, to `action`.
fn composite(matchers: usize, action: Any) -> Any {
    let on = |on_match| Some(Box::new(OnMatch { on_match: Some(on_match), keep_matching: false }));
    let action =
        envoy_types::pb::xds::core::v3::TypedExtensionConfig { name: "a".into(), typed_config: Some(action) };
    let mut matcher = Matcher { on_no_match: on(on_match::OnMatch::Action(action)), ..Default::default() };
    for _ in 1..matchers {
        matcher =
            Matcher { on_no_match: on(on_match::OnMatch::Matcher(Box::new(matcher))), ..Default::default() };
    }
    any(&ExtensionWithMatcher {
        extension_config: extension("c", &CompositeProto::default()),
        xds_matcher: Some(matcher),
        ..Default::default()
    })
}

fn executing(filter: Any) -> Any {
    let typed_config = Some(TypedExtensionConfig { name: "i".into(), typed_config: Some(filter) });
    any(&ExecuteFilterAction { typed_config, ..Default::default() })
}

/// Composites inside one another, around a filter that is fine.
fn nested(filters: usize, matchers: usize) -> Any {
    let mut config = any(&GcpAuthnFilterConfig::default());
    for _ in 0..filters {
        config = composite(matchers, executing(config));
    }
    config
}

#[test]
fn filters_and_matchers_inside_one_another_are_bounded() {
    let parsed = Listener::parse(&with(nested(8, 16), false, false), &context()).unwrap();
    let ListenerKind::Api(http) = &parsed.kind else { panic!("not a client's") };
    let FilterConfig::Composite(composite) = &http.filters[0].config else { panic!("no composite") };
    assert!(matches!(*composite.matcher.actions(), [CompositeAction::Execute { .. }]));
    let again = Listener::parse(&parsed.to_proto(), &context()).unwrap();
    assert_eq!(again, parsed);
    let faults = refused(nested(9, 1), false);
    assert!(faults.iter().any(|(_, why)| why.contains("more than 8 filters")), "{faults:?}");
    let faults = refused(nested(1, 17), false);
    assert!(faults.iter().any(|(_, why)| why.contains("more than 16 matchers")), "{faults:?}");
}

#[test]
fn credentials_are_the_first_that_are_known_and_only_a_trusted_control_plane_names_a_service() {
    use envoy_types::pb::envoy::{
        config::core::v3::{
            GrpcService,
            grpc_service::{GoogleGrpc, TargetSpecifier},
        },
        extensions::{
            filters::http::ext_authz::v3::{ExtAuthz, ext_authz::Services},
            grpc_service::channel_credentials::insecure::v3::InsecureCredentials,
        },
    };
    let unknown = || Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] };
    let authz = |plugins: Vec<Any>| {
        let google = GoogleGrpc {
            target_uri: "dns:///authz:9000".into(),
            channel_credentials_plugin: plugins,
            ..Default::default()
        };
        let target_specifier = Some(TargetSpecifier::GoogleGrpc(google));
        let service = GrpcService { target_specifier, ..Default::default() };
        let services = Some(Services::GrpcService(service));
        with(any(&ExtAuthz { services, ..Default::default() }), false, false)
    };
    let known = || any(&InsecureCredentials {});
    assert!(Listener::parse(&authz(vec![unknown(), known()]), &context()).is_ok());
    let error = Listener::parse(&authz(vec![unknown()]), &context()).unwrap_err();
    assert!(error.to_string().contains("names no credentials that are supported"), "{error}");
    let untrusted = ParseContext { trusted: false, ..context() };
    let error = Listener::parse(&authz(vec![known()]), &untrusted).unwrap_err();
    assert!(error.to_string().contains("trusted_xds_server"), "{error}");
}

#[test]
fn a_router_cannot_stand_in_another_filter() {
    use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
    let faults = refused(composite(1, executing(any(&Router::default()))), false);
    assert!(faults.iter().any(|(_, why)| why.contains("the router cannot stand")), "{faults:?}");
}
