//! A request's body on its way into a connection.
//!
//! Promises: what is there at once goes at once, within the call that sends the request, and its last message
//! carries the end of the stream; the rest is sent by a task that ends with the call, and holds one message at
//! most beyond what flow control lets out. What has been sent of a body that is sent for the first time is kept, if
//! that is wanted.

use crate::{
    body::CallBody,
    retry::{
        replay::{Budget, Kept, Replay},
        spare::Sent,
    },
};
use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};
use tokio::{runtime::Handle, task::AbortHandle};

/// Sends a body.
pub(super) struct Pump {
    stream: SendStream<Bytes>,
    body: CallBody,
    /// To be sent when there is room for it.
    held: Option<Bytes>,
    /// Nothing was sent so far.
    first: bool,
    /// What was taken from the body, as long as it is kept.
    kept: Option<Kept>,
    /// All of the body was taken.
    whole: bool,
    /// Taken from it so far.
    bytes: u64,
}

/// What became of a body at once.
pub(super) struct Started {
    pub(super) pumping: Pumping,
    /// Handed to h2.
    pub(super) bytes: u64,
    /// What is kept of that.
    pub(super) kept: Option<Sent>,
}

/// The task that sends the rest of a body; it ends with this.
#[derive(Debug)]
pub(crate) struct Pumping(Option<AbortHandle>);

impl Pumping {
    /// There is no rest.
    pub(super) fn none() -> Self {
        Self(None)
    }
}

impl Drop for Pumping {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

impl Pump {
    pub(super) fn new(stream: SendStream<Bytes>, body: CallBody) -> Self {
        Self { stream, body, held: None, first: true, kept: None, whole: false, bytes: 0 }
    }

    /// Sends what there is; a task sends the rest. What was sent is kept within this budget, if there is one.
    pub(super) fn start(mut self, runtime: &Handle, budget: Option<&Arc<Budget>>) -> Started {
        self.kept = budget.map(|_| Kept::default());
        // Whatever is not ready is polled again by the task, which can be woken.
        match Pin::new(&mut self).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => {
                let kept = self.kept.filter(|_| self.whole).map(Sent::Whole);
                Started { pumping: Pumping::none(), bytes: self.bytes, kept }
            }
            Poll::Pending => {
                let (bytes, kept) = (self.bytes, budget.and_then(|budget| self.share(budget)));
                Started { pumping: Pumping(Some(runtime.spawn(self).abort_handle())), bytes, kept }
            }
        }
    }

    /// From now on what is sent is kept beside this.
    fn share(&mut self, budget: &Arc<Budget>) -> Option<Sent> {
        let kept = self.kept.take()?;
        let CallBody::Tonic(body) = &mut self.body else { return None };
        match Replay::resume(std::mem::take(body), kept, budget) {
            Ok((replay, going_on)) => {
                self.body = CallBody::Replay(going_on);
                Some(Sent::Open(replay))
            }
            Err(back) => {
                *body = back;
                None
            }
        }
    }

    /// False: the stream is over.
    fn send(&mut self, data: Bytes, last: bool) -> bool {
        self.first = false;
        self.stream.send_data(data, last).is_ok() && !last
    }

    /// Whether there is room for the message that is held. The first one is not kept waiting: h2 keeps it as well
    /// as this would.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.first {
            return Poll::Ready(true);
        }
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }

    /// The peer wants no more of it.
    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.poll_reset(cx).is_ready()
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            if this.held.as_ref().is_some_and(|held| !held.is_empty()) {
                match this.poll_room(cx) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending if this.is_reset(cx) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            // With the next one at hand it is known whether a message is the last.
            let last = this.held.is_some() && this.body.is_end_stream();
            let next = if last { Poll::Ready(None) } else { Pin::new(&mut this.body).poll_frame(cx) };
            let held = this.held.take();
            match next {
                Poll::Ready(None) => {
                    this.whole = true;
                    let _ = this.send(held.unwrap_or_default(), true);
                    return Poll::Ready(());
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if held.is_some_and(|held| !this.send(held, false)) {
                        return Poll::Ready(());
                    }
                    match frame.into_data() {
                        Ok(data) => {
                            this.bytes = this.bytes.saturating_add(data.len() as u64);
                            if let Some(kept) = &mut this.kept {
                                kept.push(data.clone());
                            }
                            this.held = Some(data);
                        }
                        Err(frame) => {
                            if let Ok(trailers) = frame.into_trailers() {
                                let _ = this.stream.send_trailers(trailers);
                                return Poll::Ready(());
                            }
                        }
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    // The response's future tells the caller.
                    this.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    if held.is_some_and(|held| !this.send(held, false)) || this.is_reset(cx) {
                        return Poll::Ready(());
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}
