//! The client's rules, one script each.

use super::*;
use crate::client::{
    ResourceState,
    testing::{Toy, any, machine, resource_error, settings, wrapper},
};
use ResourceType::{
    Cluster as CDS, ClusterLoadAssignment as EDS, Listener as LDS, RouteConfiguration as RDS,
};
use prost::Message;

mod lives;
mod reasons;
mod rules;
mod wildcard;

/// A machine with a clock, and shorthands.
struct Script {
    machine: Machine<Toy>,
    now: Instant,
    nonce: u32,
}

fn key(kind: ResourceType, name: &str) -> Key {
    (kind, name.into())
}

impl Script {
    fn new(variant: Variant) -> Self {
        Self { machine: machine(variant), now: Instant::now(), nonce: 0 }
    }

    fn with(variant: Variant, adjust: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(variant);
        adjust(&mut settings);
        Self { machine: Machine::new(Toy, settings), now: Instant::now(), nonce: 0 }
    }

    fn on(&mut self, input: Input) -> Outputs {
        self.machine.on(self.now, input)
    }

    fn add(&mut self, keys: &[(ResourceType, &str)]) -> Outputs {
        let add = keys.iter().map(|(kind, name)| key(*kind, name)).collect();
        self.on(Input::Interest { add, remove: vec![] })
    }

    fn remove(&mut self, keys: &[(ResourceType, &str)]) -> Outputs {
        let remove = keys.iter().map(|(kind, name)| key(*kind, name)).collect();
        self.on(Input::Interest { add: vec![], remove })
    }

    /// Subscribes, and opens the stream.
    fn open(&mut self, keys: &[(ResourceType, &str)]) -> Outputs {
        assert!(self.add(keys).connect);
        self.on(Input::Opened)
    }

    fn pass(&mut self, time: Duration) -> Outputs {
        self.now += time;
        self.on(Input::Tick)
    }

    /// A state-of-the-world response.
    fn sotw(&mut self, kind: ResourceType, version: &str, bodies: &[&str]) -> Outputs {
        let resources = bodies.iter().map(|body| any(kind, body)).collect();
        self.sotw_with(kind, version, resources, vec![])
    }

    fn sotw_with(
        &mut self,
        kind: ResourceType,
        version: &str,
        resources: Vec<proto::Any>,
        resource_errors: Vec<proto::ResourceError>,
    ) -> Outputs {
        self.nonce += 1;
        self.on(Input::Response(Response::Sotw(proto::DiscoveryResponse {
            version_info: version.into(),
            resources,
            type_url: kind.url().into(),
            nonce: self.nonce.to_string(),
            resource_errors,
            ..Default::default()
        })))
    }

    fn delta(&mut self, kind: ResourceType, resources: Vec<proto::Resource>, removed: &[&str]) -> Outputs {
        self.delta_with(kind, resources, removed, vec![])
    }

    fn delta_with(
        &mut self,
        kind: ResourceType,
        resources: Vec<proto::Resource>,
        removed: &[&str],
        resource_errors: Vec<proto::ResourceError>,
    ) -> Outputs {
        self.nonce += 1;
        self.on(Input::Response(Response::Delta(proto::DeltaDiscoveryResponse {
            system_version_info: format!("s{}", self.nonce),
            resources,
            type_url: kind.url().into(),
            nonce: self.nonce.to_string(),
            removed_resources: removed.iter().map(ToString::to_string).collect(),
            resource_errors,
            ..Default::default()
        })))
    }

    /// `value`, `value (note)`, `error`, or nothing.
    fn known(&self, kind: ResourceType, name: &str) -> String {
        match self.machine.known(kind, name) {
            Known::Pending => String::new(),
            Known::Good { resource, note: None } => resource.to_string(),
            Known::Good { resource, note: Some(note) } => format!("{resource} ({note})"),
            Known::Bad(error) => error.to_string(),
        }
    }
}

/// The only request, as (version, nonce, names, error).
fn sotw(outputs: &Outputs) -> (String, String, Vec<String>, Option<String>) {
    match outputs.requests.as_slice() {
        [Request::Sotw(request)] => (
            request.version_info.clone(),
            request.response_nonce.clone(),
            request.resource_names.clone(),
            request.error_detail.as_ref().map(|status| {
                assert_eq!(status.code, 3);
                status.message.clone()
            }),
        ),
        other => panic!("not one request: {other:?}"),
    }
}

