//! What is kept of a body, for whom, and for how long.

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
async fn what_a_stream_sent_before_the_commit_is_given_back_with_it() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, Status>>();
    let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let budget = Budget::new(100);
    let replay = Replay::new(tonic::body::Body::new(StreamBody::new(frames)), budget.clone());
    for _ in 0..2 {
        sender.send(Ok(Frame::data(Bytes::from_static(b"0123456789")))).unwrap();
    }
    let mut first = replay.attempt().unwrap();
    next(&mut first).await.unwrap();
    next(&mut first).await.unwrap();
    let mut second = replay.attempt().unwrap();
    next(&mut second).await.unwrap();
    assert_eq!(budget.left(), 80);
    replay.commit();
    assert_eq!(budget.left(), 80, "the second attempt has not sent all of it");
    assert_eq!(next(&mut second).await.unwrap().len(), 10);
    assert!(futures_util::poll!(second.frame()).is_pending());
    assert_eq!(budget.left(), 100, "though the stream goes on");
    sender.send(Ok(Frame::data(Bytes::from_static(b"more")))).unwrap();
    assert_eq!(next(&mut second).await.unwrap(), &b"more"[..]);

    let (source, _) = body(chunks(&[10]));
    let replay = Replay::new(source, budget.clone());
    let mut attempt = replay.attempt().unwrap();
    next(&mut attempt).await.unwrap();
    replay.commit();
    assert_eq!(budget.left(), 100, "at once, where all of it was sent");
    assert!(next(&mut attempt).await.is_none());
}

#[tokio::test]
async fn a_loser_that_is_about_to_read_takes_nothing_from_the_winner() {
    let replay = Replay::new(body(chunks(&[3, 5])).0, Budget::new(100));
    let (mut winner, mut loser) = (replay.beside().unwrap(), replay.beside().unwrap());
    next(&mut winner).await.unwrap();
    next(&mut loser).await.unwrap();
    replay.commit_to(1);
    assert!(loser.frame().await.unwrap().is_err());
    assert_eq!(next(&mut winner).await.unwrap().len(), 5);
    assert!(next(&mut winner).await.is_none());
}

#[tokio::test]
async fn a_body_that_was_taken_in_part_goes_on_and_can_be_sent_again() {
    let budget = Budget::new(100);
    let mut kept = Kept::default();
    kept.push(Bytes::from_static(b"taken"));
    let (replay, mut going_on) = Replay::resume(body(chunks(&[10])).0, kept, &budget).unwrap();
    assert_eq!(budget.left(), 95);
    assert_eq!(next(&mut going_on).await.unwrap().len(), 10);
    let again = replay.attempt().unwrap().collect().await.unwrap().to_bytes();
    assert_eq!((&again[..5], again.len()), (&b"taken"[..], 15));
    let mut kept = Kept::default();
    kept.push(Bytes::from(vec![0; 90]));
    assert!(Replay::resume(body(chunks(&[1])).0, kept, &budget).is_err(), "no room");
    drop((replay, going_on));
    assert_eq!(budget.left(), 100);
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
