//! Session affinity through a whole client: cookies that generated clients see, retries, ejection.

use super::*;
use crate::{registration::proto::RegisterRequest, table::testing::retry_policy};
use base64::Engine as _;
use mesh_xds::resource::{
    cluster::{Consecutive, LbPolicy, LocalityLb, OutlierDetection, RingHash},
    filter::FilterConfig,
    route::{HashKey, HashPolicy},
    stateful_session::{SessionState, StatefulSession},
};
use std::net::SocketAddr;

fn sticky(config: world::Published) -> world::Published {
    let state = Some(SessionState::Header(http::HeaderName::from_static("x-session")));
    config
        .filtered("session", FilterConfig::StatefulSession(Arc::new(StatefulSession { state, strict: None })))
}

fn of(session: &str) -> Option<Request<RegisterRequest>> {
    let mut request = Request::new(RegisterRequest::default());
    request.metadata_mut().insert("x-session", session.parse().unwrap());
    Some(request)
}

fn at(address: SocketAddr) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{address};cluster:v1"))
}

#[tokio::test]
async fn a_session_stays_where_it_is_for_channels_and_layers_alike() {
    let (one, two, three) = (Echo::start("one").await, Echo::start("two").await, Echo::start("three").await);
    let plane = Plane::start().await;
    let addresses = vec![one.address, two.address, three.address];
    plane.publish(&sticky(reviews([("v1", addresses.clone())])));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let first = within(ask(channel.clone(), None)).await.unwrap();
    let kept = first.headers["x-session"].to_str().unwrap().to_owned();
    let home = [&one, &two, &three].into_iter().find(|echo| at(echo.address) == kept).unwrap();
    for _ in 0..20 {
        let answer = within(ask(channel.clone(), of(&kept))).await.unwrap();
        assert_eq!(answer.server, first.server);
        assert!(!answer.headers.contains_key("x-session"), "told once");
    }
    assert_eq!(home.hits(), 21);
    let unused: Channel = tonic::transport::Endpoint::from_static("http://reviews:9080").connect_lazy();
    let layered = mesh.layer("reviews:9080").unwrap().layer(unused);
    for address in &addresses {
        let answer = within(ask(layered.clone(), of(&at(*address)))).await.unwrap();
        assert!(!answer.headers.contains_key("x-session"));
    }
    assert_eq!([one.hits(), two.hits(), three.hits()].iter().sum::<usize>(), 24);
    // It is explained.
    let (parts, ()) =
        http::Request::get("http://reviews:9080/mesh.test.Echo/Ask").body(()).unwrap().into_parts();
    let text = mesh.explain(&parts).await.unwrap().to_string();
    assert!(text.contains("stateful_session") && text.contains("by header x-session"), "{text}");
}

#[tokio::test]
async fn a_session_whose_endpoint_fails_is_served_by_a_retry_and_moves_there() {
    let (bad, good) = (Echo::failing(Code::Unavailable).await, Echo::start("good").await);
    let plane = Plane::start().await;
    let mut config = sticky(reviews([("v1", vec![bad.address, good.address])])).with_clusters(|cluster| {
        cluster.outlier_detection = Some(OutlierDetection {
            base_ejection_time: Duration::from_secs(600),
            max_ejection_percent: 100,
            consecutive_5xx: Some(Consecutive { threshold: 3, enforcing: 100 }),
            ..OutlierDetection::default()
        });
    });
    let mut policy = retry_policy(RetryOn { unavailable: true, ..RetryOn::default() });
    (policy.avoid_previous_hosts, policy.host_selection_attempts) = (true, 10);
    config.forward(|forward| forward.retry = Some(Arc::new(policy)));
    plane.publish(&config);
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    for _ in 0..3 {
        let answer = within(ask(channel.clone(), of(&at(bad.address)))).await.unwrap();
        assert_eq!(answer.server, "good");
        assert_eq!(answer.headers["x-session"], *at(good.address), "where it is from now on");
    }
    assert!(bad.hits() >= 3, "the session was tried first");
    within(async {
        while mesh.status().clusters["v1"].ready > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let before = (bad.hits(), mesh.status().targets["reviews:9080"].calls.retries);
    for _ in 0..10 {
        assert_eq!(within(ask(channel.clone(), of(&at(bad.address)))).await.unwrap().server, "good");
    }
    let after = (bad.hits(), mesh.status().targets["reviews:9080"].calls.retries);
    assert_eq!(before, after, "an ejected endpoint is not asked, so nothing is repeated");
    assert_eq!(mesh.status().clusters["v1"].in_flight, 0);
}

#[tokio::test]
async fn an_explanation_tells_that_the_session_goes_before_the_hash() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let plane = Plane::start().await;
    let addresses = vec![one.address, two.address];
    let mut config = sticky(reviews([("v1", addresses.clone())])).with_clusters(|cluster| {
        cluster.lb = LbPolicy::RingHash(RingHash::default());
        cluster.lb_options.localities = LocalityLb::Flat;
    });
    config.forward(|forward| {
        forward.hash = vec![HashPolicy {
            key: HashKey::Header { name: http::HeaderName::from_static("x-user"), rewrite: None },
            terminal: false,
        }];
    });
    plane.publish(&config);
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    // Both are connected.
    for address in &addresses {
        within(ask(channel.clone(), of(&at(*address)))).await.unwrap();
    }
    let head = |session: Option<&str>| {
        let head = http::Request::get("/mesh.test.Echo/Ask").header("x-user", "jason");
        let head = session.into_iter().fold(head, |head, session| head.header("x-session", session));
        head.body(()).unwrap().into_parts().0
    };
    let alone = within(channel.explain(&head(None))).await;
    let hashed = alone.decisions[0].destinations[0].hashed.clone().unwrap();
    let led = hashed.endpoint.unwrap();
    let narrowed = |found: &crate::explain::Explanation| found.to_string().contains("the hash leads to");
    assert_eq!((hashed.session, narrowed(&alone)), (None, true), "{alone}");

    let other = addresses.into_iter().find(|address| *address != led).unwrap();
    let bound = within(channel.explain(&head(Some(&at(other))))).await;
    let hashed = bound.decisions[0].destinations[0].hashed.clone().unwrap();
    assert_eq!(
        (hashed.session, hashed.endpoint, narrowed(&bound)),
        (Some(other), Some(led), false),
        "{bound}"
    );
    let text = format!("its session is with {other}, which goes before its hash");
    assert!(bound.to_string().contains(&text), "{bound}");
    assert_eq!(serde_json::to_value(&hashed).unwrap()["session"], other.to_string());
    // As the call does.
    let mut request = of(&at(other)).unwrap();
    request.metadata_mut().insert("x-user", "jason".parse().unwrap());
    let answer = within(ask(channel.clone(), Some(request))).await.unwrap();
    assert_eq!(answer.server, if other == one.address { "one" } else { "two" });
    // A session of another cluster is none here.
    let elsewhere = base64::engine::general_purpose::STANDARD.encode(format!("{other};cluster:v2"));
    let void = within(channel.explain(&head(Some(&elsewhere)))).await;
    assert_eq!(void.decisions[0].destinations[0].hashed.as_ref().unwrap().session, None);
}
