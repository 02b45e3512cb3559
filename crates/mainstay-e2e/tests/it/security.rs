//! What containers may do.

use std::fs;
use std::path::Path;

use rustix::io::Errno;
use serde_json::{Value, json};

use crate::api::{shown, wait_for_phase};
use crate::image::Image;
use crate::manifest::{Manifest, command, pod};
use crate::node::{Node, Pod};

/// Fields of /proc/1/status in the container `main`.
fn status_of(node: &Node, pod: &str) -> String {
    node.mainstay(&["exec", pod, "--", "cat", "/proc/1/status"]).success()
}

#[track_caller]
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

fn with_context(name: &str, context: Value) -> Manifest {
    pod(name).main("securityContext", context)
}

/// Runs images that ask for user 1000 and for group 6000, which is not that user's own. `images` is where images are.
pub(crate) fn run_images_with_groups(node: &Node, images: &Node) {
    for (name, user) in [("numbers", "1000:6000"), ("names", "app:root")] {
        let file = images.path(&format!("{name}.tar"));
        let image = Image::busybox()
            .with_file("etc/passwd", "app:x:1000:1000::/:/bin/sh\n")
            .with_file("etc/group", "app:x:1000:\nroot:x:6000:\n")
            .set("User", user);
        image.docker_archive(&format!("local/{name}:1"), &file);
        images.import(&file);
        node.put(&format!("{name}.yaml"), &pod(name).main("image", format!("local/{name}:1")));
        node.wait_for_running(name);
        assert_eq!(node.sh(name, "main", "id -u; id -g"), "1000\n6000\n", "{name}");
        node.take(&format!("{name}.yaml"));
        node.wait_for_gone(name);
    }
}

#[test]
fn the_default_filter_holds_the_container_and_what_is_run_in_it() {
    let Some(node) = Node::start() else { return };
    let runtime_default = json!({ "type": "RuntimeDefault" });
    let cases = [
        // The name, the context, the mode of the filter, and whether privileges can be gained.
        ("filtered", json!({ "seccompProfile": runtime_default }), "2", "0"),
        (
            "locked",
            json!({ "seccompProfile": runtime_default, "allowPrivilegeEscalation": false }),
            "2",
            "1",
        ),
        ("open", json!({ "seccompProfile": { "type": "Unconfined" } }), "0", "0"),
        // A kubelet without seccompDefault leaves it open.
        ("silent", json!({}), "0", "0"),
        ("privileged", json!({ "privileged": true, "seccompProfile": runtime_default }), "0", "0"),
    ];
    for (name, context, ..) in &cases {
        node.put(&format!("{name}.yaml"), &with_context(name, context.clone()));
    }
    for (name, _, mode, no_new_privileges) in cases {
        node.wait_for_running(name);
        let own = node.mainstay(&["exec", name, "--", "cat", "/proc/self/status"]).success();
        for status in [status_of(&node, name), own] {
            assert_eq!(field(&status, "Seccomp"), mode, "{name}");
            assert_eq!(field(&status, "NoNewPrivs"), no_new_privileges, "{name}");
        }
    }
    // What the filter is there for. Without it, whoever has no capability is only told so.
    let unshare = ["--", "unshare", "-U", "true"];
    let refused = node.mainstay(&[&["exec", "filtered"], &unshare[..]].concat()).failure(1);
    assert!(refused.contains("Operation not permitted"), "{refused}");
    node.mainstay(&[&["exec", "open"], &unshare[..]].concat()).success();
}

#[test]
fn a_pod_gives_its_filter_to_containers_that_say_nothing() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure("seccompDefault: true");
    node.launch();
    let web = pod("web").set(
        "spec.containers.1",
        json!({
            "name": "open", "image": "local/busybox:1", "command": command(""),
            "securityContext": { "seccompProfile": { "type": "Unconfined" } },
        }),
    );
    node.put("web.yaml", &web);
    let given = json!({ "type": "Unconfined" });
    node.put("given.yaml", &pod("given").set("spec.securityContext.seccompProfile", given));
    node.wait_for_running("web");
    node.wait_for_running("given");
    let cat = ["--", "cat", "/proc/self/status"];
    let of = |which: &[&str]| {
        let status = node.mainstay(&[&["exec"], which, &cat[..]].concat()).success();
        field(&status, "Seccomp")
    };
    assert_eq!(of(&["web"]), "2");
    assert_eq!(of(&["web", "-c", "open"]), "0");
    assert_eq!(of(&["given"]), "0");
}

