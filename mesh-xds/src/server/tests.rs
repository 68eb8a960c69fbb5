//! The server's rules, one script each.

use super::{
    testing::{Toys, node},
    *,
};
use crate::{
    name::ResourceType::{
        self, Cluster as CDS, ClusterLoadAssignment as EDS, Listener as LDS, RouteConfiguration as RDS,
    },
    proto,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::Status;

/// A machine with a clock, and shorthands.
struct Script<P: Protocol> {
    machine: P,
    now: Instant,
}

/// A response as text: `CDS r1#1 a=1 b=2 -gone`.
pub(super) trait Brief {
    fn brief(&self) -> String;
}

fn text(any: &proto::Any) -> String {
    String::from_utf8(any.value.to_vec()).unwrap()
}

impl Brief for proto::DiscoveryResponse {
    fn brief(&self) -> String {
        let kind = ResourceType::from_url(&self.type_url).unwrap();
        let mut words = vec![kind.abbreviation().to_owned(), format!("{}#{}", self.version_info, self.nonce)];
        words.extend(self.resources.iter().map(|any| {
            assert_eq!(any.type_url, self.type_url);
            text(any)
        }));
        words.extend(self.resource_errors.iter().map(|error| {
            assert_eq!(error.error_detail.as_ref().unwrap().code, 5);
            format!("-{}", error.resource_name.as_ref().unwrap().name)
        }));
        words.join(" ")
    }
}

impl Brief for proto::DeltaDiscoveryResponse {
    fn brief(&self) -> String {
        let kind = ResourceType::from_url(&self.type_url).unwrap();
        let mut words =
            vec![kind.abbreviation().to_owned(), format!("{}#{}", self.system_version_info, self.nonce)];
        words.extend(self.resources.iter().map(|resource| {
            let body = text(resource.resource.as_ref().unwrap());
            assert_eq!(body, format!("{}={}", resource.name, resource.version.strip_prefix("h:").unwrap()));
            body
        }));
        words.extend(self.removed_resources.iter().map(|name| format!("-{name}")));
        words.join(" ")
    }
}

impl<P: Protocol<Response: Brief>> Script<P> {
    fn new(view: Arc<dyn View>) -> Self {
        Self { machine: P::new(&node(), view, Settings::default()), now: Instant::now() }
    }

    fn on(&mut self, input: Input<P::Request>) -> Vec<String> {
        let outputs = self.machine.on(self.now, input).unwrap();
        outputs.responses.iter().map(Brief::brief).collect()
    }

    fn view(&mut self, view: Arc<dyn View>) -> Vec<String> {
        self.on(Input::View(view))
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.on(Input::Tick)
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

impl Script<Sotw> {
    fn ask(&mut self, kind: ResourceType, nonce: &str, subscribed: &[&str]) -> Vec<String> {
        self.on(Input::Request(sotw(kind, nonce, subscribed)))
    }

    fn reject(&mut self, kind: ResourceType, nonce: &str, subscribed: &[&str]) -> Vec<String> {
        let error_detail = Some(proto::Status { code: 3, message: "no".into() });
        self.on(Input::Request(proto::DiscoveryRequest { error_detail, ..sotw(kind, nonce, subscribed) }))
    }
}

fn sotw(kind: ResourceType, nonce: &str, subscribed: &[&str]) -> proto::DiscoveryRequest {
    proto::DiscoveryRequest {
        type_url: kind.url().into(),
        response_nonce: nonce.into(),
        resource_names: names(subscribed),
        ..Default::default()
    }
}

impl Script<Delta> {
    fn ask(
        &mut self,
        kind: ResourceType,
        nonce: &str,
        subscribe: &[&str],
        unsubscribe: &[&str],
    ) -> Vec<String> {
        self.on(Input::Request(delta(kind, nonce, subscribe, unsubscribe)))
    }
}

fn delta(
    kind: ResourceType,
    nonce: &str,
    subscribe: &[&str],
    unsubscribe: &[&str],
) -> proto::DeltaDiscoveryRequest {
    proto::DeltaDiscoveryRequest {
        type_url: kind.url().into(),
        response_nonce: nonce.into(),
        resource_names_subscribe: names(subscribe),
        resource_names_unsubscribe: names(unsubscribe),
        ..Default::default()
    }
}

const NOTHING: [String; 0] = [];

#[test]
fn sotw_answers_a_subscription_and_then_only_changes() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(EDS, "a", "1"), (EDS, "b", "1"), (EDS, "x", "1")]));
    assert_eq!(script.ask(EDS, "", &["a"]), ["EDS r1#1 a=1"]);
    assert_eq!(script.ask(EDS, "1", &["a"]), NOTHING, "an ACK is not answered");
    assert_eq!(script.ask(EDS, "1", &["a", "b"]), ["EDS r1#2 b=1"], "only what is new");
    script.ask(EDS, "2", &["a", "b"]);
    assert_eq!(script.view(Toys::of(2, &[(EDS, "a", "1"), (EDS, "b", "1"), (EDS, "x", "2")])), NOTHING);
    assert_eq!(
        script.view(Toys::of(3, &[(EDS, "a", "1"), (EDS, "b", "2"), (EDS, "x", "2")])),
        ["EDS r3#3 b=2"]
    );
}

#[test]
fn sotw_responses_of_listeners_and_clusters_are_complete() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(CDS, "a", "1"), (CDS, "b", "1"), (CDS, "x", "1")]));
    assert_eq!(script.ask(CDS, "", &["a"]), ["CDS r1#1 a=1"]);
    assert_eq!(script.ask(CDS, "1", &["a", "b"]), ["CDS r1#2 a=1 b=1"]);
    script.ask(CDS, "2", &["a", "b"]);
    assert_eq!(script.view(Toys::of(2, &[(CDS, "a", "2"), (CDS, "b", "1")])), ["CDS r2#3 a=2 b=1"]);
}

