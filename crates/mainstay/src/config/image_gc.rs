//! When images are removed that nobody uses.

use std::time::Duration;

use anyhow::{Context, bail};
use mainstay_plan::image_gc::Policy;

use super::duration;
use super::raw::Raw;

/// Source: `SetDefaults_KubeletConfiguration`, `ValidateKubeletConfiguration`.
pub(super) fn policy(raw: &Raw) -> anyhow::Result<Policy> {
    let default = Policy::default();
    let percent = |field: &'static str, said: Option<i64>, default: u8| match said {
        None => Ok(default),
        Some(said) => match u8::try_from(said) {
            Ok(percent @ 0..=100) => Ok(percent),
            _ => bail!("{field}: must be from 0 to 100"),
        },
    };
    let age = |field: &'static str, said: &Option<String>| {
        said.as_deref().map_or(Ok(Duration::ZERO), |text| duration(text).context(field))
    };
    let min_age = age("imageMinimumGCAge", &raw.image_minimum_gc_age)?;
    let policy = Policy {
        high: percent(
            "imageGCHighThresholdPercent",
            raw.image_gc_high_threshold_percent,
            default.high,
        )?,
        low: percent(
            "imageGCLowThresholdPercent",
            raw.image_gc_low_threshold_percent,
            default.low,
        )?,
        // 0 is how the kubelet's file says "the default".
        min_age: if min_age.is_zero() { default.min_age } else { min_age },
        max_age: age("imageMaximumGCAge", &raw.image_maximum_gc_age)?,
    };
    if policy.low >= policy.high {
        bail!("imageGCLowThresholdPercent: must be less than imageGCHighThresholdPercent");
    }
    if !policy.max_age.is_zero() && policy.max_age <= policy.min_age {
        bail!("imageMaximumGCAge: must be more than imageMinimumGCAge");
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &serde_json::Value) -> Result<Policy, String> {
        let mut value = serde_json::json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        });
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        policy(&Raw::parse(value).unwrap()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_policy_is_read() {
        use serde_json::json;
        assert_eq!(read(&json!({})), Ok(Policy::default()));
        let all = json!({
            "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 0,
            "imageMinimumGCAge": "1s", "imageMaximumGCAge": "1h",
        });
        let (min_age, max_age) = (Duration::from_secs(1), Duration::from_secs(3600));
        assert_eq!(read(&all), Ok(Policy { high: 100, low: 0, min_age, max_age }));
        assert_eq!(read(&json!({"imageMinimumGCAge": "0s"})), Ok(Policy::default()));
        for (fields, error) in [
            (
                json!({"imageGCHighThresholdPercent": 101}),
                "imageGCHighThresholdPercent: must be from 0 to 100",
            ),
            (
                json!({"imageGCLowThresholdPercent": 85}),
                "imageGCLowThresholdPercent: must be less than imageGCHighThresholdPercent",
            ),
            (
                json!({"imageMaximumGCAge": "2m"}),
                "imageMaximumGCAge: must be more than imageMinimumGCAge",
            ),
        ] {
            assert_eq!(read(&fields).unwrap_err(), error);
        }
    }
}
