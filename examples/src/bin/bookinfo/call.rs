//! `bookinfo call TARGET`: calls a service of the mesh from the command line and counts the answers.

use crate::load::{Tally, calls, request, text};
use clap::{Args, ValueEnum};
use mesh_client::{Mesh, MeshChannel};
use mesh_examples::bookinfo::{
    details_client::DetailsClient, product_page_client::ProductPageClient, ratings_client::RatingsClient,
    reviews_client::ReviewsClient,
};
use serde_json::json;
use std::error::Error;

#[derive(Args)]
pub(crate) struct CallArgs {
    /// The service; the bootstrap comes from GRPC_XDS_BOOTSTRAP.
    #[arg(value_enum)]
    service: Service,
    /// How many calls.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// How many at a time.
    #[arg(long, default_value_t = 1)]
    concurrency: u64,
    /// Sent as `end-user`.
    #[arg(long)]
    user: Option<String>,
    /// The target, if it is not `xds:///<service>:9080`.
    #[arg(long)]
    target: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Service {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

/// Prints `{"answers": {instance: count}, "errors": {message: count}}`.
pub(crate) async fn run(args: CallArgs) -> Result<(), Box<dyn Error>> {
    let name = args.service.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let target = args.target.unwrap_or_else(|| format!("xds:///{name}:9080"));
    let channel = Mesh::from_env()?.channel(&target)?;
    // The process ends with the command: a leak of one short string.
    let user: Option<&'static str> = args.user.map(|user| &*user.leak());
    let service = args.service;
    let tally: Tally = calls(args.count, args.concurrency.max(1), move || {
        let channel = channel.clone();
        async move { answer(service, channel, user).await }
    })
    .await;
    println!("{}", json!({"answers": tally.answers, "errors": tally.errors}));
    Ok(())
}

/// The instance that answered.
async fn answer(
    service: Service,
    channel: MeshChannel,
    user: Option<&'static str>,
) -> Result<String, String> {
    let origin = match service {
        Service::Productpage => ProductPageClient::new(channel)
            .get_product_page(request(user))
            .await
            .map(|r| r.into_inner().origin),
        Service::Details => {
            DetailsClient::new(channel).get_details(request(user)).await.map(|r| r.into_inner().origin)
        }
        Service::Reviews => {
            ReviewsClient::new(channel).get_reviews(request(user)).await.map(|r| r.into_inner().origin)
        }
        Service::Ratings => {
            RatingsClient::new(channel).get_ratings(request(user)).await.map(|r| r.into_inner().origin)
        }
    };
    origin.map(|origin| origin.unwrap_or_default().instance).map_err(|status| text(&status))
}
