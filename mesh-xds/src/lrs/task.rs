//! The only part of the reporting side that does IO.
//!
//! Nothing is taken from the counters while a report still waits to be written, so a control plane that does not
//! read makes reports rarer, and none is lost.

use super::{
    load::LoadStore,
    machine::{Input, Reporter},
};
use crate::{
    bootstrap::{Bootstrap, ServerConfig},
    client::{ClientSettings, Connector},
    server::epoch_seconds,
};
use envoy_types::pb::envoy::service::load_stats::v3::{
    LoadStatsRequest, LoadStatsResponse, load_reporting_service_client::LoadReportingServiceClient,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, transport::Channel};

/// Reports what a [`LoadStore`] counts to the control plane, until it is dropped.
pub struct LoadReporter {
    status: Arc<Mutex<Told>>,
    _task: JoinSet<()>,
}

/// What became of the reports.
#[derive(Clone, Debug, Default)]
struct Told {
    last: Option<f64>,
    error: Option<Arc<str>>,
}

impl LoadReporter {
    /// Starts to report to the first server of the bootstrap, over the connection that ADS uses. It asks for
    /// nothing before a cluster is counted. Must be called within a tokio runtime.
    pub fn spawn(
        store: Arc<LoadStore>,
        bootstrap: &Bootstrap,
        connector: Arc<dyn Connector>,
        settings: &ClientSettings,
    ) -> Self {
        let status = Arc::<Mutex<Told>>::default();
        let mut task = JoinSet::new();
        if let Some(server) = bootstrap.servers.first().cloned() {
            let node = bootstrap.node.to_proto(&[]);
            let reporter = Reporter::new(store.clone(), &node, settings.backoff.clone(), fastrand::u64(..));
            task.spawn(run(reporter, store, connector, server, status.clone()));
        }
        Self { status, _task: task }
    }

    /// When the last report was sent, in seconds since the epoch.
    pub fn last_report(&self) -> Option<f64> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// Why reports do not arrive; absent while they do, and before the first.
    pub fn error(&self) -> Option<Arc<str>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).error.clone()
    }
}

type Responses = BoxStream<'static, Result<LoadStatsResponse, Status>>;

enum Link {
    Closed,
    Opening(BoxFuture<'static, Result<Responses, Status>>),
    Open(Responses),
}

impl Link {
    /// The next thing that happens. Cancel safe.
    async fn next(&mut self, server: &ServerConfig) -> Input {
        loop {
            let why = match self {
                Self::Closed => std::future::pending().await,
                Self::Opening(opening) => match opening.await {
                    Ok(responses) => {
                        *self = Self::Open(responses);
                        continue;
                    }
                    Err(status) => format!("{server}: {:?}: {}", status.code(), status.message()),
                },
                Self::Open(responses) => match responses.next().await {
                    Some(Ok(response)) => return Input::Response(response),
                    Some(Err(status)) => format!("{server}: {:?}: {}", status.code(), status.message()),
                    None => format!("{server}: the control plane ended the stream of load reports"),
                },
            };
            *self = Self::Closed;
            return Input::Closed(why.into());
        }
    }
}

async fn open(
    connector: Arc<dyn Connector>,
    server: ServerConfig,
    channel: Channel,
    requests: mpsc::Receiver<LoadStatsRequest>,
) -> Result<Responses, Status> {
    let mut request = Request::new(ReceiverStream::new(requests));
    *request.metadata_mut() = connector.metadata(&server).await?;
    let mut client = LoadReportingServiceClient::new(channel);
    let responses = client.stream_load_stats(request).await?.into_inner();
    Ok(responses.boxed())
}

async fn run(
    mut reporter: Reporter,
    store: Arc<LoadStore>,
    connector: Arc<dyn Connector>,
    server: ServerConfig,
    status: Arc<Mutex<Told>>,
) {
    let mut used = store.used();
    let mut link = Link::Closed;
    let (mut sender, _) = mpsc::channel::<LoadStatsRequest>(1);
    let mut unsent: Option<LoadStatsRequest> = None;
    let mut is_used = false;
    loop {
        let deadline = reporter.deadline();
        let mut outputs = tokio::select! {
            // An error would be the end of the store, which the reporter holds.
            _ = used.wait_for(|used| *used), if !is_used => {
                is_used = true;
                reporter.on(now(), Input::Used)
            }
            permit = sender.reserve(), if unsent.is_some() => {
                match (permit, unsent.take()) {
                    (Ok(permit), Some(request)) => {
                        if request.node.is_none() {
                            tell(&status, |told| told.last = Some(epoch_seconds(std::time::Duration::ZERO)));
                        }
                        permit.send(request);
                    }
                    // The stream has ended; reading it says why.
                    _ => unsent = None,
                }
                continue;
            }
            input = link.next(&server) => {
                if let Input::Closed(why) = &input {
                    tracing::info!(%server, %why, "the stream of load reports ended");
                }
                reporter.on(now(), input)
            }
            () = sleep_until(deadline), if unsent.is_none() => reporter.on(now(), Input::Tick),
        };
        if std::mem::take(&mut outputs.connect) {
            match connector.shared(&server) {
                Ok(channel) => {
                    let (requests, receiver) = mpsc::channel(1);
                    sender = requests;
                    link = Link::Opening(open(connector.clone(), server.clone(), channel, receiver).boxed());
                }
                Err(why) => {
                    link = Link::Closed;
                    reporter.on(now(), Input::Closed(format!("{server}: {why}").into()));
                    outputs.request = None;
                }
            }
        }
        if matches!(link, Link::Closed) {
            unsent = None;
        } else if let Some(request) = outputs.request {
            unsent = Some(request);
        }
        tell(&status, |told| told.error = reporter.error().cloned());
    }
}

fn tell(status: &Mutex<Told>, change: impl FnOnce(&mut Told)) {
    change(&mut status.lock().unwrap_or_else(PoisonError::into_inner));
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
