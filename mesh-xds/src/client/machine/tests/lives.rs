//! Times to live, and heart-beats.

use super::*;

/// A wrapper with a time to live.
pub(super) fn living(wrapper: proto::Resource, seconds: i64) -> proto::Resource {
    proto::Resource { ttl: Some(prost_types::Duration { seconds, nanos: 0 }), ..wrapper }
}

/// The heart-beat of a version.
pub(super) fn heartbeat(name: &str, version: &str, seconds: i64) -> proto::Resource {
    living(proto::Resource { name: name.into(), version: version.into(), ..Default::default() }, seconds)
}

pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Clusters `a` and `b`, each for a minute.
fn two_living() -> Script {
    let mut script = Script::new(Variant::Delta);
    script.open(&[(CDS, "a"), (CDS, "b")]);
    let both = vec![living(wrapper(CDS, "a", "1", "a=1"), 60), living(wrapper(CDS, "b", "1", "b=1"), 60)];
    script.delta(CDS, both, &[]);
    script
}

#[test]
fn a_time_to_live_ends_unless_the_resource_or_its_heart_beat_comes_again() {
    let mut script = two_living();
    assert_eq!(script.machine.good(CDS, "a"), None, "it is not for the disk");
    script.pass(MINUTE / 2);
    let out = script.delta(CDS, vec![heartbeat("a", "1", 60)], &[]);
    assert_eq!(delta(&out).error_detail, None);
    assert!(out.changed.is_empty());
    assert_eq!(script.pass(MINUTE / 2).changed, [key(CDS, "b")].into());
    assert!(
        script.known(CDS, "b").starts_with("Cluster b does not exist: its time to live ended"),
        "{}",
        script.known(CDS, "b")
    );
    assert_eq!(script.known(CDS, "a"), "1");
    // Its neighbour is sent again, without an end.
    script.delta(CDS, vec![wrapper(CDS, "a", "2", "a=1"), living(wrapper(CDS, "b", "2", "b=2"), 5)], &[]);
    script.pass(10 * MINUTE);
    assert_eq!(script.known(CDS, "a"), "1");
    assert!(script.known(CDS, "b").contains("does not exist"));
}

#[test]
fn a_time_to_live_ends_while_the_control_plane_is_away_and_the_resource_is_asked_for_anew() {
    for variant in [Variant::Delta, Variant::Sotw] {
        let mut script = Script::new(variant);
        script.open(&[(EDS, "a")]);
        let wrapped = living(wrapper(EDS, "a", "1", "a=1"), 60);
        match variant {
            Variant::Delta => script.delta(EDS, vec![wrapped], &[]),
            Variant::Sotw => {
                let any = proto::Any {
                    type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
                    value: wrapped.encode_to_vec().into(),
                };
                script.sotw_with(EDS, "v1", vec![any], vec![])
            }
        };
        script.on(Input::Closed("gone".into()));
        assert_eq!(script.known(EDS, "a"), "1");
        script.pass(MINUTE);
        assert!(script.known(EDS, "a").contains("time to live ended"), "{variant:?}");
        script.on(Input::Opened);
        assert_eq!(script.machine.deadline(), Some(script.now + Duration::from_secs(15)), "it is waited for");
        if variant == Variant::Delta {
            script.delta(EDS, vec![wrapper(EDS, "a", "1", "a=1")], &[]);
            assert_eq!(script.known(EDS, "a"), "1");
        }
    }
}

#[test]
fn a_time_to_live_beyond_every_clock_is_a_century() {
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    for seconds in [4_000_000_000, 315_576_000_000, i64::MAX] {
        let mut script = Script::new(Variant::Delta);
        script.open(&[(LDS, "a")]);
        script.delta(LDS, vec![living(wrapper(LDS, "a", "1", "a=1"), seconds)], &[]);
        assert_eq!(script.machine.deadline(), Some(script.now + century), "{seconds}");
        script.delta(LDS, vec![heartbeat("a", "1", seconds)], &[]);
        assert_eq!(script.machine.deadline(), Some(script.now + century), "{seconds}");
    }
}

