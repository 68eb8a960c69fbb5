//! Matcher trees over request headers (gRFC A106, `xds.type.matcher.v3.Matcher`): a request, to an action.

use super::{HeaderMatcher, HeaderOrPseudo, Headers, joined};
use std::{collections::BTreeMap, sync::Arc};

/// Asks about a request, and says what to do with it.
#[derive(Clone, Debug, PartialEq)]
pub struct MatcherTree<A> {
    /// What is asked; nothing: [`Self::on_no_match`] at once.
    pub kind: Option<MatcherKind<A>>,
    /// For a request that matches nothing.
    pub on_no_match: Option<Box<OnMatch<A>>>,
}

/// The two ways of asking.
#[derive(Clone, Debug, PartialEq)]
pub enum MatcherKind<A> {
    /// The first that holds wins. At least one.
    List(Vec<(Predicate, OnMatch<A>)>),
    /// By the value of a header. At least one entry.
    Exact {
        /// The header.
        input: HeaderOrPseudo,
        /// By value.
        map: BTreeMap<Arc<str>, OnMatch<A>>,
    },
    /// By the longest prefix of the value of a header; a shorter one is tried where a longer one leads to
    /// nothing. At least one entry.
    Prefix {
        /// The header.
        input: HeaderOrPseudo,
        /// By prefix.
        map: BTreeMap<Arc<str>, OnMatch<A>>,
    },
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub enum OnMatch<A> {
    /// The answer.
    Action(A),
    /// Another question.
    Matcher(Box<MatcherTree<A>>),
}

/// What is asked of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// Of a header.
    Header(HeaderMatcher),
    /// One of these; at least two.
    Or(Vec<Predicate>),
    /// All of these; at least two.
    And(Vec<Predicate>),
    /// Not this.
    Not(Box<Predicate>),
}

impl<A> MatcherTree<A> {
    /// What to do with a request; none: it matches nothing.
    pub fn find(&self, request: &Headers<'_>) -> Option<&A> {
        let found = match &self.kind {
            None => None,
            Some(MatcherKind::List(list)) => list
                .iter()
                .find(|(predicate, _)| predicate.holds(request))
                .and_then(|(_, on)| on.find(request)),
            Some(MatcherKind::Exact { input, map }) => joined(input, request)
                .and_then(|value| map.get(std::str::from_utf8(&value).ok()?))
                .and_then(|on| on.find(request)),
            Some(MatcherKind::Prefix { input, map }) => joined(input, request).and_then(|value| {
                let fitting = map.iter().filter(|(prefix, _)| value.starts_with(prefix.as_bytes()));
                // A map's keys are in order: of those that begin a value, the longest comes last.
                fitting.rev().find_map(|(_, on)| on.find(request))
            }),
        };
        found.or_else(|| self.on_no_match.as_ref().and_then(|on| on.find(request)))
    }

    /// Every action in it.
    pub fn actions(&self) -> Vec<&A> {
        let mut actions = Vec::new();
        let mut on_matches: Vec<&OnMatch<A>> = self.on_no_match.iter().map(AsRef::as_ref).collect();
        match &self.kind {
            None => {}
            Some(MatcherKind::List(list)) => on_matches.extend(list.iter().map(|(_, on)| on)),
            Some(MatcherKind::Exact { map, .. } | MatcherKind::Prefix { map, .. }) => {
                on_matches.extend(map.values());
            }
        }
        for on in on_matches {
            match on {
                OnMatch::Action(action) => actions.push(action),
                OnMatch::Matcher(tree) => actions.extend(tree.actions()),
            }
        }
        actions
    }
}

impl<A> OnMatch<A> {
    fn find(&self, request: &Headers<'_>) -> Option<&A> {
        match self {
            Self::Action(action) => Some(action),
            Self::Matcher(tree) => tree.find(request),
        }
    }
}

impl Predicate {
    fn holds(&self, request: &Headers<'_>) -> bool {
        match self {
            Self::Header(matcher) => matcher.matches(request),
            Self::Or(any) => any.iter().any(|predicate| predicate.holds(request)),
            Self::And(all) => all.iter().all(|predicate| predicate.holds(request)),
            Self::Not(predicate) => !predicate.holds(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::StringMatcher;
    use http::{HeaderMap, HeaderName, HeaderValue};

    fn input(name: &str) -> HeaderOrPseudo {
        HeaderOrPseudo::parse(name).unwrap()
    }

    fn is(name: &str, value: &str) -> Predicate {
        Predicate::Header(HeaderMatcher::string(input(name), StringMatcher::exact(value, false)))
    }

    fn leaf(kind: MatcherKind<u8>) -> MatcherTree<u8> {
        MatcherTree { kind: Some(kind), on_no_match: None }
    }

    fn asked(tree: &MatcherTree<u8>, headers: &[(&'static str, &'static str)]) -> Option<u8> {
        let map: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let request = Headers { map: &map, authority: "a", path: "/s.S/M", scheme: "http" };
        tree.find(&request).copied()
    }

    #[test]
    fn the_first_predicate_that_holds_decides() {
        let tree = MatcherTree {
            kind: Some(MatcherKind::List(vec![
                (Predicate::And(vec![is("x", "1"), is("y", "1")]), OnMatch::Action(1)),
                (Predicate::Or(vec![is("x", "1"), is("y", "1")]), OnMatch::Action(2)),
                (Predicate::Not(Box::new(is("z", "1"))), OnMatch::Action(3)),
            ])),
            on_no_match: Some(Box::new(OnMatch::Action(4))),
        };
        assert_eq!(asked(&tree, &[("x", "1"), ("y", "1")]), Some(1));
        assert_eq!(asked(&tree, &[("y", "1")]), Some(2));
        assert_eq!(asked(&tree, &[]), Some(3));
        assert_eq!(asked(&tree, &[("z", "1")]), Some(4));
        assert_eq!(tree.actions(), [&4, &1, &2, &3]);
    }

    #[test]
    fn a_value_is_looked_up_whole_or_by_its_longest_prefix_that_leads_somewhere() {
        let entries = |entries: Vec<(&str, OnMatch<u8>)>| {
            entries.into_iter().map(|(key, on)| (Arc::from(key), on)).collect::<BTreeMap<_, _>>()
        };
        let exact = entries(vec![("1", OnMatch::Action(1))]);
        let exact = leaf(MatcherKind::Exact { input: input("x"), map: exact });
        assert_eq!(asked(&exact, &[("x", "1")]), Some(1));
        assert_eq!(asked(&exact, &[("x", "11")]), None);
        assert_eq!(asked(&exact, &[]), None);
        let prefix = entries(vec![
            ("/s", OnMatch::Action(1)),
            ("/s.S/", OnMatch::Matcher(Box::new(exact))),
            ("/t", OnMatch::Action(3)),
        ]);
        let prefix = leaf(MatcherKind::Prefix { input: input(":path"), map: prefix });
        assert_eq!(asked(&prefix, &[("x", "1")]), Some(1));
        assert_eq!(asked(&prefix, &[("x", "2")]), Some(1), "the longer one leads to nothing");
    }
}
