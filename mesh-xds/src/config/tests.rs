//! Resolution of targets, against what is known at each moment.

mod aggregate;
mod held;
mod secrets;

use super::{testing::*, *};
use crate::{
    client::{Key, Known},
    resource::AnyResource,
};
use std::collections::BTreeSet;

/// What is known; everything else is pending.
#[derive(Default)]
struct Facts {
    known: BTreeMap<Key, Known<AnyResource>>,
    /// Who says so.
    server: u32,
    /// Who speaks for names of the authority `other`.
    other_server: u32,
    stored: bool,
    strict: bool,
}

impl Facts {
    /// Newly known resources; equal parts stay shared, as the client's cache does it.
    fn good(&mut self, resources: &[AnyResource]) -> &mut Self {
        for resource in resources {
            let key = (resource.resource_type(), resource.name().clone());
            let resource = match self.known.get(&key) {
                Some(Known::Good { resource: old, .. }) => sharing(resource.clone(), old),
                _ => resource.clone(),
            };
            self.known.insert(key, Known::Good { resource, note: None });
        }
        self
    }

    fn noted(&mut self, kind: ResourceType, name: &str, text: &str) {
        if let Some(Known::Good { note, .. }) = self.known.get_mut(&(kind, name.into())) {
            *note = Some(text.into());
        }
    }

    fn bad(&mut self, kind: ResourceType, name: &str) -> &mut Self {
        self.cannot(kind, name, XdsErrorCause::DoesNotExist("said so".into()))
    }

    fn cannot(&mut self, kind: ResourceType, name: &str, cause: XdsErrorCause) -> &mut Self {
        let error =
            XdsError { resource_type: kind, name: name.into(), cause, server: "cp".into(), node: "n".into() };
        self.known.insert((kind, name.into()), Known::Bad(error));
        self
    }
}

impl Lookup for Facts {
    fn known(&self, kind: ResourceType, name: &str) -> Known<AnyResource> {
        self.known.get(&(kind, name.into())).cloned().unwrap_or(Known::Pending)
    }

    fn misfit(&self, kind: ResourceType, name: &Name, why: String) -> XdsError {
        let cause = XdsErrorCause::Failed(why.into());
        XdsError { resource_type: kind, name: name.clone(), cause, server: "cp".into(), node: "n".into() }
    }

    fn version(&self, _: ResourceType, _: &str) -> Arc<str> {
        "7".into()
    }

    fn source(&self, _: ResourceType, name: &str) -> Source {
        match name.starts_with("xdstp://other/") {
            true => Source { authority: 1, server: self.other_server, stored: false },
            false => Source { authority: 0, server: self.server, stored: self.stored },
        }
    }

    fn is_current(&self, source: Source) -> bool {
        let name = if source.authority == 0 { "" } else { "xdstp://other/" };
        source == self.source(ResourceType::Listener, name)
    }

    fn drops_data(&self, _: Source) -> bool {
        self.strict
    }
}

use ResourceType::{
    Cluster as CDS, ClusterLoadAssignment as EDS, Listener as LDS, RouteConfiguration as RDS, Secret as SDS,
};

fn wanted(names: &BTreeSet<Key>) -> Vec<String> {
    names.iter().map(|(kind, name)| format!("{} {name}", kind.abbreviation())).collect()
}

fn target() -> ClientTarget {
    ClientTarget::new("t".into(), "t".into())
}

/// A target that is resolved: `t` routes by `r` to `a`.
fn resolved() -> (ClientTarget, Facts, Arc<XdsConfig>) {
    let mut facts = Facts::default();
    facts.good(&[listener("t", "r"), routes("r", &[("t", &["a"])]), cluster("a"), endpoints("a", 1)]);
    let mut target = target();
    let config = target.resolve(&facts).publish.unwrap().unwrap();
    (target, facts, config)
}

