//! What gRPC's C-core makes of the bytes of `recorded.rs`, beside what we make of them. `verdicts/c-core.bin` is its own
//! client status (CSDS, gRFC A40), which `tests/peers/python/recorded_verdicts.py` asks for; a resource has there the
//! name of its file.

use super::{
    AnyResource, ResourceType, envoy,
    recorded::{ACCEPTED, REFUSED, bytes, context},
};
use crate::csds::ClientStatusResponse;
use envoy_types::pb::envoy::{
    admin::v3::ClientResourceStatus, service::status::v3::client_config::GenericXdsConfig,
};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

/// What we accept and C-core rejects: file, a part of what it says, and why we do.
const MORE: &[(&str, &str, &str)] = &[
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

/// What we reject and C-core accepts: file, a part of what we say, and why we do.
const LESS: &[(&str, &str, &str)] = &[
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

/// Without a name, and of a type that gRPC has not: C-core is not asked.
const NOT_ASKED: &[&str] =
    &["bad-truncated", "bad-name-not-utf8", "bad-wire-type", "bad-group", "bad-length", "bad-no-name"];

/// C-core's answer by file.
fn verdicts() -> BTreeMap<String, GenericXdsConfig> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/resource/tests/verdicts/c-core.bin");
    let answer = ClientStatusResponse::decode(&*fs::read(file).unwrap()).unwrap();
    let [config] = &answer.config[..] else { panic!("{} clients", answer.config.len()) };
    config.generic_xds_configs.iter().map(|one| (one.name.clone(), one.clone())).collect()
}

#[test]
fn c_core_is_asked_of_every_file_that_it_can_be_asked_of() {
    let accepted = ACCEPTED.iter().chain(envoy::ACCEPTED).map(|(file, kind, _)| (*file, *kind));
    let refused = REFUSED.iter().chain(envoy::REFUSED).map(|((file, kind, ..), _)| (*file, *kind));
    let asked = accepted
        .chain(refused)
        .filter(|(file, kind)| *kind != ResourceType::Secret && !NOT_ASKED.contains(file));
    let expected: BTreeSet<String> = asked.map(|(file, _)| file.to_owned()).collect();
    assert_eq!(verdicts().into_keys().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn c_core_accepts_and_rejects_what_we_do_but_for_what_is_listed() {
    let (mut more, mut less) = (BTreeSet::new(), BTreeSet::new());
    for (file, theirs) in verdicts() {
        let kind = ResourceType::from_url(&theirs.type_url).unwrap();
        let ours = AnyResource::parse(kind, &bytes(&file), &context());
        let differs = |known: &[(&str, &str, &str)], text: &str| {
            let listed = known.iter().any(|(name, part, _)| *name == file && text.contains(part));
            assert!(listed, "{file}: the verdicts differ, and nobody says why: {text}");
        };
        match (theirs.client_status(), ours) {
            (ClientResourceStatus::Acked, Ok(_)) => {}
            (ClientResourceStatus::Acked, Err(error)) => {
                differs(LESS, &error.to_string());
                less.insert(file);
            }
            (ClientResourceStatus::Nacked, ours) => {
                let error = theirs.error_state.unwrap();
                assert!(error.details.starts_with("invalid resource: "), "{file}: {}", error.details);
                assert_eq!((error.version_info.is_empty(), theirs.xds_config), (false, None), "{file}");
                if ours.is_ok() {
                    differs(MORE, &error.details);
                    more.insert(file);
                }
            }
            (other, _) => panic!("{file}: {other:?}"),
        }
    }
    let listed = |known: &[(&str, &str, &str)]| known.iter().map(|(file, ..)| (*file).to_owned()).collect();
    assert_eq!((more, less), (listed(MORE), listed(LESS)), "what is listed differs");
}

/// C-core keeps what it was sent: here the bytes of the file, and its name at the end.
#[test]
fn what_c_core_holds_is_read_as_it_tells_it() {
    for (file, theirs) in verdicts() {
        let Some(held) = theirs.xds_config else { continue };
        assert_eq!(held.type_url, theirs.type_url, "{file}");
        let name = [&[0x0a, u8::try_from(file.len()).unwrap()], file.as_bytes()].concat();
        assert_eq!(held.value, [bytes(&file), name].concat(), "{file}");
        if LESS.iter().all(|(less, ..)| *less != file) {
            let kind = ResourceType::from_url(&theirs.type_url).unwrap();
            let resource = AnyResource::parse(kind, &held.value, &context());
            assert_eq!(&**resource.unwrap_or_else(|error| panic!("{file}: {error}")).name(), &*file);
        }
    }
}
