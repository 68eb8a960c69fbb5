//! What is served after which change. Scans in, [`Loaded`] out; no files.

use super::*;
use crate::model::Action;

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn files(files: &[(&str, &str)]) -> Scan {
    Scan { files: files.iter().map(|(path, text)| ((*path).to_owned(), Ok((*text).to_owned()))).collect() }
}

fn state() -> LastGood {
    LastGood::new(Arc::default())
}

/// `name:port` of each service, and the codes of the findings.
fn shown(loaded: &Loaded) -> (Vec<String>, Vec<&'static str>) {
    let services = loaded.config.services();
    let services = services.map(|service| format!("{}:{}", service.origin.id.name, service.ports[0].number));
    (services.collect(), loaded.findings.iter().map(|finding| finding.code.id()).collect())
}

#[test]
fn the_same_text_is_no_change() {
    let mut state = state();
    let scan = files(&[("a.yaml", &service("a", 1))]);
    assert!(state.apply(scan.clone()).is_some());
    assert!(state.apply(scan).is_none());
}

#[test]
fn an_empty_directory_is_a_configuration_too_and_only_once() {
    let mut state = state();
    let loaded = state.apply(Scan::default()).expect("the first load");
    assert!(loaded.config.objects().is_empty() && loaded.findings.is_empty());
    assert!(state.apply(Scan::default()).is_none());
}

#[test]
fn the_revision_names_the_text_and_where_it_is() {
    let revision = |scan: Scan| state().apply(scan).expect("loaded").revision;
    let a = service("a", 1);
    assert_eq!(revision(files(&[("a.yaml", &a)])), revision(files(&[("a.yaml", &a)])));
    assert_ne!(revision(files(&[("a.yaml", &a)])), revision(files(&[("b.yaml", &a)])));
    assert_ne!(revision(files(&[("a.yaml", &a)])), revision(files(&[("a.yaml", &service("a", 2))])));
}

#[test]
fn a_file_that_is_not_yaml_keeps_everything_it_held_and_says_so() {
    let mut state = state();
    let good = format!("{}---\n{}", service("a", 1), service("b", 2));
    state.apply(files(&[("a.yaml", &good), ("b.yaml", &service("c", 3))]));
    let loaded = state.apply(files(&[("a.yaml", "a: ["), ("b.yaml", &service("c", 4))])).expect("a change");
    assert_eq!(shown(&loaded), (vec!["a:1".into(), "b:2".into(), "c:4".into()], vec!["IST0106", "MESH0004"]));
    assert!(loaded.findings[1].message.ends_with("Service default/a, Service default/b"));
    // Breaking it further keeps the same last good version.
    let loaded = state.apply(files(&[("a.yaml", "{"), ("b.yaml", &service("c", 4))])).expect("a change");
    assert_eq!(shown(&loaded).0, ["a:1", "b:2", "c:4"]);
    let loaded = state.apply(files(&[("a.yaml", &service("a", 9)), ("b.yaml", &service("c", 4))]));
    assert_eq!(shown(&loaded.expect("a change")), (vec!["a:9".into(), "c:4".into()], vec![]));
}

#[test]
fn a_refused_object_keeps_its_last_good_one_and_its_neighbours_move_on() {
    let mut state = state();
    state.apply(files(&[("a.yaml", &format!("{}---\n{}", service("a", 1), service("b", 2)))]));
    let broken = format!("{}---\n{}", service("a", 0), service("b", 3));
    let loaded = state.apply(files(&[("a.yaml", &broken)])).expect("a change");
    assert_eq!(shown(&loaded), (vec!["a:1".into(), "b:3".into()], vec!["IST0106", "MESH0004"]));
}

#[test]
fn a_document_that_cannot_be_named_may_be_any_object_that_is_gone() {
    let mut state = state();
    state.apply(files(&[("a.yaml", &format!("{}---\n{}", service("a", 1), service("b", 2)))]));
    let nameless = format!("{}---\n{}", service("a", 3), service("b", 4).replace("name: b", "nam: b"));
    let loaded = state.apply(files(&[("a.yaml", &nameless)])).expect("a change");
    assert_eq!(shown(&loaded).0, ["a:3", "b:2"]);
}

#[test]
fn deleting_a_file_or_a_document_deletes_its_objects() {
    let mut state = state();
    let both = format!("{}---\n{}", service("a", 1), service("b", 2));
    state.apply(files(&[("a.yaml", &both), ("b.yaml", &service("c", 3))]));
    let loaded = state.apply(files(&[("a.yaml", &service("a", 1)), ("b.yaml", &service("c", 3))]));
    assert_eq!(shown(&loaded.expect("a change")).0, ["a:1", "c:3"]);
    let loaded = state.apply(files(&[("a.yaml", &service("a", 1))])).expect("a change");
    assert_eq!(shown(&loaded), (vec!["a:1".into()], vec![]));
}