#[test]
fn a_target_is_published_when_everything_it_names_is_known() {
    let mut facts = Facts::default();
    let mut target = target();
    let steps = [
        (listener("t", "r"), vec!["LDS t", "RDS r"]),
        (routes("r", &[("other", &["x"]), ("t", &["a", "b"])]), vec!["CDS a", "CDS b", "LDS t", "RDS r"]),
        (cluster("a"), vec!["CDS a", "CDS b", "EDS a", "LDS t", "RDS r"]),
        (endpoints("a", 1), vec!["CDS a", "CDS b", "EDS a", "LDS t", "RDS r"]),
    ];
    assert_eq!(wanted(&target.resolve(&facts).wanted), ["LDS t"]);
    for (resource, expected) in steps {
        let resolution = target.resolve(facts.good(&[resource]));
        assert!(resolution.publish.is_none(), "incomplete");
        assert_eq!(wanted(&resolution.wanted), expected);
    }
    let config = target.resolve(facts.bad(CDS, "b")).publish.unwrap().unwrap();
    assert_eq!(&*config.virtual_host.name, "t");
    assert_eq!(&*config.version, "7");
    let a = config.clusters["a"].as_ref().unwrap();
    assert_eq!(a.endpoints.priorities.len(), 1);
    assert!(config.clusters["b"].is_err(), "one missing cluster costs no other");
    assert!(target.resolve(&facts).publish.is_none(), "nothing differs");
}

#[test]
fn missing_endpoints_are_none_with_a_note() {
    let (mut target, mut facts, _) = resolved();
    let config = target.resolve(facts.bad(EDS, "a")).publish.unwrap().unwrap();
    let a = config.clusters["a"].as_ref().unwrap();
    assert!(a.endpoints.priorities.is_empty());
    assert!(a.note.as_ref().unwrap().contains("ClusterLoadAssignment a does not exist: said so"));
}

#[test]
fn ambient_errors_become_notes() {
    let (mut target, mut facts, before) = resolved();
    facts.noted(CDS, "a", "rejected");
    facts.noted(EDS, "a", "stale");
    let config = target.resolve(&facts).publish.unwrap().unwrap();
    let a = config.clusters["a"].as_ref().unwrap();
    assert_eq!(a.note.as_deref(), Some("stale; rejected"));
    assert!(Arc::ptr_eq(&a.endpoints, &before.clusters["a"].as_ref().unwrap().endpoints));
}

#[test]
fn what_did_not_change_keeps_its_arc() {
    let mut facts = Facts::default();
    let hosts: &[(&str, &[&str])] = &[("t", &["a", "b"]), ("u", &["c"])];
    facts.good(&[listener("t", "r"), routes("r", hosts), cluster("a"), cluster("b")]);
    facts.good(&[endpoints("a", 1), endpoints("b", 2)]);
    let mut target = target();
    let before = target.resolve(&facts).publish.unwrap().unwrap();
    let after = target.resolve(facts.good(&[endpoints("a", 9)])).publish.unwrap().unwrap();
    assert!(Arc::ptr_eq(&before.listener, &after.listener) && Arc::ptr_eq(&before.http, &after.http));
    assert!(Arc::ptr_eq(&before.routes, &after.routes));
    let cluster_of = |config: &XdsConfig, name: &str| config.clusters[name].as_ref().unwrap().clone();
    assert!(Arc::ptr_eq(&cluster_of(&before, "b"), &cluster_of(&after, "b")));
    assert!(!Arc::ptr_eq(&cluster_of(&before, "a"), &cluster_of(&after, "a")));
    assert!(Arc::ptr_eq(&cluster_of(&before, "a").cluster, &cluster_of(&after, "a").cluster));
    // Another virtual host of the same RouteConfiguration changes.
    let hosts: &[(&str, &[&str])] = &[("t", &["a", "b"]), ("u", &["d"])];
    let last = target.resolve(facts.good(&[routes("r", hosts)])).publish.unwrap().unwrap();
    assert!(Arc::ptr_eq(&after.virtual_host, &last.virtual_host));
    // One route more in our own; the others keep theirs.
    let hosts: &[(&str, &[&str])] = &[("t", &["b", "a", "b"]), ("u", &["d"])];
    let more = target.resolve(facts.good(&[routes("r", hosts)])).publish.unwrap().unwrap();
    assert!(Arc::ptr_eq(&last.virtual_host.routes[0], &more.virtual_host.routes[1]));
    // A listener that is sent again in the same words does not reach here; one that only looks different does.
    assert!(target.resolve(facts.good(&[listener("t", "r")])).publish.is_none());
}

