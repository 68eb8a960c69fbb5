//! How the connection is secured, from YAML.
//!
//! <https://istio.io/latest/docs/reference/config/networking/destination-rule/#ClientTLSSettings>. Files are files of
//! the clients' machines, which each client's bootstrap has to name too.

use super::{ClientTls, TlsMode, traffic::Level};
use crate::analysis::Code;
use crate::model::node::Node;
use crate::model::read::{self, Map, Report};

/// The fields of `tls`.
pub(super) const TLS: &[&str] = &[
    "caCertificates",
    "caCrl",
    "clientCertificate",
    "credentialName",
    "insecureSkipVerify",
    "mode",
    "privateKey",
    "sni",
    "subjectAltNames",
];

/// Those of them that name certificates.
const FILES: [&str; 5] = ["caCertificates", "caCrl", "clientCertificate", "credentialName", "privateKey"];

pub(super) fn read(node: &Node, used: Level, report: &mut Report) -> Option<ClientTls> {
    const MODES: [(&str, TlsMode); 4] = [
        ("DISABLE", TlsMode::Disable),
        ("SIMPLE", TlsMode::Simple),
        ("MUTUAL", TlsMode::Mutual),
        ("ISTIO_MUTUAL", TlsMode::IstioMutual),
    ];
    let map = report.map(node, "tls", TLS)?;
    let mut text = |key| map.one(key, report, read::some_text);
    let (roots, chain, key) = (text("caCertificates"), text("clientCertificate"), text("privateKey"));
    let crl = text("caCrl");
    map.one("credentialName", report, read::text);
    let insecure = map.one("insecureSkipVerify", report, read::boolean).unwrap_or(false);
    let subject_alt_names = map.many("subjectAltNames", report, read::some_text);
    let sni = map.one("sni", report, read::some_text);
    let mode = match map.get("mode") {
        // Protobuf's default: the first value.
        None => TlsMode::Disable,
        Some(mode) => read::word("TLS mode", &MODES)(mode, report)?,
    };
    if insecure {
        let at = map.key_at("insecureSkipVerify");
        report.unsupported(at, "`insecureSkipVerify`: no server is believed without being verified");
        let code = match used {
            Level::Destination => Code::NoServerCertificateVerificationDestinationLevel,
            Level::Port => Code::NoServerCertificateVerificationPortLevel,
        };
        report.warn(code, at, "the server's certificate would not be verified");
    }
    let given = || FILES.into_iter().filter(|key| map.has(key));
    match mode {
        TlsMode::Disable => {
            for key in given().chain(["sni", "subjectAltNames"].into_iter().filter(|key| map.has(key))) {
                report.ignored(map.key_at(key), &format!("`{key}`, without TLS (`mode` is DISABLE),"));
            }
        }
        TlsMode::Simple | TlsMode::Mutual => outsider(&map, mode, report),
        TlsMode::IstioMutual => {
            for key in given() {
                report
                    .error(map.key_at(key), format!("ISTIO_MUTUAL uses the mesh's identity: remove `{key}`"));
            }
        }
    }
    let outsider = matches!(mode, TlsMode::Simple | TlsMode::Mutual);
    Some(ClientTls {
        at: node.at,
        mode,
        subject_alt_names,
        sni,
        // Istio's word for the roots of the operating system.
        roots: roots.filter(|path| outsider && path != "system"),
        certificate: chain.zip(key).filter(|_| mode == TlsMode::Mutual),
        crl: crl.filter(|_| outsider),
    })
}

/// What can be said of a server outside the mesh.
fn outsider(map: &Map<'_>, mode: TlsMode, report: &mut Report) {
    let what = "`credentialName`: there are no secrets for clients here: name files of theirs (`caCertificates`, `caCrl`, \
                and with MUTUAL `clientCertificate` and `privateKey`), which their bootstraps have to name too";
    map.unsupported("credentialName", report, what);
    for key in ["clientCertificate", "privateKey"] {
        match (mode, map.has(key)) {
            (TlsMode::Mutual, false) if !map.has("credentialName") => {
                report.error(map.key_at("mode"), format!("MUTUAL needs `{key}`"));
            }
            (TlsMode::Simple, true) => {
                report.error(map.key_at(key), format!("SIMPLE shows no certificate: remove `{key}`"));
            }
            _ => {}
        }
    }
    let system = matches!(map.get("caCertificates").map(Node::as_text), None | Some(Some("system")));
    let what = if !system || mode == TlsMode::Mutual || map.has("caCrl") {
        "files, for gRPC clients that are not of the mesh: they read none that they are told of, so that their calls \
         fail. The bootstrap of each client of the mesh has to name them too (a `file_watcher` in \
         `certificate_providers`)"
    } else {
        "`SIMPLE` without `caCertificates`: Envoys cannot be told of the operating system's roots, so that their calls \
         fail; gRPC clients that are not of the mesh need gRFC A82, without which they reject the cluster"
    };
    report.partly(map.key_at("mode"), what);
    if system && (mode == TlsMode::Mutual || map.has("caCrl")) {
        let what = "`MUTUAL` or `caCrl` without `caCertificates`: Envoys cannot be told of the operating system's roots, so that \
                    their calls fail";
        report.partly(map.key_at("mode"), what);
    }
}
