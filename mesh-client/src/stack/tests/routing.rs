//! Which route, which cluster, and what is said when there is none.

use super::*;
use mesh_xds::resource::route::{
    AppendAction, Destination, DirectResponse, HeaderAddition, HeaderName, HeaderValue, Redirect,
    RedirectPath, RouteAction, WeightedCluster,
};
use std::num::NonZeroU32;

fn set(name: &'static str, value: &'static str) -> HeaderAddition {
    HeaderAddition {
        name: HeaderName::from_static(name),
        value: HeaderValue::from_static(value),
        action: AppendAction::OverwriteIfExistsOrAdd,
    }
}

#[tokio::test(start_paused = true)]
async fn the_target_is_the_authority_unless_the_route_or_the_choice_says_otherwise() {
    let choice = |authority: Option<&'static str>| {
        Destination::Weighted(vec![WeightedCluster {
            cluster: "c".into(),
            weight: NonZeroU32::MIN,
            headers: Default::default(),
            overrides: Default::default(),
            authority: authority.map(HeaderValue::from_static),
        }])
    };
    for (in_route, in_choice, expected) in [
        (None, None, "reviews:9080"),
        (Some("other:80"), None, "other:80"),
        (Some("other:80"), Some("mine:81"), "mine:81"),
    ] {
        let mesh = Mesh::new(
            &to_c(|forward| {
                forward.authority = in_route.map(HeaderValue::from_static);
                forward.destination = choice(in_choice);
            }),
            [],
        );
        mesh.call(request(None)).await.unwrap();
        assert_eq!(mesh.seen()[0].uri, format!("http://{expected}/r.Reviews/List"));
    }
}

