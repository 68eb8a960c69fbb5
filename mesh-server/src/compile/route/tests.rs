//! VirtualServices to routes.

use crate::compile::fixture::{GRPC, MESH, World, envoy, labels, world};
use mesh_xds::{
    matcher::{
        DomainPattern, Fraction, HeaderMatch, HeaderMatcher, HeaderOrPseudo, PathMatcher, StringMatcher,
    },
    resource::{
        fault::{AbortKind, DelayKind},
        filter::{FilterConfig, FilterOverride},
        retry::RetryOn,
        route::{
            AppendAction, Destination, Forward, PathRewrite, Redirect, RedirectPath, RegexRewrite, Route,
            RouteAction,
        },
    },
};
use std::{num::NonZeroU32, sync::Arc, time::Duration};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

fn rule(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  \
         hosts: [reviews]\n  http:\n{http}"
    )
}

fn routes(world: &World) -> Vec<Arc<Route>> {
    let config = world.routes(REVIEWS).unwrap();
    assert_eq!(config.virtual_hosts.len(), 1, "{:#?}", config.virtual_hosts);
    config.virtual_hosts[0].routes.clone()
}

fn forward(route: &Route) -> &Forward {
    let RouteAction::Forward(forward) = &route.action else { panic!("not forwarded: {route:?}") };
    forward
}

fn clusters(route: &Route) -> Vec<(String, u32)> {
    match &forward(route).destination {
        Destination::Cluster(name) => vec![(name.to_string(), 0)],
        Destination::Header(name) => vec![(format!("header {name}"), 0)],
        Destination::Weighted(several) => {
            several.iter().map(|one| (one.cluster.to_string(), one.weight.get())).collect()
        }
    }
}

fn subset(name: &str) -> String {
    format!("outbound|9080|{name}|reviews.default.svc.cluster.local")
}

#[test]
fn without_a_rule_everything_goes_to_the_service_with_istios_default_retries() {
    let world = world(MESH, "");
    let config = world.routes(REVIEWS).unwrap();
    let host = &config.virtual_hosts[0];
    let domains: Vec<_> =
        ["reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local"]
            .into_iter()
            .map(str::to_owned)
            .chain(["reviews.default.svc.cluster.local.".to_owned()])
            .flat_map(|name| [format!("{name}:9080"), name])
            .map(|name| DomainPattern::Exact(name.into()))
            .collect();
    assert_eq!(host.domains, domains);
    let [route] = host.routes.as_slice() else { panic!("{:?}", host.routes) };
    assert_eq!(clusters(route), [(REVIEWS.to_owned(), 0)]);
    assert_eq!(route.matches.path, PathMatcher::prefix("/", false));
    let retry = forward(route).retry.as_ref().unwrap();
    assert_eq!((retry.num_retries, retry.avoid_previous_hosts, retry.host_selection_attempts), (2, true, 5));
    let on = RetryOn {
        connect_failure: true,
        refused_stream: true,
        unavailable: true,
        cancelled: true,
        retriable_status_codes: true,
        ..RetryOn::default()
    };
    assert_eq!(retry.on, on);
    assert_eq!(route.origin.as_deref(), Some("mesh.yaml:4:18 Service default/reviews"));
}

#[test]
fn a_service_of_another_namespace_has_no_name_without_it() {
    let config = world(MESH, "").routes("outbound|9090||ratings.other.svc.cluster.local").unwrap();
    let domains = &config.virtual_hosts[0].domains;
    assert!(domains.contains(&DomainPattern::Exact("ratings.other:9090".into())));
    assert!(!domains.contains(&DomainPattern::Exact("ratings:9090".into())));
}

#[test]
fn names_that_nobody_has_are_nothing() {
    let world = world(MESH, "");
    for name in ["", "reviews", "outbound|9081||reviews.default.svc.cluster.local", &subset("v1")] {
        assert_eq!(world.routes(name), None, "{name}");
    }
}

#[test]
fn weights_are_shares_and_zero_is_left_out() {
    let yaml = rule(
        "  - route:
    - {destination: {host: reviews, subset: v1}, weight: 80}
    - {destination: {host: reviews, subset: v2}, weight: 20}
    - {destination: {host: reviews, subset: v3}, weight: 0}
",
    );
    let world = world(MESH, &yaml);
    assert_eq!(clusters(&routes(&world)[0]), [(subset("v1"), 80), (subset("v2"), 20)]);
}

