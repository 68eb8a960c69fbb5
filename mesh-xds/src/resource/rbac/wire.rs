//! RBAC, to and from protobuf (gRFC A41). What cannot be evaluated rejects the resource.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::{Audit, AuditLogger, Permission, Policy, Principal, Rbac, RbacAction, Rules};
use crate::{
    field_path::{Faults, Path},
    matcher::{HeaderMatcher, HeaderOrPseudo},
    resource::{
        Feature,
        canonical::{self, Inside, Shape},
        filter::{
            FilterConfig, FilterOverride,
            registry::{Kind, SERVER, Scope},
        },
        wire,
    },
};
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::TypedExtensionConfig,
            rbac::v3::{
                self as proto,
                permission::Rule,
                principal::Identifier,
                rbac::{
                    Action, AuditLoggingOptions,
                    audit_logging_options::{AuditCondition, AuditLoggerConfig},
                },
            },
            route::v3::HeaderMatcher as HeaderMatcherProto,
        },
        extensions::{
            filters::http::rbac::v3::{Rbac as FilterProto, RbacPerRoute},
            rbac::audit_loggers::stream::v3::StdoutAuditLog,
        },
        r#type::{matcher::v3 as matcher, v3::Int32Range},
    },
    google::protobuf::Any,
};
use prost::{Message, Name};
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

pub(in crate::resource) static KIND: Kind = Kind {
    message: "envoy.extensions.filters.http.rbac.v3.RBAC",
    sides: SERVER,
    feature: None,
    read: |any, scope, at, faults| {
        let rbac = parse(&wire::unpack(any, at, faults)?, scope, at, faults)?;
        Some(FilterConfig::Rbac(Arc::new(rbac)))
    },
    per_route: Some(("envoy.extensions.filters.http.rbac.v3.RBACPerRoute", |any, scope, at, faults| {
        let per_route: RbacPerRoute = wire::unpack(any, at, faults)?;
        Some(match &per_route.rbac {
            Some(rbac) => {
                let rbac = parse(rbac, scope, &at.field("rbac"), faults)?;
                FilterOverride::Config(FilterConfig::Rbac(Arc::new(rbac)))
            }
            None => FilterOverride::Disabled,
        })
    })),
};

fn parse(proto: &FilterProto, scope: &Scope<'_>, at: &Path<'_>, faults: &mut Faults) -> Option<Rbac> {
    if proto.matcher.is_some() {
        return faults.reject(&at.field("matcher"), "is not supported; use `rules`");
    }
    match &proto.rules {
        None => Some(Rbac { rules: None }),
        Some(rules) => Some(Rbac { rules: parse_rules(rules, scope, &at.field("rules"), faults)? }),
    }
}

