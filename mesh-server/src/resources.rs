//! What a control plane serves to a node: every Cluster and Listener, with the state of each. What `meshctl resources`
//! asks of any control plane that has wildcards (Envoy's xDS protocol), by mesh-xds's own client.
//!
//! Resources are taken by all that mesh-xds can parse, whatever a data path could carry out; one that it cannot is
//! rejected, and the control plane is told so, as by any client. Secrets are not asked for.
//!
//! As text, each row and each error is a line, and what the control plane said is escaped in it ([`line()`]); what is
//! serialized is as it was said.

mod connect;

use connect::Plain;
use mesh_xds::{
    bootstrap::Bootstrap,
    client::{ClientSettings, Connector, Listed, ResourceSet, ResourceState, Watching, XdsClient},
    name::{Name, ResourceType},
    printable::line,
    resource::{Cluster, Listener, Resource, Support},
};
use serde::Serialize;
use std::{borrow::Cow, fmt, sync::Arc};

/// Follows what a control plane has for a node. It asks as long as this lives.
pub struct Inventory {
    client: XdsClient,
    clusters: Option<Followed<Cluster>>,
    listeners: Option<Followed<Listener>>,
}

/// Everything of one type.
struct Followed<R> {
    kind: ResourceType,
    watch: Watching<ResourceSet<R>>,
    seen: Option<Arc<ResourceSet<R>>>,
    trouble: Option<String>,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `CDS` or `LDS`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its name.
    pub name: Name,
    /// Version of the last good one; absent: there was none.
    pub version: Option<Arc<str>>,
    /// What became of the last that the control plane said of it.
    pub state: ResourceState,
    /// What is wrong with that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The version that was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_version: Option<Arc<str>>,
}

/// What there is, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inventoried {
    /// The control plane that speaks.
    pub server: Arc<str>,
    /// Who asked.
    pub node: Arc<str>,
    /// Types that were asked for.
    pub types: Vec<&'static str>,
    /// What there is, by type and name.
    pub resources: Vec<Row>,
    /// Why that may be out of date.
    pub notes: Vec<String>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// It is there now.
    Added(Row),
    /// Its content, its state, or what is wrong with it.
    Changed(Row),
    /// It is gone.
    Removed {
        /// `CDS` or `LDS`.
        #[serde(rename = "type")]
        kind: &'static str,
        /// Its name.
        name: Name,
    },
    /// What is known of a type may be out of date, or nothing is known; why.
    Trouble {
        /// `CDS` or `LDS`.
        #[serde(rename = "type")]
        kind: &'static str,
        /// Why.
        error: String,
    },
    /// That is over.
    Recovered {
        /// `CDS` or `LDS`.
        #[serde(rename = "type")]
        kind: &'static str,
    },
}

impl Inventory {
    /// Asks the control planes of `bootstrap`, as its node, for everything of these types; types other than Cluster and
    /// Listener have no wildcard, and are passed over. Must be called inside a tokio runtime.
    ///
    /// Each stream counts: istio-agent passes on one, that of its workload, and ends it when another one opens at its
    /// `unix:` socket.
    pub fn start(bootstrap: &Bootstrap, types: &[ResourceType]) -> Self {
        Self::over(Arc::new(Plain::default()), bootstrap, types)
    }

    fn over(connector: Arc<dyn Connector>, bootstrap: &Bootstrap, types: &[ResourceType]) -> Self {
        let settings = ClientSettings { support: Support::all(), ..ClientSettings::default() };
        let client = XdsClient::spawn_with(bootstrap, connector, settings);
        let wants = |kind| types.contains(&kind);
        Self {
            clusters: wants(ResourceType::Cluster).then(|| Followed::new(client.all_clusters())),
            listeners: wants(ResourceType::Listener).then(|| Followed::new(client.all_listeners())),
            client,
        }
    }

    /// What there is, when the control plane has answered for every type: its first response of each, which may be a part
    /// of all there is, because a control plane may send in pieces and does not say when it is done. [`Self::changed`]
    /// tells what follows. The error says why it cannot be known. Cancel safe.
    pub async fn inventoried(&mut self) -> Result<Inventoried, String> {
        // Together: nothing more is read of a stream until somebody looks at what came, whichever type that is.
        let (clusters, listeners) = tokio::join!(known(&mut self.clusters), known(&mut self.listeners));
        let status = self.client.status();
        let (mut types, mut resources, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for found in [clusters, listeners].into_iter().flatten() {
            let Known { kind, rows, note } = found?;
            types.push(kind);
            resources.extend(rows);
            notes.extend(note);
        }
        Ok(Inventoried { server: status.server, node: status.node, types, resources, notes })
    }

    /// What changed since the last look; at first everything is added. Waits for something; `None` when the runtime ends.
    /// Cancel safe.
    pub async fn changed(&mut self) -> Option<Vec<Event>> {
        loop {
            let events = tokio::select! {
                events = next(&mut self.clusters) => events?,
                events = next(&mut self.listeners) => events?,
            };
            if !events.is_empty() {
                return Some(events);
            }
        }
    }
}

impl fmt::Debug for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inventory").field("client", &self.client).finish_non_exhaustive()
    }
}

/// What is known of one type.
struct Known {
    kind: &'static str,
    rows: Vec<Row>,
    note: Option<String>,
}

/// Nothing, of a type that was not asked for.
async fn known<R: Resource>(followed: &mut Option<Followed<R>>) -> Option<Result<Known, String>> {
    match followed {
        Some(followed) => Some(followed.known().await),
        None => None,
    }
}

