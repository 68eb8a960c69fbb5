//! The authority of one trust domain: a root key, and certificates signed with it.
//!
//! Rules (Istio's `security/pkg/pki`): the name comes from the caller's proven identity; the lifetime
//! is clamped to the root's; the beginning is backdated; a leaf may sign handshakes and nothing else.
//! The root is issued again with the same key when a fifth of its life is left, or at the next start
//! if it has expired, so that a forgotten root recovers and what it signed keeps verifying.

use super::{
    own::OwnSource,
    policy::Policy,
    request::SigningRequest,
    store::{Store, StoreError},
};
use crate::{
    bundle::{Roots, TrustBundle, TrustBundles},
    certificate,
    clock::{self, Clock},
    key::{self, KeyError, PrivateKey},
    rotation::Backoff,
    spiffe_id::{SpiffeId, TrustDomain},
    svid,
    workload::WorkloadIdentity,
};
use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// Why an authority cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// Its files cannot be read, written or trusted.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its directory belongs to another trust domain.
    #[error(
        "{directory} holds the authority of trust domain {found}, not {wanted}: use another data directory, \
         or start with trust domain {found}"
    )]
    OtherTrustDomain {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose was asked for.
        wanted: TrustDomain,
    },
    /// Its certificate cannot be read, or is not one of its key.
    #[error("{path}: {reason}")]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Its key cannot be made or used.
    #[error("root key: {0}")]
    Key(#[from] KeyError),
    /// A certificate could not be encoded or signed.
    #[error("signing failed: {0}")]
    Sign(String),
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The identity is another authority's to vouch for.
    #[error("{id} is not of trust domain {ours}, which is the only one signed for here")]
    OtherTrustDomain {
        /// Whose certificate was asked for.
        id: SpiffeId,
        /// The authority's own domain.
        ours: TrustDomain,
    },
    /// An identity that names no workload.
    #[error("{0} names a trust domain, not a workload")]
    NoPath(SpiffeId),
    /// A name that a certificate cannot hold.
    #[error("`{0}` is not a DNS name")]
    Name(String),
    /// The root cannot sign now.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The root has expired.
    #[error("{0}")]
    RootExpired(String),
}

/// Names besides the SPIFFE id, for a server that is also reached by DNS name or address: the control
/// plane's own. Never taken from a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
}

/// A new certificate, with the root that it chains to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IssuedCertificate {
    /// The leaf, DER.
    pub leaf: CertificateDer<'static>,
    /// The leaf and the certificates between it and the root, each PEM. The root is not among them.
    pub chain: Vec<String>,
    /// The roots to distribute, PEM.
    pub roots: String,
    /// When the leaf ends.
    pub not_after: SystemTime,
}

/// The root of one trust domain, able to sign.
pub struct Authority {
    trust_domain: TrustDomain,
    policy: Policy,
    clock: Clock,
    signer: Zeroizing<KeyPair>,
    root: ArcSwap<Root>,
    store: Option<Store>,
}

/// The root certificate in force.
#[derive(Debug)]
struct Root {
    roots: Roots,
    der: CertificateDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Authority {
    /// The authority kept in `directory`, made on first use. Refuses the directory of another trust
    /// domain, and a key that others can read.
    pub fn load_or_create(directory: &Path, trust_domain: &TrustDomain) -> Result<Self, AuthorityError> {
        Self::load_or_create_with(directory, trust_domain, Policy::default(), Clock::system())
    }

    /// As [`Authority::load_or_create`], with the policy and the clock.
    pub fn load_or_create_with(
        directory: &Path,
        trust_domain: &TrustDomain,
        policy: Policy,
        clock: Clock,
    ) -> Result<Self, AuthorityError> {
        let store = Store::open(directory)?;
        let signer = store.key()?.signer()?;
        let root = match store.certificate()? {
            Some(pem) => load_root(&store, &pem, trust_domain, &signer)?,
            None => {
                let root = new_root(trust_domain, &policy, clock.now(), &signer)?;
                store.write_certificate(&root.roots.pem())?;
                root
            }
        };
        let authority = Self {
            trust_domain: trust_domain.clone(),
            policy,
            clock,
            signer,
            root: ArcSwap::from_pointee(root),
            store: Some(store),
        };
        authority.renew_root_if_due()?;
        Ok(authority)
    }

    /// An authority that forgets its key when dropped.
    pub fn in_memory(trust_domain: &TrustDomain) -> Result<Self, AuthorityError> {
        Self::in_memory_with(trust_domain, Policy::default(), Clock::system())
    }

    /// As [`Authority::in_memory`], with the policy and the clock.
    pub fn in_memory_with(
        trust_domain: &TrustDomain,
        policy: Policy,
        clock: Clock,
    ) -> Result<Self, AuthorityError> {
        let signer = PrivateKey::generate()?.signer()?;
        let root = new_root(trust_domain, &policy, clock.now(), &signer)?;
        let root = ArcSwap::from_pointee(root);
        Ok(Self { trust_domain: trust_domain.clone(), policy, clock, signer, root, store: None })
    }

    /// The domain it vouches for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its rules for lifetimes.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The clock it judges by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The bundle to distribute.
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle::new(self.trust_domain.clone(), self.root.load().roots.clone())
    }

    /// The same as the only bundle believed.
    pub fn bundles(&self) -> TrustBundles {
        TrustBundles::of(self.bundle())
    }

    /// When the root certificate in force ends. For a metric: nobody should be surprised by it.
    pub fn root_not_after(&self) -> SystemTime {
        self.root.load().not_after
    }

