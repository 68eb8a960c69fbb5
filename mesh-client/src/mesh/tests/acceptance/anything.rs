//! Any header, path and authority that `http` can hold, and any status: through the whole stack to a real server and
//! back, unchanged, or refused with a status that says so.

use super::*;
use http::{HeaderName, HeaderValue, Uri, request::Parts};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use std::{convert::Infallible, sync::Mutex};
use tokio::{net::TcpListener, task::JoinSet};

/// Answers with the status that the request asks for, and keeps the request's head.
struct Parrot {
    address: SocketAddr,
    heard: Arc<Mutex<Option<Parts>>>,
    _tasks: JoinSet<()>,
}

impl Parrot {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(None));
        let (mut tasks, hears) = (JoinSet::new(), heard.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let hears = hears.clone();
                let service =
                    hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let hears = hears.clone();
                        async move {
                            let (head, body) = request.into_parts();
                            let _ = body.collect().await;
                            let mut response = http::Response::new(http_body_util::Empty::<Bytes>::new());
                            let headers = response.headers_mut();
                            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
                            headers.insert("grpc-status", HeaderValue::from_static("0"));
                            for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
                                if let Some(said) = head.headers.get(format!("say-{name}")) {
                                    headers.insert(name, said.clone());
                                }
                            }
                            *hears.lock().unwrap() = Some(head);
                            Ok::<_, Infallible>(response)
                        }
                    });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move { drop(connection.await) });
            }
        });
        Self { address, heard, _tasks: tasks }
    }
}

/// Runs this with whatever proptest makes of the strategy; the status and what the server heard, if it did.
fn each<S: Strategy>(
    strategy: S,
    change: impl Fn(&mut http::Request<Body>, &S::Value) -> bool,
    holds: impl Fn(&S::Value, &Status, Option<Parts>) -> Result<(), TestCaseError>,
) where
    S::Value: Clone,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (plane, parrot) = runtime.block_on(async { (Plane::start().await, Parrot::start().await) });
    plane.publish(&reviews([("v1", vec![parrot.address])]));
    let _inside = runtime.enter();
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let result = runner.run(&strategy, |value| {
        let mut request = request("v1", LONG);
        if !change(&mut request, &value) {
            return Err(TestCaseError::reject("http does not hold it"));
        }
        let status = runtime.block_on(within(status(channel.clone(), request)));
        let heard = parrot.heard.lock().unwrap().take();
        if heard.is_none() {
            prop_assert!(status.message().contains("reviews:9080"), "{status:?}");
        }
        holds(&value, &status, heard)
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(at_rest(&mesh));
    // The connection is good for a call like any other.
    assert_eq!(runtime.block_on(within(status(channel, request("v1", LONG)))).code(), Code::Ok);
}

#[test]
fn any_header_arrives_as_it_is_or_is_one_of_http_and_grpc() {
    let name = "[a-z0-9!#$%&'*+.^_`|~-]{1,24}(-bin)?";
    let known = prop::sample::select(vec![
        "host",
        "connection",
        "transfer-encoding",
        "content-length",
        "te",
        "upgrade",
        "expect",
        "grpc-timeout",
        "grpc-encoding",
        "grpc-previous-rpc-attempts",
        "x-mesh-retry",
        "user-agent",
        "cookie",
        "content-type",
        "grpc-status",
    ]);
    let name = prop_oneof![3 => name.prop_map(String::from), 1 => known.prop_map(String::from)];
    each(
        (name, vec(prop_oneof![9 => 0x20..0x7fu8, 1 => 0x80..=0xffu8, 1 => Just(b'\t')], 0..64)),
        |request, (name, value)| {
            let Ok(name) = name.parse::<HeaderName>() else { return false };
            let Ok(value) = HeaderValue::from_bytes(value) else { return false };
            request.headers_mut().append(name, value);
            true
        },
        |(name, value), status, heard| {
            let of_http = ["host", "connection", "transfer-encoding", "content-length", "te", "upgrade"];
            let of_calls = ["grpc-timeout", "x-mesh-retry", "to"];
            if of_http.contains(&&**name) || of_calls.contains(&&**name) || name.starts_with("say-") {
                return Ok(());
            }
            let Some(heard) = heard else {
                return Err(TestCaseError::fail(format!("not sent: {status:?}")));
            };
            prop_assert_eq!(status.code(), Code::Ok);
            let arrived = heard.headers.get_all(name).iter().any(|header| header.as_bytes() == value);
            prop_assert!(arrived, "{:?}", heard.headers);
            Ok(())
        },
    );
}

#[test]
fn any_path_arrives_as_it_is() {
    each(
        prop_oneof!["/[ -~]{0,64}", "[*/?#%a-z]{0,8}", "\\PC{0,16}"],
        |request, path: &String| {
            let Ok(path) = Uri::builder().path_and_query(path.as_str()).build() else { return false };
            *request.uri_mut() = path;
            true
        },
        |path, status, heard| {
            let Some(heard) = heard else { return Ok(()) };
            prop_assert_eq!(status.code(), Code::Ok);
            let path: Uri = Uri::builder().path_and_query(path.as_str()).build().unwrap();
            let sent = path.path_and_query().map_or("/", |path| path.as_str());
            if sent.starts_with('/') {
                prop_assert_eq!(heard.uri.path_and_query().unwrap().as_str(), sent);
            }
            Ok(())
        },
    );
}

#[test]
fn any_authority_is_sent_or_refused() {
    each(
        prop_oneof!["[a-z0-9.-]{1,20}(:[0-9]{0,6})?", "\\[[0-9a-f:]{2,20}\\]", "[!-~]{1,24}"],
        |request, authority: &String| {
            let uri =
                Uri::builder().scheme("http").authority(authority.as_str()).path_and_query("/a.B/C").build();
            let Ok(uri) = uri else { return false };
            *request.uri_mut() = uri;
            true
        },
        |_, _, _| Ok(()),
    );
}

#[test]
fn any_status_comes_back_as_it_was_said_or_as_unknown() {
    let code = prop_oneof![3 => "[0-9]{1,2}", 1 => "[!-~]{0,6}"];
    each(
        (code, "[ -~]{0,32}", "[A-Za-z0-9+/=!]{0,12}"),
        |request, (code, message, details)| {
            let values = [
                ("say-grpc-status", code),
                ("say-grpc-message", message),
                ("say-grpc-status-details-bin", details),
            ];
            for (name, value) in values {
                let Ok(value) = HeaderValue::from_str(value) else { return false };
                request.headers_mut().insert(name, value);
            }
            true
        },
        |(code, message, _), status, heard| {
            prop_assert!(heard.is_some());
            let known = (0..=16).find(|known: &i32| known.to_string() == *code);
            prop_assert_eq!(status.code(), known.map_or(Code::Unknown, Code::from_i32));
            if known.is_none() {
                prop_assert!(status.message().contains("grpc-status"), "{status:?}");
            } else if !message.contains('%') {
                prop_assert_eq!(status.message(), message);
            }
            Ok(())
        },
    );
}
