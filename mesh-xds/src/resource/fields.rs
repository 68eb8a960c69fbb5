//! What becomes of every field of every message that a resource is made of, and the page that says so.
//!
//! The tables here are not a description of the parsers that could go stale. Tests take the fields of each
//! message from its generated type, so that none can be missing or invented, and set each in a good resource
//! (`resource/tests/fields.rs`): what is [`State::Rejected`] must be refused at that field, what is
//! [`State::Ignored`] must change nothing, and of everything else some value must be taken and change something.
//!
//! To add a message: a `pub(super) static` [`Message`] in the file of its resource with a [`Row`] for each
//! group of fields with one fate; its name in the `MESSAGES` of that file; and in `resource/tests/fields.rs` a
//! good resource that holds it, with the field numbers that lead there.

pub(super) mod cluster;
pub(super) mod endpoint;
pub(super) mod extension;
pub(super) mod filter;
pub mod grfcs;
pub(super) mod listener;
mod page;
#[cfg(test)]
pub(super) mod probe;
pub(super) mod route;
pub(super) mod tls;

pub use page::page;

use super::Feature;

/// What becomes of a field that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Read and carried out; a value that cannot be is refused.
    Supported,
    /// Carried out by a data path that has the feature. By others it is refused, or treated as the remark says.
    Needs(Feature),
    /// Kept for other readers of the resource, without effect on a gRPC data path.
    Carried,
    /// Has no effect, as gRPC has it.
    Ignored,
    /// The resource is refused.
    Rejected,
    /// The resource is taken, and a call for which the field counts fails with status UNAVAILABLE (gRFC A28).
    Fails,
}

/// Fields of one message with one fate.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Their names, separated by spaces.
    pub fields: &'static str,
    /// What becomes of them.
    pub state: State,
    /// Who says so: a gRFC, Envoy or Istio.
    pub source: &'static str,
    /// Limits of what is supported, or the reason for the rest.
    pub remark: &'static str,
}

/// A message, in one of its uses.
#[derive(Clone, Copy)]
pub struct Message {
    /// `envoy.config.route.v3.RouteMatch`.
    pub name: fn() -> String,
    /// Which use, where there are several: `on a server`.
    pub used: &'static str,
    /// All its fields.
    pub rows: &'static [Row],
    #[cfg(test)]
    pub(super) known: fn() -> Vec<probe::Known>,
}

/// A part of the page.
#[derive(Clone, Copy)]
pub struct Section {
    /// Its title.
    pub title: &'static str,
    /// In order.
    pub messages: &'static [&'static Message],
}

/// Everything.
pub static SECTIONS: &[Section] = &[
    Section { title: "Listener and HTTP connection manager", messages: listener::MESSAGES },
    Section { title: "HTTP filters", messages: filter::MESSAGES },
    Section { title: "HTTP filters that need a feature", messages: extension::MESSAGES },
    Section { title: "RouteConfiguration", messages: route::MESSAGES },
    Section { title: "Cluster", messages: cluster::MESSAGES },
    Section { title: "Load balancing policies", messages: cluster::POLICIES },
    Section { title: "ClusterLoadAssignment", messages: endpoint::MESSAGES },
    Section { title: "TLS", messages: tls::MESSAGES },
    Section { title: "Secret", messages: tls::SECRETS },
];

impl Message {
    /// All fields of `M`.
    #[cfg(not(test))]
    const fn of<M: prost::Name>(used: &'static str, rows: &'static [Row]) -> Self {
        Self { name: M::full_name, used, rows }
    }

    /// All fields of `M`.
    #[cfg(test)]
    const fn of<M: prost::Name + Default + PartialEq + std::fmt::Debug>(
        used: &'static str,
        rows: &'static [Row],
    ) -> Self {
        Self { name: M::full_name, used, rows, known: probe::known::<M> }
    }

    /// Each field with its row.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &'static Row)> {
        self.rows.iter().flat_map(|row| row.fields.split_whitespace().map(move |field| (field, row)))
    }
}

const fn supported(fields: &'static str, source: &'static str, remark: &'static str) -> Row {
    Row { fields, state: State::Supported, source, remark }
}

const fn needs(feature: Feature, fields: &'static str, source: &'static str, remark: &'static str) -> Row {
    Row { fields, state: State::Needs(feature), source, remark }
}

const fn ignored(fields: &'static str, source: &'static str, remark: &'static str) -> Row {
    Row { fields, state: State::Ignored, source, remark }
}

const fn rejected(fields: &'static str, source: &'static str, remark: &'static str) -> Row {
    Row { fields, state: State::Rejected, source, remark }
}

const fn carried(fields: &'static str, source: &'static str, remark: &'static str) -> Row {
    Row { fields, state: State::Carried, source, remark }
}

const fn fails(fields: &'static str, source: &'static str, remark: &'static str) -> Row {
    Row { fields, state: State::Fails, source, remark }
}
