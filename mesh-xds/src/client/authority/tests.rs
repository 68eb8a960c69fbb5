//! The rules of gRFC A47 and A71, one script each.

use super::*;
use crate::{
    bootstrap::{self, ChannelCredentials, Node},
    client::{
        Listed, ResourceState,
        machine::Settings,
        store::{Kept, Stored},
        testing::{Toy, any, resource_error, settings, wrapper},
        wire::Response,
    },
    name::Name,
    proto,
    server::Variant,
};
use ResourceType::{Cluster as CDS, ClusterLoadAssignment as EDS, Listener as LDS};

mod wildcard;

fn server(address: &str) -> ServerConfig {
    ServerConfig::new(address, ChannelCredentials::Insecure).unwrap()
}

/// A bootstrap with these control planes.
fn bootstrap(addresses: &[&str]) -> Bootstrap {
    let mut bootstrap = Bootstrap::new(server("x:1"), Node::default());
    bootstrap.servers = addresses.iter().map(|address| server(address)).collect();
    bootstrap
}

/// Control planes with a clock, and shorthands. Addresses are `a:1`, `b:1`, …; ids 0, 1, ….
struct Script {
    federation: Federation<Toy>,
    now: Instant,
    nonce: u32,
}

fn key(kind: ResourceType, name: &str) -> Key {
    (kind, name.into())
}

fn keys(names: &[(ResourceType, &str)]) -> Vec<Key> {
    names.iter().map(|(kind, name)| key(*kind, name)).collect()
}

impl Script {
    fn new(bootstrap: &Bootstrap) -> Self {
        Self::with(bootstrap, Stored::none(), Variant::Sotw)
    }

    fn with(bootstrap: &Bootstrap, stored: Stored<Arc<str>>, variant: Variant) -> Self {
        let machine = |server: &ServerConfig| {
            let settings = Settings { server: server.address.as_str().into(), ..settings(variant) };
            Machine::new(Toy, settings)
        };
        let federation = Federation::new(Plan::new(bootstrap), stored, machine);
        Self { federation, now: Instant::now(), nonce: 0 }
    }

    fn add(&mut self, names: &[(ResourceType, &str)]) -> Vec<String> {
        let actions = self.federation.interest(self.now, keys(names), vec![]);
        shown(&actions)
    }

    fn remove(&mut self, names: &[(ResourceType, &str)]) -> Vec<String> {
        let actions = self.federation.interest(self.now, vec![], keys(names));
        shown(&actions)
    }

    fn on(&mut self, server: Id, input: Input) -> Vec<String> {
        let actions = self.federation.on(self.now, server, input);
        shown(&actions)
    }

    fn open(&mut self, server: Id) -> Vec<String> {
        self.on(server, Input::Opened)
    }

    fn close(&mut self, server: Id) -> Vec<String> {
        self.on(server, Input::Closed(format!("{}: refused", ["a:1", "b:1", "c:1"][server]).into()))
    }

    fn pass(&mut self, seconds: u64) -> Vec<String> {
        self.now += Duration::from_secs(seconds);
        let actions = self.federation.tick(self.now);
        shown(&actions)
    }

    fn answer(&mut self, server: Id, kind: ResourceType, bodies: &[&str]) -> Vec<String> {
        self.nonce += 1;
        self.on(
            server,
            Input::Response(Response::Sotw(proto::DiscoveryResponse {
                version_info: format!("v{}", self.nonce),
                resources: bodies.iter().map(|body| any(kind, body)).collect(),
                type_url: kind.url().into(),
                nonce: self.nonce.to_string(),
                ..Default::default()
            })),
        )
    }

    fn known(&self, kind: ResourceType, name: &str) -> String {
        match self.federation.known(kind, name) {
            Known::Pending => String::new(),
            Known::Good { resource, note: None } => resource.to_string(),
            Known::Good { resource, note: Some(note) } => format!("{resource} ({note})"),
            Known::Bad(error) => error.to_string(),
        }
    }

    fn speaks(&self) -> &str {
        &self.federation.default_machine().unwrap().0.address
    }
}

