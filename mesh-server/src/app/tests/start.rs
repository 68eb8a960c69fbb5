//! What prevents a start, and how it is said.

use super::*;

async fn refused(settings: Settings) -> String {
    match App::start(settings).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_option() {
    let dir = config(SERVICE);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let text = refused(Settings { xds_plaintext: Some(address), ..dev(&dir) }).await;
    assert!(text.contains(&format!("cannot listen on {address} (--xds-plaintext)")), "{text}");
    assert!(text.contains("choose another port"), "{text}");
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let dir = config(SERVICE);
    let missing = dir.path().join("missing");
    let text = refused(Settings { config: missing.clone(), ..dev(&dir) }).await;
    assert!(text.contains(&missing.display().to_string()) && text.contains("--config"), "{text}");
}

#[tokio::test]
async fn a_data_directory_of_another_trust_domain_is_not_touched() {
    let (dir, data) = (config(SERVICE), tempfile::tempdir().unwrap());
    App::start(run(&dir, &data)).await.unwrap().shutdown().await;
    let other = Settings { trust_domain: TrustDomain::parse("other.test").unwrap(), ..run(&dir, &data) };
    let text = refused(other).await;
    assert!(text.contains("cluster.local, not other.test"), "{text}");
    App::start(run(&dir, &data)).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_directory_with_nothing_good_in_it_is_no_start_and_one_with_something_is() {
    let bad = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec: {portz: []}\n";
    let dir = config(bad);
    let text = refused(dev(&dir)).await;
    assert!(text.contains("portz") && text.contains("mesh.yaml:4"), "{text}");
    std::fs::write(dir.path().join("good.yaml"), SERVICE.replace("reviews", "ratings")).unwrap();
    let running = App::start(dev(&dir)).await.unwrap();
    assert!(!running.publisher().current().findings.is_empty());
    running.shutdown().await;
}

#[tokio::test]
async fn an_empty_directory_is_waited_with() {
    let dir = tempfile::tempdir().unwrap();
    App::start(dev(&dir)).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_file_that_may_be_a_policy_is_no_start() {
    let dir = config(SERVICE);
    std::fs::write(dir.path().join("policy.yaml"), "kind: AuthorizationPolicy\nspec: {rules: [").unwrap();
    let text = refused(dev(&dir)).await;
    assert!(text.contains("a security policy may be missing") && text.contains("policy.yaml:2"), "{text}");
    std::fs::remove_file(dir.path().join("policy.yaml")).unwrap();
    App::start(dev(&dir)).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn peers_that_say_nothing_do_not_hold_up_the_end() {
    let (dir, data) = (config(SERVICE), tempfile::tempdir().unwrap());
    let running = App::start(run(&dir, &data)).await.unwrap();
    let ports = running.addresses();
    let mut silent = Vec::new();
    for address in [ports.xds, ports.xds_plaintext, ports.http].into_iter().flatten() {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(silent.len(), 3);
    // Taken by then; what is not is closed with its port.
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    running.shutdown().await;
    assert!(begun.elapsed() < SHUTDOWN, "{:?}", begun.elapsed());
}
