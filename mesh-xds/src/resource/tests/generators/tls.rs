//! TLS contexts.

use super::{some_text, string};
use crate::resource::tls::*;
use proptest::{collection::vec, option, prelude::*};
use std::sync::Arc;

pub(super) fn downstream_tls() -> impl Strategy<Value = DownstreamTls> {
    any::<(bool, bool)>().prop_map(|(verifies, requires)| DownstreamTls {
        identity: "default".into(),
        client_roots: verifies.then(|| "default".into()),
        require_client_certificate: verifies && requires,
    })
}

pub(super) fn upstream_tls() -> impl Strategy<Value = UpstreamTls> {
    let roots = prop_oneof![Just(Roots::Provider("default".into())), Just(Roots::System)];
    let kind = prop_oneof![Just(SanKind::Dns), Just(SanKind::Uri), Just(SanKind::Email), Just(SanKind::Ip)];
    let typed = (kind, string()).prop_map(|(kind, name)| SanMatcher { kind: Some(kind), name });
    let sans = prop_oneof![vec(string().prop_map(SanMatcher::from), 0..3), vec(typed, 0..3)];
    (option::of(Just(Arc::from("default"))), roots, sans.boxed(), option::of(some_text()), any::<[bool; 3]>())
        .prop_map(|(identity, roots, sans, sni, flags)| UpstreamTls {
            identity,
            auto_sni_san_validation: flags[1] || roots == Roots::System && sans.is_empty(),
            roots,
            sans,
            sni,
            auto_host_sni: flags[0],
            only_mesh_endpoints: flags[2],
        })
}
