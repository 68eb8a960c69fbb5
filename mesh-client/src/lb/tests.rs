//! Distributions at a fixed seed, judged by chi-square.

use super::*;
use std::net::SocketAddr;

/// Critical values of chi-square at p = 0.001 for 1 to 9 degrees of freedom.
const CRITICAL: [f64; 9] = [10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32, 26.12, 27.88];

fn endpoint(index: usize) -> Arc<Endpoint> {
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(index).unwrap()));
    let events = tokio::sync::mpsc::unbounded_channel().0;
    Arc::new(Endpoint::new("reviews".into(), address, 0, Arc::default(), Arc::default(), events))
}

/// A picker over localities (weight, endpoint weights); endpoints are numbered through.
fn picker(policy: &LbPolicy, localities: &[(u32, &[u32])]) -> Picker {
    let mut index = 0;
    let mut group = |(weight, weights): &(u32, &[u32])| Group {
        weight: *weight,
        candidates: weights
            .iter()
            .map(|weight| {
                index += 1;
                Candidate { endpoint: endpoint(index - 1), weight: *weight }
            })
            .collect(),
    };
    let groups = localities.iter().map(&mut group).collect();
    Picker::new(policy, groups, &mut fastrand::Rng::with_seed(11))
}

fn counts(picker: &Picker, picks: usize) -> Vec<usize> {
    let dice = Dice::new(5);
    let mut counts = vec![0; picker.len()];
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
