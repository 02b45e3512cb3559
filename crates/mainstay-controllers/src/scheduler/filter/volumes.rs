//! Claims of volumes that a pod waits for.
//!
//! There are no claims in this API: whatever a pod names is not there. Source: `podHasPVCs` in
//! `pkg/scheduler/framework/plugins/volumebinding/volume_binding.go`.

use super::super::pod::PodInfo;
use super::{Plugin, Rejection};

pub(super) fn check(pod: &PodInfo) -> Result<(), Rejection> {
    for volume in pod.spec().volumes.iter().flatten() {
        let reason = if let Some(claim) = &volume.persistent_volume_claim {
            format!("persistentvolumeclaim {:?} not found", claim.claim_name)
        } else if volume.ephemeral.is_some() {
            let claim = format!("{}-{}", pod.key.name, volume.name);
            format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim \
                 {claim:?}"
            )
        } else {
            continue;
        };
        return Err(Rejection::lasting(Plugin::VolumeBinding, reason));
    }
    Ok(())
}
