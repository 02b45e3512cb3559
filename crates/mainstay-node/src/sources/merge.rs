//! From what files say to what should run.
//!
//! Pure: batches of changes go in, goals come out.
//!
//! # Guarantees
//!
//! - A pod goes only when its manifest is seen to be gone, or to be there without it. A manifest
//!   that cannot be read or is not valid, or a directory that is away, leaves what it had.
//! - Of several manifests for one pod, the one whose version runs counts, also over restarts of the
//!   agent; at a first start the one with the lower path. When it goes, the next one counts.
//! - What is in the ledger counts from the first moment on, until its file says otherwise.
//! - What pods may refer to is not in the ledger. Until all manifests have been read once, one that
//!   is in none of them is not known to be missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay_plan::pod::{Incarnation, PodKey, SourceKind};
use mainstay_plan::resize::Pending;
use mainstay_pod::{
    Diagnostic, Entry, FullName, NodeName, Object, ObjectName, Pod, ReadOptions, Validation,
};

use super::credentials;
use super::manifest_dir::{Change, ManifestPaths, Place};

/// What is said of a path that has not been looked at when nobody waits any longer.
const HANGING: &str = "it does not answer, as a disk or a server that is away; the pods that it had \
                       run on. Bring it back, or unmount it";

/// What should run, by pod.
pub(crate) type Goals = BTreeMap<PodKey, GoalPod>;

/// A pod that should run, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct GoalPod {
    pub(crate) pod: Arc<Pod>,
    /// Its manifest; empty for a pod of an API.
    pub(crate) path: PathBuf,
    /// The directories that its manifest was seen in.
    pub(crate) place: Place,
    /// Another one each time that it is taken in anew.
    pub(crate) incarnation: Option<Incarnation>,
    /// Why its manifest, as it is now, is not what runs.
    pub(crate) invalid: Option<Arc<[Diagnostic]>>,
    /// It is ended, with this grace period, and told of until whoever asked for that knows.
    pub(crate) stop: Option<Duration>,
    /// Resources that it is to have and that it cannot be allocated yet.
    pub(crate) pending: Option<Arc<Pending>>,
}

/// What is wrong, or worth knowing, about manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// By file: errors and warnings, in the order of the file.
    pub(crate) files: BTreeMap<PathBuf, Vec<Note>>,
    /// By directory: files that are not read.
    pub(crate) ignored: BTreeMap<PathBuf, BTreeSet<String>>,
    /// By path as the user gave it: why it cannot be looked at.
    pub(crate) unreadable: BTreeMap<PathBuf, String>,
}

/// One thing about a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// As the manifest's reader has it.
    Diagnostic(Diagnostic),
    /// The file cannot be read.
    Unreadable(String),
    /// Another manifest has the pod.
    Shadowed { pod: FullName, by: PathBuf },
}

/// How manifests are read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) node_name: NodeName,
    pub(crate) validation: Validation,
    /// Where the service manager has put the credentials of the agent's service, if it has.
    pub(crate) credentials: Option<PathBuf>,
}

/// What is known of all files.
pub(crate) struct Merge {
    reading: Reading,
    manifests: ManifestPaths,
    files: BTreeMap<PathBuf, File>,
    /// Which file each pod is taken from.
    winners: BTreeMap<PodKey, PathBuf>,
    /// The same of what pods refer to.
    object_winners: BTreeMap<ObjectName, PathBuf>,
    ignored: BTreeMap<PathBuf, BTreeSet<String>>,
    unreadable: BTreeMap<PathBuf, String>,
    /// The paths that have not been looked at yet.
    awaited: BTreeSet<PathBuf>,
    /// Whether those are waited for.
    patient: bool,
    /// Whether the server's manifests have come once. Nothing waits for them.
    heard: bool,
    /// Whether there was a moment at which everything had been read. From then on what is known is all
    /// that there is: what cannot be read any more keeps what it had.
    all_read: bool,
}

