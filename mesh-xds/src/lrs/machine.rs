//! The protocol of the reporting side, without IO.
//!
//! A stream begins with the node; the control plane says what it wants and how often, and may say so again at any
//! time. Streams that end are opened again as ADS streams are (gRFC A57): at once after one that worked, else with
//! growing delays. Nothing is opened before there is something to report.
//!
//! A control plane that takes the stream and never says what it wants is waited for, without an end: it costs one silent
//! stream, and counting goes on. One that is gone is noticed by the channel's keepalive, and an attempt to connect ends
//! with its connect limit.

use super::SEND_ALL_CLUSTERS_FEATURE;
use crate::{client::BackoffSettings, client::backoff::Backoff, proto};
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse},
};
use prost::Message;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// The shortest time between two reports, whatever the control plane asks for.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// And the longest: a clock has an end.
const LONGEST_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// There is something to report.
    Used,
    /// The control plane said what it wants.
    Response(LoadStatsResponse),
    /// The stream ended, or could not be opened.
    Closed(Arc<str>),
    /// [`Reporter::deadline`] passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Open a stream that begins with this; forget the one before.
    pub connect: Option<LoadStatsRequest>,
    /// Report of these clusters.
    pub report: Option<Wanted>,
}

/// The clusters that a control plane wants to hear of; `None`: all.
pub type Wanted = Option<Arc<BTreeSet<String>>>;

/// The state of the reports to one control plane.
pub struct Reporter {
    node: Node,
    backoff: Backoff,
    state: State,
    error: Option<Arc<str>>,
}

enum State {
    /// Nothing to report yet.
    Unused,
    Waiting {
        until: Instant,
    },
    /// Opened; what is wanted is not known.
    Asking {
        since: Instant,
    },
    Reporting {
        since: Instant,
        interval: Duration,
        wanted: Wanted,
        next: Instant,
    },
}

impl Reporter {
    /// Reports as `node`.
    pub fn new(node: &proto::Node, backoff: BackoffSettings, seed: u64) -> Self {
        // The same message of another generation of code.
        let mut node = Node::decode(node.encode_to_vec().as_slice()).unwrap_or_default();
        node.client_features.push(SEND_ALL_CLUSTERS_FEATURE.to_owned());
        Self { node, backoff: Backoff::new(backoff, seed), state: State::Unused, error: None }
    }

    /// Advances.
    pub fn on(&mut self, now: Instant, input: Input) -> Outputs {
        match input {
            Input::Used if matches!(self.state, State::Unused) => return self.open(now),
            Input::Used => {}
            Input::Response(response) => self.told(now, response),
            Input::Closed(why) => self.closed(now, why),
            Input::Tick => {
                if self.deadline().is_some_and(|due| due <= now) {
                    return self.due(now);
                }
            }
        }
        Outputs::default()
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Reporting { next, .. } => Some(*next),
            State::Unused | State::Asking { .. } => None,
        }
    }

    /// Why the last stream ended, until another one is reported on.
    pub fn error(&self) -> Option<&Arc<str>> {
        self.error.as_ref()
    }

    fn open(&mut self, now: Instant) -> Outputs {
        self.state = State::Asking { since: now };
        let request = LoadStatsRequest { node: Some(self.node.clone()), cluster_stats: Vec::new() };
        Outputs { connect: Some(request), report: None }
    }

    fn told(&mut self, now: Instant, response: LoadStatsResponse) {
        let told = response.load_reporting_interval.unwrap_or_default();
        let interval = Duration::new(
            u64::try_from(told.seconds).unwrap_or_default(),
            u32::try_from(told.nanos).unwrap_or_default().min(999_999_999),
        );
        let interval = interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        let wanted = (!response.send_all_clusters).then(|| Arc::new(response.clusters.into_iter().collect()));
        self.error = None;
        let (since, next) = match &self.state {
            State::Asking { since } => (*since, now + interval),
            // A repetition puts nothing off.
            State::Reporting { since, next, interval: before, .. } if *before == interval => (*since, *next),
            State::Reporting { since, .. } => (*since, now + interval),
            State::Unused | State::Waiting { .. } => return,
        };
        self.state = State::Reporting { since, interval, wanted, next };
    }

    fn closed(&mut self, now: Instant, why: Arc<str>) {
        let delay = match &self.state {
            State::Reporting { since, .. } => self.backoff.worked(now.saturating_duration_since(*since)),
            State::Asking { .. } => self.backoff.failed(),
            State::Unused | State::Waiting { .. } => return,
        };
        self.error = Some(why);
        self.state = State::Waiting { until: now + delay };
    }

    fn due(&mut self, now: Instant) -> Outputs {
        let State::Reporting { interval, wanted, next, .. } = &mut self.state else { return self.open(now) };
        *next = now + *interval;
        Outputs { connect: None, report: Some(wanted.clone()) }
    }
}
