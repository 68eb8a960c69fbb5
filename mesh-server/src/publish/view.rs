//! What one stream is served from, and who may have it.
//!
//! On the TLS port a stream is whoever its client certificate says, and its node may not say otherwise:
//! PERMISSION_DENIED. Without a certificate: UNAUTHENTICATED. On the plaintext port nobody is anybody: a
//! node is believed, and sees what any node could see. That is no secret of this protocol (resources name
//! certificate providers, never certificates), but it tells who may call what; a mesh that minds has no
//! plaintext port.

use super::{Publisher, Snapshot, cache::Kind};
use crate::compile::{Compiler, Touches, client::Client, inbound};
use mesh_ca::{
    clock::Clock,
    issuer::PeerInfo,
    spiffe_id::{SpiffeId, TrustDomain},
};
use mesh_xds::{
    name::{Name, ResourceType},
    server::{Absence, Changes, Encoded, Node, Touched, View, Views},
};
use std::{
    any::Any,
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;
use tonic::{Status, metadata::MetadataMap};

/// Whether a peer may come without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnonymousPeers {
    /// The plaintext port.
    Admitted,
    /// The TLS port.
    Refused,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What its certificate proves; nothing on the plaintext port.
    pub identity: Option<SpiffeId>,
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// When that proof ends.
    pub expires: Option<SystemTime>,
}

impl Peer {
    /// Reads a connection. A certificate that was sound at the handshake may have expired since.
    pub fn of(
        extensions: &http::Extensions,
        trust_domain: &TrustDomain,
        clock: &Clock,
        anonymous: AnonymousPeers,
    ) -> Result<Self, Status> {
        let connection = extensions.get::<PeerInfo>().cloned().unwrap_or_default();
        let address = connection.address;
        let Some(certificate) = connection.certificate else {
            return match anonymous {
                AnonymousPeers::Admitted => Ok(Self { identity: None, address, expires: None }),
                AnonymousPeers::Refused => Err(Status::unauthenticated(
                    "no client certificate: get one from this server's CA with a join token (`meshctl token \
                     create`), or have one issued (`meshctl cert issue`)",
                )),
            };
        };
        let identity =
            certificate.spiffe_id.filter(|id| id.trust_domain() == trust_domain).ok_or_else(|| {
                Status::unauthenticated(format!("the client certificate is not of {trust_domain}"))
            })?;
        if clock.now() > certificate.not_after {
            return Err(Status::unauthenticated(format!(
                "the certificate of {identity} has expired; connect again"
            )));
        }
        Ok(Self { identity: Some(identity), address, expires: Some(certificate.not_after) })
    }

    /// How long its proof is good from now on; `None`: it has given none.
    pub fn lifetime(&self, clock: &Clock) -> Option<Duration> {
        self.expires.map(|expires| expires.duration_since(clock.now()).unwrap_or_default())
    }

    /// What it shares places with: whoever has its identity, or else its address, of IPv6 the network.
    pub fn account(&self) -> String {
        match (&self.identity, self.address.map(|address| address.ip().to_canonical())) {
            (Some(identity), _) => identity.to_string(),
            (None, Some(IpAddr::V6(ip))) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).to_string(),
            (None, Some(ip)) => ip.to_string(),
            (None, None) => String::new(),
        }
    }

    /// Refuses what contradicts the identity, if there is one.
    pub fn may_be(&self, namespace: Option<&str>, service_account: Option<&str>) -> Result<(), Status> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let (Some(own_namespace), Some(own_account)) = (identity.namespace(), identity.service_account())
        else {
            return Err(Status::permission_denied(format!("{identity} is not the identity of a workload")));
        };
        let differs =
            |said: Option<&str>, own: &str| said.is_some_and(|said| !said.is_empty() && said != own);
        if differs(namespace, own_namespace) || differs(service_account, own_account) {
            return Err(Status::permission_denied(format!(
                "{identity} cannot be namespace {}, service account {}",
                namespace.unwrap_or(own_namespace),
                service_account.unwrap_or(own_account),
            )));
        }
        Ok(())
    }
}

/// The publisher as one port serves it.
#[derive(Clone)]
pub struct Served {
    publisher: Publisher,
    trust_domain: TrustDomain,
    clock: Clock,
    anonymous: AnonymousPeers,
}

impl Served {
    /// Serves what `publisher` publishes to peers of a trust domain.
    pub fn new(
        publisher: Publisher,
        trust_domain: TrustDomain,
        clock: Clock,
        anonymous: AnonymousPeers,
    ) -> Self {
        Self { publisher, trust_domain, clock, anonymous }
    }
}

impl Views for Served {
    type Peer = Peer;