fn delta(outputs: &Outputs) -> proto::DeltaDiscoveryRequest {
    match outputs.requests.as_slice() {
        [Request::Delta(request)] => request.clone(),
        other => panic!("not one request: {other:?}"),
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_is_connected_until_something_is_watched() {
    let mut script = Script::new(Variant::Sotw);
    assert!(!script.on(Input::Tick).connect);
    assert!(script.add(&[(LDS, "a")]).connect);
    assert!(!script.add(&[(LDS, "b")]).connect, "one attempt at a time");
}

#[test]
fn the_node_is_only_in_the_first_request_of_a_stream() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut script = Script::new(variant);
        script.add(&[(LDS, "a"), (CDS, "c")]);
        for _ in 0..2 {
            let out = script.on(Input::Opened);
            let nodes: Vec<bool> = out
                .requests
                .iter()
                .map(|request| match request {
                    Request::Sotw(request) => request.node.is_some(),
                    Request::Delta(request) => request.node.is_some(),
                })
                .collect();
            assert_eq!(nodes, [true, false]);
            script.on(Input::Closed("gone".into()));
            assert!(script.pass(Duration::from_secs(10)).connect);
        }
    }
}

#[test]
fn an_accepted_response_is_acknowledged_with_its_version_and_nonce() {
    let mut script = Script::new(Variant::Sotw);
    assert_eq!(sotw(&script.open(&[(LDS, "a")])), (String::new(), String::new(), names(&["a"]), None));
    let out = script.sotw(LDS, "v1", &["a=1"]);
    assert_eq!(sotw(&out), ("v1".into(), "1".into(), names(&["a"]), None));
    assert_eq!(out.changed, [key(LDS, "a")].into());
    assert_eq!(script.known(LDS, "a"), "1");
}

#[test]
fn a_rejected_update_keeps_the_last_good_one_and_its_version_and_names_every_fault() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a"), (CDS, "b"), (CDS, "c")]);
    script.sotw(CDS, "v1", &["a=1", "b=1", "c=1"]);
    let out = script.sotw(CDS, "v2", &["a=bad", "b=2", "c=badder", "?"]);
    let (version, nonce, _, error) = sotw(&out);
    assert_eq!((version.as_str(), nonce.as_str()), ("v1", "2"));
    assert_eq!(
        error.unwrap(),
        "Cluster a: bad is bad\nCluster c: badder is bad\nCluster without a readable name: unreadable ?"
    );
    assert_eq!(
        script.known(CDS, "a"),
        "1 (Cluster a was rejected: bad is bad (control plane cp:1, node me))"
    );
    assert_eq!(script.known(CDS, "b"), "2", "its good neighbour counts");
    // The same again is not news.
    assert!(script.sotw(CDS, "v3", &["a=bad", "b=2", "c=badder"]).changed.is_empty());
    // Fixed by the same bytes as before: the note goes.
    let out = script.sotw(CDS, "v4", &["a=1", "b=2", "c=1"]);
    assert_eq!(out.changed, [key(CDS, "a"), key(CDS, "c")].into());
    assert_eq!((script.known(CDS, "a"), sotw(&out).0), ("1".into(), "v4".into()));
}

#[test]
fn a_rejected_resource_without_a_predecessor_is_an_error_that_says_why() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "a")]);
    let out = script.sotw(LDS, "v1", &["a=bad"]);
    assert_eq!(sotw(&out).0, "", "no version was accepted");
    assert_eq!(script.known(LDS, "a"), "Listener a was rejected: bad is bad (control plane cp:1, node me)");
}

#[test]
fn with_fail_on_data_errors_a_rejection_or_deletion_drops_the_data() {
    let mut script = Script::with(Variant::Sotw, |settings| settings.fail_on_data_errors = true);
    script.open(&[(CDS, "a"), (CDS, "b"), (CDS, "c")]);
    script.sotw(CDS, "v1", &["a=1", "b=1", "c=1"]);
    let error = resource_error("c", 7, "not yours");
    script.sotw_with(CDS, "v2", vec![any(CDS, "a=bad")], vec![error]);
    assert!(script.known(CDS, "a").starts_with("Cluster a was rejected"));
    assert!(script.known(CDS, "b").starts_with("Cluster b does not exist"));
    assert!(script.known(CDS, "c").starts_with("Cluster c cannot be used: not yours"));
}

#[test]
fn a_deletion_keeps_the_data_and_says_so() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "a"), (LDS, "b")]);
    script.sotw(LDS, "v1", &["a=1"]);
    let out = script.sotw(LDS, "v2", &[]);
    assert_eq!(out.changed, [key(LDS, "a")].into(), "b was never there, so it is not gone");
    assert!(script.known(LDS, "a").starts_with("1 (Listener a does not exist"));
    assert_eq!(script.known(LDS, "b"), "");
    script.sotw(LDS, "v3", &["a=1"]);
    assert_eq!(script.known(LDS, "a"), "1", "it reappeared unchanged");
}

#[test]
fn absence_means_nothing_for_routes_and_endpoints() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(RDS, "a"), (EDS, "b")]);
    script.sotw(RDS, "v1", &["a=1"]);
    assert!(script.sotw(RDS, "v2", &[]).changed.is_empty());
    assert_eq!(script.known(RDS, "a"), "1");
}

