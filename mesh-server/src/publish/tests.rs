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
use mesh_xds::server::{Changes, Node, Touched, View, Views};
use std::time::Duration;

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";
const RATINGS: &str = "outbound|9080||ratings.other.svc.cluster.local";

fn loaded(yaml: &str, revision: &str) -> Loaded {
    let config = world(MESH, yaml).model.config;
    Loaded { config, revision: revision.to_owned(), ..Loaded::default() }
}

fn publisher(yaml: &str) -> Publisher {
    let mesh =
        Mesh { trust_domain: "cluster.local".into(), trust_domain_aliases: Vec::new(), load_reports: false };
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
    served(publisher).view(&Peer { identity: None, address: None, expires: None }, node).unwrap()
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

/// A client that is not ours gets a cluster without endpoints for a subset that is missing: for one that routes name.
#[test]
fn subsets_that_nobody_wrote_are_none_and_spellings_are_kept_for_nobody() {
    use ResourceType::{Cluster, ClusterLoadAssignment, Listener};
    let publisher = publisher(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r, namespace: default}\n\
         spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: routed}}]}]}",
    );
    let view = view(&publisher, &Node { user_agent: "gRPC Go".into(), ..Node::default() });
    let cluster = |subset: &str| format!("outbound|9080|{subset}|reviews.default.svc.cluster.local");
    for kind in [Cluster, ClusterLoadAssignment] {
        assert!(view.resource(kind, &cluster("routed")).is_some());
        assert_eq!(view.resource(kind, &cluster("made-up")), None);
        let absence = view.absence(kind, &cluster("made-up")).unwrap();
        assert!(absence.message.contains("`made-up`"), "{absence:?}");
    }
    let kept = publisher.0.shared.kept();
    for name in ["Reviews:9080", "reViews:9080", "REVIEWS.default:9080"] {
        assert_eq!(&*view.resource(Listener, name).unwrap().name, name);
        assert!(!view.is_shared(Listener, name) && view.is_shared(Listener, &name.to_ascii_lowercase()));
    }
    assert_eq!(publisher.0.shared.kept(), kept);
}

#[test]
fn a_certificate_binds_namespace_and_service_account() {
    let identity = |text| Some(SpiffeId::parse(text).unwrap());
    let reviews = Peer {
        identity: identity("spiffe://cluster.local/ns/default/sa/reviews"),
        address: None,
        expires: None,
    };
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
    let odd =
        Peer { identity: identity("spiffe://cluster.local/something/else"), address: None, expires: None };
    assert_eq!(odd.may_be(None, None).unwrap_err().code(), tonic::Code::PermissionDenied);
    assert!(Peer { identity: None, address: None, expires: None }.may_be(Some("any"), Some("any")).is_ok());
}

#[test]
fn a_cluster_is_one_of_a_service_its_ports_and_the_subsets_of_its_own_host() {
    let rules = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: other}
spec: {host: '*.other.svc.cluster.local', subsets: [{name: v2, labels: {version: v2}}]}
";
    let snapshot = publisher(rules).current();
    let cases = [
        (REVIEWS, true),
        (RATINGS, true),
        ("outbound|1||reviews.default.svc.cluster.local", false),
        ("outbound|9080|v1|reviews.default.svc.cluster.local", true),
        ("outbound|9080|v2|reviews.default.svc.cluster.local", false),
        ("outbound|9080|v1|ratings.other.svc.cluster.local", false),
        ("outbound|9080|v2|ratings.other.svc.cluster.local", true),
        ("outbound|9080||nobody.default.svc.cluster.local", false),
        ("whatever", false),
    ];
    for (name, expected) in cases {
        assert_eq!(snapshot.has_cluster(name), expected, "{name}");
    }
}

fn touched(before: &Arc<dyn View>, after: &Arc<dyn View>) -> Option<Vec<Touched>> {
    match after.changes_since(&**before) {
        Changes::Only(touched) => Some(touched),
        Changes::Anything => None,
    }
}