#[tokio::test(start_paused = true)]
async fn headers_are_changed_on_the_way_out_and_back() {
    let mut config = to_c(|_| {});
    let host = Arc::make_mut(&mut config.virtual_host);
    let route = Arc::make_mut(&mut host.routes[0]);
    route.headers.request.add = vec![set("x-out", "1")];
    route.headers.request.remove = vec![HeaderName::from_static("x-secret")];
    route.headers.response.add = vec![set("x-back", "2")];
    let mesh = Mesh::new(&config, []);
    let mut request = request(None);
    request.headers_mut().insert("x-secret", HeaderValue::from_static("s"));
    let response = mesh.call(request).await.unwrap();
    let seen = &mesh.seen()[0].headers;
    assert_eq!(seen["x-out"], "1");
    assert!(!seen.contains_key("x-secret"));
    assert_eq!(response.headers()["x-back"], "2");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_no_route_matches_fails_with_what_was_looked_for() {
    let only = route(PathMatcher::exact("/other.S/M", false), forward("c"));
    let mesh = Mesh::new(&config(http(), vec![only]), []);
    let error = mesh.call(request(None)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(
        error.message(),
        "target reviews:9080: none of the 1 routes of virtual host reviews matches /r.Reviews/List \
         [configuration 7]"
    );
}

#[tokio::test(start_paused = true)]
async fn an_action_that_clients_do_not_have_fails_and_is_named() {
    let mut redirect = route(PathMatcher::any(), forward("c"));
    redirect.action = RouteAction::Unsupported("redirect");
    redirect.origin = Some("reviews.yaml:12:5".into());
    let mesh = Mesh::new(&config(http(), vec![redirect]), []);
    let error = mesh.call(request(None)).await.unwrap_err();
    assert!(error.message().contains("route r (reviews.yaml:12:5)"), "{error}");
    assert!(error.message().contains("redirect"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_route_is_the_status_that_it_maps_to_and_nothing_is_sent() {
    let redirect = Redirect {
        status: 302,
        scheme: Some("https".into()),
        host: Some("other".into()),
        port: None,
        path: Some(RedirectPath::Prefix("/new/".into())),
        strip_query: false,
    };
    let direct = |status, body: &'static str| {
        RouteAction::DirectResponse(Arc::new(DirectResponse { status, body: body.into() }))
    };
    for (action, expected, text) in [
        (
            direct(503, "closed"),
            Code::Unavailable,
            "route r: answered by the route with HTTP status 503: closed",
        ),
        (direct(403, ""), Code::PermissionDenied, "HTTP status 403"),
        (direct(200, "hello"), Code::Unknown, "HTTP status 200: hello"),
        (
            RouteAction::Redirect(Arc::new(redirect)),
            Code::Unknown,
            "(HTTP status 302) to https://other/new/r.Reviews/List",
        ),
    ] {
        let mut answering = route(PathMatcher::any(), forward("c"));
        answering.action = action;
        answering.headers.response.add = vec![set("x-why", "closed")];
        let mesh = Mesh::new(&config(http(), vec![answering]), []);
        let error = mesh.call(request(None)).await.unwrap_err();
        assert_eq!(error.code(), expected);
        assert!(error.message().contains(text), "{error}");
        assert_eq!(error.metadata().get("x-why").unwrap(), "closed");
        assert!(mesh.seen().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn levels_of_headers_are_applied_from_the_most_specific_unless_turned_round() {
    for (turned, expected) in [(false, "configuration"), (true, "route")] {
        let mut config = to_c(|_| {});
        let host = Arc::make_mut(&mut config.virtual_host);
        Arc::make_mut(&mut host.routes[0]).headers.request.add = vec![set("x-level", "route")];
        host.headers.request.add = vec![set("x-level", "host")];
        let routes = Arc::make_mut(&mut config.routes);
        routes.headers.request.add = vec![set("x-level", "configuration")];
        routes.most_specific_headers_last = turned;
        let mesh = Mesh::new(&config, []);
        mesh.call(request(None)).await.unwrap();
        assert_eq!(mesh.seen()[0].headers["x-level"], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_exist_fails_its_calls_at_once() {
    let mut config = to_c(|_| {});
    config.clusters.insert(
        "c".into(),
        Err(XdsError {
            resource_type: ResourceType::Cluster,
            name: "c".into(),
            cause: XdsErrorCause::DoesNotExist("left out of the response".into()),
            server: "127.0.0.1:15010".into(),
            node: "me".into(),
        }),
    );
    let mesh = Mesh::new(&config, []);
    let mut request = request(None);
    request.extensions_mut().insert(WaitForReady(true));
    let error = mesh.call(request).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::Unavailable, ms(0)));
    assert!(error.message().contains("left out of the response"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_control_plane_fails_calls_fast_and_recovery_is_seen() {
    let mesh = Mesh::pending([]);
    mesh.fail(XdsErrorCause::Unreachable("connection refused".into()));
    let error = mesh.call(request(None)).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::Unavailable, ms(0)));
    for part in ["127.0.0.1:15010", "connection refused", "reviews:9080"] {
        assert!(error.message().contains(part), "{error}");
    }
    mesh.publish(&to_c(|_| {}));
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_ready_outlasts_an_unreachable_control_plane() {
    let mesh = Arc::new(Mesh::pending([]));
    mesh.fail(XdsErrorCause::Unreachable("connection refused".into()));
    let waiting = tokio::spawn({
        let mesh = mesh.clone();
        async move {
            let mut request = request(None);
            request.extensions_mut().insert(WaitForReady(true));
            mesh.call(request).await
        }
    });
    tokio::time::sleep(ms(500)).await;
    assert!(!waiting.is_finished());
    mesh.publish(&to_c(|_| {}));
    assert_eq!(code(&waiting.await.unwrap().unwrap()), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn calls_before_the_first_configuration_wait_for_it() {
    let mesh = Arc::new(Mesh::pending([]));
    let waiting = tokio::spawn({
        let mesh = mesh.clone();
        async move { mesh.call(request(None)).await }
    });
    tokio::time::sleep(ms(50)).await;
    mesh.publish(&to_c(|_| {}));
    assert_eq!(code(&waiting.await.unwrap().unwrap()), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_the_control_plane_does_not_know_comes_back_untouched() {
    let mesh = Mesh::pending([]);
    mesh.fail(XdsErrorCause::DoesNotExist("not found".into()));
    let Outcome::UnknownHost { request: back, error, .. } =
        mesh.core.call(request(Some("5S"))).await.unwrap()
    else {
        panic!("a response")
    };
    assert_eq!(
        (back.uri().path(), &back.headers()["grpc-timeout"]),
        ("/r.Reviews/List", &HeaderValue::from_static("5S"))
    );
    assert!(mesh.core.refused(&error).message().contains("REGISTRY_ONLY"));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_listener_is_a_failure_and_no_unknown_host() {
    let mesh = Mesh::pending([]);
    mesh.fail(XdsErrorCause::Rejected("http_filters: no router".into()));
    let error = mesh.core.call(request(None)).await.err().unwrap();
    assert!(error.message().contains("no router"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_new_table_is_followed_by_the_next_call() {
    let mesh = Mesh::new(&to_c(|_| {}), []);
    mesh.call(request(None)).await.unwrap();
    mesh.publish(&config(http(), vec![route(PathMatcher::any(), forward("v2"))]));
    mesh.call(request(None)).await.unwrap();
    let clusters: Vec<_> = mesh.seen().into_iter().map(|seen: Seen| seen.cluster).collect();
    assert_eq!(clusters, ["c", "v2"]);
}

#[tokio::test(start_paused = true)]
async fn an_expression_may_ask_for_paths_beyond_ascii() {
    let paths = PathMatcher::regex("/caf€/.*").unwrap();
    let mesh = Mesh::new(&config(http(), vec![route(paths, forward("c"))]), []);
    let at = |path: &str| {
        let mut request = request(None);
        *request.uri_mut() = path.parse().unwrap();
        request
    };
    assert_eq!(code(&mesh.call(at("/caf€/List")).await.unwrap()), Code::Ok);
    assert_eq!(mesh.seen()[0].uri, "http://reviews:9080/caf€/List");
    for other in ["/cafe/List", "/caf%E2%82%AC/List"] {
        mesh.call(at(other)).await.unwrap_err();
    }
    assert_eq!(mesh.seen().len(), 1);
}
