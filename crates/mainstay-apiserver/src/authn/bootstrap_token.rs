//! Bootstrap tokens: `ID.SECRET`, of which a Secret of `kube-system` knows, and with which a machine asks for
//! its first certificate.
//!
//! Source: `plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go`.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use mainstay_pki::{BOOTSTRAP_SECRET_PREFIX, BOOTSTRAP_SECRET_TYPE};

use super::User;
use super::user::NODE_NAME;
use crate::object::Object;

/// The namespace of the Secrets.
pub(crate) const NAMESPACE: &str = "kube-system";
/// What the users' names begin with. Source: `BootstrapUserPrefix`.
const USER_PREFIX: &str = "system:bootstrap:";
/// The group of all of them. Source: `BootstrapDefaultGroup`.
const GROUP: &str = "system:bootstrappers";
/// The node that a token is for, if it is for one only; no key of Kubernetes' own.
const NODE: &str = "node-name";

/// A token, by its form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BootstrapToken<'a> {
    id: &'a str,
    secret: &'a str,
}

impl<'a> BootstrapToken<'a> {
    /// `None` of other tokens.
    pub(super) fn parse(token: &'a str) -> Option<Self> {
        mainstay_pki::bootstrap_token(token).map(|(id, secret)| Self { id, secret })
    }

    /// The name of the Secret that knows of it.
    pub(super) fn secret_name(&self) -> String {
        format!("{BOOTSTRAP_SECRET_PREFIX}{}", self.id)
    }

    /// Who has the token, by the Secret of that name.
    ///
    /// # Errors
    ///
    /// Why it does not count, for the log: whoever shows it is told nothing.
    pub(super) fn user(&self, known: &Object, now: Timestamp) -> Result<User, &'static str> {
        if known.is_terminating() {
            return Err("is being deleted");
        }
        if known.str_at(&["type"]) != BOOTSTRAP_SECRET_TYPE {
            return Err("is not of the type of bootstrap tokens");
        }
        let data = |key: &str| {
            let bytes = STANDARD.decode(known.str_at(&["data", key])).unwrap_or_default();
            String::from_utf8(bytes).unwrap_or_default()
        };
        if !mainstay_pki::same_secret(data("token-secret").as_bytes(), self.secret.as_bytes()) {
            return Err("has another token-secret");
        }
        if data("token-id") != self.id {
            return Err("has another token-id");
        }
        let expiration = data("expiration");
        // One that cannot be read is over.
        let lasts = expiration.parse().is_ok_and(|end: Timestamp| now < end);
        if !expiration.is_empty() && !lasts {
            return Err("has expired");
        }
        if data("usage-bootstrap-authentication") != "true" {
            return Err("has no usage-bootstrap-authentication");
        }
        let groups = data("auth-extra-groups");
        let mut all = BTreeSet::from([GROUP.to_owned()]);
        for group in groups.split(',').filter(|_| !groups.is_empty()) {
            if !is_group(group) {
                return Err("has auth-extra-groups that are none for bootstrap tokens");
            }
            all.insert(group.to_owned());
        }
        let node = data(NODE);
        let extra = match node.is_empty() {
            true => BTreeMap::new(),
            false => BTreeMap::from([(NODE_NAME.to_owned(), vec![node])]),
        };
        let name = format!("{USER_PREFIX}{}", self.id);
        let user = User { name, groups: all.into_iter().collect(), extra, ..User::default() };
        Ok(user.authenticated())
    }
}

/// Source: `BootstrapGroupPattern`.
fn is_group(group: &str) -> bool {
    let letter = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    (1..=256).contains(&rest.len())
        && rest.bytes().all(|it| letter(it) || matches!(it, b':' | b'-'))
        && rest.bytes().next_back().is_some_and(letter)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TOKEN: &str = "abcdef.0123456789abcdef";

    fn secret(changes: &[(&str, &str)]) -> Object {
        let mut data = vec![
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ];
        for (key, value) in changes {
            data.retain(|(known, _)| known != key);
            data.push((key, value));
        }
        let data: serde_json::Map<String, Value> = data
            .iter()
            .map(|(key, value)| ((*key).into(), STANDARD.encode(value).into()))
            .collect();
        Object::from_json(json!({ "type": BOOTSTRAP_SECRET_TYPE, "data": data }))
    }

    fn user(secret: &Object) -> Result<User, &'static str> {
        let now = "2027-03-04T05:06:07Z".parse().unwrap();
        BootstrapToken::parse(TOKEN).unwrap().user(secret, now)
    }

    #[test]
    fn a_token_is_of_the_user_of_its_id() {
        let plain = user(&secret(&[])).unwrap();
        assert_eq!(plain.name, "system:bootstrap:abcdef");
        assert_eq!(plain.groups, ["system:bootstrappers", "system:authenticated"]);
        assert!(plain.extra.is_empty());
        let more = secret(&[
            ("auth-extra-groups", "system:bootstrappers:b,system:bootstrappers:a:1"),
            ("expiration", "2027-03-04T05:06:08Z"),
            ("node-name", "n1"),
        ]);
        let more = user(&more).unwrap();
        let groups = [
            "system:bootstrappers",
            "system:bootstrappers:a:1",
            "system:bootstrappers:b",
            "system:authenticated",
        ];
        assert_eq!(more.groups, groups);
        assert_eq!(more.extra[NODE_NAME], ["n1"]);
    }

    #[test]
    fn what_does_not_count() {
        for (key, value, why) in [
            ("token-secret", "0123456789abcdee", "has another token-secret"),
            ("token-secret", "", "has another token-secret"),
            ("token-id", "abcdeg", "has another token-id"),
            ("expiration", "2027-03-04T05:06:07Z", "has expired"),
            ("expiration", "soon", "has expired"),
            ("usage-bootstrap-authentication", "yes", "has no usage-bootstrap-authentication"),
            (
                "auth-extra-groups",
                "system:masters",
                "has auth-extra-groups that are none for bootstrap tokens",
            ),
            (
                "auth-extra-groups",
                "system:bootstrappers:a,",
                "has auth-extra-groups that are none for bootstrap tokens",
            ),
        ] {
            assert_eq!(user(&secret(&[(key, value)])), Err(why), "{key}={value}");
        }
        let mut other = secret(&[]);
        other.0.insert("type".into(), "Opaque".into());
        assert_eq!(user(&other), Err("is not of the type of bootstrap tokens"));
        let mut ending = secret(&[]);
        ending.meta_mut().insert("deletionTimestamp".into(), "2027-03-04T05:06:07Z".into());
        assert_eq!(user(&ending), Err("is being deleted"));
    }

    #[test]
    fn other_tokens_are_none_of_these() {
        for other in [
            "",
            "abcdef",
            "abcdef.0123456789abcde",
            "Abcdef.0123456789abcdef",
            "abcdef.0123456789abcdef.x",
            "abcdef.0123456789abcd/f",
        ] {
            assert_eq!(BootstrapToken::parse(other), None, "{other}");
        }
        let ours = BootstrapToken::parse(TOKEN).unwrap();
        assert_eq!(ours.secret_name(), "bootstrap-token-abcdef");
    }
}