#[test]
fn a_resource_that_is_there_but_bad_is_not_deleted() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "a")]);
    script.sotw(LDS, "v1", &["a=1"]);
    script.sotw(LDS, "v2", &["a=bad"]);
    assert!(script.known(LDS, "a").contains("was rejected"));
}

#[test]
fn a_parser_that_panics_costs_one_resource() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a"), (CDS, "b")]);
    let wrapped = proto::Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
        value: wrapper(CDS, "a", "", "a=panic").encode_to_vec().into(),
    };
    let out = script.sotw_with(CDS, "v1", vec![wrapped, any(CDS, "b=1")], vec![]);
    assert!(sotw(&out).3.unwrap().contains("Cluster a: the parser failed"));
    assert_eq!(script.known(CDS, "b"), "1");
}

#[test]
fn a_wrapped_resource_is_unwrapped_and_its_name_held_against_it() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a"), (CDS, "b"), (CDS, "c")]);
    let wrap = |wrapper: proto::Resource| proto::Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
        value: wrapper.encode_to_vec().into(),
    };
    let empty = proto::Resource { name: "c".into(), ..Default::default() };
    let resources = vec![
        wrap(wrapper(CDS, "a", "va", "a=1")),
        wrap(wrapper(CDS, "b", "vb", "other=1")),
        wrap(empty),
        any(LDS, "a=2"),
    ];
    let error = sotw(&script.sotw_with(CDS, "v1", resources, vec![])).3.unwrap();
    assert_eq!(script.known(CDS, "a"), "1");
    assert!(error.contains("Cluster b: the resource calls itself other"), "{error}");
    assert!(error.contains("Cluster c: the wrapper is empty"), "{error}");
    assert!(error.contains("its type is"), "{error}");
    let status = script.machine.status(|_| 0.0);
    assert_eq!(status[0].version.as_deref(), Some("va"));
    assert_eq!(status[0].state, ResourceState::Acked);
}

#[test]
fn a_resource_over_the_limit_is_rejected_unread() {
    let mut script = Script::new(Variant::Delta);
    script.open(&[(CDS, "a")]);
    let body = format!("a={}", "x".repeat(200));
    let request = delta(&script.delta(CDS, vec![wrapper(CDS, "a", "1", &body)], &[]));
    assert!(request.error_detail.unwrap().message.contains("202 bytes are more than the limit of 100"));
}

#[test]
fn a_resource_that_is_twice_in_a_response_is_a_fault_and_the_first_counts() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "a"), (CDS, "b")]);
        let outputs = match variant {
            Variant::Sotw => script.sotw(CDS, "v1", &["a=1", "b=1", "a=2"]),
            Variant::Delta => {
                let of = |name: &str, value: &str| wrapper(CDS, name, value, &format!("{name}={value}"));
                script.delta(CDS, vec![of("a", "1"), of("b", "1"), of("a", "2")], &[])
            }
        };
        assert_eq!(&*outputs.rejected.unwrap(), "Cluster a: it is in the response more than once");
        assert_eq!((script.known(CDS, "a"), script.known(CDS, "b")), ("1".into(), "1".into()));
    }
}

#[test]
fn an_unchanged_resource_is_not_news() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "a"), (EDS, "e")]);
    for kind in [LDS, EDS] {
        let body = if kind == LDS { "a=1" } else { "e=1" };
        assert_eq!(script.sotw(kind, "v1", &[body]).changed.len(), 1);
        let out = script.sotw(kind, "v2", &[body]);
        assert!(out.changed.is_empty());
        assert_eq!(sotw(&out).0, "v2", "it is acknowledged all the same");
    }
}

#[test]
fn unsolicited_resources_are_judged_but_not_kept() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a")]);
    let out = script.sotw(CDS, "v1", &["a=1", "b=1", "c=bad"]);
    assert!(sotw(&out).3.unwrap().contains("Cluster c"));
    assert_eq!((script.known(CDS, "a"), script.known(CDS, "b")), ("1".into(), String::new()));
}

#[test]
fn unknown_and_unasked_types_are_not_answered() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a")]);
    let out = script.on(Input::Response(Response::Sotw(proto::DiscoveryResponse {
        type_url: "type.googleapis.com/envoy.service.runtime.v3.Runtime".into(),
        ..Default::default()
    })));
    assert!(out.requests.is_empty());
    assert!(script.sotw(LDS, "v1", &["l=1"]).requests.is_empty(), "an answer would be a wildcard");
}

