//! Whether a stream has ended, and where, as the transport sees it.
//!
//! tonic reports a response that it cannot read as it reports a status of the server, and of one that ends in the middle
//! sometimes nothing. Who is at fault matters: what cannot be read once will be sent again on the next stream. While the
//! transport has seen no end, it was found here; and one that is ended by trailers within a message is garbled. A stream
//! that is reset, or whose connection breaks, may end anywhere: hyper tells of a reset without an error as of an end.

use http_body::{Body, Frame, SizeHint};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};
use tonic::transport::{self, Channel};
use tower_service::Service;

/// Told when the one stream of a [`Noting`] has ended.
#[derive(Clone, Default)]
pub(super) struct Ended(Arc<AtomicU8>);

const ENDED: u8 = 1;
const ENDED_WITHIN_A_MESSAGE: u8 = 2;

impl Ended {
    pub(super) fn is_noted(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// By trailers, and yet before the whole of a message was there.
    pub(super) fn is_within_a_message(&self) -> bool {
        self.0.load(Relaxed) == ENDED_WITHIN_A_MESSAGE
    }
}

/// Where in the messages of a stream its bytes have come to: each has a flag and four bytes of length before it.
#[derive(Default)]
struct Place {
    /// Bytes of the header that is being read.
    header: u8,
    length: u32,
    /// Bytes of the message that are to come.
    left: u32,
}

impl Place {
    fn pass(&mut self, mut data: &[u8]) {
        while let Some((first, rest)) = data.split_first() {
            if self.left > 0 {
                let here = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= u32::try_from(here).unwrap_or(self.left);
                data = data.get(here..).unwrap_or_default();
                continue;
            }
            data = rest;
            // The flag is shifted out by what follows.
            self.length = self.length << 8 | u32::from(*first);
            self.header += 1;
            if self.header == 5 {
                (self.header, self.left) = (0, self.length);
            }
        }
    }

    fn is_between_messages(&self) -> bool {
        self.header == 0 && self.left == 0
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
        Box::pin(
            async move { Ok(response.await?.map(|body| Noted { body, ended, place: Place::default() })) },
        )
    }
}

/// The responses of such a stream.
pub(super) struct Noted {
    body: tonic::body::Body,
    ended: Ended,
    place: Place,
}

impl Body for Noted {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => self.place.pass(data),
                None if self.place.is_between_messages() => self.ended.0.store(ENDED, Relaxed),
                None => self.ended.0.store(ENDED_WITHIN_A_MESSAGE, Relaxed),
            },
            Some(Err(_)) => self.ended.0.store(ENDED, Relaxed),
            // What the trailers said stands.
            None if self.ended.is_noted() => {}
            None => self.ended.0.store(ENDED, Relaxed),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_in_the_messages_is_known_however_their_bytes_are_cut() {
        let message = |length: u32| [&[0][..], &length.to_be_bytes(), &vec![7; length as usize]].concat();
        let all = [message(3), message(0), message(300), message(1)].concat();
        let ends = [8, 13, 318, 324];
        assert_eq!(all.len(), ends[3]);
        for size in [1, 2, 3, 5, 7, 64, 1000] {
            let (mut place, mut at) = (Place::default(), 0);
            assert!(place.is_between_messages());
            for part in all.chunks(size) {
                place.pass(part);
                at += part.len();
                assert_eq!(place.is_between_messages(), ends.contains(&at), "{at} in parts of {size}");
            }
            assert!(place.is_between_messages());
        }
    }
}
