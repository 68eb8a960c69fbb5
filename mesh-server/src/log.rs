//! The log of `mesh-server`: an event is a line, and what others said stands escaped in it ([`mesh_xds::printable`]).
//!
//! By itself the subscriber escapes less of it, and in messages alone: texts of clients are other fields.

use mesh_xds::printable::line;
use std::{
    fmt,
    io::{self, IsTerminal},
};
use tracing::{
    Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    field::{RecordFields, VisitOutput},
    fmt::{
        FormatFields, MakeWriter,
        format::{DefaultVisitor, Writer},
    },
    util::SubscriberInitExt,
};

/// Findings and events go to standard error; `RUST_LOG` chooses.
pub(crate) fn to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A binary that logs already keeps its own way.
    drop(subscriber(filter, io::stderr().is_terminal(), io::stderr).try_init());
}

fn subscriber<W>(filter: EnvFilter, ansi: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(ansi)
        .fmt_fields(Fields)
        .with_writer(writer)
        .finish()
}

/// As the subscriber writes them, escaped.
struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Escaping(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct Escaping<'w>(DefaultVisitor<'w>);

impl Visit for Escaping<'_> {
    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        self.record_debug(field, &format_args!("{text}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.record_debug(field, &format_args!("{}", line(&format!("{value:?}"))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(ansi: bool, events: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = subscriber(EnvFilter::new("info"), ansi, move || writer.clone());
        tracing::subscriber::with_default(subscriber, events);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn an_event_is_a_line_whatever_a_client_says() {
        let text = "x\nINFO forged\r\u{1b}[2J\u{9b}2J\u{202e}";
        let escaped = r"x\nINFO forged\r\u{1b}[2J\u{9b}2J\u{202e}";
        let events = || tracing::warn!(node = %text, quoted = text, count = 2, "rejected: {text}");
        let plain = logged(false, events);
        let expected = format!("WARN rejected: {escaped} node={escaped} quoted=\"{escaped}\" count=2\n");
        assert!(plain.ends_with(&expected), "{plain:?}");
        assert_eq!(plain.matches('\n').count(), 1);
        let coloured = logged(true, events);
        assert!(
            coloured.contains("\u{1b}[") && !coloured.contains("\u{1b}[2J"),
            "colours are ours: {coloured:?}"
        );
        assert_eq!(coloured.matches('\n').count(), 1);
    }
}
