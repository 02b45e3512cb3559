//! `mainstay token`: what nodes join with.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use mainstay_client::{CallErrorKind, Calls, Deletion};
use mainstay_pki::{BOOTSTRAP_SECRET_PREFIX, BOOTSTRAP_SECRET_TYPE, JoinToken, ReadKubeconfig};
use mainstay_pod::NodeName;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::Output;
use crate::api::AGENT;
use crate::api::remote::Remote;
use crate::api::tls::{Current, Trust, certified_pair};
use crate::config::duration;
use crate::instance::Instance;

/// Tokens are Secrets of `kube-system`, as kubeadm makes them. Source:
/// `staging/src/k8s.io/cluster-bootstrap/token/api/types.go`.
const COLLECTION: &str = "/api/v1/namespaces/kube-system/secrets";

/// Make, list and revoke the tokens that other machines join this one's API with.
#[derive(Debug, Subcommand)]
pub(super) enum Token {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a token and print it: `mainstay run --server URL --token TOKEN` on another machine joins.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// For how long it is good; 0 for ever.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    ttl: Duration,
    /// What it is for, for people.
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// The only node that can join with it.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    admin: Admin,
}

/// List the tokens, without their secrets.
#[derive(Debug, Args)]
pub(super) struct List {
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    admin: Admin,
}

/// Take tokens away. Nodes that have joined with them stay.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// Tokens, or their first parts.
    #[arg(required = true, value_name = "TOKEN")]
    tokens: Vec<String>,
    #[command(flatten)]
    admin: Admin,
}

