//! A DestinationRule that is refused and asks for TLS: calls to its host fail, for without it they might go out in
//! plaintext.
//!
//! What of a broken rule asks for TLS is found by looking at it as loosely as people mistype. A last good version is
//! good enough where it secures whatever the broken one would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{DestinationRule, TlsMode, TrafficPolicy};
use crate::model::node::{Node, Value};
use crate::model::object::Origin;
use crate::model::read::{self, Report};
use crate::model::value::{ExportTo, Host, Located};

/// Why the calls to a rule's host fail.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Which rule, and what is wrong with it.
    pub reason: Arc<str>,
    asked: Asked,
}

/// Who would be spoken to with TLS.
#[derive(Clone, Debug, Default)]
struct Asked {
    whole: Policy,
    subsets: BTreeMap<String, Policy>,
    /// It asks for TLS where nobody can say what for.
    somewhere: bool,
    /// It asks for revocation lists, wherever.
    revocation: bool,
}

/// What a traffic policy says of TLS; `None` is nothing.
#[derive(Clone, Debug, Default)]
struct Policy {
    tls: Option<bool>,
    ports: BTreeMap<u16, Option<bool>>,
}

impl DestinationRule {
    /// What stands for a refused rule; `None` when it asks for no TLS.
    pub(crate) fn stand_in(document: &Node, origin: &Origin, report: &Report) -> Option<Self> {
        let asked = Asked::of(document);
        if !asked.by_anybody() {
            return None;
        }
        let mut scratch = Report {
            settings: report.settings.clone(),
            file: report.file.clone(),
            id: report.id.clone(),
            findings: Vec::new(),
        };
        let field = |name| document.get("spec").and_then(|spec| spec.get(name));
        let host = field("host").or_else(|| document.get("host"));
        let host =
            host.and_then(|host| Some(Located { value: read::short_host(host, &mut scratch)?, at: host.at }));
        let export_to = field("exportTo").and_then(|node| read::export_to(false)(node, &mut scratch));
        let selector = field("workloadSelector")
            .and_then(|node| read::selector("matchLabels")(node, &mut scratch))
            .filter(|selector| !selector.is_empty());
        // It may be any host's.
        let host = host.unwrap_or(Located { value: Host::Wildcard(String::new()), at: origin.position });
        let reason = format!(
            "{} asks for TLS to {} and is refused, so that calls fail instead of going out in plaintext: {}",
            origin.id,
            host.value,
            report.first_error()
        );
        Some(Self {
            origin: origin.clone(),
            host,
            policy: None,
            subsets: Vec::new(),
            export_to: export_to.unwrap_or(ExportTo::All),
            selector,
            refused: Some(Refusal { reason: reason.into(), asked }),
        })
    }

    /// Whether this last good version may go on in place of one that is refused: it speaks TLS wherever that one
    /// would.
    pub(crate) fn secures(&self, refused: &Self) -> bool {
        let Some(Refusal { asked, .. }) = &refused.refused else { return true };
        let own = Asked::by(self);
        let subsets: BTreeSet<&str> =
            own.subsets.keys().chain(asked.subsets.keys()).map(String::as_str).chain([""]).collect();
        let policies = |asked: &Asked| -> Vec<u16> {
            let all = std::iter::once(&asked.whole).chain(asked.subsets.values());
            all.flat_map(|policy| policy.ports.keys().copied()).collect()
        };
        // Zero is every port that nobody names.
        let ports: BTreeSet<u16> = policies(&own).into_iter().chain(policies(asked)).chain([0]).collect();
        self.host.value == refused.host.value
            && (own.revocation || !asked.revocation)
            && subsets
                .iter()
                .all(|subset| ports.iter().all(|port| own.tls(subset, *port) || !asked.tls(subset, *port)))
    }
}

impl Asked {
    fn by(rule: &DestinationRule) -> Self {
        let policies =
            rule.policy.iter().chain(rule.subsets.iter().filter_map(|subset| subset.policy.as_ref()));
        let mut blocks =
            policies.flat_map(|policy| std::iter::once(&policy.blocks).chain(policy.ports.values()));
        Self {
            whole: Policy::by(rule.policy.as_ref()),
            subsets: rule
                .subsets
                .iter()
                .map(|subset| (subset.name.value.clone(), Policy::by(subset.policy.as_ref())))
                .collect(),
            somewhere: false,
            revocation: blocks.any(|blocks| blocks.tls.as_ref().is_some_and(|tls| tls.crl.is_some())),
        }
    }

    /// What a document asks for that is no DestinationRule.
    fn of(document: &Node) -> Self {
        let mut asked = Self { revocation: mentions_lists(document), ..Self::default() };
        let Value::Map(entries) = &document.value else { return asked };
        for entry in entries {
            match (entry.key.as_str(), &entry.node.value) {
                ("apiVersion" | "kind" | "metadata", _) | ("spec", Value::Null) => {}
                ("spec", Value::Map(_)) => asked.read_spec(&entry.node),
                ("spec", _) => asked.somewhere = true,
                (key, _) => asked.somewhere |= is_tls(key, &entry.node) || hides_tls(&entry.node),
            }
        }
        asked
    }

