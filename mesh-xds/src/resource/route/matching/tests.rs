//! A miss is the first condition that does not hold, and says so.

use super::*;
use crate::matcher::{HeaderMatch, HeaderOrPseudo, StringMatcher};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

fn word() -> impl Strategy<Value = String> {
    "[aAb]{1,2}"
}

fn string() -> impl Strategy<Value = StringMatcher> {
    (word(), any::<bool>(), 0..5).prop_map(|(word, fold, kind)| match kind {
        0 => StringMatcher::exact(&word, fold),
        1 => StringMatcher::prefix(&word, fold).unwrap(),
        2 => StringMatcher::suffix(&word, fold).unwrap(),
        3 => StringMatcher::contains(&word, fold).unwrap(),
        _ => StringMatcher::regex(&format!("{word}.?")).unwrap(),
    })
}

fn header_matcher() -> impl Strategy<Value = HeaderMatcher> {
    let name = prop::sample::select(vec!["x", "y", "z-bin", ":method", "host"]);
    let kind = prop_oneof![
        4 => string().prop_map(HeaderMatch::String),
        1 => (0..5_i64, 0..5_i64).prop_map(|(start, length)| HeaderMatch::Range { start, end: start + length }),
        1 => any::<bool>().prop_map(HeaderMatch::Present),
    ];
    (name, kind, any::<bool>(), any::<bool>()).prop_map(|(name, kind, invert, treat_missing_as_empty)| {
        HeaderMatcher { name: HeaderOrPseudo::parse(name).unwrap(), kind, invert, treat_missing_as_empty }
    })
}

fn matches() -> impl Strategy<Value = RouteMatch> {
    let path = prop_oneof![
        3 => Just(PathMatcher::any()),
        1 => (word(), any::<bool>()).prop_map(|(word, fold)| PathMatcher::prefix(&format!("/{word}"), fold)),
        1 => (word(), any::<bool>()).prop_map(|(word, fold)| PathMatcher::exact(&format!("/{word}"), fold)),
    ];
    let query = (word(), prop::option::of(string()));
    let query = query.prop_map(|(name, value)| QueryMatcher { name: name.as_str().into(), value });
    (path, prop::collection::vec(header_matcher(), 0..3), prop::collection::vec(query, 0..2))
        .prop_map(|(path, headers, query)| RouteMatch { path, headers, query, fraction: None })
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    let name = prop::sample::select(vec!["x", "y", "z-bin"]);
    prop::collection::vec((name, "[aAb3]{0,2}"), 0..4).prop_map(|pairs| {
        let pair = |(name, value): (&'static str, String)| {
            (HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap())
        };
        pairs.into_iter().map(pair).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn there_is_a_miss_exactly_when_some_condition_fails_and_it_is_the_first(
        matches in matches(),
        map in headers(),
        path in "/[aAb]{0,3}",
        query in prop::option::of("[aAb]=[aAb]{0,2}(&[aAb]{1,2})?"),
    ) {
        let request = Headers { map: &map, authority: "reviews:9080", path: &path, scheme: "http" };
        let query = query.as_deref();
        let failing: Vec<Miss<'_>> = (!matches.path.matches(&path))
            .then_some(Miss::Path(&matches.path))
            .into_iter()
            .chain(matches.headers.iter().filter(|one| !one.matches(&request)).map(Miss::Header))
            .chain(
                matches.query.iter().filter(|one| !one.matches(query.unwrap_or_default())).map(Miss::Query),
            )
            .collect();
        let miss = matches.miss(&request, query);
        prop_assert_eq!(miss, failing.first().copied());
        if let Some(miss) = miss {
            prop_assert!(!miss.reason(&request, query).is_empty());
        }
    }
}

fn reason(matches: &RouteMatch, map: &HeaderMap, query: Option<&str>) -> String {
    let request = Headers { map, authority: "reviews:9080", path: "/a.B/C", scheme: "http" };
    matches.miss(&request, query).unwrap().reason(&request, query)
}

#[test]
fn a_reason_says_what_was_found_and_what_is_wanted() {
    let any = || RouteMatch { path: PathMatcher::any(), headers: vec![], query: vec![], fraction: None };
    let header = |name: &str, value: &str| {
        HeaderMatcher::string(HeaderOrPseudo::parse(name).unwrap(), StringMatcher::exact(value, false))
    };
    let with = |header: HeaderMatcher| RouteMatch { headers: vec![header], ..any() };
    let present = |name: &str| HeaderMatcher::present(HeaderOrPseudo::parse(name).unwrap());
    let query = |value: Option<StringMatcher>| RouteMatch {
        query: vec![QueryMatcher { name: "v".into(), value }],
        ..any()
    };
    let map: HeaderMap = [("end-user", "x"), ("authorization", "Bearer secret"), ("k-bin", "AA==")]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let path = RouteMatch { path: PathMatcher::exact("/A", true), ..any() };
    let exact = Some(StringMatcher::exact("1", false));
    for (matches, query, expected) in [
        (path, None, r#"path is "/a.B/C", want exact "/a" in any case"#),
        (with(header("end-user", "jason")), None, r#"header end-user is "x", want exact "jason""#),
        (with(header("end-user", "x").inverted()), None, r#"header end-user is "x", want not exact "x""#),
        (with(header("other", "y").inverted()), None, r#"header other is absent, want not exact "y""#),
        (with(present("other")), None, "header other is absent, want it present"),
        (with(present("end-user").inverted()), None, r#"header end-user is "x", want it absent"#),
        (
            with(header("authorization", "no")),
            None,
            "header authorization is there (not shown), want another value",
        ),
        (with(header("k-bin", "AA==")), None, "header k-bin is binary, which no match compares"),
        (with(header(":authority", "a")), None, r#"header :authority is "reviews:9080", want exact "a""#),
        (query(None), None, "query parameter v is absent"),
        (query(exact.clone()), Some("w=1"), r#"query parameter v is absent, want exact "1""#),
        (query(exact), Some("v=2&v=3"), r#"query parameter v is "2" and "3", want exact "1""#),
    ] {
        assert_eq!(reason(&matches, &map, query), expected);
    }
}

#[test]
fn a_match_reads_as_its_conditions() {
    let name = HeaderOrPseudo::parse("end-user").unwrap();
    let mut matches = RouteMatch { path: PathMatcher::any(), headers: vec![], query: vec![], fraction: None };
    assert_eq!(matches.to_string(), "every request");
    matches.path = PathMatcher::prefix("/a", false);
    matches.headers = vec![
        HeaderMatcher::string(name.clone(), StringMatcher::exact("jason", false)),
        HeaderMatcher::present(name).inverted(),
    ];
    matches.query = vec![QueryMatcher { name: "v".into(), value: None }];
    matches.fraction = Some(crate::matcher::Fraction::per_million(125_000));
    let expected = "path prefix \"/a\", header end-user exact \"jason\", header end-user absent, \
                    query parameter v present, 12.5 % of the requests";
    assert_eq!(matches.to_string(), expected);
}