#[test]
fn subscriptions_are_counted_and_sent_as_they_change() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(EDS, "a")]);
    script.sotw(EDS, "v1", &["a=1"]);
    assert!(script.add(&[(EDS, "a")]).requests.is_empty(), "a second watcher");
    assert_eq!(sotw(&script.add(&[(EDS, "b")])), ("v1".into(), "1".into(), names(&["a", "b"]), None));
    assert!(script.remove(&[(EDS, "a")]).requests.is_empty());
    assert_eq!(sotw(&script.remove(&[(EDS, "a")])).2, names(&["b"]));
    assert_eq!(sotw(&script.remove(&[(EDS, "b")])), ("v1".into(), "1".into(), vec![], None));
    // Coming back uses the nonce of this stream (a bug of other clients).
    assert_eq!(sotw(&script.add(&[(EDS, "a")])), ("v1".into(), "1".into(), names(&["a"]), None));
    assert_eq!(script.known(EDS, "a"), "1", "it was kept for a moment");
    script.remove(&[(EDS, "a")]);
    script.pass(LINGER);
    assert_eq!(script.known(EDS, "a"), "", "but not for longer");
}

#[test]
fn adding_and_removing_at_once_says_nothing() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut script = Script::new(variant);
        script.open(&[(EDS, "a")]);
        let input = Input::Interest { add: vec![key(EDS, "b")], remove: vec![key(EDS, "b")] };
        assert!(script.on(input).requests.is_empty());
    }
}

#[test]
fn silence_after_asking_means_that_it_does_not_exist() {
    for (transient, seconds, expected) in [
        (false, 15, "Listener a does not exist: the control plane did not send it within 15 s"),
        (true, 30, "Listener a cannot be used: the control plane did not send it within 30 s"),
    ] {
        let mut script = Script::with(Variant::Sotw, |settings| settings.timer_is_transient = transient);
        script.add(&[(LDS, "a")]);
        script.pass(Duration::from_secs(100));
        assert_eq!(script.known(LDS, "a"), "", "connecting does not count");
        script.on(Input::Opened);
        assert_eq!(script.machine.deadline(), Some(script.now + Duration::from_secs(seconds)));
        assert!(script.pass(Duration::from_secs(seconds) - Duration::from_nanos(1)).changed.is_empty());
        assert_eq!(script.pass(Duration::from_nanos(1)).changed, [key(LDS, "a")].into());
        assert!(script.known(LDS, "a").starts_with(expected), "{}", script.known(LDS, "a"));
        let state = script.machine.status(|_| 0.0)[0].state;
        assert_eq!(state, if transient { ResourceState::Timeout } else { ResourceState::DoesNotExist });
        script.sotw(LDS, "v1", &["a=1"]);
        assert_eq!(script.known(LDS, "a"), "1", "late is not never");
    }
}

#[test]
fn an_answer_or_the_end_of_the_stream_stops_the_timer() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(RDS, "good"), (RDS, "bad"), (RDS, "told"), (RDS, "silent")]);
    let error = resource_error("told", 14, "later");
    let resources = vec![any(RDS, "good=1"), any(RDS, "bad=bad")];
    script.sotw_with(RDS, "v1", resources, vec![error]);
    assert_eq!(script.machine.timers.len(), 1);
    script.on(Input::Closed("x".into()));
    assert!(script.machine.timers.is_empty());
    script.pass(Duration::from_secs(10));
    script.on(Input::Opened);
    // What is cached is never waited for again.
    let waiting: Vec<_> = script.machine.timers.iter().map(|(.., name)| name.to_string()).collect();
    assert_eq!(waiting, ["silent", "bad", "told"], "longest for the one that was");
}

#[test]
fn a_control_plane_that_ends_every_stream_before_it_has_said_everything_is_silent() {
    for (lives, streams) in [(10, 3), (1, 17), (0, 30)] {
        let mut script = Script::new(Variant::Sotw);
        script.open(&[(LDS, "a"), (RDS, "r")]);
        let begun = script.now;
        let mut count = 0;
        while script.known(RDS, "r").is_empty() {
            count += 1;
            assert!(count <= streams, "{lives} s each: awaited on {count} streams");
            script.sotw(LDS, "v1", &["a=1"]);
            script.pass(Duration::from_secs(lives));
            script.on(Input::Closed("age".into()));
            assert_eq!(script.machine.unreachable(), None, "it ended well");
            assert!(script.machine.timers.is_empty(), "nobody can answer");
            let wait = script.machine.deadline().unwrap() - script.now;
            assert!(wait < Duration::from_millis(1300), "and nothing grows: {wait:?}");
            script.pass(wait);
            script.on(Input::Opened);
        }
        assert!(script.now - begun >= Duration::from_secs(15));
        let error = script.known(RDS, "r");
        let why =
            "does not exist: the control plane did not send it on several streams, in no less than 15 s";
        assert!(error.contains(why), "{error}");
        assert_eq!(script.known(LDS, "a"), "1");
        script.sotw(RDS, "v1", &["r=1"]);
        assert_eq!(script.known(RDS, "r"), "1", "late is not never");
    }
    // A stream that comes late in that time has some of it for itself, and a failure is told: it begins anew.
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "a"), (RDS, "r")]);
    script.sotw(LDS, "v1", &["a=1"]);
    script.pass(Duration::from_secs(14));
    script.on(Input::Closed("age".into()));
    script.pass(Duration::from_secs(1));
    script.on(Input::Opened);
    assert_eq!(script.machine.deadline(), Some(script.now + Duration::from_millis(7500)));
    assert_eq!(script.known(RDS, "r"), "");
    script.on(Input::Closed("refused".into()));
    assert!(script.known(RDS, "r").contains("refused"));
    script.pass(Duration::from_secs(2));
    script.on(Input::Opened);
    assert_eq!(script.machine.deadline(), Some(script.now + Duration::from_secs(15)));
    script.on(Input::Established);
    script.pass(Duration::from_secs(15));
    assert!(script.known(RDS, "r").contains("did not send it within 15 s"), "of this stream alone");
}

