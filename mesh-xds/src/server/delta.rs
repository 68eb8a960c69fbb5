//! Incremental streams (`DeltaAggregatedResources`).
//!
//! A response carries what changed and names what is gone. The first response of a type is sent even when
//! the client, coming back with what it has, lacks nothing: it confirms the revision. Subscriptions in a
//! request count whatever its nonce, since they are not repeated. Everybody is told why something is not there, if
//! there is more to say than that: `resource_errors`, which those who do not know it pass over, and `removed_resources`.
//!
//! An Envoy that is sent a cluster again waits for the endpoints of that cluster, up to 15 s, without asking
//! for them if it has asked before (envoyproxy/envoy#47302), and does not answer meanwhile. So it is sent them
//! again behind the cluster; endpoints are taken to have the name of their cluster.

use super::{
    Node, View,
    absent::{self, error},
    names,
    status::Variant,
    stream::{Input, Outputs, Protocol, Settings, Stream},
    subscription::{Answer, Batch, Subscription},
};
use crate::{
    name::{Name, ResourceType, WILDCARD},
    proto,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};
use tonic::Status;

/// Bytes of a version that a client brings; views have hashes.
const MAX_VERSION: usize = 128;
/// What Envoys call themselves.
const ENVOY: &str = "envoy";

/// An incremental stream.
pub struct Delta {
    stream: Stream,
    envoy: bool,
}

impl Protocol for Delta {
    type Request = proto::DeltaDiscoveryRequest;
    type Response = proto::DeltaDiscoveryResponse;
    const VARIANT: Variant = Variant::Delta;

    fn new(node: &Node, view: Arc<dyn View>, settings: Settings) -> Self {
        let envoy = node.user_agent.as_ref() == ENVOY;
        Self { stream: Stream::new(Self::VARIANT, view, settings), envoy }
    }

    fn node(request: &Self::Request) -> Option<&proto::Node> {
        request.node.as_ref()
    }

    fn names(request: &Self::Request) -> usize {
        let named = request.resource_names_subscribe.len() + request.resource_names_unsubscribe.len();
        named + request.initial_resource_versions.len()
    }

    fn own_bytes(response: &Self::Response) -> usize {
        // Each is told in a message of its own; bodies are everybody's.
        let told =
            response.resources.iter().map(|resource| size_of_val(resource) + names::weight(&resource.name));
        let removed = response.removed_resources.iter().map(|name| names::weight(name));
        told.chain(removed).sum::<usize>() + absent::own_bytes(&response.resource_errors)
    }

    fn answers(request: &Self::Request, response: &Self::Response) -> bool {
        (&request.type_url, &request.response_nonce) == (&response.type_url, &response.nonce)
    }

    fn on(&mut self, now: Instant, input: Input<Self::Request>) -> Result<Outputs<Self::Response>, Status> {
        let mut rejected = None;
        match input {
            Input::Request(mut request) => {
                let Some(kind) = ResourceType::from_url(&request.type_url) else {
                    self.stream.charge(now)?;
                    return Ok(Outputs { responses: Vec::new(), acked: None, rejected: None });
                };
                let error = request.error_detail.take();
                let answer;
                (answer, rejected) = self.stream.answer(kind, &request.response_nonce, error, now);
                let changes_nothing = request.resource_names_subscribe.is_empty()
                    && request.resource_names_unsubscribe.is_empty();
                if !(changes_nothing && matches!(answer, Answer::Accepted | Answer::Rejected(_))) {
                    self.stream.charge(now)?;
                }
                self.subscribe(kind, request, now)?;
            }
            Input::View(view) => self.stream.show(view, now),
            Input::Tick => {}
        }
        let mut responses = self.stream.flush(now, encode);
        if self.envoy && self.warm(&responses, now) {
            responses.extend(self.stream.flush(now, encode));
        }
        Ok(Outputs { responses, acked: self.stream.newly_synced(), rejected })
    }

    fn stream(&self) -> &Stream {
        &self.stream
    }
}

impl Delta {
    /// The endpoints of clusters that are sent are to be sent again. False: there are none.
    fn warm(&mut self, sent: &[proto::DeltaDiscoveryResponse], now: Instant) -> bool {
        let of = |kind: ResourceType| {
            let those = sent.iter().filter(move |response| response.type_url == kind.url());
            those.flat_map(|response| &response.resources).map(|resource| resource.name.as_str())
        };
        let endpoints: BTreeSet<&str> = of(ResourceType::ClusterLoadAssignment).collect();
        let mut any = false;
        for name in of(ResourceType::Cluster).filter(|name| !endpoints.contains(name)) {
            let subscription = self.stream.of(ResourceType::ClusterLoadAssignment);
            if subscription.names.contains(name) {
                subscription.send_again(name);
                self.stream.look(ResourceType::ClusterLoadAssignment, name.into(), now);
                any = true;
            }
        }
        any
    }

