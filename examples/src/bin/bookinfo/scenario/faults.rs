//! Istio's "Fault Injection" and "Request Timeouts" tasks.

use super::{Observations, Outcome, all_answered};
use crate::{
    load::{calls, page, reviews_of_page, text, version},
    service::productpage_timeout,
    world::World,
    yaml::{virtual_service, weights},
};
use std::{
    error::Error,
    time::{Duration, Instant},
};

type Result = std::result::Result<Outcome, Box<dyn Error>>;

const RATINGS_DELAY: &str = "\
- match:
  - headers: {end-user: {exact: jason}}
  fault:
    delay: {percentage: {value: 100}, fixedDelay: 7s}
  route:
  - destination: {host: ratings}
- route:
  - destination: {host: ratings}
";

/// The page gives the reviews 3 s, twice; the fault makes them wait 7 s for the ratings. The deadline of the
/// page's call travels along, so `reviews` gives up on the ratings just before it: usually it can still
/// answer without them, or else the page goes on without reviews.
pub(crate) async fn delay_for_jason(world: &mut World) -> Result {
    let to_v2 = weights("reviews", &[("v2", 100)]);
    world.apply([to_v2.as_str(), virtual_service("ratings", RATINGS_DELAY).as_str()]).await?;
    let mut observations = Observations::default();

    let begun = Instant::now();
    let page = page(&world.productpage, Some("jason")).await.map_err(|status| text(&status))?;
    let took = begun.elapsed();
    let what = match page.reviews {
        Some(reviews) => {
            let cut_off = reviews.ratings.is_none() && reviews.ratings_error.starts_with("DeadlineExceeded");
            if cut_off { Ok(reviews.ratings_error) } else { Err("with ratings".to_owned()) }
        }
        None if page.reviews_error.starts_with("DeadlineExceeded") => Ok(page.reviews_error),
        None => Err(page.reviews_error),
    };
    // That nobody waited out the delay, the missing ratings show: a busy machine may take any time.
    let least = productpage_timeout() - Duration::from_millis(200);
    observations.note(took >= least, format!("jason's page took {:.1} s", took.as_secs_f64()));
    observations.note(what.is_ok(), format!("without ratings: {}", what.unwrap_or_else(|wrong| wrong)));

    let channel = world.productpage.clone();
    let others = calls(100, 8, move || {
        let channel = channel.clone();
        async move { version(reviews_of_page(&channel, Some("mary")).await?) }
    })
    .await;
    all_answered(&mut observations, "mary", &others, "v2");
    observations.note(others.slowest < least, format!("slowest of hers {} ms", others.slowest.as_millis()));
    Ok(observations.outcome(
        "VirtualService ratings: 7 s delay for jason; the page waits 3 s for the reviews, twice",
        "1 page as jason, 100 as mary",
    ))
}

pub(crate) async fn abort_for_jason(world: &mut World) -> Result {
    let abort = RATINGS_DELAY.replace(
        "delay: {percentage: {value: 100}, fixedDelay: 7s}",
        "abort: {percentage: {value: 100}, httpStatus: 503}",
    );
    let to_v2 = weights("reviews", &[("v2", 100)]);
    world.apply([to_v2.as_str(), virtual_service("ratings", &abort).as_str()]).await?;
    let mut observations = Observations::default();
    for user in ["jason", "mary"] {
        let channel = world.productpage.clone();
        let tally = calls(100, 8, move || {
            let channel = channel.clone();
            async move {
                let reviews = reviews_of_page(&channel, Some(user)).await?;
                Ok(match reviews.ratings_error.as_str() {
                    "" => "with ratings".to_owned(),
                    error if error.starts_with("Unavailable") => "aborted".to_owned(),
                    error => error.to_owned(),
                })
            }
        })
        .await;
        let expected = if user == "jason" { "aborted" } else { "with ratings" };
        all_answered(&mut observations, user, &tally, expected);
    }
    Ok(observations.outcome(
        "VirtualService ratings: abort 503 (UNAVAILABLE) for jason",
        "100 pages each as jason and as mary",
    ))
}

pub(crate) async fn route_timeout(world: &mut World) -> Result {
    let reviews = "\
- route:
  - destination: {host: reviews, subset: v2}
  timeout: 500ms
";
    world.apply([virtual_service("reviews", reviews).as_str()]).await?;
    world.order("reviews-v2", "delay 2000").await?;
    let mut observations = Observations::default();
    let begun = Instant::now();
    let page = page(&world.productpage, None).await.map_err(|status| text(&status))?;
    let took = begun.elapsed();
    // Twice 0.5 s, because the page tries twice; with more time than that it would have had an answer.
    observations.note(took >= Duration::from_millis(950), format!("the page took {} ms", took.as_millis()));
    let cut_off = page.reviews.is_none() && page.reviews_error.starts_with("DeadlineExceeded");
    observations.note(cut_off, format!("without reviews: {}", page.reviews_error));
    Ok(observations
        .outcome("VirtualService reviews: timeout 0.5 s; ratings: 2 s delay; the page tries twice", "1 page"))
}