#[test]
fn old_routes_stay_until_the_new_ones_are_complete_and_endpoints_still_move() {
    let (mut target, mut facts, before) = resolved();
    let resolution = target.resolve(facts.good(&[listener("t", "new")]));
    assert!(resolution.publish.is_none());
    assert_eq!(wanted(&resolution.wanted), ["CDS a", "EDS a", "LDS t", "RDS new", "RDS r"]);
    let moved = target.resolve(facts.good(&[endpoints("a", 2)])).publish.unwrap().unwrap();
    assert!(Arc::ptr_eq(&moved.listener, &before.listener));
    let resolution = target.resolve(facts.good(&[routes("new", &[("t", &["b"])])]));
    assert!(resolution.publish.is_none(), "b is not known");
    assert_eq!(wanted(&resolution.wanted), ["CDS a", "CDS b", "EDS a", "LDS t", "RDS new", "RDS r"]);
    facts.good(&[cluster("b"), endpoints("b", 3)]);
    let resolution = target.resolve(&facts);
    let config = resolution.publish.unwrap().unwrap();
    assert_eq!(config.clusters.keys().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
    assert_eq!(wanted(&resolution.wanted), ["CDS b", "EDS b", "LDS t", "RDS new"], "a is let go");
}

#[test]
fn what_is_in_force_stays_when_what_is_to_replace_it_cannot_be_had() {
    let unreachable = || XdsErrorCause::Unreachable("gone".into());
    let rejected = || XdsErrorCause::Rejected("bad".into());
    for (cause, strict, stays) in [
        (unreachable(), false, true),
        (unreachable(), true, true),
        (rejected(), false, true),
        (rejected(), true, false),
    ] {
        let (mut target, mut facts, _) = resolved();
        facts.strict = strict;
        facts.good(&[listener("t", "new")]).cannot(RDS, "new", cause.clone());
        let resolution = target.resolve(&facts);
        assert_eq!(resolution.publish.is_none(), stays, "{cause:?} {strict}");
        if stays {
            assert_eq!(wanted(&resolution.wanted), ["CDS a", "EDS a", "LDS t", "RDS new", "RDS r"]);
            let moved = target.resolve(facts.good(&[endpoints("a", 2)])).publish;
            assert!(moved.unwrap().is_ok(), "and its endpoints move");
        }
    }
    // That it does not exist was said.
    let (mut target, mut facts, _) = resolved();
    assert!(target.resolve(facts.good(&[listener("t", "new")]).bad(RDS, "new")).publish.unwrap().is_err());
    // With nothing to go on with nobody is kept waiting.
    let mut facts = Facts::default();
    facts.good(&[listener("t", "r")]).cannot(RDS, "r", unreachable());
    assert!(super::tests::target().resolve(&facts).publish.unwrap().is_err());
}

#[test]
fn a_change_below_a_cluster_unwatches_nothing_that_is_in_force_and_costs_nothing_if_it_cannot_be_had() {
    let mut facts = Facts::default();
    facts.good(&[listener("t", "r"), routes("r", &[("t", &["agg", "x"])]), aggregate("agg", &["a"])]);
    facts.good(&[cluster("a"), endpoints("a", 1), cluster("x"), endpoints("x", 1)]);
    let mut target = target();
    target.resolve(&facts).publish.unwrap().unwrap();
    let all = ["CDS a", "CDS agg", "CDS b", "CDS x", "EDS a", "EDS x", "LDS t", "RDS r"];
    let resolution = target.resolve(facts.good(&[aggregate("agg", &["b"])]));
    assert!(resolution.publish.is_none());
    assert_eq!(wanted(&resolution.wanted), all);
    let resolution = target.resolve(facts.cannot(CDS, "b", XdsErrorCause::Unreachable("gone".into())));
    assert!(resolution.publish.is_none(), "a works");
    assert_eq!(wanted(&resolution.wanted), all);
    let resolution = target.resolve(facts.good(&[cluster("b"), endpoints("b", 1)]));
    assert!(resolution.publish.unwrap().is_ok());
    assert!(!wanted(&resolution.wanted).contains(&"CDS a".to_owned()), "now it is let go");
}

#[test]
fn an_unusable_target_says_which_resource_and_why() {
    type Case<'a> = (&'a str, Box<dyn Fn(&mut Facts)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (
            "no listener",
            Box::new(|f| {
                f.bad(LDS, "t");
            }),
            "Listener t does not exist: said so",
        ),
        (
            "no routes",
            Box::new(|f| {
                f.bad(RDS, "r");
            }),
            "RouteConfiguration r does not exist: said so",
        ),
        (
            "a server's listener",
            Box::new(|f| {
                f.good(&[server_listener("t", &["r"])]);
            }),
            "Listener t cannot be used: it is a server's listener",
        ),
        (
            "no virtual host",
            Box::new(|f| {
                f.good(&[routes("r", &[("u", &["a"])])]);
            }),
            "RouteConfiguration r cannot be used: no virtual host has a domain for t",
        ),
    ];
    for (what, change, expected) in cases {
        let (mut target, mut facts, before) = resolved();
        change(&mut facts);
        let error = target.resolve(&facts).publish.unwrap().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{what}: {error}");
        assert!(error.ends_with("(control plane cp, node n)"), "{error}");
        assert!(target.resolve(&facts).publish.is_none(), "said once");
        facts.good(&[listener("t", "r"), routes("r", &[("t", &["a"])])]);
        assert_eq!(target.resolve(&facts).publish.unwrap().unwrap().clusters, before.clusters, "{what}");
    }
}

