//! Ratings: stars by reviewer.

use super::behaviour::Behaviour;
use mesh_examples::bookinfo::{Origin, ProductRequest, RatingsReply, ratings_server::Ratings};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(crate) struct Service {
    pub(crate) origin: Origin,
    pub(crate) behaviour: Arc<Behaviour>,
}

#[tonic::async_trait]
impl Ratings for Service {
    async fn get_ratings(&self, _: Request<ProductRequest>) -> Result<Response<RatingsReply>, Status> {
        let _in_flight = self.behaviour.enter().await?;
        Ok(Response::new(RatingsReply {
            origin: Some(self.origin.clone()),
            stars: [("Reviewer1".into(), 5), ("Reviewer2".into(), 4)].into(),
        }))
    }
}
