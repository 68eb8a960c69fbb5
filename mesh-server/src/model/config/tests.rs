//! Indexing: who wins, what is merged.

use crate::model::fixture::config;

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {ports: [{port: 9080}]}
---
";

#[test]
fn a_service_entry_for_a_kubernetes_service_only_adds_identities() {
    let config = config(&format!(
        "{SERVICE}apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: a, namespace: shop}}
spec:
  hosts: [reviews.shop.svc.cluster.local]
  ports: [{{number: 1, name: http, protocol: HTTP}}]
  resolution: DNS
  subjectAltNames: [spiffe://x/y]
"
    ));
    let services = config.services_named("reviews.shop.svc.cluster.local");
    assert_eq!(services.len(), 1);
    assert_eq!(services[0].ports[0].number, 9080);
    assert_eq!(services[0].subject_alt_names, ["spiffe://x/y"]);
}

#[test]
fn a_client_sees_the_service_of_its_own_namespace_first_and_only_what_is_exported() {
    let entry = |namespace: &str, export: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a, namespace: {namespace}}}\n\
             spec: {{hosts: [api.test], ports: [{{number: 80, name: http}}], resolution: DNS, exportTo: ['{export}']}}\n---\n"
        )
    };
    let config = config(&format!("{}{}{}", entry("a", "*"), entry("b", "."), entry("c", "~")));
    let seen =
        |namespace: &str| config.service(namespace, "api.test").map(|service| service.namespace.clone());
    assert_eq!(seen("a").as_deref(), Some("a"));
    assert_eq!(seen("b").as_deref(), Some("b"));
    assert_eq!(seen("c").as_deref(), Some("a"), "exported to nobody, not even its own namespace");
    assert_eq!(seen("d").as_deref(), Some("a"));
    assert!(config.service("a", "other.test").is_none());
}

fn rule(name: &str, namespace: &str, fields: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{host: reviews.shop.svc.cluster.local, {fields}}}\n---\n"
    )
}

#[test]
fn rules_of_one_namespace_host_and_audience_are_merged() {
    let config = config(&format!(
        "{}{}{}{}",
        rule(
            "b",
            "shop",
            "trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {from: b}}, {name: v3}]"
        ),
        rule("a", "shop", "subsets: [{name: v1, labels: {from: a}}]"),
        rule("c", "shop", "exportTo: [.], subsets: [{name: v4}]"),
        rule("d", "other", "subsets: [{name: v5}]"),
    ));
    let merged = config.merged_rules("shop");
    assert_eq!(merged.len(), 2, "another audience is another rule");
    let names: Vec<_> = merged[0].subsets.iter().map(|subset| subset.name.value.as_str()).collect();
    assert_eq!(names, ["v1", "v3"]);
    assert_eq!(merged[0].subsets[0].labels["from"], "a", "the first by name wins");
    assert!(merged[0].policy.is_some(), "the first rule that has a policy gives it");
    assert_eq!(merged[0].subsets[1].origin.id.name, "b", "a subset knows the object it came from");
    assert_eq!(config.destination_rules().len(), 4, "and what was written is still there");
}

#[test]
fn objects_are_found_by_name() {
    let config = config(SERVICE);
    let id = config.objects()[0].origin().id.clone();
    assert!(config.object(&id).is_some());
    assert!(config.object(&crate::model::ObjectId { name: "other".to_owned(), ..id }).is_none());
}