#[test]
fn sotw_an_initial_empty_list_is_a_wildcard_and_a_later_one_is_not() {
    let view = || Toys::of(1, &[(LDS, "a", "1"), (LDS, "b", "1")]);
    let mut envoy = Script::<Sotw>::new(view());
    assert_eq!(envoy.ask(LDS, "", &[]), ["LDS r1#1 a=1 b=1"]);
    assert_eq!(envoy.ask(LDS, "1", &[]), NOTHING, "still a wildcard");
    assert_eq!(envoy.view(Toys::of(2, &[(LDS, "a", "1"), (LDS, "b", "1"), (LDS, "c", "1")])).len(), 1);
    assert_eq!(envoy.ask(LDS, "2", &["a"]), ["LDS r2#3 a=1"], "named now, and waited for");
    envoy.ask(LDS, "3", &["a"]);
    assert_eq!(envoy.view(Toys::of(3, &[(LDS, "a", "1"), (LDS, "b", "3"), (LDS, "c", "1")])), NOTHING);
    assert_eq!(envoy.ask(LDS, "3", &["*", "a"]), ["LDS r3#4 a=1 b=3 c=1"], "an explicit wildcard");
    envoy.ask(LDS, "4", &["*", "a"]);
    assert_eq!(
        envoy.ask(LDS, "4", &["*", "a", "b"]),
        ["LDS r3#5 a=1 b=3 c=1"],
        "whoever names it waits for it"
    );
    envoy.ask(LDS, "5", &["*", "a", "b"]);
    assert_eq!(envoy.ask(LDS, "5", &[]), NOTHING, "after names, no names are none");
    assert_eq!(envoy.view(Toys::of(4, &[(LDS, "a", "4")])), NOTHING);

    let mut grpc = Script::<Sotw>::new(view());
    grpc.ask(LDS, "", &["a"]);
    assert_eq!(grpc.ask(LDS, "1", &[]), NOTHING, "unsubscribed from everything");
    assert_eq!(grpc.view(Toys::of(2, &[(LDS, "a", "2"), (LDS, "b", "2")])), NOTHING);
    assert_eq!(grpc.ask(LDS, "1", &["a"]), ["LDS r2#2 a=2"]);
    assert_eq!(grpc.ask(RDS, "", &[]), NOTHING, "routes have no wildcard");
}

#[test]
fn sotw_what_is_named_no_more_and_no_part_of_the_wildcard_goes_from_the_list() {
    let mut script = Script::<Sotw>::new(on_demand(&[(CDS, "a", "1"), (CDS, "on-demand", "1")]));
    assert_eq!(script.ask(CDS, "", &["*", "on-demand"]), ["CDS r1#1 a=1 on-demand=1"]);
    assert_eq!(script.ask(CDS, "1", &["*"]), ["CDS r1#2 a=1"]);
}

#[test]
fn sotw_an_empty_wildcard_is_answered_because_envoy_waits_for_it() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[]));
    assert_eq!(script.ask(CDS, "", &[]), ["CDS r1#1"]);
}

#[test]
fn sotw_a_stale_nonce_is_ignored() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(EDS, "a", "1"), (EDS, "b", "1")]));
    script.ask(EDS, "", &["a"]);
    script.ask(EDS, "1", &["a"]);
    assert_eq!(script.view(Toys::of(2, &[(EDS, "a", "2"), (EDS, "b", "1")])), ["EDS r2#2 a=2"]);
    // Crosses the response.
    assert_eq!(script.ask(EDS, "1", &["a", "b"]), NOTHING);
    assert_eq!(script.ask(EDS, "2", &["a", "b"]), ["EDS r2#3 b=1"]);
    // Given up and asked for again while a response is under way: the client no longer has it.
    script.ask(EDS, "3", &["a", "b"]);
    assert_eq!(script.view(Toys::of(3, &[(EDS, "a", "2"), (EDS, "b", "3")])), ["EDS r3#4 b=3"]);
    assert_eq!(script.ask(EDS, "3", &["b"]), NOTHING);
    assert_eq!(script.ask(EDS, "3", &["a", "b"]), NOTHING);
    assert_eq!(script.ask(EDS, "4", &["a", "b"]), ["EDS r3#5 a=2"]);
    // A nonce from an earlier stream, before anything was sent, is no reason to ignore a client forever.
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(EDS, "a", "1")]));
    assert_eq!(script.ask(EDS, "77", &["a"]), ["EDS r1#1 a=1"]);
}

#[test]
fn one_response_of_a_type_is_outstanding_and_the_latest_follows() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(EDS, "a", "1")]));
    script.ask(EDS, "", &["a"]);
    for revision in 2..50 {
        assert_eq!(script.view(Toys::of(revision, &[(EDS, "a", &revision.to_string())])), NOTHING);
    }
    assert_eq!(script.ask(EDS, "1", &["a"]), ["EDS r49#2 a=49"]);
}

#[test]
fn a_rejected_version_is_not_sent_again_until_it_changes() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(RDS, "a", "1")]));
    script.ask(RDS, "", &["a"]);
    assert_eq!(script.reject(RDS, "1", &["a"]), NOTHING);
    assert_eq!(script.pass(Duration::from_secs(60)), NOTHING);
    assert_eq!(script.view(Toys::of(2, &[(RDS, "a", "1")])), NOTHING);
    let status = &script.machine.stream().types(script.now)[0];
    let nack = status.last_nack.as_ref().unwrap();
    assert_eq!((&*nack.revision, &*nack.text), ("r1", "no"));
    assert_eq!(status.rejected, [Arc::from("a")]);
    assert_eq!(script.machine.stream().acked_revision(), None);
    assert_eq!(script.view(Toys::of(3, &[(RDS, "a", "2")])), ["RDS r3#2 a=2"]);
    script.ask(RDS, "2", &["a"]);
    assert_eq!(script.machine.stream().acked_revision().as_deref(), Some("r3"));
}

#[test]
fn what_does_not_exist_is_said_at_once_and_once() {
    let mut sotw = Script::<Sotw>::new(Toys::of(1, &[(LDS, "b", "1")]));
    assert_eq!(sotw.ask(EDS, "", &["a"]), ["EDS r1#1 -a"]);
    assert_eq!(sotw.ask(EDS, "1", &["a"]), NOTHING);
    assert_eq!(sotw.view(Toys::of(2, &[])), NOTHING, "said once");
    assert_eq!(sotw.view(Toys::of(3, &[(EDS, "a", "1")])), ["EDS r3#2 a=1"]);
    let mut sotw = Script::<Sotw>::new(Toys::of(1, &[]));
    assert_eq!(sotw.ask(LDS, "", &["a"]), ["LDS r1#1 -a"]);
    assert_eq!(sotw.ask(LDS, "1", &["a"]), NOTHING, "said once");
    let mut delta = Script::<Delta>::new(Toys::of(1, &[]));
    assert_eq!(delta.ask(RDS, "", &["a"], &[]), ["RDS r1#1 -a"]);
}

