//! Workloads to assignments.

use crate::{
    compile::fixture::{MESH, SERVICES, World, labels, workload, world, world_of},
    model::{Health, Locality as Place, RegisteredWorkload},
};
use mesh_xds::resource::{
    Locality,
    endpoint::{ClusterLoadAssignment, HealthStatus},
};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

fn at(address: &str, place: &str) -> RegisteredWorkload {
    RegisteredWorkload { locality: Place::parse(place), ..workload(address) }
}

fn locality(text: &str) -> Locality {
    let Place { region, zone, sub_zone } = Place::parse(text);
    Locality { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() }
}

/// Addresses by priority, then `region/zone=weight`.
fn shape(assignment: &ClusterLoadAssignment) -> Vec<Vec<String>> {
    let priorities = assignment.priorities.iter();
    priorities
        .map(|priority| {
            let localities = priority.localities.iter();
            localities
                .map(|one| {
                    let addresses: Vec<_> =
                        one.endpoints.iter().map(|endpoint| endpoint.address().ip().to_string()).collect();
                    format!(
                        "{}/{}={} {}",
                        one.locality.region,
                        one.locality.zone,
                        one.weight,
                        addresses.join(" ")
                    )
                })
                .collect()
        })
        .collect()
}

fn spread(policy: &str) -> World {
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  \
         host: reviews\n  trafficPolicy: {policy}\n"
    );
    let mut world = world(MESH, &yaml)
        .with(at("10.0.0.1", "r1/z1"))
        .with(at("10.0.0.2", "r1/z2"))
        .with(at("10.0.0.3", "r2/z1"))
        .with(at("10.0.0.4", "r3/z1"));
    world.client.locality = locality("r1/z1");
    world
}

#[test]
fn endpoints_carry_weight_health_and_whether_they_speak_mtls() {
    let world = world(MESH, "")
        .with(RegisteredWorkload { weight: 3, ..workload("10.0.0.1") })
        .with(RegisteredWorkload { health: Health::Draining, ..workload("10.0.0.2") })
        .with(RegisteredWorkload {
            health: Health::Unhealthy,
            labels: labels(&[("app", "reviews")]),
            ..workload("10.0.0.3")
        });
    let assignment = world.endpoints(REVIEWS).unwrap();
    let [priority] = assignment.priorities.as_slice() else { panic!("{assignment:?}") };
    let [locality] = priority.localities.as_slice() else { panic!("{priority:?}") };
    let found: Vec<_> = locality
        .endpoints
        .iter()
        .map(|one| (one.address().to_string(), one.weight.get(), one.health, one.mesh_tls))
        .collect();
    assert_eq!(
        found,
        [
            ("10.0.0.1:9080".to_owned(), 3, HealthStatus::Healthy, true),
            ("10.0.0.2:9080".to_owned(), 1, HealthStatus::Draining, true),
            ("10.0.0.3:9080".to_owned(), 1, HealthStatus::Unhealthy, false),
        ]
    );
    assert_eq!(locality.weight.get(), 5);
}

#[test]
fn a_server_that_may_not_speak_mtls_is_not_marked() {
    let yaml = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: DISABLE}}
";
    let assignment = world(MESH, yaml).with(workload("10.0.0.1")).endpoints(REVIEWS).unwrap();
    assert!(!assignment.priorities[0].localities[0].endpoints[0].mesh_tls);
}

#[test]
fn a_service_without_workloads_has_an_empty_assignment() {
    assert_eq!(world(MESH, "").endpoints(REVIEWS).unwrap().priorities, []);
    assert_eq!(world(MESH, "").endpoints("outbound|9080||nobody.default.svc.cluster.local"), None);
}

#[test]
fn a_subset_holds_those_with_its_labels() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v2, labels: {version: v2}}]
";
    let v2 = RegisteredWorkload {
        labels: labels(&[("app", "reviews"), ("version", "v2")]),
        ..workload("10.0.0.2")
    };
    let world = world(MESH, yaml).with(workload("10.0.0.1")).with(v2);
    let assignment = world.endpoints("outbound|9080|v2|reviews.default.svc.cluster.local").unwrap();
    assert_eq!(shape(&assignment), [["/=1 10.0.0.2"]]);
}

#[test]
fn without_outlier_detection_nearness_means_nothing() {
    let assignment = spread("{loadBalancer: {simple: ROUND_ROBIN}}").endpoints(REVIEWS).unwrap();
    assert_eq!(shape(&assignment).len(), 1);
}

#[test]
fn with_outlier_detection_the_nearest_come_first() {
    let assignment = spread("{outlierDetection: {interval: 1s}}").endpoints(REVIEWS).unwrap();
    assert_eq!(
        shape(&assignment),
        [vec!["r1/z1=1 10.0.0.1"], vec!["r1/z2=1 10.0.0.2"], vec!["r2/z1=1 10.0.0.3", "r3/z1=1 10.0.0.4"]]
    );
}

#[test]
fn a_client_that_does_not_say_where_it_is_prefers_nothing() {
    let mut world = spread("{outlierDetection: {interval: 1s}}");
    world.client.locality = Locality::default();
    assert_eq!(shape(&world.endpoints(REVIEWS).unwrap()).len(), 1);
}

#[test]
fn failover_leads_to_the_region_it_names_before_any_other() {
    let policy = "{outlierDetection: {interval: 1s},
      loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r3}]}}}";
    assert_eq!(
        shape(&spread(policy).endpoints(REVIEWS).unwrap()),
        [
            vec!["r1/z1=1 10.0.0.1"],
            vec!["r1/z2=1 10.0.0.2"],
            vec!["r3/z1=1 10.0.0.4"],
            vec!["r2/z1=1 10.0.0.3"]
        ]
    );
}

