//! Printing: a reader that has seen enough (`| head -1`) is no error, and no reason to say anything.
//!
//! What a command exits with does not depend on who reads it.

use std::io::{self, Write};

/// Prints what was asked for.
pub(crate) fn show(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Says something beside it, to whoever listens.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