/// Who asks.
#[derive(Debug, Args)]
struct Admin {
    /// The admin's kubeconfig, which mainstay has written. Default: ROOT-DIR/kubeconfig.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Token {
    pub(super) fn run(self, instance: &Instance) -> anyhow::Result<ExitCode> {
        super::runtime()?.block_on(async {
            match self {
                Self::Create(create) => create.run(instance).await,
                Self::List(list) => list.run(instance).await,
                Self::Revoke(revoke) => revoke.run(instance).await,
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    async fn run(self, instance: &Instance) -> anyhow::Result<()> {
        let (calls, authority) = self.admin.calls(instance)?;
        let authority = authority.first().context("the kubeconfig names no authority")?;
        let token = JoinToken::generate(authority)?;
        let mut data = json!({
            "token-id": token.id(),
            "token-secret": token.secret(),
            "usage-bootstrap-authentication": "true",
        });
        if !self.description.is_empty() {
            data["description"] = self.description.into();
        }
        if let Some(node) = self.node {
            NodeName::new(&node).with_context(|| format!("{node:?} is no name of a node"))?;
            data["node-name"] = node.into();
        }
        if !self.ttl.is_zero() {
            let ttl = SignedDuration::try_from(self.ttl)?;
            let end = Timestamp::now().checked_add(ttl).context("--ttl is too long")?;
            let seconds = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc);
            data["expiration"] = end.round(seconds)?.to_string().into();
        }
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": format!("{BOOTSTRAP_SECRET_PREFIX}{}", token.id()) },
            "type": BOOTSTRAP_SECRET_TYPE,
            "stringData": data,
        });
        calls.post::<Value, _>(COLLECTION, &secret).await.context("cannot make the token")?;
        println!("{token}");
        Ok(())
    }
}

impl List {
    async fn run(self, instance: &Instance) -> anyhow::Result<()> {
        let (calls, _) = self.admin.calls(instance)?;
        let path = format!("{COLLECTION}?fieldSelector=type%3D{BOOTSTRAP_SECRET_TYPE}");
        let list: Value = calls.get(&path).await.context("cannot list the tokens")?;
        let tokens: Vec<Listed> =
            list["items"].as_array().into_iter().flatten().map(Listed::read).collect();
        let now = Timestamp::now();
        match self.output {
            Output::Json => {
                let tokens: Vec<Value> = tokens.iter().map(Listed::json).collect();
                println!("{}", serde_json::to_string_pretty(&json!({ "tokens": tokens }))?);
            }
            Output::Text => {
                println!("{:<8}{:<24}{:<20}DESCRIPTION", "ID", "EXPIRES", "NODE");
                for token in tokens {
                    let or = |text: &str, none: &str| {
                        if text.is_empty() { none.to_owned() } else { text.to_owned() }
                    };
                    println!(
                        "{:<8}{:<24}{:<20}{}",
                        token.id,
                        token.expires(now),
                        or(&token.node, "<any>"),
                        or(&token.description, "<none>"),
                    );
                }
            }
        }
        Ok(())
    }
}

impl Revoke {
    async fn run(self, instance: &Instance) -> anyhow::Result<()> {
        let (calls, _) = self.admin.calls(instance)?;
        for token in self.tokens {
            let id = token.split('.').next().unwrap_or_default();
            let plain = id.len() == 6 && id.bytes().all(|it| it.is_ascii_alphanumeric());
            if !plain {
                bail!(
                    "{token:?} is neither a token nor the first part of one; `mainstay token list` shows those"
                );
            }
            let path = format!("{COLLECTION}/{BOOTSTRAP_SECRET_PREFIX}{id}");
            let secret: Value = match calls.get(&path).await {
                Err(error) if error.kind == CallErrorKind::NotFound => {
                    bail!("there is no token {id}; `mainstay token list` shows what there is");
                }
                other => other.context("cannot look for the token")?,
            };
            let uid = secret["metadata"]["uid"].as_str().unwrap_or_default();
            calls.delete(&path, Deletion::of(uid)).await.context("cannot revoke the token")?;
            println!("token {id} revoked");
        }
        Ok(())
    }
}

/// A token as it is shown.
struct Listed {
    id: String,
    expiration: String,
    node: String,
    description: String,
}

impl Listed {
    fn read(secret: &Value) -> Self {
        let text = |key: &str| {
            let encoded = secret["data"][key].as_str().unwrap_or_default();
            let bytes = STANDARD.decode(encoded).unwrap_or_default();
            // What somebody else has written does not reach a terminal.
            String::from_utf8_lossy(&bytes).replace(char::is_control, " ")
        };
        Self {
            id: text("token-id"),
            expiration: text("expiration"),
            node: text("node-name"),
            description: text("description"),
        }
    }

    fn expires(&self, now: Timestamp) -> String {
        match self.expiration.parse::<Timestamp>() {
            Ok(end) if end <= now => "expired".to_owned(),
            Ok(end) => end.to_string(),
            Err(_) if self.expiration.is_empty() => "<never>".to_owned(),
            Err(_) => "expired".to_owned(),
        }
    }

    fn json(&self) -> Value {
        let Self { id, expiration, node, description } = self;
        json!({ "id": id, "expiration": expiration, "node": node, "description": description })
    }
}

impl Admin {
    /// The API as the admin sees it, and its authority.
    fn calls(self, instance: &Instance) -> anyhow::Result<(Calls, Vec<CertificateDer<'static>>)> {
        let path = self.kubeconfig.unwrap_or_else(|| instance.kubeconfig());
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read the admin's kubeconfig {}; the instance with the API has it, and \
                 --kubeconfig names another place",
                path.display()
            )
        })?;
        let read = ReadKubeconfig::parse(&text).ok_or_else(|| {
            anyhow!("{} is not a kubeconfig that mainstay has written", path.display())
        })?;
        let trust = Trust::new(&read.authority)?;
        let key = PrivateKeyDer::Pkcs8(read.key);
        let shown = Current::new(certified_pair(vec![read.certificate], &key)?);
        let remote = Remote::new(&read.server.parse()?, &trust.client(shown), None);
        Ok((Calls::new(remote.client(), AGENT), read.authority))
    }
}
