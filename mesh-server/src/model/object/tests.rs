//! Documents: what is accepted, what is refused and where, what is ignored.

use proptest::prelude::*;

use super::*;
use crate::model::fixture::{assert_findings, lines, object, parsed};

#[test]
fn all_released_versions_of_a_group_are_accepted() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let text = object("DestinationRule", "host: reviews").replace("io/v1", &format!("io/{version}"));
        assert_eq!(parsed(&text).objects.len(), 1, "{version}");
    }
    assert_findings(
        &object("DestinationRule", "host: reviews").replace("io/v1", "io/v2"),
        &["IST0106 error 1:13 unknown version `v2` of networking.istio.io"],
    );
}

#[test]
fn documents_that_name_no_known_object_say_where_and_what_was_meant() {
    let cases: &[(&str, &str, Option<&str>)] = &[
        (
            "just text\n",
            "IST0106 error 1:1 expected an object with apiVersion, kind and metadata, found the text \"just text\"",
            None,
        ),
        ("kind: Service\nmetadata: {name: a}\n", "IST0106 error 1:1 the document has no `apiVersion`", None),
        ("apiVersion: v1\nkind: 7\n", "IST0106 error 2:7 `kind` must be a text, found the number 7", None),
        ("apiVersion: v1\nkind: Service\n", "IST0106 error 1:1 the document has no `metadata`", None),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {namespace: a}\n",
            "IST0106 error 3:11 the document has no `name`",
            None,
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: VirtualServce\nmetadata: {name: a}\n",
            "IST0106 error 2:7 unknown kind `VirtualServce` in networking.istio.io",
            Some("did you mean `VirtualService`?"),
        ),
        (
            "apiVersion: network.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n",
            "IST0106 error 1:13 unknown API group `network.istio.io`",
            Some("did you mean `networking.istio.io`?"),
        ),
    ];
    for (yaml, expected, help) in cases {
        let parsed = parsed(yaml);
        assert_eq!(lines(&parsed), [*expected], "{yaml}");
        assert!(parsed.unidentified, "{yaml}");
        if help.is_some() {
            assert_eq!(parsed.findings[0].help.as_deref(), *help);
        }
    }
}

#[test]
fn kinds_of_others_are_reported_and_never_block() {
    let ignored = |api: &str, kind: &str| {
        let parsed =
            parsed(&format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\nanything: [1]\n"));
        assert!(!parsed.unidentified && parsed.refused.is_empty());
        lines(&parsed)
    };
    assert_eq!(
        ignored("networking.istio.io/v1", "Gateway"),
        ["MESH0002 warning 2:7 kind Gateway is not served by this mesh server yet: ignored"]
    );
    assert_eq!(
        ignored("apps/v1", "Deployment"),
        ["MESH0002 info 2:7 kind Deployment is not the mesh's business: ignored"]
    );
    assert_eq!(
        ignored("example.com/v1", "Thing"),
        ["MESH0002 info 1:13 kind Thing of API group `example.com` is not the mesh's business: ignored"]
    );
}

#[test]
fn every_error_of_an_object_is_found_at_once() {
    let spec = "
hots: [reviews]
http:
- route:
  - destination: {host: reviews, subst: v1, port: 9080}
    weight: -1
  timeout: 10
- match:
  - uri: {exact: /a, prefix: /b}
";
    let parsed = parsed(&object("VirtualService", spec));
    assert_eq!(
        lines(&parsed),
        [
            "IST0106 error 5:3 unknown field `hots` in VirtualService.spec",
            "IST0106 error 8:36 unknown field `subst` in a destination",
            "IST0106 error 8:53 a port selector must be a mapping, found the number 9080",
            "IST0106 error 9:15 -1 is out of range: 0 to 2147483647 are allowed",
            "IST0106 error 10:14 expected a duration like \"10s\", found the number 10",
            "IST0106 error 11:5 an HTTP route needs one of `route`, `redirect` and `directResponse`",
            "IST0106 error 12:24 `prefix` excludes `exact`",
        ]
    );
    assert_eq!(parsed.findings[0].help.as_deref(), Some("did you mean `hosts`?"));
    assert_eq!(parsed.findings[1].help.as_deref(), Some("did you mean `subset`?"));
    assert!(parsed.objects.is_empty());
    assert_eq!(parsed.refused[0].origin.id.to_string(), "VirtualService shop/x");
}

#[test]
fn a_refused_object_does_not_cost_its_neighbours() {
    let good = object("DestinationRule", "host: reviews");
    let bad = object("DestinationRule", "hsot: reviews");
    let parsed = parsed(&format!("{bad}---\n{good}"));
    assert_eq!((parsed.objects.len(), parsed.refused.len(), parsed.unidentified), (1, 1, false));
}

#[test]
fn a_list_is_read_item_by_item() {
    let yaml = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 1}]}}
