//! TLS contexts (gRFC A29, A82, A101). They name certificate providers; they hold no certificate.
//!
//! There is no `Secret` resource and no SDS. Keys and roots come from the providers of the bootstrap (A29), of
//! which a workload's identity is one; a control plane only says which provider is meant, so that no key ever
//! travels over the ADS stream, and none can be asked for there. A context that names a secret, or holds a
//! certificate itself, is rejected with the field that a provider goes into.

pub(super) mod wire;

use crate::matcher::StringMatcher;
use std::sync::Arc;

/// A client's side of a connection: `UpstreamTlsContext`.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// Provider instance of the own certificate; absent: none is offered.
    pub identity: Option<Arc<str>>,
    /// What the peer is verified against.
    pub roots: Roots,
    /// Any of these matches any SAN of the peer; empty: any peer that the roots vouch for.
    pub sans: Vec<SanMatcher>,
    /// Server name sent, unless `auto_host_sni` finds one.
    pub sni: Option<Arc<str>>,
    /// The endpoint's hostname is sent as server name.
    pub auto_host_sni: bool,
    /// The peer must have the name that was sent, instead of `sans`.
    pub auto_sni_san_validation: bool,
    /// Auto-mTLS: only endpoints that are marked as speaking mesh mTLS get TLS, others plaintext. From
    /// `metadata.filter_metadata["io.mesh.tls"].auto` of the cluster; false for any other control plane.
    pub only_mesh_endpoints: bool,
}

/// A name that a peer's certificate may have.
#[derive(Clone, Debug, PartialEq)]
pub struct SanMatcher {
    /// Names of this kind only; absent: of any.
    pub kind: Option<SanKind>,
    /// What it looks like.
    pub name: StringMatcher,
}

impl From<StringMatcher> for SanMatcher {
    /// For names of any kind.
    fn from(name: StringMatcher) -> Self {
        Self { kind: None, name }
    }
}

impl std::fmt::Display for SanMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            None => write!(f, "{}", self.name),
            Some(kind) => write!(f, "{} {}", kind.name(), self.name),
        }
    }
}

/// A kind of subject alternative name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// DNS name, perhaps a wildcard.
    Dns,
    /// URI, such as a SPIFFE ID.
    Uri,
    /// Mail address.
    Email,
    /// IP address.
    Ip,
}

impl SanKind {
    /// As certificates and their tools call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::Uri => "URI",
            Self::Email => "email",
            Self::Ip => "IP",
        }
    }
}

impl SanKind {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Dns, Self::Uri, Self::Email, Self::Ip];
}

/// What a certificate chain must lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// This provider instance's roots.
    Provider(Arc<str>),
    /// The operating system's (A82).
    System,
}

/// A server's side: `DownstreamTlsContext`.
#[derive(Clone, Debug, PartialEq)]
pub struct DownstreamTls {
    /// Provider instance of the own certificate.
    pub identity: Arc<str>,
    /// Provider instance that verifies clients; absent: they are not asked for a certificate.
    pub client_roots: Option<Arc<str>>,
    /// A client without certificate is refused; needs `client_roots`.
    pub require_client_certificate: bool,
}
