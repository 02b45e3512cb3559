//! Manifests.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

/// A pod with one container `main` of busybox on the host's network.
///
/// Its shell runs until it is told to end, and then ends at once.
#[derive(Clone, Debug)]
pub(crate) struct Manifest(Value);

/// A pod as described at [`Manifest`].
pub(crate) fn pod(name: &str) -> Manifest {
    Manifest(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "hostNetwork": true,
            "containers": [{ "name": "main", "image": "local/busybox:1", "command": command("") }],
        },
    }))
}

/// A container of busybox that has what [`Manifest::with_host_directory`] adds to its pod.
pub(crate) fn container(name: &str, command: &Value) -> Value {
    json!({
        "name": name, "image": "local/busybox:1", "command": command,
        "volumeMounts": [{ "name": "host", "mountPath": "/host" }],
    })
}

/// Runs a script, then waits to be told to end.
pub(crate) fn command(script: &str) -> Value {
    exactly(&format!("trap exit TERM\n{script}\nsleep infinity & wait"))
}

/// Runs a script and nothing else.
pub(crate) fn exactly(script: &str) -> Value {
    json!(["sh", "-c", script])
}

/// Makes a sidecar of a container that tells of its start by a line in a file of `/host`.
///
/// Whoever comes after it is started when that is the last line. For Kubernetes it has started as soon as its process
/// runs, and the next one could overtake it.
pub(crate) fn sidecar(mut container: Value, file: &str, line: &str) -> Value {
    let told = format!("until [ \"$(tail -n 1 /host/{file})\" = '{line}' ]; do sleep 0.02; done");
    container["restartPolicy"] = "Always".into();
    container["lifecycle"]["postStart"] = json!({ "exec": { "command": exactly(&told) } });
    container
}

impl Manifest {
    /// Runs a script before it waits to be told to end.
    pub(crate) fn script(self, script: &str) -> Self {
        self.main("command", command(script))
    }

    /// Runs a script and ends with it.
    pub(crate) fn exactly(self, script: &str) -> Self {
        self.main("command", exactly(script))
    }

    /// Sets a field of the container.
    pub(crate) fn main(self, field: &str, value: impl Into<Value>) -> Self {
        self.set(&format!("spec.containers.0.{field}"), value)
    }

    /// Sets a field, given with those that it is in; one that is not in a list yet is appended.
    pub(crate) fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let mut place = &mut self.0;
        for field in path.split('.') {
            place = match field.parse::<usize>() {
                Ok(index) => {
                    if place.is_null() {
                        *place = json!([]);
                    }
                    let list = place.as_array_mut().unwrap();
                    if index == list.len() {
                        list.push(Value::Null);
                    }
                    &mut list[index]
                }
                Err(_) => &mut place[field],
            };
        }
        *place = value.into();
        self
    }

    /// Has one more volume, which is at `/<its name>` in the container.
    pub(crate) fn with_volume(self, volume: Value) -> Self {
        let name = volume["name"].as_str().unwrap().to_owned();
        let mount = json!({ "name": name, "mountPath": format!("/{name}") });
        let count = |list: &Value| list.as_array().map_or(0, Vec::len);
        let spec = &self.0["spec"];
        let (volumes, mounts) = (&spec["volumes"], &spec["containers"][0]["volumeMounts"]);
        let (volumes, mounts) = (count(volumes), count(mounts));
        self.set(&format!("spec.volumes.{volumes}"), volume)
            .main(&format!("volumeMounts.{mounts}"), mount)
    }

    /// Has a directory of the host at `/host` in the container.
    pub(crate) fn with_host_directory(self, path: &Path) -> Self {
        self.set("spec.volumes", json!([{ "name": "host", "hostPath": { "path": path } }]))
            .main("volumeMounts", json!([{ "name": "host", "mountPath": "/host" }]))
    }
}

/// As a file has it. JSON is YAML.
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}