#[test]
fn explicit_errors_count_at_once() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(EDS, "a"), (EDS, "b"), (EDS, "c")]);
    script.sotw(EDS, "v1", &["b=1"]);
    let errors = vec![
        resource_error("a", 5, "no such"),
        resource_error("b", 5, "gone"),
        resource_error("c", 14, "busy"),
    ];
    let out = script.sotw_with(EDS, "v2", vec![], errors);
    assert_eq!(sotw(&out).3, None, "this is no fault of the response");
    assert!(script.known(EDS, "a").starts_with("ClusterLoadAssignment a does not exist: no such"));
    assert!(script.known(EDS, "b").starts_with("1 ("), "kept");
    assert!(script.known(EDS, "c").contains("cannot be used: busy"));
    let states: Vec<_> = script.machine.status(|_| 0.0).iter().map(|status| status.state).collect();
    assert_eq!(
        states,
        [ResourceState::DoesNotExist, ResourceState::DoesNotExist, ResourceState::ReceivedError]
    );
}

#[test]
fn a_stream_that_fails_without_a_response_is_reported_at_once_and_one_with_a_response_is_not() {
    let mut script = Script::new(Variant::Sotw);
    script.add(&[(LDS, "a")]);
    let out = script.on(Input::Closed("cp:1: connection refused".into()));
    assert_eq!(out.changed, [key(LDS, "a")].into());
    assert_eq!(
        script.known(LDS, "a"),
        "Listener a is not known: control plane unreachable: cp:1: connection refused (control plane cp:1, node me)"
    );
    // Whoever asks meanwhile hears it at once.
    assert_eq!(script.add(&[(LDS, "b")]).changed, [key(LDS, "b")].into());
    assert!(script.known(LDS, "b").contains("connection refused"));
    assert!(script.pass(Duration::from_secs(2)).connect);
    assert!(script.on(Input::Closed("cp:1: connection refused".into())).changed.is_empty(), "not news");
    script.pass(Duration::from_secs(3));
    script.on(Input::Opened);
    assert_eq!(script.on(Input::Established).changed.len(), 2);
    assert_eq!(script.known(LDS, "a"), "", "an answer is awaited again");
    script.sotw(LDS, "v1", &["a=1"]);
    let out = script.on(Input::Closed("max age".into()));
    assert!(out.changed.is_empty());
    assert_eq!(script.known(LDS, "a"), "1");
}

#[test]
fn the_loss_of_the_control_plane_costs_no_data_and_is_noted() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "a")]);
    script.sotw(LDS, "v1", &["a=1"]);
    script.on(Input::Closed("reset".into()));
    script.pass(Duration::from_secs(2));
    script.on(Input::Closed("refused".into()));
    assert!(
        script.known(LDS, "a").starts_with("1 (Listener a is not known: control plane unreachable: refused")
    );
    script.pass(Duration::from_secs(200));
    script.on(Input::Opened);
    script.on(Input::Established);
    assert_eq!(script.known(LDS, "a"), "1");
}

