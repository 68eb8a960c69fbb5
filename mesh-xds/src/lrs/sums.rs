//! What all clients together reported, by cluster and locality, within bounds.
//!
//! Totals only grow, as counters of Prometheus do. Names come from clients: what is beyond the bounds is summed up
//! without a name, so that nothing a client says costs more than one entry.

use envoy_types::pb::envoy::config::{
    core::v3::Locality,
    endpoint::v3::{ClusterStats, UpstreamLocalityStats},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Clusters that are told apart.
const MAX_CLUSTERS: usize = 1_000;
/// Localities, and categories of drops, that are told apart in a cluster.
const MAX_PARTS: usize = 64;
/// Bytes of a name.
const MAX_NAME: usize = 512;
/// What everything beyond the bounds is called.
const OTHERS: &str = "(others)";

/// Sums of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Calls that began.
    pub issued: u64,
    /// Calls that ended with status OK.
    pub successes: u64,
    /// Calls that ended otherwise.
    pub errors: u64,
    /// Calls in progress at the last report of each client that is connected.
    pub in_progress: u64,
}

/// A metric of endpoints, as calls brought it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MetricSums {
    /// Calls that had it.
    pub count: u64,
    /// Sum of its values.
    pub total: f64,
}

/// What was reported of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClusterSums {
    /// All localities together.
    #[serde(flatten)]
    pub sums: Sums,
    /// Calls that were never sent: dropped by configuration, or refused by a circuit breaker.
    pub dropped: u64,
    /// Of these, those of a category, by category.
    pub drops: BTreeMap<String, u64>,
    /// What endpoints said of their own load, by name of the metric.
    pub metrics: BTreeMap<String, MetricSums>,
    /// By `region/zone/sub_zone`.
    pub localities: BTreeMap<String, Sums>,
}

/// What was reported since the start, by cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LoadSums {
    /// By name of the cluster.
    pub clusters: BTreeMap<String, ClusterSums>,
    /// Reports that were read.
    pub reports: u64,
}

/// What a client that is connected has in progress, by cluster and locality as they are summed.
pub(super) type Current = BTreeMap<(String, String), u64>;

/// `region/zone/sub_zone`.
pub(super) fn place(locality: Option<&Locality>) -> String {
    locality.map_or_else(String::new, |locality| {
        format!("{}/{}/{}", locality.region, locality.zone, locality.sub_zone)
    })
}

impl Sums {
    fn add(&mut self, stats: &UpstreamLocalityStats) {
        self.issued = self.issued.saturating_add(stats.total_issued_requests);
        self.successes = self.successes.saturating_add(stats.total_successful_requests);
        self.errors = self.errors.saturating_add(stats.total_error_requests);
    }
}

impl LoadSums {
    /// Adds a report; `current` is what its client had in progress before, and has now.
    pub(super) fn add(&mut self, report: &[ClusterStats], current: &mut Current) {
        self.reports += 1;
        // Each report says all that is in progress.
        self.forget(current);
        for stats in report {
            let name = bounded(&self.clusters, &stats.cluster_name, MAX_CLUSTERS);
            let cluster = self.clusters.entry(name.clone()).or_default();
            cluster.dropped = cluster.dropped.saturating_add(stats.total_dropped_requests);
            for dropped in &stats.dropped_requests {
                let category = bounded(&cluster.drops, &dropped.category, MAX_PARTS);
                let count = cluster.drops.entry(category).or_default();
                *count = count.saturating_add(dropped.dropped_count);
            }
            for stats in &stats.upstream_locality_stats {
                let place = bounded(&cluster.localities, &place(stats.locality.as_ref()), MAX_PARTS);
                let locality = cluster.localities.entry(place.clone()).or_default();
                locality.add(stats);
                cluster.sums.add(stats);
                for (name, count, total) in metrics(stats) {
                    let name = bounded(&cluster.metrics, name, MAX_PARTS);
                    let sums = cluster.metrics.entry(name).or_default();
                    sums.count = sums.count.saturating_add(count);
                    // What is no number would be what the sum is from then on.
                    sums.total += if total.is_finite() { total } else { 0.0 };
                }
                let in_progress = stats.total_requests_in_progress;
                if in_progress > 0 {
                    locality.in_progress = locality.in_progress.saturating_add(in_progress);
                    cluster.sums.in_progress = cluster.sums.in_progress.saturating_add(in_progress);
                    let now = current.entry((name.clone(), place)).or_default();
                    *now = now.saturating_add(in_progress);
                }
            }
        }
    }

