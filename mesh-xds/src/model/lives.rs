//! Times to live, which our own server does not set: a control plane in between sets those of some values, and lets
//! hearts beat. Judges that nothing is used beyond its time, and nothing given up before.

use super::{scripts::fail, server::version, transport::Said};
use crate::{
    client::{Known, Response},
    name::{Name, ResourceType},
    proto,
    server::Variant,
};
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

type Key = (ResourceType, Name);

/// Whether a value is sent with a time to live.
fn lives(value: &str) -> bool {
    value.strip_prefix('v').and_then(|number| number.parse::<u8>().ok()).is_some_and(|number| number % 2 == 0)
}

/// Resources by name and value, of which the hearts beat.
#[derive(Clone)]
pub(crate) struct Beat {
    pub(super) kind: ResourceType,
    pub(super) nonce: String,
    pub(super) version: String,
    pub(super) all: Vec<(Name, Arc<str>)>,
}

impl Beat {
    /// What the client is sent. A response that has to be complete repeats what has no time to live.
    pub(super) fn response(&self, variant: Variant, ttl: Duration) -> Response {
        let Self { kind, nonce, version: revision, all } = self;
        let wrap = |(name, value): &(Name, Arc<str>)| {
            let version = if variant == Variant::Delta { version(value).to_string() } else { String::new() };
            let ttl = ttl.try_into().unwrap();
            proto::Resource { name: name.to_string(), version, ttl: Some(ttl), ..Default::default() }
        };
        if variant == Variant::Delta {
            return Response::Delta(proto::DeltaDiscoveryResponse {
                system_version_info: revision.clone(),
                resources: all.iter().map(wrap).collect(),
                type_url: kind.url().into(),
                nonce: nonce.clone(),
                ..Default::default()
            });
        }
        let one = |pair: &(Name, Arc<str>)| match pair {
            (_, value) if lives(value) => wrapped(&wrap(pair)),
            (name, value) => proto::Any {
                type_url: kind.url().into(),
                value: format!("{name}={value}").into_bytes().into(),
            },
        };
        Response::Sotw(proto::DiscoveryResponse {
            version_info: revision.clone(),
            resources: all.iter().map(one).collect(),
            type_url: kind.url().into(),
            nonce: nonce.clone(),
            ..Default::default()
        })
    }

    /// Of those that are sent, what says something: whose hearts beat, or all in a complete response.
    pub(super) fn of(
        variant: Variant,
        kind: ResourceType,
        all: Vec<(Name, Arc<str>)>,
    ) -> Vec<(Name, Arc<str>)> {
        if !all.iter().any(|(_, value)| lives(value)) {
            return Vec::new();
        }
        let is_complete = variant == Variant::Sotw && kind.is_complete();
        all.into_iter().filter(|(_, value)| is_complete || lives(value)).collect()
    }
}

fn wrapped(resource: &proto::Resource) -> proto::Any {
    let type_url = "type.googleapis.com/envoy.service.discovery.v3.Resource".into();
    proto::Any { type_url, value: resource.encode_to_vec().into() }
}

/// When what the client holds ends.
pub(super) struct Lives {
    pub(super) ttl: Option<Duration>,
    ends: BTreeMap<Key, Instant>,
}

impl Lives {
    pub(super) fn new(seconds: u8) -> Self {
        let ttl = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        Self { ttl, ends: BTreeMap::new() }
    }

    /// A response as it reaches the client.
    pub(super) fn dress(&self, response: Response) -> Response {
        let Some(ttl) = self.ttl else { return response };
        let ttl: Option<prost_types::Duration> = Some(ttl.try_into().unwrap());
        match response {
            Response::Delta(mut response) => {
                for resource in &mut response.resources {
                    let body = &resource.resource.as_ref().unwrap().value;
                    if lives(std::str::from_utf8(body).unwrap().split_once('=').unwrap().1) {
                        resource.ttl = ttl;
                    }
                }
                Response::Delta(response)
            }
            Response::Sotw(mut response) => {
                for any in &mut response.resources {
                    let body = any.value.clone();
                    let (name, value) = std::str::from_utf8(&body).unwrap().split_once('=').unwrap();
                    if lives(value) {
                        let resource = Some(any.clone());
                        let name = name.into();
                        *any = wrapped(&proto::Resource { name, resource, ttl, ..Default::default() });
                    }
                }
                Response::Sotw(response)
            }
        }
    }

    /// The client took a response.
    pub(super) fn took(&mut self, said: &Said<'_>, now: Instant) {
        let Some(ttl) = self.ttl else { return };
        for (name, value) in said.resources.iter().filter(|(_, value)| !value.starts_with("bad")) {
            let key = (said.kind(), Name::from(*name));
            if lives(value) {
                self.ends.insert(key, now + ttl);
            } else {
                self.ends.remove(&key);
            }
        }
    }

    /// The client is about to hear hearts beat. Whether it has to object: to those of what it does not have.
    pub(super) fn beats(
        &mut self,
        variant: Variant,
        beat: &Beat,
        now: Instant,
        known: impl Fn(&Name) -> Option<Known<Arc<str>>>,
        lapsed: impl Fn(&Name) -> Option<Arc<str>>,
    ) -> bool {
        let mut objects = false;
        for (name, value) in &beat.all {
            let key = (beat.kind, name.clone());
            if !lives(value) {
                if value.starts_with("bad") {
                    objects = true;
                } else {
                    self.ends.remove(&key);
                }
                continue;
            }
            match known(name) {
                // What nobody watches any more dies all the same.
                None => {}
                Some(Known::Good { resource, .. }) if variant == Variant::Sotw || resource == *value => {
                    self.ends.insert(key, now + self.ttl.unwrap());
                }
                Some(Known::Good { .. }) => objects = true,
                // It ended, and lives again.
                Some(_) if lapsed(name).is_some_and(|last| variant == Variant::Sotw || last == *value) => {
                    self.ends.insert(key, now + self.ttl.unwrap());
                }
                Some(_) => objects = true,
            }
        }
        objects
    }

    /// Whether the time of a resource is over.
    pub(super) fn is_over(&self, key: &Key, now: Instant) -> bool {
        self.ends.get(key).is_some_and(|end| *end <= now)
    }

    /// Nothing is used beyond its time.
    pub(super) fn judge(&mut self, key: &Key, known: &Known<Arc<str>>, now: Instant) {
        if !matches!(known, Known::Good { .. }) {
            self.ends.remove(key);
        } else if self.is_over(key, now) {
            fail(format!("{} {} is used beyond its time: {known:?}", key.0, key.1));
        }
    }

    /// Whether a value is one that has ended when everything has.
    pub(super) fn has_ended(&self, value: &str) -> bool {
        self.ttl.is_some() && lives(value)
    }

    pub(super) fn forget(&mut self) {
        self.ends.clear();
    }
}
