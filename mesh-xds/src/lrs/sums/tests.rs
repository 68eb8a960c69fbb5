//! Sums within their bounds, whatever clients say.

use super::*;
use std::time::Duration;

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

/// How many entries a client has, and room for how many.
fn kept(client: &Current) -> (usize, usize) {
    (client.entries.count, client.room.count())
}

#[test]
fn totals_grow_and_what_is_in_progress_follows_each_client() {
    let all = Collection::default();
    let (mut first, mut second) = (all.client("a"), all.client("b"));
    all.add(&one("c", "a", 5, 2), &mut first, &any, Instant::now());
    all.add(&one("c", "a", 1, 3), &mut second, &any, Instant::now());
    let of = |all: &Collection| {
        (all.sums().clusters["c"].sums.successes, all.sums().clusters["c"].sums.in_progress)
    };
    assert_eq!(of(&all), (6, 5));
    all.add(&one("c", "a", 0, 1), &mut first, &any, Instant::now());
    assert_eq!(of(&all), (6, 4));
    all.forget(&mut second);
    assert_eq!(of(&all), (6, 1));
    all.add(&Clusters::default(), &mut first, &any, Instant::now());
    assert_eq!(of(&all), (6, 0));
    assert_eq!(all.sums().clusters["c"].localities["/a/"].in_progress, 0);
    assert_eq!(kept(&first), (0, 0));
    assert_eq!(all.sums().reports, 4);
}

#[test]
fn a_client_that_makes_names_up_fills_one_entry() {
    let all = Collection::default();
    let mut current = all.client("");
    all.add(&one("real", "a", 1, 0), &mut current, &any, Instant::now());
    for i in 0..3_000 {
        all.add(&one(&format!("c{i}"), "a", 1, 1), &mut current, &any, Instant::now());
    }
    for i in 0..1_000 {
        let mut report = one("real", &format!("z{i}"), 1, 0);
        let mut sums = ClusterSums::default();
        sums.add_drops(1);
        sums.add_drops_of(&format!("d{i}"), 1);
        sums.add_metric(&format!("m{i}"), MetricSums { count: 1, total: 1.0 });
        report.add("real", &sums);
        all.add(&report, &mut current, &any, Instant::now());
    }
    all.add(&one(&"x".repeat(1_000_000), "a", 1, 0), &mut current, &any, Instant::now());
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
    let all = Collection::default();
    let mut current = all.client("");
    let known = |name: &str| name == "real";
    for i in 0..MAX_CLUSTERS {
        all.add(&one(&format!("c{i}"), "a", 1, 1), &mut current, &known, Instant::now());
    }
    all.add(&one("real", "a", 1, 0), &mut current, &known, Instant::now());
    let names: Vec<_> = all.sums().clusters.into_keys().collect();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), [OTHERS, "real"]);
}

#[test]
fn a_report_asks_for_each_of_its_clusters_once_and_for_none_that_was_reported_before() {
    let all = Collection::default();
    let mut current = all.client("");
    let asked = std::cell::Cell::new(0);
    let known = |name: &str| {
        // While it is asked, anybody may look.
        assert!(all.collected.try_lock().is_ok());
        asked.set(asked.get() + 1);
        !name.starts_with("made up")
    };
    let mut report = one("real", "a", 1, 0);
    for i in 0..80_000 {
        add(&mut report, &format!("made up {i}"), "a", 1, 3);
    }
    for first in [MAX_CLUSTERS + 1, MAX_CLUSTERS - 1] {
        asked.set(0);
        all.add(&report, &mut current, &known, Instant::now());
        assert_eq!(asked.get(), first);
    }
    let sums = all.sums();
    assert_eq!((sums.clusters.len(), sums.clusters[OTHERS].sums.successes), (2, 160_000));
    assert_eq!(sums.clusters[OTHERS].sums.in_progress, 240_000, "what is in progress now, not before too");
    assert_eq!(kept(&current).0, 1);
}

