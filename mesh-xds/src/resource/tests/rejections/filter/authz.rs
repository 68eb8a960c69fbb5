//! ExtAuthz, and the service that it calls.

use super::*;
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            GrpcService, HeaderValue, RuntimeFractionalPercent,
            grpc_service::{EnvoyGrpc, GoogleGrpc, TargetSpecifier},
        },
        extensions::{
            filters::http::ext_authz::v3::{
                CheckSettings, ExtAuthz, ExtAuthzPerRoute, check_settings::ServiceOverride,
                ext_authz::Services, ext_authz_per_route::Override,
            },
            grpc_service::channel_credentials::{insecure::v3::InsecureCredentials, xds::v3::XdsCredentials},
        },
        r#type::matcher::v3::{ListStringMatcher, RegexMatcher},
    },
    google::protobuf::Duration,
};

/// A service that may be called.
pub(super) fn service() -> GrpcService {
    let google = GoogleGrpc {
        target_uri: "dns:///authz:9000".into(),
        channel_credentials_plugin: vec![any(&InsecureCredentials {})],
        ..Default::default()
    };
    let target_specifier = Some(TargetSpecifier::GoogleGrpc(google));
    GrpcService { target_specifier, ..Default::default() }
}

fn good() -> ExtAuthz {
    ExtAuthz { services: Some(Services::GrpcService(service())), ..Default::default() }
}

fn called(message: &mut ExtAuthz) -> &mut GrpcService {
    match &mut message.services {
        Some(Services::GrpcService(service)) => service,
        other => panic!("{other:?}"),
    }
}

fn google(message: &mut ExtAuthz) -> &mut GoogleGrpc {
    match &mut called(message).target_specifier {
        Some(TargetSpecifier::GoogleGrpc(google)) => google,
        other => panic!("{other:?}"),
    }
}

fn sending(message: &mut ExtAuthz, key: &str, value: &str) {
    let header = HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    called(message).initial_metadata.push(header);
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn regex(expression: &str) -> Option<RegexMatcher> {
    Some(RegexMatcher { regex: expression.into(), ..Default::default() })
}

#[test]
fn an_authorization_that_cannot_be_asked_for_is_refused_with_the_place() {
    refuses_filter(
        &good(),
        false,
        &[
            (|m| m.services = None, ".grpc_service", "is required"),
            (
                |m| m.services = Some(Services::HttpService(Default::default())),
                ".http_service",
                "use grpc_service",
            ),
            (
                |m| called(m).target_specifier = Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc::default())),
                ".grpc_service.envoy_grpc",
                "use google_grpc",
            ),
            (|m| called(m).target_specifier = None, ".grpc_service.google_grpc", "is required"),
            (
                |m| called(m).retry_policy = Some(Default::default()),
                ".grpc_service.retry_policy",
                "not supported",
            ),
            (|m| called(m).timeout = Some(Duration::default()), ".grpc_service.timeout", "greater than zero"),
            (
                |m| sending(m, "Host", "a"),
                ".grpc_service.initial_metadata[0].key",
                "`Host` is not a key of metadata",
            ),
            (|m| sending(m, "", "a"), ".grpc_service.initial_metadata[0].key", "`` is not a key of metadata"),
            (|m| sending(m, "a", "\n"), ".grpc_service.initial_metadata[0].value", "is not a header value"),
            (|m| google(m).target_uri.clear(), ".grpc_service.google_grpc.target_uri", "is required"),
            (
                |m| google(m).call_credentials_plugin.push(Any::default()),
                ".grpc_service.google_grpc.call_credentials_plugin",
                "not supported",
            ),
            (
                |m| google(m).channel_credentials_plugin.clear(),
                ".grpc_service.google_grpc.channel_credentials_plugin",
                "names no credentials that are supported",
            ),
            // One inside another, and one without a fallback, are as good as unknown.
            (
                |m| {
                    let plain = || Some(any(&InsecureCredentials {}));
                    let inner = any(&XdsCredentials { fallback_credentials: plain() });
                    let outer = any(&XdsCredentials { fallback_credentials: Some(inner) });
                    let alone = any(&XdsCredentials::default());
                    google(m).channel_credentials_plugin = vec![outer, alone];
                },
                ".grpc_service.google_grpc.channel_credentials_plugin",
                "names no credentials that are supported",
            ),
            (
                |m| m.filter_enabled = Some(RuntimeFractionalPercent::default()),
                ".filter_enabled.default_value",
                "is required",
            ),
            (
                |m| m.status_on_error = Some(HttpStatus { code: 99 }),
                ".status_on_error.code",
                "99 is not within 200..=599",
            ),
            (
                |m| m.allowed_headers = Some(ListStringMatcher::default()),
                ".allowed_headers.patterns",
                "must not be empty",
            ),
            (
                |m| {
                    let patterns = vec![Default::default()];
                    m.disallowed_headers = Some(ListStringMatcher { patterns });
                },
                ".disallowed_headers.patterns[0]",
                "one of exact",
            ),
            (
                |m| m.decoder_header_mutation_rules.get_or_insert_default().allow_expression = regex("("),
                ".decoder_header_mutation_rules.allow_expression",
                "not a regular expression",
            ),
            (
                |m| m.decoder_header_mutation_rules.get_or_insert_default().disallow_expression = regex("["),
                ".decoder_header_mutation_rules.disallow_expression",
                "not a regular expression",
            ),
        ],
    );
    fn settings(message: &mut ExtAuthzPerRoute) -> &mut CheckSettings {
        match &mut message.r#override {
            Some(Override::CheckSettings(settings)) => settings,
            other => panic!("{other:?}"),
        }
    }
    let good = ExtAuthzPerRoute { r#override: Some(Override::CheckSettings(Default::default())) };
    refuses_override(
        &good,
        &[
            (|m| m.r#override = None, "", "disabled or check_settings is required"),
            (|m| m.r#override = Some(Override::Disabled(false)), ".disabled", "must be true"),
            (
                |m| settings(m).with_request_body = Some(Default::default()),
                ".check_settings.with_request_body",
                "not supported",
            ),
            (
                |m| settings(m).service_override = Some(ServiceOverride::GrpcService(service())),
                ".check_settings.grpc_service",
                "not supported",
            ),
            (
                |m| settings(m).service_override = Some(ServiceOverride::HttpService(Default::default())),
                ".check_settings.http_service",
                "not supported",
            ),
        ],
    );
}
