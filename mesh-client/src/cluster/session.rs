//! Calls that belong to a session stay with their endpoint (gRFC A55; Envoy's override host).
//!
//! Promises: the endpoint of a session is used while it is in the cluster and its status is one of
//! `override_host_status`, whatever the policy would pick: one that the policy has no connection to is dialled, and
//! the call waits for it. A session that cannot have its endpoint goes where calls go, or fails if it is strict. As in
//! Envoy, an endpoint that is ejected or fails its health checks is UNHEALTHY, and a retry is not bound to the session,
//! unless that is strict. (In gRPC retries are bound, too, and ejection is not looked at.) It is looked for in every
//! priority; of a cluster of clusters in the leaf in use, which is chosen first (A75), of a subset among the endpoints of
//! the subset.
//!
//! Clusters keep nothing of this until a call with a session comes, and nothing 15 minutes after the last one.

use super::{Shared, snapshot::Snapshot};
use crate::{endpoint::Endpoint, retry::policy::of_http};
use http::StatusCode;
use std::{collections::HashMap, net::SocketAddr, sync::Arc};
use tonic::Code;

/// The session of a call.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Its endpoint, by any of its addresses; empty: it has none yet.
    hosts: Box<[SocketAddr]>,
    /// The call fails without it, with this status if it is not in the cluster.
    strict: Option<StatusCode>,
    /// This attempt may go anywhere.
    released: bool,
}

impl Session {
    pub(crate) fn new(hosts: Box<[SocketAddr]>, strict: Option<StatusCode>) -> Self {
        Self { hosts, strict, released: false }
    }

    /// The next attempt repeats one that failed, or does not.
    pub(crate) fn repeats(&mut self, repeats: bool) {
        self.released = repeats && self.strict.is_none();
    }
}

/// What a session can have of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Ready,
    Connecting,
    Idle,
    /// It cannot be connected to.
    Failed,
    /// Its status is not one that sessions may ask for.
    Refused,
}

/// Which endpoint an address is of; made anew when endpoints change.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) positions: HashMap<SocketAddr, u32>,
    pub(super) members: Box<[Arc<Endpoint>]>,
}

/// The endpoints of a cluster, as sessions see them.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(super) index: Arc<Index>,
    /// By position.
    pub(super) states: Box<[Host]>,
}

impl Hosts {
    fn find(&self, address: SocketAddr) -> Option<(Host, &Arc<Endpoint>)> {
        let position = usize::try_from(*self.index.positions.get(&address)?).ok()?;
        Some((*self.states.get(position)?, self.index.members.get(position)?))
    }
}

/// Where a call of a session goes.
pub(super) enum Stay<'a> {
    /// Where calls go.
    Anywhere,
    With(&'a Arc<Endpoint>),
    /// It waits for its endpoint.
    Later,
    /// It fails, so.
    Lost(Code, String),
}

impl Shared {
    /// Where a call of this session goes.
    pub(super) fn stay<'a>(&self, snapshot: &'a Snapshot, session: &Session) -> Stay<'a> {
        self.session_asks.mark_used();
        let Some(hosts) = &snapshot.hosts else {
            self.session_asks.want(|asked| *asked = true);
            // What there is to look in comes with the next snapshot.
            return if session.hosts.is_empty() || session.released { Stay::Anywhere } else { Stay::Later };
        };
        if session.hosts.is_empty() || session.released {
            return Stay::Anywhere;
        }
        let known = || session.hosts.iter().filter_map(|address| hosts.find(*address));
        let first = |wanted: Host| known().find(|(host, _)| *host == wanted).map(|(_, endpoint)| endpoint);
        if let Some(ready) = first(Host::Ready) {
            return Stay::With(ready);
        }
        if let Some(idle) = first(Host::Idle) {
            idle.kick();
            return Stay::Later;
        }
        if first(Host::Connecting).is_some() {
            return Stay::Later;
        }
        let Some(strict) = session.strict else { return Stay::Anywhere };
        let hosts = session.hosts.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" or ");
        match known().next() {
            None => Stay::Lost(
                of_http(strict.as_u16()),
                format!("the session (strict) is with {hosts}, which is not there"),
            ),
            Some((host, _)) => {
                let why = match host {
                    Host::Refused => "its status is none that sessions may ask for (override_host_status)",
                    _ => "it cannot be connected to",
                };
                Stay::Lost(Code::Unavailable, format!("the session (strict) is with {hosts}: {why}"))
            }
        }
    }
}
