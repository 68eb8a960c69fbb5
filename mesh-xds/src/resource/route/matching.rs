//! Whether a request satisfies a route's match, and if not, because of what.
//!
//! One evaluation for both questions: a call asks whether there is a [`Miss`], an explanation also asks which.
//! It borrows and allocates nothing; words are made only for who reads them.

use super::{QueryMatcher, RouteMatch};
use crate::matcher::{HeaderMatcher, Headers, PathMatcher, joined};
use std::fmt;

/// The first condition that a request does not satisfy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Miss<'m> {
    /// The path is another one.
    Path(&'m PathMatcher),
    /// A header is not as wanted.
    Header(&'m HeaderMatcher),
    /// A query parameter is not as wanted.
    Query(&'m QueryMatcher),
}

impl RouteMatch {
    /// The first condition that does not hold; none: the request matches, as far as it depends on the request
    /// (a route's `fraction` is drawn after this).
    #[inline]
    pub fn miss(&self, request: &Headers<'_>, query: Option<&str>) -> Option<Miss<'_>> {
        if !self.path.matches(request.path) {
            return Some(Miss::Path(&self.path));
        }
        if let Some(header) = self.headers.iter().find(|matcher| !matcher.matches(request)) {
            return Some(Miss::Header(header));
        }
        let query = query.unwrap_or_default();
        self.query.iter().find(|matcher| !matcher.matches(query)).map(Miss::Query)
    }
}

impl Miss<'_> {
    /// What was found and what is wanted: `header end-user is "x", want exact "jason"`.
    pub fn reason(&self, request: &Headers<'_>, query: Option<&str>) -> String {
        match self {
            Self::Path(matcher) => format!("path is {:?}, want {matcher}", request.path),
            Self::Header(matcher) => {
                let name = matcher.name.as_str();
                if name.ends_with("-bin") {
                    return format!("header {name} is binary, which no match compares");
                }
                match joined(&matcher.name, request) {
                    None => format!("header {name} is absent, want {}", matcher.wanted()),
                    Some(_) if is_secret(name) => {
                        format!("header {name} is there (not shown), want another value")
                    }
                    Some(value) => {
                        format!("header {name} is {}, want {}", shown(&value), matcher.wanted())
                    }
                }
            }
            Self::Query(matcher) => {
                let name = &matcher.name;
                let pairs = query.unwrap_or_default().split('&');
                let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                let values: Vec<String> = pairs
                    .filter(|(other, _)| **other == **name)
                    .map(|(_, value)| shown(value.as_bytes()))
                    .collect();
                match (&matcher.value, values.is_empty()) {
                    (None, _) => format!("query parameter {name} is absent"),
                    (Some(wanted), true) => format!("query parameter {name} is absent, want {wanted}"),
                    (Some(wanted), false) => {
                        format!("query parameter {name} is {}, want {wanted}", values.join(" and "))
                    }
                }
            }
        }
    }
}

/// Values that grant something: whoever reads an explanation need not know them.
fn is_secret(name: &str) -> bool {
    matches!(name, "authorization" | "proxy-authorization" | "cookie")
}

/// A value as text, not too long.
fn shown(value: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(value);
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", text.get(..end).unwrap_or_default(), value.len()),
    }
}

impl fmt::Display for QueryMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => write!(f, "query parameter {} present", self.name),
            Some(value) => write!(f, "query parameter {} {value}", self.name),
        }
    }
}

impl fmt::Display for RouteMatch {
    /// `path prefix "/", header end-user exact "jason"`; `every request` when nothing is asked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut conditions = Vec::new();
        if !self.path.is_any() {
            conditions.push(format!("path {}", self.path));
        }
        conditions.extend(self.headers.iter().map(ToString::to_string));
        conditions.extend(self.query.iter().map(ToString::to_string));
        if let Some(fraction) = self.fraction {
            conditions.push(format!("{fraction} of the requests"));
        }
        if conditions.is_empty() {
            return f.write_str("every request");
        }
        f.write_str(&conditions.join(", "))
    }
}

#[cfg(test)]
mod tests;
