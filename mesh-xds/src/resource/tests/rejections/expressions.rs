//! The regular expressions of one resource have one bound, wherever they stand in it.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::{route::good, *};
use envoy_types::pb::envoy::{
    config::route::v3::{
        self as pb, HeaderMatcher, QueryParameterMatcher, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier, route::Action, route_match::PathSpecifier,
    },
    r#type::matcher::v3::{
        RegexMatchAndSubstitute, RegexMatcher, StringMatcher, string_matcher::MatchPattern,
    },
};

/// 8 MB of program, and a little more.
fn costly(i: usize) -> RegexMatcher {
    RegexMatcher { regex: format!("{}{i}", ".{1000}".repeat(8)), ..Default::default() }
}

/// A route for each expression.
fn routes(expressions: impl Iterator<Item = RegexMatcher>) -> pb::RouteConfiguration {
    let mut message = good();
    let host = &mut message.virtual_hosts[0];
    let route = host.routes.remove(0);
    host.routes.extend(expressions.map(|regex| {
        let mut route = route.clone();
        route.r#match.as_mut().unwrap().path_specifier = Some(PathSpecifier::SafeRegex(regex));
        route
    }));
    message
}

/// The message as bytes, read; and the bytes that this took at once.
fn read(message: &pb::RouteConfiguration) -> (Result<RouteConfiguration, ParseError>, u64) {
    let bytes = message.encode_to_vec();
    let mut result = None;
    let counted = allocation_counter::measure(|| {
        result = Some(RouteConfiguration::parse(&bytes, &context()));
    });
    (result.unwrap(), counted.bytes_max)
}

#[test]
fn a_resource_of_many_expressions_is_refused_in_little_memory() {
    let (result, bytes) = read(&routes((0..10_000).map(costly)));
    let error = result.unwrap_err();
    assert_eq!(error.name.as_deref(), Some("r"));
    let first = &error.rejected.faults[0];
    assert_eq!(first.path, "virtual_hosts[0].routes[8].match.safe_regex");
    let reason = "of one resource or request compile to more than 64 MiB";
    assert!(first.reason.contains(reason), "{error}");
    assert!(bytes < 160 << 20, "{bytes} bytes");
}

#[test]
fn an_expression_that_stands_there_often_is_compiled_once() {
    let (result, bytes) = read(&routes((0..10_000).map(|_| costly(0))));
    assert_eq!(result.unwrap().virtual_hosts[0].routes.len(), 10_000);
    assert!(bytes < 64 << 20, "{bytes} bytes");
}

#[test]
fn wherever_an_expression_stands_it_counts() {
    let mut message = routes((0..8).map(costly));
    let mut other = good().virtual_hosts[0].routes.remove(0);
    let matching = other.r#match.as_mut().unwrap();
    let string =
        |i| StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(costly(i))), ..Default::default() };
    matching.headers = [
        HeaderMatchSpecifier::SafeRegexMatch(costly(20)),
        HeaderMatchSpecifier::StringMatch(string(21)),
        HeaderMatchSpecifier::SafeRegexMatch(costly(7)),
    ]
    .map(|specifier| HeaderMatcher {
        name: "x".into(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    })
    .into();
    matching.query_parameters = vec![QueryParameterMatcher {
        name: "q".into(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(string(22))),
    }];
    let Some(Action::Route(action)) = &mut other.action else { panic!("no route action") };
    action.regex_rewrite =
        Some(RegexMatchAndSubstitute { pattern: Some(costly(23)), substitution: String::new() });
    message.virtual_hosts[0].routes.push(other);
    let faults = read(&message).0.unwrap_err().rejected.faults;
    let mut paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    paths.sort_unstable();
    let place = "virtual_hosts[0].routes[8]";
    assert_eq!(
        paths,
        [
            format!("{place}.match.headers[0].safe_regex_match"),
            format!("{place}.match.headers[1].string_match"),
            format!("{place}.match.query_parameters[0].string_match"),
            format!("{place}.route.regex_rewrite"),
        ]
    );
    assert!(faults.iter().all(|fault| fault.reason.contains("more than 64 MiB")), "{faults:?}");
}
