//! Connections to the control plane for looking: with the credentials of the bootstrap, as far as they are in files.

use mesh_ca::{
    bundle::Roots,
    channel::{Target, connect},
    rustls::ServerTrust,
    source::file::{FileSource, RootsFile},
    workload::WorkloadIdentity,
};
use mesh_xds::{
    bootstrap::{ChannelCredentials, ServerConfig},
    client::Connector,
};
use std::{
    collections::HashMap,
    path::PathBuf,
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
                Some(socket) => Target::unix(socket),
                None => Target::plaintext(&server.address),
            },
            ChannelCredentials::Tls {
                ca_certificate_file,
                spiffe_trust_bundle_map_file,
                identity,
                refresh_interval,
            } => {
                let roots =
                    RootsFile::named(ca_certificate_file.as_ref(), spiffe_trust_bundle_map_file.as_ref());
                let trust = match &roots {
                    Some(file) => file.servers().map_err(|error| error.to_string())?,
                    None => ServerTrust::Roots(Roots::system().map_err(|error| error.to_string())?),
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
                Target::tls(&server.address, trust, own.as_ref())
            }
            other => return Err(format!("credentials {other:?} are not supported")),
        };
        Ok(connect(&target.map_err(|error| error.to_string())?))
    }
}
