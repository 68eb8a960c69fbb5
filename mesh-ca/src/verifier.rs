//! Judging a peer's certificate: its chain by the roots of the trust domain that it claims, then its
//! name by a check.
//!
//! The order matters: the SPIFFE id in the leaf selects the bundle, the bundle proves the id, and only
//! then does a check see it. Everything unknown is refused: no id, an unknown domain, an issuer that
//! may not sign. See [X509-SVID] §5; webpki ignores key usages, so they are looked at here.
//!
//! [X509-SVID]: https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md

use crate::{
    bundle::{Roots, TrustBundles},
    certificate::{self, PeerCertificate},
    clock,
    revocation::RevocationLists,
    spiffe_id::{SpiffeId, TrustDomain},
    svid,
};
use rustls::{CertificateError, OtherError, crypto::WebPkiSupportedAlgorithms};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{fmt, sync::Arc, time::SystemTime};
use webpki::{EndEntityCert, KeyUsage};

/// Why a peer was refused. The text is for the log of whoever refused it.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Refused {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

// rustls shows the `Debug` form of foreign errors in places.
impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Refused> for rustls::Error {
    fn from(refused: Refused) -> Self {
        CertificateError::Other(OtherError(Arc::new(refused))).into()
    }
}

/// Decides by name, after the chain has been verified, whether this is the peer that was meant.
pub trait PeerCheck: Send + Sync {
    /// Accepts, or says what was expected and what was found.
    fn check(&self, peer: &PeerCertificate) -> Result<(), String>;
}

impl<F> PeerCheck for F
where
    F: Fn(&PeerCertificate) -> Result<(), String> + Send + Sync,
{
    fn check(&self, peer: &PeerCertificate) -> Result<(), String> {
        self(peer)
    }
}

/// Which server is meant. Cheap to clone.
#[derive(Clone)]
pub struct ServerCheck {
    check: Arc<dyn PeerCheck>,
    shown: Arc<str>,
}

impl ServerCheck {
    /// Exactly this workload.
    pub fn exact(id: SpiffeId) -> Self {
        Self::any_of([id])
    }

    /// One of these workloads. None at all refuses everybody.
    pub fn any_of(ids: impl IntoIterator<Item = SpiffeId>) -> Self {
        let ids: Vec<SpiffeId> = ids.into_iter().collect();
        let shown = match ids.as_slice() {
            [] => "nobody (the list of accepted ids is empty)".to_owned(),
            [one] => one.to_string(),
            several => {
                let ids: Vec<_> = several.iter().map(SpiffeId::as_str).collect();
                format!("one of {}", ids.join(", "))
            }
        };
        let expected = shown.clone();
        Self::named(&shown, move |peer: &PeerCertificate| match &peer.spiffe_id {
            Some(id) if ids.contains(id) => Ok(()),
            _ => Err(format!("expected {expected}, found {}", peer.names())),
        })
    }

    /// Any workload of this trust domain.
    pub fn trust_domain(domain: TrustDomain) -> Self {
        Self::named(&format!("any workload of {domain}"), move |peer: &PeerCertificate| {
            match &peer.spiffe_id {
                Some(id) if *id.trust_domain() == domain => Ok(()),
                _ => Err(format!("expected a workload of trust domain {domain}, found {}", peer.names())),
            }
        })
    }

    /// A rule of the caller's own.
    pub fn custom(check: impl PeerCheck + 'static) -> Self {
        Self::named("a custom check", check)
    }

    /// A rule of the caller's own, named for messages.
    pub fn named(shown: &str, check: impl PeerCheck + 'static) -> Self {
        Self { check: Arc::new(check), shown: shown.into() }
    }

    pub(crate) fn check(&self, peer: &PeerCertificate) -> Result<(), Refused> {
        self.check.check(peer).map_err(Refused)
    }
}

impl fmt::Debug for ServerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerCheck({})", self.shown)
    }
}

/// Which side of a connection the certificate was presented by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The accepting side; its certificate must be good for server authentication.
    Server,
    /// The connecting side; its certificate must be good for client authentication.
    Client,
}

