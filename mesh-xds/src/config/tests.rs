//! Resolution of targets, against what is known at each moment.

use super::{testing::*, *};
use crate::{
    client::{Key, Known},
    resource::AnyResource,
};
use std::collections::BTreeSet;

/// What is known; everything else is pending.
#[derive(Default)]
struct Facts(BTreeMap<Key, Known<AnyResource>>);

impl Facts {
    /// Newly known resources; equal parts stay shared, as the client's cache does it.
    fn good(&mut self, resources: &[AnyResource]) -> &mut Self {
        for resource in resources {
            let key = (resource.resource_type(), resource.name().clone());
            let resource = match self.0.get(&key) {
                Some(Known::Good { resource: old, .. }) => sharing(resource.clone(), old),
                _ => resource.clone(),
            };
            self.0.insert(key, Known::Good { resource, note: None });
        }
        self
    }

    fn noted(&mut self, kind: ResourceType, name: &str, text: &str) {
        if let Some(Known::Good { note, .. }) = self.0.get_mut(&(kind, name.into())) {
            *note = Some(text.into());
        }
    }

    fn bad(&mut self, kind: ResourceType, name: &str) -> &mut Self {
        let cause = XdsErrorCause::DoesNotExist("said so".into());
        let error =
            XdsError { resource_type: kind, name: name.into(), cause, server: "cp".into(), node: "n".into() };
        self.0.insert((kind, name.into()), Known::Bad(error));
        self
    }
}

impl Lookup for Facts {
    fn known(&self, kind: ResourceType, name: &str) -> Known<AnyResource> {
        self.0.get(&(kind, name.into())).cloned().unwrap_or(Known::Pending)
    }

    fn misfit(&self, kind: ResourceType, name: &Name, why: String) -> XdsError {
        let cause = XdsErrorCause::Failed(why.into());
        XdsError { resource_type: kind, name: name.clone(), cause, server: "cp".into(), node: "n".into() }
    }

    fn version(&self) -> Arc<str> {
        "7".into()
    }
}

use ResourceType::{
    Cluster as CDS, ClusterLoadAssignment as EDS, Listener as LDS, RouteConfiguration as RDS,
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
