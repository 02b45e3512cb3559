//! What pods take from ConfigMaps and Secrets, from themselves, and from parts of volumes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::api::{create, kubectl, shown, wait_for_event, wait_for_phase, wait_for_shown};
use crate::bad_input::wait_for_problem;
use crate::manifest::pod;
use crate::node::{Node, wait_for};

pub(crate) fn config_map(name: &str, data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data })
}

pub(crate) fn secret(name: &str, data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data })
}

/// Puts a file that nobody else may read.
pub(crate) fn put_secret(node: &Node, file: &str, object: &Value) {
    let staged = node.stage(file, object);
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(staged, node.manifests().join(file)).unwrap();
}

/// Waits until a file on the host says this.
fn wait_for_text(node: &Node, file: &str, expected: &str) {
    let path = node.host().join(file);
    let read = || fs::read_to_string(&path).unwrap_or_default();
    let told = wait_for(|| (read() == expected).then_some(()));
    assert!(told.is_some(), "{file}: {:?} instead of {expected:?}\n{}", read(), node.log());
}

/// Copies what a file of the container says to one of the host, whenever it changes.
const FOLLOW: &str = "follow() { while :; do cat $1 > /host/.$2 2>/dev/null && mv /host/.$2 \
                      /host/$2; sleep 0.05; done; }\n";

