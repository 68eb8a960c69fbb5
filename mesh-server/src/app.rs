//! A whole control plane in one value: the watched directory, the authority, the ports, their end.
//!
//! Everything that can fail at the start fails in [`App::start`], with a message that says what to do.
//! A broken object does not: what is good is served and what is bad is reported, unless nothing is good, or
//! it cannot even be said what is broken: it may be a security policy.

pub(crate) mod connection;
mod error;
mod metrics;
mod ports;

use crate::{
    analysis::Severity,
    compile::Mesh,
    csds::{self, Everybody},
    model::MeshSettings,
    peers::{Door, most_connections},
    publish::{AnonymousPeers, Peer, Publisher, Served},
    registration::{Registry, WorkloadFile},
    settings::Settings,
    source::{Directory, Loaded},
};
use connection::Ages;
pub use error::StartError;
use mesh_ca::{
    issuer::{
        Attestors, Authority, CertificateAttestor, CertificateService, JoinTokenAttestor, JoinTokens,
        LoopbackAttestor, Policy, ServerNames,
    },
    rustls::{ClientAuth, default_provider, server_config},
    workload::WorkloadIdentity,
};
use mesh_xds::{
    lrs::{LoadReportService, LoadReportSettings, Reporting},
    server::{AdsService, AdsSettings, Places},
};
pub(crate) use metrics::{Gauges, Metrics};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// How long connections may take to end at shutdown.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// How long the own certificate may take at the start.
const OWN_CERTIFICATE: Duration = Duration::from_secs(10);

/// The control plane.
#[derive(Debug)]
pub struct App;

/// Where it listens, after port 0 has become a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// ADS, CA and registration over TLS.
    pub xds: Option<SocketAddr>,
    /// The same in plaintext.
    pub xds_plaintext: Option<SocketAddr>,
    /// Health, metrics and debugging.
    pub http: Option<SocketAddr>,
}

/// A control plane that runs until it is shut down or dropped.
pub struct Running {
    addresses: Addresses,
    authority: Arc<Authority>,
    tokens: JoinTokens,
    publisher: Publisher,
    ads: Vec<AdsService<Served>>,
    registry: Registry,
    load: Option<LoadReportService>,
    stop: watch::Sender<bool>,
    /// They end when told to.
    servers: JoinSet<()>,
    /// They end with this.
    tasks: JoinSet<()>,
    _directory: Arc<Directory>,
    _identity: Option<WorkloadIdentity>,
}

/// What the HTTP port shows.
#[derive(Clone)]
pub(crate) struct Status {
    pub(crate) publisher: Publisher,
    pub(crate) ads: Vec<AdsService<Served>>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) load: Option<LoadReportService>,
    pub(crate) metrics: Metrics,
    pub(crate) loaded: watch::Receiver<Arc<Loaded>>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) directory: Arc<Directory>,
}

