//! What was asked of a container runtime for a pod, asked for once more beside it.
//!
//! The bytes are those that were sent the first time. What has to differ is said behind them: of a field that is
//! there twice the last one counts, and of a message that is there twice this holds for each of its fields.
//! Source: "Last One Wins" in `programming-guides/encoding` of Protocol Buffers.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{DecodeContext, WireType, skip_field};
use prost::{DecodeError, Message};

/// A message as it is sent, whatever it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw(pub Bytes);

/// How the pod differs that is asked for once more.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Tells sandboxes and containers of a pod apart: one that no other has.
    pub attempt: u32,
    /// The labels of everything that have other values.
    pub labels: BTreeMap<String, String>,
    /// The control group that it is in.
    pub cgroup_parent: String,
}

/// What is looked for in a `RunPodSandboxRequest`, or differs in it.
#[derive(Clone, PartialEq, Message)]
struct RunPodSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<Sandbox>,
}

/// The same of a `CreateContainerRequest`.
#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<Container>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<Sandbox>,
}

/// Of a `PodSandboxConfig`.
#[derive(Clone, PartialEq, Message)]
struct Sandbox {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(btree_map = "string, string", tag = "6")]
    labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxSandbox>,
}

/// Of a `PodSandboxMetadata`.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "4")]
    attempt: u32,
}

/// Of a `LinuxPodSandboxConfig`.
#[derive(Clone, PartialEq, Message)]
struct LinuxSandbox {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
}

/// Of a `ContainerConfig`.
#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(btree_map = "string, string", tag = "9")]
    labels: BTreeMap<String, String>,
}

/// Of a `ContainerMetadata`.
#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

/// The pod that a `RunPodSandboxRequest` is for.
///
/// # Errors
///
/// For what is none.
pub fn pod_of_sandbox(request: &Raw) -> Result<String, DecodeError> {
    Ok(name(RunPodSandbox::decode(request.0.clone())?.config))
}

/// The pod that a `CreateContainerRequest` is for.
///
/// # Errors
///
/// For what is none.
pub fn pod_of_container(request: &Raw) -> Result<String, DecodeError> {
    Ok(name(CreateContainer::decode(request.0.clone())?.sandbox_config))
}

fn name(sandbox: Option<Sandbox>) -> String {
    sandbox.and_then(|it| it.metadata).map(|it| it.name).unwrap_or_default()
}

// === impl Copy ===

impl Copy {
    /// A `RunPodSandboxRequest` for the copy.
    pub fn sandbox(&self, request: &Raw) -> Raw {
        request.and(&RunPodSandbox { config: Some(self.config()) })
    }

    /// A `CreateContainerRequest` for the copy, whose sandbox has this id.
    pub fn container(&self, request: &Raw, sandbox: &str) -> Raw {
        request.and(&CreateContainer {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(Container {
                metadata: Some(ContainerMetadata { name: String::new(), attempt: self.attempt }),
                labels: self.labels.clone(),
            }),
            sandbox_config: Some(self.config()),
        })
    }

    fn config(&self) -> Sandbox {
        Sandbox {
            // No name is no field, and leaves that which is there.
            metadata: Some(Metadata { name: String::new(), attempt: self.attempt }),
            labels: self.labels.clone(),
            linux: Some(LinuxSandbox { cgroup_parent: self.cgroup_parent.clone() }),
        }
    }
}

// === impl Raw ===

impl Raw {
    /// With more behind it.
    fn and(&self, more: &impl Message) -> Self {
        let mut bytes = BytesMut::from(&*self.0);
        // There is always room.
        more.encode_raw(&mut bytes);
        Self(bytes.freeze())
    }
}

impl Message for Raw {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn decode(mut buffer: impl Buf) -> Result<Self, DecodeError> {
        Ok(Self(buffer.copy_to_bytes(buffer.remaining())))
    }

    /// Nobody decodes it field by field.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buffer, context)
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
    }

    /// What an agent sends, as far as it is looked at.
    fn sandbox() -> Sandbox {
        Sandbox {
            metadata: Some(Metadata { name: "web-n1".to_owned(), attempt: 2 }),
            labels: labels(&[("app", "web"), ("mine", "yes")]),
            linux: Some(LinuxSandbox { cgroup_parent: "/m/uid".to_owned() }),
        }
    }

    fn copied() -> Sandbox {
        Sandbox {
            metadata: Some(Metadata { name: "web-n1".to_owned(), attempt: 7 }),
            labels: labels(&[("app", "web"), ("mine", "no")]),
            linux: Some(LinuxSandbox { cgroup_parent: "/m/copy".to_owned() }),
        }
    }

    fn copy() -> Copy {
        let labels = labels(&[("mine", "no")]);
        Copy { attempt: 7, labels, cgroup_parent: "/m/copy".to_owned() }
    }

    fn raw(message: &impl Message) -> Raw {
        Raw(message.encode_to_vec().into())
    }

    #[test]
    fn a_copy_of_a_sandbox_differs_in_what_it_has_to() {
        let sent = raw(&RunPodSandbox { config: Some(sandbox()) });
        assert_eq!(pod_of_sandbox(&sent).unwrap(), "web-n1");
        let copied_request = copy().sandbox(&sent);
        assert!(copied_request.0.starts_with(&sent.0));
        let read = RunPodSandbox::decode(copied_request.0).unwrap();
        assert_eq!(read, RunPodSandbox { config: Some(copied()) });
    }

    #[test]
    fn a_copy_of_a_container_is_in_the_copy_of_the_sandbox() {
        let request = |id: &str, attempt, mine, sandbox| CreateContainer {
            pod_sandbox_id: id.to_owned(),
            config: Some(Container {
                metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt }),
                labels: labels(&[("mine", mine), ("of", "c")]),
            }),
            sandbox_config: Some(sandbox),
        };
        let sent = raw(&request("first", 0, "yes", sandbox()));
        assert_eq!(pod_of_container(&sent).unwrap(), "web-n1");
        let read = CreateContainer::decode(copy().container(&sent, "second").0).unwrap();
        assert_eq!(read, request("second", 7, "no", copied()));
    }

    #[test]
    fn whatever_is_sent_is_kept_as_it_is() {
        let bytes = Bytes::from_static(b"\xff no message");
        let read = Raw::decode(bytes.clone()).unwrap();
        assert_eq!(read.encode_to_vec(), bytes);
    }
}
