//! Calls of this client itself on an endpoint's own connection.
//!
//! Promises: such a call goes where calls of the program go, over the same TLS, and counts nowhere: not in
//! breakers, outlier detection, load reports or the endpoint's calls in flight; it does not keep a connection
//! from being closed as idle. It ends with the connection. For gRPC clients of tonic: `Grpc::new(Own::new(conn))`.

use super::{
    conn::{Conn, OwnStream, Sent, Unsent},
    pump::Pumping,
};
use crate::{body::CallBody, stack::OWN_USER_AGENT};
use bytes::Bytes;
use h2::RecvStream;
use http::{Request, Response, header::USER_AGENT};
use http_body::{Body, Frame};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::{Status, body::Body as TonicBody};
use tower_service::Service;

/// A connection, as a channel.
#[derive(Clone)]
pub(super) struct Own {
    conn: Arc<Conn>,
}

impl Own {
    pub(super) fn new(conn: Arc<Conn>) -> Self {
        Self { conn }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<OwnBody>, Status>> + Send>>;

impl Service<Request<TonicBody>> for Own {
    type Response = Response<OwnBody>;
    type Error = Status;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<TonicBody>) -> Answering {
        let conn = Arc::clone(&self.conn);
        Box::pin(async move {
            let stream = conn.enter_own().ok_or_else(|| {
                Status::resource_exhausted("the endpoint allows too few streams on a connection to spare one")
            })?;
            request.headers_mut().entry(USER_AGENT).or_insert(OWN_USER_AGENT);
            let Sent { response, pumping, .. } = match stream.send(request.map(CallBody::Tonic)) {
                Ok(sent) => sent,
                Err(Unsent::Refused(_)) => return Err(Status::unavailable("the connection ends")),
                Err(Unsent::Lost(error)) => return Err(failed(&error)),
            };
            let response = response.await.map_err(|error| failed(&error))?;
            Ok(response.map(|incoming| OwnBody { incoming, data_ended: false, _held: (stream, pumping) }))
        })
    }
}

fn failed(error: &h2::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// The body of a response; holds its stream until it is dropped.
pub(super) struct OwnBody {
    incoming: RecvStream,
    data_ended: bool,
    _held: (OwnStream, Pumping),
}

impl Body for OwnBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if !this.data_ended {
            match ready!(this.incoming.poll_data(cx)) {
                Some(Ok(data)) => {
                    let _ = this.incoming.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(failed(&error)))),
                None => this.data_ended = true,
            }
        }
        Poll::Ready(match ready!(this.incoming.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(failed(&error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }
}
