//! Path matching of a route: `/package.Service/Method`.

use super::FullRegex;
use std::sync::Arc;

/// How a route matches the path (query excluded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatcher {
    /// The path starts with this, byte by byte; `/` or empty matches everything.
    Prefix {
        /// The prefix; lower-cased already when `ignore_case` is set.
        value: Arc<str>,
        /// ASCII case is ignored.
        ignore_case: bool,
    },
    /// The path is this.
    Exact {
        /// The path; lower-cased already when `ignore_case` is set.
        value: Arc<str>,
        /// ASCII case is ignored.
        ignore_case: bool,
    },
    /// The whole path matches the expression.
    Regex(FullRegex),
}
