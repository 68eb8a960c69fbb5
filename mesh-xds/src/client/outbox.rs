//! What a stream has yet to say while its transport takes nothing.
//!
//! However much changes meanwhile, two requests of a type are the most that wait, and the control plane learns the
//! same from them as from all: of state of the world the newest says everything; of delta there are what changed and
//! the newest answer. What was given up and is wanted again is said as both, since the control plane is to send it
//! again. A type is never begun with a request that names nothing, which would be a wildcard. Of a name that is given up
//! beside a wildcard the control plane has to say whether that covers it: so it hears of both, and in that order.

use super::wire::Request;
use crate::{
    name::{ResourceType, WILDCARD},
    proto,
};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

/// The requests of one stream that wait.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Said with the first request that is sent.
    node: Option<proto::Node>,
    /// Types of which something waits, in order.
    queue: VecDeque<ResourceType>,
    sotw: [Sotw; ResourceType::COUNT],
    delta: [Delta; ResourceType::COUNT],
}

/// State of the world: the requests of one type.
#[derive(Default)]
struct Sotw {
    /// Names in the one that was sent last.
    said: Option<Vec<String>>,
    /// Those of them that were given up since.
    gone: BTreeSet<String>,
    newest: Option<proto::DiscoveryRequest>,
}

/// Delta: the requests of one type.
#[derive(Default)]
struct Delta {
    /// Something was sent.
    begun: bool,
    change: Option<Change>,
    answer: Option<proto::DeltaDiscoveryRequest>,
}

#[derive(Default)]
struct Change {
    subscribe: BTreeSet<String>,
    unsubscribe: BTreeSet<String>,
    versions: BTreeMap<String, String>,
}

impl Outbox {
    pub(crate) fn push(&mut self, request: Request) {
        let (kind, node) = match request {
            Request::Sotw(mut request) => {
                let Some(kind) = ResourceType::from_url(&request.type_url) else { return };
                let node = request.node.take();
                self.sotw[kind as usize].push(request);
                (kind, node)
            }
            Request::Delta(mut request) => {
                let Some(kind) = ResourceType::from_url(&request.type_url) else { return };
                let node = request.node.take();
                self.delta[kind as usize].push(request);
                (kind, node)
            }
        };
        self.node = node.or(self.node.take());
        if !self.queue.contains(&kind) {
            self.queue.push_back(kind);
        }
    }

    /// Whether there is something to send.
    pub(crate) fn is_ready(&self) -> bool {
        self.queue.iter().any(|kind| self.has(*kind))
    }

    fn has(&self, kind: ResourceType) -> bool {
        self.sotw[kind as usize].is_ready() || self.delta[kind as usize].is_ready()
    }

    /// What is to be sent next.
    pub(crate) fn pop(&mut self) -> Option<Request> {
        let at = self.queue.iter().position(|kind| self.has(*kind))?;
        let kind = *self.queue.get(at)?;
        let sotw = self.sotw[kind as usize].pop();
        let mut request = match sotw {
            Some(request) => Request::Sotw(request),
            None => Request::Delta(self.delta[kind as usize].pop(kind)?),
        };
        if self.sotw[kind as usize].newest.is_none() && self.delta[kind as usize].is_empty() {
            self.queue.remove(at);
        }
        let node = self.node.take();
        match &mut request {
            Request::Sotw(request) => request.node = node,
            Request::Delta(request) => request.node = node,
        }
        Some(request)
    }
}

impl Sotw {
    fn push(&mut self, mut request: proto::DiscoveryRequest) {
        let older = self.newest.take();
        if let Some(said) = &self.said {
            let before = older.as_ref().map_or(said, |older| &older.resource_names);
            if *before != request.resource_names {
                let names: HashSet<&str> = request.resource_names.iter().map(String::as_str).collect();
                self.gone.extend(before.iter().filter(|name| !names.contains(name.as_str())).cloned());
            }
        }
        if let Some(older) = older.filter(|older| {
            older.response_nonce == request.response_nonce && older.version_info == request.version_info
        }) {
            // It is still the answer to the same response, which was rejected.
            request.error_detail = request.error_detail.or(older.error_detail);
        }
        self.newest = Some(request);
    }

    fn is_ready(&self) -> bool {
        let names_something = |request: &proto::DiscoveryRequest| !request.resource_names.is_empty();
        self.newest.as_ref().is_some_and(|newest| self.said.is_some() || names_something(newest))
    }

