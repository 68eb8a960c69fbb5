//! A service of streams, by hand: the greeter has none. `Download` answers one message with as many as it asks for,
//! `Upload` counts the bytes that it is sent.

use futures_util::{Stream, StreamExt, stream};
use http::{Request, Response, uri::PathAndQuery};
use mesh_examples::greeter::{HelloReply, HelloRequest};
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::{
    Status, Streaming,
    body::Body,
    client::{Grpc, GrpcService},
    codegen::{Body as HttpBody, Bytes, Service, StdError},
    server::{ClientStreamingService, NamedService, ServerStreamingService},
};
use tonic_prost::ProstCodec;

const DOWNLOAD: &str = "/bench.Streams/Download";
const UPLOAD: &str = "/bench.Streams/Upload";
/// Messages of a download.
pub const MESSAGES: usize = 100;

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// The server's side.
#[derive(Clone, Copy, Debug)]
pub struct Streams;

impl NamedService for Streams {
    const NAME: &'static str = "bench.Streams";
}

impl Service<Request<Body>> for Streams {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<HelloReply, HelloRequest>::new());
            Ok(match request.uri().path() {
                DOWNLOAD => grpc.server_streaming(Download, request).await,
                UPLOAD => grpc.client_streaming(Upload, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

struct Download;

impl ServerStreamingService<HelloRequest> for Download {
    type Response = HelloReply;
    type ResponseStream = Replies;
    type Future = Answer<tonic::Response<Replies>>;

    fn call(&mut self, request: tonic::Request<HelloRequest>) -> Self::Future {
        let message = request.into_inner().name;
        let replies = stream::iter((0..MESSAGES).map(move |_| Ok(HelloReply { message: message.clone() })));
        let replies: Replies = Box::pin(replies);
        Box::pin(async { Ok(tonic::Response::new(replies)) })
    }
}

struct Upload;

impl ClientStreamingService<HelloRequest> for Upload {
    type Response = HelloReply;
    type Future = Answer<tonic::Response<HelloReply>>;

    fn call(&mut self, request: tonic::Request<Streaming<HelloRequest>>) -> Self::Future {
        Box::pin(async move {
            let mut requests = request.into_inner();
            let mut bytes = 0;
            while let Some(request) = requests.message().await? {
                bytes += request.name.len();
            }
            Ok(tonic::Response::new(HelloReply { message: bytes.to_string() }))
        })
    }
}

/// The client's side.
#[derive(Clone, Debug)]
pub struct StreamsClient<T>(Grpc<T>);

impl<T> StreamsClient<T>
where
    T: GrpcService<Body, Future: Send> + Clone + Send + 'static,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
{
    /// Over this transport, to this origin.
    pub fn new(transport: T, origin: http::Uri) -> Self {
        Self(Grpc::with_origin(transport, origin))
    }

    /// Takes all the messages of an answer.
    pub async fn download(&mut self, request: HelloRequest) -> Result<(), Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static(DOWNLOAD);
        let codec = ProstCodec::<HelloRequest, HelloReply>::new();
        let answer = self.0.server_streaming(tonic::Request::new(request), path, codec).await?;
        let mut replies = answer.into_inner();
        let mut messages = 0;
        while replies.message().await?.is_some() {
            messages += 1;
        }
        if messages == MESSAGES { Ok(()) } else { Err(Status::data_loss("messages are missing")) }
    }

    /// Sends `count` messages; how many bytes arrived.
    pub async fn upload(&mut self, message: HelloRequest, count: usize) -> Result<usize, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static(UPLOAD);
        let codec = ProstCodec::<HelloRequest, HelloReply>::new();
        let messages = stream::repeat(message).take(count);
        let answer = self.0.client_streaming(tonic::Request::new(messages), path, codec).await?;
        answer.into_inner().message.parse().map_err(|_| Status::data_loss("no number of bytes came"))
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|error| Status::from_error(error.into()))
    }
}
