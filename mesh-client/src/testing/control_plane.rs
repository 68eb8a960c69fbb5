//! A control plane that takes registrations, and leaves their answers to the test.

use crate::registration::proto::{RegisterRequest, RegisterResponse};
use futures_util::future::BoxFuture;
use std::{convert::Infallible, task::Poll};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService},
    transport::Server,
};
use tonic_prost::ProstCodec;

/// The streams that come, each with a way to answer.
pub(crate) type Streams = mpsc::UnboundedReceiver<(tonic::Streaming<RegisterRequest>, Answers)>;
/// Answers on one stream; dropping it ends the stream.
pub(crate) type Answers = mpsc::UnboundedSender<Result<RegisterResponse, Status>>;

/// Serves; `refusal` is the answer to every stream, if there is one. Ends with the last value.
pub(crate) async fn serve(refusal: Option<Status>) -> (String, Streams, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (streams, receiver) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        Server::builder()
            .add_service(ControlPlane { streams, refusal })
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
    (address, receiver, tasks)
}

/// An answer.
pub(crate) fn revision(revision: &str) -> RegisterResponse {
    RegisterResponse { workload_entry: "reviews-127.0.0.1".to_owned(), revision: revision.to_owned() }
}

#[derive(Clone)]
struct ControlPlane {
    streams: mpsc::UnboundedSender<(tonic::Streaming<RegisterRequest>, Answers)>,
    refusal: Option<Status>,
}

impl NamedService for ControlPlane {
    const NAME: &'static str = "mesh.v1.WorkloadRegistration";
}

impl tower_service::Service<http::Request<Body>> for ControlPlane {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<RegisterResponse, RegisterRequest>::default();
            let register = |request: Request<tonic::Streaming<RegisterRequest>>| {
                let this = this.clone();
                async move {
                    if let Some(refusal) = this.refusal {
                        return Err(refusal);
                    }
                    let (answers, outgoing) = mpsc::unbounded_channel();
                    this.streams.send((request.into_inner(), answers)).unwrap();
                    Ok(Response::new(UnboundedReceiverStream::new(outgoing)))
                }
            };
            Ok(Grpc::new(codec).streaming(tower::service_fn(register), request).await)
        })
    }
}
