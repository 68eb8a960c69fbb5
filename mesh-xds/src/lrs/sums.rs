//! What all clients together reported, by cluster and locality, within bounds.
//!
//! Totals only grow, as counters of Prometheus do. Names come from clients: what is beyond the bounds, or a cluster
//! that is not known, is summed up without a name, so that nothing a client says costs more than one entry. A name that
//! nobody reports any more makes room for others ([`Reported`]).
//!
//! A report is summed up by itself first ([`Clusters`]), by whoever read it, within the same bounds. What all share is
//! held for one cluster of it at a time, and for no question: neither a long report nor one full of names that
//! nobody knows keeps others waiting.

use super::reported::Reported;
use crate::server::{Place as Room, Places as Rooms};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Clusters that are told apart.
const MAX_CLUSTERS: usize = 1_000;
/// Localities, categories of drops, and metrics that are told apart in a cluster.
const MAX_PARTS: usize = 64;
/// Bytes of a name.
const MAX_NAME: usize = 512;
/// Clusters and localities of which it is kept what one client has in progress …
const MAX_CURRENT: usize = 4_096;
/// … and what all clients have, of which no account can take all.
const MAX_CURRENT_OF_ALL: usize = 1 << 20;
/// The largest number that is believed: more than any client does between two reports, and few enough that no client
/// can fill a counter for everybody.
const MAX_COUNT: u64 = 1 << 40;
/// The same of what endpoints measured; more is passed over.
const MAX_TOTAL: f64 = 1e12;
/// What everything beyond the bounds is called.
pub(super) const OTHERS: &str = "(others)";

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

/// What a client that is connected has in progress, as it is summed up.
#[derive(Debug)]
pub(super) struct Current {
    entries: Entries,
    /// At least as much as the entries take.
    room: Room,
}

/// By cluster and locality; the names are those of the sums.
#[derive(Debug, Default)]
struct Entries {
    count: usize,
    clusters: BTreeMap<Arc<str>, Localities>,
}

type Localities = BTreeMap<Arc<str>, u64>;

impl Entries {
    /// What is in progress in a cluster.
    fn take(&mut self, cluster: &str) -> Localities {
        let localities = self.clusters.remove(cluster).unwrap_or_default();
        self.count -= localities.len();
        localities
    }

    fn has(&self, cluster: &str, locality: &str) -> bool {
        self.clusters.get(cluster).is_some_and(|localities| localities.contains_key(locality))
    }
}

/// Where endpoints are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place<'a> {
    pub(super) region: &'a str,
    pub(super) zone: &'a str,
    pub(super) sub_zone: &'a str,
}

impl Sums {
    fn add(&mut self, other: Self) {
        count(&mut self.issued, other.issued);
        count(&mut self.successes, other.successes);
        count(&mut self.errors, other.errors);
    }
}

impl MetricSums {
    fn add(&mut self, other: Self) {
        count(&mut self.count, other.count);
        // What is no number would be what the sum is from then on, and what is immense would swallow what others say.
        if other.total.abs() <= MAX_TOTAL {
            self.total += other.total;
        }
    }
}

impl ClusterSums {
    pub(super) fn add_locality(&mut self, place: Option<Place<'_>>, sums: Sums) {
        let name = place.map(|Place { region, zone, sub_zone }| {
            let fits = region.len().saturating_add(zone.len()).saturating_add(sub_zone.len()) <= MAX_NAME;
            if fits { format!("{region}/{zone}/{sub_zone}") } else { OTHERS.to_owned() }
        });
        let locality = bounded(&mut self.localities, &name.unwrap_or_default(), MAX_PARTS).1;
        locality.add(sums);
        count(&mut locality.in_progress, sums.in_progress);
        self.sums.add(sums);
    }

    pub(super) fn add_drops(&mut self, dropped: u64) {
        count(&mut self.dropped, dropped);
    }

    pub(super) fn add_drops_of(&mut self, category: &str, dropped: u64) {
        count(bounded(&mut self.drops, category, MAX_PARTS).1, dropped);
    }

    pub(super) fn add_metric(&mut self, name: &str, sums: MetricSums) {
        bounded(&mut self.metrics, name, MAX_PARTS).1.add(sums);
    }

    /// Everything but what is in progress.
    fn add_totals(&mut self, other: &Self) {
        self.sums.add(other.sums);
        self.add_drops(other.dropped);
        for (category, dropped) in &other.drops {
            self.add_drops_of(category, *dropped);
        }
        for (name, sums) in &other.metrics {
            self.add_metric(name, *sums);
        }
    }

    fn forget(&mut self, had: &Localities) {
        for (place, count) in had {
            self.sums.in_progress = self.sums.in_progress.saturating_sub(*count);
            if let Some(locality) = self.localities.get_mut(place) {
                locality.in_progress = locality.in_progress.saturating_sub(*count);
            }
        }
    }
}

/// One report, summed up by itself. What is in progress is said of its localities only.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Clusters(BTreeMap<Arc<str>, ClusterSums>);

impl Clusters {
    pub(super) fn add(&mut self, name: &str, sums: &ClusterSums) {
        let cluster = bounded(&mut self.0, name, MAX_CLUSTERS).1;
        cluster.add_totals(sums);
        for (place, sums) in &sums.localities {
            let locality = bounded(&mut cluster.localities, place, MAX_PARTS).1;
            locality.add(*sums);
            count(&mut locality.in_progress, sums.in_progress);
        }
    }
}

/// The sums of all clients.
#[derive(Debug)]
pub(super) struct Collection {
    collected: Mutex<Collected>,
    /// For entries of what clients have in progress.
    rooms: Arc<Rooms>,
}

