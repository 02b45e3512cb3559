//! What every runtime does alike: the same cases for the fake and for real ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mainstay_cri::{
    AttachRequest, Attached, ContainerConfig, ContainerId, ContainerMetadata, ErrorKind,
    ExecRequest, ImageSpec, Input, LinuxContainerResources, LinuxContainerSecurityContext,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOptions, Output, PodSandboxConfig,
    PodSandboxFilter, PodSandboxMetadata, Runtime, SandboxId, SeccompProfile,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// How long to wait for what may never come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What pods for the cases are made from.
#[derive(Clone, Debug)]
pub struct Sample {
    /// An image that has `cat`.
    pub image: ImageSpec,
    /// A program that writes back what it reads and ends with its input.
    pub command: Vec<String>,
    /// The pods, which are on the host's network.
    pub sandbox: PodSandboxConfig,
}

impl Sample {
    /// Pods of which the names begin with `prefix` and the logs are below `logs`.
    pub fn new(prefix: &str, logs: &Path) -> Self {
        let node = NamespaceMode::Node;
        Self {
            image: ImageSpec("local/busybox:1".to_owned()),
            command: vec!["cat".to_owned()],
            sandbox: PodSandboxConfig {
                metadata: PodSandboxMetadata {
                    name: prefix.to_owned(),
                    uid: format!("{prefix}-uid"),
                    namespace: "default".to_owned(),
                    attempt: 0,
                },
                hostname: "pod".to_owned(),
                log_directory: logs.to_string_lossy().into_owned(),
                dns: Default::default(),
                port_mappings: Vec::new(),
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                cgroup_parent: String::new(),
                security_context: LinuxSandboxSecurityContext {
                    namespaces: NamespaceOptions {
                        network: node,
                        pid: NamespaceMode::Container,
                        ipc: node,
                        users: None,
                    },
                    privileged: false,
                    seccomp: SeccompProfile::Unconfined,
                },
                sysctls: BTreeMap::new(),
            },
        }
    }

    /// A container of the pod.
    pub fn container(&self, name: &str) -> ContainerConfig {
        ContainerConfig {
            metadata: ContainerMetadata { name: name.to_owned(), attempt: 0 },
            image: self.image.clone(),
            command: self.command.clone(),
            args: Vec::new(),
            working_dir: String::new(),
            envs: Vec::new(),
            mounts: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            log_path: format!("{name}/0.log"),
            stdin: true,
            stdin_once: false,
            tty: false,
            stop_signal: None,
            resources: LinuxContainerResources::default(),
            security_context: LinuxContainerSecurityContext::default(),
        }
    }
}

/// `attach` and `port_forward`.
///
/// # Panics
///
/// When the runtime does not keep the contract.
pub async fn streams(runtime: &dyn Runtime, sample: &Sample) {
    let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.expect("a sandbox");
    clients_share_a_container(runtime, sample, &sandbox).await;
    an_input_given_once_ends_with_its_client(runtime, sample, &sandbox).await;
    whoever_does_not_read_is_told(runtime, sample, &sandbox).await;
    ports_are_those_of_the_sandbox(runtime, &sandbox).await;
    runtime.remove_pod_sandbox(&sandbox).await.expect("the sandbox can be removed");
}

/// `exec` with a terminal, of which a shell is run: it goes on without its input.
///
/// # Panics
///
/// When the runtime does not keep the contract.
pub async fn terminals(runtime: &dyn Runtime, sample: &Sample) {
    let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.expect("a sandbox");
    let id = start(runtime, sample, &sandbox, &sample.container("main")).await;
    let command = ["sh", "-c", "read word; echo got $word; exit 3"].map(str::to_owned).to_vec();
    let request = ExecRequest { container: id, command, tty: true, stdin: true };
    let mut exec = runtime.exec(&request).await.expect("a command");
    let mut stdin = exec.stdin.take().expect("an input");
    stdin.write_all(b"one\n").await.expect("it can be written");
    stdin.shutdown().await.expect("it has no end");
    drop(stdin);
    let mut told = String::new();
    let reading = timeout(PATIENCE, exec.stdout.read_to_string(&mut told));
    reading.await.expect("it ends").expect("it can be read");
    assert!(told.contains("got one\r\n"), "{told}");
    assert_eq!(timeout(PATIENCE, exec.exit).await.expect("it is over").expect("in order"), 3);
    runtime.remove_pod_sandbox(&sandbox).await.expect("the sandbox can be removed");
}

