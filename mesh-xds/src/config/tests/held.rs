//! What is in force moves on while what is to replace it is awaited.

use super::*;
use crate::resource::{cluster::Discovery, secret::SecretContent};

fn ports(config: &ClusterConfig) -> Vec<u16> {
    let localities = config.endpoints.priorities.iter().flat_map(|priority| &priority.localities);
    localities.flat_map(|locality| &locality.endpoints).map(|endpoint| endpoint.address().port()).collect()
}

fn of<'c>(config: &'c XdsConfig, name: &str) -> &'c Arc<ClusterConfig> {
    config.clusters[name].as_ref().unwrap()
}

/// A cluster that has the endpoints of this name.
fn by(name: &str, service: &str) -> AnyResource {
    AnyResource::Cluster(Arc::new(Cluster::new(name, Discovery::Eds(service.into()))))
}

#[test]
fn new_routes_that_are_awaited_hold_up_no_endpoints() {
    let (mut target, mut facts, before) = resolved();
    assert!(target.resolve(facts.good(&[routes("r", &[("t", &["a", "b"])])])).publish.is_none());
    let resolution = target.resolve(facts.good(&[endpoints("a", 2)]));
    let moved = resolution.publish.unwrap().unwrap();
    assert_eq!(ports(of(&moved, "a")), [2]);
    assert!(Arc::ptr_eq(&moved.routes, &before.routes) && moved.clusters.len() == 1, "the old routes");
    assert_eq!(wanted(&resolution.wanted), ["CDS a", "CDS b", "EDS a", "LDS t", "RDS r"]);
    let after = target.resolve(facts.good(&[cluster("b"), endpoints("b", 3)])).publish.unwrap().unwrap();
    assert_eq!((after.clusters.len(), ports(of(&after, "a"))), (2, vec![2]));
}

#[test]
fn a_cluster_that_is_to_change_holds_up_the_endpoints_of_none_and_its_own_move_on() {
    // What becomes of `a`, and what it then waits for.
    let changes: [(AnyResource, &str, Vec<AnyResource>); 3] = [
        (by("a", "new"), "EDS new", vec![endpoints("new", 7)]),
        (secured("a", "own", "own-roots"), "SDS own", {
            vec![key_pair("own", "k"), secret_roots("own-roots", "r")]
        }),
        (aggregate("a", &["b"]), "CDS b", vec![cluster("b"), endpoints("b", 8)]),
    ];
    for (change, awaits, rest) in changes {
        let mut facts = Facts::default();
        facts.good(&[listener("t", "r"), routes("r", &[("t", &["a", "x"])]), cluster("a"), cluster("x")]);
        facts.good(&[endpoints("a", 1), endpoints("x", 1)]);
        let mut target = target();
        let before = target.resolve(&facts).publish.unwrap().unwrap();
        assert!(target.resolve(facts.good(std::slice::from_ref(&change))).publish.is_none());

        let moved = target.resolve(facts.good(&[endpoints("x", 2)])).publish.unwrap().unwrap();
        assert_eq!(ports(of(&moved, "x")), [2], "{awaits}");
        assert!(Arc::ptr_eq(of(&moved, "a"), of(&before, "a")));
        assert!(target.resolve(&facts).publish.is_none(), "nothing differs");

        let resolution = target.resolve(facts.good(&[endpoints("a", 3)]));
        let moved = resolution.publish.unwrap().unwrap();
        assert_eq!(ports(of(&moved, "a")), [3], "{awaits}: a drain does not wait");
        assert!(Arc::ptr_eq(&of(&moved, "a").cluster, &of(&before, "a").cluster), "it is what it was");
        let watched = wanted(&resolution.wanted);
        for name in ["CDS a", "CDS x", "EDS a", "EDS x", awaits] {
            assert!(watched.contains(&name.to_owned()), "{name}: {watched:?}");
        }

        // Another cluster that is complete is what it is now.
        let moved = target.resolve(facts.good(&[fixed("x", 9)])).publish.unwrap().unwrap();
        assert_eq!((ports(of(&moved, "x")), ports(of(&moved, "a"))), (vec![9], vec![3]));

        let resolution = target.resolve(facts.good(&rest));
        let after = resolution.publish.unwrap().unwrap();
        assert!(!Arc::ptr_eq(&of(&after, "a").cluster, &of(&before, "a").cluster), "{awaits}");
        assert!(!wanted(&resolution.wanted).contains(&"EDS x".to_owned()), "and what went is let go");
    }
}

