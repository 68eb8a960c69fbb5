//! Clusters of clusters (gRFC A37, A74, A75).

use super::*;

/// `t` routes by `r` to `top`; nothing is known of `top` yet.
fn routed() -> (ClientTarget, Facts) {
    let mut facts = Facts::default();
    facts.good(&[listener("t", "r"), routes("r", &[("t", &["top"])])]);
    (target(), facts)
}

fn published(target: &mut ClientTarget, facts: &Facts) -> Arc<XdsConfig> {
    target.resolve(facts).publish.unwrap().unwrap()
}

fn top(config: &XdsConfig) -> &ClusterConfig {
    config.clusters["top"].as_ref().unwrap()
}

/// The leaves of `top`, those that cannot be used with a `!`.
fn leaves(config: &XdsConfig) -> Vec<String> {
    let mark = |leaf: &LeafCluster| format!("{}{}", leaf.name, if leaf.config.is_ok() { "" } else { "!" });
    top(config).leaves.iter().map(mark).collect()
}

fn ports(config: &ClusterConfig) -> Vec<u16> {
    let localities = config.endpoints.priorities.iter().flat_map(|priority| &priority.localities);
    localities.flat_map(|locality| &locality.endpoints).map(|endpoint| endpoint.address().port()).collect()
}

#[test]
fn leaves_stand_depth_first_each_once_and_everything_is_watched() {
    let (mut target, mut facts) = routed();
    // A diamond: `left` and `right` share `shared`.
    facts.good(&[aggregate("top", &["left", "a", "right"])]);
    facts.good(&[aggregate("left", &["shared", "b"]), aggregate("right", &["c", "shared"])]);
    let names = ["a", "b", "c", "shared"];
    let watched: Vec<String> = ["CDS a", "CDS b", "CDS c", "CDS left", "CDS right", "CDS shared", "CDS top"]
        .map(String::from)
        .into();
    let resolution = target.resolve(&facts);
    assert!(resolution.publish.is_none());
    assert_eq!(wanted(&resolution.wanted)[..7], watched, "all at once");
    for (port, name) in (1..).zip(names) {
        assert!(target.resolve(&facts).publish.is_none(), "{name} is missing");
        facts.good(&[cluster(name), endpoints(name, port)]);
    }
    let resolution = target.resolve(&facts);
    let config = resolution.publish.unwrap().unwrap();
    assert_eq!(leaves(&config), ["shared", "b", "a", "c"]);
    assert_eq!(config.clusters.len(), 1, "the leaves stand below it");
    let all: Vec<_> = top(&config).leaves.iter().map(|leaf| ports(leaf.config.as_ref().unwrap())).collect();
    assert_eq!(all, [[4], [2], [1], [3]]);
    assert!(ports(top(&config)).is_empty());
    let endpoints = ["EDS a", "EDS b", "EDS c", "EDS shared"];
    assert_eq!(wanted(&resolution.wanted)[7..11], endpoints);
}

#[test]
fn a_leaf_that_cannot_be_used_costs_no_other() {
    let (mut target, mut facts) = routed();
    facts.good(&[aggregate("top", &["gone", "empty", "a"]), cluster("empty")]);
    facts.bad(CDS, "gone");
    facts.bad(EDS, "empty");
    facts.good(&[cluster("a"), endpoints("a", 1)]);
    let config = published(&mut target, &facts);
    assert_eq!(leaves(&config), ["gone!", "empty", "a"]);
    let empty = top(&config).leaves[1].config.as_ref().unwrap();
    assert!(empty.endpoints.priorities.is_empty() && empty.note.is_some(), "passed over, with the reason");
}

#[test]
fn a_leaf_whose_update_was_rejected_stays_as_it_was() {
    let (mut target, mut facts) = routed();
    facts.good(&[aggregate("top", &["a", "b"]), cluster("a"), endpoints("a", 1)]);
    facts.good(&[cluster("b"), endpoints("b", 2)]);
    let before = published(&mut target, &facts);
    facts.noted(EDS, "a", "rejected");
    let after = published(&mut target, &facts);
    assert_eq!(leaves(&after), ["a", "b"]);
    let [a, b] = &*top(&after).leaves else { panic!("two leaves") };
    assert_eq!(ports(a.config.as_ref().unwrap()), [1], "with the endpoints it had");
    assert_eq!(a.config.as_ref().unwrap().note.as_deref(), Some("rejected"));
    let (old, new) = (top(&before).leaves[1].config.as_ref(), b.config.as_ref());
    assert!(Arc::ptr_eq(old.unwrap(), new.unwrap()), "what did not change keeps its Arc");
    // Gone for good: it is an error of the leaf alone.
    facts.bad(CDS, "a");
    assert_eq!(leaves(&published(&mut target, &facts)), ["a!", "b"]);
}