#[test]
fn a_profile_of_the_machine_is_applied_or_its_container_alone_does_not_start() {
    let Some(node) = Node::start() else { return };
    let profiles = node.path("root/seccomp");
    fs::create_dir_all(&profiles).unwrap();
    let no_mkdir = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }],
    });
    fs::write(profiles.join("no-mkdir.json"), no_mkdir.to_string()).unwrap();
    fs::write(profiles.join("broken.json"), r#"{"defaultAction": "SCMP_ACT_SING"}"#).unwrap();
    let local = |file: &str| json!({ "type": "Localhost", "localhostProfile": file });
    let beside = |file: &str| {
        json!({
            "name": "beside", "image": "local/busybox:1", "command": command(""),
            "securityContext": { "seccompProfile": local(file) },
        })
    };
    node.put("good.yaml", &pod("good").set("spec.containers.1", beside("no-mkdir.json")));
    node.wait_for_running("good");
    let mkdir = ["--", "mkdir", "/tmp-d"];
    node.mainstay(&[&["exec", "good"], &mkdir[..]].concat()).success();
    let refused = node.mainstay(&[&["exec", "good", "-c", "beside"], &mkdir[..]].concat());
    // EOPNOTSUPP, as the profile says.
    let refused = refused.failure(1);
    assert!(refused.contains("not supported"), "{refused}");

    for (name, file, why) in
        [("broken", "broken.json", "SCMP_ACT_SING"), ("missing", "nowhere.json", "nowhere.json")]
    {
        node.put(&format!("{name}.yaml"), &pod(name).set("spec.containers.1", beside(file)));
        let told = |pod: &Pod| {
            let last = pod.container("beside").last_state.as_ref();
            let last = last.and_then(|last| last.terminated.as_ref()?.message.clone());
            pod.problem.clone().into_iter().chain(last).any(|message| message.contains(why))
        };
        let status = node.wait_until("it is told", |status| status.pod(name).is_some_and(&told));
        let pod = status.pod(name).unwrap();
        // containerd looks into a profile when the container is started, and again and again.
        if name != "broken" || !node.is_on_containerd() {
            assert_eq!(pod.state, "CreateContainerError", "{:?}", pod.problem);
        }
        // The container that has nothing to do with it runs.
        node.wait_until("the other container runs", |status| status.pod(name).unwrap().ready == 1);
    }
    assert!(node.status().pod("good").unwrap().runs());
}

