//! How much a sandbox may receive and send at most.

use std::collections::BTreeMap;

use crate::{Error, ErrorKind, Result};

/// Bounds of a sandbox's network, in bits per second.
///
/// They are annotations of a sandbox, as CRI knows no field for them: runtimes hand them to the network
/// plugin as its argument `bandwidth`. Source: containerd's `toCNIBandwidth`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// What it receives.
    pub ingress: Option<u64>,
    /// What it sends.
    pub egress: Option<u64>,
}

impl Bandwidth {
    /// The annotation for what a sandbox receives.
    pub const INGRESS_ANNOTATION: &str = "kubernetes.io/ingress-bandwidth";
    /// The annotation for what it sends.
    pub const EGRESS_ANNOTATION: &str = "kubernetes.io/egress-bandwidth";

    /// What the annotations of a sandbox say.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] unless each is a whole number of bits per second, as the agent writes it,
    /// or of thousands of them and the like with a suffix, as other clients hand on what a pod says.
    pub fn of(annotations: &BTreeMap<String, String>) -> Result<Self> {
        let number = |name: &str| {
            let Some(text) = annotations.get(name) else { return Ok(None) };
            let number = bits(text).filter(|number| *number > 0);
            let invalid = || format!("{name}: {text:?} is no number of bits per second");
            number.map(Some).ok_or_else(|| Error::new(ErrorKind::InvalidArgument, invalid()))
        };
        Ok(Self {
            ingress: number(Self::INGRESS_ANNOTATION)?,
            egress: number(Self::EGRESS_ANNOTATION)?,
        })
    }
}

/// A whole number with or without a suffix. Source: `Quantity` in `k8s.io/apimachinery/pkg/api/resource`.
fn bits(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 13] = [
        ("", 1),
        ("k", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
    ];
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at_checked(end)?;
    let (_, factor) = SUFFIXES.iter().find(|(name, _)| *name == suffix)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_whole_numbers() {
        let of =
            |name: &str, text: &str| Bandwidth::of(&[(name.to_owned(), text.to_owned())].into());
        let (ingress, egress) = (Bandwidth::INGRESS_ANNOTATION, Bandwidth::EGRESS_ANNOTATION);
        let none = Bandwidth::default();
        assert_eq!(of("other", "1").unwrap(), none);
        assert_eq!(of(ingress, "1000").unwrap(), Bandwidth { ingress: Some(1000), ..none });
        assert_eq!(of(egress, "1000").unwrap(), Bandwidth { egress: Some(1000), ..none });
        for (text, number) in [("1M", 1_000_000), ("2Ki", 2048), ("18E", 18 * 10_u64.pow(18))] {
            assert_eq!(of(ingress, text).unwrap().ingress, Some(number));
        }
        for text in ["", "0", "0M", "M", "1m", "-1", "+1", "1.5", "1 M", "19E"] {
            assert!(of(egress, text).is_err(), "{text}");
        }
    }
}
