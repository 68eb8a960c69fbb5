//! Every word of `retry_on`, with everything that can happen to an attempt; and the page that says so.

use super::*;

/// What can happen to an attempt, by the name that the page has for it.
fn outcomes() -> Vec<(String, Outcome)> {
    let grpc = [
        (1, "CANCELLED"),
        (2, "UNKNOWN"),
        (4, "DEADLINE_EXCEEDED"),
        (8, "RESOURCE_EXHAUSTED"),
        (13, "INTERNAL"),
        (14, "UNAVAILABLE"),
    ];
    let mut all: Vec<_> = grpc.map(|(code, name)| (name.to_owned(), Outcome::Status(code))).into();
    let http = [400, 409, 418, 429, 500, 501, 502, 503, 504, 505];
    all.extend(http.map(|status| (format!("HTTP {status}"), Outcome::Http(status))));
    all.extend([
        ("x-envoy-ratelimited".to_owned(), Outcome::Header("x-envoy-ratelimited")),
        ("a header of the list".to_owned(), Outcome::Header("x-again")),
    ]);
    let failures = [
        ("no connection", AttemptErrorKind::NoEndpoint, Code::Unavailable),
        ("connection lost before the request", AttemptErrorKind::NeverSent, Code::Unavailable),
        ("REFUSED_STREAM", AttemptErrorKind::RefusedStream, Code::Unavailable),
        ("reset", AttemptErrorKind::Reset, Code::Unavailable),
        ("per-try timeout", AttemptErrorKind::DeadlineExceeded, Code::DeadlineExceeded),
        ("circuit breaker", AttemptErrorKind::LocalOverflow, Code::Unavailable),
        ("drop", AttemptErrorKind::Dropped, Code::Unavailable),
        ("the caller's own body", AttemptErrorKind::RequestBody, Code::Unavailable),
    ];
    all.extend(failures.map(|(name, kind, code)| (name.to_owned(), Outcome::Failure(kind, code))));
    all
}

#[derive(Clone, Copy)]
enum Outcome {
    /// A gRPC status without messages.
    Status(i32),
    Http(u16),
    /// UNKNOWN, with this header.
    Header(&'static str),
    Failure(AttemptErrorKind, Code),
}

impl Outcome {
    fn is_retried(self, words: &str) -> bool {
        let mut policy = retry_policy(RetryOn::parse(words));
        policy.retriable_status_codes = vec![418, 503];
        policy.retriable_headers = vec![HeaderMatcher::present(HeaderOrPseudo::parse("x-again").unwrap())];
        match self {
            Self::Status(code) => {
                let mut map = HeaderMap::new();
                map.insert("grpc-status", code.to_string().parse().unwrap());
                response(&policy, StatusCode::OK, &map)
            }
            Self::Http(status) => response(&policy, StatusCode::from_u16(status).unwrap(), &HeaderMap::new()),
            Self::Header(name) => {
                response(&policy, StatusCode::OK, &headers(&[("grpc-status", "2"), (name, "true")]))
            }
            Self::Failure(kind, code) => failure(policy.on, kind, code),
        }
    }
}

/// The words of Envoy's two lists (`x-envoy-retry-on`, `x-envoy-retry-grpc-on`), which are those that Istio takes.
const WORDS: [&str; 16] = [
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "refused-stream",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
];

/// The table of the page, from the code.
fn table() -> String {
    let outcomes = outcomes();
    let mut table = "| word | attempts that are repeated |\n|---|---|\n".to_owned();
    for word in WORDS {
        let retried = outcomes.iter().filter(|(_, outcome)| outcome.is_retried(word));
        let retried: Vec<&str> = retried.map(|(name, _)| name.as_str()).collect();
        let retried =
            if retried.is_empty() { "none: there is no HTTP/3 here".to_owned() } else { retried.join(", ") };
        table += &format!("| `{word}` | {retried} |\n");
    }
    table
}

#[test]
fn every_word_repeats_what_envoy_and_grpc_say_of_it() {
    let retried = |words: &str| {
        let outcomes = outcomes().into_iter().filter(|(_, outcome)| outcome.is_retried(words));
        outcomes.map(|(name, _)| name).collect::<Vec<_>>().join(", ")
    };
    let broken = "no connection, connection lost before the request, REFUSED_STREAM, reset, per-try timeout";
    for (word, expected) in [
        ("cancelled", "CANCELLED"),
        ("deadline-exceeded", "DEADLINE_EXCEEDED, per-try timeout"),
        ("internal", "INTERNAL, HTTP 400"),
        ("resource-exhausted", "RESOURCE_EXHAUSTED"),
        (
            "unavailable",
            "UNAVAILABLE, HTTP 429, HTTP 502, HTTP 503, HTTP 504, no connection, connection lost before the request, \
             REFUSED_STREAM, reset",
        ),
        ("5xx", &*format!("HTTP 500, HTTP 501, HTTP 502, HTTP 503, HTTP 504, HTTP 505, {broken}")),
        ("gateway-error", &*format!("HTTP 502, HTTP 503, HTTP 504, {broken}")),
        ("reset", broken),
        ("reset-before-request", "no connection, connection lost before the request, REFUSED_STREAM"),
        ("connect-failure", "no connection, connection lost before the request"),
        ("refused-stream", "REFUSED_STREAM"),
        ("retriable-4xx", "HTTP 409"),
        ("retriable-status-codes", "HTTP 418, HTTP 503"),
        ("retriable-headers", "a header of the list"),
        ("envoy-ratelimited", "x-envoy-ratelimited"),
        ("http3-post-connect-failure", ""),
        ("what-is-this", ""),
        ("", ""),
        (" cancelled , internal", "CANCELLED, INTERNAL, HTTP 400"),
    ] {
        assert_eq!(retried(word), expected, "{word}");
    }
    let tokens = RetryOn::parse(&WORDS.join(","));
    assert_eq!(tokens.tokens(), WORDS[..15], "no word is forgotten");
}

#[test]
fn the_page_says_what_the_code_does() {
    let page = include_str!("../../../../../docs/retries.md");
    assert!(page.contains(&table()), "docs/retries.md should have this table:\n{}", table());
}
