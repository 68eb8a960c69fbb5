//! Many endpoints, and idle ones: what they cost. Counts decide; times are printed by the ignored test.

use super::net::*;
use mesh_xds::resource::cluster::LbPolicy;
use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Bytes that a cluster of so many endpoints has allocated when it has come to rest: the first of them was called,
/// the others were never dialled.
fn bytes_at_rest(endpoints: u16) -> i64 {
    let runtime = runtime();
    let net = Net::default();
    let _server = net.server(1);
    let ports: Vec<u16> = (1..=endpoints).collect();
    let mut config = Config::of(&ports);
    config.cluster.lb = LbPolicy::PickFirst { shuffle: false };
    // The configuration itself is the xDS client's.
    let (config, deps) = (config.build(), deps(&net));
    let mut cluster = None;
    let counted = allocation_counter::measure(|| {
        cluster = Some(runtime.block_on(async {
            let cluster = crate::cluster::Cluster::spawn(config, &deps, Arc::new(|_| None));
            if endpoints > 0 {
                call(&cluster).await.unwrap();
            }
            tokio::task::yield_now().await;
            cluster
        }));
    });
    drop(cluster);
    counted.bytes_current
}

#[test]
fn an_idle_endpoint_and_an_idle_cluster_take_little_memory() {
    let (cluster, one, many) = (bytes_at_rest(0), bytes_at_rest(1), bytes_at_rest(101));
    let endpoint = (many - one) / 100;
    eprintln!("{cluster} bytes a cluster, {endpoint} an idle endpoint");
    assert!((100..16 << 10).contains(&cluster), "{cluster} bytes for an idle cluster");
    assert!((100..2 << 10).contains(&endpoint), "{endpoint} bytes for an idle endpoint");
}

#[test]
fn a_change_of_one_endpoint_among_many_dials_none_anew() {
    let net = Net::default();
    let servers: Vec<_> = (1..=200).map(|port| net.server(port)).collect();
    let ports: Vec<u16> = (1..=200).collect();
    runtime().block_on(async {
        let cluster = Config::of(&ports).spawn(&net);
        while cluster.ready() < 200 {
            tokio::task::yield_now().await;
        }
        let mut changed = Config::of(&ports);
        changed.endpoint(7).weight = NonZeroU32::new(3).unwrap();
        let before = cluster.shared.snapshot.load_full();
        cluster.update(changed.build());
        while Arc::ptr_eq(&before, &cluster.shared.snapshot.load_full()) {
            tokio::task::yield_now().await;
        }
        assert_eq!(cluster.ready(), 200);
    });
    assert!(servers.iter().all(|server| server.dials.load(SeqCst) == 1));
}

/// `cargo test --release -p mesh-client --lib ten_thousand -- --ignored --nocapture`
#[test]
#[ignore = "prints times, which decide nothing"]
fn the_times_of_ten_thousand_endpoints() {
    for count in [10, 10_000] {
        let net = Net::default();
        let servers: Vec<_> = (1..=count).map(|port| net.server(port)).collect();
        let ports: Vec<u16> = (1..=count).collect();
        runtime().block_on(async {
            let cluster = Config::of(&ports).spawn(&net);
            while cluster.ready() < usize::from(count) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let mut least = Duration::MAX;
            for weight in 2..22 {
                let mut changed = Config::of(&ports);
                changed.endpoint(7).weight = NonZeroU32::new(weight).unwrap();
                let changed = changed.build();
                let before = cluster.shared.snapshot.load_full();
                let begun = Instant::now();
                cluster.update(changed);
                while Arc::ptr_eq(&before, &cluster.shared.snapshot.load_full()) {
                    tokio::task::yield_now().await;
                }
                least = least.min(begun.elapsed());
            }
            println!("{count} endpoints: one changed after {least:?}");
        });
        assert!(servers.iter().all(|server| server.dials.load(SeqCst) == 1));
    }
}
