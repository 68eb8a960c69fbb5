//! The only part of the reporting side that does IO.
//!
//! The load of a cluster goes to the control plane that speaks for it (`lrs_server: self`): it moves to the
//! replacement while that is in use (gRFC A71), and back. Counts leave the store only when the transport takes the
//! report, so a control plane that does not read makes reports rarer, and what waits when a stream ends is
//! reported on the next one, wherever that leads. A report that the transport has taken is never repeated.

use super::{
    load::{Claim, LoadStore},
    machine::{Input, Reporter, Wanted},
};
use crate::{
    bootstrap::ServerConfig,
    client::{BackoffSettings, Connector, Speakers, XdsClient},
    proto,
    server::epoch_seconds,
};
use envoy_types::pb::envoy::service::load_stats::v3::{
    LoadStatsRequest, LoadStatsResponse, load_reporting_service_client::LoadReportingServiceClient,
};
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, transport::Channel};

/// Reports what a [`LoadStore`] counts to the control planes, until it is dropped.
pub struct LoadReporter {
    status: Arc<Mutex<Told>>,
    _task: JoinSet<()>,
}

/// What became of the reports.
#[derive(Debug, Default)]
struct Told {
    last: Option<f64>,
    /// By the control plane's address.
    errors: BTreeMap<String, Arc<str>>,
}

impl LoadReporter {
    /// Starts to report over the connections that ADS uses, to the control planes that speak for the clusters. It
    /// asks for nothing before a cluster is counted. Must be called within a tokio runtime.
    pub fn spawn(
        store: Arc<LoadStore>,
        client: &XdsClient,
        connector: Arc<dyn Connector>,
        backoff: BackoffSettings,
    ) -> Self {
        let status = Arc::<Mutex<Told>>::default();
        let reports = Reports {
            store,
            speakers: client.speakers(),
            connector,
            node: client.node().clone(),
            backoff,
            status: status.clone(),
        };
        let mut task = JoinSet::new();
        task.spawn(reports.follow());
        Self { status, _task: task }
    }

    /// When the last report was sent, in seconds since the epoch.
    pub fn last_report(&self) -> Option<f64> {
        lock(&self.status).last
    }

