//! The smallest server of a mesh: a tonic program with three more lines, marked `mesh`.

use mesh_client::Mesh;
use mesh_examples::greeter::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};
use tonic::{Request, Response, Status, transport::Server};

struct MyGreeter;

#[tonic::async_trait]
impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: format!("Hello {}!", request.into_inner().name) }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Mesh::from_env()?.server("127.0.0.1:0".parse()?).await?; // mesh
    println!("listening {}", server.local_addr());
    Server::builder()
        .layer(server.layer()) // mesh
        .add_service(GreeterServer::new(MyGreeter))
        .serve_with_incoming_shutdown(server.incoming(), server.drained()) // mesh, instead of `serve`
        .await?;
    Ok(())
}
