//! One entry of `xds_servers`.

use crate::server::Variant;
use std::{fmt, path::PathBuf, time::Duration};

/// A control plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerConfig {
    /// `host:port`, without scheme; or `unix:/path`.
    pub address: String,
    /// How it is spoken to.
    pub credentials: ChannelCredentials,
    /// What is sent with each stream; only over an encrypted connection (gRFC A97).
    pub call_credentials: Vec<CallCredentials>,
    /// What it promises.
    pub features: ServerFeatures,
}

/// `channel_creds`: the first of a supported type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChannelCredentials {
    /// Plaintext.
    Insecure,
    /// TLS (gRFC A65).
    Tls {
        /// Roots, PEM.
        ca_certificate_file: Option<PathBuf>,
        /// Roots by trust domain (gRFC A87), before `ca_certificate_file`. The control plane is then any that has
        /// a SPIFFE id of one of these domains; the name of its address does not count.
        spiffe_trust_bundle_map_file: Option<PathBuf>,
        /// Own certificate and key, PEM. Absent: the certificate of the provider `default`, if it has one.
        identity: Option<(PathBuf, PathBuf)>,
        /// Between two reads of the files. Default 600 s.
        refresh_interval: Duration,
    },
}

/// `call_creds`: every one of a supported type is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallCredentials {
    /// The JWT in this file, read again before it expires, in `authorization: Bearer …` (gRFC A97).
    JwtTokenFile(PathBuf),
}

/// `server_features`; unknown ones are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerFeatures {
    /// `trusted_xds_server` (A81).
    pub trusted_xds_server: bool,
    /// `fail_on_data_errors` (A88): a deleted or rejected resource is dropped, not kept.
    pub fail_on_data_errors: bool,
    /// `resource_timer_is_transient_error` (A88): a late resource is unavailable, not absent.
    pub resource_timer_is_transient_error: bool,
    /// `xds_delta`, ours: the incremental variant of ADS. `mesh-server` speaks both.
    pub delta: bool,
}

impl ServerFeatures {
    /// The names of the features that are on.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.trusted_xds_server, "trusted_xds_server"),
            (self.fail_on_data_errors, "fail_on_data_errors"),
            (self.resource_timer_is_transient_error, "resource_timer_is_transient_error"),
            (self.delta, "xds_delta"),
        ];
        all.into_iter().filter_map(|(on, name)| on.then_some(name)).collect()
    }

    /// Turns on what `name` names; unknown names change nothing.
    pub fn enable(&mut self, name: &str) {
        match name {
            "trusted_xds_server" => self.trusted_xds_server = true,
            "fail_on_data_errors" => self.fail_on_data_errors = true,
            // One paragraph of A88 spells it the second way.
            "resource_timer_is_transient_error" | "resource_timer_is_transient_failure" => {
                self.resource_timer_is_transient_error = true;
            }
            "xds_delta" => self.delta = true,
            _ => {}
        }
    }
}

/// A `server_uri` that this version cannot use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{uri}` is not a usable server_uri: {reason}; write `host:port`, `dns:///host:port` or `unix:///path`"
)]
pub struct InvalidServerUri {
    uri: String,
    reason: String,
}

impl ServerConfig {
    /// A control plane at `uri`: `host:port`, `dns:///host:port`, `unix:///path`, or with `http://` (plaintext)
    /// or `https://` (TLS) in agreement with the credentials.
    pub fn new(uri: &str, credentials: ChannelCredentials) -> Result<Self, InvalidServerUri> {
        let invalid = |reason: &str| InvalidServerUri { uri: uri.into(), reason: reason.into() };
        let secure = !matches!(credentials, ChannelCredentials::Insecure);
        if let Some(path) = uri.strip_prefix("unix:") {
            // `unix:///absolute`, `unix:/absolute`, `unix:relative`.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains('\0') {
                return Err(invalid("it names no socket"));
            }
            if secure {
                return Err(invalid("a socket of this machine needs no TLS: use channel_creds `insecure`"));
            }
            return Ok(Self::at(format!("unix:{path}"), credentials));
        }
        let address = if let Some(rest) = uri.strip_prefix("dns:///") {
            rest
        } else if let Some(rest) = uri.strip_prefix("http://") {
            if secure {
                return Err(invalid("http:// contradicts channel_creds `tls`"));
            }
            rest
        } else if let Some(rest) = uri.strip_prefix("https://") {
            if !secure {
                return Err(invalid("https:// contradicts channel_creds `insecure`"));
            }
            rest
        } else if uri.contains("://") {
            return Err(invalid("its scheme is not supported"));
        } else {
            uri.strip_prefix("dns:").unwrap_or(uri)
        };
        let authority = address.trim_end_matches('/').parse::<http::uri::Authority>();
        let authority = authority.map_err(|error| invalid(&error.to_string()))?;
        if authority.port_u16().is_none() || authority.as_str().contains('@') {
            return Err(invalid("it has no port"));
        }
        Ok(Self::at(authority.to_string(), credentials))
    }

    pub(crate) fn at(address: String, credentials: ChannelCredentials) -> Self {
        Self { address, credentials, call_credentials: Vec::new(), features: ServerFeatures::default() }
    }

    /// Which way of ADS it is spoken to.
    pub fn variant(&self) -> Variant {
        if self.features.delta { Variant::Delta } else { Variant::Sotw }
    }

    /// Whether nobody on the way can read what it sends: TLS, a socket of this machine or its loopback.
    pub fn is_private(&self) -> bool {
        match self.credentials {
            ChannelCredentials::Tls { .. } => true,
            ChannelCredentials::Insecure if self.socket().is_some() => true,
            ChannelCredentials::Insecure => {
                let authority = self.address.parse::<http::uri::Authority>().ok();
                authority.is_some_and(|authority| {
                    let host = authority.host().trim_matches(['[', ']']);
                    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
                })
            }
        }
    }

    /// The path of its socket, if that is how it is reached.
    pub fn socket(&self) -> Option<&std::path::Path> {
        self.address.strip_prefix("unix:").map(std::path::Path::new)
    }
}

impl fmt::Display for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}
