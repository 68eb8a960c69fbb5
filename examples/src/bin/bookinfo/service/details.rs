//! Details: who wrote the book.

use super::behaviour::Behaviour;
use mesh_examples::bookinfo::{DetailsReply, Origin, ProductRequest, details_server::Details};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(crate) struct Service {
    pub(crate) origin: Origin,
    pub(crate) behaviour: Arc<Behaviour>,
}

#[tonic::async_trait]
impl Details for Service {
    async fn get_details(&self, _: Request<ProductRequest>) -> Result<Response<DetailsReply>, Status> {
        let _in_flight = self.behaviour.enter().await?;
        Ok(Response::new(DetailsReply {
            origin: Some(self.origin.clone()),
            author: "William Shakespeare".into(),
            year: 1595,
            pages: 200,
        }))
    }
}
