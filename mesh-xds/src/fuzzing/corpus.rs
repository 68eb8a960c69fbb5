//! Every target over its corpus in `fuzz/corpus`, and over small changes of it, the same in each run. For the
//! resources, what other encoders made is part of it.
//!
//! `MESH_FUZZ_CHANGES` makes more of them.

use super::*;
use crate::{client::fuzzing::cache_content, resource::tests::generators, server::Variant};
use fastrand::Rng;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use prost::Message;
use std::{env, fs, path::PathBuf};

/// Changes of each file.
const CHANGES: u32 = 200;

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

fn files(folder: PathBuf) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// One small change.
fn change(random: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.extend(other);
        return;
    }
    let at = random.usize(..bytes.len());
    let end = (at + random.usize(1..16)).min(bytes.len());
    match random.u8(..8) {
        0 => bytes[at] ^= 1 << random.u8(..8),
        1 => bytes[at] = random.u8(..),
        2 => bytes[at] = random.choice([0, 1, 0x7f, 0x80, 0xff]).unwrap(),
        3 => drop(bytes.drain(at..end)),
        4 => bytes.truncate(at),
        5 => {
            let twice = bytes[at..end].to_vec();
            bytes.splice(at..at, twice);
        }
        6 => bytes.insert(at, random.u8(..)),
        _ => {
            let from = random.usize(..=other.len());
            let to = (from + random.usize(..32)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
    }
}

fn replay(target: &str, run: fn(&[u8])) {
    let mut files = files(folder(target));
    assert!(files.len() >= 5, "the corpus of {target} is empty");
    if ["listener", "route_configuration", "cluster", "cluster_load_assignment", "secret"].contains(&target) {
        files.extend(self::files(
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/resource/tests/recorded"),
        ));
    }
    let changes = env::var("MESH_FUZZ_CHANGES").map_or(CHANGES, |text| text.parse().unwrap());
    for (i, (path, bytes)) in files.iter().enumerate() {
        let attempt = |bytes: &[u8], seed: u64| {
            if let Err(panic) = std::panic::catch_unwind(|| run(bytes)) {
                eprintln!("{target} fails on {path}, change {seed}: {bytes:?}");
                std::panic::resume_unwind(panic);
            }
        };
        attempt(bytes, 0);
        for seed in 1..=u64::from(changes) {
            let mut random = Rng::with_seed((i as u64) << 32 | seed);
            let mut changed = bytes.clone();
            let (_, other) = &files[random.usize(..files.len())];
            for _ in 0..random.u8(1..5) {
                change(&mut random, &mut changed, other);
            }
            attempt(&changed, seed);
        }
    }
}

macro_rules! replays {
    ($($target:ident)+) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target), super::$target);
        })+

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($target)),+]);
        }
    };
}

replays! {
    listener route_configuration cluster cluster_load_assignment secret sotw_response delta_response client_machine
    sotw_server delta_server bootstrap cache_file expression
}

/// Values of a generator, encoded: from the smaller ones of many, always the same.
fn values<T: std::fmt::Debug>(
    runner: &mut TestRunner,
    strategy: impl Strategy<Value = T>,
    encode: impl Fn(&T) -> ::bytes::Bytes,
) -> Vec<::bytes::Bytes> {
    let all = std::iter::repeat_with(|| encode(&strategy.new_tree(runner).unwrap().current()));
    let mut all: Vec<_> = all.take(80).collect();
    all.sort_by_key(::bytes::Bytes::len);
    all.into_iter().take(30).step_by(3).collect()
}

/// Runs one of the machines' targets.
type Run = fn(&[u8]) -> Depth;