#[test]
fn one_destination_takes_everything_and_its_port_may_be_left_out() {
    let yaml = rule(
        "  - route:
    - {destination: {host: ratings.other.svc.cluster.local, port: {number: 9090}}, weight: 0}
",
    );
    let world = world(MESH, &yaml);
    assert_eq!(
        clusters(&routes(&world)[0]),
        [("outbound|9090||ratings.other.svc.cluster.local".to_owned(), 0)]
    );
}

#[test]
fn matches_become_routes_in_order_and_what_lies_behind_a_catch_all_is_dropped() {
    let yaml = rule(
        "  - name: jason
    match:
    - {name: header, headers: {end-user: {exact: jason}}}
    - {uri: {prefix: /Bookinfo.v1/}, ignoreUriCase: true}
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]
  - route: [{destination: {host: reviews, subset: v3}}]
",
    );
    let world = world(MESH, &yaml);
    let routes = routes(&world);
    let names: Vec<_> = routes.iter().map(|route| (&*route.name, clusters(route)[0].0.clone())).collect();
    assert_eq!(names, [("jason.header", subset("v2")), ("jason", subset("v2")), ("", subset("v1"))]);
    let header = HeaderMatcher::string(
        HeaderOrPseudo::parse("end-user").unwrap(),
        StringMatcher::exact("jason", false),
    );
    assert_eq!(routes[0].matches.headers, [header]);
    assert_eq!(routes[1].matches.path, PathMatcher::prefix("/bookinfo.v1/", true));
    assert!(routes[0].origin.as_deref().unwrap().ends_with("VirtualService default/reviews"));
}

#[test]
fn conditions_on_the_client_and_the_port_are_decided_here() {
    let yaml = rule(
        "  - match: [{sourceLabels: {app: productpage}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{sourceNamespace: other}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{port: 9081}]
    route: [{destination: {host: reviews, subset: v3}}]
  - match: [{port: 9080}]
    route: [{destination: {host: reviews, subset: v4}}]
  - route: [{destination: {host: reviews, subset: v5}}]
",
    );
    let mut world = world(MESH, &yaml);
    let chosen = |world: &World| -> Vec<_> {
        routes(world).iter().map(|route| clusters(route)[0].0.clone()).collect()
    };
    assert_eq!(chosen(&world), [subset("v4")]);
    world.client.scope.labels = labels(&[("app", "productpage"), ("version", "v1")]);
    assert_eq!(chosen(&world), [subset("v1")]);
}

#[test]
fn headers_that_must_not_be_there_are_told_to_each_client_in_its_own_way() {
    let yaml = rule(
        "  - match: [{withoutHeaders: {x-canary: {exact: \"on\"}}}]
    route: [{destination: {host: reviews, subset: v1}}]
",
    );
    let name = || HeaderOrPseudo::parse("x-canary").unwrap();
    let not_on = HeaderMatcher::string(name(), StringMatcher::exact("on", false)).inverted();
    let absent = HeaderMatcher { kind: HeaderMatch::Present(false), ..HeaderMatcher::present(name()) };
    let headers = |kind| -> Vec<_> {
        routes(&world(kind, &yaml)).iter().map(|route| route.matches.headers.clone()).collect()
    };
    let lenient = HeaderMatcher { treat_missing_as_empty: true, ..not_on.clone() };
    assert_eq!(headers(MESH), [[lenient.clone()]]);
    assert_eq!(headers(envoy()), [[lenient]]);
    assert_eq!(headers(GRPC), [[not_on], [absent]]);
}

#[test]
fn a_method_that_grpc_never_sends_matches_nothing_for_a_grpc_client() {
    let yaml = rule(
        "  - match: [{method: {exact: GET}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{method: {exact: POST}}]
    route: [{destination: {host: reviews, subset: v2}}]
",
    );
    let grpc = world(GRPC, &yaml);
    assert_eq!(
        routes(&grpc).iter().map(|route| clusters(route)[0].0.clone()).collect::<Vec<_>>(),
        [subset("v2")]
    );
    assert_eq!(routes(&grpc)[0].matches.headers, []);
    assert_eq!(routes(&world(envoy(), &yaml))[0].matches.headers[0].name, HeaderOrPseudo::Method);
}

