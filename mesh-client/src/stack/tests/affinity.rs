//! Sessions: the cluster that they decide for, and what callers are told.

use super::*;
use base64::Engine as _;
use http::StatusCode;
use mesh_xds::resource::{
    filter::{FilterConfig, FilterOverride, HttpFilter},
    route::{Destination, WeightedCluster},
    stateful_session::{SessionCookie, SessionState, StatefulSession},
};
use std::num::NonZeroU32;

/// What the fake clusters' endpoint is called.
const HOST: &str = "10.0.0.1:80";

fn by_cookie(path: &str, ttl: u64) -> StatefulSession {
    let cookie = SessionCookie {
        name: "s".into(),
        ttl: Duration::from_secs(ttl),
        path: path.into(),
        attributes: vec![("SameSite".into(), "Strict".into())],
    };
    StatefulSession { state: Some(SessionState::Cookie(cookie)), strict: None }
}

fn by_header() -> StatefulSession {
    StatefulSession { state: Some(SessionState::Header("x-session".parse().unwrap())), strict: None }
}

/// Half of the calls go to `a`, half to `b`.
fn halves(session: StatefulSession) -> XdsConfig {
    let weighted = |cluster: &str| WeightedCluster {
        cluster: cluster.into(),
        weight: NonZeroU32::MIN,
        headers: Default::default(),
        overrides: Default::default(),
        authority: None,
    };
    let mut to_both = forward("a");
    to_both.destination = Destination::Weighted(vec![weighted("a"), weighted("b")]);
    let mut http = http();
    let config = FilterConfig::StatefulSession(Arc::new(session));
    http.filters.insert(0, HttpFilter { name: "session".into(), config, disabled: false });
    config_of(http, to_both)
}

fn config_of(http: mesh_xds::resource::listener::HttpConnectionManager, forward: Forward) -> XdsConfig {
    config(http, vec![route(PathMatcher::any(), forward)])
}

fn encoded(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn with(name: &'static str, value: &str) -> Request<Body> {
    let mut request = request(None);
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// The clusters that six calls like this go to, in order of their names, and what their callers are told.
async fn six(
    mesh: &Mesh,
    call: impl Fn() -> Request<Body>,
    told: &str,
) -> (Vec<String>, Vec<Option<String>>) {
    let before = mesh.seen().len();
    let mut answers = Vec::new();
    for _ in 0..6 {
        let response = mesh.call(call()).await.unwrap();
        answers.push(response.headers().get(told).map(|value| value.to_str().unwrap().to_owned()));
    }
    let mut clusters: Vec<_> = mesh.seen().split_off(before).into_iter().map(|seen| seen.cluster).collect();
    clusters.sort_unstable();
    clusters.dedup();
    (clusters, answers)
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_a_session_is_given_one_and_not_told_again() {
    let mesh = Mesh::new(&halves(by_cookie("/", 60)), []);
    let first = mesh.call(request(None)).await.unwrap();
    let cluster = mesh.seen()[0].cluster.clone();
    let value = encoded(&format!("{HOST};cluster:{cluster}"));
    let given = first.headers()["set-cookie"].to_str().unwrap();
    assert_eq!(given, format!("s={value}; Max-Age=60; Path=/; SameSite=Strict; HttpOnly"));
    let kept = || with("cookie", &format!("other=1; s={value}"));
    let (clusters, told) = six(&mesh, kept, "set-cookie").await;
    assert_eq!(
        (clusters, told),
        (vec![cluster], vec![None; 6]),
        "the cluster of the session, not a drawn one"
    );
}

#[tokio::test(start_paused = true)]
async fn a_header_does_as_well_as_a_cookie_and_so_does_an_address_alone() {
    let mesh = Mesh::new(&halves(by_header()), []);
    let at_b = encoded(&format!("{HOST};cluster:b"));
    let (clusters, told) = six(&mesh, || with("x-session", &at_b), "x-session").await;
    assert_eq!((clusters, told), (vec!["b".to_owned()], vec![None; 6]));
    // As Envoy writes it: good for whichever cluster is drawn.
    let (clusters, told) = six(&mesh, || with("x-session", &encoded(HOST)), "x-session").await;
    assert_eq!(clusters, ["a", "b"]);
    assert!(told.iter().all(|told| told.is_some()), "the cluster is told");
    let (_, told) = six(&mesh, || with("x-session", "%"), "x-session").await;
    assert!(told.iter().all(|told| told.is_some()), "what cannot be read is as good as nothing");
}

#[tokio::test(start_paused = true)]
async fn another_endpoint_or_cluster_than_was_asked_for_is_told() {
    let mesh = Mesh::new(&halves(by_cookie("/", 0)), []);
    let gone = encoded("10.0.0.2:80;cluster:a");
    let (clusters, told) = six(&mesh, || with("cookie", &format!("s=\"{gone}\"")), "set-cookie").await;
    assert_eq!(clusters, ["a"]);
    let now = format!("s={}; Path=/; SameSite=Strict; HttpOnly", encoded(&format!("{HOST};cluster:a")));
    assert_eq!(told, vec![Some(now); 6]);
    // A cluster that the route does not have makes the session void.
    let other = encoded(&format!("{HOST};cluster:c"));
    let (clusters, told) = six(&mesh, || with("cookie", &format!("s={other}")), "set-cookie").await;
    assert_eq!(clusters, ["a", "b"]);
    assert!(told.iter().all(|told| told.is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_strict_session_with_a_cluster_that_is_gone_fails() {
    let strict = Some(StatusCode::NOT_FOUND);
    let mesh = Mesh::new(&halves(StatefulSession { strict, ..by_cookie("/", 0) }), []);
    let other = encoded(&format!("{HOST};cluster:c"));
    let error = mesh.call(with("cookie", &format!("s={other}"))).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(error.message().contains("of cluster c, which the route does not have"), "{error}");
    assert!(mesh.seen().is_empty());
    mesh.call(request(None)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_of_another_path_or_a_route_without_have_no_session() {
    let at_b = encoded(&format!("{HOST};cluster:b"));
    let call = || with("cookie", &format!("s={at_b}"));
    let mesh = Mesh::new(&halves(by_cookie("/other", 0)), []);
    assert_eq!(six(&mesh, call, "set-cookie").await, (vec!["a".to_owned(), "b".to_owned()], vec![None; 6]));
    let mut off = halves(by_cookie("/", 0));
    let host = Arc::make_mut(&mut off.virtual_host);
    Arc::make_mut(&mut host.routes[0]).overrides = [("session".into(), FilterOverride::Disabled)].into();
    let mesh = Mesh::new(&off, []);
    assert_eq!(six(&mesh, call, "set-cookie").await, (vec!["a".to_owned(), "b".to_owned()], vec![None; 6]));
    // An override that has one instead.
    let here = FilterConfig::StatefulSession(Arc::new(by_cookie("/r.Reviews", 0)));
    let overrides = [("session".into(), FilterOverride::Config(here))].into();
    let mut on = halves(by_cookie("/other", 0));
    let host = Arc::make_mut(&mut on.virtual_host);
    Arc::make_mut(&mut host.routes[0]).overrides = overrides;
    let mesh = Mesh::new(&on, []);
    assert_eq!(six(&mesh, call, "set-cookie").await.0, ["b"]);
}
