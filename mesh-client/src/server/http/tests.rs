//! Routes, filters and their overrides, and the rules of access (gRFC A36, A39, A41), judged without a socket.

use super::*;
use crate::server::{
    connection::{PeerIdentity, Security},
    filter_chain::Chain,
};
use http::HeaderMap;
use mesh_ca::certificate::PeerCertificate;
use mesh_xds::{
    config::XdsErrorCause,
    matcher::{Fraction, HeaderMatcher, HeaderOrPseudo, PathMatcher, StringMatcher},
    name::ResourceType,
    resource::{
        rbac::{Permission, Policy, Principal, RbacAction, Rules},
        route::HeaderMutations,
        tls::DownstreamTls,
    },
};
use std::{net::SocketAddr, sync::Weak};

const PATH: &str = "/bookinfo.Reviews/Get";

fn route(name: &str, path: PathMatcher, action: RouteAction) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch { path, headers: Vec::new(), query: Vec::new(), fraction: None },
        action,
        overrides: FilterOverrides::new(),
        headers: HeaderMutations::default(),
        origin: None,
    }
}

fn open() -> Route {
    route("open", PathMatcher::any(), RouteAction::NonForwarding)
}

fn host(domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: domains.concat().into(),
        domains: domains.iter().map(|domain| DomainPattern::parse(domain).unwrap()).collect(),
        routes: routes.into_iter().map(Arc::new).collect(),
        retry: None,
        hedge: None,
        overrides: FilterOverrides::new(),
        headers: HeaderMutations::default(),
    }
}

fn rules(action: RbacAction, policies: Vec<(Permission, Principal)>) -> FilterConfig {
    let policies = policies.into_iter().enumerate().map(|(i, (permission, principal))| {
        let policy = Policy { permissions: vec![permission], principals: vec![principal] };
        (Arc::from(format!("policy-{i}")), policy)
    });
    let rules = Rules { action, policies: policies.collect(), audit: None };
    FilterConfig::Rbac(Arc::new(Rbac { rules: Some(rules) }))
}

fn deny_all() -> FilterConfig {
    rules(RbacAction::Allow, vec![])
}

fn allow_all() -> FilterConfig {
    rules(RbacAction::Allow, vec![(Permission::Any, Principal::Any)])
}

fn filter(name: &str, config: FilterConfig) -> HttpFilter {
    HttpFilter { name: name.into(), config, disabled: false }
}

fn http(hosts: Vec<VirtualHost>, filters: Vec<HttpFilter>) -> Http {
    let config = RouteConfiguration::new("inline".into(), hosts.into_iter().map(Arc::new).collect());
    let routes = RouteSource::Inline(Arc::new(config));
    let manager = HttpConnectionManager { routes, filters, max_stream_duration: None };
    Http::new(&manager, &Routes::new())
}

fn connection(security: Security) -> Connection {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let chain =
        Chain { name: "".into(), matches: Default::default(), tls: None, http: Http::broken("a test") };
    Connection::new(
        Weak::new(),
        address("[::ffff:10.0.0.7]:5"),
        address("10.0.0.1:9080"),
        security,
        None,
        Arc::new(chain),
    )
}

/// The verdict on a call of [`PATH`].
fn judge(http: &Http, authority: &str, headers: &HeaderMap) -> Verdict {
    judge_over(http, &connection(Security::Plaintext), authority, headers)
}

fn judge_over(http: &Http, connection: &Connection, authority: &str, map: &HeaderMap) -> Verdict {
    let headers = Headers { map, authority, path: PATH, scheme: "http" };
    http.judge(&Call { headers, connection })
}

fn served(http: &Http) -> bool {
    judge(http, "reviews:9080", &HeaderMap::new()) == Verdict::Serve
}

