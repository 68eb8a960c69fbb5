//! More of the server's rules, one script each: those that a change of one line once broke without a test that failed.

use super::{testing::Toys, tests::Brief, *};
use crate::{
    name::{
        Name,
        ResourceType::{self, Cluster as CDS, ClusterLoadAssignment as EDS, RouteConfiguration as RDS},
    },
    proto,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const NOTHING: [&str; 0] = [];

/// An incremental stream with a clock.
struct Client {
    machine: Delta,
    now: Instant,
}

impl Client {
    fn new(view: Arc<dyn View>) -> Self {
        let node = Node { id: "me".into(), ..Node::default() };
        Self { machine: Delta::new(&node, view, Settings::default()), now: Instant::now() }
    }

    fn on(&mut self, input: Input<proto::DeltaDiscoveryRequest>) -> Vec<String> {
        let outputs = self.machine.on(self.now, input).unwrap();
        outputs.responses.iter().map(Brief::brief).collect()
    }

    fn ask(&mut self, kind: ResourceType, subscribe: &[&str], unsubscribe: &[&str]) -> Vec<String> {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        self.on(Input::Request(proto::DeltaDiscoveryRequest {
            type_url: kind.url().into(),
            resource_names_subscribe: names(subscribe),
            resource_names_unsubscribe: names(unsubscribe),
            ..Default::default()
        }))
    }

    fn answer(&mut self, kind: ResourceType, nonce: &str, error: Option<&str>) -> Vec<String> {
        self.on(Input::Request(proto::DeltaDiscoveryRequest {
            type_url: kind.url().into(),
            response_nonce: nonce.into(),
            error_detail: error.map(|error| proto::Status { code: 3, message: error.into() }),
            ..Default::default()
        }))
    }

    fn view(&mut self, view: Arc<dyn View>) -> Vec<String> {
        self.on(Input::View(view))
    }

    fn pass(&mut self, millis: u64) -> Vec<String> {
        self.now += Duration::from_millis(millis);
        self.on(Input::Tick)
    }

    fn acked(&self) -> Option<Arc<str>> {
        self.machine.stream().acked_revision()
    }
}

#[test]
fn each_removal_has_its_own_grace() {
    let all = [(CDS, "a", "1"), (CDS, "b", "1"), (CDS, "c", "1")];
    let mut client = Client::new(Toys::of(1, &all));
    assert_eq!(client.ask(CDS, &["a", "b", "c"], &[]), ["CDS r1#1 a=1 b=1 c=1"]);
    client.answer(CDS, "1", None);
    assert_eq!(client.view(Toys::of(2, &all[1..])), NOTHING);
    client.pass(1_000);
    assert_eq!(client.view(Toys::of(3, &all[2..])), NOTHING);
    assert_eq!(client.pass(999), NOTHING);
    assert_eq!(client.pass(1), ["CDS r3#2 -a"], "the first does not wait for the second");
    client.answer(CDS, "2", None);
    assert_eq!(client.pass(999), NOTHING);
    assert_eq!(client.pass(1), ["CDS r3#3 -b"]);
}

/// A view that says nothing of what changed.
struct Silent(Arc<dyn View>);

impl View for Silent {
    fn revision(&self) -> Arc<str> {
        self.0.revision()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.0.resource(kind, name)
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.0.names(kind)
    }
}

#[test]
fn a_removal_is_told_once() {
    let mut client = Client::new(Toys::of(1, &[(CDS, "a", "1"), (CDS, "b", "1")]));
    client.ask(CDS, &["a", "b"], &[]);
    client.answer(CDS, "1", None);
    client.view(Toys::of(2, &[(CDS, "b", "1")]));
    assert_eq!(client.pass(2_000), ["CDS r2#2 -a"]);
    client.answer(CDS, "2", None);
    assert_eq!(client.view(Arc::new(Silent(Toys::of(3, &[(CDS, "b", "1")])))), NOTHING, "compared with all");
    assert_eq!(client.acked().as_deref(), Some("r3"));
}

#[test]
fn only_types_with_a_wildcard_have_one_in_an_empty_first_request() {
    let mut client = Client::new(Toys::of(1, &[(CDS, "a", "1"), (EDS, "a", "1")]));
    assert_eq!(client.ask(EDS, &[], &[]), ["EDS r1#1"], "an answer to nothing");
    client.answer(EDS, "1", None);
    assert_eq!(client.ask(CDS, &[], &[]), ["CDS r1#2 a=1"]);
}

#[test]
fn a_later_rejection_at_the_same_revision_takes_the_receipt_back_for_good() {
    let view = |revision| Toys::of(revision, &[(CDS, "a", "1"), (CDS, "b", "1"), (RDS, "r", "1")]);
    let mut client = Client::new(view(1));
    client.ask(CDS, &["a"], &[]);
    client.answer(CDS, "1", None);
    assert_eq!(client.acked().as_deref(), Some("r1"));
    assert_eq!(client.ask(CDS, &["b"], &[]), ["CDS r1#2 b=1"]);
    client.answer(CDS, "2", Some("Cluster b: bad"));
    assert_eq!(client.acked(), None);
    client.view(view(2));
    assert_eq!(client.acked(), None, "not even the revision before, at which it rejected the same");
}

#[test]
fn delta_what_is_given_up_and_comes_and_goes_before_an_answer_is_told_of() {
    let view = |revision, x: &[_]| Toys::of(revision, &[&[(CDS, "a", "1")], x].concat());
    let mut client = Client::new(view(1, &[]));
    assert_eq!(client.ask(CDS, &["*", "x"], &[]), ["CDS r1#1 a=1 -x"]);
    assert_eq!(client.ask(CDS, &[], &["x"]), NOTHING, "it waits to hear whether the wildcard covers it");
    assert_eq!(client.view(view(2, &[(CDS, "x", "1")])), NOTHING);
    assert_eq!(client.view(view(3, &[])), NOTHING);
    assert_eq!(client.answer(CDS, "1", None), NOTHING);
    assert_eq!(client.pass(2_000), ["CDS r3#2 -x"]);
}

#[test]
fn what_came_and_went_before_it_was_sent_holds_nothing_back() {
    let view = |revision, more: &[_]| Toys::of(revision, &[&[(CDS, "a", "1")], more].concat());
    let mut client = Client::new(view(1, &[(RDS, "r", "1")]));
    client.ask(RDS, &["r"], &[]);
    client.answer(RDS, "1", None);
    // It never answers this.
    assert_eq!(client.ask(CDS, &["*"], &[]), ["CDS r1#2 a=1"]);
    assert_eq!(client.view(view(2, &[(RDS, "r", "1"), (CDS, "b", "1")])), NOTHING);
    assert_eq!(client.view(view(3, &[])), NOTHING);
    assert_eq!(client.pass(2_000), ["RDS r3#3 -r"]);
}

/// A deletion need not be heard, and need not be heeded (gRFC A88).
#[test]
fn what_was_deleted_and_came_back_bad_is_not_the_first_of_its_name() {
    let mut client = Client::new(Toys::of(1, &[(CDS, "c", "1"), (RDS, "r", "1")]));
    client.ask(CDS, &["c"], &[]);
    client.answer(CDS, "1", None);
    client.ask(RDS, &["r"], &[]);
    client.answer(RDS, "2", None);
    client.view(Toys::of(2, &[(CDS, "c", "1")]));
    assert_eq!(client.pass(2_000), ["RDS r2#3 -r"]);
    client.answer(RDS, "3", None);
    assert_eq!(client.view(Toys::of(3, &[(RDS, "r", "bad")])), ["RDS r3#4 r=bad"]);
    assert_eq!(client.answer(RDS, "4", Some("RouteConfiguration r: bad")), NOTHING);
    assert_eq!(client.pass(3_600_000), NOTHING, "the cluster may be in use");
}

/// A view that has more than it lists.
struct Unlisted {
    all: Arc<dyn View>,
    hidden: &'static str,
    touched: &'static str,
}

impl View for Unlisted {
    fn revision(&self) -> Arc<str> {
        self.all.revision()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.all.resource(kind, name)
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.all.names(kind).into_iter().filter(|name| &**name != self.hidden).collect()
    }

    fn changes_since(&self, _: &dyn View) -> Changes {
        Changes::Only(vec![Touched::Resource(CDS, self.touched.into())])
    }
}

#[test]
fn what_comes_back_for_those_who_name_it_is_gone_from_a_wildcard() {
    let view = |revision, names: &[_], hidden| {
        Arc::new(Unlisted { all: Toys::of(revision, names), hidden, touched: "b" }) as Arc<dyn View>
    };
    let both = [(CDS, "a", "1"), (CDS, "b", "1")];
    let mut client = Client::new(view(1, &both, ""));
    assert_eq!(client.ask(CDS, &["*"], &[]), ["CDS r1#1 a=1 b=1"]);
    client.answer(CDS, "1", None);
    assert_eq!(client.view(view(2, &both[..1], "")), NOTHING);
    assert_eq!(client.view(view(3, &both, "b")), NOTHING);
    assert_eq!(client.pass(2_000), ["CDS r3#2 -b"]);
}
