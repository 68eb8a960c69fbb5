//! Header rules applied (gRFC A111; Envoy's route, virtual host and weighted cluster levels).
//!
//! Levels apply from the most specific to the least; within one, additions in order, then removals.

use super::{AppendAction, HeaderMutation};
use http::HeaderMap;

impl HeaderMutation {
    /// Applies one level.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for addition in &self.add {
            let (name, value) = (&addition.name, || addition.value.clone());
            match addition.action {
                AppendAction::AppendIfExistsOrAdd => {
                    headers.append(name, value());
                }
                AppendAction::AddIfAbsent => {
                    headers.entry(name).or_insert_with(value);
                }
                AppendAction::OverwriteIfExistsOrAdd => {
                    headers.insert(name, value());
                }
                AppendAction::OverwriteIfExists => {
                    if headers.contains_key(name) {
                        headers.insert(name, value());
                    }
                }
            }
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::HeaderAddition, *};
    use http::{HeaderName, HeaderValue};

    #[test]
    fn the_four_actions_and_then_the_removals() {
        let addition = |name: &'static str, action| HeaderAddition {
            name: HeaderName::from_static(name),
            value: HeaderValue::from_static("new"),
            action,
        };
        for (action, present, absent) in [
            (AppendAction::AppendIfExistsOrAdd, &["old", "new"][..], &["new"][..]),
            (AppendAction::AddIfAbsent, &["old"], &["new"]),
            (AppendAction::OverwriteIfExistsOrAdd, &["new"], &["new"]),
            (AppendAction::OverwriteIfExists, &["new"], &[]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("there", HeaderValue::from_static("old"));
            headers.insert("gone", HeaderValue::from_static("old"));
            let mutation = HeaderMutation {
                add: vec![addition("there", action), addition("not-there", action), addition("gone", action)],
                remove: vec![HeaderName::from_static("gone")],
            };
            mutation.apply(&mut headers);
            let values = |name: &str| -> Vec<String> {
                headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
            };
            assert_eq!(values("there"), present, "{action:?}");
            assert_eq!(values("not-there"), absent, "{action:?}");
            assert!(values("gone").is_empty());
        }
    }
}
