//! Single calls: who gets them, what bounds them, what their failures say.

use super::net::*;
use crate::{
    body::CallBody,
    call::Upstream,
    cluster::{AttemptContext, AttemptErrorKind, Cluster, snapshot::Snapshot},
    endpoint::{
        Endpoint, Reserved,
        conn::{Conn, Line},
        io::Watched,
    },
    lb::{Balancer, Picker},
};
use mesh_xds::{
    matcher::Fraction,
    resource::{cluster::LbPolicy, endpoint::DropOverload, route::RoutingPriority},
};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Code;

fn with_deadline(after: Duration) -> AttemptContext {
    AttemptContext { deadline: Some(Instant::now() + after), ..AttemptContext::default() }
}

#[tokio::test(start_paused = true)]
async fn a_call_reaches_an_endpoint_and_comes_back_with_its_status() {
    let net = Net::default();
    let [server] = net.servers();
    let cluster = Config::of(&[1]).spawn(&net);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    server.answer(Answer::Status(Code::NotFound));
    assert_eq!(call(&cluster).await.unwrap(), Code::NotFound);
    server.answer(Answer::TrailersOnly(Code::Internal));
    assert_eq!(call(&cluster).await.unwrap(), Code::Internal);
    assert_eq!((server.hits(), server.dials()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_connections_costs_no_call() {
    let net = Net::default();
    let [dead, first, second] = net.servers();
    dead.door(Door::Refuses);
    for lb in [LbPolicy::RoundRobin, LbPolicy::least_request(2), LbPolicy::Random] {
        let mut config = Config::of(&[1, 2, 3]);
        config.cluster.lb = lb;
        let cluster = config.spawn(&net);
        for _ in 0..300 {
            assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        }
        assert_eq!(dead.hits(), 0);
        assert!(first.hits() > 50 && second.hits() > 50);
    }
}

#[tokio::test(start_paused = true)]
async fn without_endpoints_a_call_fails_at_once_and_says_why() {
    let mut config = Config::of(&[]);
    config.note = Some("EDS resource reviews was not found".into());
    let error = call(&config.spawn(&Net::default())).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::NoEndpoint);
    assert_eq!(error.status.code(), Code::Unavailable);
    assert_eq!(
        error.status.message(),
        "cluster reviews: the cluster has no endpoints; EDS resource reviews was not found"
    );
    assert!(error.request.is_some(), "the request was not sent");
}

#[tokio::test(start_paused = true)]
async fn when_every_endpoint_failed_a_call_fails_at_once_and_names_the_cause() {
    let net = Net::default();
    let cluster = Config::of(&[1, 2]).spawn(&net);
    let started = Instant::now();
    let error = call(&cluster).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(10));
    assert_eq!(error.kind, AttemptErrorKind::NoEndpoint);
    let message = error.status.message();
    let expected = "cluster reviews: no ready endpoint (2 backing off: 127.0.0.1:";
    assert!(message.starts_with(expected), "{message}");
    assert!(message.ends_with(": connection refused)"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn wait_for_ready_waits_through_failures() {
    let net = Net::default();
    let [server] = net.servers();
    server.door(Door::Refuses);
    let cluster = Config::of(&[1]).spawn(&net);
    let started = Instant::now();
    let mut context = AttemptContext { wait_for_ready: true, ..AttemptContext::default() };
    let calling = attempt(&cluster, &mut context);
    let opening = async {
        pass(Duration::from_millis(500)).await;
        server.door(Door::Open);
    };
    let (response, ()) = tokio::join!(calling, opening);
    assert_eq!(status(response.unwrap()).await, Code::Ok);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(800) && waited <= Duration::from_millis(1300), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_connection_ends_with_its_deadline() {
    let net = Net::default();
    let [server] = net.servers();
    server.door(Door::Hangs);
    let cluster = Config::of(&[1]).spawn(&net);
    let started = Instant::now();
    let error = attempt(&cluster, &mut with_deadline(Duration::from_millis(250))).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::from_millis(250));
    assert_eq!(error.kind, AttemptErrorKind::DeadlineExceeded);
    assert_eq!(
        (error.status.code(), error.status.message()),
        (
            Code::DeadlineExceeded,
            "cluster reviews: deadline exceeded while waiting: no ready endpoint (1 connecting; \
             connecting to 127.0.0.1:1)"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_response_ends_with_its_deadline() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Silent);
    let cluster = Config::of(&[1]).spawn(&net);
    let started = Instant::now();
    let error = attempt(&cluster, &mut with_deadline(Duration::from_secs(2))).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    assert_eq!(
        error.status.message(),
        "cluster reviews: endpoint 127.0.0.1:1: no response before the deadline"
    );
    assert!(error.request.is_none());
}

/// A per-try timeout ends with the headers: it does not make a cancelled stream an endpoint's fault.
#[tokio::test(start_paused = true)]
async fn a_response_has_as_much_time_as_the_call() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Hold);
    let cluster = Config::of(&[1]).spawn(&net);
    let endpoint = || {
        let snapshot = cluster.shared.snapshot.load_full();
        Arc::clone(snapshot.picker.pick(&cluster.shared.dice).unwrap())
    };
    let open = async |ends: Option<u64>| {
        let ends = ends.map(|ends| Instant::now() + Duration::from_millis(ends));
        let mut context = AttemptContext { ends, ..with_deadline(Duration::from_millis(100)) };
        attempt(&cluster, &mut context).await.unwrap()
    };
    let response = open(None).await;
    pass(Duration::from_millis(200)).await;
    drop(response);
    assert_eq!(endpoint().tally().take(), (0, 0), "cancelled");

    let response = open(Some(150)).await;
    pass(Duration::from_millis(200)).await;
    drop(response);
    assert_eq!(endpoint().tally().take(), (0, 1), "out of time");

    let place = crate::call::Late::late(open(None).await.into_body());
    assert_eq!(place, "cluster reviews: endpoint 127.0.0.1:1: ");
    assert_eq!((endpoint().tally().take(), endpoint().in_flight()), ((0, 1), 0), "silent for too long");
}

#[tokio::test(start_paused = true)]
async fn a_dial_gives_up_after_the_connect_timeout_and_says_so() {
    let net = Net::default();
    let [server] = net.servers();
    server.door(Door::Hangs);
    let cluster = Config::of(&[1]).spawn(&net);
    let started = Instant::now();
    let error = call(&cluster).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(
        error.status.message(),
        "cluster reviews: no ready endpoint (1 backing off: 127.0.0.1:1: not connected within 5s)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_never_ready() {
    let net = Net::default();
    let [server] = net.servers();
    server.door(Door::HangsUp);
    let message = call(&Config::of(&[1]).spawn(&net)).await.unwrap_err().status.message().to_owned();
    assert!(message.contains("1 backing off: 127.0.0.1:1: "), "{message}");
    assert_eq!(server.hits(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_second_address_of_an_endpoint_is_used_when_the_first_refuses() {
    let net = Net::default();
    let [first, second] = net.servers();
    first.door(Door::Refuses);
    let mut config = Config::of(&[1]);
    config.endpoint(0).addresses.push(address(2));
    assert_eq!(call(&config.spawn(&net)).await.unwrap(), Code::Ok);
    assert_eq!(second.hits(), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_of_priority_high_have_limits_of_their_own() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Hold);
    let mut config = Config::of(&[1]);
    config.cluster.circuit_breakers.max_requests = 1;
    config.cluster.circuit_breakers.high.max_requests = 2;
    config.cluster.circuit_breakers.high.max_pending_requests = Some(0);
    let cluster = config.spawn(&net);
    rest().await;
    let high = || AttemptContext { priority: RoutingPriority::High, ..AttemptContext::default() };
    let mut held = vec![attempt(&cluster, &mut AttemptContext::default()).await.unwrap()];
    assert!(attempt(&cluster, &mut AttemptContext::default()).await.is_err());
    held.push(attempt(&cluster, &mut high()).await.unwrap());
    held.push(attempt(&cluster, &mut high()).await.unwrap());
    let error = attempt(&cluster, &mut high()).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::LocalOverflow);
    assert_eq!(
        error.status.message(),
        "cluster reviews: circuit breaker: max_requests of priority HIGH (2) are in flight"
    );
    let (usual, important) = (cluster.held(RoutingPriority::Default), cluster.held(RoutingPriority::High));
    assert_eq!((usual.requests, usual.refused, important.requests, important.refused), (1, 1, 2, 1));
    let state = cluster.describe().await.unwrap().state;
    assert_eq!((state.in_flight, state.high_priority_in_flight, state.refused), (3, 2, 2));
    drop(held);
    assert_eq!((cluster.in_flight(), server.dials()), (0, 1), "they share the connection");

    server.door(Door::Hangs);
    server.kill();
    rest().await;
    let error = attempt(&cluster, &mut high()).await.unwrap_err();
    assert!(error.status.message().contains("max_pending_requests of priority HIGH (0)"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_counts_a_call_until_the_end_of_its_stream() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Hold);
    let mut config = Config::of(&[1]);
    config.cluster.circuit_breakers.max_requests = 1;
    let cluster = config.spawn(&net);
    let held = attempt(&cluster, &mut AttemptContext::default()).await.unwrap();
    let error = call(&cluster).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::LocalOverflow);
    assert_eq!(
        (error.status.code(), error.status.message()),
        (Code::Unavailable, "cluster reviews: circuit breaker: max_requests (1) are in flight")
    );
    let reading = tokio::spawn(status(held));
    rest().await;
    assert!(call(&cluster).await.is_err());
    server.release();
    assert_eq!(reading.await.unwrap(), Code::Ok);
    server.answer(Answer::Status(Code::Ok));
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(server.hits(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_response_gives_its_permit_back() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Hold);
    let mut config = Config::of(&[1]);
    config.cluster.circuit_breakers.max_requests = 1;
    let cluster = config.spawn(&net);
    for _ in 0..3 {
        drop(attempt(&cluster, &mut AttemptContext::default()).await.unwrap());
    }
    server.answer(Answer::Silent);
    let given_up = tokio::time::timeout(Duration::from_secs(1), call(&cluster)).await;
    assert!(given_up.is_err());
    server.answer(Answer::Status(Code::Ok));
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_a_connection_are_limited() {
    let net = Net::default();
    let [server] = net.servers();
    server.door(Door::Hangs);
    let mut config = Config::of(&[1]);
    config.cluster.circuit_breakers.max_pending_requests = Some(1);
    let cluster = config.spawn(&net);
    let mut context = with_deadline(Duration::from_secs(1));
    let (first, second) = tokio::join!(attempt(&cluster, &mut context), call(&cluster));
    assert_eq!(first.unwrap_err().kind, AttemptErrorKind::DeadlineExceeded);
    let second = second.unwrap_err();
    assert_eq!(second.kind, AttemptErrorKind::LocalOverflow);
    assert_eq!(
        second.status.message(),
        "cluster reviews: circuit breaker: max_pending_requests (1) wait for a connection; \
         no ready endpoint (1 connecting; connecting to 127.0.0.1:1)"
    );
    assert_eq!(attempt(&cluster, &mut with_deadline(Duration::from_secs(1))).await.unwrap_err().kind, {
        AttemptErrorKind::DeadlineExceeded
    });
}

#[tokio::test(start_paused = true)]
async fn dropped_calls_reach_nobody_and_name_the_category() {
    let net = Net::default();
    let [server] = net.servers();
    let mut config = Config::of(&[1]);
    let drop = |category: &str, parts| DropOverload {
        category: category.into(),
        fraction: Fraction::per_million(parts),
    };
    config.endpoints.drops = vec![drop("never", 0), drop("overload", 1_000_000)];
    let error = call(&config.spawn(&net)).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::Dropped);
    assert_eq!(
        error.status.message(),
        "cluster reviews: call dropped by the control plane's drop_overload overload"
    );
    config.endpoints.drops = vec![drop("some", 300_000)];
    let cluster = config.spawn(&net);
    let mut dropped = 0;
    for _ in 0..2000 {
        dropped += i32::from(call(&cluster).await.is_err());
    }
    // 600 ± 5 standard deviations of 20.5.
    assert!((498..=702).contains(&dropped), "{dropped}");
    assert_eq!(server.hits(), 2000 - usize::try_from(dropped).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_told_from_a_reset_one() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Reset);
    let cluster = Config::of(&[1]).spawn(&net);
    let error = call(&cluster).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::Reset);
    assert!(error.status.message().starts_with("cluster reviews: endpoint 127.0.0.1:1: "));
    assert!(error.request.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_fails_is_not_the_endpoints_fault() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Silent);
    let cluster = Config::of(&[1]).spawn(&net);
    rest().await;
    let failing = futures_util::stream::once(async {
        rest().await;
        Err::<http_body::Frame<bytes::Bytes>, _>(tonic::Status::internal("the caller's stream broke"))
    });
    let body = tonic::body::Body::new(http_body_util::StreamBody::new(Box::pin(failing)));
    let request = request().map(|_| CallBody::Tonic(body));
    let error = Upstream::attempt(&*cluster, request, &mut AttemptContext::default()).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::RequestBody);
    assert_eq!(error.status.message(), "cluster reviews: endpoint 127.0.0.1:1: the request's body failed");
    let snapshot = cluster.shared.snapshot.load_full();
    let endpoint = snapshot.picker.pick(&cluster.shared.dice).unwrap();
    assert_eq!((endpoint.tally().take(), endpoint.in_flight()), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_unavailable_and_named() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Silent);
    let cluster = Config::of(&[1]).spawn(&net);
    let killing = async {
        rest().await;
        server.kill();
    };
    let (result, ()) = tokio::join!(call(&cluster), killing);
    let error = result.unwrap_err();
    assert_eq!((error.kind, error.status.code()), (AttemptErrorKind::Reset, Code::Unavailable));
    assert!(error.status.message().starts_with("cluster reviews: endpoint 127.0.0.1:1: "));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_dying_connection_hands_back_goes_elsewhere() {
    let net = Net::default();
    let [server] = net.servers();
    let mut config = Config::of(&[1]);
    config.cluster.lb = LbPolicy::PickFirst { shuffle: false };
    let cluster = config.spawn(&net);
    call(&cluster).await.unwrap();
    let good = cluster.shared.snapshot.load().picker.pick(&cluster.shared.dice).unwrap().clone();
    let bad = only_dying_ones(&cluster, 1, &[good]).await.remove(0);
    let mut context = AttemptContext { selection_attempts: 1, ..AttemptContext::default() };
    assert_eq!(status(attempt(&cluster, &mut context).await.unwrap()).await, Code::Ok);
    assert_eq!(context.tried.last(), Some(address(1)));
    assert_eq!((bad.in_flight(), bad.tally().take()), (0, (0, 0)));
    assert_eq!(server.hits(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_any_number_of_dying_connections_hand_back_is_sent_in_the_end() {
    let net = Net::default();
    let [server] = net.servers();
    let mut config = Config::of(&[1]);
    config.cluster.lb = LbPolicy::PickFirst { shuffle: false };
    let cluster = config.spawn(&net);
    call(&cluster).await.unwrap();
    let before = cluster.shared.snapshot.load_full();
    for (dying, looked_at) in [(16, 16), (20, 20), (40, 32)] {
        let bad = only_dying_ones(&cluster, dying, &[]).await;
        let waiting = {
            let cluster = Arc::clone(&cluster);
            tokio::spawn(async move { call(&cluster).await })
        };
        rest().await;
        // It waits for news, and does not run in circles.
        assert_eq!((waiting.is_finished(), cluster.guards()[1].1), (false, 1), "{dying}");
        let gone = bad.iter().filter(|one| matches!(one.reserve(), Reserved::Gone)).count();
        assert_eq!(gone, looked_at, "of {dying}, each once");
        cluster.shared.snapshot.store(Arc::clone(&before));
        cluster.shared.changed.send_replace(());
        assert_eq!(waiting.await.unwrap().unwrap(), Code::Ok, "{dying}");
    }
    assert_eq!(server.hits(), 4);
    // And no longer than the call has time.
    only_dying_ones(&cluster, 40, &[]).await;
    let error = attempt(&cluster, &mut with_deadline(Duration::from_secs(1))).await.unwrap_err();
    assert_eq!((error.kind, error.request.is_some()), (AttemptErrorKind::DeadlineExceeded, true));
}

/// Makes calls go to so many endpoints whose connections have just ended, which nobody knows, and to those behind them.
async fn only_dying_ones(cluster: &Cluster, count: usize, behind: &[Arc<Endpoint>]) -> Vec<Arc<Endpoint>> {
    let snapshot = cluster.shared.snapshot.load_full();
    let mut dying = Vec::new();
    for _ in 0..count {
        let events = tokio::sync::mpsc::unbounded_channel().0;
        let bad = Endpoint::new("reviews".into(), address(9), 0, Arc::default(), Arc::default(), events);
        let bad = Arc::new(bad);
        let (ours, _theirs) = tokio::io::duplex(1024);
        let (ours, _) = Watched::new(Box::new(ours));
        let (sender, connection) = h2::client::handshake(ours).await.unwrap();
        let conn = Conn::new(Line::new(sender), Arc::clone(&bad), http::uri::Scheme::HTTP, None);
        bad.offer(vec![Arc::new(conn)]);
        drop(connection);
        dying.push(bad);
    }
    let members: Vec<_> = dying.iter().chain(behind).cloned().collect();
    let (ready, weights) = ((0..).take(members.len()).collect(), vec![1; members.len()]);
    let mut rng = fastrand::Rng::with_seed(1);
    let group = Balancer::new(&snapshot.config.cluster.lb, members.into(), ready, weights, &mut rng);
    let picker = Picker::spread(vec![(100, vec![(1, Arc::new(group))])]);
    let Snapshot { config, hope, state, .. } = &*snapshot;
    let (config, hope, state) = (Arc::clone(config), hope.clone(), *state);
    cluster.shared.snapshot.store(Arc::new(Snapshot {
        config,
        picker,
        levels: None,
        hosts: None,
        idle: Vec::new(),
        hope,
        state,
    }));
    dying
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_streams_of_a_connection_wait_or_get_another_connection() {
    let net = Net::default();
    let [server] = net.servers();
    server.max_streams.store(2, SeqCst);
    server.answer(Answer::Hold);
    for (connections, dials) in [(1, 1), (2, 2)] {
        server.dials.store(0, SeqCst);
        server.hits();
        let mut config = Config::of(&[1]);
        config.cluster.circuit_breakers.max_connections_per_endpoint = connections;
        let cluster = config.spawn(&net);
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let cluster = Arc::clone(&cluster);
                tokio::spawn(async move { call(&cluster).await })
            })
            .collect();
        rest().await;
        assert_eq!((server.hits(), server.dials()), (2 * dials, dials));
        server.release();
        rest().await;
        server.release();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), Code::Ok);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_further_connection_whose_dial_is_repeated_stays_within_the_limit() {
    let net = Net::default();
    let [server] = net.servers();
    server.max_streams.store(1, SeqCst);
    server.answer(Answer::Hold);
    let mut config = Config::of(&[1]);
    config.cluster.circuit_breakers.max_connections_per_endpoint = 2;
    config.cluster.circuit_breakers.max_connections = Some(2);
    let cluster = config.spawn(&net);
    let held = attempt(&cluster, &mut AttemptContext::default()).await.unwrap();
    server.door(Door::Refuses);
    let waiting = {
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move { call(&cluster).await })
    };
    rest().await;
    assert_eq!(server.dials(), 2, "for the call that waits");
    // Meanwhile another endpoint has its second connection.
    let counters = &cluster.shared.counters;
    let other = counters.connection(Some(2), false).unwrap();
    server.door(Door::Open);
    pass(Duration::from_secs(5)).await;
    assert_eq!(server.dials(), 3);
    assert!(counters.connection(Some(3), false).is_some(), "two are counted");
    assert!(!waiting.is_finished());
    server.answer(Answer::Status(Code::Ok));
    drop((other, held));
    waiting.await.unwrap().unwrap();
    assert!(counters.connection(Some(2), false).is_some(), "one is");
}

#[tokio::test(start_paused = true)]
async fn configured_streams_bound_a_connection_too() {
    let net = Net::default();
    let [server] = net.servers();
    server.answer(Answer::Hold);
    let mut config = Config::of(&[1]);
    config.cluster.connection.max_concurrent_streams = Some(1);
    let cluster = config.spawn(&net);
    let held = attempt(&cluster, &mut AttemptContext::default()).await.unwrap();
    let error = attempt(&cluster, &mut with_deadline(Duration::from_secs(1))).await.unwrap_err();
    assert_eq!(
        error.status.message(),
        "cluster reviews: deadline exceeded while waiting: every connection, endpoint 127.0.0.1:1's among \
         them, has as many streams as it may, or takes nothing"
    );
    drop(held);
    assert!(attempt(&cluster, &mut with_deadline(Duration::from_secs(1))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_retry_avoids_the_endpoint_that_was_tried() {
    let net = Net::default();
    let [_first, _second] = net.servers();
    let mut config = Config::of(&[1, 2]);
    config.cluster.lb = LbPolicy::Random;
    let cluster = config.spawn(&net);
    call(&cluster).await.unwrap();
    rest().await;
    let mut repeated = 0;
    for _ in 0..200 {
        let mut context = AttemptContext { selection_attempts: 10, ..AttemptContext::default() };
        status(attempt(&cluster, &mut context).await.unwrap()).await;
        let tried = context.tried.last().unwrap();
        status(attempt(&cluster, &mut context).await.unwrap()).await;
        repeated += i32::from(context.tried.last() == Some(tried));
    }
    assert_eq!(repeated, 0);
}

#[tokio::test(start_paused = true)]
async fn the_hostname_of_the_endpoint_becomes_the_authority_when_asked() {
    let net = Net::default();
    let [server] = net.servers();
    let mut config = Config::of(&[1]);
    config.endpoint(0).hostname = Some("pod-7.reviews".into());
    let cluster = config.spawn(&net);
    call(&cluster).await.unwrap();
    let mut context = AttemptContext { auto_host_rewrite: true, ..AttemptContext::default() };
    status(attempt(&cluster, &mut context).await.unwrap()).await;
    assert_eq!(
        *server.seen_uris.lock().unwrap(),
        ["http://reviews:9080/reviews.Reviews/Get", "http://pod-7.reviews/reviews.Reviews/Get"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_cluster_sends_not_a_byte() {
    let net = Net::default();
    let [server] = net.servers();
    let mut config = Config::of(&[1]);
    config.cluster.connection.idle_timeout = Some(Duration::ZERO);
    let cluster = config.spawn(&net);
    call(&cluster).await.unwrap();
    rest().await;
    let before = net.written.load(SeqCst);
    pass(Duration::from_secs(24 * 3600)).await;
    assert_eq!(net.written.load(SeqCst), before);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(server.dials(), 1);
}
