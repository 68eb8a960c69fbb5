//! What a cluster says of its endpoints when it is asked: the same as calls find out.

use super::net::*;
use crate::cluster::Cluster;
use mesh_xds::resource::{
    cluster::{Consecutive, OutlierDetection},
    endpoint::HealthStatus,
};
use std::{collections::BTreeMap, time::Duration};
use tonic::Code;

/// By port: `picked` or why not; seconds of ejection left; ejections.
async fn described(cluster: &Cluster) -> BTreeMap<u16, (String, Option<u64>, u32)> {
    let description = cluster.describe().await.unwrap();
    let endpoints = description.endpoints.into_iter().map(|(address, (live, why))| {
        let why = why.unwrap_or_else(|| "picked".to_owned());
        (address.port(), (why, live.ejected_for_ms.map(|left| left.div_ceil(1000)), live.ejections))
    });
    endpoints.collect()
}

fn said(why: &str, left: Option<u64>, ejections: u32) -> (String, Option<u64>, u32) {
    (why.to_owned(), left, ejections)
}

#[tokio::test(start_paused = true)]
async fn every_endpoint_that_gets_no_calls_says_why() {
    let net = Net::default();
    // Enough of them stay well for the second priority to get nothing.
    let [bad, _good, refusing, _draining, _, _, _, _, _, standby] = net.servers();
    bad.answer(Answer::Status(Code::Internal));
    refusing.door(Door::Refuses);
    let mut config = Config::with_priorities(&[&[1, 2, 3, 4, 5, 6, 7, 8, 9], &[10]]);
    config.endpoint(3).health = HealthStatus::Draining;
    config.cluster.outlier_detection = Some(OutlierDetection {
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_percent: 100,
        consecutive_5xx: Some(Consecutive { threshold: 2, enforcing: 100 }),
        ..OutlierDetection::default()
    });
    let cluster = config.spawn(&net);
    rest().await;
    for _ in 0..20 {
        call(&cluster).await.unwrap();
    }
    rest().await;
    pass(Duration::from_secs(5)).await;
    let all = described(&cluster).await;
    assert_eq!(all[&1], said("it is ejected as an outlier", Some(25), 1));
    assert_eq!(all[&2], said("picked", None, 0));
    assert!(all[&3].0.starts_with("no connection: "), "{all:?}");
    assert_eq!(all[&4], said("it drains: new calls go elsewhere", None, 0));
    assert_eq!(all[&10], said("priority 0 is in use", None, 0));
    bad.hits();
    for _ in 0..20 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    }
    assert_eq!((bad.hits(), standby.hits()), (0, 0), "and calls agree");
    pass(Duration::from_secs(60)).await;
    assert_eq!(described(&cluster).await[&1].0, "picked");
}
