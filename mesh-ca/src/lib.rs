//! Who am I, who are you, and who says so: workload identity for the mesh.
//!
//! A workload holds a [`workload::WorkloadIdentity`]: a cheap handle on its current X.509 SVID and
//! the trust bundles it judges others by. A [`source`] fills it (fixed values, files, or a CA that
//! speaks Istio's `IstioCertificateService`) and keeps it fresh; [`mod@rustls`] turns it into TLS
//! configurations that follow every rotation without being rebuilt. The feature `issuer` adds the
//! other half: an authority that signs, attestors that decide who is asking, and the service itself.
//!
//! What it promises: names come from authenticated callers, never from requests; a peer is judged by
//! the bundle of the trust domain it claims; an identity that cannot be renewed is served until it
//! expires and not a second longer; no private key or token appears in any `Debug` output.
//!
//! What it does not do: it knows nothing of xDS, and it revokes by short lifetimes only (no CRL, no
//! OCSP).
//!
//! A workload joins its mesh with a token, and serves with whatever identity it has at the moment:
//!
//! ```no_run
//! use mesh_ca::{
//!     bundle::{TrustBundle, TrustBundles},
//!     channel::Target,
//!     rustls::{ClientAuth, ServerTrust, default_provider, server_config},
//!     source::ca::{CaSource, JoinToken},
//!     spiffe_id::{SpiffeId, TrustDomain},
//!     verifier::ServerCheck,
//!     workload::WorkloadIdentity,
//! };
//!
//! # async fn join() -> Result<(), Box<dyn std::error::Error>> {
//! let domain = TrustDomain::parse("cluster.local")?;
//! let roots = TrustBundles::of(TrustBundle::from_pem(domain.clone(), &std::fs::read("root-cert.pem")?)?);
//! let trust = ServerTrust::Bundles(roots, ServerCheck::exact(SpiffeId::mesh_server(&domain)));
//! let ca = CaSource::new(Target::tls("127.0.0.1:15012", trust, None)?).token(JoinToken::file("token"));
//!
//! let identity = WorkloadIdentity::start(ca);
//! println!("I am {}", identity.ready().await?.id());
//! let config = server_config(&identity, ClientAuth::Require, &[b"h2"], default_provider())?;
//! # let _ = config;
//! # Ok(())
//! # }
//! ```
//!
//! Specifications: [SPIFFE-ID], [X509-SVID], gRFC A29 (file watcher), Istio's `ca.proto`.
//!
//! [SPIFFE-ID]: https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md
//! [X509-SVID]: https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md

pub mod bundle;
pub mod certificate;
pub mod channel;
pub mod clock;
pub mod csr;
pub mod key;
pub mod key_pair;
pub mod revocation;
pub mod rotation;
pub mod rustls;
pub mod source;
pub mod spiffe_id;
pub mod svid;
pub mod verifier;
pub mod workload;

#[cfg(feature = "issuer")]
pub mod issuer;

/// The messages, client and server of Istio's certificate service, generated from
/// `proto/istio_ca.proto`.
pub mod proto {
    /// Package `istio.v1.auth`.
    #[allow(missing_docs, unreachable_pub, clippy::all)]
    #[rustfmt::skip]
    pub mod istio_ca;
}

#[cfg(test)]
mod testing;
