//! The two forms of discovery messages, brought to one.

use crate::{
    name::{Name, ResourceType, canonical},
    printable::clip,
    proto,
};
use bytes::Bytes;
use prost::Message;
use std::{sync::Arc, time::Duration};

/// A request of either way.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// State of the world.
    Sotw(proto::DiscoveryRequest),
    /// Incremental.
    Delta(proto::DeltaDiscoveryRequest),
}

/// A response of either way.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// State of the world.
    Sotw(proto::DiscoveryResponse),
    /// Incremental.
    Delta(proto::DeltaDiscoveryResponse),
}

/// Type of the wrapper that a state-of-the-world response may put around a resource.
const WRAPPER_URL: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// Longest text of a NACK: it travels in a message with a size limit, and into logs.
const NACK_TEXT_LIMIT: usize = 16 * 1024;

/// gRPC's INVALID_ARGUMENT.
const INVALID_ARGUMENT: i32 = 3;

/// A response of a known type.
pub(super) struct Incoming {
    pub(super) kind: ResourceType,
    pub(super) version: Arc<str>,
    pub(super) nonce: String,
    pub(super) resources: Vec<IncomingResource>,
    pub(super) removed: Vec<Name>,
    pub(super) errors: Vec<IncomingError>,
    /// What is not in it does not exist.
    pub(super) complete: bool,
}

pub(super) struct IncomingResource {
    /// As the envelope names it.
    pub(super) name: Option<Name>,
    /// Its own version, if it has one.
    pub(super) version: Option<Arc<str>>,
    /// For how long it is good unless it is sent, or its heart beats, again.
    pub(super) ttl: Option<Duration>,
    /// The encoded resource, or why there is none.
    pub(super) body: Result<Content, String>,
}

pub(super) enum Content {
    Resource(Bytes),
    /// The resource of that name and version lives on.
    Heartbeat,
}

pub(super) struct IncomingError {
    pub(super) name: Name,
    pub(super) code: i32,
    pub(super) text: String,
}

impl Incoming {
    /// `None`: a type that is not ours, to which gRPC answers nothing.
    pub(super) fn read(response: Response) -> Option<Self> {
        match response {
            Response::Sotw(response) => {
                let kind = ResourceType::from_url(&response.type_url)?;
                Some(Self {
                    kind,
                    version: response.version_info.into(),
                    nonce: response.nonce,
                    resources: response.resources.into_iter().map(|any| unwrap(kind, any)).collect(),
                    removed: Vec::new(),
                    errors: errors(kind, response.resource_errors),
                    complete: kind.is_complete(),
                })
            }
            Response::Delta(response) => {
                let kind = ResourceType::from_url(&response.type_url)?;
                Some(Self {
                    kind,
                    version: response.system_version_info.into(),
                    nonce: response.nonce,
                    resources: response.resources.into_iter().map(|wrapper| named(kind, wrapper)).collect(),
                    removed: response
                        .removed_resources
                        .into_iter()
                        .map(|name| canonical(kind, &name.into()))
                        .collect(),
                    errors: errors(kind, response.resource_errors),
                    complete: false,
                })
            }
        }
    }
}

fn unwrap(kind: ResourceType, any: proto::Any) -> IncomingResource {
    if any.type_url == WRAPPER_URL {
        return match proto::Resource::decode(any.value) {
            Ok(wrapper) => named(kind, wrapper),
            Err(error) => {
                let body = Err(format!("its wrapper cannot be decoded: {error}"));
                IncomingResource { name: None, version: None, ttl: None, body }
            }
        };
    }
    IncomingResource { name: None, version: None, ttl: None, body: of_type(kind, any) }
}

fn named(kind: ResourceType, wrapper: proto::Resource) -> IncomingResource {
    let proto::Resource { name, version, resource, ttl, .. } = wrapper;
    let (ttl, fault) = match ttl.map(Duration::try_from) {
        None => (None, None),
        Some(Ok(ttl)) if !ttl.is_zero() => (Some(ttl), None),
        Some(_) => (None, Some("its ttl must be positive".to_owned())),
    };
    let body = match (fault, resource) {
        (Some(fault), _) => Err(fault),
        (None, Some(any)) => of_type(kind, any),
        (None, None) if ttl.is_some() && !name.is_empty() => Ok(Content::Heartbeat),
        (None, None) => Err("the wrapper is empty".to_owned()),
    };
    IncomingResource {
        name: (!name.is_empty()).then(|| canonical(kind, &name.into())),
        version: (!version.is_empty()).then(|| version.into()),
        ttl,
        body,
    }
}

fn of_type(kind: ResourceType, any: proto::Any) -> Result<Content, String> {
    if any.type_url == kind.url() {
        Ok(Content::Resource(any.value))
    } else {
        Err(format!("its type is {:?}, not {:?}", any.type_url, kind.url()))
    }
}

fn errors(kind: ResourceType, errors: Vec<proto::ResourceError>) -> Vec<IncomingError> {
    let errors = errors.into_iter().filter_map(|error| {
        let name = canonical(kind, &error.resource_name?.name.into());
        let proto::Status { code, message } = error.error_detail.unwrap_or_default();
        Some(IncomingError { name, code, text: message })
    });
    errors.collect()
}

/// Everything wrong with a response.
#[derive(Default)]
pub(super) struct Faults {
    lines: Vec<String>,
}

impl Faults {
    pub(super) fn add(&mut self, kind: ResourceType, name: Option<&Name>, why: &str) {
        self.lines.push(match name {
            Some(name) => format!("{kind} {name}: {why}"),
            None => format!("{kind} without a readable name: {why}"),
        });
    }

    /// The NACK, if there is a fault.
    pub(super) fn into_nack(self) -> Option<proto::Status> {
        let mut message = String::new();
        for (i, line) in self.lines.iter().enumerate() {
            if message.len() + line.len() > NACK_TEXT_LIMIT && i > 0 {
                message.push_str(&format!("\n… and {} more", self.lines.len() - i));
                break;
            }
            if i > 0 {
                message.push('\n');
            }
            message.push_str(&clip(line, NACK_TEXT_LIMIT));
        }
        (!self.lines.is_empty()).then_some(proto::Status { code: INVALID_ARGUMENT, message })
    }
}