#[test]
fn removals_come_last_and_after_the_grace() {
    let grace = Settings::default().removal_grace;
    let mut envoy =
        Script::<Sotw>::new(Toys::of(1, &[(CDS, "old", "1"), (LDS, "l", "1"), (RDS, "r", "old")]));
    envoy.ask(CDS, "", &[]);
    envoy.ask(LDS, "", &[]);
    assert_eq!(envoy.ask(CDS, "1", &[]), ["LDS r1#2 l=1"]);
    envoy.ask(LDS, "2", &[]);
    assert_eq!(envoy.ask(RDS, "", &["r"]), ["RDS r1#3 r=old"]);
    envoy.ask(RDS, "3", &["r"]);
    // The new cluster first, with the old one still there; then the route.
    let next = Toys::of(2, &[(CDS, "new", "1"), (LDS, "l", "1"), (RDS, "r", "new")]);
    assert_eq!(envoy.view(next), ["CDS r2#4 new=1 old=1"]);
    assert_eq!(envoy.ask(CDS, "4", &[]), ["RDS r2#5 r=new"]);
    assert_eq!(envoy.ask(RDS, "5", &["r"]), NOTHING);
    assert_eq!(envoy.machine.stream().acked_revision().as_deref(), Some("r2"), "a grace delays no receipt");
    assert_eq!(envoy.machine.stream().deadline(), Some(envoy.now + grace));
    assert_eq!(envoy.pass(grace), ["CDS r2#6 new=1 -old"]);
    assert_eq!(envoy.machine.stream().deadline(), None);
}

#[test]
fn a_removal_waits_for_a_route_that_is_not_acknowledged_and_is_called_off_by_a_return() {
    let mut script = Script::<Delta>::new(Toys::of(1, &[(CDS, "c", "1"), (RDS, "r", "1")]));
    script.ask(CDS, "", &["c"], &[]);
    script.ask(CDS, "1", &[], &[]);
    script.ask(RDS, "", &["r"], &[]);
    script.ask(RDS, "2", &[], &[]);
    assert_eq!(script.view(Toys::of(2, &[(RDS, "r", "2")])), ["RDS r2#3 r=2"]);
    assert_eq!(script.view(Toys::of(3, &[(RDS, "r", "3")])), NOTHING);
    assert_eq!(
        script.pass(Duration::from_secs(60)),
        NOTHING,
        "the client is still at a route that may need it"
    );
    assert_eq!(script.machine.stream().deadline(), None, "only an answer helps");
    assert_eq!(script.ask(RDS, "3", &[], &[]), ["RDS r3#4 r=3"]);
    assert_eq!(script.ask(RDS, "4", &[], &[]), ["CDS r3#5 -c"]);
    script.ask(CDS, "5", &[], &[]);
    assert_eq!(script.view(Toys::of(4, &[(CDS, "c", "1"), (RDS, "r", "3")])), ["CDS r4#6 c=1"]);
    script.ask(CDS, "6", &[], &[]);
    assert_eq!(script.view(Toys::of(5, &[(RDS, "r", "3")])), NOTHING);
    assert_eq!(script.view(Toys::of(6, &[(CDS, "c", "1"), (RDS, "r", "3")])), NOTHING);
    assert_eq!(script.pass(Duration::from_secs(60)), NOTHING);
}

#[test]
fn a_client_that_never_answers_one_type_delays_the_others_only_a_little() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(CDS, "c", "1"), (RDS, "r", "1")]));
    script.ask(CDS, "", &["c"]);
    assert_eq!(script.ask(RDS, "", &["r"]), NOTHING);
    let wait = Settings::default().order_wait;
    assert_eq!(script.machine.stream().deadline(), Some(script.now + wait));
    assert_eq!(script.pass(wait), ["RDS r1#2 r=1"]);
    assert_eq!(script.machine.stream().deadline(), None);
}

#[test]
fn sotw_tells_of_removed_routes() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(RDS, "r", "1")]));
    script.ask(RDS, "", &["r"]);
    script.ask(RDS, "1", &["r"]);
    assert_eq!(script.view(Toys::of(2, &[])), NOTHING);
    assert_eq!(script.pass(Duration::from_secs(2)), ["RDS r2#2 -r"]);
    assert_eq!(script.machine.stream().deadline(), None);
}

/// A client goes on with the route that it had, and with the cluster that this one names.
#[test]
fn nothing_is_removed_that_a_client_may_use_because_it_rejected_what_came_after() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(CDS, "old", "1"), (RDS, "r", "old")]));
    script.ask(CDS, "", &["old"]);
    script.ask(CDS, "1", &["old"]);
    script.ask(RDS, "", &["r"]);
    script.ask(RDS, "2", &["r"]);
    assert_eq!(script.view(Toys::of(2, &[(RDS, "r", "bad")])), ["RDS r2#3 r=bad"]);
    assert_eq!(script.reject(RDS, "3", &["r"]), NOTHING);
    assert_eq!(script.pass(Duration::from_secs(3600)), NOTHING);
    assert_eq!(script.machine.stream().deadline(), None, "only another route helps");
    assert_eq!(script.view(Toys::of(3, &[(RDS, "r", "good")])), ["RDS r3#4 r=good"]);
    assert_eq!(script.ask(RDS, "4", &["r"]), ["CDS r3#5 -old"]);
    // A cluster that is rejected keeps no other.
    script.ask(CDS, "5", &["a", "b"]);
    script.ask(CDS, "6", &["a", "b"]);
    let both = |revision, a| Toys::of(revision, &[(CDS, "a", a), (CDS, "b", "1"), (RDS, "r", "good")]);
    assert_eq!(script.view(both(4, "1")), ["CDS r4#7 a=1 b=1"]);
    script.ask(CDS, "7", &["a", "b"]);
    assert_eq!(script.view(both(5, "bad")), ["CDS r5#8 a=bad b=1"]);
    assert_eq!(script.reject(CDS, "8", &["a", "b"]), NOTHING);
    assert_eq!(script.view(Toys::of(6, &[(CDS, "a", "bad"), (RDS, "r", "good")])), NOTHING);
    assert_eq!(script.pass(Duration::from_secs(2)), ["CDS r6#9 a=bad -b"]);
}

