//! The byte stream under a connection, and what can be learnt by watching it.
//!
//! h2 does not say when the peer's SETTINGS arrived, nor that it sent GOAWAY while streams are open, nor which error
//! ended the stream of bytes. [`Watched`] follows the frame headers that are read and tells. It also stops in front
//! of a GOAWAY and of the end, until the driver has prepared for it, and where a peer floods with header blocks.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Any stream of bytes that a connection can run over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A boxed one.
pub type BoxIo = Box<dyn Io>;

const HEADER: usize = 9;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const END_STREAM: u8 = 0x1;
/// Beginnings of responses that come though no request is left to be answered by them: informational ones, and late ones
/// of requests that were given up.
const UNASKED: u64 = 8 << 10;
/// Error code of a GOAWAY that answers too many pings.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;

/// What was seen. Only the task that polls the connection reads and writes it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    settings: AtomicBool,
    new_settings: AtomicBool,
    going_away: AtomicBool,
    goaway_code: AtomicU32,
    error: OnceLock<String>,
    /// Something was read.
    read: AtomicBool,
    /// The socket takes no more for now.
    blocked: AtomicBool,
    parting: AtomicBool,
    parted: AtomicBool,
    /// Header blocks that end no stream.
    beginnings: AtomicU64,
    /// How many of them there may be.
    granted: AtomicU64,
}

impl Seen {
    /// This many requests more are on their way, and as many as `open` are not answered yet.
    pub(crate) fn grant(&self, requests: u64, open: u32) {
        let most = self.beginnings.load(Relaxed) + u64::from(open) + UNASKED;
        self.granted.store((self.granted.load(Relaxed) + requests).min(most), Relaxed);
    }

    /// There are more beginnings of responses than may be: nothing is read until some are granted. h2 keeps each until
    /// its call asks, and flow control does not hold them back.
    pub(crate) fn is_flooded(&self) -> bool {
        self.beginnings.load(Relaxed) > self.granted.load(Relaxed)
    }

    /// The peer's SETTINGS have arrived.
    pub(crate) fn settings(&self) -> bool {
        self.settings.load(Relaxed)
    }

    /// SETTINGS have arrived since the last time.
    pub(crate) fn take_new_settings(&self) -> bool {
        take(&self.new_settings)
    }

    /// Something was read since the last time.
    pub(crate) fn take_read(&self) -> bool {
        take(&self.read)
    }

    /// What was to be written was not all written.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// Nothing more is read: what comes is the end, or a GOAWAY. Until [`Self::part`].
    pub(crate) fn is_parting(&self) -> bool {
        self.parting.load(Relaxed) && !self.parted.load(Relaxed)
    }

    /// Lets the end come. It must be polled for.
    pub(crate) fn part(&self) {
        self.parted.store(true, Relaxed);
    }

    /// The error code of a GOAWAY that came.
    pub(crate) fn goaway_code(&self) -> Option<u32> {
        self.going_away.load(Relaxed).then(|| self.goaway_code.load(Relaxed))
    }

    /// The error that ended the stream, if one did.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.get().map(String::as_str)
    }
}

fn take(flag: &AtomicBool) -> bool {
    let set = flag.load(Relaxed);
    if set {
        flag.store(false, Relaxed);
    }
    set
}

/// A stream whose frames are watched.
pub(crate) struct Watched {
    io: BoxIo,
    seen: Arc<Seen>,
    frame: [u8; HEADER + 8],
    have: usize,
    /// Bytes of the current frame's payload still to come, beyond what `frame` wants.
    skip: usize,
    /// Read, and kept until the connection may part.
    kept: Vec<u8>,
    /// The same of the end.
    end: Option<io::Result<()>>,
}

