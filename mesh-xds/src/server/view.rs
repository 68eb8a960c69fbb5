//! What a stream is served from.

use crate::{
    name::{Name, ResourceType},
    resource::Locality,
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// A resource, encoded once for all streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Resource name.
    pub name: Name,
    /// Hash of the content: equal bytes have equal versions, on every replica.
    pub version: Arc<str>,
    /// The encoded message (the `value` of its `Any`).
    pub body: Bytes,
}

/// Who is at the other end of a stream, as it said in its first request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// `node.id`.
    pub id: Arc<str>,
    /// `node.cluster`.
    pub cluster: Arc<str>,
    /// String values of `node.metadata`; nested objects flattened one level: `LABELS.app`.
    pub metadata: BTreeMap<Arc<str>, Arc<str>>,
    /// Where it is.
    pub locality: Locality,
    /// `gRPC Go`, `envoy`, `mesh-client`, …
    pub user_agent: Arc<str>,
    /// `client_features`.
    pub features: Vec<Arc<str>>,
}

/// One revision of the resources that one node may see. Immutable; equal questions get equal answers.
pub trait View: Send + Sync + 'static {
    /// Revision of the mesh's configuration; becomes `version_info` and `system_version_info`.
    fn revision(&self) -> Arc<str>;

    /// The resource of that name; `None` when this node has none such. May be called for names made up by
    /// the client.
    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>>;

    /// What a wildcard subscription of this node stands for, sorted.
    fn names(&self, kind: ResourceType) -> Vec<Name>;
}

/// Where views come from, and who wants to know what became of them.
pub trait Views: Send + Sync + 'static {
    /// What a stream's peer was authenticated as; made by the server from the connection and the request's
    /// metadata before the first message is read.
    type Peer: Clone + Send + Sync + 'static;

    /// Authenticates a stream. The status ends it.
    fn authenticate(
        &self,
        extensions: &http::Extensions,
        metadata: &tonic::metadata::MetadataMap,
    ) -> Result<Self::Peer, tonic::Status>;

    /// The peer in a word, for status: its identity. Empty when there is nothing to say.
    fn describe(&self, _peer: &Self::Peer) -> String {
        String::new()
    }

    /// The current view of a node, after checking that its peer may be that node. The status ends the
    /// stream.
    fn view(&self, peer: &Self::Peer, node: &Node) -> Result<Arc<dyn View>, tonic::Status>;

    /// Counts up whenever [`Views::view`] could answer differently.
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;
}
