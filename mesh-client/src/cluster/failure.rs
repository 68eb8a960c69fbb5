//! Why an attempt failed: the status that a caller sees, and what a retry may make of it.

use super::AttemptErrorKind;
use crate::endpoint::{Endpoint, conn::Stream};
use h2::Reason;
use std::{error::Error, fmt::Write};
use tonic::{Code, Status};

/// What an error says about a request that was handed to a connection.
pub(crate) fn classify(error: &h2::Error) -> AttemptErrorKind {
    // Only the peer can say that it has not processed a stream. A remote GOAWAY is only reported to streams of which
    // it said so.
    if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
        AttemptErrorKind::RefusedStream
    } else if is_misuse(error) || is_own_reset(error) {
        AttemptErrorKind::RequestBody
    } else {
        AttemptErrorKind::Reset
    }
}

/// The stream was reset on this side, because the request's body failed: no fault of the endpoint.
pub(crate) fn is_own_reset(error: &h2::Error) -> bool {
    error.is_reset() && !error.is_remote() && !error.is_library()
}

/// h2 does not take such a request, from nobody and on no connection.
pub(crate) fn is_misuse(error: &h2::Error) -> bool {
    error.reason().is_none() && !error.is_io()
}

/// The status of an attempt whose response never came.
pub(crate) fn before_response(stream: &Stream, error: &h2::Error) -> Status {
    status(stream, "", error)
}

/// The status of a response that broke off.
pub(crate) fn during_response(stream: &Stream, error: &h2::Error) -> Status {
    status(stream, "response broke off: ", error)
}

fn status(stream: &Stream, what: &str, error: &h2::Error) -> Status {
    let Endpoint { cluster, address, .. } = &**stream.endpoint();
    if is_own_reset(error) {
        return Status::cancelled(format!(
            "cluster {cluster}: endpoint {address}: the request's body failed"
        ));
    }
    // Of a connection that was ended here h2 only knows that it is no more.
    if let Some(fate) = stream.fate().filter(|_| error.is_io()) {
        return Status::unavailable(format!("cluster {cluster}: endpoint {address}: {what}{fate}"));
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
fn code(error: &h2::Error) -> Code {
    if error.is_go_away() || error.is_io() {
        return Code::Unavailable;
    }
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(Reason::CANCEL) => Code::Cancelled,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        Some(Reason::HTTP_1_1_REQUIRED) => Code::Unknown,
        Some(_) | None => Code::Internal,
    }
}
