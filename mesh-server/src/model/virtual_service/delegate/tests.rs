//! What a root's route becomes when the routes of a delegate take its place.

use super::*;
use crate::model::ClientScope;
use crate::model::fixture::config;

/// The routes of `a` to a client in the root's namespace: uri, name, timeout in ms and first destination each.
fn routes(root: &str, delegate: &str) -> Vec<String> {
    let object = |name: &str, namespace: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: \
             {namespace}}}\nspec: {spec}\n---\n"
        )
    };
    let root = object("root", "shop", &format!("{{hosts: [a], http: [{root}]}}"));
    let config = config(&format!("{root}{}", object("delegate", "team", delegate)));
    let client = ClientScope { namespace: "shop".into(), ..ClientScope::default() };
    let Some(object) = config.virtual_service_for(&client, "a.shop.svc.cluster.local") else {
        return Vec::new();
    };
    let shown = |route: &crate::model::EffectiveRoute<'_>| {
        let uri = route.matched.and_then(|matched| matched.uri.clone());
        let uri = match &uri {
            None => "any".to_owned(),
            Some(StringMatch::Exact(text)) => format!("={text}"),
            Some(StringMatch::Prefix(text)) => format!("{text}*"),
            Some(other) => format!("{other:?}"),
        };
        let timeout = route.route.timeout.map_or(0, |timeout| timeout.as_millis());
        let host = &route.route.destinations()[0].destination.host.value;
        format!("{uri} {} {timeout} {host}", route.route.name.as_deref().unwrap_or("-"))
    };
    object.routes_for(&client).iter().map(shown).collect()
}

const TO: &str = "{name: delegate, namespace: team}";

#[test]
fn the_routes_of_the_delegate_stand_in_the_place_of_the_one_that_names_it() {
    let root = format!(
        "{{name: shop, match: [{{uri: {{prefix: /shop}}}}], delegate: {TO}, timeout: 2s}}, \
         {{route: [{{destination: {{host: rest}}}}]}}"
    );
    let delegate = "{http: [\
         {name: cart, match: [{uri: {exact: /shop/cart}}], timeout: 1s, route: [{destination: {host: cart}}]}, \
         {route: [{destination: {host: front.shop.svc.cluster.local}}]}]}";
    assert_eq!(
        routes(&root, delegate),
        [
            "=/shop/cart shop-cart 1000 cart.team.svc.cluster.local",
            "/shop* shop 2000 front.shop.svc.cluster.local",
            "any - 0 rest.shop.svc.cluster.local",
        ],
        "short names are the delegate's, what it does not say is the root's"
    );
}

#[test]
fn a_route_outside_of_what_is_delegated_is_left_out() {
    let root = format!("{{match: [{{uri: {{prefix: /shop}}}}], delegate: {TO}}}");
    let to_b = "route: [{destination: {host: b}}]";
    for outside in ["{prefix: /}", "{exact: /other}", "{regex: '/shop.*'}"] {
        assert_eq!(routes(&root, &format!("{{http: [{{match: [{{uri: {outside}}}], {to_b}}}]}}")), [""; 0]);
    }
    let second =
        format!("{{http: [{{match: [{{uri: {{exact: /shop/a}}}}, {{uri: {{exact: /b}}}}], {to_b}}}]}}");
    assert_eq!(routes(&root, &second), [""; 0], "one match outside costs the whole route, as in Istio");
}

#[test]
fn a_match_is_merged_with_each_of_the_roots_that_has_room_for_it() {
    let root = format!(
        "{{match: [{{uri: {{prefix: /a}}, headers: {{x: {{exact: one}}}}}}, {{uri: {{prefix: /a/b}}}}, \
         {{uri: {{prefix: /c}}}}], delegate: {TO}}}"
    );
    let delegate = "{http: [{match: [{uri: {exact: /a/b/c}, withoutHeaders: {y: {}}}], \
                    route: [{destination: {host: b}}]}]}";
    assert_eq!(
        routes(&root, delegate),
        ["=/a/b/c - 0 b.team.svc.cluster.local", "=/a/b/c - 0 b.team.svc.cluster.local"]
    );
}

#[test]
fn a_delegate_that_may_not_be_used_costs_only_the_route_that_names_it() {
    let rest = "{route: [{destination: {host: rest}}]}";
    let own = "http: [{route: [{destination: {host: b}}]}]";
    let root = format!("{{match: [{{uri: {{prefix: /a}}}}], delegate: {TO}}}, {rest}");
    for delegate in [format!("{{exportTo: [.], {own}}}"), format!("{{hosts: [b], {own}}}")] {
        assert_eq!(routes(&root, &delegate), ["any - 0 rest.shop.svc.cluster.local"], "{delegate}");
    }
    let missing = format!("{{match: [{{uri: {{prefix: /a}}}}], delegate: {{name: nobody}}}}, {rest}");
    assert_eq!(routes(&missing, &format!("{{{own}}}")), ["any - 0 rest.shop.svc.cluster.local"]);
}

#[test]
fn conditions_narrow_or_repeat_and_regular_expressions_do_neither() {
    let exact = |text: &str| StringMatch::Exact(text.into());
    let prefix = |text: &str| StringMatch::Prefix(text.into());
    let regex = StringMatch::Regex(crate::model::Pattern::parse("a.*").unwrap());
    for (own, root, expected) in [
        (exact("ab"), exact("ab"), true),
        (exact("ab"), exact("a"), false),
        (exact("ab"), prefix("a"), true),
        (prefix("ab"), prefix("a"), true),
        (prefix("a"), prefix("ab"), false),
        (prefix("a"), exact("a"), false),
        (exact("ab"), StringMatch::Present, true),
        (StringMatch::Present, exact("ab"), false),
        (regex.clone(), StringMatch::Present, true),
        (regex.clone(), regex.clone(), false),
        (exact("ab"), regex, false),
    ] {
        assert_eq!(narrows(&own, &root), expected, "{own:?} within {root:?}");
    }
}
