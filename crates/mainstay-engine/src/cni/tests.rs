use std::fs;
use std::os::unix::fs::PermissionsExt;

use mainstay_testkit::contract::Sample;
use serde_json::{Value, json};

use super::*;

/// A machine with a directory of configurations, and plugins that write down what they are asked.
struct Machine {
    directory: tempfile::TempDir,
    cni: Cni,
}

/// Writes down its name, what it is asked and of whom; fails where a file says so.
const PLUGIN: &str = r#"#!/bin/sh
input=$(cat)
me=${0##*/}
echo "$CNI_COMMAND $me $CNI_CONTAINERID${CNI_NETNS:+ present}" >> HERE/calls
echo "$input" >> HERE/inputs
if [ -f "HERE/$CNI_COMMAND-$me" ]; then cat "HERE/$CNI_COMMAND-$me"; exit 1; fi
if [ $CNI_COMMAND = VERSION ]; then cat HERE/versions-$me; fi
"#;

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["net.d", "bin", "root", "run"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        let config =
            CniConfig { conf_dir: Some(path.join("net.d")), bin_dirs: vec![path.join("bin")] };
        let cni = Cni::new(config, &path.join("root"), &path.join("run"));
        Self { directory, cni }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn install(&self, name: &str) {
        let script = PLUGIN.replace("HERE", &self.directory.path().display().to_string());
        let path = self.path("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A configuration with the plugins `a` and `b`.
    fn configure(&self, fields: &Value) {
        let mut list = json!({ "name": "net", "plugins": [{ "type": "a" }, { "type": "b" }] });
        list.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.write("net.d/10-net.conflist", &list.to_string());
    }

    /// One with both plugins.
    fn ready(fields: &Value) -> Self {
        let machine = Self::new();
        machine.install("a");
        machine.install("b");
        machine.configure(fields);
        machine
    }

    /// What plugins were asked since this was asked last.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        self.write("calls", "");
        text.lines().map(str::to_owned).collect()
    }

    /// Has it be written down that a sandbox was added, or was about to be.
    async fn attach(&self, id: &str, result: Option<Value>) {
        let network = self.cni.network().await.unwrap().unwrap();
        let config = Sample::new("web", Path::new("/logs")).sandbox;
        let (args, netns) = (args(id, &config), self.path("run/netns").join(id));
        let mut attachment =
            Attachment::new(id.to_owned(), netns, network, args, config::Object::new());
        attachment.result = result;
        self.cni.attachments.write(&attachment).unwrap();
    }

    fn text(&self, error: &CniError) -> String {
        chain(error).replace(&self.directory.path().display().to_string(), "D")
    }
}

fn known(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn pods_have_plugins_only_where_there_is_a_configuration() {
    let machine = Machine::new();
    assert_eq!(machine.cni.network().await.unwrap(), None);
    assert!(machine.cni.failure().await.is_none());
    // It is seen at once, and so is what it lacks.
    machine.configure(&json!({ "cniVersion": "1.0.0" }));
    machine.install("a");
    let error = machine.cni.network().await.unwrap_err();
    assert_eq!(
        machine.text(&error),
        "plugin b of network net is not in D/bin; install it, or name its directory with \
         --cni-bin-dir; --cni-conf-dir= has pods use the built-in network"
    );
    machine.install("b");
    let network = machine.cni.network().await.unwrap().unwrap();
    assert_eq!((network.name.as_str(), network.cni_version.to_string()), ("net", "1.0.0".into()));
    assert_eq!(machine.calls(), Vec::<String>::new());
    // Before version 1.1.0 nobody can be asked.
    assert!(machine.cni.failure().await.is_none());
    machine.write("net.d/10-net.conflist", "{");
    let error = machine.text(&machine.cni.failure().await.unwrap());
    assert!(error.starts_with("D/net.d/10-net.conflist is no network configuration"), "{error}");
    fs::remove_file(machine.path("net.d/10-net.conflist")).unwrap();
    assert_eq!(machine.cni.network().await.unwrap(), None);
}

#[tokio::test]
async fn the_highest_version_is_spoken_that_all_plugins_speak() {
    let machine = Machine::ready(&json!({ "cniVersions": ["0.4.0", "1.0.0", "1.1.0"] }));
    machine.write("versions-a", r#"{"supportedVersions":["0.4.0","1.0.0","1.1.0"]}"#);
    machine.write("versions-b", r#"{"supportedVersions":["0.4.0","1.0.0"]}"#);
    for asked in [vec!["VERSION a ", "VERSION b "], vec![]] {
        let network = machine.cni.network().await.unwrap().unwrap();
        assert_eq!(network.cni_version.to_string(), "1.0.0");
        assert_eq!(machine.calls(), asked);
    }
    // Another program may speak other versions.
    machine.write("versions-b", r#"{"supportedVersions":["0.2.0"]}"#);
    fs::remove_file(machine.path("bin/b")).unwrap();
    machine.write("between", "so that the new one has another number");
    machine.install("b");
    let error = machine.cni.network().await.unwrap_err();
    assert_eq!(
        machine.text(&error),
        "plugin b speaks none of the CNI versions of network net (D/net.d/10-net.conflist): \
         1.1.0, 1.0.0, 0.4.0; it speaks 0.2.0"
    );
}

#[tokio::test]
async fn plugins_tell_whether_they_are_ready() {
    let machine = Machine::ready(&json!({ "cniVersion": "1.1.0" }));
    let network = machine.cni.network().await.unwrap().unwrap();
    for asked in [vec!["STATUS a ", "STATUS b "], vec![]] {
        machine.cni.ensure_ready(&network).await.unwrap();
        assert_eq!(machine.calls(), asked);
    }
    machine.write("STATUS-b", r#"{"code":50,"msg":"no leases"}"#);
    let error = machine.cni.failure().await.unwrap();
    let expected = "plugin type=\"b\" name=\"net\" failed (status): no leases";
    assert_eq!(chain(&error), expected);
    assert_eq!(machine.calls(), ["STATUS a ", "STATUS b "]);
    // Until they are, they are asked before each sandbox.
    assert_eq!(chain(&machine.cni.ensure_ready(&network).await.unwrap_err()), expected);
    fs::remove_file(machine.path("STATUS-b")).unwrap();
    machine.cni.ensure_ready(&network).await.unwrap();
    machine.calls();
    machine.cni.ensure_ready(&network).await.unwrap();
    assert_eq!(machine.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn sandboxes_are_deleted_by_what_added_them() {
    let machine = Machine::ready(&json!({ "cniVersion": "1.0.0" }));
    machine.attach("ab", Some(json!({ "ips": [] }))).await;
    fs::remove_file(machine.path("net.d/10-net.conflist")).unwrap();
    assert!(machine.cni.has("ab"));
    // One that does not succeed is asked again.
    machine.write("DEL-a", r#"{"code":11,"msg":"later"}"#);
    let error = machine.cni.del("ab").await.unwrap_err();
    assert_eq!(chain(&error), "plugin type=\"a\" name=\"net\" failed (delete): later");
    assert_eq!(machine.calls(), ["DEL b ab", "DEL a ab"]);
    assert!(machine.cni.has("ab"));
    // One that does not know it has nothing of it.
    machine.write("DEL-a", r#"{"code":3,"msg":"unknown"}"#);
    machine.cni.del("ab").await.unwrap();
    assert!(!machine.cni.has("ab"));
    machine.calls();
    machine.cni.del("ab").await.unwrap();
    assert_eq!(machine.calls(), Vec::<String>::new());
    let last = fs::read_to_string(machine.path("inputs")).unwrap();
    let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert_eq!(last["prevResult"], json!({ "ips": [] }));
}

#[tokio::test]
async fn a_sandbox_that_was_never_added_to_the_end_holds_nothing_up() {
    let machine = Machine::ready(&json!({ "cniVersion": "1.0.0" }));
    machine.attach("ab", None).await;
    machine.write("DEL-b", r#"{"code":7,"msg":"no"}"#);
    machine.cni.del("ab").await.unwrap();
    // One that cannot does not keep the other from it.
    assert_eq!(machine.calls(), ["DEL b ab", "DEL a ab"]);
    // It is not forgotten, and told by whoever wants everything gone.
    let left = machine.cni.delete_all_but(|| known(&[])).await;
    assert_eq!(left.len(), 1);
    assert!(left[0].contains("sandbox ab; see the log, or remove /"), "{left:?}");
    fs::remove_file(machine.path("DEL-b")).unwrap();
    assert_eq!(machine.cni.delete_all_but(|| known(&[])).await, Vec::<String>::new());
    assert!(!machine.cni.has("ab"));
}

#[tokio::test]
async fn what_an_earlier_agent_left_is_deleted_and_collected() {
    let machine = Machine::ready(&json!({ "cniVersion": "1.1.0" }));
    let result = || Some(json!({ "ips": [] }));
    for id in ["dead", "living"] {
        machine.attach(id, result()).await;
    }
    // Of another network.
    machine.configure(&json!({ "name": "other", "cniVersion": "1.1.0" }));
    machine.attach("stranger", result()).await;
    machine.configure(&json!({ "cniVersion": "1.1.0" }));
    fs::create_dir(machine.path("run/netns")).unwrap();
    machine.write("run/netns/dead", "");
    machine.write("run/netns/forgotten", "");
    machine.cni.take_over().unwrap();
    let living = known(&["living", "stranger"]);
    assert_eq!(machine.cni.delete_all_but(|| living.clone()).await, Vec::<String>::new());
    assert_eq!(machine.calls(), ["DEL b dead", "DEL a dead"]);
    assert_eq!(machine.cni.namespaces.ids().unwrap(), Vec::<String>::new());
    let network = machine.cni.network().await.unwrap().unwrap();
    machine.write("inputs", "");
    // One that cannot does not keep the other from it.
    machine.write("GC-a", r#"{"code":7,"msg":"no"}"#);
    machine.cni.collect(&network, &living).await;
    assert_eq!(machine.calls(), ["GC a ", "GC b "]);
    let inputs = fs::read_to_string(machine.path("inputs")).unwrap();
    for line in inputs.lines() {
        let input: Value = serde_json::from_str(line).unwrap();
        let valid = json!([{ "containerID": "living", "ifname": "eth0" }]);
        assert_eq!(input["cni.dev/valid-attachments"], valid);
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_neither_deleted_nor_collected_over() {
    let machine = Machine::ready(&json!({ "cniVersion": "1.1.0" }));
    machine.attach("living", Some(json!({}))).await;
    machine.write("root/cni/living.json", r#"{"version":2}"#);
    let network = machine.cni.network().await.unwrap().unwrap();
    machine.cni.collect(&network, &known(&["living"])).await;
    assert_eq!(machine.calls(), Vec::<String>::new());
    let error = machine.cni.del("living").await.unwrap_err();
    assert!(chain(&error).contains("living.json: it is of version 2"), "{}", chain(&error));
    assert!(machine.cni.has("living"));
}

#[tokio::test]
async fn a_network_that_is_not_as_it_was_made_is_told_until_its_sandbox_is_gone() {
    let machine = Machine::ready(&json!({ "cniVersion": "1.0.0" }));
    machine.attach("ab", Some(json!({ "ips": [] }))).await;
    machine.cni.check("ab").await;
    machine.cni.check("none").await;
    assert_eq!(machine.calls(), ["CHECK a ab present", "CHECK b ab present"]);
    assert!(machine.cni.broken().is_empty());
    machine.write("CHECK-a", r#"{"code":7,"msg":"no link"}"#);
    machine.cni.check("ab").await;
    assert_eq!(
        machine.cni.broken()["ab"],
        "plugin type=\"a\" name=\"net\" failed (check): no link"
    );
    assert_eq!(machine.calls(), ["CHECK a ab present"]);
    machine.cni.del("ab").await.unwrap();
    assert!(machine.cni.broken().is_empty());
}
