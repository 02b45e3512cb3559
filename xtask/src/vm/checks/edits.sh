#!/bin/bash
# edits.sh SEED CUT: adds, changes and removes manifests for as long as there is power, each whole
# and synced, as a careful operator's tool does it. Pods with a p run on; those with an n run once,
# and when mainstay says that one has, its name is written down.
RANDOM=$1
cut=$2
cd /root/pods || exit

put() { # NAME GENERATION POLICY THEN
    cat >".$1.new" <<END
apiVersion: v1
kind: Pod
metadata: { name: $1 }
spec:
  restartPolicy: $3
  containers:
  - name: main
    image: local/busybox:1
    command: [sh, -c]
    args:
    - |
      trap exit TERM
      echo "$1 $2 started \$(cat /proc/sys/kernel/random/boot_id)" >>/observed/log
      $4
    volumeMounts: [{ name: observed, mountPath: /observed }]
  volumes: [{ name: observed, hostPath: { path: /observed } }]
END
    sync ".$1.new"
    mv ".$1.new" "$1.yaml"
    sync .
}

while true; do
    for pod in $(mainstay status | awk '$4 == "Completed" { print $2 }'); do
        name=${pod%-guest}
        grep -qx "$name" /observed/finished || echo "$name" >>/observed/finished
    done
    sleep 0.2
done &

for ((generation = cut * 1000; ; generation++)); do
    name=p$((RANDOM % 6))
    case $((RANDOM % 4)) in
    0) rm -f "$name.yaml" && sync . ;;
    1) put "n$generation" "$generation" Never "exit 0" ;;
    *) put "$name" "$generation" Always "sleep infinity & wait" ;;
    esac
    sleep "0.$((RANDOM % 8))"
done