    /// Signs the request's key as `id`. `id` must have been proven; see [`super::Attestors`].
    pub fn issue(
        &self,
        request: &SigningRequest,
        id: &SpiffeId,
        lifetime: Duration,
        names: &ServerNames,
    ) -> Result<IssuedCertificate, IssueError> {
        if *id.trust_domain() != self.trust_domain {
            return Err(IssueError::OtherTrustDomain { id: id.clone(), ours: self.trust_domain.clone() });
        }
        if id.path().is_empty() {
            return Err(IssueError::NoPath(id.clone()));
        }
        let now = self.clock.now();
        if let Err(error) = self.renew_root_if_due() {
            tracing::error!(%error, until = %clock::utc(self.root_not_after()), "the root could not be renewed");
        }
        let root = self.root.load_full();
        if let Some(reason) =
            svid::validity_error("the root certificate", root.not_before, root.not_after, now)
        {
            return Err(IssueError::RootExpired(reason));
        }
        let not_after = (now + lifetime).min(root.not_after);
        let mut params = leaf_params(id, names)?;
        params.not_before = (now - self.policy.backdate).into();
        params.not_after = not_after.into();
        let sign_error = |error: rcgen::Error| AuthorityError::Sign(error.to_string());
        let issuer = Issuer::from_ca_cert_der(&root.der, &*self.signer).map_err(sign_error)?;
        let leaf = params.signed_by(request.key(), &issuer).map_err(sign_error)?.der().clone();
        let chain = vec![key::pem("CERTIFICATE", &leaf)];
        Ok(IssuedCertificate { leaf, chain, roots: root.roots.pem(), not_after })
    }

    /// The control plane's own identity ([`SpiffeId::mesh_server`]), also valid for these names, kept
    /// fresh by this authority. Must be called within a tokio runtime.
    pub fn server_identity(self: &Arc<Self>, names: ServerNames) -> WorkloadIdentity {
        let source = OwnSource::new(self.clone(), SpiffeId::mesh_server(&self.trust_domain), names);
        WorkloadIdentity::start_with(source, self.clock.clone(), Backoff::default(), fastrand::u64(..))
    }

    /// Issues the root again, with the same key, when a fifth of its life is left.
    fn renew_root_if_due(&self) -> Result<(), AuthorityError> {
        let root = self.root.load_full();
        let life = root.not_after.duration_since(root.not_before).unwrap_or_default();
        let now = self.clock.now();
        if now + life / 5 < root.not_after {
            return Ok(());
        }
        let renewed = new_root(&self.trust_domain, &self.policy, now, &self.signer)?;
        if let Some(store) = &self.store {
            store.write_certificate(&renewed.roots.pem())?;
        }
        tracing::info!(until = %clock::utc(renewed.not_after), "root certificate renewed with the same key");
        self.root.store(Arc::new(renewed));
        Ok(())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({}, root until {})", self.trust_domain, clock::utc(self.root_not_after()))
    }
}

fn leaf_params(id: &SpiffeId, names: &ServerNames) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(random_serial()?);
    let uri = id.as_str().try_into().map_err(|_| IssueError::Name(id.to_string()))?;
    params.subject_alt_names.push(SanType::URI(uri));
    for name in &names.dns {
        let dns = name.as_str().try_into().map_err(|_| IssueError::Name(name.clone()))?;
        params.subject_alt_names.push(SanType::DnsName(dns));
    }
    params.subject_alt_names.extend(names.ips.iter().copied().map(SanType::IpAddress));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn new_root(
    trust_domain: &TrustDomain,
    policy: &Policy,
    now: SystemTime,
    signer: &KeyPair,
) -> Result<Root, AuthorityError> {
    let sign_error = |error: rcgen::Error| AuthorityError::Sign(error.to_string());
    let (not_before, not_after) = (now - policy.backdate, now + policy.root_lifetime);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Must not change when the root is renewed: issuers are found by name and key.
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.distinguished_name.push(DnType::CommonName, "mesh root");
    params.serial_number = Some(random_serial()?);
    let uri = domain_uri(trust_domain).try_into().map_err(sign_error)?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    let der = params.self_signed(signer).map_err(sign_error)?.der().clone();
    let roots = Roots::new(vec![der.clone()]).map_err(|error| AuthorityError::Sign(error.to_string()))?;
    Ok(Root { roots, der, not_before, not_after })
}

/// The root kept on disk, if it is this domain's and this key's.
fn load_root(
    store: &Store,
    pem: &[u8],
    trust_domain: &TrustDomain,
    signer: &KeyPair,
) -> Result<Root, AuthorityError> {
    let path = store.certificate_path();
    let fail = |reason: String| AuthorityError::Certificate { path: path.clone(), reason };
    let roots = Roots::from_pem(pem).map_err(|error| fail(error.to_string()))?;
    let [der] = roots.certificates() else {
        return Err(fail(format!("one certificate expected, {} found", roots.certificates().len())));
    };
    let parsed = certificate::parse(der).map_err(|error| fail(error.to_string()))?;
    let names = certificate::PeerCertificate::from_der(der).map_err(|error| fail(error.to_string()))?;
    if names.uri_sans != [domain_uri(trust_domain)] {
        let found = names.uri_sans.first().map_or("(unknown)", |uri| uri.trim_start_matches("spiffe://"));
        return Err(AuthorityError::OtherTrustDomain {
            directory: store.directory().to_owned(),
            found: found.to_owned(),
            wanted: trust_domain.clone(),
        });
    }
    if *parsed.public_key().subject_public_key.data != *signer.public_key_raw() {
        return Err(fail("it is not the certificate of the root key beside it".to_owned()));
    }
    let (not_before, not_after) = (names.not_before, names.not_after);
    let der = der.clone();
    Ok(Root { roots, der, not_before, not_after })
}

fn domain_uri(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}")
}

/// 127 random bits: positive, and never used twice.
fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| AuthorityError::Sign("the system's random generator failed".to_owned()))?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests;
