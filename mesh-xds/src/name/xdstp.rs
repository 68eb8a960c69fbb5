//! `xdstp://authority/type/id?context`: names that say which control planes may be asked (gRFC A47, xRFC TP1).
//!
//! A name that is not quite of this form, or is of another type than it is used for, is an opaque name like any
//! other, as in gRPC; it belongs to no authority.

use super::{Name, ResourceType};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// How such names begin.
pub(crate) const PREFIX: &str = "xdstp:";

/// What RFC 3986 lets a path segment not carry as it is; `/` stays, it divides segments.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// `text`, as it is put into a template that begins with `xdstp:`.
pub(crate) fn encode_path(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

struct Parts<'a> {
    authority: &'a str,
    /// `authority/type/id`
    path: &'a str,
    context: Option<&'a str>,
}

fn parse(kind: ResourceType, name: &str) -> Option<Parts<'_>> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix("//")?;
    let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, context) = match rest.split_once('?') {
        Some((path, context)) => (path, Some(context)),
        None => (rest, None),
    };
    let (authority, typed) = path.split_once('/')?;
    let (message, id) = typed.split_once('/')?;
    (message == kind.message() && !id.is_empty()).then_some(Parts { authority, path, context })
}

/// The authority of an `xdstp:` name of this type; `None` for any other name.
pub fn authority(kind: ResourceType, name: &str) -> Option<&str> {
    parse(kind, name).map(|parts| parts.authority)
}

/// Whether a name is a glob of xRFC TP1: every resource of a folder (`…/*`), and no resource.
pub(crate) fn is_collection(kind: ResourceType, name: &str) -> bool {
    parse(kind, name).is_some_and(|parts| parts.path.ends_with("/*"))
}

/// The name as it is asked for and compared: context parameters sorted by key. Other names as they are.
pub fn canonical(kind: ResourceType, name: &Name) -> Name {
    if !name.starts_with(PREFIX) {
        return name.clone();
    }
    let Some(Parts { path, context, .. }) = parse(kind, name) else { return name.clone() };
    let mut parameters: Vec<&str> =
        context.unwrap_or_default().split('&').filter(|p| !p.is_empty()).collect();
    // Stable: of two values of one key the order says something.
    parameters.sort_by_key(|parameter| parameter.split('=').next().unwrap_or_default());
    let question = if parameters.is_empty() { "" } else { "?" };
    format!("{PREFIX}//{path}{question}{}", parameters.join("&")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResourceType::{Cluster, Listener};

    #[test]
    fn context_parameters_are_sorted_and_other_names_stay_as_they_are() {
        let cases = [
            (
                "xdstp://a/envoy.config.cluster.v3.Cluster/x/y?b=2&a=1&b=1",
                "xdstp://a/envoy.config.cluster.v3.Cluster/x/y?a=1&b=2&b=1",
            ),
            ("xdstp://a/envoy.config.cluster.v3.Cluster/x?", "xdstp://a/envoy.config.cluster.v3.Cluster/x"),
            (
                "xdstp://a/envoy.config.cluster.v3.Cluster/x#alt=y",
                "xdstp://a/envoy.config.cluster.v3.Cluster/x",
            ),
            ("outbound|9080||reviews?b&a", "outbound|9080||reviews?b&a"),
            (
                "xdstp://a/envoy.config.listener.v3.Listener/x?b&a",
                "xdstp://a/envoy.config.listener.v3.Listener/x?b&a",
            ),
        ];
        for (name, expected) in cases {
            assert_eq!(&*canonical(Cluster, &name.into()), expected);
        }
    }

    #[test]
    fn only_a_name_of_the_right_form_and_type_has_an_authority() {
        let name = "xdstp://xds.example.com/envoy.config.listener.v3.Listener/reviews:9080?x=1";
        assert_eq!(authority(Listener, name), Some("xds.example.com"));
        assert_eq!(authority(Listener, "xdstp:///envoy.config.listener.v3.Listener/x"), Some(""));
        for (kind, name) in [
            (Cluster, name),
            (Listener, "xdstp:xds.example.com/envoy.config.listener.v3.Listener/x"),
            (Listener, "xdstp://xds.example.com/envoy.config.listener.v3.Listener"),
            (Listener, "xdstp://xds.example.com/envoy.config.listener.v3.Listener/"),
            (Listener, "xds://xds.example.com/envoy.config.listener.v3.Listener/x"),
            (Listener, "reviews:9080"),
        ] {
            assert_eq!(authority(kind, name), None, "{name}");
        }
    }

    #[test]
    fn a_glob_is_the_last_segment_of_a_name_with_an_authority() {
        let name = |id: &str| format!("xdstp://a/envoy.config.listener.v3.Listener/{id}");
        for (id, is_glob) in [("*", true), ("x/*?a=1", true), ("x*", false), ("*/x", false), ("x/*y", false)]
        {
            assert_eq!(is_collection(Listener, &name(id)), is_glob, "{id}");
        }
        assert!(!is_collection(Cluster, &name("*")) && !is_collection(Listener, "x/*"));
    }

    #[test]
    fn a_path_is_encoded_segment_by_segment() {
        assert_eq!(encode_path("[::]:80/a b?c#d%"), "%5B::%5D:80/a%20b%3Fc%23d%25");
    }
}
