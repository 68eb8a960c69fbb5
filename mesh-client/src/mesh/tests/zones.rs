//! `MeshBuilder::local_cluster`: where the callers are comes from the control plane.

use super::{
    world::{Echo, Plane, ask, bootstrap, reviews},
    *,
};
use mesh_xds::resource::{
    Locality,
    cluster::{LocalityLb, ZoneAware},
};

#[tokio::test]
async fn calls_stay_in_the_zone_of_the_bootstraps_node() {
    let plane = Plane::start().await;
    let mut echoes = Vec::new();
    for name in ["in z0", "in z1", "in z2"] {
        echoes.push(Echo::start(name).await);
    }
    let addresses: Vec<_> = echoes.iter().map(|echo| echo.address).collect();
    // A caller in each zone, too: wherever they listen, nobody calls them.
    let published = reviews([("v1", addresses.clone())]).and([("callers", addresses)]).localities(&[1, 1, 1]);
    plane.publish(&published.with_clusters(|cluster| {
        let settings = ZoneAware { min_cluster_size: 3, ..ZoneAware::default() };
        cluster.lb_options.localities = LocalityLb::ZoneAware(settings);
    }));
    let mut bootstrap = bootstrap(plane.address);
    bootstrap.node.locality = Locality { zone: "z1".into(), ..Locality::default() };
    let mesh = Mesh::builder().bootstrap(bootstrap).local_cluster("callers").build().unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    // Callers and connections come one by one; then all calls stay.
    let mut stayed = 0;
    within(async {
        while stayed < 100 {
            let answer = ask(channel.clone(), None).await.unwrap();
            stayed = if answer.server == "in z1" { stayed + 1 } else { 0 };
        }
    })
    .await;
}