/// Actions in short: `0 connect`, `1 LDS v2 a,b`.
fn shown(actions: &Actions) -> Vec<String> {
    let show = |(id, action): &(Id, Action)| match action {
        Action::Connect => format!("{id} connect"),
        Action::Disconnect => format!("{id} disconnect"),
        Action::Rejected(text) => format!("{id} rejected {text}"),
        Action::Send(Request::Sotw(request)) => {
            let kind = ResourceType::from_url(&request.type_url).unwrap().abbreviation();
            format!("{id} {kind} {} {}", request.version_info, request.resource_names.join(","))
        }
        Action::Send(Request::Delta(request)) => {
            let kind = ResourceType::from_url(&request.type_url).unwrap().abbreviation();
            let versions = request.initial_resource_versions.len();
            format!("{id} {kind} {} holding {versions}", request.resource_names_subscribe.join(","))
        }
    };
    actions.io.iter().map(show).collect()
}

#[test]
fn one_that_says_what_cannot_be_read_is_replaced_until_it_has_said_everything() {
    let mut script = Script::new(&bootstrap(&["a:1", "b:1"]));
    script.add(&[(LDS, "l"), (CDS, "c")]);
    script.open(0);
    script.answer(0, LDS, &["l=1"]);
    assert_eq!(script.on(0, Input::Unreadable("too large".into())), ["1 connect"]);
    script.open(1);
    script.answer(1, LDS, &["l=2"]);
    script.answer(1, CDS, &["c=2"]);
    assert_eq!(script.pass(2), ["0 connect"]);
    script.open(0);
    script.answer(0, LDS, &["l=1"]);
    assert_eq!((script.speaks(), script.known(LDS, "l").as_str()), ("b:1", "2"), "it has not said all");
    script.answer(0, CDS, &["c=1"]);
    assert_eq!((script.speaks(), script.known(CDS, "c").as_str()), ("a:1", "1"));
}

#[test]
fn a_replacement_is_asked_for_everything_when_something_is_not_known() {
    let mut script = Script::new(&bootstrap(&["a:1", "b:1"]));
    assert_eq!(script.add(&[(LDS, "l"), (CDS, "c")]), ["0 connect"]);
    assert_eq!(script.close(0), ["1 connect"]);
    assert_eq!((script.speaks(), script.known(LDS, "l").as_str()), ("b:1", ""), "nothing is lost yet");
    assert_eq!(script.pass(2), ["0 connect"], "the first is tried on");
    assert_eq!(script.open(1), ["1 CDS  c", "1 LDS  l"]);
    script.answer(1, LDS, &["l=b"]);
    assert_eq!(script.known(LDS, "l"), "b");
    assert_eq!(script.add(&[(EDS, "e")]), ["1 EDS  e"], "both are asked; one is connecting");
}

#[test]
fn what_is_known_needs_no_replacement_unless_the_authority_wants_one() {
    for always in [false, true] {
        let mut bootstrap = bootstrap(&["a:1", "b:1"]);
        let authority =
            bootstrap::Authority { fallback_on_reachability_only: always, ..bootstrap::Authority::new("x") };
        bootstrap = bootstrap.with_authority("x", authority);
        let mut script = Script::new(&bootstrap);
        let name = "xdstp://x/envoy.config.cluster.v3.Cluster/c";
        script.add(&[(CDS, name)]);
        script.open(0);
        script.answer(0, CDS, &[&format!("{name}=a")]);
        script.close(0);
        script.pass(2);
        let expected: &[&str] = if always { &["1 connect"] } else { &[] };
        assert_eq!(script.close(0), expected);
        if !always {
            assert!(script.known(CDS, name).starts_with("a ("), "{}", script.known(CDS, name));
            // What begins to be watched while it is away is not known.
            assert_eq!(
                script.add(&[(EDS, "xdstp://x/envoy.config.endpoint.v3.ClusterLoadAssignment/e")]),
                ["1 connect"]
            );
        }
    }
}