async fn start(
    runtime: &dyn Runtime,
    sample: &Sample,
    sandbox: &SandboxId,
    config: &ContainerConfig,
) -> ContainerId {
    let made = runtime.create_container(sandbox, config, &sample.sandbox).await;
    let id = made.expect("a container");
    runtime.start_container(&id).await.expect("the container starts");
    id
}

fn request(id: &ContainerId) -> AttachRequest {
    let container = id.clone();
    AttachRequest { container, stdin: true, tty: false, stdout: true, stderr: true }
}

async fn clients_share_a_container(runtime: &dyn Runtime, sample: &Sample, sandbox: &SandboxId) {
    let id = start(runtime, sample, sandbox, &sample.container("shared")).await;
    let mut first = runtime.attach(&request(&id)).await.expect("a client");
    let watcher = AttachRequest { stdin: false, stderr: false, ..request(&id) };
    let mut second = runtime.attach(&watcher).await.expect("a second client");
    assert!(second.stdin.is_none() && second.stderr.is_none() && first.resize.is_none());
    let mut stdin = first.stdin.take().expect("an input");
    say(&mut stdin, output(&mut first), "one\n").await;
    say(&mut stdin, output(&mut second), "one\n").await;
    // The end of its input is the end of what it hears, and of nothing else.
    drop(stdin);
    assert_eq!(rest(&mut first).await.replace("one\n", ""), "");
    timeout(PATIENCE, first.end).await.expect("it is over").expect("in order");
    let mut third = runtime.attach(&request(&id)).await.expect("a third client");
    let mut stdin = third.stdin.take().expect("an input");
    say(&mut stdin, output(&mut second), "two\n").await;
    // The end of the container is the end of all.
    runtime.stop_container(&id, Duration::ZERO).await.expect("it stops");
    assert_eq!(rest(&mut second).await.replace("two\n", ""), "");
    timeout(PATIENCE, second.end).await.expect("it is over").expect("in order");
    let late = runtime.attach(&request(&id)).await.expect_err("it has ended");
    assert_eq!(late.kind, ErrorKind::FailedPrecondition);
    let gone = request(&ContainerId("nobody".to_owned()));
    assert_eq!(runtime.attach(&gone).await.expect_err("nobody").kind, ErrorKind::NotFound);
    let dead =
        ExecRequest { container: id, command: vec!["cat".to_owned()], tty: false, stdin: false };
    assert!(runtime.exec(&dead).await.is_err());
}

async fn an_input_given_once_ends_with_its_client(
    runtime: &dyn Runtime,
    sample: &Sample,
    sandbox: &SandboxId,
) {
    let config = ContainerConfig { stdin_once: true, ..sample.container("once") };
    let id = start(runtime, sample, sandbox, &config).await;
    let terminal = AttachRequest { tty: true, ..request(&id) };
    let refused = runtime.attach(&terminal).await.expect_err("there is no terminal");
    assert_eq!(refused.kind, ErrorKind::InvalidArgument);
    let mut client = runtime.attach(&request(&id)).await.expect("a client");
    let mut stdin = client.stdin.take().expect("an input");
    say(&mut stdin, output(&mut client), "some\n").await;
    stdin.write_all(b"the rest\n").await.expect("it can be written");
    drop(stdin);
    assert_eq!(rest(&mut client).await.replace("some\n", ""), "the rest\n");
    timeout(PATIENCE, client.end).await.expect("it is over").expect("in order");
}

