//! Client status discovery (gRFC A40): what an xDS client knows, as `grpcdebug` and other tools read it.
//!
//! Both sides have something to tell. A client ([`OwnStatus`], made by [`XdsClient::csds`]) shows every resource
//! that it watches, as it was understood (what it ignores may hold a key), and what went wrong with it. A control plane
//! ([`StreamsStatus`]) shows every client that is connected, and what of each type it holds: a row for the type, and one
//! for each resource, without its contents. Neither shows a Secret; headers that configuration adds, and keys of JWT
//! filters, are configuration and are shown. Neither is for strangers: who may ask is decided by whoever serves it.

mod nodes;

use crate::{
    client::{ErrorStatus, ResourceState, ResourceStatus, WeakClient, XdsClient},
    name::ResourceType,
    server::{HeldStatus, Node as ServerNode, StreamStatus, TypeStatus},
};
use envoy_types::pb::{
    envoy::{
        admin::v3::{ClientResourceStatus, UpdateFailureState},
        config::core::v3::Node,
        service::status::v3::{
            ClientConfig, ConfigStatus,
            client_config::GenericXdsConfig,
            client_status_discovery_service_server::{
                ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
            },
        },
    },
    google::protobuf::{Any, Timestamp},
};
use futures_util::{Stream, StreamExt, stream};
use http::Extensions;
use nodes::NodeMatchers;
use prost::Message;
use std::{fmt, pin::Pin, sync::Arc};
use tonic::{Request, Response, Status, Streaming};

pub use envoy_types::pb::envoy::service::status::v3::{
    ClientStatusRequest, ClientStatusResponse,
    client_status_discovery_service_client::ClientStatusDiscoveryServiceClient,
};

/// The service for tonic's `Server`.
pub type CsdsServer<C> = ClientStatusDiscoveryServiceServer<Csds<C>>;

/// Resources that a control plane tells of in one answer. Of the clients after that only the types are told; who
/// selects fewer nodes is told more.
const MAX_RESOURCES: usize = 100_000;

/// A request is a few matchers.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// Where the status of clients comes from.
pub trait Clients: Send + Sync + 'static {
    /// The clients that a caller may see and wants to. `extensions` are those of its request.
    fn clients(
        &self,
        extensions: &Extensions,
        request: &ClientStatusRequest,
    ) -> Result<Vec<ClientConfig>, Status>;
}

/// Serves the status of `C`. Cheap to clone.
#[derive(Debug)]
pub struct Csds<C>(Arc<C>);

impl<C> Clone for Csds<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The service that tells of these clients.
pub fn serve<C: Clients>(clients: C) -> CsdsServer<C> {
    ClientStatusDiscoveryServiceServer::new(Csds(Arc::new(clients)))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
}

impl<C: Clients> Csds<C> {
    fn answer(
        &self,
        extensions: &Extensions,
        request: &ClientStatusRequest,
    ) -> Result<ClientStatusResponse, Status> {
        let mut config = self.0.clients(extensions, request)?;
        if request.exclude_resource_contents {
            for resource in config.iter_mut().flat_map(|config| &mut config.generic_xds_configs) {
                resource.xds_config = None;
            }
        }
        Ok(ClientStatusResponse { config })
    }
}

#[tonic::async_trait]
impl<C: Clients> ClientStatusDiscoveryService for Csds<C> {
    type StreamClientStatusStream = Pin<Box<dyn Stream<Item = Result<ClientStatusResponse, Status>> + Send>>;

    /// Answers each request when the answer before it has been taken.
    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let (_, extensions, requests) = request.into_parts();
        let asked = (self.clone(), extensions);
        let answers = requests.map(move |request| asked.0.answer(&asked.1, &request?));
        // After a refusal nothing more is answered.
        let answers = stream::unfold(Some(answers.boxed()), |answers| async move {
            let mut answers = answers?;
            let answer = answers.next().await?;
            let more = answer.is_ok().then_some(answers);
            Some((answer, more))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        self.answer(&extensions, &request).map(Response::new)
    }
}

/// What this process's client knows. Does not keep the client alive.
#[derive(Debug)]
pub struct OwnStatus(WeakClient);

impl XdsClient {
    /// The service that tells what this client knows (gRFC A40), for a program to add to a server of its own.
    /// One client serves all targets of the process, so its scope is empty.
    pub fn csds(&self) -> CsdsServer<OwnStatus> {
        serve(OwnStatus(self.downgrade()))
    }
}

impl Clients for OwnStatus {
    fn clients(&self, _: &Extensions, request: &ClientStatusRequest) -> Result<Vec<ClientConfig>, Status> {
        if !request.node_matchers.is_empty() {
            return Err(Status::invalid_argument("node_matchers: a client tells of itself only (gRFC A40)"));
        }
        let Some(client) = self.0.upgrade() else { return Ok(Vec::new()) };
        // Both are encodings of one message; this one has more fields.
        let node = Node::decode(client.node().encode_to_vec().as_slice());
        let node =
            node.map_err(|error| Status::internal(format!("the own node cannot be encoded: {error}")))?;
        Ok(vec![ClientConfig {
            node: Some(node),
            generic_xds_configs: client.status().resources.into_iter().map(of_resource).collect(),
            ..ClientConfig::default()
        }])
    }
}

fn of_resource(status: ResourceStatus) -> GenericXdsConfig {
    let type_url = status.resource_type.url();
    let client_status = client_status(status.state);
    let failure = |ErrorStatus { text, version, at }| UpdateFailureState {
        details: text.to_string(),
        version_info: version.to_string(),
        last_update_attempt: Some(timestamp(at)),
        ..UpdateFailureState::default()
    };
    GenericXdsConfig {
        type_url: type_url.to_owned(),
        name: status.name.to_string(),
        version_info: status.version.as_deref().unwrap_or_default().to_owned(),
        xds_config: status.body.map(|body| Any { type_url: type_url.to_owned(), value: body.to_vec() }),
        last_updated: status.updated.map(timestamp),
        client_status: client_status.into(),
        error_state: status.error.map(failure),
        ..GenericXdsConfig::default()
    }
}

fn client_status(state: ResourceState) -> ClientResourceStatus {
    match state {
        ResourceState::Requested => ClientResourceStatus::Requested,
        ResourceState::DoesNotExist => ClientResourceStatus::DoesNotExist,
        ResourceState::Acked => ClientResourceStatus::Acked,
        ResourceState::Nacked => ClientResourceStatus::Nacked,
        ResourceState::ReceivedError => ClientResourceStatus::ReceivedError,
        ResourceState::Timeout => ClientResourceStatus::Timeout,
    }
}

/// The clients that are connected to this control plane.
pub struct StreamsStatus {
    streams: Streams,
    admit: Admit,
}

/// As [`AdsService::select`](crate::server::AdsService::select).
type Streams = Box<dyn Fn(&dyn Fn(&ServerNode) -> bool, &mut usize) -> Vec<StreamStatus> + Send + Sync>;
type Admit = Box<dyn Fn(&Extensions) -> Result<(), Status> + Send + Sync>;

impl StreamsStatus {
    /// `streams`, which are selected as [`AdsService::select`](crate::server::AdsService::select) does it, are told of
    /// to whom `admit` admits, by the extensions of the request.
    pub fn new(
        streams: impl Fn(&dyn Fn(&ServerNode) -> bool, &mut usize) -> Vec<StreamStatus> + Send + Sync + 'static,
        admit: impl Fn(&Extensions) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        Self { streams: Box::new(streams), admit: Box::new(admit) }
    }
}

impl fmt::Debug for StreamsStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamsStatus").finish_non_exhaustive()
    }
}