#[test]
fn a_file_that_cannot_be_read_keeps_what_it_held() {
    let mut state = state();
    state.apply(files(&[("a.yaml", &service("a", 1)), ("b.yaml", &service("b", 1))]));
    let mut scan = files(&[("b.yaml", &service("b", 2))]);
    scan.files.insert("a.yaml".to_owned(), Err("permission denied".to_owned()));
    let loaded = state.apply(scan).expect("a change");
    assert_eq!(shown(&loaded), (vec!["a:1".into(), "b:2".into()], vec!["MESH0006"]));
}

#[test]
fn deleting_everything_is_held_until_it_is_confirmed() {
    let mut state = state();
    let first = state.apply(files(&[("a.yaml", &service("a", 1))])).expect("loaded");
    let held = state.apply(Scan::default()).expect("a report");
    assert_eq!(shown(&held), (vec!["a:1".into()], vec!["MESH0005"]));
    assert_eq!(held.revision, first.revision, "what is served is still the first");
    assert!(state.apply(Scan::default()).is_none(), "said once");
    let confirmed = state.confirm().expect("a change");
    assert_eq!(shown(&confirmed), (vec![], vec![]));
    assert!(state.confirm().is_none(), "nothing is held any more");
}

#[test]
fn putting_the_files_back_ends_the_hold() {
    let mut state = state();
    let scan = files(&[("a.yaml", &service("a", 1))]);
    state.apply(scan.clone());
    state.apply(Scan::default());
    assert_eq!(shown(&state.apply(scan).expect("a change")), (vec!["a:1".into()], vec![]));
    assert!(state.confirm().is_none());
}

#[test]
fn an_object_of_two_files_is_reported_and_the_first_by_path_is_served() {
    let scan = files(&[("b.yaml", &service("a", 2)), ("a.yaml", &service("a", 1))]);
    let loaded = state().apply(scan).expect("loaded");
    assert_eq!(shown(&loaded), (vec!["a:1".into()], vec!["MESH0003"]));
    let place = loaded.findings[0].place.as_ref().expect("place").to_string();
    assert_eq!(place, "b.yaml:3:18");
    assert!(loaded.findings[0].help.as_deref().is_some_and(|help| help.contains("a.yaml:3:18")));
}

#[test]
fn an_object_moved_out_of_a_file_that_breaks_is_served_from_its_new_one() {
    let mut state = state();
    state.apply(files(&[("a.yaml", &service("a", 1))]));
    let loaded = state.apply(files(&[("a.yaml", "{"), ("b.yaml", &service("a", 2))])).expect("a change");
    assert_eq!(shown(&loaded).0, ["a:2"]);
}

fn actions(loaded: &Loaded) -> Vec<Action> {
    loaded.config.authorization_policies_in("default").iter().map(|policy| policy.action).collect()
}

#[test]
fn a_broken_policy_denies_unless_a_good_one_is_known() {
    let broken = policy("p", "{rules: [{form: []}]}");
    let mut fresh = state();
    let loaded = fresh.apply(files(&[("a.yaml", &broken)])).expect("loaded");
    assert_eq!(actions(&loaded), [Action::Deny]);
    assert!(shown(&loaded).1.contains(&"MESH0007"));

    let mut warm = state();
    warm.apply(files(&[("a.yaml", &policy("p", "{rules: [{}]}"))]));
    let loaded = warm.apply(files(&[("a.yaml", &broken)])).expect("a change");
    assert_eq!(actions(&loaded), [Action::Allow], "the last good one");

    // A denial that stood in is not a last good version.
    let loaded = fresh.apply(files(&[("a.yaml", &format!("{broken}# again\n"))])).expect("a change");
    assert_eq!(shown(&loaded).1.iter().filter(|code| **code == "MESH0004").count(), 0);
    let loaded = fresh.apply(files(&[("a.yaml", &policy("p", "{rules: [{}]}"))])).expect("a change");
    assert_eq!(actions(&loaded), [Action::Allow]);
}

#[test]
fn a_start_with_something_that_cannot_be_named_is_incomplete() {
    let mut cold = state();
    assert!(cold.apply(files(&[("a.yaml", "{"), ("b.yaml", &service("b", 1))])).expect("loaded").incomplete);
    assert!(!cold.apply(files(&[("a.yaml", &service("a", 1)), ("b.yaml", "")])).expect("loaded").incomplete);
    // From here on the last good version stands in.
    assert!(!cold.apply(files(&[("a.yaml", "{"), ("b.yaml", "")])).expect("loaded").incomplete);
}

