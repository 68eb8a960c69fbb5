//! What a control plane is started with; the command line fills it.

use mesh_ca::spiffe_id::TrustDomain;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// How a control plane runs. Start from [`Settings::run`] or [`Settings::dev`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Directory of YAML, watched.
    pub config: PathBuf,
    /// Where the root key, join tokens and the known workloads are kept; absent: nowhere, all is lost at
    /// the end.
    pub data: Option<PathBuf>,
    /// Whose identities it issues and believes.
    pub trust_domain: TrustDomain,
    /// Further names of the trust domain, as others may write it in policies and certificates' names.
    pub trust_domain_aliases: Vec<String>,
    /// DNS domain of services: `reviews.default.svc.<domain>`.
    pub domain: String,
    /// Namespace whose policies are for the whole mesh.
    pub root_namespace: String,
    /// ADS, CA and registration over TLS.
    pub xds: Option<SocketAddr>,
    /// The same in plaintext, for whom nobody is anybody.
    pub xds_plaintext: Option<SocketAddr>,
    /// Health, metrics and debugging.
    pub http: Option<SocketAddr>,
    /// Lifetime of certificates whose request names none.
    pub certificate_lifetime: Duration,
    /// DNS names and addresses by which clients reach it, besides those it listens on.
    pub server_names: Vec<String>,
    /// The CA and the registry believe whoever connects from this machine (development).
    pub believe_loopback: bool,
    /// How often clients report what their calls did; absent: they are not asked to.
    pub load_report_interval: Option<Duration>,
    /// A client's connection is asked to end after this, give or take a tenth, so that clients spread over replicas; its
    /// streams end soon after. Absent: never.
    pub max_connection_age: Option<Duration>,
    /// Connections of clients at once; an address gets another one only while it has less than three times as many as are
    /// free. Absent: 20,000. Never more than this process may have files open.
    pub max_connections: Option<usize>,
    /// Bytes that each gRPC port keeps of what clients say of themselves and subscribe to. Absent: 3 GiB.
    pub max_kept_bytes: Option<usize>,
    /// Bytes of responses that the connections of each gRPC port may hold for clients that do not read. Absent: 1 GiB.
    pub max_unsent_bytes: Option<usize>,
    /// How long workloads known from before a restart are kept without coming back.
    pub workload_grace: Duration,
}

impl Settings {
    /// `mesh-server run`: Istio's ports on loopback, state in `data`.
    pub fn run(config: impl Into<PathBuf>, data: Option<PathBuf>, trust_domain: TrustDomain) -> Self {
        Self {
            config: config.into(),
            data,
            trust_domain,
            trust_domain_aliases: Vec::new(),
            domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            xds: Some(loopback(15012)),
            xds_plaintext: Some(loopback(15010)),
            http: Some(loopback(15014)),
            certificate_lifetime: Duration::from_secs(24 * 60 * 60),
            server_names: Vec::new(),
            believe_loopback: false,
            load_report_interval: Some(Duration::from_secs(10)),
            max_connection_age: Some(Duration::from_secs(30 * 60)),
            max_connections: None,
            max_kept_bytes: None,
            max_unsent_bytes: None,
            workload_grace: Duration::from_secs(60),
        }
    }

    /// `mesh-server dev`: plaintext on loopback, identities for whoever asks there, nothing kept.
    pub fn dev(config: impl Into<PathBuf>, trust_domain: TrustDomain) -> Self {
        Self { xds: None, believe_loopback: true, ..Self::run(config, None, trust_domain) }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
