//! A workload's identity as a value that changes: [`WorkloadIdentity`] is a cheap handle on the
//! current SVID and bundles, kept fresh by a task that the handles own.
//!
//! A reader never waits and never sees half of a rotation: an [`Identity`] is one immutable value. The
//! task ends when the last handle is dropped. A source that fails is asked again for ever; meanwhile
//! the identity in hand is served, and [`WorkloadIdentity::ready`] tells whoever has none *why*.

use crate::{
    bundle::{InvalidBundle, TrustBundles},
    clock::{self, Clock},
    rotation::{Backoff, Input, Rotation, Stage},
    source::{Source, SourceError},
    spiffe_id::SpiffeId,
    svid::X509Svid,
};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, task::JoinHandle};

/// Longest time that one fetch may take (Istio's agent allows the same).
const FETCH_LIMIT: Duration = Duration::from_secs(10);

/// One immutable identity: the SVID to present and the bundles to judge others by.
#[derive(Clone, Debug)]
pub struct Identity {
    svid: X509Svid,
    bundles: TrustBundles,
}

impl Identity {
    /// Fails when the roots of the SVID's own trust domain are missing.
    pub fn new(svid: X509Svid, bundles: TrustBundles) -> Result<Self, InvalidBundle> {
        let domain = svid.id().trust_domain();
        if bundles.roots(domain).is_none() {
            return Err(InvalidBundle::OwnDomain(domain.clone()));
        }
        Ok(Self { svid, bundles })
    }

    /// The SPIFFE id.
    pub fn id(&self) -> &SpiffeId {
        self.svid.id()
    }

    /// What to present.
    pub fn svid(&self) -> &X509Svid {
        &self.svid
    }

    /// Whom to believe.
    pub fn bundles(&self) -> &TrustBundles {
        &self.bundles
    }
}

/// Why there is no identity.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The source failed; it is being asked again in the background.
    #[error("no workload identity from {origin}: {cause}")]
    Source {
        /// Where the identity was to come from, as configured.
        origin: Arc<str>,
        /// What went wrong last.
        cause: SourceError,
    },
    /// There is one, but it has expired, and the source has given no other.
    #[error("{reason}; {origin} has given no newer one{}", .cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default())]
    Expired {
        /// Where the identity was to come from, as configured.
        origin: Arc<str>,
        /// Whose it was, when it ended, and what the clock says.
        reason: String,
        /// Why it could not be renewed, when an attempt has failed.
        cause: Option<SourceError>,
    },
    /// The source did not answer within the caller's patience.
    #[error("no workload identity from {origin} within {waited:?}: it has not answered yet")]
    Slow {
        /// Where the identity was to come from, as configured.
        origin: Arc<str>,
        /// How long was waited.
        waited: Duration,
    },
    /// The task that asks the source has ended: the runtime is shutting down.
    #[error("no workload identity from {origin}: its task has ended")]
    Stopped {
        /// Where the identity was to come from, as configured.
        origin: Arc<str>,
    },
}

/// How a workload's identity fares, for status pages and metrics.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Where the identity comes from.
    pub origin: Arc<str>,
    /// The current id.
    pub id: Option<SpiffeId>,
    /// When the current SVID ends.
    pub not_after: Option<SystemTime>,
    /// When the current SVID arrived.
    pub last_rotation: Option<SystemTime>,
    /// How many SVIDs have arrived.
    pub rotations: u64,
    /// Why the last attempt failed; none when it succeeded.
    pub last_error: Option<SourceError>,
    /// How well off the workload is.
    pub stage: Stage,
}

/// A handle on a workload's current identity. Cheap to clone; the last one dropped ends its task.
#[derive(Clone)]
pub struct WorkloadIdentity(Arc<Inner>);

struct Inner {
    identity: watch::Receiver<Option<Arc<Identity>>>,
    status: watch::Receiver<Status>,
    clock: Clock,
    kept: Kept,
}

/// What keeps the channels open.
enum Kept {
    /// A task, ended with the last handle.
    Fresh(JoinHandle<()>),
    /// Nothing changes, but nothing ends either.
    Fixed { _publisher: Publisher },
}

/// The writing ends.
struct Publisher {
    identity: watch::Sender<Option<Arc<Identity>>>,
    status: watch::Sender<Status>,
}

