//! The faults that were measured on the nearest peer, and users' worst outages: each through a whole client.

use super::{
    script::{Script, Scripted, begin},
    *,
};
use mesh_xds::{
    name::ResourceType,
    resource::cluster::{Cluster, LbPolicy},
};

/// Asks until the answer is as wanted.
async fn until(
    channel: &MeshChannel,
    wanted: impl Fn(&Result<String, Status>) -> bool,
) -> Result<String, Status> {
    within(async {
        loop {
            let answer = ask(channel.clone(), None).await.map(|answer| answer.server);
            if wanted(&answer) {
                return answer;
            }
            // A call that fails at once waits for nothing.
            tokio::task::yield_now().await;
        }
    })
    .await
}

fn is(server: &str) -> impl Fn(&Result<String, Status>) -> bool {
    move |answer| answer.as_ref().is_ok_and(|found| found == server)
}

#[tokio::test]
async fn a_service_that_is_scaled_to_zero_fails_at_once_and_is_found_again() {
    let (plane, old, new) = (Plane::start().await, Echo::start("old").await, Echo::start("new").await);
    plane.publish(&reviews([("v1", vec![old.address])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    until(&channel, is("old")).await.unwrap();
    plane.publish(&reviews([("v1", vec![])]));
    let gone = until(&channel, Result::is_err).await.unwrap_err();
    assert_eq!(gone.code(), Code::Unavailable, "{gone}");
    assert!(gone.message().contains("cluster v1: the cluster has no endpoints"), "{gone}");
    plane.publish(&reviews([("v1", vec![new.address])]));
    until(&channel, is("new")).await.unwrap();
    at_rest(&mesh).await;
}

#[tokio::test]
async fn a_cluster_that_was_removed_comes_back_with_its_new_endpoints() {
    let (plane, old) = (Plane::start().await, Echo::start("old").await);
    let (new, other) = (Echo::start("new").await, Echo::start("other").await);
    plane.publish(&reviews([("v1", vec![old.address])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    until(&channel, is("old")).await.unwrap();
    plane.publish(&reviews([("v2", vec![other.address])]));
    until(&channel, is("other")).await.unwrap();
    within(async {
        while mesh.status().clusters.contains_key("v1") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    plane.publish(&reviews([("v1", vec![new.address])]));
    until(&channel, |answer| !is("other")(answer)).await.unwrap();
    for _ in 0..20 {
        assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "new");
    }
    at_rest(&mesh).await;
}

#[tokio::test]
async fn a_resource_that_is_not_there_fails_calls_at_once_and_is_named() {
    for (missing, named) in [
        (ResourceType::Listener, "reviews:9080"),
        (ResourceType::RouteConfiguration, "routes"),
        (ResourceType::Cluster, "v1"),
        (ResourceType::ClusterLoadAssignment, "v1"),
    ] {
        let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
        plane.publish(&reviews([("v1", vec![echo.address])]).without(missing));
        let mesh = plane.join();
        let channel = mesh.channel("reviews:9080").unwrap();
        let status = within(ask(channel.clone(), None)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{missing:?}: {status}");
        for part in [named, "does not exist"] {
            assert!(status.message().contains(part), "{missing:?}: {part} in {status}");
        }
        plane.publish(&reviews([("v1", vec![echo.address])]));
        until(&channel, is("v1")).await.unwrap();
        at_rest(&mesh).await;
    }
}

#[tokio::test]
async fn one_of_three_endpoints_that_refuses_costs_no_call() {
    let (plane, one, two) = (Plane::start().await, Echo::start("one").await, Echo::start("two").await);
    plane.publish(&reviews([("v1", vec![one.address, world::free_address(), two.address])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let callers = (0..16).map(|_| {
        let channel = channel.clone();
        async move {
            for _ in 0..40 {
                ask(channel.clone(), None).await.unwrap();
            }
        }
    });
    within(futures_util::future::join_all(callers)).await;
    let counts = &mesh.status().targets["reviews:9080"].calls;
    assert_eq!((counts.calls, counts.failed_here, counts.retries), (640, 0, 0));
    at_rest(&mesh).await;
}

/// Answers by server of so many calls, once all endpoints are ready.
async fn shares(mesh: &Mesh, channel: &MeshChannel, ready: usize, calls: usize) -> HashMap<String, usize> {
    within(async {
        ask(channel.clone(), None).await.unwrap();
        while mesh.status().clusters["v1"].ready < ready {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let mut shares = HashMap::new();
    for _ in 0..calls {
        *shares.entry(within(ask(channel.clone(), None)).await.unwrap().server).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn a_standby_gets_no_call_while_the_first_priority_serves_and_all_when_it_is_gone() {
    let (plane, standby) = (Plane::start().await, Echo::start("standby").await);
    let first = Echo::start("first").await;
    let config = |addresses| reviews([("v1", addresses)]).prioritized();
    plane.publish(&config(vec![first.address, standby.address]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let shares = shares(&mesh, &channel, 1, 200).await;
    assert_eq!(shares, HashMap::from([("first".to_owned(), 200)]));
    plane.publish(&config(vec![world::free_address(), standby.address]));
    until(&channel, is("standby")).await.unwrap();
    at_rest(&mesh).await;
}

#[tokio::test]
async fn localities_get_their_weights() {
    let (plane, near, far) = (Plane::start().await, Echo::start("near").await, Echo::start("far").await);
    plane.publish(&reviews([("v1", vec![near.address, far.address])]).localities(&[90, 10]));
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).seed(7).build().unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    let far = shares(&mesh, &channel, 2, 1000).await["far"];
    // Five standard deviations of a binomial distribution: 47.
    assert!((53..=147).contains(&far), "{far} of 1000 to the locality of 10 %");
    at_rest(&mesh).await;
}

#[tokio::test]
async fn equal_endpoints_get_equal_shares() {
    let plane = Plane::start().await;
    let servers =
        [Echo::start("a").await, Echo::start("b").await, Echo::start("c").await, Echo::start("d").await];
    plane.publish(&reviews([("v1", servers.iter().map(|server| server.address).collect())]));
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).seed(7).build().unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    let shares = shares(&mesh, &channel, 4, 400).await;
    assert!(shares.values().all(|share| *share == 100), "round robin: {shares:?}");
    at_rest(&mesh).await;
}

/// Begins a call whose answer does not end.
async fn open(channel: &MeshChannel) -> http::Response<MeshBody> {
    within(channel.clone().call(request("v1", LONG))).await.unwrap()
}

#[tokio::test]
async fn a_long_stream_counts_until_its_end() {
    let (plane, peer) = (Plane::start().await, Scripted::start(Script::answering(begin)).await);
    let one = |cluster: &mut Cluster| cluster.circuit_breakers.max_requests = 1;
    plane.publish(&reviews([("v1", vec![peer.address])]).with_clusters(one));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let stream = open(&channel).await;
    let refused = within(status(channel.clone(), request("v1", LONG))).await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("max_requests (1)"), "{refused}");
    drop(stream);
    assert_eq!(held(&mesh), [], "at once");
    // There is room again: it is sent, to a peer that answers no second request.
    let sent = within(status(channel, request("v1", Duration::from_millis(100)))).await;
    assert_eq!(sent.code(), Code::DeadlineExceeded, "{sent}");
    at_rest(&mesh).await;
}

#[tokio::test]
async fn least_request_sees_streams_that_are_open() {
    let (plane, echo) = (Plane::start().await, Echo::start("free").await);
    // Whoever gets the first call of it holds it for ever.
    let busy = Scripted::start(Script::answering(begin)).await;
    // The best of ten draws is the free one but for one call of a thousand, which this seed has not.
    let policy = |cluster: &mut Cluster| cluster.lb = LbPolicy::least_request(10);
    plane.publish(&reviews([("v1", vec![busy.address])]).with_clusters(policy));
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).seed(7).build().unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    let stream = open(&channel).await;
    plane.publish(&reviews([("v1", vec![busy.address, echo.address])]).with_clusters(policy));
    within(async {
        while mesh.status().clusters["v1"].ready < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    for _ in 0..30 {
        assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "free");
    }
    drop(stream);
    at_rest(&mesh).await;
}

#[tokio::test]
async fn retries_end_with_the_deadline() {
    let plane = Plane::start().await;
    let bad = Echo::failing(Code::Unavailable).await;
    let mut config = reviews([("v1", vec![bad.address])]);
    config.forward(|forward| {
        let on = RetryOn { unavailable: true, ..RetryOn::default() };
        let mut policy = crate::table::testing::retry_policy(on);
        policy.num_retries = u32::MAX;
        forward.retry = Some(Arc::new(policy));
    });
    plane.publish(&config);
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let asked = std::time::Instant::now();
    let deadline = Duration::from_millis(400);
    let status = within(status(channel.clone(), request("v1", deadline))).await;
    assert!(matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded), "{status}");
    assert!(asked.elapsed() < LONG, "retries without end would go on");
    assert!(mesh.status().targets["reviews:9080"].calls.calls == 1);
    at_rest(&mesh).await;
}
