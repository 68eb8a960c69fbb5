//! Retries through a whole client: where attempts go, and how many there are.

use super::*;
use crate::table::testing::retry_policy;
use mesh_xds::{
    matcher::Fraction,
    resource::{
        retry::{HedgePolicy, RetryPolicy},
        route::RoutingPriority,
    },
};

/// UNAVAILABLE is retried, and so.
fn retrying(config: &mut world::Published, change: impl FnOnce(&mut RetryPolicy)) {
    let mut policy = retry_policy(RetryOn { unavailable: true, ..RetryOn::default() });
    change(&mut policy);
    config.forward(|forward| forward.retry = Some(Arc::new(policy)));
}

#[tokio::test]
async fn a_retry_leaves_the_priority_that_fails() {
    let (near, far) = (Echo::failing(Code::Unavailable).await, Echo::start("far").await);
    let plane = Plane::start().await;
    let mut config = reviews([("v1", vec![near.address, far.address])]).prioritized();
    retrying(&mut config, |policy| policy.num_retries = 3);
    plane.publish(&config);
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    assert_eq!(within(ask(channel.clone(), None)).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(mesh.status().targets["reviews:9080"].calls.retries, 3, "all in the first priority");

    // As Istio's retryRemoteLocalities: two attempts there, then two elsewhere.
    retrying(&mut config, |policy| {
        policy.num_retries = 3;
        policy.previous_priorities = NonZeroU32::new(2);
    });
    plane.publish(&config);
    within(async {
        while ask(channel.clone(), None).await.map(|answer| answer.server).ok().as_deref() != Some("far") {}
    })
    .await;
    let before = mesh.status().targets["reviews:9080"].calls.retries;
    for _ in 0..10 {
        assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "far");
    }
    assert_eq!(mesh.status().targets["reviews:9080"].calls.retries, before + 20, "the third attempt of each");
}

#[tokio::test]
async fn a_route_of_priority_high_has_circuit_breakers_of_its_own() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    let full = || {
        reviews([("v1", vec![echo.address])]).with_clusters(|cluster| {
            cluster.circuit_breakers.max_requests = 0;
            cluster.circuit_breakers.high.max_requests = 5;
        })
    };
    plane.publish(&full());
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let status = within(ask(channel.clone(), None)).await.unwrap_err();
    assert!(status.message().contains("max_requests (0)"), "{status}");
    let mut config = full();
    config.forward(|forward| forward.priority = RoutingPriority::High);
    plane.publish(&config);
    within(async {
        while ask(channel.clone(), None).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let cluster = &mesh.status().clusters["v1"];
    assert!(cluster.breakers.refused > 0, "{cluster:?}");
    assert_eq!((cluster.high_priority_breakers.refused, cluster.in_flight), (0, 0));
    let (parts, ()) =
        http::Request::get("http://reviews:9080/mesh.test.Echo/Ask").body(()).unwrap().into_parts();
    let text = mesh.explain(&parts).await.unwrap().to_string();
    for line in
        ["HIGH: the circuit breakers", "circuit_breakers.thresholds[HIGH]", "refused by circuit breakers"]
    {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

fn hedging(config: &mut world::Published, initial: u32, on_per_try_timeout: bool) {
    let hedge = HedgePolicy {
        initial_requests: NonZeroU32::new(initial).unwrap(),
        additional_request_chance: Fraction::ZERO,
        on_per_try_timeout,
    };
    config.forward(|forward| forward.hedge = Some(hedge));
}

#[tokio::test]
async fn a_silent_server_delays_nobody_whose_call_is_hedged_and_keeps_nothing_of_it() {
    for initial in [2, 1] {
        let (silent, good) = (Echo::silent().await, Echo::start("good").await);
        let plane = Plane::start().await;
        let mut config = reviews([("v1", vec![silent.address, good.address])]);
        retrying(&mut config, |policy| {
            policy.num_retries = 1;
            policy.per_try_timeout = (initial == 1).then_some(Duration::from_millis(20));
            policy.avoid_previous_hosts = true;
            policy.host_selection_attempts = 5;
        });
        // Both at once, or the second when the first is slow.
        hedging(&mut config, initial, initial == 1);
        plane.publish(&config);
        let mesh = plane.join();
        let channel = mesh.channel("reviews:9080").unwrap();
        within(async {
            // So that the second attempt knows where the first one went.
            while mesh.status().clusters.get("v1").is_none_or(|cluster| cluster.ready < 2) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        for _ in 0..20 {
            let answer = within(ask(channel.clone(), None)).await.unwrap();
            assert_eq!(answer.server, "good");
            assert!(!answer.headers.contains_key("grpc-timeout"));
        }
        let status = mesh.status();
        let calls = &status.targets["reviews:9080"].calls;
        assert!(calls.hedges > 0 && calls.retries == 0, "{calls:?}");
        if initial == 2 {
            assert_eq!(calls.hedges, 20);
        }
        let cluster = &status.clusters["v1"];
        assert_eq!((cluster.in_flight, cluster.breakers.retries), (0, 0), "all is released");
    }
}

#[tokio::test]
async fn hedges_count_against_the_retry_limit_of_the_cluster() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let plane = Plane::start().await;
    let mut config = reviews([("v1", vec![one.address, two.address])])
        .with_clusters(|cluster| cluster.circuit_breakers.max_retries = Some(0));
    hedging(&mut config, 3, false);
    plane.publish(&config);
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    for _ in 0..10 {
        within(ask(channel.clone(), None)).await.unwrap();
    }
    let calls = &mesh.status().targets["reviews:9080"].calls;
    assert_eq!((calls.calls, calls.hedges, calls.retries_denied), (10, 0, 10));
}

#[tokio::test]
async fn attempts_over_three_hops_grow_with_their_number_and_not_as_a_power_of_it() {
    // 2 retries at each hop: 2 * 3 + 1, or 3 * 3 * 3.
    for (at_every_hop, expected) in [(false, 7), (true, 27)] {
        let last = Echo::failing(Code::Unavailable).await;
        let (mut next, mut held) = (last.address, Vec::new());
        let mut first = None;
        for _ in 0..3 {
            let plane = Plane::start().await;
            let mut config = reviews([("v1", vec![next])]);
            retrying(&mut config, |policy| policy.back_off.max = policy.back_off.base);
            plane.publish(&config);
            let builder = Mesh::builder().bootstrap(bootstrap(plane.address));
            let mesh = builder.retry_at_every_hop(at_every_hop).build().unwrap();
            let channel = mesh.channel("reviews:9080").unwrap();
            let hop = Echo::hop(channel.clone()).await;
            next = hop.address;
            first = Some(channel);
            held.push((plane, mesh, hop));
        }
        let status = within(ask(first.unwrap(), None)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(last.hits(), expected, "at every hop: {at_every_hop}");
    }
}