#[test]
fn names_are_asked_for_at_a_rate() {
    let settings = Settings { name_burst: 10, names_per_second: 2, ..Settings::default() };
    let many = names(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let start = Instant::now();
    let mut stream = Sotw::new(&node(), Toys::of(1, &[]), settings.clone());
    let mut ask = |seconds, names| {
        let at = start + Duration::from_secs(seconds);
        stream.on(at, Input::Request(sotw(EDS, "", names))).map(drop).map_err(|status| status.code())
    };
    assert_eq!(ask(0, &many), Ok(()));
    assert_eq!(ask(0, &many[..2]), Ok(()), "who asks for less is not paced by names");
    assert_eq!(ask(0, &many[..5]), Err(tonic::Code::ResourceExhausted));
    // So is who crosses responses, which makes him lose what he does not name.
    let mut stream = Sotw::new(&node(), Toys::of(1, &[]), settings.clone());
    let mut ask = |nonce, names| {
        stream.on(start, Input::Request(sotw(EDS, nonce, names))).map(drop).map_err(|status| status.code())
    };
    assert_eq!((ask("", &many), ask("0", &[])), (Ok(()), Err(tonic::Code::ResourceExhausted)));
    let mut stream = Delta::new(&node(), Toys::of(1, &[(EDS, "there", "1")]), settings.clone());
    let mut ask = |seconds, names| {
        let at = start + Duration::from_secs(seconds);
        stream.on(at, Input::Request(delta(EDS, "", names, &[]))).map(drop).map_err(|status| status.code())
    };
    assert_eq!(ask(0, &many), Ok(()));
    assert_eq!(ask(3, &many), Ok(()), "asking again counts: 2 were left, and 6 came");
    assert_eq!(ask(3, &["there"]), Ok(()), "what there is does not");
    assert_eq!(ask(3, &many[..1]), Err(tonic::Code::ResourceExhausted));
    // A wildcard that begins has everything looked for again.
    let mut stream = Delta::new(&node(), Toys::of(1, &[]), settings.clone());
    let mut ask = |begin: &[&str], end: &[&str]| {
        stream.on(start, Input::Request(delta(CDS, "", begin, end))).map(drop).map_err(|status| status.code())
    };
    assert_eq!((ask(&many, &[]), ask(&["*"], &["*"])), (Ok(()), Err(tonic::Code::ResourceExhausted)));
    let mut stream = Sotw::new(&node(), Toys::of(1, &[]), settings);
    let mut ask = |names| {
        stream.on(start, Input::Request(sotw(CDS, "", names))).map(drop).map_err(|status| status.code())
    };
    assert_eq!(ask(&many), Ok(()));
    let wild = [&["*"], &many[..]].concat();
    assert_eq!(ask(&wild), Err(tonic::Code::ResourceExhausted));
}

#[test]
fn endpoints_are_sent_again_when_envoy_asks_again() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(EDS, "a", "1")]));
    script.ask(EDS, "", &["a"]);
    assert_eq!(script.ask(EDS, "1", &["a"]), NOTHING, "the ACK");
    assert_eq!(script.ask(EDS, "1", &["a"]), ["EDS r1#2 a=1"], "a cluster is being warmed");
}

#[test]
fn a_client_that_asks_for_more_of_a_revision_is_not_there_before_it_has_that() {
    let mut script = Script::<Delta>::new(Toys::of(1, &[(RDS, "r", "to c"), (CDS, "c", "1")]));
    let acked = |script: &Script<Delta>| script.machine.stream().acked_revision();
    assert_eq!(script.ask(RDS, "", &["r"], &[]), ["RDS r1#1 r=to c"]);
    script.ask(RDS, "1", &[], &[]);
    assert_eq!(acked(&script).as_deref(), Some("r1"));
    assert_eq!(script.ask(CDS, "", &["c"], &[]), ["CDS r1#2 c=1"]);
    assert_eq!(acked(&script), None, "the routes are accepted, and not used yet");
    script.ask(CDS, "2", &[], &[]);
    assert_eq!(acked(&script).as_deref(), Some("r1"));
}

#[test]
fn delta_sends_differences() {
    let mut script = Script::<Delta>::new(Toys::of(1, &[(CDS, "a", "1"), (CDS, "b", "1"), (CDS, "c", "1")]));
    assert_eq!(script.ask(CDS, "", &["a", "b"], &[]), ["CDS r1#1 a=1 b=1"]);
    assert_eq!(script.ask(CDS, "1", &[], &[]), NOTHING);
    assert_eq!(script.ask(CDS, "", &["c"], &["a"]), ["CDS r1#2 c=1"]);
    script.ask(CDS, "2", &[], &[]);
    assert_eq!(
        script.view(Toys::of(2, &[(CDS, "a", "2"), (CDS, "b", "2"), (CDS, "c", "1")])),
        ["CDS r2#3 b=2"]
    );
    script.ask(CDS, "3", &[], &[]);
    assert_eq!(script.ask(CDS, "", &["b"], &[]), ["CDS r2#4 b=2"], "asking again means not having it");
}