    fn subscribe(
        &mut self,
        kind: ResourceType,
        request: proto::DeltaDiscoveryRequest,
        now: Instant,
    ) -> Result<(), Status> {
        self.stream.admit(kind, &request.resource_names_subscribe, false)?;
        self.stream.spells(kind, &request.resource_names_unsubscribe)?;
        let limit = self.stream.settings.max_subscriptions;
        if request.resource_names_unsubscribe.len() > limit {
            return Err(Status::resource_exhausted(format!(
                "{} names to unsubscribe are more than the limit of {limit} subscriptions",
                request.resource_names_unsubscribe.len()
            )));
        }
        let begins = request.resource_names_subscribe.iter().any(|name| name == WILDCARD);
        let subscription = self.stream.of(kind);
        let first = !std::mem::replace(&mut subscription.started, true);
        // The first list is what a client begins with; to list everything again and again is another matter.
        let lists = !first && begins && !subscription.wildcard;
        let listed = if lists { self.stream.view.names(kind).len() } else { 0 };
        self.stream.charge_names(now, listed)?;
        let subscription = self.stream.of(kind);
        let mut looks = BTreeSet::new();
        if first {
            subscription.must_answer = true;
            subscription.wildcard = kind.is_complete() && request.resource_names_subscribe.is_empty();
        }
        let mut scan = first;
        for name in request.resource_names_subscribe {
            if name == WILDCARD {
                if !subscription.wildcard {
                    subscription.begin_wildcard();
                    scan = true;
                    // Who asks for everything waits for an answer even when there is nothing.
                    subscription.must_answer = true;
                }
                continue;
            }
            let name: Name = name.into();
            // Asking again means that the client no longer has it.
            subscription.forget(&name);
            subscription.names.insert(name.clone());
            looks.insert(name);
        }
        let mut unnamed = BTreeSet::new();
        for name in request.resource_names_unsubscribe {
            if name == WILDCARD {
                subscription.end_wildcard();
                continue;
            }
            subscription.names.remove(name.as_str());
            subscription.forget(&name);
            looks.remove(name.as_str());
            unnamed.insert(Name::from(name));
        }
        if subscription.wildcard && !unnamed.is_empty() {
            // Only the server knows whether the wildcard covers them, and the client waits to hear of each.
            let view = self.stream.view.clone();
            let subscription = self.stream.of(kind);
            let mut uncovered = 0;
            for name in unnamed {
                if view.lists(kind, &name) {
                    // Sent again; it counts as held, so that it is not forgotten if it goes before.
                    subscription.hold(name.clone(), Arc::default());
                    looks.insert(name);
                } else {
                    uncovered += 1;
                    subscription.deny(name);
                }
            }
            // A client that does not answer is not told, and the names would pile up.
            if subscription.untold() > 2 * limit {
                return Err(Status::resource_exhausted(format!(
                    "answers about more names than twice the limit of {limit} subscriptions wait for this client"
                )));
            }
            self.stream.charge_names(now, uncovered)?;
        }
        if first {
            self.resume(kind, request.initial_resource_versions);
        }
        if scan {
            return self.stream.scan(kind, now);
        }
        self.stream.look_all(kind, looks, now)
    }
}

impl Delta {
    /// The client has these from an earlier stream.
    fn resume(&mut self, kind: ResourceType, versions: BTreeMap<String, String>) {
        let wildcard = self.stream.of(kind).wildcard;
        let listed: BTreeSet<Name> =
            if wildcard { self.stream.view.names(kind).into_iter().collect() } else { BTreeSet::new() };
        // What is gone is told; but a client could make up any number of such names. What is above the limit it is
        // told when it comes back the next time.
        let Settings { max_subscriptions: mut strange, max_name_length, .. } = self.stream.settings;
        let subscription = self.stream.of(kind);
        for (name, version) in versions {
            let is_known = subscription.names.contains(name.as_str()) || listed.contains(name.as_str());
            if is_known || wildcard && strange > 0 && name.len() <= max_name_length {
                // No version of ours is that long: it is held in another one.
                let version = if version.len() <= MAX_VERSION { version.into() } else { Arc::default() };
                if is_known {
                    subscription.hold(name.into(), version);
                } else {
                    strange -= 1;
                    subscription.hold_strange(name.into(), version);
                }
            }
        }
    }
}

fn encode(
    kind: ResourceType,
    batch: Batch,
    _: &Subscription,
    nonce: String,
    revision: Arc<str>,
) -> proto::DeltaDiscoveryResponse {
    let resources: Vec<_> = batch
        .resources
        .iter()
        .map(|encoded| proto::Resource {
            version: encoded.version.to_string(),
            resource: Some(proto::Any { type_url: kind.url().to_owned(), value: encoded.body.clone() }),
            name: encoded.name.to_string(),
            aliases: Vec::new(),
            ttl: None,
        })
        .collect();
    let absent = || batch.removed.iter().chain(&batch.missing);
    let removed_resources: Vec<_> = absent().map(|(name, _)| name.to_string()).collect();
    let resource_errors: Vec<_> =
        absent().filter(|(_, why)| why.is_some()).map(|one| error(kind, one)).collect();
    proto::DeltaDiscoveryResponse {
        system_version_info: revision.to_string(),
        resources,
        type_url: kind.url().to_owned(),
        nonce,
        removed_resources,
        control_plane: None,
        resource_errors,
    }
}
