//! Files that somebody replaces, in good and in bad order.

use super::*;
use crate::testing::{Ca, Issued, Leaf};
use std::fs;

struct Files {
    directory: tempfile::TempDir,
    ca: Ca,
}

impl Files {
    fn new() -> (Self, FileSource) {
        let files = Self { directory: tempfile::tempdir().unwrap(), ca: Ca::new("root") };
        fs::write(files.path("ca.pem"), files.ca.pem()).unwrap();
        let source = FileSource::new(files.path("cert.pem"), files.path("key.pem"), files.path("ca.pem"));
        (files, source)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn leaf(&self, id: &str) -> Issued {
        Leaf::new(id).issue_by(&self.ca)
    }

    fn put_certificate(&self, leaf: &Issued) {
        fs::write(self.path("cert.pem"), &leaf.chain_pem).unwrap();
    }

    fn put_key(&self, leaf: &Issued) {
        fs::write(self.path("key.pem"), leaf.key.to_pem().as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let (_files, mut source) = Files::new();
    let error = source.fetch(None).await.unwrap_err();
    assert!(matches!(&error, SourceError::Unavailable(text) if text.contains("cert.pem")), "{error}");
}

#[tokio::test]
async fn unchanged_files_give_the_same_identity_and_changed_ones_another() {
    let (files, mut source) = Files::new();
    let (first, second) = (files.leaf("spiffe://td/a"), files.leaf("spiffe://td/b"));
    files.put_certificate(&first);
    files.put_key(&first);
    let held = source.fetch(None).await.unwrap();
    assert_eq!(held.id().as_str(), "spiffe://td/a");
    assert!(Arc::ptr_eq(&source.fetch(Some(&held)).await.unwrap(), &held));

    files.put_certificate(&second);
    files.put_key(&second);
    let next = source.fetch(Some(&held)).await.unwrap();
    assert_eq!(next.id().as_str(), "spiffe://td/b");
}

#[tokio::test]
async fn a_certificate_without_its_key_is_not_believed_until_the_key_arrives() {
    let (files, mut source) = Files::new();
    let (first, second) = (files.leaf("spiffe://td/a"), files.leaf("spiffe://td/b"));
    files.put_certificate(&first);
    files.put_key(&first);
    let held = source.fetch(None).await.unwrap();

    files.put_certificate(&second);
    let error = source.fetch(Some(&held)).await.unwrap_err();
    assert!(matches!(&error, SourceError::Invalid(text) if text.contains("key.pem")), "{error}");
    files.put_key(&second);
    assert_eq!(source.fetch(Some(&held)).await.unwrap().id().as_str(), "spiffe://td/b");
}

#[tokio::test]
async fn a_half_written_file_is_not_believed_and_says_which_it_was() {
    let (files, mut source) = Files::new();
    let leaf = files.leaf("spiffe://td/a");
    files.put_key(&leaf);
    fs::write(files.path("cert.pem"), &leaf.chain_pem[..100]).unwrap();
    let error = source.fetch(None).await.unwrap_err();
    assert!(error.to_string().contains("cert.pem"), "{error}");

    files.put_certificate(&leaf);
    fs::write(files.path("ca.pem"), "").unwrap();
    let error = source.fetch(None).await.unwrap_err();
    assert!(error.to_string().contains("ca.pem"), "{error}");
}

#[tokio::test]
async fn new_roots_alone_make_a_new_identity() {
    let (files, mut source) = Files::new();
    let leaf = files.leaf("spiffe://td/a");
    files.put_certificate(&leaf);
    files.put_key(&leaf);
    let held = source.fetch(None).await.unwrap();
    fs::write(files.path("ca.pem"), format!("{}{}", files.ca.pem(), Ca::new("next").pem())).unwrap();
    let next = source.fetch(Some(&held)).await.unwrap();
    let roots = |identity: &Identity| {
        let domain = identity.id().trust_domain().clone();
        identity.bundles().roots(&domain).unwrap().certificates().len()
    };
    assert_eq!((roots(&held), roots(&next)), (1, 2));
}

#[tokio::test]
async fn a_bundle_map_gives_the_roots_of_several_domains_and_a_broken_one_changes_nothing() {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let (files, _) = Files::new();
    let map = RootsFile::SpiffeBundleMap(files.path("map.json"));
    let mut source = FileSource::with_roots(files.path("cert.pem"), files.path("key.pem"), map);
    let leaf = files.leaf("spiffe://td/a");
    files.put_certificate(&leaf);
    files.put_key(&leaf);
    let keys = |ca: &Ca| serde_json::json!({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [BASE64_STANDARD.encode(&ca.der)]}]});
    let put = |domains: serde_json::Value| {
        let map = serde_json::json!({"trust_domains": domains});
        fs::write(files.path("map.json"), map.to_string()).unwrap();
    };
    let other = Ca::new("other");
    put(serde_json::json!({"td": keys(&files.ca), "partner": keys(&other)}));
    let held = source.fetch(None).await.unwrap();
    let known: Vec<_> = held.bundles().trust_domains().map(|domain| domain.as_str().to_owned()).collect();
    assert_eq!(known, ["partner", "td"]);

    put(serde_json::json!({"partner": keys(&other)}));
    let error = source.fetch(Some(&held)).await.unwrap_err().to_string();
    assert!(error.contains("map.json") && error.contains("own trust domain td"), "{error}");
    fs::write(files.path("map.json"), "{").unwrap();
    let error = source.fetch(Some(&held)).await.unwrap_err();
    assert!(matches!(&error, SourceError::Invalid(text) if text.contains("map.json")), "{error}");
}
