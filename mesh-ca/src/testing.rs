//! Certificates for this crate's tests, sound unless a test says otherwise.

use crate::{
    bundle::{Roots, TrustBundle, TrustBundles},
    key::{PrivateKey, pem},
    spiffe_id::{SpiffeId, TrustDomain},
    svid::X509Svid,
    workload::Identity,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// A CA that signs whatever a test needs.
pub(crate) struct Ca {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    pub(crate) fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = Self::params(name, change);
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    /// A CA below this one.
    pub(crate) fn intermediate(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = Self::params(name, change);
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn params(name: &str, change: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        (params, KeyPair::generate().unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    pub(crate) fn bundle(&self, domain: &str) -> TrustBundle {
        TrustBundle::new(TrustDomain::parse(domain).unwrap(), Roots::new(vec![self.der.clone()]).unwrap())
    }

    /// An identity of `id` that believes this CA.
    pub(crate) fn identity(&self, id: &str) -> Arc<Identity> {
        let leaf = Leaf::new(id).issue_by(self);
        let id = SpiffeId::parse(id).unwrap();
        let bundles = TrustBundles::of(self.bundle(id.trust_domain().as_str()));
        Arc::new(Identity::new(leaf.svid(), bundles).unwrap())
    }
}

/// A leaf in the making.
pub(crate) struct Leaf(pub(crate) CertificateParams);

/// A leaf and its key.
pub(crate) struct Issued {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) chain_pem: String,
    pub(crate) key: PrivateKey,
}

impl Leaf {
    pub(crate) fn new(uri: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(120)).into();
        params.not_after = (now + Duration::from_secs(3600)).into();
        Self(params)
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.0);
        self
    }

    pub(crate) fn valid(self, from: SystemTime, to: SystemTime) -> Self {
        self.with(|params| {
            params.not_before = from.into();
            params.not_after = to.into();
        })
    }

    pub(crate) fn issue(self) -> Issued {
        self.issue_by(&Ca::new("a test's root"))
    }

    pub(crate) fn issue_by(self, ca: &Ca) -> Issued {
        let key = PrivateKey::generate().unwrap();
        let certificate = self.0.signed_by(&*key.signer().unwrap(), &ca.issuer).unwrap();
        let der = certificate.der().clone();
        Issued { chain_pem: pem("CERTIFICATE", &der), der, key }
    }
}

impl Issued {
    pub(crate) fn svid(self) -> X509Svid {
        X509Svid::new(vec![self.der], self.key).unwrap()
    }
}
