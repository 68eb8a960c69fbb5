//! Tells a control plane where this process serves, for as long as it serves (`mesh.v1.WorkloadRegistration`, the
//! counterpart of Istio's WorkloadGroup auto-registration); `everywhere` tells all of them.
//!
//! The endpoint lives as long as the stream: the stream is kept, and opened again with jittered backoff
//! when it ends. A control plane that does not know the service (istiod) is asked once and left alone. One
//! that says no is asked again, rarely, and its words are shown in the status.

pub(crate) mod everywhere;

pub use everywhere::RegistrationStatus;

use proto::{Health, RegisterRequest, Workload, workload_registration_client::WorkloadRegistrationClient};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::{
    net::{ToSocketAddrs, UdpSocket},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

/// Generated from `proto/registration.proto`.
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::unwrap_used, rustdoc::all)]
#[rustfmt::skip]
pub(crate) mod proto {
    include!("proto/registration.rs");
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadInfo {
    /// Unique in its namespace, together with the address.
    pub name: String,
    /// Namespace; must be the one of its identity.
    pub namespace: String,
    /// Service account; must be the one of its identity.
    pub service_account: String,
    /// Labels, by which services select it.
    pub labels: BTreeMap<String, String>,
    /// `region/zone/sub_zone`, trailing parts optional.
    pub locality: String,
    /// Relative share of traffic; 0 means 1.
    pub weight: u32,
    /// The WorkloadGroup whose template applies; empty for none.
    pub group: String,
}

impl WorkloadInfo {
    fn at(self, address: IpAddr, ports: BTreeMap<String, u16>) -> Workload {
        Workload {
            name: self.name,
            namespace: self.namespace,
            service_account: self.service_account,
            address: address.to_string(),
            ports: ports.into_iter().map(|(name, port)| (name, port.into())).collect(),
            labels: self.labels,
            locality: self.locality,
            weight: self.weight,
            group: self.group,
        }
    }
}

/// Where a registration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationState {
    /// Not acknowledged yet; with what went wrong last, if anything did.
    Pending(Option<Arc<str>>),
    /// Part of the served configuration.
    Registered {
        /// Name under which the endpoint is known.
        entry: Arc<str>,
        /// Revision of the configuration that first has it.
        revision: Arc<str>,
        /// Whether that revision says that it drains.
        draining: bool,
    },
    /// Was registered; the stream ended and is being opened again. Why.
    Lost(Arc<str>),
    /// The control plane said no; it is asked again, rarely. Its words.
    Refused(Arc<str>),
    /// The control plane has no such service; it learns of endpoints in another way.
    Unsupported,
}

impl fmt::Display for RegistrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending(None) => f.write_str("registering"),
            Self::Pending(Some(why)) => write!(f, "registering; last attempt: {why}"),
            Self::Registered { entry, revision, draining } => {
                let how = if *draining { "draining" } else { "registered" };
                write!(f, "{how} as {entry} since revision {revision}")
            }
            Self::Lost(why) => write!(f, "registering again: {why}"),
            Self::Refused(why) => write!(f, "refused by the control plane: {why}"),
            Self::Unsupported => f.write_str("the control plane does not take registrations"),
        }
    }
}

/// Why a server is not registered and is not going to be by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The control plane said no.
    #[error("the control plane refused the registration: {0}")]
    Refused(Arc<str>),
    /// The server was shut down first.
    #[error("the server was shut down before it was registered")]
    Ended,
}

/// What clients are told to connect to.
#[derive(Clone, Debug)]
pub(crate) enum Advertise {
    /// This.
    Address(IpAddr),
    /// The local address by which this `host:port` is reached; looked up at every attempt.
    Towards(String),
}

impl Advertise {
    async fn address(&self) -> Result<IpAddr, Status> {
        let target = match self {
            Self::Address(address) => return Ok(*address),
            Self::Towards(target) => target,
        };
        address_towards(target).await.map_err(|error| {
            Status::unavailable(format!(
                "no local address by which the control plane {target} is reached ({error}); use `advertise`"
            ))
        })
    }
}

/// Makes a channel to the control plane, or says why it cannot.
pub(crate) type Connect = Box<dyn Fn() -> Result<Channel, String> + Send + Sync>;

/// Tells control planes which registrations are of one process.
static PROCESS: LazyLock<String> = LazyLock::new(random);

fn random() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// Delays between attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    /// Before the first new attempt.
    pub(crate) first: Duration,
    /// The longest one; also after a refusal.
    pub(crate) longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), longest: Duration::from_secs(30) }
    }
}

impl Retry {
    /// The delay after `failures` failures in a row: grows by 1.6, jittered by a fifth. The first one is
    /// jittered down to nothing, since all servers lose a control plane at the same moment.
    fn delay(&self, failures: u32) -> Duration {
        let grown = self.first.as_secs_f64() * 1.6f64.powi(i32::try_from(failures.min(64)).unwrap_or(64));
        let capped = grown.min(self.longest.as_secs_f64());
        let spread = if failures <= 1 { fastrand::f64() } else { 0.8 + 0.4 * fastrand::f64() };
        Duration::from_secs_f64(capped * spread)
    }
}

