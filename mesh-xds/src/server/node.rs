//! The node of a first request, from the wire into a [`Node`].

use super::Node;
use crate::{proto, resource::Locality};
use prost_types::{Struct, value::Kind};
use std::{collections::BTreeMap, sync::Arc};

/// What a client says of itself. It is a claim: [`super::Views::view`] holds it against the authenticated peer.
pub fn read_node(node: &proto::Node) -> Node {
    let mut metadata = BTreeMap::new();
    if let Some(fields) = &node.metadata {
        flatten(fields, "", true, &mut metadata);
    }
    let locality = node.locality.clone().unwrap_or_default();
    Node {
        id: node.id.as_str().into(),
        cluster: node.cluster.as_str().into(),
        metadata,
        locality: Locality {
            region: locality.region.into(),
            zone: locality.zone.into(),
            sub_zone: locality.sub_zone.into(),
        },
        user_agent: node.user_agent_name.as_str().into(),
        features: node
            .client_features
            .iter()
            .filter(|one| !one.is_empty())
            .map(|one| one.as_str().into())
            .collect(),
    }
}

/// Bytes that a node is, and what is made of it for as long as its stream lives.
pub(super) fn weight(node: &Node) -> usize {
    let Node { id, cluster, metadata, locality, user_agent, features } = node;
    let Locality { region, zone, sub_zone } = locality;
    let metadata = metadata.iter().flat_map(|(key, value)| [key, value]);
    let texts = [id, cluster, region, zone, sub_zone, user_agent].into_iter().chain(features).chain(metadata);
    // A text has a count of references before it and an allocation around it. Labels and places are told apart from
    // nodes by whoever makes views.
    let texts: usize = texts.map(|text| 2 * text.len() + 48).sum();
    texts + 512
}

/// Strings, numbers and booleans as text; objects one level deep (`LABELS.app`).
fn flatten(fields: &Struct, prefix: &str, descend: bool, into: &mut BTreeMap<Arc<str>, Arc<str>>) {
    for (key, value) in &fields.fields {
        let text: Arc<str> = match &value.kind {
            Some(Kind::StringValue(text)) => text.as_str().into(),
            Some(Kind::BoolValue(flag)) => flag.to_string().into(),
            Some(Kind::NumberValue(number)) => number.to_string().into(),
            Some(Kind::StructValue(inner)) if descend => {
                flatten(inner, &format!("{prefix}{key}."), false, into);
                continue;
            }
            _ => continue,
        };
        into.insert(format!("{prefix}{key}").into(), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Value;

    fn text(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.into())) }
    }

    #[test]
    fn metadata_is_flattened_one_level() {
        let labels = Struct {
            fields: [
                ("app".to_owned(), text("reviews")),
                ("deep".to_owned(), Value { kind: Some(Kind::StructValue(Struct::default())) }),
            ]
            .into(),
        };
        let node = proto::Node {
            id: "n".into(),
            metadata: Some(Struct {
                fields: [
                    ("NAMESPACE".to_owned(), text("default")),
                    ("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(labels)) }),
                    ("PORT".to_owned(), Value { kind: Some(Kind::NumberValue(9080.0)) }),
                    ("NOTHING".to_owned(), Value { kind: Some(Kind::NullValue(0)) }),
                ]
                .into(),
            }),
            client_features: vec!["f".into()],
            ..Default::default()
        };
        let node = read_node(&node);
        let metadata: Vec<_> = node.metadata.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(metadata, [("LABELS.app", "reviews"), ("NAMESPACE", "default"), ("PORT", "9080")]);
        assert_eq!(node.features, [Arc::from("f")]);
    }

    #[test]
    fn a_node_weighs_what_it_says_wherever_it_says_it() {
        let long = "x".repeat(100_000);
        let locality = proto::Locality { region: long.clone(), ..Default::default() };
        let labels = Struct { fields: [(long.clone(), text("v"))].into() };
        let labels = Struct {
            fields: [("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(labels)) })].into(),
        };
        let nodes = [
            proto::Node { id: long.clone(), ..Default::default() },
            proto::Node { cluster: long.clone(), ..Default::default() },
            proto::Node { user_agent_name: long.clone(), ..Default::default() },
            proto::Node { client_features: vec![long], ..Default::default() },
            proto::Node { locality: Some(locality.clone()), ..Default::default() },
            proto::Node { metadata: Some(labels), ..Default::default() },
        ];
        for node in nodes {
            assert!(weight(&read_node(&node)) >= 200_000, "{node:?}");
        }
    }
}