#[test]
fn what_cannot_be_read_is_a_failure_until_all_that_is_awaited_has_come() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut script = Script::new(variant);
        script.open(&[(LDS, "a"), (CDS, "b")]);
        let answer = |script: &mut Script, kind, name: &str| {
            let body = format!("{name}=1");
            match variant {
                Variant::Sotw => script.sotw(kind, "v1", &[&body]),
                Variant::Delta => script.delta(kind, vec![wrapper(kind, name, "v1", &body)], &[]),
            }
        };
        let mut last = Duration::ZERO;
        for _ in 0..8 {
            answer(&mut script, LDS, "a");
            let out = script.on(Input::Unreadable("too large".into()));
            assert!(last > Duration::ZERO || out.changed.contains(&key(CDS, "b")));
            let wait = script.machine.deadline().unwrap() - script.now;
            assert!(wait > last, "{wait:?} after {last:?}");
            last = wait;
            assert!(script.pass(wait).connect);
            script.on(Input::Opened);
            script.on(Input::Established);
            assert!(script.known(CDS, "b").ends_with("unreachable: too large (control plane cp:1, node me)"));
            assert!(script.known(LDS, "a").starts_with("1 ("), "what is known stays, and says so");
        }
        // One that is heard from the first time is told as well, and silence ends the wait.
        script.add(&[(CDS, "c")]);
        assert!(script.known(CDS, "c").contains("too large"));
        let out = answer(&mut script, CDS, "b");
        assert!(out.changed.contains(&key(CDS, "b")));
        assert_eq!(script.known(CDS, "b").split_once(' ').unwrap().0, "1");
        let out = script.pass(Duration::from_secs(15));
        assert_eq!(out.changed, [key(LDS, "a"), key(CDS, "b"), key(CDS, "c")].into());
        assert!(script.known(CDS, "c").contains("within 15 s"));
        assert_eq!((script.known(LDS, "a"), script.known(CDS, "b")), ("1".to_owned(), "1".to_owned()));
        assert_eq!(script.machine.unreachable(), None);

        // After a long time it is a first failure again.
        script.pass(Duration::from_secs(200));
        script.on(Input::Unreadable("too large".into()));
        assert!(script.machine.deadline().unwrap() - script.now < Duration::from_secs(2));
    }
}

#[test]
fn a_new_stream_brings_the_version_of_what_is_held_as_a_whole_but_no_nonce() {
    type Change = fn(&mut Script);
    let cases: [(&str, Change, &str); 8] = [
        ("all is held", |_| {}, "v7"),
        (
            "the last one was rejected as a whole",
            |script| {
                script.sotw(LDS, "v8", &["?", "a=1", "b=1"]);
            },
            "v7",
        ),
        (
            "one was rejected: it may be the version in use again",
            |script| {
                script.sotw(LDS, "v8", &["a=bad", "b=1"]);
            },
            "",
        ),
        (
            "a good part of one that was rejected counts: it may be the version in use again",
            |script| {
                script.sotw(LDS, "v8", &["?", "a=2", "b=1"]);
                script.sotw(LDS, "v9", &["?", "a=2", "b=1"]);
            },
            "",
        ),
        (
            "it counted, and another one was accepted",
            |script| {
                script.sotw(LDS, "v8", &["?", "a=2", "b=1"]);
                script.sotw(LDS, "v7", &["a=1", "b=1"]);
            },
            "v7",
        ),
        (
            "one does not exist",
            |script| {
                script.sotw(LDS, "v8", &["a=1"]);
            },
            "",
        ),
        (
            "one was not there yet",
            |script| {
                script.add(&[(LDS, "c")]);
            },
            "",
        ),
        (
            "one is watched since the control plane is away",
            |script| {
                script.on(Input::Closed("x".into()));
                script.add(&[(LDS, "c")]);
            },
            "",
        ),
    ];
    for (what, change, version) in cases {
        let mut script = Script::new(Variant::Sotw);
        script.open(&[(LDS, "a"), (LDS, "b"), (CDS, "c")]);
        script.sotw(LDS, "v7", &["a=1", "b=1"]);
        change(&mut script);
        script.on(Input::Closed("x".into()));
        script.pass(Duration::from_secs(2));
        let out = script.on(Input::Opened);
        let requests: Vec<_> = out
            .requests
            .iter()
            .map(|request| match request {
                Request::Sotw(r) => {
                    let kind = r.type_url.rsplit('.').next().unwrap();
                    (kind, r.version_info.as_str(), r.response_nonce.as_str())
                }
                Request::Delta(_) => panic!("delta"),
            })
            .collect();
        assert_eq!(requests, [("Cluster", "", ""), ("Listener", version, "")], "{what}");
    }
}

#[test]
fn delta_acknowledges_by_nonce_and_subscribes_by_difference() {
    let mut script = Script::new(Variant::Delta);
    let first = delta(&script.open(&[(CDS, "a"), (CDS, "b")]));
    assert_eq!(first.resource_names_subscribe, names(&["a", "b"]));
    let ack = delta(&script.delta(CDS, vec![wrapper(CDS, "a", "h1", "a=1")], &["b"]));
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("1", None));
    assert!(ack.resource_names_subscribe.is_empty() && ack.resource_names_unsubscribe.is_empty());
    assert!(script.known(CDS, "b").starts_with("Cluster b does not exist"), "told at once");
    let more = delta(&script.add(&[(CDS, "c")]));
    assert_eq!((more.resource_names_subscribe, more.response_nonce), (names(&["c"]), String::new()));
    let less = delta(&script.remove(&[(CDS, "a")]));
    assert_eq!(less.resource_names_unsubscribe, names(&["a"]));
    assert_eq!(script.known(CDS, "a"), "", "a delta server sends it again when it is asked again");
}

