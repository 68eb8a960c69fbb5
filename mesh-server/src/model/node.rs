//! YAML text to a tree of nodes that know where they were written.
//!
//! Syntax, duplicate keys and resource limits are the YAML parser's business and end the file:
//! there is nothing to read behind them. Everything else is checked on the tree, where all
//! errors can be found instead of the first.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use crate::analysis::Position;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// What YAML can say.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) node: Node,
}

/// Why a text is not YAML.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
}

/// Reads all documents of a text; empty ones are left out.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
    };
    let nodes: Vec<Node> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| SyntaxError::new(&error, text))?;
    Ok(nodes.into_iter().filter(|node| !matches!(node.value, Value::Null)).collect())
}

impl SyntaxError {
    fn new(error: &serde_saphyr::Error, text: &str) -> Self {
        let formatter = serde_saphyr::UserMessageFormatter;
        let error = error.without_snippet();
        let mut message = match error {
            serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
                format!("the key `{key}` is given twice")
            }
            other => other.render_with_formatter(&formatter),
        };
        // The parser ends its text with the place, which a finding shows in its own way.
        if let Some(end) = message.rfind(" at line ") {
            message.truncate(end);
        }
        let mut at = error.location().map_or(Position { line: 1, column: 1, width: 1 }, position);
        let line = text.lines().nth(at.line as usize - 1).unwrap_or_default();
        let is_word = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        let word = line.chars().skip(at.column as usize - 1).take_while(is_word).count();
        at.width = u32::try_from(word).unwrap_or(1).max(1);
        Self { at, message: format!("invalid YAML: {message}") }
    }
}

impl Node {
    /// The word for this node's type in a message.
    pub(crate) fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Int(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(value) => format!("the text {value:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The value of a key, when this is a mapping that has it and it is not null.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        let entry = entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.node.value, Value::Null)).then_some(&entry.node)
    }

    /// The text, when this is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

fn position(location: Location) -> Position {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Position { line: number(location.line()).max(1), column: number(location.column()).max(1), width: 1 }
}

/// A scalar is underlined whole; a collection by its first character.
fn width(value: &Value) -> u32 {
    let chars = match value {
        Value::Text(text) if !text.contains('\n') => text.chars().count(),
        Value::Int(value) => value.to_string().len(),
        Value::Float(value) => value.to_string().len(),
        Value::Bool(value) => value.to_string().len(),
        _ => 1,
    };
    u32::try_from(chars).unwrap_or(1).max(1)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let at = Position { width: width(&spanned.value), ..position(spanned.referenced) };
        Ok(Self { at, value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let node = map.next_value()?;
            let key_at =
                Position { width: width(&Value::Text(key.value.clone())), ..position(key.referenced) };
            entries.push(Entry { key: key.value, key_at, node });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_its_line_and_column_across_documents() {
        let nodes = documents("a: 1\n---\nb:\n  - x: \"7\"\n    on: yes\n---\n").expect("valid");
        assert_eq!(nodes.len(), 2);
        let list = nodes[1].get("b").expect("b");
        let Value::List(items) = &list.value else { panic!("a list") };
        let x = items[0].get("x").expect("x");
        assert_eq!((x.at.line, x.at.column), (4, 8));
        assert_eq!(x.as_text(), Some("7"));
        assert_eq!(items[0].get("on").and_then(Node::as_text), Some("yes"));
    }

    #[test]
    fn a_duplicate_key_is_an_error_where_it_is_repeated() {
        let error = documents("a: 1\nb:\n  c: 1\n  c: 2\n").expect_err("duplicate");
        assert_eq!((error.at.line, error.at.column), (4, 3));
        assert_eq!(error.message, "invalid YAML: the key `c` is given twice");
    }

    #[test]
    fn text_that_is_not_yaml_says_where() {
        let error = documents("a: [1, 2\nb: 3\n").expect_err("unclosed");
        assert!(error.at.line >= 1, "{error:?}");
        assert!(!error.message.is_empty());
    }
}
