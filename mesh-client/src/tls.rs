//! From the TLS contexts of xDS to rustls configurations (gRFC A29, A101).
//!
//! A context names certificate providers; [`Providers`] knows what each name stands for. Or it names secrets, which
//! come with its cluster, or files. What cannot be honoured is refused with the reason; nothing ever falls back to
//! plaintext or to a weaker check. The configurations are live: certificates and roots of providers are read at every
//! handshake, so a rotation needs no new one; of secrets and files, those at hand when the connection is made. No
//! session is resumed, since resumption skips verification.

mod files;
mod provider;
mod san;
mod secret;

pub use provider::ProviderError;
pub(crate) use secret::check as check_secret;

use self::files::Files;
use crate::endpoint::{ClientTls, TlsConfigs};
use mesh_ca::{
    certificate::PeerCertificate,
    clock::Clock,
    key_pair::KeyPair,
    rustls::{
        ClientAuth, Presents, Provider, ServerTrust, client_config_presenting, default_provider,
        server_config,
    },
    verifier::ServerCheck,
    workload::WorkloadIdentity,
};
use mesh_xds::{
    config::ClusterSecrets,
    name::Name,
    resource::tls::{CrlFile, DownstreamTls, Identity, KeyFiles, Roots, SanMatcher, UpstreamTls},
};
use rustls::pki_types::ServerName;
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};
use tokio::time::Instant;

const ALPN: &[&[u8]] = &[b"h2"];

/// Why a TLS context cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A context names an instance that nobody configured.
    #[error(
        "certificate provider instance `{instance}` is not configured (known: {known}); add it to \
         `certificate_providers` of the bootstrap, or give the mesh an identity"
    )]
    UnknownProvider {
        /// The name in the context.
        instance: Arc<str>,
        /// What is configured.
        known: String,
    },
    /// The roots of the operating system are asked for and cannot be read.
    #[error("`system_root_certs`: {0}")]
    SystemRoots(String),
    /// A server's certificate and its clients' roots come from different providers.
    #[error(
        "the server's certificate comes from provider instance `{identity}` and its clients' roots from \
         `{roots}`: both must be the same provider"
    )]
    SplitProviders {
        /// Instance of the certificate.
        identity: Arc<str>,
        /// Instance of the roots.
        roots: Arc<str>,
    },
    /// The peer must have the name that was sent, and none is.
    #[error(
        "`auto_sni_san_validation` without a name to send: set `sni`, or `auto_host_sni` and give the endpoint \
         a hostname"
    )]
    NoName,
    /// The name to send is not one.
    #[error("`{0}` cannot be sent as server name: it is not a DNS name")]
    BadName(String),
    /// The provider has not delivered yet.
    #[error("certificate provider instance `{instance}` has no certificate yet: {cause}")]
    NoIdentity {
        /// The provider.
        instance: Arc<str>,
        /// What is known of why.
        cause: String,
    },
    /// A context names a secret that did not come with its cluster.
    #[error("secret `{0}` of the TLS context has not come with its cluster yet")]
    NoSecret(Name),
    /// A secret that was fit when it came, and is not now.
    #[error("secret `{name}` of the TLS context cannot be used: {reason}")]
    Secret {
        /// Which.
        name: Name,
        /// What is wrong with it; says nothing of a key.
        reason: String,
    },
    /// A context names files that the bootstrap does not.
    #[error(
        "the TLS context names {files}, and which files of this machine are read is for its bootstrap to say: name \
         them as {setting} of a `file_watcher` in `certificate_providers` (known: {known})"
    )]
    UnknownFile {
        /// What the context names.
        files: String,
        /// What the bootstrap calls such files.
        setting: &'static str,
        /// Those that it names.
        known: String,
    },
    /// Files that are known and of no use now.
    #[error("{files} of the TLS context cannot be used: {reason}")]
    File {
        /// Which.
        files: String,
        /// What is wrong with them; says nothing of a key.
        reason: String,
    },
    /// An instance has a certificate or roots, and the other is needed.
    #[error(
        "certificate provider instance `{instance}` has no {lacks}: add it to the `file_watcher` in \
         `certificate_providers` of the bootstrap, or name another instance"
    )]
    Half {
        /// The name in the context.
        instance: Arc<str>,
        /// What is missing.
        lacks: &'static str,
    },
    /// rustls cannot be configured so.
    #[error("TLS cannot be configured: {0}")]
    Rustls(String),
}

/// When the current certificate of an identity ends.
fn end(identity: &WorkloadIdentity) -> Option<Instant> {
    ends(identity.current()?.svid().not_after(), identity.clock().now())
}

/// When a certificate ends, on the clock of tasks.
fn ends(not_after: SystemTime, now: SystemTime) -> Option<Instant> {
    Instant::now().checked_add(not_after.duration_since(now).unwrap_or_default())
}

/// What is shown of oneself, found.
enum Own<'a> {
    Nothing,
    Mesh(&'a WorkloadIdentity),
    Pair(KeyPair),
}

