//! Distributions at a fixed seed, judged by chi-square.

use super::{hashed::State, *};
use mesh_xds::balancing::{Algorithm, RingSize, Share, Table};
use std::net::SocketAddr;

/// Critical values of chi-square at p = 0.001 for 1 to 9 degrees of freedom.
const CRITICAL: [f64; 9] = [10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32, 26.12, 27.88];

pub(crate) fn endpoint(index: usize) -> Arc<Endpoint> {
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(index).unwrap()));
    let events = tokio::sync::mpsc::unbounded_channel().0;
    Arc::new(Endpoint::new("reviews".into(), address, 0, Arc::default(), Arc::default(), events))
}

/// `10.0.0.1:80`, `10.0.0.2:80` … of these weights.
pub(crate) fn shares(weights: &[u32]) -> Vec<Share> {
    let sum = f64::from(weights.iter().sum::<u32>());
    let share = |(number, weight): (u32, &u32)| Share {
        key: format!("10.0.0.{number}:80").into(),
        weight: f64::from(*weight) / sum,
    };
    (1..).zip(weights).map(share).collect()
}

/// A picker over localities (weight, endpoint weights); endpoints are numbered through.
fn picker(policy: &LbPolicy, localities: &[(u32, &[u32])]) -> Picker {
    let mut index = 0;
    let mut group = |(weight, weights): &(u32, &[u32])| {
        let from = index;
        index += weights.len();
        (*weight, balancer(policy, from..index, (0..).take(weights.len()).collect(), weights.to_vec()))
    };
    let groups = localities.iter().map(&mut group).collect();
    Picker::spread(vec![(100, groups)])
}

fn balancer(
    policy: &LbPolicy,
    endpoints: std::ops::Range<usize>,
    ready: Vec<u32>,
    weights: Vec<u32>,
) -> Arc<Balancer> {
    let members = endpoints.map(endpoint).collect();
    Arc::new(Balancer::new(policy, members, ready, weights, &mut fastrand::Rng::with_seed(11)))
}

fn counts(picker: &Picker, picks: usize) -> Vec<usize> {
    let dice = Dice::new(5);
    let mut counts = vec![0; picker.ready()];
    for _ in 0..picks {
        counts[usize::from(picker.pick(&dice).unwrap().address.port())] += 1;
    }
    counts
}

fn chi_square(counts: &[usize], weights: &[u32]) -> f64 {
    let (total, sum) = (counts.iter().sum::<usize>() as f64, f64::from(weights.iter().sum::<u32>()));
    let term = |(count, weight): (&usize, &u32)| {
        let expected = total * f64::from(*weight) / sum;
        (*count as f64 - expected).powi(2) / expected
    };
    counts.iter().zip(weights).map(term).sum()
}

fn assert_shares(policy: &LbPolicy, weights: &[u32]) {
    let counts = counts(&picker(policy, &[(1, weights)]), 20_000);
    let chi = chi_square(&counts, weights);
    assert!(chi < CRITICAL[weights.len() - 2], "{policy:?} {weights:?}: {counts:?}, chi-square {chi}");
}

#[test]
fn every_policy_gives_equal_endpoints_equal_shares() {
    for policy in [LbPolicy::RoundRobin, LbPolicy::Random, LbPolicy::least_request(2)] {
        assert_shares(&policy, &[1; 2]);
        assert_shares(&policy, &[7; 10]);
    }
}

#[test]
fn every_policy_gives_idle_endpoints_shares_by_weight() {
    for policy in [LbPolicy::RoundRobin, LbPolicy::Random, LbPolicy::least_request(2)] {
        assert_shares(&policy, &[3, 1]);
        assert_shares(&policy, &[1, 2, 3, 4]);
        assert_shares(&policy, &[100, 1, 50]);
    }
}

#[test]
fn round_robin_is_exact() {
    assert_eq!(counts(&picker(&LbPolicy::RoundRobin, &[(1, &[1, 1, 1, 1])]), 8000), [2000; 4]);
}

#[test]
fn localities_share_by_their_weight_whatever_their_size() {
    for policy in [LbPolicy::RoundRobin, LbPolicy::Random, LbPolicy::least_request(3)] {
        let counts = counts(&picker(&policy, &[(9, &[1]), (1, &[1, 1]), (5, &[])]), 20_000);
        let chi = chi_square(&[counts[0], counts[1] + counts[2]], &[9, 1]);
        assert!(chi < CRITICAL[0], "{policy:?}: {counts:?}");
    }
}

#[test]
fn least_request_avoids_the_busy_one_as_often_as_a48_predicts() {
    // With n endpoints, c samples with replacement and one busy: it is picked only if all samples hit it.
    for (choices, expected) in [(2, 1.0 / 16.0), (3, 1.0 / 64.0)] {
        let picker = picker(&LbPolicy::least_request(choices), &[(1, &[1; 4])]);
        picker.iter(&Dice::new(1)).find(|endpoint| endpoint.address.port() == 2).unwrap().occupy(10);
        let counts = counts(&picker, 20_000);
        let share = counts[2] as f64 / 20_000.0;
        assert!((share - expected).abs() < 0.005, "{choices} choices: {counts:?}");
    }
}

#[test]
fn least_request_compares_load_per_weight() {
    let picker = picker(&LbPolicy::least_request(10), &[(1, &[1, 3])]);
    for (port, busy) in [(0, 2), (1, 5)] {
        picker.iter(&Dice::new(1)).find(|endpoint| endpoint.address.port() == port).unwrap().occupy(busy);
    }
    // 5 / 3 is less than 2 / 1.
    assert!(counts(&picker, 1000)[1] > 990);
}

