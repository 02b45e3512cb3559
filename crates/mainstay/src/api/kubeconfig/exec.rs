//! Credentials that a program brings, as some clouds have it for nodes.
//!
//! Source: `staging/src/k8s.io/client-go/plugin/pkg/client/auth/exec/exec.go`, `ExecCredential` of
//! `client.authentication.k8s.io`.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use mainstay_engine::program;
use serde::Deserialize;
use serde_json::{Value, json};

/// A program, as a kubeconfig's user names it.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Exec {
    command: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    api_version: String,
    #[serde(default)]
    install_hint: String,
    #[serde(default)]
    provide_cluster_info: bool,
    #[serde(default)]
    interactive_mode: Option<String>,
    /// The cluster, for programs that want to know.
    #[serde(skip)]
    cluster: Value,
}

#[derive(Clone, PartialEq, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

/// What a program has brought.
#[derive(Clone)]
pub(in crate::api) struct Brought {
    pub(super) token: Option<String>,
    pub(super) certificate: Option<(String, String)>,
    /// Until when it is good; `None` is for ever.
    pub(in crate::api) until: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    token: String,
    #[serde(default)]
    client_certificate_data: String,
    #[serde(default)]
    client_key_data: String,
    #[serde(default)]
    expiration_timestamp: Option<Timestamp>,
}

impl Exec {
    /// As the user of a kubeconfig in this directory says it.
    pub(super) fn read(
        user: &Value,
        cluster: &Value,
        directory: &Path,
    ) -> anyhow::Result<Option<Self>> {
        let said = &user["exec"];
        if said.is_null() {
            return Ok(None);
        }
        let mut exec: Self = serde_json::from_value(said.clone()).context("exec")?;
        let known = ["v1", "v1beta1"].map(|it| format!("client.authentication.k8s.io/{it}"));
        let version = &exec.api_version;
        ensure!(known.contains(version), "exec: apiVersion {version:?} is none of {known:?}");
        ensure!(
            exec.interactive_mode.as_deref() != Some("Always"),
            "exec: interactiveMode is Always, and nobody is there to ask"
        );
        // A bare name is looked for where programs are.
        if exec.command.contains('/') {
            exec.command = directory.join(&exec.command).to_string_lossy().into_owned();
        }
        exec.cluster = cluster.clone();
        Ok(Some(exec))
    }

    /// Runs it.
    ///
    /// # Errors
    ///
    /// When it cannot be run, fails, or brings nothing that is of use; it names the program.
    pub(in crate::api) async fn run(&self) -> anyhow::Result<Brought> {
        let command = &self.command;
        let mut asked = json!({
            "apiVersion": self.api_version,
            "kind": "ExecCredential",
            "spec": { "interactive": false },
        });
        if self.provide_cluster_info {
            asked["spec"]["cluster"] = self.cluster.clone();
        }
        let own = self.env.iter().flatten().map(|it| (it.name.clone(), it.value.clone()));
        let info = ("KUBERNETES_EXEC_INFO".to_owned(), asked.to_string());
        let environment: Vec<_> = own.chain([info]).collect();
        let arguments = self.args.as_deref().unwrap_or_default();
        let answer = program::run(command, arguments, &environment, b"").await;
        let answer = answer.map_err(|error| match self.install_hint.as_str() {
            "" => anyhow::anyhow!("exec: {command}: {error}"),
            hint => anyhow::anyhow!("exec: {command}: {error}; {hint}"),
        })?;
        if !answer.success {
            bail!("exec: {command} failed: {}", answer.complaint);
        }
        self.judge(&answer.output).with_context(|| format!("exec: {command}"))
    }