/// What an instance has that is no identity of the mesh with the roots to judge others by.
#[derive(Clone, Debug)]
enum Half {
    Identity(KeyFiles),
    /// And the revocation lists that stand beside them.
    Roots(PathBuf, Option<CrlFile>),
}

impl Half {
    fn lacks(&self) -> &'static str {
        match self {
            Self::Identity(_) => "roots (`ca_certificate_file`)",
            Self::Roots(..) => "certificate (`certificate_file` and `private_key_file`)",
        }
    }
}

/// The certificate provider instances of a process, by name.
#[derive(Clone)]
pub struct Providers {
    instances: BTreeMap<Arc<str>, WorkloadIdentity>,
    /// Instances that have a certificate or roots, and not both: for servers outside the mesh.
    halves: BTreeMap<Arc<str>, Half>,
    files: Arc<Files>,
    crypto: Provider,
    warned: Arc<AtomicBool>,
    /// Read once, when first needed.
    system_roots: Arc<OnceLock<Result<mesh_ca::bundle::Roots, TlsError>>>,
}

impl Providers {
    /// These instances, with the default cryptography.
    pub fn new(instances: impl IntoIterator<Item = (Arc<str>, WorkloadIdentity)>) -> Self {
        Self::with_crypto(instances, default_provider())
    }

    /// These instances.
    pub fn with_crypto(
        instances: impl IntoIterator<Item = (Arc<str>, WorkloadIdentity)>,
        crypto: Provider,
    ) -> Self {
        let instances = instances.into_iter().collect();
        Self {
            instances,
            halves: BTreeMap::new(),
            files: Arc::default(),
            crypto,
            warned: Arc::default(),
            system_roots: Arc::default(),
        }
    }

    /// Adds an instance, or replaces it.
    pub(crate) fn insert(&mut self, instance: Arc<str>, identity: WorkloadIdentity) {
        self.instances.insert(instance, identity);
    }

