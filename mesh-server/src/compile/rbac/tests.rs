//! AuthorizationPolicies to RBAC filters: what a request would meet.

use super::*;
use crate::compile::fixture::{MESH, world};
use mesh_xds::matcher::Headers;

fn compiled(policies: &str) -> Vec<HttpFilter> {
    let yaml: Vec<String> = policies
        .split("\n---\n")
        .enumerate()
        .map(|(i, spec)| {
            format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{i}}}\nspec: {spec}\n"
            )
        })
        .collect();
    let world = world(MESH, &yaml.join("---\n"));
    let domains = TrustDomains { own: "cluster.local", aliases: &["old.test".to_owned()] };
    let labels = crate::model::Labels::new();
    let policies: Vec<_> = world.model.config.authorization_policies("default", &labels).collect();
    filters(policies.into_iter().map(Arc::as_ref), &domains)
}

/// A call as the filter sees it.
#[derive(Clone, Copy)]
struct Call<'a> {
    peer: &'a str,
    address: &'a str,
    authority: &'a str,
    path: &'a str,
    port: u16,
    header: Option<(&'a str, &'a str)>,
}

const CALL: Call<'_> = Call {
    peer: "spiffe://cluster.local/ns/default/sa/reviews",
    address: "10.0.0.1",
    authority: "ratings.default:9080",
    path: "/bookinfo.v1.Ratings/GetRatings",
    port: 9080,
    header: None,
};

/// gRFC A41, by the book.
fn allowed(filters: &[HttpFilter], call: Call<'_>) -> bool {
    filters.iter().all(|filter| {
        let FilterConfig::Rbac(rbac) = &filter.config else { panic!("{filter:?}") };
        let rules = rbac.rules.as_ref().unwrap();
        let matched = rules.policies.values().any(|policy| {
            policy.permissions.iter().any(|one| permits(one, call))
                && policy.principals.iter().any(|one| is(one, call))
        });
        matched == (rules.action == RbacAction::Allow)
    })
}

