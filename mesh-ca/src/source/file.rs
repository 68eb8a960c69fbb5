//! Certificate, key and CA files that somebody else renews: gRFC A29's `file_watcher` provider.
//!
//! The files are read again on an interval and believed only when they are consistent: a certificate
//! replaced before its key (or read half-written) keeps the identity in hand, and says so. A CA file
//! holds the roots of the certificate's own trust domain; a SPIFFE bundle map (A87) holds those of several, its own
//! among them.

use super::{Source, SourceError};
use crate::{
    bundle::{InvalidFile, Roots, TrustBundle, TrustBundles},
    certificate::PeerCertificate,
    rotation::Schedule,
    rustls::ServerTrust,
    svid::X509Svid,
    verifier::ServerCheck,
    workload::Identity,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use zeroize::Zeroizing;

/// How often files are read when nothing else is said (A29).
pub const DEFAULT_REFRESH: Duration = Duration::from_secs(600);

/// A source of PEM files.
pub struct FileSource {
    certificate: PathBuf,
    private_key: PathBuf,
    roots: RootsFile,
    refresh: Duration,
    read: Option<Contents>,
}

/// Where the roots are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RootsFile {
    /// PEM: the roots of the certificate's own trust domain.
    Pem(PathBuf),
    /// JSON: a SPIFFE bundle map (gRFC A87).
    SpiffeBundleMap(PathBuf),
}

impl RootsFile {
    /// Which of those that are named counts: a bundle map comes before a CA file (gRFC A87).
    pub fn named(ca: Option<&PathBuf>, map: Option<&PathBuf>) -> Option<Self> {
        let map = map.cloned().map(Self::SpiffeBundleMap);
        map.or_else(|| ca.cloned().map(Self::Pem))
    }

    /// The servers that it vouches for: by PEM those with the name of their address, by a bundle map whoever has a SPIFFE
    /// id that the bundle of its trust domain vouches for (gRFC A87). Blocks while it is read, once.
    pub fn servers(&self) -> Result<ServerTrust, InvalidFile> {
        Ok(match self {
            Self::Pem(path) => ServerTrust::Roots(Roots::from_file(path)?),
            Self::SpiffeBundleMap(path) => {
                let bundles = InvalidFile::of(path, TrustBundles::from_spiffe_bundle_map)?;
                let any = |_: &PeerCertificate| Ok(());
                ServerTrust::Bundles(bundles, ServerCheck::named("any SPIFFE id of the bundle map", any))
            }
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Pem(path) | Self::SpiffeBundleMap(path) => path,
        }
    }
}

/// What the files said last, to notice that nothing changed.
#[derive(PartialEq)]
struct Contents {
    certificate: Vec<u8>,
    private_key: Zeroizing<Vec<u8>>,
    roots: Vec<u8>,
}

impl FileSource {
    /// Paths of the certificate chain (leaf first), its key, and the root certificates.
    pub fn new(
        certificate: impl Into<PathBuf>,
        private_key: impl Into<PathBuf>,
        ca_certificate: impl Into<PathBuf>,
    ) -> Self {
        Self::with_roots(certificate, private_key, RootsFile::Pem(ca_certificate.into()))
    }

    /// As [`Self::new`], with the roots in either form.
    pub fn with_roots(
        certificate: impl Into<PathBuf>,
        private_key: impl Into<PathBuf>,
        roots: RootsFile,
    ) -> Self {
        Self {
            certificate: certificate.into(),
            private_key: private_key.into(),
            roots,
            refresh: DEFAULT_REFRESH,
            read: None,
        }
    }

    /// Read the files this often.
    #[must_use]
    pub fn refresh(mut self, interval: Duration) -> Self {
        self.refresh = interval;
        self
    }

    async fn contents(&self) -> Result<Contents, SourceError> {
        Ok(Contents {
            certificate: read(&self.certificate).await?,
            private_key: Zeroizing::new(read(&self.private_key).await?),
            roots: read(self.roots.path()).await?,
        })
    }

    fn parse(&self, contents: &Contents) -> Result<Identity, SourceError> {
        let svid = X509Svid::from_pem(&contents.certificate, &contents.private_key).map_err(|error| {
            SourceError::invalid(format!(
                "{} and {}: {error}",
                self.certificate.display(),
                self.private_key.display()
            ))
        })?;
        let bundles = match &self.roots {
            RootsFile::Pem(_) => {
                let domain = svid.id().trust_domain().clone();
                TrustBundle::from_pem(domain, &contents.roots).map(TrustBundles::of)
            }
            RootsFile::SpiffeBundleMap(_) => TrustBundles::from_spiffe_bundle_map(&contents.roots),
        };
        bundles
            .and_then(|bundles| Identity::new(svid, bundles))
            .map_err(|error| SourceError::invalid(format!("{}: {error}", self.roots.path().display())))
    }
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileSource({})", self.origin())
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    let contents = tokio::fs::read(path).await;
    contents.map_err(|error| SourceError::unavailable(format!("{}: {error}", path.display())))
}

impl Source for FileSource {
    fn origin(&self) -> String {
        format!(
            "files {}, {}, {}",
            self.certificate.display(),
            self.private_key.display(),
            self.roots.path().display()
        )
    }

    fn schedule(&self) -> Schedule {
        Schedule::Every(self.refresh)
    }

    async fn fetch(&mut self, held: Option<&Arc<Identity>>) -> Result<Arc<Identity>, SourceError> {
        let contents = self.contents().await?;
        if let (Some(held), true) = (held, self.read.as_ref() == Some(&contents)) {
            return Ok(held.clone());
        }
        let identity = Arc::new(self.parse(&contents)?);
        self.read = Some(contents);
        Ok(identity)
    }
}

#[cfg(test)]
mod tests;