impl Publisher {
    fn new(
        identity: Option<Arc<Identity>>,
        status: Status,
    ) -> (Self, watch::Receiver<Option<Arc<Identity>>>, watch::Receiver<Status>) {
        let (identity, identities) = watch::channel(identity);
        let (status, statuses) = watch::channel(status);
        (Self { identity, status }, identities, statuses)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Kept::Fresh(task) = &self.kept {
            task.abort();
        }
    }
}

impl WorkloadIdentity {
    /// Whether both are handles on one: it is kept fresh once.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// An identity that never changes.
    pub fn fixed(identity: Arc<Identity>) -> Self {
        Self::fixed_at(identity, Clock::system())
    }

    /// An identity that never changes, judged by the given clock.
    pub fn fixed_at(identity: Arc<Identity>, clock: Clock) -> Self {
        let mut status = Status::absent("a fixed identity".into());
        status.accept(&identity, clock.now());
        let (publisher, identity, status) = Publisher::new(Some(identity), status);
        Self(Arc::new(Inner { identity, status, clock, kept: Kept::Fixed { _publisher: publisher } }))
    }

    /// Keeps an identity fresh from `source`, on the system's clock. Must be called within a tokio
    /// runtime, which runs the task.
    pub fn start(source: impl Source) -> Self {
        Self::start_with(source, Clock::system(), Backoff::default(), fastrand::u64(..))
    }

    /// As [`WorkloadIdentity::start`], with the clock, the retry delays and the seed of the jitter.
    pub fn start_with(source: impl Source, clock: Clock, backoff: Backoff, seed: u64) -> Self {
        let origin: Arc<str> = source.origin().into();
        let (publisher, identity, status) = Publisher::new(None, Status::absent(origin));
        let rotation = Rotation::new(clock.now(), source.schedule(), backoff, seed);
        let keeper = Keeper { source, rotation, clock: clock.clone(), publisher };
        let kept = Kept::Fresh(tokio::spawn(keeper.run()));
        Self(Arc::new(Inner { identity, status, clock, kept }))
    }

    /// The identity in hand; none before the first one arrived. It may have expired: see
    /// [`WorkloadIdentity::status`].
    pub fn current(&self) -> Option<Arc<Identity>> {
        self.0.identity.borrow().clone()
    }

    /// Follows the identity through every rotation. The receiver alone does not keep the task alive.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Identity>>> {
        self.0.identity.clone()
    }

    /// Follows the status through every attempt. The receiver alone does not keep the task alive.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.0.status.clone()
    }

    /// The valid identity, waiting for the first one, but not for ever: as soon as an attempt has failed
    /// and there is none, or the one in hand has expired, this returns why. The source is asked again in
    /// the background, so a later call may succeed.
    pub async fn ready(&self) -> Result<Arc<Identity>, IdentityError> {
        let (mut identity, mut status) = (self.watch(), self.watch_status());
        loop {
            let held = identity.borrow_and_update().clone();
            let (origin, failed) = {
                let status = status.borrow_and_update();
                (status.origin.clone(), status.last_error.clone())
            };
            if let Some(identity) = held {
                return match identity.svid().validity_error(self.clock().now()) {
                    Some(reason) => Err(IdentityError::Expired { origin, reason, cause: failed }),
                    None => Ok(identity),
                };
            }
            if let Some(cause) = failed {
                return Err(IdentityError::Source { origin, cause });
            }
            let changed = tokio::select! {
                changed = identity.changed() => changed,
                changed = status.changed() => changed,
            };
            if changed.is_err() && self.current().is_none() {
                return Err(IdentityError::Stopped { origin });
            }
        }
    }

    /// Waits for the first identity through failed attempts, up to `patience`; then returns why there
    /// is none. For a workload that may start before its control plane.
    pub async fn ready_within(&self, patience: Duration) -> Result<Arc<Identity>, IdentityError> {
        let mut identity = self.watch();
        let arrived = identity.wait_for(Option::is_some);
        if let Ok(Ok(identity)) = tokio::time::timeout(patience, arrived).await
            && let Some(identity) = identity.clone()
        {
            return Ok(identity);
        }
        let status = self.status();
        Err(match status.last_error {
            Some(cause) => IdentityError::Source { origin: status.origin, cause },
            None => IdentityError::Slow { origin: status.origin, waited: patience },
        })
    }

    /// How the identity fares now.
    pub fn status(&self) -> Status {
        let mut status = self.0.status.borrow().clone();
        // Expiry needs no event to be true.
        if status.not_after.is_some_and(|end| self.0.clock.now() > end) {
            status.stage = Stage::Expired;
        }
        status
    }

    /// The clock that certificates are judged by.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

