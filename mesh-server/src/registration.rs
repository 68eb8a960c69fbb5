//! `mesh.v1.WorkloadRegistration`: servers tell where they listen, for as long as their stream lives.
//!
//! Istio's WorkloadGroup auto-registration without an agent: namespace and service account must be those
//! of the verified identity; a group that is named must exist, agree on the service account, and lends its
//! labels, ports, locality and weight. The endpoint goes the moment the stream ends.

mod store;

use crate::{
    model::{Health, Locality, Model, RegisteredWorkload, is_dns_label, is_label_key, is_label_value},
    proto::registration::{
        self as proto, RegisterRequest, RegisterResponse,
        workload_registration_server::{WorkloadRegistration, WorkloadRegistrationServer},
    },
    publish::{AnonymousPeers, Peer, Publisher},
};
use futures_util::{Stream, stream};
use mesh_ca::{clock::Clock, spiffe_id::TrustDomain};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
pub use store::WorkloadFile;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

/// Istio's mark of a workload that speaks the mesh's mTLS.
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Bytes of a request; honest ones have some hundreds.
const LARGEST_REQUEST: usize = 64 << 10;

/// Which stream speaks for an entry, by namespace and name.
type Owners = HashMap<(String, String), u64>;

/// The registry of live workloads. One for all ports; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    publisher: Publisher,
    owners: Arc<Mutex<(u64, Owners)>>,
    closing: watch::Sender<bool>,
}

impl Registry {
    /// A registry that publishes to `publisher`.
    pub fn new(publisher: Publisher) -> Self {
        Self { publisher, owners: Arc::default(), closing: watch::Sender::new(false) }
    }

    /// Ends every stream and refuses new ones, but keeps the endpoints: the workloads are still there, it
    /// is this control plane that goes.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Publishes workloads known from before a restart; nobody speaks for them yet.
    pub fn restore(&self, workloads: Vec<RegisteredWorkload>) {
        for workload in workloads {
            self.publisher.add_workload(workload);
        }
    }

    /// Drops the workloads that nobody speaks for: those that did not come back.
    pub fn drop_unclaimed(&self) {
        let owners = self.owners();
        let current = self.publisher.current();
        for workload in current.model.workloads.iter() {
            let key = (workload.namespace.clone(), workload.name.clone());
            if !owners.1.contains_key(&key) {
                tracing::info!(namespace = key.0, name = key.1, "workload did not come back");
                self.publisher.remove_workload(&key.0, &key.1);
            }
        }
    }

