//! TLS contexts (gRFC A29, A82, A101; Envoy's SDS). They name where certificates come from; they hold none.
//!
//! Keys and roots come from the providers of the bootstrap (A29), of which a workload's identity is one: then a
//! control plane only says which provider is meant, and no key travels over the ADS stream. Or a client's come
//! from a [`Secret`] of the control plane, which takes a data path with [`Feature::Sds`], or from files that the
//! context names, which takes one with [`Feature::CertificateFiles`]: it decides which files those may be. A context
//! that holds a certificate itself, or names a secret that is not to be had over ADS, is rejected with the field.
//!
//! [`Secret`]: super::Secret
//! [`Feature::Sds`]: super::Feature::Sds
//! [`Feature::CertificateFiles`]: super::Feature::CertificateFiles

pub(super) mod wire;

use crate::{matcher::StringMatcher, name::Name};
use std::{fmt, sync::Arc};

/// A client's side of a connection: `UpstreamTlsContext`.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// The own certificate; absent: none is offered.
    pub identity: Option<Identity>,
    /// What the peer is verified against.
    pub roots: Roots,
    /// Where it is said which certificates are revoked; absent: nobody asks. Only with [`Roots::System`] and
    /// [`Roots::File`].
    pub crl: Option<CrlFile>,
    /// Any of these matches any SAN of the peer; empty: any peer that the roots vouch for. A secret may add to them,
    /// see [`Self::accepted`].
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

impl UpstreamTls {
    /// The secrets that it names.
    pub fn secrets(&self) -> impl Iterator<Item = &Name> {
        let identity = match &self.identity {
            Some(Identity::Secret(name)) => Some(name),
            Some(Identity::Provider(_) | Identity::Files(_)) | None => None,
        };
        let roots = match &self.roots {
            Roots::Secret(name) => Some(name),
            Roots::Provider(_) | Roots::System | Roots::File(_) => None,
        };
        identity.into_iter().chain(roots)
    }

    /// The own matchers and those of the secret with the roots, merged as Envoy merges the two contexts: both
    /// lists one after the other, and then no matcher of any kind where there is one of a certain kind (the typed
    /// list goes before the deprecated one).
    pub fn accepted(&self, secret: &[SanMatcher]) -> Vec<SanMatcher> {
        let mut all: Vec<SanMatcher> = self.sans.iter().chain(secret).cloned().collect();
        if all.iter().any(|san| san.kind.is_some()) {
            all.retain(|san| san.kind.is_some());
        }
        all
    }
}

/// Where the own certificate and its key come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// This provider instance of the bootstrap.
    Provider(Arc<str>),
    /// This secret of the control plane.
    Secret(Name),
    /// These files of the client's machine.
    Files(KeyFiles),
}

/// Files of a certificate chain (leaf first) and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyFiles {
    /// Path of the chain.
    pub certificate: Arc<str>,
    /// Path of the key.
    pub key: Arc<str>,
}

impl fmt::Display for KeyFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.certificate, self.key)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(instance) => write!(f, "certificate provider {instance}"),
            Self::Secret(name) => write!(f, "secret {name}"),
            Self::Files(files) => write!(f, "files {files}"),
        }
    }
}

/// A file of certificate revocation lists of the client's machine (Envoy's `crl`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlFile {
    /// Its path.
    pub path: Arc<str>,
    /// Only the peer's own certificate is looked for, and none of those that issued it.
    pub only_leaf: bool,
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

impl fmt::Display for SanMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    /// Those in this secret of the control plane, with the names that it accepts.
    Secret(Name),
    /// Those in this file of the client's machine, PEM.
    File(Arc<str>),
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
