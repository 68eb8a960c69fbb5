//! Who answered a batch of calls, and what may be said about it.

use super::Outcome;
use serde::Deserialize;
use std::{collections::BTreeMap, fmt, ops::AddAssign};

/// What every caller prints as JSON after a batch of calls.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Tally {
    /// Number of answers by instance.
    answers: BTreeMap<String, u64>,
    /// Number of failures by message.
    errors: BTreeMap<String, u64>,
}

impl Tally {
    fn answered(&self, instance: impl Fn(&str) -> bool) -> u64 {
        self.answers.iter().filter(|(name, _)| instance(name)).map(|(_, count)| count).sum()
    }

    fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Whether all calls were answered, by one of `instances`.
    pub(super) fn is_from(&self, instances: &[&str]) -> bool {
        self.failed() == 0
            && self.answered(|name| !instances.contains(&name)) == 0
            && !self.answers.is_empty()
    }

    /// Whether an instance answered.
    pub(super) fn has(&self, instance: &str) -> bool {
        self.answers.contains_key(instance)
    }

    /// Whether all calls failed with this gRPC status.
    pub(super) fn is_refused(&self, status: &str) -> bool {
        let as_told = self.errors.keys().all(|error| error.split(':').next() == Some(status));
        self.failed() > 0 && self.answers.is_empty() && as_told
    }

    /// All calls were answered, by every one of `instances` and nobody else.
    pub(super) fn exactly(&self, instances: &[&str]) -> Outcome {
        let complete = instances.iter().all(|instance| self.has(instance));
        self.expect(
            complete && self.is_from(instances),
            format_args!("answers of {}", instances.join(" and ")),
        )
    }

    /// No call failed, and the instance's share is what a fair draw with this probability may give.
    pub(super) fn share(&self, instance: &str, percent: u32) -> Outcome {
        let calls = self.answered(|_| true);
        let (least, most) = bounds(calls, f64::from(percent) / 100.0);
        let count = self.answered(|name| name == instance) as f64;
        self.expect(
            calls > 0 && self.failed() == 0 && (least..=most).contains(&count),
            format_args!("{least:.0} to {most:.0} of {calls} from {instance} ({percent} %)"),
        )
    }

    /// No call failed.
    pub(super) fn complete(&self) -> Outcome {
        self.expect(self.failed() == 0 && !self.answers.is_empty(), "no failed call")
    }

    /// Every call failed with this gRPC status.
    pub(super) fn refused_with(&self, status: &str) -> Outcome {
        self.expect(self.is_refused(status), format_args!("{status} for every call"))
    }

    fn expect(&self, holds: bool, what: impl fmt::Display) -> Outcome {
        if holds { Ok(()) } else { Err(format!("expected {what}, got {self}").into()) }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        for (own, others) in [(&mut self.answers, other.answers), (&mut self.errors, other.errors)] {
            for (key, count) in others {
                *own.entry(key).or_default() += count;
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.answers)?;
        if !self.errors.is_empty() {
            write!(f, " and failures {:?}", self.errors)?;
        }
        Ok(())
    }
}

/// Five standard deviations each way: wrong by chance less than once in a million runs.
fn bounds(calls: u64, probability: f64) -> (f64, f64) {
    let calls = calls as f64;
    let spread = 5.0 * (calls * probability * (1.0 - probability)).sqrt();
    ((calls * probability - spread).max(0.0).ceil(), (calls * probability + spread).min(calls).floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(answers: &[(&str, u64)], errors: &[(&str, u64)]) -> Tally {
        let map =
            |pairs: &[(&str, u64)]| pairs.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect();
        Tally { answers: map(answers), errors: map(errors) }
    }

    #[test]
    fn a_share_has_room_for_chance_and_for_nothing_else() {
        assert_eq!(bounds(400, 0.8), (280.0, 360.0));
        assert_eq!(bounds(100, 1.0), (100.0, 100.0));
        tally(&[("a", 300), ("b", 100)], &[]).share("a", 80).unwrap();
        assert!(tally(&[("a", 240), ("b", 160)], &[]).share("a", 80).is_err());
        assert!(tally(&[("a", 400)], &[]).share("a", 80).is_err());
        assert!(tally(&[("a", 320), ("b", 80)], &[("UNAVAILABLE: x", 1)]).share("a", 80).is_err());
        assert!(tally(&[], &[]).share("a", 80).is_err());
    }

    #[test]
    fn answers_must_come_from_all_that_are_named_and_from_nobody_else() {
        tally(&[("a", 1), ("b", 2)], &[]).exactly(&["a", "b"]).unwrap();
        assert!(tally(&[("a", 1)], &[]).exactly(&["a", "b"]).is_err());
        assert!(tally(&[("a", 1), ("b", 2)], &[]).exactly(&["a"]).is_err());
        assert!(tally(&[("a", 1)], &[("UNAVAILABLE: x", 1)]).exactly(&["a"]).is_err());
    }

    #[test]
    fn a_refusal_is_every_call_with_the_right_status() {
        tally(&[], &[("PERMISSION_DENIED: no", 3)]).refused_with("PERMISSION_DENIED").unwrap();
        assert!(tally(&[], &[("UNAVAILABLE: no", 3)]).refused_with("PERMISSION_DENIED").is_err());
        assert!(
            tally(&[("a", 1)], &[("PERMISSION_DENIED: no", 3)]).refused_with("PERMISSION_DENIED").is_err()
        );
        assert!(tally(&[], &[]).refused_with("PERMISSION_DENIED").is_err());
    }

    #[test]
    fn what_was_seen_is_what_a_caller_prints() {
        let text = r#"{"answers":{"a":2},"errors":{"UNAVAILABLE: x":1}}"#;
        let mut sum: Tally = serde_json::from_str(text).unwrap();
        sum += tally(&[("a", 1), ("b", 1)], &[]);
        assert_eq!(sum, tally(&[("a", 3), ("b", 1)], &[("UNAVAILABLE: x", 1)]));
        let error = sum.complete().unwrap_err().to_string();
        assert!(
            error.starts_with("expected no failed call, got {\"a\": 3, \"b\": 1} and failures"),
            "{error}"
        );
    }
}
