//! [`MeshChannel`]: a channel to a service of the mesh; and [`Subscription`], what all channels to one target
//! share.

use crate::{
    call::MeshBody,
    cluster::Cluster,
    snapshot::State,
    stack::{Begun, Core, Flight, Outcome, Slow},
    table::{RouteTable, registry::Registry, same_table},
};
use http::{Request, Response};
use mesh_xds::{client::ConfigWatch, config::XdsConfig, explain::Explanation, name::Name};
use pin_project::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body};
use tower_service::Service;

/// A call under way, up to the headers of its response. Dropping it cancels the call.
#[must_use = "dropping it cancels the call"]
#[pin_project]
pub struct CallFuture {
    #[pin]
    state: CallState,
}

#[pin_project(project = CallStateProjection)]
#[allow(clippy::large_enum_variant)] // The large one is the usual one.
enum CallState {
    Flight(#[pin] Flight<Cluster>),
    Slow(Pin<Box<dyn Future<Output = Result<Response<MeshBody>, Status>> + Send>>),
    Failed(Option<Status>),
}

impl CallFuture {
    /// Begins a call; one that is not sent at once is seen through by `go_on`.
    pub(crate) fn begin<F>(
        core: &Arc<Core<Cluster>>,
        request: Request<Body>,
        go_on: impl FnOnce(Slow<Cluster>) -> F,
    ) -> Self
    where
        F: Future<Output = Result<Response<MeshBody>, Status>> + Send + 'static,
    {
        let state = match core.begin(request) {
            Begun::Flight(flight) => CallState::Flight(flight),
            Begun::Slow(slow) => CallState::Slow(Box::pin(go_on(slow))),
            Begun::Failed(status) => CallState::Failed(Some(status)),
        };
        Self { state }
    }
}

impl Future for CallFuture {
    type Output = Result<Response<MeshBody>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            CallStateProjection::Flight(flight) => {
                flight.poll(cx).map_ok(|response| response.map(MeshBody::from))
            }
            CallStateProjection::Slow(slow) => slow.as_mut().poll(cx),
            CallStateProjection::Failed(status) => match status.take() {
                Some(status) => Poll::Ready(Err(status)),
                None => Poll::Pending,
            },
        }
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallFuture")
    }
}

/// A channel to a service of the mesh, for generated clients; made by [`crate::Mesh::channel`]. Cheap to
/// clone, always ready. Dropping the future of a call cancels the call.
#[derive(Clone, Debug)]
pub struct MeshChannel {
    subscription: Arc<Subscription>,
}

impl MeshChannel {
    pub(crate) fn new(subscription: Arc<Subscription>) -> Self {
        Self { subscription }
    }

    /// Why a call with this head would go where it goes: decided by what decides for calls, at this moment, and
    /// nothing is sent. Its authority does not matter: the target's is used, as in a call. Waits for the first
    /// answer of the control plane, for at most 5 s; cancelling it costs nothing.
    pub async fn explain(&self, request: &http::request::Parts) -> Explanation {
        self.subscription.explain(request).await
    }
}

impl Service<Request<Body>> for MeshChannel {
    type Response = Response<MeshBody>;
    type Error = Status;
    type Future = CallFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> CallFuture {
        let subscription = &self.subscription;
        CallFuture::begin(&subscription.core, request, |slow| {
            let subscription = subscription.clone();
            async move {
                match subscription.core.go_on(slow).await? {
                    Outcome::Response(response) => Ok(response.map(MeshBody::from)),
                    Outcome::UnknownHost { error, .. } => Err(subscription.core.failed(&error)),
                }
            }
        })
    }
}

/// A target and its configuration, followed by a task that ends with it.
pub(crate) struct Subscription {
    pub(crate) core: Arc<Core<Cluster>>,
    /// Who is asked about it, for explanations.
    pub(crate) control_planes: Arc<str>,
    /// For explanations: leaves of clusters, and clusters that requests name.
    pub(crate) clusters: Arc<Registry>,
    following: AbortOnDropHandle<()>,
}

impl Subscription {
    /// Begins to follow the target's configuration. Needs a tokio runtime.
    pub(crate) fn start(
        core: Core<Cluster>,
        watch: ConfigWatch,
        clusters: Arc<Registry>,
        control_planes: Arc<str>,
    ) -> Arc<Self> {
        let core = Arc::new(core);
        let following = tokio::spawn(follow(watch, core.clone(), clusters.clone()));
        Arc::new(Self { core, control_planes, clusters, following: AbortOnDropHandle::new(following) })
    }

    /// Every call fails from now on.
    pub(crate) fn close(&self) {
        self.core.snapshot.publish(State::Closed);
        self.following.abort();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.core.target)
    }
}

/// Publishes a table for every configuration that needs a new one. That the last good one outlives errors is
/// the xDS client's doing: what it reports is what holds.
async fn follow(mut watch: ConfigWatch, core: Arc<Core<Cluster>>, clusters: Arc<Registry>) {
    // What the table was built from, and the clusters of this target while only they change.
    let mut applied: Option<Arc<XdsConfig>> = None;
    loop {
        let update = watch.borrow_and_update().clone();
        match update {
            None => {}
            Some(Ok(config)) => {
                core.snapshot.set_config(config.clone());
                if applied.as_ref().is_some_and(|applied| same_table(applied, &config)) {
                    for cluster in config.clusters.values().flatten() {
                        clusters.live(cluster);
                    }
                } else {
                    let table = RouteTable::build(&config, |cluster| clusters.live(cluster));
                    let (target, routes) = (&core.target, table.routes().len());
                    tracing::debug!(%target, version = %config.version, routes, "new routes");
                    core.snapshot.publish(State::Table(table));
                    if let Some(before) = &applied {
                        release(&clusters, before, |name| config.clusters.contains_key(name));
                    }
                }
                applied = Some(config);
            }
            Some(Err(error)) => {
                tracing::warn!(target = %core.target, %error, "no configuration");
                core.snapshot.publish(State::Failed(error));
                if let Some(before) = applied.take() {
                    release(&clusters, &before, |_| false);
                }
            }
        }
        if watch.changed().await.is_err() {
            return;
        }
    }
}

/// Calls may still hold what this target named before and does not any more.
fn release(clusters: &Registry, before: &XdsConfig, stays: impl Fn(&Name) -> bool) {
    for name in before.clusters.keys().filter(|name| !stays(name)) {
        clusters.released(name);
    }
}
