//! What the log has of rejections: of a stream and type a line a minute, however often its client rejects.
//!
//! What has no line is counted, and told with the next one; at level debug each has its own. All of the text is in
//! the status of the stream.

use super::{Bucket, Rejection};
use crate::{name::ResourceType, printable::clip};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// From one line of a stream and type to the next.
const PAUSE: Duration = Duration::from_secs(60);
/// Lines of all streams at once, as one change may be rejected by many …
const LINES: u32 = 500;
/// … and how many more each second: streams are quickly opened anew.
const LINES_PER_SECOND: u32 = 10;
/// Bytes of a client's words in a line.
const LONGEST: usize = 512;

/// The lines that all streams may have. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Mutex<Bucket>>);

impl Default for Lines {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Bucket::new(LINES, LINES_PER_SECOND))))
    }
}

/// What the log has of one stream.
#[derive(Debug)]
pub(super) struct Rejections {
    lines: Lines,
    kinds: [Told; ResourceType::COUNT],
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    at: Option<Instant>,
    /// Those since then.
    untold: u64,
}

impl Rejections {
    pub(super) fn new(lines: &Lines) -> Self {
        Self { lines: lines.clone(), kinds: Default::default() }
    }

    /// Writes it down, or counts it.
    pub(super) fn log(&mut self, now: Instant, stream: u64, node: &str, rejection: &Rejection) {
        let kind = rejection.kind;
        let (node, text) = (clip(node, LONGEST), clip(&rejection.text, LONGEST));
        match self.line(now, kind) {
            Some(others) => {
                tracing::warn!(stream, %node, %kind, %text, others, "the client rejected a response");
            }
            None => tracing::debug!(stream, %node, %kind, %text, "the client rejected another response"),
        }
    }

    /// Whether there is a line now, and how many had none before it.
    fn line(&mut self, now: Instant, kind: ResourceType) -> Option<u64> {
        let told = self.kinds.get_mut(kind as usize)?;
        let is_due = told.at.is_none_or(|at| now.saturating_duration_since(at) >= PAUSE);
        if is_due && self.lines.0.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
            let others = told.untold;
            *told = Told { at: Some(now), untold: 0 };
            return Some(others);
        }
        told.untold += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResourceType::{Cluster, Listener};

    #[test]
    fn a_stream_and_type_has_a_line_a_minute_which_tells_of_the_others() {
        let (lines, start) = (Lines::default(), Instant::now());
        let mut one = Rejections::new(&lines);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(one.line(at(0), Cluster), Some(0));
        for _ in 0..100 {
            assert_eq!(one.line(at(59), Cluster), None);
        }
        assert_eq!(one.line(at(59), Listener), Some(0), "of another type");
        assert_eq!(Rejections::new(&lines).line(at(59), Cluster), Some(0), "of another stream");
        assert_eq!(one.line(at(60), Cluster), Some(100));
        assert_eq!(one.line(at(120), Cluster), Some(0));
    }

    #[test]
    fn streams_that_are_opened_anew_share_what_lines_there_are() {
        let (lines, start) = (Lines::default(), Instant::now());
        let told = |now| (0..10_000).filter(|_| Rejections::new(&lines).line(now, Cluster).is_some()).count();
        assert_eq!(told(start), 500);
        assert_eq!(told(start + Duration::from_secs(2)), 20);
        let mut waits = Rejections::new(&lines);
        assert_eq!(waits.line(start + Duration::from_secs(2), Cluster), None);
        assert_eq!(waits.line(start + Duration::from_secs(3), Cluster), Some(1), "as soon as there is one");
    }
}
