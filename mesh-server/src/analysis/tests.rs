//! What the analysis finds, and how it reads.

use std::sync::Arc;

use super::*;
use crate::model::fixture::model;
use crate::model::{Health, Labels, Locality, RegisteredWorkload};

const SERVICES: &str = "apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: many}
spec: {ports: [{name: a, port: 1}, {name: b, port: 2}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
";

/// Where [`SERVICES`] ends: the line of an object that follows.
const LINES: u32 = 15;

/// `code severity line:column message` of each finding, lines counted from the end of [`SERVICES`].
fn found(yaml: &str) -> Vec<String> {
    found_in(&model(&format!("{SERVICES}{yaml}")))
}

fn found_in(model: &Model) -> Vec<String> {
    analyze(model)
        .iter()
        .map(|finding| {
            let at = finding.place.as_ref().map(|place| place.position).unwrap_or_default();
            format!(
                "{} {} {}:{} {}",
                finding.code,
                finding.severity,
                at.line - LINES,
                at.column,
                finding.message
            )
        })
        .collect()
}

fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

fn to(destination: &str) -> String {
    virtual_service(
        "a",
        &format!("{{hosts: [reviews], http: [{{route: [{{destination: {{{destination}}}}}]}}]}}"),
    )
}

#[test]
fn a_sound_configuration_has_no_findings() {
    assert_eq!(found(&to("host: reviews, subset: v1")), [""; 0]);
}

#[test]
fn destinations_that_lead_nowhere_are_found_where_they_are_written() {
    assert_eq!(
        found(&to("host: review")),
        ["IST0101 error 4:63 no service `review.default.svc.cluster.local` is known"]
    );
    assert_eq!(
        found(&to("host: reviews, subset: v3")),
        ["IST0101 error 4:80 `reviews.default.svc.cluster.local` has no subset `v3`"]
    );
    assert_eq!(
        found(&to("host: many, subset: v1, port: {number: 1}")),
        ["IST0101 error 4:77 `many.default.svc.cluster.local` has no subset `v1`"]
    );
    assert_eq!(
        found(&to("host: reviews, port: {number: 80}")),
        ["IST0101 error 4:78 `reviews.default.svc.cluster.local` has no port 80"]
    );
    assert_eq!(
        found(&to("host: many")),
        [
            "IST0112 warning 4:63 `many.default.svc.cluster.local` has several ports: without `port` a call goes to the port that the client addressed"
        ]
    );
}

#[test]
fn a_misspelt_subset_is_guessed() {
    let model = model(&format!("{SERVICES}{}", to("host: reviews, subset: v")));
    assert_eq!(analyze(&model)[0].help.as_deref(), Some("did you mean `v1`?"));
}

#[test]
fn a_mirror_is_checked_like_a_destination() {
    let spec =
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}], mirror: {host: nowhere}}]}";
    assert_eq!(
        found(&virtual_service("a", spec)),
        ["IST0101 error 4:90 no service `nowhere.default.svc.cluster.local` is known"]
    );
}

#[test]
fn two_owners_of_a_host_are_named_with_the_one_that_wins() {
    let spec = "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}";
    let yaml = format!("{}{}", virtual_service("b", spec), virtual_service("a", spec));
    assert_eq!(
        found(&yaml),
        ["IST0109 error 4:16 two owners of host `reviews.default.svc.cluster.local`: \
          VirtualService default/a (mesh.yaml:24:16) wins, VirtualService default/b (mesh.yaml:19:16) has no effect for it"]
    );
    let private = spec.replace("{hosts", "{exportTo: [.], hosts");
    let yaml = format!("{}{}", virtual_service("b", &private), virtual_service("a", spec));
    assert!(found(&yaml)[0].contains("default/b (mesh.yaml:19:31) wins"), "{:?}", found(&yaml));
    let elsewhere = spec.replace("{hosts", "{exportTo: [other], hosts");
    let here = spec.replace("{hosts", "{exportTo: [.], hosts");
    assert_eq!(
        found(&format!("{}{}", virtual_service("b", &elsewhere), virtual_service("a", &here))),
        [""; 0]
    );
}

