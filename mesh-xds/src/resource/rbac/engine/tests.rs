//! Who gets in.

use super::*;
use crate::resource::rbac::Rbac;
use http::{HeaderMap, HeaderValue};
use std::collections::BTreeMap;

const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

/// A request of `reviews` for `/pkg.Ratings/Get`, changed by `change`.
fn decide(
    rules: &Rules,
    map: &HeaderMap,
    change: impl for<'a> Fn(RbacRequest<'a>) -> RbacRequest<'a>,
) -> bool {
    let sans = [Arc::from(REVIEWS)];
    let request = RbacRequest {
        headers: Headers { map, authority: "ratings:9080", path: "/pkg.Ratings/Get", scheme: "http" },
        authenticated: true,
        uri_sans: &sans,
        dns_sans: &[],
        subject: "",
        peer: "10.0.0.7:5000".parse().unwrap(),
        local: "10.0.0.8:9080".parse().unwrap(),
    };
    rules.decide(&change(request)).allowed
}

fn allows(rules: &Rules) -> bool {
    decide(rules, &HeaderMap::new(), |request| request)
}

fn rules(action: RbacAction, permission: Permission, principal: Principal) -> Rules {
    let policy = Policy { permissions: vec![permission], principals: vec![principal] };
    Rules { action, policies: BTreeMap::from([("p".into(), policy)]), audit: None }
}

fn named(name: &str) -> Principal {
    Principal::Authenticated(Some(StringMatcher::exact(name, false)))
}

#[test]
fn allow_without_policies_denies_everything_and_deny_without_policies_nothing() {
    assert!(!allows(&Rules { action: RbacAction::Allow, policies: BTreeMap::new(), audit: None }));
    assert!(allows(&Rules { action: RbacAction::Deny, policies: BTreeMap::new(), audit: None }));
    assert_eq!(Rbac { rules: None }.rules, None);
}

#[test]
fn a_matching_policy_is_named_in_the_decision() {
    let rules = rules(RbacAction::Allow, Permission::Any, named(REVIEWS));
    let sans = [Arc::from(REVIEWS)];
    let map = HeaderMap::new();
    let request = RbacRequest {
        headers: Headers { map: &map, authority: "a", path: "/a/b", scheme: "http" },
        authenticated: true,
        uri_sans: &sans,
        dns_sans: &[],
        subject: "",
        peer: "127.0.0.1:1".parse().unwrap(),
        local: "127.0.0.1:2".parse().unwrap(),
    };
    assert_eq!(rules.decide(&request), Decision { allowed: true, policy: Some("p".into()) });
    let stranger = RbacRequest { uri_sans: &[], dns_sans: &[], ..request };
    assert_eq!(rules.decide(&stranger), Decision { allowed: false, policy: None });
}

