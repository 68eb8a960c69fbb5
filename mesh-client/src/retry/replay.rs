//! A request body that can be sent again.
//!
//! It is lazy: the caller's body is polled only when an attempt wants it, and what was sent is kept so that
//! the next attempt can begin at the start. It is capped, per call and per channel: past the cap what is kept
//! is dropped, the rest flows through, and the call can no longer be repeated. So a stream of a gigabyte
//! costs no more memory than without a retry policy. Attempts beside one another read the same and keep it once;
//! past the cap the one that is furthest goes on.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};
use tokio::sync::oneshot;
use tonic::Status;

/// Kept of one call at most, as in gRPC's and Envoy's usual settings.
pub(crate) const CALL_LIMIT: usize = 64 << 10;

/// Memory for the bodies of one channel's calls.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }

    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.left.load(Relaxed)
    }

    pub(super) fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Relaxed);
    }
}

/// What a mirror sends: the whole body.
pub(crate) type Whole = Vec<Bytes>;

/// The caller's body, for any number of attempts, one after the other or beside one another.
pub(crate) struct Replay {
    shared: Arc<Mutex<State>>,
}

/// The body of one attempt. A later attempt's takes the source away from it, unless it is beside it.
pub(crate) struct ReplayBody {
    shared: Arc<Mutex<State>>,
    attempt: u32,
    /// Next frame of what is kept.
    next: usize,
}

/// Messages in order. Most requests have one, for which no list is made.
#[derive(Default)]
pub(crate) struct Kept {
    first: Option<Bytes>,
    rest: Vec<Bytes>,
}

impl Kept {
    pub(crate) fn push(&mut self, data: Bytes) {
        if self.first.is_none() {
            self.first = Some(data);
        } else {
            self.rest.push(data);
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(&self.rest)
    }

    fn get(&self, index: usize) -> Option<&Bytes> {
        match index.checked_sub(1) {
            None => self.first.as_ref(),
            Some(index) => self.rest.get(index),
        }
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.iter().map(Bytes::len).sum()
    }

    /// The only message; without one, an empty one. None: there are several.
    pub(super) fn only(&self) -> Option<&[u8]> {
        self.rest.is_empty().then(|| self.first.as_deref().unwrap_or_default())
    }
}

struct State {
    source: tonic::body::Body,
    budget: Arc<Budget>,
    kept: Kept,
    kept_bytes: usize,
    /// How many of these the latest attempt has sent.
    sent: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    failed: bool,
    /// What was sent is not kept (any more): nothing can be sent again.
    open_ended: bool,
    /// There will be no further attempt.
    committed: bool,
    attempt: u32,
    /// Attempts before this one have lost the source.
    oldest: u32,
    /// The only one that may go on: the others would miss what is not kept.
    only: Option<u32>,
    /// Of attempts beside one another, those that are over: they take nothing from the source any more.
    over: Vec<u32>,
    /// Attempts beside one another that wait for the source, which wakes one of them; none where there is one.
    waiting: Option<Vec<Waker>>,
    /// Of who asks whether only one may go on.
    asks: Option<Waker>,
    /// Who waits for the whole body.
    mirrors: Vec<oneshot::Sender<Whole>>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.forget();
    }
}

impl State {
    fn forget(&mut self) {
        self.kept = Kept::default();
        self.budget.give_back(std::mem::take(&mut self.kept_bytes));
    }

    /// Once nobody needs what is kept it is given back: a stream may last. `sent`: messages of these that the only
    /// attempt has sent.
    fn settle(&mut self, sent: usize) -> bool {
        let done = self.committed && self.mirrors.is_empty() && sent >= self.kept.len();
        if done {
            self.open_ended = true;
            self.forget();
        }
        done
    }

    /// Attempts beside one another look at the source again.
    fn wake(&mut self) {
        for waker in self.waiting.iter_mut().flat_map(|waiting| waiting.drain(..)) {
            waker.wake();
        }
    }

    fn is_current(&self, attempt: u32) -> bool {
        attempt >= self.oldest
            && self.only.is_none_or(|only| only == attempt)
            && !self.over.contains(&attempt)
    }

