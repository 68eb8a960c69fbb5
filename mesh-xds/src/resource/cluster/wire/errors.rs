//! Which responses outlier detection takes for errors (Envoy's `error_matcher`), to and from protobuf.
//!
//! The matcher becomes the set of HTTP codes for which it holds, so it may look at `:status` alone. What Istio makes
//! of `outlierDetectionHttpErrorCodes` is one of the forms that are understood, and the one that is written.

use crate::{
    field_path::{Faults, Path},
    resource::{Feature, ParseContext, cluster::HttpCodes, wire},
};
use envoy_types::pb::envoy::{
    config::{
        common::matcher::v3::{
            HttpHeadersMatch, MatchPredicate,
            match_predicate::{MatchSet, Rule},
        },
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    extensions::upstreams::http::v3::http_protocol_options::OutlierDetection,
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

const STATUS: &str = ":status";

/// `None` inside when nothing is said: HTTP 5xx.
pub(super) fn parse(
    proto: Option<&OutlierDetection>,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<HttpCodes>> {
    let Some(matcher) = proto.and_then(|proto| proto.error_matcher.as_ref()) else { return Some(None) };
    let at = at.field("outlier_detection");
    let at = at.field("error_matcher");
    context.support.require(Feature::OutlierErrorCodes, &at, faults)?;
    let codes = predicate(matcher, &at, faults)?;
    if codes.is_empty() {
        return faults.reject(&at, "no HTTP status of 100 to 599 matches: nothing would be an error");
    }
    Some(Some(codes))
}

fn predicate(proto: &MatchPredicate, at: &Path<'_>, faults: &mut Faults) -> Option<HttpCodes> {
    let unsupported = |field: &str, faults: &mut Faults| {
        faults.reject(&at.field(field), "is not supported: what an error is follows from the HTTP status")
    };
    match &proto.rule {
        Some(Rule::OrMatch(set)) => {
            let all = rules(set, &at.field("or_match"), faults)?;
            Some(those(|code| all.iter().any(|codes| codes.contains(code))))
        }
        Some(Rule::AndMatch(set)) => {
            let all = rules(set, &at.field("and_match"), faults)?;
            Some(in_all(&all))
        }
        Some(Rule::NotMatch(rule)) => {
            let codes = predicate(rule, &at.field("not_match"), faults)?;
            Some(those(|code| !codes.contains(code)))
        }
        Some(Rule::AnyMatch(true)) => Some(those(|_| true)),
        Some(Rule::AnyMatch(false)) => faults.reject(&at.field("any_match"), "must be true"),
        Some(Rule::HttpResponseHeadersMatch(headers)) => {
            response(headers, &at.field("http_response_headers_match"), faults)
        }
        Some(Rule::HttpResponseTrailersMatch(_)) => unsupported("http_response_trailers_match", faults),
        Some(Rule::HttpResponseGenericBodyMatch(_)) => {
            unsupported("http_response_generic_body_match", faults)
        }
        Some(Rule::HttpRequestHeadersMatch(_)) => unsupported("http_request_headers_match", faults),
        Some(Rule::HttpRequestTrailersMatch(_)) => unsupported("http_request_trailers_match", faults),
        Some(Rule::HttpRequestGenericBodyMatch(_)) => unsupported("http_request_generic_body_match", faults),
        // Or a kind of the future, which only looks absent.
        None => faults.reject(at, "asks for nothing that this version knows"),
    }
}

fn rules(set: &MatchSet, at: &Path<'_>, faults: &mut Faults) -> Option<Vec<HttpCodes>> {
    let at = at.field("rules");
    if set.rules.is_empty() {
        return faults.reject(&at, "is required");
    }
    wire::every(&set.rules, &at, faults, predicate)
}

/// All of the headers have to match.
fn response(proto: &HttpHeadersMatch, at: &Path<'_>, faults: &mut Faults) -> Option<HttpCodes> {
    let at = at.field("headers");
    if proto.headers.is_empty() {
        return faults.reject(&at, "is required");
    }
    let all = wire::every(&proto.headers, &at, faults, status)?;
    Some(in_all(&all))
}

fn status(proto: &HeaderMatcher, at: &Path<'_>, faults: &mut Faults) -> Option<HttpCodes> {
    if !proto.name.eq_ignore_ascii_case(STATUS) {
        let reason = format!("`{}` is not supported: what an error is follows from `{STATUS}`", proto.name);
        return faults.reject(&at.field("name"), reason);
    }
    let wanted = wire::header_match(proto, at, faults)?;
    Some(those(|code| wanted.matches(code.to_string().as_bytes()) != proto.invert_match))
}

/// The codes that satisfy this.
fn those(matches: impl Fn(u16) -> bool) -> HttpCodes {
    HttpCodes::RANGE.filter(|code| matches(*code)).collect()
}

fn in_all(sets: &[HttpCodes]) -> HttpCodes {
    those(|code| sets.iter().all(|codes| codes.contains(code)))
}

/// As Istio writes it: one matcher for each code.
pub(super) fn encode(codes: &HttpCodes) -> OutlierDetection {
    let rule = |code: u16| MatchPredicate {
        rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch {
            headers: vec![HeaderMatcher {
                name: STATUS.into(),
                header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
                    match_pattern: Some(MatchPattern::Exact(code.to_string())),
                    ..StringMatcher::default()
                })),
                ..HeaderMatcher::default()
            }],
        })),
    };
    let mut rules: Vec<_> = codes.iter().map(rule).collect();
    let one = if rules.len() == 1 { rules.pop() } else { None };
    let all = || MatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) };
    OutlierDetection { error_matcher: Some(one.unwrap_or_else(all)) }
}
