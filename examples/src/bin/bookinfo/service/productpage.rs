//! Product page: the front end. A part that cannot be had is missing from the page, with the reason.

use super::{behaviour::Behaviour, onward, reviews::error_text};
use mesh_client::MeshChannel;
use mesh_examples::bookinfo::{
    Origin, ProductPageReply, ProductRequest, ReviewsReply, details_client::DetailsClient,
    product_page_server::ProductPage, reviews_client::ReviewsClient,
};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status};

/// As in Istio's Bookinfo: the page waits this long for the reviews, twice.
pub(crate) const REVIEWS_TIMEOUT: Duration = Duration::from_secs(3);
const REVIEWS_TRIES: u32 = 2;

pub(crate) struct Service {
    origin: Origin,
    behaviour: Arc<Behaviour>,
    details: DetailsClient<MeshChannel>,
    reviews: ReviewsClient<MeshChannel>,
}

impl Service {
    pub(crate) fn new(
        origin: Origin,
        behaviour: Arc<Behaviour>,
        details: MeshChannel,
        reviews: MeshChannel,
    ) -> Self {
        Self { origin, behaviour, details: DetailsClient::new(details), reviews: ReviewsClient::new(reviews) }
    }

    async fn reviews(&self, request: &Request<ProductRequest>) -> Result<ReviewsReply, Status> {
        let mut tries = 1;
        loop {
            let mut attempt = onward(request, request.get_ref().clone());
            attempt.set_timeout(REVIEWS_TIMEOUT);
            match self.reviews.clone().get_reviews(attempt).await {
                Ok(reply) => return Ok(reply.into_inner()),
                Err(status) if tries == REVIEWS_TRIES => return Err(status),
                Err(_) => tries += 1,
            }
        }
    }
}

#[tonic::async_trait]
impl ProductPage for Service {
    async fn get_product_page(
        &self,
        request: Request<ProductRequest>,
    ) -> Result<Response<ProductPageReply>, Status> {
        let _in_flight = self.behaviour.enter().await?;
        let mut details = self.details.clone();
        let (details, reviews) = tokio::join!(
            details.get_details(onward(&request, request.get_ref().clone())),
            self.reviews(&request)
        );
        let mut page = ProductPageReply { origin: Some(self.origin.clone()), ..ProductPageReply::default() };
        match details {
            Ok(reply) => page.details = Some(reply.into_inner()),
            Err(status) => page.details_error = error_text(&status),
        }
        match reviews {
            Ok(reply) => page.reviews = Some(reply),
            Err(status) => page.reviews_error = error_text(&status),
        }
        Ok(Response::new(page))
    }
}
