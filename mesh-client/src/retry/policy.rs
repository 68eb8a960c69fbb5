//! Which outcomes are retried (gRFC A44's codes and Envoy's further conditions). Pure.
//!
//! What each word of `retry_on` means for a gRPC call stands in `docs/retries.md`, which a test here holds to what the
//! code does. An outcome that was decided here, by a circuit breaker or a drop, is never retried: repeating it would
//! defeat it.

use super::codes::Codes;
use crate::cluster::{AttemptErrorKind, answer::GRPC_STATUS};
use http::{HeaderMap, HeaderName, StatusCode};
use mesh_xds::{
    matcher::Headers,
    resource::retry::{RetryOn, RetryPolicy},
};
use tonic::Code;

const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// Whether the request may be retried at all.
pub(crate) fn applies(policy: &RetryPolicy, request: &Headers<'_>) -> bool {
    let wanted = &policy.retriable_request_headers;
    wanted.is_empty() || wanted.iter().any(|matcher| matcher.matches(request))
}

/// Whether a response is retried. Only one without messages can be: its status is in its headers.
pub(crate) fn response(policy: &RetryPolicy, status: StatusCode, headers: &HeaderMap) -> bool {
    if headers.contains_key(OVERLOADED) {
        return false;
    }
    let on = policy.on;
    let http = status.as_u16();
    (on.server_error && status.is_server_error())
        || (on.gateway_error && matches!(http, 502..=504))
        || (on.retriable_4xx && http == 409)
        || (on.retriable_status_codes && policy.retriable_status_codes.contains(&http))
        || (on.envoy_ratelimited && headers.contains_key(RATE_LIMITED))
        || (on.retriable_headers && {
            let seen = Headers { map: headers, authority: "", path: "", scheme: "" };
            policy.retriable_headers.iter().any(|matcher| matcher.matches(&seen))
        })
        || code(status, headers).is_some_and(|code| codes(on).has(code))
}

/// Whether an attempt without a response is retried.
pub(crate) fn failure(on: RetryOn, kind: AttemptErrorKind, code: Code) -> bool {
    let broken = on.reset || on.server_error || on.gateway_error;
    let named = codes(on).has(code);
    match kind {
        AttemptErrorKind::LocalOverflow
        | AttemptErrorKind::Dropped
        | AttemptErrorKind::SessionLost
        | AttemptErrorKind::RequestBody => false,
        AttemptErrorKind::DeadlineExceeded => broken || on.deadline_exceeded,
        // Envoy counts a connection that was not made as a reset, too.
        AttemptErrorKind::NoEndpoint | AttemptErrorKind::NeverSent => {
            broken || on.connect_failure || on.reset_before_request || named
        }
        AttemptErrorKind::RefusedStream => broken || on.refused_stream || on.reset_before_request || named,
        AttemptErrorKind::Reset => broken || named,
    }
}

/// The statuses that the words name.
pub(crate) fn codes(on: RetryOn) -> Codes {
    let all = [
        (on.cancelled, Code::Cancelled),
        (on.deadline_exceeded, Code::DeadlineExceeded),
        (on.internal, Code::Internal),
        (on.resource_exhausted, Code::ResourceExhausted),
        (on.unavailable, Code::Unavailable),
    ];
    all.into_iter().filter(|(named, _)| *named).map(|(_, code)| code).collect()
}

/// The gRPC status that is known when the headers are: the one in them, else what the HTTP status means.
pub(crate) fn code(status: StatusCode, headers: &HeaderMap) -> Option<Code> {
    if let Some(code) = headers.get(GRPC_STATUS) {
        return Some(Code::from_bytes(code.as_bytes()));
    }
    (status != StatusCode::OK).then(|| of_http(status.as_u16()))
}

