//! AuthorizationPolicies to RBAC filters (gRFC A41, Istio's `authz/model`).
//!
//! DENY before ALLOW. An ALLOW policy without rules allows nothing, and its filter says so. Whatever
//! cannot be translated fails closed: an ALLOW rule is left out, a DENY rule denies everything. gRPC
//! fixes the method, so conditions on it are decided here.

use crate::model::{
    Action, AuthorizationPolicy, Condition, Operation, PathPattern, Rule, ServiceAccount, Source, Terms,
    TextPattern,
};
use mesh_xds::{
    matcher::{FullRegex, HeaderMatcher, HeaderOrPseudo, StringMatcher, StringPattern},
    resource::{
        filter::{FilterConfig, HttpFilter},
        rbac::{Permission, Policy, Principal, Rbac, RbacAction, Rules},
    },
};
use std::{collections::BTreeMap, sync::Arc};

const DENY_FILTER: &str = "envoy.filters.http.rbac.DENY";
const ALLOW_FILTER: &str = "envoy.filters.http.rbac";

/// The trust domains that a policy's `cluster.local` stands for: the mesh's own and its aliases.
pub(super) struct TrustDomains<'a> {
    pub(super) own: &'a str,
    pub(super) aliases: &'a [String],
}

/// The filters that enforce `policies`, in order.
pub(super) fn filters<'p>(
    policies: impl Iterator<Item = &'p AuthorizationPolicy>,
    domains: &TrustDomains<'_>,
) -> Vec<HttpFilter> {
    let mut deny: Option<BTreeMap<Arc<str>, Policy>> = None;
    let mut allow: Option<BTreeMap<Arc<str>, Policy>> = None;
    for policy in policies.filter(|policy| !policy.dry_run) {
        let into = match policy.action {
            Action::Deny => deny.get_or_insert_default(),
            Action::Allow => allow.get_or_insert_default(),
        };
        let id = &policy.origin.id;
        for (i, rule) in policy.rules.iter().enumerate() {
            let compiled = translate(rule, domains).or_else(|| match policy.action {
                Action::Allow => None,
                Action::Deny => Some(everything()),
            });
            if let Some(compiled) = compiled {
                into.insert(format!("ns[{}]-policy[{}]-rule[{i}]", id.namespace, id.name).into(), compiled);
            }
        }
    }
    let filter = |name: &str, action, policies| HttpFilter {
        name: name.into(),
        config: FilterConfig::Rbac(Arc::new(Rbac { rules: Some(Rules { action, policies, audit: None }) })),
        disabled: false,
    };
    let deny = deny.map(|policies| filter(DENY_FILTER, RbacAction::Deny, policies));
    let allow = allow.map(|policies| filter(ALLOW_FILTER, RbacAction::Allow, policies));
    deny.into_iter().chain(allow).collect()
}

fn everything() -> Policy {
    Policy { permissions: vec![Permission::Any], principals: vec![Principal::Any] }
}

fn translate(rule: &Rule, domains: &TrustDomains<'_>) -> Option<Policy> {
    let mut asked_permissions = Vec::new();
    let mut asked_principals = Vec::new();
    for condition in &rule.conditions {
        match circumstance(condition, domains)? {
            Asked::Permission(permission) => asked_permissions.push(permission),
            Asked::Principal(principal) => asked_principals.push(principal),
        }
    }
    let permissions: Option<Vec<_>> = rule.operations.iter().map(operation).collect();
    let principals: Option<Vec<_>> = rule.sources.iter().map(|one| source(one, domains)).collect();
    Some(Policy {
        permissions: combine(permissions?, &asked_permissions, all_permissions),
        principals: combine(principals?, &asked_principals, all_principals),
    })
}

/// Any of the alternatives (or anything, when there are none), and everything that is asked besides.
fn combine<T: Clone>(alternatives: Vec<Vec<T>>, asked: &[T], all: fn(Vec<T>) -> T) -> Vec<T> {
    let alternatives = if alternatives.is_empty() { vec![Vec::new()] } else { alternatives };
    alternatives.into_iter().map(|one| all([one.as_slice(), asked].concat())).collect()
}

fn all_permissions(mut asked: Vec<Permission>) -> Permission {
    match asked.len() {
        0 => Permission::Any,
        1 => asked.remove(0),
        _ => Permission::And(asked),
    }
}

fn all_principals(mut asked: Vec<Principal>) -> Principal {
    match asked.len() {
        0 => Principal::Any,
        1 => asked.remove(0),
        _ => Principal::And(asked),
    }
}

/// Any of `any`, none of `none`; what cannot be translated makes the whole rule untranslatable.
fn permission<T>(terms: &Terms<T>, one: impl Fn(&T) -> Option<Permission>) -> Option<Vec<Permission>> {
    let (any, none) = both(terms, one)?;
    let any = any.map(|mut any| if any.len() == 1 { any.remove(0) } else { Permission::Or(any) });
    let none = none.map(|none| Permission::Not(Box::new(Permission::Or(none))));
    Some(any.into_iter().chain(none).collect())
}