    /// Takes out what a client had in progress: it reports anew, or is gone.
    pub(super) fn forget(&mut self, current: &mut Current) {
        for ((name, place), count) in std::mem::take(current) {
            let Some(cluster) = self.clusters.get_mut(&name) else { continue };
            cluster.sums.in_progress = cluster.sums.in_progress.saturating_sub(count);
            if let Some(locality) = cluster.localities.get_mut(&place) {
                locality.in_progress = locality.in_progress.saturating_sub(count);
            }
        }
    }
}

/// Name, number of calls and sum of each metric.
fn metrics(stats: &UpstreamLocalityStats) -> impl Iterator<Item = (&str, u64, f64)> {
    let unnamed = [
        ("cpu_utilization", &stats.cpu_utilization),
        ("mem_utilization", &stats.mem_utilization),
        ("application_utilization", &stats.application_utilization),
    ];
    let unnamed = unnamed.into_iter().filter_map(|(name, stats)| {
        let stats = stats.as_ref()?;
        Some((name, stats.num_requests_finished_with_metric, stats.total_metric_value))
    });
    let named = stats.load_metric_stats.iter().map(|stats| {
        (stats.metric_name.as_str(), stats.num_requests_finished_with_metric, stats.total_metric_value)
    });
    unnamed.chain(named)
}

/// `name`, if it is known or there is room for it.
fn bounded<T>(known: &BTreeMap<String, T>, name: &str, limit: usize) -> String {
    let fits = name.len() <= MAX_NAME && (known.contains_key(name) || known.len() < limit);
    if fits { name.to_owned() } else { OTHERS.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::endpoint::v3::cluster_stats::DroppedRequests;

    fn stats(cluster: &str, zone: &str, ok: u64, in_progress: u64) -> ClusterStats {
        ClusterStats {
            cluster_name: cluster.into(),
            upstream_locality_stats: vec![UpstreamLocalityStats {
                locality: Some(Locality { zone: zone.into(), ..Locality::default() }),
                total_successful_requests: ok,
                total_issued_requests: ok,
                total_requests_in_progress: in_progress,
                ..UpstreamLocalityStats::default()
            }],
            ..ClusterStats::default()
        }
    }

    #[test]
    fn totals_grow_and_what_is_in_progress_follows_each_client() {
        let (mut sums, mut one, mut other) = (LoadSums::default(), Current::new(), Current::new());
        sums.add(&[stats("c", "a", 5, 2)], &mut one);
        sums.add(&[stats("c", "a", 1, 3)], &mut other);
        let of = |sums: &LoadSums| (sums.clusters["c"].sums.successes, sums.clusters["c"].sums.in_progress);
        assert_eq!(of(&sums), (6, 5));
        sums.add(&[stats("c", "a", 0, 1)], &mut one);
        assert_eq!(of(&sums), (6, 4));
        sums.forget(&mut other);
        assert_eq!(of(&sums), (6, 1));
        sums.add(&[], &mut one);
        assert_eq!(of(&sums), (6, 0));
        assert_eq!(sums.clusters["c"].localities["/a/"].in_progress, 0);
    }

    #[test]
    fn a_client_that_makes_names_up_fills_one_entry() {
        let (mut sums, mut current) = (LoadSums::default(), Current::new());
        sums.add(&[stats("real", "a", 1, 0)], &mut current);
        for i in 0..3_000 {
            sums.add(&[stats(&format!("c{i}"), "a", 1, 1)], &mut current);
        }
        for i in 0..1_000 {
            let mut stats = stats("real", &format!("z{i}"), 1, 0);
            stats.dropped_requests = vec![DroppedRequests { category: format!("d{i}"), dropped_count: 1 }];
            stats.total_dropped_requests = 1;
            sums.add(&[stats], &mut current);
        }
        sums.add(&[stats(&"x".repeat(1_000_000), "a", 1, 0)], &mut current);
        assert_eq!(sums.clusters.len(), MAX_CLUSTERS + 1);
        let real = &sums.clusters["real"];
        assert_eq!((real.localities.len(), real.drops.len()), (MAX_PARTS + 1, MAX_PARTS + 1));
        assert_eq!((real.dropped, real.sums.successes), (1_000, 1_001), "sums lose nothing");
        assert_eq!(real.drops.values().sum::<u64>(), 1_000);
        let all: u64 = sums.clusters.values().map(|cluster| cluster.sums.successes).sum();
        assert_eq!(all, 1 + 3_000 + 1_000 + 1);
    }
}
