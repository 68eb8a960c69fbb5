//! Secrets on the wire and in memory: asked for by clusters, rejected alone, and shown to nobody.

use super::*;
use crate::{
    client::{ResourceState, store::Kept},
    resource::{
        Feature, Secret, Support,
        secret::{SecretContent, SecretFault},
    },
};
use ResourceType::{Cluster, ClusterLoadAssignment, Secret as SDS};
use std::time::Duration;

/// What a data path that knows cryptography might say.
fn check(content: &SecretContent) -> Result<(), SecretFault> {
    match content {
        SecretContent::Certificate(certificate)
            if certificate.key.pem().windows(5).any(|at| at == b"wrong") =>
        {
            Err(SecretFault { field: "private_key", reason: "it is another certificate's".to_owned() })
        }
        _ => Ok(()),
    }
}

fn parser() -> Resources {
    let support = Support::of(&[Feature::Sds]);
    Resources { context: ParseContext { support, secrets: check, ..ParseContext::default() } }
}

fn core(stored: Stored<AnyResource>) -> Core<Resources> {
    let settings = Settings { max_resource_bytes: 1 << 20, ..testing::settings(Variant::Sotw) };
    let server = ServerConfig::new("cp:1", ChannelCredentials::Insecure).unwrap();
    let plan = Plan::new(&Bootstrap::new(server, Node::default()));
    let machine = |_: &ServerConfig| Machine::new(parser(), settings.clone());
    Core::new(Federation::new(plan, stored, machine))
}

type Published = crate::client::slot::Reader<ClusterConfig>;

/// The cluster `a` is watched, and there, with endpoints.
fn watched() -> (Core<Resources>, Published) {
    let mut core = core(Stored::none());
    let now = Instant::now();
    let (slot, receiver) = Slot::new();
    let receiver = receiver.reader();
    core.command(now, [Command::WatchCluster { id: 1, cluster: "a".into(), slot }]);
    core.on(now, 0, Input::Opened);
    let outputs = core.on(now, 0, response(Cluster, &[secured("a", "own", "roots")]));
    assert_eq!(asked(&outputs), [(Cluster, 1), (ClusterLoadAssignment, 1), (SDS, 2)], "over the same stream");
    core.on(now, 0, response(ClusterLoadAssignment, &[endpoints("a", 1)]));
    assert!(receiver.borrow().is_none(), "it waits for its secrets");
    (core, receiver)
}

fn key(published: &Published) -> String {
    let config = published.borrow().clone().unwrap().unwrap();
    let SecretContent::Certificate(certificate) = &config.secrets.identity.as_ref().unwrap().content else {
        panic!("no certificate")
    };
    String::from_utf8(certificate.key.pem().to_vec()).unwrap()
}

#[test]
fn a_secret_that_cannot_be_used_is_rejected_and_the_earlier_one_stays() {
    let (mut core, mut published) = watched();
    let now = Instant::now();
    let nack = |actions: &Actions| {
        actions.io.iter().find_map(|(_, action)| match action {
            Action::Send(Request::Sotw(request)) => request.error_detail.clone(),
            _ => None,
        })
    };
    let outputs = core.on(now, 0, response(SDS, &[key_pair("own", "first"), secret_roots("roots", "one")]));
    assert_eq!(nack(&outputs), None);
    assert!(key(&published).contains("first"));

    let outputs = core.on(now, 0, response(SDS, &[key_pair("own", "wrong"), secret_roots("roots", "two")]));
    let said = nack(&outputs).unwrap().message;
    assert_eq!(said, "Secret own: tls_certificate.private_key: it is another certificate's");
    let config = published.borrow_and_update().clone().unwrap().unwrap();
    assert!(key(&published).contains("first"), "the earlier one stays");
    assert!(config.note.as_ref().unwrap().contains("another certificate's"), "{:?}", config.note);
    let AnyResource::Secret(second) = secret_roots("roots", "two") else { unreachable!() };
    assert_eq!(config.secrets.roots, Some(second), "its neighbour is taken");

    core.on(now, 0, response(SDS, &[key_pair("own", "second")]));
    assert!(key(&published).contains("second"));
    assert_eq!(published.borrow().clone().unwrap().unwrap().note, None);
}