impl Default for Collection {
    fn default() -> Self {
        Self { collected: Mutex::default(), rooms: Rooms::new(MAX_CURRENT_OF_ALL) }
    }
}

#[derive(Debug, Default)]
struct Collected {
    clusters: BTreeMap<Arc<str>, Cluster>,
    /// The clusters.
    reported: Reported,
    reports: u64,
}

#[derive(Debug, Default)]
struct Cluster {
    /// Shared with whoever looks at them.
    sums: Arc<ClusterSums>,
    localities: Reported,
    drops: Reported,
    metrics: Reported,
}

impl Collection {
    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was summed up until now.
    pub(super) fn sums(&self) -> LoadSums {
        let (clusters, reports) = {
            let collected = self.collected();
            let clusters = collected.clusters.iter();
            let clusters: Vec<_> =
                clusters.map(|(name, cluster)| (name.clone(), cluster.sums.clone())).collect();
            (clusters, collected.reports)
        };
        LoadSums {
            clusters: clusters.into_iter().map(|(name, sums)| (name, (*sums).clone())).collect(),
            reports,
        }
    }

    /// For a client of an account.
    pub(super) fn client(&self, account: &str) -> Current {
        Current { entries: Entries::default(), room: self.rooms.none(account) }
    }

    /// Adds a report; `current` is what its client had in progress before, and has now. `known` says of a cluster
    /// that was not reported before whether there is one of that name.
    pub(super) fn add(
        &self,
        report: &Clusters,
        current: &mut Current,
        known: &dyn Fn(&str) -> bool,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut current.entries);
        for (name, sums) in &report.0 {
            let was_reported = self.collected().clusters.contains_key(name);
            let name = if was_reported || known(name) { name } else { OTHERS };
            self.collected().add(name, sums, &mut before, current, now);
        }
        // Each report says all that is in progress.
        self.take_out(before);
        // Less is never refused.
        let _less = current.room.resize(current.entries.count);
        let mut collected = self.collected();
        collected.reports = collected.reports.saturating_add(1);
    }

    /// Takes out what a client had in progress: it is gone.
    pub(super) fn forget(&self, current: &mut Current) {
        self.take_out(std::mem::take(&mut current.entries));
        let _less = current.room.resize(0);
    }

    fn take_out(&self, entries: Entries) {
        for (name, localities) in entries.clusters {
            if let Some(cluster) = self.collected().clusters.get_mut(&name) {
                Arc::make_mut(&mut cluster.sums).forget(&localities);
            }
        }
    }
}

impl Collected {
    fn add(
        &mut self,
        name: &str,
        sums: &ClusterSums,
        before: &mut Entries,
        current: &mut Current,
        now: Instant,
    ) {
        self.reported
            .let_go(now, MAX_CLUSTERS, &mut self.clusters, |cluster| cluster.sums.sums.in_progress > 0);
        let (name, cluster) = bounded(&mut self.clusters, name, MAX_CLUSTERS);
        self.reported.note(&name);
        cluster.add(&name, sums, before, current, now);
    }
}

impl Cluster {
    fn add(
        &mut self,
        name: &Arc<str>,
        sums: &ClusterSums,
        before: &mut Entries,
        current: &mut Current,
        now: Instant,
    ) {
        let all = Arc::make_mut(&mut self.sums);
        // While what its clients have in progress is in it: none of that may lose its name.
        self.localities.let_go(now, MAX_PARTS, &mut all.localities, |locality| locality.in_progress > 0);
        self.drops.let_go(now, MAX_PARTS, &mut all.drops, |_| false);
        self.metrics.let_go(now, MAX_PARTS, &mut all.metrics, |_| false);
        all.forget(&before.take(name));
        all.add_totals(sums);
        self.drops.note_all(sums.drops.keys(), &all.drops);
        self.metrics.note_all(sums.metrics.keys(), &all.metrics);
        let entries = &mut current.entries;
        for (place, sums) in &sums.localities {
            let (place, locality) = bounded(&mut all.localities, place, MAX_PARTS);
            self.localities.note(&place);
            locality.add(*sums);
            let in_progress = sums.in_progress.min(MAX_COUNT);
            if in_progress == 0 {
                continue;
            }
            if !entries.has(name, &place) {
                let wanted = before.count + entries.count + 1;
                if entries.count >= MAX_CURRENT || current.room.at_least(wanted).is_err() {
                    continue;
                }
                entries.count += 1;
            }
            locality.in_progress = locality.in_progress.saturating_add(in_progress);
            all.sums.in_progress = all.sums.in_progress.saturating_add(in_progress);
            let kept = entries.clusters.entry(name.clone()).or_default().entry(place).or_default();
            *kept = kept.saturating_add(in_progress);
        }
    }
}

/// Adds what a client says it counted.
fn count(sum: &mut u64, said: u64) {
    *sum = sum.saturating_add(said.min(MAX_COUNT));
}

/// The entry of `name`, if there is one or room for it; else that of everything else.
fn bounded<'a, T: Default>(
    sums: &'a mut BTreeMap<Arc<str>, T>,
    name: &str,
    limit: usize,
) -> (Arc<str>, &'a mut T) {
    let fits = name.len() <= MAX_NAME && sums.len() < limit || sums.contains_key(name);
    let name = if fits { name } else { OTHERS };
    let name = sums.get_key_value(name).map_or_else(|| name.into(), |(name, _)| name.clone());
    let sums = sums.entry(name.clone()).or_default();
    (name, sums)
}

#[cfg(test)]
mod tests;
