//! An identity from a CA that speaks Istio's `IstioCertificateService`: ours, or istiod.
//!
//! The first request goes over server-authenticated TLS with a bearer token (or, in development, a
//! claim that the CA believes from loopback); each later one over mTLS with the certificate in hand and
//! without the token. An expired certificate, or one that the CA refuses, falls back to the first way. The key is made here, anew
//! for each certificate, and never leaves. What comes back is verified before it is believed: it must
//! carry the expected id, fit the key, chain to the roots that came with it, and be valid now.

use super::{Source, SourceError};
use crate::{
    bundle::{Roots, TrustBundle, TrustBundles},
    channel::{self, Target},
    csr,
    key::PrivateKey,
    proto::istio_ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_client::IstioCertificateServiceClient,
    },
    rotation::Schedule,
    spiffe_id::{SpiffeId, TrustDomain},
    svid::{self, X509Svid},
    verifier::{self, Role},
    workload::{Identity, WorkloadIdentity},
};
use rustls_pki_types::UnixTime;
use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue},
    transport::Channel,
};
use zeroize::Zeroizing;

/// Metadata key of the namespace that a workload claims in development mode.
pub const CLAIMED_NAMESPACE: &str = "x-mesh-namespace";
/// Metadata key of the service account that a workload claims in development mode.
pub const CLAIMED_SERVICE_ACCOUNT: &str = "x-mesh-service-account";

/// A token that proves to the CA who is joining. Its `Debug` output is redacted.
#[derive(Clone)]
pub enum JoinToken {
    /// The token itself.
    Value(Zeroizing<String>),
    /// A file that holds it, read at each use: somebody else may renew it.
    File(PathBuf),
}

impl JoinToken {
    /// The token itself.
    pub fn value(token: impl Into<String>) -> Self {
        Self::Value(Zeroizing::new(token.into()))
    }

    /// A file that holds it.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    async fn read(&self) -> Result<Zeroizing<String>, SourceError> {
        match self {
            Self::Value(token) => Ok(token.clone()),
            Self::File(path) => {
                let read = tokio::fs::read_to_string(path).await;
                let text = Zeroizing::new(read.map_err(|error| {
                    SourceError::unavailable(format!("join token file {}: {error}", path.display()))
                })?);
                Ok(Zeroizing::new(text.trim().to_owned()))
            }
        }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("JoinToken(redacted)"),
            Self::File(path) => write!(f, "JoinToken(file {})", path.display()),
        }
    }
}

/// Gives a channel to the CA, presenting the identity when there is one to present.
pub trait Connect: Send + Sync + 'static {
    /// Where the channel leads, for messages.
    fn address(&self) -> &str;

    /// A channel, which may connect lazily.
    fn connect(
        &self,
        identity: Option<&Arc<Identity>>,
    ) -> impl Future<Output = Result<Channel, SourceError>> + Send;

    /// Whether a secret may be sent over it.
    fn is_private(&self) -> bool;

    /// The time that certificates are judged by.
    fn now(&self) -> SystemTime;
}

impl Connect for Target {
    fn address(&self) -> &str {
        Target::address(self)
    }

    async fn connect(&self, identity: Option<&Arc<Identity>>) -> Result<Channel, SourceError> {
        let invalid = |error: channel::InvalidTarget| SourceError::invalid(error.to_string());
        match identity {
            Some(identity) => {
                // A fixed copy, not the caller's handle: that one's task is what runs this.
                let own = WorkloadIdentity::fixed_at(identity.clone(), self.clock());
                Ok(channel::connect(&self.presenting(&own).map_err(invalid)?))
            }
            None => Ok(channel::connect(self)),
        }
    }

    fn is_private(&self) -> bool {
        !self.is_plaintext()
    }

    fn now(&self) -> SystemTime {
        self.clock().now()
    }
}

/// A CA as a source of identity.
#[derive(Debug)]
pub struct CaSource<C = Target> {
    ca: C,
    token: Option<JoinToken>,
    claim: Option<(MetadataValue<Ascii>, MetadataValue<Ascii>)>,
    expected: Option<SpiffeId>,
    lifetime: Duration,
    schedule: Schedule,
    /// The CA has refused the certificate in hand: prove who we are as at first.
    start_over: bool,
}

impl<C: Connect> CaSource<C> {
    /// The CA at `ca`. The first request presents what the target presents, usually nothing; each later
    /// one this source's own certificate.
    pub fn new(ca: C) -> Self {
        Self {
            ca,
            token: None,
            claim: None,
            expected: None,
            lifetime: Duration::ZERO,
            schedule: Schedule::HALF_LIFE,
            start_over: false,
        }
    }

    /// Proves with this token who is joining.
    #[must_use]
    pub fn token(mut self, token: JoinToken) -> Self {
        self.token = Some(token);
        self
    }

    /// Accepts a certificate for this id only.
    #[must_use]
    pub fn expect(mut self, id: SpiffeId) -> Self {
        self.expected = Some(id);
        self
    }

