//! String matching (gRFC A63): exact, prefix, suffix, contains, and RE2 full match.

use super::re2;
use crate::printable::start;
use std::{fmt, sync::Arc};

/// Largest compiled program of a regular expression, as RE2's `max_mem`.
const REGEX_SIZE_LIMIT: usize = 8 << 20;

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
        Ok(Self { pattern: StringPattern::Regex(FullRegex::new(expression)?), ignore_case: false })
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

/// A regular expression that must match the whole input, in RE2's syntax and with its meaning, in linear time.
///
/// `.` and classes work on characters. Half of an expression is none: `foo)|bar(?:` does not compile.
#[derive(Clone, Debug)]
pub struct FullRegex {
    source: Arc<str>,
    regex: regex::Regex,
}

impl FullRegex {
    /// Compiles an expression.
    pub fn new(expression: &str) -> Result<Self, InvalidMatcher> {
        let regex = compile(expression, |translated| format!(r"\A(?:{translated})\z"))?;
        Ok(Self { source: expression.into(), regex })
    }

    /// Whether the whole of `input` matches.
    pub fn matches(&self, input: &str) -> bool {
        self.regex.is_match(input)
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// Compiles an expression of RE2's syntax, not anchored.
pub(crate) fn compile_re2(expression: &str) -> Result<regex::Regex, InvalidMatcher> {
    compile(expression, |translated| translated)
}

fn compile(expression: &str, placed: impl Fn(String) -> String) -> Result<regex::Regex, InvalidMatcher> {
    let invalid =
        |reason: String| InvalidMatcher::Regex { expression: start(expression, 256).into(), reason };
    let translated = placed(re2::translate(expression).map_err(invalid)?);
    let compiled = regex::RegexBuilder::new(&translated).size_limit(REGEX_SIZE_LIMIT).build();
    compiled.map_err(|error| {
        invalid(match error {
            // Of the translation; its places are not those of what was written.
            regex::Error::Syntax(text) if text.contains("maximum number of nested") => {
                "it is nested too deeply".to_owned()
            }
            regex::Error::CompiledTooBig(limit) => format!("it compiles to more than {limit} bytes"),
            _ => "it cannot be compiled, which is a fault of this program".to_owned(),
        })
    })
}

impl PartialEq for FullRegex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for FullRegex {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regex_matches_the_whole_input() {
        let facts: &[(&str, &[&str], &[&str])] = &[
            ("/a|/b", &["/a", "/b"], &["/aX", "x/a", "/a\n"]),
            (
                r"/pkg\.Greeter/SayHello",
                &["/pkg.Greeter/SayHello"],
                &["/pkg.Greeter/SayHelloX", "x/pkg.Greeter/SayHello"],
            ),
            ("(?m)/a", &["/a"], &["x\n/a\ny"]),
            (".*", &["", "abc"], &["a\nb"]),
            ("(?i)/Foo", &["/fOO"], &["/foos"]),
            ("v[0-9]+", &["v12"], &["v12a", "v"]),
            (r"\d+", &["12"], &["٣"]),
            (r"[\w-]+", &["a-b_1"], &["é"]),
            (r"[\D]", &["٣", "x"], &["3"]),
            (r"[^\d\s]+", &["ab"], &["a b", "a1"]),
            (r"\[\d]", &["[7]"], &["7"]),
            ("/caf€/.*", &["/caf€/", "/caf€/List"], &["/cafe/List", "/caf\u{20}/List", "/caf€"]),
            ("/caf./List", &["/caf€/List", "/cafe/List"], &["/caf€€/List"]),
        ];
        for (expression, matching, others) in facts {
            let regex = FullRegex::new(expression).unwrap();
            for input in *matching {
                assert!(regex.matches(input), "{expression} should match {input:?}");
            }
            for input in *others {
                assert!(!regex.matches(input), "{expression} should not match {input:?}");
            }
        }
    }

    #[test]
    fn an_expression_must_stand_on_its_own() {
        for expression in
            ["(unclosed", "foo)|bar(?:", "foo)(?:bar", ")(?:", "a)(?:b", "\\", r"\C", "a{100000}{1000}"]
        {
            assert!(FullRegex::new(expression).is_err(), "{expression}");
        }
    }

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
