//! What a probe asks for.
//!
//! Source: `pkg/kubelet/prober/prober.go` (`runProbe`), `pkg/probe/http/request.go`,
//! `pkg/probe/util.go`.

use std::fmt::Write;
use std::net::Ipv6Addr;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::translate::expand::expand;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A command in the container that ends with 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// An answer to a request.
    Http(HttpGet),
    /// Somebody who listens.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// An answer of `grpc.health.v1.Health`.
    Grpc {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
        /// Of what; empty for the server as a whole.
        service: String,
    },
}

/// A request for a probe or a lifecycle hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// Whether it goes over TLS, with whomever.
    pub tls: bool,
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as in the URL: a redirect may leave the port out.
    pub authority: String,
    /// Path and query, as they are sent.
    pub path: String,
    /// Its headers, with `User-Agent` and `Accept` unless they are not wanted. `Host` is the name that
    /// is asked for in the place of the host.
    pub headers: Vec<(String, String)>,
}

/// Host and port with a colon between; IPv6 addresses in brackets. Source: Go's `net.JoinHostPort`.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What a probe of a container asks for.
///
/// # Errors
///
/// What keeps it from being asked, in the kubelet's words.
pub fn check(probe: &Probe, container: &Container, pod_ip: &str) -> Result<Check, String> {
    if let Some(exec) = &probe.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        return Ok(Check::Exec { command: expand_command(command, container) });
    }
    if let Some(action) = &probe.http_get {
        return http_get(action, container, pod_ip, "probe").map(Check::Http);
    }
    let host = |host: Option<&String>| match host.filter(|host| !host.is_empty()) {
        Some(host) => unbracketed(host),
        None => pod_ip.to_owned(),
    };
    if let Some(socket) = &probe.tcp_socket {
        let port = port_of(&socket.port, container)?;
        return Ok(Check::Tcp { host: host(socket.host.as_ref()), port });
    }
    if let Some(grpc) = &probe.grpc {
        let port = number(i64::from(grpc.port))?;
        let service = grpc.service.clone().unwrap_or_default();
        return Ok(Check::Grpc { host: pod_ip.to_owned(), port, service });
    }
    // Validation refuses it, but not in a pod that another version of mainstay stored.
    Err(format!("missing probe handler for {}", container.name))
}

/// A command with the container's variables that have values in the manifest. Source:
/// `ExpandContainerCommandOnlyStatic`.
pub fn expand_command(command: &[String], container: &Container) -> Vec<String> {
    let lookup = |name: &str| {
        let mut of_name = container.env.iter().flatten().rev().filter(|it| it.name == name);
        of_name.next().map(|variable| variable.value.clone().unwrap_or_default())
    };
    command.iter().map(|word| expand(word, lookup)).collect()
}

/// The request of a probe (`purpose` is `probe`) or of a lifecycle hook (`lifecycle`).
///
/// # Errors
///
/// What is wrong with the port, in the kubelet's words.
pub fn http_get(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    purpose: &str,
) -> Result<HttpGet, String> {
    let port = port_of(&action.port, container)?;
    let host = action.host.as_ref().filter(|host| !host.is_empty());
    let given = action.http_headers.iter().flatten();
    let mut headers: Vec<(String, String)> =
        given.map(|header| (header.name.clone(), header.value.clone())).collect();
    let value = |headers: &[(String, String)], name: &str| {
        let mut of_name = headers.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        of_name.next().map(|(_, value)| value.clone())
    };
    for (name, default) in [("User-Agent", &format!("kube-{purpose}/1.36")[..]), ("Accept", "*/*")]
    {
        match value(&headers, name) {
            None => headers.push((name.to_owned(), default.to_owned())),
            Some(given) if given.is_empty() => {
                headers.retain(|(it, _)| !it.eq_ignore_ascii_case(name));
            }
            Some(_) => {}
        }
    }
    let host = host.map_or_else(|| pod_ip.to_owned(), |host| unbracketed(host));
    Ok(HttpGet {
        tls: action.scheme.as_deref().is_some_and(|it| it.eq_ignore_ascii_case("https")),
        authority: join_host_port(&host, port),
        host,
        port,
        path: request_path(action.path.as_deref().unwrap_or_default()),
        headers,
    })
}

pub(super) fn unbracketed(host: &str) -> String {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let inner = inner.filter(|inner| inner.parse::<Ipv6Addr>().is_ok());
    inner.unwrap_or(host).to_owned()
}

/// Source: `ResolveContainerPort`.
pub(crate) fn port_of(port: &IntOrString, container: &Container) -> Result<u16, String> {
    match port {
        IntOrString::Int(port) => number(i64::from(*port)),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            if let Some(port) = ports.find(|port| port.name.as_ref() == Some(name)) {
                return number(i64::from(port.container_port));
            }
            match name.parse::<i64>() {
                Ok(port) => number(port),
                Err(_) => Err(format!("strconv.Atoi: parsing {name:?}: invalid syntax")),
            }
        }
    }
}

fn number(port: i64) -> Result<u16, String> {
    let valid = u16::try_from(port).ok().filter(|port| *port > 0);
    valid.ok_or_else(|| format!("invalid port number: {port}"))
}

/// The path and query of a manifest, as Go sends them: whole URLs give theirs, a slash comes first, and
/// what has no place in a URL is encoded. Source: `formatURL`, and `net/url` of Go.
pub(super) fn request_path(written: &str) -> String {
    let whole = decode(written.split(['?', '#']).next().unwrap_or_default()).is_some()
        && !written.bytes().any(|byte| byte < b' ' || byte == 0x7f);
    if !whole {
        // It is no URL, so all of it is taken for the path.
        return with_slash(encode(written.as_bytes(), is_path));
    }
    let written = written.split('#').next().unwrap_or_default();
    let (path, query) = match written.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (written, None),
    };
    let path = without_authority(path);
    let path = match path.bytes().all(|byte| is_path(byte) || b"%!'()*[]".contains(&byte)) {
        true => path.to_owned(),
        false => encode(&decode(path).unwrap_or_default(), is_path),
    };
    let mut sent = with_slash(path);
    if let Some(query) = query {
        sent.push('?');
        sent.push_str(&encode(query.as_bytes(), |byte| byte.is_ascii_graphic()));
    }
    sent
}

fn with_slash(path: String) -> String {
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// What follows `scheme://host` or `//host`.
fn without_authority(path: &str) -> &str {
    let after = match path.split_once("://") {
        Some((scheme, after)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            Some(after)
        }
        _ => path.strip_prefix("//"),
    };
    match after {
        Some(after) => after.find('/').map_or("", |at| &after[at..]),
        None => path,
    }
}

/// Source: `shouldEscape` of Go's `net/url` for paths.
fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte)
}

fn encode(bytes: &[u8], stays: impl Fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if stays(*byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// `None` when an escape is not whole.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let [high, low] = digits else { return None };
        bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