#[test]
fn what_clients_have_in_progress_is_kept_within_bounds_and_taken_out_again() {
    let all = Collection::default();
    let mut current = all.client("");
    let mut report = Clusters::default();
    for i in 0..2 * MAX_CURRENT {
        add(&mut report, &format!("c{}", i / 50), &format!("z{}", i % 50), 1, 1);
    }
    all.add(&report, &mut current, &any, Instant::now());
    assert_eq!(kept(&current), (MAX_CURRENT, MAX_CURRENT));
    all.forget(&mut current);
    assert!(all.sums().clusters.values().all(|cluster| cluster.sums.in_progress == 0));
    assert_eq!(kept(&current), (0, 0));

    let all = Collection { rooms: Rooms::new(10_000), ..Collection::default() };
    let mut clients: Vec<_> = (0..3).map(|_| all.client("")).collect();
    for client in &mut clients {
        all.add(&report, client, &any, Instant::now());
    }
    let counts: Vec<_> = clients.iter().map(|client| kept(client).0).collect();
    assert_eq!(counts, [MAX_CURRENT, MAX_CURRENT, 10_000 - 2 * MAX_CURRENT]);
    clients.iter_mut().for_each(|client| all.forget(client));
    assert!(all.rooms.none("").resize(10_000).is_ok(), "all of it is free again");
    assert!(all.sums().clusters.values().all(|cluster| cluster.sums.in_progress == 0));
}

#[test]
fn the_streams_of_one_account_leave_room_for_what_others_have_in_progress() {
    let all = Collection { rooms: Rooms::new(10 * MAX_CURRENT), ..Collection::default() };
    let mut report = Clusters::default();
    for i in 0..MAX_CURRENT {
        add(&mut report, &format!("c{}", i / 64), &format!("z{}", i % 64), 1, 1);
    }
    let mut hostile: Vec<_> = (0..10).map(|_| all.client("hostile")).collect();
    // What they have may move about, too.
    for _ in 0..2 {
        for client in &mut hostile {
            all.add(&report, client, &any, Instant::now());
        }
    }
    let theirs: usize = hostile.iter().map(|client| kept(client).0).sum();
    assert_eq!(theirs, 10 * MAX_CURRENT / 4 * 3);
    let mut honest: Vec<_> = (0..50).map(|_| all.client("honest")).collect();
    for client in &mut honest {
        all.add(&one("honest", "a", 1, 7), client, &any, Instant::now());
    }
    assert_eq!(all.sums().clusters["honest"].sums.in_progress, 350);
    // A client that goes leaves all that it had.
    drop(honest);
    hostile.iter_mut().for_each(|client| all.forget(client));
    assert!(all.rooms.none("").resize(10 * MAX_CURRENT).is_ok());
}

#[test]
fn what_changes_its_name_takes_the_room_of_what_it_was() {
    let all = Collection { rooms: Rooms::new(10), ..Collection::default() };
    let mut client = all.client("a");
    for round in 0..20 {
        let mut report = Clusters::default();
        for i in 0..3 {
            add(&mut report, "c", &format!("z{}", round * 3 + i), 1, 1);
        }
        all.add(&report, &mut client, &any, Instant::now());
        assert_eq!((kept(&client), all.sums().clusters["c"].sums.in_progress), ((3, 3), 3), "{round}");
    }
}

