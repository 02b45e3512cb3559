//! Variables that stand in a file of a volume.
//!
//! Source: `ParseEnv` in `pkg/kubelet/util/env/env_util.go`: a part of what a POSIX shell reads, in which
//! every value stands in single quotes and nothing in them means anything.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, FileKeySelector};

use crate::references::SourceError;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvFile {
    /// The volume's name.
    pub volume: String,
    /// The path in it.
    pub path: String,
}

/// What is in files, or why it cannot be read.
pub type EnvFiles = BTreeMap<EnvFile, Result<Vec<u8>, String>>;

/// The files that a container takes variables from.
pub fn files(container: &Container) -> BTreeSet<EnvFile> {
    let sources = container.env.iter().flatten().filter_map(|it| it.value_from.as_ref());
    sources.filter_map(|it| it.file_key_ref.as_ref()).map(EnvFile::of).collect()
}

impl EnvFile {
    fn of(selector: &FileKeySelector) -> Self {
        Self { volume: selector.volume_name.clone(), path: selector.path.clone() }
    }
}

/// The value of a variable; `None` if the file does not have it and need not. An empty one counts as none.
pub(super) fn value(
    selector: &FileKeySelector,
    files: &EnvFiles,
) -> Result<Option<String>, SourceError> {
    let file = EnvFile::of(selector);
    let FileKeySelector { path, volume_name: volume, key, optional } = selector;
    let wrong = |why: &str| {
        let message = format!("couldn't parse env file {path:?} of volume {volume:?}: {why}");
        SourceError::EnvFile(message)
    };
    let content = match files.get(&file) {
        Some(Ok(content)) => content,
        Some(Err(why)) => return Err(wrong(why)),
        None => return Err(wrong("it was not read")),
    };
    let text = std::str::from_utf8(content).map_err(|_| wrong("it is not UTF-8 text"))?;
    let value = parse(text, key).map_err(|why| wrong(&why))?;
    let value = value.filter(|value| !value.is_empty());
    if value.as_ref().is_some_and(|value| value.contains('\0')) {
        return Err(wrong("a value has a NUL byte, which a variable cannot hold"));
    }
    if value.is_none() && *optional != Some(true) {
        return Err(SourceError::EnvFile(format!(
            "environment variable key {key:?} not found in file {path:?} of volume {volume:?}"
        )));
    }
    Ok(value)
}

/// The first value of a key. What comes after it is not looked at.
fn parse(text: &str, key: &str) -> Result<Option<String>, String> {
    let blank: &[char] = &[' ', '\t'];
    // Source: `bufio.ScanLines`.
    let lines = text.split_terminator('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let mut lines = lines.enumerate().map(|(at, line)| (at + 1, line));
    while let Some((number, line)) = lines.next() {
        let wrong =
            |why: &str| Err(format!("invalid environment variable format at line {number}: {why}"));
        let line = line.trim_start_matches(blank);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { return wrong("missing '='") };
        let trimmed = name.trim_end_matches(blank);
        if trimmed.is_empty() {
            return wrong("empty variable name");
        }
        if trimmed != name {
            return wrong("whitespace before '=' is not allowed");
        }
        // As a shell has it: nothing is assigned, and what follows would be a command.
        if value.starts_with(blank) {
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let Some(mut rest) = value.strip_prefix('\'') else {
            return wrong("value must be enclosed in single quotes");
        };
        let (mut value, mut last) = (String::new(), number);
        loop {
            if let Some((end, after)) = rest.split_once('\'') {
                value.push_str(end);
                let after = after.trim_start_matches(blank);
                if !after.is_empty() && !after.starts_with('#') {
                    return Err(format!(
                        "invalid environment variable format at line {last}: unexpected content after \
                         closing quote"
                    ));
                }
                break;
            }
            value.push_str(rest);
            value.push('\n');
            let Some((at, next)) = lines.next() else {
                return Err(format!(
                    "invalid environment variable format starting at line {number}: unclosed single \
                     quote"
                ));
            };
            (last, rest) = (at, next);
        }
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