async fn whoever_does_not_read_is_told(
    runtime: &dyn Runtime,
    sample: &Sample,
    sandbox: &SandboxId,
) {
    let id = start(runtime, sample, sandbox, &sample.container("slow")).await;
    let slow = AttachRequest { stdin: false, ..request(&id) };
    let slow = runtime.attach(&slow).await.expect("a slow client");
    let mut quick = runtime.attach(&request(&id)).await.expect("a quick client");
    let (mut stdin, mut stdout) = (quick.stdin.take(), quick.stdout.take());
    let (stdin, stdout) = (stdin.as_mut().expect("an input"), stdout.as_mut().expect("an output"));
    let line = vec![b'x'; 16384];
    let mut heard = line.clone();
    // It says no more before it has read what was said, so that it is never too slow itself.
    let talking = async {
        while stdin.write_all(&line).await.is_ok() && stdout.read_exact(&mut heard).await.is_ok() {}
    };
    let told = tokio::select! {
        told = timeout(PATIENCE, slow.end) => told.expect("it is told"),
        () = talking => Ok(()),
    };
    assert_eq!(told.expect_err("it did not read").kind, ErrorKind::ResourceExhausted);
}

async fn ports_are_those_of_the_sandbox(runtime: &dyn Runtime, sandbox: &SandboxId) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("it has a number").port();
    let mut there = runtime.port_forward(sandbox, port).await.expect("a connection");
    let (mut here, _) = listener.accept().await.expect("it arrives");
    there.write_all(b"to").await.expect("it can be written");
    here.write_all(b"fro").await.expect("it can be written");
    let mut bytes = [0; 2];
    here.read_exact(&mut bytes).await.expect("it can be read");
    assert_eq!(&bytes, b"to");
    drop(here);
    let mut text = String::new();
    there.read_to_string(&mut text).await.expect("it can be read");
    assert_eq!(text, "fro");
    drop(listener);
    let text = match runtime.port_forward(sandbox, port).await {
        Err(refused) => {
            assert_eq!(refused.kind, ErrorKind::Unavailable, "{}", refused.chain());
            refused.chain()
        }
        Ok(mut there) => {
            let read = timeout(PATIENCE, there.read_u8()).await.expect("it is told");
            mainstay_cri::chain(&read.expect_err("nobody listens on the port"))
        }
    };
    assert!(text.contains(&format!("localhost:{port}")), "{text}");
    assert!(text.to_lowercase().contains("connection refused"), "{text}");
    let nobody = SandboxId("nobody".to_owned());
    let missing = runtime.port_forward(&nobody, port).await.err();
    let missing = missing.expect("a sandbox that does not exist has no ports");
    assert_eq!(missing.kind, ErrorKind::NotFound);
}

fn output(client: &mut Attached) -> &mut Output {
    client.stdout.as_mut().expect("an output")
}

/// Says a line until it is heard: a runtime may take a moment to join somebody's outputs after it has answered,
/// and what is written before is not theirs.
async fn say(stdin: &mut Input, stdout: &mut Output, line: &str) {
    let mut heard = String::new();
    let saying = async {
        while !heard.contains(line) {
            stdin.write_all(line.as_bytes()).await.expect("it can be written");
            let mut bytes = [0; 256];
            if let Ok(read) = timeout(Duration::from_millis(100), stdout.read(&mut bytes)).await {
                let length = read.expect("it can be read");
                assert!(length > 0, "it has ended after {heard:?}");
                heard.push_str(std::str::from_utf8(&bytes[..length]).expect("it is text"));
            }
        }
    };
    timeout(PATIENCE, saying).await.expect("it is heard");
}

