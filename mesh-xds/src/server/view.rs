//! What a stream is served from.

use crate::{
    name::{Name, ResourceType},
    resource::Locality,
};
use bytes::Bytes;
use std::{any::Any, collections::BTreeMap, sync::Arc, time::Duration};

/// A resource, encoded once for all streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Resource name.
    pub name: Name,
    /// Hash of the content: equal bytes have equal versions, on every replica. At most 128 bytes.
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

/// Why a node has no resource of a name, as clients are told (xRFC TP3's `ResourceError`; gRFC A88).
///
/// NOT_FOUND and PERMISSION_DENIED say that there is none: who has an earlier version loses it, if its bootstrap says so
/// (`fail_on_data_errors`). By any other code there is one that cannot be had now, and earlier versions stay in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// What kind of reason.
    pub code: tonic::Code,
    /// What is wrong, where it is configured, and what to do; becomes the status of calls.
    pub message: Arc<str>,
}

/// How a view may differ from an earlier one of the same node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// In anything: streams compare all that their clients asked for.
    Anything,
    /// In these at most: streams look at nothing else, so that a change costs what it touches.
    Only(Vec<Touched>),
}

/// Resources that may have changed, come or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// The one of this name.
    Resource(ResourceType, Name),
    /// Those whose names begin so.
    Prefix(ResourceType, &'static str),
}

/// One revision of the resources that one node may see. Immutable; equal questions get equal answers.
pub trait View: Any + Send + Sync {
    /// Revision of the mesh's configuration; becomes `version_info` and `system_version_info`.
    fn revision(&self) -> Arc<str>;

    /// The resource of that name; `None` when this node has none such. May be called for names made up by
    /// the client.
    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>>;

    /// Why there is no resource of that name; asked of names that [`Self::resource`] has none of. `None`, the default:
    /// there is no more to say than that it does not exist. Clients are told again when the reason changes; of a long
    /// one they are told the first 1,024 bytes.
    fn absence(&self, _kind: ResourceType, _name: &str) -> Option<Absence> {
        None
    }

    /// What a wildcard subscription of this node stands for, sorted. Of a name in it there is a resource, and one that
    /// was in it stays in it as long as there is.
    fn names(&self, kind: ResourceType) -> Vec<Name>;

    /// Whether [`Self::names`] has a name. The default looks through all of them.
    fn lists(&self, kind: ResourceType, name: &str) -> bool {
        self.names(kind).iter().any(|listed| **listed == *name)
    }

    /// Whether a resource that there is is one for all streams that are sent it. One that is made for a stream alone counts
    /// to what is kept for its client ([`super::AdsSettings::max_kept_bytes`]). Default: it is.
    fn is_shared(&self, _kind: ResourceType, _name: &str) -> bool {
        true
    }

    /// How it may differ from a view that this node was shown before. Claiming too much costs time, claiming
    /// too little leaves clients behind.
    fn changes_since(&self, _earlier: &dyn View) -> Changes {
        Changes::Anything
    }
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

    /// Whose account a stream is on: peers with the same one share places ([`super::AdsSettings::max_streams`]), and
    /// none can take them all. A verified identity, or where a peer is. Default, empty: peers are not told apart.
    fn account(&self, _peer: &Self::Peer) -> String {
        String::new()
    }

    /// The current view of a node, after checking that its peer may be that node. The status ends the
    /// stream.
    fn view(&self, peer: &Self::Peer, node: &Node) -> Result<Arc<dyn View>, tonic::Status>;

    /// The view that follows one which the same peer and node were shown: whatever depends on these alone can be
    /// taken over from it.
    fn next_view(
        &self,
        peer: &Self::Peer,
        node: &Node,
        _earlier: &Arc<dyn View>,
    ) -> Result<Arc<dyn View>, tonic::Status> {
        self.view(peer, node)
    }

    /// How long the peer's credentials are good from now on; its stream ends with them. `None`: for ever.
    fn lifetime(&self, _peer: &Self::Peer) -> Option<Duration> {
        None
    }

    /// Counts up whenever [`Views::view`] could answer differently.
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;
}