#[test]
fn what_is_known_to_be_absent_needs_no_replacement() {
    let mut script = Script::new(&bootstrap(&["a:1", "b:1"]));
    script.add(&[(LDS, "l")]);
    script.open(0);
    script.answer(0, LDS, &["other=1"]);
    let not_found = resource_error("l", 5, "it is gone");
    let response = proto::DiscoveryResponse {
        version_info: "2".into(),
        nonce: "2".into(),
        type_url: LDS.url().into(),
        resource_errors: vec![not_found],
        ..Default::default()
    };
    script.on(0, Input::Response(Response::Sotw(response)));
    assert!(script.known(LDS, "l").contains("does not exist: it is gone"), "{}", script.known(LDS, "l"));
    script.close(0);
    script.pass(2);
    assert!(script.close(0).is_empty());
}

#[test]
fn what_a_control_plane_was_silent_about_is_not_known_to_be_absent() {
    let mut script = Script::new(&bootstrap(&["a:1", "b:1"]));
    script.add(&[(LDS, "l")]);
    script.open(0);
    script.pass(15);
    assert!(script.known(LDS, "l").contains("does not exist"));
    assert_eq!(script.close(0), ["1 connect"]);
}

#[test]
fn what_ended_with_its_time_while_the_control_plane_is_away_is_asked_of_the_next() {
    let mut script = Script::with(&bootstrap(&["a:1", "b:1"]), Stored::none(), Variant::Delta);
    script.add(&[(LDS, "l")]);
    script.open(0);
    let mut resource = wrapper(LDS, "l", "1", "l=a");
    resource.ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let response = proto::DeltaDiscoveryResponse {
        nonce: "1".into(),
        type_url: LDS.url().into(),
        resources: vec![resource],
        ..Default::default()
    };
    script.on(0, Input::Response(Response::Delta(response)));
    assert_eq!(script.known(LDS, "l"), "a");
    script.close(0);
    script.pass(5);
    assert!(script.close(0).is_empty(), "what is known is enough");
    assert_eq!(script.pass(60).iter().filter(|action| *action == "1 connect").count(), 1);
    assert_eq!(script.speaks(), "b:1");
}

#[test]
fn a_stream_that_had_a_response_is_no_failure() {
    let mut script = Script::new(&bootstrap(&["a:1", "b:1"]));
    script.add(&[(LDS, "l"), (CDS, "c")]);
    script.open(0);
    script.answer(0, LDS, &["l=a"]);
    assert!(script.close(0).is_empty(), "though c is not known");
    script.pass(2);
    assert_eq!(script.close(0), ["1 connect"], "but this is");
}

#[test]
fn any_answer_of_one_before_ends_the_replacement_and_nothing_of_it_is_seen_again() {
    let mut script = Script::new(&bootstrap(&["a:1", "b:1", "c:1"]));
    script.add(&[(LDS, "l"), (CDS, "c")]);
    script.close(0);
    assert_eq!(script.close(1), ["2 connect"]);
    script.open(2);
    script.answer(2, LDS, &["l=c"]);
    script.answer(2, CDS, &["c=c"]);
    script.pass(3);
    script.open(1);
    assert_eq!(script.on(1, Input::Established), [""; 0], "a stream is no answer");
    assert_eq!(script.speaks(), "c:1");
    let actions = script.answer(1, CDS, &["c=b"]);
    assert_eq!(actions[0], "1 CDS v3 c");
    assert_eq!(actions.last().unwrap(), "2 disconnect");
    assert_eq!(
        (script.speaks(), script.known(CDS, "c").as_str(), script.known(LDS, "l").as_str()),
        ("b:1", "b", "")
    );
    assert!(script.answer(2, LDS, &["l=late"]).is_empty());
    script.pass(2);
    script.open(0);
    let actions = script.answer(0, LDS, &["l=a"]);
    assert_eq!(actions.last().unwrap(), "1 disconnect");
    assert_eq!((script.speaks(), script.known(LDS, "l").as_str()), ("a:1", "a"));
    assert_eq!(script.known(CDS, "c"), "", "it has yet to say so");
}

