//! Bearer tokens from a file: `token,user,uid,"group1,group2"`, one a line.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/authentication/token/tokenfile` (Kubernetes 1.36), and Go's
//! `encoding/csv` for the quotes.

use std::collections::HashMap;
use std::fmt;

use ring::digest::{SHA256, digest};

/// A user of the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StaticUser {
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
}

/// The tokens of a file. They are kept as hashes, so that how long a search takes tells nothing of them,
/// and a dump of the memory does not either.
#[derive(Clone, Default)]
pub struct StaticTokens {
    users: HashMap<[u8; 32], StaticUser>,
    /// The lines whose tokens are empty or were there before.
    doubtful: Vec<usize>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StaticTokensError {
    /// It says too little.
    #[error(
        "line {line} must have at least 3 columns (token, user name, user uid), found {found}; \
             write token,user,uid,\"group1,group2\""
    )]
    Columns {
        /// Counted from 1.
        line: usize,
        /// How many there are.
        found: usize,
    },
    /// A quotation mark that does not begin, end or double another.
    #[error(
        "line {line} has a quotation mark where none can be; put the whole column between \" and \", \
             and double those inside"
    )]
    Quote {
        /// Counted from 1.
        line: usize,
    },
}

impl StaticTokens {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// When a line is broken; then none of it counts. The texts name no token.
    pub fn parse(text: &str) -> Result<Self, StaticTokensError> {
        let mut tokens = Self::default();
        let mut rest = text;
        let mut line = 1;
        while !rest.is_empty() {
            let start = line;
            let record = record(&mut rest, &mut line)?;
            if record.len() == 1 && record.iter().all(String::is_empty) {
                continue;
            }
            let mut columns = record.into_iter();
            let (found, columns) =
                (columns.len(), [columns.next(), columns.next(), columns.next(), columns.next()]);
            let [Some(token), Some(name), Some(uid), groups] = columns else {
                return Err(StaticTokensError::Columns { line: start, found });
            };
            if token.is_empty() {
                tokens.doubtful.push(start);
                continue;
            }
            let groups = groups.map(|it| it.split(',').map(str::to_owned).collect());
            let user = StaticUser { name, uid, groups: groups.unwrap_or_default() };
            if tokens.users.insert(hash(&token), user).is_some() {
                tokens.doubtful.push(start);
            }
        }
        Ok(tokens)
    }

    /// Whose token it is.
    pub fn user(&self, token: &str) -> Option<&StaticUser> {
        self.users.get(&hash(token))
    }

    /// The lines, counted from 1, that are left out because their token is empty, or that have replaced
    /// an earlier line with the same token.
    pub fn doubtful_lines(&self) -> &[usize] {
        &self.doubtful
    }
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticTokens").field("users", &self.users.len()).finish()
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// Takes one record off the front of `rest`, with the end of its line.
fn record(rest: &mut &str, line: &mut usize) -> Result<Vec<String>, StaticTokensError> {
    let mut columns = Vec::new();
    loop {
        let start = *line;
        let (column, after) = match rest.strip_prefix('"') {
            Some(quoted) => self::quoted(quoted, line)?,
            None => {
                let end = rest.find([',', '\n']).unwrap_or(rest.len());
                let (column, after) = rest.split_at(end);
                if column.contains('"') {
                    return Err(StaticTokensError::Quote { line: start });
                }
                let ends_line = !after.starts_with(',');
                let column =
                    if ends_line { column.strip_suffix('\r').unwrap_or(column) } else { column };
                (column.to_owned(), after)
            }
        };
        columns.push(column);
        if let Some(after) = after.strip_prefix(',') {
            *rest = after;
            continue;
        }
        let after = after
            .strip_prefix('\r')
            .filter(|it| it.is_empty() || it.starts_with('\n'))
            .unwrap_or(after);
        *rest = match after.strip_prefix('\n') {
            Some(after) => after,
            None if after.is_empty() => after,
            None => return Err(StaticTokensError::Quote { line: *line }),
        };
        *line += 1;
        return Ok(columns);
    }
}

/// The text up to the quotation mark that ends it, and what comes after.
fn quoted<'a>(text: &'a str, line: &mut usize) -> Result<(String, &'a str), StaticTokensError> {
    let start = *line;
    let mut column = String::new();
    let mut rest = text;
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err(StaticTokensError::Quote { line: start });
        };
        column.push_str(before);
        *line += before.matches('\n').count();
        match after.strip_prefix('"') {
            Some(after) => {
                column.push('"');
                rest = after;
            }
            None => return Ok((column, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: &str, groups: &[&str]) -> StaticUser {
        let groups = groups.iter().map(|it| (*it).to_owned()).collect();
        StaticUser { name: name.to_owned(), uid: uid.to_owned(), groups }
    }

    #[test]
    fn a_file_is_read() {
        let tokens = StaticTokens::parse(
            "token1,user1,uid1\n\
             token2,user2,uid2,\"group1,group2\"\r\n\
             \n\
             token3,user3,uid3,\"group1\",ignored\n\
             \"tok,\"\"4\",\"user\n4\",uid4,group3\n\
             ,nobody,uid5\n\
             token1,again,uid6\n\
             token7,user7,uid7",
        )
        .unwrap();
        for (token, expected) in [
            ("token1", Some(user("again", "uid6", &[]))),
            ("token2", Some(user("user2", "uid2", &["group1", "group2"]))),
            ("token3", Some(user("user3", "uid3", &["group1"]))),
            ("tok,\"4", Some(user("user\n4", "uid4", &["group3"]))),
            ("token7", Some(user("user7", "uid7", &[]))),
            ("", None),
            ("token", None),
        ] {
            assert_eq!(tokens.user(token), expected.as_ref(), "{token:?}");
        }
        assert_eq!(tokens.doubtful_lines(), [7, 8]);
        assert!(!format!("{tokens:?}").contains("token1"));
    }

    #[test]
    fn broken_lines_are_named() {
        for (text, expected) in [
            ("a,b", StaticTokensError::Columns { line: 1, found: 2 }),
            ("a,b,c\n\nx\n", StaticTokensError::Columns { line: 3, found: 1 }),
            ("a\"b,c,d", StaticTokensError::Quote { line: 1 }),
            ("a,b,c\n\"a\"b,c,d", StaticTokensError::Quote { line: 2 }),
            ("a,b,c,\"d", StaticTokensError::Quote { line: 1 }),
        ] {
            assert_eq!(StaticTokens::parse(text).err(), Some(expected), "{text:?}");
        }
        assert!(StaticTokens::parse("").unwrap().user("").is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a\",\n\r]{0,40}") {
            let _ = StaticTokens::parse(&text);
        }
    }
}
