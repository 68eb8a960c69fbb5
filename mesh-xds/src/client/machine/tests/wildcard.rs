//! Everything of a type, one script for each rule.

use super::{
    lives::{MINUTE, heartbeat, living},
    *,
};
use crate::client::{Listed, cache::ResourceState, machine::wildcard::MAX_TOLD};

impl Script {
    /// `a=1 b=2`, with what is wrong in brackets; `pending`, or an error.
    fn all(&self, kind: ResourceType) -> String {
        match self.machine.listing(kind) {
            Known::Pending => "pending".to_owned(),
            Known::Bad(error) => error.to_string(),
            Known::Good { resource, note } => {
                let one = |(name, listed): &(Name, Listed<Arc<str>>)| {
                    let value = listed.resource.as_deref().unwrap_or_default();
                    let error =
                        listed.error.as_ref().map(|error| format!("({})", error.cause)).unwrap_or_default();
                    format!("{name}={value}{error}")
                };
                let note = note.map(|note| format!(" [{note}]")).unwrap_or_default();
                format!("{}{note}", resource.iter().map(one).collect::<Vec<_>>().join(" "))
            }
        }
    }

    /// An error of the wildcard, beside resources.
    fn refuse(&mut self, variant: Variant, bodies: &[&str]) -> Outputs {
        let errors = vec![resource_error("*", 7, "not yours")];
        match variant {
            Variant::Sotw => {
                self.sotw_with(CDS, "r", bodies.iter().map(|body| any(CDS, body)).collect(), errors)
            }
            Variant::Delta => self.delta_with(CDS, wrapped(bodies), &[], errors),
        }
    }

    /// The same in either way: a state-of-the-world response is complete, a delta response says what is gone.
    fn say(&mut self, variant: Variant, all: &[&str], news: &[&str], gone: &[&str]) -> Outputs {
        match variant {
            Variant::Sotw => self.sotw(CDS, "v", all),
            Variant::Delta => self.delta(CDS, wrapped(news), gone),
        }
    }

    /// The stream ends; the next one is awaited.
    fn end(&mut self) {
        self.on(Input::Closed("gone".into()));
        self.pass(Duration::from_secs(5));
    }
}

/// `name=value`, in the version of its value.
fn wrapped(bodies: &[&str]) -> Vec<proto::Resource> {
    let resource = |body: &&str| {
        let (name, value) = body.split_once('=').unwrap();
        wrapper(CDS, name, value, body)
    };
    bodies.iter().map(resource).collect()
}

const BOTH: [Variant; 2] = [Variant::Sotw, Variant::Delta];

/// Names that a request asks for, and gives up.
fn asks(outputs: &Outputs) -> (Vec<String>, Vec<String>) {
    match outputs.requests.as_slice() {
        [Request::Sotw(request)] => (request.resource_names.clone(), vec![]),
        [Request::Delta(request)] => {
            (request.resource_names_subscribe.clone(), request.resource_names_unsubscribe.clone())
        }
        other => panic!("not one request: {other:?}"),
    }
}

#[test]
fn everything_is_asked_for_by_the_word_and_listed_as_it_comes_and_goes() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        assert_eq!(script.all(CDS), "pending");
        assert_eq!(asks(&script.open(&[(CDS, "*")])).0, ["*"]);
        let out = script.say(variant, &["a=1", "b=1"], &["a=1", "b=1"], &[]);
        assert_eq!(out.changed, [key(CDS, "*")].into(), "{variant:?}: nobody names the others");
        assert_eq!(script.all(CDS), "a=1 b=1");
        script.say(variant, &["a=2", "c=1"], &["a=2", "c=1"], &["b"]);
        assert_eq!(script.all(CDS), "a=2 c=1");
        let out = script.remove(&[(CDS, "*")]);
        assert_eq!(
            asks(&out),
            if variant == Variant::Sotw { (vec![], vec![]) } else { (vec![], names(&["*"])) }
        );
        assert_eq!(script.all(CDS), "pending");
        script.pass(LINGER);
        assert!(script.machine.types[CDS as usize].entries.is_empty());
        assert!(script.machine.deadline().is_none());
    }
}

