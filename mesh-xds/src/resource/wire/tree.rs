//! Matcher trees, to and from protobuf (gRFC A106).

use super::{any, unpack};
use crate::{
    field_path::{Faults, Path},
    matcher::{
        HeaderMatch, HeaderMatcher, HeaderOrPseudo, MatcherKind, MatcherTree, OnMatch, Predicate,
        StringMatcher, StringPattern,
    },
    resource::canonical::{Inside, Shape},
};
use envoy_types::pb::{
    envoy::r#type::matcher::v3::HttpRequestHeaderMatchInput,
    google::protobuf::Any,
    xds::{
        core::v3::TypedExtensionConfig,
        r#type::matcher::v3::{
            self as proto, Matcher,
            matcher::{
                self, MatcherType,
                matcher_list::{
                    self, FieldMatcher,
                    predicate::{
                        MatchType, PredicateList, SinglePredicate, single_predicate::Matcher as Single,
                    },
                },
                matcher_tree::{MatchMap, TreeType},
                on_match,
            },
            string_matcher::MatchPattern,
        },
    },
};
use prost::Name;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

static ON_MATCH: Shape = Shape(&[(1, Inside::Message(&SHAPE))]);
static FIELD_MATCHER: Shape = Shape(&[(2, Inside::Message(&ON_MATCH))]);
static LIST: Shape = Shape(&[(1, Inside::Message(&FIELD_MATCHER))]);
static MAP: Shape = Shape(&[(1, Inside::MapOf(&ON_MATCH))]);
static TREE: Shape = Shape(&[(2, Inside::Message(&MAP)), (3, Inside::Message(&MAP))]);

/// Where the maps of a matcher are.
pub(in crate::resource) static SHAPE: Shape =
    Shape(&[(1, Inside::Message(&LIST)), (2, Inside::Message(&TREE)), (3, Inside::Message(&ON_MATCH))]);

/// Trees in one another.
const DEEPEST: usize = 16;

