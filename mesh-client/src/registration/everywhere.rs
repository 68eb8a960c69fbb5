//! A workload at every control plane of the bootstrap's list (gRFC A71), at once: they do not know of each other's
//! registrations, and a client that fell back to another one is to find the endpoints there as well.
//!
//! Promises: one that is away, refuses, or takes no registrations keeps nobody from the others. What clients of one that
//! is away cannot hear is not waited for, as long as another one is there.

use super::{
    Registration, RegistrationError,
    RegistrationState::{self, Lost, Pending, Refused, Registered, Unsupported},
};
use futures_util::stream::{StreamExt, select_all};
use std::{fmt, sync::Arc};
use tokio_stream::wrappers::WatchStream;

/// Where a registration with a control plane stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistrationStatus {
    /// `host:port`, from the bootstrap.
    pub control_plane: Arc<str>,
    /// What it says.
    pub state: RegistrationState,
}

impl fmt::Display for RegistrationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.control_plane, self.state)
    }
}

/// The registrations of a server, in the order of the control planes. May be none.
#[derive(Default)]
pub(crate) struct Registrations(pub(super) Vec<Registration>);

impl FromIterator<Registration> for Registrations {
    fn from_iter<I: IntoIterator<Item = Registration>>(registrations: I) -> Self {
        Self(registrations.into_iter().collect())
    }
}

impl Registrations {
    pub(crate) fn statuses(&self) -> Vec<RegistrationStatus> {
        let status = |registration: &Registration| RegistrationStatus {
            control_plane: registration.control_plane.clone(),
            state: registration.state.borrow().clone(),
        };
        self.0.iter().map(status).collect()
    }

    /// A control plane tells clients of this server.
    pub(crate) fn is_registered(&self) -> bool {
        self.0.iter().any(|one| matches!(*one.state.borrow(), Registered { .. }))
    }

    /// Waits for the first acknowledgement; a control plane without registration counts as one. An error if all refuse
    /// that can be reached: one that is away, and never took it, keeps nobody waiting for a better answer.
    pub(crate) async fn registered(&self) -> Result<(), RegistrationError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let decided = self.until(|states| {
            if states.iter().any(|state| matches!(state, Registered { .. } | Unsupported)) {
                return Some(Ok(()));
            }
            let undecided = states.iter().any(|state| matches!(state, Pending(None) | Lost(_)));
            let refused = states.iter().any(|state| matches!(state, Refused(_)));
            (refused && !undecided).then(|| Err(RegistrationError::Refused(self.refusal(states))))
        });
        decided.await.unwrap_or(Err(RegistrationError::Ended))
    }

    /// What each says.
    fn refusal(&self, states: &[RegistrationState]) -> Arc<str> {
        let words = self.0.iter().zip(states).map(|(one, state)| match state {
            Refused(why) => format!("{}: {why}", one.control_plane),
            state => format!("{}: {state}", one.control_plane),
        });
        words.collect::<Vec<_>>().join("; ").into()
    }

    /// Tells them that this workload takes no new calls, and waits until what they serve says so. Returns at once when
    /// nobody is there to be told.
    pub(crate) async fn drain(&self) {
        for registration in &self.0 {
            registration.say_draining();
        }
        let told = |state: &RegistrationState| matches!(state, Registered { draining: true, .. });
        let decided = self.until(|states| {
            let somebody = states.iter().any(told);
            let done = |state: &RegistrationState| match state {
                Pending(_) | Lost(_) => somebody,
                state => !may_be_unaware(state),
            };
            states.iter().all(done).then_some(())
        });
        // None means that their tasks have ended: nobody is told any more.
        let _ = decided.await;
    }

    /// Those whose clients may not have heard of a drain.
    pub(crate) fn unaware(&self) -> Vec<RegistrationStatus> {
        self.statuses().into_iter().filter(|one| may_be_unaware(&one.state)).collect()
    }

    /// Waits until their states decide something; none when that cannot be any more.
    async fn until<T>(&self, decide: impl Fn(&[RegistrationState]) -> Option<T>) -> Option<T> {
        // One that ended keeps its last state, and changes no more.
        let changes = self.0.iter().map(|one| WatchStream::from_changes(one.state.clone()));
        let mut changes = select_all(changes);
        loop {
            let states: Vec<_> = self.0.iter().map(|one| one.state.borrow().clone()).collect();
            if let Some(decided) = decide(&states) {
                return Some(decided);
            }
            changes.next().await?;
        }
    }
}