#[test]
fn an_empty_answer_is_an_answer_and_silence_is_none() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*"), (LDS, "*")]);
        script.say(variant, &[], &[], &[]);
        assert_eq!((script.all(CDS), script.all(LDS)), (String::new(), "pending".into()));
        let out = script.pass(Duration::from_secs(15));
        assert_eq!(out.changed, [key(LDS, "*")].into());
        let text = script.all(LDS);
        assert!(
            text.contains("cannot be used: the control plane did not say what there is within 15 s"),
            "{text}"
        );
        assert_eq!(script.all(CDS), "", "it does exist, and is empty");
    }
}

#[test]
fn a_type_without_a_wildcard_is_not_asked_for() {
    let mut script = Script::new(Variant::Delta);
    assert!(!script.add(&[(EDS, "*"), (RDS, "*")]).connect);
    assert!(script.all(EDS).contains("only Listener and Cluster have a wildcard"), "{}", script.all(EDS));
}

#[test]
fn a_bad_one_is_rejected_and_listed_with_its_last_good_version() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*")]);
        script.say(variant, &["a=1", "b=bad"], &["a=1", "b=bad"], &[]);
        let out = script.say(variant, &["a=bad", "b=bad"], &["a=bad"], &[]);
        assert!(out.rejected.unwrap().contains("Cluster a: bad is bad"));
        assert_eq!(script.all(CDS), "a=1(was rejected: bad is bad) b=(was rejected: bad is bad)");
        let states: Vec<_> =
            script.machine.status(|_| 0.0).into_iter().map(|one| (one.name, one.state)).collect();
        let nacked = |name: &str| (Name::from(name), ResourceState::Nacked);
        assert_eq!(states, [(Name::from("*"), ResourceState::Acked), nacked("a"), nacked("b")]);
        script.say(variant, &["a=1"], &["a=1"], &["b"]);
        assert_eq!(script.all(CDS), "a=1");
    }
}

#[test]
fn one_that_is_named_too_is_there_once_and_outlives_the_wildcard() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*")]);
        script.say(variant, &["a=1", "b=1"], &["a=1", "b=1"], &[]);
        let out = script.add(&[(CDS, "a")]);
        assert!(out.changed.contains(&key(CDS, "a")));
        assert_eq!((script.known(CDS, "a"), script.all(CDS)), ("1".into(), "a=1 b=1".into()), "{variant:?}");
        let out = script.say(variant, &["a=2", "b=1"], &["a=2"], &[]);
        assert_eq!(out.changed, [key(CDS, "a"), key(CDS, "*")].into());
        script.remove(&[(CDS, "*")]);
        script.pass(LINGER);
        assert_eq!((script.known(CDS, "a"), script.known(CDS, "b")), ("2".into(), String::new()));
        assert_eq!(script.machine.status(|_| 0.0).len(), 1);
    }
}

#[test]
fn what_is_given_up_by_name_stays_listed_until_the_control_plane_denies_it() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*"), (CDS, "a"), (CDS, "none")]);
        script.say(variant, &["a=1", "b=1"], &["a=1", "b=1"], &["none"]);
        script.remove(&[(CDS, "a"), (CDS, "none")]);
        assert_eq!(script.all(CDS), "a=1 b=1", "{variant:?}");
        script.say(variant, &["b=1"], &[], &["a"]);
        assert_eq!(script.all(CDS), "b=1", "it was there for who names it only");
    }
}

#[test]
fn an_error_is_told_to_who_names_it_and_lists_nothing() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*"), (CDS, "a")]);
        script.say(variant, &["a=1", "b=1"], &["a=1", "b=1"], &[]);
        let errors = ["a", "b", "c"].map(|name| resource_error(name, 3, "it is refused")).to_vec();
        match variant {
            Variant::Sotw => script.sotw_with(CDS, "v", vec![], errors),
            Variant::Delta => script.delta_with(CDS, vec![], &[], errors),
        };
        assert_eq!(script.all(CDS), "a=1(cannot be used: it is refused)");
        script.remove(&[(CDS, "a")]);
        assert_eq!(script.all(CDS), "", "nobody says when that ends");
    }
}

