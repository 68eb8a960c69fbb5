//! `bookinfo service NAME`: one process of the application, a server and a client of the mesh.
//!
//! It prints `listening ADDRESS` and then takes orders on its standard input, so that the scenarios can
//! make one replica fail ([`behaviour`]). It ends when that input does: no process outlives its runner.

pub(crate) mod behaviour;
mod details;
mod productpage;
mod ratings;
mod reviews;

use behaviour::{Behaviour, Order};
use clap::{Args, ValueEnum};
use mesh_client::{Mesh, MeshServer};
use mesh_examples::bookinfo::{
    Origin, details_server::DetailsServer, product_page_server::ProductPageServer,
    ratings_server::RatingsServer, reviews_server::ReviewsServer,
};
use std::{error::Error, net::SocketAddr, sync::Arc};
use tokio::io::{AsyncBufReadExt, BufReader};
use tonic::{
    Request,
    transport::{Server, server::Router},
};
use tower_layer::{Identity, Stack};

/// The four services of Bookinfo.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Name {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

#[derive(Args)]
pub(crate) struct ServiceArgs {
    /// Which service this process is.
    name: Name,
    /// Its version: decides what `reviews` does.
    #[arg(long, default_value = "v1")]
    version: String,
    /// Tells replicas apart.
    #[arg(long)]
    instance: String,
    /// Address to serve at.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// Serves until told to drain, or until standard input closes.
pub(crate) async fn run(args: ServiceArgs) -> Result<(), Box<dyn Error>> {
    let mesh = Mesh::from_env()?;
    let server = mesh.server(args.listen).await?;
    let behaviour = Arc::new(Behaviour::default());
    let router = router(&args, &mesh, &server, &behaviour)?;
    println!("listening {}", server.local_addr());

    let serving = router.serve_with_incoming_shutdown(server.incoming(), server.drained());
    tokio::select! {
        result = serving => result?,
        () = take_orders(&server, &behaviour, &mesh) => {}
    }
    Ok(())
}

type Layers = Stack<mesh_client::ServerLayer, Identity>;

fn router(
    args: &ServiceArgs,
    mesh: &Mesh,
    server: &MeshServer,
    behaviour: &Arc<Behaviour>,
) -> Result<Router<Layers>, Box<dyn Error>> {
    let origin = Origin {
        service: format!("{:?}", args.name).to_lowercase(),
        version: args.version.clone(),
        instance: args.instance.clone(),
    };
    let behaviour = behaviour.clone();
    let mut builder = Server::builder().layer(server.layer());
    Ok(match args.name {
        Name::Details => builder.add_service(DetailsServer::new(details::Service { origin, behaviour })),
        Name::Ratings => builder.add_service(RatingsServer::new(ratings::Service { origin, behaviour })),
        Name::Reviews => {
            let service = reviews::Service::new(origin, behaviour, mesh.channel("xds:///ratings:9080")?);
            builder.add_service(ReviewsServer::new(service))
        }
        Name::Productpage => {
            let details = mesh.channel("xds:///details:9080")?;
            let reviews = mesh.channel("xds:///reviews:9080")?;
            let service = productpage::Service::new(origin, behaviour, details, reviews);
            builder.add_service(ProductPageServer::new(service))
        }
    })
}

/// Obeys each line of standard input and answers it with one line of JSON.
async fn take_orders(server: &MeshServer, behaviour: &Behaviour, mesh: &Mesh) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match line.parse::<Order>() {
            Ok(Order::Drain) => {
                println!("{}", serde_json::json!({"draining": true}));
                server.drain().await;
                // The serving future ends by itself once the last call has; wait for it.
                return std::future::pending().await;
            }
            Ok(Order::Stats) => {
                let mut stats = behaviour.stats();
                stats["mesh"] = serde_json::to_value(mesh.status()).unwrap_or_default();
                let server = server.status();
                stats["server"] = serde_json::json!({
                    "refused_connections": server.refused_connections,
                    "denied_requests": server.denied_requests,
                });
                stats
            }
            Ok(order) => behaviour.obey(order),
            Err(reason) => serde_json::json!({"error": reason}),
        };
        println!("{answer}");
    }
}

/// How long the page waits for the reviews, each of two times.
pub(crate) fn productpage_timeout() -> std::time::Duration {
    productpage::REVIEWS_TIMEOUT
}

/// The header that Bookinfo's front end passes on, so that the mesh can route by it.
const END_USER: &str = "end-user";

/// A request to the next service on behalf of `incoming`, with the headers that travel along.
fn onward<T, U>(incoming: &Request<T>, message: U) -> Request<U> {
    let mut request = Request::new(message);
    if let Some(user) = incoming.metadata().get(END_USER) {
        request.metadata_mut().insert(END_USER, user.clone());
    }
    request
}
