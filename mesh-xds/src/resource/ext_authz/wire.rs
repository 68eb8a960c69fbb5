//! ExtAuthz, to and from protobuf.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::{ExtAuthz, MutationRules, grpc_service};
use crate::{
    field_path::{Faults, Path},
    matcher::{Fraction, StringMatcher},
    resource::{
        Feature, ParseContext,
        canonical::{self, Inside, Shape},
        filter::{
            FilterConfig, FilterOverride,
            registry::{BOTH, Kind},
        },
        wire,
    },
};
use envoy_types::pb::{
    envoy::{
        config::{
            common::mutation_rules::v3::HeaderMutationRules,
            core::v3::{ApiVersion, RuntimeFeatureFlag},
        },
        extensions::filters::http::ext_authz::v3::{
            self as proto, CheckSettings, ExtAuthzPerRoute, check_settings::ServiceOverride,
            ext_authz::Services, ext_authz_per_route::Override,
        },
        r#type::{
            matcher::v3::{ListStringMatcher, RegexMatcher},
            v3::HttpStatus,
        },
    },
    google::protobuf::{Any, BoolValue},
};
use prost::{Message, Name};
use std::{collections::BTreeMap, sync::Arc};

const FORBIDDEN: u16 = 403;

pub(in crate::resource) static KIND: Kind = Kind {
    message: "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    sides: BOTH,
    feature: Some(Feature::ExtAuthz),
    read: |any, scope, at, faults| {
        let authz = parse(&wire::unpack(any, at, faults)?, scope.context, at, faults)?;
        Some(FilterConfig::ExtAuthz(Arc::new(authz)))
    },
    per_route: Some(("envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", |any, _, at, faults| {
        let per_route: ExtAuthzPerRoute = wire::unpack(any, at, faults)?;
        match &per_route.r#override {
            Some(Override::Disabled(true)) => Some(FilterOverride::Disabled),
            Some(Override::Disabled(false)) => faults.reject(&at.field("disabled"), "must be true"),
            Some(Override::CheckSettings(settings)) => {
                check_settings(settings, &at.field("check_settings"), faults)
            }
            None => faults.reject(at, "disabled or check_settings is required"),
        }
    })),
};

fn check_settings(proto: &CheckSettings, at: &Path<'_>, faults: &mut Faults) -> Option<FilterOverride> {
    for (unsupported, field) in [
        (proto.with_request_body.is_some(), "with_request_body"),
        (matches!(proto.service_override, Some(ServiceOverride::GrpcService(_))), "grpc_service"),
        (matches!(proto.service_override, Some(ServiceOverride::HttpService(_))), "http_service"),
    ] {
        if unsupported {
            return faults.reject(&at.field(field), "is not supported");
        }
    }
    let context = proto.context_extensions.iter();
    let context = context.map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str())));
    Some(FilterOverride::CheckSettings(context.collect()))
}

