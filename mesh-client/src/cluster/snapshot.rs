//! What calls read of a cluster: one immutable value, replaced when anything changes.

use super::{elsewhere::Levels, priority::Aggregate, session::Hosts};
use crate::{endpoint::Endpoint, lb::Picker};
use mesh_xds::config::ClusterConfig;
use std::{fmt, net::SocketAddr, sync::Arc};

/// The published state of a cluster.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) config: Arc<ClusterConfig>,
    /// Over endpoints that are ready; empty if none is.
    pub(crate) picker: Picker,
    /// Every priority by itself, while calls ask for that.
    pub(super) levels: Option<Box<Levels>>,
    /// What sessions look in, while there are any.
    pub(crate) hosts: Option<Hosts>,
    /// Endpoints to wake when a call comes.
    pub(crate) idle: Vec<Arc<Endpoint>>,
    /// What to do without a ready one.
    pub(crate) hope: Hope,
    /// All of it taken together; for a cluster that is made of this one among others.
    pub(crate) state: Aggregate,
}

/// Whether waiting makes sense when nothing is ready, and why nothing is.
#[derive(Clone, Debug)]
pub(crate) enum Hope {
    /// Some are being connected, or can be.
    Wait(Arc<str>),
    /// All failed, or there are none: calls fail at once.
    Fail(Arc<str>),
}

impl Hope {
    pub(crate) fn reason(&self) -> &Arc<str> {
        match self {
            Self::Wait(reason) | Self::Fail(reason) => reason,
        }
    }
}

/// Endpoints by what keeps them from taking calls.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) connecting: usize,
    /// One of them.
    pub(crate) connecting_to: Option<SocketAddr>,
    pub(crate) idle: usize,
    pub(crate) backing_off: usize,
    /// The latest failure of one that backs off, or of a health check.
    pub(crate) failure: Option<Arc<str>>,
    pub(crate) ejected: usize,
    /// Not usable, says the control plane or a health check.
    pub(crate) unhealthy: usize,
    /// The first health check has not been answered.
    pub(crate) unchecked: usize,
    pub(crate) ready: usize,
    /// What the control plane's configuration lacks.
    pub(crate) note: Option<Arc<str>>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.ready, "ready"),
            (self.connecting, "connecting"),
            (self.idle, "idle"),
            (self.ejected, "ejected as outliers"),
            (self.unchecked, "waiting for their first health check"),
            (self.unhealthy, "not usable by their health status"),
            (self.backing_off, "backing off"),
        ];
        if counts.iter().all(|(count, _)| *count == 0) {
            f.write_str("the cluster has no endpoints")?;
        } else {
            f.write_str("no ready endpoint (")?;
            let mut comma = "";
            for (count, state) in counts.into_iter().filter(|(count, _)| *count > 0) {
                write!(f, "{comma}{count} {state}")?;
                comma = ", ";
            }
            if let Some(address) = self.connecting_to {
                write!(f, "; connecting to {address}")?;
            }
            if let Some(failure) = &self.failure {
                write!(f, ": {failure}")?;
            }
            f.write_str(")")?;
        }
        match &self.note {
            Some(note) => write!(f, "; {note}"),
            None => Ok(()),
        }
    }
}
