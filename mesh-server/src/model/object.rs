//! One YAML document to one typed object: which kind it is, what it is called, who reads it.
//!
//! Groups and versions as in Istio: all released versions of a kind mean the same. Kinds that exist
//! and are not served yet are reported and ignored; kinds that do not exist are errors.

use std::fmt;
use std::sync::Arc;

use super::MeshSettings;
use super::authorization::AuthorizationPolicy;
use super::destination_rule::DestinationRule;
use super::kubernetes::{EndpointSlice, KubernetesService};
use super::node::{self, Node, Value};
use super::peer_authentication::PeerAuthentication;
use super::read::{self, Map, Report, meant};
use super::service_entry::ServiceEntry;
use super::value::{Labels, is_dns_label};
use super::virtual_service::VirtualService;
use super::workload::{WorkloadEntry, WorkloadGroup};
use crate::analysis::{Code, Finding, Place, Position, Severity};
use crate::source::SourceFile;

mod groups;

use groups::GROUPS;

/// The kinds this mesh server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are Kubernetes' and Istio's")]
pub enum Kind {
    Service,
    EndpointSlice,
    VirtualService,
    DestinationRule,
    ServiceEntry,
    WorkloadEntry,
    WorkloadGroup,
    PeerAuthentication,
    AuthorizationPolicy,
}

impl Kind {
    /// The name in YAML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::WorkloadGroup => "WorkloadGroup",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an object is called. Ordered by kind, then name, then namespace: Istio's order for objects
/// of the same age, and every object of a file store has the same age.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// `metadata.name`
    pub name: String,
    /// `metadata.namespace`, `default` when it is not given.
    pub namespace: String,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What an object is called and where it was written.
#[derive(Clone, Debug)]
pub struct Origin {
    /// What it is called.
    pub id: ObjectId,
    /// The file it was written in.
    pub file: Arc<SourceFile>,
    /// Where its name stands in that file.
    pub position: Position,
}

impl Origin {
    /// Where the object's name stands.
    pub fn place(&self) -> Place {
        self.at(self.position)
    }

    /// Another position of the same object.
    pub fn at(&self, position: Position) -> Place {
        Place { file: self.file.clone(), position }
    }
}

/// One object of a kind that this mesh server serves.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names are the kinds'")]
pub enum Object {
    Service(Arc<KubernetesService>),
    EndpointSlice(Arc<EndpointSlice>),
    VirtualService(Arc<VirtualService>),
    DestinationRule(Arc<DestinationRule>),
    ServiceEntry(Arc<ServiceEntry>),
    WorkloadEntry(Arc<WorkloadEntry>),
    WorkloadGroup(Arc<WorkloadGroup>),
    PeerAuthentication(Arc<PeerAuthentication>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
}

impl Object {
    /// What it is called and where it was written.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Service(object) => &object.origin,
            Self::EndpointSlice(object) => &object.origin,
            Self::VirtualService(object) => &object.origin,
            Self::DestinationRule(object) => &object.origin,
            Self::ServiceEntry(object) => &object.origin,
            Self::WorkloadEntry(object) => &object.origin,
            Self::WorkloadGroup(object) => &object.origin,
            Self::PeerAuthentication(object) => &object.origin,
            Self::AuthorizationPolicy(object) => &object.origin,
        }
    }
}

/// An object that has errors.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What it is called.
    pub origin: Origin,
    /// What is served in its place when there is no last good version: for security policies, an
    /// object that denies, so that a typing error never opens a door; for a DestinationRule that asks for TLS, one
    /// whose calls fail.
    pub stand_in: Option<Object>,
    /// The hosts that it would have defined, as far as they can be read.
    pub hosts: Vec<String>,
    /// Which object, what is wrong with it first of all, and where.
    pub reason: Arc<str>,
}

impl Refused {
    /// Whether a last good version may be served in its place: not one that speaks plaintext where TLS is asked for.
    pub(crate) fn keeps(&self, good: &Object) -> bool {
        match (&self.stand_in, good) {
            (Some(Object::DestinationRule(stand_in)), Object::DestinationRule(good)) => {
                good.secures(stand_in)
            }
            _ => true,
        }
    }
}