/// How an action is read.
type Action<'p, A> = &'p dyn Fn(&Any, &Path<'_>, &mut Faults) -> Option<A>;

pub(in crate::resource) fn parse<A>(
    proto: &Matcher,
    action: Action<'_, A>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<MatcherTree<A>> {
    tree(proto, action, DEEPEST, at, faults)
}

fn tree<A>(
    proto: &Matcher,
    action: Action<'_, A>,
    depth: usize,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<MatcherTree<A>> {
    if depth == 0 {
        return faults.reject(at, format_args!("more than {DEEPEST} matchers stand in one another"));
    }
    let depth = depth - 1;
    let kind = match &proto.matcher_type {
        None => None,
        Some(MatcherType::MatcherList(list)) => {
            let at = at.field("matcher_list");
            let at = at.field("matchers");
            if list.matchers.is_empty() {
                return faults.reject(&at, "must not be empty");
            }
            let list = super::every(&list.matchers, &at, faults, |matcher, at, faults| {
                let on_at = at.field("on_match");
                let on = faults.required(&on_at, &matcher.on_match).cloned();
                let on = on.and_then(|on| on_match(&on, action, depth, &on_at, faults));
                let at = at.field("predicate");
                let held = faults.required(&at, &matcher.predicate)?;
                let held = predicate(held, DEEPEST, &at, faults);
                Some((held?, on?))
            });
            Some(MatcherKind::List(list?))
        }
        Some(MatcherType::MatcherTree(tree)) => {
            let at = at.field("matcher_tree");
            let input = input(&tree.input, &at, faults);
            match &tree.tree_type {
                Some(TreeType::ExactMatchMap(entries)) => {
                    let map = map(entries, action, depth, &at.field("exact_match_map"), faults);
                    Some(MatcherKind::Exact { input: input?, map: map? })
                }
                Some(TreeType::PrefixMatchMap(entries)) => {
                    let map = map(entries, action, depth, &at.field("prefix_match_map"), faults);
                    Some(MatcherKind::Prefix { input: input?, map: map? })
                }
                Some(TreeType::CustomMatch(_)) => {
                    return faults.reject(&at.field("custom_match"), "is not supported");
                }
                None => return faults.reject(&at, "exact_match_map or prefix_match_map is required"),
            }
        }
    };
    let on_no_match = match &proto.on_no_match {
        Some(on) => Some(Box::new(on_match(on, action, depth, &at.field("on_no_match"), faults)?)),
        None => None,
    };
    if kind.is_none() && on_no_match.is_none() {
        return faults.reject(at, "matches nothing: matcher_list, matcher_tree or on_no_match is required");
    }
    Some(MatcherTree { kind, on_no_match })
}

fn map<A>(
    proto: &MatchMap,
    action: Action<'_, A>,
    depth: usize,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<BTreeMap<Arc<str>, OnMatch<A>>> {
    let at = at.field("map");
    if proto.map.is_empty() {
        return faults.reject(&at, "must not be empty");
    }
    let mut parsed = BTreeMap::new();
    for (key, on) in proto.map.iter().collect::<BTreeMap<_, _>>() {
        let on = on_match(on, action, depth, &at.key(key), faults)?;
        parsed.insert(Arc::from(key.as_str()), on);
    }
    Some(parsed)
}

fn on_match<A>(
    proto: &matcher::OnMatch,
    action: Action<'_, A>,
    depth: usize,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<OnMatch<A>> {
    if proto.keep_matching {
        return faults.reject(&at.field("keep_matching"), "is not supported");
    }
    match &proto.on_match {
        Some(on_match::OnMatch::Matcher(inner)) => {
            Some(OnMatch::Matcher(Box::new(tree(inner, action, depth, &at.field("matcher"), faults)?)))
        }
        Some(on_match::OnMatch::Action(extension)) => {
            let at = at.field("action");
            let at = at.field("typed_config");
            let config = faults.required(&at, &extension.typed_config)?;
            Some(OnMatch::Action(action(config, &at, faults)?))
        }
        None => faults.reject(at, "matcher or action is required"),
    }
}

/// The header that is asked about: of the inputs, only that one can be evaluated here.
fn input(proto: &Option<TypedExtensionConfig>, at: &Path<'_>, faults: &mut Faults) -> Option<HeaderOrPseudo> {
    let at = at.field("input");
    let extension = faults.required(&at, proto)?;
    let at = at.field("typed_config");
    let config = faults.required(&at, &extension.typed_config)?;
    if config.type_url != HttpRequestHeaderMatchInput::type_url() {
        let reason = format!("{} is not supported; use HttpRequestHeaderMatchInput", config.type_url);
        return faults.reject(&at, reason);
    }
    let input: HttpRequestHeaderMatchInput = unpack(config, &at, faults)?;
    faults.take(&at.field("header_name"), HeaderOrPseudo::parse(&input.header_name))
}

fn predicate(
    proto: &matcher_list::Predicate,
    depth: usize,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Predicate> {
    if depth == 0 {
        return faults.reject(at, format_args!("more than {DEEPEST} predicates stand in one another"));
    }
    let several = |list: &PredicateList, at: &Path<'_>, faults: &mut Faults| {
        let at = at.field("predicate");
        if list.predicate.len() < 2 {
            return faults.reject(&at, "must hold at least two");
        }
        super::every(&list.predicate, &at, faults, |one, at, faults| predicate(one, depth - 1, at, faults))
    };
    match &proto.match_type {
        Some(MatchType::SinglePredicate(single)) => {
            let at = at.field("single_predicate");
            let name = input(&single.input, &at, faults);
            match &single.matcher {
                Some(Single::ValueMatch(value)) => {
                    let value = string(value, &at.field("value_match"), faults);
                    Some(Predicate::Header(HeaderMatcher::string(name?, value?)))
                }
                Some(Single::CustomMatch(_)) => faults.reject(&at.field("custom_match"), "is not supported"),
                None => faults.reject(&at.field("value_match"), "is required"),
            }
        }
        Some(MatchType::OrMatcher(list)) => several(list, &at.field("or_matcher"), faults).map(Predicate::Or),
        Some(MatchType::AndMatcher(list)) => {
            several(list, &at.field("and_matcher"), faults).map(Predicate::And)
        }
        Some(MatchType::NotMatcher(inner)) => {
            let inner = predicate(inner, depth - 1, &at.field("not_matcher"), faults)?;
            Some(Predicate::Not(Box::new(inner)))
        }
        None => faults.reject(at, "says nothing"),
    }
}

/// xDS has a second string matcher, which is the first without its past.
fn string(proto: &proto::StringMatcher, at: &Path<'_>, faults: &mut Faults) -> Option<StringMatcher> {
    let fold = proto.ignore_case;
    let built = match &proto.match_pattern {
        Some(MatchPattern::Exact(value)) => Ok(StringMatcher::exact(value, fold)),
        Some(MatchPattern::Prefix(value)) => StringMatcher::prefix(value, fold),
        Some(MatchPattern::Suffix(value)) => StringMatcher::suffix(value, fold),
        Some(MatchPattern::Contains(value)) => StringMatcher::contains(value, fold),
        Some(MatchPattern::SafeRegex(regex)) => {
            faults.expressions.full(&regex.regex).map(StringMatcher::from)
        }
        _ => return faults.reject(at, "one of exact, prefix, suffix, contains and safe_regex is required"),
    };
    faults.take(at, built)
}

pub(in crate::resource) fn encode<A>(tree: &MatcherTree<A>, action: &dyn Fn(&A) -> Any) -> Matcher {
    let map = |map: &BTreeMap<Arc<str>, OnMatch<A>>| MatchMap {
        map: map.iter().map(|(key, on)| (key.to_string(), encode_on(on, action))).collect::<HashMap<_, _>>(),
    };
    let by = |input: &HeaderOrPseudo, tree_type| {
        MatcherType::MatcherTree(matcher::MatcherTree {
            input: Some(input_proto(input)),
            tree_type: Some(tree_type),
        })
    };
    Matcher {
        matcher_type: tree.kind.as_ref().map(|kind| match kind {
            MatcherKind::List(list) => MatcherType::MatcherList(matcher::MatcherList {
                matchers: list
                    .iter()
                    .map(|(predicate, on)| FieldMatcher {
                        predicate: Some(encode_predicate(predicate)),
                        on_match: Some(encode_on(on, action)),
                    })
                    .collect(),
            }),
            MatcherKind::Exact { input, map: entries } => by(input, TreeType::ExactMatchMap(map(entries))),
            MatcherKind::Prefix { input, map: entries } => by(input, TreeType::PrefixMatchMap(map(entries))),
        }),
        on_no_match: tree.on_no_match.as_ref().map(|on| Box::new(encode_on(on, action))),
    }
}

fn encode_on<A>(on: &OnMatch<A>, action: &dyn Fn(&A) -> Any) -> matcher::OnMatch {
    matcher::OnMatch {
        on_match: Some(match on {
            OnMatch::Matcher(tree) => on_match::OnMatch::Matcher(Box::new(encode(tree, action))),
            OnMatch::Action(value) => on_match::OnMatch::Action(TypedExtensionConfig {
                name: "action".into(),
                typed_config: Some(action(value)),
            }),
        }),
        keep_matching: false,
    }
}

fn input_proto(input: &HeaderOrPseudo) -> TypedExtensionConfig {
    let config = HttpRequestHeaderMatchInput { header_name: input.as_str().into() };
    TypedExtensionConfig { name: "header".into(), typed_config: Some(any(&config)) }
}

fn encode_predicate(predicate: &Predicate) -> matcher_list::Predicate {
    let list = |list: &[Predicate]| PredicateList { predicate: list.iter().map(encode_predicate).collect() };
    matcher_list::Predicate {
        match_type: Some(match predicate {
            Predicate::Or(any) => MatchType::OrMatcher(list(any)),
            Predicate::And(all) => MatchType::AndMatcher(list(all)),
            Predicate::Not(inner) => MatchType::NotMatcher(Box::new(encode_predicate(inner))),
            Predicate::Header(matcher) => MatchType::SinglePredicate(SinglePredicate {
                input: Some(input_proto(&matcher.name)),
                matcher: match &matcher.kind {
                    HeaderMatch::String(value) => Some(Single::ValueMatch(string_proto(value))),
                    // Not made by `predicate`.
                    HeaderMatch::Range { .. } | HeaderMatch::Present(_) => None,
                },
            }),
        }),
    }
}

fn string_proto(matcher: &StringMatcher) -> proto::StringMatcher {
    let pattern = match &matcher.pattern {
        StringPattern::Exact(value) => MatchPattern::Exact(value.to_string()),
        StringPattern::Prefix(value) => MatchPattern::Prefix(value.to_string()),
        StringPattern::Suffix(value) => MatchPattern::Suffix(value.to_string()),
        StringPattern::Contains(value) => MatchPattern::Contains(value.to_string()),
        StringPattern::Regex(regex) => {
            MatchPattern::SafeRegex(proto::RegexMatcher { regex: regex.as_str().into(), engine_type: None })
        }
    };
    proto::StringMatcher { match_pattern: Some(pattern), ignore_case: matcher.ignore_case }
}
