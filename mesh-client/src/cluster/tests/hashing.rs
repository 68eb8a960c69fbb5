//! Consistent hashing, slow start and subsets on the wire.

use super::net::*;
use crate::cluster::{AttemptContext, AttemptErrorKind, Cluster};
use mesh_xds::{
    matcher::Fraction,
    resource::{
        cluster::{LbPolicy, Maglev, RingHash, SlowStart, SubsetScope, Subsetting},
        endpoint::HealthStatus,
    },
};
use std::{num::NonZeroU32, sync::Arc, time::Duration};
use tonic::Code;
use twox_hash::XxHash64;

fn hash(key: u32) -> u64 {
    XxHash64::oneshot(0, &key.to_le_bytes())
}

/// A call with this hash: the port that took it.
async fn call_with(cluster: &Cluster, hash: Option<u64>) -> u16 {
    // What is to be avoided is remembered; here nothing is yet.
    let mut context = AttemptContext { hash, selection_attempts: 1, ..AttemptContext::default() };
    let response = attempt(cluster, &mut context).await.unwrap();
    assert_eq!(status(response).await, Code::Ok);
    context.tried.last().unwrap().port()
}

fn policies() -> [LbPolicy; 2] {
    [LbPolicy::RingHash(RingHash::default()), LbPolicy::Maglev(Maglev::default())]
}

fn hashing(ports: &[u16], lb: LbPolicy) -> Config {
    let mut config = Config::of(ports);
    config.cluster.lb = lb;
    config
}

