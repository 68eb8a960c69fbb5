//! `proxyProtocol` of a DestinationRule: our client and an Envoy say the header, an Envoy in front of the server reads it,
//! and clients that have no such thing are told so.

use crate::interop::{
    Lab, Outcome,
    control_plane::{ControlPlane, Member, Security},
    front::Front,
    peer::{Ads, Client, Envoy, Grpc, Server, Target},
    report::Report,
    yaml,
};

const CALLS: u32 = 100;

pub(super) fn run(lab: &Lab, report: &mut Report) -> Outcome {
    let server = Server::plain(lab, "v1")?;
    let dir = tempfile::tempdir()?;
    let mut front = Front::start(lab, dir.path(), server.port)?;
    let reached = |port: u16, version: &str| {
        yaml::service("reviews")
            + &yaml::slice("reviews-v1", "v1", port)
            + &yaml::proxy_protocol("reviews", version)
    };
    let control_plane = ControlPlane::start(lab, &[("reviews.yaml", reached(front.v1, "V1"))])?;
    let bootstrap =
        |grpc: Grpc, security| control_plane.bootstrap(&Member { name: grpc.name(), labels: &[] }, &security);
    let target = Target::Xds("reviews:9080");
    let ours = bootstrap(Grpc::Mesh, Security::Token)?;
    let mut client = Client::start(lab, Grpc::Mesh.name(), Grpc::Mesh, &target, Some(&ours))?;
    report.check("version 1 is read by an Envoy", client.call(CALLS, &[])?.exactly(&["v1"]));
    report.check("version 1 tells the client's address", front.told_the_truth("v1"));

    control_plane.apply("reviews.yaml", &reached(front.v2, "V2"))?;
    report.check("version 2 tells the client's address", front.told_the_truth("v2"));
    report.check("version 2 is read by an Envoy", client.call(CALLS, &[])?.exactly(&["v1"]));
    report.check("nothing rejected by ours", control_plane.acknowledged(Grpc::Mesh.name()));

    let core = bootstrap(Grpc::Core, Security::None)?;
    let mut client = Client::start(lab, Grpc::Core.name(), Grpc::Core, &target, Some(&core))?;
    report.check(
        "a C-core client is told that it cannot",
        client.call(CALLS / 10, &[])?.refused_with("UNAVAILABLE"),
    );
    report.check("nothing rejected by C-core", control_plane.acknowledged(Grpc::Core.name()));

    let certificate = control_plane.certificate("envoy")?;
    let xds = control_plane.xds_plaintext;
    let envoy = Envoy::start(lab, Ads::Delta, control_plane.dir(), xds, &certificate)?;
    let through = Target::Port(envoy.proxy_port, "reviews:9080");
    let mut client = Client::start(lab, "client-of-envoy", Grpc::Core, &through, None)?;
    client.until("an answer through an Envoy that says the header", |batch| batch.is_from(&["v1"]))?;
    report.check("an Envoy says the header", client.call(CALLS, &[])?.exactly(&["v1"]));
    report.check("nothing rejected by the Envoy", control_plane.acknowledged("envoy"));
    Ok(())
}
