//! gRPC channels to the control plane over our own TLS: to the CA and, from `mesh-client`, to xDS.
//!
//! tonic's TLS cannot take a rustls verifier, so the connector is ours. A channel is lazy and
//! reconnects by itself; a connection that cannot be made fails the call with `UNAVAILABLE`, the
//! address and the cause ([`clarify`] does the same for one that breaks). Every new connection reads
//! the current identity.

mod io;

use self::io::Named;
use crate::{
    clock::Clock,
    rustls::{Provider, ServerTrust, client_config_with, default_provider},
    workload::{IdentityError, WorkloadIdentity},
};
use http::{Uri, uri::Authority};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// Longest time for TCP connection and TLS handshake together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ALPN: &[&[u8]] = &[b"h2"];

/// How a server that is gone without a word is noticed: while a call is open on a connection and nothing arrives, it is
/// pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// After so much silence. Servers of gRPC end a connection (GOAWAY, `too_many_pings`) that is pinged more often than
    /// every 5 minutes, unless they are configured to allow it.
    pub interval: Duration,
    /// An answer that takes longer ends the connection.
    pub limit: Duration,
}

impl Default for Keepalive {
    /// What gRPC does with control planes: 5 minutes, 20 s.
    fn default() -> Self {
        Self { interval: Duration::from_secs(300), limit: Duration::from_secs(20) }
    }
}

/// Why an address or its TLS settings cannot be used. Nothing was connected yet.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTarget {
    /// Not `host:port`.
    #[error("`{0}` is not an address of the form host:port")]
    Address(String),
    /// The host is neither a DNS name nor an IP address.
    #[error("`{0}` cannot be verified: it is neither a DNS name nor an IP address")]
    Name(String),
    /// This system has no Unix sockets.
    #[error("unix:{}: this system has no such sockets", .0.display())]
    Socket(PathBuf),
    /// The crypto provider lacks something.
    #[error("TLS cannot be configured: {0}")]
    Tls(rustls::Error),
}

/// A server to connect to: where, and how to know it. Cheap to clone.
#[derive(Clone)]
pub struct Target {
    /// As it is shown: `host:port`, or `unix:/path`.
    address: Arc<str>,
    /// Instead of TCP.
    socket: Option<PathBuf>,
    /// The address as tonic wants it, and as the server shall see it.
    at: Uri,
    origin: Uri,
    security: Security,
    connect_limit: Duration,
    keepalive: Keepalive,
}

#[derive(Clone)]
enum Security {
    Plaintext,
    Tls(Box<Tls>),
}

#[derive(Clone)]
struct Tls {
    trust: ServerTrust,
    provider: Provider,
    clock: Clock,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    /// What is presented; the handshake waits for it.
    identity: Option<WorkloadIdentity>,
}

impl Target {
    /// Without encryption or authentication: for development on one machine.
    pub fn plaintext(address: &str) -> Result<Self, InvalidTarget> {
        Self::new(parse_address(address)?, "http", Security::Plaintext)
    }

    /// Over a socket of this machine, without encryption: what Istio's agent offers.
    #[cfg(unix)]
    pub fn unix(path: &Path) -> Result<Self, InvalidTarget> {
        // What the server shall see as authority, as gRPC does it.
        let mut target = Self::new(Authority::from_static("localhost"), "http", Security::Plaintext)?;
        target.address = format!("unix:{}", path.display()).into();
        target.socket = Some(path.to_owned());
        Ok(target)
    }

    /// Of a system without such sockets.
    #[cfg(not(unix))]
    pub fn unix(path: &Path) -> Result<Self, InvalidTarget> {
        Err(InvalidTarget::Socket(path.to_owned()))
    }

    /// With TLS: `trust` knows the server, `identity` is presented to it.
    pub fn tls(
        address: &str,
        trust: ServerTrust,
        identity: Option<&WorkloadIdentity>,
    ) -> Result<Self, InvalidTarget> {
        let clock = identity.map(|identity| identity.clock().clone()).unwrap_or_default();
        Self::tls_with(address, trust, identity, default_provider(), clock)
    }