#[test]
fn for_a_grpc_client_domains_part_by_what_the_authority_matches() {
    let yaml = rule(
        "  - match: [{authority: {prefix: reviews.default}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - route: [{destination: {host: reviews, subset: v2}}]
",
    );
    let config = world(GRPC, &yaml).routes(REVIEWS).unwrap();
    let hosts: Vec<_> = config
        .virtual_hosts
        .iter()
        .map(|host| {
            (host.domains.len(), host.routes.iter().map(|route| clusters(route)[0].0.clone()).collect())
        })
        .collect();
    // `reviews` with and without its port; the eight longer names.
    assert_eq!(hosts, [(2, vec![subset("v2")]), (8, vec![subset("v1"), subset("v2")])]);
}

#[test]
fn timeouts_are_streams_durations_for_grpc_and_route_timeouts_for_envoy() {
    let yaml = rule("  - timeout: 2s\n    route: [{destination: {host: reviews}}]\n");
    let two = Some(Duration::from_secs(2));
    for kind in [MESH, GRPC] {
        let routes = routes(&world(kind, &yaml));
        let forward = forward(&routes[0]);
        assert_eq!(
            (forward.timeout, forward.max_stream_duration, forward.grpc_timeout_header_max),
            (None, two, None)
        );
    }
    let with = routes(&world(envoy(), &yaml));
    assert_eq!((forward(&with[0]).timeout, forward(&with[0]).grpc_timeout_header_max), (two, two));
    // Envoy's own default would be 15 s.
    let without = routes(&world(envoy(), ""));
    let none = Some(Duration::ZERO);
    assert_eq!((forward(&without[0]).timeout, forward(&without[0]).grpc_timeout_header_max), (none, none));
}

#[test]
fn retries_are_as_written_and_zero_attempts_are_none() {
    let yaml = rule(
        "  - match: [{headers: {x: {exact: a}}}]
    retries: {attempts: 4, perTryTimeout: 1s, retryOn: \"unavailable,5xx,503\", backoff: 50ms}
    route: [{destination: {host: reviews}}]
  - retries: {attempts: 0}
    route: [{destination: {host: reviews}}]
",
    );
    let routes = routes(&world(MESH, &yaml));
    let retry = forward(&routes[0]).retry.as_ref().unwrap();
    let on =
        RetryOn { unavailable: true, server_error: true, retriable_status_codes: true, ..RetryOn::default() };
    assert_eq!((retry.num_retries, retry.on, retry.per_try_timeout), (4, on, Some(Duration::from_secs(1))));
    assert_eq!(retry.retriable_status_codes, [503]);
    assert_eq!(
        (retry.back_off.base, retry.back_off.max),
        (Duration::from_millis(50), Duration::from_millis(500))
    );
    assert_eq!(forward(&routes[1]).retry, None);
}

#[test]
fn every_word_of_retry_on_arrives_and_numbers_are_a_list() {
    let words = "5xx,gateway-error,reset,reset-before-request,connect-failure,retriable-4xx,refused-stream,\
                 retriable-status-codes,retriable-headers,envoy-ratelimited,cancelled,deadline-exceeded,internal,\
                 resource-exhausted,unavailable";
    let retry = |on: &str| {
        let yaml = rule(&format!(
            "  - retries: {{attempts: 1, retryOn: \"{on}\"}}\n    route: [{{destination: {{host: reviews}}}}]\n"
        ));
        forward(&routes(&world(MESH, &yaml))[0]).retry.as_deref().unwrap().clone()
    };
    assert_eq!(retry(words).on, RetryOn::parse(words));
    for word in words.split(',') {
        assert_eq!(retry(word).on.tokens(), [word]);
    }
    let numbers = retry("503,reset,418");
    assert_eq!(numbers.on.tokens(), ["reset", "retriable-status-codes"]);
    assert_eq!(numbers.retriable_status_codes, [503, 418]);
}

#[test]
fn retries_go_to_remote_localities_when_they_are_to() {
    let yaml = rule(
        "  - retries: {attempts: 3, retryRemoteLocalities: true}
    route: [{destination: {host: reviews}}]
",
    );
    let routes = routes(&world(MESH, &yaml));
    let retry = forward(&routes[0]).retry.as_ref().unwrap();
    assert_eq!(retry.previous_priorities.map(NonZeroU32::get), Some(2), "Istio's update_frequency");
    assert_eq!((retry.avoid_previous_hosts, retry.host_selection_attempts), (true, 5));
}

#[test]
fn a_retry_of_a_hashed_call_goes_to_its_endpoint_again_unless_told_otherwise() {
    let hashed = |route: &str| {
        let yaml = format!(
            "{}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews}}
spec:
  host: reviews
  trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: x-user}}}}}}
