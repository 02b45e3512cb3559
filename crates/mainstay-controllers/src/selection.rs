//! Which controllers run.

use std::str::FromStr;

use crate::CONTROLLERS;

/// Controllers by name, as in `*,-kube-scheduler`: `*` is all, `-` takes one away, and nothing is
/// none.
///
/// Source: `--controllers` of the kube-controller-manager, whose names they have
/// (`IsControllerEnabled`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(String);

/// There is no controller of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no controller {name:?}; there are {}", names().join(", "))]
pub struct UnknownController {
    name: String,
}

impl Selection {
    pub(crate) fn has(&self, name: &str) -> bool {
        let said = |item: &str| match item.strip_prefix('-') {
            Some(off) => (off == name).then_some(false),
            None => (item == name).then_some(true),
        };
        let items = || self.0.split(',').map(str::trim);
        items().find_map(said).unwrap_or_else(|| items().any(|item| item == "*"))
    }
}

impl FromStr for Selection {
    type Err = UnknownController;

    fn from_str(text: &str) -> Result<Self, UnknownController> {
        for item in text.split(',').map(str::trim) {
            let name = item.strip_prefix('-').unwrap_or(item);
            if !matches!(item, "" | "*") && !names().contains(&name) {
                return Err(UnknownController { name: name.to_owned() });
            }
        }
        Ok(Self(text.to_owned()))
    }
}

fn names() -> Vec<&'static str> {
    CONTROLLERS.iter().map(|controller| controller.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_selected_by_name() {
        let (one, other) = ("kube-scheduler", "deployment-controller");
        for (text, expected) in [
            ("*", (true, true)),
            ("", (false, false)),
            ("kube-scheduler", (true, false)),
            ("*, -kube-scheduler", (false, true)),
            ("-kube-scheduler", (false, false)),
            ("-kube-scheduler,kube-scheduler,*", (false, true)),
        ] {
            let selection: Selection = text.parse().unwrap();
            assert_eq!((selection.has(one), selection.has(other)), expected, "{text}");
        }
        let error = "*,-scheduler".parse::<Selection>().unwrap_err().to_string();
        assert!(error.starts_with("there is no controller \"scheduler\"; there are "), "{error}");
    }
}
