//! The bootstrap: which control plane, who I am to it, where certificates come from.
//!
//! The format is gRPC's (gRFC A27, A29, A47, A65): JSON named by `GRPC_XDS_BOOTSTRAP`, or inline in
//! `GRPC_XDS_BOOTSTRAP_CONFIG`; or a [`Bootstrap`] built in code. Unknown fields are ignored, as gRPC asks; a
//! known field of the wrong shape rejects the whole with its place. Read once, never reloaded.
//!
//! Several control planes in a list replace one another in that order (gRFC A71); `authorities` say which
//! control planes answer for the names of an authority (gRFC A47).
//!
//! One certificate provider is ours, `mesh_ca`: other implementations ignore entries they do not know, so
//! one file can serve both.

mod json;
mod server;

use crate::{
    name::{ResourceType, XDSTP, encode_path},
    proto,
    resource::Locality,
};
pub use json::{certificate_provider_config, parse};
use serde_json::{Map, Value};
pub use server::{CallCredentials, ChannelCredentials, InvalidServerUri, ServerConfig, ServerFeatures};
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

/// `user_agent_name` of our own client.
pub const USER_AGENT: &str = "mesh-client";

/// Replaced by the listening address in [`Bootstrap::server_listener_template`].
const PLACEHOLDER: &str = "%s";

/// A parsed bootstrap.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// The control plane, and its replacements in order; never empty.
    pub servers: Vec<ServerConfig>,
    /// By name: who answers for `xdstp://name/…`, and for targets `xds://name/…`.
    pub authorities: BTreeMap<Arc<str>, Authority>,
    /// Who this process says it is.
    pub node: Node,
    /// By instance name, as TLS resources refer to them.
    pub certificate_providers: BTreeMap<Arc<str>, CertificateProvider>,
    /// Resource name of a target's listener; `%s` is the target. Default `%s`.
    pub client_listener_template: String,
    /// Resource name of a server's listener; `%s` is its address. A server cannot start without it.
    pub server_listener_template: Option<String>,
}

/// Who answers for the resource names of one authority (gRFC A47).
#[derive(Clone, Debug, PartialEq)]
pub struct Authority {
    /// Resource name of the listener of a target `xds://name/…`; begins with `xdstp://name/`.
    pub client_listener_template: String,
    /// Its control planes in order; empty: those of [`Bootstrap::servers`].
    pub servers: Vec<ServerConfig>,
    /// A control plane that cannot be reached is replaced even when everything asked of it is known (gRFC A95).
    pub fallback_on_reachability_only: bool,
}

impl Authority {
    /// The authority `name` with the default template, and the bootstrap's own control planes.
    pub fn new(name: &str) -> Self {
        let message = ResourceType::Listener.message();
        Self {
            client_listener_template: format!("{XDSTP}//{name}/{message}/{PLACEHOLDER}"),
            servers: Vec::new(),
            fallback_on_reachability_only: false,
        }
    }
}

/// A target or a resource of an authority that the bootstrap does not name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the xDS authority `{authority}` is not configured (known: {known}); add it to `authorities` of the bootstrap"
)]
pub struct UnknownAuthority {
    /// The name that is not there.
    pub authority: Arc<str>,
    /// Those that are.
    pub known: String,
}

/// `node`: who this process says it is. What it may see is decided by its certificate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Istio's form is `sidecar~<ip>~<workload>.<namespace>~<namespace>.svc.<domain>`.
    pub id: String,
    /// Informational.
    pub cluster: String,
    /// Istio's keys: `NAMESPACE`, `SERVICE_ACCOUNT`, `LABELS`, `WORKLOAD_NAME`, …
    pub metadata: Map<String, Value>,
    /// For locality-aware balancing.
    pub locality: Locality,
}

/// Where a certificate provider instance gets its material.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CertificateProvider {
    /// gRPC's `file_watcher`.
    FileWatcher(FileWatcher),
    /// Ours: a CA that speaks Istio's certificate service.
    MeshCa(MeshCa),
    /// Given by the program that built the bootstrap; has no JSON.
    Given,
}

/// Files that are read again and again (gRFC A29). At least one is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct FileWatcher {
    /// Own certificate chain and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Roots, PEM.
    pub ca_certificate_file: Option<PathBuf>,
    /// Certificate revocation lists, PEM: TLS contexts may name the file, and those that name an instance with roots alone
    /// are held to it. gRPC has no such field, and passes it over.
    pub crl_file: Option<PathBuf>,
    /// Roots by trust domain (gRFC A87), before `ca_certificate_file`.
    pub spiffe_trust_bundle_map_file: Option<PathBuf>,
    /// Between two reads. Default 600 s.
    pub refresh_interval: Duration,
}

/// A CA that issues and renews the certificate of this process; its key never leaves the process.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshCa {
    /// `host:port` of the CA; absent: the first xDS server.
    pub server_uri: Option<String>,
    /// Roots that the CA's own certificate must lead to, PEM; absent only with `plaintext`.
    pub ca_certificate_file: Option<PathBuf>,
    /// The CA's SPIFFE id; absent: any that the roots vouch for.
    pub server_id: Option<String>,
    /// A join token for the first certificate; later ones are asked for with the one before.
    pub token_file: Option<PathBuf>,
    /// Namespace of the workload.
    pub namespace: String,
    /// Service account of the workload.
    pub service_account: String,
    /// Lifetime asked for; absent: the CA's default.
    pub lifetime: Option<Duration>,
    /// No TLS towards the CA. For `mesh-server dev` on loopback only.
    pub plaintext: bool,
}