/// The machines' part of the corpus: what other implementations were recorded asking, and of the model's lives those
/// that lead deepest and are short enough for a fuzzer.
fn lives() -> [(&'static str, Vec<Vec<u8>>); 3] {
    let modelled = |variant, of: usize, depth: Run| {
        let lives =
            (0..600).flat_map(move |seed| std::mem::take(&mut crate::model::taped(seed, variant)[of]));
        let mut lives: Vec<_> = lives.filter(|life| life.len() <= 1_000).collect();
        lives.sort_by_cached_key(|life| {
            let Depth { answers, rejections } = depth(life);
            std::cmp::Reverse((answers + 2 * rejections, life.len()))
        });
        lives.truncate(16);
        lives
    };
    let [mut sotw, mut delta] = [Vec::new(), Vec::new()];
    for client in ["c-core", "grpc-js"] {
        let [one, other] = crate::server::recorded::taped(client);
        sotw.extend(one);
        delta.extend(other);
    }
    sotw.extend(modelled(Variant::Sotw, 1, server::sotw));
    delta.extend(modelled(Variant::Delta, 1, server::delta));
    let clients =
        [Variant::Sotw, Variant::Delta].map(|variant| modelled(variant, 0, client::machine)).concat();
    [("client_machine", clients), ("sotw_server", sotw), ("delta_server", delta)]
}

#[test]
fn the_seeds_of_machines_lead_deep() {
    let targets: [(&str, Run); 3] =
        [("client_machine", client::machine), ("sotw_server", server::sotw), ("delta_server", server::delta)];
    for (target, depth) in targets {
        let seeds = files(folder(target)).into_iter().filter(|(path, _)| path.contains("generated-"));
        let depths: Vec<Depth> = seeds.map(|(_, bytes)| depth(&bytes)).collect();
        assert!(depths.len() >= 12, "{target}: {} seeds", depths.len());
        assert!(depths.iter().all(|depth| depth.answers >= 3), "{target}: {depths:?}");
        let rejections: usize = depths.iter().map(|depth| depth.rejections).sum();
        assert!(rejections >= 12, "{target}: {depths:?}");
    }
}

fn write(target: &str, files: Vec<Vec<u8>>) {
    fs::create_dir_all(folder(target)).unwrap();
    for (i, bytes) in files.into_iter().enumerate() {
        fs::write(folder(target).join(format!("generated-{i:02}")), bytes).unwrap();
    }
}

/// Writes the machines' part of the corpus: `cargo test -p mesh-xds --lib the_corpus_of_machines -- --ignored`.
#[test]
#[ignore = "it writes files"]
fn the_corpus_of_machines_is_written_anew() {
    for (target, lives) in lives() {
        write(target, lives);
    }
}

/// Writes the rest of the corpus: `cargo test -p mesh-xds --lib the_corpus_is -- --ignored`.
#[test]
#[ignore = "it writes files"]
fn the_corpus_is_written_anew() {
    use crate::resource::Resource;
    let mut runner = TestRunner::deterministic();
    let mut resources = Vec::new();
    let mut of = |kind: ResourceType, values: Vec<::bytes::Bytes>| resources.push((kind, values));
    of(ResourceType::Listener, values(&mut runner, generators::listener(), Resource::to_proto));
    of(
        ResourceType::RouteConfiguration,
        values(&mut runner, generators::route_configuration(), Resource::to_proto),
    );
    of(ResourceType::Cluster, values(&mut runner, generators::cluster(), Resource::to_proto));
    of(
        ResourceType::ClusterLoadAssignment,
        values(&mut runner, generators::assignment(), Resource::to_proto),
    );
    of(ResourceType::Secret, values(&mut runner, generators::secret(), Resource::to_proto));

    let (mut sotw, mut delta, mut caches) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, values) in &resources {
        let target = match kind {
            ResourceType::Listener => "listener",
            ResourceType::RouteConfiguration => "route_configuration",
            ResourceType::Cluster => "cluster",
            ResourceType::ClusterLoadAssignment => "cluster_load_assignment",
            ResourceType::Secret => "secret",
        };
        write(target, values.iter().map(|value| value.to_vec()).collect());
        let any =
            |value: &::bytes::Bytes| crate::proto::Any { type_url: kind.url().into(), value: value.clone() };
        let name = |value: &::bytes::Bytes| crate::resource::name_of(value).unwrap().to_string();
        for (i, pair) in values.chunks(2).take(3).enumerate() {
            let response = crate::proto::DiscoveryResponse {
                version_info: "1".into(),
                resources: pair.iter().map(any).collect(),
                type_url: kind.url().into(),
                nonce: "n".into(),
                ..Default::default()
            };
            sotw.push([vec![i as u8], response.encode_to_vec()].concat());
            let resource = |value: &::bytes::Bytes| crate::proto::Resource {
                name: name(value),
                version: "v".into(),
                resource: Some(any(value)),
                ..Default::default()
            };
            let response = crate::proto::DeltaDiscoveryResponse {
                system_version_info: "1".into(),
                resources: pair.iter().map(resource).collect(),
                type_url: kind.url().into(),
                removed_resources: vec!["gone".into()],
                nonce: "n".into(),
                ..Default::default()
            };
            delta.push([vec![i as u8], response.encode_to_vec()].concat());
            let records = pair.iter().map(|value| (*kind, name(value).into(), value.clone()));
            caches.push(cache_content(records.collect()));
        }
    }
    write("sotw_response", sotw);
    write("delta_response", delta);
    write("cache_file", caches);
    write("bootstrap", BOOTSTRAPS.iter().map(|text| text.as_bytes().to_vec()).collect());
}

const BOOTSTRAPS: &[&str] = &[
    r#"{"xds_servers":[{"server_uri":"127.0.0.1:15010","channel_creds":[{"type":"insecure"}]}]}"#,
    r#"{"xds_servers":[{"server_uri":"dns:///istiod.istio-system.svc:15010","channel_creds":[{"type":"google_default"},{"type":"insecure"}],"server_features":["xds_v3","fail_on_data_errors",7]}],"node":{"id":"sidecar~10.0.0.1~a.default~default.svc.cluster.local","metadata":{"GENERATOR":"grpc","LABELS":{"app":"a"},"N":null,"B":[true,1.5]},"locality":{"region":"r","zone":"z"}},"certificate_providers":{"default":{"plugin_name":"file_watcher","config":{"certificate_file":"/c.pem","private_key_file":"/k.pem","ca_certificate_file":"/r.pem","refresh_interval":"900s"}}},"server_listener_resource_name_template":"xds.istio.io/grpc/lds/inbound/%s"}"#,
    r#"{"xds_servers":[{"server_uri":"a:1","channel_creds":[{"type":"tls","config":{"ca_certificate_file":"/r.pem","refresh_interval":"1.5s"}}],"server_features":["resource_timer_is_transient_error","trusted_xds_server"]},{"server_uri":"b:2","channel_creds":[{"type":"insecure"}]}],"authorities":{"x":{"client_listener_resource_name_template":"xdstp://x/envoy.config.listener.v3.Listener/%s","xds_servers":[{"server_uri":"c:3","channel_creds":[{"type":"insecure"}]}]}},"client_default_listener_resource_name_template":"%s"}"#,
    r#"{"xds_servers":[{"server_uri":"unix:///etc/istio/proxy/XDS","channel_creds":[{"type":"insecure"}]}],"node":{"id":"n","cluster":"c","metadata":{}}}"#,
    r#"{"xds_servers":[],"node":{"id":7}}"#,
    r#"{"xds_servers":[{"server_uri":"a:99999","channel_creds":[{"type":"insecure"}]}]}"#,
];