    /// As [`Target::tls`], with the crypto provider and the clock.
    pub fn tls_with(
        address: &str,
        trust: ServerTrust,
        identity: Option<&WorkloadIdentity>,
        provider: Provider,
        clock: Clock,
    ) -> Result<Self, InvalidTarget> {
        let address = parse_address(address)?;
        let name = server_name(address.host())?;
        let config = client_config_with(trust.clone(), identity, ALPN, provider.clone(), clock.clone())
            .map_err(InvalidTarget::Tls)?;
        let identity = identity.cloned();
        let tls = Tls { trust, provider, clock, name, config, identity };
        Self::new(address, "https", Security::Tls(Box::new(tls)))
    }

    fn new(address: Authority, scheme: &str, security: Security) -> Result<Self, InvalidTarget> {
        let uri = |scheme: &str| {
            let uri = Uri::builder().scheme(scheme).authority(address.clone()).path_and_query("/").build();
            uri.map_err(|_| InvalidTarget::Address(address.to_string()))
        };
        // For tonic the address is plain `http` always: it must not look for TLS of its own.
        let (at, origin) = (uri("http")?, uri(scheme)?);
        let address = address.as_str().into();
        let (connect_limit, keepalive) = (CONNECT_LIMIT, Keepalive::default());
        Ok(Self { address, socket: None, at, origin, security, connect_limit, keepalive })
    }

    /// The same server, with this identity presented to it. Changes nothing without TLS.
    pub fn presenting(&self, identity: &WorkloadIdentity) -> Result<Self, InvalidTarget> {
        let mut target = self.clone();
        if let Security::Tls(tls) = &mut target.security {
            tls.config = client_config_with(
                tls.trust.clone(),
                Some(identity),
                ALPN,
                tls.provider.clone(),
                tls.clock.clone(),
            )
            .map_err(InvalidTarget::Tls)?;
            tls.identity = Some(identity.clone());
        }
        Ok(target)
    }

    /// Verify, and ask for, this name instead of the address's host: for [`ServerTrust::Roots`] when
    /// the address is not what the certificate names.
    pub fn server_name(mut self, name: &str) -> Result<Self, InvalidTarget> {
        if let Security::Tls(tls) = &mut self.security {
            tls.name = server_name(name)?;
        }
        Ok(self)
    }

    /// Longest time for TCP connection and TLS handshake together; 5 s when nothing is said.
    #[must_use]
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect_limit = limit;
        self
    }

    /// When connections are pinged; what gRPC does when nothing is said.
    #[must_use]
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = keepalive;
        self
    }

    /// `host:port`, or `unix:/path`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether what is sent can be read by others on the way.
    pub fn is_plaintext(&self) -> bool {
        matches!(self.security, Security::Plaintext)
    }

    /// The clock that the server's certificate is judged by.
    pub fn clock(&self) -> Clock {
        match &self.security {
            Security::Plaintext => Clock::system(),
            Security::Tls(tls) => tls.clock.clone(),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.security {
            Security::Plaintext => write!(f, "Target({}, plaintext)", self.address),
            Security::Tls(tls) => {
                let identity = if tls.identity.is_some() { "with" } else { "without" };
                write!(f, "Target({}, {:?}, {identity} own identity)", self.address, tls.trust)
            }
        }
    }
}

/// Why a connection could not be made. Reaches callers as `UNAVAILABLE`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No connection.
    #[error("connecting to {address}: {cause}")]
    Tcp {
        /// `host:port`.
        address: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// No TLS session: either side refused the other, or the other does not speak TLS.
    #[error("TLS handshake with {address}: {cause}")]
    Tls {
        /// `host:port`.
        address: String,
        /// What rustls said.
        cause: std::io::Error,
    },
    /// There is no identity to present.
    #[error("{address} is not connected to without an identity: {cause}")]
    Identity {
        /// `host:port`.
        address: String,
        /// Why there is none.
        cause: IdentityError,
    },
    /// TLS, but not HTTP/2.
    #[error("{address} did not agree to speak HTTP/2 (ALPN h2)")]
    Alpn {
        /// `host:port`.
        address: String,
    },
    /// Too slow.
    #[error("connecting to {address}: nothing within {limit:?}")]
    Slow {
        /// `host:port`.
        address: String,
        /// How long was waited.
        limit: Duration,
    },
}

