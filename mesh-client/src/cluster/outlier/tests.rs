//! The ejector, against the numbers of gRFC A50.

use super::*;
use mesh_xds::resource::cluster::{Consecutive, LocalOrigin};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(10);

fn config(max_ejection_percent: u32) -> OutlierDetection {
    OutlierDetection {
        interval: INTERVAL,
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_percent,
        consecutive_5xx: Some(Consecutive { threshold: 5, enforcing: 100 }),
        consecutive_gateway_failure: None,
        consecutive_local_origin_failure: None,
        split_external_local_origin_errors: false,
        ..OutlierDetection::default()
    }
}

fn failure_percentage(threshold: u32) -> Option<FailurePercentage> {
    Some(FailurePercentage { threshold, enforcing: 100, minimum_hosts: 1, request_volume: 1 })
}

fn success_rate(stdev_factor: u32) -> Option<SuccessRate> {
    Some(SuccessRate { stdev_factor, enforcing: 100, minimum_hosts: 5, request_volume: 100 })
}

struct Bench {
    ejector: Ejector,
    now: Instant,
    rng: fastrand::Rng,
    hosts: Vec<SocketAddr>,
}

impl Bench {
    fn new(config: &OutlierDetection, hosts: u16) -> Self {
        let hosts: Vec<_> = (1..=hosts).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let (mut ejector, now) = (Ejector::default(), Instant::now());
        ejector.configure(now, Some(config));
        ejector.populate(hosts.len(), |host| hosts.contains(&host));
        Self { ejector, now, rng: fastrand::Rng::with_seed(3), hosts }
    }

    fn streak(&mut self, host: usize) -> bool {
        self.ejector.on_streak(self.now, self.hosts[host], Streak::ServerError, &mut self.rng)
    }

    /// An interval passes in which the hosts did this; who came back.
    fn sweep(&mut self, counts: &[(u64, u64)]) -> Vec<SocketAddr> {
        self.sweep_both(counts, &[])
    }

    /// The same, with what was made here split off.
    fn sweep_both(&mut self, external: &[(u64, u64)], local: &[(u64, u64)]) -> Vec<SocketAddr> {
        self.now += INTERVAL;
        let samples = |counts: &[(u64, u64)]| {
            let samples = self.hosts.iter().zip(counts).map(|(endpoint, (successes, failures))| Sample {
                endpoint: *endpoint,
                successes: *successes,
                failures: *failures,
            });
            samples.collect()
        };
        let samples = Samples { external: samples(external), local: samples(local) };
        let mut returned = Vec::new();
        self.ejector.sweep(self.now, &samples, &mut self.rng, &mut returned);
        returned
    }

    fn ejected(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.ejector.is_ejected(self.hosts[*host])).collect()
    }
}

#[test]
fn exactly_the_threshold_of_failures_does_not_eject_and_anything_above_does() {
    let rules = OutlierDetection { failure_percentage: failure_percentage(50), ..config(100) };
    let mut bench = Bench::new(&rules, 3);
    bench.sweep(&[(50, 50), (100, 0), (99, 101)]);
    assert_eq!(bench.ejected(), [2]);
}

#[test]
fn the_share_of_ejected_endpoints_is_capped_but_one_always_may_be() {
    for (hosts, percent, expected) in
        [(5, 20, 1), (5, 10, 1), (4, 30, 2), (10, 100, 10), (3, 1, 1), (3, 0, 0)]
    {
        let mut bench = Bench::new(&config(percent), hosts);
        let ejected = (0..usize::from(hosts)).filter(|host| bench.streak(*host)).count();
        assert_eq!(ejected, expected, "{hosts} hosts, {percent} %");
    }
}

#[test]
fn the_cap_also_holds_for_statistics() {
    let rules = OutlierDetection { failure_percentage: failure_percentage(50), ..config(30) };
    let mut bench = Bench::new(&rules, 4);
    bench.sweep(&[(0, 10); 4]);
    assert_eq!(bench.ejected().len(), 2);
}

#[test]
fn minimum_hosts_is_reached_by_as_many() {
    for (minimum_hosts, expected) in [(3, vec![0]), (4, vec![])] {
        let algorithm = FailurePercentage { minimum_hosts, ..failure_percentage(50).unwrap() };
        let rules = OutlierDetection { failure_percentage: Some(algorithm), ..config(100) };
        let mut bench = Bench::new(&rules, 3);
        bench.sweep(&[(0, 10), (10, 0), (10, 0)]);
        assert_eq!(bench.ejected(), expected);
    }
}

#[test]
fn request_volume_is_reached_by_as_many_and_a_host_without_calls_never_counts() {
    let algorithm = FailurePercentage { request_volume: 10, ..failure_percentage(0).unwrap() };
    let rules = OutlierDetection { failure_percentage: Some(algorithm), ..config(100) };
    let mut bench = Bench::new(&rules, 3);
    bench.sweep(&[(0, 10), (0, 9), (0, 0)]);
    assert_eq!(bench.ejected(), [0]);
}

