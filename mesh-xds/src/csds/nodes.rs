//! `node_matchers` of a request to CSDS: which clients it is about. What cannot be matched is refused; passed over, it
//! would select too much.

use crate::{
    matcher::{Expressions, StringMatcher},
    resource::read_string_matcher,
    server::Node,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{
    NodeMatcher, StructMatcher, struct_matcher::path_segment::Segment, value_matcher::MatchPattern,
};

/// Any of them selects a node; there are none: every node.
pub(super) struct NodeMatchers(Vec<Criteria>);

/// All of it holds.
struct Criteria {
    id: Option<StringMatcher>,
    metadata: Vec<(String, Value)>,
}

/// What stands in the metadata, which is kept as text.
enum Value {
    Text(StringMatcher),
    Bool(bool),
    Present(bool),
}

impl NodeMatchers {
    /// The error names the field.
    pub(super) fn read(matchers: &[NodeMatcher]) -> Result<Self, String> {
        let mut expressions = Expressions::default();
        let read = |(i, matcher): (usize, &NodeMatcher)| {
            criteria(matcher, &mut expressions).map_err(|why| format!("node_matchers[{i}]{why}"))
        };
        matchers.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn select(&self, node: &Node) -> bool {
        self.0.is_empty() || self.0.iter().any(|criteria| criteria.hold(node))
    }
}

impl Criteria {
    fn hold(&self, node: &Node) -> bool {
        let id = self.id.as_ref().is_none_or(|id| id.matches(&node.id));
        id && self.metadata.iter().all(|(path, value)| {
            let text = node.metadata.get(path.as_str()).map(AsRef::as_ref);
            match value {
                Value::Text(matcher) => text.is_some_and(|text| matcher.matches(text)),
                Value::Bool(flag) => text == Some(if *flag { "true" } else { "false" }),
                Value::Present(present) => text.is_some() == *present,
            }
        })
    }
}

fn criteria(matcher: &NodeMatcher, expressions: &mut Expressions) -> Result<Criteria, String> {
    if matcher.node_id.is_none() && matcher.node_metadatas.is_empty() {
        return Err(": one of node_id and node_metadatas is required".to_owned());
    }
    let id = matcher
        .node_id
        .as_ref()
        .map(|matcher| read_string_matcher(matcher, expressions))
        .transpose()
        .map_err(|why| format!(".node_id: {why}"))?;
    let read = |(i, matcher): (usize, &StructMatcher)| {
        metadata(matcher, expressions).map_err(|why| format!(".node_metadatas[{i}].{why}"))
    };
    let metadata = matcher.node_metadatas.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Criteria { id, metadata })
}

/// As [`Node::metadata`] has it: objects are flattened one level.
fn metadata(matcher: &StructMatcher, expressions: &mut Expressions) -> Result<(String, Value), String> {
    let mut keys = Vec::new();
    for (i, segment) in matcher.path.iter().enumerate() {
        let Some(Segment::Key(key)) = &segment.segment else {
            return Err(format!("path[{i}]: key is required"));
        };
        keys.push(key.as_str());
    }
    if !matches!(keys.len(), 1 | 2) {
        return Err(format!(
            "path: has {} keys, and metadata of nodes is kept two levels deep: write one or two",
            keys.len()
        ));
    }
    let pattern = matcher.value.as_ref().and_then(|value| value.match_pattern.as_ref());
    let value = match pattern {
        None => return Err("value: is required".to_owned()),
        Some(MatchPattern::StringMatch(matcher)) => {
            let built = read_string_matcher(matcher, expressions);
            Value::Text(built.map_err(|why| format!("value.string_match: {why}"))?)
        }
        Some(MatchPattern::BoolMatch(flag)) => Value::Bool(*flag),
        Some(MatchPattern::PresentMatch(present)) => Value::Present(*present),
        Some(_) => {
            return Err("value: only string_match, bool_match and present_match are supported".to_owned());
        }
    };
    Ok((keys.join("."), value))
}
