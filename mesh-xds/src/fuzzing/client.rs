//! The client's machine against any sequence of events.

use super::{Depth, bytes::Bytes};
use crate::{
    client::{BackoffSettings, Input, Key, Known, Machine, Parse, Request, Response, Settings, Unparsable},
    name::{Name, ResourceType, WILDCARD},
    proto,
    server::Variant,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// `name=value`, where values of three bytes are bad.
struct Words;

impl Parse for Words {
    type Resource = String;

    fn parse(&self, _: ResourceType, body: &::bytes::Bytes) -> Result<(Name, String), Unparsable> {
        let text = String::from_utf8_lossy(body);
        let Some((name, value)) = text.split_once('=') else {
            return Err(Unparsable { name: None, why: "it is no pair".to_owned() });
        };
        if value.len() == 3 {
            return Err(Unparsable { name: Some(name.into()), why: "it is bad".to_owned() });
        }
        Ok((name.into(), value.to_owned()))
    }

    fn name_of(&self, body: &::bytes::Bytes) -> Option<Name> {
        Some(String::from_utf8_lossy(body).split_once('=')?.0.into())
    }
}

fn kind(bytes: &mut Bytes<'_>) -> ResourceType {
    let [first, others @ ..] = &ResourceType::ALL;
    bytes.of(*first, others)
}

fn url(bytes: &mut Bytes<'_>) -> String {
    if bytes.byte() == 255 { "type.googleapis.com/x".to_owned() } else { kind(bytes).url().to_owned() }
}

fn name(bytes: &mut Bytes<'_>) -> String {
    bytes.of("a", &["b", "c", "", "*", "xdstp://x/envoy.config.cluster.v3.Cluster/a?b=1&a=2"]).to_owned()
}

/// A name, or everything of a type that has a wildcard.
fn key(bytes: &mut Bytes<'_>) -> Key {
    let (kind, name): Key = (kind(bytes), bytes.of("a", &["b", "c", WILDCARD]).into());
    (kind, if *name == *WILDCARD && !kind.has_wildcard() { "a".into() } else { name })
}

fn any(bytes: &mut Bytes<'_>) -> proto::Any {
    let body = bytes.of("a=1", &["a=2", "b=1", "c=1", "a=bad", "b=bad", "?", "", "a=", "=a"]);
    proto::Any { type_url: url(bytes), value: body.into() }
}

fn ttl(bytes: &mut Bytes<'_>) -> Option<prost_types::Duration> {
    match bytes.byte() % 8 {
        0 => Some(prost_types::Duration { seconds: i64::from(bytes.byte()) - 20, nanos: 0 }),
        1 => Some(prost_types::Duration { seconds: i64::MAX, nanos: i32::MIN }),
        _ => None,
    }
}

fn wrapper(bytes: &mut Bytes<'_>) -> proto::Resource {
    proto::Resource {
        name: name(bytes),
        version: bytes.of("", &["1", "2"]).to_owned(),
        resource: (bytes.byte() % 8 != 7).then(|| any(bytes)),
        aliases: Vec::new(),
        ttl: ttl(bytes),
    }
}

fn error(bytes: &mut Bytes<'_>) -> proto::ResourceError {
    proto::ResourceError {
        resource_name: bytes.flag().then(|| proto::ResourceName { name: name(bytes) }),
        error_detail: bytes
            .flag()
            .then(|| proto::Status { code: i32::from(bytes.byte() % 20), message: "x".into() }),
    }
}

fn response(bytes: &mut Bytes<'_>) -> Response {
    let nonce = (bytes.byte() % 8).to_string();
    if bytes.flag() {
        return Response::Delta(proto::DeltaDiscoveryResponse {
            system_version_info: nonce.clone(),
            type_url: url(bytes),
            resources: bytes.several(4, wrapper),
            removed_resources: bytes.several(3, name),
            resource_errors: bytes.several(2, error),
            nonce,
            ..Default::default()
        });
    }
    let resource = |bytes: &mut Bytes<'_>| {
        if bytes.byte() % 4 != 3 {
            return any(bytes);
        }
        let value = prost::Message::encode_to_vec(&wrapper(bytes)).into();
        proto::Any { type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(), value }
    };
    Response::Sotw(proto::DiscoveryResponse {
        version_info: nonce.clone(),
        type_url: url(bytes),
        resources: bytes.several(4, resource),
        resource_errors: bytes.several(2, error),
        nonce,
        ..Default::default()
    })
}

