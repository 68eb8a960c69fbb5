//! More of the client's rules, one script each: those that a change of one line once broke without a test that failed.

use super::{
    lives::{MINUTE, heartbeat, living},
    *,
};

/// Sends one wrapped resource, in either way.
fn send(script: &mut Script, variant: Variant, resource: proto::Resource) -> Outputs {
    if variant == Variant::Delta {
        return script.delta(CDS, vec![resource], &[]);
    }
    let type_url = "type.googleapis.com/envoy.service.discovery.v3.Resource".into();
    let any = proto::Any { type_url, value: resource.encode_to_vec().into() };
    script.sotw_with(CDS, "v", vec![any], vec![])
}

#[test]
fn a_heart_beat_of_what_was_just_given_up_is_no_fault() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a"), (CDS, "b")]);
    script.sotw(CDS, "v1", &["a=1", "b=1"]);
    assert!(send(&mut script, Variant::Sotw, heartbeat("b", "2", 60)).rejected.is_some());
    script.remove(&[(CDS, "b")]);
    assert_eq!(
        send(&mut script, Variant::Sotw, heartbeat("b", "2", 60)).rejected,
        None,
        "whatever its version"
    );
}

#[test]
fn a_heart_beat_says_that_what_is_watched_again_is_still_subscribed() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a")]);
    send(&mut script, Variant::Sotw, living(wrapper(CDS, "a", "1", "a=1"), 60));
    let again = |script: &mut Script| {
        script.remove(&[(CDS, "a")]);
        script.add(&[(CDS, "a")]);
    };
    again(&mut script);
    script.sotw(CDS, "v2", &[]);
    assert_eq!(script.known(CDS, "a"), "1", "this may be older than the watch");
    again(&mut script);
    send(&mut script, Variant::Sotw, heartbeat("a", "1", 60));
    script.sotw(CDS, "v3", &[]);
    assert!(script.known(CDS, "a").contains("does not have it"), "{}", script.known(CDS, "a"));
}

#[test]
fn a_rejected_resource_prolongs_no_life() {
    for variant in [Variant::Delta, Variant::Sotw] {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "a")]);
        send(&mut script, variant, living(wrapper(CDS, "a", "1", "a=1"), 60));
        let end = script.now + MINUTE;
        script.pass(MINUTE / 2);
        assert!(send(&mut script, variant, living(wrapper(CDS, "a", "2", "a=bad"), 60)).rejected.is_some());
        assert_eq!(script.machine.deadline(), Some(end), "{variant:?}");
    }
}

#[test]
fn an_error_that_is_not_about_data_drops_none_whatever_the_settings() {
    for (code, drops) in [(5, true), (7, true), (3, false), (14, false)] {
        let mut script = Script::with(Variant::Delta, |settings| settings.fail_on_data_errors = true);
        script.open(&[(CDS, "a")]);
        script.delta(CDS, vec![wrapper(CDS, "a", "1", "a=1")], &[]);
        script.delta_with(CDS, vec![], &[], vec![resource_error("a", code, "because")]);
        let known = script.known(CDS, "a");
        assert_eq!(known.starts_with("1 ("), !drops, "{code}: {known}");
        assert!(known.contains("because"), "{code}: {known}");
    }
}

#[test]
fn a_resource_that_was_taken_away_before_its_life_ended_lives_no_more() {
    let mut script = Script::new(Variant::Delta);
    script.open(&[(CDS, "a")]);
    send(&mut script, Variant::Delta, living(wrapper(CDS, "a", "1", "a=1"), 60));
    script.delta(CDS, vec![], &["a"]);
    assert!(script.known(CDS, "a").starts_with("1 ("), "it stays in use: {}", script.known(CDS, "a"));
    script.pass(MINUTE);
    assert!(script.known(CDS, "a").contains("time to live ended"));
    assert!(send(&mut script, Variant::Delta, heartbeat("a", "1", 60)).rejected.is_some(), "it is not there");
}

#[test]
fn silence_drops_data_only_where_it_means_something() {
    for (is_transient, drops) in [(false, true), (true, false)] {
        let mut script = Script::with(Variant::Sotw, |settings| {
            settings.fail_on_data_errors = true;
            settings.timer_is_transient = is_transient;
        });
        script.open(&[(CDS, "a")]);
        script.sotw(CDS, "v1", &["a=1"]);
        script.remove(&[(CDS, "a")]);
        script.add(&[(CDS, "a")]);
        // This may be older than the watch: nothing but silence will tell.
        script.sotw(CDS, "v2", &[]);
        assert_eq!(script.known(CDS, "a"), "1");
        script.pass(Duration::from_secs(30));
        let known = script.known(CDS, "a");
        assert!(known.contains("did not send it within"), "{known}");
        assert_eq!(known.starts_with("1 ("), !drops, "{known}");
    }
}

