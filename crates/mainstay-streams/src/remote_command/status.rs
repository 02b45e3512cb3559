//! How a command ended, in the words of the error stream.
//!
//! Source: `staging/src/k8s.io/cri-streaming/pkg/streaming/remotecommand/exec.go` and
//! `codeExitToStatusError` in `staging/src/k8s.io/apiserver/pkg/util/proxy/streamtranslator.go`.

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended with this code, or the process one was attached to has ended (0).
    /// Clients take 0 to 255.
    Exited(i32),
    /// There was no process to wait for, or it was lost: what went wrong, such as
    /// `error executing command in container: no such file`.
    Failed(String),
}

// === impl Outcome ===

impl Outcome {
    /// The `Status` object of version 4 and later.
    pub(super) fn to_json(&self) -> String {
        match (self, self.message()) {
            (_, None) => r#"{"metadata":{},"status":"Success"}"#.to_owned(),
            (Self::Exited(code), Some(message)) => format!(
                r#"{{"metadata":{{}},"status":"Failure","message":{},"reason":"NonZeroExitCode","details":{{"causes":[{{"reason":"ExitCode","message":"{code}"}}]}}}}"#,
                quoted(message)
            ),
            (Self::Failed(_), Some(message)) => format!(
                r#"{{"metadata":{{}},"status":"Failure","message":{},"reason":"InternalError","code":500}}"#,
                quoted(message)
            ),
        }
    }

    /// What such an object says; `None` for what is none.
    pub(crate) fn of_json(text: &[u8]) -> Option<Self> {
        let status: serde_json::Value = serde_json::from_slice(text).ok()?;
        if status.get("status")? == "Success" {
            return Some(Self::Exited(0));
        }
        let causes = status.pointer("/details/causes").and_then(|causes| causes.as_array());
        let code = causes.into_iter().flatten().find(|cause| cause["reason"] == "ExitCode");
        let code = code.and_then(|cause| cause["message"].as_str()?.parse().ok());
        let message = status.get("message").and_then(|message| message.as_str());
        Some(match code {
            Some(code) if status["reason"] == "NonZeroExitCode" => Self::Exited(code),
            _ => Self::Failed(message.unwrap_or_default().to_owned()),
        })
    }

    /// What the versions before say, where success is said by nothing.
    pub(super) fn to_text(&self) -> Option<String> {
        self.message()
    }

    fn message(&self) -> Option<String> {
        match self {
            Self::Exited(0) => None,
            Self::Exited(code) => Some(format!(
                "command terminated with non-zero exit code: command terminated with exit code \
                 {code}"
            )),
            Self::Failed(message) => Some(format!("Internal error occurred: {message}")),
        }
    }
}

fn quoted(text: String) -> String {
    serde_json::Value::String(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn the_words_of_kubernetes() {
        let cases = [
            (Outcome::Exited(0), r#"{"metadata":{},"status":"Success"}"#, None),
            (
                Outcome::Exited(3),
                r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: command terminated with exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#,
                Some(
                    "command terminated with non-zero exit code: command terminated with exit \
                     code 3",
                ),
            ),
            (
                Outcome::Failed("error executing command in container: no \"sh\"".into()),
                r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: error executing command in container: no \"sh\"","reason":"InternalError","code":500}"#,
                Some("Internal error occurred: error executing command in container: no \"sh\""),
            ),
        ];
        for (outcome, json, text) in cases {
            assert_eq!(outcome.to_json(), json);
            let back = Outcome::of_json(json.as_bytes()).unwrap();
            match (&outcome, back) {
                (Outcome::Failed(why), Outcome::Failed(told)) => assert!(told.ends_with(why)),
                (outcome, back) => assert_eq!(*outcome, back),
            }
            assert_eq!(outcome.to_text().as_deref(), text);
        }
        for none in ["", "{}", "[]", "not JSON"] {
            assert_eq!(Outcome::of_json(none.as_bytes()), None);
        }
    }
}