#[test]
fn a_step_says_what_it_touched_until_the_configuration_changes() {
    let publisher = publisher("");
    let served = served(&publisher);
    let (peer, node) = (Peer { identity: None, address: None, expires: None }, node(&[]));
    let first = served.view(&peer, &node).unwrap();
    let next = |earlier: &Arc<dyn View>| served.next_view(&peer, &node, earlier).unwrap();
    assert_eq!(touched(&first, &next(&first)), Some(vec![]));

    publisher.add_workload(workload("10.0.0.1"));
    let second = next(&first);
    let of = |kind| Touched::Resource(kind, REVIEWS.into());
    let mut expected = vec![of(ResourceType::Cluster), of(ResourceType::ClusterLoadAssignment)];
    // A node without a name of its own may be any workload.
    expected.push(Touched::Prefix(ResourceType::Listener, "xds.istio.io/grpc/lds/inbound/"));
    assert_eq!(touched(&first, &second), Some(expected.clone()));

    publisher.remove_workload("default", "reviews-10.0.0.1");
    let third = next(&second);
    assert_eq!(touched(&first, &third), Some(expected), "two steps at once");
    for i in 0..=REMEMBERED {
        publisher.add_workload(workload(&format!("10.0.1.{i}")));
    }
    assert_eq!(touched(&third, &next(&third)), None, "too long ago");
    let fourth = next(&third);
    publisher.set_config(&loaded("", "c2"));
    assert_eq!(touched(&fourth, &next(&fourth)), None);
}

#[test]
fn a_lifetime_is_what_is_left_of_the_certificate() {
    let peer = |expires| Peer { identity: None, address: None, expires };
    let served = served(&publisher(""));
    assert_eq!(served.lifetime(&peer(None)), None);
    assert_eq!(served.lifetime(&peer(Some(std::time::SystemTime::UNIX_EPOCH))), Some(Duration::ZERO));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, ..Default::default() })]

    /// Whoever the client is: what a step does not name is what it was.
    #[test]
    fn nothing_changes_that_is_not_said_to(
        steps in proptest::collection::vec((0..4_u8, proptest::bool::ANY, 0..3_u8, 0..3_u8), 1..8),
        name in proptest::option::of(0..3_u8),
        account in proptest::option::of(0..2_u8),
    ) {
        let publisher = publisher("
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: special}
spec: {selector: {matchLabels: {special: l1}}, mtls: {mode: STRICT}}
");
        let mut node = node(&[]);
        let mut says = |key: &str, value: String| node.metadata.insert(key.into(), value.into());
        if let Some(name) = name {
            says("WORKLOAD_NAME", format!("w{name}"));
        }
        if let Some(account) = account {
            says("SERVICE_ACCOUNT", format!("a{account}"));
        }
        let served = served(&publisher);
        let peer = Peer { identity: None, address: None, expires: None };
        let mut view = served.view(&peer, &node).unwrap();
        let inbound = ["0.0.0.0:9080", "10.0.0.0:9080", "10.0.0.1:9080", "10.0.0.1:9081", "[::]:9080", "[fd00:0::1]:9080"];
        let inbound = inbound.map(|address| (ResourceType::Listener, format!("xds.istio.io/grpc/lds/inbound/{address}")));
        let mut all: Vec<(ResourceType, String)> = inbound.into();
        for kind in ResourceType::ALL {
            all.extend(view.names(kind).iter().map(|name| (kind, name.to_string())));
        }
        for (address, add, base, label) in steps {
            let ip = if address == 3 { "fd00::1".to_owned() } else { format!("10.0.0.{address}") };
            let name = format!("w{base}-{}", ip.replace(':', "-"));
            if add {
                let labels = match label {
                    0 => [("app", "reviews"), ("special", "l0")],
                    1 => [("app", "reviews"), ("special", "l1")],
                    _ => [("version", "v1"), ("special", "l1")],
                };
                let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
                let service_account = format!("a{}", base % 2);
                let address = ip.parse().unwrap();
                publisher.add_workload(RegisteredWorkload { name, address, labels, service_account, ..workload("10.0.0.9") });
            } else {
                publisher.remove_workload("default", &name);
            }
            let next = served.next_view(&peer, &node, &view).unwrap();
            let touched = touched(&view, &next).unwrap();
            for (kind, name) in &all {
                let said = touched.iter().any(|one| match one {
                    Touched::Resource(of, named) => of == kind && **named == *name,
                    Touched::Prefix(of, prefix) => of == kind && name.starts_with(prefix),
                });
                if !said {
                    proptest::prop_assert_eq!(view.resource(*kind, name), next.resource(*kind, name), "{}", name);
                }
            }
            view = next;
        }
    }
}
