//! First match, weights, overrides, and what stays from one table to the next.

use super::{
    Action, RouteTable, same_table,
    testing::{config, forward, http, retry_policy, route},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_xds::{
    config::{ClusterConfig, XdsConfig, XdsError, XdsErrorCause},
    matcher::{Fraction, HeaderMatcher, HeaderOrPseudo, Headers, PathMatcher, StringMatcher},
    name::ResourceType,
    resource::{
        fault::{AbortKind, Fault, FaultAbort},
        filter::{FilterConfig, FilterOverride, HttpFilter},
        retry::RetryOn,
        route::{
            AppendAction, Destination, Forward, HeaderAddition, QueryMatcher, Route, RouteAction,
            VirtualHost, WeightedCluster,
        },
    },
};
use std::{num::NonZeroU32, sync::Arc};

/// A cluster that is only a name.
fn table(config: &XdsConfig) -> RouteTable<String> {
    RouteTable::build(config, |config: &Arc<ClusterConfig>| Arc::new(config.cluster.name.to_string()))
}

fn vhost(config: &mut XdsConfig, change: impl FnOnce(&mut VirtualHost)) {
    change(Arc::make_mut(&mut config.virtual_host));
}

/// Name of the cluster that a request goes to, drawn with `seed`.
fn cluster(table: &RouteTable<String>, path: &str, headers: &HeaderMap, seed: u64) -> Option<String> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let seen = Headers { map: headers, authority: "reviews:9080", path, scheme: "http" };
    let found = table.route(&seen, query, || fastrand::Rng::with_seed(seed))?;
    let Action::Forward(forwarding) = &found.action else { panic!("not forwarded") };
    Some(forwarding.choose(|| fastrand::Rng::with_seed(seed)).unwrap().name.to_string())
}

fn named(name: &str) -> Route {
    route(PathMatcher::any(), forward(name))
}

#[test]
fn the_first_route_that_matches_path_headers_and_query_wins() {
    let end_user = HeaderOrPseudo::parse("end-user").unwrap();
    let mut jason = named("v2");
    jason.matches.headers = vec![HeaderMatcher::string(end_user, StringMatcher::exact("jason", false))];
    let mut tested = named("v3");
    tested.matches.query = vec![QueryMatcher { name: "test".into(), value: None }];
    let exact = route(PathMatcher::exact("/r.Reviews/List", false), forward("list"));
    let table = table(&config(http(), vec![jason, tested, exact, named("v1")]));
    let none = HeaderMap::new();
    let user =
        HeaderMap::from_iter([(HeaderName::from_static("end-user"), HeaderValue::from_static("jason"))]);
    assert_eq!(cluster(&table, "/r.Reviews/List", &user, 0).unwrap(), "v2");
    assert_eq!(cluster(&table, "/r.Reviews/List?test=1", &none, 0).unwrap(), "v3");
    assert_eq!(cluster(&table, "/r.Reviews/List", &none, 0).unwrap(), "list");
    assert_eq!(cluster(&table, "/r.Reviews/Get", &none, 0).unwrap(), "v1");
}

#[test]
fn no_route_is_no_route() {
    let only = route(PathMatcher::exact("/a/b", false), forward("c"));
    assert_eq!(cluster(&table(&config(http(), vec![only])), "/a/c", &HeaderMap::new(), 0), None);
}

#[test]
fn a_fraction_takes_its_share_of_what_matches() {
    let mut some = named("canary");
    some.matches.fraction = Some(Fraction::per_million(300_000));
    let table = table(&config(http(), vec![some, named("stable")]));
    let canary = (0..10_000)
        .filter(|seed| cluster(&table, "/a/b", &HeaderMap::new(), *seed).unwrap() == "canary")
        .count();
    assert!((2_800..3_200).contains(&canary), "{canary}");
}

fn weighted(parts: &[(&str, u32)]) -> Forward {
    let entry = |(name, weight): &(&str, u32)| WeightedCluster {
        cluster: (*name).into(),
        weight: NonZeroU32::new(*weight).unwrap(),
        headers: Default::default(),
        overrides: Default::default(),
        authority: None,
    };
    Forward { destination: Destination::Weighted(parts.iter().map(entry).collect()), ..forward("unused") }
}

#[test]
fn weights_are_shares_of_their_sum() {
    let split = route(PathMatcher::any(), weighted(&[("v1", 8), ("v2", 2)]));
    let table = table(&config(http(), vec![split]));
    let v1 =
        (0..10_000).filter(|seed| cluster(&table, "/a/b", &HeaderMap::new(), *seed).unwrap() == "v1").count();
    assert!((7_800..8_200).contains(&v1), "{v1}");
}

#[test]
fn a_cluster_in_error_fails_its_own_routes_only() {
    let mut config = config(http(), vec![named("gone"), named("there")]);
    let error = XdsError {
        resource_type: ResourceType::Cluster,
        name: "gone".into(),
        cause: XdsErrorCause::DoesNotExist("left out".into()),
        server: "istiod:15010".into(),
        node: "n".into(),
    };
    config.clusters.insert("gone".into(), Err(error));
    let table = table(&config);
    let destinations: Vec<bool> = table
        .routes()
        .iter()
        .map(|compiled| match &compiled.action {
            Action::Forward(forwarding) => forwarding.choices().iter().all(|choice| choice.cluster.is_ok()),
            Action::Answer(_) | Action::Fail(_) => false,
        })
        .collect();
    assert_eq!(destinations, [false, true]);
}

