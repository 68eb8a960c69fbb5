//! Whom a client believes to be a service, and when it encrypts.
//!
//! A DestinationRule decides (SIMPLE and MUTUAL are for servers outside the mesh); without one, mTLS is automatic:
//! towards each endpoint that is marked as speaking it (Istio's `mtls_checker`). Our own clients and Envoys decide per
//! endpoint. Another gRPC client has one answer for a cluster, and one without certificates rejects a cluster that
//! asks for them: it gets TLS when the servers insist (PeerAuthentication STRICT) or the rule does.
//!
//! An empty list of names would accept whoever has a certificate of the mesh (Istio does). Here it is
//! never empty: when no service account is known, nobody is accepted and the client's error says why.

use super::Destination;
use crate::{
    compile::{Compiler, client::ClientKind},
    model::{ClientTls, Location, MtlsMode, TlsMode},
};
use mesh_xds::{
    matcher::{StringMatcher, StringPattern},
    resource::tls::{CrlFile, Identity, KeyFiles, Roots, SanMatcher, UpstreamTls},
};

/// TLS with a server outside the mesh. As the roots may vouch for every site there is, the server is always named.
fn outsider_tls(destination: &Destination<'_, '_>, tls: &ClientTls) -> UpstreamTls {
    let host = destination.service.hostname.as_str();
    let sni = tls.sni.as_deref().or_else(|| (!host.starts_with('*')).then_some(host));
    let mut names = tls.subject_alt_names.clone();
    if names.is_empty() {
        names.extend(destination.service.subject_alt_names.iter().cloned());
    }
    if names.is_empty() {
        // No certificate can hold the other name: blanks are not allowed in one.
        names.push(sni.map_or_else(|| format!("(no name of {host} is known)"), str::to_owned));
    }
    UpstreamTls {
        identity: tls.certificate.as_ref().map(|(certificate, key)| {
            Identity::Files(KeyFiles { certificate: certificate.as_str().into(), key: key.as_str().into() })
        }),
        roots: tls.roots.as_deref().map_or(Roots::System, |path| Roots::File(path.into())),
        crl: tls.crl.as_deref().map(|path| CrlFile { path: path.into(), only_leaf: false }),
        sans: names.into_iter().map(exact).collect(),
        sni: sni.map(Into::into),
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    }
}

/// Why a client cannot be told to speak TLS as a rule asks, which is about a server outside the mesh.
pub(super) fn cannot_be_told(tls: &ClientTls, client: &ClientKind) -> Option<&'static str> {
    let outsider = matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual);
    match client {
        ClientKind::Envoy(_) if outsider && tls.roots.is_none() => Some(
            "with the operating system's roots, of which an Envoy cannot be told (`caCertificates` names a file)",
        ),
        ClientKind::Grpc { .. } if tls.roots.is_some() || tls.certificate.is_some() || tls.crl.is_some() => {
            Some(
                "with certificates, roots or revocation lists in files, which only clients of the mesh and Envoys read",
            )
        }
        ClientKind::Mesh | ClientKind::Envoy(_) | ClientKind::Grpc { .. } => None,
    }
}

/// For names of any kind: the list of matchers that every client reads.
fn exact(name: String) -> SanMatcher {
    SanMatcher::from(StringMatcher { pattern: StringPattern::Exact(name.into()), ignore_case: false })
}

/// The certificate provider that every bootstrap of this mesh names, as in Istio.
pub(in crate::compile) const PROVIDER: &str = "default";

impl Compiler<'_> {
    pub(super) fn upstream_tls(&self, destination: &Destination<'_, '_>) -> Option<UpstreamTls> {
        let rule = destination.policy.blocks.tls.as_ref();
        let automatic = match rule.map(|tls| tls.mode) {
            Some(TlsMode::Disable) => return None,
            Some(TlsMode::Simple | TlsMode::Mutual) => return rule.map(|tls| outsider_tls(destination, tls)),
            Some(TlsMode::IstioMutual) => false,
            None if destination.service.location == Location::External => return None,
            None => true,
        };
        if automatic
            && matches!(self.client.kind, ClientKind::Grpc { .. })
            && !self.servers_insist(destination)
        {
            return None;
        }
        let given = rule.map(|tls| tls.subject_alt_names.as_slice()).unwrap_or_default();
        let sni = rule.and_then(|tls| tls.sni.clone()).unwrap_or_else(|| destination.name.sni());
        Some(UpstreamTls {
            identity: Some(Identity::Provider(PROVIDER.into())),
            roots: Roots::Provider(PROVIDER.into()),
            sans: self.server_names(destination, given),
            sni: Some(sni.into()),
            crl: None,
            auto_host_sni: false,
            auto_sni_san_validation: false,
            only_mesh_endpoints: automatic && !matches!(self.client.kind, ClientKind::Grpc { .. }),
        })
    }

    /// The names that a server of the destination may have; never empty.
    fn server_names(&self, destination: &Destination<'_, '_>, given: &[String]) -> Vec<SanMatcher> {
        if !given.is_empty() {
            return given.iter().cloned().map(exact).collect();
        }
        let mut names = Vec::new();
        for account in self.model.service_accounts(destination.service) {
            for domain in self.mesh.trust_domains() {
                names.push(format!("spiffe://{domain}/ns/{}/sa/{}", account.namespace, account.name));
            }
        }
        names.extend(destination.service.subject_alt_names.iter().cloned());
        if names.is_empty() {
            // No certificate can hold this name: blanks are not allowed in a URI.
            names.push(format!("(no service account of {} is known)", destination.service.hostname));
        }
        names.into_iter().map(exact).collect()
    }

    /// Whether some server that speaks mTLS refuses plaintext.
    fn servers_insist(&self, destination: &Destination<'_, '_>) -> bool {
        self.endpoints_of(destination).iter().filter(|endpoint| endpoint.tls).any(|endpoint| {
            let namespace = &destination.service.namespace;
            let config = &self.model.config;
            config.peer_authentication_mode(namespace, &endpoint.labels, endpoint.port) == MtlsMode::Strict
        })
    }
}
