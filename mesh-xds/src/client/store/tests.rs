//! What is written is read again; anything else is ignored.

use super::{
    file::{encode, seal},
    *,
};
use crate::{
    client::{authority::Accepted, machine::Parse, testing::Toy},
    name::ResourceType::{self, Cluster as CDS, Listener as LDS},
};
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// A directory of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mesh-xds-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        drop(fs::remove_dir_all(&path));
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

const NOW: f64 = 1_000_000.0;
const DAY: f64 = 86_400.0;

fn owner() -> Owner {
    Owner { node: "me".into(), servers: vec!["a:1".into(), "b:1".into()] }
}

fn record(value: &str, confirmed: f64) -> Record {
    Record {
        version: "v".into(),
        body: Bytes::copy_from_slice(value.as_bytes()),
        server: "a:1".into(),
        confirmed,
    }
}

fn records(entries: &[(ResourceType, &str, f64)]) -> BTreeMap<Key, Record> {
    let one = |(kind, body, confirmed): &(ResourceType, &str, f64)| {
        let name = body.split('=').next().unwrap();
        ((*kind, name.into()), record(body, *confirmed))
    };
    entries.iter().map(one).collect()
}

/// What is read, as text.
fn read(settings: &CacheSettings, owner: &Owner) -> Vec<String> {
    let stored = load(settings, owner, NOW, |kind, body, _| Toy.parse(kind, body));
    let show = |((kind, name), kept): (&Key, &Kept<Arc<str>>)| {
        format!("{} {name}={} {} {}", kind.abbreviation(), kept.resource, kept.version, kept.server)
    };
    stored.entries.iter().map(show).collect()
}

/// Beside the lock.
fn only_file(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_none_or(|end| end != "lock")).collect();
    let [one] = files.try_into().unwrap();
    one
}

/// What control planes said, when they said it.
fn news(records: &BTreeMap<Key, Record>) -> News {
    let mut news = News::default();
    for (key, record) in records {
        news.say(key.clone(), record.server.clone(), record.confirmed, Some(record.clone()));
    }
    news
}

/// As a process that is told these and nothing else.
fn write(settings: &CacheSettings, records: &BTreeMap<Key, Record>) -> std::io::Result<()> {
    file::update(settings, &owner(), &news(records), NOW).map(drop)
}

#[test]
fn what_is_written_is_read_by_the_same_node_of_the_same_control_planes_only() {
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    assert!(read(&settings, &owner()).is_empty(), "nothing there is nothing wrong");
    write(&settings, &records(&[(LDS, "l=1", NOW - 5.0), (CDS, "c=2", NOW)])).unwrap();
    assert_eq!(read(&settings, &owner()), ["CDS c=2 v a:1", "LDS l=1 v a:1"]);
    write(&settings, &records(&[(LDS, "l=3", NOW - 5.0)])).unwrap();
    assert_eq!(read(&settings, &owner()), ["CDS c=2 v a:1", "LDS l=3 v a:1"], "what others wrote stays");
    let stored = load(&settings, &owner(), NOW, |kind, body, _| Toy.parse(kind, body));
    let path = only_file(&dir.0);
    assert_eq!(
        stored.describe(),
        format!("the last known good one from {}, up to 5 s old when this process began", path.display())
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Another node has another file; even under its name the content is not taken.
    let other = Owner { node: "other".into(), ..owner() };
    assert!(read(&settings, &other).is_empty());
    fs::copy(&path, other.path(&dir.0)).unwrap();
    assert!(read(&settings, &other).is_empty());
    assert!(read(&settings, &Owner { servers: vec!["a:1".into()], ..owner() }).is_empty());
}

#[test]
fn a_file_that_is_not_whole_is_ignored_wherever_it_is_cut_or_changed() {
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    let good = encode(&owner(), &records(&[(LDS, "l=1", NOW)]));
    fs::create_dir_all(&dir.0).unwrap();
    let path = owner().path(&dir.0);
    fs::write(&path, &good).unwrap();
    assert_eq!(read(&settings, &owner()).len(), 1);
    for cut in 0..good.len() {
        fs::write(&path, &good[..cut]).unwrap();
        assert!(read(&settings, &owner()).is_empty(), "cut after {cut} bytes");
    }
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert!(read(&settings, &owner()).is_empty(), "byte {place} is changed");
    }
    let newer = String::from_utf8_lossy(&good).replacen("format 1", "format 2", 1);
    fs::write(&path, newer.as_bytes()).unwrap();
    assert!(read(&settings, &owner()).is_empty());
    fs::write(&path, vec![b'x'; 200]).unwrap();
    assert!(read(&settings, &owner()).is_empty());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(read(&settings, &owner()).is_empty(), "a directory is no file");
}