/// What is known of one file.
#[derive(Default)]
struct File {
    /// The last good version of each pod that it has.
    pods: Claims,
    /// The last good version of what pods may refer to.
    objects: BTreeMap<ObjectName, Arc<Object>>,
    notes: Vec<Note>,
    /// Whether this agent has read all of it once, and so knows what pods may refer to in it.
    was_read: bool,
    /// The directories that it was seen in.
    place: Place,
    /// The bytes that were read last; `None` when they are from the ledger only, or hold what is in
    /// memory once already.
    bytes: Option<Box<[u8]>>,
}

/// What a file says of pods, by their keys: mostly of one, where a map would keep room for ten more.
#[derive(Default)]
struct Claims(Vec<(PodKey, Claim)>);

struct Claim {
    pod: Arc<Pod>,
    incarnation: Option<Incarnation>,
    invalid: Option<Arc<[Diagnostic]>>,
}

/// A pod that the ledger has.
pub(crate) struct Remembered {
    pub(crate) path: PathBuf,
    pub(crate) place: Place,
    pub(crate) pod: Arc<Pod>,
}

impl Claims {
    fn place(&self, key: &PodKey) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(key))
    }

    fn get(&self, key: &PodKey) -> Option<&Claim> {
        self.place(key).ok().map(|place| &self.0[place].1)
    }

    fn insert(&mut self, key: PodKey, claim: Claim) {
        match self.place(&key) {
            Ok(place) => self.0[place].1 = claim,
            Err(place) => {
                // Not twice the room, which would stay empty.
                self.0.reserve_exact(1);
                self.0.insert(place, (key, claim));
            }
        }
    }

    fn keys(&self) -> impl Iterator<Item = &PodKey> {
        self.0.iter().map(|(key, _)| key)
    }
}

impl Merge {
    /// Starts from the ledger. `manifests` are the paths that are watched now: what came from
    /// elsewhere is not wanted any more.
    pub(crate) fn new(
        reading: Reading,
        manifests: ManifestPaths,
        remembered: impl IntoIterator<Item = Remembered>,
    ) -> Self {
        let mut merge = Self {
            reading,
            awaited: manifests.paths.iter().cloned().collect(),
            patient: true,
            heard: false,
            all_read: false,
            manifests,
            files: BTreeMap::new(),
            winners: BTreeMap::new(),
            object_winners: BTreeMap::new(),
            ignored: BTreeMap::new(),
            unreadable: BTreeMap::new(),
        };
        for Remembered { path, place, pod } in remembered {
            // A server that is called otherwise now may have them still.
            let path = match (&merge.manifests.url, pod.source()) {
                (Some(url), SourceKind::Http) => PathBuf::from(url),
                _ => path,
            };
            if merge.manifests.cover(&path) {
                let key = key_of(&pod);
                merge.winners.insert(key.clone(), path.clone());
                let claim = Claim { pod, incarnation: None, invalid: None };
                let file = merge.files.entry(path).or_default();
                file.place = place;
                file.pods.insert(key, claim);
            }
        }
        merge
    }

    /// Takes in what was found out at one moment.
    pub(crate) fn apply(&mut self, changes: Vec<Change>, now: Timestamp) {
        // First what is there, then what is gone: a manifest that was renamed keeps its pods.
        let mut gone = Vec::new();
        for change in changes {
            match change {
                Change::Read { path, bytes, place, exposed } => {
                    self.read(path, bytes, place, exposed, now);
                }
                Change::Unreadable { path, error } => self.keep(path, &error.to_string()),
                Change::Gone { path } => gone.push(path),
                Change::Ignored { directory, names } => {
                    self.ignored.insert(directory, names);
                }
                Change::Directory { path, error } => match error {
                    Some(error) => drop(self.unreadable.insert(path, error)),
                    None => drop(self.unreadable.remove(&path)),
                },
                Change::Ready { path } => drop(self.awaited.remove(&path)),
            }
        }
        for path in gone {
            self.files.remove(&path);
        }
        self.all_read = self.unread().is_none();
        // In which order paths are looked at does not count.
        if self.is_ready() {
            self.elect();
        }
    }

    /// Does not wait any longer for paths that have not been looked at: what the ledger has of them
    /// counts until they have.
    pub(crate) fn go_without(&mut self) {
        self.patient = false;
        self.elect();
    }

