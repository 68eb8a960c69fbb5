//! Clusters of clusters, on the wire.

use super::net::*;
use crate::{
    call::Place,
    cluster::{AttemptContext, AttemptErrorKind, Cluster, Session},
    table::registry::Registry,
};
use mesh_xds::{
    config::{ClusterConfig, LeafCluster, XdsError, XdsErrorCause},
    name::ResourceType,
    resource::{
        self, ClusterLoadAssignment,
        cluster::{Discovery, LbPolicy, RingHash},
    },
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::Code;

/// A leaf with these endpoints.
fn leaf(name: &str, ports: &[u16], change: impl Fn(&mut Config)) -> LeafCluster {
    let mut config = Config::of(ports);
    config.cluster.name = name.into();
    change(&mut config);
    LeafCluster { name: name.into(), config: Ok(config.build()) }
}

fn missing(name: &str) -> LeafCluster {
    LeafCluster {
        name: name.into(),
        config: Err(XdsError {
            resource_type: ResourceType::Cluster,
            name: name.into(),
            cause: XdsErrorCause::DoesNotExist("it was not sent".into()),
            server: "127.0.0.1:15010".into(),
            node: "me".into(),
        }),
    }
}

fn aggregate(leaves: Vec<LeafCluster>) -> Arc<ClusterConfig> {
    let names = leaves.iter().map(|leaf| leaf.name.clone()).collect();
    Arc::new(ClusterConfig {
        cluster: Arc::new(resource::Cluster::new("all", Discovery::Aggregate(names))),
        endpoints: Arc::new(ClusterLoadAssignment::new("all")),
        leaves,
        secrets: Default::default(),
        note: None,
    })
}

/// Nothing is released here, so nothing is subscribed.
fn registry(net: &Net) -> Arc<Registry> {
    Registry::new(deps(net), Box::new(|name| unreachable!("{name} was subscribed")))
}

async fn calls(cluster: &Cluster, count: usize) {
    for _ in 0..count {
        assert_eq!(call(cluster).await.unwrap(), Code::Ok);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_leaf_takes_all_calls_and_the_next_only_while_it_failed() {
    let net = Net::default();
    let [one, two, other] = net.servers();
    let registry = registry(&net);
    let cluster = registry.live(&aggregate(vec![leaf("a", &[1, 2], |_| {}), leaf("b", &[3], |_| {})]));
    calls(&cluster, 10).await;
    assert_eq!((one.hits() + two.hits(), other.dials()), (10, 0));
    for server in [&one, &two] {
        server.door(Door::Refuses);
        server.kill();
    }
    rest().await;
    calls(&cluster, 10).await;
    assert_eq!(other.hits(), 10);
    one.door(Door::Open);
    pass(Duration::from_secs(130)).await;
    calls(&cluster, 10).await;
    assert_eq!((one.hits(), other.hits()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_leaf_goes_on_to_the_next_after_ten_seconds() {
    let net = Net::default();
    let [hanging, other] = net.servers();
    hanging.door(Door::Hangs);
    let slow = |config: &mut Config| config.cluster.connection.connect_timeout = Duration::from_secs(60);
    let registry = registry(&net);
    let cluster = registry.live(&aggregate(vec![leaf("a", &[1], slow), leaf("b", &[2], |_| {})]));
    let started = Instant::now();
    calls(&cluster, 1).await;
    assert_eq!((started.elapsed().as_secs(), other.hits()), (10, 1));
}

#[tokio::test(start_paused = true)]
async fn a_first_call_is_not_failed_by_a_leaf_that_refuses_while_another_serves() {
    let net = Net::default();
    let [refusing, other] = net.servers();
    refusing.door(Door::Refuses);
    let registry = registry(&net);
    let cluster = registry.live(&aggregate(vec![leaf("a", &[1], |_| {}), leaf("b", &[2], |_| {})]));
    calls(&cluster, 1).await;
    let empty = registry.live(&aggregate(vec![leaf("c", &[], |_| {}), leaf("b", &[2], |_| {})]));
    calls(&empty, 1).await;
    assert_eq!(other.hits(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_is_not_known_is_passed_over_and_when_none_is_all_are_named() {
    let net = Net::default();
    let [server] = net.servers();
    let registry = registry(&net);
    let cluster = registry.live(&aggregate(vec![missing("a"), leaf("b", &[1], |_| {})]));
    calls(&cluster, 3).await;
    assert_eq!(server.hits(), 3);
    cluster.update(aggregate(vec![missing("a"), missing("c")]));
    rest().await;
    let error = call(&cluster).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::NoEndpoint);
    let message = error.status.message();
    assert!(message.starts_with("cluster all: none of its clusters can be used: "), "{message}");
    assert!(
        message.contains("cluster a does not exist") || message.contains(" a does not exist"),
        "{message}"
    );
    cluster.update(aggregate(vec![leaf("c", &[1], |_| {})]));
    rest().await;
    calls(&cluster, 1).await;
}

#[tokio::test(start_paused = true)]
async fn when_every_leaf_failed_the_call_fails_at_once_and_says_why() {
    let net = Net::default();
    let [one, two] = net.servers();
    let registry = registry(&net);
    let cluster = registry.live(&aggregate(vec![leaf("a", &[1], |_| {}), leaf("b", &[2], |_| {})]));
    calls(&cluster, 1).await;
    for server in [&one, &two] {
        server.door(Door::Refuses);
        server.kill();
    }
    pass(Duration::from_secs(1)).await;
    let started = Instant::now();
    let error = call(&cluster).await.unwrap_err();
    assert_eq!((error.kind, started.elapsed()), (AttemptErrorKind::NoEndpoint, Duration::ZERO));
    assert!(error.status.message().contains("backing off"), "{}", error.status.message());
    let mut context = AttemptContext {
        deadline: Some(Instant::now() + Duration::from_millis(200)),
        wait_for_ready: true,
        ..AttemptContext::default()
    };
    let error = attempt(&cluster, &mut context).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn leaves_have_policies_and_endpoints_of_their_own_and_take_in_changes() {
    let net = Net::default();
    let [one, two, three] = net.servers();
    let ring = |config: &mut Config| config.cluster.lb = LbPolicy::RingHash(RingHash::default());
    let registry = registry(&net);
    let cluster = registry.live(&aggregate(vec![leaf("a", &[1, 2], ring), leaf("b", &[3], |_| {})]));
    calls(&cluster, 1).await;
    assert!(cluster.wants_hash());
    one.hits();
    two.hits();
    for _ in 0..6 {
        let mut context = AttemptContext { hash: Some(5), ..AttemptContext::default() };
        status(attempt(&cluster, &mut context).await.unwrap()).await;
    }
    let hits = [one.hits(), two.hits()];
    assert!(hits.contains(&6) && hits.contains(&0), "{hits:?}");
    cluster.update(aggregate(vec![leaf("a", &[], ring), leaf("b", &[3], |_| {})]));
    rest().await;
    calls(&cluster, 4).await;
    assert_eq!(three.hits(), 4);
    assert!(!cluster.wants_hash());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_becomes_a_cluster_of_clusters_is_another_cluster() {
    let net = Net::default();
    let [one, two] = net.servers();
    let registry = registry(&net);
    let mut plain = Config::of(&[1]);
    plain.cluster.name = "all".into();
    let before = registry.live(&plain.build());
    calls(&before, 1).await;
    let after = registry.live(&aggregate(vec![leaf("b", &[2], |_| {})]));
    assert!(!Arc::ptr_eq(&before, &after));
    calls(&after, 2).await;
    assert_eq!((one.hits(), two.hits()), (1, 2));
}

/// The port that a call goes to whose session is at this one.
async fn of_session(cluster: &Cluster, at: u16) -> u16 {
    let session = Some(Box::new(Session::new([address(at)].into(), None)));
    let response =
        attempt(cluster, &mut AttemptContext { session, ..AttemptContext::default() }).await.unwrap();
    let port = response.body().endpoint().unwrap().port();
    status(response).await;
    port
}

#[tokio::test(start_paused = true)]
async fn a_session_is_looked_for_in_every_priority_of_the_leaf_in_use_and_in_no_other() {
    let net = Net::default();
    let [one, two, _other] = net.servers();
    let both = |config: &mut Config| config.endpoints = Config::with_priorities(&[&[1], &[2]]).endpoints;
    let registry = registry(&net);
    let cluster = registry.live(&aggregate(vec![leaf("a", &[], both), leaf("b", &[3], |_| {})]));
    assert_eq!((of_session(&cluster, 2).await, of_session(&cluster, 1).await), (2, 1));
    assert_eq!(of_session(&cluster, 3).await, 1, "the leaf is chosen before the endpoint (A75)");
    for server in [&one, &two] {
        server.door(Door::Refuses);
        server.kill();
    }
    rest().await;
    assert_eq!((of_session(&cluster, 2).await, of_session(&cluster, 3).await), (3, 3));
}
