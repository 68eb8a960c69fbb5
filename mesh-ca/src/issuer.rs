//! The signing side: an [`Authority`] holds the root key, [`Attestors`] decide who is asking, and
//! [`CertificateService`] answers Istio's `CreateCertificate`.
//!
//! The rule it stands on: a certificate's name is what an attestor proved, never what a request said.

mod attest;
mod authority;
mod own;
mod policy;
mod request;
mod service;
mod store;
mod token;

pub use attest::{
    Attestor, Attestors, CertificateAttestor, Evidence, JoinTokenAttestor, LoopbackAttestor, NotAttested,
};
pub use authority::{Authority, AuthorityError, IssueError, IssuedCertificate, ServerNames};
pub use own::OwnSource;
pub use policy::{LifetimeTooLong, Policy};
pub use request::{LARGEST_CSR, RequestRefused, SigningRequest};
pub use service::CertificateService;
pub use token::{JoinTokens, TokenError};

use crate::certificate::PeerCertificate;
use std::net::SocketAddr;

/// What a server knows of the connection that a request came over. The server's accepted stream gives
/// it as tonic's `Connected::ConnectInfo`, which puts it into every request's extensions; a request
/// without it has no certificate and no address, so neither can prove anything.
#[derive(Clone, Debug, Default)]
pub struct PeerInfo {
    /// The certificate verified in the TLS handshake, if the peer presented one. Only ever from
    /// [`crate::rustls::peer_identity`].
    pub certificate: Option<PeerCertificate>,
    /// The peer's address.
    pub address: Option<SocketAddr>,
}
