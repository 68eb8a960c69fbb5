//! What a target's calls read: the published route table, or why there is none.

use crate::table::RouteTable;
use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use mesh_xds::config::{XdsConfig, XdsError};
use std::sync::Arc;
use tokio::sync::watch;

/// State of a target.
pub(crate) enum State<U> {
    /// The control plane has not answered yet.
    Pending,
    /// Calls are decided by this.
    Table(RouteTable<U>),
    /// Calls fail with this.
    Failed(XdsError),
    /// The mesh was shut down; for good.
    Closed,
}

/// The current [`State`]. Reading takes no lock.
pub(crate) struct Snapshot<U> {
    state: ArcSwap<State<U>>,
    /// Applied last; it need not have changed the table.
    config: ArcSwapOption<XdsConfig>,
    changed: watch::Sender<()>,
}

impl<U> Snapshot<U> {
    pub(crate) fn new() -> Self {
        Self {
            state: ArcSwap::from_pointee(State::Pending),
            config: ArcSwapOption::empty(),
            changed: watch::Sender::new(()),
        }
    }

    /// The current state. Not to be held across an `.await`.
    pub(crate) fn load(&self) -> Guard<Arc<State<U>>> {
        self.state.load()
    }

    /// Replaces the state and wakes who waits. What is closed stays closed.
    pub(crate) fn publish(&self, state: State<U>) {
        let state = Arc::new(state);
        self.state.rcu(|old| match **old {
            State::Closed => old.clone(),
            _ => state.clone(),
        });
        self.changed.send_replace(());
    }

    /// Which version of the configuration holds; empty before the first. For errors and status.
    pub(crate) fn version(&self) -> Arc<str> {
        self.config.load().as_ref().map_or_else(|| "".into(), |config| Arc::clone(&config.version))
    }

    /// The configuration that was applied last; for explanations.
    pub(crate) fn config(&self) -> Option<Arc<XdsConfig>> {
        self.config.load_full()
    }

    /// From now on this configuration holds.
    pub(crate) fn set_config(&self, config: Arc<XdsConfig>) {
        self.config.store(Some(config));
    }

    /// Told of every state published from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
