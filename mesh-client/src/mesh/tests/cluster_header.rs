//! Clusters that requests name, through a whole client: subscribed when a call comes, followed, and explained.

use super::*;
use crate::registration::proto::RegisterRequest;
use mesh_xds::resource::route::HeaderName;

fn to(cluster: &str) -> Option<Request<RegisterRequest>> {
    let mut request = Request::new(RegisterRequest::default());
    request.metadata_mut().insert("to", cluster.parse().unwrap());
    Some(request)
}

#[tokio::test]
async fn a_cluster_that_no_route_names_is_found_followed_and_missed() {
    let (one, two, other) = (Echo::start("one").await, Echo::start("two").await, Echo::start("other").await);
    let plane = Plane::start().await;
    let published = |v1: &Echo| {
        let mut config = reviews([("v1", vec![v1.address]), ("v2", vec![two.address])]);
        config.forward(|forward| forward.destination = Destination::Header(HeaderName::from_static("to")));
        config
    };
    plane.publish(&published(&one));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    for (cluster, server) in [("v1", "one"), ("v2", "two"), ("v1", "one")] {
        assert_eq!(within(ask(channel.clone(), to(cluster))).await.unwrap().server, server);
    }
    // Its endpoints change while it is named.
    plane.publish(&published(&other));
    within(async {
        while ask(channel.clone(), to("v1")).await.unwrap().server != "other" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let status = within(ask(channel.clone(), to("nobody"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("cluster nobody, which the request names: "), "{status}");
    let head = http::Request::get("http://reviews:9080/mesh.test.Echo/Ask").header("to", "v2");
    let (parts, ()) = head.body(()).unwrap().into_parts();
    let explanation = mesh.explain(&parts).await.unwrap();
    assert!(explanation.is_routed(), "{explanation}");
    assert_eq!(&*explanation.clusters[0].name, "v2");
}