#[test]
fn what_is_too_old_or_of_the_future_or_bad_is_left_out_and_its_neighbours_are_not() {
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    let mut all = records(&[
        (LDS, "fresh=1", NOW),
        (LDS, "aged=1", NOW - DAY + 1.0),
        (LDS, "old=1", NOW - DAY - 1.0),
        (LDS, "future=1", NOW + 61.0),
        (LDS, "never=1", f64::NAN),
        (CDS, "c=bad", NOW),
        (CDS, "d=panic", NOW),
    ]);
    all.insert((CDS, "another".into()), record("c=1", NOW));
    write(&settings, &all).unwrap();
    assert_eq!(read(&settings, &owner()), ["LDS aged=1 v a:1", "LDS fresh=1 v a:1"]);
}

#[test]
fn a_file_over_the_limit_is_neither_written_nor_read() {
    let dir = Dir::new();
    let settings = CacheSettings { max_bytes: 200, ..CacheSettings::new(&dir.0) };
    write(&settings, &records(&[(LDS, "l=1", NOW)])).unwrap();
    let large = format!("l={}", "x".repeat(200));
    let error = write(&settings, &records(&[(LDS, &large, NOW)])).unwrap_err().to_string();
    assert!(error.contains("more than the limit of 200"), "{error}");
    assert_eq!(read(&settings, &owner()).len(), 1, "what was there is untouched");
    assert!(read(&CacheSettings { max_bytes: 20, ..settings }, &owner()).is_empty());
}

fn accepted(name: &str, body: Option<&str>, is_open: bool) -> Accepted<Arc<str>> {
    Accepted {
        key: (LDS, name.into()),
        server: "a:1".into(),
        is_open,
        is_whole: true,
        good: body.map(|body| ("v".into(), Bytes::copy_from_slice(body.as_bytes()), body.into())),
    }
}

#[test]
fn what_is_kept_is_of_one_control_plane_until_another_has_spoken_of_everything() {
    let mut writer = Writer::new(CacheSettings::new("/nowhere"), owner(), BTreeMap::new());
    let said = |name, server: &str, is_whole, body| Accepted {
        server: server.into(),
        is_whole,
        ..accepted(name, Some(body), true)
    };
    let kept = |writer: &Writer| -> Vec<_> {
        writer.records.values().map(|record| String::from_utf8(record.body.to_vec()).unwrap()).collect()
    };
    // The first that speaks is learnt from at once.
    assert!(writer.learn(vec![said("l", "a:1", false, "l=a")], &Toy, NOW));
    assert!(writer.learn(vec![said("l", "a:1", true, "l=a"), said("m", "a:1", true, "m=a")], &Toy, NOW));
    assert!(!writer.learn(vec![said("l", "b:1", false, "l=b")], &Toy, NOW + 1.0), "of `m` it has not spoken");
    assert_eq!(kept(&writer), ["l=a", "m=a"]);
    assert!(
        writer.learn(vec![said("l", "b:1", true, "l=b")], &Toy, NOW + 2.0),
        "`m` is not watched any more"
    );
    assert_eq!(kept(&writer), ["l=b"]);
    // Of another authority another one may speak.
    let foreign = "xdstp://x/envoy.config.listener.v3.Listener/l";
    assert!(writer.learn(vec![said(foreign, "x:1", false, "l=x")], &Toy, NOW + 3.0));
    assert_eq!(kept(&writer), ["l=b", "l=x"]);
}

