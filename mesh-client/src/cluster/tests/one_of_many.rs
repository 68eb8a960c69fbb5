//! A change of one endpoint among many: what is looked at, what is allocated, and what stays. Counts decide; the
//! ignored tests print times for docs/performance.md.

use super::net::*;
use crate::{
    cluster::{Cluster, Shared, actor::Actor},
    endpoint::{Endpoint, machine::Connectivity},
    lb::{Dice, Picker},
};
use mesh_xds::{
    config::ClusterConfig,
    resource::{
        cluster::{LbPolicy, LocalityLb, Maglev, RingHash},
        endpoint::{HealthStatus, LocalityEndpoints},
    },
};
use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};

/// An actor that is called by hand. The tasks of its endpoints never run: what they would say is said for them.
struct Bench {
    actor: Actor,
    shared: Arc<Shared>,
    config: Config,
    cluster: Arc<mesh_xds::resource::Cluster>,
    runtime: Runtime,
    _updates: watch::Sender<Arc<ClusterConfig>>,
}

impl Bench {
    /// So many endpoints in one locality, all connected.
    fn new(endpoints: u16, lb: LbPolicy) -> Self {
        let ports: Vec<u16> = (1..=endpoints).collect();
        let mut config = Config::of(&ports);
        config.cluster.lb = lb;
        Self::of(config)
    }

    fn of(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let inside = runtime.enter();
        let deps = deps(&Net::default());
        let built = config.build();
        let (updates, receiver) = watch::channel(Arc::clone(&built));
        let counters = deps.breakers.counters(&"reviews".into(), &"reviews".into());
        let questions = mpsc::unbounded_channel().1;
        let (shared, actor) = Actor::new(Arc::clone(&built), &deps, counters, receiver, questions);
        drop(inside);
        let cluster = Arc::clone(&built.cluster);
        let mut bench = Self { actor, shared, config, cluster, runtime, _updates: updates };
        for endpoint in bench.endpoints().values() {
            bench.actor.hear(endpoint.address, Connectivity::Ready);
        }
        bench.actor.settle();
        bench
    }

    fn endpoints(&mut self) -> HashMap<u16, Arc<Endpoint>> {
        let slots = self.actor.slots().iter();
        slots.map(|slot| (slot.endpoint().address.port(), Arc::clone(slot.endpoint()))).collect()
    }

    fn change(&mut self, change: impl FnOnce(&mut LocalityEndpoints)) -> Arc<ClusterConfig> {
        change(&mut self.config.endpoints.priorities[0].localities[0]);
        Arc::new(ClusterConfig { cluster: Arc::clone(&self.cluster), ..(*self.config.build()).clone() })
    }

    /// What it takes to adopt a configuration, and to settle on it.
    fn adopt(&mut self, config: Arc<ClusterConfig>) -> (Duration, Duration) {
        let _inside = self.runtime.enter();
        let begun = Instant::now();
        self.actor.configure(config);
        let adopted = begun.elapsed();
        self.actor.settle();
        (adopted, begun.elapsed() - adopted)
    }

    /// Allocations and looks at an endpoint that `work` takes.
    fn cost(&mut self, work: impl FnOnce(&mut Self)) -> (u64, usize) {
        self.actor.slots().touched = 0;
        let counted = allocation_counter::measure(|| work(self));
        (counted.count_total, self.actor.slots().touched)
    }

    fn picks(&self, picks: usize) -> HashMap<u16, usize> {
        let snapshot = self.shared.snapshot.load_full();
        let dice = Dice::new(1);
        let mut counts = HashMap::new();
        for _ in 0..picks {
            *counts.entry(snapshot.picker.pick(&dice).unwrap().address.port()).or_default() += 1;
        }
        counts
    }

    fn ready(&self) -> usize {
        self.shared.snapshot.load().picker.ready()
    }
}

fn weight(weight: u32) -> NonZeroU32 {
    NonZeroU32::new(weight).unwrap()
}

fn lost() -> Connectivity {
    Connectivity::TransientFailure("refused".into())
}

type Step = fn(&mut Bench);

/// Changes of one endpoint, in an order in which each is one.
const STEPS: [(&str, Step); 6] = [
    ("its weight changes", |bench| {
        let config = bench.change(|locality| Arc::make_mut(&mut locality.endpoints[7]).weight = weight(3));
        bench.adopt(config);
    }),
    ("it is unhealthy", |bench| {
        let health = HealthStatus::Unhealthy;
        let config = bench.change(|locality| Arc::make_mut(&mut locality.endpoints[6]).health = health);
        bench.adopt(config);
    }),
    ("it joins", |bench| {
        let config = bench.change(|locality| locality.endpoints.insert(5, endpoint(60_000).into()));
        bench.adopt(config);
    }),
    ("it leaves", |bench| {
        let config = bench.change(|locality| drop(locality.endpoints.remove(5)));
        bench.adopt(config);
    }),
    ("it is unreachable", |bench| {
        bench.actor.hear(address(3), lost());
        bench.actor.settle();
    }),
    ("it is back", |bench| {
        bench.actor.hear(address(3), Connectivity::Ready);
        bench.actor.settle();
    }),
];

