//! When images are removed that nobody uses.

use anyhow::bail;
use mainstay_plan::image_gc::Policy;

use super::raw::Raw;
use super::time;

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
    let min_age = time("imageMinimumGCAge", &raw.image_minimum_gc_age)?;
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
        min_age: min_age.unwrap_or(default.min_age),
        max_age: time("imageMaximumGCAge", &raw.image_maximum_gc_age)?.unwrap_or_default(),
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
    use std::time::Duration;

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
