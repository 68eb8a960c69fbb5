//! State-of-the-world streams (`StreamAggregatedResources`).
//!
//! LDS and CDS responses carry everything that the client holds, since omission means deletion; RDS and EDS
//! responses carry what changed. Everybody is told what is not there, and why (`resource_errors`, which those who do not
//! know it pass over); of what LDS and CDS leave out for a reason, each time again. A request with a stale nonce changes no subscription: the client
//! answers the response that crossed it with its full list of names.

use super::{
    Node, View,
    absent::error,
    names::Names,
    status::Variant,
    stream::{Input, Outputs, Protocol, Settings, Stream},
    subscription::{Answer, Batch, Subscription},
};
use crate::{
    name::{Name, ResourceType},
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
                    self.crossed(kind, &request.resource_names, now);
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
    fn crossed(&mut self, kind: ResourceType, names: &[String], now: Instant) {
        let subscription = self.stream.of(kind);
        // Who has named something once means nothing by an empty list from then on.
        subscription.implicit &= names.is_empty();
        if subscription.wildcard {
            return;
        }
        let named: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let dropped = subscription.names.iter().filter(|name| !named.contains(&***name));
        for name in dropped.cloned().collect::<Vec<_>>() {
            self.stream.of(kind).forget(&name);
            self.stream.look(kind, name, now);
        }
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
        let star = names.iter().any(|name| name == "*");
        // An empty list is a wildcard only until the client has named something.
        subscription.implicit = names.is_empty() && kind.is_complete() && (first || subscription.implicit);
        let wildcard = star || subscription.implicit;
        if wildcard != subscription.wildcard {
            self.stream.charge(now)?;
            // Under the wildcard nothing that it covered is forgotten; then it ends.
            for name in self.replace_names(kind, names) {
                self.stream.of(kind).send_again(&name);
            }
            let listed = if wildcard && !first { self.stream.view.names(kind).len() } else { 0 };
            let named = self.stream.of(kind).names.len();
            self.stream.charge_names(now, named + listed)?;
            let subscription = self.stream.of(kind);
            if wildcard {
                subscription.wildcard = true;
            } else {
                subscription.end_wildcard();
            }
            // Envoy waits for its first answer even when there is nothing.
            subscription.must_answer = wildcard;
            self.stream.scan(kind, now);
            return Ok(());
        }
        let named: HashSet<&str> = names.iter().map(String::as_str).filter(|name| *name != "*").collect();
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
                self.stream.charge_names(now, names.len())?;
                for name in names {
                    self.stream.of(kind).send_again(&name);
                    self.stream.look(kind, name, now);
                }
            }
            return Ok(());
        }
        let added = self.replace_names(kind, names);
        self.stream.charge_names(now, added.len())?;
        for name in added {
            // What is named now may be held by the wildcard, and is waited for all the same.
            self.stream.of(kind).send_again(&name);
            self.stream.look(kind, name, now);
        }
        Ok(())
    }

    /// Returns the names that are new.
    fn replace_names(&mut self, kind: ResourceType, names: Vec<String>) -> Vec<Name> {
        let subscription = self.stream.of(kind);
        let before = std::mem::take(&mut subscription.names);
        let mut now = Names::default();
        let mut added = Vec::new();
        for name in names.into_iter().filter(|name| name != "*") {
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
        let is_covered: BTreeSet<Name> = if subscription.wildcard && !gone.is_empty() {
            self.stream.view.names(kind).into_iter().collect()
        } else {
            BTreeSet::new()
        };
        let subscription = self.stream.of(kind);
        for gone in gone {
            if is_covered.contains(&gone) {
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
) -> Option<proto::DiscoveryResponse> {
    let absent = || batch.removed.iter().chain(&batch.missing);
    if !batch.must_answer && batch.resources.is_empty() && absent().next().is_none() {
        return None;
    }
    let any = |encoded: &Arc<super::Encoded>| proto::Any {
        type_url: kind.url().to_owned(),
        value: encoded.body.clone(),
    };
    let resources = if kind.is_complete() {
        subscription.complete().map(any).collect()
    } else {
        batch.resources.iter().map(any).collect()
    };
    let said: BTreeSet<&Name> = absent().map(|(name, _)| name).collect();
    let again = batch.again.iter().filter(|(name, _)| !said.contains(name));
    let resource_errors = absent().chain(again).map(|absent| error(kind, absent)).collect();
    Some(proto::DiscoveryResponse {
        version_info: revision.to_string(),
        resources,
        type_url: kind.url().to_owned(),
        nonce,
        control_plane: None,
        resource_errors,
    })
}