#[test]
fn below_an_aggregate_that_is_to_change_the_endpoints_of_its_leaves_move_on() {
    let mut facts = Facts::default();
    facts.good(&[listener("t", "r"), routes("r", &[("t", &["agg", "two", "a"])])]);
    facts.good(&[aggregate("agg", &["mid", "c"]), aggregate("mid", &["a"]), aggregate("two", &["a"])]);
    facts.good(&[cluster("a"), endpoints("a", 1), cluster("c"), endpoints("c", 1)]);
    let mut target = target();
    let before = target.resolve(&facts).publish.unwrap().unwrap();
    assert!(target.resolve(facts.good(&[aggregate("agg", &["b"])])).publish.is_none());
    let resolution = target.resolve(facts.good(&[endpoints("c", 2)]));
    let moved = resolution.publish.unwrap().unwrap();
    let leaves = |config: &XdsConfig| -> Vec<(Name, Vec<u16>)> {
        let leaf = |leaf: &LeafCluster| (leaf.name.clone(), ports(leaf.config.as_ref().unwrap()));
        of(config, "agg").leaves.iter().map(leaf).collect()
    };
    assert_eq!(leaves(&moved), [("a".into(), vec![1]), ("c".into(), vec![2])]);
    assert!(Arc::ptr_eq(of(&moved, "two"), of(&before, "two")));
    let all =
        ["CDS a", "CDS agg", "CDS b", "CDS c", "CDS mid", "CDS two", "EDS a", "EDS c", "LDS t", "RDS r"];
    assert_eq!(wanted(&resolution.wanted), all);
    // One that is named in several places is one.
    let moved = target.resolve(facts.good(&[endpoints("a", 3)])).publish.unwrap().unwrap();
    let below = |name: &str| of(&moved, name).leaves[0].config.as_ref().unwrap().clone();
    assert_eq!(ports(&below("agg")), [3]);
    assert!(Arc::ptr_eq(&below("agg"), &below("two")) && Arc::ptr_eq(&below("agg"), of(&moved, "a")));
    // Also one that is to change itself.
    assert!(target.resolve(facts.good(&[by("a", "new")])).publish.is_none());
    let moved = target.resolve(facts.good(&[endpoints("a", 4)])).publish.unwrap().unwrap();
    let below = |name: &str| of(&moved, name).leaves[0].config.as_ref().unwrap().clone();
    assert_eq!(ports(&below("agg")), [4]);
    assert!(Arc::ptr_eq(&below("agg"), &below("two")) && Arc::ptr_eq(&below("agg"), of(&moved, "a")));
    // And when all is there, all of it is new.
    facts.good(&[cluster("b"), endpoints("b", 5), endpoints("new", 6)]);
    let resolution = target.resolve(&facts);
    let after = resolution.publish.unwrap().unwrap();
    assert_eq!((leaves(&after), ports(of(&after, "a"))), (vec![("b".into(), vec![5])], vec![6]));
    let watched = wanted(&resolution.wanted);
    assert!(!watched.contains(&"CDS mid".to_owned()) && !watched.contains(&"CDS c".to_owned()));
}

#[test]
fn what_is_known_of_the_endpoints_of_a_cluster_that_is_to_change_is_noted() {
    let (mut target, mut facts, _) = resolved();
    assert!(target.resolve(facts.good(&[by("a", "new")])).publish.is_none());
    facts.noted(EDS, "a", "stale");
    let noted = target.resolve(&facts).publish.unwrap().unwrap();
    assert_eq!((ports(of(&noted, "a")), of(&noted, "a").note.as_deref()), (vec![1], Some("stale")));
    // Asked for anew, they are what they were.
    facts.known.remove(&(EDS, "a".into()));
    assert!(target.resolve(&facts).publish.is_none());
    // Taken away, they are gone.
    let gone = target.resolve(facts.bad(EDS, "a")).publish.unwrap().unwrap();
    assert!(ports(of(&gone, "a")).is_empty() && of(&gone, "a").note.is_some());
}

