//! Composites and matcher trees.

use super::*;
use envoy_types::pb::{
    envoy::{
        config::core::v3::RuntimeFractionalPercent,
        extensions::{
            common::matching::v3::ExtensionWithMatcherPerRoute,
            filters::{
                common::matcher::action::v3::SkipFilter,
                http::composite::v3::{DynamicConfig, FilterChainConfiguration},
            },
        },
        r#type::matcher::v3::HttpRequestHeaderMatchInput,
    },
    xds::{
        core::v3::TypedExtensionConfig as Extension,
        r#type::matcher::v3::{
            StringMatcher,
            matcher::{
                MatcherList, MatcherTree, MatcherType,
                matcher_list::{
                    FieldMatcher, Predicate,
                    predicate::{MatchType, PredicateList, SinglePredicate, single_predicate},
                },
                matcher_tree::{MatchMap, TreeType},
            },
            string_matcher::MatchPattern,
        },
    },
};

fn xds(config: &impl MessageName) -> Extension {
    Extension { name: "x".into(), typed_config: Some(any(config)) }
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn by_header(name: &str) -> Option<Extension> {
    Some(xds(&HttpRequestHeaderMatchInput { header_name: name.into() }))
}

fn skip() -> OnMatch {
    let on_match = Some(on_match::OnMatch::Action(xds(&SkipFilter {})));
    OnMatch { on_match, keep_matching: false }
}

fn single(pattern: Option<MatchPattern>) -> SinglePredicate {
    let value = StringMatcher { match_pattern: pattern, ignore_case: false };
    SinglePredicate { input: by_header("x"), matcher: Some(single_predicate::Matcher::ValueMatch(value)) }
}

fn holds() -> Predicate {
    let exact = Some(MatchPattern::Exact("v".into()));
    Predicate { match_type: Some(MatchType::SinglePredicate(single(exact))) }
}

/// A list of one predicate that leads to a filter being skipped.
fn good() -> ExtensionWithMatcher {
    let field = FieldMatcher { predicate: Some(holds()), on_match: Some(skip()) };
    let list = MatcherList { matchers: vec![field] };
    ExtensionWithMatcher {
        extension_config: extension("c", &CompositeProto::default()),
        xds_matcher: Some(Matcher {
            matcher_type: Some(MatcherType::MatcherList(list)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn matcher(message: &mut ExtensionWithMatcher) -> &mut Matcher {
    message.xds_matcher.as_mut().unwrap()
}

fn field(message: &mut ExtensionWithMatcher) -> &mut FieldMatcher {
    match &mut matcher(message).matcher_type {
        Some(MatcherType::MatcherList(list)) => &mut list.matchers[0],
        other => panic!("{other:?}"),
    }
}

fn on(message: &mut ExtensionWithMatcher) -> &mut OnMatch {
    field(message).on_match.as_mut().unwrap()
}

fn predicate(message: &mut ExtensionWithMatcher, match_type: Option<MatchType>) {
    field(message).predicate = Some(Predicate { match_type });
}

fn one(message: &mut ExtensionWithMatcher, change: impl FnOnce(&mut SinglePredicate)) {
    let mut single = single(Some(MatchPattern::Exact("v".into())));
    change(&mut single);
    predicate(message, Some(MatchType::SinglePredicate(single)));
}

fn tree(message: &mut ExtensionWithMatcher, input: Option<Extension>, tree_type: Option<TreeType>) {
    let tree = MatcherTree { input, tree_type };
    matcher(message).matcher_type = Some(MatcherType::MatcherTree(tree));
}

fn map(key: &str, on: OnMatch) -> MatchMap {
    MatchMap { map: [(key.to_owned(), on)].into() }
}

#[test]
fn a_matcher_that_cannot_decide_is_refused_with_the_place() {
    const MATCHER: &str = ".xds_matcher.matcher_list.matchers[0]";
    let at = |rest: &str| -> &'static str { format!("{MATCHER}{rest}").leak() };
    refuses_filter(
        &good(),
        false,
        &[
            (|m| m.xds_matcher = None, ".xds_matcher", "is required"),
            (|m| matcher(m).matcher_type = None, ".xds_matcher", "matches nothing"),
            (
                |m| matcher(m).matcher_type = Some(MatcherType::MatcherList(Default::default())),
                ".xds_matcher.matcher_list.matchers",
                "must not be empty",
            ),
            (|m| field(m).on_match = None, at(".on_match"), "is required"),
            (|m| on(m).on_match = None, at(".on_match"), "matcher or action is required"),
            (|m| on(m).keep_matching = true, at(".on_match.keep_matching"), "not supported"),
            (
                |m| on(m).on_match = Some(on_match::OnMatch::Action(Default::default())),
                at(".on_match.action.typed_config"),
                "is required",
            ),
            (
                |m| on(m).on_match = Some(on_match::OnMatch::Action(xds(&CompositeProto::default()))),
                at(".on_match.action.typed_config"),
                "composite.v3.ExecuteFilterAction, found",
            ),
            (
                |m| on(m).on_match = Some(on_match::OnMatch::Matcher(Default::default())),
                at(".on_match.matcher"),
                "matches nothing",
            ),
            (|m| field(m).predicate = None, at(".predicate"), "is required"),
            (|m| predicate(m, None), at(".predicate"), "says nothing"),
            (
                |m| predicate(m, Some(MatchType::OrMatcher(PredicateList { predicate: vec![holds()] }))),
                at(".predicate.or_matcher.predicate"),
                "at least two",
            ),
            (
                |m| predicate(m, Some(MatchType::AndMatcher(PredicateList { predicate: vec![holds()] }))),
                at(".predicate.and_matcher.predicate"),
                "at least two",
            ),
            (
                |m| {
                    let list = PredicateList { predicate: vec![holds(), Predicate::default()] };
                    predicate(m, Some(MatchType::AndMatcher(list)));
                },
                at(".predicate.and_matcher.predicate[1]"),
                "says nothing",
            ),
            (
                |m| predicate(m, Some(MatchType::NotMatcher(Default::default()))),
                at(".predicate.not_matcher"),
                "says nothing",
            ),
            (
                |m| one(m, |single| single.input = None),
                at(".predicate.single_predicate.input"),
                "is required",
            ),
            (
                |m| one(m, |single| single.input = Some(Extension::default())),
                at(".predicate.single_predicate.input.typed_config"),
                "is required",
            ),
            (
                |m| one(m, |single| single.input = Some(xds(&SkipFilter {}))),
                at(".predicate.single_predicate.input.typed_config"),
                "use HttpRequestHeaderMatchInput",
            ),
            (
                |m| {
                    one(m, |single| {
                        let config = single.input.as_mut().unwrap().typed_config.as_mut().unwrap();
                        config.value = vec![0xff];
                    });
                },
                at(".predicate.single_predicate.input.typed_config"),
                "failed to decode",
            ),
            (
                |m| one(m, |single| single.input = by_header("a b")),
                at(".predicate.single_predicate.input.typed_config.header_name"),
                "header name",
            ),
            (
                |m| one(m, |single| single.matcher = None),
                at(".predicate.single_predicate.value_match"),
                "is required",
            ),
            (
                |m| {
                    let custom = single_predicate::Matcher::CustomMatch(Default::default());
                    one(m, |single| single.matcher = Some(custom));
                },
                at(".predicate.single_predicate.custom_match"),
                "not supported",
            ),
            (
                |m| predicate(m, Some(MatchType::SinglePredicate(single(None)))),
                at(".predicate.single_predicate.value_match"),
                "one of exact",
            ),
            (
                |m| {
                    let prefix = MatchPattern::Prefix(String::new());
                    predicate(m, Some(MatchType::SinglePredicate(single(Some(prefix)))));
                },
                at(".predicate.single_predicate.value_match"),
                "must not be empty",
            ),
            (
                |m| tree(m, None, Some(TreeType::ExactMatchMap(map("k", skip())))),
                ".xds_matcher.matcher_tree.input",
                "is required",
            ),
            (
                |m| tree(m, by_header("x"), None),
                ".xds_matcher.matcher_tree",
                "exact_match_map or prefix_match_map is required",
            ),
            (
                |m| tree(m, by_header("x"), Some(TreeType::CustomMatch(Default::default()))),
                ".xds_matcher.matcher_tree.custom_match",
                "not supported",
            ),
            (
                |m| tree(m, by_header("x"), Some(TreeType::ExactMatchMap(Default::default()))),
                ".xds_matcher.matcher_tree.exact_match_map.map",
                "must not be empty",
            ),
            (
                |m| tree(m, by_header("x"), Some(TreeType::PrefixMatchMap(map("k", OnMatch::default())))),
                ".xds_matcher.matcher_tree.prefix_match_map.map[\"k\"]",
                "matcher or action is required",
            ),
            (
                |m| {
                    matcher(m).on_no_match =
                        Some(Box::new(OnMatch { keep_matching: true, ..Default::default() }));
                },
                ".xds_matcher.on_no_match.keep_matching",
                "not supported",
            ),
        ],
    );
}

#[test]
fn predicates_inside_one_another_are_bounded() {
    let nested = |depth: usize| {
        let wrap = |inner, _| Predicate { match_type: Some(MatchType::NotMatcher(Box::new(inner))) };
        let mut message = good();
        field(&mut message).predicate = Some((1..depth).fold(holds(), wrap));
        message
    };
    assert!(Listener::parse(&with(any(&nested(16)), false, false), &context()).is_ok());
    let faults = refused(any(&nested(17)), false);
    assert!(faults.iter().any(|(_, why)| why.contains("more than 16 predicates")), "{faults:?}");
}

#[test]
fn matchers_inside_one_another_are_bounded() {
    let inner = |matcher: Matcher| OnMatch {
        on_match: Some(on_match::OnMatch::Matcher(Box::new(matcher))),
        keep_matching: false,
    };
    let list = |on: OnMatch| {
        let matcher = FieldMatcher { predicate: Some(holds()), on_match: Some(on) };
        MatcherType::MatcherList(MatcherList { matchers: vec![matcher] })
    };
    let exact = |on| TreeType::ExactMatchMap(map("k", on));
    let by_map =
        |on| MatcherType::MatcherTree(MatcherTree { input: by_header("x"), tree_type: Some(exact(on)) });
    let matcher = |matcher_type| Matcher { matcher_type: Some(matcher_type), on_no_match: None };
    let otherwise = |on| Matcher { matcher_type: Some(list(skip())), on_no_match: Some(Box::new(on)) };
    let ways: [&dyn Fn(OnMatch) -> Matcher; 3] =
        [&|on| matcher(list(on)), &|on| matcher(by_map(on)), &otherwise];
    for wrap in ways {
        let nested = |depth: usize| {
            let whole = (1..depth).fold(wrap(skip()), |whole, _| wrap(inner(whole)));
            ExtensionWithMatcher { xds_matcher: Some(whole), ..good() }
        };
        assert!(Listener::parse(&with(any(&nested(16)), false, false), &context()).is_ok());
        let faults = refused(any(&nested(17)), false);
        assert!(
            faults.iter().any(|(_, why)| why == "more than 16 matchers stand in one another"),
            "{faults:?}"
        );
    }
}

fn executing(message: &mut ExtensionWithMatcher, change: impl FnOnce(&mut ExecuteFilterAction)) {
    let typed_config = extension("i", &GcpAuthnFilterConfig::default());
    let mut action = ExecuteFilterAction { typed_config, ..Default::default() };
    change(&mut action);
    on(message).on_match = Some(on_match::OnMatch::Action(xds(&action)));
}

#[test]
#[expect(deprecated, reason = "what older control planes send must be refused")]
fn a_composite_that_cannot_run_its_filter_is_refused_with_the_place() {
    const ACTION: &str = ".xds_matcher.matcher_list.matchers[0].on_match.action.typed_config";
    const NEITHER: &str = "typed_config or a filter_chain that is not empty is required";
    let at = |rest: &str| -> &'static str { format!("{ACTION}{rest}").leak() };
    let mut runs = good();
    executing(&mut runs, |_| {});
    refuses_filter(
        &runs,
        false,
        &[
            (|m| m.matcher = Some(Default::default()), ".matcher", "use xds_matcher"),
            (|m| m.extension_config = None, ".extension_config", "is required"),
            (
                |m| m.extension_config = Some(Default::default()),
                ".extension_config.typed_config",
                "is required",
            ),
            (
                |m| m.extension_config = extension("c", &SkipFilter {}),
                ".extension_config.typed_config",
                "composite.v3.Composite, found",
            ),
            (
                |m| {
                    let chains = [("k".to_owned(), FilterChainConfiguration::default())].into();
                    let inner = CompositeProto { named_filter_chains: chains, ..Default::default() };
                    m.extension_config = extension("c", &inner);
                },
                ".extension_config.typed_config.named_filter_chains",
                "not supported",
            ),
            (
                |m| executing(m, |a| a.dynamic_config = Some(DynamicConfig::default())),
                at(".dynamic_config"),
                "not supported",
            ),
            (
                |m| executing(m, |a| a.filter_chain_name = "n".into()),
                at(".filter_chain_name"),
                "not supported",
            ),
            (|m| executing(m, |a| a.typed_config = None), ACTION, NEITHER),
            (
                |m| executing(m, |a| a.filter_chain = Some(FilterChainConfiguration::default())),
                ACTION,
                NEITHER,
            ),
            (
                |m| {
                    executing(m, |a| {
                        a.typed_config = None;
                        a.filter_chain = Some(FilterChainConfiguration::default());
                    });
                },
                ACTION,
                NEITHER,
            ),
            (
                |m| {
                    executing(m, |a| {
                        let typed_config = a.typed_config.take().into_iter().chain([Default::default()]);
                        a.filter_chain =
                            Some(FilterChainConfiguration { typed_config: typed_config.collect() });
                    });
                },
                at(".filter_chain.typed_config[1].name"),
                "is required",
            ),
            (
                |m| executing(m, |a| a.typed_config.as_mut().unwrap().typed_config = None),
                at(".typed_config.typed_config"),
                "is required",
            ),
            (
                |m| executing(m, |a| a.typed_config = extension("i", &SkipFilter {})),
                at(".typed_config.typed_config"),
                "SkipFilter is not supported on a client",
            ),
            (
                |m| executing(m, |a| a.sample_percent = Some(RuntimeFractionalPercent::default())),
                at(".sample_percent.default_value"),
                "is required",
            ),
        ],
    );
    let xds_matcher = good().xds_matcher;
    refuses_override(
        &ExtensionWithMatcherPerRoute { xds_matcher },
        &[
            (|m| m.xds_matcher = None, ".xds_matcher", "is required"),
            (|m| m.xds_matcher = Some(Matcher::default()), ".xds_matcher", "matches nothing"),
        ],
    );
}
