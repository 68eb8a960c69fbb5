//! AuthorizationPolicy: what is read, and that nothing undecidable gets through.

use super::*;
use crate::model::Object;
use crate::model::fixture::{assert_refused, lines, object, parsed};

fn read(spec: &str) -> std::sync::Arc<AuthorizationPolicy> {
    let parsed = parsed(&object("AuthorizationPolicy", spec));
    match parsed.objects.as_slice() {
        [Object::AuthorizationPolicy(object)] => object.clone(),
        _ => panic!("refused: {:#?}", lines(&parsed)),
    }
}

fn exact(text: &str) -> TextPattern {
    TextPattern::Exact(text.to_owned())
}

#[test]
fn every_field_of_a_rule_is_read() {
    let policy = read(
        "
selector: {matchLabels: {app: ratings}}
action: DENY
rules:
- from:
  - source:
      principals: [cluster.local/ns/shop/sa/reviews]
      notNamespaces: ['dev-*']
      ipBlocks: [10.0.0.0/8, 192.0.2.1]
  - source: {serviceAccounts: [reviews, other/x], trustDomains: ['*.example']}
  to:
  - operation: {hosts: ['*.Shop'], ports: ['9080', 81], methods: [POST], paths: ['/a/*', '/b/{*}/c/{**}'], notPaths: ['*']}
  when:
  - {key: 'request.headers[X-Team]', values: [a], notValues: [b]}
  - {key: source.ip, notValues: [10.1.0.0/16]}
  - {key: destination.port, values: ['80']}
",
    );
    assert_eq!((policy.action, policy.selector["app"].as_str()), (Action::Deny, "ratings"));
    let rule = &policy.rules[0];
    let source = &rule.sources[0];
    assert_eq!(source.principals.any, [exact("cluster.local/ns/shop/sa/reviews")]);
    assert_eq!(source.namespaces.none, [TextPattern::Prefix("dev-".to_owned())]);
    assert_eq!(source.ip_blocks.any.len(), 2);
    let accounts: Vec<_> = rule.sources[1]
        .service_accounts
        .any
        .iter()
        .map(|a| (a.namespace.as_str(), a.name.as_str()))
        .collect();
    assert_eq!(accounts, [("shop", "reviews"), ("other", "x")], "a bare name is in the policy's namespace");
    assert_eq!(rule.sources[1].trust_domains.any, [TextPattern::Suffix(".example".to_owned())]);
    let operation = &rule.operations[0];
    assert_eq!(operation.ports.any, [9080, 81]);
    assert_eq!(operation.paths.any[0], PathPattern::Text(TextPattern::Prefix("/a/".to_owned())));
    assert_eq!(operation.paths.any[1], PathPattern::Template("/b/{*}/c/{**}".to_owned()));
    assert_eq!(operation.paths.none, [PathPattern::Text(TextPattern::Present)]);
    let terms = Terms { any: vec![exact("a")], none: vec![exact("b")] };
    assert_eq!(rule.conditions[0], Condition::Header("x-team".to_owned(), terms));
    assert_eq!(rule.conditions[2], Condition::DestinationPort(Terms { any: vec![80], none: Vec::new() }));
}

#[test]
fn no_rules_deny_all_and_an_empty_rule_allows_all() {
    let parsed_empty =
        parsed("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\n");
    let Object::AuthorizationPolicy(policy) = &parsed_empty.objects[0] else { panic!("no policy") };
    assert_eq!((policy.action, policy.rules.len()), (Action::Allow, 0));
    assert_eq!(read("rules: [{}]").rules.len(), 1);
}

