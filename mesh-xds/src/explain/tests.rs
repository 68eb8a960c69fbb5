//! What an explanation says of a configuration; that it agrees with the data path is tested where that is.

use super::*;
use crate::{
    client::Known,
    config::{ClientTarget, Lookup, Source, XdsError, XdsErrorCause, testing},
    matcher::{Fraction, HeaderMatcher, HeaderOrPseudo, PathMatcher, StringMatcher},
    name::{Name, ResourceType},
    resource::{
        AnyResource, Origin, RouteConfiguration,
        cluster::{LbPolicy, RingHash, SubsetScope, Subsetting},
        endpoint::HealthStatus,
        retry::{BackOff, HedgePolicy, RateLimitedBackOff, RetryOn, RetryPolicy},
        route::{Destination as Configured, HashKey, HashPolicy, RouteAction, WeightedCluster},
    },
};
use http::HeaderMap;
use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

struct Facts(BTreeMap<(ResourceType, Name), AnyResource>);

impl Lookup for Facts {
    fn known(&self, kind: ResourceType, name: &str) -> Known<AnyResource> {
        match self.0.get(&(kind, name.into())) {
            Some(resource) => Known::Good { resource: resource.clone(), note: None },
            None => Known::Bad(self.misfit(kind, &name.into(), "nobody has it".into())),
        }
    }

    fn misfit(&self, kind: ResourceType, name: &Name, why: String) -> XdsError {
        let cause = XdsErrorCause::DoesNotExist(why.into());
        XdsError { resource_type: kind, name: name.clone(), cause, server: "cp".into(), node: "n".into() }
    }

    fn version(&self, _: ResourceType, _: &str) -> Arc<str> {
        "7".into()
    }

    fn source(&self, _: ResourceType, _: &str) -> Source {
        Source { authority: 0, server: 0, stored: false }
    }

    fn is_current(&self, _: Source) -> bool {
        true
    }

    fn drops_data(&self, _: Source) -> bool {
        false
    }
}

/// The configuration of target `t`: a route to each of these clusters, `a` and `b` of which exist.
fn config(clusters: &[&str], change: impl FnOnce(&mut RouteConfiguration)) -> Arc<XdsConfig> {
    let AnyResource::RouteConfiguration(routes) = testing::routes("r", &[("t", clusters)]) else { panic!() };
    let mut routes = (*routes).clone();
    change(&mut routes);
    let routes = AnyResource::RouteConfiguration(Arc::new(routes));
    let resources = [
        testing::listener("t", "r"),
        routes,
        testing::cluster("a"),
        testing::cluster("b"),
        testing::endpoints("a", 1),
        testing::endpoints("b", 2),
    ];
    let facts = resources.into_iter().map(|one| ((one.resource_type(), one.name().clone()), one));
    ClientTarget::new("t".into(), "t".into()).resolve(&Facts(facts.collect())).publish.unwrap().unwrap()
}

fn route(routes: &mut RouteConfiguration, index: usize) -> &mut crate::resource::route::Route {
    let host = Arc::make_mut(&mut routes.virtual_hosts[0]);
    Arc::make_mut(&mut host.routes[index])
}

fn explained(config: &XdsConfig) -> Explanation {
    let map = HeaderMap::new();
    let request = Headers { map: &map, authority: "t", path: "/a.B/C", scheme: "http" };
    explain(Ok(config), &request, None, "control plane cp")
}

