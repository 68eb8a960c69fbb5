//! What a change costs, and who may see what.

use super::*;
use crate::{
    compile::fixture::{MESH, workload, world},
    model::{Labels, RegisteredWorkload},
};
use mesh_ca::{
    clock::Clock,
    spiffe_id::{SpiffeId, TrustDomain},
};
use mesh_xds::server::{Node, View, Views};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";
const RATINGS: &str = "outbound|9080||ratings.other.svc.cluster.local";

fn loaded(yaml: &str, revision: &str) -> Loaded {
    let config = world(MESH, yaml).model.config;
    Loaded { config, revision: revision.to_owned(), ..Loaded::default() }
}

fn publisher(yaml: &str) -> Publisher {
    let mesh = Mesh { trust_domain: "cluster.local".into(), trust_domain_aliases: Vec::new() };
    Publisher::new(mesh, &loaded(yaml, "c1"))
}

fn served(publisher: &Publisher) -> Served {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    Served::new(publisher.clone(), domain, Clock::system(), AnonymousPeers::Admitted)
}

fn node(labels: &[(&str, &str)]) -> Node {
    let metadata =
        labels.iter().map(|(key, value)| (format!("LABELS.{key}").into(), (*value).into())).collect();
    Node { user_agent: "mesh-client".into(), metadata, ..Node::default() }
}

fn view(publisher: &Publisher, node: &Node) -> Arc<dyn View> {
    served(publisher).view(&Peer { identity: None, address: None }, node).unwrap()
}

#[test]
fn a_workload_that_comes_changes_its_own_services_resources_and_no_other() {
    use ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
    let publisher = publisher("");
    let before = view(&publisher, &node(&[]));
    let names = [
        (Listener, "reviews:9080"),
        (RouteConfiguration, REVIEWS),
        (Cluster, RATINGS),
        (ClusterLoadAssignment, RATINGS),
        (ClusterLoadAssignment, REVIEWS),
    ];
    let held: Vec<_> = names.map(|(kind, name)| before.resource(kind, name).unwrap()).into();
    let snapshot = publisher.add_workload(workload("10.0.0.1"));
    assert_eq!(&*snapshot.revision, "c1.1");
    let after = view(&publisher, &node(&[]));
    let same: Vec<bool> = names
        .iter()
        .zip(&held)
        .map(|((kind, name), held)| Arc::ptr_eq(held, &after.resource(*kind, name).unwrap()))
        .collect();
    assert_eq!(same, [true, true, true, true, false]);
    // The view that is behind still answers as it did.
    assert_eq!(before.resource(ClusterLoadAssignment, REVIEWS).as_ref(), held.last());
    assert_eq!(&*before.revision(), "c1.0");
}

#[test]
fn the_same_workload_again_is_no_new_revision() {
    let publisher = publisher("");
    let first = publisher.add_workload(workload("10.0.0.1"));
    assert_eq!(publisher.add_workload(workload("10.0.0.1")).revision, first.revision);
    let without = publisher.remove_workload("default", "reviews-10.0.0.1");
    assert_ne!(without.revision, first.revision);
    assert_eq!(publisher.remove_workload("default", "reviews-10.0.0.1").revision, without.revision);
}

#[test]
fn a_workload_whose_labels_change_leaves_the_service_that_selected_it() {
    let publisher = publisher("");
    publisher.add_workload(workload("10.0.0.1"));
    let with = view(&publisher, &node(&[])).resource(ResourceType::ClusterLoadAssignment, REVIEWS).unwrap();
    publisher.add_workload(RegisteredWorkload { labels: Labels::new(), ..workload("10.0.0.1") });
    let without =
        view(&publisher, &node(&[])).resource(ResourceType::ClusterLoadAssignment, REVIEWS).unwrap();
    assert_ne!(with.version, without.version);
}

#[test]
fn a_reload_keeps_the_bytes_of_what_did_not_change() {
    let publisher = publisher("");
    let before = view(&publisher, &node(&[]));
    let held = before.resource(ResourceType::RouteConfiguration, REVIEWS).unwrap();
    publisher.set_config(&loaded("", "c2"));
    let after = view(&publisher, &node(&[]));
    assert_eq!(&*after.revision(), "c2.0");
    assert!(Arc::ptr_eq(&held, &after.resource(ResourceType::RouteConfiguration, REVIEWS).unwrap()));
}

#[test]
fn clients_share_unless_the_configuration_asks_for_what_differs() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{sourceLabels: {app: special}}]
    timeout: 1s
    route: [{destination: {host: reviews}}]
  - route: [{destination: {host: reviews}}]
";
    let publisher = publisher(rule);
    let routes = |labels: &[(&str, &str)]| {
        let view = view(&publisher, &node(labels));
        (view.resource(ResourceType::RouteConfiguration, REVIEWS).unwrap(), view)
    };
    let (one, _one) = routes(&[("app", "a"), ("pod", "1")]);
    let (two, _two) = routes(&[("app", "a"), ("pod", "2")]);
    let (special, _special) = routes(&[("app", "special"), ("pod", "3")]);
    assert!(Arc::ptr_eq(&one, &two));
    assert_ne!(one.version, special.version);
}

#[test]
fn names_that_clients_make_up_are_not_kept() {
    let publisher = publisher("");
    let view = view(&publisher, &node(&[]));
    for i in 0..10 {
        assert_eq!(view.resource(ResourceType::Listener, &format!("nobody-{i}:1")), None);
    }
    assert_eq!(publisher.0.shared.kept(), 0);
    assert!(view.resource(ResourceType::Listener, "reviews:9080").is_some());
    assert_eq!(publisher.0.shared.kept(), 1);
    drop(view);
    assert_eq!(publisher.0.shared.kept(), 0);
}

#[test]
fn a_certificate_binds_namespace_and_service_account() {
    let identity = |text| Some(SpiffeId::parse(text).unwrap());
    let reviews = Peer { identity: identity("spiffe://cluster.local/ns/default/sa/reviews"), address: None };
    let cases = [
        (None, None, true),
        (Some("default"), Some("reviews"), true),
        (Some("default"), Some(""), true),
        (Some("other"), None, false),
        (None, Some("ratings"), false),
    ];
    for (namespace, account, expected) in cases {
        assert_eq!(reviews.may_be(namespace, account).is_ok(), expected, "{namespace:?} {account:?}");
    }
    let odd = Peer { identity: identity("spiffe://cluster.local/something/else"), address: None };
    assert_eq!(odd.may_be(None, None).unwrap_err().code(), tonic::Code::PermissionDenied);
    assert!(Peer { identity: None, address: None }.may_be(Some("any"), Some("any")).is_ok());
}
