//! Values of a Secret that the service manager has: `mainstay.dev/credentials: "key=credential, ..."`.

use std::collections::{BTreeMap, BTreeSet};

use crate::validate::names;

/// On a Secret beside a manifest: its keys whose values are credentials of the agent's service, as
/// `password=db-password,user=db-user`.
pub(crate) const CREDENTIALS_ANNOTATION: &str = "mainstay.dev/credentials";

/// The credential of each key that an annotation names. `keys` are those that the Secret has already.
///
/// # Errors
///
/// What is wrong with it, in words.
pub(crate) fn parse(text: &str, keys: &BTreeSet<&str>) -> Result<BTreeMap<String, String>, String> {
    let mut credentials = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let Some((key, credential)) = pair.split_once('=') else {
            return Err(format!("{pair:?} is not KEY=CREDENTIAL"));
        };
        let (key, credential) = (key.trim(), credential.trim());
        if let Some(why) = names::config_key(key).into_iter().next() {
            return Err(format!("Invalid value: {key:?}: {why}"));
        }
        if !is_credential(credential) {
            return Err(format!(
                "Invalid value: {credential:?}: the name of a credential has letters, digits, '-', '_' and '.'"
            ));
        }
        let twice = credentials.insert(key.to_owned(), credential.to_owned()).is_some();
        if twice || keys.contains(key) {
            return Err(format!("Duplicate value: {key:?}"));
        }
    }
    Ok(credentials)
}

/// Whether it is the name of a file and of nothing else, as systemd's `credential_name_valid` has it and what
/// people call them.
fn is_credential(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(is_plain)
        && !matches!(name, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_credentials_are_read() {
        for (text, expected) in [
            ("", Ok(&[][..])),
            ("password=db-password", Ok(&[("password", "db-password")])),
            (" a=x , b.c=y_1.z,", Ok(&[("a", "x"), ("b.c", "y_1.z")])),
            ("password", Err("\"password\" is not KEY=CREDENTIAL")),
            ("a=x,a=y", Err("Duplicate value: \"a\"")),
            ("there=x", Err("Duplicate value: \"there\"")),
            (
                "a=../../etc/shadow",
                Err(
                    "Invalid value: \"../../etc/shadow\": the name of a credential has letters, digits, '-', '_' and '.'",
                ),
            ),
            (
                "a=..",
                Err(
                    "Invalid value: \"..\": the name of a credential has letters, digits, '-', '_' and '.'",
                ),
            ),
            (
                "a=",
                Err(
                    "Invalid value: \"\": the name of a credential has letters, digits, '-', '_' and '.'",
                ),
            ),
        ] {
            let owned = |(key, name): &(&str, &str)| ((*key).to_owned(), (*name).to_owned());
            let expected = expected
                .map(|pairs: &[(&str, &str)]| pairs.iter().map(owned).collect())
                .map_err(str::to_owned);
            assert_eq!(parse(text, &["there"].into()), expected, "{text}");
        }
        let error = parse("a/b=x", &BTreeSet::new()).unwrap_err();
        assert!(error.starts_with("Invalid value: \"a/b\": "), "{error}");
    }
}