#[test]
fn the_virtual_host_is_chosen_by_the_authority_and_the_longest_pattern() {
    let named = |name: &'static str| vec![route(name, PathMatcher::any(), RouteAction::Unsupported(name))];
    let http = http(
        vec![
            host(&["*"], named("any")),
            host(&["reviews.*"], named("prefix")),
            host(&["*.local:9080"], named("suffix")),
            host(&["*.cluster.local:9080"], named("longer suffix")),
            host(&["reviews.cluster.local:9080"], named("exact")),
        ],
        vec![],
    );
    for (authority, expected) in [
        ("Reviews.cluster.local:9080", "exact"),
        ("ratings.cluster.local:9080", "longer suffix"),
        ("ratings.local:9080", "suffix"),
        ("reviews.example:1", "prefix"),
        ("elsewhere", "any"),
        ("", "any"),
    ] {
        let Verdict::Unavailable(why) = judge(&http, authority, &HeaderMap::new()) else { panic!() };
        assert!(why.contains(&format!("{expected:?}")), "{authority}: {why}");
    }
}

#[test]
fn a_call_without_virtual_host_or_route_is_refused() {
    let other = route("other", PathMatcher::exact("/a/b", false), RouteAction::NonForwarding);
    let refused = |http: &Http| matches!(judge(http, "reviews", &HeaderMap::new()), Verdict::Unavailable(_));
    assert!(refused(&http(vec![host(&["ratings"], vec![open()])], vec![])));
    assert!(refused(&http(vec![host(&["*"], vec![other])], vec![])));
    assert!(refused(&http(vec![], vec![])));
}

#[test]
fn only_a_non_forwarding_route_is_served_and_denial_comes_first() {
    let redirect =
        || vec![host(&["*"], vec![route("r", PathMatcher::any(), RouteAction::Unsupported("redirect"))])];
    let verdict = judge(&http(redirect(), vec![]), "reviews", &HeaderMap::new());
    assert!(matches!(&verdict, Verdict::Unavailable(why) if why.contains("redirect")), "{verdict:?}");
    let verdict = judge(&http(redirect(), vec![filter("rbac", deny_all())]), "reviews", &HeaderMap::new());
    assert_eq!(verdict, Verdict::Denied { filter: "rbac".into(), policy: None });
}

#[test]
fn missing_routes_refuse_every_call_and_say_which() {
    let manager = HttpConnectionManager {
        routes: RouteSource::Rds("inbound".into()),
        filters: vec![],
        max_stream_duration: None,
    };
    let missing = Http::new(&manager, &Routes::new());
    assert!(missing.broken_by().unwrap().contains("inbound"));
    assert!(!served(&missing));
    let error = XdsError {
        resource_type: ResourceType::RouteConfiguration,
        name: "inbound".into(),
        cause: XdsErrorCause::Rejected("virtual_hosts[0]: no".into()),
        server: "xds".into(),
        node: "n".into(),
    };
    let rejected = Http::new(&manager, &Routes::from([("inbound".into(), Err(error))]));
    assert!(rejected.broken_by().unwrap().contains("virtual_hosts[0]"));
    assert!(!served(&rejected));
}

#[test]
fn the_most_specific_override_replaces_a_filter() {
    let with = |config: FilterConfig,
                host_override: Option<FilterOverride>,
                route_override: Option<FilterOverride>| {
        let mut guarded = open();
        guarded.overrides.extend(route_override.map(|o| (Arc::from("rbac"), o)));
        let mut host = host(&["*"], vec![guarded]);
        host.overrides.extend(host_override.map(|o| (Arc::from("rbac"), o)));
        served(&http(vec![host], vec![filter("rbac", config), filter("router", FilterConfig::Router)]))
    };
    let config = |config| Some(FilterOverride::Config(config));
    let off = || Some(FilterOverride::Disabled);
    assert!(!with(deny_all(), None, None));
    assert!(with(deny_all(), config(allow_all()), None));
    assert!(with(deny_all(), None, config(allow_all())));
    assert!(!with(allow_all(), config(allow_all()), config(deny_all())));
    assert!(with(allow_all(), config(deny_all()), config(allow_all())));
    assert!(with(deny_all(), off(), None));
    assert!(!with(deny_all(), off(), config(deny_all())), "the route turns it on again");
    assert!(with(deny_all(), config(deny_all()), off()));
}

