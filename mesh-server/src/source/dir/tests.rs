//! A real directory, real events.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 1}}]}}\n")
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.config.services().map(|service| service.origin.id.name.clone()).collect()
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, text).expect("a file");
    }
    dir
}

async fn until(
    loaded: &mut watch::Receiver<Arc<Loaded>>,
    done: impl FnMut(&Arc<Loaded>) -> bool,
) -> Arc<Loaded> {
    let waited = timeout(Duration::from_secs(20), loaded.wait_for(done)).await;
    waited.expect("the change is seen").expect("the source lives").clone()
}

#[test]
fn a_directory_is_read_recursively_and_dotfiles_are_not() {
    let dir = directory(&[
        ("a.yaml", &service("a")),
        ("deep/er/b.yml", &service("b")),
        (".hidden.yaml", &service("c")),
        ("..data/d.yaml", &service("d")),
        ("readme.md", "not yaml: ["),
    ]);
    let loaded = load(dir.path(), Arc::default()).expect("loaded");
    assert_eq!(names(&loaded), ["a", "b"]);
    assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
    let service = loaded.config.services().nth(1).expect("b").clone();
    assert_eq!(
        service.origin.place().to_string(),
        "deep/er/b.yml:3:18",
        "paths are shown from the directory"
    );
}

#[test]
fn a_directory_that_is_not_there_is_an_error_that_names_it() {
    let dir = directory(&[]);
    let missing = dir.path().join("missing");
    let error = load(&missing, Arc::default()).expect_err("missing");
    assert!(error.to_string().contains("missing cannot be read"), "{error}");
}

#[test]
#[cfg(unix)]
fn a_mounted_config_map_is_followed_and_circles_end() {
    let dir = directory(&[("..v1/a.yaml", &service("a"))]);
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.path().join(name)).expect("a link");
    link("..v1", "..data");
    link("..data/a.yaml", "a.yaml");
    link(".", "circle");
    link("nowhere.yaml", "dangling.yaml");
    assert_eq!(names(&load(dir.path(), Arc::default()).expect("loaded")), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_seen_and_published() {
    let dir = directory(&[("a.yaml", &service("a"))]);
    let source = Directory::watch(dir.path(), Arc::default()).expect("watching");
    let mut loaded = source.loaded();
    assert_eq!(names(&loaded.borrow_and_update()), ["a"]);
    let first = loaded.borrow().revision.clone();

    fs::write(dir.path().join("b.yaml"), service("b")).expect("a file");
    let seen = until(&mut loaded, |loaded| names(loaded).len() == 2).await;
    assert_ne!(seen.revision, first);

    fs::write(dir.path().join("b.yaml"), "{").expect("a broken file");
    let seen = until(&mut loaded, |loaded| !loaded.findings.is_empty()).await;
    assert_eq!(names(&seen), ["a", "b"], "the last good one is kept");

    fs::remove_file(dir.path().join("b.yaml")).expect("removed");
    until(&mut loaded, |loaded| names(loaded) == ["a"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_everything_waits_for_a_confirmation() {
    let dir = directory(&[("a.yaml", &service("a"))]);
    let source = Directory::watch(dir.path(), Arc::default()).expect("watching");
    let mut loaded = source.loaded();
    fs::remove_file(dir.path().join("a.yaml")).expect("removed");
    let held = until(&mut loaded, |loaded| !loaded.findings.is_empty()).await;
    assert_eq!(names(&held), ["a"]);
    source.confirm_deletion();
    until(&mut loaded, |loaded| names(loaded).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(unix)]
async fn swapping_the_link_of_a_config_map_is_one_change() {
    let dir = directory(&[("..v1/a.yaml", &service("a")), ("..v2/a.yaml", &service("b"))]);
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.path().join(name)).expect("a link");
    link("..v1", "..data");
    link("..data/a.yaml", "a.yaml");
    let source = Directory::watch(dir.path(), Arc::default()).expect("watching");
    let mut loaded = source.loaded();
    link("..v2", "..next");
    fs::rename(dir.path().join("..next"), dir.path().join("..data")).expect("swapped");
    let seen = until(&mut loaded, |loaded| names(loaded) != ["a"]).await;
    assert_eq!(names(&seen), ["b"]);
}

#[tokio::test]
async fn dropping_the_source_ends_its_watch() {
    let dir = directory(&[("a.yaml", &service("a"))]);
    let source = Directory::watch(dir.path(), Arc::default()).expect("watching");
    let mut loaded = source.loaded();
    drop(source);
    let ended = timeout(Duration::from_secs(20), async { while loaded.changed().await.is_ok() {} }).await;
    assert!(ended.is_ok(), "the task is gone");
}
