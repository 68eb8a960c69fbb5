//! A mesh that weighs servers by what they say of themselves: with responses, and on streams of their own.

use super::{
    world::{Echo, Plane, ask, reviews},
    *,
};
use crate::orca::ServerMetricsRecorder;
use mesh_xds::resource::{
    Cluster,
    cluster::{ClientSideWeightedRoundRobin, LbPolicy},
};

/// Weights are computed ten times a second, as often as may be, and used at once.
fn policy(out_of_band: Option<Duration>) -> LbPolicy {
    LbPolicy::ClientSideWeightedRoundRobin(Box::new(ClientSideWeightedRoundRobin {
        out_of_band,
        blackout_period: Duration::ZERO,
        weight_update_period: Duration::from_millis(100),
        ..Default::default()
    }))
}

/// A server that says that it has so many calls a second, at half of what it can do.
async fn server(name: &'static str, qps: f64) -> Echo {
    let load = ServerMetricsRecorder::new();
    load.set_qps(qps);
    load.set_application_utilization(0.5);
    Echo::reporting(name, load).await
}

async fn shares_follow_the_load(change: fn(&mut Cluster)) {
    let (busy, idle) = (server("busy", 30.0).await, server("idle", 90.0).await);
    let plane = Plane::start().await;
    plane.publish(&reviews([("v1", vec![busy.address, idle.address])]).with_clusters(change));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    within(async {
        loop {
            ask(channel.clone(), None).await.unwrap();
            let weighed = mesh.status().clusters["v1"].weighted_round_robin.clone();
            if weighed.is_some_and(|weighed| weighed.weighted_endpoints == 2) {
                return;
            }
            // Between updates of the weights there is nothing to see.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut idle = 0;
    for _ in 0..400 {
        idle += usize::from(ask(channel.clone(), None).await.unwrap().server == "idle");
    }
    // Even, but for where the schedule begins and is computed anew.
    assert!((290..=310).contains(&idle), "{idle} of 400, not 300");
}

#[tokio::test]
async fn servers_are_weighed_by_what_they_say_with_responses() {
    shares_follow_the_load(|cluster| cluster.lb = policy(None)).await;
}

#[tokio::test]
async fn servers_are_weighed_by_what_they_say_by_themselves() {
    shares_follow_the_load(|cluster| cluster.lb = policy(Some(Duration::from_millis(50)))).await;
}