fn parse(
    proto: &proto::ExtAuthz,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<ExtAuthz> {
    for (unsupported, field) in [
        (proto.with_request_body.is_some(), "with_request_body"),
        (proto.filter_enabled_metadata.is_some(), "filter_enabled_metadata"),
        (proto.shadow_mode, "shadow_mode"),
        (proto.validate_mutations, "validate_mutations"),
        (proto.transport_api_version == i32::from(ApiVersion::V2), "transport_api_version"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
    let service = match &proto.services {
        Some(Services::GrpcService(service)) => {
            grpc_service::parse(service, context, &at.field("grpc_service"), faults)
        }
        Some(Services::HttpService(_)) => {
            faults.reject(&at.field("http_service"), "is not supported; use grpc_service")
        }
        None => faults.reject(&at.field("grpc_service"), "is required"),
    };
    let enabled = match &proto.filter_enabled {
        Some(enabled) => wire::runtime_fraction(enabled, &at.field("filter_enabled"), faults),
        None => Some(Fraction::ONE),
    };
    let deny = proto.deny_at_disable.as_ref().and_then(|flag| flag.default_value.as_ref());
    let status = wire::http_status(&proto.status_on_error, &at.field("status_on_error"), faults);
    let allowed = matchers(&proto.allowed_headers, &at.field("allowed_headers"), faults);
    let disallowed = matchers(&proto.disallowed_headers, &at.field("disallowed_headers"), faults);
    let rules_at = at.field("decoder_header_mutation_rules");
    let rules = match &proto.decoder_header_mutation_rules {
        Some(rules) => mutation_rules(rules, &rules_at, faults),
        None => Some(MutationRules::default()),
    };
    Some(ExtAuthz {
        service: service?,
        enabled: enabled?,
        deny_at_disable: deny.is_some_and(|deny| deny.value),
        failure_mode_allow: proto.failure_mode_allow,
        failure_mode_allow_header: proto.failure_mode_allow_header_add,
        status_on_error: status?.unwrap_or(FORBIDDEN),
        allowed_headers: allowed?,
        disallowed_headers: disallowed?,
        mutation_rules: rules?,
        include_peer_certificate: proto.include_peer_certificate,
    })
}

fn matchers(
    proto: &Option<ListStringMatcher>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Vec<StringMatcher>> {
    let Some(list) = proto else { return Some(Vec::new()) };
    if list.patterns.is_empty() {
        return faults.reject(&at.field("patterns"), "must not be empty");
    }
    wire::every(&list.patterns, &at.field("patterns"), faults, wire::string_matcher)
}

fn mutation_rules(proto: &HeaderMutationRules, at: &Path<'_>, faults: &mut Faults) -> Option<MutationRules> {
    let expression = |proto: &Option<RegexMatcher>, field, faults: &mut Faults| match proto {
        Some(regex) => wire::full_regex(&regex.regex, &at.field(field), faults).map(Some),
        None => Some(None),
    };
    let is = |flag: &Option<BoolValue>| flag.as_ref().is_some_and(|flag| flag.value);
    let allow = expression(&proto.allow_expression, "allow_expression", faults);
    let disallow = expression(&proto.disallow_expression, "disallow_expression", faults);
    Some(MutationRules {
        disallow_all: is(&proto.disallow_all),
        allow: allow?,
        disallow: disallow?,
        disallow_is_error: is(&proto.disallow_is_error),
    })
}

pub(in crate::resource) fn encode(authz: &ExtAuthz) -> proto::ExtAuthz {
    let list = |list: &[StringMatcher]| {
        (!list.is_empty())
            .then(|| ListStringMatcher { patterns: list.iter().map(wire::string_matcher_proto).collect() })
    };
    let flag = |flag: bool| flag.then_some(BoolValue { value: true });
    let rules = &authz.mutation_rules;
    proto::ExtAuthz {
        services: Some(Services::GrpcService(grpc_service::encode(&authz.service))),
        transport_api_version: ApiVersion::V3.into(),
        filter_enabled: Some(wire::runtime_fraction_proto(authz.enabled)),
        deny_at_disable: authz.deny_at_disable.then(|| RuntimeFeatureFlag {
            default_value: Some(BoolValue { value: true }),
            // Envoy demands one.
            runtime_key: "ext_authz.deny_at_disable".into(),
        }),
        failure_mode_allow: authz.failure_mode_allow,
        failure_mode_allow_header_add: authz.failure_mode_allow_header,
        status_on_error: Some(HttpStatus { code: authz.status_on_error.into() }),
        allowed_headers: list(&authz.allowed_headers),
        disallowed_headers: list(&authz.disallowed_headers),
        decoder_header_mutation_rules: (*rules != MutationRules::default()).then(|| HeaderMutationRules {
            disallow_all: flag(rules.disallow_all),
            allow_expression: rules.allow.as_ref().map(wire::regex_proto),
            disallow_expression: rules.disallow.as_ref().map(wire::regex_proto),
            disallow_is_error: flag(rules.disallow_is_error),
            ..Default::default()
        }),
        include_peer_certificate: authz.include_peer_certificate,
        ..Default::default()
    }
}

static SETTINGS: Shape = Shape(&[(1, Inside::Map)]);
static SHAPE: Shape = Shape(&[(2, Inside::Message(&SETTINGS))]);

pub(in crate::resource) fn encode_override(context: &BTreeMap<Arc<str>, Arc<str>>) -> Any {
    let context_extensions =
        context.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let settings = CheckSettings { context_extensions, ..Default::default() };
    let message = ExtAuthzPerRoute { r#override: Some(Override::CheckSettings(settings)) };
    let value = canonical::sorted(&message.encode_to_vec(), &SHAPE);
    Any { type_url: ExtAuthzPerRoute::type_url(), value }
}
