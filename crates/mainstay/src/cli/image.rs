//! `mainstay image`

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use mainstay_image::archive::ImportOptions;
use mainstay_image::platform::Platform;
use mainstay_image::progress::{Event, LayerInfo, Phase};
use mainstay_image::reference::Reference;
use mainstay_image::registry::{PullRequest, Puller};
use mainstay_image::store::{Image as Stored, KEEP_PARTIAL, Store};
use serde::Serialize;

use super::Output;
use super::status::table;
use crate::config::Registries;
use crate::instance::Instance;
use crate::wiring::keyrings;

/// Look after images. Files in ROOT_DIR/images/ are imported by the agent itself.
#[derive(Debug, Subcommand)]
pub(super) enum Image {
    Import(Import),
    Ls(Ls),
    Pull(Pull),
    Rm(Rm),
}

/// Take in images from files: OCI layouts, OCI archives and docker-archives, plain, gzip or zstd.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The files, or OCI layout directories.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What an image is called that has no name in its file.
    #[arg(long, value_name = "IMAGE")]
    name: Option<Reference>,
}

/// List the images that are here.
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Fetch images from their registries.
///
/// Credentials are taken from the registries file, ROOT_DIR/config.json and
/// $HOME/.docker/config.json, and from the credential helpers that these name.
#[derive(Debug, Args)]
pub(super) struct Pull {
    /// The images.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<Reference>,
    /// Mirrors, credentials and certificate authorities of registries, as k3s has them in
    /// registries.yaml. Default: /etc/mainstay/registries.yaml if it is there.
    #[arg(long, value_name = "FILE")]
    registries: Option<PathBuf>,
}

