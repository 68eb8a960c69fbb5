//! From a load report to a weight, and from weights to a schedule (gRFC A58, A114). Arithmetic only.

use mesh_xds::{
    orca::LoadReport,
    resource::cluster::{ClientSideWeightedRoundRobin, Utilization},
};

/// The largest weight in a schedule.
pub(crate) const LARGEST: u16 = u16::MAX;
/// Weights are between these parts of the mean: gRPC's bounds. The upper one bounds the rounds that a pick
/// takes, the lower one the picks until an endpoint that is hardly ever picked is picked.
const MAX_RATIO: f64 = 10.0;
const MIN_RATIO: f64 = 0.01;

/// Why an endpoint's weight is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// There was no report, or the first one is not old enough.
    NotYet,
    /// The last report is too old.
    Stale,
}

/// `qps / (utilization + eps / qps * penalty)`; none without utilization or `qps`.
pub(crate) fn of(report: &LoadReport, policy: &ClientSideWeightedRoundRobin) -> Option<f64> {
    let (qps, utilization) = (report.rps_fractional, utilization(report, &policy.utilization)?);
    if !is_value(qps) {
        return None;
    }
    let errors = if is_value(report.eps) { report.eps / qps } else { 0.0 };
    let weight = qps / (utilization + errors * f64::from(policy.error_utilization_penalty));
    is_value(weight).then_some(weight)
}

/// The largest of the named metrics; without one, `application_utilization`, else `cpu_utilization`.
fn utilization(report: &LoadReport, metrics: &[Utilization]) -> Option<f64> {
    let value = |metric: &Utilization| match metric {
        Utilization::Application => Some(report.application_utilization),
        Utilization::Cpu => Some(report.cpu_utilization),
        Utilization::Memory => Some(report.mem_utilization),
        Utilization::Named(key) => report.utilization.get(&**key).copied(),
        Utilization::NamedMetric(key) => report.named_metrics.get(&**key).copied(),
    };
    let values = metrics.iter().filter_map(value).filter(|value| is_value(*value));
    let usual = [report.application_utilization, report.cpu_utilization];
    values.max_by(f64::total_cmp).or_else(|| usual.into_iter().find(|value| is_value(*value)))
}

