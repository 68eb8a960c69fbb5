//! From the bootstrap's `certificate_providers` to identities that are kept fresh (gRFC A29).

use super::{Half, Providers, files::Files};
use mesh_ca::{
    bundle::{Roots, TrustBundle, TrustBundles},
    channel::Target,
    rustls::ServerTrust,
    source::{
        ca::{CaSource, JoinToken},
        file::{FileSource, RootsFile},
    },
    spiffe_id::{SpiffeId, TrustDomain},
    verifier::ServerCheck,
    workload::WorkloadIdentity,
};
use mesh_xds::{
    bootstrap::{Bootstrap, CertificateProvider, FileWatcher, MeshCa},
    resource::tls::{CrlFile, KeyFiles},
};
use std::{collections::BTreeMap, fmt::Display, path::Path, sync::Arc};

/// Istio's trust domain when nothing is said.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// A certificate provider instance that cannot be started as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate_providers.{instance} of the bootstrap: {reason}")]
pub struct ProviderError {
    /// Name of the instance.
    pub instance: Arc<str>,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Providers {
    /// Starts the instances of a bootstrap; each fetches its first certificate in the background. Must be
    /// called within a tokio runtime.
    pub fn start(bootstrap: &Bootstrap) -> Result<Self, ProviderError> {
        let (mut instances, mut halves, mut named) = (Vec::new(), BTreeMap::new(), Files::default());
        for (instance, provider) in &bootstrap.certificate_providers {
            let fail = |reason| ProviderError { instance: instance.clone(), reason };
            let started = match provider {
                CertificateProvider::FileWatcher(files) => {
                    named.add(files);
                    match from_files(files).map_err(fail)? {
                        Watches::Identity(identity) => Ok(identity),
                        Watches::Half(half) => {
                            halves.insert(instance.clone(), half);
                            continue;
                        }
                    }
                }
                CertificateProvider::MeshCa(ca) => from_ca(ca, bootstrap),
                _ => Err("its plugin is not known to this version of the mesh".to_owned()),
            };
            instances.push((instance.clone(), started.map_err(fail)?));
        }
        Ok(Self { halves, files: Arc::new(named), ..Self::new(instances) })
    }
}

/// What a `file_watcher` watches.
enum Watches {
    /// An identity with the roots that it judges others by.
    Identity(WorkloadIdentity),
    /// One of the two.
    Half(Half),
}

fn from_files(files: &FileWatcher) -> Result<Watches, String> {
    let map = files.spiffe_trust_bundle_map_file.as_ref();
    let roots = RootsFile::named(files.ca_certificate_file.as_ref(), map);
    match (&files.identity, roots) {
        (Some((certificate, key)), Some(roots)) => {
            if let Some(crl) = &files.crl_file {
                tracing::warn!(
                    crl_file = %crl.display(),
                    "identities of a mesh have no revocation lists: those of this file_watcher are looked at only where \
                     the control plane names the file"
                );
            }
            let source = FileSource::with_roots(certificate, key, roots);
            Ok(Watches::Identity(WorkloadIdentity::start(source.refresh(files.refresh_interval))))
        }
        (Some((certificate, key)), None) => Ok(Watches::Half(Half::Identity(KeyFiles {
            certificate: text(certificate)?.into(),
            key: text(key)?.into(),
        }))),
        (None, Some(RootsFile::Pem(path))) => {
            let crl = files.crl_file.as_deref().map(text).transpose()?;
            let crl = crl.map(|path| CrlFile { path: path.into(), only_leaf: false });
            Ok(Watches::Half(Half::Roots(path, crl)))
        }
        (None, Some(RootsFile::SpiffeBundleMap(_)) | None) => {
            Err("a file_watcher without `certificate_file` and `private_key_file` needs `ca_certificate_file`: a \
                 `spiffe_trust_bundle_map_file` is for workloads of a mesh, which have an identity"
                .to_owned())
        }
    }
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))
}

