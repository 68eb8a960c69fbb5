//! Path matching of a route: `/package.Service/Method`.

use super::{
    FullRegex, InvalidMatcher,
    string::{equal, folded, starts_with},
};
use std::{fmt, sync::Arc};

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
    /// The path is this, or goes on with a `/` (Envoy's `path_separated_prefix`).
    SeparatedPrefix {
        /// The prefix, which does not end with `/`; lower-cased already when `ignore_case` is set.
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

impl PathMatcher {
    /// Every path.
    pub fn any() -> Self {
        Self::Prefix { value: "/".into(), ignore_case: false }
    }

    /// Paths that start with `value`.
    pub fn prefix(value: &str, ignore_case: bool) -> Self {
        Self::Prefix { value: folded(value, ignore_case), ignore_case }
    }

    /// `value`, and the paths below it. `value` is `/` and something more, does not end with `/`, and has no
    /// query or fragment.
    pub fn separated_prefix(value: &str, ignore_case: bool) -> Result<Self, InvalidMatcher> {
        let fits = value.len() > 1 && value.starts_with('/') && !value.ends_with('/');
        if !fits || value.contains(['?', '#']) {
            return Err(InvalidMatcher::SeparatedPrefix(value.into()));
        }
        Ok(Self::SeparatedPrefix { value: folded(value, ignore_case), ignore_case })
    }

    /// This path.
    pub fn exact(value: &str, ignore_case: bool) -> Self {
        Self::Exact { value: folded(value, ignore_case), ignore_case }
    }

    /// Paths that match the expression as a whole.
    pub fn regex(expression: &str) -> Result<Self, InvalidMatcher> {
        FullRegex::new(expression).map(Self::Regex)
    }

    /// Whether every path satisfies it.
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Prefix { value, .. } if matches!(&**value, "" | "/"))
    }

    /// Whether `path`, without query, satisfies it.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Prefix { value, ignore_case } => {
                starts_with(path.as_bytes(), value.as_bytes(), *ignore_case)
            }
            Self::SeparatedPrefix { value, ignore_case } => {
                starts_with(path.as_bytes(), value.as_bytes(), *ignore_case)
                    && matches!(path.as_bytes().get(value.len()), None | Some(b'/'))
            }
            Self::Exact { value, ignore_case } => equal(path.as_bytes(), value.as_bytes(), *ignore_case),
            Self::Regex(regex) => regex.matches(path),
        }
    }

    /// How much of a path that satisfies it is what it asks for: what Envoy's `prefix_rewrite` replaces. Of an
    /// expression, all.
    pub fn matched_len(&self, path: &str) -> usize {
        match self {
            Self::Prefix { value, .. } | Self::SeparatedPrefix { value, .. } => value.len(),
            Self::Exact { .. } | Self::Regex(_) => path.len(),
        }
    }
}

impl fmt::Display for PathMatcher {
    /// `prefix "/bookinfo."`, `exact "/a" in any case`, `regex "…"`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, value, ignore_case) = match self {
            Self::Prefix { value, ignore_case } => ("prefix", &**value, *ignore_case),
            Self::SeparatedPrefix { value, ignore_case } => ("separated prefix", &**value, *ignore_case),
            Self::Exact { value, ignore_case } => ("exact", &**value, *ignore_case),
            Self::Regex(regex) => ("regex", regex.as_str(), false),
        };
        write!(f, "{kind} {value:?}{}", if ignore_case { " in any case" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_string_prefix_and_case_matters_unless_told_otherwise() {
        assert!(PathMatcher::prefix("/foo", false).matches("/foobar"));
        assert!(!PathMatcher::prefix("/foo", false).matches("/Foobar"));
        assert!(PathMatcher::prefix("/Foo", true).matches("/fOObar"));
        assert!(!PathMatcher::prefix("/foo", false).matches("/fo"));
        assert!(PathMatcher::any().matches("/a.B/C"));
        assert!(PathMatcher::exact("/A", true).matches("/a"));
        assert!(!PathMatcher::exact("/a", true).matches("/ab"));
        assert!(!PathMatcher::regex("/a").unwrap().matches("/ab"));
    }

    #[test]
    fn a_separated_prefix_ends_at_a_slash() {
        let matcher = PathMatcher::separated_prefix("/a.B", false).unwrap();
        for (path, expected) in
            [("/a.B", true), ("/a.B/C", true), ("/a.BC", false), ("/a.", false), ("/a.b", false)]
        {
            assert_eq!(matcher.matches(path), expected, "{path}");
        }
        assert!(PathMatcher::separated_prefix("/A", true).unwrap().matches("/a/b"));
        for wrong in ["", "/", "a", "/a/", "/a?b", "/a#b"] {
            assert!(PathMatcher::separated_prefix(wrong, false).is_err(), "{wrong}");
        }
    }
}
