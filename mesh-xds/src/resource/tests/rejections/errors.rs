//! Which responses outlier detection takes for errors: the matchers that are understood, and those that are not.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::*;
use crate::resource::{
    Feature, Support,
    cluster::{HttpCodes, OutlierDetection},
};
use envoy_types::pb::envoy::{
    config::{
        cluster::v3 as pb,
        common::matcher::v3::{
            HttpHeadersMatch, MatchPredicate,
            match_predicate::{MatchSet, Rule},
        },
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier as Specifier},
    },
    extensions::upstreams::http::v3::{HttpProtocolOptions, http_protocol_options},
    r#type::{
        matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
        v3::Int64Range,
    },
};

const OPTIONS: &str = "typed_extension_protocol_options\
                       [\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"].outlier_detection";

/// A cluster with outlier detection, or without, and options of its connections.
fn cluster(outliers: bool, detection: http_protocol_options::OutlierDetection) -> Vec<u8> {
    let outlier_detection = outliers.then(OutlierDetection::default);
    let cluster = Cluster { outlier_detection, ..Cluster::eds("c") };
    let mut message = pb::Cluster::decode(cluster.to_proto()).unwrap();
    let options = message.typed_extension_protocol_options.values_mut().next().unwrap();
    let mut http = HttpProtocolOptions::decode(options.value.as_slice()).unwrap();
    http.outlier_detection = Some(detection);
    options.value = http.encode_to_vec();
    message.encode_to_vec()
}

fn matcher(rule: Option<Rule>) -> http_protocol_options::OutlierDetection {
    http_protocol_options::OutlierDetection { error_matcher: Some(MatchPredicate { rule }) }
}

fn errors(bytes: &[u8]) -> Result<Option<HttpCodes>, ParseError> {
    let cluster = Cluster::parse(bytes, &context())?;
    Ok(cluster.outlier_detection.and_then(|outlier| outlier.errors))
}

fn header(name: &str, specifier: Specifier, invert_match: bool) -> HeaderMatcher {
    let header_match_specifier = Some(specifier);
    HeaderMatcher { name: name.into(), header_match_specifier, invert_match, ..HeaderMatcher::default() }
}

fn headers(headers: Vec<HeaderMatcher>) -> Rule {
    Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers })
}

fn exact(code: &str) -> Rule {
    let match_pattern = Some(MatchPattern::Exact(code.into()));
    let specifier = Specifier::StringMatch(StringMatcher { match_pattern, ..StringMatcher::default() });
    headers(vec![header(":status", specifier, false)])
}

fn range(start: i64, end: i64) -> HeaderMatcher {
    header(":status", Specifier::RangeMatch(Int64Range { start, end }), false)
}

fn set(rules: Vec<Rule>) -> MatchSet {
    MatchSet { rules: rules.into_iter().map(|rule| MatchPredicate { rule: Some(rule) }).collect() }
}

fn not(rule: Rule) -> Rule {
    Rule::NotMatch(Box::new(MatchPredicate { rule: Some(rule) }))
}

#[test]
fn a_matcher_of_errors_becomes_the_codes_for_which_it_holds() {
    let regex =
        Specifier::SafeRegexMatch(RegexMatcher { regex: "50[0-2]".into(), ..RegexMatcher::default() });
    let cases = [
        // As Istio writes one code, and several.
        (exact("429"), "429"),
        (Rule::OrMatch(set(vec![exact("503"), exact("429"), exact("429")])), "429, 503"),
        (headers(vec![range(500, 505)]), "500-504"),
        (headers(vec![header(":status", Specifier::PrefixMatch("50".into()), false)]), "500-509"),
        (headers(vec![header(":Status", regex, false)]), "500-502"),
        (
            headers(vec![range(400, 600), header(":status", Specifier::PrefixMatch("4".into()), true)]),
            "500-599",
        ),
        (
            Rule::AndMatch(set(vec![headers(vec![range(400, 500)]), not(headers(vec![range(404, 499)]))])),
            "400-403, 499",
        ),
        (Rule::AnyMatch(true), "100-599"),
    ];
    for (rule, expected) in cases {
        let found = errors(&cluster(true, matcher(Some(rule)))).unwrap();
        assert_eq!(found.unwrap().to_string(), expected);
    }
}

