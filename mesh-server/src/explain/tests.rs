//! Explanations of the Bookinfo example, offline.

use super::*;
use crate::{
    model::{Workloads, parse},
    source::SourceFile,
};
use http::{HeaderMap, HeaderName, HeaderValue};

const BASE: &str = include_str!("../../../examples/src/bin/bookinfo/yaml/base.yaml");

const REVIEWS: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts: [reviews]
  http:
  - name: jason
    match:
    - headers:
        end-user: {exact: jason}
    timeout: 2s
    retries: {attempts: 3, retryOn: unavailable}
    fault:
      abort: {percentage: {value: 10}, grpcStatus: UNAVAILABLE}
    route:
    - {destination: {host: reviews, subset: v2}, weight: 80}
    - destination: {host: reviews, subset: v3}
      weight: 20
      headers: {request: {add: {x-v: three}}}
  - match:
    - sourceLabels: {app: ratings}
    route:
    - {destination: {host: reviews, subset: v3}}
  - route:
    - {destination: {host: reviews, subset: v1}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v2-a}
spec:
  address: 10.0.0.1
  labels: {app: reviews, version: v2}
";

fn model() -> Model {
    let files = [("base.yaml", BASE), ("reviews.yaml", REVIEWS)];
    let objects = files
        .into_iter()
        .flat_map(|(name, text)| parse(&Arc::new(SourceFile::new(name, text)), &Arc::default()).objects);
    let config = Config::new(Arc::default(), objects);
    Model { config: Arc::new(config), workloads: Arc::new(Workloads::default()) }
}

fn ask(model: &Model, from: &str, to: &str, headers: &[(&'static str, &'static str)]) -> Explanation {
    let mesh =
        Mesh { trust_domain: "cluster.local".into(), trust_domain_aliases: Vec::new(), load_reports: false };
    let caller = callers(&model.config).remove(from).unwrap();
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    let map: HeaderMap = headers.iter().map(pair).collect();
    let path = "/bookinfo.v1.Reviews/GetReviews";
    let request = Headers { map: &map, authority: to, path, scheme: "http" };
    explain(model, &mesh, &caller, &request, None, Source { name: "directory mesh", revision: "r1" })
}

#[test]
fn a_decision_reads_as_a_tree_with_the_line_of_every_setting() {
    let text = ask(&model(), "default/productpage", "reviews:9080", &[("end-user", "jason")]).to_string();
    let expected = r#"reviews:9080 /bookinfo.v1.Reviews/GetReviews
configuration r1 of directory mesh
virtual host reviews.default.svc.cluster.local:9080, by its domain reviews:9080

routes, the first that matches decides
  1. jason (reviews.yaml:8:5 VirtualService default/reviews)
     takes header end-user exact "jason"  (reviews.yaml:10:7)
     MATCHES
  the last one is not looked at

route 1 decides
  timeout                           2s                                         reviews.yaml:12:5
  retries.attempts                  3 after the first                          reviews.yaml:13:15
  retries.retryOn                   unavailable                                reviews.yaml:13:28
  retries.backoff                   25ms, doubling up to 250ms, fully jittered default
  retries.retryIgnorePreviousHosts  prefers endpoints not tried yet, in 5 picks  default
"#;
    let got: Vec<&str> = text.lines().map(str::trim_end).collect();
    // Columns are as wide as they need to be: compared are the words.
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for (index, line) in expected.lines().enumerate() {
        assert_eq!(words(got[index]), words(line), "{text}");
    }
    for line in [
        "fault.abort gRPC status 14 (Unavailable) for 10 % of the calls reviews.yaml:15:7",
        "80 % to outbound|9080|v2|reviews.default.svc.cluster.local (reviews.yaml:17:28)",
        "20 % to outbound|9080|v3|reviews.default.svc.cluster.local (reviews.yaml:18:27)",
        "headers.request add x-v: three reviews.yaml:18:27",
        "cluster outbound|9080|v2|reviews.default.svc.cluster.local (base.yaml:55:12 DestinationRule default/reviews)",
        "endpoints: 1 of 1 may be picked",
        "10.0.0.1:9080 priority 0, weight 1, plaintext, healthy: may be picked",
        "no endpoints are known",
    ] {
        assert!(got.iter().any(|got| words(got) == words(line)), "{line}\nis not in\n{text}");
    }
}

#[test]
fn who_asks_decides_which_routes_there_are() {
    let model = model();
    let of = |from| {
        let explanation = ask(&model, from, "reviews:9080", &[]);
        (explanation.routes.len(), explanation.clusters[0].name.to_string())
    };
    assert_eq!(
        of("default/productpage"),
        (2, "outbound|9080|v1|reviews.default.svc.cluster.local".to_owned())
    );
    assert_eq!(of("default/ratings").1, "outbound|9080|v3|reviews.default.svc.cluster.local");
}

