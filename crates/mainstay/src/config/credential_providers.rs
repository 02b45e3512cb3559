//! The programs that a kubelet has for registries' credentials.
//!
//! Source: `pkg/credentialprovider/plugin/config.go`, and `CredentialProviderConfig` in
//! `staging/src/k8s.io/kubelet/config/v1/types.go`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use mainstay_engine::{CredentialProvider, CredentialProviders};
use serde::Deserialize;
use serde_json::Value;

use super::duration;

/// Versions of the file, all of one form.
const VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1alpha1", "kubelet.config.k8s.io/v1beta1"];

/// Versions in which programs are spoken to.
const PROVIDER_VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<RawProvider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[derive(Default)]
struct RawProvider {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    api_version: String,
    args: Option<Vec<String>>,
    env: Option<Vec<RawVariable>>,
    token_attributes: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVariable {
    name: String,
    value: String,
}

/// Reads a file, or all of a directory, and looks for the programs.
///
/// # Errors
///
/// When it is not what a kubelet takes, when a program is missing, or for what is not supported; the
/// message names file and field.
pub(crate) fn credential_providers(
    path: &Path,
    programs: &Path,
) -> anyhow::Result<CredentialProviders> {
    // What it is must not depend on where the agent was started.
    let programs = std::path::absolute(programs)
        .with_context(|| format!("cannot use {}", programs.display()))?;
    ensure!(programs.is_dir(), "plugin binary directory {} did not exist", programs.display());
    let (mut all, mut names) = (Vec::new(), BTreeSet::new());
    for file in files(path)? {
        let name = file.display().to_string();
        let bytes = fs::read(&file).with_context(|| format!("cannot read {name}"))?;
        let value = super::read_value(&name, &bytes)?;
        let raw: Raw = serde_json::from_value(value).with_context(|| name.clone())?;
        let known = VERSIONS.contains(&raw.api_version.as_str());
        ensure!(
            known && raw.kind == "CredentialProviderConfig",
            "{name}: it is not a CredentialProviderConfig of {}",
            VERSIONS[0]
        );
        for (at, provider) in raw.providers.into_iter().enumerate() {
            let place = || format!("{name}: providers[{at}]");
            let provider = resolve(provider, &programs).with_context(place)?;
            ensure!(
                names.insert(provider.name.clone()),
                "{}: duplicate provider name {:?} found in configuration file(s)",
                place(),
                provider.name
            );
            all.push(provider);
        }
    }
    ensure!(!all.is_empty(), "{}: providers: at least 1 item is required", path.display());
    Ok(CredentialProviders::new(all))
}

/// The file itself, or those of the directory in the order of their names.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let unusable = || format!("cannot read {}", path.display());
    if !fs::metadata(path).with_context(unusable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(unusable)? {
        let file = entry.with_context(unusable)?.path();
        let extension = file.extension().and_then(|it| it.to_str()).unwrap_or_default();
        if ["json", "yaml", "yml"].contains(&extension) && !file.is_dir() {
            files.push(file);
        }
    }
    ensure!(!files.is_empty(), "no configuration files found in directory {}", path.display());
    files.sort();
    Ok(files)
}

fn resolve(raw: RawProvider, programs: &Path) -> anyhow::Result<CredentialProvider> {
    let name = raw.name;
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', ' ']) {
        bail!("name: {name:?} is not the name of a file without spaces");
    }
    let api_version = raw.api_version;
    ensure!(
        PROVIDER_VERSIONS.contains(&api_version.as_str()),
        "apiVersion: {api_version:?} is none of {}",
        PROVIDER_VERSIONS.join(", ")
    );
    ensure!(!raw.match_images.is_empty(), "matchImages: at least 1 item is required");
    let Some(default_cache_duration) = raw.default_cache_duration else {
        bail!("defaultCacheDuration: required");
    };
    let default_cache_duration =
        duration(&default_cache_duration).context("defaultCacheDuration")?;
    ensure!(
        raw.token_attributes.is_none(),
        "tokenAttributes: tokens of service accounts for programs are not supported by this version \
         of mainstay yet"
    );
    let program = programs.join(&name);
    let found = fs::metadata(&program);
    let is_program = found.is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    ensure!(is_program, "name: there is no program {}", program.display());
    let env = raw.env.into_iter().flatten();
    Ok(CredentialProvider {
        name,
        program,
        match_images: raw.match_images,
        default_cache_duration,
        api_version,
        args: raw.args.unwrap_or_default(),
        env: env.map(|RawVariable { name, value }| (name, value)).collect(),
        duration: |text| duration(text).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n";
    const PROVIDER: &str = "{name: p, matchImages: ['*.example'], defaultCacheDuration: 10m, \
                            apiVersion: credentialprovider.kubelet.k8s.io/v1}";

    /// A directory with the program `p`, and a file that is none.
    fn programs() -> tempfile::TempDir {
        let programs = tempfile::tempdir().unwrap();
        fs::write(programs.path().join("p"), "").unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(programs.path().join("p"), executable).unwrap();
        fs::write(programs.path().join("text"), "").unwrap();
        programs
    }

    fn read(text: &str) -> Result<String, String> {
        let (directory, programs) = (tempfile::tempdir().unwrap(), programs());
        let path = directory.path().join("providers.yaml");
        fs::write(&path, text).unwrap();
        let read = credential_providers(&path, programs.path());
        read.map(|read| format!("{read:?}")).map_err(|error| {
            let error = format!("{error:#}").replace(programs.path().to_str().unwrap(), "BIN");
            error.replace(&format!("{}: ", path.display()), "")
        })
    }

    #[test]
    fn what_a_kubelet_reads_is_read() {
        let text = format!("{HEAD}providers:\n- {PROVIDER}\n");
        let read = read(&text).unwrap();
        assert!(read.contains("600s") && read.contains("*.example"), "{read}");
        // A directory with several.
        let (directory, programs) = (tempfile::tempdir().unwrap(), programs());
        fs::copy(programs.path().join("p"), programs.path().join("q")).unwrap();
        fs::write(directory.path().join("b.yaml"), &text).unwrap();
        let other = text.replace("name: p", "name: q");
        fs::write(directory.path().join("a.yml"), &other).unwrap();
        fs::write(directory.path().join("README"), "no").unwrap();
        let all = credential_providers(directory.path(), programs.path()).unwrap();
        let all = format!("{all:?}");
        assert!(all.find("name: \"q\"") < all.find("name: \"p\""), "{all}");
        fs::write(directory.path().join("c.json"), &text).unwrap();
        let error = credential_providers(directory.path(), programs.path()).unwrap_err();
        assert!(error.to_string().contains("duplicate provider name \"p\""), "{error}");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let check = |text: &str, wanted: &str| assert_eq!(read(text).unwrap_err(), wanted);
        check(
            "kind: X\napiVersion: v1\n",
            "it is not a CredentialProviderConfig of kubelet.config.k8s.io/v1",
        );
        let provider = |from: &str, to: &str, wanted: &str| {
            let changed = PROVIDER.replace(from, to);
            assert_ne!(changed, PROVIDER);
            let error = read(&format!("{HEAD}providers: [{changed}]\n")).unwrap_err();
            assert_eq!(error, format!("providers[0]: {wanted}"));
        };
        provider(
            "name: p",
            "name: ../p",
            "name: \"../p\" is not the name of a file without spaces",
        );
        provider("name: p", "name: q", "name: there is no program BIN/q");
        provider("name: p", "name: text", "name: there is no program BIN/text");
        provider("['*.example']", "[]", "matchImages: at least 1 item is required");
        provider("defaultCacheDuration: 10m, ", "", "defaultCacheDuration: required");
        provider(
            "/v1}",
            "/v2}",
            "apiVersion: \"credentialprovider.kubelet.k8s.io/v2\" is none of \
             credentialprovider.kubelet.k8s.io/v1, credentialprovider.kubelet.k8s.io/v1alpha1, \
             credentialprovider.kubelet.k8s.io/v1beta1",
        );
        provider(
            "/v1}",
            "/v1, tokenAttributes: {}}",
            "tokenAttributes: tokens of service accounts for programs are not supported by this \
             version of mainstay yet",
        );
        assert!(read(HEAD).unwrap_err().ends_with("providers: at least 1 item is required"));
    }
}
