//! How an attempt ended, as outlier detection counts it, and the lock-free tally of one endpoint.
//!
//! Promises: an outcome costs a few relaxed atomic operations; the actor hears of an endpoint only when a consecutive
//! limit is reached, or when the first outcome ends a quiet time. Statistics count as gRFC A50 says (success is
//! status OK, anything else failure); consecutive errors as Envoy does, which maps gRPC statuses to HTTP codes and
//! counts 5xx. Where codes are configured (Envoy's `error_matcher`), an answer is an error if its code is one of
//! them, for both; one below 500 counts as 500 (Envoy). Where failures made here are split off (Envoy's
//! `split_external_local_origin_errors`), they are counted apart: an answer, whatever it says, is a success there,
//! and a reset, a deadline that passed or a dial that failed is a failure there and no answer. Unlike Envoy, a stream
//! that was merely begun is no success, so that resets and deadlines in a row add up. A call that its caller gave up
//! counts nowhere.

use mesh_xds::resource::cluster::{Consecutive, HttpCodes, OutlierDetection};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use tonic::Code;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The endpoint answered with this gRPC status.
    Status(Code),
    /// It answered with an HTTP status other than 200.
    Http(u16),
    /// The stream was reset or the connection lost: a failure seen here, not an answer.
    Reset,
    /// No answer before the deadline: likewise.
    TimedOut,
    /// A dial failed: likewise.
    ConnectFailed,
    /// The caller gave up.
    Cancelled,
}

/// The HTTP code of a gRPC status, as Envoy maps it.
pub(crate) const fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    }
}

/// A consecutive limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streak {
    /// 5xx.
    ServerError,
    /// 502, 503, 504.
    Gateway,
    /// Failures seen here.
    LocalOrigin,
}

/// What the actor must hear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Limits that were reached, in the order in which they are enforced: Envoy's, the gateway's before that of all 5xx.
    pub(crate) streaks: [Option<Streak>; 2],
    /// Outcomes come in again.
    pub(crate) awake: bool,
}

/// The limits of a cluster, shared by the tallies of its endpoints; 0 is off.
#[derive(Debug, Default)]
pub(crate) struct Thresholds {
    server_error: AtomicU32,
    gateway: AtomicU32,
    local_origin: AtomicU32,
    split: AtomicBool,
    errors: Errors,
    /// The actor sleeps until something is counted.
    asleep: AtomicBool,
}

impl Thresholds {
    /// Takes in a configuration; without one nothing is counted as consecutive.
    pub(crate) fn set(&self, config: Option<&OutlierDetection>) {
        let threshold = |limit: Option<Consecutive>| limit.map_or(0, |limit| limit.threshold);
        self.server_error.store(threshold(config.and_then(|c| c.consecutive_5xx)), Relaxed);
        self.gateway.store(threshold(config.and_then(|c| c.consecutive_gateway_failure)), Relaxed);
        self.local_origin.store(threshold(config.and_then(|c| c.consecutive_local_origin_failure)), Relaxed);
        self.split.store(config.is_some_and(|c| c.split_external_local_origin_errors), Relaxed);
        self.errors.set(config.and_then(|c| c.errors.as_ref()));
    }

    /// Asks for a [`Notice::awake`] at the next outcome.
    pub(crate) fn sleep(&self) {
        self.asleep.store(true, Relaxed);
    }
}

/// Which answers are errors.
#[derive(Debug, Default)]
struct Errors {
    /// Codes are configured.
    said: AtomicBool,
    /// Those, as in [`HttpCodes::words`].
    codes: [AtomicU64; HttpCodes::WORDS],
}

impl Errors {
    fn set(&self, codes: Option<&HttpCodes>) {
        for (held, word) in self.codes.iter().zip(codes.map(HttpCodes::words).unwrap_or_default()) {
            held.store(word, Relaxed);
        }
        self.said.store(codes.is_some(), Relaxed);
    }

