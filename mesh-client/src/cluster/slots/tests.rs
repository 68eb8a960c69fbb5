//! Layouts that follow one another, against what a fresh one would be; and how much is looked at.

use super::*;
use crate::{cluster::standing::Judge, lb::tests::endpoint as live};
use mesh_xds::resource::{
    Locality,
    endpoint::{Endpoint as Configured, LocalityEndpoints, Priority},
};
use std::num::NonZeroU32;

struct Bench {
    slots: Slots,
    cluster: Arc<Cluster>,
    now: Instant,
    started: Vec<u16>,
}

impl Bench {
    fn new() -> Self {
        let cluster = Arc::new(Cluster::eds("reviews"));
        Self { slots: Slots::default(), cluster, now: Instant::now(), started: Vec::new() }
    }

    /// True: somebody came or went.
    fn adopt(&mut self, priorities: &[Vec<Vec<Arc<Configured>>>]) -> bool {
        let config = config(&self.cluster, priorities);
        self.started.clear();
        self.slots.touched = 0;
        let (cluster, now, started) = (&self.cluster, self.now, &mut self.started);
        self.slots.adopt(now, &config, |endpoint| {
            started.push(endpoint.address().port());
            let spec = Spec { cluster: Arc::clone(cluster), endpoint: Arc::clone(endpoint), want: Want::No };
            Slot::new(live(endpoint.address().port().into()), watch::channel(spec).0, now)
        })
    }

    fn ports(&self) -> Vec<u16> {
        self.slots.iter().map(|slot| slot.endpoint.address.port()).collect()
    }

    fn report(&mut self, port: u16, connectivity: Connectivity) {
        let id = self.slots.find(address(port)).unwrap();
        self.slots.update(id, |slot| slot.reported = connectivity).unwrap();
    }

    fn changed(&self) -> Vec<u64> {
        self.slots.layout.zones.iter().map(|zone| zone.changed).collect()
    }

