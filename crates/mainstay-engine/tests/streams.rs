//! The contract of streams, kept by the engine with real containers.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_cri::{
    ContainerConfig, EXEC_SYNC_OUTPUT, ErrorKind, ExecSync, ExecSyncRequest, IdMapping, ImageSpec,
    NamespaceMode, PodSandboxFilter, Runtime,
};
use mainstay_engine::network::NetworkConfig;
use mainstay_engine::{CniConfig, Engine, EngineConfig};
use mainstay_image::archive::ImportOptions;
use mainstay_image::platform::Platform;
use mainstay_image::store::Store;
use mainstay_testkit::contract::{self, Sample};
use mainstay_testkit::tools;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long to wait for what may never come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shim that was built beside this test.
///
/// # Panics
///
/// When it is missing: cargo does not build the programs of other packages for a test.
fn shim() -> PathBuf {
    // target/<profile>/deps/streams-<hash>
    let own = std::env::current_exe().unwrap();
    let shim = own.ancestors().nth(2).unwrap().join("mainstay-shim");
    assert!(shim.exists(), "`cargo build -p mainstay-shim` makes {}", shim.display());
    shim
}

/// An engine of its own, with the image `local/busybox:1`.
async fn engine(directory: &Path, group: &str) -> Engine {
    let made = |name: &str| {
        let path = directory.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let config = EngineConfig {
        root_dir: made("root"),
        run_dir: made("run"),
        image_dir: made("store"),
        shim: shim(),
        cgroup_root: group.to_owned(),
        network: NetworkConfig {
            root_dir: made("root"),
            range_file: directory.join("network.json"),
            machine_id: String::new(),
            ranges: Vec::new(),
        },
        cni: CniConfig::default(),
        names: None,
    };
    let store = Store::open(&config.image_dir).unwrap();
    let options = ImportOptions { platform: Platform::host(), name: None };
    store.import(&tools::image("busybox"), &options, &|_| {}).unwrap();
    drop(store);
    Engine::own(config).await.unwrap()
}

fn sample(name: &str, directory: &Path, group: &str) -> Sample {
    let mut sample = Sample::new(name, &directory.join("logs"));
    sample.sandbox.cgroup_parent = format!("{group}/{name}");
    sample.command = vec!["busybox".to_owned(), "cat".to_owned()];
    sample
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    if !tools::is_root() {
        return;
    }
    let directory = tempfile::Builder::new().prefix("ms-").tempdir().unwrap();
    let group = format!("/mainstay-engine-test-{}", std::process::id());
    let engine = engine(directory.path(), &group).await;
    let mut cases = JoinSet::new();
    {
        let (engine, path, group) = (engine.clone(), directory.path().to_owned(), group.clone());
        cases.spawn(async move {
            let host = sample("host", &path, &group);
            contract::streams(&engine, &host).await;
            contract::terminals(&engine, &host).await;
            contract::stats(&engine, &host).await;
            contract::updates(&engine, &host).await;
            contract::late_updates(&engine, &host).await;
            ports_of_a_pod_are_in_its_own_network(&engine, &path, &group).await;
            commands_that_are_waited_for_have_their_time(&engine, &host).await;
            what_clients_make_the_agent_does_not_see(&engine, &host).await;
        });
    }
    let ended = cases.join_next().await.unwrap();
    // Nothing is left, however it ended.
    for sandbox in engine.list_pod_sandboxes(&PodSandboxFilter::default()).await.unwrap() {
        engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
    }
    engine.remove_all().await.unwrap();
    ended.unwrap();
}

async fn what_clients_make_the_agent_does_not_see(engine: &Engine, sample: &Sample) {
    let clients = engine.for_clients();
    let everything = PodSandboxFilter::default();
    let theirs = Sample { image: ImageSpec("docker.io/local/busybox:1".into()), ..sample.clone() };
    let mut theirs_config = theirs.sandbox.clone();
    // Left to the engine.
    theirs_config.cgroup_parent = String::new();
    theirs_config.log_directory = String::new();
    let users = IdMapping { host_id: 1 << 24, length: 1 << 16 };
    theirs_config.security_context.namespaces.users = Some(users);
    theirs_config.security_context.namespaces.network = NamespaceMode::Pod;
    theirs_config.security_context.namespaces.ipc = NamespaceMode::Pod;
    let sandbox = clients.run_pod_sandbox(&theirs_config).await.unwrap();
    let config = theirs.container("theirs");
    let made = clients.create_container(&sandbox, &config, &theirs_config).await.unwrap();
    clients.start_container(&made).await.unwrap();
    // A client may have a container in the agent's sandbox, too.
    let own = engine.run_pod_sandbox(&sample.sandbox).await.unwrap();
    let config = sample.container("own");
    let own_container = engine.create_container(&own, &config, &sample.sandbox).await.unwrap();
    let config = sample.container("guest");
    let guest = clients.create_container(&own, &config, &sample.sandbox).await.unwrap();

    assert_eq!(clients.list_pod_sandboxes(&everything).await.unwrap().len(), 2);
    let seen = engine.list_pod_sandboxes(&everything).await.unwrap();
    assert_eq!(seen.iter().map(|it| &it.id).collect::<Vec<_>>(), [&own]);
    let ids = async |engine: &Engine| {
        let listed = engine.list_containers(&Default::default()).await.unwrap();
        listed.into_iter().map(|it| it.id).collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(engine).await, [own_container.clone()].into());
    assert_eq!(ids(&clients).await, [own_container, guest, made.clone()].into());
    let status = engine.pod_sandbox_status(&own).await.unwrap();
    assert_eq!(status.containers.len(), 1);
    assert_eq!(clients.pod_sandbox_status(&own).await.unwrap().containers.len(), 2);
    let hidden = engine.pod_sandbox_status(&sandbox).await.unwrap_err();
    assert_eq!(hidden.kind, ErrorKind::NotFound);
    let used = clients.list_pod_sandbox_stats(&everything).await.unwrap();
    assert_eq!(
        (used.len(), engine.list_pod_sandbox_stats(&everything).await.unwrap().len()),
        (2, 1)
    );

    // None of theirs is taken from them.
    let others = engine.others().await.unwrap();
    assert_eq!(others.users, [users]);
    assert_eq!(others.images.len(), 2);
    assert_eq!(clients.others().await.unwrap(), Default::default());

    // With what it was made they are told.
    let details = clients.container_status(&made).await.unwrap().details.unwrap();
    assert!(details.image_id.starts_with("sha256:"), "{details:?}");
    assert_eq!(engine.container_status(&made).await.unwrap().details, None);

    for id in [sandbox, own] {
        clients.remove_pod_sandbox(&id).await.unwrap();
    }
    assert_eq!(clients.list_pod_sandboxes(&everything).await.unwrap(), []);
}

async fn commands_that_are_waited_for_have_their_time(engine: &Engine, sample: &Sample) {
    let sandbox = engine.run_pod_sandbox(&sample.sandbox).await.unwrap();
    let command = "busybox sleep 1000".split(' ').map(str::to_owned).collect();
    let config = ContainerConfig { command, ..sample.container("waits") };
    let container = engine.create_container(&sandbox, &config, &sample.sandbox).await.unwrap();
    engine.start_container(&container).await.unwrap();
    let request = |script: &str, timeout: Option<u64>| ExecSyncRequest {
        container: container.clone(),
        command: ["busybox", "sh", "-c", script].map(str::to_owned).into(),
        timeout: timeout.map(Duration::from_millis),
    };
    let run = async |script: &str, timeout: Option<u64>| {
        let request = request(script, timeout);
        let run = tokio::time::timeout(PATIENCE, engine.exec_sync(&request)).await.unwrap();
        run.map_err(|error| error.kind)
    };
    let quick = run("echo out; echo err >&2; exit 3", None).await.unwrap();
    let expected = ExecSync { stdout: "out\n".into(), stderr: "err\n".into(), exit_code: 3 };
    assert_eq!(quick, expected);
    // Somebody else who holds its output is not waited for.
    let left = run("echo out; busybox sleep 1001 &", None).await.unwrap();
    assert_eq!((left.exit_code, left.stdout), (0, b"out\n".to_vec()));
    let long = run("busybox yes | busybox head -c 100000", None).await.unwrap();
    assert_eq!((long.exit_code, long.stdout.len()), (0, EXEC_SYNC_OUTPUT));
    // One that takes too long is killed with what it has started.
    let late = run("busybox sleep 1002; true", Some(200)).await;
    assert_eq!(late, Err(ErrorKind::DeadlineExceeded));
    let gone = "while busybox ps | busybox grep -q '[s]leep 1002'; do :; done";
    assert_eq!(run(gone, None).await.unwrap().exit_code, 0);
    // So is that of a client that leaves.
    let (clients, request) = (engine.for_clients(), request("busybox sleep 1003; true", None));
    let there = "until busybox ps | busybox grep -q '[s]leep 1003'; do :; done";
    tokio::select! {
        ended = clients.exec_sync(&request) => unreachable!("{ended:?}"),
        seen = run(there, None) => assert_eq!(seen.unwrap().exit_code, 0),
    }
    let gone = there.replace("until", "while");
    assert_eq!(run(&gone, None).await.unwrap().exit_code, 0);
    engine.remove_pod_sandbox(&sandbox).await.unwrap();
}

/// What listens on the loopback interface of a pod is reached, and what listens on the host's is
/// not.
async fn ports_of_a_pod_are_in_its_own_network(engine: &Engine, directory: &Path, group: &str) {
    let mut sample = sample("pod", directory, group);
    sample.sandbox.security_context.namespaces.network = NamespaceMode::Pod;
    let sandbox = engine.run_pod_sandbox(&sample.sandbox).await.unwrap();
    let command = "busybox nc -l -p 7777 -e busybox cat".split(' ').map(str::to_owned).collect();
    let config = ContainerConfig { command, ..sample.container("server") };
    let container = engine.create_container(&sandbox, &config, &sample.sandbox).await.unwrap();
    engine.start_container(&container).await.unwrap();
    let connected = async {
        loop {
            // Until it listens.
            match engine.port_forward(&sandbox, 7777).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut stream = timeout(PATIENCE, connected).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    let mut text = [0; 6];
    timeout(PATIENCE, stream.read_exact(&mut text)).await.unwrap().unwrap();
    assert_eq!(&text, b"hello\n");
    let host = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = host.local_addr().unwrap().port();
    let refused = engine.port_forward(&sandbox, port).await.err().unwrap().chain();
    let wanted = format!(
        "failed to execute portforward in network namespace \"{sandbox}\": failed to connect to \
         localhost:{port} inside namespace \"{sandbox}\", IPv4: dial tcp4 127.0.0.1:{port}: \
         connect: connection refused IPv6: dial tcp6 [::1]:{port}: connect: "
    );
    assert!(refused.starts_with(&wanted), "{refused}");
    engine.remove_pod_sandbox(&sandbox).await.unwrap();
}
