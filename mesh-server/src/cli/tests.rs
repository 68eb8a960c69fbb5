//! Arguments to settings.

use super::*;

fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("mesh-server").chain(args.iter().copied()))
}

fn settings(args: &[&str]) -> Settings {
    match parse(args).unwrap().command {
        Command::Run(run) => run.settings(),
        Command::Dev(_) => panic!("not `run`"),
    }
}

#[test]
fn the_defaults_are_istios_ports_on_loopback() {
    let settings = settings(&["run", "--config", "c"]);
    let port =
        |address: Option<SocketAddr>| address.map(|address| (address.ip().is_loopback(), address.port()));
    assert_eq!(port(settings.xds), Some((true, 15012)));
    assert_eq!(port(settings.xds_plaintext), Some((true, 15010)));
    assert_eq!(port(settings.http), Some((true, 15014)));
    assert_eq!(settings.data, Some("mesh-data".into()));
    assert!(!settings.believe_loopback);
}

#[test]
fn the_plaintext_port_can_be_closed_and_lifetimes_set() {
    let settings =
        settings(&["run", "--config=c", "--xds-plaintext=none", "--cert-ttl=3s", "--name=mesh.example.com"]);
    assert_eq!((settings.xds_plaintext, settings.certificate_lifetime), (None, Duration::from_secs(3)));
    assert_eq!(settings.server_names, ["mesh.example.com"]);
}

#[test]
fn what_is_not_an_option_is_explained() {
    for (args, said) in [
        (&["run"][..], "--config"),
        (&["run", "--config=c", "--xds=here"], "--xds"),
        (&["run", "--config=c", "--xds-plaintext=nope"], "`ip:port` or `none`"),
        (&["run", "--config=c", "--cert-ttl=soon"], "such as 24h"),
        (&["run", "--config=c", "--trust-domain=Not/One"], "--trust-domain"),
    ] {
        let text = parse(args).unwrap_err().to_string();
        assert!(text.contains(said), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn development_stays_on_loopback() {
    let Command::Dev(dev) = parse(&["dev", "--xds=0.0.0.0:0"]).unwrap().command else { panic!("not `dev`") };
    let text = dev.serve().await.unwrap_err();
    assert!(text.contains("loopback only") && text.contains("mesh-server run"), "{text}");
}