#[test]
fn of_a_locality_only_those_that_are_ready_are_picked_by_their_own_weights() {
    for policy in [LbPolicy::RoundRobin, LbPolicy::Random, LbPolicy::least_request(2)] {
        let group = balancer(&policy, 0..5, vec![1, 3, 4], vec![1, 2, 3]);
        let picker = Picker::spread(vec![(100, vec![(1, group)])]);
        let dice = Dice::new(5);
        let mut counts = [0; 5];
        for _ in 0..20_000 {
            counts[usize::from(picker.pick(&dice).unwrap().address.port())] += 1;
        }
        assert_eq!((counts[0], counts[2], picker.ready()), (0, 0, 3));
        let chi = chi_square(&[counts[1], counts[3], counts[4]], &[1, 2, 3]);
        assert!(chi < CRITICAL[1], "{policy:?}: {counts:?}, chi-square {chi}");
        let mut all: Vec<_> = picker.iter(&dice).map(|endpoint| endpoint.address.port()).collect();
        all.sort_unstable();
        assert_eq!(all, [1, 3, 4]);
    }
}

#[test]
fn pick_first_picks_the_first() {
    let policy = LbPolicy::PickFirst { shuffle: false };
    assert_eq!(counts(&picker(&policy, &[(1, &[1, 1])]), 100), [100, 0]);
}

#[test]
fn without_candidates_there_is_no_pick() {
    let picker = picker(&LbPolicy::RoundRobin, &[(1, &[])]);
    assert!(picker.is_empty() && picker.pick(&Dice::new(1)).is_none());
    assert_eq!(picker.iter(&Dice::new(1)).count(), 0);
}

#[test]
fn the_same_seed_makes_the_same_picks() {
    let ports = || {
        let (picker, dice) = (picker(&LbPolicy::Random, &[(1, &[1; 9])]), Dice::new(99));
        (0..50).map(|_| picker.pick(&dice).unwrap().address.port()).collect::<Vec<_>>()
    };
    assert_eq!(ports(), ports());
}

#[test]
fn iteration_visits_each_endpoint_once() {
    let picker = picker(&LbPolicy::Random, &[(1, &[1, 1]), (1, &[1])]);
    let mut ports: Vec<_> = picker.iter(&Dice::new(4)).map(|endpoint| endpoint.address.port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [0, 1, 2]);
}

#[test]
fn priorities_get_their_shares_in_percent_and_those_without_endpoints_none() {
    let group = |index: usize| vec![(1, balancer(&LbPolicy::RoundRobin, index..index + 1, vec![0], vec![1]))];
    let priorities = vec![(70, group(0)), (10, Vec::new()), (0, group(1)), (30, group(1))];
    let picker = Picker::spread(priorities);
    let counts = counts(&picker, 20_000);
    assert!(chi_square(&counts, &[70, 30]) < CRITICAL[0], "{counts:?}");
}

/// Calls with many different hashes, of a ring and of a Maglev table.
#[test]
fn hashes_give_endpoints_shares_by_weight() {
    let weights = [1, 2, 3, 4];
    let ring = Algorithm::Ring(RingSize { min: 4096, max: 4096 });
    for (algorithm, tolerance) in [(Algorithm::Maglev(65_537), 0.01), (ring, 0.08)] {
        let table = Arc::new(Table::new(algorithm, shares(&weights)));
        let hashed = Hashed::new(table, (0..4).map(endpoint).collect(), [State::Ready; 4].into());
        let picker = Picker::hashed(vec![(100, hashed)]);
        let mut counts = [0_usize; 4];
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..40_000 {
            match picker.pick_by_hash(Some(rng.u64(..)), &Dice::new(1), |_| false) {
                Hit::Ready(endpoint) => counts[usize::from(endpoint.address.port())] += 1,
                hit => panic!("{hit:?}"),
            }
        }
        // A ring of n places is uneven by about 1/sqrt(n) for each owner: chi-square would judge the ring, not
        // the draw.
        for (count, weight) in counts.iter().zip(weights) {
            let expected = 4000.0 * f64::from(weight);
            let off = (*count as f64 - expected).abs() / expected;
            assert!(off < tolerance + 0.03, "{algorithm:?}: {counts:?}");
        }
    }
}

#[test]
fn a_hash_always_has_the_same_priority_and_passes_on_when_that_has_nobody() {
    let part = |index, state| {
        let table = Arc::new(Table::new(Algorithm::Maglev(11), shares(&[1])));
        Hashed::new(table, [endpoint(index)].into(), [state].into())
    };
    let port = |picker: &Picker, hash| match picker.pick_by_hash(Some(hash), &Dice::new(1), |_| false) {
        Hit::Ready(endpoint) => endpoint.address.port(),
        hit => panic!("{hit:?}"),
    };
    let both = Picker::hashed(vec![(60, part(0, State::Ready)), (40, part(1, State::Ready))]);
    assert_eq!((port(&both, 59), port(&both, 60), port(&both, 159)), (0, 1, 0));
    let one = Picker::hashed(vec![(60, part(0, State::Failed)), (40, part(1, State::Ready))]);
    assert_eq!((port(&one, 1), one.ready(), one.is_empty()), (1, 1, false));
    assert_eq!(one.pick(&Dice::new(1)).unwrap().address.port(), 1);
}