    fn authenticate(&self, extensions: &http::Extensions, _metadata: &MetadataMap) -> Result<Peer, Status> {
        Peer::of(extensions, &self.trust_domain, &self.clock, self.anonymous)
    }

    fn describe(&self, peer: &Peer) -> String {
        let who = peer.identity.as_ref().map_or_else(|| "anonymous".to_owned(), ToString::to_string);
        match peer.address {
            Some(address) => format!("{who} at {address}"),
            None => who,
        }
    }

    fn view(&self, peer: &Peer, node: &Node) -> Result<Arc<dyn View>, Status> {
        let said = |key: &str| node.metadata.get(key).map(AsRef::as_ref);
        peer.may_be(said("NAMESPACE"), said("SERVICE_ACCOUNT"))?;
        let snapshot = self.publisher.current();
        let domain = &snapshot.model.config.settings().domain;
        let client = Client::of(node, peer.identity.as_ref(), domain).map_err(Status::invalid_argument)?;
        let kinds = &self.publisher.0.shared;
        let kind =
            kinds.of(snapshot.sharing(&client), &peer.account()).map_err(Status::resource_exhausted)?;
        let whose = Arc::new(Whose { client, kind });
        Ok(Arc::new(NodeView { publisher: self.publisher.clone(), snapshot, whose }))
    }

    fn next_view(&self, peer: &Peer, node: &Node, earlier: &Arc<dyn View>) -> Result<Arc<dyn View>, Status> {
        let snapshot = self.publisher.current();
        let known: &dyn Any = &**earlier;
        match known.downcast_ref::<NodeView>() {
            // Who a client is depends on its node, and on the configuration.
            Some(known) if known.snapshot.config == snapshot.config => {
                let (publisher, whose) = (self.publisher.clone(), known.whose.clone());
                Ok(Arc::new(NodeView { publisher, snapshot, whose }))
            }
            _ => self.view(peer, node),
        }
    }

    fn account(&self, peer: &Peer) -> String {
        peer.account()
    }

    fn lifetime(&self, peer: &Peer) -> Option<Duration> {
        peer.lifetime(&self.clock)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.publisher.changes()
    }
}

/// One snapshot, as one node sees it.
struct NodeView {
    publisher: Publisher,
    snapshot: Arc<Snapshot>,
    whose: Arc<Whose>,
}

/// What stays the same for a stream until the configuration changes.
struct Whose {
    client: Client,
    kind: Arc<Kind>,
}

impl NodeView {
    fn compiler(&self) -> Compiler<'_> {
        Compiler::new(&self.snapshot.model, self.publisher.mesh(), &self.whose.client)
    }
}

impl View for NodeView {
    fn revision(&self) -> Arc<str> {
        self.snapshot.revision.clone()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.publisher.resource(&self.snapshot, &self.whose.client, &self.whose.kind.0, kind, name)
    }

    fn absence(&self, kind: ResourceType, name: &str) -> Option<Absence> {
        self.compiler().absence(kind, name)
    }

    fn is_shared(&self, kind: ResourceType, name: &str) -> bool {
        Touches::of(kind, name) != Touches::Client
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.compiler().names(kind)
    }

    fn lists(&self, kind: ResourceType, name: &str) -> bool {
        self.compiler().lists(kind, name)
    }

    fn changes_since(&self, earlier: &dyn View) -> Changes {
        let earlier: &dyn Any = earlier;
        let Some(earlier) =
            earlier.downcast_ref::<Self>().filter(|earlier| Arc::ptr_eq(&earlier.whose, &self.whose))
        else {
            return Changes::Anything;
        };
        let Some(changes) = self.snapshot.changes_since(&earlier.snapshot) else { return Changes::Anything };
        let changes: Vec<_> = changes.collect();
        let step = (earlier.snapshot.generation, self.snapshot.generation);
        let mut touched = self.whose.kind.0.touched(step, |client| {
            let compiler = Compiler::new(&self.snapshot.model, self.publisher.mesh(), client);
            let hosts: BTreeSet<&String> = changes.iter().flat_map(|change| &change.hosts).collect();
            let names = hosts.into_iter().flat_map(|host| compiler.clusters_of(host));
            let both = |name: Name| {
                let of = |kind| Touched::Resource(kind, name.clone());
                [of(ResourceType::Cluster), of(ResourceType::ClusterLoadAssignment)]
            };
            names.flat_map(both).collect()
        });
        let workloads = changes.iter().flat_map(|change| change.workload.iter().flatten());
        for workload in workloads {
            for one in inbound::touched_by(workload, &self.whose.client) {
                if !touched.contains(&one) {
                    touched.push(one);
                }
            }
        }
        Changes::Only(touched)
    }
}
