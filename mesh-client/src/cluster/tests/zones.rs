//! Zone-aware routing, on the wire.

use super::{elsewhere::avoiding, net::*};
use crate::cluster::{
    AttemptErrorKind, Cluster, ClusterDeps,
    zones::{Known, tests::callers},
};
use mesh_xds::{
    matcher::Fraction,
    resource::{
        cluster::{LocalityLb, ZoneAware},
        endpoint::HealthStatus,
    },
};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::sync::watch;

/// Endpoints in the zones `a`, `b` and so on, to be used zone by zone.
fn zoned(zones: &[&[u16]], change: impl FnOnce(&mut ZoneAware)) -> Config {
    let mut config = Config::of(&[]);
    let named = zones.iter().zip(["a", "b", "c"]);
    config.endpoints.priorities[0].localities =
        named.map(|(ports, name)| locality(name, 1, ports.iter().copied().map(endpoint).collect())).collect();
    let mut settings = ZoneAware { min_cluster_size: 2, ..ZoneAware::default() };
    change(&mut settings);
    config.cluster.lb_options.localities = LocalityLb::ZoneAware(settings);
    config
}

fn among(callers: Known, config: Config, net: &Net) -> (Arc<Cluster>, watch::Sender<Known>) {
    let (sender, receiver) = watch::channel(callers);
    (spawn(config.build(), &ClusterDeps { callers: Some(receiver), ..deps(net) }), sender)
}

/// How many of 1,000 calls each of these servers got.
async fn shares<const N: usize>(cluster: &Cluster, servers: &[Arc<Server>; N]) -> [usize; N] {
    servers.iter().for_each(|server| {
        server.hits();
    });
    for _ in 0..1000 {
        call(cluster).await.unwrap();
    }
    servers.each_ref().map(|server| server.hits())
}

async fn connected(cluster: &Cluster) {
    for _ in 0..100 {
        let endpoints = cluster.describe().await.unwrap().endpoints;
        if endpoints.values().all(|(endpoint, _)| endpoint.connectivity == "ready") {
            return;
        }
        rest().await;
    }
    panic!("not all are connected");
}

async fn routing(cluster: &Cluster) -> String {
    cluster.describe().await.unwrap().state.zone_routing.unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn calls_stay_in_the_own_zone_as_far_as_it_has_endpoints_for_its_callers() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    let config = || zoned(&[&[1], &[2, 3]], |_| {});
    let (cluster, known) = among(callers(&[1, 2]), config(), &net);
    connected(&cluster).await;
    assert_eq!(shares(&cluster, &servers).await, [1000, 0, 0]);
    assert_eq!(routing(&cluster).await, "100.00 % to /a");

    // Two thirds of the callers are here, and a third of the endpoints: half of the calls go.
    let before = servers.each_ref().map(|server| server.dials.load(SeqCst));
    known.send(callers(&[2, 1])).unwrap();
    rest().await;
    let [own, other, another] = shares(&cluster, &servers).await;
    assert!((450..550).contains(&own), "{own}");
    assert!(other.abs_diff(another) <= 1, "{other} {another}");
    assert_eq!(routing(&cluster).await, "50.00 % to /a, 50.00 % to /b");

    // The own one goes: all go to the other zone, without an error.
    servers[0].kill();
    servers[0].door(Door::Refuses);
    rest().await;
    assert_eq!(shares(&cluster, &servers).await, [0, 500, 500]);
    servers[0].door(Door::Open);
    tokio::time::sleep(Duration::from_secs(10)).await;

    known.send(Err("it was removed".into())).unwrap();
    rest().await;
    let all = shares(&cluster, &servers).await;
    assert!(all.iter().all(|share| share.abs_diff(333) <= 1), "{all:?}");
    assert_eq!(routing(&cluster).await, "off: it was removed");
    assert!(servers.iter().zip(before).skip(1).all(|(server, before)| server.dials.load(SeqCst) == before));
}

#[tokio::test(start_paused = true)]
async fn too_few_endpoints_or_none_that_say_where_callers_are_make_it_one_list() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    let config = zoned(&[&[1], &[2, 3]], |settings| settings.min_cluster_size = 4);
    let (cluster, _known) = among(callers(&[1, 2]), config, &net);
    connected(&cluster).await;
    let all = shares(&cluster, &servers).await;
    assert!(all.iter().all(|share| share.abs_diff(333) <= 1), "{all:?}");
    assert_eq!(routing(&cluster).await, "off: 3 endpoints are ready, fewer than min_cluster_size 4");

    let cluster = zoned(&[&[1], &[2, 3]], |_| {}).spawn(&net);
    assert!(call(&cluster).await.is_ok());
    assert!(routing(&cluster).await.contains("(MeshBuilder::local_cluster)"));
    cluster.update(Config::of(&[1, 2, 3]).build());
    rest().await;
    assert_eq!(cluster.describe().await.unwrap().state.zone_routing, None);
}

#[tokio::test(start_paused = true)]
async fn in_panic_calls_go_anywhere_or_fail_as_configured() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    let config = |fail: bool| {
        let mut config = zoned(&[&[1], &[2, 3]], |settings| settings.fail_traffic_on_panic = fail);
        config.cluster.panic_threshold = Some(Fraction::per_million(500_000));
        for index in [1, 2] {
            config.endpoint(index).health = HealthStatus::Unhealthy;
        }
        config
    };
    let (cluster, _known) = among(callers(&[1, 2]), config(false), &net);
    connected(&cluster).await;
    let all = shares(&cluster, &servers).await;
    assert!(all.iter().all(|share| share.abs_diff(333) <= 1), "{all:?}");

    cluster.update(config(true).build());
    rest().await;
    let error = call(&cluster).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::NoEndpoint);
    assert!(error.status.message().contains("in panic calls fail"), "{}", error.status);
}

#[tokio::test(start_paused = true)]
async fn calls_that_avoid_priorities_change_nothing_of_what_is_told() {
    let net = Net::default();
    let _servers: [_; 4] = net.servers();
    let mut config = zoned(&[&[1], &[2, 3]], |_| {});
    let second = Config::of(&[4]).endpoints.priorities.remove(0);
    config.endpoints.priorities.push(second);
    let (cluster, _known) = among(callers(&[1, 2]), config, &net);
    assert!(call(&cluster).await.is_ok());
    for _ in 0..100 {
        if routing(&cluster).await == "100.00 % to /a" {
            break;
        }
        rest().await;
    }
    let mut context = avoiding(1);
    for _ in 0..2 {
        status(attempt(&cluster, &mut context).await.unwrap()).await;
    }
    assert!(cluster.shared.snapshot.load().levels.is_some());
    assert_eq!(routing(&cluster).await, "100.00 % to /a");
}
