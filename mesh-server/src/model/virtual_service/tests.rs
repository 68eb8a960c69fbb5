//! VirtualService: Istio's validation, rule by rule, and what a valid one means.

use std::time::Duration;

use super::*;
use crate::model::Object;
use crate::model::fixture::{assert_refused, lines, object, parsed};

fn read(spec: &str) -> std::sync::Arc<VirtualService> {
    let parsed = parsed(&object("VirtualService", spec));
    match parsed.objects.as_slice() {
        [Object::VirtualService(object)] => object.clone(),
        _ => panic!("refused: {:#?}", lines(&parsed)),
    }
}

/// A route to `a`, with more fields.
fn route(fields: &str) -> String {
    format!("hosts: [a]\nhttp:\n- route: [{{destination: {{host: a}}}}]\n{}", indent(fields))
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[test]
fn every_field_of_a_route_is_read() {
    let object = read(
        "
hosts: [reviews, '*.example.com']
exportTo: [., other]
http:
- name: canary
  match:
  - name: jason
    uri: {prefix: /bookinfo.Reviews/}
    ignoreUriCase: true
    method: {exact: POST}
    authority: {regex: 'rev.*'}
    headers: {End-User: {exact: jason}, x-any: {}}
    withoutHeaders: {x-not: {prefix: a}}
    queryParams: {q: {exact: '1'}}
    port: 9080
    sourceLabels: {app: productpage}
    sourceNamespace: shop
  route:
  - destination: {host: reviews, subset: v2, port: {number: 9080}}
    weight: 80
    headers: {response: {add: {x-from: v2}}}
  - destination: {host: reviews.other, subset: v3}
    weight: 20
  rewrite: {uri: /x.Y/, authority: other.host}
  timeout: 1.5s
  retries: {attempts: 3, perTryTimeout: 250ms, retryOn: 'unavailable,503', backoff: 10ms, retryIgnorePreviousHosts: false}
  fault:
    delay: {percentage: {value: 10}, fixedDelay: 7s}
    abort: {percentage: {value: 0.5}, grpcStatus: UNAVAILABLE}
  mirrors: [{destination: {host: shadow}, percentage: {value: 50}}, {destination: {host: off}, percentage: {value: 0}}]
  headers: {request: {set: {X-B: '1', X-A: '100%%'}, remove: [x-c]}}
",
    );
    let hosts: Vec<_> = object.hosts.iter().map(|host| host.value.to_string()).collect();
    assert_eq!(hosts, ["reviews.shop.svc.cluster.local", "*.example.com"]);
    assert_eq!(
        object.export_to,
        ExportTo::Namespaces(["shop", "other"].map(str::to_owned).into_iter().collect())
    );
    let route = &object.http[0];
    let matched = &route.matches[0];
    assert_eq!(matched.uri, Some(StringMatch::Prefix("/bookinfo.Reviews/".to_owned())));
    assert!(matched.ignore_uri_case);
    assert_eq!(matched.headers[0], ("end-user".to_owned(), StringMatch::Exact("jason".to_owned())));
    assert_eq!(matched.headers[1], ("x-any".to_owned(), StringMatch::Present));
    assert_eq!((matched.port, matched.source_namespace.as_deref()), (Some(9080), Some("shop")));
    assert_eq!(route.destinations()[0].destination.port.as_ref().map(|port| port.value), Some(9080));
    assert_eq!(route.destinations()[0].destination.host.value, "reviews.shop.svc.cluster.local");
    assert_eq!(route.destinations()[1].destination.host.value, "reviews.other");
    assert_eq!(route.destinations()[0].headers.response.add, [("x-from".to_owned(), "v2".to_owned())]);
    assert_eq!(route.timeout, Some(Duration::from_millis(1500)));
    let retries = route.retries.as_ref().expect("retries");
    assert_eq!(retries.on, [RetryOn::Condition("unavailable"), RetryOn::Status(503)]);
    assert_eq!((retries.attempts, retries.ignore_previous_hosts), (3, Some(false)));
    let fault = route.fault.as_ref().expect("fault");
    assert_eq!(fault.delay.map(|delay| delay.share.millionths()), Some(100_000));
    assert_eq!(fault.abort.map(|abort| abort.status), Some(AbortStatus::Grpc(tonic::Code::Unavailable)));
    assert_eq!(route.mirrors.len(), 1, "a mirror of 0 % is off");
    assert_eq!(
        route.headers.request.set,
        [("x-a".to_owned(), "100%".to_owned()), ("x-b".to_owned(), "1".to_owned())],
        "by name, and %% is one %"
    );
}

#[test]
fn the_authority_set_as_a_header_is_a_rewrite() {
    let object = read(&route("headers: {request: {set: {Host: other.example.com}}}"));
    assert_eq!(object.http[0].headers.authority.as_deref(), Some("other.example.com"));
    assert!(object.http[0].headers.request.is_empty());
}

#[test]
fn naming_a_gateway_without_mesh_takes_the_mesh_out() {
    let with = |gateways: &str| read(&format!("gateways: {gateways}\n{}", route("")));
    assert!(!with("[front]").for_mesh);
    assert!(with("[front, mesh]").for_mesh);
    assert!(read(&route("")).for_mesh);
    assert_eq!(with("[front]").gateways[0].value, "shop/front");
    assert_eq!(with("[other/front]").gateways[0].value, "other/front");
    assert_eq!(with("[front.other.svc.cluster.local]").gateways[0].value, "other/front");
}

#[test]
fn invalid_objects_are_refused_where_they_are_wrong() {
    let cases: &[(&str, &str)] = &[
        ("hosts: ['*']\nhttp: [{route: [{destination: {host: a}}]}]", "5:11 host `*` is only for gateways"),
        (
            "hosts: [a, a]\nhttp: [{route: [{destination: {host: a}}]}]",
            "5:14 host `a.shop.svc.cluster.local` overlaps",
        ),
        (
            "hosts: ['*.b.com', a.b.com]\nhttp: [{route: [{destination: {host: a}}]}]",
            "5:22 host `a.b.com` overlaps",
        ),
        (
            "hosts: [10.0.0.1]\nhttp: [{route: [{destination: {host: a}}]}]",
            "5:11 host 10.0.0.1 is an IP address",
        ),
        ("hosts: [a]", "3:18 a VirtualService needs `http`, `tls` or `tcp` routes"),
        ("hosts: [a]\nhttp: [{}]", "6:10 an HTTP route needs one of"),
        ("hosts: [a]\nhttp: [{route: []}]", "6:11 a route needs at least one destination"),
        ("hosts: [a]\nhttp: [{route: [{weight: 1}]}]", "6:19 a route destination needs `destination`"),
        (
            "hosts: [a]\nhttp: [{route: [{destination: {host: '*.a'}}]}]",
            "6:40 a destination must be one host",
        ),
        (
            "hosts: [a]\nhttp: [{route: [{destination: {host: a, subset: a_b}}]}]",
            "6:51 \"a_b\" is not a DNS label",
        ),
        (
            "hosts: [a]\nhttp: [{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]}]",
            "6:11 the weights of the destinations sum to zero",
        ),
        (
            "exportTo: ['*', a]\nhosts: [a]\nhttp: [{route: [{destination: {host: a}}]}]",
            "5:14 `*` must stand alone",
        ),
        (
            "exportTo: [., shop]\nhosts: [a]\nhttp: [{route: [{destination: {host: a}}]}]",
            "5:17 namespace `shop` is exported to twice",
        ),
        (
            "exportTo: ['~']\nhosts: [a]\nhttp: [{route: [{destination: {host: a}}]}]",
            "5:14 \"~\" is not a namespace",
        ),
        (&route("timeout: 10"), "8:14 expected a duration like \"10s\", found the number 10"),
        (&route("timeout: soon"), "8:14 \"soon\" is not a duration"),
        (&route("timeout: 0s"), "8:14 must be at least 1ms"),
        (&route("timeout: 1.0001s"), "8:14 duration \"1.0001s\" must be a whole number of milliseconds"),
        (&route("match: [{}]"), "8:13 an empty match"),
        (&route("match: [{headers: {'a b': {exact: x}}}]"), "8:24 \"a b\" is not a header name"),
        (&route("match: [{headers: {a: {prefix: ''}}}]"), "8:36 must not be empty"),
        (&route("match: [{uri: {regex: '('}}]"), "8:27 regular expression \"(\" does not compile"),
        // What the clients' engine takes and RE2 does not.
        (
            &route("match: [{uri: {regex: '(?x)a b'}}]"),
            "8:27 regular expression \"(?x)a b\" does not compile: `(?x)a b` begins no group of RE2",
        ),
        (&route("match: [{uri: {}}]"), "8:19 needs one of `exact`, `prefix` and `regex`"),
        (
            &route("match: [{headers: {'@request.auth.claims[a]': {exact: x}}}]"),
            "8:24 matching on JWT claims works only at a gateway",
        ),
        (&route("match: [{port: 70000}]"), "8:20 70000 is not a port"),
        (&route("fault: {}"), "8:12 fault needs `delay` or `abort`"),
        (
            &route("fault: {delay: {percentage: {value: 101}, fixedDelay: 1s}}"),
            "8:41 101 is not a percentage",
        ),
        (&route("fault: {abort: {percentage: {value: 1}, httpStatus: 199}}"), "8:57 199 is out of range"),
        (
            &route("fault: {abort: {percentage: {value: 1}, grpcStatus: Unavailable}}"),
            "8:57 `Unavailable` is no gRPC status",
        ),
        (
            &route("fault: {delay: {percentage: {value: 1}, exponentialDelay: 1s}}"),
            "8:45 `exponentialDelay` is not implemented",
        ),
        (
            &route("retries: {attempts: 0, perTryTimeout: 1s}"),
            "8:28 `perTryTimeout` needs `attempts` above zero",
        ),
        (&route("retries: {attempts: 1, retryOn: 'a, b'}"), "8:37 \"a\" is not a retry condition"),
        (&route("retries: {attempts: -1}"), "8:25 -1 is out of range"),
        (&route("rewrite: {}"), "8:14 rewrite needs `uri`, `uriRegexRewrite` or `authority`"),
        (
            &route("rewrite: {authority: a}\nheaders: {request: {set: {host: b}}}"),
            "7:5 the authority is rewritten in more than one place",
        ),
        (&route("headers: {request: {set: {':path': b}}}"), "8:31 header `:path` cannot be changed here"),
        (&route("headers: {response: {set: {host: b}}}"), "8:32 header `host` cannot be changed here"),
        (&route("headers: {request: {remove: [host]}}"), "8:34 header `host` cannot be removed"),
        (
            &route("headers: {request: {set: {a: '50%'}}}"),
            "8:34 a `%` in a header's value must be written `%%`",
        ),
        (&route("mirror: {host: a}\nmirrors: [{destination: {host: b}}]"), "9:5 `mirrors` excludes `mirror`"),
        (&route("mirror: {host: a}\nmirrorPercentage: {value: 200}"), "9:31 200 is not a percentage"),
    ];
    assert_refused("VirtualService", cases);
}

#[test]
fn invalid_answers_rewrites_and_delegates_are_refused_where_they_are_wrong() {
    let http = |route: &str| format!("hosts: [a]\nhttp: [{route}]");
    let redirect = |fields: &str| http(&format!("{{redirect: {{{fields}}}}}"));
    let cases = &[
        (http("{delegate: {}}"), "6:21 a delegate needs `name`"),
        (http("{delegate: {name: b}, redirect: {uri: /b}}"), "6:32 `redirect` excludes `delegate`"),
        (
            http("{delegate: {name: b}, directResponse: {status: 200}}"),
            "6:32 `directResponse` excludes `delegate`",
        ),
        ("http: [{delegate: {name: b}}]".into(), "5:11 a delegate must not delegate further"),
        (redirect("redirectCode: 302"), "6:21 a redirect must change something"),
        (redirect("uri: /b, prefixRewrite: /c"), "6:31 `prefixRewrite` excludes `uri`"),
        (redirect("prefixRewrite: /c"), "6:22 `prefixRewrite` needs a prefix match"),
        (redirect("uri: /b, redirectCode: 304"), "6:45 304 is not one of 301"),
        (redirect("uri: /b, redirectCode: 200"), "6:45 200 is out of range"),
        (redirect("scheme: ftp"), "6:30 scheme \"ftp\" is neither http nor https"),
        (redirect("derivePort: FROM_NOWHERE"), "6:34 `FROM_NOWHERE` is not a way to derive a port"),
        (redirect("port: 1, derivePort: FROM_REQUEST_PORT"), "6:31 `derivePort` excludes `port`"),
        (http("{directResponse: {}}"), "6:27 a direct response needs `status`"),
        (http("{directResponse: {status: 600}}"), "6:36 600 is out of range"),
        (
            http("{directResponse: {status: 200, body: {string: a, bytes: YQ==}}}"),
            "6:59 `bytes` excludes `string`",
        ),
        (http("{directResponse: {status: 200, body: {bytes: '?'}}}"), "6:55 `bytes` must be base64"),
        (route("rewrite: {uriRegexRewrite: {match: '(', rewrite: b}}"), "8:32 "),
        (route("rewrite: {uriRegexRewrite: {match: a}}"), "8:32 uriRegexRewrite needs `rewrite`"),
        (
            route("rewrite: {uri: /b, uriRegexRewrite: {match: a, rewrite: b}}"),
            "8:24 `uriRegexRewrite` excludes `uri`",
        ),
    ];
    let cases: Vec<_> = cases.iter().map(|(spec, expected)| (spec.as_str(), *expected)).collect();
    assert_refused("VirtualService", &cases);
}

#[test]
fn what_answers_a_request_is_read() {
    let action = |fields: &str| read(&format!("hosts: [a]\nhttp: [{fields}]")).http[0].action.clone();
    let HttpAction::Redirect(redirect) = action(
        "{redirect: {uri: /b, authority: c, derivePort: FROM_REQUEST_PORT, scheme: https, redirectCode: 308}}",
    ) else {
        panic!()
    };
    let expected = Redirect {
        path: Some(RedirectPath::Whole("/b".into())),
        authority: Some("c".into()),
        port: Some(RedirectPort::OfRequest),
        scheme: Some("https".into()),
        code: 308,
    };
    assert_eq!(redirect, expected);
    let HttpAction::DirectResponse(answer) = action("{directResponse: {status: 503, body: {bytes: aGk=}}}")
    else {
        panic!()
    };
    assert_eq!(answer, DirectResponse { status: 503, body: b"hi".to_vec() });
    let HttpAction::Delegate(delegate) = action("{delegate: {name: b}}") else { panic!() };
    assert_eq!(delegate.value, Delegate { name: "b".into(), namespace: "shop".into() });
    let route = read(&route(
        "match: [{scheme: {exact: https}}]\nrewrite: {uriRegexRewrite: {match: '/(.*)', rewrite: '/x/\\1'}}",
    ));
    assert_eq!(route.http[0].matches[0].scheme, Some(StringMatch::Exact("https".into())));
    let rewritten = UriRewrite::Regex { pattern: "/(.*)".into(), substitution: "/x/\\1".into() };
    assert_eq!(route.http[0].rewrite.as_ref().unwrap().uri, Some(rewritten));
}

#[test]
fn what_this_version_does_not_do_is_refused_or_reported() {
    let refused: &[(&str, &str)] = &[(
        &route("headers: {request: {set: {a: '%REQ(b)%'}}}"),
        "8:34 not supported by this version: `%COMMAND%`",
    )];
    for (spec, expected) in refused {
        let parsed = parsed(&object("VirtualService", spec));
        assert!(
            lines(&parsed)[0].starts_with(&format!("MESH0001 error {expected}")),
            "{:#?}",
            lines(&parsed)
        );
        assert!(parsed.objects.is_empty(), "{spec}");
    }
    let reported: &[(&str, &str)] = &[
        (&route("corsPolicy: {allowCredentials: true}"), "8:5 not supported by this version: `corsPolicy`"),
        (
            "hosts: [a]\ntcp: [{route: [{destination: {host: a}}]}]",
            "6:3 not supported by this version: `tcp` routes",
        ),
        ("hosts: [a]\ntls: [{match: [{sniHosts: [a]}]}]", "6:3 not supported by this version: `tls` routes"),
        (
            &route("retries: {attempts: 1, retryOn: 'reset,http3-post-connect-failure'}"),
            "8:37 not supported by this version: `http3-post-connect-failure` (there is no HTTP/3) has no effect",
        ),
        (&route("match: [{statPrefix: a, port: 1}]"), "8:14 not supported by this version: `statPrefix`"),
    ];
    for (spec, expected) in reported {
        let parsed = parsed(&object("VirtualService", spec));
        assert!(
            lines(&parsed)[0].starts_with(&format!("MESH0001 warning {expected}")),
            "{:#?}",
            lines(&parsed)
        );
        assert_eq!(parsed.objects.len(), 1, "{spec}");
    }
}

#[test]
fn an_unknown_field_in_an_unserved_block_is_still_an_error() {
    let parsed = parsed(&object("VirtualService", &route("corsPolicy: {alowOrigins: []}")));
    assert_eq!(lines(&parsed)[0], "IST0106 error 8:18 unknown field `alowOrigins` in corsPolicy");
    assert_eq!(parsed.findings[0].help.as_deref(), Some("did you mean `allowOrigins`?"));
}