    /// What an answer counts as, where codes are configured.
    fn judge(&self, http: u16) -> Option<u16> {
        if !self.said.load(Relaxed) {
            return None;
        }
        let is_error =
            HttpCodes::place(http).is_some_and(|(word, bit)| self.codes[word].load(Relaxed) & bit != 0);
        // A gateway's error stays one.
        Some(if !is_error { 200 } else { http.max(500) })
    }
}

/// What was counted of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    successes: AtomicU64,
    failures: AtomicU64,
    /// Where failures made here are split off.
    local_successes: AtomicU64,
    local_failures: AtomicU64,
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_origin: AtomicU32,
}

impl Tally {
    /// Counts one outcome.
    pub(crate) fn record(&self, outcome: Outcome, thresholds: &Thresholds) -> Notice {
        let split = thresholds.split.load(Relaxed);
        let (http, local) = match outcome {
            Outcome::Cancelled => return Notice::default(),
            Outcome::Status(code) => (http_status(code), false),
            Outcome::Http(status) => (status, false),
            Outcome::Reset => (503, true),
            Outcome::TimedOut => (504, true),
            // No call failed by it: the picker does not offer what is not connected. Only whoever asks for
            // local-origin failures wants it counted.
            Outcome::ConnectFailed if !split => return Notice::default(),
            Outcome::ConnectFailed => (503, true),
        };
        if split {
            if local { &self.local_failures } else { &self.local_successes }.fetch_add(1, Relaxed);
        }
        let judged = if local { None } else { thresholds.errors.judge(http) };
        if !(split && local) {
            let success = judged.map_or(outcome == Outcome::Status(Code::Ok), |http| http == 200);
            if success { &self.successes } else { &self.failures }.fetch_add(1, Relaxed);
        }
        let awake = thresholds.asleep.load(Relaxed) && thresholds.asleep.swap(false, Relaxed);
        Notice { streaks: self.count_streaks(judged.unwrap_or(http), local, split, thresholds), awake }
    }

    fn count_streaks(&self, http: u16, local: bool, split: bool, limits: &Thresholds) -> [Option<Streak>; 2] {
        if split {
            let reached = count(&self.local_origin, local, &limits.local_origin);
            if local {
                return [reached.then_some(Streak::LocalOrigin), None];
            }
        }
        let gateway = count(&self.gateway_errors, matches!(http, 502..=504), &limits.gateway);
        let server = count(&self.server_errors, (500..=599).contains(&http), &limits.server_error);
        [gateway.then_some(Streak::Gateway), server.then_some(Streak::ServerError)]
    }

    /// Successes and failures since the last time.
    pub(crate) fn take(&self) -> (u64, u64) {
        (self.successes.swap(0, Relaxed), self.failures.swap(0, Relaxed))
    }

    /// The same of failures made here, where they are split off.
    pub(crate) fn take_local(&self) -> (u64, u64) {
        (self.local_successes.swap(0, Relaxed), self.local_failures.swap(0, Relaxed))
    }

    /// Forgets what was consecutive: the endpoint comes back with a clean slate.
    pub(crate) fn clear_streaks(&self) {
        for streak in [&self.server_errors, &self.gateway_errors, &self.local_origin] {
            streak.store(0, Relaxed);
        }
    }
}

