//! Header matching (gRFC A28, A63): values of one name joined with `,`; `-bin` headers never match.

use super::StringMatcher;
use http::HeaderName;

/// A predicate over one request header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// Lower-cased name.
    pub name: HeaderName,
    /// What is asked of the joined value.
    pub kind: HeaderMatch,
    /// The answer is negated.
    pub invert: bool,
    /// An absent header counts as the empty string (Envoy); otherwise an absent header never matches,
    /// inverted or not (gRPC), except for `Present`.
    pub treat_missing_as_empty: bool,
}

/// The kinds of [`HeaderMatcher`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderMatch {
    /// The joined value satisfies the matcher.
    String(StringMatcher),
    /// The value is a base-10 integer in `start..end`.
    Range {
        /// First value that matches.
        start: i64,
        /// First value that does not.
        end: i64,
    },
    /// The header is there (`true`) or is not (`false`).
    Present(bool),
}
