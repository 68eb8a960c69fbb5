//! A real Envoy that gets listeners, routes, clusters and endpoints over ADS and proxies gRPC calls of a
//! client which knows no mesh.

use super::clients::Reviews;
use crate::interop::{
    Lab, Outcome,
    control_plane::{Member, Security},
    peer::{Ads, Client, Envoy, Grpc, Server, Target},
    ports,
    report::Report,
    yaml,
};

pub(super) fn state_of_the_world(lab: &Lab, report: &mut Report) -> Outcome {
    run(lab, report, Ads::StateOfTheWorld)
}

/// The only peer that speaks the incremental variant.
pub(super) fn delta(lab: &Lab, report: &mut Report) -> Outcome {
    run(lab, report, Ads::Delta)
}

fn run(lab: &Lab, report: &mut Report, ads: Ads) -> Outcome {
    let reviews = Reviews::start(lab)?;
    let control_plane = &reviews.control_plane;
    let certificate = control_plane.certificate("envoy")?;
    let envoy = Envoy::start(lab, ads, control_plane.dir(), control_plane.xds_plaintext, &certificate)?;
    let through = |name: &str, authority: &str| {
        Client::start(lab, name, Grpc::Core, &Target::Port(envoy.proxy_port, authority), None)
    };
    let mut client = through("client", "reviews:9080")?;
    client.until("an answer", |batch| batch.is_from(&["v1", "v2"]))?;
    reviews.followed_by(&mut client, "envoy", report)?;

    let port = ports::free()?;
    let member = Member { name: "guarded", labels: &[("app", "guarded")] };
    let bootstrap = control_plane.bootstrap(&member, &Security::Files)?;
    let guarded = yaml::service("guarded")
        + &yaml::workload("guarded", "guarded", port)
        + &yaml::mtls("guarded", "STRICT")
        + &yaml::only("guarded", "envoy");
    control_plane.apply("guarded.yaml", &guarded)?;
    let _server = Server::xds(lab, "guarded", port, &bootstrap)?;
    let mut client = through("client-of-guarded", "guarded:9080")?;
    client.until("an answer over mTLS", |batch| batch.is_from(&["guarded"]))?;
    report
        .check("mTLS to a C-core server that lets only it in", client.call(100, &[])?.exactly(&["guarded"]));
    report.check("nothing rejected", control_plane.acknowledged("envoy"));
    Ok(())
}
