//! `mesh.v1.WorkloadRegistration`: servers tell where they listen, for as long as their stream lives.
//!
//! Istio's WorkloadGroup auto-registration without an agent: namespace and service account must be those
//! of the verified identity; a group that is named must exist, agree on the service account, and lends its
//! labels, ports, locality and weight. The endpoint goes the moment the stream ends.
//!
//! Without a certificate nobody registers, but in development, from this machine. An entry, once taken,
//! is only for who it was made for: the same identity, service account and ports.

mod owners;
mod pace;
mod read;
mod store;

use crate::{
    model::{Health, RegisteredWorkload, Workloads},
    peers::Grace,
    proto::registration::{
        self as proto, RegisterRequest, RegisterResponse,
        workload_registration_server::{WorkloadRegistration, WorkloadRegistrationServer},
    },
    publish::{AnonymousPeers, Peer, Publisher, Snapshot},
};
use mesh_ca::{
    clock::Clock,
    spiffe_id::{SpiffeId, TrustDomain},
};
use mesh_xds::server::{Bucket, Full, Place, Places};
use owners::{End, Owner, Speaker, TooMany};
use pace::Pace;
use read::{health, parse};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
pub use store::WorkloadFile;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of a request; honest ones have some hundreds.
const LARGEST_REQUEST: usize = 64 << 10;

/// Requests of a stream at once; each is a revision of the whole mesh …
const REQUESTS: u32 = 20;
/// … and how many more each second.
const REQUESTS_PER_SECOND: u32 = 5;
/// How long an entry stays whose stream ended with its certificate, or with the age of its connection: the workload is
/// there, and comes back; as far as its account's pace lets it.
const RENEWAL: Duration = Duration::from_secs(10).saturating_add(pace::LONGEST);
/// Streams at once.
const STREAMS: usize = 20_000;
/// A stream that says nothing for this long after its start is ended.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// Bytes of `RegisterRequest.process` and `.session`.
const LONGEST_ID: usize = 64;

/// Who speaks for an entry, by namespace and name.
type Owners = HashMap<(String, String), Owner>;

/// The registry of live workloads. One for all ports; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    publisher: Publisher,
    owners: Arc<Mutex<(u64, Owners)>>,
    places: Arc<Places>,
    pace: Arc<Pace>,
    closing: watch::Sender<bool>,
}