    fn keep(&mut self, path: PathBuf, error: &str) {
        let file = self.files.entry(path).or_default();
        file.notes = vec![Note::Unreadable(error.to_owned())];
        // When it can be read again, it counts as changed even with the same bytes.
        file.bytes = None;
    }

    fn read(&mut self, path: PathBuf, bytes: Vec<u8>, place: Place, exposed: bool, now: Timestamp) {
        if let Some(file) = self.files.get_mut(&path)
            && file.bytes.as_deref() == Some(&*bytes)
        {
            file.place = place;
            return;
        }
        let options = ReadOptions {
            validation: self.reading.validation,
            node_name: self.reading.node_name.clone(),
            source: self.source(&path),
            seen: now.to_string(),
        };
        let name = path.to_string_lossy().into_owned();
        let outcome = mainstay_pod::read(&name, &bytes, &options);
        let is_empty = outcome.entries.is_empty() && outcome.diagnostics.is_empty();
        if is_empty && options.source == SourceKind::Http && !is_list(&name, &bytes) {
            // A file was emptied by somebody; a server may just be ill.
            return self.keep(path, "there is no manifest in the answer");
        }
        let mut notes: Vec<Note> =
            outcome.diagnostics.iter().cloned().map(Note::Diagnostic).collect();
        let mut pods = Claims::default();
        let mut refused: BTreeMap<PodKey, Arc<[Diagnostic]>> = BTreeMap::new();
        let mut objects: BTreeMap<ObjectName, Arc<Object>> = BTreeMap::new();
        let mut refused_objects: BTreeSet<ObjectName> = BTreeSet::new();
        // As below, of documents of which no more is known than that they are no pods.
        let mut nameless_object = false;
        // Refused documents of which not even the name is known may be any pod of the file.
        let mut nameless: Option<Arc<[Diagnostic]>> =
            (!outcome.diagnostics.is_empty()).then(|| outcome.diagnostics.into());
        for entry in outcome.entries {
            match entry {
                Entry::Pod { pod, warnings } => {
                    notes.extend(warnings.into_iter().map(Note::Diagnostic));
                    let claim = self.claim(&path, pod, now);
                    pods.insert(key_of(&claim.pod), claim);
                }
                Entry::Refused { identity, errors, warnings } => {
                    notes.extend(errors.iter().chain(&warnings).cloned().map(Note::Diagnostic));
                    match identity {
                        Some(name) => {
                            let key = PodKey { source: options.source, ..key_of_name(&name) };
                            refused.insert(key, errors.into());
                        }
                        None => nameless = Some(errors.into()),
                    }
                }
                Entry::Object { name, object, warnings } => {
                    notes.extend(warnings.into_iter().map(Note::Diagnostic));
                    let file = path.to_string_lossy();
                    let exposure = name.exposure(&object, &file).filter(|_| exposed);
                    notes.extend(exposure.map(Note::Diagnostic));
                    match credentials::with(object, self.reading.credentials.as_deref()) {
                        Ok(object) => drop(objects.insert(name, object)),
                        Err(error) => {
                            let message = format!("{name}: {error}");
                            let hint = Some(credentials::HINT.to_owned());
                            notes.push(Note::Diagnostic(Diagnostic::error(&file, message, hint)));
                            refused_objects.insert(name);
                        }
                    }
                }
                Entry::RefusedObject { name, errors, warnings } => {
                    notes.extend(errors.into_iter().chain(warnings).map(Note::Diagnostic));
                    nameless_object |= name.is_none();
                    refused_objects.extend(name);
                }
            }
        }
        self.heard |= self.manifests.is_url(&path);
        let file = self.files.entry(path).or_default();
        let is_whole = nameless.is_none() && !nameless_object && refused_objects.is_empty();
        let was_read = file.was_read || is_whole;
        for (name, before) in std::mem::take(&mut file.objects) {
            match objects.get_mut(&name) {
                // It is in memory once.
                Some(object) if *object == before => *object = before,
                Some(_) => {}
                None if nameless.is_some()
                    || nameless_object
                    || refused_objects.contains(&name) =>
                {
                    objects.insert(name, before);
                }
                None => {}
            }
        }
        let bytes = objects.is_empty().then(|| bytes.into());
        for (key, claim) in std::mem::take(&mut file.pods).0 {
            let why = refused.get(&key).or(nameless.as_ref());
            if let Some(why) = why
                && pods.get(&key).is_none()
            {
                pods.insert(key, Claim { invalid: Some(why.clone()), ..claim });
            }
        }
        *file = File { pods, objects, notes, was_read, place, bytes };
    }

