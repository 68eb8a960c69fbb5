//! A server's stream against any client.

use super::{Depth, bytes::Bytes};
use crate::{
    name::{Name, ResourceType},
    proto,
    server::{Changes, Delta, Encoded, Input, Node, Protocol, Settings, Sotw, View},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Any of three resources of each type, in one of two versions.
struct Some3 {
    bits: u8,
    revision: u64,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl View for Some3 {
    fn revision(&self) -> Arc<str> {
        self.revision.to_string().into()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        let at = NAMES.iter().position(|known| *known == name)?;
        (self.bits >> at & 1 == 1).then(|| {
            let version = if self.bits >> (3 + kind as u8) & 1 == 1 { "1" } else { "2" };
            Arc::new(Encoded { name: name.into(), version: version.into(), body: "x".into() })
        })
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        NAMES
            .iter()
            .filter(|name| self.resource(kind, name).is_some())
            .map(|name| Name::from(*name))
            .collect()
    }

    fn changes_since(&self, _: &dyn View) -> Changes {
        Changes::Anything
    }
}

fn kind(bytes: &mut Bytes<'_>) -> ResourceType {
    let [first, others @ ..] = &ResourceType::ALL;
    bytes.of(*first, others)
}

fn name(bytes: &mut Bytes<'_>) -> String {
    let long = "a name that is too long";
    bytes.of("a", &["b", "c", "*", "", "nowhere", long]).to_owned()
}

pub(super) fn sotw(data: &[u8]) -> Depth {
    run::<Sotw>(
        data,
        |bytes, type_url, response_nonce, error_detail| proto::DiscoveryRequest {
            version_info: bytes.of("", &["1", "7"]).to_owned(),
            resource_names: bytes.several(5, name),
            type_url,
            response_nonce,
            error_detail,
            node: None,
        },
        |response| (response.type_url.clone(), response.nonce.clone(), response.resources.len()),
    )
}

pub(super) fn delta(data: &[u8]) -> Depth {
    run::<Delta>(
        data,
        |bytes, type_url, response_nonce, error_detail| proto::DeltaDiscoveryRequest {
            resource_names_subscribe: bytes.several(5, name),
            resource_names_unsubscribe: bytes.several(4, name),
            initial_resource_versions: bytes
                .several(4, |bytes| (name(bytes), bytes.of("1", &["2", ""]).to_owned()))
                .into_iter()
                .collect(),
            type_url,
            response_nonce,
            error_detail,
            node: None,
        },
        |response| (response.type_url.clone(), response.nonce.clone(), response.resources.len()),
    )
}

fn run<P: Protocol>(
    data: &[u8],
    request: impl Fn(&mut Bytes<'_>, String, String, Option<proto::Status>) -> P::Request,
    read: impl Fn(&P::Response) -> (String, String, usize),
) -> Depth {
    let mut depth = Depth::default();
    let mut bytes = Bytes::new(data);
    let mut node = Node { id: "me".into(), ..Node::default() };
    if bytes.byte() & 1 == 0 {
        node.user_agent = "envoy".into();
    }
    let settings = Settings { max_subscriptions: 12, max_name_length: 10, ..Settings::default() };
    let view = |bits, revision| Arc::new(Some3 { bits, revision });
    let mut machine = P::new(&node, view(bytes.byte(), 0), settings.clone());
    let mut now = Instant::now();
    let mut revision = 0;
    let mut outstanding: BTreeMap<ResourceType, String> = BTreeMap::new();
    while !bytes.is_empty() {
        let outputs = match bytes.byte() % 8 {
            0..5 => {
                let kind = kind(&mut bytes);
                // Mostly answers, as a client would give; or any.
                let nonce = match bytes.byte() % 4 {
                    0..2 => outstanding.get(&kind).cloned().unwrap_or_default(),
                    2 => (bytes.byte() % 8).to_string(),
                    _ => String::new(),
                };
                let error = bytes.of("", &["", "a is bad", "nonsense"]);
                let error = (!error.is_empty()).then(|| proto::Status { code: 3, message: error.into() });
                let answers = outstanding.get(&kind) == Some(&nonce);
                let url = if bytes.byte() == 255 { "type.googleapis.com/x" } else { kind.url() };
                let request = request(&mut bytes, url.to_owned(), nonce, error);
                if answers && url == kind.url() {
                    outstanding.remove(&kind);
                }
                machine.on(now, Input::Request(request))
            }
            5..7 => {
                revision += 1;
                machine.on(now, Input::View(view(bytes.byte(), revision)))
            }
            _ => {
                now += Duration::from_millis(u64::from(bytes.byte()) * 20);
                machine.on(now, Input::Tick)
            }
        };
        // Whoever asks for too much, or too fast, is told so and gone.
        let Ok(outputs) = outputs else { return depth };
        depth.answers += outputs.responses.len();
        depth.rejections += usize::from(outputs.rejected.is_some());
        for response in &outputs.responses {
            let (url, nonce, resources) = read(response);
            let kind = ResourceType::from_url(&url);
            assert!(resources <= NAMES.len(), "{resources} resources");
            let before = kind.and_then(|kind| outstanding.insert(kind, nonce));
            assert_eq!(before, None, "two responses of {url} are outstanding");
        }
        let stream = machine.stream();
        assert!(stream.deadline().is_none_or(|due| due > now), "time stands still");
        let names: usize = stream.types(now).iter().map(|status| status.names.len()).sum();
        assert!(names <= settings.max_subscriptions, "{names} subscriptions");
    }
    depth
}