#[test]
fn an_error_of_the_wildcard_is_a_note_until_the_next_answer() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*")]);
        script.refuse(variant, &["a=1"]);
        assert!(script.all(CDS).starts_with("a=1 [Cluster * is in doubt: not yours"), "{}", script.all(CDS));
        script.say(variant, &["a=1"], &["a=1"], &[]);
        assert_eq!(script.all(CDS), "a=1");
    }
}

#[test]
fn a_refused_list_is_none_whatever_is_said_of_names() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*"), (CDS, "a")]);
        let out = script.refuse(variant, &["a=1"]);
        assert!(out.changed.contains(&key(CDS, "*")));
        let refused = "Cluster * cannot be used: not yours (control plane cp:1, node me)";
        assert_eq!((script.all(CDS).as_str(), script.known(CDS, "a")), (refused, "1".into()), "{variant:?}");
        script.say(variant, &["a=2"], &["a=2"], &[]);
        assert_eq!((script.all(CDS).as_str(), script.known(CDS, "a")), (refused, "2".into()));
        assert!(script.machine.deadline().is_none(), "it is answered");
        script.say(variant, &["a=2", "b=1"], &["b=1"], &[]);
        assert_eq!(script.all(CDS), "a=2 b=1");
        // A list that there was stays, in doubt.
        script.refuse(variant, &["a=2"]);
        let doubt = "[Cluster * is in doubt: not yours (control plane cp:1, node me)]";
        assert_eq!(script.all(CDS), format!("a=2 b=1 {doubt}"), "{variant:?}");
    }
}

/// What is given up by name stays for the wildcard's sake, and what becomes of it says nothing about everything.
#[test]
fn a_refusal_and_a_doubt_outlive_what_is_said_of_a_name_that_was_given_up() {
    for variant in BOTH {
        for refused in [true, false] {
            let mut script = Script::new(variant);
            script.open(&[(CDS, "*"), (CDS, "a"), (CDS, "b")]);
            if refused {
                script.refuse(variant, &["a=1", "b=1"]);
            } else {
                script.say(variant, &["a=1", "b=1"], &["a=1", "b=1"], &[]);
            }
            script.remove(&[(CDS, "b")]);
            script.say(variant, &["a=1"], &[], &["b"]);
            let text = script.all(CDS);
            assert_eq!(text.contains("not yours"), refused, "{variant:?} {text}");
            assert_eq!(
                text.contains("nothing but what is asked for by name"),
                !refused,
                "{variant:?} {text}"
            );
            // The last one goes too, and the control plane has nothing more to say of names.
            script.say(variant, &[], &[], &["a"]);
            let text = script.all(CDS);
            assert_eq!(text.contains("not yours"), refused, "{variant:?} {text}");
            assert_eq!(
                text.contains("nothing but what is asked for by name"),
                !refused,
                "{variant:?} {text}"
            );
            // It lists nothing, and now that is said.
            script.remove(&[(CDS, "a")]);
            script.pass(LINGER);
            script.say(variant, &[], &[], &[]);
            assert_eq!(script.all(CDS), "", "{variant:?}");
        }
    }
}

/// What is under way when everything is asked for is about the names of before.
#[test]
fn a_response_from_before_the_wildcard_is_no_answer_to_it() {
    for (given_up, before) in [(false, [].as_slice()), (true, ["a=1"].as_slice())] {
        let mut script = Script::new(Variant::Sotw);
        script.open(&[(CDS, "a")]);
        if given_up {
            script.sotw(CDS, "1", &["a=1"]);
            script.remove(&[(CDS, "a")]);
        }
        script.add(&[(CDS, "*")]);
        script.sotw(CDS, "1", before);
        let text = script.all(CDS);
        assert!(text.contains("nothing but what is asked for by name"), "{given_up}: {text}");
        script.sotw(CDS, "2", &["a=1", "b=1"]);
        assert_eq!(script.all(CDS), "a=1 b=1");
    }
}