/// Returns how deep the life led: answers to responses, and rejections among them.
pub(super) fn machine(data: &[u8]) -> Depth {
    let mut depth = Depth::default();
    let mut bytes = Bytes::new(data);
    let variant = bytes.of(Variant::Sotw, &[Variant::Delta]);
    let settings = Settings {
        server: "cp:1".into(),
        node: proto::Node { id: "me".into(), ..Default::default() },
        variant,
        fail_on_data_errors: bytes.flag(),
        timer_is_transient: bytes.flag(),
        backoff: BackoffSettings::default(),
        max_resource_bytes: 16,
        seed: u64::from(bytes.byte()),
    };
    let mut machine = Machine::new(Words, settings);
    let mut now = Instant::now();
    let mut watched: BTreeMap<Key, u32> = BTreeMap::new();
    // Types asked for on this stream.
    let mut asked = BTreeSet::new();
    while !bytes.is_empty() {
        let input = match bytes.byte() % 12 {
            0..3 => {
                let add = bytes.several(3, key);
                for key in &add {
                    *watched.entry(key.clone()).or_default() += 1;
                }
                let mut remove = bytes.several(3, key);
                remove.retain(|key| {
                    let count = watched.get_mut(key).filter(|count| **count > 0);
                    count.map(|count| *count -= 1).is_some()
                });
                Input::Interest { add, remove }
            }
            3..5 => Input::Opened,
            5 => Input::Established,
            6..9 => Input::Response(response(&mut bytes)),
            9 => match bytes.flag() {
                true => Input::Closed("gone".into()),
                false => Input::Unreadable("garbled".into()),
            },
            10 => {
                now += Duration::from_millis(u64::from(bytes.byte()) * 200);
                Input::Tick
            }
            _ => match bytes.byte() % 4 {
                0 => Input::Hangup,
                1 => Input::Forget(bytes.several(3, key)),
                2 => Input::Held,
                _ => Input::Resumed,
            },
        };
        watched.retain(|_, count| *count > 0);
        let ends = matches!(input, Input::Closed(_) | Input::Unreadable(_) | Input::Hangup);
        let answers = matches!(input, Input::Response(_));
        let was_open = machine.link().0;
        let out = machine.on(now, input);
        if ends && !machine.link().0 {
            asked.clear();
        }
        depth.answers += usize::from(answers && !out.requests.is_empty());
        depth.rejections += usize::from(out.rejected.is_some());
        assert!(out.requests.is_empty() || was_open || machine.link().0, "it sends without a stream");
        for request in &out.requests {
            let (url, names) = match (variant, request) {
                (Variant::Sotw, Request::Sotw(request)) => (&request.type_url, &request.resource_names),
                (Variant::Delta, Request::Delta(request)) => {
                    (&request.type_url, &request.resource_names_subscribe)
                }
                _ => unreachable!("a request of the other variant"),
            };
            // An empty first list would be a wildcard.
            assert!(!asked.insert(url.clone()) || !names.is_empty(), "a wildcard: {request:?}");
            let kind = ResourceType::from_url(url);
            assert!(kind.is_some(), "a type that was made up: {url}");
            let lists = names.iter().any(|name| name == WILDCARD);
            let wanted = kind.is_some_and(|kind| watched.contains_key(&(kind, WILDCARD.into())));
            assert!(!lists || wanted, "a wildcard: {request:?}");
        }
        for key in &out.changed {
            assert!(watched.contains_key(key), "{key:?} changed, and nobody watches it");
        }
        assert!(machine.deadline().is_none_or(|due| due > now), "time stands still");
        let listed = watched.keys().filter(|(_, name)| **name == *WILDCARD).map(|(kind, _)| {
            match machine.listing(*kind) {
                Known::Good { resource, .. } => {
                    assert!(
                        !resource.iter().any(|(name, _)| **name == *WILDCARD),
                        "the wildcard lists itself"
                    );
                    assert!(
                        resource.iter().all(|(_, one)| one.resource.is_some() || one.error.is_some()),
                        "nothing is listed"
                    );
                    resource.iter().filter(|(name, _)| !watched.contains_key(&(*kind, name.clone()))).count()
                }
                Known::Pending | Known::Bad(_) => 0,
            }
        });
        let listed: usize = listed.sum();
        assert_eq!(machine.status(|_| 0.0).len(), watched.len() + listed, "it keeps what nobody watches");
    }
    depth
}
