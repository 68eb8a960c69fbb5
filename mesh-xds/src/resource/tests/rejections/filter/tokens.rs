//! JwtAuthentication.

use super::*;
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{DataSource, HttpUri, data_source::Specifier, http_uri::HttpUpstreamType},
            route::v3::{RouteMatch, route_match::PathSpecifier},
        },
        extensions::filters::http::jwt_authn::v3::{
            JwksAsyncFetch, JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement,
            JwtRequirementAndList, JwtRequirementOrList, PerRouteConfig, ProviderWithAudiences, RemoteJwks,
            RequirementRule, jwt_claim_to_header::PathSegment, jwt_provider::JwksSourceSpecifier,
            jwt_requirement::RequiresType, per_route_config::RequirementSpecifier,
            requirement_rule::RequirementType,
        },
    },
    google::protobuf::Duration,
};

fn requirement(provider: &str) -> JwtRequirement {
    JwtRequirement { requires_type: Some(RequiresType::ProviderName(provider.into())) }
}

fn inline(specifier: Specifier) -> JwksSourceSpecifier {
    JwksSourceSpecifier::LocalJwks(DataSource { specifier: Some(specifier), ..Default::default() })
}

/// One provider whose keys are inline, and one that fetches them.
fn good() -> JwtAuthentication {
    let second = Some(Duration { seconds: 1, nanos: 0 });
    let remote = RemoteJwks {
        http_uri: Some(HttpUri {
            uri: "https://idp.example/keys".into(),
            timeout: second,
            http_upstream_type: Some(HttpUpstreamType::Cluster("idp".into())),
        }),
        async_fetch: Some(JwksAsyncFetch::default()),
        ..Default::default()
    };
    let local = inline(Specifier::InlineString(r#"{"keys": []}"#.into()));
    let provider = |keys| JwtProvider { jwks_source_specifier: Some(keys), ..Default::default() };
    let matches =
        RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() };
    let rule = RequirementRule {
        r#match: Some(matches),
        requirement_type: Some(RequirementType::Requires(requirement("p"))),
    };
    JwtAuthentication {
        providers: [
            ("p".to_owned(), provider(local)),
            ("q".to_owned(), provider(JwksSourceSpecifier::RemoteJwks(remote))),
        ]
        .into(),
        rules: vec![rule],
        requirement_map: [("r".to_owned(), requirement("p"))].into(),
        ..Default::default()
    }
}

fn provider(message: &mut JwtAuthentication) -> &mut JwtProvider {
    message.providers.get_mut("p").unwrap()
}

fn claim(message: &mut JwtAuthentication, header: &str, name: &str, path: &[&str]) {
    let segment = |key: &&str| PathSegment { key: (*key).into() };
    provider(message).claim_to_headers.push(JwtClaimToHeader {
        header_name: header.into(),
        claim_name: name.into(),
        claim_path: path.iter().map(segment).collect(),
    });
}

fn remote(message: &mut JwtAuthentication) -> &mut RemoteJwks {
    match &mut message.providers.get_mut("q").unwrap().jwks_source_specifier {
        Some(JwksSourceSpecifier::RemoteJwks(remote)) => remote,
        other => panic!("{other:?}"),
    }
}

fn uri(message: &mut JwtAuthentication) -> &mut HttpUri {
    remote(message).http_uri.as_mut().unwrap()
}

fn requires(message: &mut JwtAuthentication, requires_type: Option<RequiresType>) {
    message.rules[0].requirement_type = Some(RequirementType::Requires(JwtRequirement { requires_type }));
}

#[test]
fn a_provider_that_cannot_verify_is_refused_with_the_place() {
    refuses_filter(
        &good(),
        true,
        &[
            (
                |m| provider(m).subjects = Some(Default::default()),
                ".providers[\"p\"].subjects",
                "one of exact",
            ),
            (
                |m| provider(m).max_lifetime = Some(Duration { seconds: -1, nanos: 0 }),
                ".providers[\"p\"].max_lifetime",
                "not a valid duration",
            ),
            (
                |m| provider(m).jwks_source_specifier = Some(inline(Specifier::InlineString("[]".into()))),
                ".providers[\"p\"].local_jwks",
                "is not a JSON Web Key Set",
            ),
            (
                |m| provider(m).jwks_source_specifier = Some(inline(Specifier::InlineBytes(vec![0xff]))),
                ".providers[\"p\"].local_jwks",
                "is not UTF-8",
            ),
            (
                |m| provider(m).jwks_source_specifier = Some(inline(Specifier::Filename("/k".into()))),
                ".providers[\"p\"].local_jwks",
                "must be inline_string or inline_bytes",
            ),
            (
                |m| {
                    provider(m).from_headers.push(JwtHeader { name: "a b".into(), ..Default::default() });
                },
                ".providers[\"p\"].from_headers[0].name",
                "`a b` is not a header name",
            ),
            (
                |m| provider(m).forward_payload_header = "a b".into(),
                ".providers[\"p\"].forward_payload_header",
                "`a b` is not a header name",
            ),
            (
                |m| claim(m, "a b", "sub", &[]),
                ".providers[\"p\"].claim_to_headers[0].header_name",
                "`a b` is not a header name",
            ),
            (
                |m| claim(m, "x-sub", "", &[]),
                ".providers[\"p\"].claim_to_headers[0].claim_name",
                "is required, or a claim_path",
            ),
            (
                |m| claim(m, "x-sub", "", &["a", ""]),
                ".providers[\"p\"].claim_to_headers[0].claim_path",
                "holds an empty name",
            ),
            (
                |m| claim(m, "x-sub", "sub", &["a"]),
                ".providers[\"p\"].claim_to_headers[0].claim_path",
                "excludes claim_name",
            ),
            (|m| remote(m).http_uri = None, ".providers[\"q\"].remote_jwks.http_uri", "is required"),
            (
                |m| uri(m).uri = "/keys".into(),
                ".providers[\"q\"].remote_jwks.http_uri.uri",
                "`/keys` is not an absolute URI",
            ),
            (
                |m| uri(m).http_upstream_type = Some(HttpUpstreamType::Cluster(String::new())),
                ".providers[\"q\"].remote_jwks.http_uri.cluster",
                "is required",
            ),
            (|m| uri(m).timeout = None, ".providers[\"q\"].remote_jwks.http_uri.timeout", "is required"),
            (
                |m| uri(m).timeout = Some(Duration::default()),
                ".providers[\"q\"].remote_jwks.http_uri.timeout",
                "greater than zero",
            ),
            (
                |m| remote(m).cache_duration = Some(Duration::default()),
                ".providers[\"q\"].remote_jwks.cache_duration",
                "greater than zero",
            ),
            (
                |m| {
                    let wait = Some(Duration { seconds: 0, nanos: -1 });
                    remote(m).async_fetch.as_mut().unwrap().failed_refetch_duration = wait;
                },
                ".providers[\"q\"].remote_jwks.async_fetch.failed_refetch_duration",
                "not a valid duration",
            ),
        ],
    );
}

#[test]
fn a_requirement_that_nobody_can_meet_is_refused_with_the_place() {
    refuses_filter(
        &good(),
        true,
        &[
            (|m| m.filter_state_rules = Some(Default::default()), ".filter_state_rules", "not supported"),
            (
                |m| *m.requirement_map.get_mut("r").unwrap() = requirement("x"),
                ".requirement_map[\"r\"].provider_name",
                "`x` is not one of the providers",
            ),
            (
                |m| m.rules[0].r#match.as_mut().unwrap().path_specifier = None,
                ".rules[0].match.path_specifier",
                "is required",
            ),
            (
                |m| requires(m, Some(RequiresType::ProviderName("x".into()))),
                ".rules[0].requires.provider_name",
                "`x` is not one of the providers",
            ),
            (
                |m| {
                    let both = ProviderWithAudiences { provider_name: "x".into(), ..Default::default() };
                    requires(m, Some(RequiresType::ProviderAndAudiences(both)));
                },
                ".rules[0].requires.provider_and_audiences.provider_name",
                "`x` is not one of the providers",
            ),
            (
                |m| {
                    let requirements = vec![requirement("p")];
                    requires(m, Some(RequiresType::RequiresAny(JwtRequirementOrList { requirements })));
                },
                ".rules[0].requires.requires_any.requirements",
                "at least two",
            ),
            (
                |m| {
                    let requirements = vec![requirement("p")];
                    requires(m, Some(RequiresType::RequiresAll(JwtRequirementAndList { requirements })));
                },
                ".rules[0].requires.requires_all.requirements",
                "at least two",
            ),
            (
                |m| {
                    let requirements = vec![requirement("p"), JwtRequirement::default()];
                    requires(m, Some(RequiresType::RequiresAll(JwtRequirementAndList { requirements })));
                },
                ".rules[0].requires.requires_all.requirements[1]",
                "says nothing",
            ),
            (|m| requires(m, None), ".rules[0].requires", "says nothing"),
            (
                |m| requires(m, Some(RequiresType::ExtractOnlyWithoutValidation(Default::default()))),
                ".rules[0].requires.extract_only_without_validation",
                "claims of an unverified token decide nothing",
            ),
        ],
    );
    const NEITHER: &str = "`disabled: true` or a requirement_name is required";
    let good =
        PerRouteConfig { requirement_specifier: Some(RequirementSpecifier::RequirementName("r".into())) };
    refuses_override(
        &good,
        &[
            (|m| m.requirement_specifier = None, "", NEITHER),
            (|m| m.requirement_specifier = Some(RequirementSpecifier::Disabled(false)), "", NEITHER),
            (
                |m| m.requirement_specifier = Some(RequirementSpecifier::RequirementName(String::new())),
                "",
                NEITHER,
            ),
        ],
    );
}
