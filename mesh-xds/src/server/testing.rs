//! A view of toy resources for tests: `name=value` under a name.

use super::{Changes, Encoded, Node, Touched, View};
use crate::name::{Name, ResourceType};
use hyper_util::rt::TokioIo;
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    future::ready,
    io,
    sync::Arc,
};
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, server::Router};

/// An immutable set of toy resources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Toys {
    pub(crate) revision: u64,
    pub(crate) resources: BTreeMap<(ResourceType, Name), Arc<str>>,
}

impl Toys {
    pub(crate) fn of(revision: u64, resources: &[(ResourceType, &str, &str)]) -> Arc<dyn View> {
        let resources =
            resources.iter().map(|(kind, name, value)| ((*kind, Name::from(*name)), Arc::from(*value)));
        Arc::new(Self { revision, resources: resources.collect() })
    }
}

impl View for Toys {
    fn revision(&self) -> Arc<str> {
        format!("r{}", self.revision).into()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        let ((_, name), value) = self.resources.get_key_value(&(kind, Name::from(name)))?;
        Some(Arc::new(Encoded {
            name: name.clone(),
            version: format!("h:{value}").into(),
            body: format!("{name}={value}").into_bytes().into(),
        }))
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.resources.keys().filter(|(other, _)| *other == kind).map(|(_, name)| name.clone()).collect()
    }

    fn changes_since(&self, earlier: &dyn View) -> Changes {
        let earlier: &dyn Any = earlier;
        earlier.downcast_ref().map_or(Changes::Anything, |earlier| Changes::Only(self.touched_since(earlier)))
    }
}

impl Toys {
    /// Exactly what differs.
    pub(crate) fn touched_since(&self, earlier: &Self) -> Vec<Touched> {
        let keys: BTreeSet<_> = self.resources.keys().chain(earlier.resources.keys()).collect();
        let differs = |key: &&(ResourceType, Name)| self.resources.get(key) != earlier.resources.get(key);
        keys.into_iter().filter(differs).map(|(kind, name)| Touched::Resource(*kind, name.clone())).collect()
    }
}

/// Any node.
pub(crate) fn node() -> Node {
    Node { id: "me".into(), ..Node::default() }
}

/// Where a server takes its connections from.
pub(crate) type Accepts = mpsc::Sender<io::Result<DuplexStream>>;

/// A connection in memory to what a router serves, so that the clock of a test may stand still. Of a stream that is not
/// read it takes 64 KiB.
pub(crate) fn in_memory(router: Router) -> Channel {
    in_memory_within(router, 65_535)
}

/// The same; of a stream that is not read it takes so many bytes.
pub(crate) fn in_memory_within(router: Router, window: u32) -> Channel {
    let (accepts, connections) = mpsc::channel(1);
    tokio::spawn(router.serve_with_incoming(ReceiverStream::new(connections)));
    let endpoint = Endpoint::from_static("http://in-memory").initial_stream_window_size(window);
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| ready(dial(&accepts))))
}

/// The client's end of a new connection, of which the other end is sent there.
pub(crate) fn dial(accepts: &Accepts) -> io::Result<TokioIo<DuplexStream>> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let accepted =
        accepts.try_send(Ok(theirs)).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused));
    accepted.map(|()| TokioIo::new(ours))
}
