//! Printing: a reader that has seen enough (`| head -1`) is no error, and no reason to say anything.
//!
//! What a command exits with does not depend on who reads it.

use std::io::{self, Write};

/// Prints what was asked for.
pub(crate) fn show(text: &str) -> io::Result<()> {
    show_on(text).map(drop)
}

/// Prints a part of what was asked for; false: nobody reads on.
pub(crate) fn show_on(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says something beside it, to whoever listens.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