#[test]
fn delta_sends_an_envoy_the_endpoints_of_a_cluster_that_it_warms_again() {
    let view = |revision, value| {
        Toys::of(revision, &[(CDS, "a", value), (CDS, "b", "1"), (EDS, "a", "1"), (EDS, "b", "1")])
    };
    let mut script = Script::<Delta>::new(view(1, "1"));
    let envoy = Node { user_agent: "envoy".into(), ..node() };
    let mut envoy =
        Script { machine: Delta::new(&envoy, view(1, "1"), Settings::default()), now: script.now };
    for script in [&mut script, &mut envoy] {
        script.ask(CDS, "", &["*"], &[]);
        assert_eq!(script.ask(EDS, "", &["a", "b"], &[]), ["EDS r1#2 a=1 b=1"], "before the clusters' ACK");
        assert_eq!(script.ask(CDS, "1", &[], &[]), NOTHING);
        assert_eq!(script.ask(EDS, "2", &[], &[]), NOTHING);
    }
    assert_eq!(script.view(view(2, "2")), ["CDS r2#3 a=2"], "others keep what they have");
    assert_eq!(envoy.view(view(2, "2")), ["CDS r2#3 a=2", "EDS r2#4 a=1"]);
    assert_eq!(envoy.ask(EDS, "4", &[], &[]), NOTHING);
    assert_eq!(envoy.ask(CDS, "3", &[], &[]), NOTHING);
}

#[test]
fn delta_subscriptions_count_whatever_the_nonce() {
    let mut script = Script::<Delta>::new(Toys::of(1, &[(CDS, "a", "1"), (CDS, "b", "1")]));
    script.ask(CDS, "", &["a"], &[]);
    assert_eq!(script.ask(CDS, "99", &["b"], &[]), NOTHING, "one is outstanding");
    assert_eq!(script.ask(CDS, "1", &[], &[]), ["CDS r1#2 b=1"]);
}

#[test]
fn delta_wildcards_begin_and_end() {
    let view = || Toys::of(1, &[(CDS, "a", "1"), (CDS, "b", "1")]);
    let mut script = Script::<Delta>::new(view());
    assert_eq!(script.ask(CDS, "", &[], &[]), ["CDS r1#1 a=1 b=1"], "implicit");
    script.ask(CDS, "1", &[], &[]);
    assert_eq!(script.view(Toys::of(2, &[(CDS, "a", "1"), (CDS, "c", "1")])), ["CDS r2#2 c=1"]);
    script.ask(CDS, "2", &[], &[]);
    assert_eq!(script.pass(Duration::from_secs(2)), ["CDS r2#3 -b"]);
    script.ask(CDS, "3", &[], &[]);
    assert_eq!(script.ask(CDS, "", &["a"], &["*"]), ["CDS r2#4 a=1"]);
    script.ask(CDS, "4", &[], &[]);
    assert_eq!(script.view(Toys::of(3, &[(CDS, "a", "1"), (CDS, "c", "2")])), NOTHING);
    assert_eq!(script.ask(CDS, "", &["*"], &[]), ["CDS r3#5 c=2"]);
    script.ask(CDS, "5", &[], &[]);
    assert_eq!(script.ask(CDS, "", &[], &["a"]), ["CDS r3#6 a=1"], "dropped, but the wildcard covers it");
}

/// A view where names that no wildcard lists can be asked for.
struct OnDemand(Toys);

impl View for OnDemand {
    fn revision(&self) -> Arc<str> {
        self.0.revision()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.0.resource(kind, name)
    }

    fn names(&self, kind: ResourceType) -> Vec<crate::name::Name> {
        self.0.names(kind).into_iter().filter(|name| !name.starts_with("on-demand")).collect()
    }
}

fn on_demand(resources: &[(ResourceType, &str, &str)]) -> Arc<dyn View> {
    let of = |(kind, name, value): &(ResourceType, &str, &str)| ((*kind, (*name).into()), (*value).into());
    Arc::new(OnDemand(Toys { revision: 1, resources: resources.iter().map(of).collect() }))
}

#[test]
fn delta_what_is_named_no_more_is_sent_or_denied_under_a_wildcard() {
    let view = on_demand(&[(CDS, "a", "1"), (CDS, "on-demand", "1")]);
    let mut script = Script::<Delta>::new(view);
    assert_eq!(script.ask(CDS, "", &["*", "on-demand", "gone"], &[]), ["CDS r1#1 a=1 on-demand=1 -gone"]);
    script.ask(CDS, "1", &[], &[]);
    let unnamed = ["a", "on-demand", "gone", "never"];
    assert_eq!(
        script.ask(CDS, "", &[], &unnamed),
        ["CDS r1#2 a=1 -gone -never -on-demand"],
        "the client waits for each, and only the server knows"
    );
    script.ask(CDS, "2", &[], &[]);
    let next = on_demand(&[(CDS, "a", "1"), (CDS, "on-demand", "2"), (CDS, "gone", "1")]);
    assert_eq!(script.view(next), ["CDS r1#3 gone=1"], "the wildcard covers it now");
}

/// Found by the model of wildcards.
#[test]
fn sotw_names_in_a_request_that_crosses_a_response_end_the_legacy_wildcard_all_the_same() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(LDS, "a", "1")]));
    assert_eq!(script.ask(LDS, "", &[]), ["LDS r1#1 a=1"]);
    script.ask(LDS, "1", &[]);
    assert_eq!(script.view(Toys::of(2, &[(LDS, "a", "2")])), ["LDS r2#2 a=2"]);
    assert_eq!(script.ask(LDS, "1", &["a"]), NOTHING);
    assert_eq!(script.ask(LDS, "2", &[]), NOTHING);
    assert_eq!(script.view(Toys::of(3, &[(LDS, "a", "3")])), NOTHING, "it has unsubscribed from everything");
}

/// Found by the model of wildcards.
#[test]
fn delta_what_is_under_way_when_a_wildcard_begins_is_denied_unless_it_is_a_part_of_it() {
    let mut script = Script::<Delta>::new(on_demand(&[(CDS, "a", "1"), (CDS, "on-demand", "1")]));
    assert_eq!(script.ask(CDS, "", &["a", "on-demand"], &[]), ["CDS r1#1 a=1 on-demand=1"]);
    script.ask(CDS, "", &[], &["a", "on-demand"]);
    script.ask(CDS, "", &["*"], &[]);
    assert_eq!(script.ask(CDS, "1", &[], &[]), ["CDS r1#2 a=1 -on-demand"]);
}