#[test]
fn what_cannot_be_named_holds_every_change_until_it_can() {
    let mut state = state();
    let (old, new) = (service("a", 1), service("a", 2));
    let first = state.apply(files(&[("a.yaml", &old)])).expect("loaded");
    let scan = files(&[("a.yaml", &new), ("new.yaml", "{")]);
    let held = state.apply(scan.clone()).expect("a report");
    assert_eq!((shown(&held).0, held.revision.as_str()), (vec!["a:1".into()], first.revision.as_str()));
    assert_eq!(shown(&held).1, ["MESH0005", "IST0106"]);
    assert!(held.findings[0].message.contains("new.yaml"), "{:?}", held.findings[0]);
    assert!(held.incomplete);
    assert!(state.apply(scan).is_none(), "said once");
    assert!(state.confirm().is_none(), "only a deletion can be confirmed");
    // Not by deleting everything else either.
    let held = state.apply(files(&[("new.yaml", "{")])).expect("a report");
    assert_eq!((shown(&held).0, state.confirm().is_none()), (vec!["a:1".into()], true));
    let good = state.apply(files(&[("a.yaml", &new), ("new.yaml", &service("b", 1))])).expect("a change");
    assert_eq!((shown(&good), good.incomplete), ((vec!["a:2".into(), "b:1".into()], vec![]), false));
}

#[test]
fn a_file_that_became_empty_may_be_half_written() {
    let mut state = state();
    state.apply(files(&[("a.yaml", &service("a", 1)), ("b.yaml", &service("b", 1))]));
    assert!(state.looks_unfinished(&files(&[("a.yaml", ""), ("b.yaml", &service("b", 1))])));
    assert!(!state.looks_unfinished(&files(&[("b.yaml", &service("b", 1))])));
    assert!(!state.looks_unfinished(&files(&[("new.yaml", "")])));
}

#[test]
fn errors_come_first() {
    let vs = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\n";
    let loaded = state().apply(files(&[("a.yaml", vs), ("b.yaml", "{")])).expect("loaded");
    let severities: Vec<_> = loaded.findings.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Error, Severity::Warning]);
}

fn rule(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r}}\nspec: {spec}\n"
    )
}

/// Whether the rule is there, and whether it fails calls.
fn fails(loaded: &Loaded) -> Option<bool> {
    loaded.config.destination_rules().first().map(|rule| rule.refused.is_some())
}

#[test]
fn a_refused_rule_fails_calls_where_it_asks_for_tls_and_the_last_good_one_has_none() {
    const PLAIN: &str = "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}}}";
    const SECURE: &str = "{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}";
    const AT_PORT: &str =
        "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 1}, tls: {mode: ISTIO_MUTUAL}}]}}";
    const OF_SUBSET: &str = "{host: a, subsets: [{name: v1, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}]}";
    const LISTED: &str = "{host: a, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /r, caCrl: /l}}}";
    let cases = [
        // One that knows no revoked server does not stand in for one that does.
        (SECURE, "{host: a, trafficPolicy: {tls: {mode: MUTUAL, caCrl: /l}}}", Some(true)),
        (LISTED, "{host: a, trafficPolicy: {tls: {mode: MUTUAL, caCrl: /l}}}", Some(false)),
        // Whatever else is wrong, a rule that asks for no TLS costs nothing that was good.
        (PLAIN, "{host: a, trafficPolicy: {loadBalancer: {simple: X}}}", Some(false)),
        ("", "{host: a, trafficPolicy: {loadBalancer: {simple: X}}}", None),
        ("", "{host: a, trafficPolicy: {tls: {mode: DISABLE, x: y}}}", None),
        ("", "{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}", Some(true)),
        (PLAIN, "{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}", Some(true)),
        (
            PLAIN,
            "{host: a, trafficPolicy: {loadBalancer: {simple: X}, tls: {mode: ISTIO_MUTUAL}}}",
            Some(true),
        ),
        (SECURE, "{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}", Some(false)),
        // Another host has had none.
        (SECURE, "{host: b, trafficPolicy: {tls: {mode: MUTUAL}}}", Some(true)),
        (
            SECURE,
            "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 1}, tls: {mode: MUTUAL}}]}}",
            Some(false),
        ),
        (
            AT_PORT,
            "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 1}, tls: {mode: MUTUAL}}]}}",
            Some(false),
        ),
        (
            AT_PORT,
            "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 2}, tls: {mode: MUTUAL}}]}}",
            Some(true),
        ),
        (AT_PORT, "{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}", Some(true)),
        (OF_SUBSET, "{host: a, subsets: [{name: v1, trafficPolicy: {tls: {mode: MUTUAL}}}]}", Some(false)),
        (OF_SUBSET, "{host: a, subsets: [{name: v2, trafficPolicy: {tls: {mode: MUTUAL}}}]}", Some(true)),
        // How people mistype it, and where they put it.
        ("", "{host: a, trafficPolicy: {tsl: {mode: SIMPLE}}}", Some(true)),
        ("", "{host: a, trafficPolicy: {tls: {mod: SIMPLE}}}", Some(true)),
        ("", "{host: a, trafficPolicy: {tls: SIMPLE}}", Some(true)),
        ("", "{host: a, trafficPolicy: {transport: {mode: SIMPLE}}}", Some(true)),
        ("", "{host: a, tls: {mode: SIMPLE}}", Some(true)),
        ("", "{host: a, trafficPolicies: {tls: {mode: SIMPLE}}}", Some(true)),
        ("", "{host: a, trafficPolicy: {connectionPool: {tls: {mode: SIMPLE}}}}", Some(true)),
        ("", "{host: a, subsets: [{name: [], trafficPolicy: {tls: {mode: SIMPLE}}}]}", Some(true)),
        ("", "{host: a, trafficPolicy: {portLevelSettings: [{tls: {mode: ISTIO_MUTUAL}}]}}", Some(true)),
        // Nobody can say what it asks for.
        ("", "{host: a, trafficPolicy: SIMPLE}", Some(true)),
        (PLAIN, "all of it", Some(true)),
        (SECURE, "{host: a, trafficPolicy: SIMPLE}", Some(false)),
        (AT_PORT, "{host: a, trafficPolicy: SIMPLE}", Some(true)),
    ];
    for (good, broken, expected) in cases {
        let mut state = state();
        if !good.is_empty() {
            let loaded = state.apply(files(&[("a.yaml", &rule(good))])).expect("loaded");
            assert_eq!(fails(&loaded), Some(false), "{good}");
        }
        let loaded = state.apply(files(&[("a.yaml", &rule(broken))])).expect("a change");
        assert_eq!(fails(&loaded), expected, "{good}\n{broken}");
        let told = shown(&loaded).1.contains(&"MESH0007");
        assert_eq!(told, expected == Some(true), "{good}\n{broken}");
    }
}