#[test]
fn invalid_policies_are_refused_where_they_are_wrong() {
    assert_refused(
        "AuthorizationPolicy",
        &[
            ("action: DENY", "5:3 a DENY policy without `rules` denies nothing"),
            ("action: deny\nrules: [{}]", "5:11 `deny` is no action"),
            ("provider: {name: a}\nrules: [{}]", "5:3 `provider` is only for `action: CUSTOM`"),
            ("rules: [{form: []}]", "5:12 unknown field `form` in a rule"),
            ("rules: [{from: []}]", "5:12 `from` must not be empty"),
            ("rules:\n- from:\n  to: [{operation: {methods: [POST]}}]", "6:5 `from` has no value"),
            ("rules: [{from: [{source: {}}]}]", "5:28 an empty source"),
            ("rules: [{from: [{source: {principals: []}}]}]", "5:29 `principals` must not be empty"),
            ("rules: [{from: [{source: {principals: ['']}}]}]", "5:42 must not be empty"),
            (
                "rules: [{from: [{source: {ipBlocks: [1.2.3]}}]}]",
                "5:40 \"1.2.3\" is neither an IP address nor",
            ),
            (
                "rules: [{from: [{source: {serviceAccounts: ['a*']}}]}]",
                "5:47 \"a*\" is not a service account",
            ),
            (
                "rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]",
                "5:51 `namespaces` excludes `serviceAccounts`",
            ),
            ("rules: [{from: [{source: {trustDomains: ['a*b']}}]}]", "5:44 \"a*b\" is not a trust domain"),
            ("rules: [{to: [{operation: {}}]}]", "5:29 an empty operation"),
            ("rules: [{to: [{operation: {ports: [http]}}]}]", "5:38 \"http\" is not a port"),
            ("rules: [{to: [{operation: {paths: ['/{**}/a']}}]}]", "5:38 \"/{**}/a\": a template has"),
            ("rules: [{when: [{values: [a]}]}]", "5:19 a condition needs `key`"),
            ("rules: [{when: [{key: source.ip}]}]", "5:19 a condition needs `values` or `notValues`"),
            (
                "rules: [{when: [{key: source.nmespace, values: [a]}]}]",
                "5:25 unknown condition key `source.nmespace`",
            ),
            ("selector: {matchLabels: {'*': a}}", "5:28 \"*\" is not a label key"),
            (
                "selector: {matchLabels: {a: b}}\ntargetRefs: [{kind: Gateway, name: a}]",
                "6:3 `targetRefs` excludes `selector`",
            ),
        ],
    );
}

#[test]
fn what_cannot_be_decided_refuses_the_policy() {
    for (spec, expected) in [
        (
            "action: CUSTOM\nprovider: {name: a}\nrules: [{}]",
            "5:3 not supported by this version: `action: CUSTOM`",
        ),
        ("action: AUDIT\nrules: [{}]", "5:3 not supported by this version: `action: AUDIT`"),
        (
            "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]",
            "5:29 not supported by this version: `requestPrincipals`",
        ),
        (
            "rules: [{when: [{key: 'request.auth.claims[a]', values: [b]}]}]",
            "5:25 not supported by this version: `request.auth.claims[a]`",
        ),
        (
            "rules: [{when: [{key: experimental.envoy.filters.a, values: [b]}]}]",
            "5:25 not supported by this version: `experimental.envoy.filters.a`",
        ),
    ] {
        let parsed = parsed(&object("AuthorizationPolicy", spec));
        assert!(
            lines(&parsed)[0].starts_with(&format!("MESH0001 error {expected}")),
            "{:#?}",
            lines(&parsed)
        );
        assert_eq!((parsed.objects.len(), parsed.refused.len()), (0, 1), "{spec}");
    }
}

#[test]
fn a_policy_for_gateways_attaches_to_no_workload() {
    let parsed =
        parsed(&object("AuthorizationPolicy", "targetRefs: [{kind: Gateway, name: a}]\nrules: [{}]"));
    assert!(parsed.objects.is_empty() && parsed.refused.is_empty());
    assert!(
        lines(&parsed)[0].starts_with("MESH0001 warning 5:3 not supported by this version: a policy with")
    );
}

#[test]
fn a_dry_run_is_marked_and_reported() {
    let with = |value: &str| {
        let text = object("AuthorizationPolicy", "rules: [{}]");
        parsed(
            &text.replace("{name: x,", &format!("{{name: x, annotations: {{istio.io/dry-run: '{value}'}},")),
        )
    };
    let dry = with("true");
    assert!(matches!(&dry.objects[0], Object::AuthorizationPolicy(policy) if policy.dry_run));
    assert!(lines(&dry)[0].starts_with("MESH0001 warning 3:18"));
    assert_eq!(with("maybe").objects.len(), 0);
}