#[test]
fn a_key_is_neither_shown_nor_printed_nor_kept() {
    let (mut core, _published) = watched();
    let now = Instant::now();
    core.on(now, 0, response(SDS, &[key_pair("own", "HIDDEN"), secret_roots("roots", "one")]));
    core.on(now, 0, response(SDS, &[key_pair("own", "wrongHIDDEN")]));

    let status = core.federation.status(|_| 0.0);
    let own = status.iter().find(|status| &*status.name == "own").unwrap();
    assert_eq!((own.kind, own.state), ("SDS", ResourceState::Nacked));
    let holds = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"HIDDEN");
    let body = own.body.clone().unwrap();
    assert!(!holds(&body) && body.windows(10).any(|window| window == b"[redacted]"), "{body:?}");
    assert!(!format!("{status:?}").contains("HIDDEN"));
    let known = core.federation.known(SDS, "own");
    assert!(!format!("{known:?}").contains("HIDDEN") && format!("{known:?}").contains("redacted"));

    // Of the bytes that came a mark is left, by which they are known again.
    let (_, machine) = core.federation.machines().next().unwrap();
    let (_, mark, resource) = machine.good(SDS, "own").unwrap();
    assert_eq!(mark.len(), 16);
    assert!(holds(&resource.to_proto()));
    let again = core.on(now, 0, response(SDS, &[key_pair("own", "HIDDEN")]));
    assert!(again.changed.contains(&(SDS, "own".into())), "the fault is over");
    let again = core.on(now, 0, response(SDS, &[key_pair("own", "HIDDEN")]));
    assert!(again.changed.is_empty(), "it is known again");

    let kept: Vec<_> = core.federation.accepted().into_iter().map(|accepted| accepted.key).collect();
    assert!(kept.iter().any(|(kind, _)| *kind == Cluster) && kept.iter().all(|(kind, _)| *kind != SDS));
}

/// A cluster from disk needs a secret, which is never there: it is an error at once, and costs no other cluster.
#[test]
fn a_cluster_from_disk_waits_for_its_secrets() {
    let kept = |resource: AnyResource| {
        let key = (resource.resource_type(), resource.name().clone());
        let body = resource.to_proto();
        (key, Kept { resource, version: "old".into(), body, server: "cp:1".into(), confirmed: 0.0 })
    };
    let disk = [
        listener("t", "r"),
        crate::config::testing::routes("r", &[("t", &["a", "b"])]),
        secured("a", "own", "roots"),
        endpoints("a", 1),
        cluster("b"),
        endpoints("b", 2),
    ];
    let mut core = core(Stored::of(disk.into_iter().map(kept).collect(), "/cache", 1));
    let mut now = Instant::now();
    let (slot, published) = Slot::new();
    let published = published.reader();
    core.command(now, [Command::WatchClient { id: 1, listener: "t".into(), authority: "t".into(), slot }]);
    core.on(now, 0, Input::Closed("refused".into()));
    let config = published.borrow().clone().unwrap().unwrap();
    assert!(config.clusters["b"].is_ok());
    let error = config.clusters["a"].as_ref().unwrap_err().to_string();
    assert!(error.contains("Secret own is not known: control plane unreachable: refused"), "{error}");

    // It answers: what it says replaces the view from disk once it is complete.
    now += Duration::from_secs(60);
    core.tick(now);
    core.on(now, 0, Input::Opened);
    core.on(now, 0, response(ResourceType::Listener, &[listener("t", "r")]));
    let routes = crate::config::testing::routes("r", &[("t", &["a"])]);
    core.on(now, 0, response(ResourceType::RouteConfiguration, &[routes]));
    core.on(now, 0, response(Cluster, &[secured("a", "own", "roots")]));
    core.on(now, 0, response(ClusterLoadAssignment, &[endpoints("a", 1)]));
    core.on(now, 0, response(SDS, &[key_pair("own", "first"), secret_roots("roots", "one")]));
    let config = published.borrow().clone().unwrap().unwrap();
    assert!(config.clusters["a"].as_ref().unwrap().secrets.identity.is_some());
}

/// A control plane that is connected and silent is not waited for either.
#[test]
fn a_silent_control_plane_delays_nothing_of_a_view_from_disk() {
    let AnyResource::Secret(own) = key_pair("own", "x") else { unreachable!() };
    let secret: &Secret = &own;
    let kept = |resource: AnyResource| {
        let key = (resource.resource_type(), resource.name().clone());
        let body = resource.to_proto();
        (key, Kept { resource, version: "old".into(), body, server: "cp:1".into(), confirmed: 0.0 })
    };
    let disk = [secured("a", &secret.name, "roots"), endpoints("a", 1)];
    let mut core = core(Stored::of(disk.into_iter().map(kept).collect(), "/cache", 1));
    let now = Instant::now();
    let (slot, published) = Slot::new();
    let published = published.reader();
    core.command(now, [Command::WatchCluster { id: 1, cluster: "a".into(), slot }]);
    core.on(now, 0, Input::Opened);
    core.tick(now + Duration::from_secs(15));
    let error = published.borrow().clone().unwrap().unwrap_err().to_string();
    assert!(error.contains("no control plane has sent it, and secrets are not kept on disk"), "{error}");
}
