//! WorkloadEntry, WorkloadGroup, and the set of registered workloads.

use proptest::prelude::*;

use super::*;
use crate::model::Object;
use crate::model::fixture::{assert_refused, lines, object, parsed};

#[test]
fn the_labels_of_the_object_are_labels_of_the_workload() {
    let text = object("WorkloadEntry", "address: 10.0.0.1\nlabels: {version: v2}")
        .replace("{name: x,", "{name: x, labels: {app: reviews, version: v1},");
    let parsed = parsed(&text);
    let [Object::WorkloadEntry(entry)] = parsed.objects.as_slice() else { panic!("{:#?}", lines(&parsed)) };
    let labels: Vec<_> = entry.spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["app=reviews", "version=v2"]);
    assert_eq!(entry.spec.weight, 1, "no weight is one");
}

#[test]
fn a_group_gives_its_labels_precedence_over_nothing_else() {
    let spec = "metadata: {labels: {app: reviews}}\ntemplate: {ports: {http: 9080}, serviceAccount: reviews}\nprobe: {httpGet: {port: 80}}";
    let parsed = parsed(&object("WorkloadGroup", spec));
    let [Object::WorkloadGroup(group)] = parsed.objects.as_slice() else { panic!("{:#?}", lines(&parsed)) };
    assert_eq!((group.labels["app"].as_str(), group.ports["http"]), ("reviews", 9080));
    assert_eq!(group.service_account.as_deref(), Some("reviews"));
    assert!(lines(&parsed)[0].starts_with("MESH0001 warning 7:3 not supported by this version: `probe`"));
}

#[test]
fn invalid_objects_are_refused_where_they_are_wrong() {
    assert_refused(
        "WorkloadEntry",
        &[
            ("labels: {a: b}", "5:3 a workload entry needs `address`"),
            ("address: 'a b'", "5:12 \"a b\" is neither an IP address nor a host name"),
            ("address: 10.0.0.1\nports: {http: 0}", "6:17 0 is not a port"),
            ("address: 10.0.0.1\nweight: -1", "6:11 -1 is out of range"),
        ],
    );
    assert_refused(
        "WorkloadGroup",
        &[
            ("metadata: {}", "5:3 a WorkloadGroup needs `template`"),
            ("template: {address: 10.0.0.1}", "5:14 a template must not have `address`"),
            ("template: {labels: {a: b}}", "5:14 a template must not have `labels`"),
            ("template: {}\nprobe: {htpGet: {}}", "6:11 unknown field `htpGet` in probe"),
        ],
    );
}

fn workload(namespace: &str, name: &str, weight: u32) -> RegisteredWorkload {
    RegisteredWorkload {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        service_account: "sa".to_owned(),
        address: IpAddr::from([127, 0, 0, 1]),
        ports: BTreeMap::new(),
        labels: Labels::new(),
        locality: Locality::default(),
        weight,
        health: Health::Healthy,
        group: None,
    }
}

#[test]
fn no_two_names_and_addresses_make_the_same_name() {
    let named = |base: &str, address: &str, port: Option<u16>| {
        let address = address.parse().unwrap();
        let ports = port.map(|port| (String::new(), port)).into_iter().collect();
        let name = RegisteredWorkload::name_at(base, address);
        let plain = RegisteredWorkload { address, ports, name, ..workload("ns", "", 1) };
        let name = plain.name_with_port().unwrap_or_else(|| plain.name.clone());
        assert!(RegisteredWorkload { name: name.clone(), ..plain }.is_called(base), "{name}");
        name
    };
    let names = [
        named("a", "1:2::3", None),
        named("a-1", "2::3", None),
        named("a", "1::2", Some(3)),
        named("a", "1::2:3", None),
        named("a", "1:2:3:4:5:6:7:8", Some(9080)),
        named("a-0001", "2:3:4:5:6:7:8:9080", None),
        named("a", "1.2.3.4", None),
        named("a", "1.2.3.4", Some(9080)),
        named("a-1", "2.3.4.5", None),
        named("a", "::ffff:1.2.3.4", None),
    ];
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "{names:#?}");
    assert_eq!(names[0], "a-0001-0002-0000-0000-0000-0000-0000-0003");
    assert_eq!(names[7], "a-1.2.3.4-9080");
}

proptest! {
    #[test]
    fn registered_workloads_behave_like_a_map(ops in prop::collection::vec(("[ab]", "[xyz]", any::<bool>(), 1u32..9), 0..20)) {
        let mut workloads = Workloads::default();
        let mut expected = BTreeMap::new();
        for (namespace, name, add, weight) in ops {
            let before = workloads.clone();
            let (was, key) = (before.len(), (namespace.clone(), name.clone()));
            if add {
                workloads = workloads.with(workload(&namespace, &name, weight));
                expected.insert(key, weight);
            } else {
                workloads = workloads.without(&namespace, &name);
                expected.remove(&key);
            }
            prop_assert_eq!(before.len(), was, "a value does not change behind its owner");
        }
        let ordered: Vec<_> = workloads.iter().map(|w| (w.namespace.clone(), w.name.clone())).collect();
        prop_assert!(ordered.is_sorted());
        let found: BTreeMap<_, _> = workloads.iter().map(|w| ((w.namespace.clone(), w.name.clone()), w.weight)).collect();
        prop_assert_eq!(workloads.len(), expected.len());
        prop_assert_eq!(workloads.is_empty(), expected.is_empty());
        prop_assert_eq!(found, expected);
    }
}

proptest! {
    #[test]
    fn an_index_finds_what_a_search_would(
        ops in prop::collection::vec(("[a-f]", any::<bool>(), 0..3_u8, "[xy]", "[xy]"), 0..40),
        wanted in prop::collection::btree_map("[kl]", "[xyz]", 0..3),
    ) {
        let mut workloads = Workloads::default();
        for (name, add, address, k, l) in ops {
            workloads = if add {
                let labels = [("k".to_owned(), k), ("l".to_owned(), l)].into();
                let address = IpAddr::from([10, 0, 0, address]);
                workloads.with(RegisteredWorkload { labels, address, ..workload("ns", &name, 1) })
            } else {
                workloads.without("ns", &name)
            };
        }
        let names = |those: Vec<&Arc<RegisteredWorkload>>| -> Vec<String> {
            those.iter().map(|one| one.name.clone()).collect()
        };
        let searched = workloads.in_namespace("ns").filter(|one| selects(&wanted, &one.labels)).collect();
        prop_assert_eq!(names(workloads.selected("ns", &wanted).collect()), names(searched));
        for address in (0..3).map(|last| IpAddr::from([10, 0, 0, last])) {
            let searched = workloads.in_namespace("ns").filter(|one| one.address == address).collect();
            prop_assert_eq!(names(workloads.at_address("ns", address).collect()), names(searched));
        }
    }
}