/// Found by the model of wildcards.
#[test]
fn delta_what_is_named_no_more_and_goes_before_it_is_sent_again_is_told() {
    let mut script = Script::<Delta>::new(Toys::of(1, &[(CDS, "a", "1"), (CDS, "b", "1")]));
    script.ask(CDS, "", &["*"], &[]);
    assert_eq!(script.ask(CDS, "", &[], &["b"]), NOTHING, "one is outstanding");
    assert_eq!(script.view(Toys::of(2, &[(CDS, "a", "1")])), NOTHING);
    assert_eq!(script.ask(CDS, "1", &[], &[]), NOTHING);
    assert_eq!(script.pass(Duration::from_secs(2)), ["CDS r2#2 -b"]);
}

#[test]
fn delta_what_goes_and_is_named_no_more_within_its_grace_is_denied_at_once() {
    let mut script = Script::<Delta>::new(Toys::of(1, &[(CDS, "a", "1"), (CDS, "b", "1")]));
    script.ask(CDS, "", &["*", "b"], &[]);
    script.ask(CDS, "1", &[], &[]);
    assert_eq!(script.view(Toys::of(2, &[(CDS, "a", "1")])), NOTHING);
    assert_eq!(script.ask(CDS, "", &[], &["b"]), ["CDS r2#2 -b"]);
    script.ask(CDS, "2", &[], &[]);
    assert_eq!(script.pass(Duration::from_secs(60)), NOTHING, "said once");
}

#[test]
fn delta_a_wildcard_that_begins_later_is_answered_even_if_there_is_nothing() {
    let mut script = Script::<Delta>::new(Toys::of(1, &[]));
    assert_eq!(script.ask(CDS, "", &["a"], &[]), ["CDS r1#1 -a"]);
    script.ask(CDS, "1", &[], &[]);
    assert_eq!(script.ask(CDS, "", &["*"], &[]), ["CDS r1#2"]);
}

#[test]
fn delta_one_request_may_end_and_begin_subscriptions() {
    let mut script = Script::<Delta>::new(Toys::of(1, &[(CDS, "a", "1"), (CDS, "b", "1")]));
    script.ask(CDS, "", &["a"], &[]);
    script.ask(CDS, "1", &[], &[]);
    assert_eq!(script.ask(CDS, "", &["a", "b"], &["a"]), ["CDS r1#2 b=1"], "what ends it comes last");
    script.ask(CDS, "2", &[], &[]);
    assert_eq!(script.view(Toys::of(2, &[(CDS, "a", "2"), (CDS, "b", "1")])), NOTHING);
    assert_eq!(script.ask(CDS, "", &["*"], &["*"]), ["CDS r2#3"], "nothing of what is there");
    script.ask(CDS, "3", &[], &[]);
    assert_eq!(script.ask(CDS, "", &["a"], &[]), ["CDS r2#4 a=2"]);
}

#[test]
fn delta_what_went_and_came_back_is_sent_unless_nobody_heard() {
    let both = |revision, a: &str| Toys::of(revision, &[(CDS, "a", a), (CDS, "b", "1")]);
    let mut script = Script::<Delta>::new(both(1, "1"));
    script.ask(CDS, "", &["a", "b"], &[]);
    script.ask(CDS, "1", &[], &[]);
    let without = |revision| Toys::of(revision, &[(CDS, "b", "1")]);
    assert_eq!(script.view(without(2)), NOTHING);
    assert_eq!(script.view(both(3, "1")), NOTHING, "it was never told that it went");
    assert_eq!(script.view(without(4)), NOTHING);
    assert_eq!(script.pass(Duration::from_secs(2)), ["CDS r4#2 -a"]);
    // Before the answer: the version that it had is what it lacks.
    assert_eq!(script.view(both(5, "1")), NOTHING);
    assert_eq!(script.ask(CDS, "2", &[], &[]), ["CDS r5#3 a=1"]);
}

#[test]
fn delta_a_client_comes_back_to_a_wildcard_with_what_it_has() {
    let mut script =
        Script::<Delta>::new(Toys::of(5, &[(CDS, "same", "1"), (CDS, "new", "1"), (CDS, "old", "2")]));
    let versions = [("same", "h:1"), ("old", "h:1"), ("gone", "h:1")];
    let request = proto::DeltaDiscoveryRequest {
        initial_resource_versions: versions.map(|(name, version)| (name.into(), version.into())).into(),
        ..delta(CDS, "", &[], &[])
    };
    assert_eq!(script.on(Input::Request(request)), ["CDS r5#1 new=1 old=2"]);
    script.ask(CDS, "1", &[], &[]);
    assert_eq!(script.pass(Duration::from_secs(2)), ["CDS r5#2 -gone"]);
}

#[test]
fn what_is_dropped_together_with_the_wildcard_is_not_sent() {
    let mut script = Script::<Delta>::new(Toys::of(1, &[(CDS, "a", "1")]));
    script.ask(CDS, "", &["*"], &[]);
    assert_eq!(script.ask(CDS, "1", &[], &["a", "*"]), NOTHING);
}

#[test]
fn delta_comes_back_to_the_difference_with_what_the_client_has() {
    let mut script = Script::<Delta>::new(Toys::of(5, &[(CDS, "same", "1"), (CDS, "new", "2")]));
    let request = proto::DeltaDiscoveryRequest {
        initial_resource_versions: [("same", "h:1"), ("new", "h:1"), ("gone", "h:1"), ("foreign", "h:1")]
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .into(),
        ..delta(CDS, "", &["same", "new", "gone", "missing"], &[])
    };
    assert_eq!(script.on(Input::Request(request)), ["CDS r5#1 new=2 -missing"]);
    script.ask(CDS, "1", &[], &[]);
    assert_eq!(script.pass(Duration::from_secs(2)), ["CDS r5#2 -gone"], "after the grace, as ever");
}

#[test]
fn delta_confirms_a_client_that_lacks_nothing() {
    let mut script = Script::<Delta>::new(Toys::of(5, &[(CDS, "same", "1")]));
    let request = proto::DeltaDiscoveryRequest {
        initial_resource_versions: [("same".to_owned(), "h:1".to_owned())].into(),
        ..delta(CDS, "", &["same"], &[])
    };
    assert_eq!(script.on(Input::Request(request)), ["CDS r5#1"]);
    let outputs = script.machine.on(script.now, Input::Request(delta(CDS, "1", &[], &[]))).unwrap();
    assert_eq!(outputs.acked.as_deref(), Some("r5"));
}