#[test]
fn a_success_rate_far_below_the_mean_ejects() {
    let rules = OutlierDetection { success_rate: success_rate(1900), ..config(100) };
    let mut bench = Bench::new(&rules, 5);
    bench.sweep(&[(100, 0), (100, 0), (100, 0), (100, 0), (0, 100)]);
    assert_eq!(bench.ejected(), [4]);
}

#[test]
fn equal_success_rates_eject_nobody() {
    let rules = OutlierDetection { success_rate: success_rate(1900), ..config(100) };
    let mut bench = Bench::new(&rules, 5);
    bench.sweep(&[(80, 20); 5]);
    assert_eq!(bench.ejected(), [] as [usize; 0]);
}

#[test]
fn a_factor_of_zero_ejects_whoever_is_below_the_mean() {
    let rules = OutlierDetection { success_rate: success_rate(0), ..config(100) };
    let mut bench = Bench::new(&rules, 5);
    bench.sweep(&[(100, 0), (100, 0), (90, 10), (100, 0), (80, 20)]);
    assert_eq!(bench.ejected(), [2, 4]);
}

#[test]
fn enforcement_of_zero_never_ejects() {
    let algorithm = FailurePercentage { enforcing: 0, ..failure_percentage(50).unwrap() };
    let rules = OutlierDetection {
        failure_percentage: Some(algorithm),
        consecutive_5xx: Some(Consecutive { threshold: 1, enforcing: 0 }),
        ..config(100)
    };
    let mut bench = Bench::new(&rules, 2);
    assert!(!bench.streak(0));
    bench.sweep(&[(0, 10), (0, 10)]);
    assert_eq!(bench.ejected(), [] as [usize; 0]);
}

#[test]
fn an_ejection_lasts_its_base_time_and_twice_that_when_it_happens_again() {
    let mut bench = Bench::new(&config(100), 2);
    assert!(bench.streak(0));
    assert!(!bench.streak(0), "it is ejected already");
    for _ in 0..3 {
        assert_eq!(bench.sweep(&[]), []);
    }
    assert_eq!(bench.sweep(&[]), [bench.hosts[0]], "at the first sweep after 30 s");
    assert!(bench.streak(0));
    for _ in 0..6 {
        assert_eq!(bench.sweep(&[]), []);
    }
    assert_eq!(bench.sweep(&[]), [bench.hosts[0]]);
}

#[test]
fn healthy_intervals_forgive() {
    let mut bench = Bench::new(&config(100), 2);
    bench.streak(0);
    while bench.sweep(&[]).is_empty() {}
    bench.sweep(&[]);
    assert_eq!(bench.ejector.wake_at(), None, "nothing is left to sweep");
    bench.streak(0);
    let sweeps = (1..).find(|_| !bench.sweep(&[]).is_empty());
    assert_eq!(sweeps, Some(4), "30 s again");
}

#[test]
fn no_ejection_is_longer_than_the_maximum() {
    let rules = OutlierDetection { max_ejection_time: Duration::from_secs(40), ..config(100) };
    let mut bench = Bench::new(&rules, 2);
    for sweeps in [4, 5, 5] {
        bench.streak(0);
        assert_eq!((1..).find(|_| !bench.sweep(&[]).is_empty()), Some(sweeps));
    }
}

#[test]
fn a_removed_endpoint_frees_the_cap_and_is_still_ejected_when_it_returns() {
    let mut bench = Bench::new(&config(10), 5);
    assert!(bench.streak(0));
    assert!(!bench.streak(1));
    let all = bench.hosts.clone();
    bench.ejector.populate(4, |host| all[1..].contains(&host));
    assert!(bench.streak(1));
    bench.ejector.populate(5, |host| all.contains(&host));
    assert_eq!(bench.ejected(), [0, 1]);
}

#[test]
fn switching_it_off_frees_everybody() {
    let mut bench = Bench::new(&config(100), 2);
    bench.streak(0);
    bench.ejector.configure(bench.now, None);
    assert_eq!(bench.ejected(), [] as [usize; 0]);
    assert_eq!(bench.ejector.wake_at(), None);
}

#[test]
fn a_changed_configuration_keeps_the_phase_and_switching_statistics_on_starts_anew() {
    let mut bench = Bench::new(&config(100), 2);
    let start = bench.now;
    let rules = OutlierDetection { failure_percentage: failure_percentage(50), ..config(100) };
    assert!(bench.ejector.configure(start + Duration::from_secs(4), Some(&rules)));
    assert_eq!(bench.ejector.wake_at(), Some(start + INTERVAL));
    assert!(!bench.ejector.configure(start + Duration::from_secs(5), Some(&rules)));
}

