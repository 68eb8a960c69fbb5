//! Reasons, as they come, change and end.

use super::super::{
    Delta, Encoded, Input, Protocol, Settings, Sotw, View,
    testing::{Toys, node},
};
use super::*;
use crate::client::ResourceState;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::Code;

/// Toys, and why there is no `x`.
struct Reasoned {
    toys: Arc<dyn View>,
    reason: Option<Absence>,
}

fn view(revision: u64, toys: &[(ResourceType, &str, &str)], reason: Option<(Code, &str)>) -> Arc<dyn View> {
    let reason = reason.map(|(code, message)| Absence { code, message: message.into() });
    Arc::new(Reasoned { toys: Toys::of(revision, toys), reason })
}

impl View for Reasoned {
    fn revision(&self) -> Arc<str> {
        self.toys.revision()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.toys.resource(kind, name)
    }

    fn absence(&self, _: ResourceType, name: &str) -> Option<Absence> {
        self.reason.clone().filter(|_| name == "x")
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.toys.names(kind)
    }
}

const CDS: ResourceType = ResourceType::Cluster;

/// What a response says of names: `-x` it is gone, `x: 3 why` the reason, which comes with that.
fn said(removed: &[String], errors: &[proto::ResourceError]) -> Vec<String> {
    let named = |error: &proto::ResourceError| error.resource_name.as_ref().unwrap().name.clone();
    let reasoned: Vec<_> = errors.iter().map(named).collect();
    assert!(
        removed.is_empty() || reasoned.iter().all(|name| removed.contains(name)),
        "who knows no reasons hears too"
    );
    let gone = removed.iter().filter(|name| !reasoned.contains(name)).map(|name| format!("-{name}"));
    let errors = errors.iter().map(|error| {
        let proto::Status { code, message } = error.error_detail.as_ref().unwrap();
        format!("{}: {code} {message}", error.resource_name.as_ref().unwrap().name)
    });
    gone.chain(errors).collect()
}

struct DeltaClient(Delta, Instant);

impl DeltaClient {
    fn new(view: Arc<dyn View>) -> Self {
        Self(Delta::new(&node(), view, Settings::default()), Instant::now())
    }

    /// Takes what comes, and answers it.
    fn on(&mut self, input: Input<proto::DeltaDiscoveryRequest>) -> Vec<String> {
        let mut all = Vec::new();
        let mut responses = self.0.on(self.1, input).unwrap().responses;
        while let Some(response) = responses.pop() {
            all.extend(response.resources.iter().map(|resource| format!("+{}", resource.name)));
            all.extend(said(&response.removed_resources, &response.resource_errors));
            let ack = proto::DeltaDiscoveryRequest {
                type_url: response.type_url,
                response_nonce: response.nonce,
                ..Default::default()
            };
            responses.extend(self.0.on(self.1, Input::Request(ack)).unwrap().responses);
        }
        all
    }

    fn ask(&mut self, names: &[&str]) -> Vec<String> {
        self.on(Input::Request(proto::DeltaDiscoveryRequest {
            type_url: CDS.url().into(),
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }))
    }
}

#[test]
fn a_reason_is_told_once_and_again_when_it_changes() {
    let mut client = DeltaClient::new(view(1, &[], Some((Code::InvalidArgument, "a.yaml:1"))));
    assert_eq!(client.ask(&["x"]), ["x: 3 a.yaml:1"]);
    let held = |client: &DeltaClient| {
        let types = client.0.stream().types_in_full(client.1);
        types[0].resources.iter().map(|one| one.state).collect::<Vec<_>>()
    };
    assert_eq!(held(&client), [ResourceState::ReceivedError]);
    let same = view(2, &[], Some((Code::InvalidArgument, "a.yaml:1")));
    assert_eq!(client.on(Input::View(same)), [""; 0]);
    let other = view(3, &[], Some((Code::InvalidArgument, "a.yaml:2")));
    assert_eq!(client.on(Input::View(other)), ["x: 3 a.yaml:2"]);
    assert_eq!(client.on(Input::View(view(4, &[], None))), ["-x"]);
    assert_eq!(held(&client), [ResourceState::DoesNotExist]);
    assert_eq!(client.on(Input::View(view(5, &[(CDS, "x", "1")], None))), ["+x"]);
    // What it has goes after the grace, with the reason.
    let gone = view(6, &[], Some((Code::NotFound, "no port 80")));
    assert_eq!(client.on(Input::View(gone)), [""; 0]);
    client.1 += Settings::default().removal_grace;
    assert_eq!(client.on(Input::Tick), ["x: 5 no port 80"]);
    // What nobody names any more has no reasons.
    assert_eq!(client.on(Input::View(view(7, &[], Some((Code::NotFound, "other"))))), ["x: 5 other"]);
    client.on(Input::Request(proto::DeltaDiscoveryRequest {
        type_url: CDS.url().into(),
        resource_names_unsubscribe: vec!["x".into()],
        ..Default::default()
    }));
    assert_eq!(client.on(Input::View(view(8, &[], None))), [""; 0]);
}

#[test]
fn a_long_reason_is_cut_and_is_not_kept() {
    let words = "ä".repeat(100_000);
    let mut client = DeltaClient::new(view(1, &[], Some((Code::NotFound, words.as_str()))));
    let told = client.ask(&["x"]).remove(0);
    assert!(told.starts_with("x: 5 ää") && told.ends_with('…') && told.len() < MAX_MESSAGE + 20, "{told}");
    let changed = format!("{words}, and more");
    let told = client.on(Input::View(view(2, &[], Some((Code::NotFound, changed.as_str())))));
    assert_eq!(told.len(), 1, "though what is told is the same");
}

/// A client remembers what it was told (xRFC TP3).
#[test]
fn a_complete_response_does_not_repeat_the_reasons() {
    let mut now = Instant::now();
    let refused = || Some((Code::InvalidArgument, "a.yaml:1"));
    let mut machine = Sotw::new(&node(), view(1, &[], refused()), Settings::default());
    let mut on = |now, input| {
        let response = machine.on(now, input).unwrap().responses.pop();
        response.map(|response| {
            let ack = proto::DiscoveryRequest {
                type_url: response.type_url,
                response_nonce: response.nonce,
                resource_names: vec!["x".into(), "y".into()],
                ..Default::default()
            };
            assert!(machine.on(now, Input::Request(ack)).unwrap().responses.is_empty());
            (response.resources.len(), said(&[], &response.resource_errors))
        })
    };
    let ask = proto::DiscoveryRequest {
        type_url: CDS.url().into(),
        resource_names: vec!["x".into(), "y".into()],
        ..Default::default()
    };
    let nothing = "y: 5 the control plane has no Cluster of this name for this node".to_owned();
    assert_eq!(on(now, Input::Request(ask)), Some((0, vec!["x: 3 a.yaml:1".to_owned(), nothing])));
    let more = view(2, &[(CDS, "y", "1")], refused());
    assert_eq!(on(now, Input::View(more)), Some((1, vec![])));
    now += Duration::from_secs(1);
    let mended = view(3, &[(CDS, "x", "1"), (CDS, "y", "1")], refused());
    assert_eq!(on(now, Input::View(mended)), Some((2, vec![])));
}
