//! Where images come from: files, commands, registries, and what happens without them.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

use expect_test::{Expect, expect};
use mainstay_testkit::registry::Registry;
use serde_json::{Value, json};

use crate::image::Image;
use crate::manifest::{Manifest, pod};
use crate::node::{Node, Pod, wait_for};

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

/// busybox with a line of text in `/version`.
fn version(word: &str) -> Image {
    Image::busybox().with_file("version", &format!("{word}\n"))
}

/// A pod of an image from [`version`] that tells which one in the file of its name.
fn teller(node: &Node, name: &str, image: &str) -> Manifest {
    pod(name)
        .with_host_directory(&node.host())
        .main("image", image)
        .script(&format!("cat /version >> /host/{name}"))
}

/// Makes an image present as somebody does who has it in a file.
fn import(node: &Node, image: &Image, name: &str) {
    let file = node.path("import.tar");
    image.docker_archive(name, &file);
    node.import(&file);
}

/// Waits until the image of a pod was not to be had, and returns what is said about that.
#[track_caller]
fn wait_for_refusal(node: &Node, name: &str) -> String {
    let status = node.wait_until(&format!("the image of {name} cannot be had"), |status| {
        ["ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff"].contains(&status.state(name))
    });
    status.pod(name).unwrap().problem.clone().unwrap()
}

fn warnings(pod: &Pod) -> Vec<&str> {
    let warnings = pod.events.iter().filter(|event| event.kind == "Warning");
    warnings.map(|event| event.reason.as_str()).collect()
}

#[test]
fn image_files_are_imported_by_themselves_in_every_format() {
    let Some(mut node) = Node::prepare() else { return };
    let files = node.path("root/images");
    version("docker").docker_archive("local/docker:1", &files.join("docker.tar"));
    version("layout").oci_layout("local/layout:1", &files.join("layout"));
    version("archive").oci_archive("local/archive:1", &files.join("archive.tar.gz"));
    node.launch();
    for name in ["docker", "layout", "archive"] {
        let image = format!("local/{name}:1");
        let pod = teller(&node, name, &image).main("imagePullPolicy", "Never");
        node.put(&format!("{name}.yaml"), &pod);
        assert_eq!(node.wait_for_told(name, 1), [name]);
    }

    // While the agent runs, and a pod waits for it.
    let late = teller(&node, "late", "local/late:1").main("imagePullPolicy", "Never");
    node.put("late.yaml", &late);
    wait_for_refusal(&node, "late");
    let whole = node.path("late.tar");
    version("late").docker_archive("local/late:1", &whole);
    // Half of it, which does no harm.
    let whole = fs::read(whole).unwrap();
    let (first, rest) = whole.split_at(whole.len() / 2);
    let mut file = File::create(files.join("late.tar")).unwrap();
    file.write_all(first).unwrap();
    node.wait_until("the half file is told", |status| {
        status.runtime.iter().any(|condition| {
            condition.kind == "ImagesReady"
                && !condition.status
                && condition.message.contains("/root/images/late.tar")
        })
    });
    assert_eq!(node.mainstay(&["status"]).status.code(), Some(1));
    wait_for_refusal(&node, "late");
    file.write_all(rest).unwrap();
    drop(file);
    node.wait_for_running("late");
    assert_eq!(node.wait_for_told("late", 1), ["late"]);
    node.wait_until("nothing is wrong with the images", |status| {
        status.runtime.iter().all(|condition| condition.status)
    });

    // Another image of the name counts from the next start on.
    let staged = node.path("staging/late.tar");
    version("later").docker_archive("local/late:1", &staged);
    fs::rename(&staged, files.join("late.tar")).unwrap();
    node.put(
        "fence.yaml",
        &pod("fence").main("image", "local/fence:1").main("imagePullPolicy", "Never"),
    );
    version("fence").docker_archive("local/fence:1", &files.join("zz-fence.tar"));
    node.wait_for_running("fence");
    assert_eq!(node.told("late"), ["late"]);
    node.mainstay(&["restart", "late"]).success();
    assert_eq!(node.wait_for_told("late", 2), ["late", "later"]);
}

