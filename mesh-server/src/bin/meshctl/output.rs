//! Printing: a reader that has seen enough (`| head -1`) is no error, and no reason to say anything.
//!
//! What a command exits with does not depend on who reads it.
//!
//! Everything that is printed goes through here, and nothing in it drives the terminal, whoever said it
//! ([`mesh_xds::printable`]). Lines are the caller's: where it quotes somebody in one, it asks for one
//! ([`mesh_xds::printable::line`]).

use mesh_xds::printable;
use serde::Serialize;
use std::io::{self, Write};

/// Prints what was asked for.
pub(crate) fn show(text: &str) -> io::Result<()> {
    show_on(text).map(drop)
}

/// Prints a part of what was asked for; false: nobody reads on.
pub(crate) fn show_on(text: &str) -> io::Result<bool> {
    write(&printable::except(text, &['\n']))
}

/// Prints what brings its own colours, and has no other ESC in it.
pub(crate) fn show_coloured(text: &str) -> io::Result<()> {
    write(&printable::except(text, &['\n', '\u{1b}'])).map(drop)
}

/// Prints JSON that is a text already, and a line end.
pub(crate) fn show_json(text: &str) -> io::Result<bool> {
    write(&format!("{}\n", printable::json(text)))
}

/// Prints a value as JSON for people.
pub(crate) fn show_value(value: &impl Serialize) -> io::Result<()> {
    show_json(&serde_json::to_string_pretty(value)?).map(drop)
}

fn write(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says something beside it, to whoever listens. Only its first line looks like one of ours.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable::except(text, &['\n']).replace('\n', "\n  "));
}
