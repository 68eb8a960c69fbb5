//! JwtAuthentication, to and from protobuf.

mod provider;

use super::{JwtAuthn, JwtRequirement, JwtRule};
use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature,
        canonical::{self, Inside, Shape},
        filter::{
            FilterConfig, FilterOverride,
            registry::{Kind, SERVER},
        },
        route, wire,
    },
};
use envoy_types::pb::{
    envoy::extensions::filters::http::jwt_authn::v3::{
        self as proto, JwtAuthentication, JwtRequirementAndList, JwtRequirementOrList, PerRouteConfig,
        ProviderWithAudiences, RequirementRule, jwt_requirement::RequiresType,
        per_route_config::RequirementSpecifier, requirement_rule::RequirementType,
    },
    google::protobuf::Any,
};
use prost::{Message, Name};
use std::{collections::BTreeMap, sync::Arc};

pub(in crate::resource) static KIND: Kind = Kind {
    message: "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    sides: SERVER,
    feature: Some(Feature::JwtAuthn),
    read: |any, _, at, faults| {
        let jwt = parse(&wire::unpack(any, at, faults)?, at, faults)?;
        Some(FilterConfig::JwtAuthn(Arc::new(jwt)))
    },
    per_route: Some(("envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig", |any, _, at, faults| {
        let per_route: PerRouteConfig = wire::unpack(any, at, faults)?;
        match &per_route.requirement_specifier {
            Some(RequirementSpecifier::Disabled(true)) => Some(FilterOverride::Disabled),
            Some(RequirementSpecifier::RequirementName(name)) if !name.is_empty() => {
                Some(FilterOverride::JwtRequirement(name.as_str().into()))
            }
            _ => faults.reject(at, "`disabled: true` or a requirement_name is required"),
        }
    })),
};

fn parse(proto: &JwtAuthentication, at: &Path<'_>, faults: &mut Faults) -> Option<JwtAuthn> {
    if proto.filter_state_rules.is_some() {
        return faults.reject(&at.field("filter_state_rules"), "is not supported");
    }
    let mut all_right = true;
    let mut providers = BTreeMap::new();
    let list = at.field("providers");
    for (name, proto) in proto.providers.iter().collect::<BTreeMap<_, _>>() {
        match provider::parse(proto, &list.key(name), faults) {
            Some(provider) => {
                providers.insert(Arc::from(name.as_str()), Arc::new(provider));
            }
            None => all_right = false,
        }
    }
    if !all_right {
        return None;
    }
    let known = |name: &str| providers.contains_key(name);
    let mut requirements = BTreeMap::new();
    let list = at.field("requirement_map");
    for (name, proto) in proto.requirement_map.iter().collect::<BTreeMap<_, _>>() {
        let requirement = requirement(proto, &known, &list.key(name), faults)?;
        requirements.insert(Arc::from(name.as_str()), requirement);
    }
    let rules = wire::every(&proto.rules, &at.field("rules"), faults, |rule, at, faults| {
        let match_at = at.field("match");
        let matches = faults
            .required(&match_at, &rule.r#match)
            .cloned()
            .and_then(|matches| route::wire::route_match(&matches, &match_at, faults));
        let requires = match &rule.requirement_type {
            None => Some(None),
            Some(RequirementType::Requires(requires)) => {
                requirement(requires, &known, &at.field("requires"), faults).map(Some)
            }
            Some(RequirementType::RequirementName(name)) => match requirements.get(name.as_str()) {
                Some(requirement) => Some(Some(requirement.clone())),
                None => faults.reject(
                    &at.field("requirement_name"),
                    format_args!("`{name}` is not in the requirement_map"),
                ),
            },
        };
        Some(JwtRule { matches: matches?, requires: requires? })
    });
    Some(JwtAuthn { rules: rules?, providers, requirements })
}

fn requirement(
    proto: &proto::JwtRequirement,
    known: &dyn Fn(&str) -> bool,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<JwtRequirement> {
    let provider = |name: &str, at: &Path<'_>, faults: &mut Faults| {
        if known(name) {
            return Some(Arc::from(name));
        }
        faults.reject(&at.field("provider_name"), format_args!("`{name}` is not one of the providers"))
    };
    let several = |list: &[proto::JwtRequirement], at: &Path<'_>, faults: &mut Faults| {
        let at = at.field("requirements");
        if list.len() < 2 {
            return faults.reject(&at, "must hold at least two");
        }
        wire::every(list, &at, faults, |one, at, faults| requirement(one, known, at, faults))
    };
    Some(match &proto.requires_type {
        Some(RequiresType::ProviderName(name)) => {
            JwtRequirement::Provider { name: provider(name, at, faults)?, audiences: None }
        }
        Some(RequiresType::ProviderAndAudiences(both)) => JwtRequirement::Provider {
            name: provider(&both.provider_name, &at.field("provider_and_audiences"), faults)?,
            audiences: Some(wire::texts(&both.audiences)),
        },
        Some(RequiresType::RequiresAny(list)) => {
            JwtRequirement::Any(several(&list.requirements, &at.field("requires_any"), faults)?)
        }
        Some(RequiresType::RequiresAll(list)) => {
            JwtRequirement::All(several(&list.requirements, &at.field("requires_all"), faults)?)
        }
        Some(RequiresType::AllowMissing(_)) => JwtRequirement::AllowMissing,
        Some(RequiresType::AllowMissingOrFailed(_)) => JwtRequirement::AllowMissingOrFailed,
        Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
            let at = at.field("extract_only_without_validation");
            return faults.reject(&at, "is not supported: claims of an unverified token decide nothing");
        }
        None => return faults.reject(at, "says nothing"),
    })
}