    /// In development: asks to be believed without proof. Also expects that id.
    pub fn claim(
        self,
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SourceError> {
        let invalid = |error: &dyn fmt::Display| SourceError::invalid(format!("claimed identity: {error}"));
        let id = SpiffeId::workload(trust_domain, namespace, service_account).map_err(|e| invalid(&e))?;
        let namespace = namespace.parse().map_err(|e| invalid(&e))?;
        let service_account = service_account.parse().map_err(|e| invalid(&e))?;
        Ok(Self { claim: Some((namespace, service_account)), ..self.expect(id) })
    }

    /// Asks for certificates of this lifetime (whole seconds); zero leaves it to the CA.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Renews at another time than half-life ± 1 %.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// What proves who we are, besides the channel.
    async fn credentials(&self, metadata: &mut MetadataMap, first: bool) -> Result<(), SourceError> {
        if let Some((namespace, service_account)) = &self.claim {
            metadata.insert(MetadataKey::from_static(CLAIMED_NAMESPACE), namespace.clone());
            metadata.insert(MetadataKey::from_static(CLAIMED_SERVICE_ACCOUNT), service_account.clone());
        }
        if let (Some(token), true) = (&self.token, first) {
            if !self.ca.is_private() {
                return Err(SourceError::refused(format!(
                    "the join token is not sent to {} in plaintext; connect with TLS",
                    self.ca.address()
                )));
            }
            let bearer = Zeroizing::new(format!("Bearer {}", &**token.read().await?));
            let mut value: MetadataValue<Ascii> = bearer
                .parse()
                .map_err(|_| SourceError::invalid("the join token has characters that no token has"))?;
            value.set_sensitive(true);
            metadata.insert("authorization", value);
        }
        Ok(())
    }

    /// Believes the answer only if everything about it fits.
    fn accept(
        &self,
        response: &IstioCertificateResponse,
        key: PrivateKey,
        expected: Option<&SpiffeId>,
    ) -> Result<Identity, SourceError> {
        let invalid = |what: &str, error: &dyn fmt::Display| {
            SourceError::invalid(format!("CA at {}: {what}: {error}", self.ca.address()))
        };
        let (roots, chain) = match response.cert_chain.as_slice() {
            [chain @ .., roots] if !chain.is_empty() => (roots, chain.concat()),
            _ => return Err(invalid("its answer", &"there is no chain of a certificate and a root")),
        };
        let chain = svid::certificates(chain.as_bytes()).map_err(|e| invalid("the issued chain", &e))?;
        let svid = X509Svid::new(chain, key).map_err(|e| invalid("the issued certificate", &e))?;
        if let Some(expected) = expected.filter(|expected| *expected != svid.id()) {
            let reason = format!("expected one for {expected}, found {}", svid.id());
            return Err(invalid("the issued certificate", &reason));
        }
        let now = self.ca.now();
        if let Some(reason) = svid.validity_error(now) {
            return Err(invalid("the issued certificate", &reason));
        }
        let roots = Roots::from_pem(roots.as_bytes()).map_err(|e| invalid("the roots it sent", &e))?;
        let bundles = TrustBundles::of(TrustBundle::new(svid.id().trust_domain().clone(), roots));
        let (leaf, above) = svid.chain().split_first().ok_or_else(|| invalid("its answer", &"no chain"))?;
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let at = UnixTime::since_unix_epoch(since_1970);
        verifier::verify_svid(leaf, above, &bundles, Role::Client, &algorithms, at)
            .map_err(|e| invalid("the issued certificate", &e))?;
        Identity::new(svid, bundles).map_err(|e| invalid("its answer", &e))
    }

    fn failed(&self, status: &Status, first: bool) -> SourceError {
        let mut text =
            format!("CA at {}: {}: {}", self.ca.address(), code_name(status.code()), status.message());
        if status.code() == Code::Unauthenticated && first && self.token.is_some() {
            // The CA does not say why; these are the usual reasons.
            text.push_str(" (a join token works once and until its deadline: has this one been used?)");
        }
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument => {
                SourceError::refused(text)
            }
            _ => SourceError::unavailable(text),
        }
    }
}

/// The gRPC name of the codes a CA answers with.
fn code_name(code: Code) -> String {
    match code {
        Code::Unauthenticated => "UNAUTHENTICATED".to_owned(),
        Code::PermissionDenied => "PERMISSION_DENIED".to_owned(),
        Code::InvalidArgument => "INVALID_ARGUMENT".to_owned(),
        Code::Unavailable => "UNAVAILABLE".to_owned(),
        other => format!("{other:?}"),
    }
}

impl<C: Connect> Source for CaSource<C> {
    fn origin(&self) -> String {
        format!("CA at {}", self.ca.address())
    }

    fn schedule(&self) -> Schedule {
        self.schedule
    }

    async fn fetch(&mut self, held: Option<&Arc<Identity>>) -> Result<Arc<Identity>, SourceError> {
        let start_over = std::mem::take(&mut self.start_over);
        let presentable =
            held.filter(|held| !start_over && held.svid().validity_error(self.ca.now()).is_none());
        // A workload keeps its name for life.
        let expected = self.expected.as_ref().or_else(|| held.map(|held| held.id()));
        let invalid = |error: &dyn fmt::Display| SourceError::invalid(error.to_string());
        let key = PrivateKey::generate().map_err(|e| invalid(&e))?;
        let csr = csr::request(&key, expected).map_err(|e| invalid(&e))?;
        let mut request = Request::new(IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata: None,
        });
        let first = presentable.is_none();
        self.credentials(request.metadata_mut(), first).await?;
        let channel = self.ca.connect(presentable).await?;
        let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
        match answer {
            Ok(response) => self.accept(response.get_ref(), key, expected).map(Arc::new),
            Err(status) => {
                let status = channel::clarify(status);
                self.start_over = !first && status.code() == Code::Unauthenticated;
                Err(self.failed(&status, first))
            }
        }
    }
}