impl Registry {
    /// A registry that publishes to `publisher`.
    pub fn new(publisher: Publisher) -> Self {
        let places = Places::new(STREAMS);
        Self {
            publisher,
            owners: Arc::default(),
            places,
            pace: Arc::default(),
            closing: watch::Sender::new(false),
        }
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

    /// The service of one port. Even where anonymous peers are admitted, they are from this machine only.
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

    /// Publishes a workload as a stream's own, under the name that the answer has.
    ///
    /// A stream that comes back takes over its earlier entry, also one from before a restart, and another stream of the
    /// same workload speaks for it as well. Another process at the same address (replicas on one machine) gets a name
    /// with its port.
    fn publish(
        &self,
        mut workload: RegisteredWorkload,
        speaker: Speaker,
        identity: Option<&SpiffeId>,
    ) -> Result<(RegisteredWorkload, Arc<Snapshot>), Status> {
        let mut owners = self.owners();
        let workloads = &self.publisher.current().model.workloads;
        let Some(key) = key(&owners.1, workloads, &workload, &speaker, identity) else {
            return Err(Status::permission_denied(format!(
                "workload {:?}: others are registered by that name at {}; choose another name",
                workload.name, workload.address
            )));
        };
        workload.name.clone_from(&key.1);
        let owner = owners.1.entry(key).or_insert_with(|| Owner::new(identity.cloned()));
        owner.say(speaker, workload.clone()).map_err(|TooMany(limit)| {
            Status::resource_exhausted(format!(
                "workload {}: as many streams speak for it as the limit of {limit}",
                workload.name
            ))
        })?;
        let snapshot = self.publisher.add_workload(workload.clone());
        Ok((workload, snapshot))
    }

    /// Whether what is published would be another if that were, too.
    fn would_change(
        &self,
        workload: &RegisteredWorkload,
        speaker: &Speaker,
        identity: Option<&SpiffeId>,
    ) -> bool {
        let owners = self.owners();
        let workloads = &self.publisher.current().model.workloads;
        // Without a name it is refused.
        key(&owners.1, workloads, workload, speaker, identity)
            .is_some_and(|(_, name)| is_news(workloads, &RegisteredWorkload { name, ..workload.clone() }))
    }

    /// `stream` speaks for an entry no more. If nobody else does, it goes.
    fn remove(&self, entry: RegisteredWorkload, stream: u64) {
        let key = (entry.namespace, entry.name);
        let mut owners = self.owners();
        let Some(owner) = owners.1.get_mut(&key).filter(|owner| owner.is(stream)) else { return };
        match owner.end(stream) {
            End::Nothing => {}
            End::Again(workload) => {
                self.publisher.add_workload(*workload);
            }
            End::Gone => {
                owners.1.remove(&key);
                tracing::info!(namespace = key.0, name = key.1, "workload left");
                self.publisher.remove_workload(&key.0, &key.1);
            }
        }
    }

    /// `stream` is over, and its workload comes back in another one.
    fn wait_for(&self, entry: &RegisteredWorkload, stream: u64) {
        let key = (entry.namespace.clone(), entry.name.clone());
        if let Some(owner) = self.owners().1.get_mut(&key) {
            owner.wait_for(stream);
        }
    }

    /// Publishes the health of an entry that is `stream`'s own, and still is.
    fn update(&self, workload: RegisteredWorkload, stream: u64) -> Result<Arc<Snapshot>, Status> {
        let mut owners = self.owners();
        let key = (workload.namespace.clone(), workload.name.clone());
        let Some(owner) = owners.1.get_mut(&key).filter(|owner| owner.is(stream)) else {
            return Err(Status::aborted(format!("a newer stream speaks for workload {}", workload.name)));
        };
        owner.say_again(stream, workload.clone());
        Ok(self.publisher.add_workload(workload))
    }
}

/// Whether a workload is not published as it is.
fn is_news(workloads: &Workloads, workload: &RegisteredWorkload) -> bool {
    let published = workloads.find(&workload.namespace, &workload.name);
    published.is_none_or(|published| **published != *workload)
}

/// The name that a workload gets; `None`: those that it may have are others'.
fn key(
    owners: &Owners,
    workloads: &Workloads,
    workload: &RegisteredWorkload,
    speaker: &Speaker,
    identity: Option<&SpiffeId>,
) -> Option<(String, String)> {
    let standing = |key: &(String, String)| {
        let held = workloads.find(&key.0, &key.1);
        let is_same = held.is_some_and(|held| {
            held.address == workload.address
                && held.ports == workload.ports
                && held.service_account == workload.service_account
        });
        let owner = owners.get(key);
        let speaks = |owner: &Owner| owner.is(speaker.stream) || owner.is_again(speaker, identity);
        if owner.is_some_and(speaks)
            || is_same && owner.is_none_or(|owner| owner.identity.as_ref() == identity)
        {
            Standing::Own
        } else if held.is_none() {
            Standing::Free
        } else {
            Standing::Taken
        }
    };
    let names = [Some(workload.name.clone()), workload.name_with_port()].into_iter().flatten();
    let keys = names.map(|name| (workload.namespace.clone(), name)).map(|key| (standing(&key), key));
    let free = keys.filter(|(standing, _)| *standing != Standing::Taken);
    free.min_by_key(|(standing, _)| *standing).map(|(_, key)| key)
}

/// How a name stands to a stream that wants it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Own,
    Free,
    Taken,
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
    type RegisterStream = ReceiverStream<Answer>;

