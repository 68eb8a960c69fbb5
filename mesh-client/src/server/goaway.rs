//! Asks one HTTP/2 client to move to a new connection, without the help of the HTTP/2 server above.
//!
//! tonic can shut down all of its connections gracefully, but not one of them. A GOAWAY frame whose last
//! stream id is the greatest possible (RFC 9113 §6.8) tells the client to open no more streams here and
//! to finish those it has; it is 17 bytes that may stand between any two frames of a connection (but not
//! inside a header block). [`Outbound`] watches the bytes that the HTTP/2 server writes, and says where.

/// `GOAWAY(last_stream_id = 2^31-1, NO_ERROR)`.
pub(super) const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

const HEADER: usize = 9;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Where in its frames a stream of outgoing HTTP/2 bytes is. A server sends nothing before its first frame.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// The frame header as far as it was sent.
    header: [u8; HEADER],
    header_len: usize,
    /// What is left of the current frame's payload.
    payload: usize,
    /// A header block is open: only CONTINUATION may follow.
    in_header_block: bool,
    /// Whether any frame was sent: the first one must be SETTINGS.
    started: bool,
}

impl Outbound {
    /// Whether a frame may be inserted here.
    pub(super) fn between_frames(&self) -> bool {
        self.started && self.header_len == 0 && self.payload == 0 && !self.in_header_block
    }

    /// These bytes were sent.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// How many of these bytes bring the stream to the next place between frames; all of them if none do.
    pub(super) fn until_between_frames(&self, bytes: &[u8]) -> usize {
        let mut ahead = Self { header: self.header, started: self.started, ..Self::default() };
        ahead.header_len = self.header_len;
        ahead.payload = self.payload;
        ahead.in_header_block = self.in_header_block;
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            taken += ahead.step(rest);
            if ahead.between_frames() {
                break;
            }
        }
        taken
    }

    /// Takes the rest of a frame header, or of a payload; returns how many bytes that was.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let taken = self.payload.min(bytes.len());
            self.payload -= taken;
            return taken;
        }
        let taken = (HEADER - self.header_len).min(bytes.len());
        for (to, from) in self.header.iter_mut().skip(self.header_len).zip(bytes) {
            *to = *from;
        }
        self.header_len += taken;
        if self.header_len == HEADER {
            let [a, b, c, kind, flags, ..] = self.header;
            self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
                self.in_header_block = flags & END_HEADERS == 0;
            }
            self.header_len = 0;
            self.started = true;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0, (len >> 8) as u8, len as u8, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEADER + len, 0xaa);
        bytes
    }

    #[test]
    fn nothing_may_stand_before_the_first_frame_nor_inside_a_frame() {
        let mut out = Outbound::default();
        assert!(!out.between_frames());
        let settings = frame(4, 0, 6);
        out.sent(&settings[..5]);
        assert!(!out.between_frames());
        out.sent(&settings[5..12]);
        assert!(!out.between_frames());
        out.sent(&settings[12..]);
        assert!(out.between_frames());
    }

    #[test]
    fn nothing_may_stand_inside_a_header_block() {
        let mut out = Outbound::default();
        out.sent(&frame(HEADERS, 0, 20));
        assert!(!out.between_frames(), "CONTINUATION must follow");
        out.sent(&frame(CONTINUATION, END_HEADERS, 20));
        assert!(out.between_frames());
    }

    #[test]
    fn a_frame_without_payload_ends_with_its_header() {
        let mut out = Outbound::default();
        out.sent(&frame(4, 1, 0));
        assert!(out.between_frames());
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_places_between_frames_are_the_same(
            frames in prop::collection::vec((0u8..10, 0u8..8, 0usize..40), 1..8),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let frames: Vec<_> = frames.into_iter().map(|(kind, flags, len)| frame(kind, flags, len)).collect();
            let mut expected = Vec::new();
            let mut whole = Outbound::default();
            let mut at = 0;
            for frame in &frames {
                whole.sent(frame);
                at += frame.len();
                if whole.between_frames() {
                    expected.push(at);
                }
            }
            let bytes = frames.concat();
            let mut found = Vec::new();
            let mut out = Outbound::default();
            let (mut at, mut cut) = (0, 0);
            while at < bytes.len() {
                let end = bytes.len().min(at + cuts[cut % cuts.len()]);
                cut += 1;
                let taken = out.until_between_frames(&bytes[at..end]);
                prop_assert!(taken > 0);
                out.sent(&bytes[at..at + taken]);
                at += taken;
                if out.between_frames() {
                    found.push(at);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
