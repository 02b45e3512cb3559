//! Credentials for registries, wherever they come from.

use std::fs;

use mainstay_testkit::registry::Registry;
use serde_json::{Value, json};

use crate::api::{kubectl, wait_for_event, wait_for_phase};
use crate::image::Image;
use crate::manifest::{Manifest, pod};
use crate::node::{Node, wait_for};
use crate::program::{run, write_program};

/// `user:secret`, as it must not be found anywhere.
const LOGIN: &str = "dXNlcjpzZWNyZXQ=";

/// A node that trusts a registry, which wants a password and has `team/app:1`.
fn guarded() -> Option<(Node, Registry)> {
    let mut node = Node::prepare()?;
    let registry = Registry::guarded();
    Image::busybox().with_file("version", "guarded\n").push(&registry, "team/app", "1");
    let (authority, file) = (node.path("ca.pem"), node.path("registries.yaml"));
    fs::write(&authority, registry.authority()).unwrap();
    let tls = json!({ "tls": { "ca_file": authority } });
    fs::write(&file, json!({ "configs": { registry.host(): tls } }).to_string()).unwrap();
    node.arguments.push(format!("--registries={}", file.display()));
    node.trust(registry.host(), &authority);
    Some((node, registry))
}

/// Tells what is in the image.
fn teller(node: &Node, name: &str, registry: &Registry) -> Manifest {
    pod(name)
        .with_host_directory(&node.host())
        .main("image", registry.name("team/app:1"))
        .script(&format!("cat /version >> /host/{name}"))
}

/// A Secret with the login, of the first type or of the second.
fn secret(name: &str, registry: &Registry, kind: &str) -> Value {
    let auths = json!({ registry.host(): { "auth": LOGIN } });
    let (key, value) = match kind {
        "kubernetes.io/dockerconfigjson" => (".dockerconfigjson", json!({ "auths": auths })),
        _ => (".dockercfg", auths),
    };
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": kind,
        "stringData": { key: value.to_string() },
    })
}

#[track_caller]
fn wait_for_refusal(node: &Node, name: &str) -> String {
    let status = node.wait_until(&format!("the image of {name} cannot be had"), |status| {
        ["ErrImagePull", "ImagePullBackOff"].contains(&status.state(name))
    });
    status.pod(name).unwrap().problem.clone().unwrap()
}

/// The image goes, so that the next pod has to have it pulled.
fn remove_image(node: &Node, registry: &Registry) {
    let name = registry.name("team/app:1");
    // It is in use for as long as anything of the last pod is there.
    let removed = wait_for(|| node.remove_image(&name).then_some(()));
    assert!(removed.is_some(), "{}", node.log());
}

/// What is said of somebody who has no credentials.
fn wanted(node: &Node) -> &'static str {
    if node.is_on_containerd() { "401 Unauthorized" } else { "it wants credentials" }
}

fn assert_secret(node: &Node) {
    assert!(!node.log().contains(LOGIN) && !node.log().contains("user:secret"));
    let status = node.mainstay(&["status", "-o", "json"]).stdout;
    assert!(!status.contains(LOGIN) && !status.contains("user:secret"));
}

#[test]
fn a_static_pod_is_pulled_with_secrets_that_lie_beside_it() {
    let Some((mut node, registry)) = guarded() else { return };
    node.launch();
    let secrets = json!([{ "name": "none" }, { "name": "login" }]);
    let app = teller(&node, "app", &registry).set("spec.imagePullSecrets", secrets);
    node.put("app.yaml", &app);
    let problem = wait_for_refusal(&node, "app");
    assert!(problem.contains(wanted(&node)), "{problem}");
    let status = node.status();
    let told = status.pod("app").unwrap().events("FailedToRetrieveImagePullSecret");
    assert!(told[0].message.contains("(none, login);"), "{told:?}");
    // That it has come is enough.
    node.put("login.yaml", &secret("login", &registry, "kubernetes.io/dockerconfigjson"));
    assert_eq!(node.wait_for_told("app", 1), ["guarded"]);
    // Nobody asks another API's objects for it, and its mirror does not refer to them.
    wait_for_phase(&node, "app-n1", "Running");
    let field = |path: &str| {
        let output = format!("jsonpath={path}");
        kubectl(&node, &["get", "pod", "app-n1", "-o", &output]).success()
    };
    assert_eq!(field("{.spec.imagePullSecrets}"), "");
    assert!(field("{.metadata.annotations}").contains("secrets/login,secrets/none"));
    node.take("app.yaml");
    node.wait_for_gone("app");
    remove_image(&node, &registry);
    node.put("login.yaml", &secret("login", &registry, "kubernetes.io/dockercfg"));
    node.put("app.yaml", &app.set("metadata.labels.again", "yes"));
    assert_eq!(node.wait_for_told("app", 2), ["guarded", "guarded"]);
    assert_secret(&node);
}

