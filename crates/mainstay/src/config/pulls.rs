//! How many images are pulled, and how soon one after the other.

use anyhow::{Context, bail, ensure};
use mainstay_node::PullLimits;

use super::raw::Raw;

/// How many pulls may begin at once where only their rate is said. Source: `registryBurst`.
const BURST: u32 = 10;

/// Source: `ValidateKubeletConfiguration`, `SetDefaults_KubeletConfiguration`. What a kubelet limits by
/// itself is not limited here: a machine has to start all its pods at once.
pub(super) fn limits(raw: &Raw) -> anyhow::Result<PullLimits> {
    let most = match raw.max_parallel_image_pulls {
        None => None,
        Some(count) => match usize::try_from(count) {
            Ok(count @ 1..) => Some(count),
            _ => bail!("maxParallelImagePulls {count} must be a positive number"),
        },
    };
    let parallel = match (raw.serialize_image_pulls, most) {
        (Some(true), Some(2..)) => bail!(
            "maxParallelImagePulls cannot be larger than 1 unless serializeImagePulls is set to false"
        ),
        (Some(true), _) => Some(1),
        (Some(false) | None, most) => most,
    };
    let number = |field: &'static str, said: Option<i32>| {
        let number = u32::try_from(said.unwrap_or(0));
        number.with_context(|| format!("{field} must not be a negative number"))
    };
    let per_second = number("registryPullQPS", raw.registry_pull_qps)?;
    let burst = number("registryBurst", raw.registry_burst)?;
    ensure!(
        burst == 0 || raw.registry_pull_qps.is_some(),
        "registryBurst: only has a meaning with registryPullQPS, which has no limit here by default"
    );
    let burst = if burst == 0 { BURST } else { burst };
    Ok(PullLimits { parallel, rate: (per_second > 0).then_some((per_second, burst)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::raw;

    #[test]
    fn limits_are_a_kubelets_where_they_are_said() {
        let none = PullLimits::default();
        let parallel = |count| PullLimits { parallel: Some(count), ..none };
        let rate = |rate| PullLimits { rate: Some(rate), ..none };
        for (text, expected) in [
            ("", Ok(none)),
            ("serializeImagePulls: true", Ok(parallel(1))),
            ("serializeImagePulls: false\nmaxParallelImagePulls: 3", Ok(parallel(3))),
            ("maxParallelImagePulls: 3", Ok(parallel(3))),
            ("registryPullQPS: 2", Ok(rate((2, 10)))),
            ("registryPullQPS: 2\nregistryBurst: 4", Ok(rate((2, 4)))),
            ("registryPullQPS: 0\nregistryBurst: 4", Ok(none)),
            (
                "serializeImagePulls: true\nmaxParallelImagePulls: 2",
                Err(
                    "maxParallelImagePulls cannot be larger than 1 unless serializeImagePulls is set \
                     to false",
                ),
            ),
            ("maxParallelImagePulls: 0", Err("maxParallelImagePulls 0 must be a positive number")),
            ("registryPullQPS: -1", Err("registryPullQPS must not be a negative number")),
        ] {
            let limits = limits(&raw(text)).map_err(|error| error.to_string());
            assert_eq!(limits, expected.map_err(str::to_owned), "{text}");
        }
    }
}