#[test]
fn a_server_is_published_with_all_its_routes_and_keeps_the_old_ones_meanwhile() {
    let mut facts = Facts::default();
    let mut server = ServerTarget::new("s".into());
    assert_eq!(wanted(&server.resolve(&facts).wanted), ["LDS s"]);
    facts.good(&[server_listener("s", &["x", "y"]), routes("x", &[("*", &[])])]);
    assert!(server.resolve(&facts).publish.is_none());
    let config = server.resolve(facts.bad(RDS, "y")).publish.unwrap().unwrap();
    assert!(config.routes["x"].is_ok() && config.routes["y"].is_err(), "calls of y fail, the server serves");
    let resolution = server.resolve(facts.good(&[server_listener("s", &["z"])]));
    assert!(resolution.publish.is_none());
    assert_eq!(wanted(&resolution.wanted), ["LDS s", "RDS x", "RDS y", "RDS z"]);
    let fixed = server.resolve(facts.good(&[routes("y", &[("*", &[])])])).publish.unwrap().unwrap();
    assert!(Arc::ptr_eq(&fixed.listener, &config.listener), "still the old listener");
    assert!(fixed.routes["y"].is_ok());
    let resolution = server.resolve(facts.good(&[routes("z", &[("*", &[])])]));
    let config = resolution.publish.unwrap().unwrap();
    assert_eq!(config.routes.keys().map(|name| &**name).collect::<Vec<_>>(), ["z"]);
    let error = server.resolve(facts.good(&[listener("s", "z")])).publish.unwrap().unwrap_err();
    assert!(error.to_string().starts_with("Listener s cannot be used: it is a client's api_listener"));
}

/// The facts of another control plane, which are none yet.
fn other(facts: &Facts) -> Facts {
    Facts { server: facts.server + 1, ..Facts::default() }
}

#[test]
fn a_view_is_replaced_by_the_one_of_another_control_plane_as_a_whole() {
    let (mut target, facts, before) = resolved();
    let mut second = other(&facts);
    let kept = ["CDS a", "EDS a", "LDS t", "RDS r"];
    let resolution = target.resolve(&second);
    assert!(resolution.publish.is_none());
    assert_eq!(wanted(&resolution.wanted), kept, "all of it is asked of the successor");
    second.good(&[listener("t", "r"), endpoints("a", 2)]);
    assert!(target.resolve(&second).publish.is_none(), "endpoints of one are no part of the other's view");
    second.good(&[routes("r", &[("t", &["a", "b"])]), cluster("a"), cluster("b")]);
    let resolution = target.resolve(&second);
    assert!(resolution.publish.is_none(), "the endpoints of b are not known");
    let after = target.resolve(second.good(&[endpoints("b", 3)])).publish.unwrap().unwrap();
    assert_eq!(after.clusters.len(), 2);
    assert!(Arc::ptr_eq(&before.listener, &after.listener), "what both say the same keeps its Arc");
    let cluster_of = |config: &XdsConfig, name: &str| config.clusters[name].as_ref().unwrap().clone();
    assert!(Arc::ptr_eq(&cluster_of(&before, "a").cluster, &cluster_of(&after, "a").cluster));
    assert!(Arc::ptr_eq(&before.virtual_host.routes[0], &after.virtual_host.routes[0]));
    // And back, to what is the same: nothing is published, but from now on the first one's changes count.
    assert!(target.resolve(&facts).publish.is_some());
    let mut first = facts;
    let moved = target.resolve(first.good(&[endpoints("a", 9)])).publish.unwrap().unwrap();
    assert_eq!(
        cluster_of(&moved, "a").endpoints.priorities[0].localities[0].endpoints[0].address().port(),
        9
    );
}

