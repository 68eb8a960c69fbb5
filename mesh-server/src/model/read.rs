//! From a YAML node to a typed value, collecting every error on the way.
//!
//! A reader is `fn(&Node, &mut Report) -> Option<T>`: `None` means that the error is already in the
//! report. An object with an error is refused as a whole, so an absent field and a broken one need
//! not be told apart by the code that assembles it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::MeshSettings;
use super::node::{Entry, Node, Value};
use super::object::ObjectId;
use super::session::COOKIE_LABEL;
use super::value::{self, ExportTo, Host, Labels, Located, Pattern, StringMatch};
use crate::analysis::{Code, Finding, Place, Position, Severity};
use crate::source::SourceFile;

/// Everything found while one object is read, and what the readers must know about it.
pub(crate) struct Report {
    pub(crate) settings: Arc<MeshSettings>,
    pub(crate) file: Arc<SourceFile>,
    pub(crate) id: ObjectId,
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn refused(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    fn push(&mut self, severity: Severity, code: Code, at: Position, message: String) -> &mut Finding {
        let place = Place { file: self.file.clone(), position: at };
        let index = self.findings.len();
        self.findings.push(Finding::new(code, severity, message).at(place).about(&self.id));
        &mut self.findings[index]
    }

    /// A value that cannot be: the object is refused.
    pub(crate) fn error(&mut self, at: Position, message: impl Into<String>) -> &mut Finding {
        self.push(Severity::Error, Code::SchemaValidationError, at, message.into())
    }

    /// As [`Report::error`], for readers that end there.
    pub(crate) fn fail<T>(&mut self, at: Position, message: impl Into<String>) -> Option<T> {
        self.error(at, message);
        None
    }

    /// Served, and probably not as meant.
    pub(crate) fn warn(&mut self, code: Code, at: Position, message: impl Into<String>) -> &mut Finding {
        self.push(Severity::Warning, code, at, message.into())
    }

    /// A field this version does not act on, and whose absence harms nobody.
    pub(crate) fn ignored(&mut self, at: Position, what: &str) {
        let message = format!("not supported by this version: {what} has no effect");
        self.push(Severity::Warning, Code::NotSupported, at, message);
    }

    /// A field that only some clients act on.
    pub(crate) fn partly(&mut self, at: Position, what: &str) {
        let message = format!("not supported by this version: {what}");
        self.push(Severity::Info, Code::NotSupported, at, message);
    }

    /// A field this version does not act on, and without which the object would mean another thing.
    pub(crate) fn unsupported(&mut self, at: Position, what: &str) {
        let message = format!("not supported by this version: {what}");
        self.push(Severity::Error, Code::NotSupported, at, message).help = Some(
            "the object is refused, because serving it without this would change its meaning".to_owned(),
        );
    }

    /// What is wrong first of all, and where.
    pub(crate) fn first_error(&self) -> String {
        let error = self.findings.iter().find(|finding| finding.severity == Severity::Error);
        match error.map(|finding| (&finding.place, &finding.message)) {
            Some((Some(place), message)) => format!("{place}: {message}"),
            Some((None, message)) => message.clone(),
            None => "it cannot be read".to_owned(),
        }
    }

    /// A mapping with known keys; every other key is an error, with the key that was probably meant.
    pub(crate) fn map<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Map<'n>> {
        let entries = self.entries(node, what)?;
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let finding = self.error(entry.key_at, format!("unknown field `{}` in {what}", entry.key));
                finding.help = Some(meant(&entry.key, known));
            }
        }
        Some(Map { at: node.at, entries })
    }

    /// A mapping with any keys.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ => self.fail(node.at, format!("{what} must be a mapping, found {}", node.found())),
        }
    }

    /// A list, each item read; broken items are left out.
    pub(crate) fn list<'n, T>(
        &mut self,
        node: &'n Node,
        mut read: impl FnMut(&'n Node, &mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        match &node.value {
            Value::List(items) => Some(items.iter().filter_map(|item| read(item, self)).collect()),
            _ => self.fail(node.at, format!("expected a list, found {}", node.found())),
        }
    }
}

/// `did you mean …`, or the keys there are.
pub(crate) fn meant(word: &str, known: &[&str]) -> String {
    let lower = word.to_lowercase();
    let closest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), *name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= name.len().max(word.len()).div_ceil(3).max(1));
    match closest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("expected one of: {}", known.join(", ")),
    }
}

