//! One accepted connection: who is at its other end, and which rules its requests are judged by.
//!
//! The peer's identity comes from the verified TLS handshake and from nowhere else. The rules follow the
//! configuration (gRFC A36): a connection whose TLS still fits gets the new routes and filters at once; one
//! whose TLS does not is asked to leave, and is refused from then on if it is weaker than what is required.

use super::{filter_chain::Chain, state::Shared};
use arc_swap::ArcSwap;
use futures_util::task::AtomicWaker;
use mesh_ca::{certificate::PeerCertificate, spiffe_id::SpiffeId};
use mesh_xds::resource::tls::DownstreamTls;
use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::Waker,
};
use tokio::time::Instant;

/// Who a peer proved to be in its TLS handshake. Cheap to clone. Handlers find it in the extensions of
/// their request; a peer without certificate has none.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerIdentity(Arc<Names>);

#[derive(PartialEq, Eq)]
struct Names {
    spiffe_id: Option<SpiffeId>,
    uri_sans: Vec<Arc<str>>,
    dns_sans: Vec<Arc<str>>,
    shown: String,
}

impl PeerIdentity {
    /// From the certificate that a handshake verified.
    pub(super) fn verified(certificate: PeerCertificate) -> Self {
        let shown = certificate.names();
        let shared = |names: Vec<String>| names.into_iter().map(Arc::from).collect();
        Self(Arc::new(Names {
            spiffe_id: certificate.spiffe_id,
            uri_sans: shared(certificate.uri_sans),
            dns_sans: shared(certificate.dns_sans),
            shown,
        }))
    }

    /// The SPIFFE id, e.g. `spiffe://cluster.local/ns/default/sa/reviews`.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.0.spiffe_id.as_ref()
    }

    /// All URI names of the certificate.
    pub fn uri_sans(&self) -> &[Arc<str>] {
        &self.0.uri_sans
    }

    /// All DNS names of the certificate.
    pub fn dns_sans(&self) -> &[Arc<str>] {
        &self.0.dns_sans
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerIdentity({})", self.0.shown)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.shown)
    }
}

/// What tonic tells each request about its connection.
#[derive(Clone)]
pub struct ConnectInfo(pub(super) Arc<Connection>);

impl ConnectInfo {
    /// Who the peer proved to be.
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.0.security.peer()
    }

    /// Where the peer is.
    pub fn remote_addr(&self) -> SocketAddr {
        self.0.remote
    }

    /// Which of our addresses it connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }
}

impl fmt::Debug for ConnectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectInfo")
            .field("peer", &self.peer())
            .field("remote_addr", &self.remote_addr())
            .field("local_addr", &self.local_addr())
            .finish()
    }
}

/// How a connection is protected.
#[derive(Clone, Debug)]
pub(super) enum Security {
    /// Not at all; so its peer has no identity.
    Plaintext,
    /// By TLS as this context asked for.
    Tls {
        /// The context under which the handshake was made.
        context: DownstreamTls,
        /// Who the peer proved to be.
        peer: Option<PeerIdentity>,
    },
}

impl Security {
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls { .. })
    }

    pub(super) fn peer(&self) -> Option<&PeerIdentity> {
        match self {
            Self::Plaintext => None,
            Self::Tls { peer, .. } => peer.as_ref(),
        }
    }

    /// How a connection that is protected so stands to a chain that asks for `wanted`.
    pub(super) fn fit(&self, wanted: Option<&DownstreamTls>) -> Fit {
        match (self, wanted) {
            (Self::Plaintext, None) => Fit::Same,
            (Self::Plaintext, Some(_)) => Fit::Weaker("plaintext where the configuration requires TLS"),
            (Self::Tls { .. }, None) => Fit::Outdated,
            (Self::Tls { context, .. }, Some(wanted)) if context == wanted => Fit::Same,
            (Self::Tls { context, .. }, Some(wanted)) if context.client_roots != wanted.client_roots => {
                Fit::Weaker("the client's certificate was not verified against the roots now configured")
            }
            (Self::Tls { peer: None, .. }, Some(wanted)) if wanted.require_client_certificate => {
                Fit::Weaker("no client certificate where the configuration now requires one")
            }
            (Self::Tls { .. }, Some(_)) => Fit::Outdated,
        }
    }
}

