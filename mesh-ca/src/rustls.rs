//! TLS configurations that are *live*: certificate, key and trust bundles are read from a
//! [`WorkloadIdentity`] at each handshake, so a rotation needs no new configuration.
//!
//! Sessions are never resumed: resumption skips verification, and a peer whose authority was removed
//! would stay welcome. The crypto provider is a value; nothing here reads or sets the process default.

use crate::{
    bundle::{Roots, TrustBundles},
    certificate::PeerCertificate,
    clock::Clock,
    key_pair::KeyPair,
    revocation::RevocationLists,
    verifier::{self, Refused, Role, ServerCheck},
    workload::{Identity, WorkloadIdentity},
};
use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{fmt, sync::Arc};

/// The cryptography to use.
pub type Provider = Arc<CryptoProvider>;

/// The default cryptography: aws-lc-rs, with hybrid post-quantum key exchange preferred.
pub fn default_provider() -> Provider {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Whom a client believes to be the server it meant.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// A mesh workload, judged by the bundles of the client's own current identity.
    Mesh(WorkloadIdentity, ServerCheck),
    /// A mesh workload, judged by fixed bundles: for a client that has no identity yet.
    Bundles(TrustBundles, ServerCheck),
    /// A server outside the mesh: a chain to these roots, and the DNS name or IP address that the
    /// connection is opened to.
    Roots(Roots),
    /// A server outside the mesh: a chain to these roots, and a check of its names, whatever address the
    /// connection is opened to. With lists, none of its certificates may be revoked.
    Outsider(Roots, Option<RevocationLists>, ServerCheck),
}

/// What a client shows of itself.
#[derive(Clone, Copy, Debug)]
pub enum Presents<'a> {
    /// Nothing.
    Nothing,
    /// The current SVID of this identity, at each handshake.
    Identity(&'a WorkloadIdentity),
    /// Always this.
    KeyPair(&'a KeyPair),
}

/// Whether a server wants to know its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A client without a certificate is refused.
    Require,
    /// A client may come without; a certificate that is presented must be sound.
    Optional,
    /// No certificate is asked for.
    None,
}

/// For a mesh client: presents the current SVID and judges the server by the current bundles.
pub fn client_config(
    identity: &WorkloadIdentity,
    check: ServerCheck,
    alpn: &[&[u8]],
    provider: Provider,
) -> Result<Arc<ClientConfig>, Error> {
    let trust = ServerTrust::Mesh(identity.clone(), check);
    client_config_with(trust, Some(identity), alpn, provider, identity.clock().clone())
}

/// For any client: `identity` is what it presents, if it presents anything.
pub fn client_config_with(
    trust: ServerTrust,
    identity: Option<&WorkloadIdentity>,
    alpn: &[&[u8]],
    provider: Provider,
    clock: Clock,
) -> Result<Arc<ClientConfig>, Error> {
    let presents = identity.map_or(Presents::Nothing, Presents::Identity);
    client_config_presenting(trust, presents, alpn, provider, clock)
}

