//! Responses with any resources, taken by a client that watches all of them, by their names or by the wildcard; and
//! any file of the last known good configuration.

use super::{
    BackoffSettings, Input, Known, Machine, Request, ResourceState, Resources, Response, Settings, store,
};
use crate::{
    fuzzing::context,
    name::{Name, ResourceType, WILDCARD},
    proto,
    resource::name_of,
    server::Variant,
};
use prost::Message;
use std::{collections::BTreeSet, time::Instant};

/// More of one response are not watched.
const WATCHED: usize = 32;

pub(crate) fn response(variant: Variant, data: &[u8]) {
    let Some((flags, data)) = data.split_first() else { return };
    let response = match variant {
        Variant::Sotw => proto::DiscoveryResponse::decode(data).map(Response::Sotw),
        Variant::Delta => proto::DeltaDiscoveryResponse::decode(data).map(Response::Delta),
    };
    let Ok(response) = response else { return };
    let (url, names): (_, BTreeSet<Name>) = match &response {
        Response::Sotw(response) => (
            &response.type_url,
            response.resources.iter().filter_map(|any| name_of(&any.value)).take(WATCHED).collect(),
        ),
        Response::Delta(response) => {
            let resources = response.resources.iter().map(|resource| &resource.name);
            let names = resources.chain(&response.removed_resources).filter(|name| !name.is_empty());
            (&response.type_url, names.take(WATCHED).map(|name| name.as_str().into()).collect())
        }
    };
    let Some(kind) = ResourceType::from_url(url) else { return };
    let settings = Settings {
        server: "cp:1".into(),
        node: proto::Node { id: "me".into(), ..Default::default() },
        variant,
        fail_on_data_errors: flags & 1 == 1,
        timer_is_transient: flags & 2 == 2,
        backoff: BackoffSettings::default(),
        max_resource_bytes: if flags & 4 == 4 { 64 } else { 1 << 20 },
        seed: 0,
    };
    let mut machine = Machine::new(Resources { context: context() }, settings);
    let now = Instant::now();
    let other = (kind, Name::from("another"));
    let lists = flags & 8 == 8 && kind.has_wildcard();
    let all = lists.then(|| (kind, Name::from(WILDCARD)));
    let named = names.iter().filter(|name| flags & 16 == 0 && ***name != *WILDCARD);
    let keys: BTreeSet<_> = named.map(|name| (kind, name.clone())).chain([other]).chain(all).collect();
    machine.on(now, Input::Interest { add: keys.iter().cloned().collect(), remove: Vec::new() });
    machine.on(now, Input::Opened);
    machine.on(now, Input::Established);
    let first = machine.on(now, Input::Response(response.clone()));
    assert!(first.changed.is_subset(&keys), "something changed that nobody watches");
    let [answer] = first.requests.as_slice() else {
        assert!(first.requests.is_empty(), "a response has one answer");
        return;
    };
    let (error, size) = match answer {
        Request::Sotw(request) => (&request.error_detail, request.encoded_len()),
        Request::Delta(request) => (&request.error_detail, request.encoded_len()),
    };
    assert!(size < 64 * 1024 + data.len(), "an answer of {size} bytes to a response of {}", data.len());
    let nacked = machine.status(|_| 0.0).iter().any(|status| matches!(status.state, ResourceState::Nacked));
    assert!(!nacked || error.is_some(), "what was rejected is acknowledged");
    // The same once more changes nothing. (A heart-beat before its resource is wrong only the first time.)
    let known = |machine: &Machine<Resources>| {
        let known = |(kind, name): &(ResourceType, Name)| machine.known(*kind, name);
        (keys.iter().map(known).collect::<Vec<Known<_>>>(), lists.then(|| machine.listing(kind)))
    };
    let before = known(&machine);
    if let Some(listing) = &before.1 {
        assert!(!matches!(listing, Known::Pending), "an answer is no answer");
    }
    let again = machine.on(now, Input::Response(response));
    assert_eq!(again.requests.len(), 1, "a response has one answer");
    assert!(first.rejected.is_some() || again.rejected.is_none(), "what was accepted is rejected");
    assert!(known(&machine) == before, "the same means something else");
}

/// A file with this content, and the hash of it.
pub(crate) fn cache_file(data: &[u8]) {
    for (kind, body) in store::reread(data) {
        let _ = crate::resource::AnyResource::parse(kind, &body, &context());
    }
}

/// The content of a file with these resources.
#[cfg(test)]
pub(crate) fn cache_content(resources: Vec<(ResourceType, Name, bytes::Bytes)>) -> Vec<u8> {
    store::content(resources)
}
