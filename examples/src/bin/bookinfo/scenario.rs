//! The scenarios, in order, and what they share.

mod faults;
mod operations;
mod resilience;
mod routing;
mod security;

use crate::{load::Tally, world::World};
use futures_util::future::BoxFuture;
use std::error::Error;

/// What a scenario did and saw.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) configured: String,
    pub(crate) sent: String,
    pub(crate) observed: String,
    /// The observation is what the configuration asks for.
    pub(crate) ok: bool,
}

type Run = for<'a> fn(&'a mut World) -> BoxFuture<'a, Result<Outcome, Box<dyn Error>>>;

#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    run: Run,
}

impl Scenario {
    /// Runs it, and leaves the mesh as it was before.
    pub(crate) async fn run(&self, world: &mut World) -> Result<Outcome, Box<dyn Error>> {
        let outcome = (self.run)(world).await;
        world.restore().await?;
        outcome
    }
}

macro_rules! scenarios {
    ($($name:literal => $module:ident::$function:ident,)*) => {
        const SCENARIOS: &[Scenario] =
            &[$(Scenario { name: $name, run: |world| Box::pin($module::$function(world)) }),*];
    };
}

scenarios! {
    "everything to v1" => routing::everything_to_v1,
    "reviews 80/20 v1/v2" => routing::eighty_twenty,
    "reviews 50/50 v1/v3" => routing::fifty_fifty,
    "reviews 100 % v3" => routing::everything_to_v3,
    "end-user jason to v2" => routing::jason_to_v2,
    "7 s delay on ratings for jason" => faults::delay_for_jason,
    "abort on ratings for jason" => faults::abort_for_jason,
    "route timeout" => faults::route_timeout,
    "retries hide a failing replica" => resilience::retries,
    "outlier ejection and return" => resilience::outlier_ejection,
    "circuit breaking under overload" => resilience::circuit_breaking,
    "plaintext and foreign callers refused" => security::strangers_refused,
    "only reviews may call ratings" => security::only_reviews_may_call_ratings,
    "certificates rotate under load" => security::rotation,
    "control plane killed and restarted" => operations::control_plane_killed,
    "endpoint added and drained under load" => operations::endpoint_added_and_drained,
}

/// Those whose name contains one of `only`; all when it is empty.
pub(crate) fn chosen(only: &[String]) -> Vec<Scenario> {
    let wanted = |s: &&Scenario| only.is_empty() || only.iter().any(|text| s.name.contains(text.as_str()));
    SCENARIOS.iter().filter(wanted).copied().collect()
}

/// Observations, each with whether it is right.
#[derive(Default)]
pub(crate) struct Observations {
    texts: Vec<String>,
    wrong: bool,
}

impl Observations {
    pub(crate) fn note(&mut self, ok: bool, text: impl Into<String>) {
        let text = text.into();
        self.wrong |= !ok;
        self.texts.push(if ok { text } else { format!("{text} (CONTRADICTS)") });
    }

    pub(crate) fn outcome(self, configured: impl Into<String>, sent: impl Into<String>) -> Outcome {
        Outcome {
            configured: configured.into(),
            sent: sent.into(),
            observed: self.texts.join("; "),
            ok: !self.wrong,
        }
    }
}

/// Whether `hits` of `total` is within five standard deviations of a binomial with `share` percent: a right
/// mesh fails this once in two million runs.
pub(crate) fn within_binomial(hits: u64, total: u64, share: u32) -> bool {
    let (n, p) = (total as f64, f64::from(share) / 100.0);
    (hits as f64 - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt()
}

/// Notes whether every call was answered by `label`.
pub(crate) fn all_answered(observations: &mut Observations, who: &str, tally: &Tally, label: &str) {
    let ok = tally.sent() > 0 && tally.answered(label) == tally.sent();
    observations.note(ok, format!("{who}: {}", tally.text()));
}