impl fmt::Debug for WorkloadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.current() {
            Some(identity) => {
                write!(
                    f,
                    "WorkloadIdentity({}, until {})",
                    identity.id(),
                    clock::utc(identity.svid().not_after())
                )
            }
            None => f.write_str("WorkloadIdentity(none yet)"),
        }
    }
}

impl Status {
    fn absent(origin: Arc<str>) -> Self {
        Self {
            origin,
            id: None,
            not_after: None,
            last_rotation: None,
            rotations: 0,
            last_error: None,
            stage: Stage::Absent,
        }
    }

    fn accept(&mut self, identity: &Identity, now: SystemTime) {
        self.id = Some(identity.id().clone());
        self.not_after = Some(identity.svid().not_after());
        self.last_rotation = Some(now);
        self.rotations += 1;
        self.last_error = None;
        self.stage = Stage::Fresh;
    }
}

/// The task's state: does the IO for a [`Rotation`].
struct Keeper<S> {
    source: S,
    rotation: Rotation,
    clock: Clock,
    publisher: Publisher,
}

impl<S: Source> Keeper<S> {
    async fn run(mut self) {
        let mut input = Input::Wake;
        loop {
            let now = self.clock.now();
            let out = self.rotation.on(now, input);
            self.report(out.stage);
            input = if out.fetch {
                self.fetch().await
            } else {
                match out.wake {
                    Some(time) => self.clock.sleep_toward(time).await,
                    // A fixed source that has ended: nothing will ever happen again.
                    None => std::future::pending().await,
                }
                Input::Wake
            };
        }
    }

    async fn fetch(&mut self) -> Input {
        let held = self.publisher.identity.borrow().clone();
        let attempt = tokio::time::timeout(FETCH_LIMIT, self.source.fetch(held.as_ref())).await;
        let now = self.clock.now();
        let fetched = attempt
            .unwrap_or_else(|_| Err(SourceError::unavailable(format!("no answer within {FETCH_LIMIT:?}"))))
            .and_then(|identity| match identity.svid().validity_error(now) {
                Some(reason) => Err(SourceError::invalid(reason)),
                None => Ok(identity),
            });
        match fetched {
            Ok(identity) => {
                let not_after = identity.svid().not_after();
                if held.is_some_and(|held| Arc::ptr_eq(&held, &identity)) {
                    self.publisher.status.send_modify(|status| status.last_error = None);
                } else {
                    tracing::info!(id = %identity.id(), until = %clock::utc(not_after), "identity rotated");
                    self.publisher.status.send_modify(|status| status.accept(&identity, now));
                    self.publisher.identity.send_replace(Some(identity));
                }
                Input::Fetched { not_after }
            }
            Err(error) => {
                let origin = self.source.origin();
                tracing::warn!(%origin, %error, "identity not renewed; it will be tried again");
                self.publisher.status.send_modify(|status| status.last_error = Some(error));
                Input::Failed
            }
        }
    }

    /// Tells of a change for the worse where somebody looks: the log, and the status.
    fn report(&self, stage: Stage) {
        let changed = self.publisher.status.send_if_modified(|status| {
            let changed = status.stage != stage;
            status.stage = stage;
            changed
        });
        if !changed {
            return;
        }
        let (id, not_after) = {
            let status = self.publisher.status.borrow();
            (status.id.as_ref().map(ToString::to_string).unwrap_or_default(), status.not_after)
        };
        let until = clock::utc(not_after.unwrap_or(SystemTime::UNIX_EPOCH));
        match stage {
            Stage::Fresh | Stage::Absent => {}
            Stage::Overdue => {
                tracing::warn!(id, %until, "identity renewal is overdue; the old one still serves")
            }
            Stage::Ending => tracing::error!(id, %until, "identity is about to expire and cannot be renewed"),
            Stage::Expired => {
                tracing::error!(id, %until, "identity has EXPIRED: handshakes fail until it is renewed")
            }
        }
    }
}

#[cfg(test)]
mod tests;
