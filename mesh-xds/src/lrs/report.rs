//! What a client sent, read from its bytes straight into sums.
//!
//! A message of Envoy's API that is decoded takes a hundred times the bytes that it came in: an empty locality is two
//! of them, and a structure of 250. Here nothing is held of a request but what is summed up, so it costs what the
//! sums of one report may cost, whatever it says; and it has no more parts than [`MAX_PARTS_OF_REPORT`], which bounds
//! the time.

use super::{
    SEND_ALL_CLUSTERS_FEATURE,
    sums::{ClusterSums, Clusters, MetricSums, Place, Sums},
    wire::{Fields, Malformed},
};
use crate::printable::clip;
use tonic::Status;

/// Clusters, localities, categories of drops and named metrics of one report. One of 1,000 clusters in 10 localities
/// each has 11,000.
pub(super) const MAX_PARTS_OF_REPORT: usize = 65_536;

/// A request, as far as it matters.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// In the first request of a stream.
    pub(super) node: Option<NodeSaid>,
    /// What it adds.
    pub(super) clusters: Clusters,
}

/// Who reports.
#[derive(Debug, Default)]
pub(super) struct NodeSaid {
    /// What it calls itself.
    pub(super) id: String,
    /// It reports all its clusters when it is asked to.
    pub(super) sends_all: bool,
}

/// Why bytes are no report.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They are not what they should be.
    Malformed(&'static str),
    /// They say too much.
    TooManyParts,
}

impl From<Malformed> for Fault {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(why) => Self::invalid_argument(format!("a request is not a load report: {why}")),
            Fault::TooManyParts => Self::resource_exhausted(format!(
                "a report has more clusters, localities, categories of drops and metrics than the limit of \
                 {MAX_PARTS_OF_REPORT} together"
            )),
        }
    }
}

impl Report {
    /// Reads an encoded `LoadStatsRequest`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let mut report = Self::default();
        let mut parts = Parts(0);
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => report.node.get_or_insert_default().read(value.message()?)?,
                2 => {
                    parts.another()?;
                    let (name, sums) = cluster(value.message()?, &mut parts)?;
                    report.clusters.add(name, &sums);
                }
                _ => {}
            }
        }
        Ok(report)
    }
}

impl NodeSaid {
    /// The id, and one feature: a node may have a lot of metadata, which nobody asks for here.
    fn read(&mut self, mut fields: Fields<'_>) -> Result<(), Fault> {
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => self.id = clip(value.text()?, MAX_ID),
                10 => self.sends_all |= value.text()? == SEND_ALL_CLUSTERS_FEATURE,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Longest part of a node's id that is kept, to name it in a refusal.
const MAX_ID: usize = 256;

/// Counts the parts of a report.
struct Parts(usize);

impl Parts {
    fn another(&mut self) -> Result<(), Fault> {
        self.0 += 1;
        if self.0 > MAX_PARTS_OF_REPORT { Err(Fault::TooManyParts) } else { Ok(()) }
    }
}

/// `ClusterStats`.
fn cluster<'a>(mut fields: Fields<'a>, parts: &mut Parts) -> Result<(&'a str, ClusterSums), Fault> {
    let (mut name, mut sums, mut dropped) = ("", ClusterSums::default(), 0);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => name = value.text()?,
            2 => {
                parts.another()?;
                locality(value.message()?, &mut sums, parts)?;
            }
            3 => dropped = value.number()?,
            5 => {
                parts.another()?;
                let (category, count) = drops(value.message()?)?;
                sums.add_drops_of(category, count);
            }
            _ => {}
        }
    }
    sums.add_drops(dropped);
    Ok((name, sums))
}

/// `ClusterStats.DroppedRequests`.
fn drops(mut fields: Fields<'_>) -> Result<(&str, u64), Fault> {
    let (mut category, mut count) = ("", 0);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => category = value.text()?,
            2 => count = value.number()?,
            _ => {}
        }
    }
    Ok((category, count))
}

/// `UpstreamLocalityStats`. Of what it may say of single endpoints nothing is read: nobody is asked to report that.
fn locality(mut fields: Fields<'_>, cluster: &mut ClusterSums, parts: &mut Parts) -> Result<(), Fault> {
    let (mut place, mut sums) = (None, Sums::default());
    // A message that is there twice is one, as everywhere in the protocol.
    let mut unnamed = [None; 3];
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => read_place(value.message()?, place.get_or_insert_default())?,
            2 => sums.successes = value.number()?,
            3 => sums.in_progress = value.number()?,
            4 => sums.errors = value.number()?,
            8 => sums.issued = value.number()?,
            5 => {
                parts.another()?;
                let (mut name, mut sums) = ("", MetricSums::default());
                let mut fields = value.message()?;
                while let Some((number, value)) = fields.next()? {
                    match number {
                        1 => name = value.text()?,
                        2 => sums.count = value.number()?,
                        3 => sums.total = value.double()?,
                        _ => {}
                    }
                }
                cluster.add_metric(name, sums);
            }
            12 => read_metric(value.message()?, &mut unnamed[0])?,
            13 => read_metric(value.message()?, &mut unnamed[1])?,
            14 => read_metric(value.message()?, &mut unnamed[2])?,
            _ => {}
        }
    }
    cluster.add_locality(place, sums);
    let names = ["cpu_utilization", "mem_utilization", "application_utilization"];
    for (name, sums) in names.into_iter().zip(unnamed) {
        if let Some(sums) = sums {
            cluster.add_metric(name, sums);
        }
    }
    Ok(())
}

/// `Locality`.
fn read_place<'a>(mut fields: Fields<'a>, place: &mut Place<'a>) -> Result<(), Fault> {
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => place.region = value.text()?,
            2 => place.zone = value.text()?,
            3 => place.sub_zone = value.text()?,
            _ => {}
        }
    }
    Ok(())
}

/// `UnnamedEndpointLoadMetricStats`.
fn read_metric(mut fields: Fields<'_>, metric: &mut Option<MetricSums>) -> Result<(), Fault> {
    let metric = metric.get_or_insert_default();
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => metric.count = value.number()?,
            2 => metric.total = value.double()?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
