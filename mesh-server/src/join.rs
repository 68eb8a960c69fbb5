//! How a workload joins: its bootstrap, as gRPC's environment variable `GRPC_XDS_BOOTSTRAP` names it.
//!
//! Node id and metadata are Istio's, so that an Istio control plane would understand them too. One file
//! serves every gRPC implementation; `mesh-client` also gets its certificates from the CA by itself, the
//! others read them from files.

use mesh_xds::{
    bootstrap::{
        Bootstrap, CertificateProvider, ChannelCredentials, FileWatcher, InvalidServerUri, MeshCa, Node,
        ServerConfig,
    },
    resource::Locality,
};
use serde_json::{Map, json};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// A workload that is to join. Start from [`Join::new`] and set what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Join {
    /// `host:port` of the control plane.
    pub server: String,
    /// How it is reached and where certificates come from.
    pub security: Security,
    /// Unique in its namespace.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it runs.
    pub locality: Locality,
    /// Its address, informational.
    pub address: String,
    /// DNS domain of services.
    pub domain: String,
    /// Ask for the incremental variant of ADS, which `mesh-server` speaks. The default; `mesh-client` does, and other
    /// gRPCs, which do not know the word (`xds_delta`), ask for the state of the world.
    pub delta: bool,
}

/// How the control plane is reached and where certificates come from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Security {
    /// No TLS towards the control plane, no certificates.
    Plaintext,
    /// `mesh-server dev`: no TLS towards the control plane, certificates for the asking.
    Development,
    /// TLS, and certificates from the CA, first with a join token.
    Token {
        /// The root certificate of the mesh.
        roots: PathBuf,
        /// The join token; absent when something else identifies the workload.
        token: Option<PathBuf>,
        /// Wanted lifetime of certificates.
        lifetime: Option<Duration>,
    },
    /// TLS, and certificates from files that somebody else renews.
    Files {
        /// The root certificate of the mesh.
        roots: PathBuf,
        /// Own chain.
        certificate: PathBuf,
        /// Own key.
        key: PathBuf,
    },
    /// No TLS towards the control plane, and certificates from files.
    PlaintextWithFiles {
        /// The root certificate of the mesh.
        roots: PathBuf,
        /// Own chain.
        certificate: PathBuf,
        /// Own key.
        key: PathBuf,
    },
}

/// Between two looks at certificate files.
const REFRESH: Duration = Duration::from_secs(60);

impl Join {
    /// Workload `workload` in namespace and service account `default`.
    pub fn new(server: impl Into<String>, workload: impl Into<String>, security: Security) -> Self {
        Self {
            server: server.into(),
            security,
            workload: workload.into(),
            namespace: "default".to_owned(),
            service_account: "default".to_owned(),
            labels: BTreeMap::new(),
            locality: Locality::default(),
            address: "127.0.0.1".to_owned(),
            domain: "cluster.local".to_owned(),
            delta: true,
        }
    }

    /// The bootstrap. The error is about `server`.
    pub fn bootstrap(&self) -> Result<Bootstrap, InvalidServerUri> {
        let (credentials, provider) = self.security();
        let mut server = ServerConfig::new(&self.server, credentials)?;
        server.features.delta = self.delta;
        // It may rewrite authorities (gRFC A81), as a VirtualService can ask for.
        server.features.trusted_xds_server = true;
        let mut bootstrap = Bootstrap::new(server, self.node());
        if let Some(provider) = provider {
            bootstrap = bootstrap.with_certificate_provider("default", provider);
        }
        Ok(bootstrap)
    }

    fn node(&self) -> Node {
        let Self { workload, namespace, service_account, labels, address, domain, .. } = self;
        let mut metadata = Map::new();
        metadata.insert("NAMESPACE".into(), json!(namespace));
        metadata.insert("SERVICE_ACCOUNT".into(), json!(service_account));
        metadata.insert("WORKLOAD_NAME".into(), json!(workload));
        metadata.insert("LABELS".into(), json!(labels));
        // Istio's control plane serves gRPC clients by this.
        metadata.insert("GENERATOR".into(), json!("grpc"));
        Node {
            id: format!("sidecar~{address}~{workload}.{namespace}~{namespace}.svc.{domain}"),
            cluster: format!("{workload}.{namespace}"),
            metadata,
            locality: self.locality.clone(),
        }
    }