/// Verifies an SVID's chain against the bundle of its own trust domain.
pub fn verify_svid(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundles: &TrustBundles,
    role: Role,
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Result<PeerCertificate, Refused> {
    let parsed = certificate::parse(leaf).map_err(|error| Refused(format!("peer certificate: {error}")))?;
    let id = certificate::svid_id(&parsed)
        .map_err(|error| Refused(format!("the peer's certificate is not an X.509 SVID: {error}")))?;
    let Some(roots) = bundles.roots(id.trust_domain()) else {
        let known: Vec<_> = bundles.trust_domains().map(TrustDomain::as_str).collect();
        return Err(Refused(format!(
            "the peer claims {id}, but there is no trust bundle for {} (known trust domains: {})",
            id.trust_domain(),
            known.join(", ")
        )));
    };
    verify_chain(leaf, intermediates, roots, None, role, algorithms, now, id.as_str())?;
    PeerCertificate::from_der(leaf).map_err(|error| Refused(format!("certificate of {id}: {error}")))
}

/// Verifies the chain of a server outside the mesh; which server it is, is for a check to say. Where there are lists, a
/// certificate of which they do not say that it is not revoked is refused.
pub fn verify_outsider(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &Roots,
    lists: Option<&RevocationLists>,
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Result<PeerCertificate, Refused> {
    let peer =
        PeerCertificate::from_der(leaf).map_err(|error| Refused(format!("peer certificate: {error}")))?;
    verify_chain(leaf, intermediates, roots, lists, Role::Server, algorithms, now, &all_names(&peer))?;
    Ok(peer)
}

/// Verifies the chain and the DNS name or IP address of a server outside the mesh.
pub fn verify_named(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &Roots,
    name: &ServerName<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Result<PeerCertificate, Refused> {
    let shown = name.to_str();
    let peer = PeerCertificate::from_der(leaf)
        .map_err(|error| Refused(format!("certificate presented for {shown}: {error}")))?;
    verify_chain(leaf, intermediates, roots, None, Role::Server, algorithms, now, &shown)?;
    EndEntityCert::try_from(leaf)
        .and_then(|certificate| certificate.verify_is_valid_for_subject_name(name))
        .map_err(|_| Refused(format!("expected a certificate for {shown}, found {}", all_names(&peer))))?;
    Ok(peer)
}

/// For a name mismatch the DNS names count, whatever SPIFFE id the certificate also has.
fn all_names(peer: &PeerCertificate) -> String {
    PeerCertificate { spiffe_id: None, ..peer.clone() }.names()
}

#[expect(clippy::too_many_arguments, reason = "what a chain is judged by")]
fn verify_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &Roots,
    lists: Option<&RevocationLists>,
    role: Role,
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
    shown: &str,
) -> Result<(), Refused> {
    let certificate = EndEntityCert::try_from(leaf)
        .map_err(|error| Refused(format!("certificate of {shown} cannot be read: {error}")))?;
    let usage = match role {
        Role::Server => KeyUsage::server_auth(),
        Role::Client => KeyUsage::client_auth(),
    };
    let issuers_may_sign = |path: &webpki::VerifiedPath<'_>| {
        let may_sign = path.intermediate_certificates().all(|issuer| {
            certificate::parse(&issuer.der())
                .and_then(|issuer| certificate::may_sign_certificates(&issuer))
                .is_ok_and(|may| may)
        });
        if may_sign { Ok(()) } else { Err(webpki::Error::EndEntityUsedAsCa) }
    };
    let all = lists.map(RevocationLists::all).unwrap_or_default();
    let revocation = lists.and_then(|lists| lists.options(&all));
    if lists.is_some() && revocation.is_none() {
        return Err(Refused(format!("whether the certificate of {shown} is revoked cannot be known")));
    }
    certificate
        .verify_for_usage(
            algorithms.all,
            roots.anchors(),
            intermediates,
            now,
            usage,
            revocation,
            Some(&issuers_may_sign),
        )
        .map(|_| ())
        .map_err(|error| Refused(explain(&error, shown, lists.map_or("", RevocationLists::source))))
}

/// The failures that happen in practice, each with what to look at; `lists` is where revocation lists are from.
fn explain(error: &webpki::Error, shown: &str, lists: &str) -> String {
    let time = |time: &UnixTime| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time.as_secs());
    let what = format!("certificate of {shown}");
    match error {
        webpki::Error::CertExpired { time: now, not_after } => {
            format!(
                "{what} expired at {}; the clock here says {}",
                clock::utc(time(not_after)),
                clock::utc(time(now))
            )
        }
        webpki::Error::CertNotValidYet { time: now, not_before } => {
            svid::validity_error(&what, time(not_before), time(not_before), time(now))
                .unwrap_or_else(|| format!("{what} is not valid yet"))
        }
        webpki::Error::UnknownIssuer => {
            format!("{what} was not issued by an authority in the trust bundle that applies to it")
        }
        webpki::Error::CertRevoked => format!("{what}, or one that issued it, is revoked (by {lists})"),
        webpki::Error::UnknownRevocationStatus => {
            format!("{what}, or one that issued it, may be revoked: {lists} has no list of its issuer")
        }
        webpki::Error::CrlExpired { time: now, next_update } => format!(
            "{what}, or one that issued it, may be revoked: the list in {lists} ended at {}; the clock here says {}",
            clock::utc(time(next_update)),
            clock::utc(time(now))
        ),
        webpki::Error::InvalidCrlSignatureForPublicKey | webpki::Error::IssuerNotCrlSigner => format!(
            "{what}, or one that issued it, may be revoked: the list in {lists} was not signed by the issuer that it names"
        ),
        webpki::Error::EndEntityUsedAsCa => {
            format!("{what} was issued by a certificate that may not sign certificates")
        }
        other => format!("{what} does not verify: {other}"),
    }
}

#[cfg(test)]
mod tests;
