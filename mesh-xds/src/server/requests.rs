//! The requests of a stream: each is read into room of its own size, which is counted from its first bytes on and free
//! again as soon as it was read.
//!
//! Tonic's `Streaming` takes that room before anybody can say that it is too much, and keeps as much of it as the
//! largest request took, which mostly is the first, as long as the stream lives.

use super::{Full, Place, Places};
use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use std::{future::poll_fn, pin::Pin, sync::Arc};
use tonic::{Status, body::Body};

/// Flag and length before each message.
pub(super) const PREFIX: usize = 5;

/// Reads a message; the status says why it is none.
pub(crate) type Decode<M> = fn(&[u8]) -> Result<M, Status>;

/// What is to be read of a stream.
pub(crate) struct Requests<M> {
    body: Body,
    decode: Decode<M>,
    /// Bytes of one request.
    limit: usize,
    /// What came and was not looked at.
    came: Bytes,
    /// A request that has begun, from its prefix on.
    begun: BytesMut,
    /// Room for it.
    room: Place,
}

/// Why there is no further request.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It has so many bytes.
    TooLarge(usize),
    /// What has begun to arrive has no room.
    NoRoom(Full),
    /// It was read, or could not arrive.
    Failed(Status),
}

impl<M> Requests<M> {
    /// Of a peer that is known by its account, as to the `room` for requests that have begun.
    pub(crate) fn new(
        body: Body,
        decode: Decode<M>,
        limit: usize,
        (room, account): (&Arc<Places>, &str),
    ) -> Self {
        let (came, begun) = (Bytes::new(), BytesMut::new());
        Self { body, decode, limit, came, begun, room: room.none(account) }
    }

