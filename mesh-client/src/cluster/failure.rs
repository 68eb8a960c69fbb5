//! Why an attempt failed: the status that a caller sees, and what a retry may make of it.

use super::AttemptErrorKind;
use crate::endpoint::Endpoint;
use h2::Reason;
use std::{error::Error, fmt::Write};
use tonic::{Code, Status};

/// What an error of hyper says about a request that was handed to a connection.
pub(crate) fn classify(error: &hyper::Error) -> AttemptErrorKind {
    match h2_error(error) {
        // A remote GOAWAY is only reported to streams that the peer said it did not process.
        Some(error) if error.is_go_away() && error.is_remote() => AttemptErrorKind::RefusedStream,
        Some(error) if error.reason() == Some(Reason::REFUSED_STREAM) => AttemptErrorKind::RefusedStream,
        _ if is_own_reset(error) => AttemptErrorKind::RequestBody,
        _ => AttemptErrorKind::Reset,
    }
}

/// The stream was reset on this side, because the request's body failed: no fault of the endpoint.
pub(crate) fn is_own_reset(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| error.is_reset() && !error.is_remote() && !error.is_library())
}

/// The status of an attempt whose response never came.
pub(crate) fn before_response(endpoint: &Endpoint, error: &hyper::Error) -> Status {
    status(endpoint, "", error)
}

/// The status of a response that broke off.
pub(crate) fn during_response(endpoint: &Endpoint, error: &hyper::Error) -> Status {
    status(endpoint, "response broke off: ", error)
}

fn status(endpoint: &Endpoint, what: &str, error: &hyper::Error) -> Status {
    let (cluster, address) = (&endpoint.cluster, endpoint.address);
    if is_own_reset(error) {
        return Status::cancelled(format!(
            "cluster {cluster}: endpoint {address}: the request's body failed"
        ));
    }
    let mut message = format!("cluster {cluster}: endpoint {address}: {what}{error}");
    let mut source = error.source();
    while let Some(inner) = source {
        let _ = write!(message, ": {inner}");
        source = inner.source();
    }
    Status::new(code(error), message)
}

/// gRPC over HTTP/2's table of error codes; a lost connection is UNAVAILABLE.
fn code(error: &hyper::Error) -> Code {
    let Some(error) = h2_error(error) else { return Code::Unavailable };
    if error.is_go_away() || error.is_io() {
        return Code::Unavailable;
    }
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(Reason::CANCEL) => Code::Cancelled,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        Some(Reason::HTTP_1_1_REQUIRED) => Code::Unknown,
        Some(_) => Code::Internal,
        None => Code::Unavailable,
    }
}

fn h2_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a h2::Error> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return Some(error);
        }
        source = error.source();
    }
    None
}
