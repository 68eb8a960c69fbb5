//! What gRPC's C-core and grpc-js send over a life, as the bytes that they sent, and what the machine answers.
//! `tests/peers/python/recorded_life.py` writes them down; each answer that is in them is one to the machine's own
//! responses, since nonces and versions are those of the recording.

use super::{testing::Toys, tests::Brief, *};
use crate::{
    client,
    fuzzing::tape::{Served, ServerTape},
    name::{Name, ResourceType},
    proto,
};
use prost::Message;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

/// A line of a recording.
enum Line {
    /// What is served from then on.
    View(Arc<dyn View>),
    /// A stream begins.
    Stream,
    /// A DiscoveryRequest on it.
    Request(Vec<u8>),
    /// A LoadStatsRequest.
    Load(Vec<u8>),
}

/// The load reports of a client, in order.
pub(crate) fn loads(client: &str) -> Vec<Vec<u8>> {
    let loads = lines(client).into_iter().filter_map(|line| match line {
        Line::Load(bytes) => Some(bytes),
        _ => None,
    });
    loads.collect()
}

/// What a client asks, written down for the fuzzer: each stream for itself, in both ways of ADS.
pub(crate) fn taped(client: &str) -> [Vec<Vec<u8>>; 2] {
    [false, true].map(|is_delta| {
        let mut tapes: Vec<ServerTape> = Vec::new();
        let mut served = Served::new();
        let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines(client) {
            match (line, tapes.last_mut()) {
                (Line::View(view), tape) => {
                    served = of(&*view);
                    if let Some(tape) = tape {
                        tape.view(served.clone());
                    }
                }
                (Line::Stream, _) => {
                    named.clear();
                    tapes.push(ServerTape::begin(false, served.clone()));
                }
                (Line::Request(bytes), Some(tape)) => {
                    let request = proto::DiscoveryRequest::decode(&*bytes).unwrap();
                    let before = named
                        .insert(request.type_url.clone(), request.resource_names.clone())
                        .unwrap_or_default();
                    tape.request(&match is_delta {
                        true => client::Request::Delta(as_delta(request, &before)),
                        false => client::Request::Sotw(request),
                    });
                }
                _ => {}
            }
        }
        tapes.into_iter().map(ServerTape::bytes).collect()
    })
}

/// Everything in a view.
fn of(view: &dyn View) -> Served {
    let all = ResourceType::ALL.into_iter().flat_map(|kind| {
        view.names(kind).into_iter().filter_map(move |name| {
            let version = view.resource(kind, &name)?.version.to_string();
            Some(((kind, name), version))
        })
    });
    all.collect()
}

/// What an incremental stream would say instead, of a client that named these before.
fn as_delta(request: proto::DiscoveryRequest, before: &[String]) -> proto::DeltaDiscoveryRequest {
    let proto::DiscoveryRequest { type_url, resource_names: names, response_nonce, error_detail, .. } =
        request;
    let without = |all: &[String], those: &[String]| {
        all.iter().filter(|name| !those.contains(name)).cloned().collect::<Vec<_>>()
    };
    proto::DeltaDiscoveryRequest {
        resource_names_subscribe: without(&names, before),
        resource_names_unsubscribe: without(before, &names),
        type_url,
        response_nonce,
        error_detail,
        ..Default::default()
    }
}

fn lines(client: &str) -> Vec<Line> {
    let file = format!("src/server/recorded/{client}.txt");
    let text = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    text.lines().map(line).collect()
}