/// Why there is no bootstrap. Its text names the variable or file, the place in it, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// Neither variable is set.
    #[error(
        "no bootstrap: set GRPC_XDS_BOOTSTRAP to the path of a bootstrap file, or GRPC_XDS_BOOTSTRAP_CONFIG to its \
         content (`meshctl bootstrap` prints one), or build a Bootstrap in code"
    )]
    Missing,
    /// The file cannot be read.
    #[error("cannot read the bootstrap file {} (from GRPC_XDS_BOOTSTRAP): {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The content is wrong.
    #[error("{origin} is not a valid bootstrap: {reason}")]
    Invalid {
        /// File or variable.
        origin: String,
        /// Path in the JSON, what is wrong, what would be right.
        reason: String,
    },
}

/// Each once, however often it is listed: those that are configured alike are one.
pub fn distinct(servers: &[ServerConfig]) -> Vec<&ServerConfig> {
    let mut distinct: Vec<&ServerConfig> = Vec::new();
    for server in servers {
        if !distinct.contains(&server) {
            distinct.push(server);
        }
    }
    distinct
}

impl Bootstrap {
    /// From `GRPC_XDS_BOOTSTRAP`, else `GRPC_XDS_BOOTSTRAP_CONFIG`.
    pub fn from_env() -> Result<Self, BootstrapError> {
        Self::from_values(
            std::env::var_os("GRPC_XDS_BOOTSTRAP"),
            std::env::var_os("GRPC_XDS_BOOTSTRAP_CONFIG"),
        )
    }

    /// From the values of the two variables.
    pub fn from_values(file: Option<OsString>, inline: Option<OsString>) -> Result<Self, BootstrapError> {
        if let Some(path) = file.filter(|path| !path.is_empty()) {
            return Self::from_file(path);
        }
        let inline = inline.filter(|text| !text.is_empty()).ok_or(BootstrapError::Missing)?;
        Self::from_json(&inline.to_string_lossy(), "GRPC_XDS_BOOTSTRAP_CONFIG")
    }

    /// From a file.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, BootstrapError> {
        let path = path.into();
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::from_json(&text, &path.display().to_string()),
            Err(error) => Err(BootstrapError::Unreadable { path, error }),
        }
    }

    /// From JSON text; `origin` is how errors call it.
    pub fn from_json(text: &str, origin: &str) -> Result<Self, BootstrapError> {
        parse(text).map_err(|reason| BootstrapError::Invalid { origin: origin.into(), reason })
    }

    /// One control plane and a node; no certificate provider, Istio's listener names.
    pub fn new(server: ServerConfig, node: Node) -> Self {
        Self {
            servers: vec![server],
            authorities: BTreeMap::new(),
            node,
            certificate_providers: BTreeMap::new(),
            client_listener_template: PLACEHOLDER.into(),
            server_listener_template: Some("xds.istio.io/grpc/lds/inbound/%s".into()),
        }
    }

    /// With a certificate provider instance.
    #[must_use]
    pub fn with_certificate_provider(mut self, instance: &str, provider: CertificateProvider) -> Self {
        self.certificate_providers.insert(instance.into(), provider);
        self
    }

    /// With an authority.
    #[must_use]
    pub fn with_authority(mut self, name: &str, authority: Authority) -> Self {
        self.authorities.insert(name.into(), authority);
        self
    }

    /// Resource name of the listener of a client target: of `xds:///target`, or `xds://authority/target`.
    pub fn client_listener(&self, authority: Option<&str>, target: &str) -> Result<String, UnknownAuthority> {
        let template = match authority {
            None => &self.client_listener_template,
            Some(name) => match self.authorities.get(name) {
                Some(authority) => &authority.client_listener_template,
                None => return Err(self.unknown_authority(name)),
            },
        };
        Ok(fill(template, target))
    }

    /// Resource name of the listener of a server; absent when there is no template.
    pub fn server_listener(&self, address: &std::net::SocketAddr) -> Option<String> {
        Some(fill(self.server_listener_template.as_ref()?, &address.to_string()))
    }

    pub(crate) fn unknown_authority(&self, name: &str) -> UnknownAuthority {
        let known: Vec<&str> = self.authorities.keys().map(|name| &**name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        UnknownAuthority { authority: name.into(), known }
    }

    /// The bootstrap as JSON that any gRPC implementation accepts.
    pub fn to_json(&self) -> Value {
        json::print(self)
    }
}

/// `text` in every place of the template; percent-encoded where the result is a URI.
fn fill(template: &str, text: &str) -> String {
    if template.starts_with(XDSTP) {
        template.replace(PLACEHOLDER, &encode_path(text))
    } else {
        template.replace(PLACEHOLDER, text)
    }
}

impl Node {
    /// As sent in the first request of a stream.
    pub fn to_proto(&self, features: &[&str]) -> proto::Node {
        proto::Node {
            id: self.id.clone(),
            cluster: self.cluster.clone(),
            metadata: Some(json::to_struct(&self.metadata)),
            locality: Some(proto::Locality {
                region: self.locality.region.to_string(),
                zone: self.locality.zone.to_string(),
                sub_zone: self.locality.sub_zone.to_string(),
            }),
            user_agent_name: USER_AGENT.into(),
            user_agent_version: env!("CARGO_PKG_VERSION").into(),
            client_features: features.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
