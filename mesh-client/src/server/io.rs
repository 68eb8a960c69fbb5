//! The bytes of an accepted connection, as tonic sees them.
//!
//! Passes everything through; adds what tonic cannot do for one connection: a graceful goodbye (see
//! [`super::goaway`]), an end to the wait for it, and a forced end. A peer whose certificate ends is asked
//! to come again, and nothing new is served here meanwhile: short-lived certificates revoke nothing while
//! connections outlive them. A peer that does not speak HTTP/2 is cut off at its first wrong byte, or when
//! it has said nothing for too long.

use super::{
    connection::{ConnectInfo, Connection, Order},
    goaway::{GOAWAY, Outbound},
    state::Registered,
};
use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Longest time from the end of the handshake to the end of the preface.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that [`super::Incoming`] accepted; hand it to tonic.
pub struct MeshIo {
    stream: Stream,
    connection: Arc<Connection>,
    outbound: Outbound,
    goodbye: Goodbye,
    /// While the peer is served: until its certificate ends. Once it was asked to leave: until it is cut.
    timer: Option<Pin<Box<Sleep>>>,
    /// How much of the preface has come.
    preface: usize,
    /// When all of it must have come; none once it has.
    greeting: Option<Pin<Box<Sleep>>>,
    registered: Registered,
}

/// The transport below.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How far the GOAWAY is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    NotAsked,
    Writing(usize),
    Flushing,
    Said,
}

impl MeshIo {
    pub(super) fn new(stream: Stream, connection: Arc<Connection>, registered: Registered) -> Self {
        let timer = connection.expires.map(|at| Box::pin(sleep_until(at)));
        Self {
            stream,
            connection,
            outbound: Outbound::default(),
            goodbye: Goodbye::NotAsked,
            timer,
            preface: 0,
            greeting: Some(Box::pin(sleep(GREETING_LIMIT))),
            registered,
        }
    }

    /// Does what the connection was ordered to; fails when it is to end.
    fn attend(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.greeting.as_mut().is_some_and(|greeting| greeting.as_mut().poll(cx).is_ready()) {
            return Err(self.refuse("it connected and did not begin to speak HTTP/2"));
        }
        let mut order = self.connection.order(cx.waker());
        if order == Order::Serve && self.timed_out(cx) {
            tracing::debug!(connection = ?self.connection, "asked to leave: the peer's certificate has ended");
            self.connection.leave();
            order = Order::Leave;
        }
        match order {
            Order::Serve => return Ok(()),
            Order::Close => return Err(closed("closed: the server's drain timeout is over")),
            Order::Leave => {}
        }
        if self.goodbye == Goodbye::NotAsked {
            self.goodbye = Goodbye::Writing(0);
            self.timer = Some(Box::pin(sleep(self.registered.patience())));
        }
        if self.timed_out(cx) {
            return Err(closed("closed: the peer was asked to leave and did not"));
        }
        // Pending is fine here: the task is woken when it can go on.
        match self.say_goodbye(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn timed_out(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }

    /// Writes the GOAWAY if one is due and this is a place for it. Ready when ordinary bytes may follow.
    fn say_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Goodbye::Writing(sent) = self.goodbye {
            if sent == 0 && !self.outbound.between_frames() {
                return Poll::Ready(Ok(()));
            }
            let rest = GOAWAY.get(sent..).unwrap_or_default();
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let sent = sent + n;
            self.goodbye = if sent == GOAWAY.len() { Goodbye::Flushing } else { Goodbye::Writing(sent) };
        }
        if self.goodbye == Goodbye::Flushing {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.goodbye = Goodbye::Said;
        }
        Poll::Ready(Ok(()))
    }

    fn check_preface(&mut self, read: &[u8]) -> io::Result<()> {
        let expected = PREFACE.get(self.preface..).unwrap_or_default();
        let n = expected.len().min(read.len());
        if expected.get(..n) != read.get(..n) {
            return Err(self.refuse("it does not speak HTTP/2"));
        }
        self.preface += n;
        if self.preface == PREFACE.len() {
            self.greeting = None;
        }
        Ok(())
    }

    fn refuse(&mut self, reason: &'static str) -> io::Error {
        self.greeting = None;
        self.registered.refused(self.connection.remote, &reason);
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {reason}", self.connection.remote))
    }
}

fn closed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}

impl AsyncRead for MeshIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.attend(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.preface < PREFACE.len() {
            self.check_preface(buf.filled().get(before..).unwrap_or_default())?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MeshIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.attend(cx)?;
        ready!(self.say_goodbye(cx))?;
        let mut buf = buf;
        if self.goodbye == Goodbye::Writing(0) {
            buf = buf.get(..self.outbound.until_between_frames(buf)).unwrap_or(buf);
        }
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.outbound.sent(buf.get(..n).unwrap_or_default());
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.attend(cx)?;
        ready!(self.say_goodbye(cx))?;
        if self.goodbye == Goodbye::Writing(0) {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(cx, first.map_or(&[], |slice| slice));
        }
        let n = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        let mut left = n;
        for slice in slices {
            let taken = left.min(slice.len());
            self.outbound.sent(slice.get(..taken).unwrap_or_default());
            left -= taken;
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.attend(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for MeshIo {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo(self.connection.clone())
    }
}

impl fmt::Debug for MeshIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshIo({:?})", self.connection)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