/// `Some(None)`: the action is LOG, which decides nothing.
fn parse_rules(
    proto: &proto::Rbac,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<Rules>> {
    let action = match Action::try_from(proto.action) {
        Ok(Action::Allow) => RbacAction::Allow,
        Ok(Action::Deny) => RbacAction::Deny,
        Ok(Action::Log) => return Some(None),
        Err(_) => return faults.reject(&at.field("action"), format_args!("{} is unknown", proto.action)),
    };
    let audit = match &proto.audit_logging_options {
        Some(audit) => self::audit(audit, scope, &at.field("audit_logging_options"), faults),
        None => Some(None),
    };
    let mut policies = BTreeMap::new();
    let mut all_right = true;
    let at = at.field("policies");
    for (name, proto) in proto.policies.iter().collect::<BTreeMap<_, _>>() {
        match policy(proto, &at.key(name), faults) {
            Some(policy) => {
                policies.insert(Arc::from(name.as_str()), policy);
            }
            None => all_right = false,
        }
    }
    let audit = audit?;
    all_right.then_some(Some(Rules { action, policies, audit }))
}

/// Loggers that are not known, or that the data path does not have, are left out where optional. `Some(None)`:
/// nothing is logged.
fn audit(
    proto: &AuditLoggingOptions,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<Audit>> {
    let (denied, allowed) = match AuditCondition::try_from(proto.audit_condition) {
        Ok(AuditCondition::None) => (false, false),
        Ok(AuditCondition::OnDeny) => (true, false),
        Ok(AuditCondition::OnAllow) => (false, true),
        Ok(AuditCondition::OnDenyAndAllow) => (true, true),
        Err(_) => {
            let reason = format!("{} is unknown", proto.audit_condition);
            return faults.reject(&at.field("audit_condition"), reason);
        }
    };
    let loggers =
        wire::every(&proto.logger_configs, &at.field("logger_configs"), faults, |logger, at, faults| {
            let at = at.field("audit_logger");
            let extension = faults.required(&at, &logger.audit_logger)?;
            let at = at.field("typed_config");
            let config = faults.required(&at, &extension.typed_config)?;
            let known = config.type_url == StdoutAuditLog::type_url();
            if known && scope.context.support.has(Feature::AuditLogging) {
                return Some(Some(AuditLogger::Stdout));
            }
            if logger.is_optional {
                return Some(None);
            }
            if known {
                return scope.context.support.require(Feature::AuditLogging, &at, faults).map(|()| None);
            }
            faults.reject(
                &at,
                format_args!("audit logger {} is not supported, and not optional", config.type_url),
            )
        })?;
    let loggers: Vec<_> = loggers.into_iter().flatten().collect();
    let logs = (denied || allowed) && !loggers.is_empty();
    Some(logs.then_some(Audit { denied, allowed, loggers }))
}

fn policy(proto: &proto::Policy, at: &Path<'_>, faults: &mut Faults) -> Option<Policy> {
    for (unsupported, field) in
        [(proto.condition.is_some(), "condition"), (proto.checked_condition.is_some(), "checked_condition")]
    {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
    let permissions = wire::every(&proto.permissions, &at.field("permissions"), faults, permission);
    let principals = wire::every(&proto.principals, &at.field("principals"), faults, principal);
    let (permissions, principals) = (permissions?, principals?);
    if permissions.is_empty() {
        faults.reject::<()>(&at.field("permissions"), "must not be empty");
    }
    if principals.is_empty() {
        faults.reject::<()>(&at.field("principals"), "must not be empty");
    }
    Some(Policy { permissions, principals })
}

fn permission(proto: &proto::Permission, at: &Path<'_>, faults: &mut Faults) -> Option<Permission> {
    let Some(rule) = &proto.rule else { return faults.reject(at, "says nothing") };
    Some(match rule {
        Rule::Any(true) => Permission::Any,
        Rule::Any(false) => return faults.reject(&at.field("any"), "must be true"),
        Rule::AndRules(set) => {
            let at = at.field("and_rules");
            Permission::And(not_empty(&set.rules, &at.field("rules"), faults, permission)?)
        }
        Rule::OrRules(set) => {
            let at = at.field("or_rules");
            Permission::Or(not_empty(&set.rules, &at.field("rules"), faults, permission)?)
        }
        Rule::NotRule(rule) => Permission::Not(Box::new(permission(rule, &at.field("not_rule"), faults)?)),
        Rule::Header(matcher) => Permission::Header(header(matcher, &at.field("header"), faults)?),
        Rule::UrlPath(path) => Permission::UrlPath(url_path(path, &at.field("url_path"), faults)?),
        Rule::DestinationIp(range) => {
            Permission::DestinationIp(wire::cidr(range, &at.field("destination_ip"), faults)?)
        }
        Rule::DestinationPort(value) => {
            let at = at.field("destination_port");
            let port =
                faults.take(&at, u16::try_from(*value).map_err(|_| format!("{value} is not a port")))?;
            Permission::DestinationPort(port..=port)
        }
        Rule::DestinationPortRange(range) => {
            Permission::DestinationPort(ports(range, &at.field("destination_port_range"), faults)?)
        }
        Rule::Metadata(matcher) => Permission::Metadata { invert: matcher.invert },
        Rule::RequestedServerName(name) => {
            let at = at.field("requested_server_name");
            Permission::RequestedServerName(wire::string_matcher(name, &at, faults)?)
        }
        Rule::Matcher(_) => return faults.reject(&at.field("matcher"), "is not supported"),
        Rule::UriTemplate(_) => return faults.reject(&at.field("uri_template"), "is not supported"),
        Rule::SourcedMetadata(_) => return faults.reject(&at.field("sourced_metadata"), "is not supported"),
    })
}

fn principal(proto: &proto::Principal, at: &Path<'_>, faults: &mut Faults) -> Option<Principal> {
    let Some(identifier) = &proto.identifier else { return faults.reject(at, "says nothing") };
    Some(match identifier {
        Identifier::Any(true) => Principal::Any,
        Identifier::Any(false) => return faults.reject(&at.field("any"), "must be true"),
        Identifier::AndIds(set) => {
            let at = at.field("and_ids");
            Principal::And(not_empty(&set.ids, &at.field("ids"), faults, principal)?)
        }
        Identifier::OrIds(set) => {
            let at = at.field("or_ids");
            Principal::Or(not_empty(&set.ids, &at.field("ids"), faults, principal)?)
        }
        Identifier::NotId(id) => Principal::Not(Box::new(principal(id, &at.field("not_id"), faults)?)),
        Identifier::Authenticated(authenticated) => {
            let at = at.field("authenticated");
            let at = at.field("principal_name");
            Principal::Authenticated(match &authenticated.principal_name {
                Some(name) => Some(wire::string_matcher(name, &at, faults)?),
                None => None,
            })
        }
        Identifier::SourceIp(range) => {
            Principal::RemoteIp(wire::cidr(range, &at.field("source_ip"), faults)?)
        }
        Identifier::DirectRemoteIp(range) => {
            Principal::RemoteIp(wire::cidr(range, &at.field("direct_remote_ip"), faults)?)
        }
        Identifier::RemoteIp(range) => {
            Principal::RemoteIp(wire::cidr(range, &at.field("remote_ip"), faults)?)
        }
        Identifier::Header(matcher) => Principal::Header(header(matcher, &at.field("header"), faults)?),
        Identifier::UrlPath(path) => Principal::UrlPath(url_path(path, &at.field("url_path"), faults)?),
        Identifier::Metadata(matcher) => Principal::Metadata { invert: matcher.invert },
        Identifier::FilterState(_) => return faults.reject(&at.field("filter_state"), "is not supported"),
        Identifier::SourcedMetadata(_) => {
            return faults.reject(&at.field("sourced_metadata"), "is not supported");
        }
        Identifier::Custom(_) => return faults.reject(&at.field("custom"), "is not supported"),
    })
}

fn not_empty<T, U>(
    items: &[T],
    at: &Path<'_>,
    faults: &mut Faults,
    parse: impl Fn(&T, &Path<'_>, &mut Faults) -> Option<U>,
) -> Option<Vec<U>> {
    if items.is_empty() {
        return faults.reject(at, "must not be empty");
    }
    wire::every(items, at, faults, parse)
}

/// gRPC's own headers are not the application's to decide by (A41).
fn header(proto: &HeaderMatcherProto, at: &Path<'_>, faults: &mut Faults) -> Option<HeaderMatcher> {
    let matcher = wire::header_matcher(proto, at, faults)?;
    if matcher.name == HeaderOrPseudo::Scheme || matcher.name.as_str().starts_with("grpc-") {
        return faults.reject(&at.field("name"), format_args!("`{}` cannot be matched", proto.name));
    }
    Some(matcher)
}

fn url_path(
    proto: &matcher::PathMatcher,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<crate::matcher::StringMatcher> {
    match &proto.rule {
        Some(matcher::path_matcher::Rule::Path(path)) => {
            wire::string_matcher(path, &at.field("path"), faults)
        }
        None => faults.reject(&at.field("path"), "is required"),
    }
}

/// `[start, end)`.
fn ports(range: &Int32Range, at: &Path<'_>, faults: &mut Faults) -> Option<RangeInclusive<u16>> {
    let start = u16::try_from(range.start);
    let last = range.end.checked_sub(1).and_then(|last| u16::try_from(last).ok());
    match (start, last) {
        (Ok(start), Some(last)) if start <= last => Some(start..=last),
        _ => faults.reject(at, format_args!("[{}, {}) is not a range of ports", range.start, range.end)),
    }
}

static RULES_SHAPE: Shape = Shape(&[(2, Inside::Map)]);
static SHAPE: Shape = Shape(&[(1, Inside::Message(&RULES_SHAPE))]);

pub(in crate::resource) fn encode_any(rbac: &Rbac) -> Any {
    Any { type_url: FilterProto::type_url(), value: encode(rbac) }
}

pub(in crate::resource) fn encode_override(rbac: &Rbac) -> Any {
    let mut value = Vec::new();
    wire::embed(2, &encode(rbac), &mut value);
    Any { type_url: RbacPerRoute::type_url(), value }
}

fn audit_proto(audit: &Audit) -> AuditLoggingOptions {
    AuditLoggingOptions {
        audit_condition: match (audit.denied, audit.allowed) {
            (true, true) => AuditCondition::OnDenyAndAllow,
            (true, false) => AuditCondition::OnDeny,
            (false, true) => AuditCondition::OnAllow,
            (false, false) => AuditCondition::None,
        }
        .into(),
        logger_configs: audit
            .loggers
            .iter()
            .map(|AuditLogger::Stdout| AuditLoggerConfig {
                audit_logger: Some(TypedExtensionConfig {
                    name: "envoy.rbac.audit_loggers.stdout".into(),
                    typed_config: Some(wire::any(&StdoutAuditLog {})),
                }),
                is_optional: false,
            })
            .collect(),
    }
}

/// The filter's message, encoded: policies in order.
fn encode(rbac: &Rbac) -> Vec<u8> {
    let rules = rbac.rules.as_ref().map(|rules| proto::Rbac {
        action: match rules.action {
            RbacAction::Allow => Action::Allow.into(),
            RbacAction::Deny => Action::Deny.into(),
        },
        policies: rules
            .policies
            .iter()
            .map(|(name, policy)| (name.to_string(), policy_proto(policy)))
            .collect(),
        audit_logging_options: rules.audit.as_ref().map(audit_proto),
    });
    canonical::sorted(&FilterProto { rules, ..Default::default() }.encode_to_vec(), &SHAPE)
}

fn policy_proto(policy: &Policy) -> proto::Policy {
    proto::Policy {
        permissions: policy.permissions.iter().map(permission_proto).collect(),
        principals: policy.principals.iter().map(principal_proto).collect(),
        ..Default::default()
    }
}

fn path_proto(path: &crate::matcher::StringMatcher) -> matcher::PathMatcher {
    matcher::PathMatcher { rule: Some(matcher::path_matcher::Rule::Path(wire::string_matcher_proto(path))) }
}

/// A question about metadata that nobody sets. Envoy demands that it names some.
fn metadata_proto(invert: bool) -> matcher::MetadataMatcher {
    use matcher::{
        ValueMatcher,
        metadata_matcher::{PathSegment, path_segment::Segment},
        value_matcher::MatchPattern,
    };
    matcher::MetadataMatcher {
        filter: "io.mesh.never".into(),
        path: vec![PathSegment { segment: Some(Segment::Key("never".into())) }],
        value: Some(ValueMatcher { match_pattern: Some(MatchPattern::PresentMatch(true)) }),
        invert,
    }
}

fn permission_proto(permission: &Permission) -> proto::Permission {
    let set =
        |rules: &[Permission]| proto::permission::Set { rules: rules.iter().map(permission_proto).collect() };
    let rule = match permission {
        Permission::Any => Rule::Any(true),
        Permission::Header(matcher) => Rule::Header(wire::header_matcher_proto(matcher)),
        Permission::UrlPath(path) => Rule::UrlPath(path_proto(path)),
        Permission::DestinationIp(net) => Rule::DestinationIp(wire::cidr_proto(net)),
        Permission::DestinationPort(range) if range.start() == range.end() => {
            Rule::DestinationPort((*range.start()).into())
        }
        Permission::DestinationPort(range) => Rule::DestinationPortRange(Int32Range {
            start: (*range.start()).into(),
            end: i32::from(*range.end()) + 1,
        }),
        Permission::RequestedServerName(name) => Rule::RequestedServerName(wire::string_matcher_proto(name)),
        Permission::Metadata { invert } => Rule::Metadata(metadata_proto(*invert)),
        Permission::Not(rule) => Rule::NotRule(Box::new(permission_proto(rule))),
        Permission::And(rules) => Rule::AndRules(set(rules)),
        Permission::Or(rules) => Rule::OrRules(set(rules)),
    };
    proto::Permission { rule: Some(rule) }
}

fn principal_proto(principal: &Principal) -> proto::Principal {
    let set = |ids: &[Principal]| proto::principal::Set { ids: ids.iter().map(principal_proto).collect() };
    let identifier = match principal {
        Principal::Any => Identifier::Any(true),
        Principal::Authenticated(name) => Identifier::Authenticated(proto::principal::Authenticated {
            principal_name: name.as_ref().map(wire::string_matcher_proto),
        }),
        Principal::RemoteIp(net) => Identifier::DirectRemoteIp(wire::cidr_proto(net)),
        Principal::Header(matcher) => Identifier::Header(wire::header_matcher_proto(matcher)),
        Principal::UrlPath(path) => Identifier::UrlPath(path_proto(path)),
        Principal::Metadata { invert } => Identifier::Metadata(metadata_proto(*invert)),
        Principal::Not(id) => Identifier::NotId(Box::new(principal_proto(id))),
        Principal::And(ids) => Identifier::AndIds(set(ids)),
        Principal::Or(ids) => Identifier::OrIds(set(ids)),
    };
    proto::Principal { identifier: Some(identifier) }
}
