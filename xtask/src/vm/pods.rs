//! The pods that run in the guest.
//!
//! Those that say so write down what they do in [`LOG`], one line for each thing: the pod's name,
//! its generation, what it does, and in which boot.

use anyhow::Context;

use super::guest::Guest;

/// Where manifests are.
pub(super) const MANIFESTS: &str = "/root/pods";
/// Where pods write down what they do.
pub(super) const LOG: &str = "/observed/log";

/// On the bridge, reached through a host port, with limits, and with something to do at its end.
pub(super) const WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: web
    image: local/busybox:1
    command: [sh, -c]
    args:
    - |
      say() { echo "web 1 $1 $(cat /proc/sys/kernel/random/boot_id)" >>/observed/log; }
      gateway=$(ip route | awk '/^default/ { print $3 }')
      trap 'ping -c 1 -w 2 "$gateway" >/dev/null && say ended || say ended-alone; exit' TERM
      say started
      mkdir /www
      echo hello from the bridge >/www/index.html
      httpd -f -h /www & wait
    ports: [{ containerPort: 80, hostPort: 8080 }]
    resources:
      requests: { cpu: 250m }
      limits: { cpu: 500m, memory: 64Mi }
    volumeMounts: [{ name: observed, mountPath: /observed }]
  - name: idle
    image: local/busybox:1
    command: [sh, -c, "trap exit TERM; sleep infinity & wait"]
    resources:
      limits: { cpu: 250m, memory: 32Mi }
  volumes: [{ name: observed, hostPath: { path: /observed } }]
"#;

/// On the host's network.
pub(super) const HOST: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: host
spec:
  hostNetwork: true
  containers:
  - name: web
    image: local/busybox:1
    command: [sh, -c]
    args:
    - |
      trap exit TERM
      mkdir /www
      echo hello from the host >/www/index.html
      httpd -f -p 8081 -h /www & wait
"#;

/// As `kubectl run wide-0 --image=local/wide-0:latest --dry-run=client -o yaml` writes it.
pub(super) const RUN: &str = "
apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: null
  labels:
    run: wide-0
  name: wide-0
spec:
  containers:
  - image: local/wide-0:latest
    name: wide-0
    resources: {}
  dnsPolicy: ClusterFirst
  restartPolicy: Always
status: {}
";

/// A pod that writes down its starts.
pub(super) fn noted(name: &str, policy: &str, then: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  restartPolicy: {policy}
  containers:
  - name: main
    image: local/busybox:1
    command: [sh, -c]
    args:
    - |
      trap exit TERM
      echo "{name} 1 started $(cat /proc/sys/kernel/random/boot_id)" >>/observed/log
      {then}
    volumeMounts: [{{ name: observed, mountPath: /observed }}]
  volumes: [{{ name: observed, hostPath: {{ path: /observed }} }}]
"#
    )
}

/// A pod that takes longer to end than is usual, and may.
pub(super) const SLOW: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: slow
spec:
  terminationGracePeriodSeconds: 180
  containers:
  - name: main
    image: local/busybox:1
    command: [sh, -c]
    args:
    - |
      say() { echo "slow 1 $1 $(cat /proc/sys/kernel/random/boot_id)" >>/observed/log; }
      trap 'sleep 40; say ended; exit' TERM
      say started
      sleep infinity & wait
    volumeMounts: [{ name: observed, mountPath: /observed }]
  volumes: [{ name: observed, hostPath: { path: /observed } }]
"#;

/// What a pod that runs on does.
pub(super) const RUN_ON: &str = "sleep infinity & wait";

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) pod: String,
    pub(super) generation: String,
    pub(super) what: String,
    pub(super) boot: String,
}

/// The whole log.
pub(super) fn log(guest: &mut Guest) -> anyhow::Result<Vec<Noted>> {
    let text = guest.sh(&format!("touch {LOG}; cat {LOG}"))?;
    text.lines().map(|line| read(line).with_context(|| format!("cannot read {line:?}"))).collect()
}

fn read(line: &str) -> Option<Noted> {
    let mut words = line.split(' ').map(str::to_owned);
    let noted = Noted {
        pod: words.next()?,
        generation: words.next()?,
        what: words.next()?,
        boot: words.next()?,
    };
    words.next().is_none().then_some(noted)
}

/// How often a pod did something.
pub(super) fn times(log: &[Noted], pod: &str, what: &str) -> usize {
    log.iter().filter(|noted| noted.pod == pod && noted.what == what).count()
}