/// Two files define one rule: what is kept of one says nothing of what the other asks for.
#[test]
fn a_kept_rule_never_takes_the_place_of_a_stand_in_of_another_file_that_asks_for_tls() {
    let plain = rule("{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}}}");
    let broken = rule("{host: a, trafficPolicy: {loadBalancer: {simple: X}}}");
    let asks = rule("{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}");
    for (one, other) in [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")] {
        let mut state = state();
        state.apply(files(&[(other, &plain)]));
        let loaded = state.apply(files(&[(one, &asks), (other, &broken)])).expect("a change");
        assert_eq!(fails(&loaded), Some(true), "{one} asks");
        // One that has what is asked for does.
        let secure = rule("{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}");
        state.apply(files(&[(other, &secure)]));
        let broken = rule("{host: a, trafficPolicy: {loadBalancer: {simple: X}, tls: {mode: ISTIO_MUTUAL}}}");
        let loaded = state.apply(files(&[(one, &asks), (other, &broken)])).expect("a change");
        assert_eq!(fails(&loaded), Some(false), "{one} asks");
    }
}

#[test]
fn a_stand_in_stays_until_its_object_can_be_read_and_what_it_passed_over_comes_back() {
    let plain = rule("{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}}}");
    let mut state = state();
    state.apply(files(&[("a.yaml", &plain)]));
    let mut fails_with = |text: &str| fails(&state.apply(files(&[("a.yaml", text)])).expect("a change"));
    let secure = rule("{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}");
    assert_eq!(fails_with(&secure), Some(true));
    // Not the plaintext of before, while nobody can say what is written now.
    assert_eq!(fails_with(&format!("{secure}---\n{{")), Some(true));
    // TLS is not asked for any more, and the rest is still wrong.
    assert_eq!(fails_with(&rule("{host: a, trafficPolicy: {loadBalancer: {simple: X}}}")), Some(false));
    assert_eq!(fails_with(&secure), Some(true));
    assert_eq!(fails_with(&plain), Some(false));

    let denial = policy("p", "{rules: [{form: []}]}");
    let mut state = super::LastGood::new(Arc::default());
    assert_eq!(actions(&state.apply(files(&[("a.yaml", &denial)])).expect("loaded")), [Action::Deny]);
    let unreadable = format!("{denial}---\n{{");
    assert_eq!(actions(&state.apply(files(&[("a.yaml", &unreadable)])).expect("a change")), [Action::Deny]);
    let scan = Scan { files: [("a.yaml".to_owned(), Err("gone".to_owned()))].into() };
    assert_eq!(actions(&state.apply(scan).expect("a change")), [Action::Deny]);
}
