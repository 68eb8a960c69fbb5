//! Whether a stream has ended, as the transport sees it.
//!
//! tonic reports a response that it cannot read as it reports a status of the server. Who is at fault matters: what
//! cannot be read once will be sent again on the next stream. While the transport has seen no end, it was found here.

use http_body::{Body, Frame, SizeHint};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};
use tonic::transport::{self, Channel};
use tower_service::Service;

/// Told when the one stream of a [`Noting`] has ended.
#[derive(Clone, Default)]
pub(super) struct Ended(Arc<AtomicBool>);

impl Ended {
    pub(super) fn is_noted(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A channel for one stream, whose end is noted.
pub(super) struct Noting {
    channel: Channel,
    ended: Ended,
}

impl Noting {
    pub(super) fn new(channel: Channel) -> (Self, Ended) {
        let ended = Ended::default();
        (Self { channel, ended: ended.clone() }, ended)
    }
}

impl Service<http::Request<tonic::body::Body>> for Noting {
    type Response = http::Response<Noted>;
    type Error = transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let (response, ended) = (self.channel.call(request), self.ended.clone());
        Box::pin(async move { Ok(response.await?.map(|body| Noted { body, ended })) })
    }
}

/// The responses of such a stream.
pub(super) struct Noted {
    body: tonic::body::Body,
    ended: Ended,
}

impl Body for Noted {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !frame.as_ref().is_some_and(|frame| frame.as_ref().is_ok_and(Frame::is_data)) {
            self.ended.0.store(true, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