/// What a file says.
#[derive(Clone, Debug, Default)]
pub struct ParsedFile {
    /// The objects without errors.
    pub objects: Vec<Object>,
    /// The objects with errors.
    pub refused: Vec<Refused>,
    /// True when something in the file could not even be named: it may be any of the objects that
    /// the file held before.
    pub unidentified: bool,
    /// What there is to say about it.
    pub findings: Vec<Finding>,
}

/// Reads a file of any number of YAML documents.
pub fn parse(file: &Arc<SourceFile>, settings: &Arc<MeshSettings>) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    match node::documents(file.text()) {
        Ok(nodes) => {
            for node in &nodes {
                document(node, file, settings, &mut parsed);
            }
        }
        Err(error) => {
            parsed.unidentified = true;
            parsed.findings.push(
                Finding::new(Code::SchemaValidationError, Severity::Error, error.message)
                    .at(Place { file: file.clone(), position: error.at }),
            );
        }
    }
    parsed
}

/// What is read of `metadata`.
pub(crate) struct Metadata {
    pub(crate) origin: Origin,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    /// Where the document begins, for what is missing in it.
    pub(crate) at: Position,
}

/// What is read before anything is known about the object.
struct Header<'a> {
    file: &'a Arc<SourceFile>,
    parsed: &'a mut ParsedFile,
}

impl Header<'_> {
    fn say(&mut self, severity: Severity, code: Code, at: Position, message: String, help: Option<String>) {
        let place = Place { file: self.file.clone(), position: at };
        let mut finding = Finding::new(code, severity, message).at(place);
        finding.help = help;
        self.parsed.findings.push(finding);
    }

    /// An error after which nobody can say which object this was.
    fn lost(&mut self, at: Position, message: impl Into<String>, help: Option<String>) {
        self.parsed.unidentified = true;
        self.say(Severity::Error, Code::SchemaValidationError, at, message.into(), help);
    }

    fn text<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n Node> {
        match node.get(key) {
            Some(found) if found.as_text().is_some_and(|text| !text.is_empty()) => Some(found),
            Some(found) => {
                self.lost(found.at, format!("`{key}` must be a text, found {}", found.found()), None);
                None
            }
            None => {
                self.lost(node.at, format!("the document has no `{key}`"), None);
                None
            }
        }
    }
}

fn document(node: &Node, file: &Arc<SourceFile>, settings: &Arc<MeshSettings>, parsed: &mut ParsedFile) {
    let mut header = Header { file, parsed };
    if !matches!(node.value, Value::Map(_)) {
        let message =
            format!("expected an object with apiVersion, kind and metadata, found {}", node.found());
        return header.lost(node.at, message, None);
    }
    let (Some(api), Some(kind_node)) = (header.text(node, "apiVersion"), header.text(node, "kind")) else {
        return;
    };
    let (api_text, kind) = (api.as_text().unwrap_or_default(), kind_node.as_text().unwrap_or_default());
    if (api_text, kind) == ("v1", "List") {
        match node.get("items") {
            Some(Node { value: Value::List(items), .. }) => {
                for item in items {
                    document(item, file, settings, parsed);
                }
            }
            Some(other) => {
                header.lost(other.at, format!("`items` must be a list, found {}", other.found()), None)
            }
            None => {}
        }
        return;
    }
    let (group_name, version) = api_text.rsplit_once('/').unwrap_or(("", api_text));
    let Some(group) = GROUPS.iter().find(|group| group.name == group_name) else {
        return foreign(&mut header, group_name, api.at, kind);
    };
    if !group.versions.contains(&version) {
        let help = format!("{} has: {}", group.describe(), group.versions.join(", "));
        return header.lost(
            api.at,
            format!("unknown version `{version}` of {}", group.describe()),
            Some(help),
        );
    }
    if let Some(kind) = group.served.iter().copied().find(|served| served.name() == kind) {
        return served(node, kind, header, settings);
    }
    let ignored = if group.later.contains(&kind) {
        Some((Severity::Warning, format!("kind {kind} is not served by this mesh server yet: ignored")))
    } else if group.harmless.contains(&kind) {
        Some((Severity::Info, format!("kind {kind} is not the mesh's business: ignored")))
    } else {
        None
    };
    match ignored {
        Some((severity, message)) => {
            header.say(severity, Code::KindIgnored, kind_node.at, message, None);
        }
        None => {
            let mut known: Vec<&str> = group.served.iter().map(|kind| kind.name()).collect();
            known.extend(group.later);
            known.extend(group.harmless);
            let message = format!("unknown kind `{kind}` in {}", group.describe());
            header.lost(kind_node.at, message, Some(meant(kind, &known)));
        }
    }
}