#[test]
fn a_peer_without_certificate_has_no_identity() {
    let any_peer = rules(RbacAction::Allow, Permission::Any, Principal::Authenticated(None));
    let star = rules(
        RbacAction::Allow,
        Permission::Any,
        Principal::Authenticated(Some(StringMatcher::regex(".+").unwrap())),
    );
    let not_reviews = rules(RbacAction::Allow, Permission::Any, Principal::Not(Box::new(named(REVIEWS))));
    fn plaintext(request: RbacRequest<'_>) -> RbacRequest<'_> {
        RbacRequest { authenticated: false, uri_sans: &[], ..request }
    }
    let map = HeaderMap::new();
    assert!(allows(&any_peer) && !decide(&any_peer, &map, plaintext));
    assert!(allows(&star) && !decide(&star, &map, plaintext));
    // The trap of negative matches: a plaintext peer passes them.
    assert!(!allows(&not_reviews) && decide(&not_reviews, &map, plaintext));
}

#[test]
fn only_the_first_source_of_names_counts() {
    let dns = [Arc::from("reviews.example")];
    let by_dns = rules(RbacAction::Allow, Permission::Any, named("reviews.example"));
    let map = HeaderMap::new();
    let sans = [Arc::from(REVIEWS)];
    let base = RbacRequest {
        headers: Headers { map: &map, authority: "a", path: "/a/b", scheme: "http" },
        authenticated: true,
        uri_sans: &sans,
        dns_sans: &dns,
        subject: "CN=x",
        peer: "127.0.0.1:1".parse().unwrap(),
        local: "127.0.0.1:2".parse().unwrap(),
    };
    assert!(!by_dns.decide(&base).allowed, "the URI SANs hide the DNS SANs");
    assert!(by_dns.decide(&RbacRequest { uri_sans: &[], ..base }).allowed);
    let by_subject = rules(RbacAction::Allow, Permission::Any, named("CN=x"));
    assert!(by_subject.decide(&RbacRequest { uri_sans: &[], dns_sans: &[], ..base }).allowed);
}

#[test]
fn every_kind_of_permission_decides() {
    let header = |name: &str, value: &str| {
        Permission::Header(HeaderMatcher::string(
            HeaderOrPseudo::parse(name).unwrap(),
            StringMatcher::exact(value, false),
        ))
    };
    let facts = [
        (Permission::UrlPath(StringMatcher::exact("/pkg.Ratings/Get", false)), true),
        (Permission::UrlPath(StringMatcher::prefix("/pkg.Ratings/", false).unwrap()), true),
        (Permission::UrlPath(StringMatcher::exact("/pkg.ratings/get", false)), false),
        (Permission::DestinationPort(9080..=9080), true),
        (Permission::DestinationPort(1..=9079), false),
        (Permission::DestinationIp("10.0.0.0/8".parse().unwrap()), true),
        (Permission::DestinationIp("11.0.0.0/8".parse().unwrap()), false),
        (header(":method", "POST"), true),
        (header("Host", "ratings:9080"), true),
        (header(":path", "/pkg.Ratings/Get"), true),
        (header("X-Tier", "gold,silver"), true),
        (header("te", "trailers"), false),
        (header("x-bin", "AA"), false),
        (Permission::Metadata { invert: false }, false),
        (Permission::Metadata { invert: true }, true),
        (Permission::RequestedServerName(StringMatcher::exact("", false)), true),
        (Permission::And(vec![Permission::Any, Permission::Metadata { invert: false }]), false),
        (Permission::Or(vec![Permission::Metadata { invert: false }, Permission::Any]), true),
        (Permission::Not(Box::new(Permission::Any)), false),
    ];
    let mut map = HeaderMap::new();
    map.append("x-tier", HeaderValue::from_static("gold"));
    map.append("x-tier", HeaderValue::from_static("silver"));
    map.append("te", HeaderValue::from_static("trailers"));
    map.append("x-bin", HeaderValue::from_static("AA"));
    for (permission, expected) in facts {
        let allow = rules(RbacAction::Allow, permission.clone(), Principal::Any);
        let deny = rules(RbacAction::Deny, permission, Principal::Any);
        assert_eq!(decide(&allow, &map, |r| r), expected, "{allow:?}");
        assert_eq!(decide(&deny, &map, |r| r), !expected, "deny is the opposite of allow");
    }
}

#[test]
fn a_mapped_address_is_its_ipv4_address() {
    let local_net =
        rules(RbacAction::Allow, Permission::Any, Principal::RemoteIp("10.0.0.0/8".parse().unwrap()));
    fn mapped(request: RbacRequest<'_>) -> RbacRequest<'_> {
        RbacRequest { peer: "[::ffff:10.1.2.3]:9".parse().unwrap(), ..request }
    }
    assert!(decide(&local_net, &HeaderMap::new(), mapped));
}

/// Bytes that an expression cannot see have been used to pass one (attack A6).
#[test]
fn bytes_that_are_no_text_open_no_door() {
    let header = |expression: &str| {
        Permission::Header(HeaderMatcher::string(
            HeaderOrPseudo::parse("X-Role").unwrap(),
            StringMatcher::regex(expression).unwrap(),
        ))
    };
    let mut map = HeaderMap::new();
    map.append("x-role", HeaderValue::from_bytes(b"admin\xff").unwrap());
    for expression in ["admin.*", "[a-z]+", ".*"] {
        for permission in [
            header(expression),
            Permission::Not(Box::new(header(expression))),
            Permission::And(vec![Permission::Any, Permission::Not(Box::new(header(expression)))]),
        ] {
            let allow = rules(RbacAction::Allow, permission.clone(), Principal::Any);
            let deny = rules(RbacAction::Deny, permission, Principal::Any);
            assert!(!decide(&allow, &map, |r| r), "{allow:?}");
            assert!(!decide(&deny, &map, |r| r), "{deny:?}");
        }
    }
}

#[test]
fn what_a_matcher_matches_a_deny_of_it_never_lets_pass() {
    let hosts = ["ratings:9080", "RATINGS:9080", "ratings"];
    let kinds = |fold| {
        [
            StringMatcher::exact("Ratings:9080", fold),
            StringMatcher::prefix("Ratings", fold).unwrap(),
            StringMatcher::suffix(":9080", fold).unwrap(),
            StringMatcher::contains("Rating", fold).unwrap(),
        ]
    };
    for matcher in kinds(true).into_iter().chain(kinds(false)) {
        let name = HeaderOrPseudo::parse("Host").unwrap();
        let permission = Permission::Header(HeaderMatcher::string(name, matcher.clone()));
        let deny = rules(RbacAction::Deny, permission, Principal::Any);
        for host in hosts {
            let map = HeaderMap::new();
            let sans = [Arc::from(REVIEWS)];
            let request = RbacRequest {
                headers: Headers { map: &map, authority: host, path: "/pkg.Ratings/Get", scheme: "http" },
                authenticated: true,
                uri_sans: &sans,
                dns_sans: &[],
                subject: "",
                peer: "10.0.0.7:5000".parse().unwrap(),
                local: "10.0.0.8:9080".parse().unwrap(),
            };
            assert_eq!(deny.decide(&request).allowed, !matcher.matches(host), "{matcher:?} {host}");
        }
    }
}

#[test]
fn the_content_type_is_the_one_that_was_sent() {
    let permission = Permission::Header(HeaderMatcher::string(
        HeaderOrPseudo::parse("content-type").unwrap(),
        StringMatcher::exact("application/grpc+proto", false),
    ));
    let allow = rules(RbacAction::Allow, permission, Principal::Any);
    let mut map = HeaderMap::new();
    assert!(!decide(&allow, &map, |r| r));
    map.append("content-type", HeaderValue::from_static("application/grpc+proto"));
    assert!(decide(&allow, &map, |r| r));
}
