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
fn connections_have_an_age_and_a_number_and_streams_a_weight() {
    let of = |args: &[&str]| {
        let settings = settings(&[&["run", "--config=c"], args].concat());
        (settings.max_connection_age.map(|age| age.as_secs()), settings.max_connections)
    };
    assert_eq!(of(&[]), (Some(1800), None));
    assert_eq!(of(&["--max-connection-age=90s", "--max-connections=7"]), (Some(90), Some(7)));
    assert_eq!(of(&["--max-connection-age=none"]), (None, None));
    let settings = settings(&["run", "--config=c", "--max-kept-bytes=8", "--max-unsent-bytes=9"]);
    assert_eq!((settings.max_kept_bytes, settings.max_unsent_bytes), (Some(8), Some(9)));
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

#[tokio::test]
async fn development_shows_how_to_call_a_service_that_there_is() {
    let steps = |yaml: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), yaml).unwrap();
        let settings =
            crate::model::MeshSettings { domain: "cluster.local".into(), root_namespace: "root".into() };
        let directory = crate::source::Directory::watch(dir.path(), Arc::new(settings)).unwrap();
        let config = directory.loaded().borrow().config.clone();
        first_steps(&config, SocketAddr::from(([127, 0, 0, 1], 15010)), Path::new("/b.json"))
    };
    let greeter = steps(EXAMPLE);
    for line in [
        "    let channel = mesh.channel(\"xds:///greeter:50051\")?;\n    let mut client = GreeterClient::new(channel);\n",
        "    export GRPC_XDS_BOOTSTRAP=/b.json\n",
        "--server 127.0.0.1:15010 --workload greeter --label app=greeter > greeter.json\n",
    ] {
        assert!(greeter.contains(line), "{greeter}");
    }
    let elsewhere = steps(
        "
apiVersion: v1
kind: Service
metadata: {name: product-page, namespace: shop}
spec:
  selector: {app: page, tier: front}
  ports: [{name: http, port: 80}, {name: grpc, port: 9080}]
",
    );
    for line in [
        "xds:///product-page.shop.svc.cluster.local:9080\"",
        "ProductPageClient::new",
        "--workload product-page --namespace shop --label app=page --label tier=front > product-page.json\n",
    ] {
        assert!(elsewhere.contains(line), "{elsewhere}");
    }
    let nothing = steps("");
    assert!(nothing.contains("no service yet") && !nothing.contains("Client::new"), "{nothing}");
}