#[test]
fn delta_comes_back_with_the_versions_it_is_content_with() {
    let mut script = Script::new(Variant::Delta);
    script.open(&[(CDS, "a"), (CDS, "b"), (CDS, "c")]);
    script.delta(CDS, vec![wrapper(CDS, "a", "h1", "a=1"), wrapper(CDS, "b", "h1", "b=1")], &[]);
    let nack = delta(&script.delta(
        CDS,
        vec![wrapper(CDS, "a", "h2", "a=bad"), wrapper(CDS, "b", "h2", "b=2")],
        &[],
    ));
    assert_eq!(nack.error_detail.unwrap().message, "Cluster a: bad is bad");
    script.on(Input::Closed("x".into()));
    script.pass(Duration::from_secs(2));
    let first = delta(&script.on(Input::Opened));
    let versions: Vec<_> =
        first.initial_resource_versions.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(versions, [("b", "h2")], "what is in trouble is asked for anew");
    assert_eq!(first.resource_names_subscribe, names(&["a", "b", "c"]));
}

#[test]
fn retries_back_off_and_stop_when_nobody_watches() {
    let mut script = Script::new(Variant::Sotw);
    script.add(&[(LDS, "a")]);
    let mut last = Duration::ZERO;
    for _ in 0..15 {
        script.on(Input::Closed("no".into()));
        let wait = script.machine.deadline().unwrap() - script.now;
        assert!(wait > last.mul_f64(0.9) && wait <= Duration::from_secs(144), "{wait:?} after {last:?}");
        last = wait.min(Duration::from_secs(60));
        assert!(!script.pass(wait - Duration::from_nanos(1)).connect);
        assert!(script.pass(Duration::from_nanos(1)).connect);
    }
    script.on(Input::Closed("no".into()));
    script.remove(&[(LDS, "a")]);
    assert!(!script.pass(Duration::from_secs(300)).connect);
    assert_eq!(script.machine.deadline(), None);
    assert!(script.add(&[(LDS, "a")]).connect);
}

#[test]
fn what_is_forgotten_is_asked_for_without_a_version() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "a"), (LDS, "b")]);
    script.sotw(LDS, "v1", &["a=1", "b=1"]);
    assert!(script.on(Input::Forget(vec![key(LDS, "a")])).changed.is_empty(), "not while it may yet speak");
    script.on(Input::Closed("gone".into()));
    assert_eq!(script.on(Input::Forget(vec![key(LDS, "a"), key(LDS, "x")])).changed, [key(LDS, "a")].into());
    assert_eq!((script.known(LDS, "a"), script.known(LDS, "b")), (String::new(), "1".into()));
    script.pass(Duration::from_secs(2));
    assert_eq!(sotw(&script.on(Input::Opened)), (String::new(), String::new(), names(&["a", "b"]), None));
    assert_eq!(script.machine.timers.len(), 1, "it is waited for again");
}

#[test]
fn hanging_up_forgets_everything_and_is_refused_while_something_is_watched() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "a")]);
    script.sotw(LDS, "v1", &["a=1"]);
    assert!(!script.on(Input::Hangup).disconnect);
    script.remove(&[(LDS, "a")]);
    let out = script.on(Input::Hangup);
    assert!(out.disconnect && out.requests.is_empty());
    assert!(script.machine.is_idle() && script.machine.deadline().is_none());
    assert!(script.sotw(LDS, "v2", &["a=2"]).requests.is_empty(), "what was under way is not heard");
    assert_eq!(script.open(&[(LDS, "a")]).requests.len(), 1);
    assert_eq!(script.known(LDS, "a"), "");
}

#[test]
fn a_control_plane_that_is_away_is_let_go_as_one_that_is_there() {
    // By hanging up, and when it would be tried again.
    let mut script = Script::new(Variant::Sotw);
    script.add(&[(LDS, "a")]);
    script.on(Input::Closed("refused".into()));
    script.remove(&[(LDS, "a")]);
    assert!(script.on(Input::Hangup).disconnect);
    assert!(!script.on(Input::Hangup).disconnect, "once");

    script.add(&[(LDS, "a")]);
    script.on(Input::Closed("refused".into()));
    assert!(!script.remove(&[(LDS, "a")]).disconnect);
    let out = script.pass(Duration::from_secs(10));
    assert!(out.disconnect && !out.connect && script.machine.is_idle());
    // Hours later nothing is known of it, whichever way it was let go.
    assert_eq!((script.machine.unreachable(), script.machine.link()), (None, (false, None)));
    script.pass(Duration::from_secs(7200));
    assert!(script.add(&[(LDS, "a")]).connect);
    assert_eq!(script.known(LDS, "a"), "");
    // Nor that something of it could not be read once.
    script.on(Input::Opened);
    script.on(Input::Unreadable("too large".into()));
    script.remove(&[(LDS, "a")]);
    script.pass(Duration::from_secs(10));
    script.add(&[(LDS, "a")]);
    script.on(Input::Closed("refused".into()));
    script.pass(Duration::from_secs(10));
    script.on(Input::Opened);
    script.on(Input::Established);
    assert_eq!(script.known(LDS, "a"), "", "an answer is awaited");
}