    fn keep(&mut self, data: &Bytes) {
        if self.open_ended || (self.committed && self.mirrors.is_empty()) {
            self.open_ended = true;
            self.forget();
            return;
        }
        if self.kept_bytes + data.len() > CALL_LIMIT || !self.budget.take(data.len()) {
            self.open_ended = true;
            self.mirrors.clear();
            self.forget();
            return;
        }
        self.kept_bytes += data.len();
        self.kept.push(data.clone());
    }

    fn end(&mut self) {
        self.ended = true;
        for mirror in self.mirrors.drain(..) {
            // A mirror that was given up needs no body.
            let _ = mirror.send(self.kept.iter().cloned().collect());
        }
    }
}

impl State {
    fn new(source: tonic::body::Body, budget: Arc<Budget>) -> Self {
        Self {
            source,
            budget,
            kept: Kept::default(),
            kept_bytes: 0,
            sent: 0,
            trailers: None,
            ended: false,
            failed: false,
            open_ended: false,
            committed: false,
            attempt: 0,
            oldest: 0,
            only: None,
            over: Vec::new(),
            waiting: None,
            asks: None,
            mirrors: Vec::new(),
        }
    }
}

impl Replay {
    pub(crate) fn new(source: tonic::body::Body, budget: Arc<Budget>) -> Self {
        Self { shared: Arc::new(Mutex::new(State::new(source, budget))) }
    }

    /// A body that has been sent as a whole; none if there is no room for it.
    pub(super) fn sent(kept: Kept, budget: &Arc<Budget>) -> Option<Self> {
        let bytes = kept.bytes();
        budget.take(bytes).then(|| {
            let mut state = State::new(tonic::body::Body::empty(), Arc::clone(budget));
            (state.kept, state.kept_bytes, state.ended) = (kept, bytes, true);
            Self { shared: Arc::new(Mutex::new(state)) }
        })
    }

    /// A body of which this has been taken already, and the attempt that has taken it. An error gives the body back:
    /// there is no room for it.
    pub(crate) fn resume(
        source: tonic::body::Body,
        kept: Kept,
        budget: &Arc<Budget>,
    ) -> Result<(Self, ReplayBody), tonic::body::Body> {
        let (bytes, next) = (kept.bytes(), kept.len());
        if bytes > CALL_LIMIT || !budget.take(bytes) {
            return Err(source);
        }
        let mut state = State::new(source, Arc::clone(budget));
        (state.kept, state.kept_bytes, state.sent) = (kept, bytes, next);
        (state.attempt, state.oldest) = (1, 1);
        let shared = Arc::new(Mutex::new(state));
        Ok((Self { shared: Arc::clone(&shared) }, ReplayBody { shared, attempt: 1, next }))
    }

