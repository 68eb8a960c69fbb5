//! What calls did, as the control plane hears of it.

use super::{
    world::{Echo, Plane, ask, reviews},
    *,
};
use mesh_xds::lrs::ClusterSums;

/// Waits until what was reported of `v1` is as wanted.
async fn reported(plane: &Plane, wanted: impl Fn(&ClusterSums) -> bool) -> ClusterSums {
    let mut reports = plane.load().reports();
    within(async {
        loop {
            reports.borrow_and_update();
            if let Some(sums) = plane.load().sums().clusters.remove("v1").filter(|sums| wanted(sums)) {
                return sums;
            }
            reports.changed().await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn every_call_and_every_drop_is_reported_once() {
    let (good, bad) = (Echo::start("good").await, Echo::failing(Code::Internal).await);
    let plane = Plane::start().await;
    let both = || reviews([("v1", vec![good.address, bad.address])]).reported();
    plane.publish(&both());
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let (mut ok, mut failed) = (0, 0);
    within(async {
        // Until both are connected, all calls go to one.
        while ok < 3 || failed < 3 {
            *(if ask(channel.clone(), None).await.is_ok() { &mut ok } else { &mut failed }) += 1;
        }
    })
    .await;
    let sums = reported(&plane, |sums| sums.sums.issued == ok + failed && sums.sums.in_progress == 0).await;
    assert_eq!((sums.sums.successes, sums.sums.errors, sums.dropped), (ok, failed, 0));
    let cpu = &sums.metrics["cpu_utilization"];
    assert_eq!(
        (cpu.count, cpu.total),
        (failed, 0.5 * failed as f64),
        "what the failing server says of itself"
    );
    assert!(mesh.status().load_reports.last.is_some());

    plane.publish(&both().dropped("lb"));
    let mut dropped = 0;
    within(async {
        while dropped < 3 {
            let outcome = ask(channel.clone(), None).await;
            dropped += u64::from(outcome.is_err_and(|status| status.message().contains("drop_overload lb")));
        }
    })
    .await;
    let sums = reported(&plane, |sums| sums.dropped == dropped).await;
    assert_eq!(sums.drops["lb"], dropped);
}
