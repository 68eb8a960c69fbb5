//! Who is asking? Attestors look at what a request proves, each at one kind of evidence.
//!
//! They serve the certificate service and the xDS server alike. An attestor finds its kind of evidence
//! absent, or rejects it, or proves a SPIFFE id; the first proof counts. Reasons go to the server's
//! log, never to the asker.

use super::{PeerInfo, token::JoinTokens};
use crate::{
    clock::{self, Clock},
    source::ca::{CLAIMED_NAMESPACE, CLAIMED_SERVICE_ACCOUNT},
    spiffe_id::{SERVER_NAMESPACE, SpiffeId, TrustDomain},
};
use std::{fmt, sync::Arc};
use tonic::metadata::MetadataMap;

/// What a request brings to prove its caller's identity.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The request's headers.
    pub metadata: &'a MetadataMap,
    /// The connection's other end.
    pub peer: &'a PeerInfo,
}

/// Why an attestor did not prove an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAttested {
    /// The request has no evidence of the kind it looks at.
    Absent,
    /// It has, but it is not good.
    Rejected(String),
}

impl fmt::Display for NotAttested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("not presented"),
            Self::Rejected(reason) => f.write_str(reason),
        }
    }
}

/// Proves identities by one kind of evidence.
#[tonic::async_trait]
pub trait Attestor: Send + Sync + 'static {
    /// The kind of evidence, for the log.
    fn name(&self) -> &'static str;

    /// The caller's proven identity.
    async fn attest(&self, evidence: &Evidence<'_>) -> Result<SpiffeId, NotAttested>;
}

/// Attestors in the order in which they are asked. Cheap to clone.
#[derive(Clone, Default)]
pub struct Attestors(Vec<Arc<dyn Attestor>>);

impl Attestors {
    /// None: nobody can prove anything.
    pub fn none() -> Self {
        Self::default()
    }

    /// With one more, asked after the others. Put those that use evidence up (join tokens) after
    /// those that do not (certificates).
    #[must_use]
    pub fn and(mut self, attestor: impl Attestor) -> Self {
        self.0.push(Arc::new(attestor));
        self
    }

    /// The first proven identity and the kind of its evidence, or each attestor's reason.
    pub async fn attest(&self, evidence: &Evidence<'_>) -> Result<(SpiffeId, &'static str), String> {
        let mut reasons = Vec::new();
        for attestor in &self.0 {
            match attestor.attest(evidence).await {
                Ok(id) => return Ok((id, attestor.name())),
                Err(reason) => reasons.push(format!("{}: {reason}", attestor.name())),
            }
        }
        Err(if reasons.is_empty() { "no attestor is configured".to_owned() } else { reasons.join("; ") })
    }
}

impl fmt::Debug for Attestors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|attestor| attestor.name())).finish()
    }
}

/// Believes a join token in `authorization: Bearer …`, and uses it up.
#[derive(Clone, Debug)]
pub struct JoinTokenAttestor(JoinTokens);

impl JoinTokenAttestor {
    /// Believes the tokens of this store.
    pub fn new(tokens: JoinTokens) -> Self {
        Self(tokens)
    }
}

#[tonic::async_trait]
impl Attestor for JoinTokenAttestor {
    fn name(&self) -> &'static str {
        "join token"
    }

    async fn attest(&self, evidence: &Evidence<'_>) -> Result<SpiffeId, NotAttested> {
        let rejected = |reason: &dyn fmt::Display| NotAttested::Rejected(reason.to_string());
        let mut headers = evidence.metadata.get_all("authorization").iter();
        let header = headers.next().ok_or(NotAttested::Absent)?;
        if headers.next().is_some() {
            return Err(rejected(&"several authorization headers"));
        }
        let header = header.to_str().map_err(|_| rejected(&"authorization header is not text"))?;
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(rejected(&"authorization header is not `Bearer …`")),
        };
        let (tokens, token) = (self.0.clone(), zeroize::Zeroizing::new(token.to_owned()));
        let redeemed = tokio::task::spawn_blocking(move || tokens.redeem(&token)).await;
        redeemed.map_err(|error| rejected(&error))?.map_err(|error| rejected(&error))
    }
}

/// Believes the certificate that the TLS handshake verified: how identities are renewed, and how xDS
/// streams are authenticated.
#[derive(Clone, Debug)]
pub struct CertificateAttestor {
    trust_domain: TrustDomain,
    clock: Clock,
}

impl CertificateAttestor {
    /// Believes workloads of this domain.
    pub fn new(trust_domain: TrustDomain, clock: Clock) -> Self {
        Self { trust_domain, clock }
    }
}

#[tonic::async_trait]
impl Attestor for CertificateAttestor {
    fn name(&self) -> &'static str {
        "client certificate"
    }

    async fn attest(&self, evidence: &Evidence<'_>) -> Result<SpiffeId, NotAttested> {
        let certificate = evidence.peer.certificate.as_ref().ok_or(NotAttested::Absent)?;
        let Some(id) = &certificate.spiffe_id else {
            return Err(NotAttested::Rejected(format!("{} is not a SPIFFE id", certificate.names())));
        };
        if *id.trust_domain() != self.trust_domain {
            return Err(NotAttested::Rejected(format!("{id} is not of trust domain {}", self.trust_domain)));
        }
        // The handshake may be long ago: connections outlive certificates.
        let now = self.clock.now();
        if now > certificate.not_after {
            let (end, now) = (clock::utc(certificate.not_after), clock::utc(now));
            return Err(NotAttested::Rejected(format!(
                "certificate of {id} expired at {end}; it is {now} here"
            )));
        }
        Ok(id.clone())
    }
}

/// For development only: believes whoever connects from this machine to be the workload it names in
/// the request's metadata. Never the control plane itself.
#[derive(Clone, Debug)]
pub struct LoopbackAttestor {
    trust_domain: TrustDomain,
}

impl LoopbackAttestor {
    /// Gives out ids of this domain.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { trust_domain }
    }
}

#[tonic::async_trait]
impl Attestor for LoopbackAttestor {
    fn name(&self) -> &'static str {
        "loopback claim"
    }

    async fn attest(&self, evidence: &Evidence<'_>) -> Result<SpiffeId, NotAttested> {
        let rejected = |reason: String| NotAttested::Rejected(reason);
        let claim = |key: &str| evidence.metadata.get(key).map(|value| value.to_str().unwrap_or_default());
        let (Some(namespace), Some(account)) = (claim(CLAIMED_NAMESPACE), claim(CLAIMED_SERVICE_ACCOUNT))
        else {
            return Err(NotAttested::Absent);
        };
        match evidence.peer.address {
            Some(address) if address.ip().to_canonical().is_loopback() => {}
            Some(address) => return Err(rejected(format!("{address} is not a loopback address"))),
            None => return Err(rejected("the peer's address is unknown".to_owned())),
        }
        if namespace == SERVER_NAMESPACE {
            return Err(rejected(format!("namespace {SERVER_NAMESPACE} is the control plane's own")));
        }
        SpiffeId::workload(&self.trust_domain, namespace, account)
            .map_err(|error| rejected(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
