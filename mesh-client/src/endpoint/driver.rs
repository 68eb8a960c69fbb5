//! One task for each connection, where hyper would use two.
//!
//! hyper splits a connection: one future hands requests to h2, another, given to the executor, reads and writes
//! the socket. On two threads, a GOAWAY that arrives while a request is being handed over loses the request: it
//! was not sent, and is not handed back. And h2 reads before it writes: a request handed over a moment before
//! the GOAWAY of a server that drains follows the answer to that server's PING, too late to be accepted.
//! [`Driver`] polls both in turn, first reading, then taking requests, then writing them without reading in
//! between: a request either reaches the server before the answer to its PING, or is handed back. A call costs
//! one wake-up less, too. When the first future ends or is dropped, the second goes on in a task of its own
//! until the open streams end.

use super::{connect::explain, io::Seen, io::Watched};
use crate::body::CallBody;
use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::TokioIo;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::runtime::Handle;

type Socket = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Keeps the first future that hyper gives away, which is the socket's; spawns all others.
#[derive(Clone, Debug, Default)]
pub(super) struct KeepFirst(Arc<Kept>);

#[derive(Default)]
struct Kept {
    taken: std::sync::OnceLock<()>,
    socket: Mutex<Option<Socket>>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

impl<F> Executor<F> for KeepFirst
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        if self.0.taken.set(()).is_ok() {
            *self.0.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(future));
        } else {
            // hyper's own, and short: it ends with its stream.
            tokio::spawn(future);
        }
    }
}

impl KeepFirst {
    fn take(&self) -> Option<Socket> {
        self.0.socket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Runs a connection until it takes no more requests.
pub(crate) struct Driver {
    requests: http2::Connection<TokioIo<Watched>, CallBody, KeepFirst>,
    socket: Option<Socket>,
    runtime: Handle,
    seen: Arc<Seen>,
}

impl Driver {
    pub(super) fn new(
        requests: http2::Connection<TokioIo<Watched>, CallBody, KeepFirst>,
        executor: &KeepFirst,
        seen: Arc<Seen>,
    ) -> Self {
        Self { requests, socket: executor.take(), runtime: Handle::current(), seen }
    }

    pub(crate) fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// The peer's limit of streams, as far as it is known.
    pub(crate) fn max_streams(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>) {
        if self.socket.as_mut().is_some_and(|socket| socket.as_mut().poll(cx).is_ready()) {
            // Dropped at once: its end is what the other half waits for.
            self.socket = None;
        }
    }

    fn end(&self, result: hyper::Result<()>) -> String {
        match result {
            Err(error) => explain(&error, &self.seen),
            Ok(()) => self.seen.error().unwrap_or("the peer closed the connection").to_owned(),
        }
    }
}

impl Future for Driver {
    /// Why it ended.
    type Output = String;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<String> {
        let this = &mut *self;
        this.poll_socket(cx);
        let mut requests = Pin::new(&mut this.requests).poll(cx);
        if requests.is_pending() && this.socket.is_some() {
            this.seen.hold_reading(true);
            this.poll_socket(cx);
            this.seen.hold_reading(false);
            if this.socket.is_none() {
                requests = Pin::new(&mut this.requests).poll(cx);
            }
        }
        requests.map(|result| this.end(result))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            // Ends with the streams that are open; the other half, dropped with this, opens no more.
            self.runtime.spawn(socket);
        }
    }
}