/// A group nobody here knows: somebody else's, unless it looks like a misspelt one of ours.
fn foreign(header: &mut Header<'_>, group: &str, at: Position, kind: &str) {
    let close = GROUPS
        .iter()
        .find(|known| known.name.len() > 4 && strsim::damerau_levenshtein(known.name, group) <= 3);
    match close {
        Some(known) => {
            let help = format!("did you mean `{}`?", known.name);
            header.lost(at, format!("unknown API group `{group}`"), Some(help));
        }
        None => {
            let message = format!("kind {kind} of API group `{group}` is not the mesh's business: ignored");
            header.say(Severity::Info, Code::KindIgnored, at, message, None);
        }
    }
}

const METADATA: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

fn served(node: &Node, kind: Kind, mut header: Header<'_>, settings: &Arc<MeshSettings>) {
    let Some(metadata) = node.get("metadata") else {
        return header.lost(node.at, "the document has no `metadata`", None);
    };
    let Some(name_node) = header.text(metadata, "name") else { return };
    let namespace = match metadata.get("namespace") {
        Some(_) => match header.text(metadata, "namespace") {
            Some(node) => node.as_text().unwrap_or_default().to_owned(),
            None => return,
        },
        None => "default".to_owned(),
    };
    let name = name_node.as_text().unwrap_or_default().to_owned();
    let Header { file, parsed } = header;
    let id = ObjectId { kind, name, namespace };
    let origin = Origin { id: id.clone(), file: file.clone(), position: name_node.at };
    let mut report = Report { settings: settings.clone(), file: file.clone(), id, findings: Vec::new() };

    let object = read_object(node, metadata, origin.clone(), &mut report);
    match object {
        Some(object) if !report.refused() => parsed.objects.extend(object),
        _ => parsed.refused.push(Refused {
            stand_in: stand_in(node, &origin, &report),
            hosts: hosts(node, &origin.id, settings),
            reason: format!("{} is refused: {}", origin.id, report.first_error()).into(),
            origin,
        }),
    }
    parsed.findings.append(&mut report.findings);
}