#[test]
fn what_was_missing_from_the_first_and_is_awaited_since_holds_up_nothing() {
    let unreachable = || XdsErrorCause::Unreachable("gone".into());
    let mut facts = Facts::default();
    facts.good(&[listener("t", "r"), routes("r", &[("t", &["a", "b"])]), cluster("a"), endpoints("a", 1)]);
    let mut client = target();
    let first = client.resolve(facts.cannot(CDS, "b", unreachable())).publish.unwrap().unwrap();
    assert!(first.clusters["b"].is_err());
    let moved = client.resolve(facts.good(&[endpoints("a", 2)])).publish.unwrap().unwrap();
    assert_eq!((ports(of(&moved, "a")), moved.clusters["b"].is_err()), (vec![2], true));

    let mut facts = Facts::default();
    facts.good(&[server_listener("s", &["x", "y"]), routes("x", &[("*", &[])])]);
    let mut server = ServerTarget::new("s".into());
    let first = server.resolve(facts.cannot(RDS, "y", unreachable())).publish.unwrap().unwrap();
    let moved = server.resolve(facts.good(&[routes("x", &[("other", &[])])])).publish.unwrap().unwrap();
    assert!(!Arc::ptr_eq(moved.routes["x"].as_ref().unwrap(), first.routes["x"].as_ref().unwrap()));
    assert_eq!(moved.routes["y"], first.routes["y"]);
    let whole = server.resolve(facts.good(&[routes("y", &[("*", &[])])])).publish.unwrap().unwrap();
    assert!(whole.routes["y"].is_ok());
}

#[test]
fn a_cluster_that_is_subscribed_by_itself_moves_on_too() {
    let mut facts = Facts::default();
    facts.good(&[cluster("a"), endpoints("a", 1)]);
    let mut target = ClusterTarget::new("a".into());
    target.resolve(&facts).publish.unwrap().unwrap();
    assert!(target.resolve(facts.good(&[by("a", "new")])).publish.is_none());
    let resolution = target.resolve(facts.good(&[endpoints("a", 2)]));
    assert_eq!(ports(&resolution.publish.unwrap().unwrap()), [2]);
    assert_eq!(wanted(&resolution.wanted), ["CDS a", "EDS a", "EDS new"]);
    let resolution = target.resolve(facts.good(&[endpoints("new", 3)]));
    assert_eq!(ports(&resolution.publish.unwrap().unwrap()), [3]);
    assert_eq!(wanted(&resolution.wanted), ["CDS a", "EDS new"]);
}

/// Whoever else is asked for what is awaited does not speak for what is in force.
#[test]
fn another_authority_of_what_is_awaited_holds_up_nothing() {
    let (mut target, mut facts, _) = resolved();
    let other = "xdstp://other/envoy.config.cluster.v3.Cluster/b";
    assert!(target.resolve(facts.good(&[routes("r", &[("t", &["a", other])])])).publish.is_none());
    assert!(target.resolve(facts.good(&[endpoints("a", 2)])).publish.is_some());
    facts.other_server += 1;
    assert!(target.resolve(facts.good(&[endpoints("a", 3)])).publish.is_some());
}

#[test]
fn below_an_aggregate_that_is_to_change_a_leaf_is_what_it_is_now_when_that_is_complete() {
    let mut facts = Facts::default();
    facts.good(&[listener("t", "r"), routes("r", &[("t", &["agg"])]), aggregate("agg", &["a", "c"])]);
    facts.good(&[cluster("a"), endpoints("a", 1), fixed("c", 1)]);
    let mut target = target();
    let before = target.resolve(&facts).publish.unwrap().unwrap();
    let leaf = |config: &XdsConfig, i: usize| of(config, "agg").leaves[i].config.as_ref().unwrap().clone();
    assert!(target.resolve(facts.good(&[aggregate("agg", &["b"])])).publish.is_none());
    let resolution = target.resolve(facts.good(&[by("a", "new")]));
    assert!(resolution.publish.is_none(), "its endpoints are not known");
    assert!(wanted(&resolution.wanted).contains(&"EDS new".to_owned()));
    let moved = target.resolve(facts.good(&[endpoints("new", 2)])).publish.unwrap().unwrap();
    assert_eq!(ports(&leaf(&moved, 0)), [2]);
    assert!(Arc::ptr_eq(&leaf(&moved, 1), &leaf(&before, 1)) && target.resolve(&facts).publish.is_none());
    // It has become an aggregate itself: which leaves that means is a matter of the whole.
    assert!(target.resolve(facts.good(&[aggregate("a", &["c"])])).publish.is_none());
    // What it lacks is not taken: it is in force as it was.
    assert!(target.resolve(facts.good(&[secured("a", "own", "roots")]).bad(SDS, "own")).publish.is_none());
    let after = target.resolve(facts.good(&[fixed("b", 3)])).publish.unwrap().unwrap();
    assert_eq!((ports(&leaf(&after, 0)), of(&after, "agg").leaves.len()), (vec![3], 1));
}