fn from_ca(ca: &MeshCa, bootstrap: &Bootstrap) -> Result<WorkloadIdentity, String> {
    let field = |name: &'static str| move |error: &dyn Display| format!("{name}: {error}");
    let address = match (&ca.server_uri, bootstrap.servers.first()) {
        (Some(address), _) => address.as_str(),
        (None, Some(server)) => &server.address,
        (None, None) => return Err("`server_uri` is absent, and there is no xDS server to ask".to_owned()),
    };
    let server_id = ca.server_id.as_deref().map(SpiffeId::parse).transpose();
    let server_id = server_id.map_err(|error| field("server_id")(&error))?;
    let target = if ca.plaintext {
        Target::plaintext(address)
    } else {
        Target::tls(address, trust(ca, server_id.as_ref())?, None)
    };
    let mut source = CaSource::new(target.map_err(|error| field("server_uri")(&error))?);

    let domain = server_id.as_ref().map(|id| id.trust_domain().clone());
    let invalid = field("namespace, service_account");
    match (&ca.token_file, domain) {
        (Some(file), domain) => {
            source = source.token(JoinToken::file(file));
            // Without the trust domain the CA alone decides which id the token stands for.
            if let Some(domain) = domain {
                let id = SpiffeId::workload(&domain, &ca.namespace, &ca.service_account);
                source = source.expect(id.map_err(|error| invalid(&error))?);
            }
        }
        (None, domain) => {
            let default = || TrustDomain::parse(DEFAULT_TRUST_DOMAIN).map_err(|error| invalid(&error));
            let domain = domain.map_or_else(default, Ok)?;
            source =
                source.claim(&domain, &ca.namespace, &ca.service_account).map_err(|error| invalid(&error))?;
        }
    }
    if let Some(lifetime) = ca.lifetime {
        source = source.lifetime(lifetime);
    }
    Ok(WorkloadIdentity::start(source))
}

/// How the CA is known: by its id if that is configured, else by the name of its address.
fn trust(ca: &MeshCa, server_id: Option<&SpiffeId>) -> Result<ServerTrust, String> {
    let Some(file) = &ca.ca_certificate_file else {
        return Err(
            "`ca_certificate_file` is needed to know the CA by (or `plaintext`, in development)".to_owned()
        );
    };
    let roots = Roots::from_file(file).map_err(|error| error.to_string())?;
    Ok(match server_id {
        None => ServerTrust::Roots(roots),
        Some(id) => {
            let bundle = TrustBundle::new(id.trust_domain().clone(), roots);
            ServerTrust::Bundles(TrustBundles::of(bundle), ServerCheck::exact(id.clone()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_xds::bootstrap::{ChannelCredentials, Node, ServerConfig};
    use std::time::Duration;

    fn bootstrap(provider: CertificateProvider) -> Bootstrap {
        let server = ServerConfig::new("127.0.0.1:15010", ChannelCredentials::Insecure).unwrap();
        Bootstrap::new(server, Node::default()).with_certificate_provider("default", provider)
    }

    fn mesh_ca() -> MeshCa {
        MeshCa {
            server_uri: None,
            ca_certificate_file: None,
            server_id: None,
            token_file: None,
            namespace: "default".into(),
            service_account: "reviews".into(),
            lifetime: None,
            plaintext: true,
        }
    }

    fn refused(provider: CertificateProvider) -> String {
        Providers::start(&bootstrap(provider)).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_development_ca_is_asked_at_the_address_of_the_control_plane() {
        let providers = Providers::start(&bootstrap(CertificateProvider::MeshCa(mesh_ca()))).unwrap();
        let origin = providers.identity(&"default".into()).unwrap().status().origin;
        assert!(origin.contains("127.0.0.1:15010"), "{origin}");
    }

    #[tokio::test]
    async fn a_ca_that_nothing_vouches_for_is_refused() {
        let why = refused(CertificateProvider::MeshCa(MeshCa { plaintext: false, ..mesh_ca() }));
        assert!(
            why.contains("certificate_providers.default") && why.contains("ca_certificate_file"),
            "{why}"
        );
        let missing =
            MeshCa { plaintext: false, ca_certificate_file: Some("/nowhere/root.pem".into()), ..mesh_ca() };
        assert!(refused(CertificateProvider::MeshCa(missing)).contains("/nowhere/root.pem"));
    }

    #[tokio::test]
    async fn names_that_make_no_spiffe_id_are_refused() {
        let why = refused(CertificateProvider::MeshCa(MeshCa { namespace: "a b".into(), ..mesh_ca() }));
        assert!(why.contains("namespace"), "{why}");
        let id = Some("https://cluster.local".to_owned());
        let why = refused(CertificateProvider::MeshCa(MeshCa { server_id: id, ..mesh_ca() }));
        assert!(why.contains("server_id"), "{why}");
    }

    #[tokio::test]
    async fn bundles_of_trust_domains_without_an_identity_are_refused() {
        let files = FileWatcher {
            identity: None,
            ca_certificate_file: None,
            crl_file: None,
            spiffe_trust_bundle_map_file: Some("bundles.json".into()),
            refresh_interval: Duration::from_secs(1),
        };
        let why = refused(CertificateProvider::FileWatcher(files));
        assert!(why.contains("`certificate_file`") && why.contains("`ca_certificate_file`"), "{why}");
    }
}
