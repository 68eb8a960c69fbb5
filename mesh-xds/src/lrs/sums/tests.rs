//! Sums within their bounds, whatever clients say.

use super::*;

fn any(_: &str) -> bool {
    true
}

fn one(cluster: &str, zone: &str, ok: u64, in_progress: u64) -> Clusters {
    let mut report = Clusters::default();
    add(&mut report, cluster, zone, ok, in_progress);
    report
}

fn add(report: &mut Clusters, cluster: &str, zone: &str, ok: u64, in_progress: u64) {
    let mut sums = ClusterSums::default();
    let place = Place { zone, ..Place::default() };
    sums.add_locality(Some(place), Sums { issued: ok, successes: ok, errors: 0, in_progress });
    report.add(cluster, &sums);
}

#[test]
fn totals_grow_and_what_is_in_progress_follows_each_client() {
    let (all, mut first, mut second) = (Collection::default(), Current::default(), Current::default());
    all.add(&one("c", "a", 5, 2), &mut first, &any);
    all.add(&one("c", "a", 1, 3), &mut second, &any);
    let of = |all: &Collection| {
        (all.sums().clusters["c"].sums.successes, all.sums().clusters["c"].sums.in_progress)
    };
    assert_eq!(of(&all), (6, 5));
    all.add(&one("c", "a", 0, 1), &mut first, &any);
    assert_eq!(of(&all), (6, 4));
    all.forget(&mut second);
    assert_eq!(of(&all), (6, 1));
    all.add(&Clusters::default(), &mut first, &any);
    assert_eq!(of(&all), (6, 0));
    assert_eq!(all.sums().clusters["c"].localities["/a/"].in_progress, 0);
    assert_eq!(all.collected().room, MAX_CURRENT_OF_ALL);
    assert_eq!(all.sums().reports, 4);
}

#[test]
fn a_client_that_makes_names_up_fills_one_entry() {
    let (all, mut current) = (Collection::default(), Current::default());
    all.add(&one("real", "a", 1, 0), &mut current, &any);
    for i in 0..3_000 {
        all.add(&one(&format!("c{i}"), "a", 1, 1), &mut current, &any);
    }
    for i in 0..1_000 {
        let mut report = one("real", &format!("z{i}"), 1, 0);
        let mut sums = ClusterSums::default();
        sums.add_drops(1);
        sums.add_drops_of(&format!("d{i}"), 1);
        sums.add_metric(&format!("m{i}"), MetricSums { count: 1, total: 1.0 });
        report.add("real", &sums);
        all.add(&report, &mut current, &any);
    }
    all.add(&one(&"x".repeat(1_000_000), "a", 1, 0), &mut current, &any);
    let sums = all.sums();
    assert_eq!(sums.clusters.len(), MAX_CLUSTERS + 1);
    let real = &sums.clusters["real"];
    let parts = [real.localities.len(), real.drops.len(), real.metrics.len()];
    assert_eq!(parts, [MAX_PARTS + 1; 3]);
    assert_eq!((real.dropped, real.sums.successes), (1_000, 1_001), "sums lose nothing");
    assert_eq!(real.drops.values().sum::<u64>(), 1_000);
    assert_eq!(real.metrics.values().map(|sums| sums.count).sum::<u64>(), 1_000);
    let successes: u64 = sums.clusters.values().map(|cluster| cluster.sums.successes).sum();
    assert_eq!(successes, 1 + 3_000 + 1_000 + 1);
}

#[test]
fn one_report_is_as_bounded_as_the_sums_and_loses_nothing() {
    let (mut report, long) = (Clusters::default(), "x".repeat(MAX_NAME + 1));
    for i in 0..80_000 {
        add(&mut report, &format!("c{i}"), "a", 1, 1);
    }
    for i in 0..1_000 {
        add(&mut report, "c0", &format!("z{i}"), 1, 1);
    }
    add(&mut report, &long, &long, 1, 1);
    assert_eq!(report.0.len(), MAX_CLUSTERS + 1);
    assert_eq!(report.0["c0"].localities.len(), MAX_PARTS + 1);
    let all: u64 = report.0.values().map(|cluster| cluster.sums.successes).sum();
    assert_eq!(all, 81_001);
    assert_eq!(report.0[OTHERS].localities[OTHERS].in_progress, 1);
}

