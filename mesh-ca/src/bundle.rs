//! Trust bundles: the roots of a trust domain, and the domains that a workload believes.
//!
//! A peer is judged by the bundle of the domain that its id claims and by no other, so that one
//! domain's authority cannot vouch for another's workloads.

mod spiffe;
mod system;

use crate::{certificate, key, spiffe_id::TrustDomain, svid};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why certificates cannot serve as roots.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBundle {
    /// Not PEM.
    #[error("the root certificates are not readable PEM: {0}")]
    Pem(String),
    /// No certificate at all.
    #[error("there is no root certificate")]
    Empty,
    /// A certificate that cannot be a root.
    #[error("root certificate {position} cannot be used: {reason}")]
    Root {
        /// Its place in the list, from 0.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a SPIFFE bundle map.
    #[error("not a SPIFFE bundle map: {place}: {reason}")]
    Map {
        /// Where in the JSON.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// The operating system has none that can be used.
    #[error(
        "the operating system's root certificates cannot be used ({0}): install its package of CA certificates, or \
         name a file of them in SSL_CERT_FILE"
    )]
    System(String),
    /// An identity without the roots of its own domain.
    #[error("no roots for the identity's own trust domain {0}")]
    OwnDomain(TrustDomain),
}

/// A file of roots that is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct InvalidFile {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl InvalidFile {
    /// What a file holds.
    pub(crate) fn of<T>(
        path: &Path,
        read: impl FnOnce(&[u8]) -> Result<T, InvalidBundle>,
    ) -> Result<T, Self> {
        let invalid = |reason| Self { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|error| invalid(error.to_string()))?;
        read(&bytes).map_err(|error| invalid(error.to_string()))
    }
}

/// A non-empty set of CA certificates to verify against. Cheap to clone.
#[derive(Clone)]
pub struct Roots {
    certificates: Arc<[CertificateDer<'static>]>,
    anchors: Arc<[TrustAnchor<'static>]>,
}

impl Roots {
    /// From DER certificates, each of which must be allowed to sign others.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, InvalidBundle> {
        if certificates.is_empty() {
            return Err(InvalidBundle::Empty);
        }
        let mut anchors = Vec::with_capacity(certificates.len());
        for (position, der) in certificates.iter().enumerate() {
            let fail = |reason: String| InvalidBundle::Root { position, reason };
            let may_sign = certificate::parse(der)
                .and_then(|root| certificate::may_sign_certificates(&root))
                .map_err(|error| fail(error.to_string()))?;
            if !may_sign {
                return Err(fail("it is not a CA that may sign certificates".to_owned()));
            }
            let anchor = webpki::anchor_from_trusted_cert(der).map_err(|error| fail(error.to_string()))?;
            anchors.push(anchor.to_owned());
        }
        Ok(Self { certificates: certificates.into(), anchors: anchors.into() })
    }

    /// From a PEM text of one or more certificates.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidBundle> {
        Self::new(svid::certificates(pem).map_err(InvalidBundle::Pem)?)
    }

    /// From a PEM file. Blocks while it is read.
    pub fn from_file(path: &Path) -> Result<Self, InvalidFile> {
        InvalidFile::of(path, Self::from_pem)
    }

    /// The certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The certificates as PEM.
    pub fn pem(&self) -> String {
        self.certificates.iter().map(|der| key::pem("CERTIFICATE", der)).collect()
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.certificates.len())
    }
}

/// The roots of one trust domain.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Roots,
}

impl TrustBundle {
    /// The domain and its roots.
    pub fn new(trust_domain: TrustDomain, roots: Roots) -> Self {
        Self { trust_domain, roots }
    }

    /// The domain and its roots as PEM.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, InvalidBundle> {
        Ok(Self::new(trust_domain, Roots::from_pem(pem)?))
    }

    /// Whose roots these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }
}

/// The trust domains that a workload believes, each with its roots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrustBundles(BTreeMap<TrustDomain, Roots>);

impl TrustBundles {
    /// One domain only.
    pub fn of(bundle: TrustBundle) -> Self {
        Self::default().with(bundle)
    }

    /// With one domain more, or with its roots replaced.
    #[must_use]
    pub fn with(mut self, bundle: TrustBundle) -> Self {
        self.0.insert(bundle.trust_domain, bundle.roots);
        self
    }

    /// The roots of a domain, if it is believed at all.
    pub fn roots(&self, trust_domain: &TrustDomain) -> Option<&Roots> {
        self.0.get(trust_domain)
    }

    /// The believed domains.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Ca, Leaf};

    #[test]
    fn a_bundle_survives_its_pem_form() {
        let (one, two) = (Ca::new("one"), Ca::new("two"));
        let pem = format!("{}{}", one.pem(), two.pem());
        let domain = TrustDomain::parse("td").unwrap();
        let bundle = TrustBundle::from_pem(domain.clone(), pem.as_bytes()).unwrap();
        assert_eq!(bundle.roots().certificates().len(), 2);
        assert_eq!(bundle.roots().pem(), pem);
        let bundles = TrustBundles::of(bundle);
        assert!(bundles.roots(&domain).is_some());
        assert!(bundles.roots(&TrustDomain::parse("td.evil").unwrap()).is_none());
    }

    #[test]
    fn a_leaf_is_not_a_root() {
        let leaf = Leaf::new("spiffe://td/a").issue();
        let error = Roots::new(vec![leaf.der]).unwrap_err();
        assert!(matches!(error, InvalidBundle::Root { position: 0, .. }), "{error}");
    }

    #[test]
    fn nothing_is_not_a_bundle() {
        assert!(matches!(Roots::from_pem(b"").unwrap_err(), InvalidBundle::Empty));
    }
}