#[test]
fn what_one_before_said_before_the_replacement_is_forgotten() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut script = Script::with(&bootstrap(&["a:1", "b:1"]), Stored::none(), variant);
        script.add(&[(LDS, "l")]);
        script.open(0);
        let delta = |kind: ResourceType, body: &str, nonce: &str| {
            let (name, _) = body.split_once('=').unwrap();
            Input::Response(Response::Delta(proto::DeltaDiscoveryResponse {
                resources: vec![wrapper(kind, name, "v", body)],
                type_url: kind.url().into(),
                nonce: nonce.into(),
                ..Default::default()
            }))
        };
        let answer = |script: &mut Script, server, body: &str| match variant {
            Variant::Sotw => script.answer(server, LDS, &[body]),
            Variant::Delta => script.on(server, delta(LDS, body, "n")),
        };
        answer(&mut script, 0, "l=old");
        script.close(0);
        script.pass(2);
        script.close(0);
        assert!(script.known(LDS, "l").starts_with("old ("));
        assert_eq!(script.add(&[(CDS, "c")]), ["1 connect"]);
        assert_eq!(script.known(LDS, "l"), "", "the replacement has not said yet");
        script.open(1);
        answer(&mut script, 1, "l=new");
        script.pass(3);
        let asked = script.open(0);
        let expected = match variant {
            Variant::Sotw => ["0 CDS  c", "0 LDS  l"],
            Variant::Delta => ["0 CDS c holding 0", "0 LDS l holding 0"],
        };
        assert_eq!(asked, expected, "it has to send everything again");
        script.on(
            0,
            Input::Response(Response::Sotw(proto::DiscoveryResponse {
                type_url: CDS.url().into(),
                ..Default::default()
            })),
        );
        assert_eq!((script.speaks(), script.known(LDS, "l").as_str()), ("a:1", ""));
    }
}

#[test]
fn watchers_hear_of_it_when_no_replacement_is_left_with_the_reasons_of_all() {
    let mut script = Script::new(&bootstrap(&["a:1", "b:1"]));
    script.add(&[(LDS, "l")]);
    script.close(0);
    assert_eq!(script.known(LDS, "l"), "");
    script.close(1);
    assert_eq!(
        script.known(LDS, "l"),
        "Listener l is not known: control plane unreachable: a:1: refused; b:1: refused (control plane b:1, node me)"
    );
    script.pass(3);
    script.open(1);
    script.on(1, Input::Established);
    assert_eq!(script.known(LDS, "l"), "", "an answer is awaited again");
}

#[test]
fn authorities_with_the_same_control_plane_share_its_stream() {
    let mut bootstrap = bootstrap(&["a:1", "b:1"]);
    let own = bootstrap::Authority { servers: vec![server("b:1")], ..bootstrap::Authority::new("x") };
    bootstrap = bootstrap.with_authority("x", own).with_authority("y", bootstrap::Authority::new("y"));
    let mut script = Script::new(&bootstrap);
    let (x, y) =
        ("xdstp://x/envoy.config.cluster.v3.Cluster/c", "xdstp://y/envoy.config.cluster.v3.Cluster/c");
    assert_eq!(script.add(&[(CDS, "c"), (CDS, x), (CDS, y)]), ["0 connect", "1 connect"]);
    assert_eq!(script.open(0), [format!("0 CDS  c,{y}")]);
    assert_eq!(script.open(1), [format!("1 CDS  {x}")]);
    // The first goes away: what was its own is asked of the second, on the stream that is there.
    assert_eq!(script.close(0).last().unwrap(), &format!("1 CDS  c,{x},{y}"));
    script.answer(1, CDS, &["c=b", &format!("{x}=b"), &format!("{y}=b")]);
    assert_eq!((script.known(CDS, "c"), script.known(CDS, y)), ("b".into(), "b".into()));
    // It comes back: the second stays for its own authority.
    script.pass(2);
    script.open(0);
    let actions = script.answer(0, CDS, &["c=a"]);
    assert_eq!(actions.last().unwrap(), &format!("1 CDS v1 {x}"));
    assert_eq!(
        (script.known(CDS, "c"), script.known(CDS, x), script.known(CDS, y)),
        ("a".into(), "b".into(), "".into())
    );
}

