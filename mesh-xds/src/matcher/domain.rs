//! Domain patterns of a virtual host. ASCII case is ignored; patterns are kept in lower case.

use super::InvalidMatcher;
use std::sync::Arc;

/// One entry of `virtual_hosts[].domains`. Order of precedence: exact, suffix, prefix, any; the longest
/// pattern wins inside a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// `reviews.default:9080`
    Exact(Arc<str>),
    /// `*.example.com`, kept as `.example.com`.
    Suffix(Arc<str>),
    /// `reviews.*`, kept as `reviews.`.
    Prefix(Arc<str>),
    /// `*`
    Any,
}

impl DomainPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidMatcher> {
        let lower = text.to_ascii_lowercase();
        let invalid = || InvalidMatcher::Domain(text.into());
        let plain = |rest: &str| if rest.contains('*') { Err(invalid()) } else { Ok(Arc::from(rest)) };
        match lower.as_str() {
            "" => Err(invalid()),
            "*" => Ok(Self::Any),
            domain => match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
                (Some(rest), _) => plain(rest).map(Self::Suffix),
                (None, Some(rest)) => plain(rest).map(Self::Prefix),
                (None, None) => plain(domain).map(Self::Exact),
            },
        }
    }

    /// How well it matches `authority`, greater is better; `None`: not at all. The wildcard stands for at
    /// least one character.
    pub fn rank(&self, authority: &str) -> Option<(u8, usize)> {
        let input = authority.as_bytes();
        let longer = |value: &Arc<str>| input.len() > value.len();
        let (class, value, matches) = match self {
            Self::Exact(value) => (3, &**value, authority.eq_ignore_ascii_case(value)),
            Self::Suffix(value) => {
                let fits = longer(value)
                    && input[input.len() - value.len()..].eq_ignore_ascii_case(value.as_bytes());
                (2, &**value, fits)
            }
            Self::Prefix(value) => {
                (1, &**value, longer(value) && input[..value.len()].eq_ignore_ascii_case(value.as_bytes()))
            }
            Self::Any => (0, "", true),
        };
        matches.then_some((class, value.len()))
    }
}

impl std::fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(value) => f.write_str(value),
            Self::Suffix(value) => write!(f, "*{value}"),
            Self::Prefix(value) => write!(f, "{value}*"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_specified() {
        let facts = [
            ("reviews", "REVIEWS", true),
            ("*.foo.com", "a.foo.com", true),
            ("*.foo.com", "foo.com", false),
            ("*.foo.com", ".foo.com", false),
            ("FOO.*", "foo.bar", true),
            ("FOO.*", "FOO.", false),
            ("*", "anything", true),
            ("reviews", "reviews:9080", false),
        ];
        for (pattern, authority, expected) in facts {
            let matched = DomainPattern::parse(pattern).unwrap().rank(authority).is_some();
            assert_eq!(matched, expected, "{pattern} {authority}");
        }
        for invalid in ["", "a*b", "*a*", "**"] {
            assert!(DomainPattern::parse(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn exact_beats_suffix_beats_prefix_and_longer_beats_shorter() {
        let rank = |pattern: &str| DomainPattern::parse(pattern).unwrap().rank("a.foo.com").unwrap();
        assert!(rank("a.foo.com") > rank("*.foo.com"));
        assert!(rank("*.foo.com") > rank("*.com"));
        assert!(rank("*.com") > rank("a.foo.*"));
        assert!(rank("a.foo.*") > rank("a.*"));
        assert!(rank("a.*") > rank("*"));
    }
}