#[test]
fn each_route_says_what_became_of_it() {
    let config = config(&["a", "b", "a", "b"], |routes| {
        route(routes, 0).matches.path = PathMatcher::exact("/x", false);
        let end_user = HeaderOrPseudo::parse("end-user").unwrap();
        route(routes, 1).matches.headers =
            vec![HeaderMatcher::string(end_user, StringMatcher::exact("jason", false))];
        route(routes, 1).origin = Some(Origin::new("r.yaml:3:5 X", [("match", "r.yaml:4:7")]));
    });
    let explanation = explained(&config);
    let rejected = |reason: &str| Verdict::Rejected { reason: reason.to_owned() };
    let verdicts: Vec<_> = explanation.routes.iter().map(|route| route.verdict.clone()).collect();
    assert_eq!(
        verdicts,
        [
            rejected(r#"path is "/a.B/C", want exact "/x""#),
            rejected(r#"header end-user is absent, want exact "jason""#),
            Verdict::Matched,
            Verdict::NotReached,
        ]
    );
    assert_eq!(explanation.routes[1].condition_origin, Place::Written("r.yaml:4:7".into()));
    assert_eq!(explanation.routes[0].condition_origin, Place::Unknown);
    assert_eq!(explanation.decisions.len(), 1);
    assert_eq!((explanation.decisions[0].route, explanation.decisions[0].share), (2, 100.0));
    let names: Vec<_> = explanation.clusters.iter().map(|cluster| &*cluster.name).collect();
    assert_eq!(names, ["a"], "only what the call may use");
    assert_eq!(explanation.clusters[0].endpoints[0].not_picked, None);
    assert!(explanation.is_routed());
}

#[test]
fn a_route_that_takes_a_share_leaves_the_rest_to_the_next_ones() {
    let config = config(&["a", "b", "a"], |routes| {
        route(routes, 0).matches.fraction = Some(Fraction::per_million(200_000));
        route(routes, 1).matches.fraction = Some(Fraction::per_million(500_000));
    });
    let explanation = explained(&config);
    let shares: Vec<_> = explanation.decisions.iter().map(|one| (one.route, one.share)).collect();
    assert_eq!(shares, [(0, 20.0), (1, 40.0), (2, 40.0)]);
    assert!(explanation.to_string().contains("route 2 decides for 40 %"), "{explanation}");
}

#[test]
fn what_differs_by_destination_is_told_there_and_what_does_not_above() {
    let weighted = |name: &str, weight: u32| WeightedCluster {
        cluster: name.into(),
        weight: NonZeroU32::new(weight).unwrap(),
        headers: Default::default(),
        overrides: Default::default(),
        authority: (name == "b").then(|| http::HeaderValue::from_static("other")),
    };
    let config = config(&["a"], |routes| {
        let RouteAction::Forward(forward) = &mut route(routes, 0).action else { panic!() };
        forward.destination = Configured::Weighted(vec![weighted("a", 3), weighted("b", 1)]);
        forward.max_stream_duration = Some(std::time::Duration::from_secs(2));
        let places = [("timeout", "r.yaml:5:5"), ("route[1]", "r.yaml:9:7")];
        route(routes, 0).origin = Some(Origin::new("r.yaml:3:5 X", places));
    });
    let explanation = explained(&config);
    let [decision] = explanation.decisions.as_slice() else { panic!("{explanation}") };
    let shares: Vec<_> = decision.destinations.iter().map(|one| (&*one.cluster, one.share)).collect();
    assert_eq!(shares, [("a", 75.0), ("b", 25.0)]);
    let timeout = &decision.settings[0];
    assert_eq!((timeout.name, timeout.value.as_str()), ("timeout", "2s"));
    assert_eq!(timeout.origin, Place::Written("r.yaml:5:5".into()));
    assert_eq!(decision.settings[1].origin, Place::Default, "nobody wrote retries");
    assert_eq!(decision.destinations[0].settings, []);
    let [authority] = decision.destinations[1].settings.as_slice() else { panic!("{explanation}") };
    assert_eq!((authority.name, authority.value.as_str()), ("rewrite.authority", "other"));
    assert_eq!(authority.origin, Place::Written("r.yaml:9:7".into()));
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["routes"][0]["verdict"], "matched");
    assert_eq!(json["decisions"][0]["settings"][0]["origin"], "r.yaml:5:5");
    assert_eq!(json["decisions"][0]["settings"][1]["origin"], "default");
    assert_eq!(json["clusters"][0]["settings"][0]["origin"], serde_json::Value::Null);
    assert_eq!(json["version"], "7");
}

#[test]
fn a_call_that_gets_nowhere_says_why() {
    type Case<'a> = (&'a [&'a str], fn(&mut RouteConfiguration), &'a str);
    let cases: [Case<'_>; 4] = [
        (
            &["a"],
            |r| route(r, 0).matches.path = PathMatcher::exact("/x", false),
            "none of the 1 routes of virtual host t matches",
        ),
        (&[], |_| {}, "virtual host t has no routes"),
        (&["a"], |r| route(r, 0).action = RouteAction::NonForwarding, "its action is for servers"),
        (&["c"], |_| {}, "Cluster c does not exist: nobody has it"),
    ];
    for (clusters, change, expected) in cases {
        let explanation = explained(&config(clusters, change));
        let failure = explanation.failure.clone().unwrap();
        assert!(failure.starts_with(expected), "{failure}");
        assert!(!explanation.is_routed());
        assert!(explanation.to_string().contains("\nthe call fails: "), "{explanation}");
    }
}

#[test]
fn endpoints_that_configuration_rules_out_say_why() {
    let mut config = (*config(&["a"], |_| {})).clone();
    let found = config.clusters.get_mut("a").unwrap().as_mut().unwrap();
    let changed = Arc::make_mut(found);
    let assignment = Arc::make_mut(&mut changed.endpoints);
    let one = assignment.priorities[0].localities[0].endpoints[0].clone();
    let with = |port: u16, health| crate::resource::endpoint::Endpoint {
        addresses: vec![([127, 0, 0, 1], port).into()],
        health,
        ..(*one).clone()
    };
    let mut second = assignment.priorities[0].clone();
    second.localities[0].endpoints = vec![with(9, HealthStatus::Healthy).into()];
    assignment.priorities[0].localities[0].endpoints = vec![
        with(1, HealthStatus::Unknown).into(),
        with(2, HealthStatus::Draining).into(),
        with(3, HealthStatus::Unhealthy).into(),
        with(4, HealthStatus::Degraded).into(),
    ];
    assignment.priorities.push(second);
    let explanation = explained(&config);
    let reasons: Vec<_> = explanation.clusters[0]
        .endpoints
        .iter()
        .map(|one| one.not_picked.as_deref().unwrap_or("picked"))
        .collect();
    assert_eq!(
        reasons,
        [
            "picked",
            "it drains: new calls go elsewhere",
            "its health status is unhealthy",
            "it is degraded, and others are not",
            // One of three is too few for all calls: the rest spills over (Envoy's factor of 1.4).
            "picked",
        ]
    );
}

#[test]
fn the_header_of_connections_is_told_with_whose_tlvs_it_has() {
    use crate::resource::cluster::{ProxyProtocol, Tlv};
    let tlvs = || -> Arc<[Tlv]> { [Tlv { kind: 1, value: (*b"a").into() }].into() };
    let mut config = (*config(&["a"], |_| {})).clone();
    let changed = Arc::make_mut(config.clusters.get_mut("a").unwrap().as_mut().unwrap());
    Arc::make_mut(&mut changed.cluster).proxy_protocol = Some(ProxyProtocol::V2 { tlvs: tlvs() });
    let told = "V2: connections begin with its header, with 1 TLVs";
    assert!(explained(&config).to_string().contains(&format!("{told}\n")));
    let changed = Arc::make_mut(config.clusters.get_mut("a").unwrap().as_mut().unwrap());
    let assignment = Arc::make_mut(&mut changed.endpoints);
    Arc::make_mut(&mut assignment.priorities[0].localities[0].endpoints[0]).tlvs = Some(tlvs());
    let more = format!("{told}; endpoints have TLVs of their own, which go before\n");
    assert!(explained(&config).to_string().contains(&more), "{}", explained(&config));
}

#[test]
fn a_priority_that_has_enough_endpoints_takes_all_calls() {
    let mut config = (*config(&["a"], |_| {})).clone();
    let found = config.clusters.get_mut("a").unwrap().as_mut().unwrap();
    let assignment = Arc::make_mut(&mut Arc::make_mut(found).endpoints);
    let mut second = assignment.priorities[0].clone();
    let one = Arc::make_mut(&mut second.localities[0].endpoints[0]);
    one.addresses = vec![([127, 0, 0, 1], 9).into()];
    assignment.priorities.push(second);
    let reasons = |config: &XdsConfig| -> Vec<Option<String>> {
        explained(config).clusters[0].endpoints.iter().map(|one| one.not_picked.clone()).collect()
    };
    let elsewhere = "priority 0 is used as long as one of its endpoints can be reached".to_owned();
    assert_eq!(reasons(&config), [None, Some(elsewhere)]);
    // In panic health is ignored.
    let found = config.clusters.get_mut("a").unwrap().as_mut().unwrap();
    let changed = Arc::make_mut(found);
    let assignment = Arc::make_mut(&mut changed.endpoints);
    for priority in &mut assignment.priorities {
        Arc::make_mut(&mut priority.localities[0].endpoints[0]).health = HealthStatus::Unhealthy;
    }
    let elsewhere = "priority 0 is used as long as one of its endpoints can be reached".to_owned();
    Arc::make_mut(&mut changed.cluster).panic_threshold = Some(Fraction::per_million(500_000));
    assert_eq!(reasons(&config), [None, Some(elsewhere)]);
}

/// The endpoints of `a`, by ports, and what is hashed.
fn hashing(ports: &[u16], keys: Vec<HashKey>) -> XdsConfig {
    let mut config = (*config(&["a"], |routes| {
        let RouteAction::Forward(forward) = &mut route(routes, 0).action else { panic!() };
        forward.hash = keys.into_iter().map(|key| HashPolicy { key, terminal: false }).collect();
    }))
    .clone();
    let changed = Arc::make_mut(config.clusters.get_mut("a").unwrap().as_mut().unwrap());
    Arc::make_mut(&mut changed.cluster).lb = LbPolicy::RingHash(RingHash::default());
    let endpoints = &mut Arc::make_mut(&mut changed.endpoints).priorities[0].localities[0].endpoints;
    let one = endpoints[0].clone();
    let with = |port: &u16| {
        let addresses = vec![([127, 0, 0, 1], *port).into()];
        Arc::new(crate::resource::endpoint::Endpoint { addresses, ..(*one).clone() })
    };
    *endpoints = ports.iter().map(with).collect();
    config
}

fn led(config: &XdsConfig, user: &str) -> (Hashed, Explanation) {
    let mut map = HeaderMap::new();
    map.insert("x-user", user.parse().unwrap());
    let request = Headers { map: &map, authority: "t", path: "/a.B/C", scheme: "http" };
    let mut explanation = explain(Ok(config), &request, None, "directory mesh");
    explanation.lead(config, &request, None);
    (explanation.decisions[0].destinations[0].hashed.clone().unwrap(), explanation)
}

fn by_user() -> HashKey {
    HashKey::Header { name: "x-user".parse().unwrap(), rewrite: None }
}

#[test]
fn configuration_alone_says_where_a_hash_leads() {
    let config = hashing(&[1, 2, 3], vec![by_user()]);
    let mut ports = std::collections::BTreeSet::new();
    for user in 0..32 {
        let (hashed, explanation) = led(&config, &format!("user-{user}"));
        let endpoint = hashed.endpoint.unwrap();
        ports.insert(endpoint.port());
        for one in &explanation.clusters[0].endpoints {
            let expected = (one.address != endpoint).then(|| format!("the hash leads to {endpoint}"));
            assert_eq!(one.not_picked, expected, "{explanation}");
        }
        let line = format!("its hash {} leads to {endpoint}\n", hashed.hash.unwrap());
        assert!(explanation.to_string().contains(&line), "{explanation}");
    }
    assert_eq!(ports, [1, 2, 3].into());
}

#[test]
fn what_only_a_process_knows_of_its_hashes_is_not_guessed() {
    let picked = |explanation: &Explanation| {
        explanation.clusters[0].endpoints.iter().filter(|one| one.not_picked.is_none()).count()
    };
    for key in [HashKey::ChannelId, HashKey::SourceIp] {
        let config = hashing(&[1, 2], vec![by_user(), key]);
        let (hashed, explanation) = led(&config, "alice");
        assert_eq!((hashed.hash, hashed.endpoint, picked(&explanation)), (None, None, 2));
        let text = "its hash is not known here: it is made of what each process has for itself";
        assert!(explanation.to_string().contains(text), "{explanation}");
    }
    let mut config = hashing(&[1, 2], vec![by_user()]);
    let changed = Arc::make_mut(config.clusters.get_mut("a").unwrap().as_mut().unwrap());
    Arc::make_mut(&mut changed.cluster).lb_options.subsetting =
        Some(Subsetting { size: NonZeroU32::MIN, scope: SubsetScope::Priority });
    let (hashed, explanation) = led(&config, "alice");
    assert_eq!((hashed.hash.is_some(), hashed.endpoint, picked(&explanation)), (true, None, 2));
    assert!(explanation.to_string().contains("each process uses a subset of its own"), "{explanation}");
    let config = hashing(&[1, 2], vec![HashKey::QueryParameter("user".into())]);
    let (hashed, explanation) = led(&config, "alice");
    assert_eq!((hashed.hash, hashed.note, picked(&explanation)), (None, None, 2));
}

#[test]
fn a_programs_policy_of_attempts_stands_in_the_place_of_everything_that_a_route_says_of_them() {
    let some = Duration::from_secs(1);
    let retry = RetryPolicy {
        on: RetryOn::parse("unavailable"),
        num_retries: 2,
        per_try_timeout: Some(some),
        per_try_idle_timeout: Some(some),
        back_off: BackOff { base: some, max: some },
        avoid_previous_hosts: true,
        host_selection_attempts: 5,
        previous_priorities: Some(NonZeroU32::MIN),
        retriable_status_codes: Vec::new(),
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        rate_limited: Some(RateLimitedBackOff { headers: Vec::new(), max: some }),
    };
    let hedge = HedgePolicy {
        initial_requests: NonZeroU32::MIN,
        additional_request_chance: Fraction::ONE,
        on_per_try_timeout: true,
    };
    let config = config(&["a", "a"], |routes| {
        route(routes, 0).matches.fraction = Some(Fraction::per_million(500_000));
        let RouteAction::Forward(forward) = &mut route(routes, 0).action else { panic!() };
        (forward.retry, forward.hedge) = (Some(Arc::new(retry)), Some(hedge));
        route(routes, 1).action = RouteAction::NonForwarding;
    });
    let mut explanation = explained(&config);
    assert!(explanation.decisions[0].settings.len() > 8);
    explanation.replace_attempts("3 at once", "main.rs");
    let told = |decision: &Decision| decision.settings.iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!(told(&explanation.decisions[0]), ["timeout", "hedging"]);
    assert!(told(&explanation.decisions[1]).is_empty(), "it sends nothing");
    assert!(explanation.to_string().contains("  hedging  3 at once  main.rs\n"), "{explanation}");
}

/// Everything that has words, in the words of somebody.
fn said(words: &str) -> Explanation {
    let shared = || Arc::<str>::from(words);
    let written = || Place::Written(shared());
    let setting = || Setting { name: "timeout", value: words.to_owned(), origin: written() };
    let hashed = |hash: Option<&str>, endpoint: Option<SocketAddr>| {
        let hash = hash.map(str::to_owned);
        Some(Hashed { hash, endpoint, ready: None, session: None, note: Some(shared()) })
    };
    let address = SocketAddr::from(([10, 0, 0, 1], 1));
    let destination = |hashed| {
        let (cluster, settings) = (shared(), vec![setting()]);
        Destination { cluster, share: 50.0, origin: written(), settings, hashed }
    };
    let endpoint = Endpoint {
        address,
        priority: 0,
        locality: words.to_owned(),
        locality_weight: 1,
        weight: 1,
        health: "healthy",
        tls: true,
        proxy: None,
        not_picked: Some(words.to_owned()),
        live: None,
    };
    let cluster = Cluster {
        name: shared(),
        origin: Some(shared()),
        failure: None,
        note: Some(shared()),
        settings: vec![setting()],
        leaves: Vec::new(),
        endpoints: vec![endpoint],
        live: Some(ClusterState {
            leaf: Some(shared()),
            unavailable: Some(shared()),
            zone_routing: Some(shared()),
            ..ClusterState::default()
        }),
    };
    let failed = Cluster { origin: None, failure: Some(words.to_owned()), ..cluster.clone() };
    Explanation {
        target: shared(),
        path: words.to_owned(),
        source: shared(),
        version: Some(shared()),
        virtual_host: Some(VirtualHost { name: shared(), domain: Some(words.to_owned()) }),
        routes: vec![Route {
            name: shared(),
            origin: Some(shared()),
            condition: words.to_owned(),
            condition_origin: written(),
            verdict: Verdict::Rejected { reason: words.to_owned() },
        }],
        decisions: vec![Decision {
            route: 0,
            share: 100.0,
            settings: vec![setting()],
            destinations: vec![
                destination(hashed(None, None)),
                destination(hashed(Some("1f"), None)),
                destination(hashed(Some("1f"), Some(address))),
            ],
            mirrors: vec![destination(None)],
            failure: Some(words.to_owned()),
        }],
        clusters: vec![cluster, failed],
        failure: Some(words.to_owned()),
    }
}

#[test]
fn what_others_said_neither_begins_a_line_nor_drives_a_terminal() {
    let hostile = "x\n  endpoints: 1 of 1 may be picked\u{1b}[2J\r\u{9b}2J\u{202e}\u{2028}";
    let (harmless, text) = (said("x").to_string(), said(hostile).to_string());
    let driving = |char: char| char != '\n' && crate::printable::line(&char.to_string()) != char.to_string();
    assert!(!text.contains(driving), "{text:?}");
    let lines = |text: &str| text.lines().count();
    assert_eq!(lines(&text), lines(&harmless), "{text}");
    // JSON says it as it was said.
    let json = serde_json::to_string(&said(hostile)).unwrap();
    let value: serde_json::Value = serde_json::from_str(&crate::printable::json(&json)).unwrap();
    assert_eq!(value["target"], hostile);
}