fn routes(routes: &str) -> Vec<String> {
    let indented: String = routes.lines().map(|line| format!("  {line}\n")).collect();
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [reviews]\n  http:\n{indented}"
    );
    found(&yaml)
}

#[test]
fn routes_behind_one_that_takes_everything_are_unreachable() {
    let all = "- route: [{destination: {host: reviews}}]\n";
    assert_eq!(
        routes(&format!("{all}{all}")),
        ["IST0130 warning 8:5 no request reaches this route: an earlier one takes everything"]
    );
    let jason =
        "- match: [{headers: {end-user: {exact: jason}}}]\n  route: [{destination: {host: reviews}}]\n";
    assert_eq!(routes(&format!("{jason}{all}")), [""; 0]);
    assert_eq!(
        routes(&format!("{jason}{jason}")),
        [
            "IST0130 warning 9:5 no request reaches this route: earlier routes have the same matches",
            "IST0131 info 9:13 an earlier match already takes these requests",
        ]
    );
    let own =
        "- match: [{uri: {prefix: /}, sourceLabels: {app: x}}]\n  route: [{destination: {host: reviews}}]\n";
    assert_eq!(routes(&format!("{own}{all}")), [""; 0], "everything of one client is not everything");
}

#[test]
fn a_longer_prefix_behind_a_shorter_one_is_ineffective() {
    let prefix = |path: &str, more: &str| {
        format!(
            "- match: [{{uri: {{prefix: {path}}}{more}}}]\n  route: [{{destination: {{host: reviews}}}}]\n"
        )
    };
    assert_eq!(
        routes(&format!("{}{}", prefix("/a.B/", ""), prefix("/a.B/C", ""))),
        ["IST0131 info 9:13 an earlier match already takes these requests"]
    );
    assert_eq!(routes(&format!("{}{}", prefix("/a.B/C", ""), prefix("/a.B/", ""))), [""; 0]);
    assert_eq!(routes(&format!("{}{}", prefix("/a.B/", ", port: 1"), prefix("/a.B/C", ""))), [""; 0]);
}

#[test]
fn a_rule_for_an_unknown_host_is_found() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: nowhere}\n";
    assert_eq!(
        found(yaml),
        [
            "IST0174 warning 4:14 no service `nowhere.default.svc.cluster.local` is known: the rule has no effect"
        ]
    );
}

fn workload(version: &str) -> RegisteredWorkload {
    RegisteredWorkload {
        name: version.to_owned(),
        namespace: "default".to_owned(),
        service_account: "reviews".to_owned(),
        address: [127, 0, 0, 1].into(),
        ports: [(String::new(), 1)].into(),
        labels: Labels::from(
            [("app", "reviews"), ("version", version)].map(|(k, v)| (k.to_owned(), v.to_owned())),
        ),
        locality: Locality::default(),
        weight: 1,
        health: Health::Healthy,
        group: None,
    }
}

#[test]
fn a_subset_of_known_workloads_that_selects_none_is_found() {
    let model = model(SERVICES);
    assert!(analyze(&model).is_empty(), "nothing is known: nothing can be said");
    let with = Model { workloads: Arc::new(model.workloads.with(workload("v1"))), ..model };
    let lines: Vec<_> = analyze(&with).iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["mesh.yaml:14:75: warning[IST0173]: subset `v2` selects none of the 1 known workloads of \
          `reviews.default.svc.cluster.local` (calls to it fail until a workload with its labels appears)"]
    );
}