/// A mapping whose keys are known to be known.
#[derive(Clone, Copy)]
pub(crate) struct Map<'n> {
    pub(crate) at: Position,
    entries: &'n [Entry],
}

impl<'n> Map<'n> {
    /// The value of a key, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.node.value, Value::Null)).then_some(&entry.node)
    }

    /// Where the key itself was written; the mapping's start when it is absent.
    pub(crate) fn key_at(&self, key: &str) -> Position {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.at, |entry| entry.key_at)
    }

    /// Where the last key of a dotted path was written; none when it was not.
    pub(crate) fn written(&self, path: &str) -> Option<Position> {
        let mut entries = self.entries;
        let mut at = None;
        for key in path.split('.') {
            let entry = entries.iter().find(|entry| entry.key == key)?;
            at = Some(entry.key_at);
            entries = match &entry.node.value {
                Value::Map(entries) => entries,
                _ => &[],
            };
        }
        at
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// An optional field.
    pub(crate) fn one<T>(
        &self,
        key: &str,
        report: &mut Report,
        read: impl FnOnce(&'n Node, &mut Report) -> Option<T>,
    ) -> Option<T> {
        read(self.get(key)?, report)
    }

    /// A field that must be there.
    pub(crate) fn required<T>(
        &self,
        key: &str,
        what: &str,
        report: &mut Report,
        read: impl FnOnce(&'n Node, &mut Report) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(node) => read(node, report),
            None => report.fail(self.at, format!("{what} needs `{key}`")),
        }
    }

    /// A list field; absent is empty.
    pub(crate) fn many<T>(
        &self,
        key: &str,
        report: &mut Report,
        read: impl FnMut(&'n Node, &mut Report) -> Option<T>,
    ) -> Vec<T> {
        self.get(key).and_then(|node| report.list(node, read)).unwrap_or_default()
    }

    /// Reports a harmless field this version does not act on, after checking its shape.
    pub(crate) fn ignored(&self, key: &str, report: &mut Report, what: &str) {
        if self.has(key) {
            report.ignored(self.key_at(key), what);
        }
    }

    /// Refuses a field this version does not act on.
    pub(crate) fn unsupported(&self, key: &str, report: &mut Report, what: &str) {
        if self.has(key) {
            report.unsupported(self.key_at(key), what);
        }
    }

    /// Reports keys without a value: where absent means "all", a forgotten value must not pass for it.
    pub(crate) fn no_nulls(&self, report: &mut Report) {
        for entry in self.entries.iter().filter(|entry| matches!(entry.node.value, Value::Null)) {
            report.error(entry.key_at, format!("`{}` has no value", entry.key)).help =
                Some("give it one, or remove the key".to_owned());
        }
    }

    /// At most one of the keys may be there; the second is reported.
    pub(crate) fn exclusive(&self, keys: &[&str], report: &mut Report) {
        let mut present = keys.iter().filter(|key| self.has(key));
        if let (Some(first), Some(second)) = (present.next(), present.next()) {
            report.error(self.key_at(second), format!("`{second}` excludes `{first}`"));
        }
    }
}

/// A text.
pub(crate) fn text(node: &Node, report: &mut Report) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
            let message = format!("expected a text, found {}", node.found());
            report.error(node.at, message).help = Some("put it in quotes".to_owned());
            None
        }
        _ => report.fail(node.at, format!("expected a text, found {}", node.found())),
    }
}

/// A text that is not empty.
pub(crate) fn some_text(node: &Node, report: &mut Report) -> Option<String> {
    let text = text(node, report)?;
    if text.is_empty() { report.fail(node.at, "must not be empty") } else { Some(text) }
}

/// A value with its place.
pub(crate) fn located<T>(
    read: impl Fn(&Node, &mut Report) -> Option<T>,
) -> impl Fn(&Node, &mut Report) -> Option<Located<T>> {
    move |node, report| Some(Located { value: read(node, report)?, at: node.at })
}

pub(crate) fn boolean(node: &Node, report: &mut Report) -> Option<bool> {
    match node.value {
        Value::Bool(value) => Some(value),
        _ => report.fail(node.at, format!("expected true or false, found {}", node.found())),
    }
}

