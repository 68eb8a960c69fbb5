//! [`MeshLayer`]: the mesh in front of a channel that is there already.

use crate::{
    call::MeshBody,
    channel::{CallFuture, Subscription},
    mesh::OutboundTrafficPolicy,
    stack::Outcome,
};
use http::{Request, Response};
use std::{
    error::Error,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::timeout_at;
use tonic::{Status, body::Body};
use tower_layer::Layer;
use tower_service::Service;

/// Puts the mesh in front of a channel; made by [`crate::Mesh::layer`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MeshLayer {
    subscription: Arc<Subscription>,
    policy: OutboundTrafficPolicy,
}

impl MeshLayer {
    pub(crate) fn new(subscription: Arc<Subscription>, policy: OutboundTrafficPolicy) -> Self {
        Self { subscription, policy }
    }
}

impl<S> Layer<S> for MeshLayer {
    type Service = MeshService<S>;

    fn layer(&self, inner: S) -> MeshService<S> {
        MeshService { subscription: self.subscription.clone(), policy: self.policy, inner }
    }
}

/// A channel with the mesh in front: the same stack as a [`MeshChannel`](crate::MeshChannel). The wrapped
/// channel gets the calls to a service that the control plane says it does not know, as they are, if the
/// mesh's [`OutboundTrafficPolicy`] allows.
#[derive(Clone, Debug)]
pub struct MeshService<S> {
    subscription: Arc<Subscription>,
    policy: OutboundTrafficPolicy,
    inner: S,
}

impl<S, B> Service<Request<Body>> for MeshService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<MeshBody>;
    type Error = Status;
    type Future = CallFuture;

    /// Always: readiness of the wrapped channel is asked for by the calls that go through it. A place there
    /// that mesh calls kept would run out.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> CallFuture {
        let Self { subscription, policy, inner } = self;
        CallFuture::begin(&subscription.core, request, |slow| {
            let (subscription, policy, mut inner) = (subscription.clone(), *policy, inner.clone());
            async move {
                let core = &subscription.core;
                let (request, deadline, error) = match core.go_on(slow).await? {
                    Outcome::Response(response) => return Ok(response.map(MeshBody::from)),
                    Outcome::UnknownHost { request, deadline, error } => (request, deadline, error),
                };
                if policy == OutboundTrafficPolicy::RegistryOnly {
                    return Err(core.refused(&error));
                }
                core.counters.passed_through.add_one();
                let ready = poll_fn(|cx| inner.poll_ready(cx));
                let ready = match deadline {
                    None => ready.await,
                    Some(deadline) => timeout_at(deadline.at, ready).await.map_err(|_| {
                        deadline.exceeded(&core.target, "the wrapped channel had not become ready")
                    })?,
                };
                ready.map_err(|error| Status::from_error(error.into()))?;
                let answer = inner.call(*request);
                drop(inner);
                let response = answer.await.map_err(|error| Status::from_error(error.into()))?;
                Ok(response.map(|body| MeshBody::from(Body::new(body))))
            }
        })
    }
}
