//! Errors of single resources (xRFC TP3): said once, and remembered.

use super::*;

/// A control plane has to leave a resource out of which it said an error before.
#[test]
fn a_complete_response_says_no_more_of_what_an_error_was_said_before() {
    let mut script = Script::with(Variant::Sotw, |settings| settings.fail_on_data_errors = true);
    script.open(&[(CDS, "a"), (CDS, "b"), (CDS, "c")]);
    script.sotw(CDS, "v1", &["a=1", "b=1", "c=1"]);
    let refused = || vec![resource_error("b", 3, "b.yaml:1 is wrong")];
    script.sotw_with(CDS, "v2", vec![any(CDS, "a=1"), any(CDS, "c=1")], refused());
    assert!(
        script.known(CDS, "b").starts_with("1 (Cluster b cannot be used: b.yaml:1"),
        "its code takes nothing"
    );
    script.sotw(CDS, "v3", &["a=2"]);
    assert!(script.known(CDS, "b").starts_with("1 (Cluster b cannot be used: b.yaml:1"), "still");
    assert!(script.known(CDS, "c").starts_with("Cluster c does not exist"), "of this nothing was said");
    // The resource ends it, and so does another error.
    script.sotw(CDS, "v4", &["a=2", "b=2"]);
    assert_eq!(script.known(CDS, "b"), "2");
    script.sotw_with(CDS, "v5", vec![any(CDS, "a=2")], refused());
    script.sotw_with(CDS, "v6", vec![any(CDS, "a=2")], vec![resource_error("b", 5, "deleted")]);
    assert!(script.known(CDS, "b").starts_with("Cluster b does not exist: deleted"));

    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a"), (CDS, "b")]);
    script.sotw(CDS, "v1", &["a=1", "b=1"]);
    script.sotw_with(CDS, "v2", vec![any(CDS, "a=1")], vec![resource_error("b", 5, "deleted")]);
    script.sotw(CDS, "v3", &["a=2"]);
    let known = script.known(CDS, "b");
    assert!(known.starts_with("1 (Cluster b does not exist: deleted"), "the words stay: {known}");
}

#[test]
fn an_error_is_remembered_as_long_as_its_stream() {
    let mut script = Script::with(Variant::Sotw, |settings| settings.fail_on_data_errors = true);
    script.open(&[(CDS, "a"), (CDS, "b")]);
    script.sotw(CDS, "v1", &["a=1", "b=1"]);
    script.sotw_with(CDS, "v2", vec![any(CDS, "a=1")], vec![resource_error("b", 14, "busy")]);
    script.on(Input::Closed("over".into()));
    script.pass(Duration::from_secs(60));
    script.on(Input::Opened);
    script.sotw(CDS, "v3", &["a=1"]);
    assert!(script.known(CDS, "b").starts_with("Cluster b does not exist"), "who answers now says so");
}

/// Servers say it in both ways, for clients that do not know errors.
#[test]
fn what_is_removed_and_has_a_reason_has_the_reason() {
    let mut script = Script::with(Variant::Delta, |settings| settings.fail_on_data_errors = true);
    script.open(&[(CDS, "a"), (CDS, "b")]);
    script.delta(CDS, vec![wrapper(CDS, "a", "v1", "a=1"), wrapper(CDS, "b", "v1", "b=1")], &[]);
    let error = resource_error("a", 3, "a.yaml:1 is wrong");
    script.delta_with(CDS, vec![], &["a", "b"], vec![error]);
    assert!(script.known(CDS, "a").starts_with("1 (Cluster a cannot be used: a.yaml:1"));
    assert!(script.known(CDS, "b").starts_with("Cluster b does not exist"));
}