#[test]
fn names_that_nobody_reports_make_room_for_others_and_what_is_in_progress_stays() {
    let all = Collection::default();
    let (mut hostile, mut waits, mut honest) = (all.client("a"), all.client("b"), all.client("c"));
    let start = Instant::now();
    let hour = Duration::from_secs(3600);
    let made_up = |of: &str| {
        let mut report = one("real", &format!("{of} 0"), 1, 0);
        for i in 0..2 * MAX_PARTS {
            add(&mut report, "real", &format!("{of} {i}"), 1, 0);
        }
        let mut sums = ClusterSums::default();
        for i in 0..2 * MAX_PARTS {
            sums.add_drops_of(&format!("{of} {i}"), 1);
            sums.add_metric(&format!("{of} {i}"), MetricSums { count: 1, total: 1.0 });
        }
        report.add("real", &sums);
        report
    };
    let truth = || {
        let mut report = one("real", "true", 1, 2);
        let mut sums = ClusterSums::default();
        sums.add_drops_of("true", 1);
        sums.add_metric("true", MetricSums { count: 1, total: 1.0 });
        report.add("real", &sums);
        report
    };
    // It has a call in progress, says nothing more, and does not go.
    all.add(&one("real", "waits", 1, 1), &mut waits, &any, start);
    all.add(&made_up("first"), &mut hostile, &any, start);
    let names = |at: Duration, honest: &mut Current| {
        all.add(&truth(), honest, &any, start + at);
        let real = all.sums().clusters.remove("real").unwrap();
        let is_true = |name: &Arc<str>| name.contains("true");
        let told = [
            real.localities.keys().any(is_true),
            real.drops.keys().any(is_true),
            real.metrics.keys().any(is_true),
        ];
        assert!(real.localities.contains_key("/waits/"));
        assert_eq!(real.sums.in_progress, 3);
        (told, real.localities.len())
    };
    let second = Duration::from_secs(1);
    assert_eq!(names(second, &mut honest), ([false; 3], MAX_PARTS));
    assert_eq!(names(hour, &mut honest), ([false; 3], MAX_PARTS), "they were reported in this one");
    assert_eq!(names(2 * hour - second, &mut honest), ([false; 3], MAX_PARTS));
    assert_eq!(names(2 * hour, &mut honest), ([true; 3], 3), "and in this one they were not");
    all.forget(&mut waits);
    let real = &all.sums().clusters["real"];
    assert_eq!((real.sums.in_progress, real.localities["/waits/"].in_progress), (2, 0));

    // Where there is room, nothing goes.
    for hours in [20, 40] {
        all.add(&truth(), &mut honest, &any, start + hours * hour);
    }
    assert!(all.sums().clusters["real"].localities.contains_key("/waits/"));
}

#[test]
fn clusters_that_nobody_reports_make_room_for_others() {
    let all = Collection::default();
    let (mut client, mut waits) = (all.client("a"), all.client("b"));
    let start = Instant::now();
    all.add(&one("waits", "a", 1, 1), &mut waits, &any, start);
    let mut report = Clusters::default();
    for i in 0..MAX_CLUSTERS {
        add(&mut report, &format!("c{i}"), "a", 1, 1);
    }
    all.add(&report, &mut client, &any, start);
    all.add(&one("c0", "a", 1, 0), &mut client, &any, start + Duration::from_secs(3600));
    assert_eq!(all.sums().clusters.len(), MAX_CLUSTERS + 1);
    all.add(&one("new", "a", 1, 0), &mut client, &any, start + Duration::from_secs(7200));
    let names: Vec<_> = all.sums().clusters.into_keys().collect();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["c0", "new", "waits"]);
}

#[test]
fn no_client_can_fill_a_counter_or_a_sum_for_everybody() {
    let all = Collection::default();
    let (mut hostile, mut other) = (all.client("a"), all.client("b"));
    all.add(&one("c", "a", 0, 5), &mut other, &any, Instant::now());
    let mut most = one("c", "a", u64::MAX, u64::MAX);
    let mut sums = ClusterSums::default();
    sums.add_metric("cpu_utilization", MetricSums { count: 1, total: f64::MAX });
    most.add("c", &sums);
    for _ in 0..3 {
        all.add(&most, &mut hostile, &any, Instant::now());
    }
    all.forget(&mut hostile);
    let cluster = &all.sums().clusters["c"];
    assert_eq!((cluster.sums.successes, cluster.sums.in_progress), (3 * MAX_COUNT, 5));
    let mut honest = one("c", "a", 1, 0);
    let mut sums = ClusterSums::default();
    sums.add_metric("cpu_utilization", MetricSums { count: 1, total: 0.5 });
    honest.add("c", &sums);
    all.add(&honest, &mut other, &any, Instant::now());
    let total = all.sums().clusters["c"].metrics["cpu_utilization"].total;
    assert!((total - 0.5).abs() < 1e-9, "{total}: what others say is seen");
}

#[test]
fn who_looks_at_the_sums_keeps_what_it_saw() {
    let all = Collection::default();
    let mut current = all.client("");
    all.add(&one("c", "a", 1, 0), &mut current, &any, Instant::now());
    let seen = all.collected().clusters["c"].sums.clone();
    all.add(&one("c", "a", 1, 0), &mut current, &any, Instant::now());
    assert_eq!((seen.sums.successes, all.sums().clusters["c"].sums.successes), (1, 2));
}
