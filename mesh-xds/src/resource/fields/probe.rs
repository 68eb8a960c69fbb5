//! The fields of a generated message, found without a descriptor, and bytes that set each.
//!
//! A field number is one that the message has if decoding a value under it changes the message. The name of
//! the field is in the message's `Debug`, which prost derives from the definition.

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use std::fmt::Debug;

/// More than any message of Envoy has.
const HIGHEST: u32 = 256;

/// A field that a message has.
pub(in crate::resource) struct Known {
    /// As in the definition; of a `oneof`, the alternative's.
    pub(in crate::resource) name: String,
    /// Encodings that set it, key included, with different values.
    pub(in crate::resource) set: Vec<Vec<u8>>,
}

/// Every field of `M`.
pub(in crate::resource) fn known<M: Message + Default + PartialEq + Debug>() -> Vec<Known> {
    let plain = M::default();
    let mut found = Vec::new();
    for tag in 1..HIGHEST {
        let mut name = None;
        let mut set = Vec::new();
        for value in values(tag) {
            if let Ok(message) = M::decode(&*value)
                && message != plain
            {
                name = name.or_else(|| changed(&format!("{plain:#?}"), &format!("{message:#?}")));
                set.push(value);
            }
        }
        found.extend(name.map(|name| Known { name, set }));
    }
    found
}

/// A value of each kind under a field number. One at least suits a field of any type.
fn values(tag: u32) -> Vec<Vec<u8>> {
    let with = |kind: WireType, value: &[u8]| {
        let mut bytes = Vec::new();
        encode_key(tag, kind, &mut bytes);
        if kind == WireType::LengthDelimited {
            encode_varint(value.len() as u64, &mut bytes);
        }
        bytes.extend_from_slice(value);
        bytes
    };
    let lengths: [&[u8]; 17] = [
        b"a",
        b"",
        // A message whose field 1 is: a number, a text, an empty message, a message whose field 1 is 1.
        b"\x08\x01",
        b"\x0a\x01a",
        b"\x0a\x00",
        b"\x0a\x02\x08\x01",
        // Field 2: a number, a text, an empty message.
        b"\x10\x01",
        b"\x12\x01a",
        b"\x12\x00",
        // Field 3: a number, an empty message, a message whose field 1 is 1; and that in field 4.
        b"\x18\x01",
        b"\x1a\x00",
        b"\x1a\x02\x08\x01",
        b"\x22\x02\x08\x01",
        // A number that is large enough for most, and a prime; the provider of the tests; a network.
        b"\x08\x85\x10",
        b"\x0a\x07default",
        b"\x0a\x0810.0.0.0\x12\x02\x08\x08",
        // Two texts, as a header and its value.
        b"\x0a\x06\x0a\x01b\x12\x01c",
    ];
    [with(WireType::Varint, b"\x01"), with(WireType::Varint, b"\x02")]
        .into_iter()
        .chain(lengths.map(|value| with(WireType::LengthDelimited, value)))
        .chain([with(WireType::SixtyFourBit, &1_f64.to_le_bytes())])
        .chain([with(WireType::ThirtyTwoBit, &1_f32.to_le_bytes())])
        .collect()
}

/// The name of the field that differs between two `{:#?}` of one message.
fn changed(one: &str, other: &str) -> Option<String> {
    let (before, after) = (top_level(one), top_level(other));
    let (name, value) = after.into_iter().zip(before).find(|(after, before)| after != before)?.0;
    let name = name.trim_start_matches("r#").to_owned();
    // An alternative of a `oneof` is `Some(Alternative(…))`; a message is `Some(Message {…})`.
    let inner = value.strip_prefix("Some(").map(str::trim_start);
    let alternative = inner.and_then(|inner| {
        let end = inner.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        let (ident, rest) = inner.split_at(end);
        (rest.starts_with('(') && ident.starts_with(char::is_uppercase)).then_some(ident)
    });
    Some(alternative.map_or(name, snake))
}

/// Name and value of each field.
fn top_level(debug: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in debug.lines().skip(1) {
        let own = line.strip_prefix("    ").filter(|rest| !rest.starts_with(' '));
        match (own.and_then(|rest| rest.split_once(": ")), fields.last_mut()) {
            (Some((name, value)), _) if !name.contains(['(', '{', '"']) => {
                fields.push((name.into(), value.into()));
            }
            (_, Some((_, value))) => {
                value.push('\n');
                value.push_str(line);
            }
            _ => {}
        }
    }
    fields
}

/// `AutoHostRewrite` is `auto_host_rewrite`.
fn snake(camel: &str) -> String {
    let mut out = String::new();
    for (i, c) in camel.trim_end_matches('_').chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction};

    #[test]
    fn fields_and_alternatives_are_found_by_name() {
        let names = |known: Vec<Known>| known.into_iter().map(|known| known.name).collect::<Vec<_>>();
        let route = names(known::<Route>());
        for name in ["name", "match", "direct_response", "typed_per_filter_config", "stat_prefix"] {
            assert!(route.iter().any(|known| known == name), "{name} in {route:?}");
        }
        let action = names(known::<RouteAction>());
        for name in ["cluster", "weighted_clusters", "auto_host_rewrite", "timeout", "priority"] {
            assert!(action.iter().any(|known| known == name), "{name} in {action:?}");
        }
        assert!(!action.iter().any(|known| known == "cluster_specifier"), "{action:?}");
    }
}
