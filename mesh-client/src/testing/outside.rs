//! An authority outside the mesh, which can take back what it signed.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

pub(crate) struct Outside {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Outside {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = root.self_signed(&key).unwrap();
        Self { root: certificate.pem(), issuer: Issuer::new(root, key) }
    }

    /// Its root, PEM.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// A server of this name, whose certificate has this serial number; it does not ask who comes.
    pub(crate) fn server(&self, name: &str, serial: u64) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        leaf.serial_number = Some(SerialNumber::from(serial));
        let chain: Vec<CertificateDer<'static>> =
            vec![leaf.signed_by(&key, &self.issuer).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = mesh_ca::rustls::default_provider();
        let builder =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// The list of what it took back, PEM; good for an hour, or ended an hour ago.
    pub(crate) fn list(&self, revoked: &[u64], ended: bool) -> String {
        const HOUR: Duration = Duration::from_secs(3600);
        let now = SystemTime::now();
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: (now - HOUR).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: (now - 2 * HOUR).into(),
            next_update: if ended { now - HOUR } else { now + HOUR }.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}