#[test]
fn zone_awareness_has_regions_as_priorities_without_outlier_detection() {
    let shape_of = |zones: &str| {
        let policy = format!("{{loadBalancer: {{zoneAwareLbSetting: {zones}}}}}");
        shape(&spread(&policy).endpoints(REVIEWS).unwrap())
    };
    let own = vec!["r1/z1=1 10.0.0.1".to_owned(), "r1/z2=1 10.0.0.2".to_owned()];
    let (r2, r3) = ("r2/z1=1 10.0.0.3".to_owned(), "r3/z1=1 10.0.0.4".to_owned());
    assert_eq!(shape_of("{enabled: true}"), [own.clone(), vec![r2.clone(), r3.clone()]]);
    let failover = "failover: [{from: r1, to: r3}]";
    assert_eq!(shape_of(&format!("{{{failover}}}")), [own.clone(), vec![r3.clone()], vec![r2.clone()]]);
    // Regions within what labels say; nobody has this one.
    let labels = "failoverPriority: [version=v2]";
    assert_eq!(shape_of(&format!("{{{failover}, {labels}}}")), [own, vec![r3], vec![r2]]);
    assert_eq!(shape_of("{enabled: false}").len(), 1);
}

#[test]
fn failover_priority_goes_by_the_longest_prefix_of_labels_that_agree() {
    let policy = "{outlierDetection: {interval: 1s},
      loadBalancer: {localityLbSetting: {failoverPriority: [app, version=v2]}}}";
    let mut world = spread(policy);
    world.client.scope.labels = labels(&[("app", "reviews")]);
    let v2 = RegisteredWorkload {
        labels: labels(&[("app", "reviews"), ("version", "v2")]),
        ..workload("10.0.0.5")
    };
    let world = world.with(v2);
    let shape = shape(&world.endpoints(REVIEWS).unwrap());
    assert_eq!(shape[0], ["/=1 10.0.0.5"]);
    assert_eq!(shape[1].len(), 4);
}

#[test]
fn distribute_gives_each_locality_its_share_and_the_others_nothing() {
    let policy = "{loadBalancer: {localityLbSetting:
      {distribute: [{from: r1/*, to: {\"r1/*\": 80, \"r2/z1\": 20}}]}}}";
    assert_eq!(
        shape(&spread(policy).endpoints(REVIEWS).unwrap()),
        [["r1/z1=40 10.0.0.1", "r1/z2=40 10.0.0.2", "r2/z1=20 10.0.0.3"]]
    );
}

fn distributed(word: &str, policy: &str) -> World {
    let annotated =
        format!("{{name: reviews, annotations: {{networking.istio.io/traffic-distribution: {word}}}}}");
    let services = SERVICES.replacen("{name: reviews}", &annotated, 1);
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  \
         host: reviews\n  trafficPolicy: {policy}\n"
    );
    let on_node = |address, place, node: &str| {
        let mut workload = at(address, place);
        workload.labels.insert("kubernetes.io/hostname".to_owned(), node.to_owned());
        workload
    };
    let mut world = world_of(MESH, format!("{services}---\n{rule}"))
        .with(on_node("10.0.0.1", "r1/z1", "n1"))
        .with(on_node("10.0.0.2", "r1/z1", "n2"))
        .with(on_node("10.0.0.3", "r1/z2", "n3"))
        .with(on_node("10.0.0.4", "r2/z1", "n4"));
    world.client.locality = locality("r1/z1");
    world.client.scope.labels = labels(&[("kubernetes.io/hostname", "n2")]);
    world
}

#[test]
fn a_service_may_prefer_endpoints_near_its_callers_without_outlier_detection() {
    let of = |world: World| shape(&world.endpoints(REVIEWS).unwrap());
    assert_eq!(
        of(distributed("PreferClose", "{loadBalancer: {simple: ROUND_ROBIN}}")),
        [vec!["r1/z1=2 10.0.0.1 10.0.0.2"], vec!["r1/z2=1 10.0.0.3"], vec!["r2/z1=1 10.0.0.4"]]
    );
    assert_eq!(
        of(distributed("PreferSameNode", "{loadBalancer: {simple: ROUND_ROBIN}}")),
        [
            vec!["r1/z1=1 10.0.0.2"],
            vec!["r1/z1=1 10.0.0.1"],
            vec!["r1/z2=1 10.0.0.3"],
            vec!["r2/z1=1 10.0.0.4"]
        ]
    );
    assert_eq!(of(distributed("any", "{loadBalancer: {simple: ROUND_ROBIN}}")).len(), 1);
}

#[test]
fn a_destination_rule_goes_before_what_the_service_prefers() {
    for setting in ["{enabled: false}", "{failoverPriority: [topology.kubernetes.io/zone]}"] {
        let policy = format!("{{loadBalancer: {{localityLbSetting: {setting}}}}}");
        let world = distributed("PreferClose", &policy);
        assert_eq!(shape(&world.endpoints(REVIEWS).unwrap()).len(), 1, "{setting}");
    }
}

#[test]
fn weights_never_sum_to_more_than_the_protocol_allows() {
    let heavy = |address| RegisteredWorkload { weight: u32::MAX, ..workload(address) };
    let world = world(MESH, "").with(heavy("10.0.0.1")).with(heavy("10.0.0.2")).with(workload("10.0.0.3"));
    let assignment = world.endpoints(REVIEWS).unwrap();
    let locality = &assignment.priorities[0].localities[0];
    let sum: u64 = locality.endpoints.iter().map(|one| u64::from(one.weight.get())).sum();
    assert_eq!(sum, u64::from(locality.weight.get()));
}