fn policies() -> [LbPolicy; 3] {
    [LbPolicy::RoundRobin, LbPolicy::least_request(2), LbPolicy::Random]
}

#[test]
fn a_change_of_one_looks_at_a_few_and_allocates_as_much_among_ten_thousand_as_among_ten() {
    for lb in policies() {
        let (mut few, mut many) = (Bench::new(10, lb.clone()), Bench::new(10_000, lb));
        for (name, step) in STEPS {
            // The configuration is made by somebody else: its share is the same in both.
            let (among_few, _) = few.cost(step);
            let (among_many, touched) = many.cost(step);
            // Vectors double while they grow; what they hold is not an allocation each.
            assert!(among_many <= among_few + 24, "{name}: {among_many} allocations, {among_few} among ten");
            assert!(touched <= 3, "{name}: {touched} endpoints were looked at");
        }
        assert_eq!(many.ready(), 9_999);
    }
}

#[test]
fn a_thousand_that_report_at_once_make_one_snapshot() {
    let mut bench = Bench::new(2_000, LbPolicy::RoundRobin);
    let (_, touched) = bench.cost(|bench| {
        for port in 1..=1_000 {
            assert!(bench.actor.hear(address(port), lost()));
        }
        bench.actor.settle();
    });
    assert_eq!((touched, bench.ready()), (1_000, 1_000));
}

/// On one thread, endpoints that connect at once have all reported when the actor's turn comes.
#[test]
fn a_burst_of_connections_makes_few_snapshots() {
    let net = Net::default();
    let ports: Vec<u16> = (1..=400).collect();
    let _servers: Vec<_> = ports.iter().map(|port| net.server(*port)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let cluster = Config::of(&ports).spawn(&net);
        rest().await;
        assert_eq!(cluster.ready(), 400);
        let published = cluster.shared.published.load(SeqCst);
        assert!(published <= 20, "{published} snapshots");
    });
}

#[test]
fn endpoints_in_another_order_are_the_same_endpoints() {
    let mut bench = Bench::new(500, LbPolicy::RoundRobin);
    bench.actor.hear(address(9), lost());
    bench.actor.settle();
    let before = bench.endpoints();
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..5 {
        let config = bench.change(|locality| rng.shuffle(&mut locality.endpoints));
        bench.adopt(config);
        let after = bench.endpoints();
        assert!(before.iter().all(|(port, endpoint)| Arc::ptr_eq(endpoint, &after[port])));
        assert_eq!((after.len(), bench.ready()), (500, 499));
        assert!(!bench.picks(2_000).contains_key(&9));
    }
}

#[test]
fn a_changed_weight_and_health_reach_the_picker() {
    let mut bench = Bench::new(3, LbPolicy::RoundRobin);
    let config = bench.change(|locality| Arc::make_mut(&mut locality.endpoints[1]).weight = weight(8));
    bench.adopt(config);
    let counts = bench.picks(10_000);
    for (port, expected) in [(1, 1_000_usize), (2, 8_000), (3, 1_000)] {
        assert!(counts[&port].abs_diff(expected) <= 10, "{counts:?}");
    }
    let draining = HealthStatus::Draining;
    let config = bench.change(|locality| Arc::make_mut(&mut locality.endpoints[1]).health = draining);
    bench.adopt(config);
    assert_eq!(bench.picks(1_000).into_keys().collect::<HashSet<_>>(), HashSet::from([1, 3]));
}

/// The round of a locality goes on when another one changes.
#[test]
fn a_locality_in_which_nothing_changed_keeps_its_part_of_the_picker() {
    for lb in [LocalityLb::Weighted, LocalityLb::Flat] {
        let mut config = Config::of(&[]);
        config.cluster.lb = LbPolicy::RoundRobin;
        config.cluster.lb_options.localities = lb;
        let ports = |from: u16| (from..from + 5).map(endpoint).collect();
        config.endpoints.priorities[0].localities =
            vec![locality("a", 1, ports(1)), locality("b", 1, ports(6))];
        let mut bench = Bench::of(config);
        let parts = |bench: &Bench| bench.shared.snapshot.load().picker.parts();
        let before = parts(&bench);
        bench.actor.settle();
        assert_eq!(parts(&bench), before, "nothing changed");
        bench.actor.hear(address(2), lost());
        bench.actor.settle();
        let after = parts(&bench);
        match lb {
            LocalityLb::Flat => assert!(before.len() == 1 && before != after),
            _ => assert!(before[0] != after[0] && before[1] == after[1]),
        }
        assert!(!bench.picks(1_000).contains_key(&2));
        assert_eq!(bench.ready(), 9);
    }
}