async fn rest(client: &mut Attached) -> String {
    let mut text = String::new();
    let stdout = client.stdout.as_mut().expect("an output");
    let read = timeout(PATIENCE, stdout.read_to_string(&mut text)).await.expect("it ends");
    read.expect("it can be read");
    text
}

/// `list_pod_sandbox_stats`.
///
/// # Panics
///
/// When the runtime does not keep the contract.
pub async fn stats(runtime: &dyn Runtime, sample: &Sample) {
    let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.expect("a sandbox");
    let id = start(runtime, sample, &sandbox, &sample.container("used")).await;
    let idle = sample.container("idle");
    let created = runtime.create_container(&sandbox, &idle, &sample.sandbox).await;
    created.expect("a second container");
    let all = runtime.list_pod_sandbox_stats(&PodSandboxFilter::default()).await;
    let all = all.expect("what there is");
    let [pod] = all.as_slice() else { unreachable!("one sandbox: {all:?}") };
    assert_eq!((&pod.id, &pod.metadata), (&sandbox, &sample.sandbox.metadata));
    let [container] = pod.containers.as_slice() else { unreachable!("one runs: {all:?}") };
    assert_eq!((&container.id, container.metadata.name.as_str()), (&id, "used"));
    assert!(pod.cpu.is_some() && pod.memory.is_some() && container.cpu.is_some());
    let memory = container.memory.expect("it uses memory");
    assert!(memory.working_set_bytes <= memory.usage_bytes, "{memory:?}");
    assert!(pod.process_count.is_none_or(|count| count >= 1), "{all:?}");
    let others = PodSandboxFilter { labels: [("a".to_owned(), "b".to_owned())].into() };
    assert_eq!(runtime.list_pod_sandbox_stats(&others).await.expect("nothing"), []);
    runtime.remove_pod_sandbox(&sandbox).await.expect("the sandbox can be removed");
    let none = runtime.list_pod_sandbox_stats(&PodSandboxFilter::default()).await;
    assert_eq!(none.expect("nothing"), []);
}

fn with_memory(memory_limit: u64) -> LinuxContainerResources {
    LinuxContainerResources {
        memory_limit,
        memory_swap_limit: memory_limit,
        cpu_shares: 100,
        ..LinuxContainerResources::default()
    }
}

/// `update_container_resources` of a container that runs, and of one that is gone.
///
/// # Panics
///
/// When the runtime does not keep the contract.
pub async fn updates(runtime: &dyn Runtime, sample: &Sample) {
    let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.expect("a sandbox");
    let mut config = sample.container("resized");
    config.resources = with_memory(64 << 20);
    let id = start(runtime, sample, &sandbox, &config).await;
    for limit in [128 << 20, 32 << 20] {
        runtime.update_container_resources(&id, &with_memory(limit)).await.expect("it runs");
    }
    runtime.stop_container(&id, Duration::ZERO).await.expect("it can be stopped");
    runtime.remove_pod_sandbox(&sandbox).await.expect("the sandbox can be removed");
    let gone = runtime.update_container_resources(&id, &with_memory(64 << 20)).await;
    assert_eq!(gone.expect_err("it is gone").kind, ErrorKind::NotFound);
}

/// `update_container_resources` of a container that has ended, which containerd 1.6 does not refuse.
///
/// # Panics
///
/// When the runtime does not keep the contract.
pub async fn late_updates(runtime: &dyn Runtime, sample: &Sample) {
    let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.expect("a sandbox");
    let mut config = sample.container("ended");
    config.resources = with_memory(64 << 20);
    let id = start(runtime, sample, &sandbox, &config).await;
    runtime.stop_container(&id, Duration::ZERO).await.expect("it can be stopped");
    let late = runtime.update_container_resources(&id, &with_memory(64 << 20)).await;
    assert_eq!(late.expect_err("it has ended").kind, ErrorKind::FailedPrecondition);
    runtime.remove_pod_sandbox(&sandbox).await.expect("the sandbox can be removed");
}
