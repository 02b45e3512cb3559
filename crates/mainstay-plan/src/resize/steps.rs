//! In which order control groups change, and whether they may.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use mainstay_pod::Amounts;

use super::{Requirements, Resize, Update};

/// What of a pod's control group is changed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The limit of memory.
    Memory,
    /// The limit of CPU.
    CpuLimit,
    /// The share of CPU.
    CpuRequest,
}

/// One change of a control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The pod's own.
    Pod(Part),
    /// A container is given this.
    Container(&'a Update, Requirements),
}

impl Resize {
    /// What is done, in order: a pod grows before its containers do and shrinks after them, and of what it
    /// has the limit grows first and shrinks last. What fails ends it.
    ///
    /// Source: `doPodResizeAction`. A pod's limit is never taken away.
    pub fn steps(&self) -> Vec<Step<'_>> {
        // No limit is the most of memory, and to the kernel's file for CPU the least.
        let memory = |it: &Requirements| it.limits.memory_bytes.unwrap_or(u64::MAX);
        let pod_memory = self.to.limits.memory_bytes.map(|to| to.cmp(&memory(&self.from)));
        let limit = self.to.limits.cpu_milli;
        let pod_limit = limit.map(|to| to.cmp(&self.from.limits.cpu_milli.unwrap_or(0)));
        let request = |it: &Requirements| it.requests.cpu_milli.unwrap_or(0);
        let pod_request = Some(request(&self.to).cmp(&request(&self.from)));
        let given = |update: &Update| {
            // Its CPU has its own turn, after that.
            let (from, to) = (update.from, update.to);
            let mix =
                |memory: Amounts, cpu: Amounts| Amounts { cpu_milli: cpu.cpu_milli, ..memory };
            Requirements {
                requests: mix(to.requests, from.requests),
                limits: mix(to.limits, from.limits),
            }
        };
        let mut steps = Vec::new();
        let mut push = |when: bool, step| {
            if when {
                steps.push(step);
            }
        };
        push(pod_memory == Some(Ordering::Greater), Step::Pod(Part::Memory));
        for update in &self.memory {
            push(true, Step::Container(update, given(update)));
        }
        push(pod_memory == Some(Ordering::Less), Step::Pod(Part::Memory));
        push(pod_limit == Some(Ordering::Greater), Step::Pod(Part::CpuLimit));
        push(pod_request == Some(Ordering::Greater), Step::Pod(Part::CpuRequest));
        for update in &self.cpu {
            push(true, Step::Container(update, update.to));
        }
        push(pod_request == Some(Ordering::Less), Step::Pod(Part::CpuRequest));
        push(pod_limit == Some(Ordering::Less), Step::Pod(Part::CpuLimit));
        steps
    }

    /// Whether what the pod uses has to be known before.
    pub fn shrinks(&self) -> bool {
        self.shrinking_pod().is_some() || self.shrinking().next().is_some()
    }

    /// Whether nothing is to have less memory than it uses: `pod` and containers by name, in bytes, where
    /// that is known.
    ///
    /// # Errors
    ///
    /// What does not fit, in the words of a kubelet. Of a container it tells what that uses, where a kubelet
    /// tells what the pod does.
    ///
    /// Source: `validateMemoryResizeAction`.
    pub fn check(
        &self,
        pod: Option<u64>,
        containers: &BTreeMap<String, Option<u64>>,
    ) -> Result<(), String> {
        let mut errors = Vec::new();
        if let Some(limit) = self.shrinking_pod() {
            match pod {
                None => errors.push("missing pod memory usage".to_owned()),
                Some(usage) if usage >= limit => errors.push(format!(
                    "attempting to set pod memory limit ({limit}) below current usage ({usage})"
                )),
                Some(_) => {}
            }
        }
        for (name, limit) in self.shrinking() {
            match containers.get(name) {
                Some(None) => errors.push(format!("missing container {name:?} memory usage")),
                Some(Some(usage)) if *usage >= limit => errors.push(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current \
                     usage ({usage})"
                )),
                Some(Some(_)) | None => {}
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            all => Err(format!("cannot decrease memory limits: [{}]", all.join(", "))),
        }
    }

    fn shrinking_pod(&self) -> Option<u64> {
        less(&self.from, &self.to)
    }

    fn shrinking(&self) -> impl Iterator<Item = (&str, u64)> {
        let less = |it: &Update| less(&it.from, &it.to);
        self.memory.iter().filter_map(move |it| Some((it.container.as_str(), less(it)?)))
    }
}

/// The limit of memory, if there was none or more.
fn less(from: &Requirements, to: &Requirements) -> Option<u64> {
    let limit = to.limits.memory_bytes.filter(|limit| *limit != 0)?;
    let before = from.limits.memory_bytes.filter(|limit| *limit != 0);
    before.is_none_or(|before| limit < before).then_some(limit)
}
