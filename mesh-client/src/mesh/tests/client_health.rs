//! `MeshBuilder::client_health_checking`, through the whole of a mesh.

use super::{
    world::{Plane, ask, bootstrap, reviews},
    *,
};
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::{body::Frame, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, sync::Mutex};
use tokio::net::TcpListener;

/// A server that says NOT_SERVING, once, to whoever watches; its address, and what it was asked for.
async fn not_serving() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let respond = move |request: Request<hyper::body::Incoming>| {
            seen.lock().unwrap().push(request.uri().path().to_owned());
            let said = Frame::data(bytes::Bytes::from_static(&[0, 0, 0, 0, 2, 8, 2]));
            let open = stream::once(async { Ok::<_, Infallible>(said) }).chain(stream::pending());
            let response = Response::builder().header("content-type", "application/grpc");
            std::future::ready(Ok::<_, Infallible>(response.body(StreamBody::new(open)).unwrap()))
        };
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service_fn(respond))
            .await;
    });
    (address, asked)
}

#[tokio::test]
async fn no_call_goes_to_an_endpoint_that_says_not_serving() {
    let (address, asked) = not_serving().await;
    let plane = Plane::start().await;
    plane.publish(&reviews([("v1", vec![address])]));
    let mesh =
        Mesh::builder().bootstrap(bootstrap(plane.address)).client_health_checking("").build().unwrap();
    let status = within(ask(mesh.channel("reviews:9080").unwrap(), None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let reason = format!("health watch: {address} says NOT_SERVING");
    assert!(status.message().contains(&reason), "{status}");
    assert_eq!(*asked.lock().unwrap(), ["/grpc.health.v1.Health/Watch"]);
}
