//! `featureGates.MemoryQoS`, `memoryThrottlingFactor` and `memoryReservationPolicy`. Source:
//! `pkg/kubelet/apis/config/{v1beta1/defaults,validation/validation}.go`.

use anyhow::bail;
use mainstay_plan::memory_qos::MemoryQos;

use super::raw::Raw;

const GATE: &str = "MemoryQoS";
const THROTTLING_FACTOR: f64 = 0.9;

/// How memory is kept and throttled; `None` while the gate is closed.
pub(super) fn memory_qos(raw: &Raw) -> anyhow::Result<Option<MemoryQos>> {
    let enabled = raw.feature_gates.get(GATE).copied().unwrap_or(false);
    let factor = raw.memory_throttling_factor.unwrap_or(THROTTLING_FACTOR);
    if !(factor > 0.0 && factor <= 1.0) {
        bail!(
            "memoryThrottlingFactor: {factor} must be greater than 0 and less than or equal to 1.0"
        );
    }
    let tiered = match raw.memory_reservation_policy.as_deref() {
        None | Some("" | "None") => false,
        Some("TieredReservation") if enabled => true,
        Some("TieredReservation") => {
            bail!(
                "memoryReservationPolicy: TieredReservation requires {GATE} feature gate to be enabled"
            )
        }
        Some(other) => bail!(
            "memoryReservationPolicy: {other:?} is neither \"None\" nor \"TieredReservation\""
        ),
    };
    let page_size = u64::try_from(rustix::param::page_size())?;
    Ok(enabled.then_some(MemoryQos { throttling_factor: factor, tiered, page_size }))
}

/// What of it asks for what is not done.
pub(super) fn in_vain(raw: &Raw) -> Option<String> {
    let closed = !raw.feature_gates.get(GATE).copied().unwrap_or(false);
    let factor = raw.memory_throttling_factor.filter(|factor| *factor != THROTTLING_FACTOR);
    factor.filter(|_| closed).map(|_| "memoryThrottlingFactor".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_done_when_the_gate_is_open() {
        let read = |fields: serde_json::Value| {
            let mut value = json!({
                "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            });
            value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let raw = Raw::parse(value).unwrap();
            let told: Vec<_> = in_vain(&raw).into_iter().collect();
            let qos = memory_qos(&raw).map_err(|error| error.to_string());
            (qos.map(|qos| qos.map(|qos| (qos.throttling_factor, qos.tiered))), told)
        };
        let open = json!({"MemoryQoS": true});
        let closed = "memoryReservationPolicy: TieredReservation requires MemoryQoS feature gate to be \
                      enabled";
        for (fields, expected, told) in [
            (json!({}), Ok(None), &[][..]),
            (json!({"featureGates": open}), Ok(Some((0.9, false))), &[]),
            (json!({"memoryThrottlingFactor": 0.5}), Ok(None), &["memoryThrottlingFactor"]),
            (
                json!({
                    "featureGates": open, "memoryThrottlingFactor": 0.5,
                    "memoryReservationPolicy": "TieredReservation",
                }),
                Ok(Some((0.5, true))),
                &[],
            ),
            (json!({"memoryReservationPolicy": "TieredReservation"}), Err(closed.to_owned()), &[]),
        ] {
            let told: Vec<String> = told.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(read(fields.clone()), (expected, told), "{fields}");
        }
        for odd in [
            json!({"memoryThrottlingFactor": 0}),
            json!({"memoryThrottlingFactor": 1.1}),
            json!({"memoryReservationPolicy": "Some"}),
        ] {
            assert!(read(odd.clone()).0.is_err(), "{odd}");
        }
    }
}