- {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: 1}]}}
";
    let names: Vec<_> = parsed(yaml).objects.iter().map(|object| object.origin().id.to_string()).collect();
    assert_eq!(names, ["Service default/a", "Service default/b"]);
}

#[test]
fn nesting_without_end_is_an_error_and_not_the_end() {
    let deep =
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {}\n", "[".repeat(100_000));
    assert!(parsed(&deep).unidentified);
    let closed = format!("{}{}\n", "[".repeat(1_500), "]".repeat(1_500));
    assert!(parsed(&closed).unidentified);
    let bomb = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n\
                c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\n\
                e: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e]\n\
                g: [*f, *f, *f, *f, *f, *f, *f, *f]\n";
    assert!(parsed(bomb).unidentified);
}

#[test]
fn metadata_is_checked() {
    let text = object("DestinationRule", "host: reviews")
        .replace("{name: x, namespace: shop}", "{name: a_b, namespace: shop, labls: {}, labels: {a: 1}}");
    assert_findings(
        &text,
        &[
            "IST0106 error 3:40 unknown field `labls` in metadata",
            "IST0106 error 3:18 \"a_b\" is not a valid object name",
            "IST0106 error 3:63 expected a text, found the number 1",
        ],
    );
}

#[test]
fn a_refused_security_policy_leaves_a_denial_of_its_own_scope() {
    let spec = "
selector: {matchLabels: {app: ratings}}
action: CUSTOM
provider: {name: ext}
rules: [{}]
";
    let refused = parsed(&object("AuthorizationPolicy", spec)).refused;
    let Some(Object::AuthorizationPolicy(policy)) = &refused[0].stand_in else { panic!("{refused:?}") };
    assert_eq!(policy.selector, Labels::from([("app".to_owned(), "ratings".to_owned())]));
    assert_eq!((policy.action, policy.rules.len()), (crate::model::Action::Deny, 1));

    let refused = parsed(&object("PeerAuthentication", "mtls: {mode: STRCT}")).refused;
    let Some(Object::PeerAuthentication(policy)) = &refused[0].stand_in else { panic!("{refused:?}") };
    assert_eq!(policy.mode, Some(crate::model::MtlsMode::Strict));

    let refused = parsed(&object("AuthorizationPolicy", "action: AUDIT\nrules: [{}]")).refused;
    assert!(refused[0].stand_in.is_none(), "refusing AUDIT opens nothing");
}

const WHOLE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {delay: {percentage: {value: 50}, fixedDelay: 7s}}
    route:
    - destination: {host: reviews, subset: v2}
      weight: 100
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [x]}}]}]}
";

proptest! {
    #[test]
    fn a_damaged_text_never_panics_and_never_loses_an_object_silently(
        start in 0..WHOLE.len(), length in 0usize..12, noise in "[a-z:{}\\[\\]&*!|>'\"%@ \n-]{0,6}",
    ) {
        let end = (start + length).min(WHOLE.len());
        let text = format!("{}{noise}{}", &WHOLE[..start], &WHOLE[end..]);
        let parsed = parsed(&text);
        let named = parsed.objects.len() + parsed.refused.len();
        let errors = parsed.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        prop_assert!(parsed.refused.is_empty() && !parsed.unidentified || errors > 0, "refused without a word");
        for finding in &parsed.findings {
            let place = finding.place.as_ref().expect("a finding of a file has a place");
            prop_assert!(place.position.line >= 1 && place.position.column >= 1);
            prop_assert!(!crate::analysis::render(finding, false).is_empty());
        }
        prop_assert!(named <= 3);
    }
}