#[test]
fn images_are_imported_listed_and_removed_by_command() {
    let Some(node) = Node::start() else { return };
    // The agent imports files in its own time.
    let is_imported = || node.images().contains("local/busybox:1").then_some(());
    assert!(wait_for(is_imported).is_some(), "{}", node.log());
    let (docker, layout, archive) = (node.path("a.tar"), node.path("b"), node.path("c.tar.gz"));
    version("a").docker_archive("local/a:1", &docker);
    version("b").oci_layout("registry.example/team/b:2", &layout);
    version("c").oci_archive("local/c:1", &archive);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let files = [text(&docker), text(&layout), text(&archive)];
    let arguments: Vec<&str> =
        ["image", "import"].into_iter().chain(files.iter().map(String::as_str)).collect();
    expect![[r#"
        local/a:1
        registry.example/team/b:2
        local/c:1
    "#]]
    .assert_eq(&node.mainstay(&arguments).success());
    let listed = node.mainstay(&["image", "ls"]).success();
    let names: Vec<&str> =
        listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        names,
        ["IMAGE", "local/a:1", "local/busybox:1", "local/c:1", "registry.example/team/b:2"]
    );
    let listed = node.mainstay(&["image", "ls", "-o", "json"]).success();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let of = |name: &str| {
        let all = listed.as_array().unwrap();
        all.iter().find(|image| image["names"] == json!([name])).unwrap().clone()
    };
    assert!(of("docker.io/local/a:1")["size"].as_u64().unwrap() > 100_000);
    assert!(of("registry.example/team/b:2")["id"].as_str().unwrap().starts_with("sha256:"));

    // What a pod runs from stays.
    node.put("a.yaml", &teller(&node, "a", "local/a:1").main("imagePullPolicy", "Never"));
    assert_eq!(node.wait_for_told("a", 1), ["a"]);
    let complaint = node.mainstay(&["image", "rm", "local/a:1"]).failure(1);
    assert!(
        complaint.contains("is in use by") && complaint.contains("stop it first"),
        "{complaint}"
    );
    assert_eq!(node.mainstay(&["exec", "a", "--", "cat", "/version"]).success(), "a\n");
    node.take("a.yaml");
    node.wait_for_gone("a");
    let removed = node.mainstay(&["image", "rm", "local/a:1", "local/c:1"]).success();
    // With the name by which a registry would have it.
    let names: Vec<&str> = removed.lines().filter(|line| !line.contains("@sha256:")).collect();
    assert_eq!(names, ["removed local/a:1", "removed local/c:1"]);
    let listed = node.mainstay(&["image", "ls"]).success();
    assert!(!listed.contains("local/a:1") && !listed.contains("local/c:1"), "{listed}");
    node.put("a.yaml", &teller(&node, "a", "local/a:1").main("imagePullPolicy", "Never"));
    wait_for_refusal(&node, "a");
    node.mainstay(&["image", "import", &files[0]]).success();
    assert_eq!(node.wait_for_told("a", 2), ["a", "a"]);

    // What cannot be done is said.
    let complaint = |arguments: &[&str]| {
        let text = node.mainstay(arguments).failure(1);
        text.replace(node.path("").to_str().unwrap(), "DIR/")
    };
    fs::write(node.path("garbage.tar"), "no image at all").unwrap();
    let garbage = text(&node.path("garbage.tar"));
    expect![[r#"
        mainstay: cannot import DIR/garbage.tar: it is not a readable tar archive: archive ends in the middle of an entry, at byte 0: it is cut off
    "#]].assert_eq(&complaint(&["image", "import", &garbage]));
    let missing = text(&node.path("missing.tar"));
    expect![[r#"
        mainstay: cannot import DIR/missing.tar: it cannot be read: No such file or directory (os error 2)
    "#]].assert_eq(&complaint(&["image", "import", &missing]));
    expect![[r#"
        mainstay: image local/no-such:1 is not here: import or pull it
    "#]]
    .assert_eq(&complaint(&["image", "rm", "local/no-such:1"]));
}

#[test]
fn without_a_registry_the_pull_policy_decides() {
    let Some(node) = Node::start() else { return };
    for tag in ["1", "latest"] {
        import(&node, &version(tag), &format!("{NOBODY}/app:{tag}"));
    }
    let (tagged, latest) = (format!("{NOBODY}/app:1"), format!("{NOBODY}/app:latest"));
    let (untagged, missing) = (format!("{NOBODY}/app"), format!("{NOBODY}/missing:1"));
    let absent = format!("{NOBODY}/absent:latest");
    let pods = [
        ("tagged", &tagged, ""),
        ("latest", &latest, ""),
        ("untagged", &untagged, ""),
        ("present", &latest, "IfNotPresent"),
        ("never", &latest, "Never"),
        ("always", &tagged, "Always"),
        ("missing", &missing, ""),
        ("missing-never", &missing, "Never"),
        ("missing-latest", &absent, ""),
    ];
    for (name, image, policy) in pods {
        let pod = teller(&node, name, image);
        let pod = if policy.is_empty() { pod } else { pod.main("imagePullPolicy", policy) };
        node.put(&format!("{name}.yaml"), &pod);
    }
    for (name, told) in [("tagged", "1"), ("present", "latest"), ("never", "latest")] {
        let pod = node.wait_for_running(name);
        assert_eq!(node.wait_for_told(name, 1), [told]);
        assert_eq!((warnings(&pod), pod.warning.as_ref()), (vec![], None));
        assert!(pod.events("Pulling").is_empty());
    }
    // Nobody wrote that it has to be the registry's.
    for name in ["latest", "untagged"] {
        let pod = node.wait_for_running(name);
        assert_eq!(node.wait_for_told(name, 1), ["latest"]);
        assert_eq!(warnings(&pod), ["ImageNotRefreshed"]);
        let event = pod.events("ImageNotRefreshed")[0];
        assert_eq!(event.count, 1);
        assert!(pod.warning.as_ref().unwrap().ends_with(&event.message));
        let said = event.message.split(": ").next().unwrap();
        let image = if name == "latest" { &latest } else { &untagged };
        assert_eq!(
            said,
            format!("Using the present image \"{image}\", since a newer one cannot be had")
        );
        assert!(node.mainstay(&["status"]).stdout.contains(said));
    }
    if node.is_on_containerd() {
        for (name, wanted) in [
            ("missing-never", "import it with the container runtime's own command"),
            ("always", "dial tcp 127.0.0.1:1: connect: connection refused"),
            ("missing", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ] {
            let why = wait_for_refusal(&node, name);
            assert!(why.contains(wanted), "{why}");
        }
    } else {
        let refused =
            |name: &str, expected: Expect| expected.assert_eq(&wait_for_refusal(&node, name));
        refused(
            "missing-never",
            expect![[
                r#"main: Container image "127.0.0.1:1/missing:1" is not present with pull policy of Never; import it with `mainstay image import`"#
            ]],
        );
        refused(
            "always",
            expect![[
                r#"main: Back-off pulling image "127.0.0.1:1/app:1": ErrImagePull: cannot pull the image: cannot pull 127.0.0.1:1/app:1: asking https://127.0.0.1:1 failed: connecting to 127.0.0.1:1 failed: client error (Connect): tcp connect error: Connection refused (os error 111)"#
            ]],
        );
        refused(
            "missing",
            expect![[
                r#"main: Back-off pulling image "127.0.0.1:1/missing:1": ErrImagePull: cannot pull the image: cannot pull 127.0.0.1:1/missing:1: asking https://127.0.0.1:1 failed: connecting to 127.0.0.1:1 failed: client error (Connect): tcp connect error: Connection refused (os error 111)"#
            ]],
        );
    }
    // They come from elsewhere.
    assert!(wait_for_refusal(&node, "missing-latest").contains("ErrImagePull"));
    for (image, names) in
        [(&missing, &["missing", "missing-never"][..]), (&absent, &["missing-latest"])]
    {
        import(&node, &version("found"), image);
        for name in names {
            assert_eq!(node.wait_for_told(name, 1), ["found"]);
        }
    }
    assert_eq!(node.told("always"), [""; 0]);
}

#[test]
fn an_image_file_that_comes_during_a_pull_in_vain_is_used_at_once() {
    let Some(node) = Node::start() else { return };
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/app:1", registry.local_addr().unwrap());
    node.put("web.yaml", &teller(&node, "web", &image));
    // It is asked, and never answers.
    let _asked = registry.accept().unwrap();
    version("provided").docker_archive(&image, &node.path("root/images/app.tar"));
    let pod = node.wait_for_running("web");
    assert_eq!(node.wait_for_told("web", 1), ["provided"]);
    assert_eq!(warnings(&pod), [""; 0]);
}

#[test]
fn an_image_that_is_imported_during_a_pull_in_vain_is_used_after_that() {
    let Some(node) = Node::start() else { return };
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/app:1", registry.local_addr().unwrap());
    node.put("web.yaml", &teller(&node, "web", &image));
    // It is asked, and does not answer.
    let asked = registry.accept().unwrap();
    import(&node, &version("imported"), &image);
    drop((asked, registry));
    let pod = node.wait_for_running("web");
    assert_eq!(node.wait_for_told("web", 1), ["imported"]);
    assert_eq!(warnings(&pod), [""; 0]);
}

#[test]
fn a_registry_with_tls_and_a_password_is_used_with_both() {
    let Some(mut node) = Node::prepare() else { return };
    let registry = Registry::guarded();
    version("guarded").push(&registry, "team/app", "1");
    version("guarded").push(&registry, "team/other", "1");
    let host = registry.host();
    let (authority, trusting) = (node.path("ca.pem"), node.path("registries.yaml"));
    fs::write(&authority, registry.authority()).unwrap();
    let tls = json!({ "ca_file": authority });
    let registries = json!({ "configs": { host: { "tls": tls } } });
    fs::write(&trusting, registries.to_string()).unwrap();
    let trusting = trusting.to_str().unwrap().to_owned();
    node.arguments.push(format!("--registries={trusting}"));
    let login = node.path("root/config.json");
    let log_in = |user_and_password: &str| {
        let auths = json!({ "auths": { host: { "auth": user_and_password } } });
        fs::write(&login, auths.to_string()).unwrap();
    };
    let image = registry.name("team/app:1");
    let without_host = |text: &str| text.replace(host, "HOST");
    let complaint = |arguments: &[&str]| {
        let arguments: Vec<&str> =
            ["image", "pull", &image].iter().chain(arguments).copied().collect();
        without_host(&node.mainstay(&arguments).failure(1))
    };
    // Neither, then no password, then a wrong one.
    expect![[r#"
        mainstay: cannot pull the image: cannot pull HOST/team/app:1: asking https://HOST failed: the certificate of HOST is not trusted: configure its certificate authority for this registry: client error (Connect): invalid peer certificate: UnknownIssuer
    "#]].assert_eq(&complaint(&[]));
    expect![[r#"
        mainstay: cannot pull the image: cannot pull HOST/team/app:1: asking https://HOST failed: it wants credentials, or has no such image: authentication required
    "#]].assert_eq(&complaint(&["--registries", &trusting]));
    // user:wrong
    log_in("dXNlcjp3cm9uZw==");
    expect![[r#"
        mainstay: cannot pull the image: cannot pull HOST/team/app:1: asking https://HOST failed: it refuses the credentials, or has no such image: authentication required
    "#]].assert_eq(&complaint(&["--registries", &trusting]));
    node.launch();
    node.put("app.yaml", &teller(&node, "app", &image));
    expect![[r#"main: Back-off pulling image "HOST/team/app:1": ErrImagePull: cannot pull the image: cannot pull HOST/team/app:1: asking https://HOST failed: it refuses the credentials, or has no such image: authentication required"#]].assert_eq(&without_host(&wait_for_refusal(&node, "app")));

    // user:secret, which counts at once; that the image has come is heard.
    log_in("dXNlcjpzZWNyZXQ=");
    let pulled = node.mainstay(&["image", "pull", &image, "--registries", &trusting]).success();
    assert_eq!(without_host(&pulled), "HOST/team/app:1\n");
    node.wait_for_running("app");
    assert_eq!(node.wait_for_told("app", 1), ["guarded"]);

    // By the agent itself.
    node.put("other.yaml", &teller(&node, "other", &registry.name("team/other:1")));
    let pod = node.wait_for_running("other");
    assert_eq!(node.wait_for_told("other", 1), ["guarded"]);
    assert_eq!(pod.events("Pulled").len(), 1);

    // The password stands in the other file as well.
    fs::remove_file(&login).unwrap();
    node.take("app.yaml");
    node.wait_for_gone("app");
    node.mainstay(&["image", "rm", &image]).success();
    let auth = json!({ "username": "user", "password": "secret" });
    let registries = json!({ "configs": { host: { "tls": tls, "auth": auth } } });
    fs::write(&trusting, registries.to_string()).unwrap();
    node.mainstay(&["image", "pull", &image, "--registries", &trusting]).success();
    // And nowhere else.
    for secret in ["secret", "dXNlcjpzZWNyZXQ=", "dXNlcjp3cm9uZw=="] {
        assert!(!node.log().contains(secret));
        assert!(!node.mainstay(&["status", "-o", "json"]).stdout.contains(secret));
    }
}

#[test]
fn latest_is_refreshed_while_its_registry_answers_and_runs_on_without_it() {
    let Some(node) = Node::start() else { return };
    let registry = Registry::open();
    let image = registry.name("app:latest");
    version("one").push(&registry, "app", "latest");
    node.put("app.yaml", &teller(&node, "app", &image));
    assert_eq!(node.wait_for_told("app", 1), ["one"]);
    version("two").push(&registry, "app", "latest");
    node.mainstay(&["restart", "app"]).success();
    assert_eq!(node.wait_for_told("app", 2), ["one", "two"]);
    assert_eq!(warnings(&node.wait_for_running("app")), [""; 0]);
    // It has gone.
    drop(registry);
    node.mainstay(&["restart", "app"]).success();
    assert_eq!(node.wait_for_told("app", 3), ["one", "two", "two"]);
    assert_eq!(warnings(&node.wait_for_running("app")), ["ImageNotRefreshed"]);
}

#[test]
fn mirrors_are_asked_in_their_order_before_the_registry() {
    let Some(mut node) = Node::prepare() else { return };
    let mirror = Registry::open();
    version("mirrored").push(&mirror, "team/app", "1");
    let endpoints = [format!("http://{NOBODY}"), format!("http://{}", mirror.host())];
    let registries = json!({ "mirrors": { "registry.invalid": { "endpoint": endpoints } } });
    let file = node.path("registries.yaml");
    fs::write(&file, registries.to_string()).unwrap();
    node.arguments.push(format!("--registries={}", file.display()));
    node.launch();
    node.put("app.yaml", &teller(&node, "app", "registry.invalid/team/app:1"));
    assert_eq!(node.wait_for_told("app", 1), ["mirrored"]);
    let pod = node.wait_for_running("app");
    assert_eq!(pod.container("main").image, "registry.invalid/team/app:1");
    // What nobody has is told with whom was asked.
    node.put("missing.yaml", &teller(&node, "missing", "registry.invalid/team/missing:1"));
    let problem = wait_for_refusal(&node, "missing").replace(mirror.host(), "MIRROR");
    for said in [
        "http://127.0.0.1:1: connecting",
        "http://MIRROR: it answered 404 Not Found: manifest unknown",
        "asking https://registry.invalid failed",
    ] {
        assert!(problem.contains(said), "{problem}");
    }
}
