//! HTTP filters and their overrides.

use super::{extension, fraction, header, headers, name, network, positive, string, text};
use crate::{
    matcher::{HeaderMatcher, HeaderOrPseudo},
    resource::{fault::*, filter::*, rbac::*},
};
use proptest::{collection::vec, option, prelude::*};
use std::{collections::BTreeSet, sync::Arc};

/// Not of the scheme, which RBAC does not match (gRFC A41).
fn rbac_header() -> impl Strategy<Value = HeaderMatcher> {
    header().prop_map(|mut matcher| {
        if matcher.name == HeaderOrPseudo::Scheme {
            matcher.name = HeaderOrPseudo::Method;
        }
        matcher
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    let delay = prop_oneof![positive().prop_map(DelayKind::Fixed), Just(DelayKind::Header)];
    let abort = prop_oneof![
        (200..=599_u16).prop_map(AbortKind::Http),
        (0..20_u32).prop_map(AbortKind::Grpc),
        Just(AbortKind::Header),
    ];
    let delay = (delay, fraction()).prop_map(|(kind, fraction)| FaultDelay { kind, fraction });
    let abort = (abort, fraction()).prop_map(|(kind, fraction)| FaultAbort { kind, fraction });
    (option::of(delay), option::of(abort), headers(), any::<Option<u32>>())
        .prop_map(|(delay, abort, headers, max_active)| Fault { delay, abort, headers, max_active })
}

fn permission() -> impl Strategy<Value = Permission> {
    let leaf = prop_oneof![
        Just(Permission::Any),
        rbac_header().prop_map(Permission::Header),
        string().prop_map(Permission::UrlPath),
        network().prop_map(Permission::DestinationIp),
        any::<(u16, u16)>().prop_map(|(a, b)| Permission::DestinationPort(a.min(b)..=a.max(b))),
        string().prop_map(Permission::RequestedServerName),
        any::<bool>().prop_map(|invert| Permission::Metadata { invert }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Permission::Not(Box::new(inner))),
            vec(inner.clone(), 1..3).prop_map(Permission::And),
            vec(inner, 1..3).prop_map(Permission::Or),
        ]
    })
}

fn principal() -> impl Strategy<Value = Principal> {
    let leaf = prop_oneof![
        Just(Principal::Any),
        option::of(string()).prop_map(Principal::Authenticated),
        network().prop_map(Principal::RemoteIp),
        rbac_header().prop_map(Principal::Header),
        string().prop_map(Principal::UrlPath),
        any::<bool>().prop_map(|invert| Principal::Metadata { invert }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Principal::Not(Box::new(inner))),
            vec(inner.clone(), 1..3).prop_map(Principal::And),
            vec(inner, 1..3).prop_map(Principal::Or),
        ]
    })
}

fn rbac() -> BoxedStrategy<Rbac> {
    let policy = (vec(permission(), 1..3), vec(principal(), 1..3))
        .prop_map(|(permissions, principals)| Policy { permissions, principals });
    let action = prop_oneof![Just(RbacAction::Allow), Just(RbacAction::Deny)];
    let policies = vec((text(), policy), 0..4).prop_map(|policies| policies.into_iter().collect());
    let audit = any::<(bool, bool)>().prop_map(|(denied, allowed)| {
        let audit = Audit { denied, allowed, loggers: vec![AuditLogger::Stdout] };
        (denied || allowed).then_some(audit)
    });
    let rules =
        (action, policies, audit).prop_map(|(action, policies, audit)| Rules { action, policies, audit });
    option::of(rules).prop_map(|rules| Rbac { rules }).boxed()
}

pub(super) fn overrides() -> BoxedStrategy<FilterOverrides> {
    let one = prop_oneof![
        Just(FilterOverride::Disabled),
        fault().prop_map(|fault| FilterOverride::Config(FilterConfig::Fault(Arc::new(fault)))),
        rbac().prop_map(|rbac| FilterOverride::Config(FilterConfig::Rbac(Arc::new(rbac)))),
        extension::overrides(),
    ];
    vec((name(), one), 0..3).prop_map(|overrides| overrides.into_iter().collect()).boxed()
}

/// A filter of one side that holds no other.
pub(super) fn leaf(server: bool) -> BoxedStrategy<FilterConfig> {
    if server {
        prop_oneof![
            rbac().prop_map(|rbac| FilterConfig::Rbac(Arc::new(rbac))),
            extension::of_server(),
            extension::of_both(),
        ]
        .boxed()
    } else {
        prop_oneof![
            fault().prop_map(|fault| FilterConfig::Fault(Arc::new(fault))),
            extension::of_client(),
            extension::of_both(),
        ]
        .boxed()
    }
}

/// Filters of one side, the router last.
pub(super) fn filters(server: bool) -> BoxedStrategy<Vec<HttpFilter>> {
    let own = leaf(server);
    let config = prop_oneof![2 => own, 1 => extension::composite(server)];
    vec((name(), config, any::<bool>()), 0..3)
        .prop_map(|filters| {
            let mut seen = BTreeSet::new();
            let filters = filters.into_iter().filter(|(name, ..)| seen.insert(name.clone()));
            let one = |(name, config, disabled)| HttpFilter { name, config, disabled };
            let router = HttpFilter { name: "ROUTER".into(), config: FilterConfig::Router, disabled: false };
            filters.map(one).chain([router]).collect()
        })
        .boxed()
}
