//! `mainstay check`

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use mainstay_pod::{Diagnostic, Entry, NodeName, ReadOptions, SourceKind, diagnostic::wire};
use serde::Serialize;

use super::{Output, Validate};

/// Judge manifests without running them.
///
/// Exit status 0 when all would be accepted, 1 when one would not.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Manifests, or directories with manifests.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Look for manifests in the directories below, too.
    #[arg(long)]
    recursive: bool,
    /// What to do about unknown and duplicate fields.
    #[arg(long, value_enum, default_value_t)]
    validate: Validate,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What a file came to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    file: String,
    accepted: bool,
    pods: Vec<String>,
    /// ConfigMaps and Secrets, with their kind in front.
    objects: Vec<String>,
    diagnostics: Vec<serde_json::Value>,
    /// Pods and objects of this file that another one has, with that other one. At a first start they would be
    /// taken from there.
    duplicates: BTreeMap<String, String>,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout().lock();
        let color = out.is_terminal();
        let mut verdicts = Vec::new();
        // Which file each pod is in.
        let mut places: BTreeMap<String, String> = BTreeMap::new();
        for path in self.files()? {
            let bytes =
                std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let Judged { pods, objects, diagnostics, accepted } =
                judge(&path, &bytes, self.validate)?;
            let file = path.display().to_string();
            let other = |pod: &String| Some((pod.clone(), places.get(pod)?.clone()));
            let all = || pods.iter().chain(&objects);
            let duplicates: BTreeMap<String, String> = all().filter_map(other).collect();
            let accepted = accepted && duplicates.is_empty();
            if self.output == Output::Text {
                let text = String::from_utf8_lossy(&bytes);
                for diagnostic in &diagnostics {
                    writeln!(out, "{}", diagnostic.render(&text, color))?;
                }
                for (one, other) in &duplicates {
                    let pod = if pods.contains(one) { "pod " } else { "" };
                    writeln!(out, "{file}: {pod}{one} is in {other} too; remove one of the two")?;
                }
                let word = if accepted { "ok" } else { "refused" };
                writeln!(out, "{file}: {word}{}", listed(&pods, &objects))?;
            }
            for one in all() {
                places.entry(one.clone()).or_insert_with(|| file.clone());
            }
            verdicts.push(Verdict {
                file,
                accepted,
                pods,
                objects,
                diagnostics: diagnostics
                    .iter()
                    .map(|diagnostic| serde_json::to_value(wire::Diagnostic::from(diagnostic)))
                    .collect::<Result<_, _>>()?,
                duplicates,
            });
        }
        if self.output == Output::Json {
            serde_json::to_writer_pretty(&mut out, &verdicts)?;
            writeln!(out)?;
        }
        let accepted = verdicts.iter().all(|verdict| verdict.accepted);
        Ok(if accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for path in &self.paths {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            let found = mainstay_node::manifests_in(path, self.recursive)
                .with_context(|| format!("cannot list {}", path.display()))?;
            ensure!(
                !found.is_empty(),
                "there are no manifests in {}: no *.yaml, *.yml or *.json; --recursive looks into \
                 the directories below, too",
                path.display()
            );
            files.extend(found);
        }
        Ok(files)
    }
}

/// What is in a file.
struct Judged {
    pods: Vec<String>,
    objects: Vec<String>,
    diagnostics: Vec<Diagnostic>,
    accepted: bool,
}

fn judge(path: &Path, bytes: &[u8], validate: Validate) -> anyhow::Result<Judged> {
    let options = ReadOptions {
        validation: validate.into(),
        node_name: NodeName::new("node")?,
        source: SourceKind::File,
        seen: jiff::Timestamp::UNIX_EPOCH.to_string(),
    };
    let outcome = mainstay_pod::read(&path.to_string_lossy(), bytes, &options);
    let mut accepted = outcome.diagnostics.is_empty();
    let mut diagnostics = outcome.diagnostics;
    let exposed = std::fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o004 != 0);
    let (mut pods, mut objects) = (Vec::new(), Vec::new());
    for entry in outcome.entries {
        match entry {
            Entry::Pod { pod, warnings } => {
                let name = pod.name().strip_suffix("-node").unwrap_or(pod.name());
                pods.push(format!("{}/{name}", pod.namespace()));
                diagnostics.extend(warnings);
            }
            Entry::Object { name, object, warnings } => {
                objects.push(name.to_string());
                let exposure = name.exposure(&object, &path.to_string_lossy());
                diagnostics.extend(exposure.filter(|_| exposed));
                diagnostics.extend(warnings);
            }
            Entry::Refused { errors, warnings, .. }
            | Entry::RefusedObject { errors, warnings, .. } => {
                accepted = false;
                diagnostics.extend(errors);
                diagnostics.extend(warnings);
            }
        }
    }
    Ok(Judged { pods, objects, diagnostics, accepted })
}

fn listed(pods: &[String], objects: &[String]) -> String {
    let pods = (!pods.is_empty()).then(|| format!("pod {}", pods.join(", ")));
    let all: Vec<&str> =
        pods.iter().map(String::as_str).chain(objects.iter().map(String::as_str)).collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_accepted_without_a_word() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let examples: Vec<PathBuf> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!examples.is_empty());
        for path in examples {
            let bytes = std::fs::read(&path).unwrap();
            let judged = judge(&path, &bytes, Validate::Strict).unwrap();
            let Judged { pods, diagnostics, accepted, .. } = judged;
            assert!(accepted && pods.len() == 1 && diagnostics.is_empty(), "{diagnostics:?}");
        }
    }

    #[test]
    fn a_directory_without_manifests_is_no_success() {
        let directory = tempfile::tempdir().unwrap();
        let check = |recursive| Check {
            paths: vec![directory.path().to_owned()],
            recursive,
            validate: Validate::Strict,
            output: Output::Text,
        };
        std::fs::create_dir(directory.path().join("below")).unwrap();
        std::fs::write(directory.path().join("below/a.yaml"), "").unwrap();
        assert!(check(false).files().is_err());
        assert_eq!(check(true).files().unwrap(), [directory.path().join("below/a.yaml")]);
    }
}
