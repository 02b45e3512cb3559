//! How much a pod may receive and send at most: two annotations, which a kubelet leaves to the runtime.
//!
//! Source: containerd's copy of `pkg/util/bandwidth/utils.go`, for the bounds and the words.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;

use crate::quantity::{ParseQuantityError, Quantity};

/// What a pod receives, in bits per second.
pub const INGRESS_ANNOTATION: &str = "kubernetes.io/ingress-bandwidth";
/// What it sends.
pub const EGRESS_ANNOTATION: &str = "kubernetes.io/egress-bandwidth";

/// What is too little, and too much, in bits per second: 1k and 1P.
const LEAST: Quantity = Quantity::from_units(1_000);
const MOST: Quantity = Quantity::from_units(1_000_000_000_000_000);

/// Why a text is no bandwidth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BandwidthError {
    /// It is no quantity.
    Quantity(ParseQuantityError),
    /// It is less than 1k.
    Small,
    /// It is more than 1P.
    Large,
}

impl std::error::Error for BandwidthError {}

impl fmt::Display for BandwidthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantity(error) => error.fmt(f),
            Self::Small => f.write_str("resource is unreasonably small (< 1kbit)"),
            Self::Large => f.write_str("resource is unreasonably large (> 1Pbit)"),
        }
    }
}

/// Bits per second.
///
/// # Errors
/// When the text is no quantity, or one that no network has.
pub fn parse(text: &str) -> Result<u64, BandwidthError> {
    let quantity = Quantity::parse(text).map_err(BandwidthError::Quantity)?;
    if quantity < LEAST {
        return Err(BandwidthError::Small);
    }
    if quantity > MOST {
        return Err(BandwidthError::Large);
    }
    // More than 1k, so not negative.
    Ok(quantity.units().unsigned_abs())
}

/// What is wrong with the annotations of a pod that shall run as it is: their fields, and why.
pub(crate) fn errors(pod: &Pod) -> Vec<(String, String)> {
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let annotation = |name: &'static str| {
        let text = pod.metadata.annotations.as_ref()?.get(name)?;
        let message = match parse(text) {
            Err(error) => format!("Invalid value: {text:?}: {error}"),
            Ok(_) if host_network => {
                "Forbidden: a pod on the host's network (spec.hostNetwork) has no bandwidth of its own"
                    .to_owned()
            }
            Ok(_) => return None,
        };
        Some((format!("metadata.annotations[{name}]"), message))
    };
    [INGRESS_ANNOTATION, EGRESS_ANNOTATION].into_iter().filter_map(annotation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bandwidth_is_a_quantity_within_bounds() {
        for (text, bits) in [
            ("1k", Some(1_000)),
            ("10M", Some(10_000_000)),
            ("1Gi", Some(1 << 30)),
            ("1.5M", Some(1_500_000)),
            ("1e6", Some(1_000_000)),
            ("1P", Some(1_000_000_000_000_000)),
            ("999", None),
            ("0", None),
            ("-1M", None),
            ("1001T", None),
            ("10 M", None),
            ("10Mbit", None),
            ("", None),
        ] {
            assert_eq!(parse(text).ok(), bits, "{text}");
        }
        assert_eq!(parse("1").unwrap_err().to_string(), "resource is unreasonably small (< 1kbit)");
        assert_eq!(
            parse("2P").unwrap_err().to_string(),
            "resource is unreasonably large (> 1Pbit)"
        );
    }

    #[test]
    fn what_is_none_is_named() {
        let errors = |text: &str, host_network: bool| {
            let pod = serde_json::from_value(serde_json::json!({
                "metadata": { "annotations": { EGRESS_ANNOTATION: text, "other": "1" } },
                "spec": { "containers": [], "hostNetwork": host_network },
            }));
            errors(&pod.unwrap())
        };
        assert_eq!(errors("1M", false), []);
        assert_eq!(errors("1M", true).len(), 1);
        let [(field, message)] = &errors("1", true)[..] else { panic!("not one") };
        assert_eq!(field, "metadata.annotations[kubernetes.io/egress-bandwidth]");
        assert!(message.starts_with("Invalid value: \"1\": "), "{message}");
    }
}