#[test]
fn a_name_of_an_unknown_authority_is_an_error_and_nobody_is_asked() {
    let mut script = Script::new(&bootstrap(&["a:1"]));
    let name = "xdstp://nowhere/envoy.config.cluster.v3.Cluster/c";
    assert!(script.add(&[(CDS, name)]).is_empty());
    let text = script.known(CDS, name);
    assert!(text.contains("the xDS authority `nowhere` is not configured (known: none)"), "{text}");
    assert!(script.remove(&[(CDS, name)]).is_empty());
    // A name that only looks so is like any other.
    assert_eq!(script.add(&[(LDS, name)]), ["0 connect"]);
}

#[test]
fn names_are_compared_in_their_canonical_form() {
    let mut script = Script::new(&bootstrap(&["a:1"]).with_authority("x", bootstrap::Authority::new("x")));
    let name = |context| format!("xdstp://x/envoy.config.cluster.v3.Cluster/c?{context}");
    let canonical = name("a=1&b=2");
    script.add(&[(CDS, &canonical)]);
    script.open(0);
    // The toy parser takes the text before the first `=` for the name.
    script.answer(0, CDS, &["xdstp://x/envoy.config.cluster.v3.Cluster/d=1"]);
    assert_eq!(script.known(CDS, &canonical), "");
    let wrapped = proto::Resource {
        name: name("b=2&a=1"),
        ttl: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        ..Default::default()
    };
    let response = proto::DiscoveryResponse {
        type_url: CDS.url().into(),
        resource_errors: vec![resource_error(&wrapped.name, 5, "no such")],
        ..Default::default()
    };
    script.on(0, Input::Response(Response::Sotw(response)));
    assert!(script.known(CDS, &canonical).contains("no such"));
}

#[test]
fn a_control_plane_of_which_nothing_is_watched_is_left() {
    let mut script = Script::new(&bootstrap(&["a:1"]));
    script.add(&[(CDS, "c")]);
    script.open(0);
    script.answer(0, CDS, &["c=1"]);
    assert_eq!(script.remove(&[(CDS, "c")]), ["0 CDS v1 "]);
    assert!(script.pass(9).is_empty());
    assert_eq!(script.add(&[(CDS, "c")]), ["0 CDS v1 c"], "it is still there");
    script.remove(&[(CDS, "c")]);
    assert_eq!(script.pass(10), ["0 disconnect"]);
    assert_eq!(script.federation.deadline(), None);
    assert_eq!(script.add(&[(CDS, "c")]), ["0 connect"]);
    assert_eq!(script.open(0), ["0 CDS  c"], "with nothing of before");
}

#[test]
fn what_was_away_when_the_last_watch_ended_is_no_reason_to_ask_the_next_later() {
    // With what is known, so that nobody else was asked; and with a replacement, which is let go too.
    for is_known in [true, false] {
        let mut script = Script::new(&bootstrap(&["a:1", "b:1"]));
        script.add(&[(CDS, "c")]);
        if is_known {
            script.open(0);
            script.answer(0, CDS, &["c=a"]);
            script.close(0);
            script.pass(2);
        }
        assert_eq!(script.close(0).is_empty(), is_known);
        script.remove(&[(CDS, "c")]);
        for _ in 0..3 {
            script.pass(60);
        }
        assert_eq!(script.federation.deadline(), None);
        script.pass(7200);
        assert_eq!(script.add(&[(CDS, "c")]), ["0 connect"], "{is_known}");
        assert_eq!((script.speaks(), script.known(CDS, "c").as_str()), ("a:1", ""));
        assert_eq!(script.close(0), ["1 connect"], "but what is away now is");
    }
}

