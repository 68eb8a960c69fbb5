//! Every setting points at the line that set it.

use crate::compile::fixture::{GRPC, MESH, envoy, world};
use mesh_xds::resource::{Origin, Resource, RouteConfiguration, origin};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

const YAML: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: jason
    match:
    - headers: {end-user: {exact: jason}}
    timeout: 2s
    retries:
      attempts: 3
      perTryTimeout: 1s
    fault:
      abort: {httpStatus: 503, percentage: {value: 1}}
    route:
    - {destination: {host: reviews, subset: v1}, weight: 0}
    - {destination: {host: reviews, subset: v2}, weight: 100}
  - route:
    - {destination: {host: reviews}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    connectionPool:
      http:
        http2MaxRequests: 10
    retryBudget: {percent: 30}
    proxyProtocol: {version: V2}
    portLevelSettings:
    - port: {number: 9090}
      connectionPool: {http: {maxRetries: 1}}
  subsets:
  - name: v2
    labels: {version: v2}
    trafficPolicy:
      loadBalancer: {simple: RANDOM}
";

/// The settings of an origin, by line of [`YAML`].
fn lines(origin: &Origin) -> Vec<(String, String)> {
    let above = crate::compile::fixture::SERVICES.lines().count() + 1;
    let settings = origin.settings().unwrap().iter();
    settings
        .map(|(setting, place)| {
            let line: usize =
                place.strip_prefix("mesh.yaml:").unwrap().split(':').next().unwrap().parse().unwrap();
            let text = YAML.lines().nth(line - above - 1).unwrap().trim();
            (setting.to_string(), text.to_owned())
        })
        .collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.iter().map(|(setting, line)| ((*setting).to_owned(), (*line).to_owned())).collect()
}

#[test]
fn a_routes_settings_have_their_lines_and_survive_the_wire() {
    let world = world(MESH, YAML);
    let config = world.routes(REVIEWS).unwrap();
    let routes = &config.virtual_hosts[0].routes;
    assert_eq!(
        lines(routes[0].origin.as_ref().unwrap()),
        pairs([
            ("fault.abort", "abort: {httpStatus: 503, percentage: {value: 1}}"),
            ("match", "- headers: {end-user: {exact: jason}}"),
            ("retries.attempts", "attempts: 3"),
            ("retries.perTryTimeout", "perTryTimeout: 1s"),
            ("route[0]", "- {destination: {host: reviews, subset: v2}, weight: 100}"),
            ("timeout", "timeout: 2s"),
        ])
    );
    assert_eq!(
        lines(routes[1].origin.as_ref().unwrap()),
        pairs([("route[0]", "- {destination: {host: reviews}}")])
    );
    let parsed = RouteConfiguration::parse(&config.to_proto(), &Default::default()).unwrap();
    assert_eq!(parsed, config);
}

#[test]
fn a_clusters_settings_have_the_lines_of_the_level_that_won() {
    let world = world(MESH, YAML);
    let of = |name: &str| {
        let cluster = world.cluster(name).unwrap();
        lines(cluster.origin.as_ref().unwrap())
    };
    let budget = ("retryBudget", "retryBudget: {percent: 30}");
    let header = ("proxyProtocol", "proxyProtocol: {version: V2}");
    let pool = ("connectionPool.http.http2MaxRequests", "http2MaxRequests: 10");
    assert_eq!(
        of(REVIEWS),
        pairs([pool, ("loadBalancer.simple", "loadBalancer: {simple: ROUND_ROBIN}"), header, budget])
    );
    assert_eq!(
        of("outbound|9080|v2|reviews.default.svc.cluster.local"),
        pairs([pool, ("loadBalancer.simple", "loadBalancer: {simple: RANDOM}"), header, budget])
    );
}

#[test]
fn only_our_own_clients_are_told_each_line() {
    for (kind, name) in [(GRPC, REVIEWS), (envoy(), "http_proxy")] {
        let config = world(kind, YAML).routes(name).unwrap();
        let origins = config.virtual_hosts.iter().flat_map(|host| &host.routes);
        let origins: Vec<_> = origins.filter_map(|route| route.origin.clone()).collect();
        assert!(
            origins.iter().any(|origin| origin.ends_with(" VirtualService default/reviews")),
            "{origins:?}"
        );
        assert!(origins.iter().all(|origin| origin.settings().is_none()), "{origins:?}");
    }
}

#[test]
fn no_setting_is_listed_twice() {
    for list in [origin::ROUTE_SETTINGS, origin::CLUSTER_SETTINGS] {
        let mut unique: Vec<_> = list.to_vec();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), list.len());
    }
}