impl App {
    /// Starts a control plane; it serves when this returns. Must be called within a tokio runtime.
    pub async fn start(settings: Settings) -> Result<Running, StartError> {
        let mesh_settings = Arc::new(MeshSettings {
            domain: settings.domain.clone(),
            root_namespace: settings.root_namespace.clone(),
        });
        let directory = Arc::new(Directory::watch(&settings.config, mesh_settings)?);
        let mut loaded = directory.loaded();
        let first = loaded.borrow_and_update().clone();
        refuse_unsafe(&settings.config, &first)?;
        let mesh = Mesh {
            trust_domain: settings.trust_domain.to_string(),
            trust_domain_aliases: settings.trust_domain_aliases.clone(),
            load_reports: settings.load_report_interval.is_some(),
        };
        let publisher = Publisher::new(mesh, &first);
        let (authority, tokens) = authority(&settings)?;
        let registry = Registry::new(publisher.clone());
        let metrics = Metrics::default();
        let load = settings
            .load_report_interval
            .map(|interval| LoadReportService::new(LoadReportSettings { interval, ..Default::default() }));
        let load = load.map(|load| {
            let publisher = publisher.clone();
            load.knowing(Arc::new(move |cluster| publisher.current().has_cluster(cluster)))
        });

        let tls = bind("--xds", settings.xds).await?;
        let plaintext = bind("--xds-plaintext", settings.xds_plaintext).await?;
        let http = bind("--http", settings.http).await?;
        let address =
            |listener: &Option<TcpListener>| listener.as_ref().and_then(|one| one.local_addr().ok());
        let addresses =
            Addresses { xds: address(&tls), xds_plaintext: address(&plaintext), http: address(&http) };

        let (stop, stopped) = watch::channel(false);
        let mut running = Running {
            addresses,
            authority: authority.clone(),
            tokens: tokens.clone(),
            publisher: publisher.clone(),
            ads: Vec::new(),
            registry: registry.clone(),
            load: load.clone(),
            stop,
            servers: JoinSet::new(),
            tasks: JoinSet::new(),
            _directory: directory.clone(),
            _identity: None,
        };
        running.keep_workloads(&settings);

        let mut attestors = Attestors::none()
            .and(CertificateAttestor::new(settings.trust_domain.clone(), authority.clock().clone()));
        if settings.believe_loopback {
            attestors = attestors.and(LoopbackAttestor::new(settings.trust_domain.clone()));
        }
        let attestors = attestors.and(JoinTokenAttestor::new(tokens));
        let certificates = CertificateService::new(authority.clone(), attestors);
        let everybody = Everybody::default();
        let ages = Ages::new(settings.max_connection_age);
        let places = Places::new(most_connections(settings.max_connections));
        for (listener, anonymous) in [(tls, AnonymousPeers::Refused), (plaintext, AnonymousPeers::Admitted)] {
            let Some(listener) = listener else { continue };
            let config = match anonymous {
                AnonymousPeers::Admitted => None,
                AnonymousPeers::Refused => {
                    let identity = authority.server_identity(server_names(&settings, addresses.xds));
                    identity.ready_within(OWN_CERTIFICATE).await?;
                    let config =
                        server_config(&identity, ClientAuth::Optional, &[b"h2"], default_provider())?;
                    running._identity = Some(identity);
                    Some(config)
                }
            };
            let clock = authority.clock().clone();
            let served =
                Served::new(publisher.clone(), settings.trust_domain.clone(), clock.clone(), anonymous);
            // Streams end with their connection, and so lead elsewhere; a new one on the same leads nowhere.
            let ads = AdsService::new(Arc::new(served), ads_settings(&settings));
            running.tasks.spawn(metrics.clone().count(ads.events()));
            running.ads.push(ads.clone());
            everybody.add(ads.clone());
            let caller = csds::Door {
                trust_domain: settings.trust_domain.clone(),
                clock: clock.clone(),
                anonymous,
                root_namespace: settings.root_namespace.clone(),
            };
            // Whoever is believed may also register.
            let registrants = if settings.believe_loopback { anonymous } else { AnonymousPeers::Refused };
            let (domain, time) = (settings.trust_domain.clone(), clock.clone());
            let load = load.as_ref().map(|load| {
                load.admitting(Arc::new(move |extensions| {
                    let peer = Peer::of(extensions, &domain, &time, anonymous)?;
                    Ok(Reporting { account: peer.account(), lifetime: peer.lifetime(&time) })
                }))
            });
            let services = ports::Services {
                load,
                ads,
                certificates: metrics.counting(certificates.clone()),
                registration: registry.service(settings.trust_domain.clone(), clock, registrants),
                csds: csds::service(everybody.clone(), caller),
            };
            let door = Door::new(listener, config, places.clone());
            running.servers.spawn(ports::serve_grpc(door, services, ages, stopped.clone()));
        }
        let status = Status {
            publisher: publisher.clone(),
            ads: running.ads.clone(),
            authority,
            load,
            metrics: metrics.clone(),
            loaded: loaded.clone(),
            stop: stopped.clone(),
            directory,
        };
        if let Some(listener) = http {
            let door = Door::new(listener, None, Places::new(ports::HTTP_CONNECTIONS));
            running.servers.spawn(ports::serve_http(door, crate::admin::router(status), stopped));
        }
        running.tasks.spawn(async move {
            while loaded.changed().await.is_ok() {
                let next = loaded.borrow_and_update().clone();
                let snapshot = publisher.set_config(&next);
                metrics.reloaded();
                tracing::info!(revision = %snapshot.revision, "configuration published");
            }
        });
        Ok(running)
    }
}

impl Running {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The authority, for whoever runs in the same process.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// The join tokens that it takes.
    pub fn tokens(&self) -> &JoinTokens {
        &self.tokens
    }

