//! Endpoints that say by themselves whether they serve (gRFC A17), on the wire.

use super::net::*;
use crate::cluster::{AttemptErrorKind, Cluster, ClusterDeps};
use mesh_xds::resource::cluster::{Consecutive, LbPolicy, OutlierDetection};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Code;

const SECOND: Duration = Duration::from_secs(1);

/// Of a mesh that asks for the health of `books`.
fn watching(config: Config, net: &Net) -> Arc<Cluster> {
    spawn(config.build(), &ClusterDeps { health_service: Some("books".into()), ..deps(net) })
}

fn watches(server: &Server) -> usize {
    Arc::strong_count(&server.watches) - 1
}

#[tokio::test(start_paused = true)]
async fn calls_go_where_the_endpoint_says_that_it_serves_over_the_connection_of_calls() {
    let net = Net::default();
    let [well, ill] = net.servers();
    ill.health(Health::Says(2));
    let cluster = watching(Config::of(&[1, 2]), &net);
    assert_eq!(shares(&cluster, [&well, &ill]).await, [100, 0]);
    assert_eq!(well.checked_for(), ["http://127.0.0.1:1/grpc.health.v1.Health/Watch books"]);
    // A word moves it, either way, and nobody is asked again.
    ill.health(Health::Says(1));
    rest().await;
    assert_eq!(shares(&cluster, [&well, &ill]).await, [50, 50]);
    for status in [2, 0, 3, 9] {
        well.health(Health::Says(status));
        rest().await;
        assert_eq!(shares(&cluster, [&well, &ill]).await, [0, 100]);
    }
    pass(300 * SECOND).await;
    assert_eq!([&well, &ill].map(|server| server.checks.load(SeqCst)), [1, 1]);
    assert_eq!([&well, &ill].map(|server| (watches(server), server.dials())), [(1, 1); 2]);
    drop(cluster);
    rest().await;
    assert_eq!([&well, &ill].map(|server| watches(server)), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_first_answer_and_fails_at_once_when_nobody_serves() {
    let net = Net::default();
    let [one] = net.servers();
    one.health(Health::Silent);
    let cluster = watching(Config::of(&[1]), &net);
    let early = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move { call(&cluster).await }
    });
    pass(3 * SECOND).await;
    assert!(!early.is_finished());
    one.health(Health::Says(1));
    assert_eq!(early.await.unwrap().unwrap(), Code::Ok);

    for (health, reason) in [
        (Health::Says(2), "health watch: 127.0.0.1:1 says NOT_SERVING"),
        (Health::Says(0), "health watch: 127.0.0.1:1 says UNKNOWN"),
        (
            Health::Says(3),
            "health watch: 127.0.0.1:1 says SERVICE_UNKNOWN: its health service does not know the service `books`",
        ),
        (Health::Status(Code::Internal), "health watch: 127.0.0.1:1 ended the stream with Internal"),
        (Health::Garbage, "health watch of 127.0.0.1:1 failed: "),
        (Health::Endless, "health watch of 127.0.0.1:1 failed: "),
    ] {
        one.health(Health::Says(1));
        pass(2 * SECOND).await;
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok, "before {health:?}");
        one.health(health);
        rest().await;
        let began = Instant::now();
        let error = call(&cluster).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!((error.kind, error.status.code()), (AttemptErrorKind::NoEndpoint, Code::Unavailable));
        assert!(error.status.message().contains(reason), "{health:?}: {}", error.status);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_the_service_is_well() {
    let net = Net::default();
    let [one] = net.servers();
    one.health(Health::Status(Code::Unimplemented));
    let cluster = watching(Config::of(&[1]), &net);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    pass(300 * SECOND).await;
    assert_eq!(one.checks.load(SeqCst), 1);
    // The next connection may be to a better one.
    one.health(Health::Says(2));
    one.kill();
    pass(5 * SECOND).await;
    assert!(call(&cluster).await.unwrap_err().status.message().contains("says NOT_SERVING"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_stream_is_opened_again_later_each_time_and_soon_after_an_answer() {
    let net = Net::default();
    let [one] = net.servers();
    one.health(Health::Status(Code::Unavailable));
    let cluster = watching(Config::of(&[1]), &net);
    // At 0, 1, 2.6, 5.16, 9.26, 15.8 and 26.3 s, each wait +-20 %.
    pass(20 * SECOND).await;
    let asked = one.checks.load(SeqCst);
    assert!((5..=7).contains(&asked), "{asked}");
    assert_eq!(call(&cluster).await.unwrap_err().kind, AttemptErrorKind::NoEndpoint);
    one.health(Health::Says(1));
    pass(20 * SECOND).await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    let asked = one.checks.load(SeqCst);
    // The stream was long: it is asked at once, in vain, and then from the first wait on.
    one.health(Health::Status(Code::Unavailable));
    rest().await;
    assert_eq!(one.checks.load(SeqCst) - asked, 1);
    pass(Duration::from_millis(1300)).await;
    assert_eq!(one.checks.load(SeqCst) - asked, 2);
}

#[tokio::test(start_paused = true)]
async fn a_goaway_and_another_connection_take_over_what_was_known() {
    let net = Net::default();
    let [one] = net.servers();
    let mut config = Config::of(&[1]);
    config.cluster.connection.max_connection_duration = Some(10 * SECOND);
    let cluster = watching(config, &net);
    for _ in 0..50 {
        let began = Instant::now();
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        assert_eq!(
            began.elapsed(),
            Duration::ZERO,
            "what was known holds for the connection that comes instead"
        );
        pass(SECOND).await;
    }
    assert!(one.dials() > 4);
    rest().await;
    assert_eq!(watches(&one), 1);
    one.health(Health::Says(2));
    rest().await;
    assert_eq!(call(&cluster).await.unwrap_err().kind, AttemptErrorKind::NoEndpoint);
    one.health(Health::Says(1));
    one.go_away();
    rest().await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn pick_first_does_not_ask_until_the_policy_is_another() {
    let net = Net::default();
    let [one] = net.servers();
    one.health(Health::Says(2));
    let mut config = Config::of(&[1]);
    config.cluster.lb = LbPolicy::PickFirst { shuffle: false };
    let cluster = watching(config, &net);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(one.checks.load(SeqCst), 0);
    cluster.update(Config::of(&[1]).build());
    rest().await;
    assert_eq!(call(&cluster).await.unwrap_err().kind, AttemptErrorKind::NoEndpoint);
}

#[tokio::test(start_paused = true)]
async fn the_watch_counts_in_no_breaker_and_for_no_outlier() {
    let net = Net::default();
    let [one] = net.servers();
    let mut config = Config::of(&[1]);
    config.cluster.circuit_breakers.max_requests = 1;
    config.cluster.outlier_detection = Some(OutlierDetection {
        consecutive_5xx: Some(Consecutive { threshold: 1, enforcing: 100 }),
        ..OutlierDetection::default()
    });
    let cluster = watching(config, &net);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!((cluster.in_flight(), watches(&one)), (0, 1));
    one.health(Health::Status(Code::Internal));
    rest().await;
    one.health(Health::Says(1));
    pass(3 * SECOND).await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok, "it is not ejected");
}