    fn judge(&self, output: &[u8]) -> anyhow::Result<Brought> {
        // What it is in the way of is not shown: it may be a secret.
        let answer: Option<Answer> = serde_json::from_slice(output).ok();
        let answer = answer.filter(|it| it.kind == "ExecCredential");
        let answer = answer.context("what it wrote is no ExecCredential")?;
        let (wanted, got) = (&self.api_version, &answer.api_version);
        ensure!(
            wanted == got,
            "exec plugin is configured to use API version {wanted}, plugin returned version {got}"
        );
        let status = answer.status.context("exec plugin didn't return a status field")?;
        let said = |text: String| Some(text).filter(|it| !it.is_empty());
        let (certificate, key) =
            (said(status.client_certificate_data), said(status.client_key_data));
        ensure!(
            certificate.is_some() == key.is_some(),
            "exec plugin returned only certificate or key, not both"
        );
        let (token, certificate) = (said(status.token), certificate.zip(key));
        ensure!(
            token.is_some() || certificate.is_some(),
            "exec plugin didn't return a token or cert/key pair"
        );
        Ok(Brought { token, certificate, until: status.expiration_timestamp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(script: &str) -> Exec {
        let said = json!({ "exec": {
            "command": "sh", "args": ["-c", script, "plugin"], "installHint": "install sh",
            "env": [{ "name": "OWN", "value": "own" }], "provideClusterInfo": true,
            "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        }});
        let cluster = json!({ "server": "https://a:1" });
        Exec::read(&said, &cluster, Path::new("/etc/k")).unwrap().unwrap()
    }

    fn answer(status: &str) -> String {
        let version = "client.authentication.k8s.io/v1";
        format!(r#"echo '{{"apiVersion":"{version}","kind":"ExecCredential","status":{status}}}'"#)
    }

    #[tokio::test]
    async fn programs_bring_credentials() {
        let status = r#"{"token":"'$OWN'","expirationTimestamp":"2027-01-01T00:00:00Z"}"#;
        let brought = exec(&answer(status)).run().await.unwrap();
        assert_eq!(brought.token.as_deref(), Some("own"));
        assert_eq!(brought.until, Some("2027-01-01T00:00:00Z".parse().unwrap()));
        let told = answer(r#"{"token":"'$(echo $KUBERNETES_EXEC_INFO | tr -d \\\"{})'"}"#);
        let told = exec(&told).run().await.unwrap().token.unwrap();
        assert!(
            told.contains("interactive:false") && told.contains("server:https://a:1"),
            "{told}"
        );
        for (script, expected) in [
            ("echo no >&2; exit 3".to_owned(), "exec: sh failed: no"),
            ("echo secret".to_owned(), "exec: sh: what it wrote is no ExecCredential"),
            (answer("null"), "exec: sh: exec plugin didn't return a status field"),
            (answer("{}"), "exec: sh: exec plugin didn't return a token or cert/key pair"),
            (
                answer(r#"{"clientKeyData":"a"}"#),
                "exec: sh: exec plugin returned only certificate or key, not both",
            ),
        ] {
            let error = exec(&script).run().await.err().unwrap();
            assert_eq!(format!("{error:#}"), expected);
        }
        let missing = Exec { command: "/no/such/program".to_owned(), ..exec("") };
        let error = format!("{:#}", missing.run().await.err().unwrap());
        assert!(error.starts_with("exec: /no/such/program: it cannot be run"), "{error}");
        assert!(error.ends_with("; install sh"), "{error}");
    }

    #[test]
    fn what_a_program_is_asked_in_has_to_be_known() {
        let read = |exec: Value| {
            let read = Exec::read(&json!({ "exec": exec }), &Value::Null, Path::new("/etc/k"));
            read.map(|it| it.map(|it| it.command)).map_err(|error| format!("{error:#}"))
        };
        let version = "client.authentication.k8s.io/v1beta1";
        let good = json!({ "command": "./aws", "apiVersion": version });
        assert_eq!(read(good), Ok(Some("/etc/k/./aws".to_owned())));
        assert_eq!(read(Value::Null), Ok(None));
        for (bad, expected) in [
            (json!({ "command": "aws" }), "exec: missing field `apiVersion`"),
            (json!({ "command": "aws", "apiVersion": "v1" }), "exec: apiVersion \"v1\" is none of"),
            (
                json!({ "command": "aws", "apiVersion": version, "interactiveMode": "Always" }),
                "exec: interactiveMode is Always",
            ),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