static SHAPE: Shape = Shape(&[(1, Inside::Map), (5, Inside::Map)]);

/// The filter's message: its maps in order.
pub(in crate::resource) fn encode(jwt: &JwtAuthn) -> Any {
    let message = JwtAuthentication {
        providers: jwt
            .providers
            .iter()
            .map(|(name, provider)| (name.to_string(), provider::encode(provider)))
            .collect(),
        rules: jwt
            .rules
            .iter()
            .map(|rule| RequirementRule {
                r#match: Some(route::wire::encode_match(&rule.matches)),
                requirement_type: rule
                    .requires
                    .as_ref()
                    .map(|requires| RequirementType::Requires(requirement_proto(requires))),
            })
            .collect(),
        requirement_map: jwt
            .requirements
            .iter()
            .map(|(name, requirement)| (name.to_string(), requirement_proto(requirement)))
            .collect(),
        ..Default::default()
    };
    let value = canonical::sorted(&message.encode_to_vec(), &SHAPE);
    Any { type_url: JwtAuthentication::type_url(), value }
}

fn requirement_proto(requirement: &JwtRequirement) -> proto::JwtRequirement {
    let list = |list: &[JwtRequirement]| list.iter().map(requirement_proto).collect();
    proto::JwtRequirement {
        requires_type: Some(match requirement {
            JwtRequirement::Provider { name, audiences: None } => {
                RequiresType::ProviderName(name.to_string())
            }
            JwtRequirement::Provider { name, audiences: Some(audiences) } => {
                RequiresType::ProviderAndAudiences(ProviderWithAudiences {
                    provider_name: name.to_string(),
                    audiences: audiences.iter().map(ToString::to_string).collect(),
                })
            }
            JwtRequirement::Any(any) => {
                RequiresType::RequiresAny(JwtRequirementOrList { requirements: list(any) })
            }
            JwtRequirement::All(all) => {
                RequiresType::RequiresAll(JwtRequirementAndList { requirements: list(all) })
            }
            JwtRequirement::AllowMissing => RequiresType::AllowMissing(Default::default()),
            JwtRequirement::AllowMissingOrFailed => RequiresType::AllowMissingOrFailed(Default::default()),
        }),
    }
}

pub(in crate::resource) fn encode_override(requirement: &str) -> PerRouteConfig {
    PerRouteConfig { requirement_specifier: Some(RequirementSpecifier::RequirementName(requirement.into())) }
}