#[test]
fn who_refused_to_list_is_asked_anew_on_the_next_stream_as_if_nothing_were_listed() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*"), (CDS, "a")]);
        script.say(variant, &["a=1", "b=1"], &["a=1", "b=1"], &[]);
        script.refuse(variant, &["a=1"]);
        assert!(
            script.all(CDS).starts_with("a=1 b=1 [Cluster * is in doubt: not yours"),
            "{}",
            script.all(CDS)
        );
        script.end();
        let out = script.on(Input::Opened);
        assert!(out.changed.contains(&key(CDS, "*")));
        assert_eq!(script.all(CDS), "pending");
        match &out.requests[..] {
            [Request::Sotw(request)] => assert_eq!(request.version_info, ""),
            [Request::Delta(request)] => {
                assert_eq!(request.initial_resource_versions.keys().collect::<Vec<_>>(), ["a"]);
            }
            other => panic!("{other:?}"),
        }
        script.say(variant, &["a=1", "c=1"], &["c=1"], &[]);
        if variant == Variant::Delta {
            // That may be a part of the answer.
            assert!(script.all(CDS).starts_with(&format!("a=1 b=1 c=1 {EARLIER}")), "{}", script.all(CDS));
            script.pass(Duration::from_secs(14));
            assert!(script.all(CDS).starts_with("a=1 b=1 c=1 ["));
            assert_eq!(script.pass(Duration::from_secs(1)).changed, [key(CDS, "*")].into());
        }
        assert_eq!(script.all(CDS), "a=1 c=1");
    }
}

const EARLIER: &str = "[Cluster * is in doubt: some of it is of an earlier list";

/// It is all that there is, or from a control plane that knows no wildcard.
#[test]
fn an_answer_of_named_ones_only_is_a_list_with_a_note_until_more_is_said() {
    const NOTE: &str =
        "[Cluster * is in doubt: the control plane has sent nothing but what is asked for by name";
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*"), (CDS, "a"), (CDS, "none")]);
        script.say(variant, &["a=1"], &["a=1"], &["none"]);
        assert!(script.all(CDS).starts_with(&format!("a=1 {NOTE}")), "{}", script.all(CDS));
        let out = script.pass(Duration::from_secs(60));
        assert!(out.changed.is_empty() || variant == Variant::Sotw, "{:?}", out.changed);
        assert!(script.all(CDS).starts_with(&format!("a=1 {NOTE}")), "{}", script.all(CDS));
        script.say(variant, &["a=2"], &["a=2"], &[]);
        assert!(script.all(CDS).starts_with(&format!("a=2 {NOTE}")), "{}", script.all(CDS));
        script.say(variant, &["a=2", "b=1"], &["b=1"], &[]);
        assert_eq!(script.all(CDS), "a=2 b=1");
        // It is known to list.
        script.say(variant, &["a=2"], &[], &["b"]);
        assert_eq!(script.all(CDS), "a=2");
    }
    // Silence of a control plane that says all that is news is no reason to ask anew.
    let mut script = Script::new(Variant::Delta);
    script.open(&[(CDS, "*"), (CDS, "a")]);
    script.say(Variant::Delta, &[], &["a=1"], &[]);
    script.end();
    script.on(Input::Opened);
    assert!(script.all(CDS).starts_with(&format!("a=1 {NOTE}")), "{}", script.all(CDS));
    assert!(script.machine.deadline().is_none());
}

/// A request with all of them could be more than the control plane takes, time and again.
#[test]
fn a_list_that_is_too_long_to_be_told_is_asked_for_anew() {
    let name = |i: usize| format!("{i:0>1000}");
    let long = |count: usize| -> Vec<_> {
        (0..count).map(|i| wrapper(CDS, &name(i), "v", &format!("{}=1", name(i)))).collect()
    };
    for (count, is_told) in [(MAX_TOLD / 1013, true), (MAX_TOLD / 1013 + 1, false)] {
        let mut script = Script::with(Variant::Delta, |settings| settings.max_resource_bytes = 2000);
        script.open(&[(CDS, "*"), (CDS, "named")]);
        assert!(script.delta(CDS, long(count), &[]).rejected.is_none());
        script.say(Variant::Delta, &[], &["named=1"], &[]);
        script.end();
        let out = script.on(Input::Opened);
        let request = delta(&out);
        assert!(request.encoded_len() < MAX_TOLD + 1000);
        let told = request.initial_resource_versions;
        assert_eq!((told.len(), told.contains_key("named")), (if is_told { count + 1 } else { 1 }, true));
        assert_eq!((script.all(CDS) == "pending", out.changed.is_empty()), (!is_told, is_told));
        if !is_told {
            script.say(Variant::Delta, &[], &["b=1"], &[]);
            assert!(script.all(CDS).contains(EARLIER), "that may be a part of the answer");
            assert!(script.all(CDS).contains(&format!("{}=1", name(0))), "and takes nothing away");
            // All but the first come again, in two parts.
            let again = long(count).split_off(1);
            let (some, rest) = again.split_at(again.len() / 2);
            script.delta(CDS, some.to_vec(), &[]);
            assert!(script.all(CDS).contains(EARLIER));
            script.delta(CDS, rest.to_vec(), &[]);
            assert!(script.all(CDS).contains(EARLIER), "of one it is not known");
            script.pass(Duration::from_secs(15));
            let all = script.all(CDS);
            assert!(!all.contains(EARLIER) && !all.contains(&name(0)), "it is gone");
            assert!(all.contains(&name(1)) && all.ends_with(" b=1 named=1"));
        }
    }
}