    async fn register(
        &self,
        request: Request<Streaming<RegisterRequest>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let extensions = request.extensions();
        let peer = Peer::of(extensions, &self.trust_domain, &self.clock, AnonymousPeers::Admitted)?;
        let admitted = self.anonymous == AnonymousPeers::Admitted
            && peer.address.is_some_and(|address| address.ip().to_canonical().is_loopback());
        if peer.identity.is_none() && !admitted {
            return Err(Status::unauthenticated(
                "a workload registers with its certificate, on the TLS port (--xds); without one only \
                 `mesh-server dev` lets it, from the same machine",
            ));
        }
        if *self.registry.closing.borrow() {
            return Err(shutting_down());
        }
        let account = peer.account();
        let place = self.registry.places.take(&account).map_err(|full| {
            Status::unavailable(match full {
                Full::All => format!("this control plane takes its limit of {STREAMS} registrations"),
                Full::Peer => format!(
                    "this control plane takes nearly its limit of {STREAMS} registrations, and what is left is not for \
                     a peer that has as many as this one"
                ),
            })
        })?;
        let grace = extensions.get::<Grace>().cloned().unwrap_or_default();
        let stream = {
            let mut owners = self.registry.owners();
            owners.0 += 1;
            owners.0
        };
        let session = Session {
            registry: self.registry.clone(),
            clock: self.clock.clone(),
            peer,
            account,
            stream,
            entry: None,
            rate: Bucket::new(REQUESTS, REQUESTS_PER_SECOND),
            requests: request.into_inner(),
            grace,
            _place: place,
        };
        // Room for an answer, and for why the stream ends.
        let (answers, responses) = mpsc::channel(2);
        tokio::spawn(session.run(answers));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

type Answer = Result<RegisterResponse, Status>;

fn shutting_down() -> Status {
    Status::unavailable("the control plane is shutting down")
}

/// One stream. Its entry ends with it, however it ends.
struct Session {
    registry: Registry,
    clock: Clock,
    peer: Peer,
    account: String,
    stream: u64,
    entry: Option<RegisteredWorkload>,
    rate: Bucket,
    requests: Streaming<RegisterRequest>,
    /// Of its connection.
    grace: Grace,
    _place: Place,
}

impl Session {
    /// In a task of its own: a client that takes no answers has no more time than others.
    async fn run(mut self, answers: mpsc::Sender<Answer>) {
        let Ok(last) = answers.clone().try_reserve_owned() else { return };
        let (mut closing, clock, expires) =
            (self.registry.closing.subscribe(), self.clock.clone(), self.peer.expires);
        let ended = tokio::select! {
            ended = self.serve(&answers) => ended,
            // Nobody listens.
            () = answers.closed() => return,
            // An error means that the registry is gone, which ends the stream as well.
            _ = closing.wait_for(|closing| *closing) => Err(shutting_down()),
            () = expired(&clock, expires) => {
                self.leave_later();
                Err(Status::unauthenticated(
                    "the certificate that this stream was opened with has expired; register again with a new one",
                ))
            }
        };
        // Whoever reads why it ended finds that it has.
        drop(self);
        if let Err(status) = ended {
            last.send(Err(status));
        }
    }

    /// Until the client says that it goes. Whatever is awaited here may be given up for good.
    async fn serve(&mut self, answers: &mpsc::Sender<Answer>) -> Result<(), Status> {
        while let Some(answer) = self.next().await? {
            if answers.send(Ok(answer)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<RegisterResponse>, Status> {
        let patience = self.entry.is_none().then_some(FIRST_REQUEST);
        let request = tokio::select! {
            request = self.requests.message() => request?,
            () = sleep(patience) => {
                return Err(Status::deadline_exceeded("no request came; the first one must carry `workload`"));
            }
        };
        let Some(request) = request else {
            // It says itself that it goes, whatever becomes of its connection.
            self.leave();
            return Ok(None);
        };
        if !self.rate.take(tokio::time::Instant::now().into_std()) {
            return Err(Status::resource_exhausted(format!(
                "this stream makes requests faster than the limit of {REQUESTS_PER_SECOND} a second after the first \
                 {REQUESTS}"
            )));
        }
        for (what, id) in [("process", &request.process), ("session", &request.session)] {
            if id.len() > LONGEST_ID {
                let length = id.len();
                return Err(Status::invalid_argument(format!(
                    "a {what} of {length} bytes; {LONGEST_ID} are enough"
                )));
            }
        }
        let health = health(request.health)?;
        let (process, session) = (request.process, request.session);
        let speaker = Speaker { stream: self.stream, process, session };
        let said = request.workload.as_ref();
        let mut wanted = self.wanted(said, health)?;
        let would_change = match said {
            Some(_) => self.registry.would_change(&wanted, &speaker, self.peer.identity.as_ref()),
            None => is_news(&self.registry.publisher.current().model.workloads, &wanted),
        };
        if would_change {
            self.turn().await?;
            // Its group may be another by now.
            wanted = self.wanted(said, health)?;
        }
        let (workload, snapshot) =
            if said.is_some() {
                let identity = self.peer.identity.as_ref();
                let (workload, snapshot) = self.registry.publish(wanted, speaker, identity)?;
                if self.entry.as_ref().is_some_and(|entry| {
                    (&entry.namespace, &entry.name) != (&workload.namespace, &workload.name)
                }) {
                    self.leave();
                }
                (workload, snapshot)
            } else {
                let snapshot = self.registry.update(wanted.clone(), self.stream)?;
                (wanted, snapshot)
            };
        let name = workload.name.clone();
        tracing::info!(
            namespace = workload.namespace,
            name,
            address = %workload.address,
            ?health,
            peer = ?self.peer.identity,
            "workload registered"
        );
        self.entry = Some(workload);
        Ok(Some(RegisterResponse { workload_entry: name, revision: snapshot.revision.to_string() }))
    }

    /// What a request asks to be published; one that carries no workload is about the one before.
    fn wanted(&self, said: Option<&proto::Workload>, health: Health) -> Result<RegisteredWorkload, Status> {
        let workload = match (said, &self.entry) {
            (Some(said), _) => parse(said, &self.peer, &self.registry.publisher.current().model)?,
            (None, Some(entry)) => entry.clone(),
            (None, None) => {
                return Err(Status::invalid_argument("the first request must carry `workload`"));
            }
        };
        Ok(RegisteredWorkload { health, ..workload })
    }

    /// Waits until the account may change something. What was registered here stays a while if it may not: that others of
    /// the account are busy is no fault of this workload.
    async fn turn(&mut self) -> Result<(), Status> {
        let Some(turn) = self.registry.pace.turn(&self.account, tokio::time::Instant::now()) else {
            self.leave_later();
            return Err(Status::resource_exhausted(format!(
                "{} changes its workloads so often that this change would wait longer than {:?}",
                self.account,
                pace::LONGEST
            )));
        };
        tokio::time::sleep_until(turn).await;
        Ok(())
    }

    /// Removes the entry, unless another stream speaks for it.
    fn leave(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.registry.remove(entry, self.stream);
        }
    }

    /// The same, after the time that a workload has for coming back.
    fn leave_later(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        let (registry, stream) = (self.registry.clone(), self.stream);
        registry.wait_for(&entry, stream);
        tokio::spawn(async move {
            tokio::time::sleep(RENEWAL).await;
            if !*registry.closing.borrow() {
                registry.remove(entry, stream);
            }
        });
    }
}

/// Until the time of a certificate is over.
async fn expired(clock: &Clock, expires: Option<SystemTime>) {
    let Some(expires) = expires else { return std::future::pending().await };
    while clock.now() <= expires {
        clock.sleep_toward(expires + Duration::from_millis(1)).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if *self.registry.closing.borrow() {
            return;
        }
        // With its connection, which had to go: it is not its workload that does.
        if self.grace.has_begun() {
            self.leave_later();
        } else {
            self.leave();
        }
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