#[test]
fn users_groups_and_capabilities_are_as_written() {
    let Some(node) = Node::start() else { return };
    let who = "id -u; id -g; id -G; touch /data/file; stat -c '%u %g %a' /data/file /data";
    let user = with_context("user", json!({ "runAsUser": 1000, "runAsGroup": 3000 }))
        .set("spec.securityContext", json!({ "fsGroup": 2000, "supplementalGroups": [4000] }))
        .set("spec.volumes", json!([{ "name": "data", "emptyDir": {} }]))
        .main("volumeMounts", json!([{ "name": "data", "mountPath": "/data" }]));
    node.put("user.yaml", &user);
    node.wait_for_running("user");
    let told = node.sh("user", "main", who);
    expect_test::expect![[r#"
        1000
        3000
        3000 2000 4000
        1000 2000 644
        0 2000 2777
    "#]]
    .assert_eq(&told);

    // The image's own groups of its user count, unless the pod says that its own are all.
    let image = node.path("groups.tar");
    Image::busybox()
        .with_file("etc/passwd", "app:x:1000:1000::/:/bin/sh\n")
        .with_file("etc/group", "app:x:1000:\nimage:x:5000:app\nroot:x:6000:root\n")
        .set("User", "app")
        .docker_archive("local/groups:1", &image);
    node.import(&image);
    for (policy, groups) in [("Merge", "1000 4000 5000"), ("Strict", "1000 4000")] {
        if policy == "Strict" && node.skips_on_containerd("supplementalGroupsPolicy, since 2.0") {
            continue;
        }
        let name = policy.to_lowercase();
        let context = json!({ "supplementalGroups": [4000], "supplementalGroupsPolicy": policy });
        let pod = pod(&name).main("image", "local/groups:1").set("spec.securityContext", context);
        node.put(&format!("{name}.yaml"), &pod);
        node.wait_for_running(&name);
        let told = node.mainstay(&["exec", &name, "--", "id", "-G"]).success();
        assert_eq!(told.trim(), groups, "{policy}");
    }

    // The user and the group of an image, as numbers and by their names.
    run_images_with_groups(&node, &node);

    // CAP_NET_ADMIN is 12 and CAP_CHOWN is 0.
    let cases = [
        ("default", json!({}), 0, 0x0000_0000_a804_25fb_u64),
        ("added", json!({ "capabilities": { "add": ["NET_ADMIN"] } }), 0, 0xa804_35fb),
        ("dropped", json!({ "capabilities": { "drop": ["CHOWN"] } }), 0, 0xa804_25fa),
        ("none", json!({ "capabilities": { "drop": ["ALL"] } }), 0, 0),
        ("one", json!({ "capabilities": { "drop": ["ALL"], "add": ["CHOWN"] } }), 0, 1),
        ("other", json!({ "runAsUser": 5 }), 5, 0),
        // Whoever is not root has them only by programs whose files bear them: none is ambient.
        ("asking", json!({ "runAsUser": 5, "capabilities": { "add": ["NET_ADMIN"] } }), 5, 0),
    ];
    for (name, context, ..) in &cases {
        node.put(&format!("{name}.yaml"), &with_context(name, context.clone()));
    }
    let agent = fs::read_to_string("/proc/self/status").unwrap();
    let held = u64::from_str_radix(&field(&agent, "CapEff"), 16).unwrap();
    for (name, _, uid, expected) in cases {
        node.wait_for_running(name);
        let status = status_of(&node, name);
        let effective = u64::from_str_radix(&field(&status, "CapEff"), 16).unwrap();
        // None more than this machine lets anybody have.
        assert_eq!(effective, expected & held, "{name}");
        assert_eq!(field(&status, "CapAmb"), "0000000000000000", "{name}");
        assert_eq!(field(&status, "Uid").split('\t').next(), Some(&*uid.to_string()), "{name}");
    }
}

#[test]
fn who_may_not_be_root_is_not() {
    let Some(node) = Node::start() else { return };
    node.put("root.yaml", &with_context("root", json!({ "runAsNonRoot": true })));
    node.put("user.yaml", &with_context("user", json!({ "runAsNonRoot": true, "runAsUser": 7 })));
    node.wait_for_running("user");
    let root = node.wait_for_state("root", "CreateContainerConfigError");
    let problem = root.problem.unwrap();
    assert!(problem.contains("runAsNonRoot"), "{problem}");
    // The image's own user: a number is one or is not, and of a name it cannot be told.
    for (name, user, refused) in [
        ("number", "7", None),
        ("zero", "0", Some("image will run as root")),
        ("name", "app", Some("image has non-numeric user (app), cannot verify user is non-root")),
    ] {
        let file = node.path(&format!("{name}.tar"));
        let image = Image::busybox().with_file("etc/passwd", "app:x:7:7::/:/bin/sh\n");
        let reference = format!("local/{name}:1");
        image.set("User", user).docker_archive(&reference, &file);
        node.import(&file);
        let pod = with_context(name, json!({ "runAsNonRoot": true })).main("image", reference);
        node.put(&format!("{name}.yaml"), &pod);
        match refused {
            None => drop(node.wait_for_running(name)),
            Some(why) => {
                let refused = node.wait_for_state(name, "CreateContainerConfigError");
                let problem = refused.problem.unwrap();
                assert!(problem.contains(why), "{problem}");
            }
        }
    }
}

#[test]
fn what_tells_of_the_machine_is_covered() {
    let Some(node) = Node::start() else { return };
    node.put("plain.yaml", &pod("plain"));
    node.put("privileged.yaml", &with_context("privileged", json!({ "privileged": true })));
    let script = "for it in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do \
                  [ ! -e $it ] || [ -c $it ] || echo $it; done; \
                  for it in /sys/firmware /proc/acpi /proc/scsi; do ls -A $it 2> /dev/null; done; \
                  cat /proc/self/oom_score_adj";
    node.wait_for_running("plain");
    // Nobody asked for memory, so it goes first when there is none left.
    assert_eq!(node.sh("plain", "main", script), "1000\n");
    node.wait_for_running("privileged");
    let seen = node.sh("privileged", "main", script);
    assert!(seen.contains("/proc/keys\n"), "{seen}");
}

#[test]
fn a_read_only_root_file_system_is_and_a_privileged_container_sees_the_devices() {
    let Some(node) = Node::start() else { return };
    let sealed = with_context("sealed", json!({ "readOnlyRootFilesystem": true }))
        .set("spec.volumes", json!([{ "name": "data", "emptyDir": {} }]))
        .main("volumeMounts", json!([{ "name": "data", "mountPath": "/data" }]));
    node.put("sealed.yaml", &sealed);
    node.put("plain.yaml", &pod("plain"));
    node.put("privileged.yaml", &with_context("privileged", json!({ "privileged": true })));
    for name in ["sealed", "plain", "privileged"] {
        node.wait_for_running(name);
    }
    let sh = |pod: &str, script: &str| node.mainstay(&["exec", pod, "--", "sh", "-c", script]);
    let refused = sh("sealed", "echo > /file").failure(1);
    assert!(refused.contains("Read-only file system"), "{refused}");
    sh("sealed", "echo > /data/file").success();
    sh("plain", "echo > /file").success();
    for (pod, mounts) in [("plain", false), ("privileged", true)] {
        let mounted = sh(pod, "mkdir /m; mount -t tmpfs none /m");
        assert_eq!(mounted.status.success(), mounts, "{mounted:?}");
        // Files by which a container could change the machine.
        let again = "cp /proc/sys/kernel/panic /value && cat /value > /proc/sys/kernel/panic";
        let written = sh(pod, again);
        assert_eq!(written.status.success(), mounts, "{written:?}");
        let sealed = sh(pod, "grep -q '^[^ ]* /sys sysfs ro' /proc/mounts");
        assert_eq!(sealed.status.success(), !mounts, "{sealed:?}");
        let devices = sh(pod, "ls /dev").success();
        assert_eq!(
            devices.contains("loop-control") || devices.contains("kmsg"),
            mounts,
            "{devices}"
        );
    }
}

/// As a kubelet's runtime does, which has nothing to give them to.
#[test]
fn labels_of_selinux_are_accepted_without_effect_on_a_kernel_that_has_none() {
    if Path::new("/sys/fs/selinux/enforce").exists() {
        println!("skipped: this kernel has SELinux, where such pods are rejected");
        return;
    }
    let Some(node) = Node::start() else { return };
    let options = json!({
        "user": "system_u", "role": "system_r", "type": "container_t", "level": "s0:c123,c456",
    });
    let of_pod = json!({ "seLinuxOptions": options, "seLinuxChangePolicy": "Recursive" });
    let labelled = with_context("labelled", json!({ "seLinuxOptions": { "level": "s0:c7" } }))
        .set("spec.securityContext", of_pod)
        .with_volume(json!({ "name": "data", "emptyDir": {} }));
    node.put("labelled.yaml", &labelled);
    node.put("plain.yaml", &pod("plain"));
    node.wait_for_running("plain");
    let uid = node.wait_for_running("labelled").uid;
    // Nothing is said against it, and whoever asks sees what was written.
    assert_eq!(node.status().notes("labelled.yaml"), "");
    wait_for_phase(&node, "labelled-n1", "Running");
    let path = "{.spec.securityContext.seLinuxOptions.level} \
                {.spec.containers[0].securityContext.seLinuxOptions.level}";
    assert_eq!(shown(&node, &["pod", "labelled-n1"], path).as_deref(), Some("s0:c123,c456 s0:c7"));
    // Its processes are called what others are, whatever another module of the kernel calls them, and its files
    // nothing.
    let label = |name| node.sh(name, "main", "cat /proc/1/attr/current 2>&1; true");
    assert_eq!(label("labelled"), label("plain"));
    node.sh("labelled", "main", "touch /data/file");
    let file = node.path(&format!("root/pods/{uid}/volumes/kubernetes.io~empty-dir/data/file"));
    let labelled = rustix::fs::getxattr(&file, "security.selinux", &mut [0; 64]);
    assert!(matches!(labelled, Err(Errno::NODATA | Errno::OPNOTSUPP)), "{labelled:?}");
}
