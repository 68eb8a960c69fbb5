//! Reviews: v1 shows no stars, v2 black ones, v3 red ones; v2 and v3 ask `ratings` for them.

use super::{behaviour::Behaviour, onward};
use mesh_client::MeshChannel;
use mesh_examples::bookinfo::{
    Origin, ProductRequest, Review, ReviewsReply, ratings_client::RatingsClient, reviews_server::Reviews,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(crate) struct Service {
    origin: Origin,
    behaviour: Arc<Behaviour>,
    ratings: RatingsClient<MeshChannel>,
}

impl Service {
    pub(crate) fn new(origin: Origin, behaviour: Arc<Behaviour>, ratings: MeshChannel) -> Self {
        Self { origin, behaviour, ratings: RatingsClient::new(ratings) }
    }

    fn star_color(&self) -> &'static str {
        match self.origin.version.as_str() {
            "v2" => "black",
            "v3" => "red",
            _ => "",
        }
    }
}

#[tonic::async_trait]
impl Reviews for Service {
    async fn get_reviews(&self, request: Request<ProductRequest>) -> Result<Response<ReviewsReply>, Status> {
        let _in_flight = self.behaviour.enter().await?;
        let mut reply = ReviewsReply {
            origin: Some(self.origin.clone()),
            reviews: vec![
                Review { reviewer: "Reviewer1".into(), text: "An extremely entertaining play.".into() },
                Review { reviewer: "Reviewer2".into(), text: "Absolutely fun and entertaining.".into() },
            ],
            star_color: self.star_color().into(),
            ..ReviewsReply::default()
        };
        if !reply.star_color.is_empty() {
            let onward = onward(&request, request.get_ref().clone());
            match self.ratings.clone().get_ratings(onward).await {
                Ok(ratings) => reply.ratings = Some(ratings.into_inner()),
                Err(status) => reply.ratings_error = error_text(&status),
            }
        }
        Ok(Response::new(reply))
    }
}

/// A failed call as the page shows it.
pub(crate) fn error_text(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