    fn read_spec(&mut self, spec: &Node) {
        let Value::Map(entries) = &spec.value else { return };
        for entry in entries {
            match (entry.key.as_str(), &entry.node.value) {
                ("host" | "exportTo" | "workloadSelector", _) | (_, Value::Null) => {}
                ("trafficPolicy", _) => self.whole = Policy::of(&entry.node, &mut self.somewhere),
                ("subsets", Value::List(subsets)) => {
                    for subset in subsets {
                        self.read_subset(subset);
                    }
                }
                ("subsets", _) => self.somewhere = true,
                (key, _) => self.somewhere |= is_tls(key, &entry.node) || hides_tls(&entry.node),
            }
        }
    }

    fn read_subset(&mut self, subset: &Node) {
        let Value::Map(entries) = &subset.value else { return self.somewhere = true };
        for entry in entries {
            match entry.key.as_str() {
                "name" | "labels" => {}
                "trafficPolicy" => match subset.get("name").and_then(Node::as_text) {
                    Some(name) => {
                        let policy = Policy::of(&entry.node, &mut self.somewhere);
                        self.subsets.insert(name.to_owned(), policy);
                    }
                    None => self.somewhere |= hides_tls(&entry.node),
                },
                key => self.somewhere |= is_tls(key, &entry.node) || hides_tls(&entry.node),
            }
        }
    }

    fn by_anybody(&self) -> bool {
        let said =
            |policy: &Policy| policy.tls == Some(true) || policy.ports.values().any(|tls| *tls == Some(true));
        self.somewhere || said(&self.whole) || self.subsets.values().any(said)
    }

    /// As [`TrafficPolicy::effective`].
    fn tls(&self, subset: &str, port: u16) -> bool {
        let at = |policy: &Policy| policy.ports.get(&port).copied();
        let mut tls = at(&self.whole).unwrap_or(self.whole.tls);
        if let Some(policy) = self.subsets.get(subset) {
            tls = at(policy).unwrap_or(policy.tls.or(tls));
        }
        self.somewhere || tls == Some(true)
    }
}

impl Policy {
    fn by(policy: Option<&TrafficPolicy>) -> Self {
        let tls = |blocks: &super::PolicyBlocks| blocks.tls.as_ref().map(|tls| tls.mode != TlsMode::Disable);
        policy.map_or_else(Self::default, |policy| Self {
            tls: tls(&policy.blocks),
            ports: policy.ports.iter().map(|(port, blocks)| (*port, tls(blocks))).collect(),
        })
    }

    fn of(node: &Node, somewhere: &mut bool) -> Self {
        let mut policy = Self::default();
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => {
                *somewhere = true;
                &[]
            }
        };
        for entry in entries {
            match (entry.key.as_str(), &entry.node.value) {
                (key, _) if is_key(key) => policy.tls = policy.tls.max(asks(&entry.node)),
                ("portLevelSettings", Value::Null) => {}
                ("portLevelSettings", Value::List(settings)) => {
                    for settings in settings {
                        let port = settings.get("port").and_then(|port| port.get("number"));
                        let port = port.and_then(|port| match port.value {
                            Value::Int(number) => u16::try_from(number).ok(),
                            _ => None,
                        });
                        let Self { tls, ports } = Self::of(settings, somewhere);
                        *somewhere |= ports.values().any(|tls| *tls == Some(true));
                        match port {
                            Some(port) => {
                                let at_port = policy.ports.entry(port).or_default();
                                *at_port = tls.max(*at_port);
                            }
                            None => *somewhere |= tls == Some(true),
                        }
                    }
                }
                ("portLevelSettings", _) => *somewhere = true,
                (_, _) => *somewhere |= asks_by_mode(&entry.node) || hides_tls(&entry.node),
            }
        }
        policy
    }
}

/// Whether `caCrl` stands anywhere.
fn mentions_lists(node: &Node) -> bool {
    match &node.value {
        Value::Map(entries) => {
            entries.iter().any(|entry| entry.key == "caCrl" || mentions_lists(&entry.node))
        }
        Value::List(nodes) => nodes.iter().any(mentions_lists),
        _ => false,
    }
}

/// `tls`, and how it is mistyped.
fn is_key(key: &str) -> bool {
    strsim::damerau_levenshtein(&key.to_ascii_lowercase(), "tls") <= 1
}

fn is_tls(key: &str, node: &Node) -> bool {
    is_key(key) && asks(node) == Some(true) || asks_by_mode(node)
}

/// Whether the value of a `tls` asks for it: everything but what is surely no more than DISABLE, the default.
fn asks(node: &Node) -> Option<bool> {
    match &node.value {
        Value::Null => None,
        Value::Map(entries) => Some(match node.get("mode") {
            Some(mode) => mode.as_text() != Some("DISABLE"),
            None => entries.iter().any(|entry| !super::tls::TLS.contains(&entry.key.as_str())),
        }),
        _ => Some(true),
    }
}

/// Nothing else in a rule has a mode.
fn asks_by_mode(node: &Node) -> bool {
    node.get("mode").is_some() && asks(node) == Some(true)
}

/// Whether something that nobody understands holds a `tls`.
fn hides_tls(node: &Node) -> bool {
    match &node.value {
        Value::Map(entries) => {
            entries.iter().any(|entry| is_tls(&entry.key, &entry.node) || hides_tls(&entry.node))
        }
        Value::List(items) => items.iter().any(|item| asks_by_mode(item) || hides_tls(item)),
        _ => false,
    }
}
