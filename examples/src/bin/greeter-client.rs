//! The smallest client of a mesh: joins, calls, prints.

use mesh_client::Mesh;
use mesh_examples::greeter::{HelloRequest, greeter_client::GreeterClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mesh = Mesh::from_env()?;
    let mut client = GreeterClient::new(mesh.channel("xds:///greeter:50051")?);
    let reply = client.say_hello(HelloRequest { name: "mesh".into() }).await?;
    println!("{}", reply.into_inner().message);
    Ok(())
}
