//! One stream: messages under way, and what both variants of a message say.

use super::lives::Beat;
use crate::{
    client::{Request, Response},
    name::ResourceType,
    proto,
};
use std::collections::VecDeque;

/// What is under way to the client.
pub(crate) enum Down {
    /// The server accepted the stream.
    Established,
    Response(Response),
    /// Hearts beat.
    Beat(Beat),
}

#[derive(Default)]
pub(crate) struct Transport {
    pub(crate) up: VecDeque<Request>,
    pub(crate) down: VecDeque<Down>,
}

impl Transport {
    /// Takes the next request; of a type, if there is one. The order within a type stays.
    pub(crate) fn take_up(&mut self, kind: Option<ResourceType>) -> Option<Request> {
        let at = kind.and_then(|kind| self.up.iter().position(|request| type_url(request) == kind.url()));
        // The first says who asks, and stays the first.
        let at = if self.up.front().is_some_and(has_node) { 0 } else { at.unwrap_or(0) };
        self.up.remove(at)
    }

    /// Takes the next message to the client; of a type, if there is one.
    pub(crate) fn take_down(&mut self, kind: Option<ResourceType>) -> Option<Down> {
        let of = |kind: ResourceType| {
            move |down: &Down| match down {
                Down::Established => false,
                Down::Response(response) => Said::of(response).type_url == kind.url(),
                Down::Beat(beat) => beat.kind == kind,
            }
        };
        let at = kind.and_then(|kind| self.down.iter().position(of(kind)));
        let at = if matches!(self.down.front(), Some(Down::Established)) { 0 } else { at.unwrap_or(0) };
        self.down.remove(at)
    }

    /// The next message is under way twice.
    pub(crate) fn duplicate(&mut self, to_server: bool) {
        if to_server {
            if let Some(request) = self.up.front().filter(|request| !has_node(request)).cloned() {
                self.up.push_front(request);
            }
        } else if let Some(Down::Response(response)) = self.down.front() {
            let response = response.clone();
            self.down.push_front(Down::Response(response));
        }
    }
}

pub(crate) fn type_url(request: &Request) -> &str {
    match request {
        Request::Sotw(request) => &request.type_url,
        Request::Delta(request) => &request.type_url,
    }
}

pub(crate) fn has_node(request: &Request) -> bool {
    match request {
        Request::Sotw(request) => request.node.is_some(),
        Request::Delta(request) => request.node.is_some(),
    }
}

/// What a request answers: the nonce, and whether it rejects.
pub(crate) fn answer(request: &Request) -> (&str, bool) {
    match request {
        Request::Sotw(request) => (&request.response_nonce, request.error_detail.is_some()),
        Request::Delta(request) => (&request.response_nonce, request.error_detail.is_some()),
    }
}

/// What a response says.
pub(crate) struct Said<'a> {
    pub(crate) type_url: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) version: &'a str,
    /// Names and values.
    pub(crate) resources: Vec<(&'a str, &'a str)>,
    pub(crate) removed: Vec<&'a str>,
}

/// The names of which a response says why they are not there.
fn refused(errors: &[proto::ResourceError]) -> impl Iterator<Item = &str> {
    errors.iter().filter_map(|error| Some(error.resource_name.as_ref()?.name.as_str()))
}

impl<'a> Said<'a> {
    pub(crate) fn of(response: &'a Response) -> Self {
        match response {
            Response::Sotw(r) => Self {
                type_url: &r.type_url,
                nonce: &r.nonce,
                version: &r.version_info,
                resources: r.resources.iter().map(toy).collect(),
                removed: refused(&r.resource_errors).collect(),
            },
            Response::Delta(r) => Self {
                type_url: &r.type_url,
                nonce: &r.nonce,
                version: &r.system_version_info,
                resources: r.resources.iter().map(|r| toy(r.resource.as_ref().unwrap())).collect(),
                removed: r
                    .removed_resources
                    .iter()
                    .map(String::as_str)
                    .chain(refused(&r.resource_errors))
                    .collect(),
            },
        }
    }

    pub(crate) fn is_bad(&self) -> bool {
        self.resources.iter().any(|(_, value)| value.starts_with("bad"))
    }

    pub(crate) fn kind(&self) -> ResourceType {
        ResourceType::from_url(self.type_url).unwrap()
    }
}

fn toy(any: &proto::Any) -> (&str, &str) {
    std::str::from_utf8(&any.value).unwrap().split_once('=').unwrap()
}