fn stored(entries: &[(ResourceType, &str, &str)]) -> Stored<Arc<str>> {
    let kept = |(kind, name, value): &(ResourceType, &str, &str)| {
        let kept = Kept {
            resource: Arc::from(*value),
            version: "old".into(),
            body: Bytes::new(),
            server: "a:1".into(),
            confirmed: 7.0,
        };
        (key(*kind, name), kept)
    };
    Stored::of(entries.iter().map(kept).collect(), "/cache", 60)
}

#[test]
fn what_is_on_disk_is_used_when_nobody_answers_and_until_somebody_does() {
    let disk = || stored(&[(LDS, "l", "disk"), (CDS, "c", "disk")]);
    let mut script = Script::with(&bootstrap(&["a:1", "b:1"]), disk(), Variant::Sotw);
    script.add(&[(LDS, "l"), (CDS, "c"), (EDS, "e")]);
    script.close(0);
    assert_eq!(script.known(LDS, "l"), "", "there is a replacement yet");
    script.close(1);
    assert!(
        script.known(LDS, "l").starts_with(
            "disk (Listener l is the last known good one from /cache, up to 60 s old when this process began; control \
             plane unreachable: a:1: refused; b:1: refused"
        ),
        "{}",
        script.known(LDS, "l")
    );
    assert!(script.known(EDS, "e").contains("unreachable"), "what is not on disk is as before");
    let status = script.federation.status(|_| 0.0);
    let of = |kind| status.iter().find(|status| status.resource_type == kind).unwrap();
    assert_eq!((of(LDS).from_cache, of(LDS).version.as_deref()), (Some(7.0), Some("old")));
    assert_eq!((of(EDS).from_cache, of(EDS).state), (None, ResourceState::Requested));
    assert!(script.federation.is_stored() && script.federation.accepted().is_empty());
    script.pass(3);
    script.open(1);
    script.answer(1, LDS, &["l=live"]);
    assert_eq!((script.known(LDS, "l"), script.known(CDS, "c")), ("live".into(), String::new()));
    assert!(!script.federation.is_stored());
    // From now on it is not used again.
    script.close(1);
    script.pass(2);
    script.close(0);
    script.close(1);
    assert!(script.known(CDS, "c").contains("unreachable"), "{}", script.known(CDS, "c"));
}

#[test]
fn what_is_on_disk_is_used_when_the_control_plane_takes_the_stream_and_says_nothing() {
    let mut script = Script::with(&bootstrap(&["a:1"]), stored(&[(LDS, "l", "disk")]), Variant::Delta);
    script.add(&[(LDS, "l")]);
    script.open(0);
    script.pass(14);
    assert_eq!(script.known(LDS, "l"), "");
    script.pass(1);
    assert!(script.known(LDS, "l").starts_with("disk ("));
}

#[test]
fn what_is_on_disk_is_no_replacement_for_what_a_control_plane_said() {
    let mut script =
        Script::with(&bootstrap(&["a:1"]), stored(&[(LDS, "l", "disk"), (CDS, "c", "disk")]), Variant::Sotw);
    script.add(&[(LDS, "l")]);
    script.open(0);
    script.answer(0, LDS, &[]);
    script.close(0);
    script.pass(2);
    script.close(0);
    script.add(&[(CDS, "c")]);
    assert!(script.known(LDS, "l").contains("unreachable"), "{}", script.known(LDS, "l"));
    assert!(script.known(CDS, "c").contains("unreachable"));
}

#[test]
fn silence_takes_nothing_from_disk_and_a_deletion_does() {
    let mut script = Script::new(&bootstrap(&["a:1"]));
    script.add(&[(LDS, "l"), (CDS, "c")]);
    script.open(0);
    script.answer(0, LDS, &["l=1"]);
    script.pass(15);
    assert!(script.known(CDS, "c").contains("within 15 s"), "{}", script.known(CDS, "c"));
    let said = |script: &Script| -> Vec<_> {
        script.federation.accepted().into_iter().map(|one| (one.key, one.good.is_some())).collect()
    };
    assert_eq!(said(&script), [(key(LDS, "l"), true)]);
    let error = resource_error("c", 5, "");
    script.on(
        0,
        Input::Response(Response::Sotw(proto::DiscoveryResponse {
            type_url: CDS.url().into(),
            resource_errors: vec![error],
            ..Default::default()
        })),
    );
    assert_eq!(said(&script), [(key(CDS, "c"), false), (key(LDS, "l"), true)]);
}

