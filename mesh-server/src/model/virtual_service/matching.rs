//! HTTPMatchRequest from YAML.

use super::HttpMatch;
use super::read::Around;
use crate::model::node::{Node, Value};
use crate::model::read::{self, Map, Report};
use crate::model::value::{StringMatch, is_header_name};

const MATCH: &[&str] = &[
    "authority",
    "gateways",
    "headers",
    "ignoreUriCase",
    "method",
    "name",
    "port",
    "queryParams",
    "scheme",
    "sourceLabels",
    "sourceNamespace",
    "statPrefix",
    "uri",
    "withoutHeaders",
];

const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":status"];

pub(super) fn http_match(node: &Node, around: Around, report: &mut Report) -> Option<HttpMatch> {
    if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
        return report.fail(node.at, "an empty match: leave `match` out to take every request");
    }
    let map = report.map(node, "an HTTP match", MATCH)?;
    map.ignored("statPrefix", report, "`statPrefix`");
    let gateways = map.many("gateways", report, read::some_text);
    Some(HttpMatch {
        name: map.one("name", report, read::text),
        at: node.at,
        uri: map.one("uri", report, read::string_match(true)),
        ignore_uri_case: map.one("ignoreUriCase", report, read::boolean).unwrap_or(false),
        scheme: map.one("scheme", report, read::string_match(false)),
        method: map.one("method", report, read::string_match(false)),
        authority: map.one("authority", report, read::string_match(false)),
        headers: headers(&map, "headers", around, report),
        without_headers: headers(&map, "withoutHeaders", around, report),
        query_params: pairs(&map, "queryParams", report),
        port: map.one("port", report, read::port),
        source_labels: map.one("sourceLabels", report, read::labels).unwrap_or_default(),
        source_namespace: map.one("sourceNamespace", report, read::text).filter(|text| !text.is_empty()),
        for_mesh: map.has("gateways").then(|| gateways.iter().any(|gateway| gateway == "mesh")),
    })
}

fn headers(map: &Map<'_>, key: &str, around: Around, report: &mut Report) -> Vec<(String, StringMatch)> {
    let Some(block) = map.get(key) else { return Vec::new() };
    for entry in report.entries(block, key).unwrap_or_default() {
        if entry.key.starts_with("@request.auth.claims") {
            if around.for_mesh {
                let message =
                    "matching on JWT claims works only at a gateway, and this object is for the mesh";
                report.error(entry.key_at, message);
            }
        } else if !is_header_name(&entry.key) && !PSEUDO.contains(&entry.key.as_str()) {
            report.error(entry.key_at, format!("{:?} is not a header name", entry.key));
        }
    }
    let mut pairs = pairs(map, key, report);
    for (name, _) in &mut pairs {
        name.make_ascii_lowercase();
    }
    pairs
}

fn pairs(map: &Map<'_>, key: &str, report: &mut Report) -> Vec<(String, StringMatch)> {
    let Some(block) = map.get(key) else { return Vec::new() };
    let mut pairs = Vec::new();
    for entry in report.entries(block, key).unwrap_or_default() {
        if entry.key.is_empty() {
            report.error(entry.key_at, format!("a name in `{key}` must not be empty"));
        }
        // `x: ` (null) is as good as `x: {}`.
        let matched = match entry.node.value {
            Value::Null => Some(StringMatch::Present),
            _ => read::string_match_or_presence(false)(&entry.node, report),
        };
        pairs.extend(matched.map(|matched| (entry.key.clone(), matched)));
    }
    pairs
}