    fn security(&self) -> (ChannelCredentials, Option<CertificateProvider>) {
        let ca = |roots: Option<&PathBuf>, token: Option<&PathBuf>, lifetime| {
            CertificateProvider::MeshCa(MeshCa {
                server_uri: None,
                ca_certificate_file: roots.cloned(),
                server_id: None,
                token_file: token.cloned(),
                namespace: self.namespace.clone(),
                service_account: self.service_account.clone(),
                lifetime,
                plaintext: roots.is_none(),
            })
        };
        let files = |certificate: &PathBuf, key: &PathBuf, roots: &PathBuf| {
            CertificateProvider::FileWatcher(FileWatcher {
                identity: Some((certificate.clone(), key.clone())),
                ca_certificate_file: Some(roots.clone()),
                crl_file: None,
                spiffe_trust_bundle_map_file: None,
                refresh_interval: REFRESH,
            })
        };
        let tls = |roots: &PathBuf, identity| ChannelCredentials::Tls {
            ca_certificate_file: Some(roots.clone()),
            spiffe_trust_bundle_map_file: None,
            identity,
            refresh_interval: REFRESH,
        };
        match &self.security {
            Security::Plaintext => (ChannelCredentials::Insecure, None),
            Security::Development => (ChannelCredentials::Insecure, Some(ca(None, None, None))),
            Security::Token { roots, token, lifetime } => {
                (tls(roots, None), Some(ca(Some(roots), token.as_ref(), *lifetime)))
            }
            Security::Files { roots, certificate, key } => {
                (tls(roots, Some((certificate.clone(), key.clone()))), Some(files(certificate, key, roots)))
            }
            Security::PlaintextWithFiles { roots, certificate, key } => {
                (ChannelCredentials::Insecure, Some(files(certificate, key, roots)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrap_reads_back_and_says_who_the_workload_is() {
        let security = Security::Token {
            roots: "/roots.pem".into(),
            token: Some("/token".into()),
            lifetime: Some(Duration::from_secs(3)),
        };
        let mut join = Join::new("127.0.0.1:15012", "reviews-v1", security);
        join.labels.insert("app".into(), "reviews".into());
        let bootstrap = join.bootstrap().unwrap();
        let read = Bootstrap::from_json(&bootstrap.to_json().to_string(), "test").unwrap();
        assert_eq!(read, bootstrap);
        assert_eq!(read.node.id, "sidecar~127.0.0.1~reviews-v1.default~default.svc.cluster.local");
        assert_eq!(read.node.metadata["LABELS"]["app"], "reviews");
        let Some(CertificateProvider::MeshCa(ca)) = read.certificate_providers.get("default") else {
            panic!("no CA")
        };
        assert_eq!(ca.token_file, Some("/token".into()));
        assert!(!ca.plaintext);
    }

    #[test]
    fn development_needs_no_file_at_all() {
        let json = Join::new("127.0.0.1:15010", "w", Security::Development).bootstrap().unwrap().to_json();
        assert_eq!(json["xds_servers"][0]["channel_creds"][0]["type"], "insecure");
        assert_eq!(json["certificate_providers"]["default"]["config"]["plaintext"], true);
    }

    #[test]
    fn the_incremental_variant_is_asked_for_unless_it_is_declined() {
        let mut join = Join::new("127.0.0.1:15010", "w", Security::Development);
        let features =
            |join: &Join| join.bootstrap().unwrap().to_json()["xds_servers"][0]["server_features"].clone();
        let has_delta = |join: &Join| features(join).as_array().unwrap().contains(&json!("xds_delta"));
        assert!(has_delta(&join));
        join.delta = false;
        assert!(!has_delta(&join));
    }

    #[test]
    fn a_server_without_a_port_is_refused() {
        assert!(Join::new("127.0.0.1", "w", Security::Plaintext).bootstrap().is_err());
    }
}
