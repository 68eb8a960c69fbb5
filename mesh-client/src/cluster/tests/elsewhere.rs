//! Attempts that avoid what their call has tried: priorities, and endpoints.

use super::net::*;
use crate::cluster::{AttemptContext, Cluster, Elsewhere};
use mesh_xds::resource::cluster::{LbPolicy, Maglev, RingHash};
use std::{num::NonZeroU32, time::Duration};

/// A call whose attempts avoid priorities, decided after every so many of them.
pub(super) fn avoiding(every: u32) -> AttemptContext {
    AttemptContext {
        elsewhere: Some(Box::new(Elsewhere::new(NonZeroU32::new(every).unwrap()))),
        // So that it is remembered who was asked.
        selection_attempts: 1,
        ..AttemptContext::default()
    }
}

/// The ports of so many attempts of one call.
async fn attempts(cluster: &Cluster, context: &mut AttemptContext, count: usize) -> Vec<u16> {
    let mut ports = Vec::new();
    for _ in 0..count {
        status(attempt(cluster, context).await.unwrap()).await;
        ports.push(context.tried.last().unwrap().port());
    }
    ports
}

#[tokio::test(start_paused = true)]
async fn attempts_go_to_priorities_that_were_not_tried_and_start_over_when_there_is_none() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    let cluster = Config::with_priorities(&[&[1], &[2], &[3]]).spawn(&net);
    assert_eq!(
        attempts(&cluster, &mut AttemptContext { selection_attempts: 1, ..Default::default() }, 3).await,
        [1; 3]
    );
    assert_eq!(servers.each_ref().map(|server| server.dials()), [1, 0, 0], "nobody asked for the others");
    assert_eq!(attempts(&cluster, &mut avoiding(1), 7).await, [1, 2, 3, 1, 2, 3, 1]);
    assert_eq!(attempts(&cluster, &mut avoiding(2), 8).await, [1, 1, 2, 2, 3, 3, 1, 1]);
    assert_eq!(servers.each_ref().map(|server| server.dials()), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_priority_without_a_connection_is_waited_for_and_one_that_fails_passed_over() {
    let net = Net::default();
    let [_, second, third] = net.servers();
    second.door(Door::Refuses);
    let cluster = Config::with_priorities(&[&[1], &[2], &[3]]).spawn(&net);
    assert_eq!(attempts(&cluster, &mut avoiding(1), 2).await, [1, 3]);
    assert!(second.dials() > 0, "it was tried");
    third.door(Door::Refuses);
    third.kill();
    rest().await;
    assert_eq!(attempts(&cluster, &mut avoiding(1), 3).await, [1, 1, 1], "there is no other");
}

#[tokio::test(start_paused = true)]
async fn one_priority_is_all_that_there_is() {
    let net = Net::default();
    let _servers: [_; 2] = net.servers();
    let cluster = Config::of(&[1, 2]).spawn(&net);
    rest().await;
    assert_eq!(attempts(&cluster, &mut avoiding(1), 4).await.len(), 4, "nobody waits for another one");
    assert!(cluster.shared.snapshot.load().levels.is_none());
}

#[tokio::test(start_paused = true)]
async fn priorities_that_nobody_asks_for_any_more_are_let_go() {
    let net = Net::default();
    let _servers: [_; 2] = net.servers();
    let cluster = Config::with_priorities(&[&[1], &[2]]).spawn(&net);
    assert_eq!(attempts(&cluster, &mut avoiding(1), 2).await, [1, 2]);
    assert!(cluster.shared.snapshot.load().levels.is_some());
    // The first time it is looked at it had been used, the second time it had not.
    pass(Duration::from_secs(15 * 60 + 1)).await;
    assert!(cluster.shared.snapshot.load().levels.is_some());
    pass(Duration::from_secs(15 * 60)).await;
    assert!(cluster.shared.snapshot.load().levels.is_none());
    assert_eq!(attempts(&cluster, &mut avoiding(1), 2).await, [1, 2], "and are asked for again");
}

#[tokio::test(start_paused = true)]
async fn the_shares_of_an_avoided_priority_go_to_those_that_are_left() {
    let net = Net::default();
    let _servers: [_; 6] = net.servers();
    // Half of the first priority: it has 70 %, the second 30 %.
    let mut config = Config::with_priorities(&[&[1, 2], &[3, 4], &[5, 6]]);
    config.endpoint(1).health = mesh_xds::resource::endpoint::HealthStatus::Unhealthy;
    let cluster = config.spawn(&net);
    rest().await;
    let (mut firsts, mut seconds) = ([0; 3], [0; 3]);
    for _ in 0..1000 {
        let mut call = avoiding(1);
        let [first, second] = attempts(&cluster, &mut call, 2).await.try_into().unwrap();
        let priority = |port: u16| usize::from((port - 1) / 2);
        assert_ne!(priority(first), priority(second));
        firsts[priority(first)] += 1;
        seconds[priority(second)] += 1;
    }
    assert!((650..750).contains(&firsts[0]) && firsts[2] == 0, "{firsts:?}");
    // After the first: the second has everything. After the second: the first has 70 % and the third the rest.
    let third = firsts[1] * 3 / 10;
    assert!(
        (third / 2..third * 2).contains(&seconds[2]) && seconds[1] == firsts[0],
        "{firsts:?} {seconds:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn hashed_attempts_go_to_other_priorities_as_well_and_there_by_their_hash() {
    for lb in [LbPolicy::RingHash(RingHash::default()), LbPolicy::Maglev(Maglev::default())] {
        let net = Net::default();
        let servers: [_; 4] = net.servers();
        let mut config = Config::with_priorities(&[&[1, 2], &[3, 4]]);
        config.cluster.lb = lb;
        let cluster = config.spawn(&net);
        let mut homes = Vec::new();
        for hash in [7, 1 << 40] {
            let call = || AttemptContext { hash: Some(hash), ..avoiding(1) };
            let ports = attempts(&cluster, &mut call(), 3).await;
            assert!(ports[0] <= 2 && ports[1] > 2 && ports[2] <= 2, "{ports:?}");
            assert_eq!(attempts(&cluster, &mut call(), 3).await, ports, "a hash leads to the same endpoints");
            homes.extend(ports);
        }
        let dialled = servers.iter().filter(|server| server.dials() > 0).count();
        homes.sort_unstable();
        homes.dedup();
        assert_eq!(dialled, homes.len(), "only those that a hash led to");
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_were_tried_are_avoided_under_hashing_too_while_there_are_others() {
    for lb in [LbPolicy::RingHash(RingHash::default()), LbPolicy::Maglev(Maglev::default())] {
        let net = Net::default();
        let _servers: [_; 3] = net.servers();
        let mut config = Config::of(&[1, 2, 3]);
        config.cluster.lb = lb;
        let cluster = config.spawn(&net);
        let call =
            |selection_attempts| AttemptContext { hash: Some(7), selection_attempts, ..Default::default() };
        let mut ports = attempts(&cluster, &mut call(5), 3).await;
        let home = ports[0];
        ports.sort_unstable();
        assert_eq!(ports, [1, 2, 3], "each once");
        let mut again = call(5);
        assert_eq!(attempts(&cluster, &mut again, 4).await[3], home, "all were tried: as if none had been");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_that_are_to_be_distinct_never_go_to_one_endpoint_twice_while_there_are_others() {
    let net = Net::default();
    let _servers: [_; 4] = net.servers();
    let mut config = Config::of(&[1, 2, 3, 4]);
    config.cluster.lb = LbPolicy::Random;
    let cluster = config.spawn(&net);
    call(&cluster).await.unwrap();
    rest().await;
    let ports = async |distinct| {
        let mut context = AttemptContext { selection_attempts: 1, distinct, ..Default::default() };
        let mut ports = attempts(&cluster, &mut context, 5).await;
        ports.pop();
        ports.sort_unstable();
        ports
    };
    let mut as_chance_has_it = 0;
    for _ in 0..100 {
        assert_eq!(ports(true).await, [1, 2, 3, 4]);
        as_chance_has_it += u32::from(ports(false).await == [1, 2, 3, 4]);
    }
    assert!(as_chance_has_it < 100);
}
