//! Asking a server as fast as it answers, with `wrk`.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::servers;
use crate::process;

/// How a server answered.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Answers in a second.
    pub(crate) rate: f64,
    /// Milliseconds to an answer: the median, and what 99 of 100 stay below.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Asks servers.
pub(crate) struct Wrk {
    /// Where the tools are.
    pub(crate) tools: PathBuf,
    /// Where scripts are written.
    pub(crate) directory: PathBuf,
    pub(crate) duration: Duration,
}

/// The last line of what wrk prints.
#[derive(Deserialize)]
struct Summary {
    requests: u64,
    microseconds: u64,
    /// Of the requests, those that had no answer or a refusal.
    failed: u64,
    p50: f64,
    p99: f64,
}

/// What makes it print that. Source: wrk, `SCRIPTING`.
const SUMMARY: &str = r#"
function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'SUMMARY {"requests":%d,"microseconds":%d,"failed":%d,"p50":%d,"p99":%d}\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"#;

/// What gives each thread a number, and each of its requests one. Names are made of both, and of
/// which run it is.
const NUMBERS: &str = r#"
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end
local requests = 0
local function name(format)
  requests = requests + 1
  return string.format(format, RUN, number, requests)
end
"#;

impl Wrk {
    /// Gets the same again and again.
    pub(crate) fn get(&self, url: &str, token: &str, connections: usize) -> anyhow::Result<Load> {
        let script = format!("{}{SUMMARY}", authorization(token));
        self.run(url, &script, connections)
    }

    /// Posts `body` with another name each time: in place of `NAME` in it is what `format` makes of
    /// `run`, the number of the thread and that of the request. `run` is one digit.
    pub(crate) fn post(
        &self,
        url: &str,
        token: &str,
        connections: usize,
        run: usize,
        (body, format): (&str, &str),
    ) -> anyhow::Result<Load> {
        let script = format!(
            "RUN = {run}\n{}{NUMBERS}\nwrk.headers[\"Content-Type\"] = \"application/json\"\n\
             local body = [==[{body}]==]\n\
             function request()\n  \
             return wrk.format(\"POST\", nil, nil, (body:gsub(\"NAME\", name(\"{format}\"))))\n\
             end\n{SUMMARY}",
            authorization(token)
        );
        self.run(url, &script, connections)
    }

    fn run(&self, url: &str, script: &str, connections: usize) -> anyhow::Result<Load> {
        let path = self.directory.join("wrk.lua");
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = servers::from_tree(&self.tools.join("wrk"), "usr/bin/wrk")?;
        // Two threads suffice for what a small machine answers, and leave it some time to do so.
        command.arg(format!("--threads={}", connections.min(2)));
        command.arg(format!("--connections={connections}"));
        command.arg(format!("--duration={}s", self.duration.as_secs()));
        command.arg("--timeout=10s").arg("--script").arg(&path).arg(url);
        let output = process::output(&mut command)?;
        let load = Load::read(&output);
        load.with_context(|| format!("{url} was not measured; wrk printed\n{output}"))
    }
}

/// The header of every request.
fn authorization(token: &str) -> String {
    match token {
        "" => String::new(),
        token => format!("wrk.headers[\"Authorization\"] = \"Bearer {token}\"\n"),
    }
}

// === impl Load ===

impl Load {
    #[expect(clippy::cast_precision_loss, reason = "there are not that many requests")]
    fn read(output: &str) -> anyhow::Result<Self> {
        let summary = output.lines().find_map(|line| line.strip_prefix("SUMMARY "));
        let summary: Summary = serde_json::from_str(summary.context("there is no summary")?)?;
        let Summary { requests, microseconds, failed, .. } = summary;
        ensure!(failed == 0, "{failed} of {requests} requests failed");
        ensure!(requests > 0 && microseconds > 0, "nothing was answered");
        Ok(Self {
            rate: requests as f64 / microseconds as f64 * 1e6,
            p50: summary.p50 / 1000.0,
            p99: summary.p99 / 1000.0,
        })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s, p50 {:.2} ms, p99 {:.2}", self.rate, self.p50, self.p99)
    }
}

#[cfg(test)]
mod tests {
    use super::Load;

    #[test]
    fn a_failed_request_is_no_measurement() {
        let summary = |failed| {
            format!(
                "Running 1s test\nSUMMARY {{\"requests\":500,\"microseconds\":2000000,\
                 \"failed\":{failed},\"p50\":1500,\"p99\":9000}}\n"
            )
        };
        let load = Load::read(&summary(0)).unwrap();
        assert_eq!(load.to_string(), "250/s, p50 1.50 ms, p99 9.00");
        assert!(Load::read(&summary(1)).is_err());
        assert!(Load::read("Running 1s test\n").is_err());
    }
}
