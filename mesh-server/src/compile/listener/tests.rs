//! Targets to listeners.

use crate::compile::fixture::{GRPC, MESH, world};
use mesh_xds::resource::{
    filter::FilterConfig,
    listener::{ListenerKind, RouteSource},
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
