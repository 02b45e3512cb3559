//! What is in force of a pod whose allocation has changed, as its file has it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mainstay_plan::resize::{Requirements, Resizing};
use mainstay_pod::Amounts;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResizingFile {
    generation: i64,
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    pod: RequirementsFile,
    containers: BTreeMap<String, RequirementsFile>,
}

/// Thousandths of a CPU and bytes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequirementsFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_request: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_limit: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_request: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_limit: Option<u64>,
}

impl From<&Resizing> for ResizingFile {
    fn from(resizing: &Resizing) -> Self {
        let containers = resizing.containers.iter();
        Self {
            generation: resizing.generation,
            since: resizing.since,
            error: resizing.error.clone(),
            pod: (&resizing.pod).into(),
            containers: containers.map(|(name, it)| (name.clone(), it.into())).collect(),
        }
    }
}

impl From<ResizingFile> for Resizing {
    fn from(file: ResizingFile) -> Self {
        let containers = file.containers.into_iter();
        Self {
            generation: file.generation,
            since: file.since,
            error: file.error,
            pod: file.pod.into(),
            containers: containers.map(|(name, it)| (name, it.into())).collect(),
        }
    }
}

impl From<&Requirements> for RequirementsFile {
    fn from(it: &Requirements) -> Self {
        Self {
            cpu_request: it.requests.cpu_milli,
            cpu_limit: it.limits.cpu_milli,
            memory_request: it.requests.memory_bytes,
            memory_limit: it.limits.memory_bytes,
        }
    }
}

impl From<RequirementsFile> for Requirements {
    fn from(file: RequirementsFile) -> Self {
        let of = |cpu_milli, memory_bytes| Amounts {
            cpu_milli,
            memory_bytes,
            ephemeral_storage_bytes: None,
        };
        Self {
            requests: of(file.cpu_request, file.memory_request),
            limits: of(file.cpu_limit, file.memory_limit),
        }
    }
}