/// A pod that waits for all that it refers to, starts when it is there, and sees it change.
#[test]
fn static_pods_take_what_lies_beside_them() {
    let Some(mut node) = Node::start() else { return };
    let script = format!(
        "{FOLLOW}env > /host/env.new; mv /host/env.new /host/env; echo start >> /host/starts\n\
         stat -L -c '%a %u %g' /secret/..data/password /secret/..data > /host/rights\n\
         grep ' /secret ' /proc/mounts > /host/mounts\n\
         touch /map/new 2> /host/touch\n\
         follow /map/app.conf map & follow /all/d/note note & follow /all/pass pass &"
    );
    let value_from =
        |kind: &str, name: &str, key: &str| json!({ kind: { "name": name, "key": key } });
    let web = pod("web")
        .with_host_directory(&node.host())
        .script(&script)
        .set("metadata.labels", json!({ "app": "web" }))
        .set("spec.securityContext", json!({ "fsGroup": 4321 }))
        .main(
            "env",
            json!([
                { "name": "COLOR", "valueFrom": value_from("configMapKeyRef", "app", "color") },
                { "name": "PASS", "valueFrom": value_from("secretKeyRef", "db", "password") },
                { "name": "NONE", "valueFrom": { "configMapKeyRef":
                    { "name": "none", "key": "x", "optional": true } } },
                { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "APP", "valueFrom":
                    { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                { "name": "MEMORY", "valueFrom": { "resourceFieldRef":
                    { "resource": "limits.memory", "divisor": "1Mi" } } },
                { "name": "BOTH", "value": "$(COLOR) on $(POD) $(NONE)" },
            ]),
        )
        .main("resources", json!({ "limits": { "memory": "64Mi" } }))
        .main("envFrom", json!([{ "prefix": "ALL_", "configMapRef": { "name": "app" } }]));
    let web = web.with_volume(json!({ "name": "map", "configMap": { "name": "app" } }));
    let mode = json!({ "secretName": "db", "defaultMode": 0o400 });
    let web = web.with_volume(json!({ "name": "secret", "secret": mode }));
    let sources = json!([
        { "secret": { "name": "db", "items": [{ "key": "password", "path": "pass" }] } },
        { "downwardAPI": { "items":
            [{ "path": "d/note", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
    ]);
    let web = web.with_volume(json!({ "name": "all", "projected": { "sources": sources } }));
    node.put("web.yaml", &web);
    let waiting = node.wait_for_state("web", "FailedMount");
    let problem = waiting.problem.unwrap();
    assert!(
        problem
            .contains("MountVolume.SetUp failed for volume \"map\" : configmap \"app\" not found"),
        "{problem}"
    );

    node.put("app.yaml", &config_map("app", &json!({ "color": "red", "app.conf": "one" })));
    wait_for_problem(&node, "web", &["secret \"db\" not found"]);
    put_secret(&node, "db.yaml", &secret("db", &json!({ "other": "x" })));
    wait_for_problem(&node, "web", &["references non-existent secret key: password"]);
    put_secret(&node, "db.yaml", &secret("db", &json!({ "password": "p1" })));
    let running = node.wait_for_running("web");
    assert!(node.status().manifests.is_empty(), "{:?}", node.status().manifests);

    let env = node.wait_for_told("env", 1).join("\n");
    for line in [
        "COLOR=red",
        "PASS=p1",
        "POD=web-n1",
        "APP=web",
        "MEMORY=64",
        "BOTH=red on web-n1 $(NONE)",
        "ALL_color=red",
    ] {
        assert!(env.lines().any(|it| it == line), "{line} is not in {env}");
    }
    assert!(!env.contains("\nNONE="), "{env}");
    wait_for_text(&node, "map", "one");
    wait_for_text(&node, "note", "app=\"web\"");
    assert_eq!(node.told("rights"), ["440 0 4321", "2755 0 4321"]);
    assert!(
        node.told("mounts")[0].starts_with("tmpfs /secret tmpfs ro"),
        "{:?}",
        node.told("mounts")
    );
    assert!(node.told("touch")[0].contains("Read-only file system"), "{:?}", node.told("touch"));

    // Files change, variables and the container do not; also what changed while no agent ran.
    node.put("app.yaml", &config_map("app", &json!({ "color": "blue", "app.conf": "two" })));
    put_secret(&node, "db.yaml", &secret("db", &json!({ "password": "p2" })));
    wait_for_text(&node, "map", "two");
    wait_for_text(&node, "pass", "p2");
    node.kill();
    node.put("app.yaml", &config_map("app", &json!({ "color": "blue", "app.conf": "three" })));
    node.launch();
    wait_for_text(&node, "map", "three");
    // Broken, it is told of; taken away, what there was stays.
    node.put(
        "app.yaml",
        &"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata: {a b: c}\n",
    );
    node.wait_until("the file is told of", |status| {
        status.notes("app.yaml").contains("Invalid value: \"a b\"")
    });
    node.take("app.yaml");
    node.take("db.yaml");
    node.kill();
    node.launch();
    let after = node.wait_for_running("web");
    assert_eq!(after.container("main").container_id, running.container("main").container_id);
    wait_for_text(&node, "map", "three");
    assert_eq!(node.told("starts"), ["start"]);
    // It comes back changed.
    node.put("app.yaml", &config_map("app", &json!({ "color": "blue", "app.conf": "four" })));
    put_secret(&node, "db.yaml", &secret("db", &json!({ "password": "p4" })));
    wait_for_text(&node, "map", "four");
    wait_for_text(&node, "pass", "p4");

    // A machine that starts again has nothing but what is there.
    node.cut_power();
    node.take("app.yaml");
    node.launch();
    let waiting = node.wait_for_state("web", "FailedMount").problem.unwrap();
    assert!(waiting.contains("configmap \"app\" not found"), "{waiting}");
    node.put("app.yaml", &config_map("app", &json!({ "color": "green", "app.conf": "five" })));
    node.wait_for_running("web");
    wait_for_text(&node, "map", "five");
    node.take("web.yaml");
    node.wait_for_gone("web");
}

/// What cannot be read when an agent starts is not missing: pods that run keep what they have, others wait.
#[test]
fn what_is_broken_when_an_agent_starts_is_not_missing() {
    let Some(mut node) = Node::start() else { return };
    let script = format!("{FOLLOW}follow /map/k map &");
    let web = pod("web").with_host_directory(&node.host()).script(&script);
    let volume = json!({ "name": "map", "configMap": { "name": "app", "optional": true } });
    node.put("app.yaml", &config_map("app", &json!({ "k": "one" })));
    node.put("web.yaml", &web.with_volume(volume));
    let running = node.wait_for_running("web");
    wait_for_text(&node, "map", "one");

    node.kill();
    node.put("app.yaml", &"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app\n");
    let late = |name: &str, map: &str| {
        let optional = json!({ "name": map, "key": "k", "optional": true });
        let k = json!([{ "name": "K", "valueFrom": { "configMapKeyRef": optional } }]);
        let tells = format!("echo \"[$K]\" > /host/{name}");
        pod(name).with_host_directory(&node.host()).script(&tells).main("env", k)
    };
    node.put("late.yaml", &late("late", "app"));
    node.put("other.yaml", &late("other", "none"));
    node.launch();
    let broken = node.manifests().join("app.yaml");
    let why = format!("{} could not: it is not valid", broken.display());
    let waiting = node.wait_for_state("late", "CreateContainerConfigError").problem.unwrap();
    assert!(waiting.contains("cannot read ConfigMap default/app"), "{waiting}");
    assert!(waiting.contains(&why), "{waiting}");
    node.wait_for_state("other", "CreateContainerConfigError");
    node.wait_until("the pod that runs is told of", |status| {
        let told = status.pod("web").map(|web| web.events("FailedMount"));
        told.is_some_and(|told| told.iter().any(|event| event.message.contains(&why)))
    });
    assert_eq!(node.sh("web", "main", "cat /map/k"), "one");

    node.put("app.yaml", &config_map("app", &json!({ "k": "two" })));
    wait_for_text(&node, "map", "two");
    node.wait_for_running("late");
    node.wait_for_running("other");
    assert_eq!(
        (node.wait_for_told("late", 1), node.wait_for_told("other", 1)),
        (vec!["[two]".to_owned()], vec!["[]".to_owned()],)
    );
    let after = node.wait_for_running("web");
    assert_eq!(after.container("main").container_id, running.container("main").container_id);
    // Now it is all known, and what is broken keeps what it had; what is taken away is missing.
    node.put("app.yaml", &"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app\n");
    node.wait_until("the file is told of", |status| !status.notes("app.yaml").is_empty());
    assert_eq!(node.sh("web", "main", "cat /map/k"), "two");
    node.take("app.yaml");
    let gone = wait_for(|| node.sh("web", "main", "ls /map").is_empty().then_some(()));
    assert!(gone.is_some(), "{}", node.log());
}

#[test]
fn what_is_optional_may_be_missing_and_files_are_where_and_as_they_are_asked_for() {
    let Some(node) = Node::start() else { return };
    let optional = |kind: &str, name: &str, key: &str| {
        let value = json!({ kind: { "name": name, "key": key, "optional": true } });
        json!({ "name": format!("{}_{}", name.to_uppercase(), key.to_uppercase()), "valueFrom": value })
    };
    let from = |kind: &str| json!({ kind: { "name": "none", "optional": true } });
    let items = json!([
        { "key": "there", "path": "deep/er/file", "mode": 0o440 },
        { "key": "there", "path": "deep/plain" },
        { "key": "late", "path": "deep/late", "mode": 0o604 },
    ]);
    let part = |kind: &str, name: &str, items: Value| json!({ kind: { "name": name, "items": items, "optional": true } });
    let sources = json!([
        part("configMap", "app", items.clone()),
        part("configMap", "none", json!(null)),
        part("secret", "none", json!([{ "key": "late", "path": "late" }])),
    ]);
    let web = pod("web")
        .main(
            "env",
            json!([
                optional("configMapKeyRef", "app", "there"),
                optional("configMapKeyRef", "app", "late"),
                optional("configMapKeyRef", "none", "late"),
                optional("secretKeyRef", "none", "secret"),
            ]),
        )
        .main("envFrom", json!([from("configMapRef"), from("secretRef")]))
        .with_volume(json!({ "name": "map", "configMap":
            { "name": "app", "items": items, "optional": true, "defaultMode": 0o640 } }))
        .with_volume(json!({ "name": "none", "configMap": { "name": "none", "optional": true } }))
        .with_volume(json!({ "name": "secret", "secret":
            { "secretName": "none", "optional": true, "defaultMode": 0o400 } }))
        .with_volume(json!({ "name": "all", "projected":
            { "sources": sources, "defaultMode": 0o600 } }));
    node.put("app.yaml", &config_map("app", &json!({ "there": "x" })));
    node.put("web.yaml", &web);
    let running = node.wait_for_running("web");
    assert_eq!(node.sh("web", "main", "env | grep -E '^(APP|NONE)_'"), "APP_THERE=x\n");
    // What the volumes show, and as what; the volumes' own names begin with two dots.
    let list = "cd /; find map none secret all -follow -type f ! -path '*/..*' | sort | \
                xargs stat -L -c '%n %a'";
    let files = || node.sh("web", "main", list);
    expect_test::expect![[r#"
        all/deep/er/file 440
        all/deep/plain 600
        map/deep/er/file 440
        map/deep/plain 640
    "#]]
    .assert_eq(&files());

    // What comes is shown; variables are those of the start.
    node.put("app.yaml", &config_map("app", &json!({ "there": "x", "late": "y" })));
    node.put("none.yaml", &config_map("none", &json!({ "late": "z" })));
    put_secret(&node, "secret.yaml", &secret("none", &json!({ "late": "s" })));
    wait_for(|| (files().lines().count() == 9).then_some(()))
        .unwrap_or_else(|| panic!("{}", files()));
    expect_test::expect![[r#"
        all/deep/er/file 440
        all/deep/late 604
        all/deep/plain 600
        all/late 600
        map/deep/er/file 440
        map/deep/late 604
        map/deep/plain 640
        none/late 644
        secret/late 400
    "#]]
    .assert_eq(&files());
    // Of two files of one path the later source's is there.
    let said = || node.sh("web", "main", "cat /all/late; cat /map/deep/late");
    assert!(wait_for(|| (said() == "sy").then_some(())).is_some(), "{}", said());
    assert_eq!(node.wait_for_running("web").id(), running.id());

    // Without the word it waits.
    let needs = pod("needs").with_volume(json!({ "name": "map", "configMap":
        { "name": "app", "items": [{ "key": "other", "path": "other" }] } }));
    node.put("needs.yaml", &needs);
    wait_for_problem(&node, "needs", &["references non-existent config key: other"]);
    let needs = pod("needs").main(
        "env",
        json!([{ "name": "A", "valueFrom": { "configMapKeyRef":
            { "name": "app", "key": "other" } } }]),
    );
    node.put("needs.yaml", &needs);
    let waiting = node.wait_for_state("needs", "CreateContainerConfigError").problem.unwrap();
    assert!(waiting.contains("couldn't find key other in ConfigMap default/app"), "{waiting}");
}

/// What systemd decrypts for the service is in the directory that it names.
#[test]
fn a_secret_takes_values_from_the_credentials_of_the_service() {
    let Some(mut node) = Node::prepare() else { return };
    let credentials = node.path("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o500)).unwrap();
    fs::write(credentials.join("db-password"), "of the service").unwrap();
    node.environment.push(("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap().to_owned()));
    node.launch();
    let of = |name: &str, taken: &str, more: Value| {
        let mut secret = secret(name, &more);
        secret["metadata"]["annotations"] = json!({ "mainstay.dev/credentials": taken });
        secret
    };
    let web = |name: &str| {
        let password = json!({ "secretKeyRef": { "name": name, "key": "password" } });
        pod(name)
            .main("env", json!([{ "name": "PASSWORD", "valueFrom": password }]))
            .with_volume(json!({ "name": "db", "secret": { "secretName": name } }))
    };
    // There is nothing in the file that has to be kept from others.
    node.put("db.yaml", &of("db", "password=db-password", json!({})));
    node.put("web.yaml", &web("db"));
    node.wait_for_running("db");
    let read = "echo \"$PASSWORD\"; grep -q ' /db tmpfs ' /proc/mounts; cd /db; head *";
    assert_eq!(node.sh("db", "main", read), "of the service\nof the service");
    assert_eq!(node.status().notes("db.yaml"), "");
    let file = node.manifests().join("db.yaml");
    let checked = node.mainstay(&["check", file.to_str().unwrap()]).success();
    assert_eq!(checked, format!("{}: ok (Secret default/db)\n", file.display()));

    let other = |taken: &str| of("other", taken, json!({ "user": "admin" }));
    put_secret(&node, "other.yaml", &other("password=db-passwort"));
    node.put("waits.yaml", &web("other"));
    let status = node.wait_until("it is refused", |status| !status.notes("other.yaml").is_empty());
    let notes = status.notes("other.yaml");
    let words = "its key \"password\" is the credential \"db-passwort\", which cannot be read";
    assert!(notes.contains(words), "{notes}");
    node.wait_for_state("other", "FailedMount");
    put_secret(&node, "other.yaml", &other("password=db-password"));
    node.wait_for_running("other");
    assert_eq!(node.sh("other", "main", "cat /db/user /db/password"), "adminof the service");
    // The API shows what stands in the file, and no more.
    let other = ["secret", "other.mainstay-n1"];
    wait_for_shown(&node, &other, "{.data}", Some("{\"user\":\"YWRtaW4=\"}"));
}

#[test]
fn the_mirror_is_shown_and_a_secret_that_all_can_read_is_told_of() {
    let Some(node) = Node::start() else { return };
    let web = pod("web").main("envFrom", json!([{ "secretRef": { "name": "db" } }]));
    node.put(
        "all.json",
        &json!({ "apiVersion": "v1", "kind": "List", "items": [
        secret("db", &json!({ "A": "b" })),
        serde_json::from_str::<Value>(&web.to_string()).unwrap(),
    ] }),
    );
    node.wait_for_running("web");
    let notes = node.wait_until("it is told of", |status| !status.notes("all.json").is_empty());
    let notes = notes.notes("all.json");
    assert!(
        notes.contains("Secret default/db can be read by everybody on this machine"),
        "{notes}"
    );
    let checked = node.mainstay(&["check", node.manifests().to_str().unwrap()]).success();
    assert!(checked.contains("ok (pod default/web, Secret default/db)"), "{checked}");
    wait_for_phase(&node, "web-n1", "Running");
    let path = "{.metadata.annotations.mainstay\\.dev/config\\.references}";
    assert_eq!(shown(&node, &["pod", "web-n1"], path).unwrap(), "secrets/db");
}

#[test]
fn parts_of_volumes_are_mounted_and_lead_nowhere_else() {
    let Some(node) = Node::start() else { return };
    node.put("app.yaml", &config_map("app", &json!({ "a": "1", "b": "2" })));
    let volume = node.path("volume");
    fs::create_dir(&volume).unwrap();
    symlink("/etc", volume.join("out")).unwrap();
    let mount = |name: &str, path: &str, sub: &str| json!({ "name": name, "mountPath": path, "subPath": sub });
    let parts = |script: &str| {
        pod("parts")
            .with_host_directory(&node.host())
            .script(script)
            .set("spec.volumes.1", json!({ "name": "v", "hostPath": { "path": volume } }))
            .set("spec.volumes.2", json!({ "name": "m", "configMap": { "name": "app" } }))
    };
    let good = parts(
        "cat /etc/b.conf > /host/b; echo x > /made/file; echo y > /own/file; ls /own > /host/ls",
    )
    .main(
        "env",
        json!([{ "name": "POD", "valueFrom":
            { "fieldRef": { "fieldPath": "metadata.name" } } }]),
    )
    .main("volumeMounts.1", mount("m", "/etc/b.conf", "b"))
    .main("volumeMounts.2", mount("v", "/made", "new/dir"))
    .main(
        "volumeMounts.3",
        json!({ "name": "v", "mountPath": "/own", "subPathExpr": "of-$(POD)" }),
    );
    node.put("parts.yaml", &good);
    node.wait_for_running("parts");
    wait_for_text(&node, "b", "2");
    wait_for_text(&node, "ls", "file\n");
    assert_eq!(fs::read_to_string(volume.join("new/dir/file")).unwrap(), "x\n");
    assert_eq!(fs::read_to_string(volume.join("of-parts-n1/file")).unwrap(), "y\n");
    let mode = |path: &str| fs::metadata(volume.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("new/dir"), mode(""));
    let bad = parts("").main("volumeMounts.1", mount("v", "/x", "out"));
    node.put("parts.yaml", &bad);
    let refused = node.wait_for_state("parts", "CreateContainerConfigError").problem.unwrap();
    let words = "failed to prepare subPath for volumeMount \"v\" of container \"main\"";
    assert!(refused.contains(words), "{refused}");
}

#[test]
fn pods_of_the_api_take_what_the_api_has() {
    let Some(mut node) = Node::start() else { return };
    let script = format!(
        "{FOLLOW}env > /host/env.new; mv /host/env.new /host/env; follow /map/k map & follow /down/labels labels &"
    );
    let web = pod("web")
        .with_host_directory(&node.host())
        .script(&script)
        .set("metadata.labels", json!({ "a": "1" }))
        .set("spec.nodeName", "n1")
        .main("imagePullPolicy", "Never")
        .main("envFrom", json!([{ "secretRef": { "name": "db" } }]));
    let web = web.with_volume(json!({ "name": "map", "configMap": { "name": "app" } }));
    let items = json!([{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }]);
    let web = web.with_volume(json!({ "name": "down", "downwardAPI": { "items": items } }));
    // What lies beside manifests is not for it.
    node.put("app.yaml", &config_map("app", &json!({ "k": "of the disk" })));
    create(&node, &web);
    let missing = "MountVolume.SetUp failed for volume \"map\" : configmap \"app\" not found";
    wait_for_event(&node, "involvedObject.name=web", missing);

    let ok = |arguments: &[&str]| drop(kubectl(&node, arguments).success());
    ok(&["create", "configmap", "app", "--from-literal=k=one"]);
    wait_for_event(&node, "involvedObject.name=web", "Error: secret \"db\" not found");
    ok(&["create", "secret", "generic", "db", "--from-literal=PASS=p"]);
    wait_for_phase(&node, "web", "Running");
    assert!(node.wait_for_told("env", 1).contains(&"PASS=p".to_owned()));
    wait_for_text(&node, "map", "one");
    ok(&["patch", "configmap", "app", "-p", r#"{"data": {"k": "two"}}"#]);
    wait_for_text(&node, "map", "two");
    wait_for_text(&node, "labels", "a=\"1\"");
    ok(&["label", "pod", "web", "b=2"]);
    wait_for_text(&node, "labels", "a=\"1\"\nb=\"2\"");
    node.kill();
    node.launch();
    let ready = wait_for(|| {
        let patch = ["patch", "configmap", "app", "-p", r#"{"data": {"k": "three"}}"#];
        kubectl(&node, &patch).status.success().then_some(())
    });
    assert!(ready.is_some());
    wait_for_text(&node, "map", "three");
}

/// What every pod of the API has, unless it or its account says otherwise.
#[test]
fn a_pod_of_the_api_has_a_token_where_programs_look_for_it() {
    let Some(node) = Node::start() else { return };
    // Until then pods have no account.
    let account = ["get", "serviceaccount", "default"];
    let made = wait_for(|| kubectl(&node, &account).status.success().then_some(()));
    assert!(made.is_some(), "{}", node.log());
    let web = |name: &str| {
        let web = pod(name).set("spec.nodeName", "n1").main("imagePullPolicy", "Never");
        web.script("ls /var/run/secrets/kubernetes.io/serviceaccount > /tmp/found")
    };
    create(&node, &web("with"));
    create(&node, &web("without").set("spec.automountServiceAccountToken", false));
    let sh = |pod: &str, script: &str| {
        wait_for_phase(&node, pod, "Running");
        kubectl(&node, &["exec", pod, "--", "sh", "-c", script])
    };
    let read = |file: &str| {
        let script = format!("cat /var/run/secrets/kubernetes.io/serviceaccount/{file}");
        sh("with", &script).success()
    };
    assert_eq!(read("namespace"), "default");
    assert!(read("ca.crt").contains("BEGIN CERTIFICATE"));
    let path = "jsonpath={.status.userInfo.username}";
    let who = kubectl(&node, &["--token", &read("token"), "auth", "whoami", "-o", path]);
    let by_certificate = who.stdout == "kubernetes-admin";
    let account = "system:serviceaccount:default:default";
    assert!(by_certificate || who.stdout == account, "{}", who.stdout);
    let written = sh("with", "touch /var/run/secrets/kubernetes.io/serviceaccount/x 2>&1; true");
    assert!(written.success().contains("Read-only file system"));
    let found = sh("without", "ls /var/run/secrets/kubernetes.io/serviceaccount");
    assert!(!found.status.success());
}

/// A token of the pod's account, with which it asks the API.
#[test]
fn a_pod_of_the_api_has_a_token_where_it_asks_for_one() {
    let Some(node) = Node::start() else { return };
    let sources = json!([
        { "serviceAccountToken": { "path": "token", "expirationSeconds": 600 } },
        { "configMap": { "name": "kube-root-ca.crt",
            "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
    ]);
    let web = pod("web")
        .with_host_directory(&node.host())
        .script("cp /access/token /host/token; cp /access/ca.crt /host/ca; stat -L -c '%a %u' /access/token > /host/rights")
        .set("spec.nodeName", "n1")
        .set("spec.securityContext", json!({ "runAsUser": 0 }))
        .main("imagePullPolicy", "Never");
    let volume = json!({ "name": "access", "projected": { "sources": sources } });
    let web = web.with_volume(volume);
    create(&node, &web);
    wait_for_phase(&node, "web", "Running");
    assert_eq!(node.wait_for_told("rights", 1), ["600 0"]);
    let token = fs::read_to_string(node.host().join("token")).unwrap();
    assert!(fs::read_to_string(node.host().join("ca")).unwrap().contains("BEGIN CERTIFICATE"));
    let path = "jsonpath={.status.userInfo.username}";
    let who = kubectl(&node, &["--token", &token, "auth", "whoami", "-o", path]);
    let by_certificate = who.stdout == "kubernetes-admin";
    assert!(
        by_certificate || who.stdout == "system:serviceaccount:default:default",
        "{}",
        who.stdout
    );

    // A static pod can have none, and says so.
    node.put("own.yaml", &web.set("metadata.name", "own"));
    let notes = node.wait_until("it is refused", |status| !status.notes("own.yaml").is_empty());
    let notes = notes.notes("own.yaml");
    let words = "static pods may not reference serviceaccounts (via projected volumes)";
    assert!(notes.contains(words), "{notes}");
}