    /// Why reports do not arrive; absent while they do, and before the first.
    pub fn error(&self) -> Option<Arc<str>> {
        let told = lock(&self.status);
        let all: Vec<_> = told.errors.values().map(|why| &**why).collect();
        (!all.is_empty()).then(|| all.join("; ").into())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that the streams share.
#[derive(Clone)]
struct Reports {
    store: Arc<LoadStore>,
    speakers: watch::Receiver<Arc<Speakers>>,
    connector: Arc<dyn Connector>,
    node: proto::Node,
    backoff: BackoffSettings,
    status: Arc<Mutex<Told>>,
}

impl Reports {
    /// Keeps one stream to every control plane that speaks for a cluster that was counted.
    async fn follow(mut self) {
        let mut used = self.store.used();
        let mut tasks = JoinSet::new();
        let mut running: Vec<(Arc<ServerConfig>, AbortHandle)> = Vec::new();
        loop {
            let mut wanted: Vec<Arc<ServerConfig>> = Vec::new();
            {
                let speakers = self.speakers.borrow_and_update();
                for authority in &*used.borrow_and_update() {
                    if let Some(server) = speakers.of(authority.as_deref())
                        && !wanted.contains(server)
                    {
                        wanted.push(server.clone());
                    }
                }
            }
            running.retain(|(server, task)| {
                let stays = wanted.contains(server);
                if !stays {
                    tracing::info!(%server, "load is no longer reported here: another control plane speaks");
                    task.abort();
                    lock(&self.status).errors.remove(&server.address);
                }
                stays
            });
            for server in wanted {
                if running.iter().all(|(one, _)| *one != server) {
                    let task = tasks.spawn(self.clone().report_to(server.clone()));
                    running.push((server, task));
                }
            }
            tokio::select! {
                // An error would be the end of the store, which is held here.
                _ = used.changed() => {}
                // When the client has ended, it stays as it is.
                () = changed(&mut self.speakers) => {}
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    async fn report_to(self, server: Arc<ServerConfig>) {
        let mut reporter = Reporter::new(&self.node, self.backoff.clone(), fastrand::u64(..));
        let mut outputs = reporter.on(now(), Input::Used);
        let mut link = Link::Closed;
        let (mut sender, _) = mpsc::channel::<Wanted>(1);
        // A stream that has ended takes no more, though the transport may not have noticed yet.
        let mut alive = Arc::new(());
        loop {
            if let Some(first) = outputs.connect {
                match self.connector.shared(&server) {
                    Ok(channel) => {
                        let (wanted, receiver) = mpsc::channel(1);
                        sender = wanted;
                        let requests = self.requests(first, server.clone(), receiver, &alive);
                        link = Link::Opening(
                            open(self.connector.clone(), server.clone(), channel, requests).boxed(),
                        );
                    }
                    Err(why) => {
                        link = Link::Closed;
                        reporter.on(now(), Input::Closed(format!("{server}: {why}").into()));
                    }
                }
            }
            if let Some(wanted) = outputs.report {
                // There was room. If there is no stream any more, reading it says why.
                let _ = sender.try_send(wanted);
            }
            {
                let mut told = lock(&self.status);
                match reporter.error() {
                    Some(why) => told.errors.insert(server.address.clone(), why.clone()),
                    None => told.errors.remove(&server.address),
                };
            }
            let deadline = reporter.deadline();
            outputs = tokio::select! {
                input = link.next(&server) => {
                    if let Input::Closed(why) = &input {
                        tracing::info!(%server, %why, "the stream of load reports ended");
                        alive = Arc::new(());
                        sender = mpsc::channel(1).0;
                    }
                    reporter.on(now(), input)
                }
                () = due(deadline, &sender) => reporter.on(now(), Input::Tick),
            };
        }
    }

    /// The node, and then a report each time when the transport has room for one that is due.
    fn requests(
        &self,
        first: LoadStatsRequest,
        server: Arc<ServerConfig>,
        due: mpsc::Receiver<Wanted>,
        alive: &Arc<()>,
    ) -> impl Stream<Item = LoadStatsRequest> + Send + 'static {
        let Self { store, speakers, status, .. } = self.clone();
        let alive = Arc::downgrade(alive);
        let report = move |wanted: Wanted| {
            let _alive = alive.upgrade()?;
            let speakers = speakers.borrow().clone();
            let cluster_stats = store.take(now(), |name| {
                let is_wanted = || wanted.as_ref().is_none_or(|wanted| wanted.contains(name));
                match speakers.of_cluster(name) == Some(&server) {
                    true if is_wanted() => Claim::Wanted,
                    true => Claim::Unwanted,
                    false => Claim::Elsewhere,
                }
            });
            lock(&status).last = Some(epoch_seconds(Duration::ZERO));
            // A report of nothing says that this client is there and idle.
            Some(LoadStatsRequest { node: None, cluster_stats })
        };
        stream::iter([first])
            .chain(ReceiverStream::new(due).filter_map(move |wanted| std::future::ready(report(wanted))))
    }
}

async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending().await
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
    server: Arc<ServerConfig>,
    channel: Channel,
    requests: impl Stream<Item = LoadStatsRequest> + Send + 'static,
) -> Result<Responses, Status> {
    let mut request = Request::new(requests);
    *request.metadata_mut() = connector.metadata(&server).await?;
    let mut client = LoadReportingServiceClient::new(channel);
    let responses = client.stream_load_stats(request).await?.into_inner();
    Ok(responses.boxed())
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The deadline has passed, and the report before it has been taken, or will never be. Cancel safe.
async fn due(deadline: Option<Instant>, sender: &mpsc::Sender<Wanted>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
    let _ = sender.reserve().await;
}
