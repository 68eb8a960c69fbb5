//! A toy resource for tests of the protocol: `name=value`, where the value `bad` is rejected.

use super::machine::{Machine, Parse, Settings, Unparsable};
use crate::{
    client::BackoffSettings,
    name::{Name, ResourceType},
    proto,
    server::Variant,
};
use bytes::Bytes;
use std::sync::Arc;

pub(crate) struct Toy;

impl Parse for Toy {
    type Resource = Arc<str>;

    fn parse(&self, _: ResourceType, body: &Bytes) -> Result<(Name, Arc<str>), Unparsable> {
        let text = std::str::from_utf8(body).unwrap();
        let Some((name, value)) = text.split_once('=') else {
            return Err(Unparsable { name: None, why: format!("unreadable {text}") });
        };
        assert!(value != "panic", "the toy parser was told to panic");
        if value.starts_with("bad") {
            return Err(Unparsable { name: Some(name.into()), why: format!("{value} is bad") });
        }
        Ok((name.into(), value.into()))
    }

    fn name_of(&self, body: &Bytes) -> Option<Name> {
        let (name, _) = std::str::from_utf8(body).ok()?.split_once('=')?;
        Some(name.into())
    }
}

pub(crate) fn settings(variant: Variant) -> Settings {
    Settings {
        server: "cp:1".into(),
        node: proto::Node { id: "me".into(), ..Default::default() },
        variant,
        fail_on_data_errors: false,
        timer_is_transient: false,
        backoff: BackoffSettings::default(),
        max_resource_bytes: 100,
        seed: 7,
    }
}

pub(crate) fn machine(variant: Variant) -> Machine<Toy> {
    Machine::new(Toy, settings(variant))
}

pub(crate) fn any(kind: ResourceType, body: &str) -> proto::Any {
    proto::Any { type_url: kind.url().into(), value: Bytes::copy_from_slice(body.as_bytes()) }
}

pub(crate) fn wrapper(kind: ResourceType, name: &str, version: &str, body: &str) -> proto::Resource {
    proto::Resource {
        name: name.into(),
        version: version.into(),
        resource: Some(any(kind, body)),
        aliases: vec![],
        ttl: None,
    }
}

/// What is wrong with a resource, as a control plane says it (xRFC TP3).
pub(crate) fn resource_error(name: &str, code: i32, text: &str) -> proto::ResourceError {
    proto::ResourceError {
        resource_name: Some(proto::ResourceName { name: name.into() }),
        error_detail: Some(proto::Status { code, message: text.into() }),
    }
}