",
            rule(route)
        );
        let routes = routes(&world(MESH, &yaml));
        let retry = forward(&routes[0]).retry.as_ref().unwrap();
        (retry.avoid_previous_hosts, retry.host_selection_attempts)
    };
    assert_eq!(hashed("  - route: [{destination: {host: reviews}}]\n"), (false, 1));
    let retries = "  - retries: {attempts: 2}\n    route: [{destination: {host: reviews}}]\n";
    assert_eq!(hashed(retries), (false, 1));
    let avoiding = "  - retries: {attempts: 2, retryIgnorePreviousHosts: true}\n    route: [{destination: {host: reviews}}]\n";
    assert_eq!(hashed(avoiding), (true, 5));
}

#[test]
fn faults_override_the_filter_and_never_is_no_fault() {
    let yaml = rule(
        "  - match: [{headers: {x: {exact: a}}}]
    fault:
      delay: {percentage: {value: 0.1}, fixedDelay: 7s}
      abort: {percentage: {value: 100}, grpcStatus: UNAVAILABLE}
    route: [{destination: {host: reviews}}]
  - fault:
      delay: {percentage: {value: 0}, fixedDelay: 7s}
    route: [{destination: {host: reviews}}]
",
    );
    let routes = routes(&world(MESH, &yaml));
    let Some(FilterOverride::Config(FilterConfig::Fault(fault))) =
        routes[0].overrides.get("envoy.filters.http.fault")
    else {
        panic!("{:?}", routes[0].overrides)
    };
    let (delay, abort) = (fault.delay.as_ref().unwrap(), fault.abort.as_ref().unwrap());
    assert_eq!(
        (delay.kind, delay.fraction),
        (DelayKind::Fixed(Duration::from_secs(7)), Fraction::per_million(1000))
    );
    assert_eq!((abort.kind, abort.fraction), (AbortKind::Grpc(14), Fraction::ONE));
    assert!(routes[1].overrides.is_empty());
}

