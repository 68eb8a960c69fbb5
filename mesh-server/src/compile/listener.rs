//! Listeners of clients: the target `reviews:9080`, whatever it is written as (Istio's grpcgen LDS).
//!
//! A target without a port is served when the service has only one; Istio serves none, and a client that
//! asks waits for ever.

use super::{
    Compiler,
    names::Target,
    route::{action::FAULT_FILTER, cluster_name},
};
use crate::model::PersistentSession;
use mesh_xds::resource::{
    fault::Fault,
    filter::{FilterConfig, HttpFilter},
    listener::{HttpConnectionManager, Listener, ListenerKind, RouteSource},
    stateful_session::{SessionCookie, SessionState, StatefulSession},
};
use std::{sync::Arc, time::Duration};

/// Name of the terminal filter.
pub(super) const ROUTER_FILTER: &str = "envoy.filters.http.router";
/// Name of the filter of persistent sessions.
const SESSION_FILTER: &str = "envoy.filters.http.stateful_session";

impl Compiler<'_> {
    /// The listener of a client's target; its name is the target as it was asked for.
    pub(super) fn outbound_listener(&self, name: &str) -> Option<Listener> {
        let target = Target::parse(name)?;
        let candidates = target.candidates(&self.client.scope.namespace, &self.client.domain);
        let (service, port) = candidates.iter().find_map(|host| {
            let service = self.service(host)?;
            let port = match (target.port, service.ports.as_slice()) {
                (Some(port), _) => service.port(port)?,
                (None, [only]) => only,
                (None, _) => return None,
            };
            Some((service, port.number))
        })?;
        let routes = RouteSource::Rds(cluster_name(port, "", &service.hostname));
        let mut manager = connection_manager(routes);
        if let Some(session) = service.session.as_ref().filter(|_| self.client.is_mesh()) {
            manager.filters.insert(0, stateful_session(session));
        }
        Some(Listener { name: name.into(), kind: ListenerKind::Api(manager) })
    }
}

/// Faults, then the router: faults are injected by overrides of single routes.
pub(super) fn connection_manager(routes: RouteSource) -> HttpConnectionManager {
    let nothing = Fault { delay: None, abort: None, headers: Vec::new(), max_active: None };
    HttpConnectionManager {
        routes,
        filters: vec![
            HttpFilter {
                name: FAULT_FILTER.into(),
                config: FilterConfig::Fault(Arc::new(nothing)),
                disabled: false,
            },
            router(),
        ],
        max_stream_duration: None,
    }
}

/// Calls stay with their endpoint. Of gRPC's implementations only some have the filter, and the others would refuse
/// the listener with it: it is for our own clients.
fn stateful_session(session: &PersistentSession) -> HttpFilter {
    let state = match session {
        PersistentSession::Cookie { name, path } => SessionState::Cookie(SessionCookie {
            name: name.as_str().into(),
            // As Istio's: a cookie of the session.
            ttl: Duration::ZERO,
            path: path.as_str().into(),
            attributes: Vec::new(),
        }),
        PersistentSession::Header(name) => SessionState::Header(name.clone()),
    };
    let config = StatefulSession { state: Some(state), strict: None };
    HttpFilter {
        name: SESSION_FILTER.into(),
        config: FilterConfig::StatefulSession(Arc::new(config)),
        disabled: false,
    }
}

pub(super) fn router() -> HttpFilter {
    HttpFilter { name: ROUTER_FILTER.into(), config: FilterConfig::Router, disabled: false }
}

#[cfg(test)]
mod tests;