    /// Keeps `file` up to date, until the publisher is gone.
    pub async fn keep(self, file: WorkloadFile) {
        let mut changes = self.publisher.changes();
        let mut written: Option<Arc<crate::model::Workloads>> = None;
        loop {
            let workloads = self.publisher.current().model.workloads.clone();
            if written.as_ref().is_none_or(|written| !Arc::ptr_eq(written, &workloads)) {
                let (file, saved) = (file.clone(), workloads.clone());
                let done = tokio::task::spawn_blocking(move || file.write(&saved)).await;
                match done {
                    Ok(Ok(())) => written = Some(workloads),
                    Ok(Err(error)) => tracing::error!(%error, "the known workloads cannot be kept on disk"),
                    Err(error) => tracing::error!(%error, "the known workloads cannot be kept on disk"),
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The service of one port.
    pub fn service(
        &self,
        trust_domain: TrustDomain,
        clock: Clock,
        anonymous: AnonymousPeers,
    ) -> WorkloadRegistrationServer<RegistrationService> {
        let service = RegistrationService { registry: self.clone(), trust_domain, clock, anonymous };
        WorkloadRegistrationServer::new(service).max_decoding_message_size(LARGEST_REQUEST)
    }

    fn owners(&self) -> MutexGuard<'_, (u64, Owners)> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry's name as `stream`'s own. A stream that comes back takes over its earlier entry; another
    /// process at the same address (replicas on one machine) gets a name with its port.
    fn claim(&self, workload: &mut RegisteredWorkload, stream: u64) {
        let mut owners = self.owners();
        let key = |name: &str| (workload.namespace.clone(), name.to_owned());
        let current = self.publisher.current();
        let other = current.model.workloads.find(&workload.namespace, &workload.name).is_some_and(|held| {
            owners.1.get(&key(&workload.name)).is_some_and(|owner| *owner != stream)
                && held.ports != workload.ports
        });
        if other && let Some(port) = workload.ports.values().min() {
            workload.name = format!("{}-{port}", workload.name);
        }
        let key = (workload.namespace.clone(), workload.name.clone());
        owners.1.insert(key, stream);
    }
}

/// The service of one port.
pub struct RegistrationService {
    registry: Registry,
    trust_domain: TrustDomain,
    clock: Clock,
    anonymous: AnonymousPeers,
}

#[tonic::async_trait]
impl WorkloadRegistration for RegistrationService {
    type RegisterStream = Pin<Box<dyn Stream<Item = Result<RegisterResponse, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<Streaming<RegisterRequest>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let peer = Peer::of(request.extensions(), &self.trust_domain, &self.clock, self.anonymous)?;
        if peer.identity.is_none()
            && !peer.address.is_some_and(|address| address.ip().to_canonical().is_loopback())
        {
            return Err(Status::unauthenticated(
                "a workload without a certificate can register from this machine only; use the TLS port",
            ));
        }
        if *self.registry.closing.borrow() {
            return Err(shutting_down());
        }
        let stream = {
            let mut owners = self.registry.owners();
            owners.0 += 1;
            owners.0
        };
        let session = Session {
            registry: self.registry.clone(),
            closing: self.registry.closing.subscribe(),
            peer,
            stream,
            entry: None,
            requests: request.into_inner(),
        };
        let responses = stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            match session.next().await {
                Ok(Some(response)) => Some((Ok(response), Some(session))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the control plane is shutting down")
}

/// One stream. Its entry ends with it, however it ends.
struct Session {
    registry: Registry,
    closing: watch::Receiver<bool>,
    peer: Peer,
    stream: u64,
    entry: Option<RegisteredWorkload>,
    requests: Streaming<RegisterRequest>,
}

impl Session {
    async fn next(&mut self) -> Result<Option<RegisterResponse>, Status> {
        let request = tokio::select! {
            request = self.requests.message() => request?,
            // An error means that the registry is gone, which ends the stream as well.
            _ = self.closing.wait_for(|closing| *closing) => return Err(shutting_down()),
        };
        let Some(request) = request else { return Ok(None) };
        let publisher = self.registry.publisher.clone();
        let health = health(request.health)?;
        let workload =
            match request.workload {
                Some(workload) => {
                    let mut parsed = parse(&workload, &self.peer, &publisher.current().model)?;
                    self.registry.claim(&mut parsed, self.stream);
                    if self.entry.as_ref().is_some_and(|entry| {
                        (&entry.namespace, &entry.name) != (&parsed.namespace, &parsed.name)
                    }) {
                        self.leave();
                    }
                    RegisteredWorkload { health, ..parsed }
                }
                None => {
                    let entry = self
                        .entry
                        .clone()
                        .ok_or_else(|| Status::invalid_argument("the first request must carry `workload`"))?;
                    RegisteredWorkload { health, ..entry }
                }
            };
        self.entry = Some(workload.clone());
        let name = workload.name.clone();
        tracing::info!(
            namespace = workload.namespace,
            name,
            address = %workload.address,
            ?health,
            peer = ?self.peer.identity,
            "workload registered"
        );
        let snapshot = publisher.add_workload(workload);
        Ok(Some(RegisterResponse { workload_entry: name, revision: snapshot.revision.to_string() }))
    }

    /// Removes the entry, unless a newer stream speaks for it.
    fn leave(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        let key = (entry.namespace, entry.name);
        let mut owners = self.registry.owners();
        if owners.1.get(&key) != Some(&self.stream) {
            return;
        }
        owners.1.remove(&key);
        tracing::info!(namespace = key.0, name = key.1, "workload left");
        self.registry.publisher.remove_workload(&key.0, &key.1);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !*self.registry.closing.borrow() {
            self.leave();
        }
    }
}

fn health(value: i32) -> Result<Health, Status> {
    match proto::Health::try_from(value) {
        Ok(proto::Health::Healthy) => Ok(Health::Healthy),
        Ok(proto::Health::Unhealthy) => Ok(Health::Unhealthy),
        Ok(proto::Health::Draining) => Ok(Health::Draining),
        Err(_) => Err(Status::invalid_argument(format!("health {value} is not one this version knows"))),
    }
}

/// Reads a workload, with what its group lends it.
fn parse(said: &proto::Workload, peer: &Peer, model: &Model) -> Result<RegisteredWorkload, Status> {
    let invalid = |text: String| Status::invalid_argument(format!("workload {:?}: {text}", said.name));
    peer.may_be(Some(&said.namespace), Some(&said.service_account))?;
    let own = |said: &str, verified: Option<&str>, default: &str| match (said, verified) {
        ("", Some(verified)) => verified.to_owned(),
        ("", None) => default.to_owned(),
        (said, _) => said.to_owned(),
    };
    let identity = peer.identity.as_ref();
    let namespace = own(&said.namespace, identity.and_then(|id| id.namespace()), "default");
    let service_account = own(&said.service_account, identity.and_then(|id| id.service_account()), "default");
    if !is_dns_label(&namespace) {
        return Err(invalid(format!("{namespace:?} is not a namespace")));
    }
    let address: IpAddr = said
        .address
        .parse()
        .map_err(|_| invalid(format!("address {:?} is not a literal IP address", said.address)))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(invalid(format!("address {address} is not one that clients can connect to")));
    }
    let group = match said.group.as_str() {
        "" => None,
        name => Some(model.config.workload_group(&namespace, name).ok_or_else(|| {
            Status::failed_precondition(format!(
                "workload {:?}: WorkloadGroup {namespace}/{name} does not exist; apply it, or register without a group",
                said.name
            ))
        })?),
    };
    if let Some(wanted) = group.and_then(|group| group.service_account.as_ref())
        && *wanted != service_account
    {
        return Err(Status::permission_denied(format!(
            "workload {:?}: WorkloadGroup {namespace}/{} is for service account {wanted}, not {service_account}",
            said.name, said.group
        )));
    }
    let base = if said.group.is_empty() { &said.name } else { &said.group };
    if !is_dns_label(base) {
        return Err(invalid("it needs a name (a DNS label), or a group".to_owned()));
    }
    let mut ports: BTreeMap<String, u16> = group.map(|group| group.ports.clone()).unwrap_or_default();
    for (name, port) in &said.ports {
        let port = u16::try_from(*port).ok().filter(|port| *port > 0);
        ports.insert(
            name.clone(),
            port.ok_or_else(|| invalid(format!("port {name:?} is not one: 1 to 65535 are")))?,
        );
    }
    if ports.is_empty() {
        return Err(invalid("it names no port".to_owned()));
    }
    let mut labels = group.map(|group| group.labels.clone()).unwrap_or_default();
    for (key, value) in &said.labels {
        if !is_label_key(key) || !is_label_value(value) {
            return Err(invalid(format!("{key:?}: {value:?} is not a label")));
        }
        labels.insert(key.clone(), value.clone());
    }
    // Who proved its identity has the certificate to serve with.
    if identity.is_some() {
        labels.entry(TLS_MODE.to_owned()).or_insert_with(|| "istio".to_owned());
    }
    let locality = match said.locality.as_str() {
        "" => group.map(|group| group.locality.clone()).unwrap_or_default(),
        text => Locality::parse(text),
    };
    let weight = match said.weight {
        0 => group.map_or(1, |group| group.weight),
        weight => weight,
    };
    Ok(RegisteredWorkload {
        name: format!("{base}-{}", address.to_string().replace(':', "-")),
        namespace,
        service_account,
        address,
        ports,
        labels,
        locality,
        weight,
        health: Health::Healthy,
        group: (!said.group.is_empty()).then(|| said.group.clone()),
    })
}