/// A lazy channel to the target: connects at the first call, again whenever the connection is lost.
/// Must be called within a tokio runtime.
pub fn connect(target: &Target) -> Channel {
    let (at, origin) = (target.at.clone(), target.origin.clone());
    let target = target.clone();
    Endpoint::from(at)
        .origin(origin)
        // Without a call there is nothing to lose, and servers of gRPC allow a ping in 2 hours.
        .keep_alive_while_idle(false)
        .http2_keep_alive_interval(target.keepalive.interval)
        .keep_alive_timeout(target.keepalive.limit)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let target = target.clone();
            async move {
                let stream = dial(&target).await?;
                Ok::<_, ConnectError>(TokioIo::new(Named::new(stream, target.address())))
            }
        }))
}

/// Says what broke. tonic reports a connection that broke (and, in TLS 1.3, a server that refused our
/// certificate: it judges when the client is done) as `UNKNOWN: transport error`; this makes it
/// `UNAVAILABLE` with address and cause. A status that came from the server is left as it is.
pub fn clarify(status: Status) -> Status {
    // Only tonic's own statuses have sources.
    let Some(mut cause) = status.source().filter(|_| status.code() == Code::Unknown) else {
        return status;
    };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Status::unavailable(cause.to_string())
}

#[cfg(unix)]
type Socket = UnixStream;
#[cfg(not(unix))]
type Socket = TcpStream;

type Connection = Either<Either<TcpStream, Socket>, TlsStream<TcpStream>>;

/// One connection to the target.
async fn dial(target: &Target) -> Result<Connection, ConnectError> {
    let address = || target.address.to_string();
    let limit = target.connect_limit;
    let slow = |_| ConnectError::Slow { address: address(), limit };
    tokio::time::timeout(limit, handshake(target)).await.map_err(slow)?
}

async fn handshake(target: &Target) -> Result<Connection, ConnectError> {
    let address = || target.address.to_string();
    let tcp_error = |cause| ConnectError::Tcp { address: address(), cause };
    #[cfg(unix)]
    if let Some(socket) = &target.socket {
        return Ok(Either::Left(Either::Right(UnixStream::connect(socket).await.map_err(tcp_error)?)));
    }
    let tcp = TcpStream::connect(&*target.address).await.map_err(tcp_error)?;
    tcp.set_nodelay(true).map_err(tcp_error)?;
    let Security::Tls(tls) = &target.security else {
        return Ok(Either::Left(Either::Left(tcp)));
    };
    if let Some(identity) = &tls.identity {
        // A server would refuse us without a certificate, and we would wait out a back-off.
        let ready = identity.ready().await;
        ready.map_err(|cause| ConnectError::Identity { address: address(), cause })?;
    }
    let stream = TlsConnector::from(tls.config.clone())
        .connect(tls.name.clone(), tcp)
        .await
        .map_err(|cause| ConnectError::Tls { address: address(), cause })?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(ConnectError::Alpn { address: address() });
    }
    Ok(Either::Right(stream))
}

fn parse_address(address: &str) -> Result<Authority, InvalidTarget> {
    let invalid = || InvalidTarget::Address(address.to_owned());
    let authority: Authority = address.parse().map_err(|_| invalid())?;
    let plain = !address.contains('@') && !authority.host().is_empty();
    match authority.port_u16() {
        Some(1..) if plain => Ok(authority),
        _ => Err(invalid()),
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, InvalidTarget> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| InvalidTarget::Name(host.to_owned()))
}

#[cfg(test)]
mod tests;
