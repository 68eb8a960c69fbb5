//! Certificates and roots in files that somebody else renews, for connections to servers outside the mesh.
//!
//! Which files of this machine are read is for its bootstrap to say: those of its `file_watcher` providers, and no
//! other, whatever a control plane names. A file is read when a connection needs it and the last look is longer ago
//! than `refresh_interval`; one that cannot be used leaves what was read before in use (gRFC A29). But of revocation
//! lists: without them nobody could say who is revoked, so the connections that need them fail.

use super::TlsError;
use mesh_ca::{bundle::Roots, key_pair::KeyPair, revocation::RevocationLists, rustls::Provider};
use mesh_xds::{
    bootstrap::FileWatcher,
    resource::tls::{CrlFile, KeyFiles},
};
use std::{
    collections::BTreeMap,
    fmt::Display,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// Bytes of a file of revocation lists.
const MAX_LISTS: u64 = 16 << 20;

/// The files that contexts may name.
#[derive(Default)]
pub(super) struct Files {
    roots: BTreeMap<PathBuf, Watched<Roots>>,
    pairs: BTreeMap<(PathBuf, PathBuf), Watched<KeyPair>>,
    lists: BTreeMap<PathBuf, Watched<RevocationLists>>,
}

impl Files {
    /// Those of this provider as well.
    pub(super) fn add(&mut self, watcher: &FileWatcher) {
        if let Some(path) = &watcher.ca_certificate_file {
            self.roots.entry(path.clone()).or_default().at_most(watcher.refresh_interval);
        }
        if let Some(path) = &watcher.crl_file {
            self.lists.entry(path.clone()).or_default().at_most(watcher.refresh_interval);
        }
        if let Some(paths) = &watcher.identity {
            self.pairs.entry(paths.clone()).or_default().at_most(watcher.refresh_interval);
        }
    }

    /// The roots in a file.
    pub(super) fn roots(&self, path: &Path) -> Result<Roots, TlsError> {
        let unknown = || TlsError::UnknownFile {
            files: path.display().to_string(),
            setting: "ca_certificate_file",
            known: known(self.roots.keys().map(|path| path.display())),
        };
        let watched = self.roots.get(path).ok_or_else(unknown)?;
        watched.current(&path.display(), Before::Stays, || {
            Roots::from_file(path).map_err(|error| error.to_string())
        })
    }

    /// The revocation lists in a file.
    pub(super) fn lists(&self, file: &CrlFile) -> Result<RevocationLists, TlsError> {
        let path = Path::new(&*file.path);
        let unknown = || TlsError::UnknownFile {
            files: file.path.to_string(),
            setting: "crl_file",
            known: known(self.lists.keys().map(|path| path.display())),
        };
        let watched = self.lists.get(path).ok_or_else(unknown)?;
        let lists = watched.current(&path.display(), Before::IsForgotten, || read_lists(path))?;
        Ok(if file.only_leaf { lists.of_leaf() } else { lists })
    }

    /// The certificate and the key in two files. One that is not valid now is refused here, where the reason can be
    /// said: the peer would only say that it is bad.
    pub(super) fn key_pair(
        &self,
        files: &KeyFiles,
        now: SystemTime,
        crypto: &Provider,
    ) -> Result<KeyPair, TlsError> {
        let paths = (PathBuf::from(&*files.certificate), PathBuf::from(&*files.key));
        let unknown = || TlsError::UnknownFile {
            files: files.to_string(),
            setting: "certificate_file and private_key_file",
            known: known(
                self.pairs.keys().map(|(one, other)| format!("{} and {}", one.display(), other.display())),
            ),
        };
        let watched = self.pairs.get(&paths).ok_or_else(unknown)?;
        let pair = watched.current(files, Before::Stays, || {
            KeyPair::from_files(&paths.0, &paths.1, crypto).map_err(|error| error.to_string())
        })?;
        match pair.validity_error(now) {
            None => Ok(pair),
            Some(reason) => Err(TlsError::File { files: files.to_string(), reason }),
        }
    }
}

fn read_lists(path: &Path) -> Result<RevocationLists, String> {
    let shown = path.display().to_string();
    let mut pem = Vec::new();
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(MAX_LISTS + 1).read_to_end(&mut pem))
        .map_err(|error| format!("{shown}: {error}"))?;
    if pem.len() as u64 > MAX_LISTS {
        return Err(format!(
            "{shown}: it has more than {MAX_LISTS} bytes, which are read while connections wait"
        ));
    }
    RevocationLists::from_pem(&pem, shown.as_str()).map_err(|error| format!("{shown}: {error}"))
}

fn known<T: Display>(files: impl Iterator<Item = T>) -> String {
    let known: Vec<String> = files.map(|file| file.to_string()).collect();
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// What a file said last.
struct Watched<T> {
    refresh: Duration,
    read: Mutex<Read<T>>,
}

struct Read<T> {
    looked: Option<Instant>,
    content: Option<T>,
}

/// What becomes of what a file said before when it cannot be used any more.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Stays,
    IsForgotten,
}

impl<T> Default for Watched<T> {
    fn default() -> Self {
        Self { refresh: Duration::MAX, read: Mutex::new(Read { looked: None, content: None }) }
    }
}

impl<T: Clone> Watched<T> {
    /// Where several providers name a file, the shortest interval holds.
    fn at_most(&mut self, refresh: Duration) {
        self.refresh = self.refresh.min(refresh);
    }

    fn current(
        &self,
        files: &dyn Display,
        before: Before,
        look: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, TlsError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = read.looked.is_some_and(|looked| looked.elapsed() < self.refresh);
        if let (true, Some(content)) = (fresh, &read.content) {
            return Ok(content.clone());
        }
        let found = look();
        let kept = read.content.take().filter(|_| before == Before::Stays);
        let (content, result) = match (found, kept) {
            (Ok(content), _) => (Some(content.clone()), Ok(content)),
            (Err(reason), Some(kept)) => {
                tracing::warn!(%files, reason, "cannot be used; what was read before stays in use");
                (Some(kept.clone()), Ok(kept))
            }
            // Looked for again at the next connection, which backs off by itself.
            (Err(reason), None) => (None, Err(TlsError::File { files: files.to_string(), reason })),
        };
        *read = Read { looked: Some(Instant::now()), content };
        result
    }
}

#[cfg(test)]
mod tests;
