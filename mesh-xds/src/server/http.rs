//! gRPC's framing around [`AdsService`].
//!
//! Tonic's own server would do, but for one thing: it keeps, as long as a stream lives, buffers of the size of the
//! largest response and the largest request, which are the first. A control plane has thousands of streams, and nearly
//! all of them are idle. Here a response has a buffer of its own, of the right size, which is free once it is written;
//! and so has a request ([`super::requests`]).

use super::{
    Delta, Protocol, Sotw, Views, desk::Responses, requests::PREFIX, task::AdsService, unsent::Leave,
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use prost::Message;
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::{Request, Status, metadata::GRPC_CONTENT_TYPE, server::NamedService};
use tower_service::Service;

/// `envoy.service.discovery.v3.AggregatedDiscoveryService` for tonic's `Server`: see [`AdsService::service`].
pub struct AdsServer<V>(pub(super) AdsService<V>);

impl<V> Clone for AdsServer<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> NamedService for AdsServer<V> {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<V, B> Service<http::Request<B>> for AdsServer<V>
where
    V: Views,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let answer = match method {
            "StreamAggregatedResources" => open::<V, Sotw>(&self.0, request.map(tonic::body::Body::new)),
            "DeltaAggregatedResources" => open::<V, Delta>(&self.0, request.map(tonic::body::Body::new)),
            _ => Err(Status::unimplemented(format!("{} has no method {method:?}", Self::NAME))),
        };
        std::future::ready(Ok(answer.unwrap_or_else(Status::into_http))).boxed()
    }
}

/// Begins a stream. The node is in the first request, and some clients wait for headers before they send it; so
/// headers are sent at once.
fn open<V, P>(
    ads: &AdsService<V>,
    request: http::Request<tonic::body::Body>,
) -> Result<http::Response<tonic::body::Body>, Status>
where
    V: Views,
    P: Protocol,
    P::Request: Message + Default,
{
    let limit = ads.settings().max_response_bytes;
    let responses = ads.open::<P>(Request::from_http(request))?;
    let body = Frames { responses: Some(responses), limit };
    let mut response = http::Response::new(tonic::body::Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    Ok(response)
}

/// A stream's responses as the frames of a body, the status last.
struct Frames<R> {
    /// Until the trailers.
    responses: Option<Responses<(R, Leave)>>,
    limit: usize,
}

impl<R: Message + 'static> Body for Frames<R> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(responses) = &mut self.responses else { return Poll::Ready(None) };
        let next = ready!(responses.poll_next(cx));
        let status = match next.and_then(|(response, leave)| frame(&response, leave, self.limit)) {
            Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
            Err(status) => status,
        };
        self.responses = None;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
    }

    fn is_end_stream(&self) -> bool {
        self.responses.is_none()
    }
}

/// A response with its prefix, in a buffer of its size.
fn frame(response: &impl Message, leave: Leave, limit: usize) -> Result<Bytes, Status> {
    let length = response.encoded_len();
    let Some(prefix) = u32::try_from(length).ok().filter(|_| length <= limit) else {
        return Err(Status::resource_exhausted(format!(
            "a response of {length} bytes is larger than the control plane's limit of {limit} (max_response_bytes)"
        )));
    };
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.put_u8(0);
    frame.put_u32(prefix);
    response.encode(&mut frame).map_err(|error| Status::internal(error.to_string()))?;
    Ok(leave.for_response(frame))
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::{super::unsent::Unsent, *};
    use crate::proto::DeltaDiscoveryResponse;

    #[test]
    fn a_response_takes_what_it_needs_and_no_more_than_the_limit() {
        let response = DeltaDiscoveryResponse { nonce: "7".to_owned(), ..Default::default() };
        let leave = || Unsent::new(10).leave("".into(), 3).now_or_never().unwrap().unwrap();
        let data = frame(&response, leave(), 3).unwrap();
        assert_eq!(&data[..PREFIX], [0, 0, 0, 0, 3]);
        assert_eq!(DeltaDiscoveryResponse::decode(&data[PREFIX..]).unwrap(), response);
        let status = frame(&response, leave(), 2).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(status.message().contains("3 bytes"), "{status}");
    }
}