#[test]
fn a_late_heart_beat_brings_back_what_ended_and_nothing_that_was_taken_away() {
    for variant in [Variant::Delta, Variant::Sotw] {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "a")]);
        let send = |script: &mut Script, resource: proto::Resource| match variant {
            Variant::Delta => script.delta(CDS, vec![resource], &[]),
            Variant::Sotw => {
                let type_url = "type.googleapis.com/envoy.service.discovery.v3.Resource".into();
                let any = proto::Any { type_url, value: resource.encode_to_vec().into() };
                script.sotw_with(CDS, "v1", vec![any], vec![])
            }
        };
        send(&mut script, living(wrapper(CDS, "a", "1", "a=1"), 60));
        for _ in 0..2 {
            assert_eq!(script.pass(MINUTE).changed, [key(CDS, "a")].into());
            assert!(script.known(CDS, "a").contains("time to live ended"));
            assert!(send(&mut script, heartbeat("a", "2", 60)).rejected.is_some(), "it is another one");
            let out = send(&mut script, heartbeat("a", "1", 60));
            assert_eq!((out.rejected, out.changed), (None, [key(CDS, "a")].into()), "{variant:?}");
            assert_eq!(script.known(CDS, "a"), "1");
            assert_eq!(script.machine.deadline(), Some(script.now + MINUTE));
        }
        // The control plane takes it away after its end, or there is another stream.
        script.pass(MINUTE);
        match variant {
            Variant::Delta => script.delta(CDS, vec![], &["a"]),
            Variant::Sotw => script.sotw(CDS, "v2", &[]),
        };
        assert!(send(&mut script, heartbeat("a", "1", 60)).rejected.is_some(), "{variant:?}");
        send(&mut script, living(wrapper(CDS, "a", "1", "a=1"), 60));
        script.on(Input::Closed("age".into()));
        script.pass(MINUTE);
        script.on(Input::Opened);
        assert!(send(&mut script, heartbeat("a", "1", 60)).rejected.is_some(), "{variant:?}");
    }
}

#[test]
fn a_heart_beat_of_anything_else_is_a_fault_and_costs_nothing() {
    let mut script = Script::with(Variant::Delta, |settings| settings.fail_on_data_errors = true);
    script.open(&[(CDS, "a"), (CDS, "b")]);
    script.delta(CDS, vec![wrapper(CDS, "a", "1", "a=1")], &[]);
    let beats = vec![heartbeat("a", "2", 60), heartbeat("b", "1", 60), heartbeat("unwatched", "1", 60)];
    let nack = delta(&script.delta(CDS, beats, &[])).error_detail.unwrap().message;
    assert_eq!(
        nack,
        "Cluster a: a heart-beat for version 2, and version 1 is in use\n\
         Cluster b: a heart-beat for a resource that was never sent"
    );
    assert_eq!((script.known(CDS, "a"), script.known(CDS, "b")), ("1".into(), String::new()));
    // Times that are none.
    for seconds in [0, -1] {
        let nack = delta(&script.delta(CDS, vec![living(wrapper(CDS, "b", "1", "b=1"), seconds)], &[]));
        assert_eq!(nack.error_detail.unwrap().message, "Cluster b: its ttl must be positive");
    }
}

#[test]
fn a_heart_beat_is_no_absence_and_ends_no_trouble() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "a")]);
    let wrap = |wrapper: proto::Resource| proto::Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
        value: wrapper.encode_to_vec().into(),
    };
    script.sotw_with(LDS, "v1", vec![wrap(living(wrapper(LDS, "a", "1", "a=1"), 60))], vec![]);
    script.sotw_with(LDS, "v2", vec![wrap(wrapper(LDS, "a", "2", "a=bad"))], vec![]);
    let rejected = script.known(LDS, "a");
    assert!(rejected.contains("was rejected"));
    script.sotw_with(LDS, "v3", vec![wrap(heartbeat("a", "1", 60))], vec![]);
    assert_eq!(script.known(LDS, "a"), rejected, "neither gone nor well");
}

#[test]
fn what_is_forgotten_has_no_end() {
    let mut script = two_living();
    script.on(Input::Closed("refused".into()));
    script.on(Input::Forget(vec![key(CDS, "a")]));
    let timers: Vec<_> = script.machine.timers.iter().map(|(.., name)| name.to_string()).collect();
    assert_eq!(timers, ["b"], "and its neighbour does");
    script.pass(MINUTE);
    assert_eq!(script.known(CDS, "a"), "");
    assert!(script.known(CDS, "b").contains("its time to live ended"));
}