    /// A valid pod of a file. The same version as before stays what it was.
    fn claim(&self, path: &Path, pod: Arc<Pod>, now: Timestamp) -> Claim {
        let key = key_of(&pod);
        let before = self.files.get(path).and_then(|file| file.pods.get(&key));
        match before {
            Some(before) if before.pod.uid() == pod.uid() => {
                Claim { pod: before.pod.clone(), incarnation: before.incarnation, invalid: None }
            }
            _ => {
                // Another version, or a pod that this file did not have. If another file has the
                // same version, nothing is to be started anew. What is found at the start may be
                // running already.
                let running = self.winner(&key).is_some_and(|it| it.pod.uid() == pod.uid());
                let awaited = match self.manifests.is_url(path) {
                    true => !self.heard,
                    false => self.awaited.iter().any(|it| self.manifests.is_of(it, path)),
                };
                let incarnation = (!awaited && !running).then_some(now);
                Claim { pod, incarnation, invalid: None }
            }
        }
    }

    fn winner(&self, key: &PodKey) -> Option<&Claim> {
        self.files.get(self.winners.get(key)?)?.pods.get(key)
    }

    /// Settles which file each pod is taken from, and each object that they refer to.
    fn elect(&mut self) {
        let files = || self.files.iter();
        let pods = files().flat_map(|(path, file)| file.pods.keys().map(move |key| (key, path)));
        let mut winners = elect(pods, &self.winners);
        self.part_twins(&mut winners);
        let objects =
            files().flat_map(|(path, file)| file.objects.keys().map(move |name| (name, path)));
        self.object_winners = elect(objects, &self.object_winners);
        self.winners = winners;
    }

    /// Of two pods of one name, of a file and of a server, one counts: they would have one mirror.
    fn part_twins(&self, winners: &mut BTreeMap<PodKey, PathBuf>) {
        let of_server = winners.keys().filter(|key| key.source == SourceKind::Http).cloned();
        for http in of_server.collect::<Vec<_>>() {
            let file = twin(&http);
            if winners.contains_key(&file) {
                let stays = self.winners.contains_key(&http) && !self.winners.contains_key(&file);
                winners.remove(if stays { &file } else { &http });
            }
        }
    }

    /// Which kind of source a path is of.
    fn source(&self, path: &Path) -> SourceKind {
        if self.manifests.is_url(path) { SourceKind::Http } else { SourceKind::File }
    }

    /// What static pods may refer to, and where it lies.
    pub(crate) fn objects(&self) -> BTreeMap<ObjectName, (Arc<Object>, PathBuf)> {
        let object = |(name, path): (&ObjectName, &PathBuf)| {
            let object = self.files.get(path)?.objects.get(name)?.clone();
            Some((name.clone(), (object, path.clone())))
        };
        self.object_winners.iter().filter_map(object).collect()
    }

    /// What should run.
    pub(crate) fn goals(&self) -> Goals {
        let goal = |(key, path): (&PodKey, &PathBuf)| {
            let file = self.files.get(path)?;
            let claim = file.pods.get(key)?;
            let goal = GoalPod {
                pod: claim.pod.clone(),
                path: path.clone(),
                place: file.place.clone(),
                incarnation: claim.incarnation,
                invalid: claim.invalid.clone(),
                stop: None,
                pending: None,
            };
            Some((key.clone(), goal))
        };
        self.winners.iter().filter_map(goal).collect()
    }

