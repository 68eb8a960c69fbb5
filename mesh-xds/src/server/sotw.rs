//! State-of-the-world streams (`StreamAggregatedResources`).
//!
//! LDS and CDS responses carry everything that the client holds, since omission means deletion; RDS and EDS
//! responses carry what changed. Everybody is told what is not there, and why: `resource_errors`, which those who do not
//! know it pass over. It is said once, also of what LDS and CDS leave out from then on (xRFC TP3). A request with a stale nonce changes no subscription: the client
//! answers the response that crossed it with its full list of names.

use super::{
    Node, View,
    absent::{self, error},
    names::Names,
    status::Variant,
    stream::{Input, Outputs, Protocol, Settings, Stream},
    subscription::{Answer, Batch, Subscription},
};
use crate::{
    name::{Name, ResourceType, WILDCARD},
    proto,
};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Instant,
};
use tonic::Status;

/// A state-of-the-world stream.
pub struct Sotw {
    stream: Stream,
}

impl Protocol for Sotw {
    type Request = proto::DiscoveryRequest;
    type Response = proto::DiscoveryResponse;
    const VARIANT: Variant = Variant::Sotw;

    fn new(_: &Node, view: Arc<dyn View>, settings: Settings) -> Self {
        Self { stream: Stream::new(Self::VARIANT, view, settings) }
    }

    fn node(request: &Self::Request) -> Option<&proto::Node> {
        request.node.as_ref()
    }

    fn names(request: &Self::Request) -> usize {
        request.resource_names.len()
    }

    fn own_bytes(response: &Self::Response) -> usize {
        // Each is an `Any` of its own; bodies are everybody's.
        let told = response.resources.iter().map(|resource| size_of_val(resource) + resource.type_url.len());
        told.sum::<usize>() + absent::own_bytes(&response.resource_errors)
    }

    fn answers(request: &Self::Request, response: &Self::Response) -> bool {
        (&request.type_url, &request.response_nonce) == (&response.type_url, &response.nonce)
    }

    fn on(&mut self, now: Instant, input: Input<Self::Request>) -> Result<Outputs<Self::Response>, Status> {
        let mut rejected = None;
        match input {
            Input::Request(request) => {
                let Some(kind) = ResourceType::from_url(&request.type_url) else {
                    // A type that is not ours is not answered: Envoy asks for runtime layers too.
                    self.stream.charge(now)?;
                    return Ok(Outputs { responses: Vec::new(), acked: None, rejected: None });
                };
                let (answer, rejection) =
                    self.stream.answer(kind, &request.response_nonce, request.error_detail, now);
                rejected = rejection;
                if matches!(answer, Answer::Stale) {
                    self.stream.charge(now)?;
                    self.crossed(kind, &request.resource_names, now)?;
                } else {
                    self.subscribe(kind, request.resource_names, &answer, now)?;
                }
            }
            Input::View(view) => self.stream.show(view, now),
            Input::Tick => {}
        }
        let responses = self.stream.flush(now, encode);
        Ok(Outputs { responses, acked: self.stream.newly_synced(), rejected })
    }

    fn stream(&self) -> &Stream {
        &self.stream
    }
}

impl Sotw {
    /// A request crossed a response, and says nothing about the subscription; but what it does not name the
    /// client no longer holds. If it names it again by the time it answers the response, it has to be sent
    /// again.
    fn crossed(&mut self, kind: ResourceType, names: &[String], now: Instant) -> Result<(), Status> {
        let subscription = self.stream.of(kind);
        // Who has named something once means nothing by an empty list from then on.
        subscription.implicit &= names.is_empty();
        if subscription.wildcard {
            return Ok(());
        }
        let named: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let dropped = subscription.names.iter().filter(|name| !named.contains(&***name));
        let dropped: Vec<Name> = dropped.cloned().collect();
        for name in &dropped {
            self.stream.of(kind).forget(name);
        }
        self.stream.look_all(kind, dropped, now)
    }

