//! Identities for this crate's tests, from an authority in memory.

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
