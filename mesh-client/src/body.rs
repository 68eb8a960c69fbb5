//! The bodies of a call: what is sent to an endpoint, and what comes back.
//!
//! Promises: no box of our own around either; the guards of an attempt (in-flight count, breaker permit) live in
//! the response body until the end of its stream, and its outcome is recorded exactly once: by the status in
//! headers or trailers, by an error, by the deadline, or as cancelled when the caller drops it.

use crate::{
    cluster::{failure, track::Tracking},
    retry::replay::ReplayBody,
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    fmt,
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
    incoming: Incoming,
    /// Gone after the end of the stream.
    tracking: Option<Tracking>,
}

impl TrackedBody {
    pub(crate) fn new(incoming: Incoming, tracking: Tracking) -> Self {
        Self { incoming, tracking: Some(tracking) }
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
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref()
                    && let Some(tracking) = this.tracking.take()
                {
                    tracking.finish_with_trailers(trailers);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let Some(tracking) = this.tracking.take() else { return Poll::Ready(None) };
                let status = failure::during_response(tracking.endpoint(), &error);
                tracking.finish_with_error(&error);
                Some(Err(status))
            }
            None => {
                if let Some(tracking) = this.tracking.take() {
                    tracking.finish_without_trailers();
                }
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        // A body that ended with its headers need not be polled.
        if let Some(tracking) = self.tracking.take() {
            if self.incoming.is_end_stream() {
                tracking.finish_without_trailers();
            } else {
                tracking.finish_dropped();
            }
        }
    }
}
