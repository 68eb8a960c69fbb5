//! What a call is hashed by when its cluster balances so.

use super::*;
use crate::stack::flight::Begun;
use mesh_xds::resource::route::{
    AppendAction, HashCookie, HashKey, HashPolicy, HeaderAddition, HeaderName, HeaderValue,
};
use twox_hash::XxHash64;

fn by(key: HashKey) -> HashPolicy {
    HashPolicy { key, terminal: false }
}

fn by_header(name: &'static str) -> HashPolicy {
    by(HashKey::Header { name: HeaderName::from_static(name), rewrite: None })
}

fn hash_of(value: &str) -> Option<u64> {
    Some(XxHash64::oneshot(0, value.as_bytes()))
}

/// A configuration with one route to a cluster that balances by hash.
fn hashing(policies: Vec<HashPolicy>) -> XdsConfig {
    let mut to_ring = forward("ring");
    to_ring.hash = policies;
    config(http(), vec![route(PathMatcher::prefix("/", false), to_ring)])
}

#[tokio::test(start_paused = true)]
async fn a_call_is_hashed_by_the_headers_that_are_sent() {
    let mut config = hashing(vec![by_header("user")]);
    let host = Arc::make_mut(&mut config.virtual_host);
    Arc::make_mut(&mut host.routes[0]).headers.request.add = vec![HeaderAddition {
        name: HeaderName::from_static("user"),
        value: HeaderValue::from_static("by-rule"),
        action: AppendAction::AddIfAbsent,
    }];
    let mesh = Mesh::new(&config, []);
    let mut with = request(None);
    with.headers_mut().insert("user", HeaderValue::from_static("alice"));
    mesh.call(with).await.unwrap();
    mesh.call(request(None)).await.unwrap();
    let hashes: Vec<_> = mesh.seen().iter().map(|seen| seen.hash).collect();
    assert_eq!(hashes, [hash_of("alice"), hash_of("by-rule")]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_always_has_the_same_hash_and_another_channel_another() {
    let config = hashing(vec![by(HashKey::ChannelId)]);
    let (one, mut other) = (Mesh::new(&config, []), Mesh::new(&config, []));
    other.core =
        Core::new("reviews:9080".parse().unwrap(), other.core.settings.clone(), 2, named(&other.world))
            .into();
    other.publish(&config);
    for mesh in [&one, &one, &other] {
        mesh.call(request(None)).await.unwrap();
    }
    let (one, other) = (one.seen(), other.seen());
    assert!(one[0].hash.is_some());
    assert_eq!(one[0].hash, one[1].hash);
    assert_ne!(one[0].hash, other[0].hash);
}

#[tokio::test(start_paused = true)]
async fn without_a_hash_policy_or_a_cluster_that_hashes_nothing_is_hashed() {
    let mesh = Mesh::new(&hashing(Vec::new()), []);
    mesh.call(request(None)).await.unwrap();
    assert_eq!(mesh.seen()[0].hash, None);
    let mesh = Mesh::new(&to_c(|forward| forward.hash = vec![by(HashKey::ChannelId)]), []);
    mesh.call(request(None)).await.unwrap();
    assert_eq!(mesh.seen()[0].hash, None);
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_the_cookie_gets_it_with_the_response_and_sends_it_back() {
    let cookie = HashCookie {
        name: "session".into(),
        ttl: Some(Duration::from_secs(60)),
        path: "/".into(),
        attributes: Vec::new(),
    };
    let mesh = Mesh::new(&hashing(vec![by(HashKey::Cookie(cookie)), by(HashKey::SourceIp)]), []);
    let response = mesh.call(request(None)).await.unwrap();
    let given = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    let mut again = request(None);
    again.headers_mut().insert("cookie", given.split(';').next().unwrap().parse().unwrap());
    let response = mesh.call(again).await.unwrap();
    assert!(!response.headers().contains_key("set-cookie"));
    let seen = mesh.seen();
    assert!(seen[0].hash.is_some());
    assert_eq!(seen[0].hash, seen[1].hash);
}

#[tokio::test(start_paused = true)]
async fn a_hashed_call_is_a_common_one_unless_its_caller_may_get_a_cookie() {
    let cookie = |ttl| {
        by(HashKey::Cookie(HashCookie { name: "user".into(), ttl, path: "".into(), attributes: Vec::new() }))
    };
    for (policy, common) in [
        (by_header("user"), true),
        (by(HashKey::ChannelId), true),
        (cookie(None), true),
        (cookie(Some(Duration::from_secs(1))), false),
    ] {
        let mesh = Mesh::new(&hashing(vec![policy.clone()]), []);
        let begun = mesh.core.begin(request(None));
        assert_eq!(matches!(begun, Begun::Flight(_)), common, "{policy:?}");
    }
}