/// `Some(None)` is an object that is fine and attaches to nothing here.
fn read_object(node: &Node, metadata: &Node, origin: Origin, report: &mut Report) -> Option<Option<Object>> {
    let kind = origin.id.kind;
    let known: &[&str] = if kind == Kind::EndpointSlice {
        &["apiVersion", "kind", "metadata", "addressType", "endpoints", "ports"]
    } else {
        &["apiVersion", "kind", "metadata", "spec", "status"]
    };
    let document = report.map(node, "the document", known)?;
    let fields = report.map(metadata, "metadata", METADATA)?;
    // Kubernetes allows dots in the names of custom resources, and so do we.
    if !origin.id.name.split('.').all(is_dns_label) {
        report.error(origin.position, format!("{:?} is not a valid object name", origin.id.name));
    }
    if !is_dns_label(&origin.id.namespace) {
        report.error(fields.key_at("namespace"), format!("{:?} is not a namespace", origin.id.namespace));
    }
    let labels = fields.one("labels", report, read::labels).unwrap_or_default();
    let annotations = fields.one("annotations", report, annotations).unwrap_or_default();
    let metadata = Metadata { origin, labels, annotations, at: node.at };
    if kind == Kind::EndpointSlice {
        let slice = EndpointSlice::read(document, metadata, report)?;
        return Some(Some(Object::EndpointSlice(Arc::new(slice))));
    }
    let empty = Node { at: node.at, value: Value::Map(Vec::new()) };
    let spec = document.get("spec").unwrap_or(&empty);
    Some(Some(match kind {
        Kind::Service => Object::Service(Arc::new(KubernetesService::read(spec, metadata, report)?)),
        Kind::VirtualService => {
            Object::VirtualService(Arc::new(VirtualService::read(spec, metadata, report)?))
        }
        Kind::DestinationRule => {
            Object::DestinationRule(Arc::new(DestinationRule::read(spec, metadata, report)?))
        }
        Kind::ServiceEntry => Object::ServiceEntry(Arc::new(ServiceEntry::read(spec, metadata, report)?)),
        Kind::WorkloadEntry => Object::WorkloadEntry(Arc::new(WorkloadEntry::read(spec, metadata, report)?)),
        Kind::WorkloadGroup => Object::WorkloadGroup(Arc::new(WorkloadGroup::read(spec, metadata, report)?)),
        Kind::PeerAuthentication => {
            Object::PeerAuthentication(Arc::new(PeerAuthentication::read(spec, metadata, report)?))
        }
        Kind::AuthorizationPolicy => {
            return AuthorizationPolicy::read(spec, metadata, report)
                .map(|policy| policy.map(|policy| Object::AuthorizationPolicy(Arc::new(policy))));
        }
        Kind::EndpointSlice => return None,
    }))
}

fn annotations(node: &Node, report: &mut Report) -> Option<Labels> {
    let entries = report.entries(node, "annotations")?;
    Some(
        entries
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), read::text(&entry.node, report)?)))
            .collect(),
    )
}

/// What a refused object leaves behind that security depends on: as much of its scope as can be read, closed.
fn stand_in(node: &Node, origin: &Origin, report: &Report) -> Option<Object> {
    let selector = node
        .get("spec")
        .and_then(|spec| spec.get("selector")?.get("matchLabels"))
        .and_then(plain_labels)
        .unwrap_or_default();
    match origin.id.kind {
        Kind::AuthorizationPolicy => {
            // AUDIT only marks: refusing it opens nothing.
            let action = node.get("spec").and_then(|spec| spec.get("action")?.as_text());
            (action != Some("AUDIT")).then(|| {
                Object::AuthorizationPolicy(Arc::new(AuthorizationPolicy::deny_all(origin.clone(), selector)))
            })
        }
        Kind::PeerAuthentication => {
            Some(Object::PeerAuthentication(Arc::new(PeerAuthentication::strict(origin.clone(), selector))))
        }
        Kind::DestinationRule => DestinationRule::stand_in(node, origin, report)
            .map(|rule| Object::DestinationRule(Arc::new(rule))),
        _ => None,
    }
}

/// The hosts of which a refused object would have been the definition.
fn hosts(node: &Node, id: &ObjectId, settings: &MeshSettings) -> Vec<String> {
    match id.kind {
        Kind::Service => vec![format!("{}.{}.svc.{}", id.name, id.namespace, settings.domain)],
        Kind::ServiceEntry => match node.get("spec").and_then(|spec| spec.get("hosts")) {
            Some(Node { value: Value::List(hosts), .. }) => {
                hosts.iter().filter_map(Node::as_text).map(str::to_ascii_lowercase).collect()
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Labels, when every one of them can be read; otherwise the scope is the namespace.
fn plain_labels(node: &Node) -> Option<Labels> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().map(|entry| Some((entry.key.clone(), entry.node.as_text()?.to_owned()))).collect()
}

/// Reads `spec`'s fields; shared by all kinds that have one.
pub(crate) fn spec<'n>(node: &'n Node, report: &mut Report, known: &[&str]) -> Option<Map<'n>> {
    let what = format!("{}.spec", report.id.kind);
    report.map(node, &what, known)
}

#[cfg(test)]
mod tests;