impl Watched {
    pub(crate) fn new(io: BoxIo) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen { granted: AtomicU64::new(UNASKED), ..Seen::default() });
        let (frame, kept) = ([0; HEADER + 8], Vec::new());
        (Self { io, seen: Arc::clone(&seen), frame, have: 0, skip: 0, kept, end: None }, seen)
    }

    /// Follows the frames in these bytes; how many of them may be read now.
    fn watch(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(rest.len());
                self.skip -= skipped;
                rest = rest.get(skipped..).unwrap_or_default();
                continue;
            }
            let taken = (self.wanted() - self.have).min(rest.len());
            let (head, tail) = rest.split_at(taken);
            if let Some(room) = self.frame.get_mut(self.have..self.have + taken) {
                room.copy_from_slice(head);
            }
            self.have += taken;
            rest = tail;
            if self.have == HEADER && self.kind() == GOAWAY && !self.seen.parted.load(Relaxed) {
                // Without its payload the frame has no effect.
                self.seen.parting.store(true, Relaxed);
                break;
            }
            if self.have == self.wanted() {
                self.finish_header();
            }
        }
        bytes.len() - rest.len()
    }

    /// How much of the current frame is looked at: the header, and of a GOAWAY its last stream and code.
    fn wanted(&self) -> usize {
        let goaway = self.have >= HEADER && self.kind() == GOAWAY && self.payload() >= 8;
        if goaway { HEADER + 8 } else { HEADER }
    }

    fn kind(&self) -> u8 {
        let [_, _, _, kind, ..] = self.frame;
        kind
    }

    fn payload(&self) -> usize {
        let [a, b, c, ..] = self.frame;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    fn finish_header(&mut self) {
        let [_, _, _, _, flags, .., w, x, y, z] = self.frame;
        match self.kind() {
            HEADERS if flags & END_STREAM == 0 => {
                self.seen.beginnings.store(self.seen.beginnings.load(Relaxed) + 1, Relaxed);
            }
            SETTINGS => {
                self.seen.settings.store(true, Relaxed);
                self.seen.new_settings.store(true, Relaxed);
            }
            GOAWAY if !self.seen.going_away.load(Relaxed) => {
                self.seen.goaway_code.store(u32::from_be_bytes([w, x, y, z]), Relaxed);
                self.seen.going_away.store(true, Relaxed);
            }
            _ => {}
        }
        self.skip = self.payload().saturating_sub(self.have - HEADER);
        self.have = 0;
    }

    /// Gives out what was kept.
    fn read_kept(&mut self, buf: &mut ReadBuf<'_>) {
        let now = self.kept.len().min(buf.remaining());
        let later = self.kept.split_off(now);
        let now = std::mem::replace(&mut self.kept, later);
        self.watch(&now);
        buf.put_slice(&now);
    }

    /// The end of the stream, when that may be seen.
    fn ended(&mut self, end: io::Result<()>) -> Poll<io::Result<()>> {
        if let Err(error) = &end {
            let _ = self.seen.error.set(cause(error));
        }
        if self.seen.parted.load(Relaxed) {
            return Poll::Ready(end);
        }
        self.seen.parting.store(true, Relaxed);
        self.end = Some(end);
        Poll::Pending
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.is_flooded() {
            // As below.
            return Poll::Pending;
        }
        if self.seen.parting.load(Relaxed) {
            if !self.seen.parted.load(Relaxed) {
                // The driver polls again once it lets the connection part: nobody needs to be woken.
                return Poll::Pending;
            }
            if !self.kept.is_empty() {
                self.read_kept(buf);
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = self.end.take() {
                return Poll::Ready(end);
            }
        }
        let before = buf.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.io).poll_read(cx, buf)) {
            return self.ended(Err(error));
        }
        let new = buf.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            return self.ended(Ok(()));
        }
        self.seen.read.store(true, Relaxed);
        let now = self.watch(new);
        if now < new.len() {
            self.kept = new.get(now..).unwrap_or_default().to_vec();
            buf.set_filled(before + now);
        }
        Poll::Ready(Ok(()))
    }
}