    fn pop(&mut self) -> Option<proto::DiscoveryRequest> {
        if !self.is_ready() {
            return None;
        }
        let mut request = self.newest.take()?;
        let gone = std::mem::take(&mut self.gone);
        if request.resource_names.iter().any(|name| gone.contains(name)) {
            let mut first = request.clone();
            first.resource_names.retain(|name| !gone.contains(name));
            request.error_detail = None;
            self.newest = Some(std::mem::replace(&mut request, first));
        }
        if self.said.as_ref() != Some(&request.resource_names) {
            self.said = Some(request.resource_names.clone());
        }
        Some(request)
    }
}

impl Delta {
    fn push(&mut self, mut request: proto::DeltaDiscoveryRequest) {
        let (subscribe, unsubscribe) =
            (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
        if subscribe.is_empty() && unsubscribe.is_empty() {
            if let Some(older) = self.answer.take_if(|older| older.response_nonce == request.response_nonce) {
                // It is still the answer to the same response, which was rejected.
                request.error_detail = request.error_detail.or(older.error_detail);
            }
            self.answer = Some(request);
            return;
        }
        let change = self.change.get_or_insert_default();
        change.versions.extend(request.initial_resource_versions);
        let begins = request.resource_names_subscribe.iter().any(|name| name == WILDCARD);
        for name in request.resource_names_unsubscribe {
            change.subscribe.remove(&name);
            if name == WILDCARD {
                let subscribe = &change.subscribe;
                change.versions.retain(|name, _| subscribe.contains(name));
            } else if !begins && !change.subscribe.contains(WILDCARD) {
                change.versions.remove(&name);
            } else if !self.begun {
                // What was never named cannot be given up; what may be held is said to be held.
                change.versions.entry(name.clone()).or_default();
            }
            change.unsubscribe.insert(name);
        }
        change.subscribe.extend(request.resource_names_subscribe);
    }

    fn is_empty(&self) -> bool {
        self.change.is_none() && self.answer.is_none()
    }

    fn is_ready(&self) -> bool {
        let subscribes = |change: &Change| !change.subscribe.is_empty();
        if self.begun { !self.is_empty() } else { self.change.as_ref().is_some_and(subscribes) }
    }

    fn pop(&mut self, kind: ResourceType) -> Option<proto::DeltaDiscoveryRequest> {
        if !self.is_ready() {
            return None;
        }
        let first = !std::mem::replace(&mut self.begun, true);
        // What was answered under a wildcard that the control plane has yet to hear of may be of before, and only while
        // that is not answered it knows what to deny of it.
        let lists = self.change.as_ref().is_some_and(|change| change.subscribe.contains(WILDCARD));
        if let Some(answer) = self.answer.take_if(|_| !first && !lists) {
            return Some(answer);
        }
        let mut change = self.change.take()?;
        if first {
            change.unsubscribe.clear();
        } else if !change.subscribe.is_disjoint(&change.unsubscribe) {
            let subscribe = std::mem::take(&mut change.subscribe);
            let mut next = Change { subscribe, ..Change::default() };
            if next.subscribe.contains(WILDCARD) {
                let all = std::mem::take(&mut change.unsubscribe);
                (change.unsubscribe, next.unsubscribe) =
                    all.into_iter().partition(|name| next.subscribe.contains(name));
            }
            self.change = Some(next);
        }
        Some(proto::DeltaDiscoveryRequest {
            type_url: kind.url().to_owned(),
            resource_names_subscribe: change.subscribe.into_iter().collect(),
            resource_names_unsubscribe: change.unsubscribe.into_iter().collect(),
            initial_resource_versions: change.versions,
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResourceType::{Cluster as CDS, Listener as LDS};

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn sotw(kind: ResourceType, nonce: &str, all: &str) -> proto::DiscoveryRequest {
        proto::DiscoveryRequest {
            type_url: kind.url().into(),
            response_nonce: nonce.into(),
            resource_names: names(all),
            ..Default::default()
        }
    }

    fn delta(kind: ResourceType, subscribe: &str, unsubscribe: &str) -> proto::DeltaDiscoveryRequest {
        proto::DeltaDiscoveryRequest {
            type_url: kind.url().into(),
            resource_names_subscribe: names(subscribe),
            resource_names_unsubscribe: names(unsubscribe),
            ..Default::default()
        }
    }

    fn nacked(request: proto::DiscoveryRequest) -> proto::DiscoveryRequest {
        proto::DiscoveryRequest { error_detail: Some(proto::Status::default()), ..request }
    }

    fn node() -> Option<proto::Node> {
        Some(proto::Node { id: "me".into(), ..Default::default() })
    }

    /// All that is to be sent, in short.
    fn drain(outbox: &mut Outbox) -> Vec<String> {
        let mut all = Vec::new();
        while outbox.is_ready() {
            all.push(match outbox.pop().expect("it is ready") {
                Request::Sotw(r) => {
                    let kind = ResourceType::from_url(&r.type_url).unwrap().abbreviation();
                    let (node, error) = (r.node.map_or("", |_| " node"), r.error_detail.map_or("", |_| " !"));
                    format!("{kind} {}@{}{error}{node}", r.resource_names.join(" "), r.response_nonce)
                }
                Request::Delta(r) => {
                    let kind = ResourceType::from_url(&r.type_url).unwrap().abbreviation();
                    let node = r.node.map_or("", |_| " node");
                    let versions: Vec<_> = r.initial_resource_versions.into_keys().collect();
                    let (more, less) = (r.resource_names_subscribe, r.resource_names_unsubscribe);
                    let held = versions.join(" ");
                    format!(
                        "{kind} +{} -{} @{} ={held}{node}",
                        more.join(" "),
                        less.join(" "),
                        r.response_nonce
                    )
                }
            });
        }
        assert!(outbox.pop().is_none());
        all
    }

    fn push(outbox: &mut Outbox, requests: impl IntoIterator<Item = proto::DiscoveryRequest>) {
        requests.into_iter().for_each(|request| outbox.push(Request::Sotw(request)));
    }

    fn push_delta(outbox: &mut Outbox, requests: impl IntoIterator<Item = proto::DeltaDiscoveryRequest>) {
        requests.into_iter().for_each(|request| outbox.push(Request::Delta(request)));
    }

    #[test]
    fn the_newest_list_of_a_type_is_sent_with_the_newest_nonce() {
        let mut outbox = Outbox::default();
        let first = proto::DiscoveryRequest { node: node(), ..sotw(LDS, "", "a") };
        push(&mut outbox, [first, sotw(CDS, "", "x"), sotw(LDS, "", "a b"), sotw(LDS, "1", "a b c")]);
        assert_eq!(drain(&mut outbox), ["LDS a b c@1 node", "CDS x@"]);
        push(&mut outbox, (0..1000).map(|i| sotw(LDS, &i.to_string(), "a b")));
        assert_eq!(drain(&mut outbox), ["LDS a b@999"]);
    }

    #[test]
    fn what_was_given_up_and_is_wanted_again_is_said_as_both() {
        let mut outbox = Outbox::default();
        push(&mut outbox, [sotw(LDS, "", "a b c")]);
        assert_eq!(drain(&mut outbox), ["LDS a b c@"]);
        push(&mut outbox, [sotw(LDS, "", "a c"), sotw(LDS, "", "a"), sotw(LDS, "1", "a b d")]);
        assert_eq!(drain(&mut outbox), ["LDS a d@1", "LDS a b d@1"]);
        push(&mut outbox, [sotw(LDS, "1", "")]);
        push(&mut outbox, [nacked(sotw(LDS, "2", "a"))]);
        assert_eq!(drain(&mut outbox), ["LDS @2 !", "LDS a@2"]);

        let mut outbox = Outbox::default();
        push_delta(&mut outbox, [delta(CDS, "a b", "")]);
        assert_eq!(drain(&mut outbox), ["CDS +a b - @ ="]);
        push_delta(&mut outbox, [delta(CDS, "", "a"), delta(CDS, "c", "b"), delta(CDS, "a", "c")]);
        assert_eq!(drain(&mut outbox), ["CDS + -a b c @ =", "CDS +a - @ ="]);
    }

    #[test]
    fn a_rejection_stays_one_until_its_response_is_answered_otherwise() {
        let mut outbox = Outbox::default();
        push(&mut outbox, [nacked(sotw(LDS, "1", "a")), sotw(LDS, "1", "a b")]);
        assert_eq!(drain(&mut outbox), ["LDS a b@1 !"]);
        push(&mut outbox, [nacked(sotw(LDS, "2", "a b")), sotw(LDS, "3", "a b")]);
        assert_eq!(drain(&mut outbox), ["LDS a b@3"]);
    }

    #[test]
    fn no_type_begins_with_a_wildcard() {
        let mut outbox = Outbox::default();
        push(
            &mut outbox,
            [proto::DiscoveryRequest { node: node(), ..sotw(LDS, "", "a") }, sotw(LDS, "", "")],
        );
        push(&mut outbox, [sotw(CDS, "", "x")]);
        assert_eq!(drain(&mut outbox), ["CDS x@ node"]);
        push(&mut outbox, [sotw(LDS, "", "b")]);
        assert_eq!(drain(&mut outbox), ["LDS b@"]);
        push(&mut outbox, [sotw(LDS, "", "")]);
        assert_eq!(drain(&mut outbox), ["LDS @"]);

        let mut outbox = Outbox::default();
        let versions = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "1".to_owned())].into();
        let first = proto::DeltaDiscoveryRequest {
            node: node(),
            initial_resource_versions: versions,
            ..delta(LDS, "a b", "")
        };
        let answer = proto::DeltaDiscoveryRequest { response_nonce: "1".into(), ..delta(LDS, "", "") };
        push_delta(&mut outbox, [first, answer, delta(LDS, "", "a b")]);
        assert_eq!(drain(&mut outbox), Vec::<String>::new());
        push_delta(&mut outbox, [delta(LDS, "a", "")]);
        assert_eq!(drain(&mut outbox), ["LDS +a - @ = node", "LDS + - @1 ="]);
    }

    /// It stays with the client as a part of the wildcard until the control plane denies it.
    #[test]
    fn of_a_name_that_is_given_up_beside_a_wildcard_the_control_plane_has_to_say_whether_that_covers_it() {
        // Nothing was sent: it is said to be held, and so is what is held in no version that is known.
        let first = |names: &str, held: &[&str]| proto::DeltaDiscoveryRequest {
            initial_resource_versions: held.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect(),
            ..delta(CDS, names, "")
        };
        let mut outbox = Outbox::default();
        push_delta(&mut outbox, [first("* a b", &["a"]), delta(CDS, "", "a b")]);
        let Some(Request::Delta(request)) = outbox.pop() else { panic!("it is ready") };
        let held = [("a", "1"), ("b", "")].map(|(name, version)| (name.to_owned(), version.to_owned()));
        assert_eq!(request.resource_names_subscribe, ["*"]);
        assert_eq!(request.initial_resource_versions, held.clone().into());
        // The wildcard may begin in the same request.
        let mut one = Outbox::default();
        push_delta(&mut one, [first("a b", &["a"]), delta(CDS, "*", "a b")]);
        let Some(Request::Delta(request)) = one.pop() else { panic!("it is ready") };
        assert_eq!(
            (request.resource_names_subscribe, request.initial_resource_versions),
            (names("*"), held.into())
        );
        // The wildcard is given up and wanted again: the name goes after that.
        push_delta(&mut outbox, [delta(CDS, "", "*"), delta(CDS, "*", ""), delta(CDS, "", "a")]);
        assert_eq!(drain(&mut outbox), ["CDS + -* @ =", "CDS +* -a @ ="]);
        // What comes meanwhile may be of before, and is answered after that.
        let answer = proto::DeltaDiscoveryRequest { response_nonce: "1".into(), ..delta(CDS, "", "") };
        push_delta(&mut outbox, [delta(CDS, "", "*"), delta(CDS, "*", ""), answer]);
        assert_eq!(drain(&mut outbox), ["CDS + -* @ =", "CDS +* - @ =", "CDS + - @1 ="]);
        // What the wildcard alone stood for was let go with it.
        let mut outbox = Outbox::default();
        push_delta(&mut outbox, [first("* a", &["a", "listed"]), delta(CDS, "", "*"), delta(CDS, "*", "")]);
        assert_eq!(drain(&mut outbox), ["CDS +* a - @ =a"]);
    }

    #[test]
    fn of_delta_the_changes_are_one_and_the_newest_answer_is_its_own() {
        let mut outbox = Outbox::default();
        let answer = |nonce: usize| proto::DeltaDiscoveryRequest {
            response_nonce: nonce.to_string(),
            ..delta(LDS, "", "")
        };
        push_delta(&mut outbox, [delta(LDS, "a", "")]);
        assert_eq!(drain(&mut outbox), ["LDS +a - @ ="]);
        for i in 0..1000 {
            push_delta(&mut outbox, [delta(LDS, &format!("n{i}"), ""), answer(i)]);
            push_delta(&mut outbox, [delta(LDS, "", &format!("n{i}"))]);
        }
        push_delta(&mut outbox, [delta(LDS, "z", "a")]);
        let all = drain(&mut outbox);
        assert_eq!((all.len(), all[0].as_str()), (2, "LDS + - @999 ="));
        assert!(all[1].starts_with("LDS +z -a n0 n1 n10 "), "{}", all[1]);
    }
}