/// gRPC's mapping of HTTP status codes.
pub(crate) fn of_http(status: u16) -> Code {
    match status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    mod words;

    use super::*;
    use crate::table::testing::retry_policy;
    use http::HeaderValue;
    use mesh_xds::matcher::{HeaderMatcher, HeaderOrPseudo, StringMatcher};

    fn headers(entries: &[(&'static str, &'static str)]) -> HeaderMap {
        entries.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn each_code_is_retried_when_it_is_named_and_only_then() {
        let all = RetryOn {
            cancelled: true,
            deadline_exceeded: true,
            internal: true,
            resource_exhausted: true,
            unavailable: true,
            ..RetryOn::default()
        };
        for (code, retried) in [
            ("1", true),
            ("4", true),
            ("8", true),
            ("13", true),
            ("14", true),
            ("0", false),
            ("2", false),
            ("5", false),
            ("x", false),
        ] {
            let map = headers(&[("grpc-status", code)]);
            assert_eq!(response(&retry_policy(all), StatusCode::OK, &map), retried, "{code}");
            assert!(!response(&retry_policy(RetryOn::default()), StatusCode::OK, &map));
        }
        assert!(!response(&retry_policy(all), StatusCode::OK, &headers(&[])), "a response with messages");
        assert!(response(&retry_policy(all), StatusCode::SERVICE_UNAVAILABLE, &headers(&[])));
        assert!(!response(&retry_policy(all), StatusCode::INTERNAL_SERVER_ERROR, &headers(&[])), "UNKNOWN");
    }

    #[test]
    fn envoys_conditions_look_at_the_http_status_and_the_headers() {
        let on = |set: fn(&mut RetryOn)| {
            let mut on = RetryOn::default();
            set(&mut on);
            retry_policy(on)
        };
        let none = headers(&[]);
        let of = |policy: &RetryPolicy, status: u16| {
            response(policy, StatusCode::from_u16(status).unwrap(), &none)
        };
        let (server, gateway) = (on(|on| on.server_error = true), on(|on| on.gateway_error = true));
        assert!(of(&server, 500) && of(&server, 503) && !of(&server, 499));
        assert!(!of(&gateway, 500) && of(&gateway, 502) && of(&gateway, 504) && !of(&gateway, 505));
        assert!(of(&on(|on| on.retriable_4xx = true), 409));
        let mut codes = on(|on| on.retriable_status_codes = true);
        codes.retriable_status_codes = vec![418];
        assert!(of(&codes, 418) && !of(&codes, 419));
        let limited = headers(&[("x-envoy-ratelimited", "true")]);
        assert!(response(&on(|on| on.envoy_ratelimited = true), StatusCode::OK, &limited));
        let mut named = on(|on| on.retriable_headers = true);
        named.retriable_headers = vec![HeaderMatcher::string(
            HeaderOrPseudo::parse("x-again").unwrap(),
            StringMatcher::exact("yes", false),
        )];
        assert!(response(&named, StatusCode::OK, &headers(&[("x-again", "yes")])));
        assert!(!response(&named, StatusCode::OK, &headers(&[("x-again", "no")])));
        let overloaded = headers(&[("x-envoy-overloaded", "true")]);
        assert!(!response(&server, StatusCode::SERVICE_UNAVAILABLE, &overloaded), "never when overloaded");
    }

    #[test]
    fn what_was_decided_here_is_never_retried() {
        let everything = RetryOn {
            cancelled: true,
            deadline_exceeded: true,
            internal: true,
            resource_exhausted: true,
            unavailable: true,
            server_error: true,
            gateway_error: true,
            reset: true,
            reset_before_request: true,
            connect_failure: true,
            refused_stream: true,
            retriable_4xx: true,
            retriable_status_codes: true,
            retriable_headers: true,
            envoy_ratelimited: true,
        };
        for (kind, retried) in [
            (AttemptErrorKind::LocalOverflow, false),
            (AttemptErrorKind::Dropped, false),
            (AttemptErrorKind::SessionLost, false),
            (AttemptErrorKind::RequestBody, false),
            (AttemptErrorKind::NoEndpoint, true),
            (AttemptErrorKind::NeverSent, true),
            (AttemptErrorKind::RefusedStream, true),
            (AttemptErrorKind::Reset, true),
            (AttemptErrorKind::DeadlineExceeded, true),
        ] {
            assert_eq!(failure(everything, kind, Code::Unavailable), retried, "{kind:?}");
            assert!(!failure(RetryOn::default(), kind, Code::Unavailable), "{kind:?}");
        }
    }

    #[test]
    fn a_failure_is_retried_by_its_code_or_by_its_kind() {
        let unavailable = RetryOn { unavailable: true, ..RetryOn::default() };
        let refused = RetryOn { refused_stream: true, ..RetryOn::default() };
        assert!(failure(unavailable, AttemptErrorKind::Reset, Code::Unavailable));
        assert!(!failure(unavailable, AttemptErrorKind::Reset, Code::Internal));
        assert!(!failure(unavailable, AttemptErrorKind::DeadlineExceeded, Code::DeadlineExceeded));
        assert!(failure(refused, AttemptErrorKind::RefusedStream, Code::Unavailable));
        assert!(!failure(refused, AttemptErrorKind::Reset, Code::Unavailable));
    }

    #[test]
    fn only_requests_that_match_are_retried_when_the_policy_says_so() {
        let mut policy = retry_policy(RetryOn::default());
        let (map, none) = (headers(&[("x-idempotent", "1")]), headers(&[]));
        let seen = |map| Headers { map, authority: "a", path: "/s/m", scheme: "http" };
        assert!(applies(&policy, &seen(&none)));
        policy.retriable_request_headers =
            vec![HeaderMatcher::present(HeaderOrPseudo::parse("x-idempotent").unwrap())];
        assert!(applies(&policy, &seen(&map)));
        assert!(!applies(&policy, &seen(&none)));
    }
}