/// An integer in a range.
pub(crate) fn integer<T: TryFrom<i128>>(
    range: RangeInclusive<i128>,
) -> impl Fn(&Node, &mut Report) -> Option<T> {
    move |node, report| match node.value {
        Value::Int(value) => match T::try_from(value) {
            Ok(typed) if range.contains(&value) => Some(typed),
            _ => report.fail(
                node.at,
                format!("{value} is out of range: {} to {} are allowed", range.start(), range.end()),
            ),
        },
        _ => report.fail(node.at, format!("expected a whole number, found {}", node.found())),
    }
}

/// An integer of 32 bits that is not negative.
pub(crate) fn count(node: &Node, report: &mut Report) -> Option<u32> {
    integer(0..=i128::from(i32::MAX))(node, report)
}

pub(crate) fn number(node: &Node, report: &mut Report) -> Option<f64> {
    match node.value {
        #[expect(clippy::cast_precision_loss, reason = "any number a person writes here fits")]
        Value::Int(value) => Some(value as f64),
        Value::Float(value) => Some(value),
        _ => report.fail(node.at, format!("expected a number, found {}", node.found())),
    }
}

/// 0 to 100, written as a number or as `{value: 20}`.
pub(crate) fn percent_value(node: &Node, report: &mut Report) -> Option<f64> {
    let value = match node.value {
        Value::Map(_) => match report.map(node, "a percentage", &["value"])?.get("value") {
            Some(value) => value,
            None => return Some(0.0),
        },
        _ => node,
    };
    match number(value, report)? {
        percent if (0.0..=100.0).contains(&percent) => Some(percent),
        percent => report.fail(value.at, format!("{percent} is not a percentage: 0 to 100")),
    }
}

pub(crate) fn port(node: &Node, report: &mut Report) -> Option<u16> {
    match node.value {
        Value::Int(value) => match u16::try_from(value) {
            Ok(port) if port > 0 => Some(port),
            _ => report.fail(node.at, format!("{value} is not a port: 1 to 65535 are")),
        },
        _ => report.fail(node.at, format!("expected a port number, found {}", node.found())),
    }
}

/// `{number: 80}`
pub(crate) fn port_selector(node: &Node, report: &mut Report) -> Option<u16> {
    report.map(node, "a port selector", &["number"])?.required("number", "a port selector", report, port)
}

/// A duration of at least a millisecond, in whole milliseconds.
pub(crate) fn duration(node: &Node, report: &mut Report) -> Option<Duration> {
    let value = duration_or_zero(node, report)?;
    if value.is_zero() { report.fail(node.at, "must be at least 1ms") } else { Some(value) }
}

/// A duration in whole milliseconds; zero has a meaning of its own here.
pub(crate) fn duration_or_zero(node: &Node, report: &mut Report) -> Option<Duration> {
    let text = match &node.value {
        Value::Text(text) => text,
        _ => {
            let message = format!("expected a duration like \"10s\", found {}", node.found());
            return report.fail(node.at, message);
        }
    };
    match value::duration(text) {
        Some(value) if value.subsec_nanos() % 1_000_000 == 0 => Some(value),
        Some(_) => report.fail(node.at, format!("duration {text:?} must be a whole number of milliseconds")),
        None => {
            report.error(node.at, format!("{text:?} is not a duration")).help =
                Some("write it like 10s, 250ms or 1.5s".to_owned());
            None
        }
    }
}

/// One of a few words.
pub(crate) fn word<T: Copy>(
    what: &'static str,
    words: &'static [(&'static str, T)],
) -> impl Fn(&Node, &mut Report) -> Option<T> {
    move |node, report| {
        let text = text(node, report)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        report.error(node.at, format!("`{text}` is no {what}")).help = Some(meant(&text, &known));
        None
    }
}

pub(crate) fn dns_label(node: &Node, report: &mut Report) -> Option<String> {
    let text = text(node, report)?;
    if value::is_dns_label(&text) {
        Some(text)
    } else {
        report.fail(node.at, format!("{text:?} is not a DNS label (letters, digits and `-`, at most 63)"))
    }
}

/// A host as written (no short names here).
pub(crate) fn host(node: &Node, report: &mut Report) -> Option<Host> {
    let text = text(node, report)?;
    match Host::parse(&text) {
        Ok(host) => Some(host),
        Err(reason) => report.fail(node.at, reason),
    }
}

