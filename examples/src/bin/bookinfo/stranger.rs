//! A caller from outside: it has a certificate with a plausible name, of a CA that the mesh does not know.

use crate::identity::{TRUST_DOMAIN, issue};
use mesh_ca::{
    bundle::{TrustBundle, TrustBundles},
    channel::{Target, connect},
    issuer::Authority,
    rustls::ServerTrust,
    spiffe_id::TrustDomain,
    svid::X509Svid,
    verifier::ServerCheck,
    workload::{Identity, WorkloadIdentity},
};
use std::{error::Error, fs, net::SocketAddr, path::Path, sync::Arc};
use tonic::transport::Channel;

/// A TLS channel to `server` that offers such a certificate. It knows the mesh's root, so that it is the
/// server, and only the server, that can refuse.
pub(crate) fn channel(server: SocketAddr, mesh_root: &Path) -> Result<Channel, Box<dyn Error>> {
    let domain = TrustDomain::parse(TRUST_DOMAIN)?;
    let impostor = issue(&Authority::in_memory(&domain)?, "bookinfo-reviews")?;
    let svid = X509Svid::from_pem(impostor.chain.as_bytes(), impostor.key.to_pem().as_bytes())?;
    let bundles = TrustBundles::of(TrustBundle::from_pem(domain.clone(), &fs::read(mesh_root)?)?);
    let identity = WorkloadIdentity::fixed(Arc::new(Identity::new(svid, bundles)?));
    let trust = ServerTrust::Mesh(identity.clone(), ServerCheck::trust_domain(domain));
    Ok(connect(&Target::tls(&server.to_string(), trust, Some(&identity))?))
}
