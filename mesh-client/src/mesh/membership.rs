//! What the meshes of a process have together that join by the same: one ADS stream to each control plane (Istio's
//! agent ends the older of two), one client for tools that ask for its status, one count of a cluster's calls.
//!
//! It lives as long as a mesh, a channel or a server of it; the registry keeps nothing alive. Its tasks are a
//! runtime's, so that every runtime has its own, and one whose runtime has ended is never handed out.

use super::{DEFAULT_PROVIDER, MeshError, SUPPORT, connect::ControlPlaneConnector};
use crate::{
    cluster::breaker::Breakers,
    stack::ActiveFaults,
    tls::{Providers, check_secret},
};
use mesh_ca::{channel::Keepalive, workload::WorkloadIdentity};
use mesh_xds::{
    bootstrap::{Bootstrap, BootstrapError},
    client::{CacheSettings, ClientSettings, XdsClient},
    lrs::{LoadReporter, LoadStore},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::runtime;

/// Those of the process.
static ALIVE: Mutex<Vec<Weak<Membership>>> = Mutex::new(Vec::new());

/// All by which one client of control planes differs from another.
pub(super) struct Terms {
    pub(super) runtime: runtime::Id,
    /// Complete: with all that the node says of itself.
    pub(super) bootstrap: Arc<Bootstrap>,
    /// Certificate provider instances that the program gave; the bootstrap names them.
    pub(super) identities: BTreeMap<Arc<str>, WorkloadIdentity>,
    pub(super) keepalive: Keepalive,
    pub(super) cache: Option<CacheSettings>,
    pub(super) max_response_bytes: usize,
}

impl PartialEq for Terms {
    fn eq(&self, other: &Self) -> bool {
        let Self { runtime, bootstrap, identities, keepalive, cache, max_response_bytes } = self;
        let same = |(one, other): ((_, &WorkloadIdentity), (_, &WorkloadIdentity))| {
            one.1.is_same(other.1) && one.0 == other.0
        };
        *runtime == other.runtime
            && identities.len() == other.identities.len()
            && identities.iter().zip(&other.identities).all(same)
            && (keepalive, cache) == (&other.keepalive, &other.cache)
            && *max_response_bytes == other.max_response_bytes
            && *bootstrap == other.bootstrap
    }
}

/// What the meshes on the same terms share.
pub(super) struct Membership {
    terms: Terms,
    pub(super) xds: XdsClient,
    pub(super) reporter: LoadReporter,
    pub(super) loads: Arc<LoadStore>,
    pub(super) providers: Arc<Providers>,
    pub(super) connector: Arc<ControlPlaneConnector>,
    /// gRFC A32 counts over the whole process.
    pub(super) breakers: Arc<Breakers>,
    /// And so does A33.
    pub(super) faults: ActiveFaults,
}

impl Membership {
    /// The one of the process on these terms, begun if there is none.
    pub(super) fn of(terms: Terms) -> Result<Arc<Self>, MeshError> {
        // Held meanwhile, so that of two who join at once one begins it.
        let mut alive = ALIVE.lock().unwrap_or_else(PoisonError::into_inner);
        alive.retain(|one| one.strong_count() > 0);
        // Identifiers of runtimes may come again.
        let fits = |one: &Arc<Self>| one.terms == terms && one.xds.is_running();
        if let Some(one) = alive.iter().filter_map(Weak::upgrade).find(fits) {
            return Ok(one);
        }
        let new = Arc::new(Self::begin(terms)?);
        alive.push(Arc::downgrade(&new));
        Ok(new)
    }

    fn begin(terms: Terms) -> Result<Self, MeshError> {
        let bootstrap = &terms.bootstrap;
        let mut own = Bootstrap::clone(bootstrap);
        own.certificate_providers.retain(|instance, _| !terms.identities.contains_key(instance));
        let mut providers = Providers::start(&own)?;
        for (instance, identity) in &terms.identities {
            providers.insert(instance.clone(), identity.clone());
        }
        let identity = providers.identity(&DEFAULT_PROVIDER.into()).ok().cloned();
        let connector = Arc::new(ControlPlaneConnector::new(identity, terms.keepalive));
        if bootstrap.servers.is_empty() {
            let (origin, reason) = ("the bootstrap built in code".into(), "xds_servers is empty".into());
            return Err(BootstrapError::Invalid { origin, reason }.into());
        }
        // Now, and not at the first connection, a bootstrap that cannot be followed is an error.
        for server in
            bootstrap.servers.iter().chain(bootstrap.authorities.values().flat_map(|one| &one.servers))
        {
            connector
                .channel(server)
                .map_err(|reason| MeshError::ControlPlane { server: server.address.clone(), reason })?;
        }
        let settings = ClientSettings {
            support: SUPPORT,
            secrets: check_secret,
            cache: terms.cache.clone(),
            max_response_bytes: terms.max_response_bytes,
            ..ClientSettings::default()
        };
        let backoff = settings.backoff.clone();
        let loads = Arc::<LoadStore>::default();
        let xds = XdsClient::spawn_with(bootstrap, connector.clone(), settings);
        let reporter = LoadReporter::spawn(loads.clone(), &xds, connector.clone(), backoff);
        Ok(Self {
            xds,
            reporter,
            loads,
            providers: Arc::new(providers),
            connector,
            breakers: Arc::default(),
            faults: ActiveFaults::new(),
            terms,
        })
    }

    pub(super) fn bootstrap(&self) -> &Arc<Bootstrap> {
        &self.terms.bootstrap
    }
}