    /// What clients reported of their calls; absent when they are not asked to.
    pub fn load(&self) -> Option<&LoadReportService> {
        self.load.as_ref()
    }

    /// What it serves.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Ends every stream, then everything else. Clients keep what they have.
    pub async fn shutdown(mut self) {
        // Streams first: a server waits for them.
        self.registry.close();
        self.ads.iter().for_each(AdsService::close);
        self.load.iter().for_each(LoadReportService::close);
        self.stop.send_replace(true);
        let ended = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN, ended).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }

    /// Returns when a port has ended by itself, which none should.
    pub async fn failed(&mut self) {
        if self.servers.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    fn keep_workloads(&mut self, settings: &Settings) {
        let Some(data) = &settings.data else { return };
        let file = WorkloadFile::of(data);
        self.registry.restore(file.read());
        let (registry, grace) = (self.registry.clone(), settings.workload_grace);
        self.tasks.spawn(async move {
            tokio::time::sleep(grace).await;
            registry.drop_unclaimed();
        });
        self.tasks.spawn(self.registry.clone().keep(file));
    }
}

/// The authority and its tokens, on disk or in memory.
fn authority(settings: &Settings) -> Result<(Arc<Authority>, JoinTokens), StartError> {
    let policy = Policy { default_lifetime: settings.certificate_lifetime, ..Policy::default() };
    let clock = mesh_ca::clock::Clock::system();
    let trust_domain = &settings.trust_domain;
    Ok(match &settings.data {
        Some(data) => (
            Arc::new(Authority::load_or_create_with(&ca_directory(data), trust_domain, policy, clock)?),
            JoinTokens::in_directory(&token_directory(data))?,
        ),
        None => (Arc::new(Authority::in_memory_with(trust_domain, policy, clock)?), JoinTokens::in_memory()),
    })
}

/// Where the root key and certificate are, in a data directory.
pub fn ca_directory(data: &Path) -> PathBuf {
    data.join("ca")
}

/// The root certificate, in a data directory: what workloads verify the control plane with.
pub fn root_certificate(data: &Path) -> PathBuf {
    ca_directory(data).join("root-cert.pem")
}

/// Where join tokens are, in a data directory.
pub fn token_directory(data: &Path) -> PathBuf {
    data.join("tokens")
}

/// Errors and not one object: nothing could be served, so nobody should believe that it is. Incomplete:
/// nothing was served yet, so there is nothing to keep serving, and less than everything may be too open.
fn refuse_unsafe(directory: &Path, loaded: &Loaded) -> Result<(), StartError> {
    let errors = loaded.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let findings: Vec<_> = errors.map(|finding| crate::analysis::render(finding, false)).collect();
    let directory = directory.to_owned();
    if !findings.is_empty() && loaded.config.objects().is_empty() {
        return Err(StartError::NothingToServe { directory, findings });
    }
    if loaded.incomplete {
        return Err(StartError::Incomplete { directory, findings });
    }
    Ok(())
}

async fn bind(flag: &'static str, address: Option<SocketAddr>) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(cause) => Err(StartError::Bind { flag, address, cause }),
    }
}

/// The names that clients may reach the TLS port by.
fn server_names(settings: &Settings, address: Option<SocketAddr>) -> ServerNames {
    let mut names = ServerNames {
        dns: vec![
            "localhost".to_owned(),
            "mesh-server".to_owned(),
            format!("mesh-server.mesh-system.svc.{}", settings.domain),
        ],
        ips: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
    };
    names
        .ips
        .extend(address.map(|address| address.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback()));
    for name in &settings.server_names {
        match name.parse::<IpAddr>() {
            Ok(ip) => names.ips.push(ip),
            Err(_) => names.dns.push(name.clone()),
        }
    }
    names
}

/// Connections have an age; streams need none.
fn ads_settings(settings: &Settings) -> AdsSettings {
    let default = AdsSettings::default();
    AdsSettings {
        max_age: None,
        max_kept_bytes: settings.max_kept_bytes.unwrap_or(default.max_kept_bytes),
        max_unsent_bytes: settings.max_unsent_bytes.unwrap_or(default.max_unsent_bytes),
        ..default
    }
}

#[cfg(test)]
mod tests;
