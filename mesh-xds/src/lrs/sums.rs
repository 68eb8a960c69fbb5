//! What all clients together reported, by cluster and locality, within bounds.
//!
//! Totals only grow, as counters of Prometheus do. Names come from clients: what is beyond the bounds, or a cluster
//! that is not known, is summed up without a name, so that nothing a client says costs more than one entry.

use envoy_types::pb::envoy::config::{
    core::v3::Locality,
    endpoint::v3::{ClusterStats, UpstreamLocalityStats},
};
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

/// Clusters that are told apart.
const MAX_CLUSTERS: usize = 1_000;
/// Localities, and categories of drops, that are told apart in a cluster.
const MAX_PARTS: usize = 64;
/// Bytes of a name.
const MAX_NAME: usize = 512;
/// Clusters and localities of which it is kept what one client has in progress.
const MAX_CURRENT: usize = 4_096;
/// The largest number that is believed: more than any client does between two reports, and few enough that no client
/// can fill a counter for everybody.
const MAX_COUNT: u64 = 1 << 40;
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
    pub drops: BTreeMap<Arc<str>, u64>,
    /// What endpoints said of their own load, by name of the metric.
    pub metrics: BTreeMap<Arc<str>, MetricSums>,
    /// By `region/zone/sub_zone`.
    pub localities: BTreeMap<Arc<str>, Sums>,
}

/// What was reported since the start, by cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LoadSums {
    /// By name of the cluster.
    pub clusters: BTreeMap<Arc<str>, ClusterSums>,
    /// Reports that were read.
    pub reports: u64,
}

/// What a client that is connected has in progress, by cluster and locality as they are summed; the names are those
/// of the sums.
pub(super) type Current = BTreeMap<(Arc<str>, Arc<str>), u64>;

/// `region/zone/sub_zone`.
pub(super) fn place(locality: Option<&Locality>) -> String {
    locality.map_or_else(String::new, |locality| {
        format!("{}/{}/{}", locality.region, locality.zone, locality.sub_zone)
    })
}

impl Sums {
    fn add(&mut self, stats: &UpstreamLocalityStats) {
        count(&mut self.issued, stats.total_issued_requests);
        count(&mut self.successes, stats.total_successful_requests);
        count(&mut self.errors, stats.total_error_requests);
    }
}