/// Remove images, or single names of them.
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Names or ids.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Image {
    pub(super) fn run(self, instance: &Instance) -> anyhow::Result<ExitCode> {
        if let Some(socket) = instance.node()?.runtime_socket {
            bail!(
                "the images of this instance are those of the container runtime at {}, which has commands of \
                 its own for them, such as `ctr --namespace k8s.io images` and `crictl images`",
                socket.display()
            );
        }
        let made = || instance.create().and_then(|()| Ok(Store::open(instance.store())?));
        // Those who only look make nothing.
        let there = || instance.store().exists().then(|| Store::open(instance.store())).transpose();
        match self {
            Self::Import(import) => import.run(&made()?)?,
            Self::Ls(ls) => ls.run(there()?.as_ref())?,
            Self::Pull(pull) => pull.run(instance, &made()?)?,
            Self::Rm(rm) => rm.run(there()?.as_ref())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Import {
    fn run(self, store: &Store) -> anyhow::Result<()> {
        let options = ImportOptions { platform: Platform::host(), name: self.name };
        for file in &self.files {
            let progress = Progress::default();
            let images = store.import(file, &options, &|event| progress.hear(&event));
            progress.finish();
            for image in images? {
                println!("{}", name_of(&image));
            }
        }
        Ok(())
    }
}

/// One line of `image ls -o json`.
#[derive(Serialize)]
struct Listed {
    id: String,
    names: Vec<String>,
    digests: Vec<String>,
    size: u64,
}

impl Ls {
    fn run(&self, store: Option<&Store>) -> anyhow::Result<()> {
        let (images, damaged) = store.map(Store::list).transpose()?.unwrap_or_default();
        for error in damaged {
            eprintln!("mainstay: {:#}", anyhow::Error::from(error));
        }
        let mut out = io::stdout().lock();
        if self.output == Output::Json {
            let listed: Vec<Listed> = images.iter().map(Listed::of).collect();
            serde_json::to_writer_pretty(&mut out, &listed)?;
            writeln!(out)?;
            return Ok(());
        }
        let mut rows = Vec::new();
        for image in &images {
            let (id, size) = (image.id.hex()[..12].to_owned(), readable(image.size));
            let names = image.references.iter().map(Reference::familiar);
            let mut names: Vec<String> = names.collect();
            if names.is_empty() {
                names.push("<none>".to_owned());
            }
            rows.extend(names.into_iter().map(|name| [name, id.clone(), size.clone()]));
        }
        rows.sort();
        table(&mut out, ["IMAGE", "ID", "SIZE"], &rows)?;
        Ok(())
    }
}

impl Listed {
    fn of(image: &Stored) -> Self {
        Self {
            id: image.id.to_string(),
            names: image.references.iter().map(ToString::to_string).collect(),
            digests: image.digests.iter().map(ToString::to_string).collect(),
            size: image.size,
        }
    }
}

impl Pull {
    fn run(self, instance: &Instance, store: &Store) -> anyhow::Result<()> {
        let registries = Registries::read(self.registries.as_deref())?;
        let keyrings = keyrings(instance, &registries);
        let puller = Puller::new(store.clone(), registries.config);
        let runtime = super::runtime()?;
        for reference in self.images {
            let progress = Arc::new(Progress::default());
            let heard = progress.clone();
            let hosts = puller.hosts(&reference);
            let keyring = runtime.block_on(keyrings.of(&hosts, &reference, &[]))?;
            let request = PullRequest {
                reference,
                keyring: Arc::new(keyring),
                answer_within: None,
                progress: Arc::new(move |event| heard.hear(&event)),
            };
            let pulled = runtime.block_on(puller.pull(&request));
            progress.finish();
            println!("{}", name_of(&pulled.context("cannot pull the image")?));
        }
        Ok(())
    }
}

impl Rm {
    fn run(self, store: Option<&Store>) -> anyhow::Result<()> {
        let store = store.context("there are no images here")?;
        for image in &self.images {
            let removed = store.remove(image)?;
            for reference in removed.references {
                println!("removed {}", reference.familiar());
            }
        }
        store.collect(SystemTime::now(), KEEP_PARTIAL)?;
        Ok(())
    }
}

fn name_of(image: &Stored) -> String {
    image.references.first().map_or_else(|| image.id.to_string(), Reference::familiar)
}

/// Bytes, as people like them.
fn readable(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut rest = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if rest < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{rest:.1} {unit}") };
        }
        rest /= 1000.0;
    }
    format!("{rest:.1} TB")
}

/// Shows how far a transfer is: on a terminal as one line that changes, else not at all.
#[derive(Default)]
struct Progress(Mutex<Shown>);

#[derive(Default)]
struct Shown {
    name: String,
    layers: Vec<LayerInfo>,
    phases: BTreeMap<usize, Phase>,
    /// Whether a line is on the terminal.
    begun: bool,
}

impl Progress {
    fn hear(&self, event: &Event) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Image { name, layers } => {
                shown.name.clone_from(name);
                shown.layers.clone_from(layers);
                shown.phases.clear();
            }
            Event::Layer { index, phase } => drop(shown.phases.insert(*index, *phase)),
            Event::Retry { error, after } => {
                shown.clear();
                eprintln!("trying again in {} s: {error}", after.as_secs());
            }
            Event::Note(note) => {
                shown.clear();
                eprintln!("{note}");
            }
        }
        shown.draw();
    }

    fn finish(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Shown {
    fn draw(&mut self) {
        if !io::stderr().is_terminal() || self.layers.is_empty() {
            return;
        }
        let (mut bytes, mut done) = (0, 0);
        for (index, layer) in self.layers.iter().enumerate() {
            match self.phases.get(&index) {
                Some(Phase::Present | Phase::Done | Phase::Unpacking(_)) => bytes += layer.size,
                Some(Phase::Downloading(some)) => bytes += some,
                Some(Phase::Waiting) | None => {}
            }
            done +=
                usize::from(matches!(self.phases.get(&index), Some(Phase::Present | Phase::Done)));
        }
        let all: u64 = self.layers.iter().map(|layer| layer.size).sum();
        let (bytes, all) = (readable(bytes), readable(all));
        let layers = self.layers.len();
        // Cleared to the end of the line. Source: console_codes(4).
        eprint!("\r{}: {done} of {layers} layers, {bytes} of {all}\x1b[K", self.name);
        self.begun = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.begun) {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("root");
        let instance = Instance::new(&place, &directory.path().join("run")).unwrap();
        Image::Ls(Ls { output: Output::Text }).run(&instance).unwrap();
        let removal = Image::Rm(Rm { images: vec!["busybox".into()] }).run(&instance);
        assert_eq!(removal.unwrap_err().to_string(), "there are no images here");
        assert!(!instance.exists());
    }

    #[test]
    fn sizes_are_readable() {
        let check = |bytes, wanted| assert_eq!(readable(bytes), wanted);
        check(0, "0 B");
        check(999, "999 B");
        check(1000, "1.0 kB");
        check(12_345_678, "12.3 MB");
        check(4_000_000_000_000, "4.0 TB");
    }
}
