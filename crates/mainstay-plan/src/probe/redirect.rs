//! Where an answer sends a request.
//!
//! Source: `RedirectChecker` in `pkg/probe/http/http.go`, and `Client.do` of Go's `net/http`.

use super::HttpGet;
use super::check::{request_path, unbracketed};

/// What follows from a `Location`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// The next request.
    To(Box<HttpGet>),
    /// It leads to another host, and is not followed.
    Elsewhere,
    /// It leads nowhere; why, in Go's words.
    Broken(String),
}

impl HttpGet {
    /// As in a message.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.path)
    }

    /// Where a `Location` leads from this request.
    pub fn redirected(&self, location: &str) -> Redirect {
        let (location, _) = location.split_once('#').unwrap_or((location, ""));
        let (scheme, rest) = match location.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?']) => (Some(scheme), rest),
            _ => match location.strip_prefix("//") {
                Some(rest) => (Some(if self.tls { "https" } else { "http" }), rest),
                None => (None, location),
            },
        };
        let Some(scheme) = scheme else {
            let path = request_path(&self.joined(rest));
            return Redirect::To(Box::new(self.next(Self { path, ..self.clone() })));
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => return Redirect::Broken(format!("unsupported protocol scheme {other:?}")),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
        let Some((host, port)) = split(authority, tls) else {
            return Redirect::Broken(format!(
                "failed to parse Location header {location:?}: invalid host or port"
            ));
        };
        if host != self.host {
            return Redirect::Elsewhere;
        }
        let mut next = Self {
            tls,
            host,
            port,
            authority: authority.to_owned(),
            path: request_path(&without_dots(path)),
            headers: self.headers.clone(),
        };
        // The name was for whom it was first asked of.
        next.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Host"));
        Redirect::To(Box::new(self.next(next)))
    }

    /// The next request says where it comes from, unless that is a secret.
    fn next(&self, mut next: Self) -> Self {
        next.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Referer"));
        if !self.tls || next.tls {
            next.headers.push(("Referer".to_owned(), self.url()));
        }
        next
    }

    /// A relative reference as a path and query. Source: RFC 3986, section 5.2.
    fn joined(&self, reference: &str) -> String {
        let (path, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
        match reference.as_bytes().first() {
            None => self.path.clone(),
            Some(b'/') => without_dots(reference),
            Some(b'?') => format!("{path}{reference}"),
            Some(_) => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                without_dots(&format!("{directory}/{reference}"))
            }
        }
    }
}

/// Host and port of an authority.
fn split(authority: &str, tls: bool) -> Option<(String, u16)> {
    let at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (host, port) = match at {
        Some(at) => (&authority[..at], authority[at + 1..].parse().ok()?),
        None => (authority, if tls { 443 } else { 80 }),
    };
    (!host.is_empty()).then(|| (unbracketed(host), port))
}

/// Without `.` and `..` in the path.
fn without_dots(reference: &str) -> String {
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => {
                kept.push(other);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    let path = format!("/{}", kept.join("/"));
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> HttpGet {
        HttpGet {
            tls: false,
            host: "10.0.0.2".into(),
            port: 8080,
            authority: "10.0.0.2:8080".into(),
            path: "/a/b?c".into(),
            headers: vec![("Host".into(), "web".into()), ("X".into(), "y".into())],
        }
    }

    #[test]
    fn locations_are_followed_on_the_same_host() {
        for (location, expected) in [
            ("/x", "http://10.0.0.2:8080/x"),
            ("/x?y#z", "http://10.0.0.2:8080/x?y"),
            ("x", "http://10.0.0.2:8080/a/x"),
            ("../x/./y/..", "http://10.0.0.2:8080/x/"),
            ("../../../x", "http://10.0.0.2:8080/x"),
            ("?q", "http://10.0.0.2:8080/a/b?q"),
            ("", "http://10.0.0.2:8080/a/b?c"),
            ("http://10.0.0.2/x", "http://10.0.0.2/x"),
            ("HTTPS://10.0.0.2:99", "https://10.0.0.2:99/"),
            ("//10.0.0.2:8081/x", "http://10.0.0.2:8081/x"),
            ("http://u:p@10.0.0.2/?x", "http://10.0.0.2/?x"),
            ("/x y", "http://10.0.0.2:8080/x%20y"),
        ] {
            match first().redirected(location) {
                Redirect::To(next) => assert_eq!(next.url(), expected, "{location}"),
                other => panic!("{location}: {other:?}"),
            }
        }
        let Redirect::To(next) = first().redirected("https://10.0.0.2/x") else { panic!() };
        assert_eq!((next.port, next.tls), (443, true));
    }

    #[test]
    fn other_hosts_are_left_alone() {
        for location in ["http://10.0.0.3:8080/", "//web/", "https://localhost"] {
            assert_eq!(first().redirected(location), Redirect::Elsewhere, "{location}");
        }
        for location in ["ftp://10.0.0.2/", "http://10.0.0.2:x/", "http:///x"] {
            let next = first().redirected(location);
            assert!(matches!(next, Redirect::Broken(_)), "{location}: {next:?}");
        }
    }

    #[test]
    fn a_name_and_where_it_comes_from_go_with_it() {
        let headers = |location: &str| {
            let Redirect::To(next) = first().redirected(location) else { panic!("{location}") };
            let line = |(name, value): &(String, String)| format!("{name}: {value}");
            next.headers.iter().map(line).collect::<Vec<_>>().join(", ")
        };
        let referer = "Referer: http://10.0.0.2:8080/a/b?c";
        assert_eq!(headers("/x"), format!("Host: web, X: y, {referer}"));
        assert_eq!(headers("http://10.0.0.2/x"), format!("X: y, {referer}"));
        let Redirect::To(tls) = first().redirected("https://10.0.0.2/x") else { panic!() };
        let Redirect::To(plain) = tls.redirected("http://10.0.0.2/x") else { panic!() };
        assert_eq!(plain.headers.len(), 1);
    }
}