    /// The next one; `None` after the last. Dropped before it is ready, it loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<M>, Unread> {
        loop {
            if let Some(request) = self.take()? {
                return Ok(Some(request));
            }
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame.transpose().map_err(Unread::Failed)? {
                // Trailers of a request mean nothing.
                Some(frame) => self.came = frame.into_data().unwrap_or_default(),
                None if self.begun.is_empty() => return Ok(None),
                None => {
                    let status = Status::invalid_argument("the stream ended within a request");
                    return Err(Unread::Failed(status));
                }
            }
        }
    }

    /// A request, if it has come as a whole.
    fn take(&mut self) -> Result<Option<M>, Unread> {
        if self.begun.is_empty()
            && let Some(length) = self.length(&self.came)?
            && let Some(message) = self.came.get(PREFIX..PREFIX + length)
        {
            // Nearly all do.
            let request = (self.decode)(message).map_err(Unread::Failed)?;
            self.came.advance(PREFIX + length);
            return Ok(Some(request));
        }
        self.append(PREFIX);
        let Some(length) = self.length(&self.begun)? else { return Ok(None) };
        let whole = PREFIX + length;
        if self.begun.len() == PREFIX {
            self.room.resize(whole).map_err(Unread::NoRoom)?;
            self.begun.reserve(length);
        }
        self.append(whole);
        if self.begun.len() < whole {
            return Ok(None);
        }
        let request = (self.decode)(&self.begun[PREFIX..]).map_err(Unread::Failed)?;
        self.begun = BytesMut::new();
        self.room.resize(0).map_err(Unread::NoRoom)?;
        Ok(Some(request))
    }

    /// Takes of what came until so much of a request is there.
    fn append(&mut self, until: usize) {
        let missing = until.saturating_sub(self.begun.len()).min(self.came.len());
        self.begun.extend_from_slice(&self.came.split_to(missing));
    }

    /// Of the message that begins here, once that is known.
    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Unread> {
        let Some([flag, length @ ..]) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
        if *flag != 0 {
            return Err(Unread::Failed(Status::unimplemented(
                "a request is compressed; this service takes none that is, and says so (grpc-accept-encoding)",
            )));
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.limit { Err(Unread::TooLarge(length)) } else { Ok(Some(length)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use futures_util::{FutureExt, StreamExt, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;

    type Frames = Vec<Result<Frame<Bytes>, Status>>;

    const LIMIT: usize = 100;

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, Status> {
        if bytes == b"bad" { Err(Status::invalid_argument("bad")) } else { Ok(bytes.to_vec()) }
    }

    fn reading(room: &Arc<Places>, frames: Frames) -> Requests<Vec<u8>> {
        Requests::new(Body::new(StreamBody::new(stream::iter(frames))), decode, LIMIT, (room, "a"))
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0];
        frame.put_u32(message.len().try_into().unwrap());
        frame.extend_from_slice(message);
        frame
    }

    fn data(bytes: &[u8]) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(Bytes::copy_from_slice(bytes)))
    }

    fn next(requests: &mut Requests<Vec<u8>>) -> Result<Option<Vec<u8>>, Unread> {
        requests.next().now_or_never().expect("all has come")
    }

    proptest! {
        #[test]
        fn requests_are_the_same_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..LIMIT), 0..5),
            cuts in prop::collection::vec(0..200_usize, 0..20),
        ) {
            prop_assume!(messages.iter().all(|message| message != b"bad"));
            let mut bytes = messages.iter().flat_map(|message| framed(message)).collect::<Vec<_>>();
            let mut frames = Vec::new();
            for cut in cuts {
                let rest = bytes.split_off(cut.min(bytes.len()));
                frames.push(data(&bytes));
                bytes = rest;
            }
            frames.push(data(&bytes));
            frames.push(Ok(Frame::trailers(http::HeaderMap::new())));
            let room = Places::new(10_000);
            let mut requests = reading(&room, frames);
            for message in &messages {
                let read = next(&mut requests).unwrap();
                prop_assert_eq!(read.as_ref(), Some(message));
                prop_assert_eq!(requests.begun.capacity(), 0, "room is given back");
                prop_assert!(room.take("b").is_ok());
            }
            prop_assert!(next(&mut requests).unwrap().is_none());
        }
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        let room = Places::new(10_000);
        let failed = |frames| match next(&mut reading(&room, frames)) {
            Err(Unread::Failed(status)) => status.message().to_owned(),
            other => panic!("{other:?}"),
        };
        assert!(failed(vec![data(&[0, 0])]).contains("within a request"));
        assert!(failed(vec![data(&framed(b"abc")[..7])]).contains("within a request"));
        assert!(failed(vec![data(&[1, 0, 0, 0, 1, 7])]).contains("compressed"));
        assert_eq!(failed(vec![data(&framed(b"bad"))]), "bad");
        assert_eq!(failed(vec![data(&framed(b"bad")[..7]), data(b"d")]), "bad");
        assert_eq!(failed(vec![data(&[0]), Err(Status::aborted("gone"))]), "gone");
        // As soon as its length is known.
        for cut in [3, 5] {
            let prefix = [0, 0, 0, 0, 101];
            let cut = [data(&prefix[..cut]), data(&prefix[cut..])];
            assert!(matches!(next(&mut reading(&room, cut.into())), Err(Unread::TooLarge(101))));
        }
    }

    #[test]
    fn what_has_begun_is_counted_until_it_is_read_or_given_up() {
        let room = Places::new(250);
        let message = framed(&[7; 100]);
        let (first, last) = message.split_at(50);
        let half = || {
            let body = stream::iter([data(first)]).chain(stream::pending());
            Requests::new(Body::new(StreamBody::new(body)), decode, LIMIT, (&room, "a"))
        };
        let mut one = half();
        assert!(one.next().now_or_never().is_none());
        assert!(matches!(half().next().now_or_never(), Some(Err(Unread::NoRoom(Full::Peer)))));
        drop(one);
        let mut other = half();
        assert!(other.next().now_or_never().is_none(), "there is room again");
        drop(other);
        // What comes as a whole needs none.
        let mut whole = reading(&room, vec![data(&message), data(first), data(last)]);
        assert_eq!(next(&mut whole).unwrap().unwrap().len(), 100);
        assert_eq!(next(&mut whole).unwrap().unwrap().len(), 100);
        assert!(next(&mut whole).unwrap().is_none());
    }
}