#[test]
fn what_of_an_earlier_list_lives_for_a_while_is_given_up_with_it_and_what_is_named_meanwhile_is_not() {
    let mut script = Script::new(Variant::Delta);
    script.open(&[(CDS, "*")]);
    let lives = |name: &str, seconds| living(wrapper(CDS, name, "1", &format!("{name}=1")), seconds);
    let begun = script.now;
    script.delta(CDS, vec![lives("a", 600), lives("b", 8), lives("c", 600), lives("d", 600)], &[]);
    script.refuse(Variant::Delta, &[]);
    script.end();
    script.on(Input::Opened);
    script.delta(CDS, vec![lives("c", 600)], &[]);
    script.add(&[(CDS, "d")]);
    assert!(script.all(CDS).contains(EARLIER));
    script.pass(Duration::from_secs(8));
    assert!(script.all(CDS).contains(EARLIER), "{}", script.all(CDS));
    script.pass(Duration::from_secs(7));
    assert_eq!(script.all(CDS), "c=1 d=1");
    assert_eq!(script.machine.deadline(), Some(begun + Duration::from_secs(600)));
}

#[test]
fn a_delta_server_is_told_what_is_listed_when_the_client_comes_back_and_says_what_is_gone() {
    let mut script = Script::new(Variant::Delta);
    script.open(&[(CDS, "*")]);
    let all = ["a=1", "b=1", "c=bad", "d=1"];
    script.say(Variant::Delta, &[], &all, &[]);
    script.say(Variant::Delta, &[], &["d=bad"], &[]);
    script.end();
    let before = "a=1 b=1 c=(was rejected: bad is bad) d=1(was rejected: bad is bad)";
    assert_eq!(script.all(CDS), before);
    let request = delta(&script.on(Input::Opened));
    assert_eq!(request.resource_names_subscribe, ["*"]);
    // What is in trouble is held in no version: it is sent again, or said to be gone.
    let held =
        [("a", "1"), ("b", "1"), ("c", ""), ("d", "")].map(|(name, v)| (name.to_owned(), v.to_owned()));
    assert_eq!(request.initial_resource_versions, held.into());
    assert!(script.machine.deadline().is_none(), "it was answered once");
    script.say(Variant::Delta, &[], &["d=1"], &["a", "c"]);
    assert_eq!(script.all(CDS), "b=1 d=1");
}

#[test]
fn what_vanished_meanwhile_is_left_out_of_the_first_complete_response() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "*")]);
    script.sotw(CDS, "1", &["a=1", "b=1"]);
    script.end();
    // The version may be that of a response that was sent before the wildcard was asked for.
    assert_eq!(sotw(&script.on(Input::Opened)), (String::new(), String::new(), names(&["*"]), None));
    assert_eq!(script.all(CDS), "a=1 b=1");
    script.sotw(CDS, "2", &["b=1"]);
    assert_eq!(script.all(CDS), "b=1");
}

