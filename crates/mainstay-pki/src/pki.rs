//! All keys and certificates of one machine.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::authority::Authority;
use crate::certificate::{Identity, Leaf, Usage};
use crate::files::{self, Mode, PkiError};
use crate::names::SubjectName;
use crate::renewal::{Reason, Renewal, longest_wait, renewal};
use crate::tokens::TokenKeys;

/// What the certificates have to be good for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// The name of the Node object.
    pub node_name: String,
    /// The machine's name; left out with a warning if no certificate can have it.
    pub host_name: String,
    /// The addresses of the machine, and the address of the `kubernetes` service where it has one.
    pub addresses: BTreeSet<IpAddr>,
    /// Further names and addresses of the API server (`--tls-san`).
    pub extra: BTreeSet<SubjectName>,
}

/// Something that was done or seen in [`Pki::open`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Note {
    /// The file was not there and was made.
    Made {
        /// The file.
        path: PathBuf,
    },
    /// The certificate was made again.
    Renewed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// Somebody should know of this.
    Warning {
        /// The file or the directory.
        path: PathBuf,
        /// What is the matter and what was done.
        text: String,
    },
}

/// All keys and certificates of one machine.
#[derive(Debug)]
pub struct Pki {
    authority: Arc<Authority>,
    api_server: Identity,
    api_server_names: BTreeSet<SubjectName>,
    node: Identity,
    admin: Identity,
    node_client: Identity,
    tokens: Arc<TokenKeys>,
    until: Timestamp,
}

/// The names that the API server has in every cluster.
const API_SERVER_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

