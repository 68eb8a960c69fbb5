//! Header changes, to and from protobuf.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use crate::{
    field_path::{Faults, Path},
    resource::{
        route::{AppendAction, HeaderAddition, HeaderMutation, HeaderMutations, HeaderName, HeaderValue},
        wire,
    },
};
use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue as HeaderValueProto, HeaderValueOption, header_value_option::HeaderAppendAction,
};

/// Headers of the gRPC transport, which no rule may touch.
const RESERVED: [&str; 5] = ["host", "content-type", "te", "connection", "transfer-encoding"];

/// The [`Protos`] of a message that has the four lists: a virtual host, a route or a weighted cluster.
macro_rules! protos {
    ($message:expr) => {
        $crate::resource::route::wire::headers::Protos {
            request_add: &$message.request_headers_to_add,
            request_remove: &$message.request_headers_to_remove,
            response_add: &$message.response_headers_to_add,
            response_remove: &$message.response_headers_to_remove,
        }
    };
}
pub(super) use protos;

/// The four lists of a level.
pub(super) struct Protos<'a> {
    pub(super) request_add: &'a [HeaderValueOption],
    pub(super) request_remove: &'a [String],
    pub(super) response_add: &'a [HeaderValueOption],
    pub(super) response_remove: &'a [String],
}

/// The four lists, encoded.
pub(super) struct Encoded {
    pub(super) request_add: Vec<HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
}

pub(super) fn parse(protos: Protos<'_>, at: &Path<'_>, faults: &mut Faults) -> Option<HeaderMutations> {
    let request_add = additions(protos.request_add, &at.field("request_headers_to_add"), faults);
    let request_remove = wire::every(
        protos.request_remove,
        &at.field("request_headers_to_remove"),
        faults,
        |text, at, faults| name(text, at, faults),
    );
    let response_add = additions(protos.response_add, &at.field("response_headers_to_add"), faults);
    let response_remove = wire::every(
        protos.response_remove,
        &at.field("response_headers_to_remove"),
        faults,
        |text, at, faults| name(text, at, faults),
    );
    Some(HeaderMutations {
        request: HeaderMutation { add: request_add?, remove: request_remove? },
        response: HeaderMutation { add: response_add?, remove: response_remove? },
    })
}

fn name(text: &str, at: &Path<'_>, faults: &mut Faults) -> Option<HeaderName> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with(':') || lower.starts_with("grpc-") || RESERVED.contains(&lower.as_str()) {
        return faults.reject(at, format_args!("`{text}` belongs to the transport and cannot be changed"));
    }
    faults.take(at, HeaderName::try_from(lower).map_err(|_| format!("`{text}` is not a header name")))
}

/// Envoy writes a percent sign as two; a single one begins a formatter.
fn literal(text: &str, at: &Path<'_>, faults: &mut Faults) -> Option<String> {
    let mut literal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        let Some(after) = after.strip_prefix('%') else {
            let reason = "Envoy's %…% formatters are not supported; write %% for a percent sign";
            return faults.reject(at, reason);
        };
        literal.push_str(before);
        literal.push('%');
        rest = after;
    }
    literal.push_str(rest);
    Some(literal)
}

pub(in crate::resource) fn additions(
    protos: &[HeaderValueOption],
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Vec<HeaderAddition>> {
    Some(wire::every(protos, at, faults, addition)?.into_iter().flatten().collect())
}

/// `Some(None)`: it has no value, and may not be without.
fn addition(proto: &HeaderValueOption, at: &Path<'_>, faults: &mut Faults) -> Option<Option<HeaderAddition>> {
    let header_at = at.field("header");
    let header = faults.required(&header_at, &proto.header)?;
    let name = name(&header.key, &header_at.field("key"), faults);
    let value_at = header_at.field("value");
    if !header.value.is_empty() && !header.raw_value.is_empty() {
        return faults.reject(&header_at.field("raw_value"), "excludes value");
    }
    let text = literal(&header.value, &value_at, faults)?;
    let bytes = if header.raw_value.is_empty() { text.as_bytes() } else { &header.raw_value };
    let value = HeaderValue::from_bytes(bytes).map_err(|_| "is not a header value");
    let value = faults.take(&value_at, value);
    let action = match (&proto.append, HeaderAppendAction::try_from(proto.append_action)) {
        // The deprecated field, where it is set.
        (Some(append), _) if append.value => AppendAction::AppendIfExistsOrAdd,
        (Some(_), _) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => AppendAction::AppendIfExistsOrAdd,
        (None, Ok(HeaderAppendAction::AddIfAbsent)) => AppendAction::AddIfAbsent,
        (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Ok(HeaderAppendAction::OverwriteIfExists)) => AppendAction::OverwriteIfExists,
        (None, Err(_)) => return faults.reject(&at.field("append_action"), "is unknown"),
    };
    let addition = HeaderAddition { name: name?, value: value?, action };
    Some((proto.keep_empty_value || !addition.value.is_empty()).then_some(addition))
}

pub(super) fn encode(headers: &HeaderMutations) -> Encoded {
    let add = |mutation: &HeaderMutation| encode_additions(&mutation.add);
    let remove = |mutation: &HeaderMutation| mutation.remove.iter().map(ToString::to_string).collect();
    Encoded {
        request_add: add(&headers.request),
        request_remove: remove(&headers.request),
        response_add: add(&headers.response),
        response_remove: remove(&headers.response),
    }
}

pub(in crate::resource) fn encode_additions(additions: &[HeaderAddition]) -> Vec<HeaderValueOption> {
    additions.iter().map(encode_addition).collect()
}

fn encode_addition(addition: &HeaderAddition) -> HeaderValueOption {
    let action = match addition.action {
        AppendAction::AppendIfExistsOrAdd => HeaderAppendAction::AppendIfExistsOrAdd,
        AppendAction::AddIfAbsent => HeaderAppendAction::AddIfAbsent,
        AppendAction::OverwriteIfExistsOrAdd => HeaderAppendAction::OverwriteIfExistsOrAdd,
        AppendAction::OverwriteIfExists => HeaderAppendAction::OverwriteIfExists,
    };
    let mut header = HeaderValueProto { key: addition.name.to_string(), ..Default::default() };
    match addition.value.to_str() {
        Ok(text) => header.value = text.replace('%', "%%"),
        Err(_) => header.raw_value = addition.value.as_bytes().to_vec(),
    }
    HeaderValueOption {
        header: Some(header),
        append_action: action.into(),
        keep_empty_value: true,
        ..Default::default()
    }
}
