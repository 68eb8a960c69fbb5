//! A directory of YAML, watched.
//!
//! A change is taken up as soon as the file system says so: events of one burst (an editor writes,
//! renames, sets times) are one change, and wait for each other at most 10 ms. Where events do not
//! reach (network file systems, directories behind symbolic links), a look every two seconds does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout_at};

use super::Loaded;
use super::last_good::LastGood;
use super::scan::{Scan, scan};
use crate::analysis::Severity;
use crate::model::MeshSettings;

/// Events of one burst come closer together than this.
const QUIET: Duration = Duration::from_millis(3);
/// A burst is cut off after this.
const BURST: Duration = Duration::from_millis(10);
/// How long a file may be empty before that is believed.
const UNFINISHED: Duration = Duration::from_millis(20);
/// How often the directory is looked at without an event.
const POLL: Duration = Duration::from_secs(2);

/// Why a directory cannot be a source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It does not exist, is no directory, or may not be read.
    #[error("the configuration directory {path} cannot be read: {cause}")]
    Unreadable {
        /// Which directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
}

/// Reads a directory once: what `meshctl analyze` does.
pub fn load(root: &Path, settings: Arc<MeshSettings>) -> Result<Loaded, SourceError> {
    let scan = first_scan(root)?;
    Ok(LastGood::new(settings).apply(scan).unwrap_or_default())
}

fn first_scan(root: &Path) -> Result<Scan, SourceError> {
    scan(root).map_err(|cause| SourceError::Unreadable { path: root.to_owned(), cause })
}

/// A watched directory; watching ends when this is dropped.
#[derive(Debug)]
pub struct Directory {
    loaded: watch::Receiver<Arc<Loaded>>,
    confirm: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl Directory {
    /// Reads the directory and starts to watch it. Must be called within a tokio runtime.
    ///
    /// Broken files are no error: they are findings, and everything else is served.
    pub fn watch(root: impl Into<PathBuf>, settings: Arc<MeshSettings>) -> Result<Self, SourceError> {
        let root = root.into();
        let (events, changed) = mpsc::channel(1);
        // Watching before reading: a change in between is seen twice rather than never.
        let watcher = start_watcher(&root, events);
        let mut state = LastGood::new(settings);
        let first = state.apply(first_scan(&root)?).unwrap_or_default();
        let (publish, loaded) = watch::channel(Arc::new(first));
        let (confirm, confirmed) = mpsc::channel(1);
        let task = Task { root, state: Some(state), publish, _watcher: watcher };
        Ok(Self { loaded, confirm, task: tokio::spawn(task.run(changed, confirmed)) })
    }

    /// What is to be served, now and from now on.
    pub fn loaded(&self) -> watch::Receiver<Arc<Loaded>> {
        self.loaded.clone()
    }

    /// Lets a deletion of everything happen that is being held.
    pub fn confirm_deletion(&self) {
        // Full means that a confirmation is already on its way.
        let _ = self.confirm.try_send(());
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start_watcher(root: &Path, events: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let on_event = move |event: notify::Result<Event>| {
        if event.map_or(true, |event| is_change(&event)) {
            // Full means that a look is already due.
            let _ = events.try_send(());
        }
    };
    let started = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    started
        .inspect_err(|error| {
            tracing::warn!(root = %root.display(), %error, "no file events: looking every two seconds instead");
        })
        .ok()
}

/// Reading is no change, and our own reading least of all.
fn is_change(event: &Event) -> bool {
    !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

struct Task {
    root: PathBuf,
    /// `None` only while a blocking thread has it.
    state: Option<LastGood>,
    publish: watch::Sender<Arc<Loaded>>,
    _watcher: Option<RecommendedWatcher>,
}

impl Task {
    async fn run(mut self, mut changed: mpsc::Receiver<()>, mut confirmed: mpsc::Receiver<()>) {
        let mut poll = interval_at(Instant::now() + POLL, POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = true;
        loop {
            tokio::select! {
                event = changed.recv(), if events => match event {
                    Some(()) => {
                        settle(&mut changed).await;
                        self.look().await;
                    }
                    // Without a watcher the poll remains.
                    None => events = false,
                },
                _ = poll.tick() => self.look().await,
                request = confirmed.recv() => match request {
                    Some(()) => {
                        if let Some(loaded) = self.state.as_mut().and_then(LastGood::confirm) {
                            self.announce(loaded);
                        }
                    }
                    None => return,
                },
            }
        }
    }

    async fn look(&mut self) {
        let mut look = self.read(Patience::Little).await;
        if matches!(look, Look::Unfinished) {
            tokio::time::sleep(UNFINISHED).await;
            look = self.read(Patience::None).await;
        }
        match look {
            Look::Changed(loaded) => self.announce(*loaded),
            Look::Same | Look::Unfinished => {}
            Look::Failed(error) => {
                tracing::error!(root = %self.root.display(), error, "the directory cannot be read: nothing changes");
            }
        }
    }

    /// Reads on a blocking thread, which has the state meanwhile. Should that thread panic, watching
    /// ends and what was served last stays.
    async fn read(&mut self, patience: Patience) -> Look {
        let Some(mut state) = self.state.take() else { return Look::Same };
        let root = self.root.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let look = match scan(&root) {
                Ok(scan) if patience == Patience::Little && state.looks_unfinished(&scan) => Look::Unfinished,
                Ok(scan) => state.apply(scan).map_or(Look::Same, |loaded| Look::Changed(Box::new(loaded))),
                Err(error) => Look::Failed(error.to_string()),
            };
            (state, look)
        });
        match reading.await {
            Ok((state, look)) => {
                self.state = Some(state);
                look
            }
            Err(error) => Look::Failed(error.to_string()),
        }
    }

    fn announce(&self, loaded: Loaded) {
        let errors = loaded.findings.iter().filter(|finding| finding.severity == Severity::Error);
        for finding in errors {
            tracing::error!("{finding}");
        }
        tracing::info!(
            revision = loaded.revision,
            objects = loaded.config.objects().len(),
            findings = loaded.findings.len(),
            "configuration read"
        );
        self.publish.send_replace(Arc::new(loaded));
    }
}

/// Waits for the end of a burst.
async fn settle(changed: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + BURST;
    loop {
        let quiet = (Instant::now() + QUIET).min(end);
        match timeout_at(quiet, changed.recv()).await {
            Ok(Some(())) if Instant::now() < end => {}
            _ => return,
        }
    }
}

/// Whether a file that just became empty is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Little,
    None,
}

/// What a look at the directory yields.
enum Look {
    Changed(Box<Loaded>),
    Same,
    /// A file is probably being written.
    Unfinished,
    Failed(String),
}

#[cfg(test)]
mod tests;
