//! TLS contexts, and the secrets that they name.

use super::{name, some_text, string};
use crate::resource::{secret::*, tls::*};
use proptest::{collection::vec, option, prelude::*};

pub(super) fn downstream_tls() -> impl Strategy<Value = DownstreamTls> {
    any::<(bool, bool)>().prop_map(|(verifies, requires)| DownstreamTls {
        identity: "default".into(),
        client_roots: verifies.then(|| "default".into()),
        require_client_certificate: verifies && requires,
    })
}

pub(super) fn upstream_tls() -> impl Strategy<Value = UpstreamTls> {
    let roots = prop_oneof![
        Just(Roots::Provider("default".into())),
        Just(Roots::System),
        name().prop_map(Roots::Secret),
        some_text().prop_map(Roots::File),
    ];
    let files = (some_text(), some_text()).prop_map(|(certificate, key)| KeyFiles { certificate, key });
    let identity = prop_oneof![
        Just(Identity::Provider("default".into())),
        name().prop_map(Identity::Secret),
        files.prop_map(Identity::Files),
    ];
    let crl = (some_text(), any::<bool>()).prop_map(|(path, only_leaf)| CrlFile { path, only_leaf });
    (option::of(identity), (roots, option::of(crl)), sans(), option::of(some_text()), any::<[bool; 3]>())
        .prop_map(|(identity, (roots, crl), sans, sni, flags)| UpstreamTls {
            identity,
            auto_sni_san_validation: flags[1] || roots == Roots::System && sans.is_empty(),
            crl: crl.filter(|_| matches!(roots, Roots::File(_) | Roots::System)),
            roots,
            sans,
            sni,
            auto_host_sni: flags[0],
            only_mesh_endpoints: flags[2],
        })
}

fn sans() -> BoxedStrategy<Vec<SanMatcher>> {
    let kind = prop_oneof![Just(SanKind::Dns), Just(SanKind::Uri), Just(SanKind::Email), Just(SanKind::Ip)];
    let typed = (kind, string()).prop_map(|(kind, name)| SanMatcher { kind: Some(kind), name });
    prop_oneof![vec(string().prop_map(SanMatcher::from), 0..3), vec(typed, 0..3)].boxed()
}

/// PEM in form only: what is in it takes cryptography.
fn pem(label: &'static str) -> impl Strategy<Value = Vec<u8>> {
    "([A-Za-z0-9+/]{4}){1,20}".prop_map(move |body| {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
    })
}

pub(crate) fn secret() -> impl Strategy<Value = Secret> {
    let key = prop_oneof![pem("PRIVATE KEY"), pem("EC PRIVATE KEY")];
    let certificate = (pem("CERTIFICATE"), key).prop_map(|(chain, key)| {
        SecretContent::Certificate(TlsCertificate { chain: chain.into(), key: PrivateKey::new(&key) })
    });
    let validation = (pem("CERTIFICATE"), sans())
        .prop_map(|(roots, sans)| SecretContent::Validation(ValidationContext { roots: roots.into(), sans }));
    (name(), prop_oneof![certificate, validation]).prop_map(|(name, content)| Secret { name, content })
}