#[test]
fn a_cluster_that_nobody_knows_gets_no_entry_and_takes_no_place_of_one_that_is() {
    let (all, mut current) = (Collection::default(), Current::default());
    let known = |name: &str| name == "real";
    for i in 0..MAX_CLUSTERS {
        all.add(&one(&format!("c{i}"), "a", 1, 1), &mut current, &known);
    }
    all.add(&one("real", "a", 1, 0), &mut current, &known);
    let names: Vec<_> = all.sums().clusters.into_keys().collect();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), [OTHERS, "real"]);
}

#[test]
fn a_report_asks_for_each_of_its_clusters_once_and_for_none_that_was_reported_before() {
    let (all, mut current) = (Collection::default(), Current::default());
    let asked = std::cell::Cell::new(0);
    let known = |name: &str| {
        // While it is asked, anybody may look.
        assert!(all.0.try_lock().is_ok());
        asked.set(asked.get() + 1);
        !name.starts_with("made up")
    };
    let mut report = one("real", "a", 1, 0);
    for i in 0..80_000 {
        add(&mut report, &format!("made up {i}"), "a", 1, 3);
    }
    for first in [MAX_CLUSTERS + 1, MAX_CLUSTERS - 1] {
        asked.set(0);
        all.add(&report, &mut current, &known);
        assert_eq!(asked.get(), first);
    }
    let sums = all.sums();
    assert_eq!((sums.clusters.len(), sums.clusters[OTHERS].sums.successes), (2, 160_000));
    assert_eq!(sums.clusters[OTHERS].sums.in_progress, 240_000, "what is in progress now, not before too");
    assert_eq!(current.entries, 1);
}

#[test]
fn what_clients_have_in_progress_is_kept_within_bounds_and_taken_out_again() {
    let (all, mut current) = (Collection::default(), Current::default());
    let mut report = Clusters::default();
    for i in 0..2 * MAX_CURRENT {
        add(&mut report, &format!("c{}", i / 50), &format!("z{}", i % 50), 1, 1);
    }
    all.add(&report, &mut current, &any);
    assert_eq!((current.entries, all.collected().room), (MAX_CURRENT, MAX_CURRENT_OF_ALL - MAX_CURRENT));
    all.forget(&mut current);
    assert!(all.sums().clusters.values().all(|cluster| cluster.sums.in_progress == 0));
    assert_eq!((current.entries, all.collected().room), (0, MAX_CURRENT_OF_ALL));

    all.collected().room = 10_000;
    let mut clients: Vec<_> = (0..3).map(|_| Current::default()).collect();
    for client in &mut clients {
        all.add(&report, client, &any);
    }
    let kept: Vec<_> = clients.iter().map(|client| client.entries).collect();
    assert_eq!(kept, [MAX_CURRENT, MAX_CURRENT, 10_000 - 2 * MAX_CURRENT]);
    clients.iter_mut().for_each(|client| all.forget(client));
    assert_eq!(all.collected().room, 10_000);
    assert!(all.sums().clusters.values().all(|cluster| cluster.sums.in_progress == 0));
}

#[test]
fn no_client_can_fill_a_counter_or_a_sum_for_everybody() {
    let (all, mut hostile, mut other) = (Collection::default(), Current::default(), Current::default());
    all.add(&one("c", "a", 0, 5), &mut other, &any);
    let mut most = one("c", "a", u64::MAX, u64::MAX);
    let mut sums = ClusterSums::default();
    sums.add_metric("cpu_utilization", MetricSums { count: 1, total: f64::MAX });
    most.add("c", &sums);
    for _ in 0..3 {
        all.add(&most, &mut hostile, &any);
    }
    all.forget(&mut hostile);
    let cluster = &all.sums().clusters["c"];
    assert_eq!((cluster.sums.successes, cluster.sums.in_progress), (3 * MAX_COUNT, 5));
    let mut honest = one("c", "a", 1, 0);
    let mut sums = ClusterSums::default();
    sums.add_metric("cpu_utilization", MetricSums { count: 1, total: 0.5 });
    honest.add("c", &sums);
    all.add(&honest, &mut other, &any);
    let total = all.sums().clusters["c"].metrics["cpu_utilization"].total;
    assert!((total - 0.5).abs() < 1e-9, "{total}: what others say is seen");
}

#[test]
fn who_looks_at_the_sums_keeps_what_it_saw() {
    let (all, mut current) = (Collection::default(), Current::default());
    all.add(&one("c", "a", 1, 0), &mut current, &any);
    let seen = all.collected().clusters.clone();
    all.add(&one("c", "a", 1, 0), &mut current, &any);
    assert_eq!((seen["c"].sums.successes, all.sums().clusters["c"].sums.successes), (1, 2));
}
