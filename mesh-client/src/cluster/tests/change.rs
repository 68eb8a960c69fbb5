//! Changes of configuration and of connections, under calls.

use super::net::*;
use crate::cluster::{AttemptContext, AttemptErrorKind};
use mesh_xds::resource::{cluster::LbPolicy, endpoint::HealthStatus};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tonic::Code;

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_stays_keeps_its_connection() {
    let net = Net::default();
    let [first, second] = net.servers();
    let cluster = Config::of(&[1]).spawn(&net);
    call(&cluster).await.unwrap();
    for ports in [&[1, 2][..], &[2, 1], &[1]] {
        let mut config = Config::of(ports);
        config.cluster.lb = LbPolicy::least_request(2);
        cluster.update(config.build());
        rest().await;
        for _ in 0..20 {
            assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        }
    }
    assert_eq!(first.dials(), 1);
    assert!(second.hits() > 5);
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_finishes_its_streams_and_gets_no_new_ones() {
    let net = Net::default();
    let [first, second] = net.servers();
    first.answer(Answer::Hold);
    let cluster = Config::of(&[1]).spawn(&net);
    let held = attempt(&cluster, &mut AttemptContext::default()).await.unwrap();
    cluster.update(Config::of(&[2]).build());
    rest().await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!((first.hits(), second.hits()), (1, 1));
    let reading = tokio::spawn(status(held));
    rest().await;
    first.release();
    assert_eq!(reading.await.unwrap(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn removed_and_added_again_an_endpoint_is_dialled_anew() {
    let net = Net::default();
    let [server] = net.servers();
    let cluster = Config::of(&[1]).spawn(&net);
    call(&cluster).await.unwrap();
    cluster.update(Config::of(&[]).build());
    rest().await;
    assert_eq!(call(&cluster).await.unwrap_err().kind, AttemptErrorKind::NoEndpoint);
    cluster.update(Config::of(&[1]).build());
    rest().await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(server.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_draining_endpoint_gets_no_new_calls_and_a_degraded_one_what_the_healthy_leave() {
    let net = Net::default();
    let [_draining, degraded, healthy] = net.servers();
    let mut config = Config::of(&[1, 2, 3]);
    config.endpoint(0).health = HealthStatus::Draining;
    config.endpoint(1).health = HealthStatus::Degraded;
    let cluster = config.spawn(&net);
    rest().await;
    for _ in 0..500 {
        call(&cluster).await.unwrap();
    }
    // One of two is healthy: 50 % times 1.4.
    let shares = (degraded.hits(), healthy.hits());
    assert!(shares.0.abs_diff(150) < 45 && shares.0 + shares.1 == 500, "{shares:?}");
    healthy.door(Door::Refuses);
    healthy.kill();
    rest().await;
    for _ in 0..10 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((degraded.hits(), healthy.hits()), (10, 0));
    config.endpoint(1).health = HealthStatus::Unhealthy;
    config.endpoint(2).health = HealthStatus::Unhealthy;
    cluster.update(config.build());
    rest().await;
    assert_eq!(
        call(&cluster).await.unwrap_err().status.message(),
        "cluster reviews: no ready endpoint (3 not usable by their health status)"
    );
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_an_endpoint_between_calls_costs_no_call() {
    let net = Net::default();
    let [first, second] = net.servers();
    let cluster = Config::of(&[1, 2]).spawn(&net);
    rest().await;
    for round in 0..20 {
        if round % 5 == 4 {
            first.door(if round % 2 == 0 { Door::Refuses } else { Door::Open });
            first.kill();
            rest().await;
        }
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    }
    assert_eq!(first.hits() + second.hits(), 20);
}

#[tokio::test(start_paused = true)]
async fn after_goaway_new_calls_use_a_new_connection_and_open_streams_go_on() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Hold);
    let cluster = Config::of(&[1]).spawn(&net);
    let held = attempt(&cluster, &mut AttemptContext::default()).await.unwrap();
    server.go_away();
    rest().await;
    assert_eq!(server.dials(), 2, "the replacement is up before the next call");
    server.answer(Answer::Status(Code::Ok));
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    let reading = tokio::spawn(status(held));
    rest().await;
    server.release();
    assert_eq!(reading.await.unwrap(), Code::Ok);
    assert_eq!(server.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_call_is_pinged_after_30_s_or_less_often_when_the_peer_complained() {
    for (door, dials, pinged_after) in [(Door::Open, 1, 30), (Door::Complains, 2, 60)] {
        let net = Net::default();
        let [server] = net.servers();
        server.door(door);
        server.answer(Answer::Silent);
        let cluster = Config::of(&[1]).spawn(&net);
        pass(Duration::from_millis(10)).await;
        let waiting = tokio::spawn(async move { call(&cluster).await });
        rest().await;
        let before = net.written.load(SeqCst);
        pass(Duration::from_secs(pinged_after - 1)).await;
        assert_eq!((server.dials(), net.written.load(SeqCst)), (dials, before));
        pass(Duration::from_secs(2)).await;
        assert!(net.written.load(SeqCst) > before, "a PING");
        waiting.abort();
        rest().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_old_or_has_served_enough_is_replaced_under_calls() {
    let net = Net::default();
    let [server] = net.servers();
    let mut config = Config::of(&[1]);
    config.cluster.connection.max_connection_duration = Some(Duration::from_secs(60));
    let cluster = config.spawn(&net);
    rest().await;
    for _ in 0..30 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        pass(Duration::from_secs(10)).await;
    }
    assert_eq!(server.dials(), 6);

    server.dials.store(0, SeqCst);
    let mut config = Config::of(&[1]);
    config.cluster.connection.max_requests_per_connection = 10;
    let cluster = config.spawn(&net);
    for _ in 0..45 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        rest().await;
    }
    assert_eq!(server.dials(), 5);
}

/// HTTP/2 numbers the streams of a connection once: a day at 10,000 requests a second.
#[tokio::test(start_paused = true)]
async fn a_connection_is_replaced_before_its_stream_numbers_end() {
    let net = Net::default();
    let [server] = net.servers();
    let cluster = Config::of(&[1]).spawn(&net);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    let snapshot = cluster.shared.snapshot.load_full();
    snapshot.picker.pick(&cluster.shared.dice).unwrap().wear((1 << 30) - (1 << 20) - 2);
    for dials in [1, 2, 2] {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        rest().await;
        assert_eq!(server.dials(), dials);
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_serves_on_while_its_replacement_cannot_be_made() {
    let net = Net::default();
    let [server] = net.servers();
    let mut config = Config::of(&[1]);
    config.cluster.connection.max_connection_duration = Some(Duration::from_secs(60));
    let cluster = config.spawn(&net);
    rest().await;
    server.door(Door::Refuses);
    for _ in 0..30 {
        pass(Duration::from_secs(10)).await;
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    }
    assert!(server.dials() > 3);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_the_next_call_makes_another() {
    let net = Net::default();
    let [first, second] = net.servers();
    let mut config = Config::of(&[1, 2]);
    config.cluster.connection.idle_timeout = Some(Duration::from_secs(60));
    let cluster = config.spawn(&net);
    rest().await;
    for _ in 0..10 {
        call(&cluster).await.unwrap();
        pass(Duration::from_secs(20)).await;
    }
    assert_eq!((first.dials(), second.dials()), (1, 1));
    pass(Duration::from_secs(600)).await;
    assert_eq!((first.dials(), second.dials()), (1, 1));
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    rest().await;
    assert_eq!((first.dials(), second.dials()), (2, 2), "one call wakes them all");
}

#[tokio::test(start_paused = true)]
async fn pick_first_uses_one_endpoint_and_moves_when_it_is_lost() {
    let net = Net::default();
    let [first, second, third] = net.servers();
    let mut config = Config::of(&[1, 2, 3]);
    config.cluster.lb = LbPolicy::PickFirst { shuffle: false };
    let cluster = config.spawn(&net);
    for _ in 0..5 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((first.hits(), second.dials(), third.dials()), (5, 0, 0));
    first.door(Door::Refuses);
    first.kill();
    rest().await;
    for _ in 0..5 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((second.hits(), third.dials()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn the_tasks_end_with_the_cluster_and_a_response_in_flight_does_not() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Hold);
    let cluster = Config::of(&[1]).spawn(&net);
    let held = attempt(&cluster, &mut AttemptContext::default()).await.unwrap();
    let shared = Arc::downgrade(&cluster.shared);
    drop(cluster);
    rest().await;
    assert!(shared.upgrade().is_none(), "the actor is gone");
    let reading = tokio::spawn(status(held));
    rest().await;
    server.release();
    assert_eq!(reading.await.unwrap(), Code::Ok);
    server.kill();
    pass(Duration::from_secs(3600)).await;
    assert_eq!(server.dials(), 1, "nobody dials again");
}

#[tokio::test(start_paused = true)]
async fn a_changed_breaker_limit_holds_for_the_next_call() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Hold);
    let mut config = Config::of(&[1]);
    let cluster = config.spawn(&net);
    let _held = attempt(&cluster, &mut AttemptContext::default()).await.unwrap();
    config.cluster.circuit_breakers.max_requests = 1;
    cluster.update(config.build());
    rest().await;
    assert_eq!(call(&cluster).await.unwrap_err().kind, AttemptErrorKind::LocalOverflow);
    config.cluster.circuit_breakers.max_requests = 2;
    cluster.update(config.build());
    rest().await;
    assert!(attempt(&cluster, &mut AttemptContext::default()).await.is_ok());
}
