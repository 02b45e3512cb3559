//! Playing a transcript with one version of kubectl.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::normal::Normal;
use super::transcript::{Item, Kind, Place, Step, Transcript, Version};
use crate::program::command;

/// How often it is looked whether a command has ended, and how often `until` repeats one.
const LOOK: Duration = Duration::from_millis(20);

/// What is talked to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kubeconfig: PathBuf,
    /// The directory of static pods.
    pub(crate) manifests: PathBuf,
    /// What the names of manifests begin with. A kubelet takes two pods from files of one name for
    /// one, and goes on counting restarts.
    pub(crate) prefix: String,
    pub(crate) node: String,
    /// How long one command may take, and what `until` waits for.
    pub(crate) patience: Duration,
}

/// What a step came to: the lines as transcripts have them.
pub(crate) struct Played<'a> {
    pub(crate) step: &'a Step,
    pub(crate) lines: Vec<String>,
}

/// Plays the steps that are of a version, in a directory that is there for that.
///
/// Errors: what does not come to pass, with what was played before.
pub(crate) fn play<'a>(
    transcript: &'a Transcript,
    kubectl: &Path,
    version: Version,
    target: &Target,
) -> (Vec<Played<'a>>, Result<(), String>) {
    let mut stage = Stage::new(transcript, kubectl, target);
    let mut played = Vec::new();
    for item in &transcript.items {
        match item {
            Item::File(file) => stage.put(file.place, &file.name, &file.text),
            Item::Take(name) => fs::remove_file(stage.manifest(name)).unwrap(),
            Item::Step(step) if step.is_of(version) => match step.kind {
                Kind::Run => match stage.run(&step.script) {
                    Ok(lines) => played.push(Played { step, lines }),
                    Err(error) => return (played, Err(error)),
                },
                Kind::Until => {
                    if let Err(error) = stage.until(&step.script) {
                        return (played, Err(error));
                    }
                }
                Kind::Finally => stage.finally.push(step.script.clone()),
            },
            _ => {}
        }
    }
    (played, Ok(()))
}

/// Where a transcript is played. Ends all that it started when it is dropped, and takes its
/// manifests away.
struct Stage {
    directory: TempDir,
    target: Target,
    normal: Normal,
    /// Of the commands, each the leader of its group.
    groups: Vec<Pid>,
    manifests: Vec<PathBuf>,
    finally: Vec<String>,
}

impl Stage {
    fn new(transcript: &Transcript, kubectl: &Path, target: &Target) -> Self {
        let directory = tempfile::Builder::new().prefix("mk-").tempdir().unwrap();
        for name in ["bin", "work"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        symlink(kubectl, directory.path().join("bin/kubectl")).unwrap();
        let masks = transcript.items.iter().filter_map(|item| match item {
            Item::Mask { find, put } => Some((find.as_str(), put.as_str())),
            _ => None,
        });
        let literal = vec![
            (directory.path().join("work").display().to_string(), "<work>"),
            (target.manifests.join(&target.prefix).display().to_string(), "<manifests>/"),
        ];
        let normal = Normal::new(&target.node, literal, &masks.collect::<Vec<_>>()).unwrap();
        Self {
            directory,
            target: target.clone(),
            normal,
            groups: Vec::new(),
            manifests: Vec::new(),
            finally: Vec::new(),
        }
    }

    fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.target.manifests.join(format!("{}{name}", self.target.prefix))
    }

    /// Puts a file in place, whole.
    fn put(&mut self, place: Place, name: &str, text: &str) {
        let staged = self.directory.path().join("staged");
        let text = text.replace("${NODE}", &self.target.node);
        match place {
            Place::File => fs::write(self.work().join(name), text).unwrap(),
            Place::Manifest => {
                fs::write(&staged, text).unwrap();
                let path = self.manifest(name);
                // The two directories may be on two file systems.
                let hidden = self.target.manifests.join(format!(".{name}"));
                fs::copy(&staged, &hidden).unwrap();
                fs::rename(&hidden, &path).unwrap();
                self.manifests.push(path);
            }
        }
    }

    fn command(&self, script: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = command("bash");
        command
            .args(["-o", "pipefail", "-c", script])
            .env_clear()
            .env("PATH", format!("{}:{path}", self.directory.path().join("bin").display()))
            .env("HOME", self.work())
            .env("TMPDIR", self.work())
            .env("TERM", "dumb")
            .env("TZ", "UTC")
            .env("KUBECONFIG", &self.target.kubeconfig)
            .env("NODE", &self.target.node)
            .current_dir(self.work())
            .stdin(Stdio::null())
            // What the command leaves behind is found by its group.
            .process_group(0);
        command
    }

    /// Runs a command to its end, and returns what it printed, as it is.
    fn output(&mut self, script: &str) -> Result<(ExitStatus, String, String), String> {
        // Not pipes: what runs on after the command would keep them open.
        let paths = ["stdout", "stderr"].map(|name| self.directory.path().join(name));
        let [out, err] = paths.each_ref().map(|path| File::create(path).unwrap());
        let mut child = self.command(script).stdout(out).stderr(err).spawn().unwrap();
        self.groups.push(Pid::from_child(&child));
        let status = wait(&mut child, self.target.patience);
        let [out, err] =
            paths.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
        match status {
            Some(status) => Ok((status, out, err)),
            None => Err(format!("this does not end: {script}\n{out}{err}")),
        }
    }

    /// Runs a command to its end, and returns what it printed, as transcripts have it.
    fn run(&mut self, script: &str) -> Result<Vec<String>, String> {
        let (status, out, err) = self.output(script)?;
        let marked = |mark: &str, text: &str| -> Vec<String> {
            let lines = self.normal.lines(text);
            lines.iter().map(|line| format!("{mark} {line}").trim_end().to_owned()).collect()
        };
        let mut lines = marked("|", &out);
        lines.extend(marked("!", &err));
        if !status.success() {
            lines.push(match status.code() {
                Some(code) => format!("= {code}"),
                None => format!("= {status}"),
            });
        }
        Ok(lines)
    }

    /// Repeats a command until it succeeds.
    fn until(&mut self, script: &str) -> Result<(), String> {
        let deadline = Instant::now() + self.target.patience;
        loop {
            let (status, out, err) = self.output(script)?;
            if status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("this does not come to pass: {script}\n{out}{err}"));
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for script in std::mem::take(&mut self.finally) {
            let _ = self.output(&script);
        }
        for group in &self.groups {
            let _ = rustix::process::kill_process_group(*group, Signal::KILL);
        }
        for path in &self.manifests {
            // It may have been taken away before.
            let _ = fs::remove_file(path);
        }
    }
}

/// Waits for the end of a command; `None` if it does not come.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            let _ = rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL);
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(LOOK);
    }
}
