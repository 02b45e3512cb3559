//! Acting as somebody else: `kubectl --as`.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/endpoints/filters/impersonation` (Kubernetes 1.36, gate
//! `ConstrainedImpersonation`, on by default).
//!
//! There are several ways to be allowed to; the first that allows it counts, and the refusal is that of
//! the first that could have. The old way, which is last, is the verb `impersonate` on the user, each
//! group, the UID and each extra value. The others also need `impersonate-on:MODE:VERB` for what is asked
//! for.

use std::fmt::Write;

use http::HeaderMap;

use super::user::{self, ANONYMOUS, AUTHENTICATED, MASTERS, NODE_NAME, NODES, UNAUTHENTICATED};
use crate::authn::User;
use crate::authz::{Attributes, Decision, forbidden};
use crate::status::{ApiError, Result};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Of so many groups or values, the right to all of them is asked for first.
const MANY: usize = 4;

/// Who the sender wants to be, if it wants to be somebody else. The headers are taken out.
///
/// # Errors
///
/// 400 when there are groups or the like and no user.
pub(crate) fn requested(headers: &mut HeaderMap) -> Result<Option<User>> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let first = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let mut wanted = User {
        name: first(USER),
        uid: first(UID),
        groups: headers.get_all(GROUP).iter().map(text).collect(),
        ..User::default()
    };
    let names: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in &names {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        let values = headers.get_all(name).iter().map(text);
        wanted.extra.entry(unescape(key)).or_default().extend(values);
    }
    if wanted.name.is_empty() {
        if wanted == User::default() {
            return Ok(None);
        }
        let text = format!("requested {} without impersonating a user name", shown(&wanted));
        return Err(ApiError::bad_request(text));
    }
    for name in names {
        headers.remove(name);
    }
    Ok(Some(wanted))
}

/// The user that the sender of `request` becomes, who wants to be `wanted`. `decide` says what the sender
/// may do.
///
/// # Errors
///
/// 403 when that is not allowed.
pub(crate) fn impersonate(
    wanted: &User,
    request: &Attributes<'_>,
    decide: &dyn Fn(&Attributes<'_>) -> Decision,
) -> Result<User> {
    let mut refusal = None;
    let modes = [
        Mode::AssociatedNode,
        Mode::ArbitraryNode,
        Mode::ServiceAccount,
        Mode::UserInfo,
        Mode::Legacy,
    ];
    for mode in modes.into_iter().filter(|mode| mode.applies(wanted, request.user)) {
        let attempt = Attempt { mode, sender: &sender(mode, request.user), wanted, decide };
        match attempt.run(request) {
            Ok(user) => return Ok(user),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    // The last one always applies.
    Err(refusal.unwrap_or_else(|| forbidden(request, "")))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    /// A pod may be the node that it is on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    /// As it was before 1.35.
    Legacy,
}

/// The right to be somebody, or somebody with something.
#[derive(Clone, Copy)]
struct Right<'a> {
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

/// One way of being allowed to, tried.
struct Attempt<'a> {
    mode: Mode,
    sender: &'a User,
    wanted: &'a User,
    decide: &'a dyn Fn(&Attributes<'_>) -> Decision,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::AssociatedNode => "impersonate:associated-node",
            Self::ArbitraryNode => "impersonate:arbitrary-node",
            Self::ServiceAccount => "impersonate:serviceaccount",
            Self::UserInfo => "impersonate:user-info",
            Self::Legacy => "impersonate",
        }
    }

    /// Whether this is a way to become `wanted` at all.
    fn applies(self, wanted: &User, sender: &User) -> bool {
        let name_only =
            wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = user::split_node(&wanted.name);
        let account = user::split_service_account(&wanted.name);
        match self {
            Self::AssociatedNode => {
                let own = match sender.extra.get(NODE_NAME).map(Vec::as_slice) {
                    Some([own]) => own.as_str(),
                    _ => "",
                };
                name_only
                    && node.is_some_and(|node| node == own)
                    && user::split_service_account(&sender.name).is_some()
            }
            Self::ArbitraryNode => name_only && node.is_some(),
            Self::ServiceAccount => name_only && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }

    fn is_constrained(self) -> bool {
        self != Self::Legacy
    }
}