impl Watched {
    fn wrote<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.seen.blocked.store(result.is_pending(), Relaxed);
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.wrote(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// An IO error in the words of its kind, without the operating system's number.
pub(crate) fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => error.kind().to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn goaway_is_seen_however_the_bytes_are_cut() {
        let mut bytes = frame(SETTINGS, &[0; 12]);
        bytes.extend(frame(0x0, &[GOAWAY; 300]));
        bytes.extend(frame(0x6, &[0; 8]));
        let before = bytes.len();
        bytes.extend(frame(GOAWAY, &[0, 0, 0, 1, 0, 0, 0, 0xb, b'x', b'y']));
        for size in 1..=bytes.len() {
            let (mut watched, seen) = Watched::new(Box::new(tokio::io::empty()));
            for (index, piece) in bytes.chunks(size).enumerate() {
                let read = index * size + piece.len();
                let now = watched.watch(piece);
                if now < piece.len() || seen.is_parting() {
                    assert_eq!(index * size + now, before + HEADER, "it stops behind the header");
                    seen.part();
                    watched.watch(&piece[now..]);
                }
                assert_eq!(seen.settings(), read >= HEADER);
                assert_eq!(seen.goaway_code().is_some(), read >= before + HEADER + 8);
            }
            assert_eq!(seen.goaway_code(), Some(ENHANCE_YOUR_CALM));
            assert_eq!((watched.have, watched.skip), (0, 0));
        }
    }

    #[test]
    fn as_many_responses_begin_as_were_asked_for_and_some_more() {
        let (mut watched, seen) = Watched::new(Box::new(tokio::io::empty()));
        let begin = |watched: &mut Watched, count: u64| {
            let mut bytes = frame(HEADERS, &[0; 5]);
            for _ in 0..count {
                watched.watch(&bytes);
            }
            // Of trailers there is one for a stream: h2 sees to that.
            bytes[4] = END_STREAM;
            watched.watch(&bytes);
            seen.is_flooded()
        };
        seen.grant(0, 0);
        assert!(!begin(&mut watched, UNASKED));
        assert!(begin(&mut watched, 1));
        seen.grant(1, 1);
        assert!(!seen.is_flooded());
        // What was granted and not used is forgotten with the streams.
        seen.grant(1_000_000, 10);
        seen.grant(0, 10);
        assert!(!begin(&mut watched, UNASKED + 10));
        assert!(begin(&mut watched, 1));
        // Whatever is answered once never ends.
        seen.grant(1, 0);
        for _ in 0..100_000 {
            seen.grant(1, 1);
            assert!(!begin(&mut watched, 1));
        }
    }

    #[tokio::test]
    async fn goaway_and_the_end_are_read_when_the_connection_may_part_and_nothing_is_lost() {
        let mut bytes = frame(SETTINGS, &[]);
        let before = bytes.len();
        bytes.extend(frame(GOAWAY, &[0; 8]));
        bytes.extend(frame(0x6, &[7; 8]));
        let (mut watched, seen) = Watched::new(Box::new(bytes_and_the_end(bytes.clone())));
        let mut read = Vec::new();
        let mut some = [0; 16];
        for _ in 0..10 {
            let mut buf = ReadBuf::new(&mut some);
            let polled =
                std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut watched).poll_read(cx, &mut buf)));
            match polled.await {
                Poll::Ready(Ok(())) => read.extend(buf.filled()),
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => break,
            }
        }
        assert!(seen.is_parting());
        assert_eq!(read, bytes[..before + HEADER]);
        seen.part();
        watched.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, bytes);
    }

    /// These bytes, and the end.
    fn bytes_and_the_end(bytes: Vec<u8>) -> impl Io {
        tokio::io::join(std::io::Cursor::new(bytes), tokio::io::sink())
    }

    #[test]
    fn a_refused_connection_is_named_without_a_number() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(cause(&refused), "connection refused");
    }
}
