//! Servers that say who they are, and calls to them.

use crate::{
    MeshChannel,
    context::Incoming,
    orca::{CallMetricsLayer, OpenRcaService, ServerMetricsRecorder},
    registration::proto::{RegisterRequest, RegisterResponse},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    client::GrpcService,
    metadata::{MetadataMap, MetadataValue},
    server::{Grpc, NamedService},
    transport::Server,
};
use tonic_prost::ProstCodec;

/// A server that says its name, or does not.
pub(in crate::mesh::tests) struct Echo {
    pub(in crate::mesh::tests) address: SocketAddr,
    seen: Arc<Mutex<HeaderMap>>,
    hits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Debug)]
enum Manner {
    Name(&'static str),
    Fail(Code),
    Silent,
    /// Asks the next hop, as a handler does.
    Hop(MeshChannel),
}

impl Echo {
    pub(in crate::mesh::tests) async fn start(name: &'static str) -> Self {
        Self::serve(Manner::Name(name), ServerMetricsRecorder::new()).await
    }

    /// One that says this of its load, with responses and by itself every 10 ms.
    pub(in crate::mesh::tests) async fn reporting(name: &'static str, load: ServerMetricsRecorder) -> Self {
        Self::serve(Manner::Name(name), load).await
    }

    pub(in crate::mesh::tests) async fn failing(code: Code) -> Self {
        Self::serve(Manner::Fail(code), ServerMetricsRecorder::new()).await
    }

    /// A server whose handler makes a call itself. It believes its callers, as an authenticated peer is believed.
    pub(in crate::mesh::tests) async fn hop(next: MeshChannel) -> Self {
        Self::serve(Manner::Hop(next), ServerMetricsRecorder::new()).await
    }

    pub(in crate::mesh::tests) async fn silent() -> Self {
        Self::serve(Manner::Silent, ServerMetricsRecorder::new()).await
    }

    async fn serve(manner: Manner, load: ServerMetricsRecorder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(HeaderMap::new()));
        let hits = Arc::new(AtomicUsize::new(0));
        let service = EchoService { manner, seen: seen.clone(), hits: hits.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let reports = OpenRcaService::new(load.clone()).min_reporting_interval(Duration::from_millis(10));
            let layer = CallMetricsLayer::with_server_metrics(load);
            let serving = Server::builder().layer(layer).add_service(service).add_service(reports);
            serving.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, seen, hits, _tasks: tasks }
    }

    /// How many requests there were.
    pub(in crate::mesh::tests) fn hits(&self) -> usize {
        self.hits.load(SeqCst)
    }

    /// Headers of the last request.
    pub(in crate::mesh::tests) fn last_headers(&self) -> HeaderMap {
        self.seen.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct EchoService {
    manner: Manner,
    seen: Arc<Mutex<HeaderMap>>,
    hits: Arc<AtomicUsize>,
}

impl NamedService for EchoService {
    const NAME: &'static str = "mesh.test.Echo";
}

impl tower_service::Service<http::Request<Body>> for EchoService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let mut headers = request.headers().clone();
            let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            *this.seen.lock().unwrap() = headers.clone();
            this.hits.fetch_add(1, SeqCst);
            let name = match this.manner {
                Manner::Name(name) => name,
                Manner::Fail(code) => {
                    let mut metadata = MetadataMap::new();
                    // `cpu_utilization` is 0.5.
                    let report = MetadataValue::from_bytes(&[0x09, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]);
                    metadata.insert_bin(mesh_xds::orca::TRAILER, report);
                    return Ok(Status::with_metadata(code, "as told", metadata).into_http());
                }
                Manner::Silent => return std::future::pending().await,
                Manner::Hop(next) => {
                    let incoming = Incoming::from_headers(&headers, true, tokio::time::Instant::now());
                    match incoming.scope(ask(next, None)).await {
                        Ok(_) => "hop",
                        Err(status) => return Ok(Status::new(status.code(), "of the next hop").into_http()),
                    }
                }
            };
            headers.insert("seen-authority", authority.parse().unwrap());
            let message = RegisterResponse { workload_entry: name.to_owned(), revision: String::new() };
            let answer = move |_: Request<RegisterRequest>| {
                let mut response = Response::new(message.clone());
                for (key, seen) in SEEN {
                    if let Some(value) = headers.get(seen) {
                        response.metadata_mut().insert(key, value.to_str().unwrap().parse().unwrap());
                    }
                }
                async { Ok::<_, Status>(response) }
            };
            let codec = ProstCodec::<RegisterResponse, RegisterRequest>::default();
            Ok(Grpc::new(codec).unary(tower::service_fn(answer), request).await)
        })
    }
}

/// Headers of a request that the response tells of.
const SEEN: [(&str, &str); 3] =
    [("seen-authority", "seen-authority"), ("seen-agent", "user-agent"), ("seen-timeout", "grpc-timeout")];

/// A header that clients tell a session in: as it comes with the response.
const SESSION: (&str, &str) = ("x-session", "x-session");

/// What an [`Echo`] answered, and what it had seen.
#[derive(Debug)]
pub(in crate::mesh::tests) struct Answer {
    pub(in crate::mesh::tests) server: String,
    pub(in crate::mesh::tests) authority: String,
    pub(in crate::mesh::tests) headers: HeaderMap,
}

/// A unary call, as generated code makes it.
pub(in crate::mesh::tests) async fn ask<T>(
    channel: T,
    request: Option<Request<RegisterRequest>>,
) -> Result<Answer, Status>
where
    T: GrpcService<Body>,
    T::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = http::uri::PathAndQuery::from_static("/mesh.test.Echo/Ask");
    let codec = ProstCodec::<RegisterRequest, RegisterResponse>::default();
    let response = client
        .unary(request.unwrap_or_else(|| Request::new(RegisterRequest::default())), path, codec)
        .await?;
    let (metadata, message, _) = response.into_parts();
    let seen = |key: &str| metadata.get(key).map(|value| value.to_str().unwrap().to_owned());
    let mut headers = HeaderMap::new();
    for (key, name) in SEEN.into_iter().chain([SESSION]) {
        if let Some(value) = seen(key) {
            headers.insert(name, value.parse().unwrap());
        }
    }
    Ok(Answer {
        server: message.workload_entry,
        authority: seen("seen-authority").unwrap_or_default(),
        headers,
    })
}