#[test]
fn a_filter_that_is_off_acts_only_where_an_override_turns_it_on() {
    let off = HttpFilter { disabled: true, ..filter("rbac", deny_all()) };
    assert!(served(&http(vec![host(&["*"], vec![open()])], vec![off.clone()])));
    let mut guarded = open();
    guarded.overrides.insert("rbac".into(), FilterOverride::Config(deny_all()));
    assert!(!served(&http(vec![host(&["*"], vec![guarded])], vec![off])));
}

#[test]
fn an_override_for_another_name_changes_nothing_and_one_of_another_type_refuses() {
    let mut other = open();
    other.overrides.insert("somebody else".into(), FilterOverride::Disabled);
    assert!(!served(&http(vec![host(&["*"], vec![other])], vec![filter("rbac", deny_all())])));
    let mut wrong = open();
    wrong.overrides.insert("rbac".into(), FilterOverride::Config(FilterConfig::Router));
    assert!(!served(&http(vec![host(&["*"], vec![wrong])], vec![filter("rbac", allow_all())])));
}

#[test]
fn every_filter_must_let_a_call_pass_and_one_without_rules_does() {
    let hosts = || vec![host(&["*"], vec![open()])];
    let two = |a, b| served(&http(hosts(), vec![filter("a", a), filter("b", b)]));
    assert!(two(allow_all(), allow_all()));
    assert!(!two(allow_all(), deny_all()));
    assert!(!two(deny_all(), allow_all()));
    assert!(two(FilterConfig::Rbac(Arc::new(Rbac { rules: None })), allow_all()));
}

#[test]
fn a_route_matches_only_when_all_of_it_does() {
    let matched = |change: fn(&mut RouteMatch)| {
        let mut route = open();
        change(&mut route.matches);
        served(&http(vec![host(&["*"], vec![route])], vec![]))
    };
    assert!(matched(|_| {}));
    assert!(!matched(|m| m.headers.push(HeaderMatcher::present(HeaderOrPseudo::parse("end-user").unwrap()))));
    assert!(!matched(|m| m
        .query
        .push(mesh_xds::resource::route::QueryMatcher { name: "q".into(), value: None })));
    assert!(!matched(|m| m.fraction = Some(Fraction::ZERO)));
    assert!(matched(|m| m.fraction = Some(Fraction::ONE)));
}

/// Whether a rule for one permission and one principal matches, seen through both actions.
fn rule_matches(
    permission: Permission,
    principal: Principal,
    connection: &Connection,
    headers: &HeaderMap,
) -> bool {
    let verdict = |action| {
        let rbac = rules(action, vec![(permission.clone(), principal.clone())]);
        let http = http(vec![host(&["*"], vec![open()])], vec![filter("rbac", rbac)]);
        judge_over(&http, connection, "reviews:9080", headers) == Verdict::Serve
    };
    let (allowed, denied) = (verdict(RbacAction::Allow), !verdict(RbacAction::Deny));
    assert_eq!(allowed, denied, "ALLOW and DENY disagree about {permission:?}, {principal:?}");
    allowed
}