impl Clients for StreamsStatus {
    fn clients(
        &self,
        extensions: &Extensions,
        request: &ClientStatusRequest,
    ) -> Result<Vec<ClientConfig>, Status> {
        (self.admit)(extensions)?;
        let matchers = NodeMatchers::read(&request.node_matchers).map_err(Status::invalid_argument)?;
        let streams = (self.streams)(&|node| matchers.select(node), &mut { MAX_RESOURCES });
        Ok(streams.into_iter().map(of_stream).collect())
    }
}

fn of_stream(stream: StreamStatus) -> ClientConfig {
    let node = Node {
        id: stream.node.to_string(),
        cluster: stream.cluster.to_string(),
        user_agent_name: stream.user_agent.to_string(),
        ..Node::default()
    };
    ClientConfig {
        node: Some(node),
        generic_xds_configs: stream.types.iter().flat_map(of_type).collect(),
        ..ClientConfig::default()
    }
}

/// An entry for the type as a whole, and one for each resource; or only for those that were rejected, when the others
/// are not told.
fn of_type(status: &TypeStatus) -> Vec<GenericXdsConfig> {
    let kind = ResourceType::ALL.into_iter().find(|kind| kind.abbreviation() == status.kind);
    let type_url = kind.map(ResourceType::url).unwrap_or_default();
    let failure = status.last_nack.as_ref().map(|nack| UpdateFailureState {
        details: nack.text.to_string(),
        version_info: nack.revision.to_string(),
        last_update_attempt: Some(timestamp(nack.at)),
        ..UpdateFailureState::default()
    });
    let entry = |name: &str, state: ConfigStatus, error_state| GenericXdsConfig {
        type_url: type_url.to_owned(),
        name: name.to_owned(),
        version_info: status.acked_revision.as_deref().unwrap_or_default().to_owned(),
        config_status: state.into(),
        error_state,
        ..GenericXdsConfig::default()
    };
    let whole = match status {
        _ if !status.rejected.is_empty() => ConfigStatus::Error,
        _ if status.outstanding => ConfigStatus::Stale,
        TypeStatus { sent_revision: None, .. } => ConfigStatus::NotSent,
        _ => ConfigStatus::Synced,
    };
    let mut all = vec![entry("", whole, failure.clone())];
    let rejected = |name: &str| GenericXdsConfig {
        client_status: ClientResourceStatus::Nacked.into(),
        ..entry(name, ConfigStatus::Error, failure.clone())
    };
    if status.resources.is_empty() {
        all.extend(status.rejected.iter().map(|name| rejected(name)));
    }
    all.extend(status.resources.iter().map(|HeldStatus { name, version, state, reason }| {
        let sync = match state {
            ResourceState::Nacked => return rejected(name),
            ResourceState::Requested if status.outstanding => ConfigStatus::Stale,
            ResourceState::Requested => ConfigStatus::NotSent,
            _ => ConfigStatus::Synced,
        };
        let failure = reason.as_ref().map(|reason| UpdateFailureState {
            details: reason.to_string(),
            ..UpdateFailureState::default()
        });
        GenericXdsConfig {
            version_info: version.as_deref().unwrap_or_default().to_owned(),
            client_status: client_status(*state).into(),
            ..entry(name, sync, failure)
        }
    }));
    all
}

fn timestamp(epoch: f64) -> Timestamp {
    let nanos = (epoch.fract() * 1e9).round().clamp(0.0, 999_999_999.0);
    Timestamp { seconds: epoch.trunc() as i64, nanos: nanos as i32 }
}

#[cfg(test)]
mod tests;