    /// Why what pods refer to may be there though it has not been found; `None` when all that there is
    /// is known.
    pub(crate) fn unread(&self) -> Option<String> {
        if self.all_read {
            return None;
        }
        let not_looked_at = || self.awaited.first().map(|path| (path, HANGING.to_owned()));
        let away = || self.unreadable.first_key_value().map(|(path, why)| (path, why.clone()));
        let unheard = || {
            let url = self.manifests.url.as_ref().filter(|_| !self.heard)?;
            Some((url, "it has not answered yet".to_owned()))
        };
        let broken = || {
            let (path, file) = self.files.iter().find(|(_, file)| !file.was_read)?;
            let why = match file.notes.first() {
                Some(Note::Unreadable(error)) => error.clone(),
                Some(Note::Diagnostic(_) | Note::Shadowed { .. }) => "it is not valid".to_owned(),
                None => "it is not there yet".to_owned(),
            };
            Some((path, why))
        };
        let (path, why) = not_looked_at().or_else(away).or_else(broken).or_else(unheard)?;
        let path = path.display();
        Some(format!(
            "no manifest that could be read since the agent began has it, and {path} could not: {why}"
        ))
    }

    /// Whether all paths that are waited for have been looked at once. Until then nothing is known
    /// to be gone.
    pub(crate) fn is_ready(&self) -> bool {
        self.awaited.is_empty() || !self.patient
    }

    /// What there is to say about manifests.
    pub(crate) fn notes(&self) -> Notes {
        let mut files: BTreeMap<PathBuf, Vec<Note>> = BTreeMap::new();
        for (path, file) in &self.files {
            let shadowed = file.pods.keys().filter_map(|key| {
                let winner = self.winners.get(key).or_else(|| self.winners.get(&twin(key)));
                let winner = winner.filter(|winner| *winner != path)?;
                let pod = FullName { namespace: key.namespace.clone(), name: key.name.clone() };
                Some(Note::Shadowed { pod, by: winner.clone() })
            });
            let shadowed_objects = file.objects.keys().filter_map(|name| {
                let winner = self.object_winners.get(name).filter(|winner| *winner != path)?;
                let message =
                    format!("{name} is taken from {}; remove one of the two", winner.display());
                Some(Note::Diagnostic(Diagnostic::warning(&path.to_string_lossy(), message, None)))
            });
            let notes = file.notes.iter().cloned().chain(shadowed).chain(shadowed_objects);
            let notes: Vec<Note> = notes.collect();
            if !notes.is_empty() {
                files.insert(path.clone(), notes);
            }
        }
        let mut unreadable = self.unreadable.clone();
        let hanging = self.awaited.iter().filter(|_| !self.patient);
        unreadable.extend(hanging.map(|path| (path.clone(), HANGING.to_owned())));
        Notes { files, ignored: self.ignored.clone(), unreadable }
    }
}

/// The pod of the same name of the other kind of source.
fn twin(key: &PodKey) -> PodKey {
    let source = match key.source {
        SourceKind::Http => SourceKind::File,
        SourceKind::File | SourceKind::Api => SourceKind::Http,
    };
    PodKey { source, ..key.clone() }
}

/// Whether an answer says that there is no pod.
fn is_list(name: &str, bytes: &[u8]) -> bool {
    let value = mainstay_pod::read_value(name, bytes);
    let kind = value.ok().and_then(|value| value.get("kind")?.as_str().map(str::to_owned));
    kind.is_some_and(|kind| ["PodList", "List"].contains(&kind.as_str()))
}

/// Which of several files each thing is taken from: the one that it was taken from before, else the lowest.
/// The things of one file after the other, in the order of their paths.
fn elect<'a, K: Clone + Ord + 'a>(
    claims: impl Iterator<Item = (&'a K, &'a PathBuf)>,
    before: &BTreeMap<K, PathBuf>,
) -> BTreeMap<K, PathBuf> {
    let mut winners = BTreeMap::new();
    for (key, path) in claims {
        let stays = before.get(key) == Some(path);
        if stays || !winners.contains_key(key) {
            winners.insert(key.clone(), path.clone());
        }
    }
    winners
}

pub(crate) fn key_of(pod: &Pod) -> PodKey {
    PodKey { source: pod.source(), ..key_of_name(&pod.full_name()) }
}

fn key_of_name(name: &FullName) -> PodKey {
    PodKey { source: SourceKind::File, namespace: name.namespace.clone(), name: name.name.clone() }
}

#[cfg(test)]
mod tests;
