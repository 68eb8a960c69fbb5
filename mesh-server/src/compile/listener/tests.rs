//! Targets to listeners.

use crate::compile::fixture::{GRPC, MESH, world};
use mesh_xds::resource::{
    cluster::OverrideHostStatus,
    endpoint::HealthStatus,
    filter::FilterConfig,
    listener::{ListenerKind, RouteSource},
    stateful_session::SessionState,
};

#[test]
fn every_spelling_of_a_target_leads_to_the_same_routes_under_its_own_name() {
    let cases = [
        ("reviews:9080", Some("outbound|9080||reviews.default.svc.cluster.local")),
        ("reviews", Some("outbound|9080||reviews.default.svc.cluster.local")),
        ("Reviews.default:9080", Some("outbound|9080||reviews.default.svc.cluster.local")),
        ("reviews.default.svc:9080", Some("outbound|9080||reviews.default.svc.cluster.local")),
        ("reviews.default.svc.cluster.local:9080", Some("outbound|9080||reviews.default.svc.cluster.local")),
        ("reviews.default.svc.cluster.local.:9080", Some("outbound|9080||reviews.default.svc.cluster.local")),
        ("ratings.other:9090", Some("outbound|9090||ratings.other.svc.cluster.local")),
        // Two ports: nobody knows which one is meant.
        ("ratings.other", None),
        // Of another namespace.
        ("ratings:9080", None),
        ("reviews:9081", None),
        ("nobody:9080", None),
        ("reviews:", None),
    ];
    for kind in [MESH, GRPC] {
        let world = world(kind, "");
        for (name, routes) in cases {
            let listener = world.listener(name);
            assert_eq!(listener.as_ref().map(|listener| &*listener.name), routes.map(|_| name), "{name}");
            let Some(ListenerKind::Api(manager)) = listener.map(|listener| listener.kind) else { continue };
            assert_eq!(manager.routes, RouteSource::Rds(routes.unwrap().into()), "{name}");
        }
    }
}

#[test]
fn faults_come_before_the_router_and_do_nothing_by_themselves() {
    let listener = world(MESH, "").listener("reviews:9080").unwrap();
    let ListenerKind::Api(manager) = listener.kind else { panic!("not for a client") };
    let [fault, router] = manager.filters.as_slice() else { panic!("{:?}", manager.filters) };
    let FilterConfig::Fault(config) = &fault.config else { panic!("{fault:?}") };
    assert_eq!((&config.delay, &config.abort), (&None, &None));
    assert_eq!(router.config, FilterConfig::Router);
}

#[test]
fn a_service_with_a_persistent_session_has_its_filter_first_and_keeps_endpoints_that_drain() {
    let labelled = |label: &str| {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: sticky, labels: {{{label}}}}}
spec:
  selector: {{app: sticky}}
  ports: [{{name: grpc, port: 9080}}]
"
        )
    };
    let filters = |kind, label: &str| {
        let listener = world(kind, &labelled(label)).listener("sticky:9080").unwrap();
        let ListenerKind::Api(manager) = listener.kind else { panic!("not for a client") };
        manager.filters
    };
    let by_cookie = filters(MESH, "istio.io/persistent-session: \"s:/r.Reviews\"");
    let [session, _fault, _router] = by_cookie.as_slice() else { panic!("{by_cookie:?}") };
    let FilterConfig::StatefulSession(config) = &session.config else { panic!("{session:?}") };
    let Some(SessionState::Cookie(cookie)) = &config.state else { panic!("{config:?}") };
    assert_eq!((&*session.name, config.strict), ("envoy.filters.http.stateful_session", None));
    assert_eq!((&*cookie.name, &*cookie.path, cookie.ttl.is_zero()), ("s", "/r.Reviews", true));
    let by_header = filters(MESH, "istio.io/persistent-session-header: x-session");
    let FilterConfig::StatefulSession(config) = &by_header[0].config else { panic!("{by_header:?}") };
    assert_eq!(config.state, Some(SessionState::Header("x-session".parse().unwrap())));
    assert_eq!(filters(MESH, "app: sticky").len(), 2);
    assert_eq!(filters(GRPC, "istio.io/persistent-session: s").len(), 2, "some would refuse the listener");

    let statuses = |kind, label: &str| {
        let world = world(kind, &labelled(label));
        let cluster = world.cluster("outbound|9080||sticky.default.svc.cluster.local").unwrap();
        cluster.lb_options.override_host_status
    };
    let [unknown, healthy, degraded, draining] =
        [HealthStatus::Unknown, HealthStatus::Healthy, HealthStatus::Degraded, HealthStatus::Draining];
    let kept = OverrideHostStatus::of([unknown, healthy, degraded, draining]);
    assert_eq!(statuses(MESH, "istio.io/persistent-session: s"), kept);
    for (kind, label) in [(MESH, "app: sticky"), (GRPC, "istio.io/persistent-session: s")] {
        assert_eq!(statuses(kind, label), OverrideHostStatus::default());
    }
}

#[test]
fn a_service_that_is_not_exported_to_a_client_is_not_there() {
    let entry = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: private, namespace: other}
spec:
  hosts: [private.example.com]
  ports: [{name: grpc, number: 80, protocol: GRPC}]
  resolution: STATIC
  location: MESH_INTERNAL
  exportTo: [\".\"]
";
    let mut world = world(MESH, entry);
    assert_eq!(world.listener("private.example.com"), None);
    world.client.scope.namespace = "other".into();
    assert!(world.listener("private.example.com").is_some());
}
