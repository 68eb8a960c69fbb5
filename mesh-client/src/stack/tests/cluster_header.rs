//! Routes whose cluster the request names.

use super::*;
use mesh_xds::resource::route::{AppendAction, Destination, HeaderAddition, HeaderName};

fn by_header() -> XdsConfig {
    to_c(|forward| forward.destination = Destination::Header(HeaderName::from_static("to")))
}

fn to(cluster: &str, timeout: Option<&str>) -> Request<Body> {
    let mut request = request(timeout);
    request.headers_mut().insert("to", HeaderValue::from_bytes(cluster.as_bytes()).unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_to_the_cluster_that_it_names_under_the_rules_of_its_route() {
    let mut config = by_header();
    let host = Arc::make_mut(&mut config.virtual_host);
    let value = HeaderValue::from_static("1");
    let name = HeaderName::from_static("x-out");
    Arc::make_mut(&mut host.routes[0]).headers.request.add =
        vec![HeaderAddition { name, value, action: AppendAction::OverwriteIfExistsOrAdd }];
    let mesh = Mesh::new(&config, []);
    for cluster in ["c1", "c2", "c1"] {
        mesh.call(to(cluster, None)).await.unwrap();
        let seen = mesh.seen().pop().unwrap();
        assert_eq!((seen.cluster.as_str(), seen.headers["x-out"].to_str().unwrap()), (cluster, "1"));
    }
    assert_eq!(mesh.core.named.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_not_there_or_not_named_fails_the_call_with_the_reason() {
    let mesh = Mesh::new(&by_header(), []);
    let long = "c".repeat(513);
    for (cluster, expected) in [
        (
            "x",
            "target reviews:9080: route r: cluster x, which the request names: the control plane knows none",
        ),
        ("", "target reviews:9080: route r: what header to says cannot be the name of a cluster"),
        ("\u{e9}", "target reviews:9080: route r: what header to says cannot be the name of a cluster"),
        (&long, "target reviews:9080: route r: what header to says cannot be the name of a cluster"),
    ] {
        let error = mesh.call(to(cluster, None)).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unavailable, expected));
    }
    let error = mesh.call(request(None)).await.unwrap_err();
    assert!(error.message().ends_with("header to is to name the cluster, and the request does not have it"));
    let error = mesh.call(to("?", Some("50m"))).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::DeadlineExceeded, ms(50)));
    assert!(error.message().contains("had not said what cluster ? is"), "{error}");
    assert!(mesh.seen().is_empty());
    assert_eq!(mesh.core.named.len(), 2, "what cannot be a name is not asked for");
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_the_named_cluster_again() {
    let mut config = by_header();
    let policy = retry_policy(RetryOn { unavailable: true, ..RetryOn::default() });
    let host = Arc::make_mut(&mut config.virtual_host);
    host.retry = Some(Arc::new(policy));
    let mesh = Mesh::new(&config, [Act::Code(Code::Unavailable, ms(1))]);
    mesh.call(to("c7", None)).await.unwrap();
    let clusters: Vec<_> = mesh.seen().into_iter().map(|seen| seen.cluster).collect();
    assert_eq!(clusters, ["c7", "c7"]);
}
