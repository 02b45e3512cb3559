//! What an emptyDir volume is made of.
//!
//! Source: `SetUpAt` and `getPageSizeMountOption` in `pkg/volume/emptydir/empty_dir.go`.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, ResourceRequirements};
use mainstay_pod::resources::{Amounts, huge_pages, parse};
use mainstay_pod::{Pod, Quantity};

use crate::ephemeral_storage::amount;
use crate::resources::{CpuQuotas, Limits};

const MEMORY: &str = "Memory";
const HUGE_PAGES: &str = "HugePages";

/// What the files of a volume are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Where the node has its other files.
    Disk,
    /// Memory, without what of it is set aside for huge pages.
    Memory,
    /// Huge pages.
    HugePages {
        /// Bytes.
        page_size: u64,
    },
}

/// A medium that a volume cannot have, with its name, in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediumError {
    /// There is none of this name.
    Unknown(String),
    /// The pod requests huge pages of several sizes, and the volume does not say of which it is.
    Ambiguous(String),
    /// The pod requests none of these huge pages.
    NotRequested(String),
}

impl std::error::Error for MediumError {}

impl fmt::Display for MediumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "unknown storage medium {name:?}"),
            Self::Ambiguous(name) => write!(
                f,
                "medium: {name} can't be used if container requests multiple huge page sizes"
            ),
            Self::NotRequested(name) => write!(
                f,
                "medium {name}: hugePages storage requested, but there is no resource request for \
                 huge pages"
            ),
        }
    }
}

impl Medium {
    /// The medium of a volume of a pod.
    ///
    /// # Errors
    ///
    /// When there is none of this name, or the pod does not request what it is made of.
    pub fn of(volume: &EmptyDirVolumeSource, pod: &Pod) -> Result<Self, MediumError> {
        let name = volume.medium.as_deref().unwrap_or_default();
        let wanted = match name.strip_prefix(HUGE_PAGES) {
            _ if name.is_empty() => return Ok(Self::Disk),
            _ if name == MEMORY => return Ok(Self::Memory),
            Some("") => None,
            Some(size) => {
                let size = size.strip_prefix('-').and_then(|size| Quantity::parse(size).ok());
                let size = size.and_then(|size| u64::try_from(size.units()).ok());
                Some(size.ok_or_else(|| MediumError::Unknown(name.to_owned()))?)
            }
            None => return Err(MediumError::Unknown(name.to_owned())),
        };
        let requests = |it: &ResourceRequirements| huge_pages(&parse(it.requests.as_ref()));
        let of_containers = pod.containers().filter_map(|(_, it)| it.resources.as_ref());
        let requested = pod.spec().resources.iter().chain(of_containers);
        let sizes: BTreeSet<u64> = requested.flat_map(|it| requests(it).into_keys()).collect();
        match (wanted, sizes.first()) {
            (Some(page_size), _) if sizes.contains(&page_size) => Ok(Self::HugePages { page_size }),
            (None, Some(_)) if sizes.len() > 1 => Err(MediumError::Ambiguous(name.to_owned())),
            (None, Some(page_size)) => Ok(Self::HugePages { page_size: *page_size }),
            _ => Err(MediumError::NotRequested(name.to_owned())),
        }
    }

