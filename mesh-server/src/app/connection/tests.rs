//! How connections end, in memory and without waiting.

use super::*;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2 as client;
use std::convert::Infallible;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};
use tonic::server::NamedService;

/// Answers with headers, and then with nothing more; or at once with the end.
#[derive(Clone)]
struct Service;

impl NamedService for Service {
    const NAME: &'static str = "test.Service";
}

impl tower_service::Service<Request<tonic::body::Body>> for Service {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        assert!(request.extensions().get::<PeerInfo>().is_some(), "who it is");
        let body = match request.uri().path() {
            "/test.Service/Endless" => tonic::body::Body::new(request.into_body()),
            _ => tonic::body::Body::empty(),
        };
        std::future::ready(Ok(Response::new(body)))
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn ages(max: Option<Duration>) -> Ages {
    Ages { max, idle: 300 * SECOND, grace: 10 * SECOND, last: 5 * SECOND }
}

struct Served {
    client: DuplexStream,
    stop: watch::Sender<bool>,
    done: JoinHandle<()>,
}

fn served(ages: Ages) -> Served {
    let (client, server) = duplex(64 << 10);
    let (stop, stopped) = watch::channel(false);
    let routes = Routes::new(Service).prepare();
    let done = tokio::spawn(serve(server, PeerInfo::default(), routes, ages, stopped));
    Served { client, stop, done }
}

/// Asks for what never ends: the request's body is kept open, as a stream's is.
async fn endless(io: DuplexStream) -> (Response<Incoming>, tokio::sync::mpsc::Sender<()>, JoinHandle<()>) {
    let (mut send, connection) = client::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    let driver = tokio::spawn(async move { drop(connection.await) });
    let (open, receiver) = tokio::sync::mpsc::channel::<()>(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await;
        None::<(Result<Frame<bytes::Bytes>, Infallible>, _)>
    });
    let body = http_body_util::StreamBody::new(frames);
    let request = Request::post("http://a/test.Service/Endless").body(BodyExt::boxed_unsync(body)).unwrap();
    let response = send.send_request(request).await.unwrap();
    // Nobody else asks for anything: hyper's client ends when its sender is gone, so it lives with the driver.
    let driver = tokio::spawn(async move {
        drop(driver.await);
        drop(send);
    });
    (response, open, driver)
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_at_its_age_and_its_streams_are_told_so() {
    let mut lives = Vec::new();
    for _ in 0..10 {
        let begun = Instant::now();
        let Served { client, stop: _stop, done } = served(ages(Some(1_000 * SECOND)));
        let (response, _open, driver) = endless(client).await;
        let end = response.into_body().collect().await.unwrap();
        let trailers = end.trailers().expect("a clean end");
        assert_eq!(trailers["grpc-status"], "14", "{trailers:?}");
        assert!(trailers["grpc-message"].to_str().unwrap().contains("connect%20again"), "{trailers:?}");
        let life = begun.elapsed();
        assert!(life >= 910 * SECOND && life <= 1_111 * SECOND, "{life:?}");
        lives.push(life.as_millis());
        driver.await.unwrap();
        done.await.unwrap();
        assert!(begun.elapsed() < life + SECOND, "nothing is left to wait for");
    }
    lives.dedup();
    assert!(lives.len() > 1, "not all at once: {lives:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_asked_nothing_ends_and_one_with_a_stream_does_not() {
    let begun = Instant::now();
    let Served { client, stop: _stop, done } = served(ages(None));
    let (mut send, connection) =
        client::handshake::<_, _, Empty<bytes::Bytes>>(TokioExecutor::new(), TokioIo::new(client))
            .await
            .unwrap();
    let driver = tokio::spawn(connection);
    tokio::time::sleep(200 * SECOND).await;
    let request = Request::post("http://a/test.Service/Short").body(Empty::new()).unwrap();
    send.send_request(request).await.unwrap();
    driver.await.unwrap().unwrap();
    done.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 500, "from the last call on");

    let Served { client, stop, done } = served(ages(None));
    let (response, _open, _driver) = endless(client).await;
    tokio::time::sleep(100_000 * SECOND).await;
    assert!(!done.is_finished());
    let begun = Instant::now();
    stop.send_replace(true);
    let end = response.into_body().collect().await.unwrap();
    assert_eq!(end.trailers().unwrap()["grpc-status"], "14");
    done.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_leave_is_cut() {
    // It answers nothing at all: the ping finds that out, long before its age.
    let begun = Instant::now();
    let Served { mut client, stop: _stop, done } = served(ages(Some(1_000 * SECOND)));
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    done.await.unwrap();
    assert!(begun.elapsed() <= 41 * SECOND, "{:?}", begun.elapsed());

    // It answers pings, but not the one that asks whether it has heard that it should leave.
    let begun = Instant::now();
    let Served { client, stop: _stop, done } = served(ages(None));
    let (mut reads, mut writes) = tokio::io::split(client);
    writes.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let pongs = tokio::spawn(async move {
        use tokio::io::AsyncReadExt;
        let (mut head, mut asked_to_leave) = ([0; 9], false);
        while reads.read_exact(&mut head).await.is_ok() {
            let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            reads.read_exact(&mut body).await.unwrap();
            let [_, _, _, kind, flags, ..] = head;
            asked_to_leave |= kind == 7;
            if kind == 6 && flags == 0 && body[0] == 0x3b {
                head[4] = 1;
                drop(writes.write_all(&[&head[..], &body].concat()).await);
            }
        }
        asked_to_leave
    });
    done.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 315);
    assert!(pongs.await.unwrap());
}
