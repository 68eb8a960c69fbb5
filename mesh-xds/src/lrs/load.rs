//! Counters of calls, as the data path fills them and a report empties them.
//!
//! A call costs a few relaxed atomic operations. A report takes what was counted since the one before; calls in
//! progress stay. Counting goes on while the control plane is away: the next report has it all, with the time that
//! it took.

use crate::{
    name::{self, Name, ResourceType},
    orca::LoadReport,
    resource::{Locality, cluster::ReportedMetrics},
};
use arc_swap::ArcSwap;
use envoy_types::pb::{
    envoy::config::{
        core::v3::Locality as LocalityProto,
        endpoint::v3::{
            ClusterStats, EndpointLoadMetricStats, UnnamedEndpointLoadMetricStats, UpstreamLocalityStats,
            cluster_stats::DroppedRequests,
        },
    },
    google::protobuf::Duration as DurationProto,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::sync::watch;

/// Names of custom metrics that are kept for a locality; a server that makes up more is not followed.
const MAX_NAMED_METRICS: usize = 64;

/// Categories of drops of a cluster that are told apart until a report takes them; more count in its total only.
const MAX_CATEGORIES: usize = 64;

/// Localities of a cluster that nobody counts for any more and whose counts no report has taken: of more than these,
/// those are forgotten that were asked for longest ago.
const MAX_LOCALITIES_LEFT: usize = 256;

/// Clusters that nobody counts for any more and whose counts no report has taken: of more than these, the oldest are
/// forgotten.
const MAX_LEFT: usize = 1024;

/// What becomes of a cluster in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is in the report.
    Wanted,
    /// Nobody wants it: it goes on counting as long as anybody counts for it.
    Unwanted,
    /// It is in the reports to another control plane.
    Elsewhere,
}

/// All counters of a process.
#[derive(Debug, Default)]
pub struct LoadStore {
    clusters: Mutex<HashMap<(Name, Name), Arc<ClusterLoad>>>,
    /// The authorities of all clusters that there ever were; `None`: of names without one.
    used: watch::Sender<BTreeSet<Option<Arc<str>>>>,
}

/// The counters of one cluster.
#[derive(Debug)]
pub struct ClusterLoad {
    cluster: Name,
    service: Name,
    localities: Mutex<Localities>,
    /// By category of `drop_overloads`.
    drops: RwLock<BTreeMap<Arc<str>, AtomicU64>>,
    wanted: Arc<ArcSwap<ReportedMetrics>>,
    /// Refused by the circuit breaker, which has no category (gRFC A32), or dropped by one category too many.
    unnamed: AtomicU64,
    /// When it was reported last, or began.
    since: Mutex<Instant>,
}

/// The counters of the localities of a cluster.
#[derive(Debug, Default)]
struct Localities {
    /// How often one was asked for.
    asked: u64,
    /// Each with when it was asked for last, in these.
    loads: BTreeMap<Locality, (u64, Arc<LocalityLoad>)>,
}

impl Localities {
    /// As of clusters: without a report nothing else would end those that come and go.
    fn forget(&mut self) {
        let left = self.loads.iter().filter(|(_, (_, load))| Arc::strong_count(load) == 1);
        let mut left: Vec<u64> = left.map(|(_, (asked, _))| *asked).collect();
        let Some(more) = left.len().checked_sub(MAX_LOCALITIES_LEFT) else { return };
        left.sort_unstable();
        let Some(first) = left.get(more) else { return };
        self.loads.retain(|_, (asked, load)| Arc::strong_count(load) > 1 || *asked >= *first);
    }
}

/// The counters of one locality of a cluster.
#[derive(Debug, Default)]
pub struct LocalityLoad {
    issued: AtomicU64,
    successes: AtomicU64,
    errors: AtomicU64,
    in_progress: AtomicU64,
    wanted: Arc<ArcSwap<ReportedMetrics>>,
    metrics: Mutex<Metrics>,
}

/// What endpoints said of their load in trailers, since the last report.
#[derive(Debug, Default)]
struct Metrics {
    cpu: Sum,
    memory: Sum,
    application: Sum,
    named: BTreeMap<Arc<str>, Sum>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    total: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.total += value;
    }
}

