//! Header matching (gRFC A28, A63): values of one name joined with `,`; `-bin` headers never match.

use super::StringMatcher;
use http::{HeaderMap, HeaderName};
use std::{borrow::Cow, fmt};

/// A predicate over one request header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// Lower-cased name.
    pub name: HeaderOrPseudo,
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

/// What a header matcher looks at: a header, or one of HTTP/2's pseudo headers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderOrPseudo {
    /// A header.
    Header(HeaderName),
    /// `:authority`, or `host`.
    Authority,
    /// `:path`, without query.
    Path,
    /// `:method`: `POST` in gRPC.
    Method,
    /// `:scheme`.
    Scheme,
}

/// What header matchers are asked about.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// The request's headers.
    pub map: &'a HeaderMap,
    /// `:authority`.
    pub authority: &'a str,
    /// `:path` without query.
    pub path: &'a str,
    /// `:scheme`.
    pub scheme: &'a str,
}

impl HeaderOrPseudo {
    /// Reads a name as written in configuration.
    pub fn parse(name: &str) -> Result<Self, super::InvalidMatcher> {
        let lower = name.to_ascii_lowercase();
        Ok(match lower.as_str() {
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Path,
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            _ => match HeaderName::from_bytes(lower.as_bytes()) {
                Ok(name) => Self::Header(name),
                Err(_) => return Err(super::InvalidMatcher::HeaderName(name.into())),
            },
        })
    }

    /// The name as it is sent.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Header(name) => name.as_str(),
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Method => ":method",
            Self::Scheme => ":scheme",
        }
    }
}

impl HeaderMatcher {
    /// Matches when the header is there.
    pub fn present(name: HeaderOrPseudo) -> Self {
        Self { name, kind: HeaderMatch::Present(true), invert: false, treat_missing_as_empty: false }
    }

    /// Matches when the joined value satisfies `matcher`.
    pub fn string(name: HeaderOrPseudo, matcher: StringMatcher) -> Self {
        Self { name, kind: HeaderMatch::String(matcher), invert: false, treat_missing_as_empty: false }
    }

    /// The opposite.
    #[must_use]
    pub fn inverted(mut self) -> Self {
        self.invert = !self.invert;
        self
    }

    /// What is wanted of the value, in words: `exact "jason"`, `present`, `not prefix "a"`.
    pub fn wanted(&self) -> String {
        let not = if self.invert { "not " } else { "" };
        match &self.kind {
            HeaderMatch::String(matcher) => format!("{not}{matcher}"),
            HeaderMatch::Range { start, end } => format!("{not}a number of {start}..{end}"),
            HeaderMatch::Present(wanted) => {
                if *wanted == self.invert {
                    "it absent".to_owned()
                } else {
                    "it present".to_owned()
                }
            }
        }
    }

    /// Whether the request satisfies it.
    pub fn matches(&self, headers: &Headers<'_>) -> bool {
        self.matches_value(joined(&self.name, headers).as_deref())
    }

    /// Whether a joined value, or the absence of one, satisfies it.
    pub fn matches_value(&self, value: Option<&[u8]>) -> bool {
        let answer = match (&self.kind, value) {
            (HeaderMatch::Present(wanted), value) => value.is_some() == *wanted,
            (kind, Some(value)) => kind.matches(value),
            (kind, None) if self.treat_missing_as_empty => kind.matches(b""),
            // An absent header matches nothing, inverted or not.
            (_, None) => return false,
        };
        answer != self.invert
    }
}

impl fmt::Display for HeaderMatcher {
    /// `header end-user exact "jason"`, `header x-canary absent`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted();
        write!(f, "header {} {}", self.name.as_str(), wanted.strip_prefix("it ").unwrap_or(&wanted))
    }
}

impl HeaderMatch {
    /// Whether the value of a header that is there satisfies it.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::String(matcher) => matcher.matches_bytes(value),
            Self::Range { start, end } => {
                let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
                number.is_some_and(|number| (*start..*end).contains(&number))
            }
            Self::Present(wanted) => *wanted,
        }
    }
}

