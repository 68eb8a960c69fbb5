//! String matching (gRFC A63): exact, prefix, suffix, contains, and RE2 full match.

use super::FullRegex;
use std::{fmt, sync::Arc};

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

/// Why a matcher cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMatcher {
    /// An empty prefix, suffix or contained string would match everything.
    #[error("{0} must not be empty")]
    Empty(&'static str),
    /// The regular expression does not compile.
    #[error("`{expression}` is not a regular expression of RE2's syntax: {reason}")]
    Regex {
        /// As written, or the start of it.
        expression: Arc<str>,
        /// What is wrong with it.
        reason: String,
    },
    /// The regular expression, or all that are read together, would take too much memory or time.
    #[error("`{expression}` is not compiled: {reason}")]
    Costly {
        /// As written, or the start of it.
        expression: Arc<str>,
        /// Which limit it exceeds.
        reason: String,
    },
    /// A substitution refers to a group that its expression does not have.
    #[error(
        "`{0}` is not a substitution: \\\\0 to \\\\9 must be groups of its expression, and \\\\\\\\ is a backslash"
    )]
    Substitution(String),
    /// Not a domain pattern.
    #[error("`{0}` is not a domain pattern: use `name`, `*.suffix`, `prefix.*` or `*`")]
    Domain(String),
    /// Not a prefix that is followed by `/`.
    #[error("`{0}` is not a separated prefix: begin with `/`, do not end with it, and leave out `?` and `#`")]
    SeparatedPrefix(String),
    /// Not a header name.
    #[error("`{0}` is not a header name")]
    HeaderName(String),
}

impl StringMatcher {
    /// The whole string; may be empty.
    pub fn exact(value: &str, ignore_case: bool) -> Self {
        Self { pattern: StringPattern::Exact(folded(value, ignore_case)), ignore_case }
    }

    /// Its beginning.
    pub fn prefix(value: &str, ignore_case: bool) -> Result<Self, InvalidMatcher> {
        let value = not_empty(value, "prefix", ignore_case)?;
        Ok(Self { pattern: StringPattern::Prefix(value), ignore_case })
    }

    /// Its end.
    pub fn suffix(value: &str, ignore_case: bool) -> Result<Self, InvalidMatcher> {
        let value = not_empty(value, "suffix", ignore_case)?;
        Ok(Self { pattern: StringPattern::Suffix(value), ignore_case })
    }

    /// Any part of it.
    pub fn contains(value: &str, ignore_case: bool) -> Result<Self, InvalidMatcher> {
        let value = not_empty(value, "contains", ignore_case)?;
        Ok(Self { pattern: StringPattern::Contains(value), ignore_case })
    }

    /// The whole string matches the expression.
    pub fn regex(expression: &str) -> Result<Self, InvalidMatcher> {
        FullRegex::new(expression).map(Self::from)
    }

    /// Whether `input` satisfies it.
    pub fn matches(&self, input: &str) -> bool {
        self.matches_bytes(input.as_bytes())
    }

    /// Whether `input`, which need not be UTF-8, satisfies it. A regex never matches what is not UTF-8.
    pub fn matches_bytes(&self, input: &[u8]) -> bool {
        let fold = self.ignore_case;
        match &self.pattern {
            StringPattern::Exact(value) => equal(input, value.as_bytes(), fold),
            StringPattern::Prefix(value) => starts_with(input, value.as_bytes(), fold),
            StringPattern::Suffix(value) => {
                let start = input.len().checked_sub(value.len());
                start.is_some_and(|start| equal(&input[start..], value.as_bytes(), fold))
            }
            StringPattern::Contains(value) => {
                input.windows(value.len()).any(|window| equal(window, value.as_bytes(), fold))
            }
            StringPattern::Regex(regex) => std::str::from_utf8(input).is_ok_and(|input| regex.matches(input)),
        }
    }
}

impl From<FullRegex> for StringMatcher {
    /// The whole string matches it.
    fn from(regex: FullRegex) -> Self {
        Self { pattern: StringPattern::Regex(regex), ignore_case: false }
    }
}

impl fmt::Display for StringMatcher {
    /// `exact "jason"`, `prefix "a" in any case`, `regex "…"`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, value) = match &self.pattern {
            StringPattern::Exact(value) => ("exact", &**value),
            StringPattern::Prefix(value) => ("prefix", &**value),
            StringPattern::Suffix(value) => ("suffix", &**value),
            StringPattern::Contains(value) => ("containing", &**value),
            StringPattern::Regex(regex) => ("regex", regex.as_str()),
        };
        write!(f, "{kind} {value:?}{}", if self.ignore_case { " in any case" } else { "" })
    }
}

/// `value` as it is compared: in lower case when case is ignored.
pub(super) fn folded(value: &str, ignore_case: bool) -> Arc<str> {
    if ignore_case { value.to_ascii_lowercase().into() } else { value.into() }
}

/// Compares with an already folded `value`, without allocating.
pub(super) fn equal(input: &[u8], value: &[u8], fold: bool) -> bool {
    if fold { input.eq_ignore_ascii_case(value) } else { input == value }
}

/// Whether `input` begins with an already folded `value`.
pub(super) fn starts_with(input: &[u8], value: &[u8], fold: bool) -> bool {
    input.get(..value.len()).is_some_and(|start| equal(start, value, fold))
}

fn not_empty(value: &str, what: &'static str, ignore_case: bool) -> Result<Arc<str>, InvalidMatcher> {
    if value.is_empty() { Err(InvalidMatcher::Empty(what)) } else { Ok(folded(value, ignore_case)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_honours_case_as_asked() {
        let kinds = |fold| {
            [
                (StringMatcher::exact("Ab", fold), "aB", "aBc"),
                (StringMatcher::prefix("Ab", fold).unwrap(), "aBc", "a"),
                (StringMatcher::suffix("Ab", fold).unwrap(), "caB", "b"),
                (StringMatcher::contains("Ab", fold).unwrap(), "caBc", "acb"),
            ]
        };
        for ((folding, other_case, never), (exact, ..)) in kinds(true).into_iter().zip(kinds(false)) {
            assert!(folding.matches(other_case));
            assert!(!exact.matches(other_case));
            assert!(!folding.matches(never));
        }
        assert_eq!(StringMatcher::prefix("", false).unwrap_err().to_string(), "prefix must not be empty");
    }
}
