//! Slow start: an endpoint that has just come gets less than its share at first (Envoy's `slow_start_config`).
//!
//! weight · max(minimum, (age / window)^(1 / aggression)), where the age is at least a second.

use mesh_xds::resource::cluster::SlowStart;
use std::time::Duration;

/// Weights are multiplied by this where slow start is on, so that a part of weight 1 is a number.
const UNIT: u32 = 1000;

/// The part of its weight, in 0..=1, that an endpoint of this age has.
fn factor(settings: &SlowStart, age: Duration) -> f64 {
    if age >= settings.window {
        return 1.0;
    }
    let minimum = f64::from(settings.min_weight.parts()) / 1_000_000.0;
    let time = age.max(Duration::from_secs(1)).as_secs_f64() / settings.window.as_secs_f64();
    time.powf(1.0 / settings.aggression).max(minimum).min(1.0)
}

/// Its weight, in thousandths; never 0.
pub(crate) fn weight(settings: &SlowStart, weight: u32, age: Duration) -> u32 {
    let scaled = f64::from(weight) * f64::from(UNIT) * factor(settings, age);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates.
    let scaled = scaled.round() as u32;
    scaled.max(1)
}

/// How long until the weights are worth another look: a fiftieth of the window, at least a tenth of a second
/// and at most a second.
pub(crate) fn step(settings: &SlowStart) -> Duration {
    (settings.window / 50).clamp(Duration::from_millis(100), Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_xds::matcher::Fraction;

    fn settings(window: u64, aggression: f64, percent: u32) -> SlowStart {
        let min_weight = Fraction::per_million(percent * 10_000);
        SlowStart { window: Duration::from_secs(window), aggression, min_weight }
    }

    #[test]
    fn the_factor_is_envoys() {
        for (aggression, seconds, expected) in [
            (1.0, 0, 0.1),
            (1.0, 5, 0.1),
            (1.0, 50, 0.5),
            (1.0, 99, 0.99),
            (1.0, 100, 1.0),
            (1.0, 1000, 1.0),
            // 0.25^(1/2) and 0.5^2.
            (2.0, 25, 0.5),
            (0.5, 50, 0.25),
            // An age below a second counts as one: 0.01^(1/2).
            (2.0, 0, 0.1),
        ] {
            let factor = factor(&settings(100, aggression, 10), Duration::from_secs(seconds));
            assert!((factor - expected).abs() < 1e-9, "{aggression} at {seconds} s: {factor}");
        }
    }

    #[test]
    fn weights_are_in_thousandths_and_never_nothing() {
        let slow = settings(60, 1.0, 0);
        assert_eq!(weight(&slow, 3, Duration::from_secs(30)), 1500);
        assert_eq!(weight(&slow, 1, Duration::from_secs(60)), UNIT);
        assert_eq!(weight(&slow, u32::MAX, Duration::from_secs(60)), u32::MAX);
        assert_eq!(weight(&settings(10_000, 1.0, 0), 1, Duration::ZERO), 1);
    }

    #[test]
    fn a_look_comes_at_sensible_intervals() {
        assert_eq!(step(&settings(1, 1.0, 10)), Duration::from_millis(100));
        assert_eq!(step(&settings(20, 1.0, 10)), Duration::from_millis(400));
        assert_eq!(step(&settings(600, 1.0, 10)), Duration::from_secs(1));
    }
}
