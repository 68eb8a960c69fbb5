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

    fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
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
struct Kept {
    first: Option<Bytes>,
    rest: Vec<Bytes>,
}

impl Kept {
    fn push(&mut self, data: Bytes) {
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
}

struct State {
    source: tonic::body::Body,
    budget: Arc<Budget>,
    kept: Kept,
    kept_bytes: usize,
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
    /// Attempts beside one another that wait for the source, which wakes one of them; none where there is one.
    waiting: Option<Vec<Waker>>,
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

    /// Attempts beside one another look at the source again.
    fn wake(&mut self) {
        for waker in self.waiting.iter_mut().flat_map(|waiting| waiting.drain(..)) {
            waker.wake();
        }
    }

    fn is_current(&self, attempt: u32) -> bool {
        attempt >= self.oldest && self.only.is_none_or(|only| only == attempt)
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

impl Replay {
    pub(crate) fn new(source: tonic::body::Body, budget: Arc<Budget>) -> Self {
        Self {
            shared: Arc::new(Mutex::new(State {
                source,
                budget,
                kept: Kept::default(),
                kept_bytes: 0,
                trailers: None,
                ended: false,
                failed: false,
                open_ended: false,
                committed: false,
                attempt: 0,
                oldest: 0,
                only: None,
                waiting: None,
                mirrors: Vec::new(),
            })),
        }
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

    /// There will be no further attempt: nothing more is kept, except for mirrors.
    pub(crate) fn commit(&self) {
        let mut state = lock(&self.shared);
        state.committed = true;
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
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
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
                    }
                    this.next = state.kept.len();
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
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    /// A body of these chunks, and how many of them have been taken.
    fn body(chunks: Vec<Bytes>) -> (tonic::body::Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = taken.clone();
        let frames = stream::iter(chunks.into_iter().map(move |chunk| {
            counter.fetch_add(1, Relaxed);
            Ok::<_, Status>(Frame::data(chunk))
        }));
        (tonic::body::Body::new(StreamBody::new(frames)), taken)
    }

    fn chunks(sizes: &[usize]) -> Vec<Bytes> {
        sizes.iter().enumerate().map(|(i, size)| Bytes::from(vec![i as u8; *size])).collect()
    }

    async fn next(body: &mut ReplayBody) -> Option<Bytes> {
        let frame = body.frame().await?;
        frame.unwrap().into_data().ok()
    }

    #[tokio::test]
    async fn every_attempt_sends_the_same_and_the_source_is_read_once() {
        let (source, taken) = body(chunks(&[3, 5, 7]));
        let replay = Replay::new(source, Budget::new(1000));
        assert_eq!(taken.load(Relaxed), 0, "nothing is read before it is wanted");
        let mut first = replay.attempt().unwrap();
        assert_eq!(next(&mut first).await.unwrap().len(), 3);
        assert_eq!(taken.load(Relaxed), 1);

        let mut second = replay.attempt().unwrap();
        assert!(first.frame().await.unwrap().is_err(), "the first attempt has lost the source");
        let sent = (&mut second).collect().await.unwrap().to_bytes();
        assert_eq!(sent.len(), 15);
        let third = replay.attempt().unwrap().collect().await.unwrap().to_bytes();
        assert_eq!(third, sent);
        assert_eq!(taken.load(Relaxed), 3);
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_flows_through_and_cannot_be_repeated() {
        let sizes = vec![16 << 10; 64];
        let (source, _) = body(chunks(&sizes));
        let budget = Budget::new(10 << 20);
        let replay = Replay::new(source, budget.clone());
        let mut sent = 0;
        let mut attempt = replay.attempt().unwrap();
        while let Some(data) = next(&mut attempt).await {
            sent += data.len();
            assert!((10 << 20) - budget.left.load(Relaxed) <= CALL_LIMIT);
        }
        assert_eq!(sent, 1 << 20);
        assert!(!replay.is_repeatable());
        assert!(replay.attempt().is_none());
        assert_eq!(budget.left.load(Relaxed), 10 << 20, "what was kept was dropped");
    }

    #[tokio::test]
    async fn the_budget_is_shared_by_calls_and_given_back() {
        let budget = Budget::new(100);
        let one = Replay::new(body(chunks(&[80])).0, budget.clone());
        let two = Replay::new(body(chunks(&[80])).0, budget.clone());
        one.attempt().unwrap().collect().await.unwrap();
        assert!(one.is_repeatable());
        two.attempt().unwrap().collect().await.unwrap();
        assert!(!two.is_repeatable(), "no budget was left for it");
        drop(one);
        assert_eq!(budget.left.load(Relaxed), 100);
    }

    #[tokio::test]
    async fn attempts_beside_one_another_read_the_same_and_keep_it_once() {
        let (source, taken) = body(chunks(&[3, 5, 7]));
        let budget = Budget::new(15);
        let replay = Replay::new(source, budget.clone());
        let (mut one, mut other) = (replay.beside().unwrap(), replay.beside().unwrap());
        assert_eq!(next(&mut one).await.unwrap().len(), 3);
        assert_eq!(next(&mut other).await.unwrap().len(), 3);
        assert_eq!(next(&mut other).await.unwrap().len(), 5);
        let late = replay.beside().unwrap().collect().await.unwrap().to_bytes();
        assert_eq!((late.len(), taken.load(Relaxed)), (15, 3));
        assert_eq!(one.collect().await.unwrap().to_bytes().len(), 12);
        assert_eq!(other.collect().await.unwrap().to_bytes().len(), 7);
        assert_eq!(budget.left.load(Relaxed), 0);
        drop(replay);
        assert_eq!(budget.left.load(Relaxed), 15);
    }

    #[tokio::test]
    async fn past_the_limit_the_attempt_that_is_furthest_goes_on_alone() {
        let (source, _) = body(chunks(&[10, CALL_LIMIT, 10]));
        let replay = Replay::new(source, Budget::new(1 << 20));
        let (mut one, mut other) = (replay.beside().unwrap(), replay.beside().unwrap());
        next(&mut one).await.unwrap();
        next(&mut other).await.unwrap();
        assert_eq!(next(&mut other).await.unwrap().len(), CALL_LIMIT);
        assert!(one.frame().await.unwrap().is_err());
        assert!(replay.beside().is_none() && !replay.is_failed());
        assert_eq!(next(&mut other).await.unwrap().len(), 10);
        assert!(next(&mut other).await.is_none());
    }

    #[tokio::test]
    async fn whoever_waits_for_the_source_is_woken_though_the_one_it_would_wake_is_gone() {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, Status>>();
        let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let replay = Replay::new(tonic::body::Body::new(StreamBody::new(frames)), Budget::new(100));
        let (mut one, mut other) = (replay.beside().unwrap(), replay.beside().unwrap());
        let first = tokio::spawn(async move { next(&mut one).await });
        tokio::task::yield_now().await;
        let second = tokio::spawn(async move { next(&mut other).await });
        tokio::task::yield_now().await;
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        sender.send(Ok(Frame::data(Bytes::from_static(b"late")))).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), &b"late"[..]);
    }

    #[tokio::test]
    async fn after_the_commit_nothing_more_is_kept() {
        let budget = Budget::new(100);
        let replay = Replay::new(body(chunks(&[10, 10])).0, budget.clone());
        let mut attempt = replay.attempt().unwrap();
        next(&mut attempt).await.unwrap();
        replay.commit();
        assert_eq!(next(&mut attempt).await.unwrap().len(), 10);
        assert!(next(&mut attempt).await.is_none());
        assert_eq!(budget.left.load(Relaxed), 100);
    }

    #[tokio::test]
    async fn a_mirror_gets_the_whole_body_or_nothing() {
        let replay = Replay::new(body(chunks(&[10, 20])).0, Budget::new(100));
        let whole = replay.whole();
        let mut attempt = replay.attempt().unwrap();
        next(&mut attempt).await.unwrap();
        replay.commit();
        (&mut attempt).collect().await.unwrap();
        assert_eq!(whole.await.unwrap().iter().map(Bytes::len).sum::<usize>(), 30);

        let replay = Replay::new(body(chunks(&[CALL_LIMIT + 1])).0, Budget::new(1 << 20));
        let whole = replay.whole();
        replay.attempt().unwrap().collect().await.unwrap();
        assert!(whole.await.is_err(), "longer than what is kept");
    }

    #[tokio::test]
    async fn an_error_of_the_callers_body_ends_it_for_good() {
        let frames = stream::iter([Err::<Frame<Bytes>, _>(Status::aborted("mine"))]);
        let replay = Replay::new(tonic::body::Body::new(StreamBody::new(frames)), Budget::new(100));
        let error = replay.attempt().unwrap().frame().await.unwrap().unwrap_err();
        assert_eq!(error.message(), "mine");
        assert!(!replay.is_repeatable());
    }
}