#[test]
fn headers_rewrites_and_mirrors_follow_the_route() {
    let yaml = rule(
        "  - match: [{uri: {prefix: /old.Reviews/}}]
    rewrite: {uri: /new.Reviews/}
    headers: {request: {set: {x-a: \"1\"}, remove: [x-b]}}
    mirrors:
    - {destination: {host: reviews, subset: v3}, percentage: {value: 50}}
    - {destination: {host: reviews, subset: v4}, percentage: {value: 0}}
    route:
    - {destination: {host: reviews, subset: v1}, headers: {request: {add: {x-a: \"2\"}, set: {\":authority\": other}}}}
",
    );
    let routes = routes(&world(MESH, &yaml));
    let forward = forward(&routes[0]);
    assert_eq!(forward.path_rewrite, Some(PathRewrite::Prefix("/new.Reviews/".into())));
    assert_eq!(forward.authority.as_ref().unwrap(), "other");
    assert_eq!(forward.mirrors.len(), 1);
    assert_eq!(
        (&*forward.mirrors[0].cluster, forward.mirrors[0].fraction),
        (&*subset("v3"), Fraction::per_million(500_000))
    );
    let request = &routes[0].headers.request;
    let added: Vec<_> = request.add.iter().map(|one| (one.value.to_str().unwrap(), one.action)).collect();
    assert_eq!(
        added,
        [("1", AppendAction::OverwriteIfExistsOrAdd), ("2", AppendAction::AppendIfExistsOrAdd)]
    );
    assert_eq!(request.remove, ["x-b"]);
}

#[test]
fn an_envoys_proxy_has_every_visible_host_and_no_domain_twice() {
    let config = world(envoy(), "").routes("http_proxy").unwrap();
    let names: Vec<_> = config.virtual_hosts.iter().map(|host| &*host.name).collect();
    assert_eq!(
        names,
        [
            "ratings.other.svc.cluster.local:9080",
            "ratings.other.svc.cluster.local:9090",
            "reviews.default.svc.cluster.local:9080",
        ]
    );
    let domains: Vec<_> = config.virtual_hosts.iter().flat_map(|host| &host.domains).collect();
    let unique: std::collections::HashSet<_> = domains.iter().collect();
    assert_eq!(domains.len(), unique.len());
    // With two ports, a bare host would be a guess.
    assert!(!domains.contains(&&DomainPattern::Exact("ratings.other".into())));
    assert!(domains.contains(&&DomainPattern::Exact("reviews".into())));
}

#[test]
fn a_delegates_routes_stand_in_their_roots_place_and_say_where_they_were_written() {
    let yaml = rule(
        "  - match: [{uri: {prefix: /bookinfo.Reviews/}}]
    delegate: {name: team, namespace: reviews}
    timeout: 2s
  - route: [{destination: {host: reviews, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: team, namespace: reviews}
spec:
  http:
  - match: [{uri: {exact: /bookinfo.Reviews/Get}}]
    rewrite: {uriRegexRewrite: {match: 'Get', rewrite: 'Read'}}
    route: [{destination: {host: reviews.default.svc.cluster.local, subset: v2}}]
",
    );
    let routes = routes(&world(MESH, &yaml));
    let [delegated, rest] = routes.as_slice() else { panic!("{routes:#?}") };
    assert_eq!(clusters(delegated), [(subset("v2"), 0)]);
    assert_eq!(delegated.matches.path, PathMatcher::exact("/bookinfo.Reviews/Get", false));
    let forward = forward(delegated);
    assert_eq!(forward.max_stream_duration, Some(Duration::from_secs(2)), "the root's");
    let rewrite = RegexRewrite::new("Get", "Read").unwrap();
    assert_eq!(forward.path_rewrite, Some(PathRewrite::Regex(rewrite)));
    let origin = delegated.origin.as_ref().unwrap();
    assert!(origin.to_string().ends_with("VirtualService reviews/team"), "{origin}");
    assert_eq!(clusters(rest), [(subset("v1"), 0)]);
}

#[test]
fn a_scheme_is_asked_for_or_decided_here() {
    let yaml = |scheme: &str| {
        rule(&format!(
            "  - match: [{{scheme: {{exact: {scheme}}}}}]\n    route: [{{destination: {{host: reviews, subset: v1}}}}]\n"
        ))
    };
    let asked = HeaderMatcher::string(HeaderOrPseudo::Scheme, StringMatcher::exact("https", false));
    assert_eq!(routes(&world(MESH, &yaml("https")))[0].matches.headers, [asked]);
    // Other gRPC clients see no pseudo headers; between processes of a mesh the scheme is http.
    let routes_of_grpc = routes(&world(GRPC, &yaml("http")));
    assert_eq!(
        (clusters(&routes_of_grpc[0]), routes_of_grpc[0].matches.headers.len()),
        (vec![(subset("v1"), 0)], 0)
    );
    assert_eq!(clusters(&routes(&world(GRPC, &yaml("https")))[0]), [(REVIEWS.to_owned(), 0)]);
}

#[test]
fn routes_that_answer_by_themselves_are_told_to_every_client() {
    let long = "x".repeat(5000);
    let yaml = rule(&format!(
        "  - match: [{{uri: {{prefix: /old/}}}}]
    redirect: {{prefixRewrite: /new/, authority: other, derivePort: FROM_REQUEST_PORT}}
  - match: [{{uri: {{prefix: /off/}}}}]
    headers: {{response: {{set: {{x-why: maintenance}}}}}}
    directResponse: {{status: 503, body: {{string: {long}}}}}
  - redirect: {{port: 443, scheme: https, redirectCode: 307}}
"
    ));
    for kind in [MESH, GRPC] {
        let world = world(kind, &yaml);
        let config = world.routes(REVIEWS).unwrap();
        assert_eq!(config.max_direct_response_body, Some(5000), "or Envoys refuse the whole");
        let routes = &config.virtual_hosts[0].routes;
        let redirect = Redirect {
            status: 301,
            scheme: None,
            host: Some("other".into()),
            port: Some(9080),
            path: Some(RedirectPath::Prefix("/new/".into())),
            strip_query: false,
        };
        assert_eq!(routes[0].action, RouteAction::Redirect(Arc::new(redirect)));
        let RouteAction::DirectResponse(answer) = &routes[1].action else { panic!("{routes:#?}") };
        assert_eq!((answer.status, answer.body.len()), (503, 5000));
        assert_eq!(routes[1].headers.response.add.len(), 1);
        let RouteAction::Redirect(last) = &routes[2].action else { panic!("{routes:#?}") };
        assert_eq!(
            (last.status, last.port, last.scheme.as_deref()),
            (307, None, Some("https")),
            "443 goes without saying"
        );
    }
}
