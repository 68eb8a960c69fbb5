//! Clusters found by DNS, on the wire.

use super::net::*;
use crate::cluster::AttemptErrorKind;
use mesh_xds::resource::{
    Cluster, Locality,
    cluster::{Discovery, DnsLookupFamily, DnsResolution, HostPort, LogicalDns, StrictDns},
    endpoint::{Endpoint, LocalityEndpoints, Priority},
};
use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tonic::Code;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

fn set(net: &Net, name: &str, addresses: &[u8]) {
    net.names.lock().unwrap().insert(name.to_owned(), addresses.iter().copied().map(ip).collect());
}

fn host(name: &str) -> Endpoint<HostPort> {
    Endpoint::new(HostPort { host: name.into(), port: 80 })
}

/// By priority, the names.
fn strict(priorities: &[&[&str]]) -> Config {
    let priority = |names: &&[&str]| Priority {
        localities: vec![LocalityEndpoints {
            locality: Locality::default(),
            weight: NonZeroU32::MIN,
            endpoints: names.iter().map(|name| Arc::new(host(name))).collect(),
        }],
    };
    let dns = StrictDns {
        priorities: priorities.iter().map(priority).collect(),
        drops: Vec::new(),
        dns: DnsResolution::default(),
    };
    let mut config = Config::of(&[]);
    config.endpoints.priorities.clear();
    config.cluster = Cluster::new("reviews", Discovery::StrictDns(Arc::new(dns)));
    config
}

fn logical(name: &str) -> Config {
    let mut config = strict(&[]);
    let dns = LogicalDns {
        locality: Locality::default(),
        endpoint: host(name),
        drops: Vec::new(),
        dns: DnsResolution { family: DnsLookupFamily::All, ..DnsResolution::default() },
    };
    config.cluster.discovery = Discovery::LogicalDns(Arc::new(dns));
    config
}

fn servers<const N: usize>(net: &Net) -> [Arc<Server>; N] {
    std::array::from_fn(|index| net.server_at(SocketAddr::new(ip(u8::try_from(index).unwrap() + 1), 80)))
}

#[tokio::test(start_paused = true)]
async fn every_address_of_a_name_is_an_endpoint_and_answers_are_followed() {
    let net = Net::default();
    let [one, two, three] = servers(&net);
    set(&net, "a.example", &[1, 2]);
    let cluster = strict(&[&["a.example"]]).spawn(&net);
    rest().await;
    for _ in 0..10 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((one.hits(), two.hits(), three.hits()), (5, 5, 0));
    set(&net, "a.example", &[3, 2]);
    pass(Duration::from_secs(5)).await;
    for _ in 0..10 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((one.hits(), two.hits(), three.hits()), (0, 5, 5));
    assert_eq!(two.dials(), 1, "what stays keeps its connection");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_lost_keeps_its_addresses_and_one_that_was_never_found_is_named_in_the_error() {
    let net = Net::default();
    let [_one, two] = servers(&net);
    set(&net, "a.example", &[1]);
    let cluster = strict(&[&["a.example"], &["b.example"]]).spawn(&net);
    rest().await;
    net.names.lock().unwrap().clear();
    pass(Duration::from_secs(60)).await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);

    let cluster = strict(&[&["b.example"]]).spawn(&net);
    rest().await;
    let error = call(&cluster).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::NoEndpoint);
    assert_eq!(
        error.status.message(),
        "cluster reviews: the cluster has no endpoints; DNS: b.example: no such host"
    );
    set(&net, "b.example", &[2]);
    pass(Duration::from_secs(6)).await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(two.hits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_first_answer() {
    let net = Net::default();
    let [one] = servers(&net);
    set(&net, "a.example", &[1]);
    let cluster = strict(&[&["a.example"]]).spawn(&net);
    // Nothing was resolved yet: this is polled first.
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(one.hits(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_addresses_of_a_logical_name_are_one_endpoint_whatever_their_order() {
    let net = Net::default();
    let [one, two] = servers(&net);
    one.door(Door::Refuses);
    set(&net, "a.example", &[1, 2]);
    let cluster = logical("a.example").spawn(&net);
    rest().await;
    for _ in 0..4 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((one.dials(), two.dials(), two.hits()), (1, 1, 4));
    set(&net, "a.example", &[2, 1]);
    pass(Duration::from_secs(30)).await;
    call(&cluster).await.unwrap();
    assert_eq!((one.dials(), two.dials()), (1, 1), "another order is no reason to dial");
    assert!(net.lookups.load(SeqCst) >= 6);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_gone_asks_no_more() {
    let net = Net::default();
    set(&net, "a.example", &[1]);
    let cluster = logical("a.example").spawn(&net);
    rest().await;
    drop(cluster);
    rest().await;
    let asked = net.lookups.load(SeqCst);
    pass(Duration::from_secs(60)).await;
    assert_eq!(net.lookups.load(SeqCst), asked);
}