#[test]
fn a_revision_is_reached_when_every_type_has_it() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[(CDS, "c", "1"), (EDS, "e", "1")]));
    let acked = |script: &mut Script<Sotw>, input| script.machine.on(script.now, input).unwrap().acked;
    assert_eq!(acked(&mut script, Input::Request(sotw(CDS, "", &["c"]))), None);
    assert_eq!(acked(&mut script, Input::Request(sotw(EDS, "", &["e"]))), None);
    assert_eq!(acked(&mut script, Input::Request(sotw(CDS, "1", &["c"]))), None);
    assert_eq!(acked(&mut script, Input::Request(sotw(EDS, "2", &["e"]))).as_deref(), Some("r1"));
    let unrelated = Toys::of(2, &[(CDS, "c", "1"), (EDS, "e", "1"), (EDS, "x", "1")]);
    assert_eq!(acked(&mut script, Input::View(unrelated)).as_deref(), Some("r2"), "nothing had to be sent");
    assert_eq!(acked(&mut script, Input::View(Toys::of(3, &[(CDS, "c", "1"), (EDS, "e", "2")]))), None);
    assert_eq!(acked(&mut script, Input::Request(sotw(EDS, "3", &["e"]))).as_deref(), Some("r3"));
}

#[test]
fn a_receipt_knows_which_resources_a_rejection_names() {
    let view = |revision, a, b| Toys::of(revision, &[(RDS, "a", a), (RDS, "b", b)]);
    let mut script = Script::<Sotw>::new(view(1, "1", "1"));
    let refused = |script: &Script<Sotw>| {
        let names = script.machine.stream().types(script.now).remove(0).rejected;
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let reject = |script: &mut Script<Sotw>, nonce: &str, message: &str| {
        let error_detail = Some(proto::Status { code: 3, message: message.into() });
        script.on(Input::Request(proto::DiscoveryRequest { error_detail, ..sotw(RDS, nonce, &["a", "b"]) }))
    };
    script.ask(RDS, "", &["a", "b"]);
    reject(&mut script, "1", "RouteConfiguration a: no");
    assert_eq!(refused(&script), ["a"]);
    // In one response: the bad one is mended, the good one breaks.
    script.view(view(2, "2", "2"));
    reject(&mut script, "2", "RouteConfiguration b: no");
    assert_eq!(refused(&script), ["b"]);
    script.view(view(3, "3", "3"));
    reject(&mut script, "3", "something is wrong somewhere");
    assert_eq!(refused(&script), ["a", "b"], "when in doubt, all of them");
    assert_eq!(script.machine.stream().acked_revision(), None);
    script.view(view(4, "4", "4"));
    script.ask(RDS, "4", &["a", "b"]);
    assert_eq!(script.machine.stream().acked_revision().as_deref(), Some("r4"));
    // What is given up does not stand in the way.
    script.view(view(5, "4", "5"));
    reject(&mut script, "5", "b");
    assert_eq!(script.machine.stream().acked_revision().as_deref(), Some("r4"));
    script.ask(RDS, "5", &["a"]);
    assert_eq!(script.machine.stream().acked_revision().as_deref(), Some("r5"));
}

#[test]
fn too_much_is_refused() {
    let settings = Settings { max_subscriptions: 3, max_name_length: 5, ..Settings::default() };
    let mut stream = Sotw::new(&node(), Toys::of(1, &[]), settings.clone());
    let mut on =
        |request| stream.on(Instant::now(), Input::Request(request)).map(|_| ()).map_err(|s| s.code());
    assert_eq!(on(sotw(CDS, "", &["a", "b"])), Ok(()));
    assert_eq!(on(sotw(CDS, "", &["a", "b", "c"])), Ok(()), "replaced, not added");
    assert_eq!(on(sotw(CDS, "", &["a", "b", "c", "a", "a", "b"])), Ok(()), "repeated");
    assert_eq!(on(sotw(EDS, "", &["d"])), Err(tonic::Code::ResourceExhausted));
    assert_eq!(on(sotw(CDS, "", &["abcdef"])), Err(tonic::Code::InvalidArgument));
    let mut stream = Delta::new(&node(), Toys::of(1, &[]), settings);
    let mut on =
        |request| stream.on(Instant::now(), Input::Request(request)).map(|_| ()).map_err(|s| s.code());
    assert_eq!(on(delta(CDS, "", &["a", "b", "c"], &[])), Ok(()));
    assert_eq!(on(delta(CDS, "", &["a", "b", "c"], &[])), Ok(()), "known ones are not counted twice");
    assert_eq!(on(delta(CDS, "", &[], &["c"])), Ok(()));
    assert_eq!(on(delta(CDS, "", &["c", "c", "c"], &[])), Ok(()), "nor repeated ones");
    assert_eq!(on(delta(CDS, "", &["d"], &[])), Err(tonic::Code::ResourceExhausted));
    assert_eq!(on(delta(CDS, "", &[], &["abcdef"])), Err(tonic::Code::InvalidArgument));
    // Answers that nobody takes do not pile up.
    assert_eq!(on(delta(EDS, "", &["*"], &["a", "b", "c"])), Ok(()), "a wildcard is no name");
    assert_eq!(on(delta(EDS, "", &[], &["d", "e", "f"])), Ok(()));
    assert_eq!(on(delta(EDS, "", &[], &["g", "h", "i"])), Ok(()));
    assert_eq!(on(delta(EDS, "", &[], &["j", "k", "l"])), Err(tonic::Code::ResourceExhausted));
}

#[test]
fn a_client_comes_back_to_a_wildcard_that_is_larger_than_the_limit_of_names() {
    let names: Vec<String> = (0..10).map(|i| format!("n{i}")).collect();
    let resources: Vec<_> = names.iter().map(|name| (CDS, name.as_str(), "1")).collect();
    let settings = Settings { max_subscriptions: 3, ..Settings::default() };
    let come_back = |view: Arc<dyn View>| {
        let mut stream = Delta::new(&node(), view, settings.clone());
        let versions = names.iter().map(|name| (name.clone(), "h:1".to_owned())).collect();
        let request =
            proto::DeltaDiscoveryRequest { initial_resource_versions: versions, ..delta(CDS, "", &[], &[]) };
        let now = Instant::now();
        let first = stream.on(now, Input::Request(request)).unwrap().responses.remove(0);
        stream.on(now, Input::Request(delta(CDS, &first.nonce, &[], &[]))).unwrap();
        let removed = stream.on(now + Duration::from_secs(2), Input::Tick).unwrap().responses;
        (first.resources.len(), removed.iter().map(|one| one.removed_resources.len()).sum::<usize>())
    };
    assert_eq!(come_back(Toys::of(1, &resources)), (0, 0), "it lacks nothing");
    // It is told what is gone, as much as the limit at a time: it does not bring that the next time.
    assert_eq!(come_back(Toys::of(1, &resources[..8])), (0, 2));
    assert_eq!(come_back(Toys::of(1, &[])), (0, 3));
}

#[test]
fn a_receipt_tells_each_resource() {
    let view = |revision, a: &str, b: &str| Toys::of(revision, &[(CDS, "a", a), (CDS, "b", b)]);
    let told = |stream: &Stream| -> Vec<String> {
        let all = stream.types_in_full(Instant::now()).remove(0).resources;
        let row = |one: &HeldStatus| {
            format!("{} {:?} {}", one.name, one.state, one.version.as_deref().unwrap_or("-"))
        };
        all.iter().map(row).collect()
    };
    let mut script = Script::<Sotw>::new(view(1, "1", "1"));
    script.ask(CDS, "", &["a", "b", "none"]);
    assert_eq!(told(script.machine.stream()), ["a Requested -", "b Requested -", "none DoesNotExist -"]);
    script.ask(CDS, "1", &["a", "b", "none"]);
    assert_eq!(told(script.machine.stream()), ["a Acked h:1", "b Acked h:1", "none DoesNotExist -"]);
    script.view(view(2, "1", "2"));
    assert_eq!(
        told(script.machine.stream())[..2],
        ["a Acked h:1", "b Requested -"],
        "one is new in a list of all"
    );
    let error_detail = Some(proto::Status { code: 3, message: "Cluster b: bad".into() });
    let nack = proto::DiscoveryRequest { error_detail, ..sotw(CDS, "2", &["a", "b", "none"]) };
    script.on(Input::Request(nack));
    assert_eq!(told(script.machine.stream())[..2], ["a Acked h:1", "b Nacked -"]);
    assert!(script.machine.stream().types(script.now)[0].resources.is_empty(), "only if it is asked for");
}

#[test]
fn types_of_others_are_left_unanswered() {
    let mut script = Script::<Sotw>::new(Toys::of(1, &[]));
    let runtime = proto::DiscoveryRequest {
        type_url: "type.googleapis.com/envoy.service.runtime.v3.Runtime".into(),
        ..Default::default()
    };
    assert_eq!(script.on(Input::Request(runtime)), NOTHING);
}

#[test]
fn what_two_streams_are_sent_is_encoded_once() {
    let encoded = Arc::new(Encoded { name: "a".into(), version: "1".into(), body: vec![7; 100].into() });
    struct One(Arc<Encoded>);
    impl View for One {
        fn revision(&self) -> Arc<str> {
            "r".into()
        }
        fn resource(&self, _: ResourceType, name: &str) -> Option<Arc<Encoded>> {
            (name == "a").then(|| self.0.clone())
        }
        fn names(&self, _: ResourceType) -> Vec<crate::name::Name> {
            vec!["a".into()]
        }
    }
    let one: Arc<dyn View> = Arc::new(One(encoded.clone()));
    let now = Instant::now();
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let mut machine = Delta::new(&node(), one.clone(), Settings::default());
        let outputs = machine.on(now, Input::Request(delta(EDS, "", &["a"], &[]))).unwrap();
        bodies.push(outputs.responses[0].resources[0].resource.clone().unwrap().value);
        let mut machine = Sotw::new(&node(), one.clone(), Settings::default());
        let outputs = machine.on(now, Input::Request(sotw(LDS, "", &[]))).unwrap();
        bodies.push(outputs.responses[0].resources[0].value.clone());
    }
    assert!(bodies.iter().all(|body| body.as_ptr() == encoded.body.as_ptr()), "no copy");
}