    /// The whole body, once it has been sent; an error when it is too long, fails or is never sent whole.
    pub(crate) fn whole(&self) -> oneshot::Receiver<Whole> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared).mirrors.push(sender);
        receiver
    }

    /// The body for another attempt, or none when it cannot be sent again.
    pub(crate) fn attempt(&self) -> Option<ReplayBody> {
        let mut state = lock(&self.shared);
        if state.open_ended || state.failed {
            return None;
        }
        state.attempt += 1;
        state.oldest = state.attempt;
        state.sent = 0;
        Some(ReplayBody { shared: self.shared.clone(), attempt: state.attempt, next: 0 })
    }

    /// The body for an attempt beside those that there are, or none when it cannot be sent again.
    pub(crate) fn beside(&self) -> Option<ReplayBody> {
        let mut state = lock(&self.shared);
        if state.open_ended || state.failed {
            return None;
        }
        state.attempt += 1;
        state.waiting.get_or_insert_default();
        Some(ReplayBody { shared: self.shared.clone(), attempt: state.attempt, next: 0 })
    }

    /// The caller's body ended with an error.
    pub(crate) fn is_failed(&self) -> bool {
        lock(&self.shared).failed
    }

    /// Whether another attempt is possible.
    pub(crate) fn is_repeatable(&self) -> bool {
        let state = lock(&self.shared);
        !state.open_ended && !state.failed
    }

    /// Of attempts beside one another, the only one that may go on: what was sent is not kept any more.
    pub(crate) fn only(&self) -> Option<u32> {
        lock(&self.shared).only
    }

    /// This one of attempts beside one another is over: whoever still reads its body gets nothing more, so that it cannot
    /// become the only one from now on. As [`Self::only`]: it may be already.
    pub(crate) fn give_up(&self, attempt: u32) -> Option<u32> {
        let mut state = lock(&self.shared);
        state.over.push(attempt);
        // It may be the one that the source would have woken.
        state.wake();
        state.only
    }

    /// As [`Self::only`], as soon as that is so.
    pub(crate) fn poll_only(&self, cx: &mut Context<'_>) -> Poll<u32> {
        let mut state = lock(&self.shared);
        match state.only {
            Some(only) => Poll::Ready(only),
            None => {
                state.asks = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// There will be no further attempt than the latest: nothing more is kept, except for mirrors.
    pub(crate) fn commit(&self) {
        let mut state = lock(&self.shared);
        state.committed = true;
        // Beside one another the latest need not be the one that goes on.
        if state.waiting.is_none() && state.trailers.is_none() {
            let sent = state.sent;
            state.settle(sent);
        }
    }

    /// As [`Self::commit`], of attempts beside one another: of those, only this one goes on. They are counted from 1.
    pub(crate) fn commit_to(&self, attempt: u32) {
        let mut state = lock(&self.shared);
        state.committed = true;
        // Others may be about to read at this moment.
        state.only.get_or_insert(attempt);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic of the caller's body leaves nothing half done here.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut state = lock(&this.shared);
        let state = &mut *state;
        if !state.is_current(this.attempt) {
            return Poll::Ready(Some(Err(Status::cancelled("superseded by another attempt"))));
        }
        if let Some(data) = state.kept.get(this.next) {
            this.next += 1;
            state.sent = this.next;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        let kept = state.kept.len();
        if state.settle(this.next) {
            this.next -= kept;
        }
        if state.ended {
            let trailers = state.trailers.clone().filter(|_| this.next == state.kept.len());
            this.next = state.kept.len() + 1;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = Pin::new(&mut state.source).poll_frame(cx);
        if polled.is_ready() {
            state.wake();
        } else if let Some(waiting) = &mut state.waiting {
            // The source wakes whoever asked it last; that one wakes the others.
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
        }
        match std::task::ready!(polled) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    state.keep(&data);
                    if state.open_ended {
                        state.only = Some(this.attempt);
                        if let Some(asks) = state.asks.take() {
                            asks.wake();
                        }
                    }
                    this.next = state.kept.len();
                    state.sent = this.next;
                    if state.source.is_end_stream() {
                        state.end();
                    }
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => {
                    state.trailers = frame.trailers_ref().cloned();
                    state.end();
                    this.next = state.kept.len() + 1;
                    Poll::Ready(Some(Ok(frame)))
                }
            },
            Some(Err(error)) => {
                state.failed = true;
                state.mirrors.clear();
                Poll::Ready(Some(Err(error)))
            }
            None => {
                state.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.shared);
        let replayed = self.next >= state.kept.len();
        let over = (state.ended && state.trailers.is_none()) || state.source.is_end_stream();
        state.is_current(self.attempt) && replayed && over && state.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let state = lock(&self.shared);
        let rest: u64 = state.kept.iter().skip(self.next).map(|data| data.len() as u64).sum();
        let source = state.source.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.saturating_add(source.lower()));
        if let Some(upper) = source.upper() {
            hint.set_upper(rest.saturating_add(upper));
        }
        hint
    }
}

impl Drop for ReplayBody {
    fn drop(&mut self) {
        // It may be the one that the source would have woken.
        lock(&self.shared).wake();
    }
}

impl fmt::Debug for ReplayBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplayBody(attempt {})", self.attempt)
    }
}

#[cfg(test)]
mod tests;
