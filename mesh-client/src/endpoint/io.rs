//! The byte stream under a connection, and what can be learnt by watching it.
//!
//! hyper does not say when the peer's SETTINGS arrived, nor that it sent GOAWAY while streams are open, nor
//! which error ended the stream of bytes. [`Watched`] follows the frame headers that are read and tells.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// Any stream of bytes that a connection can run over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A boxed one.
pub(crate) type BoxIo = Box<dyn Io>;

const HEADER: usize = 9;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
/// Error code of a GOAWAY that answers too many pings.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    settings: AtomicBool,
    going_away: AtomicBool,
    goaway_code: AtomicU32,
    error: OnceLock<String>,
    news: Notify,
    hold: AtomicBool,
}

impl Seen {
    /// Waits for the peer's SETTINGS: it speaks HTTP/2 and, under TLS, accepted our certificate.
    pub(crate) async fn settings(&self) {
        while !self.settings.load(SeqCst) {
            self.news.notified().await;
        }
    }

    /// Waits for GOAWAY; its error code.
    pub(crate) async fn going_away(&self) -> u32 {
        while !self.going_away.load(SeqCst) {
            self.news.notified().await;
        }
        self.goaway_code.load(SeqCst)
    }

    /// While held, nothing is read; whoever tries is woken when there may be something.
    pub(crate) fn hold_reading(&self, hold: bool) {
        self.hold.store(hold, SeqCst);
    }

    /// The error code of a GOAWAY that came.
    pub(crate) fn goaway_code(&self) -> Option<u32> {
        self.going_away.load(SeqCst).then(|| self.goaway_code.load(SeqCst))
    }

    /// The error that ended the stream, if one did.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.get().map(String::as_str)
    }
}

/// A stream whose frames are watched.
pub(crate) struct Watched {
    io: BoxIo,
    seen: Arc<Seen>,
    frame: [u8; HEADER + 8],
    have: usize,
    /// Bytes of the current frame's payload still to come, beyond what `frame` wants.
    skip: usize,
    /// The last read found nothing, so that whoever reads is woken when there is something.
    waiting: bool,
}

impl Watched {
    pub(crate) fn new(io: BoxIo) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let watched =
            Self { io, seen: Arc::clone(&seen), frame: [0; HEADER + 8], have: 0, skip: 0, waiting: false };
        (watched, seen)
    }

    fn watch(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let want = self.wanted();
            let taken = (want - self.have).min(bytes.len());
            let (head, rest) = bytes.split_at(taken);
            if let Some(room) = self.frame.get_mut(self.have..self.have + taken) {
                room.copy_from_slice(head);
            }
            self.have += taken;
            bytes = rest;
            if self.have == self.wanted() {
                self.finish_header();
            }
        }
    }

    /// How much of the current frame is looked at: the header, and of a GOAWAY its last stream and code.
    fn wanted(&self) -> usize {
        let [_, _, _, kind, ..] = self.frame;
        let goaway = self.have >= HEADER && kind == GOAWAY && self.payload() >= 8;
        if goaway { HEADER + 8 } else { HEADER }
    }

    fn payload(&self) -> usize {
        let [a, b, c, ..] = self.frame;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    fn finish_header(&mut self) {
        let [_, _, _, kind, .., w, x, y, z] = self.frame;
        match kind {
            SETTINGS if !self.seen.settings.swap(true, SeqCst) => self.seen.news.notify_one(),
            GOAWAY if !self.seen.going_away.load(SeqCst) => {
                self.seen.goaway_code.store(u32::from_be_bytes([w, x, y, z]), SeqCst);
                self.seen.going_away.store(true, SeqCst);
                self.seen.news.notify_one();
            }
            _ => {}
        }
        self.skip = self.payload().saturating_sub(self.have - HEADER);
        self.have = 0;
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.hold.load(SeqCst) {
            if !self.waiting {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.waiting = polled.is_pending();
        let result = ready!(polled);
        match &result {
            Ok(()) => {
                let new = buf.filled().get(before..).unwrap_or_default();
                self.watch(new);
            }
            Err(error) => {
                let _ = self.seen.error.set(cause(error));
            }
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
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
                watched.watch(piece);
                let read = index * size + piece.len();
                assert_eq!(seen.settings.load(SeqCst), read >= HEADER);
                assert_eq!(seen.going_away.load(SeqCst), read >= before + HEADER + 8);
            }
            assert_eq!(seen.goaway_code.load(SeqCst), ENHANCE_YOUR_CALM);
            assert_eq!((watched.have, watched.skip), (0, 0));
        }
    }

    #[test]
    fn a_refused_connection_is_named_without_a_number() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(cause(&refused), "connection refused");
    }
}
