//! Connections to the control plane, with the credentials of the bootstrap.

use crate::tls::read_roots;
use mesh_ca::{
    channel::{self, Target},
    rustls::ServerTrust,
    source::file::FileSource,
    workload::WorkloadIdentity,
};
use mesh_xds::{
    bootstrap::{ChannelCredentials, ServerConfig},
    client::Connector,
};
use tonic::transport::Channel;

/// Makes them.
pub(super) struct ControlPlaneConnector {
    /// Shown where the credentials name no certificate of their own.
    identity: Option<WorkloadIdentity>,
}

impl ControlPlaneConnector {
    pub(super) fn new(identity: Option<WorkloadIdentity>) -> Self {
        Self { identity }
    }

    /// A lazy channel.
    pub(super) fn channel(&self, server: &ServerConfig) -> Result<Channel, String> {
        let target = match &server.credentials {
            ChannelCredentials::Insecure => Target::plaintext(&server.address),
            ChannelCredentials::Tls { ca_certificate_file, identity, refresh_interval } => {
                let Some(roots) = ca_certificate_file else {
                    return Err("channel_creds `tls` without ca_certificate_file would trust the operating \
                                system's roots, which this version does not read: name a file"
                        .into());
                };
                let own = identity.as_ref().map(|(certificate, key)| {
                    let files = FileSource::new(certificate, key, roots).refresh(*refresh_interval);
                    WorkloadIdentity::start(files)
                });
                let trust = ServerTrust::Roots(read_roots(roots)?);
                Target::tls(&server.address, trust, own.as_ref().or(self.identity.as_ref()))
            }
            other => return Err(format!("credentials {other:?} are not supported")),
        };
        Ok(channel::connect(&target.map_err(|error| error.to_string())?))
    }
}

impl Connector for ControlPlaneConnector {
    fn connect(&self, server: &ServerConfig) -> Result<Channel, String> {
        self.channel(server)
    }
}