impl Pki {
    /// Reads what is in `directory` and makes what is missing or has had its time. It is made, 0700, if it
    /// is not there. Only one process at a time may do this with a directory.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, and when the authority's or the service-account key is
    /// broken: those are never replaced.
    pub fn open(
        directory: &Path,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<(Self, Vec<Note>), PkiError> {
        let mut notes = Vec::new();
        if files::private_directory(directory)? {
            notes.push(Note::opened_to_others(directory));
        }
        let authority = Authority::open(directory, now, &mut notes)?;
        let mut until = authority.until();
        let mut leaf = |name: &str, leaf: &Leaf| {
            let (identity, again) = open_leaf(directory, name, leaf, &authority, now, &mut notes)?;
            until = until.min(again);
            Ok(identity)
        };
        let node_name = SubjectName::from_name(&wanted.node_name);
        let host_name = SubjectName::from_name(&wanted.host_name);
        let machine = || {
            let addresses = wanted.addresses.iter().copied().map(SubjectName::Ip);
            addresses.chain(host_name.clone()).chain(node_name.clone())
        };
        let api_server_names: BTreeSet<SubjectName> = API_SERVER_NAMES
            .into_iter()
            .map(|name| SubjectName::Dns(name.to_owned()))
            .chain([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(SubjectName::Ip))
            .chain(machine())
            .chain(wanted.extra.iter().cloned())
            .collect();
        let api_server = leaf(
            "apiserver",
            &Leaf {
                common_name: "kube-apiserver".to_owned(),
                organization: None,
                usage: Usage::Server,
                names: api_server_names.clone(),
            },
        )?;
        let node = leaf(
            "kubelet",
            &Leaf {
                common_name: format!("system:node:{}", wanted.node_name),
                organization: Some("system:nodes".to_owned()),
                usage: Usage::Server,
                names: machine().collect(),
            },
        )?;
        let mut client = |file: &str, user: &str| {
            let wanted = Leaf {
                common_name: user.to_owned(),
                organization: Some("system:masters".to_owned()),
                usage: Usage::Client,
                names: BTreeSet::new(),
            };
            leaf(file, &wanted)
        };
        let admin = client("admin", "kubernetes-admin")?;
        let node_client = client("apiserver-kubelet-client", "kube-apiserver-kubelet-client")?;
        if host_name.is_none() && !wanted.host_name.is_empty() {
            notes.push(Note::Warning {
                path: directory.join("apiserver.crt"),
                text: format!(
                    "does not cover the host name {:?}, which is not a DNS name",
                    wanted.host_name
                ),
            });
        }
        let tokens = Arc::new(TokenKeys::open(directory, &mut notes)?);
        let authority = Arc::new(authority);
        Ok((
            Self {
                authority,
                api_server,
                api_server_names,
                node,
                admin,
                node_client,
                tokens,
                until,
            },
            notes,
        ))
    }

    /// The authority, whose certificates are what servers and clients of this machine trust.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// What the API server shows.
    pub fn api_server(&self) -> &Identity {
        &self.api_server
    }

    /// All names and addresses of the API server.
    pub fn api_server_names(&self) -> &BTreeSet<SubjectName> {
        &self.api_server_names
    }

    /// What the node's HTTPS port shows.
    pub fn node(&self) -> &Identity {
        &self.node
    }

    /// `kubernetes-admin` of `system:masters`.
    pub fn admin(&self) -> &Identity {
        &self.admin
    }

    /// How the API server shows itself to nodes.
    pub fn node_client(&self) -> &Identity {
        &self.node_client
    }

    /// What service-account tokens are signed and checked with.
    pub fn tokens(&self) -> &Arc<TokenKeys> {
        &self.tokens
    }

    /// When to [`Self::open`] again. Never further away than half a day, and a minute while the clock is
    /// not set, because a clock can be set at any time.
    pub fn next_renewal(&self, now: Timestamp) -> Timestamp {
        self.until.min(now.saturating_add(longest_wait(now)).unwrap_or(Timestamp::MAX))
    }
}

/// Reads a certificate and its key, or makes both. Also tells when to look at them again.
fn open_leaf(
    directory: &Path,
    name: &str,
    wanted: &Leaf,
    authority: &Authority,
    now: Timestamp,
    notes: &mut Vec<Note>,
) -> Result<(Identity, Timestamp), PkiError> {
    let certificate_path = directory.join(format!("{name}.crt"));
    let key_path = directory.join(format!("{name}.key"));
    let own = authority.own();
    let path = certificate_path.clone();
    match (files::read(&certificate_path)?, files::read(&key_path)?) {
        (None, None) => notes.push(Note::Made { path }),
        (certificate, key) => {
            if key.is_some() && files::restrict_key(&key_path)? {
                notes.push(Note::opened_to_others(&key_path));
            }
            let read =
                certificate.zip(key).and_then(|(it, key)| Identity::read(&it, &key, Some(&own)));
            match read {
                Some((identity, facts)) => match renewal(&facts, wanted, now) {
                    Renewal::Keep { until } => return Ok((identity, until)),
                    Renewal::Issue(reason) => notes.push(Note::Renewed { path, reason }),
                },
                None => notes.push(Note::Warning {
                    path,
                    text: "or its key was missing or broken; both have been made again".to_owned(),
                }),
            }
        }
    }
    let (certificate, key) = authority.issue(wanted, now)?;
    files::write(&key_path, &key, Mode::Secret)?;
    files::write(&certificate_path, &certificate, Mode::Public)?;
    let (identity, facts) =
        Identity::read(&certificate, &key, Some(&own)).ok_or(PkiError::Make {
            what: "a certificate",
            source: rcgen::Error::CouldNotParseCertificate,
        })?;
    let until = match renewal(&facts, wanted, now) {
        Renewal::Keep { until } => until,
        Renewal::Issue(_) => now,
    };
    Ok((identity, until))
}

impl SubjectName {
    fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

impl Note {
    /// Whether somebody should know of it, as opposed to what is done as a matter of course.
    pub fn is_warning(&self) -> bool {
        matches!(self, Self::Warning { .. })
    }

    /// That a file or directory with secrets could be read by others, and cannot any more.
    pub(crate) fn opened_to_others(path: &Path) -> Self {
        let text = "could be read by others, and cannot any more; if somebody may have done so, \
                    remove it and everything made with it"
            .to_owned();
        Self::Warning { path: path.to_owned(), text }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made { path } => write!(f, "{} was made", path.display()),
            Self::Renewed { path, reason } => {
                write!(f, "{} was renewed: {reason}", path.display())
            }
            Self::Warning { path, text } => write!(f, "{} {text}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests;
