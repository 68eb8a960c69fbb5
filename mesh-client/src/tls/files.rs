//! Certificates and roots in files that somebody else renews, for connections to servers outside the mesh.
//!
//! Which files of this machine are read is for its bootstrap to say: those of its `file_watcher` providers, and no
//! other, whatever a control plane names. A file is read when a connection needs it and the last look is longer ago
//! than `refresh_interval`; one that cannot be used leaves what was read before in use (gRFC A29).

use super::{TlsError, provider::read_roots};
use mesh_ca::{bundle::Roots, key_pair::KeyPair, rustls::Provider};
use mesh_xds::{bootstrap::FileWatcher, resource::tls::KeyFiles};
use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// The files that contexts may name.
#[derive(Default)]
pub(super) struct Files {
    roots: BTreeMap<PathBuf, Watched<Roots>>,
    pairs: BTreeMap<(PathBuf, PathBuf), Watched<KeyPair>>,
}

impl Files {
    /// Those of this provider as well.
    pub(super) fn add(&mut self, watcher: &FileWatcher) {
        if let Some(path) = &watcher.ca_certificate_file {
            self.roots.entry(path.clone()).or_default().at_most(watcher.refresh_interval);
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
        watched.current(&path.display(), || read_roots(path))
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
        let pair = watched.current(files, || {
            KeyPair::from_files(&paths.0, &paths.1, crypto).map_err(|error| error.to_string())
        })?;
        match pair.validity_error(now) {
            None => Ok(pair),
            Some(reason) => Err(TlsError::File { files: files.to_string(), reason }),
        }
    }
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

    fn current(&self, files: &dyn Display, look: impl FnOnce() -> Result<T, String>) -> Result<T, TlsError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = read.looked.is_some_and(|looked| looked.elapsed() < self.refresh);
        if let (true, Some(content)) = (fresh, &read.content) {
            return Ok(content.clone());
        }
        match (look(), &read.content) {
            (Ok(content), _) => {
                *read = Read { looked: Some(Instant::now()), content: Some(content.clone()) };
                Ok(content)
            }
            (Err(reason), Some(before)) => {
                tracing::warn!(%files, reason, "cannot be used; what was read before stays in use");
                let before = before.clone();
                read.looked = Some(Instant::now());
                Ok(before)
            }
            // Looked for again at the next connection, which backs off by itself.
            (Err(reason), None) => Err(TlsError::File { files: files.to_string(), reason }),
        }
    }
}

#[cfg(test)]
mod tests;
