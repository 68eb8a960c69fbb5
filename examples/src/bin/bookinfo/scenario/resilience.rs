//! Retries, and Istio's "Circuit Breaking" task: outlier ejection and limits.

use super::{Observations, Outcome, all_answered};
use crate::{
    load::{calls, instance, reviews, text, version},
    world::World,
    yaml::{virtual_service, weights},
};
use std::{error::Error, time::Duration};

type Result = std::result::Result<Outcome, Box<dyn Error>>;

const REPLICAS: [&str; 2] = ["reviews-v1-a", "reviews-v1-b"];

/// One of two replicas fails 30 % of its calls; with ten retries, all fail once in 10^7 calls at worst.
pub(crate) async fn retries(world: &mut World) -> Result {
    let [failing, _] = REPLICAS;
    world.order(failing, "fail 30").await?;
    let with = "\
- route:
  - destination: {host: reviews, subset: v1}
  retries: {attempts: 10, retryOn: unavailable, perTryTimeout: 2s}
";
    let without = with.replace("{attempts: 10, retryOn: unavailable, perTryTimeout: 2s}", "{attempts: 0}");
    let mut observations = Observations::default();
    for (policy, http) in [("without retries", without.as_str()), ("with", with)] {
        world.apply([virtual_service("reviews", http).as_str()]).await?;
        let channel = world.reviews.clone();
        let tally = calls(400, 4, move || {
            let channel = channel.clone();
            async move { version(reviews(&channel, None).await.map_err(|status| text(&status))?) }
        })
        .await;
        let ok = if policy == "with" { tally.failed() == 0 } else { tally.failed() > 0 };
        let failed = tally.failed();
        observations.note(ok, format!("{policy}: {failed} of {} failed", tally.sent()));
    }
    Ok(observations.outcome(
        "one of two reviews-v1 replicas fails 30 % of its calls; VirtualService reviews: attempts 0, then 10",
        "400 calls to reviews each",
    ))
}

pub(crate) async fn outlier_ejection(world: &mut World) -> Result {
    let [failing, healthy] = REPLICAS;
    let rule = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: reviews
spec:
  host: reviews
  trafficPolicy:
    outlierDetection:
      consecutive5xxErrors: 3
      interval: 500ms
      baseEjectionTime: 2s
      maxEjectionPercent: 100
  subsets:
  - {name: v1, labels: {version: v1}}
";
    let no_retries = "\
- route:
  - destination: {host: reviews, subset: v1}
  retries: {attempts: 0}
";
    world.apply_replacing_rule(&[rule, virtual_service("reviews", no_retries).as_str()]).await?;
    let mut observations = Observations::default();
    let channel = world.reviews.clone();
    let call = move || {
        let channel = channel.clone();
        async move { instance(reviews(&channel, None).await.map_err(|status| text(&status))?) }
    };

    world.order(failing, "fail 100").await?;
    let ejecting = calls(200, 1, call.clone()).await;
    // The ejection takes effect beside the calls, not within one: a call or two may come before it.
    let failed = ejecting.failed();
    let few = (1..=5).contains(&failed) && ejecting.answered(healthy) == 200 - failed;
    observations.note(few, format!("failing: {failed} of 200 failed, then it was ejected"));

    world.order(failing, "fail 0").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let returned = calls(200, 1, call).await;
    let back = returned.failed() == 0 && returned.answered(failing) > 0;
    observations.note(back, format!("healed, after its ejection: {}", returned.text()));
    Ok(observations.outcome(
        "DestinationRule reviews: ejected for 2 s after 3 consecutive errors; one of two replicas always fails",
        "200 calls while it fails, 200 after it healed",
    ))
}

pub(crate) async fn circuit_breaking(world: &mut World) -> Result {
    const LIMIT: u64 = 4;
    let rule = format!(
        "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: reviews
spec:
  host: reviews
  trafficPolicy:
    connectionPool:
      http: {{http2MaxRequests: {LIMIT}}}
  subsets:
  - {{name: v3, labels: {{version: v3}}}}
"
    );
    let no_retries = "\
- route:
  - destination: {host: reviews, subset: v3}
  retries: {attempts: 0}
";
    world.apply_replacing_rule(&[&rule, virtual_service("reviews", no_retries).as_str()]).await?;
    world.order("reviews-v3", "reset").await?;
    world.order("reviews-v3", "delay 50").await?;
    let channel = world.reviews.clone();
    let tally = calls(320, 32, move || {
        let channel = channel.clone();
        async move {
            match reviews(&channel, None).await {
                Ok(reply) => version(reply),
                Err(status) if status.message().contains("circuit breaker") => Ok("overflow".into()),
                Err(status) => Err(text(&status)),
            }
        }
    })
    .await;
    let stats = world.order("reviews-v3", "delay 0").await?;
    let most = stats["most_in_flight"].as_u64().unwrap_or(u64::MAX);

    let mut observations = Observations::default();
    let both = tally.failed() == 0 && tally.answered("overflow") > 0 && tally.answered("v3") >= LIMIT;
    observations.note(both, tally.text());
    observations.note(most <= LIMIT, format!("the server saw at most {most} at once"));

    world.apply([weights("reviews", &[("v3", 100)]).as_str()]).await?;
    let channel = world.reviews.clone();
    let unlimited = calls(320, 32, move || {
        let channel = channel.clone();
        async move { version(reviews(&channel, None).await.map_err(|status| text(&status))?) }
    })
    .await;
    all_answered(&mut observations, "without the limit", &unlimited, "v3");
    Ok(observations.outcome(
        format!("DestinationRule reviews: http2MaxRequests {LIMIT}"),
        "320 calls, 32 at a time, 50 ms each",
    ))
}