    /// How many bytes the kernel gives a volume of it at most; `None` leaves it to the medium. Of memory that is
    /// what the pod may have, or all pods (`allocatable`), if the volume's `sizeLimit` is not less. How much lies on
    /// a disk is looked at from time to time.
    ///
    /// Source: `calculateEmptyDirMemorySize` in `pkg/volume/emptydir/empty_dir.go`. A kubelet gives huge pages
    /// without a bound, and ends a pod that took more.
    pub fn size(
        self,
        volume: &EmptyDirVolumeSource,
        pod: &Pod,
        allocatable: Amounts,
    ) -> Option<u64> {
        let own = || Some(amount(&volume.size_limit.as_ref()?.0)?.0);
        let bounds = match self {
            Self::Disk => [None; 3],
            Self::Memory => {
                [own(), Limits::of_pod(pod, CpuQuotas::default()).memory, allocatable.memory_bytes]
            }
            Self::HugePages { .. } => [own(), None, None],
        };
        // A node that has none to give says nothing with it.
        bounds.into_iter().flatten().filter(|bytes| *bytes > 0).min()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

    use super::*;

    #[test]
    fn a_volume_takes_no_more_than_its_pod_may() {
        let limited = "{name: a, image: i, resources: {limits: {memory: 64Mi}}}";
        let free = "{name: b, image: i}";
        let huge = Medium::HugePages { page_size: 2 << 20 };
        let of_node = Some(1 << 30);
        for (medium, containers, size_limit, allocatable, expected) in [
            (Medium::Memory, limited, None, of_node, Some(64 << 20)),
            (Medium::Memory, limited, Some("1Mi"), of_node, Some(1 << 20)),
            (Medium::Memory, limited, Some("1Gi"), of_node, Some(64 << 20)),
            (Medium::Memory, free, None, of_node, Some(1 << 30)),
            (Medium::Memory, free, Some("0"), of_node, Some(1 << 30)),
            (Medium::Memory, free, Some("4Gi"), of_node, Some(1 << 30)),
            (Medium::Memory, free, None, None, None),
            (Medium::Disk, limited, Some("1Mi"), of_node, None),
            (huge, limited, Some("4Mi"), of_node, Some(4 << 20)),
            (huge, limited, None, of_node, None),
        ] {
            let pod = mainstay_testkit::pods::pod(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  - {containers}\n"
            ));
            let size_limit = size_limit.map(|size| ApiQuantity(size.to_owned()));
            let volume = EmptyDirVolumeSource { size_limit, medium: None };
            let allocatable = Amounts { memory_bytes: allocatable, ..Amounts::default() };
            let size = medium.size(&volume, &pod, allocatable);
            assert_eq!(size, expected, "{medium:?} of {containers}, {volume:?}");
        }
    }

    #[test]
    fn a_medium_is_what_the_pod_requests() {
        let none = "- {name: a, image: i}";
        let small = "- {name: a, image: i, resources: {limits: {cpu: 1, hugepages-2Mi: 4Mi}}}";
        let both = "- {name: a, image: i, resources: {limits: {cpu: 1, hugepages-2Mi: 4Mi, \
                    hugepages-1Gi: 1Gi}}}";
        let none_of_pod =
            "- {name: a, image: i}\n  resources: {limits: {cpu: 1, hugepages-2Mi: 2Mi}}";
        let pages = |page_size| Ok(Medium::HugePages { page_size });
        let name = str::to_owned;
        for (medium, containers, expected) in [
            ("", none, Ok(Medium::Disk)),
            ("Memory", none, Ok(Medium::Memory)),
            ("Disk", none, Err(MediumError::Unknown(name("Disk")))),
            ("HugePages", small, pages(2 << 20)),
            ("HugePages", none_of_pod, pages(2 << 20)),
            ("HugePages-2Mi", small, pages(2 << 20)),
            ("HugePages-2048Ki", small, pages(2 << 20)),
            ("HugePages", none, Err(MediumError::NotRequested(name("HugePages")))),
            ("HugePages-1Gi", small, Err(MediumError::NotRequested(name("HugePages-1Gi")))),
            ("HugePages", both, Err(MediumError::Ambiguous(name("HugePages")))),
            ("HugePages-1Gi", both, pages(1 << 30)),
            ("HugePages-odd", both, Err(MediumError::Unknown(name("HugePages-odd")))),
        ] {
            let pod = mainstay_testkit::pods::pod(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  {containers}\n"
            ));
            let volume = EmptyDirVolumeSource {
                medium: Some(medium.to_owned()),
                ..EmptyDirVolumeSource::default()
            };
            assert_eq!(Medium::of(&volume, &pod), expected, "{medium} of {containers}");
        }
    }
}
