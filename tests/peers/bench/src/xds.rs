//! tonic-xds as a client of our control plane.

use http::{Request, Response};
use mesh_bench::Outcome;
use std::{
    error::Error,
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::body::Body;
use tonic_xds::{BootstrapConfig, XdsChannelBuilder, XdsChannelConfig, XdsChannelGrpc, XdsUri};
use tower_service::Service;

/// Its channel, with an error of a type of its own: without one, a generated client over it cannot be moved to
/// another task, as the load does.
#[derive(Clone)]
pub(crate) struct TonicXds(XdsChannelGrpc);

impl TonicXds {
    /// A channel to this target. Needs a runtime.
    pub(crate) fn new(control_plane: SocketAddr, target: &str) -> Outcome<Self> {
        let bootstrap = serde_json::json!({
            "xds_servers": [{
                "server_uri": format!("http://{control_plane}"),
                "channel_creds": [{"type": "insecure"}],
            }],
            "node": {
                "id": "sidecar~127.0.0.1~tonic-xds.default~default.svc.cluster.local",
                "metadata": {"GENERATOR": "grpc", "NAMESPACE": "default"},
            },
        });
        let bootstrap = BootstrapConfig::from_json(&bootstrap.to_string())?;
        let config = XdsChannelConfig::new(XdsUri::parse(target)?).with_bootstrap(bootstrap);
        Ok(Self(XdsChannelBuilder::new(config).build_grpc_channel()?))
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failed(Box<dyn Error + Send + Sync>);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Failed {}

/// Its answer.
pub(crate) struct Answer(<XdsChannelGrpc as Service<Request<Body>>>::Future);

impl Future for Answer {
    type Output = Result<Response<Body>, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map_err(Failed)
    }
}

impl Service<Request<Body>> for TonicXds {
    type Response = Response<Body>;
    type Error = Failed;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.0.poll_ready(cx).map_err(Failed)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        Answer(self.0.call(request))
    }
}
