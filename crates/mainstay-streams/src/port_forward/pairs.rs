//! Two streams make a connection: one for data, one for what went wrong.
//!
//! Source: `httpStreamHandler` in
//! `staging/src/k8s.io/cri-streaming/pkg/streaming/portforward/httpstream.go`.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::{Connection, Data};
use crate::pipe::{PipeReader, PipeWriter};
use crate::spdy::connection::Stream;
use crate::spdy::headers::Headers;

/// What a stream is half of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Half {
    is_error: bool,
    port: u16,
    /// The same for both halves.
    request: String,
}

/// The connections that have one half.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    incomplete: HashMap<String, Incomplete>,
}

#[derive(Debug)]
struct Incomplete {
    since: Instant,
    data: Option<(u16, Data)>,
    /// The reading end is kept so that the stream is not over for the client.
    error: Option<(PipeReader, PipeWriter)>,
}

// === impl Half ===

impl Half {
    /// Reads the headers of a stream, or says why it is refused.
    pub(super) fn judge(id: u32, headers: &Headers) -> Result<Self, String> {
        let required =
            |name: &str| headers.get(name).ok_or_else(|| format!("{name:?} header is required"));
        let port = required("port")?;
        let port = match port.parse() {
            Ok(0) => return Err(format!("port {port:?} must be > 0")),
            Ok(port) => port,
            Err(error) => return Err(format!("unable to parse {port:?} as a port: {error}")),
        };
        let is_error = match required("streamType")? {
            "error" => true,
            "data" => false,
            other => return Err(format!("invalid stream type {other:?}")),
        };
        // Old clients give no number; they open the error stream and then the data stream.
        let assumed = || if is_error { id } else { id.saturating_sub(2) }.to_string();
        let request = headers.get("requestID").map_or_else(assumed, str::to_owned);
        Ok(Self { is_error, port, request })
    }
}

// === impl Pairs ===

impl Pairs {
    /// Adds a stream; the connection that it completes, if it does.
    pub(super) fn add(&mut self, stream: Stream<Half>, now: Instant) -> Option<Connection> {
        let Stream { kind: Half { is_error, port, request }, read, write, .. } = stream;
        let incomplete = self.incomplete.entry(request.clone()).or_insert(Incomplete {
            since: now,
            data: None,
            error: None,
        });
        let twice = if is_error { incomplete.error.is_some() } else { incomplete.data.is_some() };
        if twice {
            let kind = if is_error { "error" } else { "data" };
            incomplete.report(&format!(
                "error processing stream for request {request}: {kind} stream already assigned"
            ));
            write.fail(io::ErrorKind::ConnectionAborted);
            return None;
        }
        if is_error {
            incomplete.error = Some((read, write));
        } else {
            incomplete.data = Some((port, Data { read, write }));
        }
        if incomplete.data.is_none() || incomplete.error.is_none() {
            return None;
        }
        let Incomplete { data, error, .. } = self.incomplete.remove(&request)?;
        let ((port, data), (_, error)) = (data?, error?);
        Some(Connection { port, data, error })
    }

    /// When the next half has waited long enough.
    pub(super) fn expiry(&self, limit: Duration) -> Option<Instant> {
        self.incomplete.values().map(|incomplete| incomplete.since + limit).min()
    }

    /// Gives up the halves that have waited long enough.
    pub(super) fn expire(&mut self, now: Instant, limit: Duration) {
        for (request, incomplete) in
            self.incomplete.extract_if(|_, incomplete| incomplete.since + limit <= now)
        {
            incomplete.report(&format!("(request={request}) timed out waiting for streams"));
            incomplete.fail();
        }
    }
}

// === impl Incomplete ===

impl Incomplete {
    fn report(&self, message: &str) {
        if let Some((_, error)) = &self.error {
            error.write_now(message.as_bytes());
        }
    }

    fn fail(&self) {
        let writers = [
            self.data.as_ref().map(|(_, data)| &data.write),
            self.error.as_ref().map(|(_, error)| error),
        ];
        for writer in writers.into_iter().flatten() {
            writer.fail(io::ErrorKind::TimedOut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        type Case = (&'static [(&'static str, &'static str)], Judged);
        type Judged = Result<(bool, u16, &'static str), &'static str>;
        let cases: [Case; 9] = [
            (&[("streamtype", "data")], Err("\"port\" header is required")),
            (
                &[("port", "abc"), ("streamtype", "data")],
                Err("unable to parse \"abc\" as a port: invalid digit found in string"),
            ),
            (
                &[("port", "-1"), ("streamtype", "data")],
                Err("unable to parse \"-1\" as a port: invalid digit found in string"),
            ),
            (&[("port", "0"), ("streamtype", "data")], Err("port \"0\" must be > 0")),
            (&[("port", "80")], Err("\"streamType\" header is required")),
            (&[("port", "80"), ("streamtype", "foo")], Err("invalid stream type \"foo\"")),
            (&[("port", "80"), ("streamtype", "error")], Ok((true, 80, "7"))),
            (&[("port", "80"), ("streamtype", "data")], Ok((false, 80, "5"))),
            (
                &[("Port", "65535"), ("streamType", "data"), ("requestID", "x\0y")],
                Ok((false, 65535, "x")),
            ),
        ];
        for (headers, expected) in cases {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let judged = Half::judge(7, &Headers(headers.iter().map(owned).collect()));
            let expected = expected.map_err(str::to_owned).map(|(is_error, port, request)| Half {
                is_error,
                port,
                request: request.to_owned(),
            });
            assert_eq!(judged, expected, "{headers:?}");
        }
    }
}