    /// Makes the subscription what the request says.
    fn subscribe(
        &mut self,
        kind: ResourceType,
        names: Vec<String>,
        answer: &Answer,
        now: Instant,
    ) -> Result<(), Status> {
        self.stream.admit(kind, &names, true)?;
        let subscription = self.stream.of(kind);
        let first = !std::mem::replace(&mut subscription.started, true);
        let star = names.iter().any(|name| name == WILDCARD);
        // An empty list is a wildcard only until the client has named something.
        subscription.implicit = names.is_empty() && kind.is_complete() && (first || subscription.implicit);
        let wildcard = star || subscription.implicit;
        if wildcard != subscription.wildcard {
            self.stream.charge(now)?;
            // Under the wildcard nothing that it covered is forgotten; then it ends.
            for name in self.replace_names(kind, names) {
                self.stream.of(kind).send_again(&name);
            }
            // The first list is what a client begins with; to list everything again and again is another matter.
            let listed = if wildcard && !first { self.stream.view.names(kind).len() } else { 0 };
            self.stream.charge_names(now, listed)?;
            let subscription = self.stream.of(kind);
            if wildcard {
                subscription.wildcard = true;
            } else {
                subscription.end_wildcard();
            }
            // Envoy waits for its first answer even when there is nothing.
            subscription.must_answer = wildcard;
            return self.stream.scan(kind, now);
        }
        let named: HashSet<&str> =
            names.iter().map(String::as_str).filter(|name| *name != WILDCARD).collect();
        let same = named.len() == subscription.names.len()
            && named.into_iter().all(|name| subscription.names.contains(name));
        let answers = matches!(answer, Answer::Accepted | Answer::Rejected(_));
        if !(same && answers) {
            self.stream.charge(now)?;
        }
        if same {
            // Envoy asks again, with nothing changed, for the endpoints of a cluster that it warms.
            if matches!(answer, Answer::Again) && !kind.is_complete() {
                let names = self.stream.of(kind).names.iter().cloned().collect::<Vec<_>>();
                for name in &names {
                    self.stream.of(kind).send_again(name);
                }
                return self.stream.look_all(kind, names, now);
            }
            return Ok(());
        }
        let added = self.replace_names(kind, names);
        for name in &added {
            // What is named now may be held by the wildcard, and is waited for all the same.
            self.stream.of(kind).send_again(name);
        }
        self.stream.look_all(kind, added, now)
    }

    /// Returns the names that are new.
    fn replace_names(&mut self, kind: ResourceType, names: Vec<String>) -> Vec<Name> {
        let subscription = self.stream.of(kind);
        let before = std::mem::take(&mut subscription.names);
        let mut now = Names::default();
        let mut added = Vec::new();
        for name in names.into_iter().filter(|name| name != WILDCARD) {
            match before.get(name.as_str()) {
                Some(known) => {
                    now.insert(known.clone());
                }
                None => {
                    let name: Name = name.into();
                    if now.insert(name.clone()) {
                        added.push(name);
                    }
                }
            }
        }
        let gone: Vec<_> = before.without(&now).cloned().collect();
        subscription.names = now;
        let is_wild = subscription.wildcard;
        for gone in gone {
            let is_covered = is_wild && self.stream.view.lists(kind, &gone);
            let subscription = self.stream.of(kind);
            if is_covered {
                subscription.unname(&gone);
            } else {
                // Under a wildcard only a list without it says that it is no part of that.
                subscription.must_answer |= subscription.wildcard && subscription.holds(&gone);
                subscription.forget(&gone);
            }
        }
        added
    }
}

fn encode(
    kind: ResourceType,
    batch: Batch,
    subscription: &Subscription,
    nonce: String,
    revision: Arc<str>,
) -> proto::DiscoveryResponse {
    let any = |encoded: &Arc<super::Encoded>| proto::Any {
        type_url: kind.url().to_owned(),
        value: encoded.body.clone(),
    };
    let resources = if kind.is_complete() {
        subscription.complete().map(any).collect()
    } else {
        batch.resources.iter().map(any).collect()
    };
    let absent = batch.removed.iter().chain(&batch.missing);
    proto::DiscoveryResponse {
        version_info: revision.to_string(),
        resources,
        type_url: kind.url().to_owned(),
        nonce,
        control_plane: None,
        resource_errors: absent.map(|absent| error(kind, absent)).collect(),
    }
}