/// A host that may be a short name, expanded with the object's namespace.
pub(crate) fn short_host(node: &Node, report: &mut Report) -> Option<Host> {
    let text = text(node, report)?;
    let full = value::expand_short_name(&text, &report.id.namespace, &report.settings.domain);
    match Host::parse(&full) {
        Ok(host) => Some(host),
        Err(reason) => report.fail(node.at, reason),
    }
}

pub(crate) fn pattern(node: &Node, report: &mut Report) -> Option<Pattern> {
    let text = text(node, report)?;
    match Pattern::parse(&text) {
        Ok(pattern) => Some(pattern),
        Err(reason) => report.fail(node.at, reason),
    }
}

/// A StringMatch that must say something; `empty_prefix` allows `prefix: ""` (uri).
pub(crate) fn string_match(empty_prefix: bool) -> impl Fn(&Node, &mut Report) -> Option<StringMatch> {
    move |node, report| match string_match_or_presence(empty_prefix)(node, report)? {
        StringMatch::Present => report.fail(node.at, "needs one of `exact`, `prefix` and `regex`"),
        other => Some(other),
    }
}

/// A StringMatch where `{}` means that there must be a value.
pub(crate) fn string_match_or_presence(
    empty_prefix: bool,
) -> impl Fn(&Node, &mut Report) -> Option<StringMatch> {
    move |node, report| {
        const KINDS: [&str; 3] = ["exact", "prefix", "regex"];
        let map = report.map(node, "a string match", &KINDS)?;
        map.exclusive(&KINDS, report);
        if let Some(exact) = map.get("exact") {
            return text(exact, report).map(StringMatch::Exact);
        }
        if let Some(prefix) = map.get("prefix") {
            let text = if empty_prefix { text(prefix, report) } else { some_text(prefix, report) };
            return text.map(StringMatch::Prefix);
        }
        match map.get("regex") {
            Some(regex) if regex.as_text() == Some("*") => Some(StringMatch::Present),
            Some(regex) => pattern(regex, report).map(StringMatch::Regex),
            None => Some(StringMatch::Present),
        }
    }
}

/// Labels: Kubernetes' rules for keys and values.
pub(crate) fn labels(node: &Node, report: &mut Report) -> Option<Labels> {
    let mut labels = Labels::new();
    for entry in report.entries(node, "labels")? {
        if !value::is_label_key(&entry.key) {
            report.error(entry.key_at, format!("{:?} is not a label key", entry.key));
        }
        if let Some(value) = text(&entry.node, report) {
            if !value::is_label_value(&value) && entry.key != COOKIE_LABEL {
                report.error(entry.node.at, format!("{value:?} is not a label value"));
            }
            labels.insert(entry.key.clone(), value);
        }
    }
    Some(labels)
}

/// `exportTo`; `nobody` allows `~` (ServiceEntry).
pub(crate) fn export_to(nobody: bool) -> impl Fn(&Node, &mut Report) -> Option<ExportTo> {
    move |node, report| {
        let words = report.list(node, located(text))?;
        let own = report.id.namespace.clone();
        let mut names = std::collections::BTreeSet::new();
        for word in &words {
            match word.value.as_str() {
                "*" | "~" if words.len() > 1 => {
                    report.error(word.at, format!("`{}` must stand alone in exportTo", word.value));
                }
                "*" => return Some(ExportTo::All),
                "~" if nobody => return Some(ExportTo::Nobody),
                name => {
                    let name = if name == "." { own.as_str() } else { name };
                    if !value::is_dns_label(name) {
                        report.error(word.at, format!("{name:?} is not a namespace"));
                    } else if !names.insert(name.to_owned()) {
                        report.error(word.at, format!("namespace `{name}` is exported to twice"));
                    }
                }
            }
        }
        Some(if names.is_empty() { ExportTo::All } else { ExportTo::Namespaces(names) })
    }
}

/// A workload selector: `{<field>: {app: reviews}}`; `None` and empty select the whole namespace.
pub(crate) fn selector(field: &'static str) -> impl Fn(&Node, &mut Report) -> Option<Labels> {
    move |node, report| {
        let map = report.map(node, "a selector", &[field])?;
        let selected = map.one(field, report, labels).unwrap_or_default();
        if selected.is_empty() {
            report.warn(
                Code::IneffectiveSelector,
                node.at,
                "the selector has no labels: it applies to every workload of the namespace",
            );
        }
        Some(selected)
    }
}