/// Lengthens or ends a streak; true exactly once per `limit` errors in a row.
fn count(streak: &AtomicU32, error: bool, limit: &AtomicU32) -> bool {
    if !error {
        if streak.load(Relaxed) != 0 {
            streak.store(0, Relaxed);
        }
        return false;
    }
    let limit = limit.load(Relaxed);
    if limit == 0 {
        return false;
    }
    let reached = streak.fetch_add(1, Relaxed) + 1 == limit;
    if reached {
        streak.store(0, Relaxed);
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn thresholds(split: bool) -> Thresholds {
        let limit = |threshold| Some(Consecutive { threshold, enforcing: 100 });
        let thresholds = Thresholds::default();
        thresholds.set(Some(&OutlierDetection {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            consecutive_5xx: limit(3),
            consecutive_gateway_failure: limit(2),
            consecutive_local_origin_failure: limit(2),
            split_external_local_origin_errors: split,
            ..OutlierDetection::default()
        }));
        thresholds
    }

    fn all_streaks(split: bool, outcomes: &[Outcome]) -> Vec<[Option<Streak>; 2]> {
        let (tally, thresholds) = (Tally::default(), thresholds(split));
        outcomes.iter().map(|outcome| tally.record(*outcome, &thresholds).streaks).collect()
    }

    /// Where each outcome reaches one limit at most.
    fn streaks(split: bool, outcomes: &[Outcome]) -> Vec<Option<Streak>> {
        let one = |streaks: [Option<Streak>; 2]| match streaks {
            [Some(one), Some(other)] => panic!("{one:?} and {other:?}"),
            [one, other] => one.or(other),
        };
        all_streaks(split, outcomes).into_iter().map(one).collect()
    }

    #[test]
    fn statuses_that_map_to_5xx_count_and_any_other_answer_ends_the_streak() {
        let bad = [Code::Unknown, Code::Internal, Code::DataLoss, Code::Unimplemented].map(Outcome::Status);
        for outcome in bad {
            assert_eq!(streaks(false, &[outcome; 3])[2], Some(Streak::ServerError));
        }
        for good in [Code::Ok, Code::NotFound, Code::ResourceExhausted, Code::Cancelled] {
            let good = Outcome::Status(good);
            assert_eq!(streaks(false, &[bad[0], bad[0], good, bad[0]]), [None; 4]);
        }
    }

    #[test]
    fn unavailable_and_deadline_exceeded_are_gateway_errors() {
        for outcome in [
            Outcome::Status(Code::Unavailable),
            Outcome::Status(Code::DeadlineExceeded),
            Outcome::Http(502),
            Outcome::Reset,
            Outcome::TimedOut,
        ] {
            assert_eq!(streaks(false, &[outcome; 2]), [None, Some(Streak::Gateway)]);
        }
    }

    #[test]
    fn a_streak_is_reported_once_and_counted_anew() {
        let reported = streaks(false, &[Outcome::Http(500); 7]);
        let expected: Vec<_> = (1..=7).map(|n| (n % 3 == 0).then_some(Streak::ServerError)).collect();
        assert_eq!(reported, expected);
    }

    #[test]
    fn an_outcome_may_reach_two_limits_and_neither_hides_the_other() {
        let (bad, gateway) = (Outcome::Http(500), Outcome::Http(503));
        let reached = all_streaks(false, &[bad, gateway, gateway, gateway, bad]);
        let both = [Some(Streak::Gateway), Some(Streak::ServerError)];
        assert_eq!(reached, [[None; 2], [None; 2], both, [None; 2], [None; 2]]);
    }

    #[test]
    fn split_errors_are_counted_apart() {
        let (reset, refused) = (Outcome::Reset, Outcome::ConnectFailed);
        assert_eq!(streaks(true, &[reset, refused]), [None, Some(Streak::LocalOrigin)]);
        assert_eq!(streaks(true, &[reset, Outcome::Http(500), refused]), [None; 3]);
        assert_eq!(streaks(false, &[refused; 5]), [None; 5]);
    }

    #[test]
    fn a_cancelled_call_counts_nowhere() {
        let (tally, thresholds) = (Tally::default(), thresholds(false));
        tally.record(Outcome::Cancelled, &thresholds);
        tally.record(Outcome::Status(Code::Ok), &thresholds);
        tally.record(Outcome::Status(Code::NotFound), &thresholds);
        assert_eq!(tally.take(), (1, 1));
        assert_eq!(tally.take(), (0, 0));
    }

    #[test]
    fn split_failures_are_no_answers_and_answers_no_failures_of_that_kind() {
        let count = |split: bool| {
            let (tally, thresholds) = (Tally::default(), thresholds(split));
            for outcome in [
                Outcome::Status(Code::Ok),
                Outcome::Status(Code::Unavailable),
                Outcome::Http(502),
                Outcome::Reset,
                Outcome::TimedOut,
                Outcome::ConnectFailed,
                Outcome::Cancelled,
            ] {
                tally.record(outcome, &thresholds);
            }
            (tally.take(), tally.take_local())
        };
        assert_eq!(count(false), ((1, 4), (0, 0)), "the dial that failed is no call");
        assert_eq!(count(true), ((1, 2), (3, 3)));
    }

    /// The same limits, told which codes are errors.
    fn judging(split: bool, codes: &[u16]) -> Thresholds {
        let told = thresholds(split);
        told.errors.set(Some(&codes.iter().copied().collect()));
        told
    }

    #[test]
    fn codes_that_are_configured_are_the_errors_and_no_others() {
        let (busy, unavailable) =
            (Outcome::Status(Code::ResourceExhausted), Outcome::Status(Code::Unavailable));
        let reached = |codes: &[u16], outcomes: &[Outcome]| {
            let (tally, thresholds) = (Tally::default(), judging(false, codes));
            outcomes.iter().map(|outcome| tally.record(*outcome, &thresholds).streaks).collect::<Vec<_>>()
        };
        let (nothing, server, gateway) =
            ([None; 2], [None, Some(Streak::ServerError)], [Some(Streak::Gateway), None]);
        // RESOURCE_EXHAUSTED is 429, by its status and by the HTTP answer alike; below 500 it is no gateway's error.
        assert_eq!(reached(&[429], &[busy, Outcome::Http(429), busy]), [nothing, nothing, server]);
        // 503 is none any more, and ends the streak.
        assert_eq!(reached(&[429], &[busy, busy, unavailable, busy]), [nothing; 4]);
        assert_eq!(reached(&[429], &[Outcome::Http(500); 6]), [nothing; 6]);
        // Of both counts, where it is.
        assert_eq!(reached(&[503], &[unavailable, Outcome::Http(503)]), [nothing, gateway]);
        // An error that was made here is one always.
        assert_eq!(reached(&[429], &[Outcome::Reset, Outcome::TimedOut]), [nothing, gateway]);
        // Told no more, all is as before.
        let (tally, told) = (Tally::default(), judging(false, &[429]));
        told.errors.set(None);
        let streaks = [busy, unavailable, unavailable].map(|outcome| tally.record(outcome, &told).streaks);
        assert_eq!(streaks, [nothing, nothing, gateway]);
    }

    #[test]
    fn statistics_count_the_codes_that_are_configured_as_failures() {
        let count = |split: bool| {
            let (tally, thresholds) = (Tally::default(), judging(split, &[404, 503]));
            for outcome in [
                Outcome::Status(Code::Ok),
                Outcome::Status(Code::Internal),
                Outcome::Http(500),
                Outcome::Status(Code::NotFound),
                Outcome::Http(503),
                Outcome::Http(700),
                Outcome::Reset,
            ] {
                tally.record(outcome, &thresholds);
            }
            (tally.take(), tally.take_local())
        };
        assert_eq!(count(false), ((4, 3), (0, 0)));
        assert_eq!(count(true), ((4, 2), (6, 1)));
    }

    #[test]
    fn only_the_first_outcome_wakes_the_sleeper() {
        let (tally, thresholds) = (Tally::default(), thresholds(false));
        thresholds.sleep();
        assert!(!tally.record(Outcome::Cancelled, &thresholds).awake);
        assert!(tally.record(Outcome::Status(Code::Ok), &thresholds).awake);
        assert!(!tally.record(Outcome::Status(Code::Ok), &thresholds).awake);
    }
}
