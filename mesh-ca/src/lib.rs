//! Who am I, who are you, and who says so: workload identity for the mesh.
//!
//! A workload holds a [`workload::WorkloadIdentity`]: a cheap handle on its current X.509 SVID and
//! the trust bundles it judges others by. A [`source`] fills it (fixed values, files, or a CA that
//! speaks Istio's `IstioCertificateService`) and keeps it fresh; [`mod@rustls`] turns it into TLS
//! configurations that follow every rotation without being rebuilt. The feature `issuer` adds the
//! other half: an authority that signs, attestors that decide who is asking, and the service itself.
//!
//! What it promises: names come from authenticated callers, never from requests; a peer is judged by
//! the bundle of the trust domain it claims; an identity that cannot be renewed is served until it
//! expires and not a second longer; no private key or token appears in any `Debug` output.
//!
//! What it does not do: it knows nothing of xDS, and it revokes by short lifetimes only (no CRL, no
//! OCSP).
//!
//! Specifications: [SPIFFE-ID], [X509-SVID], gRFC A29 (file watcher), Istio's `ca.proto`.
//!
//! [SPIFFE-ID]: https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md
//! [X509-SVID]: https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md

pub mod bundle;
pub mod certificate;
pub mod channel;
pub mod clock;
pub mod csr;
pub mod key;
pub mod rotation;
pub mod rustls;
pub mod source;
pub mod spiffe_id;
pub mod svid;
pub mod verifier;
pub mod workload;

#[cfg(feature = "issuer")]
pub mod issuer;

/// The messages, client and server of Istio's certificate service, generated from
/// `proto/istio_ca.proto`.
pub mod proto {
    /// Package `istio.v1.auth`.
    #[allow(missing_docs, unreachable_pub, clippy::all)]
    #[rustfmt::skip]
    pub mod istio_ca;
}

#[cfg(test)]
mod testing;
