//! An explanation and the data path agree.

use super::*;
use crate::table::testing::{config, forward, http, route};
use ::http::{HeaderMap, HeaderName, HeaderValue};
use mesh_xds::matcher::{HeaderMatcher, HeaderOrPseudo, PathMatcher, StringMatcher};
use proptest::prelude::*;

type Condition = (PathMatcher, Option<HeaderMatcher>);

fn condition() -> impl Strategy<Value = Condition> {
    let word = || "[ab]{0,2}";
    let path = (word(), word(), 0..3).prop_map(|(service, method, kind)| match kind {
        0 => PathMatcher::exact(&format!("/{service}/{method}"), false),
        1 => PathMatcher::prefix(&format!("/{service}"), false),
        _ => PathMatcher::prefix(&format!("/{service}/"), true),
    });
    let name = || HeaderOrPseudo::parse("x").unwrap();
    let header = (word(), any::<bool>()).prop_map(move |(value, invert)| {
        let matcher = HeaderMatcher::string(name(), StringMatcher::exact(&value, false));
        if invert { matcher.inverted() } else { matcher }
    });
    (path, prop::option::of(header))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_route_that_is_explained_is_the_route_that_calls_take(
        conditions in prop::collection::vec(condition(), 0..24),
        path in "/[ab]{0,2}/[ab]{0,2}",
        header in prop::option::of("[ab]{0,2}"),
    ) {
        let routes = conditions.into_iter().map(|(path, header)| {
            let mut route = route(path, forward("c"));
            route.matches.headers.extend(header);
            route
        });
        let config = config(http(), routes.collect());
        let table = RouteTable::build(&config, |_| Arc::new(()));
        let pair = |value: &String| (HeaderName::from_static("x"), HeaderValue::from_str(value).unwrap());
        let map: HeaderMap = header.iter().map(pair).collect();
        let request = Headers { map: &map, authority: "reviews:9080", path: &path, scheme: "http" };

        let taken = table.route(&request, None, || fastrand::Rng::with_seed(1));
        let taken = taken.and_then(|taken| {
            config.virtual_host.routes.iter().position(|route| Arc::ptr_eq(route, &taken.route))
        });
        let explanation = explain(Ok(&config), &request, None, "test");
        prop_assert_eq!(explanation.decisions.first().map(|decision| decision.route), taken);
        prop_assert_eq!(explanation.is_routed(), taken.is_some());
        for (index, route) in explanation.routes.iter().enumerate() {
            let expected = match taken {
                Some(taken) if index == taken => "matched",
                Some(taken) if index > taken => "not_reached",
                _ => "rejected",
            };
            let json = serde_json::to_value(route).unwrap();
            prop_assert_eq!(json["verdict"].as_str(), Some(expected));
        }
    }
}
