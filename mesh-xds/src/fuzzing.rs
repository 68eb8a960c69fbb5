//! What the fuzzer runs, and what the tests run over its corpus: each target takes any bytes, and panics if a
//! promise is broken. `fuzz/` holds the corpus and the programs; see `fuzz/README.md`.
//!
//! Not for users: there only in tests and with the feature `fuzzing`.

mod bytes;
mod client;
mod server;

#[cfg(test)]
mod corpus;
#[cfg(test)]
pub(crate) mod tape;

use crate::{
    bootstrap::Bootstrap,
    matcher::FullRegex,
    name::ResourceType,
    resource::{
        AnyResource, ParseContext, Resource, Secret, Support, route::RegexRewrite, secret::SecretContent,
    },
};
use std::sync::Arc;

/// Does something with arbitrary bytes; a panic is a finding.
pub type Target = fn(&[u8]);

/// Every target by the name of its program and of its folder in the corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("listener", listener),
    ("route_configuration", route_configuration),
    ("cluster", cluster),
    ("cluster_load_assignment", cluster_load_assignment),
    ("secret", secret),
    ("sotw_response", sotw_response),
    ("delta_response", delta_response),
    ("client_machine", client_machine),
    ("sotw_server", sotw_server),
    ("delta_server", delta_server),
    ("bootstrap", bootstrap),
    ("cache_file", cache_file),
    ("expression", expression),
];

/// How far into the life of a machine some bytes lead.
#[derive(Clone, Copy, Debug, Default)]
struct Depth {
    answers: usize,
    rejections: usize,
}

/// A listener.
pub fn listener(data: &[u8]) {
    resource(ResourceType::Listener, data);
}

/// A route configuration.
pub fn route_configuration(data: &[u8]) {
    resource(ResourceType::RouteConfiguration, data);
}

/// A cluster.
pub fn cluster(data: &[u8]) {
    resource(ResourceType::Cluster, data);
}

/// The endpoints of a cluster.
pub fn cluster_load_assignment(data: &[u8]) {
    resource(ResourceType::ClusterLoadAssignment, data);
}

/// A secret: besides, what is shown of it has no key.
pub fn secret(data: &[u8]) {
    resource(ResourceType::Secret, data);
    let Ok(secret) = Secret::parse(data, &context()) else { return };
    let SecretContent::Certificate(certificate) = &secret.content else { return };
    let (key, chain) = (certificate.key.pem(), &certificate.chain);
    let holds = |bytes: &[u8]| bytes.windows(key.len()).any(|window| window == key);
    // What is public of it may hold anything; not so what a key is there for.
    assert!(holds(chain) || holds(secret.name.as_bytes()) || !holds(&secret.redacted()), "the key is shown");
    assert!(!format!("{certificate:?}").contains(&format!("{key:?}")), "the key is printed");
}

/// A state-of-the-world response that a client takes.
pub fn sotw_response(data: &[u8]) {
    crate::client::fuzzing::response(crate::server::Variant::Sotw, data);
}

/// An incremental response that a client takes.
pub fn delta_response(data: &[u8]) {
    crate::client::fuzzing::response(crate::server::Variant::Delta, data);
}

/// Anything that happens to a client, in any order.
pub fn client_machine(data: &[u8]) {
    client::machine(data);
}

/// Any requests and revisions, on a state-of-the-world stream of a server.
pub fn sotw_server(data: &[u8]) {
    server::sotw(data);
}

/// Any requests and revisions, on an incremental stream of a server.
pub fn delta_server(data: &[u8]) {
    server::delta(data);
}

/// A bootstrap file: what is accepted is printed so that it is read as the same.
pub fn bootstrap(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let bootstrap = match Bootstrap::from_json(text, "fuzz") {
        Ok(bootstrap) => bootstrap,
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 64 * (data.len() + 1024), "an error of {} bytes", text.len());
            return;
        }
    };
    let again = Bootstrap::from_json(&bootstrap.to_json().to_string(), "printed");
    assert_eq!(again.ok().as_ref(), Some(&bootstrap), "it is printed as another");
    let _ = bootstrap.client_listener(None, "reviews:9080");
    let _ = bootstrap.server_listener(&([127, 0, 0, 1], 80).into());
}

/// The content of a file with the last known good configuration.
pub fn cache_file(data: &[u8]) {
    crate::client::fuzzing::cache_file(data);
}

/// A regular expression, and behind a NUL what it is tried on. What is accepted compiles, means the same in a group, and
/// replaces what it finds by itself without a change; a reason is not longer than what it is about.
pub fn expression(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, input) = text.split_once('\0').unwrap_or((text, ""));
    let regex = match FullRegex::new(text) {
        Ok(regex) => regex,
        Err(error) => {
            let told = error.to_string();
            assert!(told.len() < text.len() + 1024, "an error of {} bytes", told.len());
            assert!(!told.contains("fault of this program"), "{told}");
            return;
        }
    };
    let matches = regex.matches(input);
    // A quotation may end behind it, and it may be as deep as is taken.
    if let Ok(grouped) = FullRegex::new(&format!("(?:{text})")) {
        assert_eq!(grouped.matches(input), matches, "in a group it is another");
    }
    if let Ok(same) = RegexRewrite::new(text, r"\0") {
        assert_eq!(same.apply(input), input, "what is found is not where it is found");
    }
}

/// Everything that the parsers can read.
pub(crate) fn context() -> ParseContext {
    ParseContext {
        certificate_providers: [Arc::from("default")].into(),
        trusted: true,
        support: Support::all(),
        ..ParseContext::default()
    }
}

/// What is a resource comes back from its own bytes, and equal values have equal bytes.
fn resource(kind: ResourceType, data: &[u8]) {
    let context = context();
    let resource = match AnyResource::parse(kind, data, &context) {
        Ok(resource) => resource,
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 512 << 10, "an error of {} bytes", text.len());
            return;
        }
    };
    let bytes = resource.to_proto();
    let again = AnyResource::parse(kind, &bytes, &context);
    assert_eq!(again.as_ref(), Ok(&resource), "it does not come back");
    assert_eq!(again.map(|again| again.to_proto()), Ok(bytes), "equal values have different bytes");
    for (kind, name) in resource.references() {
        assert!(!name.is_empty(), "a {kind} without a name is referred to");
    }
}