#[test]
fn requests_beyond_the_rate_end_the_stream_and_answers_are_free() {
    let settings = Settings { request_burst: 3, requests_per_second: 1, ..Settings::default() };
    let too_fast = |outcome: Result<(), Status>, limited: bool| match outcome {
        Ok(()) => assert!(!limited),
        Err(status) => {
            assert!(limited, "{status}");
            assert_eq!(status.code(), tonic::Code::ResourceExhausted);
            assert!(status.message().contains("the limit of 1 a second after the first 3"), "{status}");
        }
    };
    let now = Instant::now();
    let mut stream = Delta::new(&node(), Toys::of(1, &[(EDS, "a", "1")]), settings.clone());
    let mut on = |input| stream.on(now, input).map(|_| ());
    too_fast(on(Input::Request(delta(EDS, "", &["a"], &[]))), false);
    for revision in 2..20 {
        // As many answers as there are responses.
        too_fast(on(Input::Request(delta(EDS, &(revision - 1).to_string(), &[], &[]))), false);
        too_fast(on(Input::View(Toys::of(revision, &[(EDS, "a", &revision.to_string())]))), false);
    }
    for i in 0..3 {
        let request = if i % 2 == 0 { delta(EDS, "", &["b"], &[]) } else { delta(EDS, "", &[], &["b"]) };
        too_fast(on(Input::Request(request)), i == 2);
    }
    for url in ["", "type.googleapis.com/some.other.Type", EDS.url()] {
        let mut stream = Sotw::new(&node(), Toys::of(1, &[(EDS, "a", "1")]), settings.clone());
        let mut on = |nonce: &str| {
            let request = proto::DiscoveryRequest { type_url: url.into(), ..sotw(EDS, nonce, &["a"]) };
            stream.on(now, Input::Request(request)).map(|_| ())
        };
        too_fast(on(""), false);
        // Old nonces, answers to nothing, types of others: all of them count.
        too_fast(on("7"), false);
        too_fast(on("7"), false);
        too_fast(on("7"), true);
    }
}