fn header_matches(matcher: &HeaderMatcher, call: Call<'_>) -> bool {
    let mut map = http::HeaderMap::new();
    if let Some((name, value)) = call.header {
        map.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    matcher.matches(&Headers { map: &map, authority: call.authority, path: call.path, scheme: "http" })
}

fn permits(permission: &Permission, call: Call<'_>) -> bool {
    match permission {
        Permission::Any => true,
        Permission::Header(matcher) => header_matches(matcher, call),
        Permission::UrlPath(matcher) => matcher.matches(call.path),
        Permission::DestinationIp(_) => panic!("not in these tests"),
        Permission::DestinationPort(range) => range.contains(&call.port),
        Permission::RequestedServerName(matcher) => matcher.matches(""),
        Permission::Metadata { invert } => *invert,
        Permission::Not(inner) => !permits(inner, call),
        Permission::And(all) => all.iter().all(|one| permits(one, call)),
        Permission::Or(any) => any.iter().any(|one| permits(one, call)),
    }
}

fn is(principal: &Principal, call: Call<'_>) -> bool {
    match principal {
        Principal::Any => true,
        Principal::Authenticated(None) => !call.peer.is_empty(),
        Principal::Authenticated(Some(matcher)) => matcher.matches(call.peer),
        Principal::RemoteIp(net) => net.contains(&call.address.parse::<std::net::IpAddr>().unwrap()),
        Principal::Header(matcher) => header_matches(matcher, call),
        Principal::UrlPath(matcher) => matcher.matches(call.path),
        Principal::Metadata { invert } => *invert,
        Principal::Not(inner) => !is(inner, call),
        Principal::And(all) => all.iter().all(|one| is(one, call)),
        Principal::Or(any) => any.iter().any(|one| is(one, call)),
    }
}

#[test]
fn no_policy_is_no_filter() {
    let world = world(MESH, "");
    let labels = crate::model::Labels::new();
    let none = world.model.config.authorization_policies("default", &labels);
    let domains = TrustDomains { own: "cluster.local", aliases: &[] };
    assert_eq!(filters(none.map(Arc::as_ref), &domains), []);
}

#[test]
fn an_empty_policy_denies_everything_and_an_empty_rule_allows_everything() {
    assert!(!allowed(&compiled("{}"), CALL));
    assert!(allowed(&compiled("{rules: [{}]}"), CALL));
    assert!(!allowed(&compiled("{action: DENY, rules: [{}]}"), CALL));
}

#[test]
fn deny_wins_over_allow_and_comes_first() {
    let filters =
        compiled("{rules: [{}]}\n---\n{action: DENY, rules: [{to: [{operation: {paths: [\"*/Delete\"]}}]}]}");
    let names: Vec<_> = filters.iter().map(|filter| &*filter.name).collect();
    assert_eq!(names, ["envoy.filters.http.rbac.DENY", "envoy.filters.http.rbac"]);
    assert!(allowed(&filters, CALL));
    assert!(!allowed(&filters, Call { path: "/bookinfo.v1.Ratings/Delete", ..CALL }));
}

#[test]
fn a_dry_run_changes_nothing() {
    let yaml = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: p\n  \
                annotations: {istio.io/dry-run: \"true\"}\nspec: {}\n";
    let world = world(MESH, yaml);
    let labels = crate::model::Labels::new();
    let policies = world.model.config.authorization_policies("default", &labels);
    let domains = TrustDomains { own: "cluster.local", aliases: &[] };
    assert_eq!(filters(policies.map(Arc::as_ref), &domains), []);
}

#[test]
fn sources_are_who_they_prove_to_be() {
    let other = |peer| Call { peer, ..CALL };
    let cases: [(&str, Call<'_>, bool); 19] = [
        ("principals: [\"cluster.local/ns/default/sa/reviews\"]", CALL, true),
        ("principals: [\"cluster.local/ns/default/sa/rev*\"]", CALL, true),
        ("principals: [\"*/sa/reviews\"]", CALL, true),
        ("principals: [\"*\"]", CALL, true),
        ("principals: [\"*\"]", other(""), false),
        ("principals: [\"cluster.local/ns/default/sa/reviews\"]", other(""), false),
        // An alias is another name of the same trust domain, both ways.
        ("principals: [\"cluster.local/ns/default/sa/a\"]", other("spiffe://old.test/ns/default/sa/a"), true),
        ("principals: [\"old.test/ns/default/sa/reviews\"]", CALL, true),
        ("principals: [\"else.test/ns/default/sa/reviews\"]", CALL, false),
        ("notPrincipals: [\"cluster.local/ns/default/sa/reviews\"]", CALL, false),
        // Nobody is not that one.
        ("notPrincipals: [\"cluster.local/ns/default/sa/reviews\"]", other(""), true),
        ("namespaces: [default]", CALL, true),
        ("namespaces: [\"def*\"]", CALL, true),
        ("namespaces: [fault]", CALL, false),
        ("notNamespaces: [default]", other(""), true),
        ("serviceAccounts: [reviews]", CALL, true),
        ("serviceAccounts: [other/reviews]", CALL, false),
        ("ipBlocks: [\"10.0.0.0/8\"], notIpBlocks: [\"10.0.0.1\"]", CALL, false),
        ("remoteIpBlocks: [\"10.0.0.0/8\"]", CALL, true),
    ];
    for (source, call, expected) in cases {
        let filters = compiled(&format!("{{rules: [{{from: [{{source: {{{source}}}}}]}}]}}"));
        assert_eq!(allowed(&filters, call), expected, "{source} for {:?}", call.peer);
    }
}

#[test]
fn operations_are_paths_hosts_and_ports_of_the_workload() {
    let cases = [
        ("paths: [\"/bookinfo.v1.Ratings/GetRatings\"]", true),
        ("paths: [\"/bookinfo.v1.Ratings/*\"]", true),
        ("paths: [\"/bookinfo.v1.ratings/*\"]", false),
        ("paths: [\"/{*}/GetRatings\"]", true),
        ("paths: [\"/{*}\"]", false),
        ("paths: [\"/{**}\"]", true),
        ("notPaths: [\"/bookinfo.v1.Ratings/*\"]", false),
        ("hosts: [\"RATINGS.default*\"]", true),
        ("hosts: [\"*.other\"]", false),
        ("ports: [\"9080\"]", true),
        ("notPorts: [\"9080\"]", false),
        ("methods: [POST]", true),
        ("methods: [GET]", false),
        ("methods: [POST], paths: [\"/x\"]", false),
    ];
    for (operation, expected) in cases {
        let filters = compiled(&format!("{{rules: [{{to: [{{operation: {{{operation}}}}}]}}]}}"));
        assert_eq!(allowed(&filters, CALL), expected, "{operation}");
    }
}

#[test]
fn conditions_must_all_hold_beside_sources_and_operations() {
    let yaml = "{rules: [{from: [{source: {namespaces: [default]}}, {source: {namespaces: [other]}}],
      to: [{operation: {ports: [\"9080\"]}}],
      when: [{key: \"request.headers[x-user]\", values: [\"ja*\"], notValues: [\"jack\"]},
             {key: destination.port, values: [\"9080\", \"9090\"]}]}]}";
    let filters = compiled(yaml);
    let user = |user| Call { header: Some(("x-user", user)), ..CALL };
    assert!(allowed(&filters, user("jason")));
    assert!(!allowed(&filters, user("jack")));
    assert!(!allowed(&filters, user("mary")));
    assert!(!allowed(&filters, CALL));
    assert!(!allowed(&filters, Call { port: 9090, ..user("jason") }));
    let elsewhere = Call { peer: "spiffe://cluster.local/ns/other/sa/x", ..user("jason") };
    assert!(allowed(&filters, elsewhere));
    assert!(!allowed(&filters, Call { peer: "spiffe://cluster.local/ns/third/sa/x", ..elsewhere }));
}