#[test]
fn permissions_look_at_the_call_and_at_where_it_came_to() {
    let plaintext = connection(Security::Plaintext);
    let mut headers = HeaderMap::new();
    headers.append("x", "1".parse().unwrap());
    headers.append("x", "2".parse().unwrap());
    let exact = |value: &str| StringMatcher::exact(value, false);
    let header = |name: &str, value: &str| {
        Permission::Header(HeaderMatcher::string(HeaderOrPseudo::parse(name).unwrap(), exact(value)))
    };
    let matches = |permission| rule_matches(permission, Principal::Any, &plaintext, &headers);
    for (permission, expected) in [
        (Permission::Any, true),
        (Permission::UrlPath(exact(PATH)), true),
        (Permission::UrlPath(exact("/bookinfo.Reviews")), false),
        (Permission::DestinationPort(9080..=9080), true),
        (Permission::DestinationPort(80..=9079), false),
        (Permission::DestinationIp("10.0.0.0/8".parse().unwrap()), true),
        (Permission::DestinationIp("192.168.0.0/16".parse().unwrap()), false),
        (Permission::RequestedServerName(exact("")), true),
        (Permission::RequestedServerName(exact("reviews")), false),
        (Permission::Metadata { invert: false }, false),
        (Permission::Metadata { invert: true }, true),
        (header("x", "1,2"), true),
        (header("x", "1"), false),
        (header(":method", "POST"), true),
        (header(":path", PATH), true),
        (header("host", "reviews:9080"), true),
        (header("absent", ""), false),
        (Permission::Not(Box::new(Permission::Any)), false),
        (Permission::And(vec![Permission::Any, Permission::Metadata { invert: false }]), false),
        (Permission::Or(vec![Permission::Any, Permission::Metadata { invert: false }]), true),
    ] {
        assert_eq!(matches(permission.clone()), expected, "{permission:?}");
    }
}

#[test]
fn principals_look_at_who_calls_and_from_where() {
    let authority = crate::testing::authority();
    let identity = crate::testing::ending(&authority, "productpage", std::time::Duration::from_secs(60));
    let der = identity.current().unwrap().svid().chain()[0].clone();
    let peer = Some(PeerIdentity::verified(PeerCertificate::from_der(&der).unwrap()));
    let context = DownstreamTls {
        identity: "default".into(),
        client_roots: Some("default".into()),
        require_client_certificate: false,
    };
    let known = connection(Security::Tls { context: context.clone(), peer });
    let anonymous = connection(Security::Tls { context, peer: None });
    let plaintext = connection(Security::Plaintext);
    let named = |matcher| Principal::Authenticated(Some(matcher));
    let productpage =
        || named(StringMatcher::exact("spiffe://cluster.local/ns/default/sa/productpage", false));
    let not = |principal| Principal::Not(Box::new(principal));
    let empty = HeaderMap::new();
    for (principal, of_known, of_stranger) in [
        (Principal::Any, true, true),
        (Principal::Authenticated(None), true, false),
        (productpage(), true, false),
        (named(StringMatcher::suffix("/sa/productpage", false).unwrap()), true, false),
        (named(StringMatcher::exact("spiffe://cluster.local/ns/default/sa/ratings", false)), false, false),
        // A stranger has the empty name, so what is negated admits it.
        (not(productpage()), false, true),
        (named(StringMatcher::exact("", false)), false, true),
        (Principal::RemoteIp("10.0.0.7/32".parse().unwrap()), true, true),
        (Principal::RemoteIp("10.0.0.8/32".parse().unwrap()), false, false),
        (Principal::UrlPath(StringMatcher::exact(PATH, false)), true, true),
        (Principal::Metadata { invert: true }, true, true),
        (Principal::And(vec![Principal::Any, productpage()]), true, false),
        (Principal::Or(vec![Principal::Metadata { invert: false }, productpage()]), true, false),
    ] {
        let matches = |connection| rule_matches(Permission::Any, principal.clone(), connection, &empty);
        assert_eq!(matches(&known), of_known, "{principal:?}");
        assert_eq!(matches(&anonymous), of_stranger, "{principal:?}, anonymous");
        assert_eq!(matches(&plaintext), of_stranger, "{principal:?}, plaintext");
    }
}

#[test]
fn a_denial_names_the_policy_and_its_filter() {
    let deny = rules(
        RbacAction::Deny,
        vec![(Permission::Metadata { invert: false }, Principal::Any), (Permission::Any, Principal::Any)],
    );
    let http = http(vec![host(&["*"], vec![open()])], vec![filter("ns[x]", deny)]);
    let verdict = judge(&http, "reviews", &HeaderMap::new());
    assert_eq!(verdict, Verdict::Denied { filter: "ns[x]".into(), policy: Some("policy-1".into()) });
}