/// The secret that comes back may be another, the endpoints have moved on meanwhile, and what the cluster is to become
/// is awaited still.
#[test]
fn a_secret_that_is_taken_away_and_comes_back_takes_its_cluster_along_whatever_is_awaited() {
    let changes = [by("a", "new"), secured("a", "own", "more-roots"), aggregate("a", &["b"])];
    // Below an aggregate that is to change, as well; and whichever comes first.
    let cases = changes.iter().map(|change| ("a", change.clone())).chain([("agg", aggregate("agg", &["b"]))]);
    for ((top, change), secret_first) in cases.flat_map(|case| [(case.clone(), true), (case, false)]) {
        let mut facts = Facts::default();
        facts.good(&[listener("t", "r"), routes("r", &[("t", &[top])]), aggregate("agg", &["a"])]);
        facts.good(&[secured("a", "own", "roots"), endpoints("a", 1)]);
        facts.good(&[key_pair("own", "k"), secret_roots("roots", "AAAA")]);
        let (mut client, mut alone) = (target(), ClusterTarget::new(top.into()));
        let mut now = |facts: &Facts| {
            let config = client.resolve(facts).publish.map(|config| config.unwrap().clusters[top].clone());
            let resolution = alone.resolve(facts);
            let watched = wanted(&resolution.wanted);
            for name in ["CDS a", "EDS a", "SDS own", "SDS roots"] {
                assert!(watched.contains(&name.to_owned()), "{name}: {watched:?}");
            }
            match (&config, &resolution.publish) {
                (Some(client), Some(alone)) => assert_eq!(client, alone),
                (client, alone) => assert!(client.is_none() && alone.is_none(), "{client:?} {alone:?}"),
            }
            config
        };
        let usable = |config: &Option<Result<Arc<ClusterConfig>, XdsError>>| {
            let config = config.as_ref()?.as_ref().ok()?;
            let leaf = config.leaves.first().map_or(Ok(config), |leaf| leaf.config.as_ref()).ok()?;
            let Some(SecretContent::Validation(roots)) =
                leaf.secrets.roots.as_ref().map(|roots| &roots.content)
            else {
                panic!("{leaf:?} has no roots");
            };
            Some((ports(leaf), roots.roots.len()))
        };
        let (_, before) = usable(&now(&facts)).unwrap();
        if secret_first {
            let gone = now(facts.bad(SDS, "roots"));
            assert!(gone.is_some() && usable(&gone).is_none());
            assert!(now(facts.good(std::slice::from_ref(&change))).is_none(), "{change:?} is awaited");
        } else {
            assert!(now(facts.good(std::slice::from_ref(&change))).is_none(), "{change:?} is awaited");
            let gone = now(facts.bad(SDS, "roots"));
            assert!(gone.is_some() && usable(&gone).is_none(), "{change:?}");
        }
        assert!(now(facts.good(&[endpoints("a", 2)])).is_none(), "it cannot be used");
        // It is asked for anew, and nobody has said that it is there.
        facts.known.remove(&(SDS, "roots".into()));
        assert!(now(&facts).is_none());
        let back = now(facts.good(&[secret_roots("roots", "AAAABBBB")]));
        assert_eq!(usable(&back), Some((vec![2], before + 4)), "{change:?}");
        assert_eq!(usable(&now(facts.good(&[endpoints("a", 3)]))), Some((vec![3], before + 4)));
    }
}