/// As [`client_config_with`], for a client that may have a certificate of another kind.
pub fn client_config_presenting(
    trust: ServerTrust,
    presents: Presents<'_>,
    alpn: &[&[u8]],
    provider: Provider,
    clock: Clock,
) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(ServerVerifier { trust, provider: provider.clone() });
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(clock))
        .with_safe_default_protocol_versions()?
        // "Dangerous" is rustls's word for verifiers other than its own; ours verifies.
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match presents {
        Presents::Identity(identity) => {
            builder.with_client_cert_resolver(Arc::new(LiveKey::new(identity, provider)))
        }
        Presents::KeyPair(pair) => builder.with_client_cert_resolver(Arc::new(FixedKey(pair.clone()))),
        Presents::Nothing => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// For a mesh server: presents the current SVID and judges clients by the current bundles.
pub fn server_config(
    identity: &WorkloadIdentity,
    clients: ClientAuth,
    alpn: &[&[u8]],
    provider: Provider,
) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(identity.clock().clone()))
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Require | ClientAuth::Optional => {
            builder.with_client_cert_verifier(Arc::new(ClientVerifier {
                identity: identity.clone(),
                mandatory: clients == ClientAuth::Require,
                provider: provider.clone(),
            }))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(LiveKey::new(identity, provider)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The verified certificate of the peer, after the handshake; none before it, or when the peer
/// presented none. Only for connections made with the configurations of this module.
pub fn peer_identity(connection: &CommonState) -> Option<PeerCertificate> {
    if connection.is_handshaking() {
        return None;
    }
    PeerCertificate::from_der(connection.peer_certificates()?.first()?).ok()
}

/// The current identity's key in rustls's form, converted once per rotation.
struct LiveKey {
    identity: WorkloadIdentity,
    provider: Provider,
    converted: ArcSwapOption<(Arc<Identity>, Arc<CertifiedKey>)>,
}

impl LiveKey {
    fn new(identity: &WorkloadIdentity, provider: Provider) -> Self {
        Self { identity: identity.clone(), provider, converted: ArcSwapOption::empty() }
    }

    fn current(&self) -> Option<Arc<CertifiedKey>> {
        let identity = self.identity.current()?;
        if let Some(pair) = &*self.converted.load()
            && Arc::ptr_eq(&pair.0, &identity)
        {
            return Some(pair.1.clone());
        }
        let svid = identity.svid();
        match svid.key().certified(svid.chain(), &self.provider) {
            Ok(key) => {
                let key = Arc::new(key);
                self.converted.store(Some(Arc::new((identity, key.clone()))));
                Some(key)
            }
            Err(error) => {
                tracing::error!(id = %svid.id(), %error, "the crypto provider cannot use the workload's key");
                None
            }
        }
    }
}

impl fmt::Debug for LiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveKey({:?})", self.identity)
    }
}

impl ResolvesClientCert for LiveKey {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn has_certs(&self) -> bool {
        self.identity.current().is_some()
    }
}

impl ResolvesServerCert for LiveKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// A key that does not change.
#[derive(Debug)]
struct FixedKey(KeyPair);

impl ResolvesClientCert for FixedKey {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The bundles in force, or why there are none.
fn live_bundles(identity: &WorkloadIdentity) -> Result<Arc<Identity>, Refused> {
    identity.current().ok_or_else(|| {
        let cause = match identity.status().last_error {
            Some(error) => error.to_string(),
            None => "it has not arrived yet".to_owned(),
        };
        Refused::new(format!("no identity, so no trust bundle to judge the peer by: {cause}"))
    })
}

#[derive(Debug)]
struct ServerVerifier {
    trust: ServerTrust,
    provider: Provider,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let svid = |bundles: &TrustBundles, check: &ServerCheck| {
            let peer = verifier::verify_svid(leaf, intermediates, bundles, Role::Server, algorithms, now)?;
            check.check(&peer)
        };
        match &self.trust {
            ServerTrust::Mesh(identity, check) => svid(live_bundles(identity)?.bundles(), check)?,
            ServerTrust::Bundles(bundles, check) => svid(bundles, check)?,
            ServerTrust::Roots(roots) => {
                verifier::verify_named(leaf, intermediates, roots, name, algorithms, now)?;
            }
            ServerTrust::Outsider(roots, lists, check) => {
                let lists = lists.as_ref();
                let peer = verifier::verify_outsider(leaf, intermediates, roots, lists, algorithms, now)?;
                check.check(&peer)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct ClientVerifier {
    identity: WorkloadIdentity,
    mandatory: bool,
    provider: Provider,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: a mesh client has one certificate, and hints would tell strangers whom we trust.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let identity = live_bundles(&self.identity)?;
        let algorithms = &self.provider.signature_verification_algorithms;
        verifier::verify_svid(leaf, intermediates, identity.bundles(), Role::Client, algorithms, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