fn principal<T>(terms: &Terms<T>, one: impl Fn(&T) -> Option<Principal>) -> Option<Vec<Principal>> {
    let (any, none) = both(terms, one)?;
    let any = any.map(|mut any| if any.len() == 1 { any.remove(0) } else { Principal::Or(any) });
    let none = none.map(|none| Principal::Not(Box::new(Principal::Or(none))));
    Some(any.into_iter().chain(none).collect())
}

type Sides<P> = (Option<Vec<P>>, Option<Vec<P>>);

fn both<T, P>(terms: &Terms<T>, one: impl Fn(&T) -> Option<P>) -> Option<Sides<P>> {
    let side = |values: &[T]| match values {
        [] => Some(None),
        values => values.iter().map(&one).collect::<Option<Vec<P>>>().map(Some),
    };
    Some((side(&terms.any)?, side(&terms.none)?))
}

fn source(source: &Source, domains: &TrustDomains<'_>) -> Option<Vec<Principal>> {
    Some(
        [
            principal(&source.principals, |pattern| named(pattern, domains))?,
            principal(&source.namespaces, namespace)?,
            principal(&source.service_accounts, service_account)?,
            principal(&source.trust_domains, trust_domain)?,
            principal(&source.ip_blocks, |block| Some(Principal::RemoteIp(*block)))?,
            // No hop before a proxyless server is trusted to say who called it: the peer is the caller.
            principal(&source.remote_ip_blocks, |block| Some(Principal::RemoteIp(*block)))?,
        ]
        .concat(),
    )
}

fn operation(operation: &Operation) -> Option<Vec<Permission>> {
    Some(
        [
            permission(&operation.hosts, host)?,
            permission(&operation.ports, |port| Some(Permission::DestinationPort(*port..=*port)))?,
            permission(&operation.methods, |pattern| Some(constant(admits(pattern, "POST"))))?,
            permission(&operation.paths, |pattern| Some(Permission::UrlPath(path(pattern)?)))?,
        ]
        .concat(),
    )
}

/// What a condition is asked of.
enum Asked {
    Permission(Permission),
    Principal(Principal),
}

fn circumstance(condition: &Condition, domains: &TrustDomains<'_>) -> Option<Asked> {
    let permission = |asked| Some(Asked::Permission(all_permissions(asked)));
    let principal_of = |asked| Some(Asked::Principal(all_principals(asked)));
    match condition {
        Condition::Header(name, terms) => match name.as_str() {
            ":authority" | "host" => permission(self::permission(terms, host)?),
            ":method" => permission(self::permission(terms, |value| Some(constant(admits(value, "POST"))))?),
            ":path" => {
                permission(self::permission(terms, |value| Some(Permission::UrlPath(text(value, "")?)))?)
            }
            name => principal_of(principal(terms, |value| Some(Principal::Header(header(name, value)?)))?),
        },
        Condition::SourceIp(terms) | Condition::RemoteIp(terms) => {
            principal_of(principal(terms, |block| Some(Principal::RemoteIp(*block)))?)
        }
        Condition::SourceNamespace(terms) => principal_of(principal(terms, namespace)?),
        Condition::SourcePrincipal(terms) => {
            principal_of(principal(terms, |pattern| named(pattern, domains))?)
        }
        Condition::SourceServiceAccount(terms) => principal_of(principal(terms, service_account)?),
        Condition::SourceTrustDomain(terms) => principal_of(principal(terms, trust_domain)?),
        Condition::DestinationIp(terms) => {
            permission(self::permission(terms, |block| Some(Permission::DestinationIp(*block)))?)
        }
        Condition::DestinationPort(terms) => {
            permission(self::permission(terms, |port| Some(Permission::DestinationPort(*port..=*port)))?)
        }
        Condition::Sni(terms) => permission(self::permission(terms, |value| {
            Some(Permission::RequestedServerName(text(value, "")?))
        })?),
    }
}

/// A principal as policies write it, without `spiffe://`. The own trust domain, its aliases and
/// `cluster.local` mean each other.
fn named(pattern: &TextPattern, domains: &TrustDomains<'_>) -> Option<Principal> {
    let value = match pattern {
        TextPattern::Exact(value) | TextPattern::Prefix(value) => value,
        TextPattern::Suffix(_) | TextPattern::Present => return authenticated(text(pattern, "spiffe://")?),
    };
    let ours = |domain: &str| {
        domain == domains.own
            || domain == "cluster.local"
            || domains.aliases.iter().any(|alias| alias == domain)
    };
    let Some((_, rest)) = value.split_once('/').filter(|(domain, _)| ours(domain)) else {
        return authenticated(text(pattern, "spiffe://")?);
    };
    let spelled =
        std::iter::once(domains.own).chain(domains.aliases.iter().map(String::as_str)).map(|domain| {
            let value = format!("{domain}/{rest}");
            let pattern = match pattern {
                TextPattern::Prefix(_) => TextPattern::Prefix(value),
                _ => TextPattern::Exact(value),
            };
            authenticated(text(&pattern, "spiffe://")?)
        });
    let mut spelled: Vec<_> = spelled.collect::<Option<_>>()?;
    Some(if spelled.len() == 1 { spelled.remove(0) } else { Principal::Or(spelled) })
}

