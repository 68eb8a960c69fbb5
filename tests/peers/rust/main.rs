//! Bookinfo's `reviews` on our own `mesh-client`, as caller and as server, for the peers to meet.
//!
//! ```text
//! mesh-peer call TARGET [ADDRESS]   as client.py: `call COUNT [name=value ...]` is answered with one line of JSON;
//!                                   its status (CSDS) is served at ADDRESS
//! mesh-peer serve ADDRESS INSTANCE  serves until its standard input ends, or says `drain`
//! mesh-peer control ADDRESS         serves ADS: see `control_plane.rs`
//! ```
//!
//! The first two are configured by `GRPC_XDS_BOOTSTRAP`; all print `ready`.

mod control_plane;

use mesh_client::{Mesh, MeshChannel};
use mesh_examples::bookinfo::{
    Origin, ProductRequest, ReviewsReply,
    reviews_client::ReviewsClient,
    reviews_server::{Reviews, ReviewsServer},
};
use std::{collections::BTreeMap, error::Error, io, net::SocketAddr, process::ExitCode, time::Duration};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Response, Status,
    metadata::{MetadataKey, MetadataMap},
    transport::Server,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match args.as_slice() {
                ["call", target] => call(target, None).await,
                ["call", target, status] => call(target, Some(status.parse()?)).await,
                ["serve", address, instance] => serve(address, instance).await,
                ["control", address] => control_plane::run(address).await,
                _ => Err("call TARGET, serve ADDRESS INSTANCE, or control ADDRESS".into()),
            }
        })
    });
    if let Err(error) = outcome {
        eprintln!("mesh-peer: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn call(target: &str, status: Option<SocketAddr>) -> Outcome {
    let mesh = Mesh::from_env()?;
    if let Some(status) = status {
        let incoming = TcpListenerStream::new(TcpListener::bind(status).await?);
        // Ends with the process.
        tokio::spawn(Server::builder().add_service(mesh.csds()).serve_with_incoming(incoming));
    }
    let mut client = ReviewsClient::new(mesh.channel(target)?);
    println!("ready");
    for line in io::stdin().lines() {
        let line = line?;
        let mut words = line.split(' ').skip(1);
        let count: u32 = words.next().unwrap_or_default().parse()?;
        let mut headers = MetadataMap::new();
        for (name, value) in words.filter_map(|header| header.split_once('=')) {
            headers.insert(MetadataKey::from_bytes(name.as_bytes())?, value.parse()?);
        }
        println!("{}", tally(&mut client, count, &headers).await);
    }
    Ok(())
}

async fn tally(
    client: &mut ReviewsClient<MeshChannel>,
    count: u32,
    headers: &MetadataMap,
) -> serde_json::Value {
    let (mut answers, mut errors) = (BTreeMap::<_, u32>::new(), BTreeMap::<_, u32>::new());
    for _ in 0..count {
        let mut request = Request::new(ProductRequest { product: "0".to_owned() });
        *request.metadata_mut() = headers.clone();
        request.set_timeout(Duration::from_secs(10));
        match client.get_reviews(request).await {
            Ok(reply) => {
                *answers.entry(reply.into_inner().origin.unwrap_or_default().instance).or_default() += 1;
            }
            Err(status) => {
                *errors.entry(format!("{}: {}", name(status.code()), status.message())).or_default() += 1;
            }
        }
    }
    serde_json::json!({"answers": answers, "errors": errors})
}

/// `PermissionDenied` as every other gRPC writes it: `PERMISSION_DENIED`.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

async fn serve(address: &str, instance: &str) -> Outcome {
    let mesh = Mesh::from_env()?;
    let server = mesh.server(address.parse()?).await?;
    let serving = Server::builder()
        .layer(server.layer())
        .add_service(ReviewsServer::new(Replica { instance: instance.to_owned() }))
        .serve_with_incoming_shutdown(server.incoming(), server.drained());
    println!("ready");
    let mut orders = orders();
    let told = async {
        match orders.recv().await {
            Some(order) if order == "drain" => {
                server.drain().await;
                // `serving` ends when the last call has.
                std::future::pending().await
            }
            Some(order) => Err(format!("{order:?} is no order").into()),
            None => Ok(()),
        }
    };
    tokio::select! {
        served = serving => Ok(served?),
        told = told => told,
    }
}

/// The lines of standard input.
fn orders() -> tokio::sync::mpsc::Receiver<String> {
    let (sender, orders) = tokio::sync::mpsc::channel(1);
    // Reading blocks until the end of the process; a task of the runtime would keep it from ending.
    std::thread::spawn(move || {
        io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.blocking_send(line))
    });
    orders
}

struct Replica {
    instance: String,
}

#[tonic::async_trait]
impl Reviews for Replica {
    async fn get_reviews(&self, _request: Request<ProductRequest>) -> Result<Response<ReviewsReply>, Status> {
        let origin =
            Origin { service: "reviews".into(), version: "rust".into(), instance: self.instance.clone() };
        Ok(Response::new(ReviewsReply { origin: Some(origin), ..ReviewsReply::default() }))
    }
}