#[test]
fn the_same_view_of_another_control_plane_is_no_news() {
    let (mut target, facts, _) = resolved();
    let mut second = other(&facts);
    second.good(&[listener("t", "r"), routes("r", &[("t", &["a"])]), cluster("a"), endpoints("a", 1)]);
    assert!(target.resolve(&second).publish.is_none());
    // Its changes below an incomplete change above count, so it is the one in force.
    second.good(&[listener("t", "new"), endpoints("a", 2)]);
    assert!(target.resolve(&second).publish.is_some());
}

#[test]
fn a_view_outlives_the_errors_of_a_successor_unless_they_are_to_be_followed_or_it_is_from_disk() {
    for (stored, strict, outlives) in [(false, false, true), (false, true, false), (true, false, false)] {
        let (mut target, mut facts, _) = resolved();
        facts.stored = stored;
        target.resolve(facts.good(&[endpoints("a", 5)])).publish.unwrap().unwrap();
        let mut second = Facts { strict, ..other(&facts) };
        let resolution = target.resolve(second.bad(LDS, "t"));
        assert_eq!(resolution.publish.is_none(), outlives, "stored {stored}, strict {strict}");
        assert_eq!(wanted(&resolution.wanted).len(), if outlives { 4 } else { 1 });
    }
}

#[test]
fn a_server_follows_another_control_plane_as_a_whole() {
    let mut first = Facts::default();
    let mut server = ServerTarget::new("s".into());
    first.good(&[server_listener("s", &["x"]), routes("x", &[("*", &[])])]);
    let before = server.resolve(&first).publish.unwrap().unwrap();
    let mut second = other(&first);
    second.good(&[server_listener("s", &["x"])]);
    let resolution = server.resolve(&second);
    assert!(resolution.publish.is_none());
    assert_eq!(wanted(&resolution.wanted), ["LDS s", "RDS x"]);
    second.good(&[routes("x", &[("other", &[])])]);
    let after = server.resolve(&second).publish.unwrap().unwrap();
    assert!(Arc::ptr_eq(&before.listener, &after.listener));
    assert_ne!(before.routes, after.routes);
}

#[test]
fn names_of_authorities_are_looked_up_in_their_canonical_form() {
    let name = "xdstp://a/envoy.config.listener.v3.Listener/t";
    let mut facts = Facts::default();
    facts.good(&[listener(&format!("{name}?a=1&b=2"), "r"), routes("r", &[("t", &[])])]);
    let mut target = ClientTarget::new(format!("{name}?b=2&a=1").into(), "t".into());
    assert!(target.resolve(&facts).publish.unwrap().is_ok());
}

#[test]
fn a_cluster_that_is_named_in_other_words_than_its_own_is_no_news_either() {
    let (own, asked) = (
        "xdstp://x/envoy.config.cluster.v3.Cluster/c?a=1&b=2",
        "xdstp://x/envoy.config.cluster.v3.Cluster/c?b=2&a=1",
    );
    for cluster in [fixed(own, 1), aggregate(own, &["a"])] {
        let mut facts = Facts::default();
        facts.good(&[listener("t", "r"), routes("r", &[("t", &[asked, "x"])]), cluster.clone()]);
        facts.good(&[fixed("a", 1), fixed("x", 1)]);
        let mut target = target();
        let before = target.resolve(&facts).publish.unwrap().unwrap();
        assert!(target.resolve(&facts).publish.is_none(), "nothing differs");
        let after = target.resolve(facts.good(&[fixed("x", 2)])).publish.unwrap().unwrap();
        let kept = |config: &XdsConfig| config.clusters[asked].as_ref().unwrap().clone();
        assert!(Arc::ptr_eq(&kept(&before), &kept(&after)));
    }
}