#[test]
fn a_quiet_cluster_is_not_swept_until_something_is_counted() {
    let rules = OutlierDetection { failure_percentage: failure_percentage(50), ..config(100) };
    let mut bench = Bench::new(&rules, 2);
    bench.sweep(&[(0, 0), (0, 0)]);
    assert_eq!(bench.ejector.wake_at(), None);
    bench.now += Duration::from_secs(3600);
    bench.ejector.wake(bench.now);
    assert_eq!(bench.ejector.wake_at(), Some(bench.now + INTERVAL));
}

#[test]
fn failures_made_here_have_statistics_with_chances_of_their_own() {
    let good = [(100, 0); 5];
    let bad = |host: usize| {
        let mut counts = good;
        counts[host] = (0, 100);
        counts
    };
    let of = |answers: u32, here: u32| OutlierDetection {
        split_external_local_origin_errors: true,
        success_rate: (answers > 0)
            .then(|| SuccessRate { enforcing: answers, ..success_rate(1900).unwrap() }),
        local_origin: LocalOrigin {
            success_rate: (here > 0).then(|| SuccessRate { enforcing: here, ..success_rate(1900).unwrap() }),
            failure_percentage: None,
        },
        ..config(100)
    };
    for (answers, here, expected) in [(100, 100, vec![1, 3]), (100, 0, vec![1]), (0, 100, vec![3])] {
        let mut bench = Bench::new(&of(answers, here), 5);
        bench.sweep_both(&bad(1), &bad(3));
        assert_eq!(bench.ejected(), expected, "{answers} {here}");
    }
    let share = FailurePercentage { minimum_hosts: 5, request_volume: 50, ..failure_percentage(85).unwrap() };
    let local_origin = LocalOrigin { success_rate: None, failure_percentage: Some(share) };
    let rules = OutlierDetection { split_external_local_origin_errors: true, local_origin, ..config(100) };
    let mut bench = Bench::new(&rules, 5);
    bench.sweep_both(&bad(1), &[(15, 85), (14, 86), (0, 49), (100, 0), (100, 0)]);
    assert_eq!(bench.ejected(), [] as [usize; 0], "of four hosts with enough calls; five are asked for");
    bench.sweep_both(&bad(1), &[(15, 85), (14, 86), (50, 0), (100, 0), (100, 0)]);
    assert_eq!(bench.ejected(), [1], "more than 85 %");
}

#[test]
fn statistics_of_failures_made_here_are_swept_for_by_themselves() {
    let local_origin = LocalOrigin { success_rate: success_rate(1900), failure_percentage: None };
    let mut bench = Bench::new(&OutlierDetection { local_origin, ..config(100) }, 2);
    let first = bench.now + INTERVAL;
    assert_eq!(bench.ejector.wake_at(), Some(first));
    bench.sweep_both(&[], &[(0, 1), (0, 0)]);
    assert!(!bench.ejector.is_quiet());
    bench.sweep_both(&[], &[(0, 0), (0, 0)]);
    assert!(bench.ejector.is_quiet());
}

#[test]
fn jitter_lengthens_each_ejection_by_a_time_of_its_own_even_beyond_the_maximum() {
    let rules = OutlierDetection {
        interval: Duration::from_secs(1),
        max_ejection_time: Duration::from_secs(40),
        max_ejection_time_jitter: Duration::from_secs(20),
        ..config(100)
    };
    let mut bench = Bench::new(&rules, 100);
    let mut lengths = std::collections::BTreeSet::new();
    for (round, base) in [30, 40].into_iter().enumerate() {
        for host in 0..100 {
            assert!(bench.streak(host), "round {round}");
            let (left, times) = bench.ejector.ejection(bench.now, bench.hosts[host]);
            assert_eq!(times as usize, round + 1);
            let jitter = left.unwrap() - Duration::from_secs(base);
            assert!(jitter <= Duration::from_secs(20), "{jitter:?}");
            lengths.insert(jitter);
        }
        // All are back at the first sweep that comes a minute later.
        bench.now += Duration::from_secs(61);
        assert_eq!(bench.sweep(&[]).len(), 100);
    }
    assert!(lengths.len() > 150, "{} of 200", lengths.len());
    assert!(lengths.first().unwrap().as_secs() < 2 && lengths.last().unwrap().as_secs() >= 18, "{lengths:?}");
}

#[test]
fn a_health_check_that_passes_takes_back_unless_it_is_not_to() {
    for uneject_by_health_check in [true, false] {
        let mut bench = Bench::new(&OutlierDetection { uneject_by_health_check, ..config(100) }, 2);
        bench.streak(0);
        let host = bench.hosts[0];
        assert_eq!(bench.ejector.on_healthy(host), uneject_by_health_check);
        assert_eq!(bench.ejector.is_ejected(host), !uneject_by_health_check);
        assert!(!bench.ejector.on_healthy(bench.hosts[1]), "it is not ejected");
    }
}