impl LoadSums {
    /// Adds a report; `current` is what its client had in progress before, and has now. `known` says of a cluster
    /// that was not reported before whether there is one of that name.
    pub(super) fn add(
        &mut self,
        report: &[ClusterStats],
        current: &mut Current,
        known: &dyn Fn(&str) -> bool,
    ) {
        self.reports = self.reports.saturating_add(1);
        // Each report says all that is in progress.
        self.forget(current);
        for stats in report {
            let name = bounded(&self.clusters, &stats.cluster_name, MAX_CLUSTERS, known);
            let cluster = self.clusters.entry(name.clone()).or_default();
            count(&mut cluster.dropped, stats.total_dropped_requests);
            for dropped in &stats.dropped_requests {
                let category = bounded(&cluster.drops, &dropped.category, MAX_PARTS, &any);
                count(cluster.drops.entry(category).or_default(), dropped.dropped_count);
            }
            for stats in &stats.upstream_locality_stats {
                let place = bounded(&cluster.localities, &place(stats.locality.as_ref()), MAX_PARTS, &any);
                let locality = cluster.localities.entry(place.clone()).or_default();
                locality.add(stats);
                cluster.sums.add(stats);
                for (name, calls, total) in metrics(stats) {
                    let name = bounded(&cluster.metrics, name, MAX_PARTS, &any);
                    let sums = cluster.metrics.entry(name).or_default();
                    count(&mut sums.count, calls);
                    // What is no number would be what the sum is from then on, and so would what it cannot hold.
                    let sum = sums.total + total;
                    sums.total = if sum.is_finite() { sum } else { sums.total };
                }
                let in_progress = stats.total_requests_in_progress.min(MAX_COUNT);
                let key = (name.clone(), place);
                if in_progress > 0 && (current.len() < MAX_CURRENT || current.contains_key(&key)) {
                    locality.in_progress = locality.in_progress.saturating_add(in_progress);
                    cluster.sums.in_progress = cluster.sums.in_progress.saturating_add(in_progress);
                    let now = current.entry(key).or_default();
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

/// Adds what a client says it counted.
fn count(sum: &mut u64, said: u64) {
    *sum = sum.saturating_add(said.min(MAX_COUNT));
}

/// Parts of a cluster have names that only clients know.
fn any(_: &str) -> bool {
    true
}

/// `name`, if it was summed up before, or there is room for it and it is `known`.
fn bounded<T>(
    sums: &BTreeMap<Arc<str>, T>,
    name: &str,
    limit: usize,
    known: &dyn Fn(&str) -> bool,
) -> Arc<str> {
    if let Some((name, _)) = sums.get_key_value(name) {
        return name.clone();
    }
    let fits = name.len() <= MAX_NAME && sums.len() < limit && known(name);
    let name = if fits { name } else { OTHERS };
    sums.get_key_value(name).map_or_else(|| name.into(), |(name, _)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::endpoint::v3::{
        UnnamedEndpointLoadMetricStats, cluster_stats::DroppedRequests,
    };

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
        sums.add(&[stats("c", "a", 5, 2)], &mut one, &any);
        sums.add(&[stats("c", "a", 1, 3)], &mut other, &any);
        let of = |sums: &LoadSums| (sums.clusters["c"].sums.successes, sums.clusters["c"].sums.in_progress);
        assert_eq!(of(&sums), (6, 5));
        sums.add(&[stats("c", "a", 0, 1)], &mut one, &any);
        assert_eq!(of(&sums), (6, 4));
        sums.forget(&mut other);
        assert_eq!(of(&sums), (6, 1));
        sums.add(&[], &mut one, &any);
        assert_eq!(of(&sums), (6, 0));
        assert_eq!(sums.clusters["c"].localities["/a/"].in_progress, 0);
    }

    #[test]
    fn a_client_that_makes_names_up_fills_one_entry() {
        let (mut sums, mut current) = (LoadSums::default(), Current::new());
        sums.add(&[stats("real", "a", 1, 0)], &mut current, &any);
        for i in 0..3_000 {
            sums.add(&[stats(&format!("c{i}"), "a", 1, 1)], &mut current, &any);
        }
        for i in 0..1_000 {
            let mut stats = stats("real", &format!("z{i}"), 1, 0);
            stats.dropped_requests = vec![DroppedRequests { category: format!("d{i}"), dropped_count: 1 }];
            stats.total_dropped_requests = 1;
            sums.add(&[stats], &mut current, &any);
        }
        sums.add(&[stats(&"x".repeat(1_000_000), "a", 1, 0)], &mut current, &any);
        assert_eq!(sums.clusters.len(), MAX_CLUSTERS + 1);
        let real = &sums.clusters["real"];
        assert_eq!((real.localities.len(), real.drops.len()), (MAX_PARTS + 1, MAX_PARTS + 1));
        assert_eq!((real.dropped, real.sums.successes), (1_000, 1_001), "sums lose nothing");
        assert_eq!(real.drops.values().sum::<u64>(), 1_000);
        let all: u64 = sums.clusters.values().map(|cluster| cluster.sums.successes).sum();
        assert_eq!(all, 1 + 3_000 + 1_000 + 1);
    }

    #[test]
    fn a_cluster_that_nobody_knows_gets_no_entry_and_takes_no_place_of_one_that_is() {
        let (mut sums, mut current) = (LoadSums::default(), Current::new());
        for i in 0..MAX_CLUSTERS {
            sums.add(&[stats(&format!("c{i}"), "a", 1, 0)], &mut current, &|name| name == "real");
        }
        sums.add(&[stats("real", "a", 1, 0)], &mut current, &|name| name == "real");
        let names: Vec<&str> = sums.clusters.keys().map(|name| &**name).collect();
        assert_eq!(names, [OTHERS, "real"]);
    }

    #[test]
    fn what_one_client_has_in_progress_is_kept_within_bounds_and_taken_out_again() {
        let (mut sums, mut current) = (LoadSums::default(), Current::new());
        let report: Vec<_> = (0..2 * MAX_CURRENT)
            .map(|i| stats(&format!("c{}", i / 50), &format!("z{}", i % 50), 1, 1))
            .collect();
        sums.add(&report, &mut current, &any);
        assert_eq!(current.len(), MAX_CURRENT);
        sums.forget(&mut current);
        assert!(sums.clusters.values().all(|cluster| cluster.sums.in_progress == 0));
    }

    #[test]
    fn no_client_can_fill_a_counter_or_a_sum_for_everybody() {
        let (mut sums, mut one, mut other) = (LoadSums::default(), Current::new(), Current::new());
        sums.add(&[stats("c", "a", 0, 5)], &mut other, &any);
        let mut most = stats("c", "a", u64::MAX, u64::MAX);
        for locality in &mut most.upstream_locality_stats {
            locality.cpu_utilization = Some(UnnamedEndpointLoadMetricStats {
                num_requests_finished_with_metric: 1,
                total_metric_value: f64::MAX,
            });
        }
        for _ in 0..3 {
            sums.add(std::slice::from_ref(&most), &mut one, &any);
        }
        sums.forget(&mut one);
        let cluster = &sums.clusters["c"];
        assert_eq!((cluster.sums.successes, cluster.sums.in_progress), (3 * MAX_COUNT, 5));
        assert!(cluster.metrics["cpu_utilization"].total.is_finite());
    }
}
