use http::Request;

use super::*;

const PROTOCOLS: [(&str, u8); 3] = [("v4", 4), ("v3", 3), ("", 0)];

fn parts(method: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri("/exec");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

type Header = (&'static str, &'static str);

const WEBSOCKET: [Header; 4] = [
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "WebSocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];

#[test]
fn which_way() {
    let cases: [(&[Header], Result<Transport, u16>); 5] = [
        (&[], Err(400)),
        (&[("Upgrade", "websocket")], Err(400)),
        (&[("Connection", "close"), ("Upgrade", "websocket")], Err(400)),
        (&[("Connection", "upgrade"), ("Upgrade", "SPDY/3.1")], Ok(Transport::Spdy)),
        (&WEBSOCKET, Ok(Transport::WebSocket)),
    ];
    for (headers, expected) in cases {
        let found = transport(&parts("GET", headers).headers);
        assert_eq!(found.map_err(|refusal| refusal.status.as_u16()), expected, "{headers:?}");
    }
    let refusal = transport(&HeaderMap::new()).unwrap_err();
    assert_eq!(refusal.to_string(), "Upgrade request required");
}

#[test]
fn spdy_protocols() {
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "spdy/3.1")];
    let with = |more: &[(&'static str, &'static str)]| [&upgrade, more].concat();
    // The client's order decides, whether in one header or in several.
    for offered in [
        &[("X-Stream-Protocol-Version", "v9, v3,v4")][..],
        &[("X-Stream-Protocol-Version", "v9"), ("X-Stream-Protocol-Version", "v3")],
    ] {
        let (protocol, response) = spdy(&parts("POST", &with(offered)), &PROTOCOLS).unwrap();
        assert_eq!(protocol, 3);
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["connection"], "Upgrade");
        assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
        assert_eq!(response.headers()["x-stream-protocol-version"], "v3");
    }
    let cases: [(Vec<Header>, u16, &str); 4] = [
        (
            with(&[("Host", "node")]),
            400,
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with \
             2 headers",
        ),
        (
            with(&[("X-Stream-Protocol-Version", " ,")]),
            400,
            "unable to upgrade: header X-Stream-Protocol-Version contains no valid protocols",
        ),
        (
            with(&[("X-Stream-Protocol-Version", "v9,v8")]),
            403,
            "unable to upgrade: unable to negotiate protocol: client supports [v9 v8], server \
             accepts [v4 v3 ]",
        ),
        (
            vec![("Connection", "Upgrade"), ("X-Stream-Protocol-Version", "v4")],
            400,
            "unable to upgrade: missing upgrade headers in request: `Upgrade: SPDY/3.1` or \
             `Upgrade: websocket` is needed",
        ),
    ];
    for (headers, status, message) in cases {
        let refusal = spdy(&parts("POST", &headers), &PROTOCOLS).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.message.as_str()), (status, message));
        assert_eq!(refusal.headers.len(), if status == 403 { PROTOCOLS.len() } else { 0 });
    }
}

#[test]
fn websocket_protocols() {
    // The key and the answer are the example of RFC 6455, section 1.3.
    for (offered, chosen) in [(Some("v9, v3"), 3), (Some("v4"), 4), (None, 0), (Some(""), 0)] {
        let offered = offered.map(|offered| ("Sec-WebSocket-Protocol", offered));
        let headers = WEBSOCKET.into_iter().chain(offered).collect::<Vec<_>>();
        let (protocol, response) = websocket(&parts("GET", &headers), &PROTOCOLS).unwrap();
        assert_eq!(protocol, chosen);
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["upgrade"], "websocket");
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let answered = response.headers().get("sec-websocket-protocol");
        assert_eq!(answered.is_some(), chosen != 0, "an empty name is not answered");
    }
    let without =
        |name: &str| WEBSOCKET.into_iter().filter(|(found, _)| *found != name).collect::<Vec<_>>();
    let unknown = [&WEBSOCKET[..], &[("Sec-WebSocket-Protocol", "v9")]].concat();
    for (method, headers, status) in [
        ("POST", WEBSOCKET.to_vec(), 405),
        ("GET", without("Sec-WebSocket-Key"), 400),
        ("GET", without("Sec-WebSocket-Version"), 400),
        ("GET", unknown, 403),
    ] {
        let refusal = websocket(&parts(method, &headers), &PROTOCOLS).unwrap_err();
        assert_eq!(refusal.status.as_u16(), status, "{headers:?}");
        assert!(refusal.message.starts_with("unable to upgrade: "), "{refusal}");
    }
}
