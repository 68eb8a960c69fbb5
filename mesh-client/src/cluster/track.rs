//! The guards of an attempt and its outcome, from the moment a stream is reserved to the end of the response.

use super::{AttemptError, AttemptErrorKind, answer, breaker::Permit, failure, outcome::Outcome};
use crate::endpoint::{Endpoint, conn::Stream};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, StatusCode};
use mesh_xds::{
    lrs::InProgress,
    orca::{self, LoadReport},
};
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Binary headers are written without padding and read with or without (gRPC over HTTP/2).
pub(crate) const BINARY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Holds one stream and one request of the breaker; records an outcome once, at the latest when dropped.
#[derive(Debug)]
pub(crate) struct Tracking {
    stream: Stream,
    _permit: Permit,
    deadline: Option<Instant>,
    recorded: bool,
    /// Present while the control plane wants to know.
    load: Option<InProgress>,
}

impl Tracking {
    pub(crate) fn new(stream: Stream, permit: Permit, deadline: Option<Instant>) -> Self {
        let load = stream.endpoint().begin_counting();
        Self { stream, _permit: permit, deadline, recorded: false, load }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        self.stream.endpoint()
    }

    /// Response headers came; if they say how it ended, that is it. What is wrong with them is put right. `ends`: until
    /// when the rest may come.
    pub(crate) fn on_headers(&mut self, status: StatusCode, headers: &mut HeaderMap, ends: Option<Instant>) {
        self.deadline = ends;
        let code = answer::headers(self.endpoint(), status, headers);
        if status != StatusCode::OK {
            self.record(Outcome::Http(status.as_u16()));
        } else if let Some(code) = code {
            self.read_load(headers);
            self.record(Outcome::Status(code));
        }
    }

    /// The response ended with these; what is wrong with them is put right.
    pub(crate) fn finish_with_trailers(mut self, trailers: &mut HeaderMap) {
        let code = (!self.recorded).then(|| answer::ending(self.endpoint(), trailers));
        self.read_load(trailers);
        if let Some(code) = code {
            self.record(Outcome::Status(code));
        }
    }

    /// gRPC: an answer without status is status UNKNOWN. What stands for its trailers, if it needs any.
    pub(crate) fn finish_without_trailers(mut self) -> Option<HeaderMap> {
        let missing = (!self.recorded).then(|| answer::missing(self.endpoint()));
        self.record(Outcome::Status(Code::Unknown));
        missing
    }

    /// It is known how it ended.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded
    }

    pub(crate) fn finish_with_error(mut self, error: &h2::Error) {
        self.record(if failure::is_own_reset(error) { Outcome::Cancelled } else { Outcome::Reset });
    }

    /// The attempt failed before there was a response; `number` is its request's on the connection.
    pub(crate) fn failed(self, number: u64, error: &h2::Error) -> AttemptError {
        let status = failure::before_response(&self.stream, error);
        let mut kind = failure::classify(error);
        if kind == AttemptErrorKind::Reset && !self.stream.may_have_arrived(number) {
            kind = AttemptErrorKind::NeverSent;
            self.finish_unsent();
        } else {
            self.finish_with_error(error);
        }
        AttemptError { status, kind, request: None, spare: None }
    }

    /// There was no response in time.
    pub(crate) fn late(mut self) -> AttemptError {
        self.record(Outcome::TimedOut);
        let Endpoint { cluster, address, .. } = &**self.endpoint();
        let status = Status::deadline_exceeded(format!(
            "cluster {cluster}: endpoint {address}: no response before the deadline"
        ));
        AttemptError { status, kind: AttemptErrorKind::DeadlineExceeded, request: None, spare: None }
    }

    /// It never reached the endpoint.
    pub(crate) fn finish_unsent(mut self) {
        self.recorded = true;
    }

    /// The rest of the response did not come in time.
    pub(crate) fn finish_late(mut self) {
        self.record(Outcome::TimedOut);
    }

    /// The caller let go: because the time was over, or for reasons of its own.
    pub(crate) fn finish_dropped(self) {
        drop(self);
    }

    fn record(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.recorded, true) {
            self.stream.record(outcome);
            if let Some(load) = self.load.take() {
                load.end(outcome == Outcome::Status(Code::Ok));
            }
        }
    }

    /// What the endpoint says of its own load, if that is reported (gRFC A64, A85) or balances calls (A58).
    fn read_load(&self, trailers: &HeaderMap) {
        let locality = self.load.as_ref().and_then(InProgress::locality);
        let locality = locality.filter(|locality| locality.wants_metrics());
        let weighs = self.endpoint().load_weight().comes_with_calls();
        if locality.is_none() && !weighs {
            return;
        }
        let decoded = trailers.get(orca::TRAILER).and_then(|value| BINARY.decode(value.as_bytes()).ok());
        if let Some(report) = decoded.and_then(|bytes| LoadReport::parse(&bytes)) {
            if let Some(locality) = locality {
                locality.add(&report);
            }
            if weighs {
                self.endpoint().report(&report);
            }
        }
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        if !self.recorded {
            let late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
            self.record(if late { Outcome::TimedOut } else { Outcome::Cancelled });
        }
    }
}