#[test]
fn what_is_learnt_is_confirmed_while_a_control_plane_stands_by_it() {
    let settings = CacheSettings::new("/nowhere");
    let mut writer = Writer::new(settings, owner(), records(&[(LDS, "gone=1", NOW)]));
    assert!(writer.learn(vec![accepted("l", Some("l=1"), true)], &Toy, NOW));
    assert!(!writer.learn(vec![accepted("l", Some("l=1"), true)], &Toy, NOW + 5.0), "it is no news");
    let confirmed = |writer: &Writer| writer.records[&(LDS, "l".into())].confirmed;
    assert_eq!(confirmed(&writer), NOW + 5.0);
    writer.learn(vec![accepted("l", Some("l=1"), false)], &Toy, NOW + 9.0);
    assert_eq!(confirmed(&writer), NOW + 5.0, "the control plane is away");
    assert!(writer.learn(vec![accepted("l", Some("l=2"), true)], &Toy, NOW + 10.0));
    // What is not watched now stays until it is old; what does not exist goes.
    assert!(writer.records.contains_key(&(LDS, "gone".into())));
    assert!(writer.learn(vec![accepted("gone", None, true)], &Toy, NOW + 11.0));
    assert!(writer.learn(vec![], &Toy, NOW + 11.0 + DAY));
    assert!(writer.records.is_empty());
}

#[tokio::test(start_paused = true)]
async fn changes_of_a_moment_become_one_write_and_the_end_writes_the_rest() {
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    let writer = Writer::new(settings.clone(), owner(), BTreeMap::new());
    let (news, heard) = tokio::sync::mpsc::channel(1);
    let looks = Arc::new(AtomicU32::new(0));
    let looked = looks.clone();
    let tell = move || {
        let body = format!("l={}", looked.fetch_add(1, Ordering::Relaxed));
        Some(vec![accepted("l", Some(&body), true)])
    };
    let keeper = tokio::spawn(keep(writer, heard, tell, Toy, || NOW));
    news.send(()).await.unwrap();
    // Waits until it is in its place.
    let path = owner().path(&dir.0);
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(looks.load(Ordering::Relaxed), 1);
    news.send(()).await.unwrap();
    drop(news);
    keeper.await.unwrap();
    let last = looks.load(Ordering::Relaxed) - 1;
    assert_eq!(read(&settings, &owner()), [format!("LDS l={last} v a:1")]);
    assert_eq!(only_file(&dir.0), path, "nothing is left beside it");
}

#[tokio::test(start_paused = true)]
async fn that_nothing_is_left_is_written_over_what_there_was() {
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    let writer = Writer::new(settings.clone(), owner(), BTreeMap::new());
    let (news, heard) = tokio::sync::mpsc::channel(1);
    let there = Arc::new(AtomicU32::new(1));
    let told = there.clone();
    let tell = move || {
        let body = (told.load(Ordering::Relaxed) == 1).then_some("l=1");
        Some(vec![accepted("l", body, true)])
    };
    let keeper = tokio::spawn(keep(writer, heard, tell, Toy, || NOW));
    news.send(()).await.unwrap();
    let path = owner().path(&dir.0);
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    there.store(0, Ordering::Relaxed);
    news.send(()).await.unwrap();
    drop(news);
    keeper.await.unwrap();
    assert!(read(&settings, &owner()).is_empty(), "what the control plane took away would come back");
}

