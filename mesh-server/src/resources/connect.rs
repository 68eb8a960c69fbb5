//! Connections to the control plane for looking: with the credentials of the bootstrap, as far as they are in files.

use mesh_ca::{
    bundle::{Roots, TrustBundles},
    certificate::PeerCertificate,
    channel::{Target, connect},
    rustls::ServerTrust,
    source::file::{FileSource, RootsFile},
    verifier::ServerCheck,
    workload::WorkloadIdentity,
};
use mesh_xds::{
    bootstrap::{ChannelCredentials, ServerConfig},
    client::Connector,
};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use tonic::transport::Channel;

/// Makes them. A certificate is read from its files once for all attempts, and renewed from there.
#[derive(Default)]
pub(super) struct Plain {
    own: Mutex<HashMap<(PathBuf, PathBuf), WorkloadIdentity>>,
}

impl Connector for Plain {
    fn connect(&self, server: &ServerConfig) -> Result<Channel, String> {
        if !server.call_credentials.is_empty() {
            return Err(
                "call_creds of the bootstrap are tokens of the workload, which are not sent from here: \
                        ask with --server and a certificate, or a bootstrap without call_creds"
                    .into(),
            );
        }
        let target = match &server.credentials {
            ChannelCredentials::Insecure => match server.socket() {
                Some(socket) => over_socket(socket)?,
                None => Target::plaintext(&server.address).map_err(|error| error.to_string())?,
            },
            ChannelCredentials::Tls {
                ca_certificate_file,
                spiffe_trust_bundle_map_file,
                identity,
                refresh_interval,
            } => {
                let read =
                    |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
                let bad = |path: &Path, error: String| format!("{}: {error}", path.display());
                let (trust, roots) = match (spiffe_trust_bundle_map_file, ca_certificate_file) {
                    (Some(map), _) => {
                        let bundles = TrustBundles::from_spiffe_bundle_map(&read(map)?);
                        let bundles = bundles.map_err(|error| bad(map, error.to_string()))?;
                        // Whoever has a SPIFFE id that the bundle of its trust domain vouches for (gRFC A87).
                        let check = |_: &PeerCertificate| Ok(());
                        let check = ServerCheck::named("any SPIFFE id of the bundle map", check);
                        (ServerTrust::Bundles(bundles, check), Some(RootsFile::SpiffeBundleMap(map.clone())))
                    }
                    (None, Some(file)) => {
                        let roots = Roots::from_pem(&read(file)?);
                        let roots = roots.map_err(|error| bad(file, error.to_string()))?;
                        (ServerTrust::Roots(roots), Some(RootsFile::Pem(file.clone())))
                    }
                    (None, None) => {
                        (ServerTrust::Roots(Roots::system().map_err(|error| error.to_string())?), None)
                    }
                };
                let own = match (identity, roots) {
                    (None, _) => None,
                    (Some(files), Some(roots)) => {
                        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
                        let start = || {
                            let source = FileSource::with_roots(&files.0, &files.1, roots);
                            WorkloadIdentity::start(source.refresh(*refresh_interval))
                        };
                        Some(own.entry(files.clone()).or_insert_with(start).clone())
                    }
                    (Some((certificate, _)), None) => {
                        return Err(format!(
                            "{}: a certificate is believed together with the roots of its own trust domain: name \
                             them (--ca-file; ca_certificate_file of a bootstrap)",
                            certificate.display()
                        ));
                    }
                };
                Target::tls(&server.address, trust, own.as_ref()).map_err(|error| error.to_string())?
            }
            other => return Err(format!("credentials {other:?} are not supported")),
        };
        Ok(connect(&target))
    }
}

#[cfg(unix)]
fn over_socket(path: &Path) -> Result<Target, String> {
    Target::unix(path).map_err(|error| error.to_string())
}

#[cfg(not(unix))]
fn over_socket(path: &Path) -> Result<Target, String> {
    Err(format!("unix:{}: this system has no such sockets", path.display()))
}
