//! Client status discovery (gRFC A40): which clients are connected, and what they hold, on the ports of ADS.
//!
//! It tells who is in the mesh, so it is not for its workloads: over TLS a caller needs an identity of the root
//! namespace, as with Istio's debug interface; in plaintext it has to be on this machine, as for the HTTP port.

use crate::publish::{AnonymousPeers, Peer, Served};
use mesh_ca::{
    clock::Clock,
    spiffe_id::{SpiffeId, TrustDomain},
};
use mesh_xds::{
    csds::{self, CsdsServer, StreamsStatus},
    server::{AdsService, Node, StreamStatus},
};
use std::sync::{Arc, Mutex, PoisonError};
use tonic::Status;

/// Every port's ADS, as the ports begin.
#[derive(Clone, Default)]
pub(crate) struct Everybody(Arc<Mutex<Vec<AdsService<Served>>>>);

impl Everybody {
    pub(crate) fn add(&self, ads: AdsService<Served>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ads);
    }

    fn select(&self, is_wanted: &dyn Fn(&Node) -> bool, resources: &mut usize) -> Vec<StreamStatus> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.iter().flat_map(|ads| ads.select(is_wanted, resources)).collect()
    }
}

/// Who may ask on one port.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) clock: Clock,
    pub(crate) anonymous: AnonymousPeers,
    pub(crate) root_namespace: String,
}

impl Door {
    fn admit(&self, extensions: &http::Extensions) -> Result<(), Status> {
        let peer = Peer::of(extensions, &self.trust_domain, &self.clock, self.anonymous)?;
        let root = &self.root_namespace;
        match (&peer.identity, peer.address) {
            (Some(identity), _)
                if identity.namespace() == Some(root)
                    || *identity == SpiffeId::mesh_server(&self.trust_domain) =>
            {
                Ok(())
            }
            (Some(identity), _) => Err(Status::permission_denied(format!(
                "{identity} is not an identity of the root namespace {root}, which alone may see who is connected"
            ))),
            (None, Some(address)) if address.ip().to_canonical().is_loopback() => Ok(()),
            (None, _) => Err(Status::permission_denied(format!(
                "who is connected is told in plaintext to this machine only: use the TLS port, with an identity of \
                 the root namespace {root}"
            ))),
        }
    }
}

/// The service of one port.
pub(crate) fn service(everybody: Everybody, door: Door) -> CsdsServer<StreamsStatus> {
    let streams = move |is_wanted: &dyn Fn(&Node) -> bool, resources: &mut usize| {
        everybody.select(is_wanted, resources)
    };
    csds::serve(StreamsStatus::new(streams, move |extensions| door.admit(extensions)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_ca::issuer::PeerInfo;
    use std::net::SocketAddr;
    use tonic::Code;

    fn asked_from(address: &str, anonymous: AnonymousPeers) -> Result<(), Status> {
        let door = Door {
            trust_domain: TrustDomain::parse("cluster.local").unwrap(),
            clock: Clock::system(),
            anonymous,
            root_namespace: "istio-system".into(),
        };
        let mut extensions = http::Extensions::new();
        let address: SocketAddr = address.parse().unwrap();
        extensions.insert(PeerInfo { certificate: None, address: Some(address) });
        door.admit(&extensions)
    }

    #[test]
    fn in_plaintext_only_this_machine_is_told() {
        for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            asked_from(address, AnonymousPeers::Admitted).unwrap();
        }
        let refusal = asked_from("10.0.0.1:1", AnonymousPeers::Admitted).unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
        assert!(refusal.message().contains("istio-system"), "{refusal}");
        let refusal = asked_from("127.0.0.1:1", AnonymousPeers::Refused).unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated);
    }
}
