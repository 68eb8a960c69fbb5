//! Traffic: many calls, counted by what came of them.

use mesh_client::MeshChannel;
use mesh_examples::bookinfo::{
    ProductPageReply, ProductRequest, ReviewsReply, product_page_client::ProductPageClient,
    reviews_client::ReviewsClient,
};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tonic::{Request, Status};

/// What came of some calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Calls by the answer's label.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Failed calls, by message.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Slowest call.
    pub(crate) slowest: Duration,
}

impl Tally {
    pub(crate) fn sent(&self) -> u64 {
        self.answers.values().sum::<u64>() + self.failed()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    pub(crate) fn answered(&self, label: &str) -> u64 {
        self.answers.get(label).copied().unwrap_or(0)
    }

    fn add(&mut self, result: Result<String, String>, took: Duration) {
        self.slowest = self.slowest.max(took);
        match result {
            Ok(label) => *self.answers.entry(label).or_default() += 1,
            Err(error) => *self.errors.entry(error).or_default() += 1,
        }
    }

    fn merge(&mut self, other: Self) {
        for (label, count) in other.answers {
            *self.answers.entry(label).or_default() += count;
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.slowest = self.slowest.max(other.slowest);
    }

    /// `v1 80, v2 20`, or `v1 99, failed 1: <reason>`.
    pub(crate) fn text(&self) -> String {
        let mut parts: Vec<_> = self.answers.iter().map(|(label, n)| format!("{label} {n}")).collect();
        if let Some((error, _)) = self.errors.first_key_value() {
            parts.push(format!("failed {}: {error}", self.failed()));
        }
        if parts.is_empty() { "nothing".into() } else { parts.join(", ") }
    }
}

/// Sends `total` calls, `concurrency` at a time.
pub(crate) async fn calls<F, Fut>(total: u64, concurrency: u64, call: F) -> Tally
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<String, String>> + Send,
{
    let mut workers = JoinSet::new();
    for worker in 0..concurrency {
        let share = total / concurrency + u64::from(worker < total % concurrency);
        let call = call.clone();
        workers.spawn(async move {
            let mut tally = Tally::default();
            for _ in 0..share {
                let begun = Instant::now();
                let result = call().await;
                tally.add(result, begun.elapsed());
            }
            tally
        });
    }
    gather(workers).await
}

/// Calls that go on until stopped.
pub(crate) struct Background {
    stop: Arc<AtomicBool>,
    workers: JoinSet<Tally>,
}

impl Background {
    pub(crate) fn start<F, Fut>(concurrency: usize, call: F) -> Self
    where
        F: Fn() -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<String, String>> + Send,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for _ in 0..concurrency {
            let (call, stop) = (call.clone(), stop.clone());
            workers.spawn(async move {
                let mut tally = Tally::default();
                while !stop.load(Relaxed) {
                    let begun = Instant::now();
                    let result = call().await;
                    tally.add(result, begun.elapsed());
                }
                tally
            });
        }
        Self { stop, workers }
    }

    pub(crate) async fn stop(self) -> Tally {
        self.stop.store(true, Relaxed);
        gather(self.workers).await
    }
}

async fn gather(mut workers: JoinSet<Tally>) -> Tally {
    let mut tally = Tally::default();
    while let Some(worker) = workers.join_next().await {
        match worker {
            Ok(part) => tally.merge(part),
            Err(panic) => tally.add(Err(format!("a caller panicked: {panic}")), Duration::ZERO),
        }
    }
    tally
}

/// A request on behalf of `user`.
pub(crate) fn request(user: Option<&'static str>) -> Request<ProductRequest> {
    let mut request = Request::new(ProductRequest { product: "0".into() });
    if let Some(user) = user {
        request.metadata_mut().insert("end-user", tonic::metadata::MetadataValue::from_static(user));
    }
    request
}

/// The whole page.
pub(crate) async fn page(
    channel: &MeshChannel,
    user: Option<&'static str>,
) -> Result<ProductPageReply, Status> {
    let mut client = ProductPageClient::new(channel.clone());
    client.get_product_page(request(user)).await.map(tonic::Response::into_inner)
}

/// The page's reviews; their absence is an error.
pub(crate) async fn reviews_of_page(
    channel: &MeshChannel,
    user: Option<&'static str>,
) -> Result<ReviewsReply, String> {
    let page = page(channel, user).await.map_err(|status| text(&status))?;
    if !page.details_error.is_empty() {
        return Err(format!("details: {}", page.details_error));
    }
    page.reviews.ok_or(page.reviews_error)
}

/// Reviews, asked directly.
pub(crate) async fn reviews(
    channel: &MeshChannel,
    user: Option<&'static str>,
) -> Result<ReviewsReply, Status> {
    let mut client = ReviewsClient::new(channel.clone());
    client.get_reviews(request(user)).await.map(tonic::Response::into_inner)
}

/// `v2`, or the ratings' trouble.
pub(crate) fn version(reply: ReviewsReply) -> Result<String, String> {
    if !reply.ratings_error.is_empty() {
        return Err(format!("ratings: {}", reply.ratings_error));
    }
    Ok(reply.origin.unwrap_or_default().version)
}

/// The replica that answered.
pub(crate) fn instance(reply: ReviewsReply) -> Result<String, String> {
    Ok(reply.origin.unwrap_or_default().instance)
}

/// A status in one line.
pub(crate) fn text(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
