//! Where a stream's task lays a response down for the transport to take. There is room for one.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::task::AbortHandle;
use tonic::Status;

struct State<R> {
    response: Option<R>,
    /// What comes after the response; when it is there, nothing else does.
    end: Option<Result<(), Status>>,
    /// Waits for a response, or the end.
    reader: Option<Waker>,
    /// Waits for room.
    writer: Option<Waker>,
}

/// The task's side.
pub(super) struct Desk<R>(Arc<Mutex<State<R>>>);

impl<R> Desk<R> {
    fn state(&self) -> MutexGuard<'_, State<R>> {
        // Nothing here is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until nothing lies here. Nobody else may wait for it.
    pub(super) async fn room(&self) {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.response.is_none() {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Lays a response down where there is room.
    pub(super) fn put(&self, response: R) {
        let mut state = self.state();
        state.response = Some(response);
        wake(state.reader.take());
    }

    /// Nothing follows. A fault is told at once, instead of what has not been taken.
    fn end(&self, end: Result<(), Status>) {
        let mut state = self.state();
        if end.is_err() {
            state.response = None;
        }
        state.end = Some(end);
        wake(state.reader.take());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What a task says on its end, even if that is a panic.
struct Last<R>(Desk<R>, Option<Result<(), Status>>);

impl<R> Drop for Last<R> {
    fn drop(&mut self) {
        let failed = || Err(Status::internal("this stream failed in the control plane, whose log says how"));
        self.0.end(self.1.take().unwrap_or_else(failed));
    }
}

/// The transport's side. The task ends when it is dropped.
pub(super) struct Responses<R> {
    desk: Desk<R>,
    task: AbortHandle,
}

impl<R: Send + 'static> Responses<R> {
    /// Of a task that serves at a desk until it is done.
    pub(super) fn of<F>(serve: impl FnOnce(Desk<R>) -> F) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let state = State { response: None, end: None, reader: None, writer: None };
        let desk = Desk(Arc::new(Mutex::new(state)));
        let serving = serve(Desk(desk.0.clone()));
        let last = Last(Desk(desk.0.clone()), None);
        let task = tokio::spawn(async move {
            // All of it, as soon as there is a task.
            let mut last = last;
            last.1 = Some(serving.await);
        });
        Self { desk, task: task.abort_handle() }
    }

    /// The next response, or the status of a stream that is over.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<R, Status>> {
        let mut state = self.desk.state();
        if let Some(response) = state.response.take() {
            wake(state.writer.take());
            return Poll::Ready(Ok(response));
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Err(end.clone().err().unwrap_or_else(|| Status::ok(""))));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<R> Drop for Responses<R> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(responses: &mut Responses<u8>) -> Result<u8, Status> {
        poll_fn(|cx| responses.poll_next(cx)).await
    }

    #[tokio::test]
    async fn responses_come_in_order_and_then_the_end() {
        let mut responses = Responses::of(|desk| async move {
            for one in 1..=3 {
                desk.room().await;
                desk.put(one);
            }
            Ok(())
        });
        for one in 1..=3 {
            assert_eq!(next(&mut responses).await.unwrap(), one);
        }
        assert_eq!(next(&mut responses).await.unwrap_err().code(), tonic::Code::Ok);
    }

    #[tokio::test]
    async fn a_fault_overtakes_what_has_not_been_taken() {
        let mut responses = Responses::of(|desk| async move {
            desk.put(1);
            Err(Status::unauthenticated("over"))
        });
        assert_eq!(next(&mut responses).await.unwrap_err().message(), "over");
    }

    #[tokio::test]
    async fn a_task_that_fails_ends_its_stream() {
        let mut responses = Responses::<u8>::of(|_| async { panic!("a fault") });
        assert_eq!(next(&mut responses).await.unwrap_err().code(), tonic::Code::Internal);
    }

    #[tokio::test]
    async fn a_task_ends_with_its_transport() {
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        let responses = Responses::<u8>::of(|_| async move {
            let _held = held;
            std::future::pending().await
        });
        drop(responses);
        assert!(ended.await.is_err());
    }
}