#[test]
fn a_pod_of_the_api_is_pulled_with_its_secrets_and_its_accounts() {
    let Some((mut node, registry)) = guarded() else { return };
    node.launch();
    let apply = |name: &str, object: &Value| {
        let file = node.stage(&format!("{name}.json"), object);
        let done = wait_for(|| {
            let outcome = kubectl(&node, &["apply", "-f", file.to_str().unwrap()]);
            outcome.status.success().then_some(())
        });
        assert!(done.is_some(), "{name}\n{}", node.log());
    };
    let create = |name: &str, manifest: Manifest| {
        let manifest = manifest.set("spec.nodeName", "n1").to_string();
        apply(name, &serde_json::from_str(&manifest).unwrap());
    };
    // It comes after the pod, which the node may then read.
    let own = json!([{ "name": "login" }]);
    create("own", teller(&node, "own", &registry).set("spec.imagePullSecrets", own));
    let message = "jsonpath={.status.containerStatuses[0].state.waiting.message}";
    let refused = wait_for(|| {
        let shown = kubectl(&node, &["get", "pod", "own", "-o", message]).stdout;
        shown.contains(wanted(&node)).then_some(())
    });
    assert!(refused.is_some(), "{}", kubectl(&node, &["get", "pod", "own", "-o", "yaml"]).stdout);
    let missing = "reason=FailedToRetrieveImagePullSecret";
    wait_for_event(&node, missing, "some image pull secrets (login);");
    apply("login", &secret("login", &registry, "kubernetes.io/dockerconfigjson"));
    assert_eq!(node.wait_for_told("own", 1), ["guarded"]);
    kubectl(&node, &["delete", "pod", "own"]).success();
    remove_image(&node, &registry);
    // Of its account, by admission.
    let secrets = json!({ "imagePullSecrets": [{ "name": "login" }] }).to_string();
    kubectl(&node, &["patch", "serviceaccount", "default", "-p", &secrets]).success();
    create("account", teller(&node, "account", &registry));
    assert_eq!(node.wait_for_told("account", 1), ["guarded"]);
    assert_secret(&node);
}

/// Docker's way, and a kubelet's.
#[test]
fn programs_have_credentials_too() {
    let Some((mut node, registry)) = guarded() else { return };
    let programs = node.path("programs");
    fs::create_dir(&programs).unwrap();
    let (provider, failing) = (programs.join("provider"), "#!/bin/sh\necho why >&2; exit 1\n");
    write_program(&provider, failing);
    let (config, host) = (node.path("providers.yaml"), registry.host().to_owned());
    let version = "credentialprovider.kubelet.k8s.io/v1";
    let own = json!({
        "apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
        "providers": [{
            "name": "provider", "apiVersion": version, "defaultCacheDuration": "0s",
            "matchImages": [host],
        }],
    });
    fs::write(&config, own.to_string()).unwrap();
    for (flag, path) in [("config", &config), ("bin-dir", &programs)] {
        node.arguments.push(format!("--image-credential-provider-{flag}={}", path.display()));
    }
    node.launch();
    let app = teller(&node, "app", &registry);
    node.put("app.yaml", &app);
    let problem = wait_for_refusal(&node, "app");
    let wanted = format!("provider gave no credentials for {host}: it failed: why");
    assert!(problem.contains(&wanted), "{problem}");
    let answer = json!({
        "kind": "CredentialProviderResponse", "apiVersion": version, "cacheKeyType": "Image",
        "auth": { &host: { "username": "user", "password": "secret" } },
    });
    let staged = node.path("staging/provider");
    write_program(&staged, &format!("#!/bin/sh\ncat <<'END'\n{answer}\nEND\n"));
    fs::rename(&staged, &provider).unwrap();
    // The pod is tried anew, and not later.
    node.take("app.yaml");
    node.wait_for_gone("app");
    node.put("app.yaml", &app);
    assert_eq!(node.wait_for_told("app", 1), ["guarded"]);
    node.take("app.yaml");
    node.wait_for_gone("app");
    remove_image(&node, &registry);
    if node.is_on_containerd() {
        return;
    }

    // By command, with a helper that is found in PATH; a kubelet's programs are the agent's.
    let pull = |answer: &str| {
        let helper = programs.join("docker-credential-own");
        write_program(&helper, &format!("#!/bin/sh\nread server\n{answer}\n"));
        let name = registry.name("team/app:1");
        let registries = node.path("registries.yaml");
        let arguments = ["image", "pull", &name, "--registries", registries.to_str().unwrap()];
        let mut command = node.command(&arguments);
        let path = std::env::var("PATH").unwrap();
        run(command.env("PATH", format!("{}:{path}", programs.display())))
    };
    let login = json!({ "credHelpers": { &host: "own" } });
    fs::write(node.path("root/config.json"), login.to_string()).unwrap();
    let complaint = pull("echo credentials not found in native keychain; exit 1").failure(1);
    assert!(complaint.contains("it wants credentials, or has no such image"), "{complaint}");
    let complaint = pull("echo secret; echo locked >&2; exit 1").failure(1);
    let wanted = format!("docker-credential-own gave no credentials for {host}: it failed: locked");
    assert!(complaint.contains(&wanted) && !complaint.contains("secret"), "{complaint}");
    let answer =
        r#"echo "{\"ServerURL\":\"$server\",\"Username\":\"user\",\"Secret\":\"secret\"}""#;
    pull(&format!("test $server = {host} || exit 1; {answer}")).success();
    assert!(!node.log().contains("secret\""));
}