    /// Every instance.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &WorkloadIdentity)> {
        self.instances.iter()
    }

    /// The identity behind an instance.
    pub fn identity(&self, instance: &Arc<str>) -> Result<&WorkloadIdentity, TlsError> {
        self.instances.get(instance).ok_or_else(|| {
            if let Some(half) = self.halves.get(instance) {
                return TlsError::Half { instance: instance.clone(), lacks: half.lacks() };
            }
            let known: Vec<&str> =
                self.instances.keys().chain(self.halves.keys()).map(|name| &**name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            TlsError::UnknownProvider { instance: instance.clone(), known }
        })
    }

    /// A client's side, for an endpoint of this hostname. Whether the server is the right one is decided in the
    /// handshake: any SAN of it must satisfy any matcher of the context.
    pub(crate) fn client_tls(
        &self,
        context: &UpstreamTls,
        secrets: &ClusterSecrets,
        hostname: Option<&str>,
    ) -> Result<ClientTls, TlsError> {
        // Secrets are judged by the system's clock: they came with none of their own.
        let system = Clock::system();
        let pair;
        let half = |instance| self.halves.get(instance);
        let found = match &context.identity {
            None => Own::Nothing,
            Some(Identity::Provider(instance)) => match half(instance) {
                Some(Half::Identity(files)) => {
                    Own::Pair(self.files.key_pair(files, system.now(), &self.crypto)?)
                }
                Some(Half::Roots(..)) | None => Own::Mesh(self.ready(instance)?),
            },
            Some(Identity::Secret(name)) => {
                Own::Pair(secret::key_pair(secrets, name, system.now(), &self.crypto)?)
            }
            Some(Identity::Files(files)) => {
                Own::Pair(self.files.key_pair(files, system.now(), &self.crypto)?)
            }
        };
        let (own, reconnect_before) = match found {
            Own::Nothing => (Presents::Nothing, None),
            Own::Mesh(identity) => (Presents::Identity(identity), end(identity)),
            Own::Pair(found) => {
                pair = found;
                (Presents::KeyPair(&pair), ends(pair.not_after(), system.now()))
            }
        };
        let name = match (context.auto_host_sni, hostname) {
            (true, Some(hostname)) => Some(hostname),
            _ => context.sni.as_deref(),
        };
        let lists = context.crl.as_ref().map(|file| self.files.lists(file)).transpose()?;
        let (trust, clock) = match &context.roots {
            Roots::Provider(instance) => {
                let check = self.server_check(context, context.sans.clone(), name)?;
                match half(instance) {
                    Some(Half::Roots(path, crl)) => {
                        let lists = match (lists, crl) {
                            (None, Some(file)) => Some(self.files.lists(file)?),
                            (lists, _) => lists,
                        };
                        (ServerTrust::Outsider(self.files.roots(path)?, lists, check), system)
                    }
                    Some(Half::Identity(_)) | None => {
                        let roots = self.ready(instance)?;
                        (ServerTrust::Mesh(roots.clone(), check), roots.clock().clone())
                    }
                }
            }
            Roots::System => {
                let check = self.server_check(context, context.sans.clone(), name)?;
                (ServerTrust::Outsider(self.system_roots()?, lists, check), system)
            }
            Roots::File(path) => {
                let check = self.server_check(context, context.sans.clone(), name)?;
                (ServerTrust::Outsider(self.files.roots(Path::new(&**path))?, lists, check), system)
            }
            Roots::Secret(secret) => {
                let (roots, validation) = secret::roots(secrets, secret)?;
                let check = self.server_check(context, context.accepted(&validation.sans), name)?;
                (ServerTrust::Outsider(roots, lists, check), system)
            }
        };
        let config = client_config_presenting(trust, own, ALPN, self.crypto.clone(), clock)
            .map_err(|error| TlsError::Rustls(error.to_string()))?;
        let server_name = match name {
            // rustls sends no server name for an address.
            None => ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()),
            Some(name) => {
                ServerName::try_from(name.to_owned()).map_err(|_| TlsError::BadName(name.to_owned()))?
            }
        };
        Ok(ClientTls { config, server_name, reconnect_before })
    }

    fn system_roots(&self) -> Result<mesh_ca::bundle::Roots, TlsError> {
        let read =
            || mesh_ca::bundle::Roots::system().map_err(|error| TlsError::SystemRoots(error.to_string()));
        self.system_roots.get_or_init(read).clone()
    }

    /// A provider that has delivered.
    pub(crate) fn ready(&self, instance: &Arc<str>) -> Result<&WorkloadIdentity, TlsError> {
        let identity = self.identity(instance)?;
        if identity.current().is_none() {
            let status = identity.status();
            let cause = match status.last_error {
                Some(error) => error.to_string(),
                None => format!("{} has not answered yet", status.origin),
            };
            return Err(TlsError::NoIdentity { instance: instance.clone(), cause });
        }
        Ok(identity)
    }

    fn server_check(
        &self,
        context: &UpstreamTls,
        sans: Vec<SanMatcher>,
        name: Option<&str>,
    ) -> Result<ServerCheck, TlsError> {
        if context.auto_sni_san_validation {
            let name: Arc<str> = name.ok_or(TlsError::NoName)?.into();
            return Ok(ServerCheck::named(&format!("DNS name {name}"), move |peer: &PeerCertificate| {
                if san::has_dns_name(peer, &name) {
                    Ok(())
                } else {
                    Err(format!("expected DNS name {name}, found {}", peer.names()))
                }
            }));
        }
        if sans.is_empty() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a cluster's TLS context names no server identity (no SAN matcher): any workload that its \
                 roots vouch for is accepted as its server"
            );
        }
        let sans: Arc<[SanMatcher]> = sans.into();
        let shown = san::Shown(&sans).to_string();
        Ok(ServerCheck::named(&shown, move |peer: &PeerCertificate| {
            if sans.is_empty() || sans.iter().any(|matcher| san::matches(peer, matcher)) {
                Ok(())
            } else {
                Err(format!("expected {}, found {}", san::Shown(&sans), peer.names()))
            }
        }))
    }

    /// A server's side.
    pub fn server_tls(&self, context: &DownstreamTls) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let identity = self.identity(&context.identity)?;
        let clients = match &context.client_roots {
            None => ClientAuth::None,
            Some(roots) => {
                self.identity(roots)?;
                if *roots != context.identity {
                    let identity = context.identity.clone();
                    return Err(TlsError::SplitProviders { identity, roots: roots.clone() });
                }
                if context.require_client_certificate { ClientAuth::Require } else { ClientAuth::Optional }
            }
        };
        server_config(identity, clients, ALPN, self.crypto.clone())
            .map_err(|error| TlsError::Rustls(error.to_string()))
    }
}

impl TlsConfigs for Providers {
    fn client_tls(
        &self,
        tls: &UpstreamTls,
        secrets: &ClusterSecrets,
        hostname: Option<&str>,
    ) -> Result<ClientTls, String> {
        Self::client_tls(self, tls, secrets, hostname).map_err(|error| error.to_string())
    }

    fn settled<'a>(&'a self, tls: &'a UpstreamTls) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let own = match &tls.identity {
                Some(Identity::Provider(instance)) => Some(instance),
                Some(Identity::Secret(_) | Identity::Files(_)) | None => None,
            };
            let roots = match &tls.roots {
                Roots::Provider(instance) => Some(instance),
                Roots::System | Roots::Secret(_) | Roots::File(_) => None,
            };
            for instance in own.into_iter().chain(roots) {
                if let Ok(identity) = self.identity(instance) {
                    // Whether it has delivered is asked again when the connection is made.
                    let _ = identity.ready().await;
                }
            }
        })
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.instances).entries(&self.halves).finish()
    }
}

#[cfg(test)]
mod tests;
