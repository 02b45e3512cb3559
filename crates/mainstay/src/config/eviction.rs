//! From where on something is short.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use mainstay_plan::pressure::Thresholds;

use super::raw::Raw;
use super::{duration, time};

/// What the file says of hard thresholds is all there is, unless it wants the defaults for the rest.
/// Source: `SetDefaults_KubeletConfiguration`, `mergeDefaultEvictionSettings`, `ParseThresholdConfig`.
pub(super) fn thresholds(raw: &Raw) -> anyhow::Result<Thresholds> {
    let merge = raw.merge_default_eviction_settings.unwrap_or(false);
    let mut thresholds = match (&raw.eviction_hard, merge) {
        (Some(_), false) => Thresholds::none(),
        (Some(_), true) | (None, _) => Thresholds::default(),
    };
    let at = |field: &'static str| move |error| anyhow::Error::msg(error).context(field);
    for (signal, text) in raw.eviction_hard.iter().flat_map(has_effect) {
        thresholds.set_hard(signal, text).map_err(at("evictionHard"))?;
    }
    for (signal, text) in has_effect(&raw.eviction_soft) {
        let grace = raw.eviction_soft_grace_period.get(signal);
        let grace = grace.map(|text| duration(text).context("evictionSoftGracePeriod"));
        thresholds.set_soft(signal, text, grace.transpose()?).map_err(at("evictionSoft"))?;
    }
    for (signal, text) in has_effect(&raw.eviction_minimum_reclaim) {
        thresholds.set_reclaim(signal, text).map_err(at("evictionMinimumReclaim"))?;
    }
    let transition = &raw.eviction_pressure_transition_period;
    if let Some(transition) = time("evictionPressureTransitionPeriod", transition)? {
        thresholds.transition = transition;
    }
    if let Some(seconds) = raw.eviction_max_pod_grace_period {
        let Ok(seconds) = u64::try_from(seconds) else {
            bail!("evictionMaxPodGracePeriod: must be 0 seconds or more");
        };
        thresholds.most_grace = std::time::Duration::from_secs(seconds);
    }
    Ok(thresholds)
}

/// Signals of `containerfs`, which is `nodefs`: its thresholds hold, as with a kubelet
/// (`UpdateContainerFsThresholds`).
pub(super) fn without_effect(raw: &Raw) -> impl Iterator<Item = String> {
    let soft = [
        ("evictionSoft", &raw.eviction_soft),
        ("evictionMinimumReclaim", &raw.eviction_minimum_reclaim),
    ];
    let hard = raw.eviction_hard.iter().map(|it| ("evictionHard", it));
    let named = |(field, signals): (&str, &BTreeMap<String, String>)| {
        let ours = signals.keys().filter(|signal| is_of_containers(signal));
        ours.map(|signal| format!("{field}[{signal}]")).collect::<Vec<_>>()
    };
    hard.chain(soft).flat_map(named)
}

fn has_effect(signals: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    signals.iter().filter(|(signal, _)| !is_of_containers(signal))
}

fn is_of_containers(signal: &str) -> bool {
    ["containerfs.available", "containerfs.inodesFree"].contains(&signal)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mainstay_plan::pressure::Threshold;

    use super::*;

    fn read(text: &str) -> anyhow::Result<Thresholds> {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        let text = format!("{head}{text}\n");
        let value = crate::config::read_value("f", text.as_bytes()).unwrap();
        thresholds(&Raw::parse(value)?)
    }

    fn told(text: &str) -> String {
        let name = |it: &Threshold| {
            let (grace, reclaim) = (it.grace.as_secs(), it.reclaim.is_some());
            format!("{} {grace} {reclaim}", it.signal.as_str())
        };
        match read(text) {
            Ok(thresholds) => thresholds.iter().map(name).collect::<Vec<_>>().join(", "),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn thresholds_are_read() {
        let disk =
            "nodefs.inodesFree 0 false, imagefs.available 0 false, imagefs.inodesFree 0 false";
        let all = format!("memory.available 0 false, nodefs.available 0 false, {disk}");
        let soft = "evictionSoft: {memory.available: 1Gi}";
        let grace = "evictionSoftGracePeriod: {memory.available: 1m30s}";
        for (text, expected) in [
            ("", all.as_str()),
            ("evictionHard: {}", ""),
            ("evictionHard: {nodefs.available: 0%}", ""),
            (
                "evictionHard: {nodefs.available: 0%}\nmergeDefaultEvictionSettings: true",
                &format!("memory.available 0 false, {disk}"),
            ),
            (
                "evictionHard: {pid.available: \"10\", containerfs.available: 1%}",
                "pid.available 0 false",
            ),
            ("evictionHard: {disk: 1%}", "evictionHard: \"disk\" is no eviction signal"),
            (
                &format!(
                    "evictionHard: {{}}\n{soft}\n{grace}\nevictionMinimumReclaim: {{memory.available: 1Mi}}"
                ),
                "memory.available 90 true",
            ),
            (
                soft,
                "evictionSoft: memory.available has no grace period; set evictionSoftGracePeriod too",
            ),
            (
                "evictionMaxPodGracePeriod: -1",
                "evictionMaxPodGracePeriod: must be 0 seconds or more",
            ),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
        let thresholds =
            read("evictionPressureTransitionPeriod: 1s\nevictionMaxPodGracePeriod: 7").unwrap();
        assert_eq!(thresholds.transition, Duration::from_secs(1));
        assert_eq!(thresholds.most_grace, Duration::from_secs(7));
        let default = read("evictionPressureTransitionPeriod: 0s").unwrap();
        assert_eq!((default.transition.as_secs(), default.most_grace), (300, Duration::ZERO));
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let value = serde_json::json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "evictionHard": {"containerfs.available": "1%", "nodefs.available": "1%"},
            "evictionSoft": {"containerfs.inodesFree": "1%"},
        });
        let raw = Raw::parse(value).unwrap();
        let named: Vec<String> = without_effect(&raw).collect();
        assert_eq!(
            named,
            ["evictionHard[containerfs.available]", "evictionSoft[containerfs.inodesFree]"]
        );
    }
}
