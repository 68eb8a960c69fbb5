//! Identities for this crate's tests, from an authority in memory.

pub(crate) mod control_plane;
pub(crate) mod held;
pub(crate) mod outside;

use mesh_ca::{
    csr,
    issuer::{Authority, OwnSource, ServerNames, SigningRequest},
    key::PrivateKey,
    spiffe_id::{SpiffeId, TrustDomain},
    svid::X509Svid,
    workload::{Identity, WorkloadIdentity},
};
use std::{sync::Arc, time::Duration};

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

/// An identity of this service account that ends after `lifetime` and is not renewed.
pub(crate) fn ending(authority: &Arc<Authority>, account: &str, lifetime: Duration) -> WorkloadIdentity {
    let key = PrivateKey::generate().unwrap();
    let id = SpiffeId::parse(&id(account)).unwrap();
    let request = SigningRequest::parse(&csr::request(&key, Some(&id)).unwrap()).unwrap();
    let issued = authority.issue(&request, &id, lifetime, &ServerNames::default()).unwrap();
    let svid = X509Svid::new(vec![issued.leaf], key).unwrap();
    WorkloadIdentity::fixed(Arc::new(Identity::new(svid, authority.bundles()).unwrap()))
}
