//! What is written down of a sandbox that plugins give its network.
//!
//! It is there from before the first plugin is called until the last one has taken back what it gave,
//! and survives the machine: what plugins keep, such as leases of addresses, does too. Whoever takes a
//! sandbox down goes by it alone, so that neither a changed configuration nor an agent that was killed
//! has anything left behind. It is what libcni keeps in its cache.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mainstay_linux::durable;
use mainstay_linux::path::remove_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::{NetworkConfigList, Object, PluginConfig, SpecVersion};
use crate::entries;
use crate::network::INSIDE;
use crate::record::RecordError;

/// The version of these files.
const VERSION: u32 = 1;

/// A network as it is used: its configuration in one version, and where its plugins are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CniNetwork {
    /// The file of the configuration, to name it.
    pub(crate) file: PathBuf,
    pub(crate) name: String,
    /// In which version its plugins are spoken to.
    pub(crate) cni_version: SpecVersion,
    pub(crate) disable_check: bool,
    pub(crate) disable_gc: bool,
    pub(crate) plugins: Vec<PluginConfig>,
    /// Where programs of plugins are looked for, in this order.
    pub(crate) bin_dirs: Vec<PathBuf>,
}

/// A sandbox in a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    version: u32,
    /// The sandbox.
    pub(crate) container_id: String,
    /// The name of the link inside.
    pub(crate) if_name: String,
    /// The path of its network namespace.
    pub(crate) netns: PathBuf,
    pub(crate) network: CniNetwork,
    /// `CNI_ARGS`.
    pub(crate) args: Vec<(String, String)>,
    /// What plugins are told that want to know it.
    pub(crate) capability_args: Object,
    /// What the last plugin answered to ADD; `None` as long as it has not.
    pub(crate) result: Option<Value>,
}

/// The directory of all attachments.
#[derive(Clone, Debug)]
pub(crate) struct Attachments(PathBuf);

// === impl CniNetwork ===

impl CniNetwork {
    /// What a file says, in one of its versions.
    pub(crate) fn new(
        file: PathBuf,
        list: NetworkConfigList,
        cni_version: SpecVersion,
        bin_dirs: Vec<PathBuf>,
    ) -> Self {
        let NetworkConfigList { name, disable_check, disable_gc, plugins, .. } = list;
        Self { file, name, cni_version, disable_check, disable_gc, plugins, bin_dirs }
    }

    /// Whether one of its plugins wants to be told something that is called so.
    pub(crate) fn has_capability(&self, name: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.has_capability(name))
    }
}

// === impl Attachment ===

impl Attachment {
    /// A sandbox that is about to be added.
    pub(crate) fn new(
        container_id: String,
        netns: PathBuf,
        network: CniNetwork,
        args: Vec<(String, String)>,
        capability_args: Object,
    ) -> Self {
        Self {
            version: VERSION,
            container_id,
            if_name: INSIDE.to_owned(),
            netns,
            network,
            args,
            capability_args,
            result: None,
        }
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let Head { version } = serde_json::from_slice(bytes)?;
        if version > VERSION {
            let message = format!(
                "it is of version {version}, and this mainstay knows {VERSION}; a newer one made it"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

// === impl Attachments ===

impl Attachments {
    /// Those below `directory`, which need not be there yet.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Where they are; no other instance has the same.
    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    /// Whether there is something of a sandbox.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.path(id).exists()
    }

    /// The sandboxes of which there is something.
    pub(crate) fn ids(&self) -> Result<Vec<String>, RecordError> {
        let files = entries(&self.0).map_err(RecordError::at("list", &self.0))?;
        let id =
            |file: &PathBuf| file.file_name()?.to_str()?.strip_suffix(".json").map(str::to_owned);
        let mut ids: Vec<_> = files.iter().filter_map(id).collect();
        ids.sort();
        Ok(ids)
    }

    /// What there is of a sandbox.
    pub(crate) fn read(&self, id: &str) -> Result<Option<Attachment>, RecordError> {
        let path = self.path(id);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.and_then(|bytes| Attachment::parse(&bytes)),
        };
        read.map(Some).map_err(RecordError::at("read", &path))
    }

    /// Writes it down, for good when this returns.
    pub(crate) fn write(&self, attachment: &Attachment) -> Result<(), RecordError> {
        let path = self.path(&attachment.container_id);
        let write = || {
            // A configuration may have what only root is to know.
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            let bytes = serde_json::to_vec(attachment)?;
            durable::replace(&path, &path.with_extension("new"), &bytes)
        };
        write().map_err(RecordError::at("write", &path))
    }

    /// Forgets a sandbox.
    pub(crate) fn remove(&self, id: &str) -> Result<(), RecordError> {
        let path = self.path(id);
        remove_all(&path).map_err(RecordError::at("remove", &path))
    }

    /// The file of a sandbox. Ids are the engine's own: hexadecimal digits.
    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::config::Form;
    use super::*;

    fn sample() -> Attachment {
        let list = json!({
            "cniVersion": "1.0.0", "name": "dbnet",
            "plugins": [{ "type": "bridge", "x": 1 }, { "type": "portmap" }],
        });
        let list = NetworkConfigList::parse(list.to_string().as_bytes(), Form::List).unwrap();
        let version = list.versions[0];
        let network = CniNetwork::new("/n/a.conflist".into(), list, version, vec!["/bin".into()]);
        let args = vec![("K8S_POD_NAME".to_owned(), "web".to_owned())];
        Attachment::new("ab12".into(), "/x/netns/ab12".into(), network, args, Object::new())
    }

    #[test]
    fn what_is_written_down_is_found_again_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let all = Attachments::new(directory.path().join("cni"));
        assert_eq!(all.ids().unwrap(), Vec::<String>::new());
        all.remove("ab12").unwrap();
        let mut attachment = sample();
        all.write(&attachment).unwrap();
        assert_eq!(all.read("ab12").unwrap(), Some(attachment.clone()));
        attachment.result = Some(json!({ "ips": [] }));
        all.write(&attachment).unwrap();
        assert_eq!(all.read("ab12").unwrap(), Some(attachment));
        // What an attempt that was cut off has left is none.
        fs::write(directory.path().join("cni/cd.new"), "{").unwrap();
        assert_eq!(all.ids().unwrap(), ["ab12"]);
        assert!(all.has("ab12") && !all.has("cd"));
        all.remove("ab12").unwrap();
        assert_eq!(all.read("ab12").unwrap(), None);
    }

    #[test]
    fn files_of_another_version_and_damaged_ones_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let all = Attachments::new(directory.path().to_owned());
        fs::write(directory.path().join("a.json"), r#"{"version":2}"#).unwrap();
        fs::write(directory.path().join("b.json"), "").unwrap();
        let error = |id| mainstay_cri::chain(&all.read(id).unwrap_err());
        assert!(error("a").ends_with(
            "a.json: it is of version 2, and this mainstay knows 1; a newer one made it"
        ));
        assert!(error("b").contains("b.json: EOF"), "{}", error("b"));
    }
}