#[test]
fn a_version_that_goes_backwards_is_a_version_like_any_other() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "a")]);
    script.sotw(LDS, "9", &["a=9"]);
    let out = script.sotw(LDS, "1", &["a=1"]);
    assert_eq!((sotw(&out).0.as_str(), script.known(LDS, "a").as_str()), ("1", "1"));
}

#[test]
fn who_begins_to_watch_later_finds_what_is_known_and_asks_nobody() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(LDS, "good"), (LDS, "noted"), (LDS, "gone")]);
    script.sotw(LDS, "v1", &["good=1", "noted=1"]);
    script.sotw(LDS, "v2", &["good=1", "noted=bad"]);
    script.pass(Duration::from_secs(15));
    for name in ["good", "noted", "gone"] {
        assert!(script.add(&[(LDS, name)]).requests.is_empty(), "{name}");
    }
    assert_eq!(script.known(LDS, "good"), "1");
    assert!(script.known(LDS, "noted").starts_with("1 (Listener noted was rejected"));
    assert!(script.known(LDS, "gone").starts_with("Listener gone does not exist"));
}

#[test]
fn a_resource_that_was_received_once_is_never_waited_for_again() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(EDS, "a"), (EDS, "b")]);
    script.sotw(EDS, "v1", &["a=1"]);
    script.on(Input::Closed("age".into()));
    script.pass(Duration::from_secs(2));
    script.on(Input::Opened);
    assert!(script.pass(Duration::from_secs(15)).changed.len() == 1, "b alone");
    assert_eq!(script.known(EDS, "a"), "1");
    // It is gone and comes back in the same words; that is news, once.
    assert_eq!(script.sotw(EDS, "v2", &["a=1", "b=2"]).changed, [key(EDS, "b")].into());
}

#[test]
fn who_watches_a_resource_that_is_too_large_or_crashes_the_parser_hears_of_it_though_nothing_but_itself_names_it()
 {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "a"), (CDS, "b"), (CDS, "c")]);
    script.sotw(CDS, "v1", &["a=1"]);
    let large = format!("a={}", "2".repeat(200));
    let done = script.sotw(CDS, "v2", &[&large, "b=panic", &large.replace('a', "c")]);
    assert_eq!(done.changed, [key(CDS, "a"), key(CDS, "b"), key(CDS, "c")].into());
    assert!(script.known(CDS, "a").starts_with("1 (Cluster a was rejected"), "{}", script.known(CDS, "a"));
    assert!(script.known(CDS, "b").contains("the parser failed"), "{}", script.known(CDS, "b"));
    assert!(
        script.known(CDS, "c").contains("202 bytes are more than the limit"),
        "{}",
        script.known(CDS, "c")
    );
}

#[test]
fn while_a_stream_is_not_read_no_timer_of_a_resource_runs() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut script = Script::new(variant);
        script.open(&[(EDS, "a"), (EDS, "b")]);
        let ttl = Some(prost_types::Duration { seconds: 20, nanos: 0 });
        let lives = proto::Resource { ttl, ..wrapper(EDS, "a", "1", "a=1") };
        match variant {
            Variant::Sotw => {
                let value = lives.encode_to_vec().into();
                let url = "type.googleapis.com/envoy.service.discovery.v3.Resource";
                script.sotw_with(EDS, "1", vec![proto::Any { type_url: url.into(), value }], vec![])
            }
            Variant::Delta => script.delta(EDS, vec![lives], &[]),
        };
        script.pass(Duration::from_secs(10));
        script.on(Input::Held);
        assert!(script.machine.deadline().is_none());
        script.pass(Duration::from_secs(100));
        assert_eq!((script.known(EDS, "a"), script.known(EDS, "b")), ("1".into(), String::new()));
        script.on(Input::Resumed);
        assert_eq!(
            script.machine.deadline(),
            Some(script.now + Duration::from_secs(5)),
            "15 s without those"
        );
        script.pass(Duration::from_secs(5));
        assert!(script.known(EDS, "b").contains("does not exist"), "{variant:?}");
        assert_eq!(script.known(EDS, "a"), "1");
        script.pass(Duration::from_secs(5));
        assert!(script.known(EDS, "a").contains("time to live"), "{variant:?}");
        // A stream that ended is not held.
        script.on(Input::Held);
        script.on(Input::Closed("gone".into()));
        assert!(script.machine.deadline().is_some());
    }
}
