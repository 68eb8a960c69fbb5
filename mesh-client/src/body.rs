//! The bodies of a call: what is sent to an endpoint, and what comes back.
//!
//! Promises: no box of our own around either; the guards of an attempt (in-flight count, breaker permit) live in
//! the response body until the end of its stream, and its outcome is recorded exactly once: by the status in
//! headers or trailers, by an error, by the deadline, or as cancelled when the caller drops it.

use crate::{
    call::{Late, Place},
    cluster::{failure, track::Tracking},
    endpoint::{Endpoint, pump::Pumping},
    retry::replay::ReplayBody,
};
use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};
use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::Status;

/// The body of a request on its way to an endpoint.
pub(crate) enum CallBody {
    /// The caller's, sent once.
    Tonic(tonic::body::Body),
    /// The caller's, which may be sent again.
    Replay(ReplayBody),
}

impl fmt::Debug for CallBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tonic(_) => f.write_str("Tonic"),
            Self::Replay(body) => body.fmt(f),
        }
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Tonic(body) => Pin::new(body).poll_frame(cx),
            Self::Replay(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Tonic(body) => body.is_end_stream(),
            Self::Replay(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Tonic(body) => body.size_hint(),
            Self::Replay(body) => body.size_hint(),
        }
    }
}

/// The body of a response; holds the guards of its attempt until its end.
pub(crate) struct TrackedBody {
    incoming: RecvStream,
    /// Only trailers are left.
    data_ended: bool,
    /// Gone after the end of the stream.
    tracking: Option<Tracking>,
    /// The rest of the request, sent for as long as the response is wanted.
    _pumping: Pumping,
}

impl TrackedBody {
    pub(crate) fn new(incoming: RecvStream, tracking: Tracking, pumping: Pumping) -> Self {
        Self { incoming, data_ended: false, tracking: Some(tracking), _pumping: pumping }
    }

    fn failed(&mut self, error: &h2::Error) -> Option<Result<Frame<Bytes>, Status>> {
        // An answer that ends before the request does (RFC 9113, 8.1): no failure, if it is complete.
        if error.reason() == Some(Reason::NO_ERROR) {
            return self.ended();
        }
        let tracking = self.tracking.take()?;
        let status = failure::during_response(tracking.stream(), error);
        tracking.finish_with_error(error);
        Some(Err(status))
    }

    fn ended(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        let missing = self.tracking.take()?.finish_without_trailers();
        missing.map(|trailers| Ok(Frame::trailers(trailers)))
    }
}

impl Late for TrackedBody {
    fn late(mut self) -> String {
        let Some(tracking) = self.tracking.take() else { return String::new() };
        let Endpoint { cluster, address, .. } = &**tracking.endpoint();
        let place = format!("cluster {cluster}: endpoint {address}: ");
        tracking.finish_late();
        place
    }
}

impl Place for TrackedBody {
    fn endpoint(&self) -> Option<SocketAddr> {
        self.tracking.as_ref().map(|tracking| tracking.endpoint().address)
    }
}

impl fmt::Debug for TrackedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedBody").field("tracking", &self.tracking).finish()
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        if !this.data_ended {
            match ready!(this.incoming.poll_data(cx)) {
                Some(Ok(data)) => {
                    // What is here is with the caller, who asks for more when it wants more.
                    let _ = this.incoming.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(this.failed(&error)),
                None => this.data_ended = true,
            }
        }
        if this.tracking.is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(this.incoming.poll_trailers(cx)) {
            Ok(Some(mut trailers)) => {
                if let Some(tracking) = this.tracking.take() {
                    tracking.finish_with_trailers(&mut trailers);
                }
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(None) => this.ended(),
            Err(error) => this.failed(&error),
        })
    }

    fn is_end_stream(&self) -> bool {
        // The status that is missing is still to be said.
        self.incoming.is_end_stream() && self.tracking.as_ref().is_none_or(Tracking::is_recorded)
    }

    fn size_hint(&self) -> SizeHint {
        if self.incoming.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        // A body that ended with its headers need not be polled.
        if let Some(tracking) = self.tracking.take() {
            if self.incoming.is_end_stream() {
                let _ = tracking.finish_without_trailers();
            } else {
                tracking.finish_dropped();
            }
        }
    }
}