/// Never, of a type that was not asked for.
async fn next<R: Resource>(followed: &mut Option<Followed<R>>) -> Option<Vec<Event>> {
    match followed {
        Some(followed) => {
            followed.watch.changed().await.ok()?;
            Some(followed.look())
        }
        None => std::future::pending().await,
    }
}

impl<R: Resource> Followed<R> {
    fn new(watch: Watching<ResourceSet<R>>) -> Self {
        Self { kind: R::TYPE, watch, seen: None, trouble: None }
    }

    async fn known(&mut self) -> Result<Known, String> {
        let set = self.watch.known().await.ok_or("the runtime of this process ends")?;
        let set = set.map_err(|error| error.to_string())?;
        Ok(Known {
            kind: self.kind.abbreviation(),
            rows: set.resources.iter().map(|(name, listed)| row(self.kind, name, listed)).collect(),
            note: set.note.as_deref().map(str::to_owned),
        })
    }

    fn look(&mut self) -> Vec<Event> {
        let kind = self.kind.abbreviation();
        let mut events = Vec::new();
        let current = self.watch.borrow_and_update().clone();
        let trouble = match current {
            None => return events,
            Some(Err(error)) => Some(error.to_string()),
            Some(Ok(set)) => {
                let changes = set.changes_since(self.seen.as_deref());
                let row = |name: &Name| set.resources.get(name).map(|listed| row(self.kind, name, listed));
                events.extend(changes.added.iter().filter_map(row).map(Event::Added));
                events.extend(changes.changed.iter().filter_map(row).map(Event::Changed));
                events.extend(changes.removed.into_iter().map(|name| Event::Removed { kind, name }));
                let note = set.note.as_deref().map(str::to_owned);
                self.seen = Some(set);
                note
            }
        };
        match &trouble {
            Some(error) if self.trouble != trouble => {
                events.push(Event::Trouble { kind, error: error.clone() })
            }
            None if self.trouble.is_some() => events.push(Event::Recovered { kind }),
            _ => {}
        }
        self.trouble = trouble;
        events
    }
}

fn row<R>(kind: ResourceType, name: &Name, listed: &Listed<R>) -> Row {
    Row {
        kind: kind.abbreviation(),
        name: name.clone(),
        version: listed.version.clone(),
        state: listed.state,
        error: listed.error.as_ref().map(|error| error.cause.to_string()),
        rejected_version: listed.rejected.clone(),
    }
}

impl Row {
    /// As the control plane's clients and CSDS call it.
    fn word(&self) -> &'static str {
        match self.state {
            ResourceState::Requested => "REQUESTED",
            ResourceState::DoesNotExist => "DOES_NOT_EXIST",
            ResourceState::Acked => "ACKED",
            ResourceState::Nacked => "NACKED",
            ResourceState::ReceivedError => "RECEIVED_ERROR",
            ResourceState::Timeout => "TIMEOUT",
        }
    }

    fn cells(&self) -> [Cow<'_, str>; 4] {
        let version = self.version.as_deref().unwrap_or("-");
        [self.kind.into(), self.word().into(), line(version), line(&self.name)]
    }
}

impl Inventoried {
    /// Whether nothing is wrong with any of it.
    pub fn is_sound(&self) -> bool {
        self.notes.is_empty() && self.resources.iter().all(|row| row.error.is_none())
    }
}

/// A table, what is wrong with what is in it, and a line that sums up.
impl fmt::Display for Inventoried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["TYPE", "STATE", "VERSION", "NAME"].map(Cow::from);
        let rows: Vec<_> = std::iter::once(header).chain(self.resources.iter().map(Row::cells)).collect();
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
        };
        let (kind, state, version) = (width(0), width(1), width(2));
        for [a, b, c, name] in &rows {
            writeln!(f, "{a:<kind$}  {b:<state$}  {c:<version$}  {name}")?;
        }
        let count = |kind: &str| self.resources.iter().filter(|row| row.kind == kind).count();
        let counts: Vec<String> = self.types.iter().map(|kind| format!("{} {kind}", count(kind))).collect();
        writeln!(f, "{} from {} for {}", counts.join(", "), line(&self.server), line(&self.node))?;
        for row in &self.resources {
            let Row { kind, name, error: Some(error), rejected_version, .. } = row else { continue };
            write!(f, "\n{kind} {}", line(name))?;
            if let Some(version) = rejected_version {
                write!(f, " of version {}", line(version))?;
            }
            writeln!(f, "\n  {}", line(error))?;
        }
        for note in &self.notes {
            writeln!(f, "\n{}", line(note))?;
        }
        Ok(())
    }
}

/// `+ CDS ACKED v1 name`; `~` for what changed, `-` for what is gone, `!` for trouble.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = |sign: char, row: &Row| {
            write!(f, "{sign} {}", row.cells().join(" "))?;
            row.error.iter().try_for_each(|error| write!(f, "\n  {}", line(error)))
        };
        match self {
            Self::Added(row) => told('+', row),
            Self::Changed(row) => told('~', row),
            Self::Removed { kind, name } => write!(f, "- {kind} {}", line(name)),
            Self::Trouble { kind, error } => write!(f, "! {kind} {}", line(error)),
            Self::Recovered { kind } => {
                write!(f, "! {kind} is up to date again")
            }
        }
    }
}

#[cfg(test)]
mod tests;