impl Attempt<'_> {
    fn run(&self, request: &Attributes<'_>) -> Result<User> {
        if self.mode.is_constrained() {
            let verb = format!("impersonate-on:{}:{}", self.mode.name(), request.verb);
            self.allowed(&Attributes { user: self.sender, verb: &verb, ..*request })?;
        }
        self.name()?;
        if !self.wanted.uid.is_empty() {
            let uid = self.right("uids", &self.wanted.uid);
            self.has(Right { group: AUTHENTICATION, ..uid })?;
        }
        self.groups()?;
        self.extra()?;
        Ok(self.become_wanted())
    }

    fn name(&self) -> Result<()> {
        let wanted = self.wanted.name.as_str();
        let mut right = self.right("users", wanted);
        if let (true, Some(node)) = (self.mode.is_constrained(), user::split_node(wanted)) {
            // Which node a pod is on must not matter: the right is to any node that the pod is on.
            let any = self.mode == Mode::AssociatedNode;
            right = self.right("nodes", if any { "*" } else { node });
        }
        if let Some((namespace, name)) = user::split_service_account(wanted) {
            right = Right { namespace, ..self.right("serviceaccounts", name) };
        }
        self.has(right)
    }

    fn groups(&self) -> Result<()> {
        let groups = &self.wanted.groups;
        if self.mode.is_constrained() {
            for (group, why) in [
                ("", "impersonating the empty string group is not allowed"),
                (MASTERS, "impersonating the system:masters group is not allowed"),
            ] {
                if self.wanted.is_in(group) {
                    return Err(forbidden(&self.attributes(self.right("groups", group)), why));
                }
            }
            if groups.len() >= MANY && self.has(self.right("groups", "*")).is_ok() {
                return Ok(());
            }
        }
        groups.iter().try_for_each(|group| self.has(self.right("groups", group)))
    }

    fn extra(&self) -> Result<()> {
        let extra = &self.wanted.extra;
        let right = |subresource, name| Right {
            group: AUTHENTICATION,
            subresource,
            ..self.right("userextras", name)
        };
        if self.mode.is_constrained() {
            if let Some(why) = extra.iter().find_map(|(key, values)| unfit(key, values)) {
                return Err(forbidden(&self.attributes(right("", "")), &why));
            }
            let values = extra.values().map(Vec::len).sum::<usize>();
            if values.max(extra.len()) >= MANY && self.has(right("*", "*")).is_ok() {
                return Ok(());
            }
        }
        extra.iter().try_for_each(|(key, values)| {
            values.iter().try_for_each(|value| self.has(right(key, value)))
        })
    }

    /// The old way knows users and groups by the core group.
    fn right<'a>(&self, resource: &'a str, name: &'a str) -> Right<'a> {
        let group = if self.mode.is_constrained() { AUTHENTICATION } else { "" };
        Right { group, resource, subresource: "", namespace: "", name }
    }

    fn has(&self, right: Right<'_>) -> Result<()> {
        self.allowed(&self.attributes(right))
    }

    fn attributes<'a>(&'a self, right: Right<'a>) -> Attributes<'a> {
        Attributes {
            user: self.sender,
            verb: self.mode.verb(),
            group: right.group,
            resource: right.resource,
            subresource: right.subresource,
            namespace: right.namespace,
            name: right.name,
            path: "",
            is_resource: true,
            fields: &[],
            labels: &[],
        }
    }

    fn allowed(&self, attributes: &Attributes<'_>) -> Result<()> {
        match (self.decide)(attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(forbidden(attributes, &reason)),
        }
    }

    /// With the groups that such a user has.
    fn become_wanted(&self) -> User {
        let mut user = self.wanted.clone();
        if user.groups.is_empty() {
            if let Some((namespace, _)) = user::split_service_account(&user.name) {
                user.groups = user::service_account_groups(namespace);
            } else if self.mode.is_constrained() && user::split_node(&user.name).is_some() {
                user.groups = vec![NODES.to_owned()];
            }
        }
        let anonymous = user.name == ANONYMOUS;
        let group = if anonymous { UNAUTHENTICATED } else { AUTHENTICATED };
        if !user.is_in(group) && (anonymous || !user.is_in(UNAUTHENTICATED)) {
            user.groups.push(group.to_owned());
        }
        user
    }
}

/// The sender, as the ways other than the old one see it.
fn sender(mode: Mode, user: &User) -> User {
    let mut sender = user.clone();
    if mode == Mode::AssociatedNode {
        let keys = sender.extra.keys().cloned().collect();
        let key = "authentication.kubernetes.io/associated-node-keys".to_owned();
        sender.extra = [(key, keys)].into();
    }
    sender
}

/// Why nobody may have something extra, other than in the old way.
fn unfit(key: &str, values: &[String]) -> Option<String> {
    let path = |path: &str| {
        let good = |c: u8| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c);
        !path.is_empty() && path.bytes().all(good)
    };
    let domain_prefixed = key.split_once('/').is_some_and(|(domain, rest)| {
        mainstay_pod::validate::names::is_subdomain(domain) && path(rest)
    });
    if key.is_empty() {
        Some("impersonating the empty string key in extra is not allowed".to_owned())
    } else if !domain_prefixed {
        Some(format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: \
             must be a domain-prefixed path (such as \"acme.io/foo\")"
        ))
    } else if key.to_lowercase() != key {
        Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"))
    } else if values.is_empty() {
        Some("impersonating empty values in extra is not allowed".to_owned())
    } else if values.iter().any(String::is_empty) {
        Some("impersonating the empty string value in extra is not allowed".to_owned())
    } else {
        None
    }
}

/// What `%XX` stands for; as it is, if that is no text.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = after else { return key.to_owned() };
        let digit =
            |digit: &u8| char::from(*digit).to_digit(16).and_then(|it| u8::try_from(it).ok());
        let (Some(high), Some(low)) = (digit(high), digit(low)) else { return key.to_owned() };
        bytes.push(high << 4 | low);
        rest = after;
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

/// The user as the message of a 400 shows it.
fn shown(user: &User) -> String {
    let list = |values: &[String]| {
        let values: Vec<_> = values.iter().map(|it| format!("{it:?}")).collect();
        format!("[]string{{{}}}", values.join(", "))
    };
    let groups =
        if user.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&user.groups) };
    let mut extra = String::from("map[string][]string");
    if user.extra.is_empty() {
        extra.push_str("(nil)");
    } else {
        let all: Vec<_> =
            user.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
        // Writing to a String cannot fail.
        let _ = write!(extra, "{{{}}}", all.join(", "));
    }
    let User { name, uid, .. } = user;
    format!("&user.DefaultInfo{{Name:{name:?}, UID:{uid:?}, Groups:{groups}, Extra:{extra}}}")
}

#[cfg(test)]
mod tests;
