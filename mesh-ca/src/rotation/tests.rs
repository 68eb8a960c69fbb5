//! The rotation machine as scripts.

use super::*;
use proptest::prelude::*;

const T0: SystemTime = SystemTime::UNIX_EPOCH;

fn at(seconds: f64) -> SystemTime {
    T0 + Duration::from_secs_f64(seconds)
}

fn machine(seed: u64) -> Rotation {
    Rotation::new(T0, Schedule::HALF_LIFE, Backoff::default(), seed)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(T0).unwrap().as_secs_f64()
}

#[test]
fn the_first_wake_fetches_and_a_second_does_not() {
    let mut rotation = machine(1);
    assert_eq!(rotation.on(T0, Input::Wake), Outputs { fetch: true, wake: None, stage: Stage::Absent });
    assert_eq!(rotation.on(T0, Input::Wake), Outputs { fetch: false, wake: None, stage: Stage::Absent });
}

#[test]
fn renewal_is_due_at_half_life_within_one_percent_and_spread() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut rotation = machine(seed);
        rotation.on(T0, Input::Wake);
        let out = rotation.on(T0, Input::Fetched { not_after: at(1000.0) });
        assert_eq!(out.stage, Stage::Fresh);
        let wake = seconds(out.wake.unwrap());
        assert!((490.0..=510.0).contains(&wake), "{wake}");
        seen.insert(wake as u64);
        assert!(!rotation.on(at(489.0), Input::Wake).fetch);
        assert!(rotation.on(out.wake.unwrap(), Input::Wake).fetch);
    }
    assert!(seen.len() > 15, "renewals are not spread: {seen:?}");
}

#[test]
fn a_life_of_two_seconds_is_renewed_after_one() {
    let mut rotation = machine(7);
    rotation.on(T0, Input::Wake);
    let wake = seconds(rotation.on(T0, Input::Fetched { not_after: at(2.0) }).wake.unwrap());
    assert!((0.98..=1.02).contains(&wake), "{wake}");
}

#[test]
fn failures_are_retried_with_growing_delays_while_the_identity_is_served() {
    let mut rotation = machine(3);
    rotation.on(T0, Input::Wake);
    let mut now = rotation.on(T0, Input::Fetched { not_after: at(86_400.0) }).wake.unwrap();
    let mut delays = Vec::new();
    for _ in 0..12 {
        assert!(rotation.on(now, Input::Wake).fetch);
        let out = rotation.on(now, Input::Failed);
        assert_eq!(out.stage, Stage::Overdue);
        let next = out.wake.unwrap();
        delays.push(next.duration_since(now).unwrap().as_secs_f64());
        now = next;
    }
    for (n, delay) in delays.iter().enumerate() {
        let expected = (0.5 * f64::powi(2.0, n as i32)).min(150.0);
        assert!((expected * 0.79..=expected * 1.21).contains(delay), "attempt {n}: {delay} of {expected}");
    }
}

#[test]
fn retries_stay_short_against_the_life_that_is_left() {
    let mut rotation = machine(3);
    rotation.on(T0, Input::Wake);
    let mut now = rotation.on(T0, Input::Fetched { not_after: at(4.0) }).wake.unwrap();
    let mut attempts = 0;
    while now < at(4.0) {
        if rotation.on(now, Input::Wake).fetch {
            attempts += 1;
            now = rotation.on(now, Input::Failed).wake.unwrap();
        } else {
            now = rotation.on(now, Input::Wake).wake.unwrap();
        }
    }
    assert!(attempts >= 5, "only {attempts} attempts in the second half of a life of four seconds");
}

#[test]
fn the_stages_of_trouble_are_reported_in_time() {
    let mut rotation = machine(9);
    rotation.on(T0, Input::Wake);
    rotation.on(T0, Input::Fetched { not_after: at(100.0) });
    assert!(rotation.on(at(55.0), Input::Wake).fetch);
    assert_eq!(rotation.on(at(55.0), Input::Failed).stage, Stage::Overdue);
    assert_eq!(rotation.stage(at(79.0)), Stage::Overdue);
    assert_eq!(rotation.stage(at(80.0)), Stage::Ending);
    assert_eq!(rotation.stage(at(100.0)), Stage::Ending);
    assert_eq!(rotation.stage(at(100.1)), Stage::Expired);
    assert!(rotation.on(at(101.0), Input::Wake).fetch);
    let out = rotation.on(at(101.0), Input::Fetched { not_after: at(200.0) });
    assert_eq!(out.stage, Stage::Fresh);
}

#[test]
fn without_any_identity_the_longest_delay_is_shorter() {
    let mut rotation = machine(5);
    let mut now = T0;
    for _ in 0..20 {
        assert!(rotation.on(now, Input::Wake).fetch);
        let next = rotation.on(now, Input::Failed).wake.unwrap();
        assert!(next.duration_since(now).unwrap() <= Duration::from_secs(12));
        now = next;
    }
}

#[test]
fn files_are_looked_at_every_interval_and_a_fixed_identity_never() {
    let interval = Duration::from_secs(600);
    let mut files = Rotation::new(T0, Schedule::Every(interval), Backoff::default(), 1);
    files.on(T0, Input::Wake);
    let wake = seconds(files.on(T0, Input::Fetched { not_after: at(1e6) }).wake.unwrap());
    assert!((594.0..=606.0).contains(&wake), "{wake}");

    let mut fixed = Rotation::new(T0, Schedule::Never, Backoff::default(), 1);
    fixed.on(T0, Input::Wake);
    let out = fixed.on(T0, Input::Fetched { not_after: at(10.0) });
    assert!(out.wake.unwrap() > at(10.0), "the end of its life is still reported");
    let out = fixed.on(out.wake.unwrap(), Input::Wake);
    assert_eq!(out, Outputs { fetch: false, wake: None, stage: Stage::Expired });
}

proptest! {
    /// Whatever happens, one fetch is under way or a wake is set, and a wake is never in the past.
    #[test]
    fn the_machine_never_stalls_and_never_fetches_twice_at_once(
        seed: u64,
        events in proptest::collection::vec((0_u8..3, 0.0_f64..100.0), 1..200),
    ) {
        let (mut rotation, mut now, mut fetching) = (machine(seed), T0, false);
        for (kind, step) in events {
            now += Duration::from_secs_f64(step);
            let input = match (kind, fetching) {
                (1, true) => Input::Fetched { not_after: now + Duration::from_secs_f64(step) },
                (2, true) => Input::Failed,
                _ => Input::Wake,
            };
            if input != Input::Wake {
                fetching = false;
            }
            let out = rotation.on(now, input);
            prop_assert!(!(fetching && out.fetch));
            fetching |= out.fetch;
            prop_assert!(fetching || out.wake.is_some_and(|wake| wake >= now));
        }
    }
}