fn namespace(pattern: &TextPattern) -> Option<Principal> {
    identity(&format!("spiffe://[^/]+/ns/{}/.*", segment(pattern)))
}

fn trust_domain(pattern: &TextPattern) -> Option<Principal> {
    identity(&format!("spiffe://{}/.*", segment(pattern)))
}

fn service_account(account: &ServiceAccount) -> Option<Principal> {
    let (namespace, name) = (regex::escape(&account.namespace), regex::escape(&account.name));
    identity(&format!("spiffe://[^/]+/ns/{namespace}/(.+/|)sa/{name}(/.+)?"))
}

/// One segment of a SPIFFE id.
fn segment(pattern: &TextPattern) -> String {
    match pattern {
        TextPattern::Exact(value) => regex::escape(value),
        TextPattern::Prefix(value) => format!("{}[^/]*", regex::escape(value)),
        TextPattern::Suffix(value) => format!("[^/]*{}", regex::escape(value)),
        TextPattern::Present => "[^/]+".to_owned(),
    }
}

fn identity(expression: &str) -> Option<Principal> {
    authenticated(string(StringPattern::Regex(FullRegex::new(expression).ok()?)))
}

#[expect(clippy::unnecessary_wraps, reason = "stands where translations that can fail stand")]
fn authenticated(matcher: StringMatcher) -> Option<Principal> {
    Some(Principal::Authenticated(Some(matcher)))
}

/// Authorities are compared whatever their case.
fn host(pattern: &TextPattern) -> Option<Permission> {
    let matcher = match pattern {
        TextPattern::Exact(value) => StringMatcher::exact(value, true),
        TextPattern::Prefix(value) => StringMatcher::prefix(value, true).ok()?,
        TextPattern::Suffix(value) => StringMatcher::suffix(value, true).ok()?,
        TextPattern::Present => text(pattern, "")?,
    };
    Some(Permission::Header(HeaderMatcher::string(HeaderOrPseudo::Authority, matcher)))
}

fn header(name: &str, pattern: &TextPattern) -> Option<HeaderMatcher> {
    Some(HeaderMatcher::string(HeaderOrPseudo::parse(name).ok()?, text(pattern, "")?))
}

fn path(pattern: &PathPattern) -> Option<StringMatcher> {
    match pattern {
        PathPattern::Text(pattern) => text(pattern, ""),
        PathPattern::Template(template) => {
            let expression = template
                .split('/')
                .map(|segment| match segment {
                    "{*}" => "[^/]+".to_owned(),
                    "{**}" => ".*".to_owned(),
                    literal => regex::escape(literal),
                })
                .collect::<Vec<_>>()
                .join("/");
            Some(string(StringPattern::Regex(FullRegex::new(&expression).ok()?)))
        }
    }
}

/// The matcher of a text behind a fixed prefix.
fn text(pattern: &TextPattern, prefix: &str) -> Option<StringMatcher> {
    let regex = |expression: String| Some(StringPattern::Regex(FullRegex::new(&expression).ok()?));
    Some(string(match pattern {
        TextPattern::Exact(value) => StringPattern::Exact(format!("{prefix}{value}").into()),
        TextPattern::Prefix(value) => StringPattern::Prefix(format!("{prefix}{value}").into()),
        TextPattern::Suffix(value) if prefix.is_empty() => StringPattern::Suffix(value.as_str().into()),
        TextPattern::Suffix(value) => regex(format!("{}.*{}", regex::escape(prefix), regex::escape(value)))?,
        TextPattern::Present => regex(".+".to_owned())?,
    }))
}

fn string(pattern: StringPattern) -> StringMatcher {
    StringMatcher { pattern, ignore_case: false }
}

fn constant(answer: bool) -> Permission {
    if answer { Permission::Any } else { Permission::Not(Box::new(Permission::Any)) }
}

fn admits(pattern: &TextPattern, value: &str) -> bool {
    match pattern {
        TextPattern::Exact(wanted) => wanted == value,
        TextPattern::Prefix(prefix) => value.starts_with(prefix.as_str()),
        TextPattern::Suffix(suffix) => value.ends_with(suffix.as_str()),
        TextPattern::Present => !value.is_empty(),
    }
}

#[cfg(test)]
mod tests;