#[test]
fn one_that_said_something_unreadable_speaks_again_when_nothing_more_is_awaited_of_it() {
    let mut script = Script::new(&bootstrap(&["a:1", "b:1"]));
    script.add(&[(LDS, "l"), (CDS, "c")]);
    script.open(0);
    assert_eq!(script.on(0, Input::Unreadable("too large".into())), ["1 connect"]);
    script.open(1);
    script.answer(1, LDS, &["l=b"]);
    script.answer(1, CDS, &["c=b"]);
    script.pass(3);
    script.open(0);
    script.answer(0, LDS, &["l=a"]);
    assert_eq!(script.speaks(), "b:1", "c may be what cannot be read");
    script.pass(15);
    assert_eq!((script.speaks(), script.known(LDS, "l").as_str()), ("a:1", "a"));
}

#[test]
fn one_that_said_something_unreadable_and_then_nothing_takes_nothing_from_who_answers() {
    // From a replacement, and from the disk.
    for addresses in [&["a:1", "b:1"][..], &["a:1"]] {
        let disk = stored(&[(LDS, "l", "disk"), (CDS, "c", "disk")]);
        let mut script = Script::with(&bootstrap(addresses), disk, Variant::Sotw);
        script.add(&[(LDS, "l"), (CDS, "c")]);
        script.open(0);
        script.on(0, Input::Unreadable("too large".into()));
        if addresses.len() > 1 {
            script.open(1);
            script.answer(1, LDS, &["l=b"]);
            script.answer(1, CDS, &["c=b"]);
        }
        let of_before = |script: &Script| match addresses.len() {
            1 => script.federation.is_stored() && script.known(LDS, "l").starts_with("disk ("),
            _ => script.speaks() == "b:1" && script.known(LDS, "l") == "b",
        };
        assert!(of_before(&script));
        assert_eq!(script.pass(3), ["0 connect"]);
        script.open(0);
        script.on(0, Input::Established);
        assert!(of_before(&script), "a stream is no answer");
        assert_eq!(script.pass(15), [""; 0], "nor is silence");
        assert!(of_before(&script));
        assert_eq!(
            script.remove(&[(CDS, "c")]).iter().filter(|action| action.contains("connect")).count(),
            0
        );
        assert!(of_before(&script), "nor that less is awaited");
        script.answer(0, LDS, &["l=a"]);
        assert_eq!((script.speaks(), script.known(LDS, "l").as_str()), ("a:1", "a"));
        assert!(!script.federation.is_stored());
    }
}

#[test]
fn what_is_on_disk_is_not_completed_with_what_a_control_plane_says_meanwhile() {
    let (resource, body) = (Arc::from("disk"), "l=disk".into());
    let kept = Kept { resource, body, version: "old".into(), server: "a:1".into(), confirmed: 1.0 };
    let stored = Stored::of([((LDS, "l".into()), kept)].into(), "/cache", 60);
    let mut script = Script::with(&bootstrap(&["a:1"]), stored, Variant::Sotw);
    script.add(&[(LDS, "l"), (CDS, "c")]);
    script.open(0);
    script.on(0, Input::Unreadable("too large".into()));
    assert!(script.federation.is_stored() && script.known(LDS, "l").starts_with("disk"));
    script.pass(3);
    script.open(0);
    script.answer(0, CDS, &["c=a"]);
    assert!(script.federation.is_stored(), "what cannot be read may come again");
    assert!(
        script.known(CDS, "c").ends_with("does not have it (control plane a:1, node me)"),
        "{}",
        script.known(CDS, "c")
    );
    script.answer(0, LDS, &["l=a"]);
    assert_eq!((script.known(LDS, "l"), script.known(CDS, "c")), ("a".into(), "a".into()));
}
