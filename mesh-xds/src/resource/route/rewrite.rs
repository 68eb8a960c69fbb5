//! Rewriting with a regular expression, as RE2 does: every match replaced, `\1` the first group.

use crate::matcher::{AnywhereRegex, Expressions, InvalidMatcher};
use std::{borrow::Cow, sync::Arc};

/// A regular expression whose every match is replaced; not anchored.
#[derive(Clone, Debug)]
pub struct RegexRewrite {
    source: Arc<str>,
    pattern: AnywhereRegex,
    substitution: Arc<str>,
    template: Vec<Part>,
}

/// A part of a substitution.
#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Group(usize),
}

impl RegexRewrite {
    /// Replaces every match of `pattern` by `substitution`, in which `\0` is the match, `\1` to `\9` are its
    /// groups and `\\` is a backslash.
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, InvalidMatcher> {
        Self::among(&mut Expressions::default(), pattern, substitution)
    }

    /// The same, with what else is compiled for a resource.
    pub(in crate::resource) fn among(
        expressions: &mut Expressions,
        pattern: &str,
        substitution: &str,
    ) -> Result<Self, InvalidMatcher> {
        let compiled = expressions.anywhere(pattern)?;
        let template = template(substitution, compiled.groups());
        let template = template.ok_or_else(|| InvalidMatcher::Substitution(substitution.into()))?;
        Ok(Self { source: pattern.into(), pattern: compiled, substitution: substitution.into(), template })
    }

    /// The expression, as written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// The substitution, as written.
    pub fn substitution(&self) -> &str {
        &self.substitution
    }

    /// `input`, rewritten; borrowed when nothing matches.
    pub fn apply<'i>(&self, input: &'i str) -> Cow<'i, str> {
        let mut out = String::new();
        let (mut done, mut is_found) = (0, false);
        for found in self.pattern.find_all(input) {
            let Some(whole) = found.get_match() else { continue };
            out.push_str(&input[done..whole.start()]);
            for part in &self.template {
                out.push_str(match part {
                    Part::Text(text) => text,
                    Part::Group(group) => found.get_group(*group).map_or("", |group| &input[group.range()]),
                });
            }
            (done, is_found) = (whole.end(), true);
        }
        if !is_found {
            return Cow::Borrowed(input);
        }
        out.push_str(&input[done..]);
        Cow::Owned(out)
    }
}

impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.substitution == other.substitution
    }
}

/// `None`: a group that the expression does not have, or a stray backslash.
fn template(substitution: &str, groups: usize) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next()? {
            '\\' => text.push('\\'),
            digit => {
                let group = usize::try_from(digit.to_digit(10)?).ok().filter(|group| *group <= groups)?;
                parts.push(Part::Text(std::mem::take(&mut text)));
                parts.push(Part::Group(group));
            }
        }
    }
    parts.push(Part::Text(text));
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_substitution_is_re2s() {
        let facts = [
            ("^/(v[0-9]+)/", r"/api/\1/", "/v2/x", "/api/v2/x"),
            ("a", "b", "banana", "bbnbnb"),
            (r"\d+", r"<\0>", "a1b22٣", "a<1>b<22>٣"),
            ("a(x)?", r"[\1]", "a", "[]"),
            ("a", r"\\$1", "a", r"\$1"),
            ("(a){0}b", r"[\1]", "b", "[]"),
            ("(a){0}(b)", r"[\1\2]", "ab", "a[b]"),
            ("(?P<n>a)|(b)", r"<\1\2>", "xabä", "x<a><b>ä"),
            ("x*", "-", "äxé", "-ä-é-"),
        ];
        for (pattern, substitution, input, expected) in facts {
            let rewrite = RegexRewrite::new(pattern, substitution).unwrap();
            assert_eq!(rewrite.apply(input), expected, "{pattern} {substitution}");
        }
        for (pattern, substitution) in [("a", r"\1"), ("a", r"\x"), ("a", "\\"), ("(", "")] {
            assert!(RegexRewrite::new(pattern, substitution).is_err(), "{pattern} {substitution}");
        }
    }
}