#[test]
fn what_is_known_not_to_be_there_is_not_waited_for_when_it_is_watched_again_at_once() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(EDS, "a")]);
    script.sotw_with(EDS, "v1", vec![], vec![resource_error("a", 5, "there is none")]);
    let known = script.known(EDS, "a");
    assert!(known.contains("there is none"), "{known}");
    script.remove(&[(EDS, "a")]);
    script.add(&[(EDS, "a")]);
    assert_eq!((script.machine.deadline(), script.known(EDS, "a")), (None, known));
}

#[test]
fn what_is_listed_in_doubt_and_never_said_again_is_no_part_of_the_list() {
    for is_transient in [false, true] {
        let mut script = Script::with(Variant::Sotw, |settings| settings.timer_is_transient = is_transient);
        script.open(&[(CDS, "*")]);
        script.sotw(CDS, "v1", &["a=1", "b=1"]);
        script.remove(&[(CDS, "*")]);
        script.add(&[(CDS, "*")]);
        script.sotw(CDS, "v2", &["a=1"]);
        let listed = |script: &Script| match script.machine.listing(CDS) {
            Known::Good { resource, .. } => resource.into_iter().map(|(name, _)| name.to_string()).collect(),
            _ => Vec::new(),
        };
        assert_eq!(listed(&script), ["a", "b"], "this may be older than the wildcard");
        script.pass(Duration::from_secs(30));
        assert_eq!(listed(&script), ["a"], "transient: {is_transient}");
    }
}

/// The stream ends, and there is another one.
fn reconnect(script: &mut Script) {
    script.on(Input::Closed("age".into()));
    assert!(script.pass(MINUTE).connect);
    script.on(Input::Opened);
}

#[test]
fn what_ended_on_an_earlier_stream_is_not_brought_back_by_a_heart_beat() {
    let mut script = Script::new(Variant::Delta);
    script.open(&[(CDS, "a")]);
    send(&mut script, Variant::Delta, living(wrapper(CDS, "a", "1", "a=1"), 60));
    script.pass(MINUTE);
    reconnect(&mut script);
    assert!(send(&mut script, Variant::Delta, heartbeat("a", "1", 60)).rejected.is_some(), "it asked anew");
}

#[test]
fn a_new_stream_says_what_is_there_whatever_was_in_doubt_on_the_one_before() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a")]);
    script.sotw(CDS, "v1", &["a=1"]);
    script.remove(&[(CDS, "a")]);
    script.add(&[(CDS, "a")]);
    reconnect(&mut script);
    script.sotw(CDS, "v2", &[]);
    assert!(script.known(CDS, "a").contains("does not have it"), "{}", script.known(CDS, "a"));
}

#[test]
fn a_life_is_longer_by_a_pause_of_the_stream() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a")]);
    send(&mut script, Variant::Sotw, living(wrapper(CDS, "a", "1", "a=1"), 60));
    let end = script.now + MINUTE;
    script.on(Input::Held);
    script.pass(Duration::from_secs(10));
    script.on(Input::Resumed);
    // Whoever watches it now looks at when it ends.
    script.remove(&[(CDS, "a")]);
    script.add(&[(CDS, "a")]);
    assert_eq!(script.machine.deadline(), Some(end + Duration::from_secs(10)));
}

#[test]
fn a_pause_ends_with_its_stream() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a")]);
    script.on(Input::Held);
    reconnect(&mut script);
    assert_eq!(script.machine.deadline(), Some(script.now + Duration::from_secs(15)), "an answer is awaited");
}

#[test]
fn a_refusal_to_list_stands_until_something_is_listed() {
    let mut script = Script::new(Variant::Delta);
    script.open(&[(CDS, "*")]);
    script.delta_with(CDS, vec![], &[], vec![resource_error("*", 7, "not you")]);
    let refusal = |script: &Script| match script.machine.listing(CDS) {
        Known::Bad(error) => error.to_string(),
        other => format!("{other:?}"),
    };
    assert!(refusal(&script).contains("not you"), "{}", refusal(&script));
    script.delta(CDS, vec![], &["b"]);
    assert!(refusal(&script).contains("not you"), "what is not there lists nothing: {}", refusal(&script));
    script.delta(CDS, vec![wrapper(CDS, "a", "1", "a=1")], &[]);
    assert!(matches!(script.machine.listing(CDS), Known::Good { note: None, .. }), "{}", refusal(&script));
}
