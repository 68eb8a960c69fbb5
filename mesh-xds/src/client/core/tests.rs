//! Many targets over one machine.

mod all;
mod secrets;

use super::*;
use crate::{
    bootstrap::{Bootstrap, ChannelCredentials, Node, ServerConfig},
    client::{
        Machine, Resources, Settings,
        authority::{Action, Plan},
        store::Stored,
        testing,
        wire::{Request, Response},
    },
    config::testing::*,
    name::ResourceType,
    proto,
    resource::{AnyResource, ParseContext},
    server::Variant,
};

fn core() -> Core<Resources> {
    core_of(&["cp:1"])
}

fn core_of(servers: &[&str]) -> Core<Resources> {
    let settings = Settings { max_resource_bytes: 1 << 20, ..testing::settings(Variant::Sotw) };
    let server = |address: &&str| ServerConfig::new(address, ChannelCredentials::Insecure).unwrap();
    let mut bootstrap = Bootstrap::new(server(&servers[0]), Node::default());
    bootstrap.servers = servers.iter().map(server).collect();
    let plan = Plan::new(&bootstrap);
    let machine =
        |_: &ServerConfig| Machine::new(Resources { context: ParseContext::default() }, settings.clone());
    Core::new(Federation::new(plan, Stored::none(), machine))
}

fn response(kind: ResourceType, resources: &[AnyResource]) -> Input {
    let any = |resource: &AnyResource| proto::Any { type_url: kind.url().into(), value: resource.to_proto() };
    Input::Response(Response::Sotw(proto::DiscoveryResponse {
        version_info: "1".into(),
        nonce: "1".into(),
        type_url: kind.url().into(),
        resources: resources.iter().map(any).collect(),
        ..Default::default()
    }))
}

/// Requests as type and number of names.
fn asked(actions: &Actions) -> Vec<(ResourceType, usize)> {
    let read = |(_, action): &(Id, Action)| match action {
        Action::Send(Request::Sotw(request)) => {
            Some((ResourceType::from_url(&request.type_url).unwrap(), request.resource_names.len()))
        }
        Action::Send(Request::Delta(_)) => panic!("delta"),
        _ => None,
    };
    actions.io.iter().filter_map(read).collect()
}

#[test]
fn many_targets_become_few_requests_and_end_with_their_watches() {
    use ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
    const COUNT: usize = 200;
    let mut core = core();
    let now = Instant::now();
    let name = |i: usize| format!("t{i}");
    let mut slots = Vec::new();
    let watch = |i: usize, slots: &mut Vec<_>| {
        let (slot, receiver) = Slot::new();
        let receiver = receiver.reader();
        slots.push(receiver);
        Command::WatchClient { id: i as u64, listener: name(i).into(), authority: name(i).into(), slot }
    };
    let commands: Vec<_> = (0..COUNT).map(|i| watch(i, &mut slots)).collect();
    assert!(matches!(core.command(now, commands).io.as_slice(), [(0, Action::Connect)]));
    assert_eq!(asked(&core.on(now, 0, Input::Opened)), [(Listener, COUNT)]);
    let all = |make: &dyn Fn(&str) -> AnyResource| (0..COUNT).map(|i| make(&name(i))).collect::<Vec<_>>();
    let listeners = all(&|name| listener(name, name));
    // The ACK, and one request for everything that follows.
    let outputs = core.on(now, 0, response(Listener, &listeners));
    assert_eq!(asked(&outputs), [(Listener, COUNT), (RouteConfiguration, COUNT)]);
    let all_routes = all(&|name| routes(name, &[(name, &["shared"])]));
    let outputs = core.on(now, 0, response(RouteConfiguration, &all_routes));
    assert_eq!(asked(&outputs), [(RouteConfiguration, COUNT), (Cluster, 1)]);
    let outputs = core.on(now, 0, response(Cluster, &[cluster("shared")]));
    assert_eq!(asked(&outputs), [(Cluster, 1), (ClusterLoadAssignment, 1)]);
    assert!(slots.iter().all(|slot| slot.borrow().is_none()));
    core.on(now, 0, response(ClusterLoadAssignment, &[endpoints("shared", 1)]));
    assert!(slots.iter().all(|slot| matches!(*slot.borrow(), Some(Ok(_)))));

    // A target that begins late finds everything there.
    let late = vec![Command::Unwatch { id: 7 }, watch(7, &mut slots)];
    assert_eq!(asked(&core.command(now, late)), []);
    assert!(matches!(*slots[COUNT].borrow(), Some(Ok(_))));

    assert_eq!(asked(&core.command(now, (1..COUNT as u64).map(|id| Command::Unwatch { id }))).len(), 2);
    let outputs = core.command(now, [Command::Unwatch { id: 0 }]);
    assert!(asked(&outputs).iter().all(|(_, names)| *names == 0) && asked(&outputs).len() == 4);
    assert!(core.federation.status(|_| 0.0).is_empty());
}

#[test]
fn a_cluster_can_be_wanted_by_itself() {
    use ResourceType::{Cluster, ClusterLoadAssignment};
    let mut core = core();
    let now = Instant::now();
    let (slot, receiver) = Slot::new();
    let mut receiver = receiver.reader();
    core.command(now, [Command::WatchCluster { id: 1, cluster: "one".into(), slot }]);
    assert_eq!(asked(&core.on(now, 0, Input::Opened)), [(Cluster, 1)]);
    let outputs = core.on(now, 0, response(Cluster, &[cluster("one")]));
    assert_eq!(asked(&outputs), [(Cluster, 1), (ClusterLoadAssignment, 1)]);
    assert!(receiver.borrow().is_none(), "it is not complete");
    for port in [1, 2] {
        core.on(now, 0, response(ClusterLoadAssignment, &[endpoints("one", port)]));
        let config = receiver.borrow_and_update().clone().unwrap().unwrap();
        assert_eq!(config.endpoints.priorities[0].localities[0].endpoints[0].address().port(), port);
    }
    core.on(now, 0, response(ClusterLoadAssignment, &[endpoints("one", 2)]));
    assert!(!receiver.has_changed(), "the same again is no news");
    core.on(now, 0, response(Cluster, &[]));
    let removed = receiver.borrow_and_update().clone().unwrap().unwrap();
    assert!(removed.note.as_ref().unwrap().contains("does not exist"), "{:?}", removed.note);

    let outputs = core.command(now, [Command::Unwatch { id: 1 }]);
    assert!(asked(&outputs).iter().all(|(_, names)| *names == 0));
    assert!(core.federation.status(|_| 0.0).is_empty());
}
