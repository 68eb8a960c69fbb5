//! The task of one connection: reads and writes its socket, pings a silent peer, and sees its end coming.
//!
//! h2 reads before it writes. A request that is handed over a moment before a draining server's GOAWAY is read
//! would follow the answer to that server's PING, too late to be accepted. So [`Watched`] keeps the GOAWAY, or the
//! end of the connection, until the driver has closed the line to new requests and has written those that it has:
//! a request either reaches the server before the answer to its PING, or goes to another connection. When the
//! driver has ended or is dropped, what is left goes on in a task of its own until the open streams end; a connection
//! that nobody has begun to use ends at once.

use super::{
    conn::{Handed, Line},
    connect::explain,
    io::{ENHANCE_YOUR_CALM, Seen, Watched},
};
use bytes::Bytes;
use h2::{Ping, PingPong, client::Connection};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep_until},
};

/// Runs a connection until it takes no more requests.
pub(crate) struct Driver {
    /// Gone when this is dropped.
    wire: Option<Wire>,
    runtime: Handle,
}

/// Both directions of a connection.
struct Wire {
    h2: Connection<Watched, Bytes>,
    seen: Arc<Seen>,
    line: Arc<Line>,
    keepalive: Option<Keepalive>,
    /// Requests of which the peer may answer.
    granted: u64,
}

impl Driver {
    /// Needs a tokio runtime.
    pub(super) fn new(
        h2: Connection<Watched, Bytes>,
        seen: Arc<Seen>,
        line: Arc<Line>,
        keepalive: Option<Keepalive>,
    ) -> Self {
        Self { wire: Some(Wire { h2, seen, line, keepalive, granted: 0 }), runtime: Handle::current() }
    }

    /// Ends when the peer's SETTINGS have arrived: it speaks HTTP/2 and, under TLS, accepted our certificate. An
    /// error is the end of the connection.
    pub(super) async fn settle(&mut self) -> Result<(), String> {
        std::future::poll_fn(|cx| match Pin::new(&mut *self).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Err(ended.reason)),
            Poll::Pending if self.wire.as_ref().is_some_and(|wire| wire.seen.settings()) => {
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// In words.
    pub(crate) reason: String,
    /// The peer complained of pings.
    pub(crate) too_many_pings: bool,
}

impl Future for Driver {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let Some(wire) = &mut self.wire else {
            return Poll::Ready(Ended { reason: "it has ended".to_owned(), too_many_pings: false });
        };
        let reason = match wire.poll(cx) {
            Poll::Ready(reason) => reason,
            Poll::Pending => match wire.seen.goaway_code() {
                None => return Poll::Pending,
                Some(code) => format!("the peer is going away (GOAWAY, code {code:#x})"),
            },
        };
        let too_many_pings = wire.seen.goaway_code() == Some(ENHANCE_YOUR_CALM);
        Poll::Ready(Ended { reason, too_many_pings })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // One that nobody has used is dropped: a dial that took too long, or that another address has won.
        if let Some(mut wire) = self.wire.take().filter(|wire| !wire.line.is_unused()) {
            // Ends with the streams that are open: the line, or its last holder, lets no more in.
            self.runtime.spawn(async move { std::future::poll_fn(|cx| wire.poll(cx)).await });
        }
    }
}

impl Wire {
    /// Why it ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            if let Some(keepalive) = &mut self.keepalive
                && keepalive.is_over(cx, self.seen.take_read(), || self.line.is_busy())
            {
                return Poll::Ready(self.line.end("keep-alive timed out: a PING was not answered"));
            }
            let sent = self.line.sent();
            self.grant(sent.requests);
            let polled = Pin::new(&mut self.h2).poll(cx);
            if self.seen.take_new_settings() {
                self.line.set_peer_limit(self.h2.max_concurrent_send_streams());
            }
            if let Poll::Ready(result) = polled {
                self.line.close();
                return Poll::Ready(self.end(result));
            }
            self.wrote(sent);
            if self.seen.is_flooded() {
                // Requests that were handed over meanwhile may have answers among those.
                self.grant(self.line.sent().requests);
                if self.seen.is_flooded() {
                    return Poll::Ready(self.line.end("the peer sends headers of responses without end"));
                }
                continue;
            }
            if !self.seen.is_parting() {
                return Poll::Pending;
            }
            self.line.close();
            // What was handed over goes out, and nothing is read.
            let sent = self.line.sent();
            if let Poll::Ready(result) = Pin::new(&mut self.h2).poll(cx) {
                return Poll::Ready(self.end(result));
            }
            self.wrote(sent);
            self.seen.part();
        }
    }

    /// Of the requests that were handed over by now each may be answered.
    fn grant(&mut self, requests: u64) {
        self.seen.grant(requests - self.granted, self.line.open_streams());
        self.granted = requests;
    }

    /// What was handed over by then is written, unless the socket takes nothing.
    fn wrote(&self, handed: Handed) {
        if self.seen.is_blocked() {
            self.line.set_blocked();
        } else {
            self.line.set_written(handed);
        }
    }

    fn end(&self, result: Result<(), h2::Error>) -> String {
        match result {
            Err(error) => explain(&error, &self.seen),
            Ok(()) => self.seen.error().unwrap_or("the peer closed the connection").to_owned(),
        }
    }
}

/// Pings a peer that was silent for a while, and gives it up when it does not answer (gRFC A8).
pub(super) struct Keepalive {
    pings: PingPong,
    interval: Duration,
    timeout: Duration,
    /// Though no stream is open.
    while_idle: bool,
    heard: Instant,
    state: State,
    timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is open: nobody needs to know whether the peer lives.
    Idle,
    /// The timer says when to ping, or when to see whether to.
    Listening,
    /// The timer says when to give up.
    Pinged,
}

impl Keepalive {
    pub(super) fn new(pings: PingPong, interval: Duration, timeout: Duration, while_idle: bool) -> Self {
        let now = Instant::now();
        Self {
            pings,
            interval,
            timeout,
            while_idle,
            heard: now,
            state: State::Idle,
            timer: Box::pin(sleep_until(now)),
        }
    }

    /// True: the peer is gone. `heard`: something was read since the last time.
    fn is_over(&mut self, cx: &mut Context<'_>, heard: bool, is_busy: impl Fn() -> bool) -> bool {
        if heard {
            self.heard = Instant::now();
        }
        loop {
            match self.state {
                State::Idle => {
                    if !self.while_idle && !is_busy() {
                        return false;
                    }
                    let Some(at) = Instant::now().checked_add(self.interval) else { return false };
                    self.timer.as_mut().reset(at);
                    self.state = State::Listening;
                }
                State::Listening => {
                    if self.timer.as_mut().poll(cx).is_pending() {
                        return false;
                    }
                    let due = self.heard + self.interval;
                    if !self.while_idle && !is_busy() {
                        self.state = State::Idle;
                        return false;
                    } else if due > Instant::now() {
                        self.timer.as_mut().reset(due);
                    } else if self.pings.send_ping(Ping::opaque()).is_ok() {
                        self.timer.as_mut().reset(Instant::now() + self.timeout);
                        self.state = State::Pinged;
                    } else {
                        // The connection is over, and says so itself.
                        return false;
                    }
                }
                State::Pinged => match self.pings.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => self.state = State::Idle,
                    Poll::Ready(Err(_)) => return false,
                    Poll::Pending => return self.timer.as_mut().poll(cx).is_ready(),
                },
            }
        }
    }
}