#[test]
fn what_istio_writes_is_what_is_written() {
    for (codes, rule) in
        [(&[429][..], exact("429")), (&[429, 503], Rule::OrMatch(set(vec![exact("429"), exact("503")])))]
    {
        let outlier_detection = Some(OutlierDetection {
            errors: Some(codes.iter().copied().collect()),
            ..OutlierDetection::default()
        });
        let written = Cluster { outlier_detection, ..Cluster::eds("c") }.to_proto();
        let expected = Cluster::parse(&cluster(true, matcher(Some(rule.clone()))), &context()).unwrap();
        assert_eq!(written, expected.to_proto());
        let message = pb::Cluster::decode(written).unwrap();
        let options = message.typed_extension_protocol_options.values().next().unwrap();
        let http = HttpProtocolOptions::decode(options.value.as_slice()).unwrap();
        assert_eq!(http.outlier_detection, Some(matcher(Some(rule))));
    }
}

#[test]
fn without_a_matcher_or_without_detection_nothing_is_said() {
    assert_eq!(errors(&cluster(true, Default::default())).unwrap(), None);
    assert_eq!(errors(&cluster(false, matcher(Some(exact("429"))))).unwrap(), None);
}

#[test]
fn a_matcher_that_looks_at_more_than_the_status_is_refused_with_the_place() {
    let some = || HttpHeadersMatch { headers: vec![range(500, 600)] };
    let elsewhere = header("grpc-status", Specifier::PresentMatch(true), false);
    let cases = [
        (None, "", "asks for nothing"),
        (Some(Rule::OrMatch(set(vec![]))), ".or_match.rules", "is required"),
        (
            Some(Rule::AndMatch(set(vec![exact("1"), headers(vec![elsewhere.clone()])]))),
            ".and_match.rules[1].http_response_headers_match.headers[0].name",
            "`grpc-status` is not supported",
        ),
        (
            Some(not(headers(vec![elsewhere]))),
            ".not_match.http_response_headers_match.headers[0].name",
            "not",
        ),
        (Some(headers(vec![])), ".http_response_headers_match.headers", "is required"),
        (
            Some(headers(vec![range(2, 1)])),
            ".http_response_headers_match.headers[0].range_match",
            "2 is more",
        ),
        (Some(Rule::AnyMatch(false)), ".any_match", "must be true"),
        (Some(exact("600")), "", "no HTTP status of 100 to 599 matches"),
        (Some(Rule::HttpRequestHeadersMatch(some())), ".http_request_headers_match", "is not supported"),
        (Some(Rule::HttpRequestTrailersMatch(some())), ".http_request_trailers_match", "is not supported"),
        (Some(Rule::HttpResponseTrailersMatch(some())), ".http_response_trailers_match", "is not supported"),
        (
            Some(Rule::HttpRequestGenericBodyMatch(Default::default())),
            ".http_request_generic_body_match",
            "is not supported",
        ),
        (
            Some(Rule::HttpResponseGenericBodyMatch(Default::default())),
            ".http_response_generic_body_match",
            "is not supported",
        ),
    ];
    for (rule, place, reason) in cases {
        let faults = errors(&cluster(true, matcher(rule))).unwrap_err().rejected.faults;
        let [fault] = &*faults else { panic!("{faults:?}") };
        assert_eq!(fault.path, format!("{OPTIONS}.error_matcher{place}"));
        assert!(fault.reason.contains(reason), "{fault:?}");
    }
}

#[test]
fn a_data_path_that_does_not_look_at_the_codes_refuses_them() {
    let others: Vec<_> = Support::all().iter().filter(|one| *one != Feature::OutlierErrorCodes).collect();
    let lacking = ParseContext { support: Support::of(&others), ..context() };
    let refused = Cluster::parse(&cluster(true, matcher(Some(exact("429")))), &lacking).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("does not have outlier-error-codes") && text.contains(OPTIONS), "{text}");
}