/// `cargo test --release -p mesh-client --lib one_of_many -- --ignored --nocapture --test-threads 1`
#[test]
#[ignore = "prints times, which decide nothing"]
fn the_times_of_a_change() {
    println!(
        "| endpoints | one of them | compare µs | adopt µs | settle and publish µs | together µs | allocations |"
    );
    println!("|---|---|---|---|---|---|---|");
    for count in [10, 1_000, 10_000] {
        let mut bench = Bench::new(count, LbPolicy::least_request(2));
        let mut row =
            |name: &str, work: &mut dyn FnMut(&mut Bench, u32) -> (Duration, Duration, Duration)| {
                let mut times: Vec<_> = (0..101).map(|turn| work(&mut bench, turn)).collect();
                times.sort_by_key(|(compared, adopted, settled)| *compared + *adopted + *settled);
                let (compared, adopted, settled) = times[50];
                let us = |time: Duration| time.as_nanos() as f64 / 1000.0;
                let counted = allocation_counter::measure(|| {
                    work(&mut bench, 101);
                });
                println!(
                    "| {count} | {name} | {:.1} | {:.1} | {:.1} | {:.1} | {} |",
                    us(compared),
                    us(adopted),
                    us(settled),
                    us(compared + adopted + settled),
                    counted.count_total
                );
            };
        let configured = |bench: &mut Bench, change: &mut dyn FnMut(&mut LocalityEndpoints)| {
            let before = Arc::clone(&bench.shared.snapshot.load().config);
            let config = bench.change(change);
            let begun = Instant::now();
            assert!(*before != *config);
            let compared = begun.elapsed();
            drop(before);
            let (adopted, settled) = bench.adopt(config);
            (compared, adopted, settled)
        };
        row("changes its weight", &mut |bench, turn| {
            let weight = weight(2 + turn % 7);
            configured(bench, &mut |locality| Arc::make_mut(&mut locality.endpoints[7]).weight = weight)
        });
        row("changes its health", &mut |bench, turn| {
            let health = if turn % 2 == 0 { HealthStatus::Unhealthy } else { HealthStatus::Healthy };
            configured(bench, &mut |locality| Arc::make_mut(&mut locality.endpoints[6]).health = health)
        });
        row("joins or leaves", &mut |bench, turn| {
            configured(bench, &mut |locality| match turn % 2 {
                0 => locality.endpoints.insert(5, endpoint(60_000).into()),
                _ => drop(locality.endpoints.remove(5)),
            })
        });
        row("is lost or comes back", &mut |bench, turn| {
            let connectivity = if turn % 2 == 0 { lost() } else { Connectivity::Ready };
            let begun = Instant::now();
            bench.actor.hear(address(3), connectivity);
            let heard = begun.elapsed();
            bench.actor.settle();
            (Duration::ZERO, heard, begun.elapsed() - heard)
        });
    }
}

/// `cargo test --release -p mesh-client --lib the_times_of_a_pick -- --ignored --nocapture --test-threads 1`
#[test]
#[ignore = "prints times, which decide nothing"]
fn the_times_of_a_pick() {
    println!("| | among 10, ns | among 10,000, ns |");
    println!("|---|---|---|");
    let dice = Dice::new(1);
    let time = |picker: &Picker| {
        let mut hashes = fastrand::Rng::with_seed(7);
        let begun = Instant::now();
        for _ in 0..200_000 {
            std::hint::black_box(picker.pick_by_hash(Some(hashes.u64(..)), &dice, |_| false));
        }
        begun.elapsed().as_nanos() as f64 / 2e5
    };
    for (name, lb) in [
        ("least request", LbPolicy::least_request(2)),
        ("round robin", LbPolicy::RoundRobin),
        ("random", LbPolicy::Random),
        ("ring hash", LbPolicy::RingHash(RingHash { min_size: 4096, max_size: 4096, use_hostname: false })),
        ("Maglev", LbPolicy::Maglev(Maglev::default())),
    ] {
        let snapshots = [10, 10_000].map(|count| {
            let bench = Bench::new(count, lb.clone());
            bench.shared.snapshot.load_full()
        });
        // In turn, so that both meet the same moments of the machine.
        let rounds: Vec<[f64; 2]> =
            (0..21).map(|_| [0, 1].map(|index: usize| time(&snapshots[index].picker))).collect();
        let median = |index: usize| {
            let mut times: Vec<f64> = rounds.iter().map(|round| round[index]).collect();
            times.sort_by(f64::total_cmp);
            times[10]
        };
        println!("| {name} | {:.0} | {:.0} |", median(0), median(1));
    }
}

#[test]
#[ignore = "prints times, which decide nothing"]
fn the_snapshots_of_a_burst() {
    for threads in [1, 2] {
        let count = 10_000;
        let net = Net::default();
        let ports: Vec<u16> = (1..=count).collect();
        let _servers: Vec<_> = ports.iter().map(|port| net.server(*port)).collect();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let config = Config::of(&ports);
        runtime.unwrap().block_on(async {
            let begun = Instant::now();
            let cluster: Arc<Cluster> = tokio::spawn(async move { config.spawn(&net) }).await.unwrap();
            while cluster.ready() < usize::from(count) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let published = cluster.shared.published.load(SeqCst);
            println!(
                "{count} connected on {threads} threads after {:?}: {published} snapshots",
                begun.elapsed()
            );
        });
    }
}