/// The values of a header joined with `,`; allocates only when there are several.
pub fn joined<'a>(name: &HeaderOrPseudo, headers: &Headers<'a>) -> Option<Cow<'a, [u8]>> {
    let name = match name {
        HeaderOrPseudo::Authority => return Some(headers.authority.as_bytes().into()),
        HeaderOrPseudo::Path => return Some(headers.path.as_bytes().into()),
        HeaderOrPseudo::Method => return Some(b"POST".into()),
        HeaderOrPseudo::Scheme => return Some(headers.scheme.as_bytes().into()),
        HeaderOrPseudo::Header(name) => name,
    };
    if name.as_str().ends_with("-bin") {
        return None;
    }
    if name == http::header::CONTENT_TYPE {
        return Some(b"application/grpc".into());
    }
    joined_values(headers.map, name)
}

/// The values of a header joined with `,`, whatever the header is.
pub fn joined_values<'a>(map: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = map.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else { return Some(first.into()) };
    let mut all = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(all.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn map(entries: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in entries {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn matches(matcher: &HeaderMatcher, map: &HeaderMap) -> bool {
        matcher.matches(&Headers { map, authority: "reviews:9080", path: "/a.B/C", scheme: "http" })
    }

    fn name(text: &str) -> HeaderOrPseudo {
        HeaderOrPseudo::parse(text).unwrap()
    }

    #[test]
    fn repeated_values_are_joined() {
        let matcher = HeaderMatcher::string(name("X"), StringMatcher::exact("a,b", false));
        assert!(matches(&matcher, &map(&[("x", "a"), ("x", "b")])));
        assert!(!matches(&matcher, &map(&[("x", "a")])));
    }

    #[test]
    fn an_absent_header_matches_only_presence_tests() {
        let exact = HeaderMatcher::string(name("x"), StringMatcher::exact("a", false));
        assert!(!matches(&exact, &map(&[])));
        assert!(!matches(&exact.clone().inverted(), &map(&[])));
        assert!(matches(&exact.clone().inverted(), &map(&[("x", "b")])));
        let empty = HeaderMatcher { treat_missing_as_empty: true, ..exact.inverted() };
        assert!(matches(&empty, &map(&[])));

        for (wanted, invert, absent) in
            [(true, false, false), (true, true, true), (false, false, true), (false, true, false)]
        {
            let matcher = HeaderMatcher {
                kind: HeaderMatch::Present(wanted),
                invert,
                ..HeaderMatcher::present(name("x"))
            };
            assert_eq!(matches(&matcher, &map(&[])), absent, "present {wanted} invert {invert}");
            assert_eq!(matches(&matcher, &map(&[("x", "")])), !absent);
        }
    }

    #[test]
    fn binary_headers_never_match_and_content_type_is_always_grpc() {
        assert!(!matches(&HeaderMatcher::present(name("x-bin")), &map(&[("x-bin", "AA")])));
        let grpc =
            HeaderMatcher::string(name("content-type"), StringMatcher::exact("application/grpc", false));
        assert!(matches(&grpc, &map(&[])));
    }

    #[test]
    fn ranges_are_half_open_and_only_of_integers() {
        let range = HeaderMatcher {
            kind: HeaderMatch::Range { start: 1, end: 5 },
            ..HeaderMatcher::present(name("n"))
        };
        for (value, expected) in
            [("1", true), ("4", true), ("5", false), ("0", false), ("1.5", false), ("x", false), ("", false)]
        {
            assert_eq!(matches(&range, &map(&[("n", value)])), expected, "{value}");
        }
    }

    #[test]
    fn pseudo_headers_are_seen() {
        for (header, value) in [
            (":authority", "reviews:9080"),
            ("Host", "reviews:9080"),
            (":path", "/a.B/C"),
            (":method", "POST"),
            (":scheme", "http"),
        ] {
            assert!(
                matches(&HeaderMatcher::string(name(header), StringMatcher::exact(value, false)), &map(&[])),
                "{header}"
            );
        }
        assert!(HeaderOrPseudo::parse("a b").is_err());
    }
}
