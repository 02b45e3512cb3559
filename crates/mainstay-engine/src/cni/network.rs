//! Which network new sandboxes get from plugins, and whether its plugins are ready.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::answer;
use super::attachment::CniNetwork;
use super::config::{NetworkConfigList, PluginConfig, SpecVersion};
use super::directory::{self, Found};
use super::{Cni, CniError, blocking, plugin, unanswered};

/// In which version the plugins of a network are spoken to, as long as neither it nor they change.
#[derive(Debug, PartialEq)]
pub(super) struct Negotiated {
    list: NetworkConfigList,
    programs: Vec<Option<Program>>,
    version: SpecVersion,
}

/// A program, told from what it is replaced by.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    path: PathBuf,
    inode: u64,
    modified: (i64, i64),
}

impl Cni {
    /// The network that new sandboxes get from plugins; `None` if they get the built-in one.
    ///
    /// # Errors
    ///
    /// When there is a configuration and it cannot be used.
    pub(crate) async fn network(&self) -> Result<Option<CniNetwork>, CniError> {
        let Some(directory) = self.config.conf_dir.clone() else { return Ok(None) };
        let Found { network, passed_over } = blocking(move || directory::look(&directory)).await?;
        self.tell(network.as_ref().map(|(path, _)| path.as_path()), &passed_over);
        let Some((file, list)) = network else { return Ok(None) };
        let bin_dirs = self.config.bin_dirs.clone();
        let missing = |plugin: &&PluginConfig| plugin::find(&plugin.kind, &bin_dirs).is_none();
        if let Some(plugin) = list.plugins.iter().find(missing) {
            return Err(CniError::missing(&plugin.kind, &list.name, &bin_dirs));
        }
        let version = self.negotiate(&file, &list).await?;
        Ok(Some(CniNetwork::new(file, list, version, bin_dirs)))
    }

    /// The highest version of a configuration that all its plugins speak. Where there is but one they
    /// are not asked.
    async fn negotiate(
        &self,
        file: &Path,
        list: &NetworkConfigList,
    ) -> Result<SpecVersion, CniError> {
        let mut versions = list.versions.clone();
        let highest = versions.first().copied().unwrap_or(SpecVersion::OLDEST);
        if versions.len() < 2 {
            return Ok(highest);
        }
        let program = |kind: &str| {
            let path = plugin::find(kind, &self.config.bin_dirs)?;
            let metadata = fs::metadata(&path).ok()?;
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            Some(Program { path, inode: metadata.ino(), modified })
        };
        let programs: Vec<_> = list.plugins.iter().map(|plugin| program(&plugin.kind)).collect();
        if let Some(known) = &self.notes().negotiated
            && known.list == *list
            && known.programs == programs
        {
            return Ok(known.version);
        }
        let asked =
            CniNetwork::new(file.to_owned(), list.clone(), highest, self.config.bin_dirs.clone());
        for plugin in &asked.plugins {
            let request = asked.version(plugin);
            let output = plugin::call(&request, &asked.bin_dirs).await?;
            let spoken = answer::versions(&output).map_err(unanswered(&request))?;
            let wanted = versions.clone();
            versions.retain(|version| spoken.contains(version));
            if versions.is_empty() {
                let who = (plugin.kind.as_str(), asked.name.as_str(), file);
                return Err(CniError::versions(who, &wanted, &spoken));
            }
        }
        let version = versions.first().copied().unwrap_or(highest);
        self.notes().negotiated = Some(Negotiated { list: list.clone(), programs, version });
        Ok(version)
    }

    /// Says once where pods get their networks from.
    fn tell(&self, file: Option<&Path>, passed_over: &[(PathBuf, &'static str)]) {
        let mut told: Vec<String> = passed_over
            .iter()
            .map(|(path, owner)| {
                format!("{} is passed over, since the network is {owner}'s own", path.display())
            })
            .collect();
        told.extend(file.map(|path| format!("pods get their network from {}", path.display())));
        let told = told.join("; ");
        let mut notes = self.notes();
        if notes.told == told {
            return;
        }
        match told.is_empty() {
            true => tracing::info!("pods get the built-in network again"),
            false => tracing::info!("{told}"),
        }
        notes.told = told;
    }

    /// Why plugins can add no sandbox now, if they cannot, or if there is a configuration that cannot
    /// be used.
    pub(crate) async fn failure(&self) -> Option<CniError> {
        match self.network().await {
            Ok(None) => None,
            Ok(Some(network)) => self.status(&network).await.err(),
            Err(error) => Some(error),
        }
    }

    /// Asks plugins whether they can add sandboxes, unless they said so when they were asked last.
    pub(crate) async fn ensure_ready(&self, network: &CniNetwork) -> Result<(), CniError> {
        let ready = self.notes().ready.as_ref() == Some(&network.name);
        match ready {
            true => Ok(()),
            false => self.status(network).await,
        }
    }

    async fn status(&self, network: &CniNetwork) -> Result<(), CniError> {
        let mut result = Ok(());
        for request in network.status() {
            result = plugin::call(&request, &network.bin_dirs).await.map(drop);
            if result.is_err() {
                break;
            }
        }
        self.notes().ready = result.is_ok().then(|| network.name.clone());
        result
    }
}
