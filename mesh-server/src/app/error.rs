//! Why a control plane does not start: what failed, where it was said, what to do.

use crate::source::SourceError;
use mesh_ca::{
    issuer::{AuthorityError, TokenError},
    workload::IdentityError,
};
use std::{io, net::SocketAddr, path::PathBuf};

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration directory is not there or not readable.
    #[error("{0}; create it, or name another one with --config")]
    Source(#[from] SourceError),
    /// Every object in the directory is broken.
    #[error(
        "nothing in {} can be served:\n\n{}\n\ncorrect the files and start again (`meshctl analyze {}` checks them)",
        directory.display(),
        findings.join("\n\n"),
        directory.display()
    )]
    NothingToServe {
        /// Which directory.
        directory: PathBuf,
        /// What is wrong, rendered.
        findings: Vec<String>,
    },
    /// Something in the directory cannot be named. It may be a security policy, and without a last good
    /// version to serve instead, everything else would be served without it.
    #[error(
        "the configuration in {} is incomplete, a security policy may be missing:\n\n{}\n\n\
         correct or remove the files and start again (`meshctl analyze {}` checks them)",
        directory.display(),
        findings.join("\n\n"),
        directory.display()
    )]
    Incomplete {
        /// Which directory.
        directory: PathBuf,
        /// What is wrong, rendered.
        findings: Vec<String>,
    },
    /// The data directory cannot be used: of another trust domain, readable by others, …
    #[error("{0} (--data, --trust-domain)")]
    Authority(#[from] AuthorityError),
    /// The join tokens of the data directory cannot be used.
    #[error("{0} (--data)")]
    Tokens(#[from] TokenError),
    /// A port is in use, or not ours to use.
    #[error("cannot listen on {address} ({flag}): {cause}; {}", advice(cause))]
    Bind {
        /// The option that names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// The own certificate cannot be had.
    #[error("the control plane's own certificate: {0}")]
    Identity(#[from] IdentityError),
    /// TLS cannot be configured.
    #[error("TLS cannot be configured: {0}")]
    Tls(#[from] rustls::Error),
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "stop the program that uses it, or choose another port (0 for any)",
        io::ErrorKind::PermissionDenied => "choose a port above 1023",
        io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
        _ => "choose another address",
    }
}