#[test]
fn what_a_process_left_that_ended_while_it_wrote_is_removed_and_what_another_one_writes_is_not() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let [left, fresh, other] =
        ["xds-0123456789abcdef.7-00000001.tmp", "xds-0123456789abcdef.8-00000002.tmp", "notes.tmp"]
            .map(|name| dir.0.join(name));
    for (path, hours) in [(&left, 2), (&fresh, 0), (&other, 2)] {
        let file = fs::File::create(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    }
    write(&CacheSettings::new(&dir.0), &records(&[(LDS, "l=1", NOW)])).unwrap();
    assert_eq!([left, fresh, other].map(|path| path.exists()), [false, true, true]);
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_write_or_that_is_none_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    write(&settings, &records(&[(LDS, "l=1", NOW)])).unwrap();
    assert_eq!(read(&settings, &owner()).len(), 1);
    let path = owner().path(&dir.0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(read(&settings, &owner()).is_empty());
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    assert!(read(&settings, &owner()).is_empty());
}

#[cfg(unix)]
#[test]
fn nothing_is_read_from_or_written_to_a_directory_whose_files_others_may_rename() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    write(&settings, &records(&[(LDS, "l=1", NOW)])).unwrap();
    for (mode, is_good) in [(0o777, false), (0o770, false), (0o755, true), (0o1777, true)] {
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(read(&settings, &owner()).len(), usize::from(is_good), "{mode:o}");
        let written = write(&settings, &records(&[(LDS, "l=1", NOW)]));
        match written {
            Ok(()) => assert!(is_good, "{mode:o}"),
            Err(error) => {
                assert!(!is_good && error.to_string().contains("name a directory in it"), "{error}")
            }
        }
    }
}

/// Another user's files can be made by root only; so here another user reads.
#[cfg(unix)]
#[test]
fn what_belongs_to_neither_us_nor_root_is_not_believed() {
    use std::os::unix::fs::{MetadataExt, chown};
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    write(&settings, &records(&[(LDS, "l=1", NOW)])).unwrap();
    let path = owner().path(&dir.0);
    let us = trust::ours(&dir.0).unwrap();
    assert_eq!(us, fs::metadata(&path).unwrap().uid(), "what we make is ours");
    assert_eq!(only_file(&dir.0), path, "and nothing is left of the question");
    let root = us == 0;
    if root {
        for what in [&path, &dir.0] {
            chown(what, Some(1), None).unwrap();
        }
    }
    let foreign = fs::metadata(&path).unwrap().uid();
    let whole = settings.max_bytes;
    assert!(file::read(&path, whole, &|| Ok(foreign)).is_ok());
    assert!(trust::directory(&dir.0, &|| Ok(foreign)).is_ok());
    let other = foreign + 1;
    let error = file::read(&path, whole, &|| Ok(other)).unwrap_err().to_string();
    assert_eq!(error, format!("it belongs to user {foreign}, and not to {other} as this process does"));
    let error = trust::directory(&dir.0, &|| Ok(other)).unwrap_err().to_string();
    assert!(error.contains("its directory ") && error.contains("belongs to user"), "{error}");
    if root {
        // The whole way, where this can be arranged.
        assert!(read(&settings, &owner()).is_empty());
        chown(&path, Some(0), None).unwrap();
        assert!(read(&settings, &owner()).is_empty(), "the directory is still another's");
        chown(&dir.0, Some(0), None).unwrap();
        assert_eq!(read(&settings, &owner()).len(), 1);
    }
}

/// One of several processes with the same file.
struct Process {
    settings: CacheSettings,
    writer: Writer,
}

impl Process {
    fn start(settings: &CacheSettings) -> Self {
        let stored = load(settings, &owner(), NOW, |kind, body, _| Toy.parse(kind, body));
        let writer = Writer::new(settings.clone(), owner(), stored.records());
        Self { settings: settings.clone(), writer }
    }

    /// Hears these, by name and value, of a control plane; and writes.
    fn hears(&mut self, server: &str, is_open: bool, said: &[(&str, Option<&str>)], now: f64) {
        let said = said.iter().map(|(name, value)| {
            let body = value.map(|value| format!("{name}={value}"));
            Accepted { server: server.into(), ..accepted(name, body.as_deref(), is_open) }
        });
        self.writer.learn(said.collect(), &Toy, now);
        let records = file::update(&self.settings, &owner(), &self.writer.news, now).unwrap();
        self.writer.wrote(records);
    }
}