/// How a connection's protection stands to what is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// As configured.
    Same,
    /// Different, but nothing that is required is missing: it may finish what it does.
    Outdated,
    /// Something that is required is missing.
    Weaker(&'static str),
}

/// What a connection's requests are judged by.
#[derive(Debug)]
pub(super) enum Rules {
    /// This chain.
    Chain(Arc<Chain>),
    /// None: every request is refused. Why, for the log.
    Refused(Arc<str>),
}

const OPEN: u8 = 0;
const LEAVING: u8 = 1;
const CLOSED: u8 = 2;

/// What the IO of a connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Carry on.
    Serve,
    /// Ask the peer to leave, and wait for it.
    Leave,
    /// End now.
    Close,
}

/// State of one connection, shared by its IO, its requests and the configuration.
pub(super) struct Connection {
    /// The server that accepted it: its layer takes no other's connections.
    pub(super) server: Weak<Shared>,
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) security: Security,
    /// When the peer's certificate ends.
    pub(super) expires: Option<Instant>,
    rules: ArcSwap<Rules>,
    order: AtomicU8,
    io: AtomicWaker,
}

impl Connection {
    pub(super) fn new(
        server: Weak<Shared>,
        remote: SocketAddr,
        local: SocketAddr,
        security: Security,
        expires: Option<Instant>,
        chain: Arc<Chain>,
    ) -> Self {
        let rules = ArcSwap::from_pointee(Rules::Chain(chain));
        let (order, io) = (AtomicU8::new(OPEN), AtomicWaker::new());
        Self { server, remote, local, security, expires, rules, order, io }
    }

    /// Whether the peer has to prove again who it is: nothing new is served here, whatever the rules.
    pub(super) fn has_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }

    /// What a request is judged by, now.
    pub(super) fn rules(&self) -> arc_swap::Guard<Arc<Rules>> {
        self.rules.load()
    }

    pub(super) fn judge_by(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Asks the peer to open no more streams here.
    pub(super) fn leave(&self) {
        if self.order.compare_exchange(OPEN, LEAVING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.io.wake();
        }
    }

    /// Ends the connection and whatever runs on it.
    pub(super) fn close(&self) {
        self.order.store(CLOSED, Ordering::Release);
        self.io.wake();
    }

    /// What the IO is to do; `waker` is woken when that changes.
    pub(super) fn order(&self, waker: &Waker) -> Order {
        self.io.register(waker);
        match self.order.load(Ordering::Acquire) {
            OPEN => Order::Serve,
            LEAVING => Order::Leave,
            _ => Order::Close,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} -> {}, {:?})", self.remote, self.local, self.security)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(roots: Option<&str>, require: bool) -> DownstreamTls {
        DownstreamTls {
            identity: "default".into(),
            client_roots: roots.map(Into::into),
            require_client_certificate: require,
        }
    }

    fn tls(context: DownstreamTls) -> Security {
        Security::Tls { context, peer: None }
    }

    #[test]
    fn what_is_weaker_than_required_is_told_from_what_is_only_different() {
        let strict = context(Some("default"), true);
        let lax = context(Some("default"), false);
        let anonymous = context(None, false);
        assert_eq!(Security::Plaintext.fit(None), Fit::Same);
        assert!(matches!(Security::Plaintext.fit(Some(&anonymous)), Fit::Weaker(_)));
        assert_eq!(tls(strict.clone()).fit(None), Fit::Outdated);
        assert_eq!(tls(strict.clone()).fit(Some(&strict)), Fit::Same);
        assert_eq!(tls(strict.clone()).fit(Some(&lax)), Fit::Outdated);
        assert!(matches!(tls(lax).fit(Some(&strict)), Fit::Weaker(_)));
        assert!(matches!(tls(anonymous).fit(Some(&strict)), Fit::Weaker(_)));
        assert!(matches!(tls(strict).fit(Some(&context(Some("other"), true))), Fit::Weaker(_)));
    }
}
