//! What other implementations of gRPC make of the bytes of `recorded.rs`, beside what we make of them. The files of
//! `verdicts/` are their own client status (CSDS, gRFC A40), which `tests/peers/python/recorded_verdicts.py` asks for; a
//! resource has there the name of its file.

use super::{
    AnyResource, ResourceType, envoy,
    recorded::{ACCEPTED, REFUSED, bytes, context},
};
use crate::csds::ClientStatusResponse;
use envoy_types::pb::envoy::{
    admin::v3::ClientResourceStatus, service::status::v3::client_config::GenericXdsConfig,
};
use prost::Message;
use std::{collections::BTreeSet, fs, path::PathBuf};

/// File, a part of what is said of it, and why the verdicts differ.
type Differs = (&'static str, &'static str, &'static str);

/// An implementation.
struct Peer {
    /// Its file in `verdicts/`.
    file: &'static str,
    /// How its rejections begin.
    rejection: &'static str,
    /// What we accept and it rejects, with what it says.
    more: &'static [Differs],
    /// What we reject and it accepts, with what we say.
    less: &'static [Differs],
}

static PEERS: [Peer; 2] = [
    Peer { file: "c-core", rejection: "invalid resource: ", more: C_CORE_MORE, less: C_CORE_LESS },
    Peer { file: "grpc-js", rejection: "", more: GRPC_JS_MORE, less: GRPC_JS_LESS },
];

const C_CORE_MORE: &[Differs] = &[
    ("envoy-by-name", "field:type error:unknown discovery type", "STRICT_DNS, which gRPC has not"),
    ("envoy-control-plane", "field:type error:unknown discovery type", "STATIC, which gRPC has not"),
    ("envoy-either", "LB policy is not supported", "CLUSTER_PROVIDED, which Envoy asks of an aggregate"),
    ("envoy-reviews", "sds_secret_configs error:feature unsupported", "SDS, which gRPC has not"),
    (
        "envoy-routes",
        "jwt_authn.v3.PerRouteConfig] error:unsupported filter type",
        "filters that gRPC has not",
    ),
    (
        "envoy-server",
        "jwt_authn.v3.JwtAuthentication] error:unsupported filter type",
        "filters that gRPC has not",
    ),
    (
        "go-cluster-mtls",
        "no CA certs configured",
        "the fields of gRFC A29's first days, as gRPC-Go reads them",
    ),
    ("go-listener-server-mtls", "no certificate provider instance specified", "the same"),
    (
        "grpc-listener-authz-and-session",
        "ExtAuthz] error:unsupported filter type",
        "gRFC A92, which C-core has not yet",
    ),
];

const C_CORE_LESS: &[Differs] = &[
    (
        "bad-envoy-internal-headers",
        "internal_only_headers",
        "it would be ignored; what is not supported is refused",
    ),
    ("bad-envoy-require-tls", "require_tls", "the same, and here calls would be in plaintext"),
    (
        "bad-go-cluster-system-roots",
        "every site",
        "a certificate of any site would do (gRFC A82 asks for no more)",
    ),
    (
        "bad-go-endpoints-no-locality",
        "locality",
        "as gRPC-Go; C-core passes over it, for it has no weight either",
    ),
    ("bad-go-routes-vhds", "vhds", "it would be ignored, and the hosts that it would bring be missing"),
    (
        "bad-routes-domain-twice",
        "two virtual hosts",
        "Envoy refuses it: which of both is meant is anybody's guess",
    ),
];

const GRPC_JS_MORE: &[Differs] = &[
    ("envoy-by-name", "Unsupported type STRICT_DNS", "STRICT_DNS, which gRPC has not"),
    ("envoy-control-plane", "Unsupported type STATIC", "STATIC, which gRPC has not"),
    ("envoy-either", "lb_policy: CLUSTER_PROVIDED", "CLUSTER_PROVIDED, which Envoy asks of an aggregate"),
    (
        "envoy-reviews",
        "min_ring_size must be a number if provided",
        "a ring without a least size, which has a default",
    ),
    ("envoy-routes", "[envoy.filters.http.jwt_authn] validation failed", "filters that gRPC has not"),
    (
        "envoy-server",
        "listener_filters populated",
        "what comes before TLS is Envoy's; and filters that gRPC has not",
    ),
    (
        "go-cluster-mtls",
        "validation_context_certificate_provider_instance",
        "the fields of gRFC A29's first days, as gRPC-Go reads them",
    ),
    ("go-listener-server-mtls", "validation_context_certificate_provider_instance", "the same"),
    ("go-listener-server-tls", "common_tls_context.tls_certificate_provider_instance", "the same"),
    (
        "go-routes-filter-action",
        "unsupported action: filter_action",
        "such a route fails its calls (gRFC A36)",
    ),
    (
        "grpc-listener-authz-and-session",
        "authz filter validation failed",
        "gRFC A92 and A55, which it has not",
    ),
    (
        "istio-listener-inbound-mtls",
        "envoy.filters.http.rbac filter",
        "gRFC A41, which it has only when told to",
    ),
];

const GRPC_JS_LESS: &[Differs] = &[
    ("bad-cluster-ring", "minimum_ring_size", "gRFC A42: at most 8M; it checks the maximum alone"),
    ("bad-endpoints-port", "is not a port", "more than 65535: nobody can connect to it"),
    (
        "bad-envoy-internal-headers",
        "internal_only_headers",
        "it would be ignored; what is not supported is refused",
    ),
    ("bad-envoy-require-tls", "require_tls", "the same, and here calls would be in plaintext"),
    ("bad-go-routes-vhds", "vhds", "it would be ignored, and the hosts that it would bring be missing"),
    ("bad-listener-trusted-hops", "xff_num_trusted_hops", "gRFC A41: it must be 0"),
    (
        "bad-routes-domain-twice",
        "two virtual hosts",
        "Envoy refuses it: which of both is meant is anybody's guess",
    ),
    ("bad-routes-regex", "regex", "gRFC A28: a regular expression that is none"),
];

/// Without a name, and of a type that gRPC has not: nobody is asked.
const NOT_ASKED: &[&str] =
    &["bad-truncated", "bad-name-not-utf8", "bad-wire-type", "bad-group", "bad-length", "bad-no-name"];

/// What each peer answers, file by file.
fn verdicts() -> impl Iterator<Item = (&'static Peer, String, ResourceType, GenericXdsConfig)> {
    PEERS.iter().flat_map(|peer| {
        let path = format!("src/resource/tests/verdicts/{}.bin", peer.file);
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
        let answer = ClientStatusResponse::decode(&*fs::read(file).unwrap()).unwrap();
        let [config] = &answer.config[..] else { panic!("{} clients", answer.config.len()) };
        // grpc-js tells the name of the message.
        let kind = |url: &str| {
            ResourceType::ALL.into_iter().find(|kind| url.rsplit('/').next() == Some(kind.message())).unwrap()
        };
        let all = config.generic_xds_configs.iter();
        all.map(|one| (peer, one.name.clone(), kind(&one.type_url), one.clone())).collect::<Vec<_>>()
    })
}

#[test]
fn each_is_asked_of_every_file_that_it_can_be_asked_of() {
    let accepted = ACCEPTED.iter().chain(envoy::ACCEPTED).map(|(file, kind, _)| (*file, *kind));
    let refused = REFUSED.iter().chain(envoy::REFUSED).map(|((file, kind, ..), _)| (*file, *kind));
    let asked: Vec<_> = accepted
        .chain(refused)
        .filter(|(file, kind)| *kind != ResourceType::Secret && !NOT_ASKED.contains(file))
        .collect();
    let of = |peer: &Peer| asked.iter().map(|(file, _)| (peer.file, (*file).to_owned())).collect::<Vec<_>>();
    let expected: BTreeSet<_> = PEERS.iter().flat_map(of).collect();
    let answered: Vec<_> = verdicts().map(|(peer, file, ..)| (peer.file, file)).collect();
    assert_eq!(answered.len(), expected.len(), "once each");
    assert_eq!(BTreeSet::from_iter(answered), expected);
}

#[test]
fn each_accepts_and_rejects_what_we_do_but_for_what_is_listed() {
    let (mut more, mut less) = (BTreeSet::new(), BTreeSet::new());
    for (peer, file, kind, theirs) in verdicts() {
        let ours = AnyResource::parse(kind, &bytes(&file), &context());
        let differs = |known: &[Differs], text: &str| {
            let listed = known.iter().any(|(name, part, _)| *name == file && text.contains(part));
            assert!(listed, "{} {file}: the verdicts differ, and nobody says why: {text}", peer.file);
        };
        match (theirs.client_status(), ours) {
            (ClientResourceStatus::Acked, Ok(_)) => {}
            (ClientResourceStatus::Acked, Err(error)) => {
                differs(peer.less, &error.to_string());
                less.insert((peer.file, file));
            }
            (ClientResourceStatus::Nacked, ours) => {
                let error = theirs.error_state.unwrap();
                assert!(error.details.starts_with(peer.rejection), "{file}: {}", error.details);
                assert_eq!((error.version_info.is_empty(), theirs.xds_config), (false, None), "{file}");
                if ours.is_ok() {
                    differs(peer.more, &error.details);
                    more.insert((peer.file, file));
                }
            }
            (other, _) => panic!("{} {file}: {other:?}", peer.file),
        }
    }
    let listed = |known: fn(&Peer) -> &'static [Differs]| -> BTreeSet<_> {
        let of = |peer| known(peer).iter().map(|(file, ..)| (peer.file, (*file).to_owned()));
        PEERS.iter().flat_map(of).collect()
    };
    assert_eq!((more, less), (listed(|peer| peer.more), listed(|peer| peer.less)), "what is listed differs");
}

/// They keep what they were sent: here the bytes of the file, and its name at the end.
#[test]
fn what_each_holds_is_read_as_it_tells_it() {
    for (peer, file, kind, theirs) in verdicts() {
        let Some(held) = theirs.xds_config else { continue };
        assert_eq!(ResourceType::from_url(&held.type_url), Some(kind), "{file}");
        let name = [&[0x0a, u8::try_from(file.len()).unwrap()], file.as_bytes()].concat();
        assert_eq!(held.value, [bytes(&file), name].concat(), "{file}");
        if peer.less.iter().all(|(less, ..)| *less != file) {
            let resource = AnyResource::parse(kind, &held.value, &context());
            assert_eq!(&**resource.unwrap_or_else(|error| panic!("{file}: {error}")).name(), &*file);
        }
    }
}
