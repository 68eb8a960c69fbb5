//! Istio's "Request Routing" and "Traffic Shifting" tasks.

use super::{Observations, Outcome, all_answered, within_binomial};
use crate::{
    load::{calls, reviews_of_page, version},
    world::World,
    yaml::{virtual_service, weights},
};
use std::error::Error;

const CALLS: u64 = 1000;
const CONCURRENCY: u64 = 8;

type Result = std::result::Result<Outcome, Box<dyn Error>>;

pub(crate) async fn everything_to_v1(world: &mut World) -> Result {
    shares(world, &[("v1", 100)]).await
}

pub(crate) async fn eighty_twenty(world: &mut World) -> Result {
    shares(world, &[("v1", 80), ("v2", 20)]).await
}

pub(crate) async fn fifty_fifty(world: &mut World) -> Result {
    shares(world, &[("v1", 50), ("v3", 50)]).await
}

pub(crate) async fn everything_to_v3(world: &mut World) -> Result {
    shares(world, &[("v3", 100)]).await
}

/// Sends traffic through the page and compares what answered with the weights.
async fn shares(world: &mut World, shares: &[(&str, u32)]) -> Result {
    world.apply([weights("reviews", shares).as_str()]).await?;
    let channel = world.productpage.clone();
    let tally = calls(CALLS, CONCURRENCY, move || {
        let channel = channel.clone();
        async move { version(reviews_of_page(&channel, None).await?) }
    })
    .await;

    let mut observations = Observations::default();
    let known: u64 = shares.iter().map(|(subset, _)| tally.answered(subset)).sum();
    observations.note(known == CALLS, tally.text());
    for (subset, share) in shares {
        let hits = tally.answered(subset);
        let percent = hits as f64 * 100.0 / CALLS as f64;
        let ok = within_binomial(hits, CALLS, *share);
        observations.note(ok, format!("{subset} {percent:.1} % of {share} %"));
    }
    let configured = shares.iter().map(|(s, w)| format!("{s} {w} %")).collect::<Vec<_>>().join(", ");
    Ok(observations.outcome(
        format!("VirtualService reviews: {configured}"),
        format!("{CALLS} pages, {CONCURRENCY} at a time"),
    ))
}

pub(crate) async fn jason_to_v2(world: &mut World) -> Result {
    let http = "\
- match:
  - headers: {end-user: {exact: jason}}
  route:
  - destination: {host: reviews, subset: v2}
- route:
  - destination: {host: reviews, subset: v1}
";
    world.apply([virtual_service("reviews", http).as_str()]).await?;
    let mut observations = Observations::default();
    for (user, expected) in [(Some("jason"), "v2"), (Some("mary"), "v1"), (None, "v1")] {
        let channel = world.productpage.clone();
        let tally = calls(100, CONCURRENCY, move || {
            let channel = channel.clone();
            async move { version(reviews_of_page(&channel, user).await?) }
        })
        .await;
        all_answered(&mut observations, user.unwrap_or("nobody"), &tally, expected);
    }
    Ok(observations.outcome(
        "VirtualService reviews: end-user jason to v2, others to v1",
        "100 pages each as jason, as mary, and as nobody",
    ))
}
