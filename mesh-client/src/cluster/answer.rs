//! How an endpoint's answer ends, made sound before anybody reads it.
//!
//! Promises: every answer has a status that the caller's decoder can read. One that is missing, or is none, becomes
//! the status that gRPC says, and names the endpoint; what cannot be decoded of a message is replaced, of details
//! left out (a decoder may panic of them). What is sound stays as it came.

use super::track::BINARY;
use crate::{endpoint::Endpoint, retry::policy};
use base64::Engine as _;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, HeaderName},
};
use percent_encoding::percent_decode;
use tonic::{Code, Status};

/// Lookups by a name that is text parse it first, at several times the cost.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// The headers of a response. The status that they have, if they end it.
pub(crate) fn headers(endpoint: &Endpoint, status: StatusCode, headers: &mut HeaderMap) -> Option<Code> {
    if headers.contains_key(GRPC_STATUS) {
        return Some(ending(endpoint, headers));
    }
    if status != StatusCode::OK {
        let code = policy::of_http(status.as_u16());
        say(endpoint, code, &format!("HTTP status {status}, without a grpc-status"), headers);
        return Some(code);
    }
    let kind = headers.get(CONTENT_TYPE)?;
    if kind.as_bytes().starts_with(b"application/grpc") {
        return None;
    }
    let what = format!("its answer is no gRPC: content-type {kind:?}");
    say(endpoint, Code::Unknown, &what, headers);
    Some(Code::Unknown)
}

/// Trailers, or headers that have a status. The status they have.
pub(crate) fn ending(endpoint: &Endpoint, trailers: &mut HeaderMap) -> Code {
    let Some(status) = trailers.get(GRPC_STATUS) else {
        say(endpoint, Code::Unknown, "the response ended without a grpc-status", trailers);
        return Code::Unknown;
    };
    let known = is_code(status.as_bytes());
    let code = if known { Code::from_bytes(status.as_bytes()) } else { Code::Unknown };
    if known && trailers.len() == 1 {
        return code;
    }
    let wrong = (!known).then(|| format!("the response ended with grpc-status {status:?}, which is no code"));
    if let Some(message) = trailers.get(MESSAGE)
        && let Err(lossy) = decode(message)
    {
        say_as_is(code, &lossy, trailers);
    }
    let details = trailers.get(DETAILS);
    if details.is_some_and(|details| BINARY.decode(details.as_bytes()).is_err()) {
        trailers.remove(DETAILS);
    }
    if let Some(wrong) = wrong {
        let message = trailers.get(MESSAGE).and_then(|message| decode(message).ok());
        let message = message.map(|message| format!(": {message}")).unwrap_or_default();
        say(endpoint, Code::Unknown, &format!("{wrong}{message}"), trailers);
    }
    code
}

/// What stands for the trailers of a response that had none.
pub(crate) fn missing(endpoint: &Endpoint) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    ending(endpoint, &mut trailers);
    trailers
}

/// A number that gRPC gives a meaning; in decimal, without leading zeros.
fn is_code(value: &[u8]) -> bool {
    matches!(value, [b'0'..=b'9'] | [b'1', b'0'..=b'6'])
}

/// The text of a `grpc-message`, or what of it is text.
fn decode(message: &HeaderValue) -> Result<String, String> {
    let decoded = percent_decode(message.as_bytes());
    match decoded.decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(percent_decode(message.as_bytes()).decode_utf8_lossy().into_owned()),
    }
}

fn say(endpoint: &Endpoint, code: Code, what: &str, map: &mut HeaderMap) {
    let Endpoint { cluster, address, .. } = endpoint;
    say_as_is(code, &format!("cluster {cluster}: endpoint {address}: {what}"), map);
}

fn say_as_is(code: Code, message: &str, map: &mut HeaderMap) {
    // Without details and metadata there is nothing that could be refused.
    let _ = Status::new(code, message).add_header(map);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_grpc_and_no_others() {
        let known = (0..200).filter(|code: &u32| is_code(code.to_string().as_bytes()));
        assert!(known.eq(0..=16));
        for wrong in ["", "00", "05", "-1", "x", "1x", "0 ", "100"] {
            assert!(!is_code(wrong.as_bytes()), "{wrong}");
        }
    }
}
