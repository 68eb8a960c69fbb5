//! Hedging by a program's policy (gRPC A6) through a whole client: to which servers, and what is told of it.

use super::*;
use crate::{HedgingPolicy, table::testing::retry_policy};
use http::request::Parts;
use mesh_xds::resource::cluster::LbPolicy;

const METHOD: &str = "mesh.test.Echo/Ask";

fn joined(plane: &Plane, methods: &str, policy: HedgingPolicy) -> Mesh {
    Mesh::builder().bootstrap(bootstrap(plane.address)).hedging(methods, policy).build().unwrap()
}

/// Waits until so many endpoints of `v1` are connected.
async fn connected(mesh: &Mesh, endpoints: usize) {
    within(async {
        while mesh.status().clusters.get("v1").is_none_or(|cluster| cluster.ready < endpoints) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

fn head(path: &str) -> Parts {
    http::Request::get(format!("http://reviews:9080{path}")).body(()).unwrap().into_parts().0
}

#[tokio::test]
async fn silent_servers_delay_nobody_since_each_attempt_goes_to_another_one() {
    for delay in [Duration::ZERO, Duration::from_millis(10)] {
        let (one, other, good) = (Echo::silent().await, Echo::silent().await, Echo::start("good").await);
        let plane = Plane::start().await;
        plane.publish(
            &reviews([("v1", vec![one.address, other.address, good.address])])
                .with_clusters(|cluster| cluster.lb = LbPolicy::Random),
        );
        let policy = HedgingPolicy { hedging_delay: delay, ..HedgingPolicy::new(3, [Code::Unavailable]) };
        let mesh = joined(&plane, METHOD, policy);
        let channel = mesh.channel("reviews:9080").unwrap();
        connected(&mesh, 3).await;
        for _ in 0..20 {
            let answer = within(ask(channel.clone(), None)).await.unwrap();
            assert_eq!(answer.server, "good");
            assert!(!answer.headers.contains_key("grpc-timeout"), "none was asked for");
        }
        let status = mesh.status();
        let calls = &status.targets["reviews:9080"].calls;
        assert!(calls.hedges > 0 && calls.retries == 0, "{calls:?}");
        let cluster = &status.clusters["v1"];
        assert_eq!((cluster.in_flight, cluster.breakers.retries), (0, 0), "all is released");
    }
}

#[tokio::test]
async fn failures_are_followed_at_once_and_the_retry_limit_of_the_cluster_counts() {
    let (bad, good) = (Echo::failing(Code::Unavailable).await, Echo::start("good").await);
    let plane = Plane::start().await;
    let published = || reviews([("v1", vec![bad.address, good.address])]);
    plane.publish(&published());
    // Nobody waits for so long: what follows a failure is sent at once.
    let policy = HedgingPolicy { hedging_delay: 100 * LONG, ..HedgingPolicy::new(2, [Code::Unavailable]) };
    let mesh = joined(&plane, "*", policy);
    let channel = mesh.channel("reviews:9080").unwrap();
    connected(&mesh, 2).await;
    for _ in 0..10 {
        assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "good");
    }
    let hedges = mesh.status().targets["reviews:9080"].calls.hedges;
    assert!(bad.hits() > 0 && hedges == bad.hits() as u64, "{hedges} after {} failures", bad.hits());

    plane.publish(&published().with_clusters(|cluster| cluster.circuit_breakers.max_retries = Some(0)));
    within(async { while ask(channel.clone(), None).await.is_ok() {} }).await;
    assert!(mesh.status().targets["reviews:9080"].calls.retries_denied > 0);
}

#[tokio::test]
async fn an_explanation_shows_the_policy_and_where_it_is_from_in_the_place_of_the_routes() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    let mut config = reviews([("v1", vec![echo.address])]);
    let mut retry = retry_policy(RetryOn { unavailable: true, ..RetryOn::default() });
    (retry.per_try_timeout, retry.per_try_idle_timeout) = (Some(LONG), Some(LONG));
    config.forward(|forward| forward.retry = Some(Arc::new(retry)));
    plane.publish(&config);
    let policy = HedgingPolicy {
        max_attempts: 9,
        hedging_delay: Duration::from_millis(50),
        non_fatal_status_codes: vec![Code::Unavailable, Code::DeadlineExceeded],
    };
    let mesh = joined(&plane, METHOD, policy);
    let explanation = within(mesh.explain(&head("/mesh.test.Echo/Ask"))).await.unwrap();
    let settings = &explanation.decisions[0].settings;
    let own = settings.iter().find(|setting| setting.name == "hedging").unwrap();
    assert_eq!(
        own.value,
        "up to 5 attempts, one each 50ms, and at once after DEADLINE_EXCEEDED, UNAVAILABLE; what the route says \
         of attempts does not hold"
    );
    assert_eq!(own.origin.to_string(), r#"MeshBuilder::hedging("mesh.test.Echo/Ask", _)"#);
    let of_attempts = |name: &str| name.contains("retries") || name.contains("per_try");
    assert!(!settings.iter().any(|setting| of_attempts(setting.name)), "{explanation}");

    let other = within(mesh.explain(&head("/mesh.test.Echo/Other"))).await.unwrap();
    let settings = &other.decisions[0].settings;
    assert!(settings.iter().any(|setting| of_attempts(setting.name)), "{other}");
    assert!(!settings.iter().any(|setting| setting.name == "hedging"), "{other}");
}

#[tokio::test]
async fn a_policy_that_a6_does_not_allow_is_an_error_that_names_it() {
    let policy = || HedgingPolicy::new(3, [Code::Unavailable]);
    for (given, expected) in [
        (
            vec![("r.Reviews", HedgingPolicy::new(1, [Code::Unavailable]))],
            "hedging(\"r.Reviews\", _) of the mesh: max_attempts is 1; it must be 2 or more",
        ),
        (
            vec![("r.Reviews/List", policy()), ("*", policy()), ("r.Reviews/List", policy())],
            "hedging(\"r.Reviews/List\", _) of the mesh: there is a policy for that already",
        ),
    ] {
        let all = given.into_iter();
        let builder =
            all.fold(Mesh::builder(), |builder, (methods, policy)| builder.hedging(methods, policy));
        let error = builder.build().map(drop).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