    /// Everything that is kept beside the slots is what the slots say.
    fn check(&self) {
        let layout = &self.slots.layout;
        let mut counts = Vec::new();
        for (zone, index) in layout.zones.iter().zip(0..) {
            let ids = self.slots.ids(zone.positions.clone());
            assert_eq!(zone.members.len(), ids.len());
            for ((id, member), position) in ids.iter().zip(&*zone.members).zip(zone.positions.clone()) {
                let slot = self.slots.get(*id).unwrap();
                assert!(Arc::ptr_eq(member, &slot.endpoint));
                assert_eq!(self.slots.standing(*id), Some((position, slot.standing())));
                assert_eq!(self.slots.find(slot.endpoint.address), Some(*id));
                let spec = slot.spec.borrow();
                assert_eq!(spec.endpoint.address(), slot.endpoint.address);
                assert_eq!(slot.health, spec.endpoint.health);
                assert_eq!(layout.weights[position], spec.endpoint.weight.get());
                assert_eq!(spec.want, slot.want);
            }
            counts.resize_with(zone.tier + 1, Census::default);
            self.slots.standings(zone.positions.clone()).iter().for_each(|one| counts[zone.tier].add(*one));
            assert!(layout.tiers[zone.tier].zones.contains(&index));
        }
        for (tier, count) in layout.tiers.iter().zip(&counts) {
            assert_eq!(tier.census.iter().collect::<Vec<_>>(), count.iter().collect::<Vec<_>>());
        }
        let held = self.slots.slab.iter().flatten().count();
        assert_eq!((held, self.slots.by_address.len()), (layout.order.len(), layout.order.len()));
        assert_eq!(self.slots.free.len(), self.slots.slab.len() - held);
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn one(port: u16) -> Arc<Configured> {
    Arc::new(Configured::new(vec![address(port)]))
}

fn some(ports: impl IntoIterator<Item = u16>) -> Vec<Arc<Configured>> {
    ports.into_iter().map(one).collect()
}

fn config(cluster: &Arc<Cluster>, priorities: &[Vec<Vec<Arc<Configured>>>]) -> ClusterConfig {
    let locality = |(index, endpoints): (usize, &Vec<Arc<Configured>>)| LocalityEndpoints {
        locality: Locality { zone: index.to_string().into(), ..Locality::default() },
        weight: NonZeroU32::MIN,
        endpoints: endpoints.clone(),
    };
    let priority = |localities: &Vec<Vec<Arc<Configured>>>| Priority {
        localities: localities.iter().enumerate().map(locality).collect(),
    };
    let assignment = ClusterLoadAssignment {
        priorities: priorities.iter().map(priority).collect(),
        ..ClusterLoadAssignment::new("reviews")
    };
    ClusterConfig {
        cluster: Arc::clone(cluster),
        endpoints: Arc::new(assignment),
        leaves: Vec::new(),
        secrets: Default::default(),
        note: None,
    }
}

/// Endpoints come, go, move between places, localities and priorities, and change, while they are told things.
#[test]
fn whatever_follows_whatever_all_is_in_step_and_who_stays_is_kept() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        let mut all = vec![vec![some(1..20), some(20..30)], vec![some(30..40)]];
        let mut next = 40;
        for _ in 0..60 {
            let before: HashMap<u16, Arc<Endpoint>> = bench
                .slots
                .iter()
                .map(|slot| (slot.endpoint.address.port(), Arc::clone(&slot.endpoint)))
                .collect();
            let moved = bench.adopt(&all);
            bench.check();
            let expected: Vec<u16> =
                all.iter().flatten().flatten().map(|endpoint| endpoint.address().port()).collect();
            assert_eq!(bench.ports(), expected, "seed {seed}");
            for slot in bench.slots.iter() {
                let port = slot.endpoint.address.port();
                match before.get(&port) {
                    Some(endpoint) => assert!(Arc::ptr_eq(endpoint, &slot.endpoint), "seed {seed}"),
                    None => assert!(bench.started.contains(&port)),
                }
            }
            let left = before.keys().filter(|port| !expected.contains(port)).count();
            assert_eq!(moved, left > 0 || !bench.started.is_empty(), "seed {seed}");
            for _ in 0..rng.usize(0..4) {
                let port = expected[rng.usize(0..expected.len())];
                let states =
                    [Connectivity::Ready, Connectivity::Idle, Connectivity::TransientFailure("x".into())];
                bench.report(port, states[rng.usize(0..3)].clone());
                let id = bench.slots.find(address(port)).unwrap();
                bench.slots.update(id, |slot| slot.ejected = !slot.ejected);
            }
            let wants = [Want::No, Want::Lazily, Want::Now];
            let want = wants[rng.usize(0..3)];
            bench.slots.want(rng.usize(0..3), |_| want);
            bench.check();
            for _ in 0..rng.usize(0..4) {
                let tier = rng.usize(0..all.len());
                let Some(zone) = all[tier].len().checked_sub(1).map(|last| rng.usize(0..=last)) else {
                    continue;
                };
                let zone = &mut all[tier][zone];
                let at = rng.usize(0..=zone.len());
                match (rng.u32(0..8), zone.len() > at) {
                    (0, _) => {
                        zone.insert(at, one(next));
                        next += 1;
                    }
                    (1, true) => drop(zone.remove(at)),
                    (2, true) => {
                        Arc::make_mut(&mut zone[at]).weight = NonZeroU32::new(rng.u32(1..5)).unwrap()
                    }
                    (3, true) => Arc::make_mut(&mut zone[at]).health = HealthStatus::Draining,
                    (4, true) => Arc::make_mut(&mut zone[at]).health = HealthStatus::Healthy,
                    (5, true) => {
                        let moved = zone.remove(at);
                        all[0][0].push(moved);
                    }
                    (6, _) => rng.shuffle(zone),
                    (7, _) if rng.u32(0..5) == 0 => all.reverse(),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn a_change_of_one_of_ten_thousand_looks_at_that_one_only() {
    let mut bench = Bench::new();
    let mut all = vec![vec![some(0..5_000), some(5_000..10_000)]];
    assert!(bench.adopt(&all));
    let before = bench.changed();
    assert!(!bench.adopt(&all));
    assert_eq!((bench.slots.touched, bench.changed()), (0, before.clone()), "nothing changed");

    Arc::make_mut(&mut all[0][0][7]).weight = NonZeroU32::new(3).unwrap();
    assert!(!bench.adopt(&all));
    assert_eq!(bench.slots.touched, 1);
    assert!(bench.changed()[0] > before[0] && bench.changed()[1] == before[1]);

    Arc::make_mut(&mut all[0][1][7]).health = HealthStatus::Unhealthy;
    assert!(!bench.adopt(&all));
    assert_eq!(bench.slots.touched, 1);

    all[0][0].insert(100, one(20_000));
    assert!(bench.adopt(&all));
    assert_eq!((bench.slots.touched, &*bench.started), (1, &[20_000][..]));

    all[0][0].remove(200);
    assert!(bench.adopt(&all));
    assert_eq!(bench.slots.touched, 1, "the one behind it");

    let moved = all[0][1].pop().unwrap();
    all[0][0].insert(0, moved);
    assert!(!bench.adopt(&all));
    assert_eq!(bench.slots.touched, 1, "the others are where they were");
    bench.check();
}

#[test]
fn what_one_endpoint_says_is_counted_without_a_look_at_the_others() {
    let mut bench = Bench::new();
    bench.adopt(&[vec![some(0..10_000)]]);
    assert!(bench.slots.want(0, |_| Want::Now));
    bench.slots.touched = 0;
    assert!(!bench.slots.want(0, |_| Want::Now), "nobody hears news");
    bench.report(3, Connectivity::Ready);
    assert_eq!(bench.slots.touched, 1);
    let [tier] = bench.slots.tiers() else { panic!("one priority") };
    let judge = Judge::new(&tier.census, true, false, None);
    let count = |link| tier.census.count(|one| judge.is_offered(one) && one.link() == link);
    assert_eq!((count(Link::Ready), count(Link::Connecting)), (1, 9_999));
}

#[test]
fn another_cluster_configuration_reaches_every_endpoint() {
    let mut bench = Bench::new();
    let all = [vec![some(0..3)]];
    bench.adopt(&all);
    let mut cluster = Cluster::clone(&bench.cluster);
    cluster.circuit_breakers.max_connections_per_endpoint = 2;
    bench.cluster = Arc::new(cluster);
    assert!(!bench.adopt(&all));
    assert_eq!(bench.slots.touched, 3);
    assert!(bench.slots.iter().all(|slot| slot.spec.borrow().cluster == bench.cluster));
}