#[test]
fn a_service_without_a_rule_has_the_default_route() {
    let explanation = ask(&model(), "default/productpage", "details:9080", &[]);
    assert!(explanation.is_routed());
    assert_eq!(&*explanation.routes[0].name, "default");
    let origin = explanation.routes[0].origin.as_deref();
    assert_eq!(origin, Some("base.yaml:14:9 Service default/details"));
    let note = explanation.clusters[0].note.as_deref().unwrap();
    assert!(note.starts_with("no endpoint is written down"), "{note}");
    let timeout = serde_json::to_value(&explanation).unwrap()["decisions"][0]["settings"][0].clone();
    assert_eq!(timeout, serde_json::json!({"name": "timeout", "value": "none", "origin": "default"}));
}

#[test]
fn a_subset_that_nobody_defines_fails_the_call_with_its_name() {
    let text = REVIEWS.replace("subset: v1", "subset: v9");
    let parsed = parse(&Arc::new(SourceFile::new("reviews.yaml", text)), &Arc::default());
    let base = parse(&Arc::new(SourceFile::new("base.yaml", BASE)), &Arc::default());
    let objects = parsed.objects.into_iter().chain(base.objects);
    let model = Model {
        config: Arc::new(Config::new(Arc::default(), objects)),
        workloads: Arc::new(Workloads::default()),
    };
    let explanation = ask(&model, "default/productpage", "reviews:9080", &[]);
    let failure = explanation.failure.unwrap();
    let expected = "Cluster outbound|9080|v9|reviews.default.svc.cluster.local does not exist";
    assert!(failure.starts_with(expected), "{failure}");
}

#[test]
fn consistent_hashing_says_which_endpoint_a_request_goes_to() {
    let text = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: orders}
spec:
  hosts: [orders.example]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: grpc, protocol: GRPC}]
  endpoints: [{address: 10.0.0.1}, {address: 10.0.0.2}, {address: 10.0.0.3}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: orders}
spec:
  host: orders.example
  trafficPolicy:
    loadBalancer: {consistentHash: {httpHeaderName: x-user}}
";
    let files = [("base.yaml", BASE), ("orders.yaml", text)];
    let parsed = files.map(|(name, text)| parse(&Arc::new(SourceFile::new(name, text)), &Arc::default()));
    let objects = parsed.into_iter().flat_map(|parsed| parsed.objects);
    let config = Arc::new(Config::new(Arc::default(), objects));
    let model = Model { config, workloads: Arc::new(Workloads::default()) };
    let picked = |user: &'static str| {
        let explanation = ask(&model, "default/productpage", "orders.example:80", &[("x-user", user)]);
        let hashed = explanation.decisions[0].destinations[0].hashed.clone().unwrap();
        let endpoints = explanation.clusters[0].endpoints.iter();
        let picked: Vec<_> =
            endpoints.filter(|one| one.not_picked.is_none()).map(|one| one.address).collect();
        assert_eq!(hashed.endpoint.into_iter().collect::<Vec<_>>(), picked, "{explanation}");
        picked[0].ip().to_string()
    };
    let users = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"].map(picked);
    let all: std::collections::BTreeSet<&String> = users.iter().collect();
    assert_eq!(all.len(), 3, "{users:?}");
    let anybody = ask(&model, "default/productpage", "orders.example:80", &[]);
    assert!(anybody.to_string().contains("it has nothing that is hashed"), "{anybody}");
}

#[test]
fn what_is_not_there_is_answered_with_what_is() {
    let model = model();
    let unknown = |to| unknown_target(&model.config, "default", to);
    assert_eq!(unknown("reviews:9080"), None);
    assert_eq!(unknown("reviews"), None);
    for (to, expected) in [
        (
            "review:9080",
            "there is no service \"review\" for namespace default: did you mean reviews.default.svc.cluster.local? There are ",
        ),
        ("nothing-like-it:1", "there is no service \"nothing-like-it\" for namespace default: "),
        ("reviews:9081", "service reviews.default.svc.cluster.local has no port 9081: it has 9080"),
        ("reviews:http", "\"reviews:http\" is not a target: write host:port"),
    ] {
        let text = unknown(to).unwrap();
        assert!(text.starts_with(expected), "{text}");
    }
    assert_eq!(closest("x", &[]), "none is defined");
}

#[test]
fn callers_are_the_workloads_and_services_of_the_configuration() {
    let callers = callers(&model().config);
    let names: Vec<&str> = callers.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "default/details",
            "default/productpage",
            "default/ratings",
            "default/reviews",
            "default/reviews-v2-a"
        ]
    );
    assert_eq!(callers["default/reviews-v2-a"].labels["version"], "v2");
}
