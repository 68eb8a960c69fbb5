//! Thresholds, edges and intervals, by the rules of Envoy's documentation.

use super::*;
use mesh_xds::resource::cluster::HealthProbe;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn check() -> HealthCheck {
    HealthCheck {
        probe: HealthProbe::Grpc { service_name: "".into(), authority: None, metadata: Vec::new() },
        timeout: secs(1),
        interval: secs(10),
        initial_jitter: Duration::ZERO,
        interval_jitter: Duration::ZERO,
        interval_jitter_percent: 0,
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        alt_port: None,
        reuse_connection: true,
        no_traffic_interval: secs(60),
        no_traffic_healthy_interval: None,
        unhealthy_interval: None,
        unhealthy_edge_interval: None,
        healthy_edge_interval: None,
        ignore_new_until_first_check: false,
    }
}

/// A machine, its clock and its dice.
struct Bench {
    machine: Machine,
    check: HealthCheck,
    now: Instant,
    rng: fastrand::Rng,
    used: bool,
}

impl Bench {
    fn new(check: HealthCheck) -> Self {
        let (now, mut rng) = (Instant::now(), fastrand::Rng::with_seed(7));
        Self { machine: Machine::new(now, &check, &mut rng), check, now, rng, used: true }
    }

    /// When it is due it is answered so; whether that made it another state, and how long it is until the next.
    fn answer(&mut self, answer: Answer) -> (bool, Duration) {
        self.now = self.machine.due();
        let changed = self.machine.on(self.now, answer, &self.check, self.used, &mut self.rng);
        (changed, self.machine.due() - self.now)
    }

    fn serving(&mut self) -> (bool, Duration) {
        self.answer(Answer::Serving)
    }

    fn failed(&mut self) -> (bool, Duration) {
        self.answer(Answer::Failed("refused".into()))
    }

    fn says_no(&mut self) -> (bool, Duration) {
        self.answer(Answer::NotServing("NOT_SERVING".into()))
    }

    fn is_healthy(&self) -> bool {
        *self.machine.state() == Checked::Healthy
    }
}

#[test]
fn the_first_answer_counts_at_once() {
    let mut good = Bench::new(check());
    assert_eq!((good.machine.due(), good.machine.state()), (good.now, &Checked::Pending));
    assert!(good.serving().0 && good.is_healthy());
    let mut bad = Bench::new(check());
    assert!(bad.failed().0);
    assert_eq!(*bad.machine.state(), Checked::Unhealthy("refused".into()));
}

#[test]
fn failures_in_a_row_up_to_the_threshold_make_it_unhealthy_and_successes_healthy() {
    let mut bench = Bench::new(check());
    bench.serving();
    for _ in 0..5 {
        assert!(!bench.failed().0 && !bench.failed().0 && !bench.serving().0, "never three in a row");
    }
    assert!(!bench.failed().0 && !bench.failed().0 && bench.failed().0 && !bench.is_healthy());
    for _ in 0..5 {
        assert!(!bench.serving().0 && !bench.failed().0, "never two in a row");
    }
    assert!(!bench.serving().0 && bench.serving().0 && bench.is_healthy());
}

#[test]
fn a_server_that_says_it_does_not_serve_is_believed_at_once() {
    let mut bench = Bench::new(check());
    bench.serving();
    assert!(bench.says_no().0 && !bench.is_healthy());
}

#[test]
fn an_unhealthy_one_keeps_the_latest_reason() {
    let mut bench = Bench::new(check());
    bench.failed();
    assert!(!bench.says_no().0, "no other state");
    assert_eq!(*bench.machine.state(), Checked::Unhealthy("NOT_SERVING".into()));
}

#[test]
fn intervals_are_those_of_the_state_and_of_its_edges() {
    let intervals = HealthCheck {
        unhealthy_interval: Some(secs(2)),
        unhealthy_edge_interval: Some(secs(3)),
        healthy_edge_interval: Some(secs(4)),
        no_traffic_healthy_interval: Some(secs(70)),
        unhealthy_threshold: 1,
        healthy_threshold: 1,
        ..check()
    };
    let mut bench = Bench::new(intervals.clone());
    assert_eq!(bench.serving(), (true, secs(4)));
    assert_eq!(bench.serving(), (false, secs(10)));
    assert_eq!(bench.failed(), (true, secs(3)));
    assert_eq!(bench.failed(), (false, secs(2)));
    assert_eq!(bench.serving(), (true, secs(4)));

    let mut defaults = Bench::new(HealthCheck { unhealthy_threshold: 1, healthy_threshold: 1, ..check() });
    for answer in [Answer::Serving, Answer::Failed("x".into()), Answer::Failed("x".into())] {
        assert_eq!(defaults.answer(answer).1, secs(10));
    }
    let mut half = Bench::new(HealthCheck { unhealthy_interval: Some(secs(2)), ..check() });
    assert_eq!(half.failed(), (true, secs(2)), "an edge is like the rest unless it is told apart");

    let mut unused = Bench::new(intervals);
    unused.used = false;
    assert_eq!((unused.failed().1, unused.serving().1), (secs(60), secs(70)));
    let mut unused = Bench::new(check());
    unused.used = false;
    assert_eq!(unused.serving().1, secs(60));
}

#[test]
fn jitters_are_added_within_their_bounds_and_differ() {
    let jittered = HealthCheck {
        initial_jitter: secs(5),
        interval_jitter: secs(1),
        interval_jitter_percent: 50,
        ..check()
    };
    let mut bench = Bench::new(jittered);
    assert!(bench.machine.due() > bench.now && bench.machine.due() < bench.now + secs(5));
    let all: Vec<Duration> = (0..1000).map(|_| bench.serving().1).collect();
    assert!(all.iter().all(|interval| (secs(10)..secs(16)).contains(interval)));
    let mean = all.iter().sum::<Duration>() / 1000;
    assert!(mean > Duration::from_millis(12_800) && mean < Duration::from_millis(13_200), "{mean:?}");
}

#[test]
fn a_shorter_interval_holds_for_the_check_that_is_waited_for() {
    let mut bench = Bench::new(check());
    bench.used = false;
    bench.serving();
    bench.machine.reconfigure(bench.now, &HealthCheck { interval: secs(5), ..check() });
    assert_eq!(bench.machine.due(), bench.now + secs(5));
    assert!(bench.is_healthy(), "what is known stays known");
}