fn policy(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

#[test]
fn policies_that_select_nothing_or_have_no_effect_are_found() {
    let selecting = |labels: &str| {
        found(&policy(
            "AuthorizationPolicy",
            "default",
            "a",
            &format!("{{selector: {{matchLabels: {labels}}}}}"),
        ))
    };
    assert_eq!(
        selecting("{app: reviews, version: v9}"),
        [""; 0],
        "a service's selector is not all of a workload's labels"
    );
    assert_eq!(
        selecting("{app: rewiews}"),
        ["IST0127 warning 3:18 no known workload has the labels app=rewiews"]
    );
    assert_eq!(
        found(&policy(
            "PeerAuthentication",
            "istio-system",
            "a",
            "{selector: {matchLabels: {app: reviews}}}"
        )),
        ["IST0167 warning 3:18 a PeerAuthentication of the root namespace with a selector is ignored"]
    );
    let twice = format!(
        "{}{}",
        policy("PeerAuthentication", "default", "a", "{mtls: {mode: STRICT}}"),
        policy("PeerAuthentication", "default", "b", "{mtls: {mode: DISABLE}}")
    );
    assert_eq!(
        found(&twice),
        [
            "IST0167 warning 8:18 PeerAuthentication default/a already says it for the whole namespace: this object is ignored"
        ]
    );
}

#[test]
fn a_host_defined_twice_in_a_namespace_is_found() {
    let entry = |name: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {{hosts: [api.test], ports: [{{number: 1, name: a}}], resolution: DNS}}\n---\n"
        )
    };
    assert_eq!(
        found(&format!("{}{}", entry("a"), entry("b"))),
        [
            "MESH0003 warning 8:18 ServiceEntry default/a already defines host `api.test`: this definition is not used"
        ]
    );
}

#[test]
fn a_finding_is_rendered_with_its_line_underlined() {
    let model = model(&format!("{SERVICES}{}", to("host: reviews, subset: v3")));
    let text = render(&analyze(&model)[0], false);
    let expected = "\
error[IST0101]: `reviews.default.svc.cluster.local` has no subset `v3`
  --> mesh.yaml:19:80
   |
19 | spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v3}}]}]}
   |                                                                                ^^";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("the rule that applies"), "{text}");
    assert!(text.contains("help: did you mean `v1`?"), "{text}");
    assert!(text.lines().count() < 20, "one screen");
    assert!(render(&analyze(&model)[0], true).contains("\u{1b}["), "colour when it is asked for");
}

#[test]
fn a_finding_is_json_with_its_place() {
    let model = model(&format!("{SERVICES}{}", to("host: review")));
    let json = serde_json::to_value(&analyze(&model)[0]).expect("json");
    assert_eq!(json["code"], "IST0101");
    assert_eq!(json["name"], "ReferencedResourceNotFound");
    assert_eq!(json["severity"], "error");
    assert_eq!(json["place"], serde_json::json!({"file": "mesh.yaml", "line": 19, "column": 63}));
    assert_eq!(json["object"], "VirtualService default/a");
}

#[test]
fn delegates_that_lead_nowhere_are_found_where_they_are_named() {
    let root = |delegate: &str| {
        virtual_service(
            "a",
            &format!(
                "{{hosts: [reviews], http: [{{match: [{{uri: {{prefix: /a}}}}], delegate: {delegate}}}]}}"
            ),
        )
    };
    let to = "route: [{destination: {host: reviews}}]";
    assert_eq!(
        found(&root("{name: b}")),
        ["IST0101 error 4:74 there is no VirtualService default/b to delegate to"]
    );
    let hosts = virtual_service("b", &format!("{{hosts: [many], http: [{{{to}}}]}}"))
        .replace("host: reviews", "host: many, port: {number: 1}");
    assert_eq!(
        found(&format!("{}{hosts}", root("{name: b}"))),
        ["IST0101 error 4:74 VirtualService default/b has `hosts`: nothing can be delegated to it"]
    );
    let private = virtual_service("b", &format!("{{exportTo: [other], http: [{{{to}}}]}}"));
    assert_eq!(
        found(&format!("{}{private}", root("{name: b}"))),
        ["IST0101 error 4:74 VirtualService default/b is not exported to namespace default"]
    );
    let outside = virtual_service("b", &format!("{{http: [{{match: [{{uri: {{exact: /b}}}}], {to}}}]}}"));
    assert_eq!(
        found(&format!("{}{outside}", root("{name: b}"))),
        [
            "IST0130 warning 9:15 no request of VirtualService default/a reaches this route: its matches are not \
             within those that are delegated"
        ]
    );
    let inside = virtual_service("b", &format!("{{http: [{{match: [{{uri: {{exact: /a/b}}}}], {to}}}]}}"));
    assert_eq!(found(&format!("{}{inside}", root("{name: b}"))), [""; 0]);
}
