//! String matching (gRFC A63): exact, prefix, suffix, contains, and RE2 full match.

use std::sync::Arc;

/// A string predicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringMatcher {
    /// What is looked for; lower-cased already when `ignore_case` is set.
    pub pattern: StringPattern,
    /// ASCII case is ignored. Has no effect on a regex.
    pub ignore_case: bool,
}

/// The kinds of [`StringMatcher`]. Prefix, suffix and contains are never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringPattern {
    /// The whole string.
    Exact(Arc<str>),
    /// Its beginning.
    Prefix(Arc<str>),
    /// Its end.
    Suffix(Arc<str>),
    /// Any part of it.
    Contains(Arc<str>),
    /// The whole string matches the expression.
    Regex(FullRegex),
}

/// A regular expression that must match the whole input, in RE2's syntax and in linear time.
#[derive(Clone, Debug)]
pub struct FullRegex {
    source: Arc<str>,
    regex: regex::Regex,
}

impl PartialEq for FullRegex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for FullRegex {}