#[test]
fn processes_that_share_a_file_keep_what_each_of_them_was_told() {
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    let [mut one, mut other] = [Process::start(&settings), Process::start(&settings)];
    one.hears("a:1", true, &[("l", Some("1")), ("both", Some("1"))], NOW - 9.0);
    other.hears("a:1", true, &[("m", Some("1")), ("both", Some("2"))], NOW - 8.0);
    assert_eq!(read(&settings, &owner()), ["LDS both=2 v a:1", "LDS l=1 v a:1", "LDS m=1 v a:1"]);
    // One whose control plane is away says nothing new, though it holds something older.
    one.hears("a:1", false, &[("l", Some("1")), ("both", Some("1"))], NOW - 7.0);
    assert_eq!(read(&settings, &owner()), ["LDS both=2 v a:1", "LDS l=1 v a:1", "LDS m=1 v a:1"]);
    // What does not exist goes for all, and does not come back with what others remember of it.
    other.hears("a:1", true, &[("l", None)], NOW - 6.0);
    one.hears("a:1", false, &[("l", Some("1"))], NOW - 5.0);
    assert_eq!(read(&settings, &owner()), ["LDS both=2 v a:1", "LDS m=1 v a:1"]);
    // Who hears of it again brings it back.
    one.hears("a:1", true, &[("l", Some("1"))], NOW - 4.0);
    assert_eq!(read(&settings, &owner()).len(), 3);
}

#[test]
fn a_file_that_processes_share_is_of_the_control_plane_that_spoke_last_of_all_that_one_of_them_watches() {
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    let [mut one, mut other] = [Process::start(&settings), Process::start(&settings)];
    one.hears("a:1", true, &[("l", Some("1"))], NOW - 9.0);
    other.hears("a:1", true, &[("m", Some("1"))], NOW - 9.0);
    other.hears("b:1", true, &[("m", Some("2"))], NOW - 8.0);
    assert_eq!(read(&settings, &owner()), ["LDS m=2 v b:1"], "nothing of the one before");
    one.hears("a:1", false, &[("l", Some("1"))], NOW - 7.0);
    assert_eq!(read(&settings, &owner()), ["LDS m=2 v b:1"], "who has lost it does not bring it back");
    one.hears("b:1", true, &[("l", Some("2"))], NOW - 6.0);
    assert_eq!(read(&settings, &owner()), ["LDS l=2 v b:1", "LDS m=2 v b:1"]);
    // What the one before says that there is not is no word about what this one gave.
    let mut late = Process::start(&settings);
    late.writer.learn(vec![Accepted { is_whole: false, ..accepted("m", None, true) }], &Toy, NOW - 5.0);
    late.hears("a:1", false, &[], NOW - 5.0);
    assert_eq!(read(&settings, &owner()), ["LDS l=2 v b:1", "LDS m=2 v b:1"]);
}

#[test]
fn processes_that_write_at_once_lose_nothing() {
    let dir = Dir::new();
    let settings = CacheSettings::new(&dir.0);
    let names: Vec<_> = (0..16).map(|i| format!("l{i}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| Process::start(&settings).hears("a:1", true, &[(name, Some("1"))], NOW));
        }
    });
    assert_eq!(read(&settings, &owner()).len(), names.len());
}

