//! Identities for this crate's tests, from an authority in memory.

pub(crate) mod control_plane;

use mesh_ca::{
    issuer::{Authority, OwnSource, ServerNames},
    spiffe_id::{SpiffeId, TrustDomain},
    workload::WorkloadIdentity,
};
use std::sync::Arc;

const DOMAIN: &str = "cluster.local";

pub(crate) fn authority() -> Arc<Authority> {
    Arc::new(Authority::in_memory(&TrustDomain::parse(DOMAIN).unwrap()).unwrap())
}

/// The SPIFFE id of a service account.
pub(crate) fn id(account: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/default/sa/{account}")
}

/// An identity that has arrived.
pub(crate) async fn identity(authority: &Arc<Authority>, account: &str) -> WorkloadIdentity {
    let id = SpiffeId::parse(&id(account)).unwrap();
    let identity = WorkloadIdentity::start(OwnSource::new(authority.clone(), id, ServerNames::default()));
    identity.ready().await.unwrap();
    identity
}

/// A leaf certificate of this id, DER, signed by an authority that nobody knows.
pub(crate) fn leaf(id: &str) -> Vec<u8> {
    let key = mesh_ca::key::PrivateKey::generate().unwrap();
    let id = SpiffeId::parse(id).unwrap();
    let csr = mesh_ca::csr::request(&key, Some(&id)).unwrap();
    let request = mesh_ca::issuer::SigningRequest::parse(&csr).unwrap();
    let lifetime = std::time::Duration::from_secs(60);
    authority().issue(&request, &id, lifetime, &ServerNames::default()).unwrap().leaf.to_vec()
}