#[test]
fn a_list_that_was_given_up_while_the_control_plane_was_away_is_asked_for_without_a_version() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*"), (CDS, "a")]);
        script.say(variant, &["a=1", "b=1"], &["a=1", "b=1"], &[]);
        script.on(Input::Closed("gone".into()));
        script.remove(&[(CDS, "*")]);
        script.add(&[(CDS, "*")]);
        assert_eq!(script.all(CDS), "pending");
        script.pass(Duration::from_secs(5));
        let out = script.on(Input::Opened);
        match &out.requests[..] {
            [Request::Sotw(request)] => assert_eq!(request.version_info, "", "else it could send nothing"),
            [Request::Delta(request)] => {
                assert_eq!(request.initial_resource_versions.keys().collect::<Vec<_>>(), ["a"]);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A server may miss that the wildcard was given up and wanted again, and then sends nothing again.
#[test]
fn a_wildcard_that_is_wanted_again_at_once_has_lost_nothing() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "*")]);
    script.sotw(CDS, "1", &["a=1", "b=1"]);
    script.remove(&[(CDS, "*")]);
    script.pass(LINGER / 2);
    script.sotw(CDS, "2", &["a=2", "b=1", "c=1"]);
    script.add(&[(CDS, "*")]);
    assert_eq!(script.all(CDS), "a=2 b=1 c=1");
    // Older than that, perhaps.
    script.sotw(CDS, "3", &["a=2"]);
    assert_eq!(script.all(CDS), "a=2 b=1 c=1");
    script.sotw(CDS, "4", &["a=2", "c=1"]);
    let out = script.pass(Duration::from_secs(15));
    assert_eq!((script.all(CDS).as_str(), out.changed), ("a=2 c=1", [key(CDS, "*")].into()));
}

#[test]
fn nothing_is_listed_beyond_its_time_and_a_late_heart_beat_brings_it_back() {
    let mut script = Script::new(Variant::Delta);
    script.open(&[(CDS, "*")]);
    script.delta(CDS, vec![living(wrapper(CDS, "a", "1", "a=1"), 60), wrapper(CDS, "b", "1", "b=1")], &[]);
    assert_eq!(script.pass(MINUTE).changed, [key(CDS, "*")].into());
    assert_eq!(script.all(CDS), "b=1");
    assert!(script.delta(CDS, vec![heartbeat("a", "1", 60)], &[]).rejected.is_none());
    assert_eq!(script.all(CDS), "a=1 b=1");
    script.on(Input::Closed("gone".into()));
    script.pass(MINUTE);
    assert_eq!(script.all(CDS), "b=1", "away or not");
}

#[test]
fn what_is_forgotten_is_listed_no_more_and_an_end_of_everything_leaves_nothing() {
    for variant in BOTH {
        let mut script = Script::new(variant);
        script.open(&[(CDS, "*"), (CDS, "a")]);
        script.say(variant, &["a=1", "b=1"], &["a=1", "b=1"], &[]);
        script.on(Input::Closed("gone".into()));
        let out = script.on(Input::Forget(vec![key(CDS, "*"), key(CDS, "a")]));
        assert_eq!(out.changed, [key(CDS, "*"), key(CDS, "a")].into());
        assert_eq!((script.all(CDS), script.known(CDS, "a")), ("pending".into(), String::new()));
        script.pass(Duration::from_secs(5));
        script.on(Input::Opened);
        script.say(variant, &["c=1"], &["c=1"], &[]);
        assert_eq!(script.all(CDS), "c=1");
        script.remove(&[(CDS, "*"), (CDS, "a")]);
        assert!(script.on(Input::Hangup).disconnect);
        assert!(script.machine.types[CDS as usize].entries.is_empty());
    }
}

#[test]
fn no_resource_can_call_itself_the_wildcard() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "*")]);
    let out = script.sotw(CDS, "1", &["*=1", "a=1"]);
    assert_eq!(
        out.rejected.as_deref(),
        Some("Cluster *: no resource is called so: it stands for all of them")
    );
    assert_eq!(script.all(CDS), "a=1");
}

#[test]
fn a_control_plane_that_is_away_is_a_note_of_a_list_and_an_error_of_none() {
    let mut script = Script::new(Variant::Sotw);
    script.open(&[(CDS, "*"), (LDS, "*")]);
    script.sotw(CDS, "1", &["a=1"]);
    script.end();
    script.on(Input::Closed("refused".into()));
    let unreachable = "is not known: control plane unreachable: refused (control plane cp:1, node me)";
    assert_eq!(script.all(CDS), format!("a=1 [Cluster * {unreachable}]"));
    assert_eq!(script.all(LDS), format!("Listener * {unreachable}"));
}