/// Zero is what was not set; what is negative or no number is not believed.
fn is_value(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

/// Weights in proportion for a schedule, the largest being [`LARGEST`]; those that are not known count as the
/// mean of the others. With fewer than two that are known all are alike. Each is multiplied by its share, in any
/// unit: those of endpoints that warm up are smaller.
pub(crate) fn scale(weights: &[Option<f64>], shares: &[u32]) -> Vec<u16> {
    let known = || weights.iter().copied().flatten();
    let count = known().count();
    #[allow(clippy::cast_precision_loss)] // Nobody has 2^52 endpoints.
    let mean = known().sum::<f64>() / count as f64;
    let is_round_robin = count < 2 || !is_value(mean);
    let bounded = |weight: &Option<f64>| match weight {
        _ if is_round_robin => 1.0,
        Some(weight) => (weight / mean).clamp(MIN_RATIO, MAX_RATIO),
        None => 1.0,
    };
    let shared = weights.iter().zip(shares).map(|(weight, share)| bounded(weight) * f64::from(*share));
    let shared: Vec<f64> = shared.collect();
    let largest = shared.iter().copied().fold(0.0, f64::max);
    let scaled = |weight: &f64| {
        let scaled = (weight / largest * f64::from(LARGEST)).round();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates.
        let scaled = scaled as u16;
        // None is passed over for ever.
        scaled.max(1)
    };
    shared.iter().map(scaled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report() -> LoadReport {
        LoadReport { rps_fractional: 100.0, application_utilization: 0.5, ..LoadReport::default() }
    }

    fn policy(penalty: f32, metrics: &[Utilization]) -> ClientSideWeightedRoundRobin {
        ClientSideWeightedRoundRobin {
            error_utilization_penalty: penalty,
            utilization: metrics.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn the_formula_is_grpcs() {
        for (report, penalty, expected) in [
            (report(), 1.0, Some(200.0)),
            // 100 / (0.5 + 0.1 * 2.5), and without the penalty.
            (LoadReport { eps: 10.0, ..report() }, 2.5, Some(100.0 / 0.75)),
            (LoadReport { eps: 10.0, ..report() }, 0.0, Some(200.0)),
            (LoadReport { eps: f64::NAN, ..report() }, 1.0, Some(200.0)),
            (
                LoadReport { application_utilization: 0.0, cpu_utilization: 0.25, ..report() },
                1.0,
                Some(400.0),
            ),
            (LoadReport { cpu_utilization: 0.25, ..report() }, 1.0, Some(200.0)),
            (LoadReport { application_utilization: 0.0, eps: 10.0, ..report() }, 1.0, None),
            (LoadReport { application_utilization: -1.0, ..report() }, 1.0, None),
            (LoadReport { application_utilization: f64::INFINITY, ..report() }, 1.0, None),
            (LoadReport { rps_fractional: 0.0, ..report() }, 1.0, None),
            (LoadReport { rps_fractional: -1.0, ..report() }, 1.0, None),
            (LoadReport { rps_fractional: f64::NAN, ..report() }, 1.0, None),
        ] {
            assert_eq!(of(&report, &policy(penalty, &[])), expected, "{report:?} {penalty}");
        }
    }

    #[test]
    fn utilization_is_the_largest_of_the_named_metrics_and_the_usual_one_without_any() {
        let mut report = LoadReport { mem_utilization: 0.25, cpu_utilization: 0.9, ..report() };
        report.named_metrics.insert("queue.depth".to_owned(), 4.0);
        report.named_metrics.insert("bad".to_owned(), f64::NAN);
        report.utilization.insert("disk".to_owned(), 2.0);
        let named = |key: &str| Utilization::NamedMetric(key.into());
        let disk = || Utilization::Named("disk".into());
        for (metrics, expected) in [
            (vec![], 0.5),
            (vec![Utilization::Memory], 0.25),
            (vec![Utilization::Memory, Utilization::Cpu], 0.9),
            (vec![disk(), Utilization::Application], 2.0),
            (vec![disk(), named("queue.depth"), named("bad")], 4.0),
            (vec![named("bad"), named("none"), Utilization::Named("queue.depth".into())], 0.5),
        ] {
            assert_eq!(utilization(&report, &metrics), Some(expected), "{metrics:?}");
        }
    }

    #[test]
    fn unknown_weights_are_the_mean_and_one_that_is_known_is_not_enough() {
        let scaled = |weights: &[Option<f64>]| scale(weights, &vec![1; weights.len()]);
        assert_eq!(scaled(&[Some(10.0), Some(30.0), None]), [21845, 65535, 43690]);
        assert_eq!(scaled(&[Some(10.0), None, None]), [65535; 3]);
        assert_eq!(scaled(&[None, None]), [65535; 2]);
        assert_eq!(scaled(&[Some(0.5), Some(0.5)]), [65535; 2]);
        assert!(scaled(&[]).is_empty());
    }

    #[test]
    fn weights_are_bounded_by_a_hundredth_and_ten_times_the_mean() {
        // The mean is about 1.0 of twenty; 1000 counts as 10 times that of all.
        let mut weights = vec![Some(1.0); 19];
        weights.push(Some(1e9));
        let mean = (1e9 + 19.0) / 20.0;
        let scaled = scale(&weights, &[1; 20]);
        assert_eq!(scaled[19], LARGEST);
        // The others are a hundredth of the mean, and the largest ten times the mean.
        let expected = (mean * MIN_RATIO / (mean * MAX_RATIO) * 65_535.0_f64).round();
        assert_eq!(f64::from(scaled[0]), expected);
    }

    #[test]
    fn shares_lessen_known_and_unknown_weights_alike() {
        let scaled = scale(&[Some(10.0), Some(20.0), None], &[1000, 500, 100]);
        assert_eq!(scaled, [65535, 65535, 9830]);
        assert_eq!(scale(&[None, None], &[1000, 250]), [65535, 16384]);
    }

    proptest! {
        #[test]
        fn whatever_is_reported_a_schedule_can_be_made(
            weights in prop::collection::vec(prop::option::of(1e-300..1e300), 0..50),
            share in 1..=u32::MAX,
        ) {
            let scaled = scale(&weights, &vec![share; weights.len()]);
            prop_assert_eq!(scaled.len(), weights.len());
            prop_assert!(scaled.iter().all(|weight| *weight > 0));
            prop_assert!(scaled.is_empty() || scaled.contains(&LARGEST));
        }
    }
}
