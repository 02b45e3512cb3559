//! What a registry answers when it wants to know who asks.
//!
//! Sources: RFC 9110 section 11.6.1 (`WWW-Authenticate`); distribution `docs/spec/auth/token.md`.

/// A way to authenticate that a registry offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token, to be had at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The challenge of a `WWW-Authenticate` header that is taken up: a token before a password, since
/// a registry that offers both expects the token.
pub(super) fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    let mut challenges: Vec<Challenge> = headers.into_iter().flat_map(parse).collect();
    let bearer = challenges.iter().position(|c| matches!(c, Challenge::Bearer { .. }));
    match bearer {
        Some(place) => Some(challenges.swap_remove(place)),
        None => challenges.pop(),
    }
}

/// The challenges of one header that are understood; others are passed over.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(&str, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let Some((value, after)) = parse_value(value) else { break };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            // A parameter without a scheme.
            (Some(_), None) => break,
            (None, _) => {
                found.push((word, Vec::new()));
                rest = after;
            }
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| understood(scheme, &parameters)).collect()
}

fn understood(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let get = |key: &str| {
        let found = parameters.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.clone())
    };
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: get("realm")?,
            service: get("service"),
            scope: get("scope"),
        }),
        _ => None,
    }
}

/// A token or quoted string, and what follows it.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return Some((text[..end].into(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[place + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(headers: &[&str], expected: &Expect) {
        let text = match choose(headers.iter().copied()) {
            Some(Challenge::Basic) => "basic".into(),
            Some(Challenge::Bearer { realm, service, scope }) => {
                format!("{realm} {} {}", service.unwrap_or_default(), scope.unwrap_or_default())
            }
            None => "none".into(),
        };
        expected.assert_eq(text.trim_end());
    }

    #[test]
    fn challenges_of_registries() {
        check(
            &[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull,push""#,
            ],
            &expect![
                "https://auth.docker.io/token registry.docker.io repository:library/x:pull,push"
            ],
        );
        check(&[r#"Basic realm="Registry Realm""#], &expect!["basic"]);
        check(&["basic"], &expect!["basic"]);
        check(&[r#"Basic realm="x", Bearer realm="https://t""#], &expect!["https://t"]);
        check(&[r#"Basic realm="x""#, r#"bearer REALM="https://t""#], &expect!["https://t"]);
        check(
            &[r#"Negotiate, Bearer realm=https://t,error="invalid_token""#],
            &expect!["https://t"],
        );
        check(&[r#"Bearer realm="a\"b\\c""#], &expect![[r#"a"b\c"#]]);
    }

    #[test]
    fn what_is_not_understood_is_no_challenge() {
        for header in [
            "",
            "Digest realm=\"x\"",
            "Bearer service=\"x\"",
            "Bearer realm=\"x",
            "=x",
            "Bearer realm=\"\\",
        ] {
            check(&[header], &expect!["none"]);
        }
    }
}