#[test]
fn a_loop_ends_where_it_closes_and_one_without_leaves_is_an_error() {
    for (children, of_child) in [(vec!["top"], vec![]), (vec!["x"], vec!["top"]), (vec!["x"], vec!["x"])] {
        let (mut target, mut facts) = routed();
        facts.good(&[aggregate("top", &children), aggregate("x", &of_child)]);
        let config = published(&mut target, &facts);
        let error = config.clusters["top"].as_ref().unwrap_err().to_string();
        assert!(error.starts_with("Cluster top cannot be used") && error.contains("no leaf"), "{error}");
    }
    let (mut target, mut facts) = routed();
    facts.good(&[aggregate("top", &["x", "b"]), aggregate("x", &["top", "a", "x"])]);
    facts.good(&[cluster("a"), endpoints("a", 1), cluster("b"), endpoints("b", 2)]);
    assert_eq!(leaves(&published(&mut target, &facts)), ["a", "b"]);
}

/// `top`, then `n1`, `n2` and so on, each in the one before; the last one is a leaf.
fn chain(facts: &mut Facts, aggregates: usize) {
    let name = |i: usize| if i == 0 { "top".to_owned() } else { format!("n{i}") };
    for i in 0..aggregates {
        facts.good(&[aggregate(&name(i), &[&name(i + 1)])]);
    }
    facts.good(&[cluster(&name(aggregates)), endpoints(&name(aggregates), 1)]);
}

#[test]
fn clusters_of_clusters_nest_sixteen_deep() {
    let (mut target, mut facts) = routed();
    chain(&mut facts, 15);
    assert_eq!(leaves(&published(&mut target, &facts)), ["n15"], "the sixteenth");
    let (mut target, mut facts) = routed();
    chain(&mut facts, 16);
    let config = published(&mut target, &facts);
    let error = config.clusters["top"].as_ref().unwrap_err().to_string();
    assert!(error.contains("nest deeper than 16"), "{error}");
}

#[test]
fn a_leaf_that_routes_name_too_is_one_configuration() {
    let mut facts = Facts::default();
    facts.good(&[listener("t", "r"), routes("r", &[("t", &["top", "a"])]), aggregate("top", &["a"])]);
    facts.good(&[cluster("a"), endpoints("a", 1)]);
    let mut target = target();
    let config = published(&mut target, &facts);
    let below = top(&config).leaves[0].config.as_ref().unwrap();
    assert!(Arc::ptr_eq(below, config.clusters["a"].as_ref().unwrap()));
    // The route to it goes; below the aggregate it is still the same.
    let config = published(&mut target, facts.good(&[routes("r", &[("t", &["top"])])]));
    assert!(Arc::ptr_eq(below, top(&config).leaves[0].config.as_ref().unwrap()));
}

#[test]
fn static_and_dns_clusters_need_no_assignment() {
    let dns = crate::resource::cluster::StrictDns {
        priorities: Vec::new(),
        drops: Vec::new(),
        dns: Default::default(),
    };
    let discovery = crate::resource::cluster::Discovery::StrictDns(Arc::new(dns));
    let named = AnyResource::Cluster(Arc::new(Cluster::new("named", discovery)));
    let (mut target, mut facts) = routed();
    facts.good(&[aggregate("top", &["named", "fixed"]), named, fixed("fixed", 7)]);
    let resolution = target.resolve(&facts);
    let config = resolution.publish.unwrap().unwrap();
    assert_eq!(leaves(&config), ["named", "fixed"]);
    assert!(ports(top(&config).leaves[0].config.as_ref().unwrap()).is_empty(), "for the data path to find");
    assert_eq!(ports(top(&config).leaves[1].config.as_ref().unwrap()), [7]);
    assert_eq!(wanted(&resolution.wanted), ["CDS fixed", "CDS named", "CDS top", "LDS t", "RDS r"]);
    assert!(target.resolve(&facts).publish.is_none(), "nothing differs");
}
