//! A cluster that is left without endpoints: fail at once, or keep the last ones for a while.

use super::net::*;
use crate::cluster::{AttemptErrorKind, Cluster, ClusterDeps, EmptyEndpoints};
use mesh_xds::resource;
use std::{sync::Arc, time::Duration};
use tonic::Code;

const EMPTY: &str = "cluster reviews: the cluster has no endpoints; EDS resource reviews is empty";

fn keeping(net: &Net, config: &Config, time: Duration) -> Arc<Cluster> {
    let deps = ClusterDeps { empty_endpoints: EmptyEndpoints::Keep(time), ..deps(net) };
    spawn(config.build(), &deps)
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_a_call_fails_at_once_and_names_the_resource() {
    let net = Net::default();
    let [_server] = net.servers();
    let cluster = Config::of(&[1]).spawn(&net);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(cluster.config().note, None);
    cluster.update(Config::of(&[]).build());
    rest().await;
    let error = call(&cluster).await.unwrap_err();
    assert_eq!((error.kind, error.status.message()), (AttemptErrorKind::NoEndpoint, EMPTY));
    assert_eq!(cluster.config().note.as_deref(), Some("EDS resource reviews is empty"));
}

#[tokio::test(start_paused = true)]
async fn the_last_endpoints_are_kept_with_their_connections_for_as_long_as_the_policy_says() {
    let net = Net::default();
    let [server] = net.servers();
    let cluster = keeping(&net, &Config::of(&[1]), Duration::from_secs(30));
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    cluster.update(Config::of(&[]).build());
    rest().await;
    assert_eq!(
        cluster.config().note.as_deref(),
        Some("EDS resource reviews is empty: the last 1 endpoints are kept for 30s")
    );
    pass(Duration::from_secs(15)).await;
    // The control plane repeats itself, in other words: the time does not begin anew.
    let mut missing = Config::of(&[]);
    missing.note = Some("ClusterLoadAssignment reviews does not exist".into());
    cluster.update(missing.build());
    pass(Duration::from_secs(14)).await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(server.dials(), 1);
    pass(Duration::from_secs(2)).await;
    let error = call(&cluster).await.unwrap_err();
    assert_eq!(
        error.status.message(),
        "cluster reviews: the cluster has no endpoints; ClusterLoadAssignment reviews does not exist"
    );
    // What had its time does not come back with the next word that there is nothing.
    cluster.update(Config::of(&[]).build());
    rest().await;
    assert_eq!(call(&cluster).await.unwrap_err().status.message(), EMPTY);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_come_meanwhile_take_over_and_have_a_time_of_their_own() {
    let net = Net::default();
    let [old, new] = net.servers();
    let cluster = keeping(&net, &Config::of(&[1]), Duration::from_secs(30));
    rest().await;
    cluster.update(Config::of(&[]).build());
    pass(Duration::from_secs(20)).await;
    cluster.update(Config::of(&[2]).build());
    rest().await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!((old.hits(), new.hits(), cluster.config().note.clone()), (0, 1, None));
    cluster.update(Config::of(&[]).build());
    pass(Duration::from_secs(29)).await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(new.hits(), 1);
    pass(Duration::from_secs(2)).await;
    assert_eq!(call(&cluster).await.unwrap_err().kind, AttemptErrorKind::NoEndpoint);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_for_another_resource_nor_where_nothing_was() {
    let net = Net::default();
    let [server] = net.servers();
    let cluster = keeping(&net, &Config::of(&[]), Duration::from_secs(30));
    rest().await;
    assert_eq!(call(&cluster).await.unwrap_err().status.message(), EMPTY);
    cluster.update(Config::of(&[1]).build());
    rest().await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    let mut other = Config::of(&[]);
    other.cluster.discovery = resource::cluster::Discovery::Eds("ratings".into());
    cluster.update(other.build());
    rest().await;
    let error = call(&cluster).await.unwrap_err();
    assert!(
        error.status.message().ends_with("; EDS resource ratings is empty"),
        "{}",
        error.status.message()
    );
    assert_eq!(server.hits(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_dropped_and_balanced_as_the_control_plane_says_now() {
    let net = Net::default();
    let [first, second] = net.servers();
    let cluster = keeping(&net, &Config::of(&[1, 2]), Duration::MAX);
    rest().await;
    let mut empty = Config::of(&[]);
    empty.cluster.lb = resource::cluster::LbPolicy::PickFirst { shuffle: false };
    cluster.update(empty.build());
    pass(Duration::from_secs(1_000)).await;
    for _ in 0..10 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    }
    assert_eq!(first.hits().max(second.hits()), 10);
    assert_eq!(first.hits().min(second.hits()), 0);
}
