//! Certificates made by hand, for those who do not ask the CA: the guest of `--keep-running`, and the stranger.

use mesh_ca::{
    csr,
    issuer::{Authority, ServerNames, SigningRequest},
    key::PrivateKey,
    spiffe_id::{SpiffeId, TrustDomain},
};
use std::{error::Error, time::Duration};

/// Trust domain of the mesh.
pub(crate) const TRUST_DOMAIN: &str = "cluster.local";

/// Nothing renews it.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A certificate chain and its key, PEM.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: PrivateKey,
}

/// The id of a service account of the default namespace.
pub(crate) fn account(name: &str) -> Result<SpiffeId, Box<dyn Error>> {
    Ok(SpiffeId::workload(&TrustDomain::parse(TRUST_DOMAIN)?, "default", name)?)
}

/// A certificate of `authority` for a service account of the default namespace.
pub(crate) fn issue(authority: &Authority, name: &str) -> Result<Issued, Box<dyn Error>> {
    let id = account(name)?;
    let key = PrivateKey::generate()?;
    let request = SigningRequest::parse(&csr::request(&key, Some(&id))?)?;
    let issued = authority.issue(&request, &id, LIFETIME, &ServerNames::default())?;
    Ok(Issued { chain: issued.chain.concat(), key })
}