fn line(line: &str) -> Line {
    let mut words = line.split_whitespace();
    match words.next().unwrap() {
        "view" => {
            let revision = words.next().unwrap().strip_prefix('r').unwrap().parse().unwrap();
            let resources = words.map(|word| {
                let (kind, rest) = word.split_once('/').unwrap();
                let (name, version) = rest.split_once('=').unwrap();
                let kind = ResourceType::ALL.into_iter().find(|known| known.abbreviation() == kind).unwrap();
                ((kind, Name::from(name)), Arc::from(version))
            });
            Line::View(Arc::new(Toys { revision, resources: resources.collect() }))
        }
        "stream" => Line::Stream,
        "request" => Line::Request(bytes(words.next().unwrap())),
        "load" => Line::Load(bytes(words.next().unwrap_or_default())),
        other => panic!("{other}"),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A client's life, with a machine for each of its streams.
#[derive(Default)]
struct Life {
    view: Option<Arc<dyn View>>,
    machine: Option<Sotw>,
    now: Option<Instant>,
    /// Of each type the last response's nonce on this stream.
    nonces: BTreeMap<String, String>,
    told: Vec<String>,
    rejections: Vec<Rejection>,
    nodes: Vec<Node>,
}

impl Life {
    fn of(client: &str) -> Self {
        let mut life = Self { now: Some(Instant::now()), ..Self::default() };
        for line in lines(client) {
            match line {
                Line::View(view) => {
                    life.told.push(format!("view {}", view.revision()));
                    life.view = Some(view.clone());
                    if life.machine.is_some() {
                        life.on(Input::View(view));
                        life.wait();
                    }
                }
                Line::Stream => {
                    life.told.push("stream".to_owned());
                    (life.machine, life.nonces) = (None, BTreeMap::new());
                }
                Line::Request(bytes) => life.request(&bytes),
                Line::Load(_) => {}
            }
        }
        life
    }

    fn request(&mut self, bytes: &[u8]) {
        let request = proto::DiscoveryRequest::decode(bytes).unwrap();
        if self.machine.is_none() {
            let node = read_node(request.node.as_ref().expect("a stream begins with the node"));
            self.machine = Some(Sotw::new(&node, self.view.clone().unwrap(), Settings::default()));
            self.nodes.push(node);
        }
        let proto::DiscoveryRequest { version_info, resource_names, type_url, response_nonce, .. } = &request;
        if !response_nonce.is_empty() {
            assert_eq!(self.nonces.get(type_url), Some(response_nonce), "{type_url}: an answer to the last");
        }
        let kind = ResourceType::from_url(type_url).unwrap().abbreviation();
        let mut names = resource_names.clone();
        names.sort();
        let rejects = request.error_detail.as_ref().map_or("", |_| " NACK");
        self.told.push(format!("> {kind} {version_info}#{response_nonce} {}{rejects}", names.join(" ")));
        self.on(Input::Request(request));
    }

    fn on(&mut self, input: Input<proto::DiscoveryRequest>) {
        let outputs = self.machine.as_mut().unwrap().on(self.now.unwrap(), input).unwrap();
        for response in outputs.responses {
            self.told.push(format!("< {}", response.brief()));
            self.nonces.insert(response.type_url, response.nonce);
        }
        if let Some(rejection) = outputs.rejected {
            let mut types = self.machine.as_ref().unwrap().stream().types(self.now.unwrap()).into_iter();
            let status = types.find(|status| status.kind == rejection.kind.abbreviation()).unwrap();
            self.told.push(format!("rejected {}", status.rejected.join(" ")));
            self.rejections.push(rejection);
        }
        self.told.extend(outputs.acked.map(|revision| format!("holds {revision}")));
    }

    /// Until time alone does nothing more: so long the recording waits after each change.
    fn wait(&mut self) {
        while let Some(due) = self.machine.as_ref().unwrap().stream().deadline() {
            self.now = Some(due);
            self.on(Input::Tick);
        }
    }
}

/// What both do, until they go apart.
const LIFE: &[&str] = &[
    "view r1",
    "stream",
    "> LDS # reviews:9080",
    "< LDS r1#1 reviews:9080=1",
    "> LDS r1#1 reviews:9080",
    "holds r1",
    "> RDS # routes",
    "< RDS r1#2 routes=1",
    "> RDS r1#2 routes",
    "> CDS # a",
    "< CDS r1#3 a=1",
    "> CDS r1#3 a",
    "> EDS # a-endpoints",
    "< EDS r1#4 a-endpoints=1",
    "> EDS r1#4 a-endpoints",
    "view r2",
    "< RDS r2#5 routes=2",
    "> RDS r2#5 routes",
    "holds r2",
    "> CDS r1#3 a b",
    "< CDS r2#6 a=1 b=1",
    "> CDS r2#6 a b",
    "> EDS r1#4 a-endpoints b-endpoints",
    "< EDS r2#7 b-endpoints=1",
    "> EDS r2#7 a-endpoints b-endpoints",
    "view r3",
    "< CDS r3#8 a=1 b=3",
    "> CDS r3#8 a b NACK",
    "rejected b",
    "view r4",
    "< CDS r4#9 a=1 b=4",
    "> CDS r4#9 a b",
    "holds r4",
    "view r5",
    "< RDS r5#10 routes=5",
    "> RDS r5#10 routes",
    "holds r5",
];

/// From there on until the stream ends.
const C_CORE: &[&str] = &[
    "> CDS r4#9 b",
    "> EDS r2#7 b-endpoints",
    "view r6",
    "holds r6",
    "< LDS r6#11 -reviews:9080",
    "> LDS r6#11 reviews:9080",
    "view r7",
    "< LDS r7#12 reviews:9080=7",
    "> LDS r7#12 reviews:9080",
    "holds r7",
    "stream",
];

/// From there on until the stream ends. After the listener was gone it never asks for its routes again.
const GRPC_JS: &[&str] = &[
    "> EDS r2#7 b-endpoints",
    "> CDS r4#9 b",
    "view r6",
    "holds r6",
    "< LDS r6#11 -reviews:9080",
    "> LDS r6#11 reviews:9080",
    // Not a wildcard, nor is there one for routes.
    "> RDS r5#10 ",
    "view r7",
    "< LDS r7#12 reviews:9080=7",
    "> LDS r7#12 reviews:9080",
    "holds r7",
    "stream",
];

/// What both say on the second stream, sorted and without nonces: C-core has no order of types there.
const AGAIN: &[&str] = &[
    "< CDS r7 b=4",
    "< EDS r7 b-endpoints=1",
    "< LDS r7 reviews:9080=7",
    "> CDS r4 b",
    "> CDS r7 b",
    "> EDS r2 b-endpoints",
    "> EDS r7 b-endpoints",
    "> LDS r7 reviews:9080",
    "> LDS r7 reviews:9080",
];

/// What C-core says there besides.
const ROUTES_AGAIN: &[&str] = &["< RDS r7 routes=5", "> RDS r5 routes", "> RDS r7 routes"];

fn without_nonce(line: &str) -> String {
    let (before, after) = line.split_once('#').unwrap();
    format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[test]
fn other_implementations_are_answered_over_a_whole_life() {
    for (client, rest, more) in [("c-core", C_CORE, ROUTES_AGAIN), ("grpc-js", GRPC_JS, &[])] {
        let life = Life::of(client);
        let second = life.told.iter().rposition(|line| line == "stream").unwrap() + 1;
        let (first, second) = life.told.split_at(second);
        assert_eq!(first, [LIFE, rest].concat(), "{client}");
        let (last, second) = second.split_last().unwrap();
        assert_eq!(last, "holds r7", "{client}");
        let said = second.iter().filter(|line| !line.starts_with("holds"));
        let mut said: Vec<_> = said.map(|line| without_nonce(line)).collect();
        let mut expected = [AGAIN, more].concat();
        said.sort();
        expected.sort_unstable();
        assert_eq!(said, expected, "{client}");
        let types = life.machine.unwrap().stream().types(life.now.unwrap());
        let held: Vec<_> =
            types.iter().map(|status| (status.kind, status.held, status.outstanding)).collect();
        let routes = (client == "c-core").then_some(("RDS", 1, false));
        let expected = [("CDS", 1, false), ("EDS", 1, false), ("LDS", 1, false)].into_iter().chain(routes);
        assert_eq!(held, expected.collect::<Vec<_>>(), "{client}");
    }
}

#[test]
fn a_rejection_is_read_in_the_words_of_each_implementation() {
    let texts = [
        ("c-core", "resource index 1: b: INVALID_ARGUMENT: errors validating Cluster resource"),
        ("grpc-js", "resource index 1: Cluster message validation failed: [Unsupported type ORIGINAL_DST]"),
    ];
    for (client, text) in texts {
        let life = Life::of(client);
        let [rejection] = &life.rejections[..] else { panic!("{:?}", life.rejections) };
        assert_eq!(rejection.kind, ResourceType::Cluster);
        assert!(rejection.text.contains(text), "{client}: {}", rejection.text);
    }
}

#[test]
fn nodes_of_other_implementations_are_read() {
    let agents = [
        ("c-core", "gRPC C-core linux Python", Some("xds.config.resource-in-sotw")),
        ("grpc-js", "gRPC Node Pure JS", None),
    ];
    for (client, agent, feature) in agents {
        let nodes = Life::of(client).nodes;
        assert_eq!(nodes.len(), 2, "{client}: one for each stream");
        for node in nodes {
            assert_eq!((&*node.id, &*node.cluster, &*node.user_agent), ("recorded", "tests", agent));
            assert_eq!((&*node.locality.region, &*node.metadata["key"]), ("here", "value"));
            let of_core = "envoy.lb.does_not_support_overprovisioning";
            let features: Vec<_> = node.features.iter().map(|feature| &**feature).collect();
            assert_eq!(features, [of_core].into_iter().chain(feature).collect::<Vec<_>>());
        }
    }
}