#[test]
fn a_routes_retry_policy_replaces_its_virtual_hosts() {
    let own = retry_policy(RetryOn::default());
    let mut masked = named("a");
    let RouteAction::Forward(forward) = &mut masked.action else { unreachable!() };
    forward.retry = Some(Arc::new(own.clone()));
    let mut config = config(http(), vec![masked, named("b")]);
    let inherited = retry_policy(RetryOn { unavailable: true, ..RetryOn::default() });
    vhost(&mut config, |host| host.retry = Some(Arc::new(inherited.clone())));
    let table = table(&config);
    let policies: Vec<_> = table
        .routes()
        .iter()
        .filter_map(|compiled| match &compiled.action {
            Action::Forward(forwarding) => Some((**forwarding.retry.as_ref()?).clone()),
            Action::Answer(_) | Action::Fail(_) => None,
        })
        .collect();
    assert_eq!(policies, [own, inherited], "a policy that retries nothing masks as well");
}

fn abort(status: u16) -> Fault {
    let abort = Some(FaultAbort { kind: AbortKind::Http(status), fraction: Fraction::ONE });
    Fault { delay: None, abort, headers: Vec::new(), max_active: None }
}

fn faults(table: &RouteTable<String>) -> Vec<Fault> {
    let Action::Forward(forwarding) = &table.routes()[0].action else { panic!("not forwarded") };
    forwarding.choices()[0].faults.iter().map(|fault| (**fault).clone()).collect()
}

#[test]
fn the_most_specific_filter_override_replaces_the_others() {
    let config_of = |status| FilterConfig::Fault(Arc::new(abort(status)));
    let over = |status| FilterOverride::Config(config_of(status));
    for (disabled, in_vhost, in_route, in_weighted, expected) in [
        (false, None, None, None, vec![abort(401)]),
        (true, None, None, None, vec![]),
        (false, Some(over(402)), None, None, vec![abort(402)]),
        (true, Some(over(402)), None, None, vec![abort(402)]),
        (false, Some(over(402)), Some(over(403)), None, vec![abort(403)]),
        (false, Some(over(402)), Some(over(403)), Some(over(404)), vec![abort(404)]),
        (false, None, Some(FilterOverride::Disabled), None, vec![]),
        (false, Some(FilterOverride::Disabled), Some(over(403)), None, vec![abort(403)]),
    ] {
        let mut http = http();
        http.filters.insert(0, HttpFilter { name: "fault".into(), config: config_of(401), disabled });
        let mut split = route(PathMatcher::any(), weighted(&[("v1", 1)]));
        split.overrides.extend(in_route.map(|value| ("fault".into(), value)));
        let RouteAction::Forward(forward) = &mut split.action else { unreachable!() };
        let Destination::Weighted(entries) = &mut forward.destination else { unreachable!() };
        entries[0].overrides.extend(in_weighted.map(|value| ("fault".into(), value)));
        let mut config = config(http, vec![split]);
        vhost(&mut config, |host| host.overrides.extend(in_vhost.map(|value| ("fault".into(), value))));
        assert_eq!(faults(&table(&config)), expected);
    }
}

#[test]
fn header_rules_apply_from_the_most_specific_level_outwards() {
    let set = |value: &'static str| HeaderAddition {
        name: HeaderName::from_static("level"),
        value: HeaderValue::from_static(value),
        action: AppendAction::OverwriteIfExistsOrAdd,
    };
    let mut split = route(PathMatcher::any(), weighted(&[("v1", 1)]));
    split.headers.request.add = vec![set("route")];
    let RouteAction::Forward(forward) = &mut split.action else { unreachable!() };
    let Destination::Weighted(entries) = &mut forward.destination else { unreachable!() };
    entries[0].headers.request.add = vec![set("weighted")];
    let mut config = config(http(), vec![split]);
    vhost(&mut config, |host| host.headers.request.add = vec![set("virtual host")]);
    let table = table(&config);
    let Action::Forward(forwarding) = &table.routes()[0].action else { panic!("not forwarded") };
    let choice = &forwarding.choices()[0];
    let order: Vec<&HeaderValue> =
        choice.request.iter().flat_map(|level| &level.add).map(|add| &add.value).collect();
    assert_eq!(order, ["weighted", "route", "virtual host"]);
    assert!(choice.response.is_empty(), "levels that change nothing are not kept");
}

#[test]
fn a_table_serves_on_while_only_endpoints_change() {
    let one = config(http(), vec![named("a"), named("b")]);
    assert!(same_table(&one, &one.clone()));
    let mut endpoints = one.clone();
    endpoints.version = "8".into();
    let cluster = endpoints.clusters.get_mut("a").unwrap().as_mut().unwrap();
    Arc::make_mut(cluster).note = Some("old".into());
    assert!(same_table(&one, &endpoints));

    let mut routes = one.clone();
    vhost(&mut routes, |host| host.routes.truncate(1));
    assert!(!same_table(&one, &routes));
    let mut fewer = one.clone();
    fewer.clusters.remove("b");
    assert!(!same_table(&one, &fewer));
    let mut filters = one.clone();
    Arc::make_mut(&mut filters.http).filters.clear();
    assert!(!same_table(&one, &filters));
}
