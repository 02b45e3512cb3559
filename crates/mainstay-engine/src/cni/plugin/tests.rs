use std::os::unix::fs::PermissionsExt;

use super::*;

/// A plugin called `fake` that is this script.
fn plugin(script: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fake");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn request(command: Asked, id: &str) -> Request {
    Request {
        command,
        plugin: "fake".into(),
        network: "net".into(),
        environment: vec![("CNI_COMMAND", command.name().into()), ("CNI_CONTAINERID", id.into())],
        input: b"{}".to_vec(),
    }
}

async fn ask(script: &str) -> Result<String, String> {
    let directory = plugin(script);
    let directories = [PathBuf::from("/no/such/directory"), directory.path().to_owned()];
    let answer = call(&request(Asked::Add, "a1"), &directories).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    answer.map(text).map_err(|error| mainstay_cri::chain(&error))
}

#[tokio::test]
async fn plugins_read_a_configuration_and_answer() {
    assert_eq!(ask("echo $CNI_COMMAND; cat; echo noise >&2").await.unwrap(), "ADD\n{}");
    assert_eq!(ask("pwd; echo ${MAINSTAY_TOKEN-none}").await.unwrap(), "/\nnone\n");
    for (script, expected) in [
        (r#"echo '{"code":7,"msg":"no","details":"why"}'; exit 1"#, "no; why"),
        ("echo boom >&2; exit 2", "netplugin failed: \"boom\": exit status: 2"),
        ("kill -9 $$", "netplugin failed with no error message: signal: 9 (SIGKILL)"),
    ] {
        let error = ask(script).await.unwrap_err();
        assert_eq!(error, format!("plugin type=\"fake\" name=\"net\" failed (add): {expected}"));
    }
}

#[tokio::test]
async fn what_a_plugin_writes_without_an_end_is_not_kept() {
    let script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2";
    assert_eq!(ask(script).await.unwrap().len(), OUTPUT_MAX);
    // What it has left running keeps its streams open.
    let left = ask("sleep 1000 & echo $!").await.unwrap();
    let left = Pid::from_raw(left.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(left, Signal::KILL).unwrap();
    // One that does not read.
    assert_eq!(ask("exec <&-; echo done").await.unwrap(), "done\n");
}

#[tokio::test]
async fn plugins_that_are_not_there_and_cannot_be_run_are_named() {
    let directory = plugin("");
    let empty = tempfile::tempdir().unwrap();
    let error = call(&request(Asked::Add, "a1"), &[empty.path().to_owned()]).await.unwrap_err();
    assert!(error.to_string().starts_with("plugin fake of network net is not in /"), "{error}");
    // A directory of its name is none.
    fs::create_dir(empty.path().join("fake")).unwrap();
    assert_eq!(find("fake", &[empty.path().to_owned()]), None);
    let path = directory.path().join("fake");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = call(&request(Asked::Add, "a1"), &[directory.path().to_owned()]).await;
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("fake cannot be run: Permission denied (os error 13)"), "{error}");
}

/// The processes that have this in their environment.
fn with(variable: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let environments = entries.filter_map(|entry| fs::read(entry.path().join("environ")).ok());
    environments
        .filter(|it| it.split(|byte| *byte == 0).any(|it| it == variable.as_bytes()))
        .count()
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_takes_too_long_is_ended_with_what_it_started() {
    let directory = plugin("sleep 1000 & sleep 1000");
    let id = directory.path().file_name().unwrap().to_str().unwrap();
    let error = call(&request(Asked::Add, id), &[directory.path().to_owned()]).await;
    assert!(error.unwrap_err().to_string().ends_with("it took longer than 120 s"));
    let gone = || (with(&format!("CNI_CONTAINERID={id}")) == 0).then_some(());
    let deadline = Instant::now() + KILL_PATIENCE;
    while gone().is_none() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(gone(), Some(()), "it runs on");
}

#[test]
fn what_an_earlier_agent_called_is_ended() {
    let directory = plugin("sleep 1000 & sleep 1000");
    let id = directory.path().file_name().unwrap().to_str().unwrap().to_owned();
    #[expect(clippy::disallowed_methods, reason = "it stands for an agent that was killed")]
    let mut command = std::process::Command::new(directory.path().join("fake"));
    let mut child = command.env("CNI_CONTAINERID", &id).spawn().unwrap();
    let variable = format!("CNI_CONTAINERID={id}");
    while with(&variable) < 3 {
        std::thread::yield_now();
    }
    end_leftovers(&format!("{id}-other")).unwrap();
    assert_eq!(with(&variable), 3);
    end_leftovers(&id).unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(with(&variable), 0);
}