/// A registration, kept up by a task until it is dropped.
pub(crate) struct Registration {
    /// `host:port`.
    control_plane: Arc<str>,
    health: watch::Sender<Health>,
    state: watch::Receiver<RegistrationState>,
    _task: JoinSet<()>,
}

impl Registration {
    /// Registers a workload. Must be called within a tokio runtime.
    pub(crate) fn start(
        control_plane: Arc<str>,
        connect: Connect,
        info: WorkloadInfo,
        advertise: Advertise,
        ports: BTreeMap<String, u16>,
        retry: Retry,
    ) -> Self {
        let (health, wanted) = watch::channel(Health::Healthy);
        let (sender, state) = watch::channel(RegistrationState::Pending(None));
        let keeper = Keeper {
            control_plane: control_plane.clone(),
            connect,
            info,
            advertise,
            ports,
            wanted,
            state: sender,
            retry,
            session: random(),
        };
        let mut task = JoinSet::new();
        task.spawn(keeper.run());
        Self { control_plane, health, state, _task: task }
    }

    /// Tells the control plane that this workload takes no new calls.
    fn say_draining(&self) {
        self.health.send_replace(Health::Draining);
    }
}

/// The local address by which a control plane is reached: what to advertise when listening on every
/// address. Nothing is sent.
async fn address_towards(control_plane: impl ToSocketAddrs) -> std::io::Result<IpAddr> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for target in tokio::net::lookup_host(control_plane).await? {
        match toward(target).await {
            Ok(address) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn toward(target: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}

/// The task's state.
struct Keeper {
    control_plane: Arc<str>,
    /// Asked at every attempt: a connection shows the certificate that it was made with for as long as it
    /// lasts, and an expired one is refused for ever.
    connect: Connect,
    info: WorkloadInfo,
    advertise: Advertise,
    ports: BTreeMap<String, u16>,
    wanted: watch::Receiver<Health>,
    state: watch::Sender<RegistrationState>,
    retry: Retry,
    /// Tells the control plane which streams follow one another, and which live side by side.
    session: String,
}

impl Keeper {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let mut acknowledged = false;
            let Err(status) = self.attempt(&mut acknowledged).await else { return };
            failures = if acknowledged { 1 } else { failures + 1 };
            let delay = match status.code() {
                Code::Unimplemented => {
                    tracing::info!(
                        control_plane = &*self.control_plane,
                        "the control plane takes no registrations: it must know this server's endpoint otherwise"
                    );
                    self.state.send_replace(RegistrationState::Unsupported);
                    return;
                }
                Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition => {
                    tracing::error!(
                        control_plane = &*self.control_plane,
                        reason = status.message(),
                        "registration refused by the control plane"
                    );
                    self.state.send_replace(RegistrationState::Refused(status.message().into()));
                    self.retry.longest
                }
                _ => {
                    tracing::warn!(control_plane = &*self.control_plane, %status, "registration lost; trying again");
                    let why: Arc<str> = format!("{:?}: {}", status.code(), status.message()).into();
                    self.state.send_modify(|state| {
                        *state = match state {
                            RegistrationState::Registered { .. } | RegistrationState::Lost(_) => {
                                RegistrationState::Lost(why)
                            }
                            _ => RegistrationState::Pending(Some(why)),
                        };
                    });
                    self.retry.delay(failures)
                }
            };
            tokio::time::sleep(delay).await;
        }
    }

    /// One stream, from its first request to its end. Ends well only when the handle is dropped.
    async fn attempt(&mut self, acknowledged: &mut bool) -> Result<(), Status> {
        // Two: a change of health can follow the first request before that is read.
        let (requests, outgoing) = mpsc::channel(2);
        let ended = || Status::unavailable("the stream to the control plane ended");
        let first = *self.wanted.borrow_and_update();
        let address = self.advertise.address().await?;
        let workload = Some(self.info.clone().at(address, self.ports.clone()));
        let (session, process) = (self.session.clone(), PROCESS.clone());
        let request = RegisterRequest { workload, health: first.into(), session, process };
        requests.send(request).await.map_err(|_| ended())?;
        // What was sent and is not answered; answers come in order.
        let mut sent = VecDeque::from([first]);

        let mut client = WorkloadRegistrationClient::new((self.connect)().map_err(Status::unavailable)?);
        let mut answers = client.register(ReceiverStream::new(outgoing)).await?.into_inner();
        loop {
            tokio::select! {
                answer = answers.message() => {
                    let answer = answer?.ok_or_else(ended)?;
                    let Some(health) = sent.pop_front() else {
                        return Err(Status::internal("the control plane answered what was not asked"));
                    };
                    *acknowledged = true;
                    self.accept(answer, health);
                }
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let health = *self.wanted.borrow_and_update();
                    sent.push_back(health);
                    let request = RegisterRequest { health: health.into(), ..RegisterRequest::default() };
                    requests.send(request).await.map_err(|_| ended())?;
                }
            }
        }
    }

    fn accept(&self, answer: proto::RegisterResponse, health: Health) {
        let draining = health == Health::Draining;
        let (entry, revision): (Arc<str>, Arc<str>) = (answer.workload_entry.into(), answer.revision.into());
        tracing::info!(control_plane = &*self.control_plane, %entry, %revision, draining, "registered with the control plane");
        self.state.send_replace(RegistrationState::Registered { entry, revision, draining });
    }
}

#[cfg(test)]
mod tests;