/// Whether a control plane may serve this workload as one that takes calls.
fn may_be_unaware(state: &RegistrationState) -> bool {
    match state {
        Registered { draining, .. } => !draining,
        Unsupported | Refused(_) => false,
        Pending(_) | Lost(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::proto::Health, *};
    use tokio::{sync::watch, task::JoinSet};

    struct Plane {
        health: watch::Receiver<Health>,
        state: watch::Sender<RegistrationState>,
    }

    fn world<const N: usize>() -> (Registrations, [Plane; N]) {
        let mut registrations = Vec::new();
        let planes = std::array::from_fn(|index| {
            let (health, wanted) = watch::channel(Health::Healthy);
            let (state, watched) = watch::channel(Pending(None));
            let control_plane = format!("plane-{index}:15012").into();
            registrations.push(Registration { control_plane, health, state: watched, _task: JoinSet::new() });
            Plane { health: wanted, state }
        });
        (registrations.into_iter().collect(), planes)
    }

    fn registered(draining: bool) -> RegistrationState {
        Registered { entry: "reviews".into(), revision: "1".into(), draining }
    }

    async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        futures_util::poll!(future).is_pending()
    }

    #[tokio::test]
    async fn one_control_plane_is_enough_to_be_registered_and_a_no_counts_when_all_say_it() {
        let (all, planes) = world::<3>();
        let mut waiting = Box::pin(all.registered());
        planes[0].state.send_replace(Refused("not you".into()));
        planes[1].state.send_replace(Pending(Some("away".into())));
        assert!(is_pending(&mut waiting).await && !all.is_registered(), "the third has yet to be asked");
        planes[2].state.send_replace(registered(false));
        assert_eq!(waiting.await, Ok(()));
        assert!(all.is_registered());
        let shown: Vec<String> = all.statuses().iter().map(ToString::to_string).collect();
        assert_eq!(shown[1], "plane-1:15012: registering; last attempt: away");

        // Who is away is not waited for: nobody who is there takes it.
        let (all, planes) = world::<3>();
        let states = [Refused("not you".into()), Pending(Some("away".into())), Refused("nor here".into())];
        for (plane, state) in planes.iter().zip(states) {
            plane.state.send_replace(state);
        }
        let words =
            "plane-0:15012: not you; plane-1:15012: registering; last attempt: away; plane-2:15012: nor here";
        assert_eq!(all.registered().await, Err(RegistrationError::Refused(words.into())));
        // One that had taken it will again.
        planes[1].state.send_replace(Lost("it restarts".into()));
        assert!(is_pending(&mut Box::pin(all.registered())).await);
        // If all are away, nobody has said no.
        let (all, planes) = world::<2>();
        for plane in &planes {
            plane.state.send_replace(Pending(Some("away".into())));
        }
        assert!(is_pending(&mut Box::pin(all.registered())).await);
    }

    #[tokio::test]
    async fn a_drain_waits_for_all_that_are_there_and_for_none_that_is_away() {
        let (all, planes) = world::<3>();
        planes[0].state.send_replace(Lost("it crashed".into()));
        planes[1].state.send_replace(registered(false));
        planes[2].state.send_replace(registered(false));
        let mut waiting = Box::pin(all.drain());
        assert!(is_pending(&mut waiting).await);
        assert!(planes.iter().all(|plane| *plane.health.borrow() == Health::Draining));
        planes[1].state.send_replace(registered(true));
        assert!(is_pending(&mut waiting).await, "the clients of the third have not heard");
        let unaware: Vec<_> = all.unaware().iter().map(ToString::to_string).collect();
        assert_eq!(
            unaware,
            [
                "plane-0:15012: registering again: it crashed",
                "plane-2:15012: registered as reviews since revision 1"
            ]
        );
        planes[2].state.send_replace(registered(true));
        waiting.await;
    }

    #[tokio::test]
    async fn when_all_are_away_somebody_is_waited_for_and_when_all_ended_nobody_is() {
        let (all, planes) = world::<2>();
        let mut waiting = Box::pin(all.drain());
        assert!(is_pending(&mut waiting).await);
        planes[0].state.send_replace(Unsupported);
        assert!(is_pending(&mut waiting).await);
        drop(planes);
        waiting.await;
        let (none, _) = world::<0>();
        assert_eq!(none.registered().await, Ok(()));
        none.drain().await;
        let (all, planes) = world::<2>();
        drop(planes);
        assert_eq!(all.registered().await, Err(RegistrationError::Ended));
    }
}
