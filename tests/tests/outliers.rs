//! What a DestinationRule says of outliers, from its YAML to the calls.

use super::joining::{control_plane, hello, loopback, mesh};
use mesh_client::Mesh;
use mesh_examples::greeter::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use std::path::Path;
use tempfile::TempDir;
use tonic::{Code, Request, Response, Status, transport::Server};

/// Answers with this status, if it is one of a failure.
struct Fails(Code);

#[tonic::async_trait]
impl Greeter for Fails {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        match self.0 {
            Code::Ok => Ok(Response::new(HelloReply::default())),
            code => Err(Status::new(code, "busy")),
        }
    }
}

async fn serve(mesh: &Mesh, answer: Code) {
    let server = mesh.server(loopback()).await.unwrap();
    let router = Server::builder().layer(server.layer()).add_service(GreeterServer::new(Fails(answer)));
    tokio::spawn(router.serve_with_incoming_shutdown(server.incoming(), server.drained()));
    server.registered().await.unwrap();
}

/// How many of 200 calls fail where one of two servers is out of resources and the rule says this of errors.
async fn failed(dir: &Path, codes: &str) -> usize {
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: greeter}}\nspec:\n  host: greeter\n  \
         trafficPolicy:\n    loadBalancer: {{simple: ROUND_ROBIN}}\n    outlierDetection: {{consecutive5xxErrors: 3, \
         maxEjectionPercent: 100{codes}}}\n"
    );
    std::fs::write(dir.join("rule.yaml"), rule).unwrap();
    let running = control_plane(dir, loopback()).await;
    let xds = running.addresses().xds_plaintext.unwrap();
    let (busy, well) = (mesh(xds, "busy", "greeter"), mesh(xds, "well", "greeter"));
    serve(&busy, Code::ResourceExhausted).await;
    serve(&well, Code::Ok).await;
    let client = mesh(xds, "caller", "caller");
    let mut greeter = GreeterClient::new(client.channel("greeter:50051").unwrap());
    let mut failed = 0;
    for _ in 0..200 {
        if let Err(status) = greeter.say_hello(hello()).await {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            failed += 1;
        }
    }
    running.shutdown().await;
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_ejected_for_the_codes_that_a_rule_takes_for_errors() {
    let dir = TempDir::new().unwrap();
    // In turn: 429, which the status maps to, is no 5xx. The second endpoint may come a few calls late.
    let without = failed(dir.path(), "").await;
    assert!(without >= 80, "{without} of 200 failed");
    // The ejection takes effect beside the calls: a few may come before it.
    let with = failed(dir.path(), ", outlierDetectionHttpErrorCodes: [429]").await;
    assert!((3..=20).contains(&with), "{with} of 200 failed");
}