#[tokio::test(start_paused = true)]
async fn equal_hashes_go_to_one_endpoint_and_endpoints_are_dialled_when_they_are_hit() {
    for lb in policies() {
        let net = Net::default();
        let servers: [_; 4] = net.servers();
        let cluster = hashing(&[1, 2, 3, 4], lb).spawn(&net);
        rest().await;
        assert!(servers.iter().all(|server| server.dials() == 0), "nobody called");
        let port = call_with(&cluster, Some(7)).await;
        for _ in 0..20 {
            assert_eq!(call_with(&cluster, Some(7)).await, port);
        }
        let dialled: Vec<_> = servers.iter().map(|server| server.dials()).collect();
        assert_eq!(dialled.iter().sum::<usize>(), 1, "{dialled:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_an_endpoint_dies_only_its_keys_move_and_they_come_back_with_it() {
    for lb in policies() {
        let net = Net::default();
        let servers: [_; 4] = net.servers();
        let cluster = hashing(&[1, 2, 3, 4], lb).spawn(&net);
        let before = owners(&cluster).await;
        servers[1].door(Door::Refuses);
        servers[1].kill();
        rest().await;
        let during = owners(&cluster).await;
        for (before, during) in before.iter().zip(&during) {
            assert!(if *before == 2 { *during != 2 } else { before == during }, "{before} {during}");
        }
        servers[1].door(Door::Open);
        pass(Duration::from_secs(130)).await;
        assert_eq!(owners(&cluster).await, before);
    }
}

async fn owners(cluster: &Cluster) -> Vec<u16> {
    let mut owners = Vec::new();
    for key in 0..100 {
        owners.push(call_with(cluster, Some(hash(key))).await);
    }
    owners
}

#[tokio::test(start_paused = true)]
async fn when_an_endpoint_leaves_few_keys_of_the_others_move() {
    for lb in policies() {
        let net = Net::default();
        let _servers: [_; 5] = net.servers();
        let mut config = hashing(&[1, 2, 3, 4, 5], lb);
        let cluster = config.spawn(&net);
        let before = owners(&cluster).await;
        config.endpoints.priorities[0].localities[0].endpoints.remove(2);
        cluster.update(config.build());
        rest().await;
        let after = owners(&cluster).await;
        let moved =
            before.iter().zip(&after).filter(|(before, after)| **before != 3 && before != after).count();
        assert!(moved <= 15, "{moved} of 100");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_endpoint_of_its_hash_and_fails_when_all_failed() {
    let net = Net::default();
    let [first, second] = net.servers();
    let cluster = hashing(&[1, 2], policies()[0].clone()).spawn(&net);
    first.door(Door::Hangs);
    second.door(Door::Hangs);
    let waiting = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move { call_with(&cluster, Some(1)).await }
    });
    pass(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    first.door(Door::Open);
    second.door(Door::Open);
    // The dial that hangs times out after five seconds; then the other endpoint is the next around the ring.
    waiting.await.unwrap();
    for server in [&first, &second] {
        server.door(Door::Refuses);
        server.kill();
    }
    rest().await;
    for _ in 0..3 {
        let mut context = AttemptContext { hash: Some(1), ..AttemptContext::default() };
        if let Err(error) = attempt(&cluster, &mut context).await {
            assert_eq!(error.kind, AttemptErrorKind::NoEndpoint);
            assert!(error.status.message().contains("backing off"), "{}", error.status.message());
            return;
        }
        rest().await;
    }
    panic!("both refuse");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_hash_takes_any_endpoint_that_is_ready() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    let cluster = hashing(&[1, 2, 3], policies()[0].clone()).spawn(&net);
    for _ in 0..300 {
        call_with(&cluster, None).await;
        rest().await;
    }
    let hits: Vec<_> = servers.iter().map(|server| server.hits()).collect();
    assert!(hits.iter().all(|hits| *hits > 50), "{hits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hash_key_or_a_hostname_takes_the_place_of_the_address() {
    let net = Net::default();
    let _servers: [_; 6] = net.servers();
    let named = |ports: &[u16], use_hostname| {
        let ring = RingHash { use_hostname, ..RingHash::default() };
        let mut config = hashing(ports, LbPolicy::RingHash(ring));
        for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
            let endpoint = config.endpoint(index);
            if use_hostname { &mut endpoint.hostname } else { &mut endpoint.hash_key }.replace(name.into());
        }
        config.spawn(&net)
    };
    for use_hostname in [false, true] {
        let (one, other) = (named(&[1, 2, 3], use_hostname), named(&[4, 5, 6], use_hostname));
        for key in 0..50 {
            let port = call_with(&one, Some(hash(key))).await;
            assert_eq!(call_with(&other, Some(hash(key))).await, port + 3);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_priority_passes_its_hashes_to_the_next_and_takes_them_back() {
    let net = Net::default();
    let servers: [_; 4] = net.servers();
    let mut config = Config::with_priorities(&[&[1, 2], &[3, 4]]);
    config.cluster.lb = policies()[0].clone();
    let cluster = config.spawn(&net);
    let before = owners(&cluster).await;
    assert!(before.iter().all(|port| *port <= 2));
    for server in &servers[..2] {
        server.door(Door::Refuses);
        server.kill();
    }
    rest().await;
    // Idle endpoints learn that they are dead by being called.
    for key in 0..20 {
        call_with(&cluster, Some(hash(key))).await;
        rest().await;
    }
    assert!(owners(&cluster).await.iter().all(|port| *port > 2));
    for server in &servers[..2] {
        server.door(Door::Open);
    }
    // No call goes there any more: they recover by themselves.
    pass(Duration::from_secs(130)).await;
    assert_eq!(owners(&cluster).await, before);
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_endpoint_stands_in_no_table() {
    let net = Net::default();
    let [_, sick, ..]: [_; 3] = net.servers();
    let mut config = hashing(&[1, 2, 3], policies()[1].clone());
    config.endpoint(1).health = HealthStatus::Unhealthy;
    let cluster = config.spawn(&net);
    owners(&cluster).await;
    assert_eq!((sick.hits(), sick.dials()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn in_panic_the_share_of_degraded_endpoints_is_that_of_all() {
    for lb in policies() {
        let net = Net::default();
        let servers: [_; 10] = net.servers();
        let mut config = Config::with_priorities(&[&[1, 2, 3, 4, 5], &[6, 7, 8, 9, 10]]);
        config.cluster.lb = lb;
        config.cluster.panic_threshold = Some(Fraction::per_million(500_000));
        for index in 0..10 {
            let is_first = index % 5 == 0;
            config.endpoint(index).health =
                if is_first { HealthStatus::Degraded } else { HealthStatus::Unhealthy };
        }
        let cluster = config.spawn(&net);
        rest().await;
        for key in 0..1000 {
            call_with(&cluster, Some(hash(key))).await;
        }
        // Each priority has 28 % of what it should have, so half of the calls, for all of its endpoints.
        let hits: Vec<usize> = servers.iter().map(|server| server.hits()).collect();
        let second: usize = hits.iter().skip(5).sum();
        assert!(second.abs_diff(500) < 60, "{hits:?}");
        assert!(hits.iter().all(|hits| *hits > 20), "{hits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_warms_up() {
    let net = Net::default();
    let [_, new] = net.servers();
    for lb in [LbPolicy::RoundRobin, LbPolicy::least_request(2)] {
        let mut config = Config::of(&[1]);
        config.cluster.lb = lb;
        config.cluster.lb_options.slow_start = Some(SlowStart {
            window: Duration::from_secs(100),
            aggression: 1.0,
            min_weight: Fraction::per_million(100_000),
        });
        let cluster = config.spawn(&net);
        pass(Duration::from_secs(200)).await;
        config.endpoints.priorities[0].localities[0].endpoints.push(endpoint(2).into());
        cluster.update(config.build());
        rest().await;
        let mut shares = Vec::new();
        // At 0, 50 and 100 s: a tenth, half and all of its weight.
        for _ in 0..3 {
            new.hits();
            for _ in 0..1000 {
                call(&cluster).await.unwrap();
            }
            shares.push(new.hits());
            pass(Duration::from_secs(50)).await;
        }
        for (share, expected) in shares.iter().zip([91_usize, 333, 500]) {
            assert!(share.abs_diff(expected) < 50, "{:?}: {shares:?}", config.cluster.lb);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_uses_only_its_subset() {
    let net = Net::default();
    let servers: [_; 6] = net.servers();
    let mut config = Config::of(&[1, 2, 3, 4, 5, 6]);
    let size = NonZeroU32::new(2).unwrap();
    config.cluster.lb_options.subsetting = Some(Subsetting { size, scope: SubsetScope::Priority });
    let cluster = config.spawn(&net);
    rest().await;
    for _ in 0..20 {
        call(&cluster).await.unwrap();
    }
    assert_eq!(servers.iter().filter(|server| server.dials() > 0).count(), 2);
    assert_eq!(servers.iter().map(|server| server.hits()).sum::<usize>(), 20);
}
