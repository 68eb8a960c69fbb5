//! More of the client's rules, one script each: those that a change of one line once broke without a test that failed.

use super::*;

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