#[test]
fn what_others_wrote_is_left_out_of_a_file_that_would_be_too_large_the_longest_unconfirmed_first() {
    let dir = Dir::new();
    let large = |name: &str| format!("{name}={}", "x".repeat(100));
    let [a, b, c] = ["a", "b", "c"].map(large);
    let settings = CacheSettings { max_bytes: 500, ..CacheSettings::new(&dir.0) };
    write(&settings, &records(&[(LDS, &a, NOW - 1.0), (LDS, &b, NOW - 2.0)])).unwrap();
    write(&settings, &records(&[(LDS, &c, NOW - 3.0)])).unwrap();
    let names: Vec<_> = read(&settings, &owner()).iter().map(|line| line[4..5].to_owned()).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn what_no_control_plane_stands_by_does_not_become_new_by_being_old() {
    let mut writer = Writer::new(CacheSettings::new("/nowhere"), owner(), BTreeMap::new());
    writer.learn(vec![accepted("l", Some("l=1"), true)], &Toy, NOW);
    for later in 1..4 {
        writer.learn(vec![accepted("l", Some("l=1"), false)], &Toy, NOW + DAY + f64::from(later));
        assert!(writer.records.is_empty(), "the control plane is away for a day");
    }
    writer.learn(vec![accepted("l", Some("l=1"), true)], &Toy, NOW + DAY + 5.0);
    assert_eq!(writer.records.len(), 1);
}

/// A key that comes beside the name of a provider is passed over by the parser, as gRPC does it, and must not
/// outlive that.
#[test]
fn a_key_that_a_control_plane_sends_is_not_kept() {
    use crate::{client::Resources, resource::ParseContext};
    use envoy_types::pb::{
        envoy::{
            config::{
                cluster::v3 as cluster,
                core::v3::{
                    DataSource, TransportSocket, data_source::Specifier, transport_socket::ConfigType,
                },
            },
            extensions::transport_sockets::tls::v3::{
                CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext,
                TlsCertificate, UpstreamTlsContext, common_tls_context::ValidationContextType,
            },
        },
        google::protobuf::Any,
    };
    use prost::Message;
    let parser = Resources {
        context: ParseContext {
            certificate_providers: ["default".into()].into_iter().collect(),
            ..ParseContext::default()
        },
    };
    let plain = crate::config::testing::cluster("c").to_proto();
    let mut message = cluster::Cluster::decode(plain.as_ref()).unwrap();
    let socket = |keys: bool| {
        let provider = |name: &str| CertificateProviderPluginInstance {
            instance_name: name.into(),
            certificate_name: String::new(),
        };
        let secret =
            DataSource { specifier: Some(Specifier::InlineString("SECRET".into())), ..Default::default() };
        let certificate = TlsCertificate { private_key: Some(secret), ..Default::default() };
        let validation = CertificateValidationContext {
            ca_certificate_provider_instance: Some(provider("default")),
            ..Default::default()
        };
        let common = CommonTlsContext {
            tls_certificate_provider_instance: Some(provider("default")),
            tls_certificates: if keys { vec![certificate] } else { vec![] },
            validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
            ..Default::default()
        };
        let context = UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
        let type_url =
            "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext".to_owned();
        TransportSocket {
            name: "envoy.transport_sockets.tls".into(),
            config_type: Some(ConfigType::TypedConfig(Any { type_url, value: context.encode_to_vec() })),
        }
    };
    message.transport_socket = Some(socket(true));
    let body = Bytes::from(message.encode_to_vec());
    let holds = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"SECRET");
    assert!(holds(&body));
    let (_, resource) = parser.parse(CDS, &body).unwrap();
    let mut writer = Writer::new(CacheSettings::new("/nowhere"), owner(), BTreeMap::new());
    let accepted = Accepted {
        key: (CDS, "c".into()),
        server: "a:1".into(),
        is_open: true,
        is_whole: true,
        good: Some(("v".into(), body, resource.clone())),
    };
    assert!(writer.learn(vec![accepted], &parser, NOW));
    assert!(!holds(&encode(&owner(), &writer.records)));
    let (_, again) = parser.parse(CDS, &writer.records[&(CDS, "c".into())].body).unwrap();
    assert_eq!(again, resource, "and nothing else is lost");
}

proptest::proptest! {
    /// The hash is right; nothing else is sure to be.
    #[test]
    fn content_that_somebody_made_up_is_read_or_refused(
        made_up in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        place in 0..200_usize,
    ) {
        let dir = Dir::new();
        let settings = CacheSettings::new(&dir.0);
        fs::create_dir_all(&dir.0).unwrap();
        let path = owner().path(&dir.0);
        let read = |content: &[u8]| {
            fs::write(&path, seal(content)).unwrap();
            load(&settings, &owner(), NOW, |kind, body, _| Toy.parse(kind, body))
        };
        read(&made_up);
        // A good one, of which a part is made up.
        let whole = encode(&owner(), &records(&[(LDS, "l=1", NOW), (CDS, "c=2", NOW)]));
        let start = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1;
        let mut content = whole[start..].to_vec();
        let place = place % content.len();
        let end = (place + made_up.len() / 8).min(content.len());
        content.splice(place..end, made_up.iter().take(end - place).copied());
        proptest::prop_assert!(read(&content).entries.len() <= 2);
    }
}