/// A call in progress, counted until it ends. Dropped without an end, it was never sent.
#[derive(Debug)]
#[must_use = "a call that is not ended counts as never sent"]
pub struct InProgress(Option<Arc<LocalityLoad>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LoadStore {
    /// The counters of a cluster; `service` is its name in EDS. Two that ask for the same share them.
    pub fn cluster(&self, cluster: &Name, service: &Name, now: Instant) -> Arc<ClusterLoad> {
        let mut clusters = lock(&self.clusters);
        // Seldom, since it looks at all of them.
        if clusters.len() >= 2 * MAX_LEFT && clusters.len().is_power_of_two() {
            forget(&mut clusters);
        }
        let load = clusters.entry((cluster.clone(), service.clone())).or_insert_with(|| {
            Arc::new(ClusterLoad {
                cluster: cluster.clone(),
                service: service.clone(),
                localities: Mutex::default(),
                drops: RwLock::default(),
                wanted: Arc::default(),
                unnamed: AtomicU64::new(0),
                since: Mutex::new(now),
            })
        });
        let load = load.clone();
        drop(clusters);
        let authority = name::authority(ResourceType::Cluster, cluster).map(Arc::from);
        self.used.send_if_modified(|used| used.insert(authority));
        load
    }

    /// The authorities of all clusters that were ever counted here; `None`: of names without one.
    pub fn used(&self) -> watch::Receiver<BTreeSet<Option<Arc<str>>>> {
        self.used.subscribe()
    }

    /// What was counted since the last report, of the clusters whose names are wanted. Clusters and localities
    /// with nothing to say are left out; those that nobody counts for any more go with their last report, or without
    /// one if nobody wants it.
    pub fn take(&self, now: Instant, claim: impl Fn(&str) -> Claim) -> Vec<ClusterStats> {
        let mut clusters = lock(&self.clusters);
        let mut stats = Vec::new();
        clusters.retain(|(name, _), load| {
            // Before the last look: what is counted after it is not lost.
            let gone = Arc::strong_count(load) == 1;
            match claim(name) {
                Claim::Wanted => {}
                Claim::Unwanted => return !gone,
                Claim::Elsewhere => return true,
            }
            let taken = load.take(now);
            let in_use = taken.is_some();
            stats.extend(taken);
            in_use || !gone
        });
        stats.sort_by(|one, other| one.cluster_name.cmp(&other.cluster_name));
        stats
    }
}

/// Without a report nothing else would end what is counted of clusters that come and go.
fn forget(clusters: &mut HashMap<(Name, Name), Arc<ClusterLoad>>) {
    let left = clusters.iter().filter(|(_, load)| Arc::strong_count(load) == 1);
    let mut left: Vec<_> = left.map(|(key, load)| (*lock(&load.since), key.clone())).collect();
    let Some(more) = left.len().checked_sub(MAX_LEFT) else { return };
    left.sort_unstable();
    for (_, key) in left.into_iter().take(more) {
        clusters.remove(&key);
    }
}

impl ClusterLoad {
    /// The counters of a locality, to be kept where its calls are counted.
    pub fn locality(&self, locality: &Locality) -> Arc<LocalityLoad> {
        let new = || Arc::new(LocalityLoad { wanted: self.wanted.clone(), ..LocalityLoad::default() });
        let mut held = lock(&self.localities);
        // Seldom, since it looks at all of them.
        let is_full = held.loads.len() >= 2 * MAX_LOCALITIES_LEFT && held.loads.len().is_power_of_two();
        if is_full && !held.loads.contains_key(locality) {
            held.forget();
        }
        held.asked += 1;
        let asked = held.asked;
        let (last, load) = held.loads.entry(locality.clone()).or_insert_with(|| (asked, new()));
        *last = asked;
        load.clone()
    }

    /// From now on these of the endpoints' own metrics are reported.
    pub fn want(&self, metrics: &ReportedMetrics) {
        if **self.wanted.load() != *metrics {
            self.wanted.store(Arc::new(metrics.clone()));
        }
    }

    /// A call was dropped by `drop_overloads` of this category.
    pub fn dropped(&self, category: &Arc<str>) {
        {
            let drops = self.drops.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = drops.get(category) {
                count.fetch_add(1, Relaxed);
                return;
            }
        }
        let mut drops = self.drops.write().unwrap_or_else(PoisonError::into_inner);
        if drops.len() < MAX_CATEGORIES || drops.contains_key(category) {
            drops.entry(category.clone()).or_default().fetch_add(1, Relaxed);
        } else {
            self.unnamed.fetch_add(1, Relaxed);
        }
    }

    /// A call was refused by the circuit breaker.
    pub fn refused(&self) {
        self.unnamed.fetch_add(1, Relaxed);
    }

    fn take(&self, now: Instant) -> Option<ClusterStats> {
        let mut localities = Vec::new();
        lock(&self.localities).loads.retain(|locality, (_, load)| {
            let gone = Arc::strong_count(load) == 1;
            let taken = load.take(locality);
            let in_use = taken.is_some();
            localities.extend(taken);
            in_use || !gone
        });
        let mut dropped_requests = Vec::new();
        let mut total_dropped_requests = self.unnamed.swap(0, Relaxed);
        // Categories of which nothing came since the last report make room.
        self.drops.write().unwrap_or_else(PoisonError::into_inner).retain(|category, count| {
            let dropped_count = count.swap(0, Relaxed);
            if dropped_count > 0 {
                dropped_requests.push(DroppedRequests { category: category.to_string(), dropped_count });
                total_dropped_requests += dropped_count;
            }
            dropped_count > 0
        });
        if localities.is_empty() && total_dropped_requests == 0 {
            // Nothing happened: the interval of what comes next begins no earlier than now.
            *lock(&self.since) = now;
            return None;
        }
        let interval = now.saturating_duration_since(std::mem::replace(&mut *lock(&self.since), now));
        Some(ClusterStats {
            cluster_name: self.cluster.to_string(),
            cluster_service_name: self.service.to_string(),
            upstream_locality_stats: localities,
            total_dropped_requests,
            dropped_requests,
            load_report_interval: Some(DurationProto {
                seconds: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(interval.subsec_nanos()).unwrap_or(0),
            }),
        })
    }
}

impl ClusterLoad {
    /// Calls in progress, in all its localities.
    pub fn in_progress(&self) -> u64 {
        lock(&self.localities).loads.values().map(|(_, load)| load.in_progress.load(Relaxed)).sum()
    }
}

impl LocalityLoad {
    /// A call begins.
    pub fn begin(self: &Arc<Self>) -> InProgress {
        self.issued.fetch_add(1, Relaxed);
        self.in_progress.fetch_add(1, Relaxed);
        InProgress(Some(self.clone()))
    }

    /// Whether any of the endpoints' own metrics are reported: otherwise theirs need not be read.
    pub fn wants_metrics(&self) -> bool {
        **self.wanted.load() != ReportedMetrics::default()
    }

    /// An endpoint said this of its load at the end of a call. Zero is as if it had said nothing (gRFC A85), but
    /// for metrics that it names itself.
    pub fn add(&self, report: &LoadReport) {
        let wanted = self.wanted.load();
        let mut metrics = lock(&self.metrics);
        let Metrics { cpu, memory, application, named } = &mut *metrics;
        for (wanted, sum, value) in [
            (wanted.cpu, cpu, report.cpu_utilization),
            (wanted.memory, memory, report.mem_utilization),
            (wanted.application, application, report.application_utilization),
        ] {
            if wanted && value != 0.0 {
                sum.add(value);
            }
        }
        let mut add_named = |name: &str, value: f64| {
            if named.contains_key(name) || named.len() < MAX_NAMED_METRICS {
                named.entry(name.into()).or_default().add(value);
            }
        };
        if wanted.all_named {
            report.named_metrics.iter().for_each(|(name, value)| add_named(name, *value));
        } else {
            for name in &wanted.named {
                if let Some(value) = report.named_metrics.get(&**name) {
                    add_named(name, *value);
                }
            }
        }
    }

    fn take(&self, locality: &Locality) -> Option<UpstreamLocalityStats> {
        let (issued, successes, errors) =
            (self.issued.swap(0, Relaxed), self.successes.swap(0, Relaxed), self.errors.swap(0, Relaxed));
        let in_progress = self.in_progress.load(Relaxed);
        let Metrics { cpu, memory, application, named } = std::mem::take(&mut *lock(&self.metrics));
        if [issued, successes, errors, in_progress] == [0; 4] {
            return None;
        }
        let unnamed = |sum: Sum| {
            (sum.count > 0).then_some(UnnamedEndpointLoadMetricStats {
                num_requests_finished_with_metric: sum.count,
                total_metric_value: sum.total,
            })
        };
        let named = named.into_iter().map(|(name, sum)| EndpointLoadMetricStats {
            metric_name: format!("named_metrics.{name}"),
            num_requests_finished_with_metric: sum.count,
            total_metric_value: sum.total,
        });
        Some(UpstreamLocalityStats {
            locality: Some(LocalityProto {
                region: locality.region.to_string(),
                zone: locality.zone.to_string(),
                sub_zone: locality.sub_zone.to_string(),
            }),
            total_successful_requests: successes,
            total_requests_in_progress: in_progress,
            total_error_requests: errors,
            total_issued_requests: issued,
            cpu_utilization: unnamed(cpu),
            mem_utilization: unnamed(memory),
            application_utilization: unnamed(application),
            load_metric_stats: named.collect(),
            ..UpstreamLocalityStats::default()
        })
    }
}

impl InProgress {
    /// The call ended: well, if its gRPC status is OK.
    pub fn end(mut self, success: bool) {
        if let Some(load) = self.0.take() {
            if success { &load.successes } else { &load.errors }.fetch_add(1, Relaxed);
            load.in_progress.fetch_sub(1, Relaxed);
        }
    }

    /// Where it is counted.
    pub fn locality(&self) -> Option<&LocalityLoad> {
        self.0.as_deref()
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if let Some(load) = self.0.take() {
            load.in_progress.fetch_sub(1, Relaxed);
            // Unless a report has it already, it was none.
            let undo = |issued: u64| issued.checked_sub(1);
            let _ = load.issued.fetch_update(Relaxed, Relaxed, undo);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Claim::{Elsewhere, Unwanted, Wanted};
    use std::time::Duration;

    fn place(locality: Option<&LocalityProto>) -> String {
        let locality = locality.cloned().unwrap_or_default();
        format!("{}/{}/{}", locality.region, locality.zone, locality.sub_zone)
    }

    fn store(now: Instant) -> (LoadStore, Arc<ClusterLoad>) {
        let store = LoadStore::default();
        let load = store.cluster(&"c".into(), &"s".into(), now);
        (store, load)
    }

    fn zone(zone: &str) -> Locality {
        Locality { zone: zone.into(), ..Locality::default() }
    }

    #[test]
    fn a_report_has_what_happened_since_the_last_one_and_what_is_in_progress() {
        let now = Instant::now();
        let (store, load) = store(now);
        let a = load.locality(&zone("a"));
        let calls: Vec<_> = (0..5).map(|_| a.begin()).collect();
        let mut calls = calls.into_iter();
        calls.next().unwrap().end(true);
        calls.next().unwrap().end(false);
        drop(calls.next());
        load.dropped(&"lb".into());
        load.dropped(&"lb".into());
        load.refused();
        let report = store.take(now + Duration::from_millis(1500), |_| Wanted);
        let [stats] = report.as_slice() else { panic!("{report:?}") };
        assert_eq!((&*stats.cluster_name, &*stats.cluster_service_name), ("c", "s"));
        let interval = stats.load_report_interval.unwrap();
        assert_eq!((interval.seconds, interval.nanos), (1, 500_000_000));
        assert_eq!((stats.total_dropped_requests, stats.dropped_requests.len()), (3, 1));
        assert_eq!(stats.dropped_requests[0].dropped_count, 2);
        let counts = |stats: &ClusterStats| {
            let of = &stats.upstream_locality_stats[0];
            let (issued, ok) = (of.total_issued_requests, of.total_successful_requests);
            (issued, ok, of.total_error_requests, of.total_requests_in_progress)
        };
        assert_eq!(counts(stats), (4, 1, 1, 2), "the one that was never sent is not issued");

        let report = store.take(now + Duration::from_secs(2), |_| Wanted);
        assert_eq!(counts(&report[0]), (0, 0, 0, 2), "what is in progress stays");
        assert_eq!(report[0].total_dropped_requests, 0);
        calls.for_each(|call| call.end(true));
        assert_eq!(counts(&store.take(now + Duration::from_secs(3), |_| Wanted)[0]), (0, 2, 0, 0));
        assert_eq!(store.take(now + Duration::from_secs(4), |_| Wanted), [], "nothing is not reported");
    }

    #[test]
    fn only_wanted_clusters_are_reported_and_the_others_go_on_counting() {
        let now = Instant::now();
        let (store, load) = store(now);
        load.refused();
        let other = store.cluster(&"other".into(), &"".into(), now);
        other.refused();
        let names = |report: Vec<ClusterStats>| -> Vec<String> {
            report.into_iter().map(|stats| stats.cluster_name).collect()
        };
        assert_eq!(names(store.take(now, |name| if name == "other" { Wanted } else { Unwanted })), ["other"]);
        assert_eq!(names(store.take(now, |_| Wanted)), ["c"]);
    }

    #[test]
    fn what_nobody_counts_for_any_more_is_reported_once_and_goes() {
        let now = Instant::now();
        let (store, load) = store(now);
        let a = load.locality(&zone("a"));
        a.begin().end(true);
        drop((a, load));
        assert_eq!(store.take(now, |_| Wanted).len(), 1);
        assert_eq!(store.take(now, |_| Wanted).len(), 0);
        assert_eq!(lock(&store.clusters).len(), 0);
    }

    #[test]
    fn what_nobody_wants_goes_with_the_last_that_counts_for_it() {
        let now = Instant::now();
        let (store, load) = store(now);
        load.refused();
        drop(load);
        assert_eq!(store.take(now, |_| Elsewhere), []);
        assert_eq!(lock(&store.clusters).len(), 1, "the others take it");
        assert_eq!(store.take(now, |_| Unwanted), []);
        assert_eq!(lock(&store.clusters).len(), 0);
    }

    #[test]
    fn localities_that_no_report_takes_are_bounded_and_those_in_use_are_kept() {
        let now = Instant::now();
        let (store, load) = store(now);
        let used = load.locality(&zone("used"));
        used.begin().end(true);
        for i in 0..10_000 {
            load.locality(&zone(&format!("z{i}"))).begin().end(true);
            assert!(lock(&load.localities).loads.len() <= 2 * MAX_LOCALITIES_LEFT, "{i}");
        }
        let report = store.take(now, |_| Wanted);
        let places: BTreeSet<_> =
            report[0].upstream_locality_stats.iter().map(|stats| place(stats.locality.as_ref())).collect();
        assert!(places.len() >= MAX_LOCALITIES_LEFT, "{}", places.len());
        assert!(
            places.contains("/used/") && places.contains("/z9999/"),
            "the oldest go, of those that are left"
        );
        assert!(!places.contains("/z0/"));
    }

    #[test]
    fn categories_that_no_report_takes_are_bounded_and_no_drop_is_lost() {
        let now = Instant::now();
        let (store, load) = store(now);
        for i in 0..1000 {
            load.dropped(&format!("c{i}").into());
        }
        load.dropped(&"c0".into());
        let report = store.take(now, |_| Wanted);
        assert_eq!(
            (report[0].total_dropped_requests, report[0].dropped_requests.len()),
            (1001, MAX_CATEGORIES)
        );
        load.dropped(&"c0".into());
        assert_eq!(store.take(now, |_| Wanted)[0].dropped_requests.len(), 1);
        // The others had nothing to say, and made room.
        load.dropped(&"c999".into());
        let report = store.take(now, |_| Wanted);
        assert_eq!(report[0].dropped_requests[0].category, "c999");
        assert_eq!(load.drops.read().unwrap().len(), 1);
    }

    #[test]
    fn only_wanted_metrics_are_summed_and_names_are_bounded() {
        let now = Instant::now();
        let (store, load) = store(now);
        let a = load.locality(&zone("a"));
        assert!(!a.wants_metrics());
        load.want(&ReportedMetrics { cpu: true, named: ["x".into()].into(), ..ReportedMetrics::default() });
        assert!(a.wants_metrics());
        a.begin().end(true);
        for cpu_utilization in [0.25, 0.5, 0.0] {
            let named_metrics = [("x".to_owned(), 0.0), ("y".to_owned(), 1.0)].into();
            a.add(&LoadReport {
                cpu_utilization,
                mem_utilization: 1.0,
                named_metrics,
                ..LoadReport::default()
            });
        }
        let report = store.take(now, |_| Wanted);
        let stats = &report[0].upstream_locality_stats[0];
        let cpu = stats.cpu_utilization.unwrap();
        assert_eq!((cpu.num_requests_finished_with_metric, cpu.total_metric_value), (2, 0.75));
        assert!(stats.mem_utilization.is_none());
        let named: Vec<_> = stats
            .load_metric_stats
            .iter()
            .map(|stats| (&*stats.metric_name, stats.num_requests_finished_with_metric))
            .collect();
        assert_eq!(named, [("named_metrics.x", 3)]);
        assert_eq!(place(stats.locality.as_ref()), "/a/");

        load.want(&ReportedMetrics { all_named: true, ..ReportedMetrics::default() });
        a.begin().end(true);
        let named_metrics = (0..1000).map(|i| (format!("m{i}"), 1.0)).collect();
        a.add(&LoadReport { named_metrics, ..LoadReport::default() });
        let report = store.take(now, |_| Wanted);
        assert_eq!(report[0].upstream_locality_stats[0].load_metric_stats.len(), MAX_NAMED_METRICS);
    }
}
