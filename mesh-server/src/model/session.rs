//! Persistent sessions of a service, as Istio has them: by the labels `istio.io/persistent-session` (a cookie's name, and
//! after a colon its path) and `istio.io/persistent-session-header` (a header's name), on a Service or a ServiceEntry.
//! The cookie's goes first.

use http::HeaderName;

use super::read::Report;
use super::value::Labels;
use crate::analysis::Position;

/// The label that names a cookie. Istio lets it have a path, which Kubernetes would not let stand in a label.
pub(crate) const COOKIE_LABEL: &str = "istio.io/persistent-session";
/// The label that names a header.
const HEADER_LABEL: &str = "istio.io/persistent-session-header";

/// Where the callers of a service keep the endpoint of their session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PersistentSession {
    /// In a cookie, for as long as they live.
    Cookie {
        /// Its name.
        name: String,
        /// Path of the calls that it is for; `/` when nothing is said.
        path: String,
    },
    /// In a header.
    Header(HeaderName),
}

impl PersistentSession {
    /// What the labels of a service say; what is wrong with them is reported where the object begins.
    pub(crate) fn of(labels: &Labels, at: Position, report: &mut Report) -> Option<Self> {
        let said = |label| labels.get(label).map(String::as_str).filter(|value| !value.is_empty());
        if let Some(cookie) = said(COOKIE_LABEL) {
            let (name, path) = cookie.split_once(':').unwrap_or((cookie, "/"));
            let path = if path.is_empty() { "/" } else { path };
            if name.is_empty() || !is_cookie_text(name) || !is_cookie_text(path) || !path.starts_with('/') {
                let message = format!("label `{COOKIE_LABEL}`: {cookie:?} is not `cookie` or `cookie:/path`");
                return report.fail(at, message);
            }
            return Some(Self::Cookie { name: name.to_owned(), path: path.to_owned() });
        }
        let header = said(HEADER_LABEL)?;
        match HeaderName::from_bytes(header.as_bytes()) {
            Ok(name) => Some(Self::Header(name)),
            Err(_) => report.fail(at, format!("label `{HEADER_LABEL}`: {header:?} is not a header's name")),
        }
    }
}

fn is_cookie_text(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b';' | b',' | b'=' | b'"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Object,
        fixture::{lines, parsed},
    };

    fn yaml(labels: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, labels: {{{labels}}}}}\nspec: {{ports: [{{port: 1}}]}}\n"
        )
    }

    fn session(labels: &str) -> Option<PersistentSession> {
        let parsed = parsed(&yaml(labels));
        match parsed.objects.as_slice() {
            [Object::Service(object)] => object.service.session.clone(),
            _ => panic!("refused: {:#?}", lines(&parsed)),
        }
    }

    #[test]
    fn labels_name_a_cookie_or_a_header() {
        let cookie = |name: &str, path: &str| {
            Some(PersistentSession::Cookie { name: name.to_owned(), path: path.to_owned() })
        };
        let header = || Some(PersistentSession::Header(HeaderName::from_static("x-session")));
        for (labels, expected) in [
            ("app: a", None),
            ("istio.io/persistent-session: s", cookie("s", "/")),
            ("istio.io/persistent-session: \"s:/r.Reviews\"", cookie("s", "/r.Reviews")),
            ("istio.io/persistent-session: \"s:\"", cookie("s", "/")),
            ("istio.io/persistent-session-header: X-Session", header()),
            (
                "istio.io/persistent-session: s, istio.io/persistent-session-header: x-session",
                cookie("s", "/"),
            ),
            ("istio.io/persistent-session: \"\", istio.io/persistent-session-header: x-session", header()),
        ] {
            assert_eq!(session(labels), expected, "{labels}");
        }
    }

    #[test]
    fn what_cannot_be_a_cookie_or_a_header_refuses_the_service() {
        for (labels, expected) in [
            ("istio.io/persistent-session: \"s;a\"", "\"s;a\" is not `cookie` or `cookie:/path`"),
            ("istio.io/persistent-session: \":/a\"", "\":/a\" is not `cookie` or `cookie:/path`"),
            ("istio.io/persistent-session: \"s:a\"", "\"s:a\" is not `cookie` or `cookie:/path`"),
            ("istio.io/persistent-session-header: \"a b\"", "is not a label value"),
            ("other: \"a:/b\"", "is not a label value"),
        ] {
            let parsed = parsed(&yaml(labels));
            assert!(parsed.objects.is_empty(), "{labels}");
            assert!(lines(&parsed).iter().any(|line| line.contains(expected)), "{:#?}", lines(&parsed));
        }
    }
}
