//! From a name to an image in the store.
//!
//! # Flow
//!
//! 1. The name is resolved: mirrors are asked in their order, then the registry itself. A name that
//!    is here already is only compared by its digest (`HEAD`), which Docker Hub does not count.
//! 2. Manifest and configuration are read and checked.
//! 3. Layers that are not here yet are downloaded to `work/`, several at a time, and unpacked as
//!    soon as they are complete. Both digests are verified before a layer is visible.
//! 4. The image gets its record and its names.
//!
//! # Guarantees
//!
//! - Dropping the future ends the pull: unpacking stops at the next read. What was downloaded stays
//!   for the next attempt, and nothing half done is visible.
//! - Two pulls that need the same layer make it once, also in different processes.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Method;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use super::RegistryConfig;
use super::credentials::Keyring;
use super::endpoint::Endpoint;
use super::error::{PullError, PullErrorKind, PullProblem, RequestError, chain};
use super::http::{Ask, Session};
use crate::config::{CONFIG_MAX, ImageConfig};
use crate::digest::Digest;
use crate::durable::FileError;
use crate::manifest::{ACCEPTED, DOCUMENT_MAX, Descriptor, Document, Index, Manifest};
use crate::progress::Event;
use crate::reference::Reference;
use crate::store::{Image, NewImage, Store, StoreError};

/// How many indexes may be one within another.
const DEPTH_MAX: usize = 4;

/// Pulls images into a store.
#[derive(Clone, Debug)]
pub struct Puller {
    store: Store,
    config: Arc<RegistryConfig>,
}

/// What to pull, and how.
#[derive(Clone)]
pub struct PullRequest {
    /// The image.
    pub reference: Reference,
    /// As whom to ask; mirrors get what the keyring has for them.
    pub keyring: Arc<Keyring>,
    /// How long to wait for somebody to say what the name stands for. `None`: as long as the
    /// timeouts and retries of the configuration take.
    pub answer_within: Option<Duration>,
    /// Who is told how it goes.
    pub progress: Arc<dyn Fn(Event) + Send + Sync>,
}

/// One pull.
pub(super) struct Pull<'a> {
    pub(super) store: &'a Store,
    pub(super) config: &'a RegistryConfig,
    pub(super) request: &'a PullRequest,
    pub(super) session: Session,
    /// Mirrors first, the registry last.
    pub(super) endpoints: Vec<Endpoint>,
    /// When the answer to the first question has to be there.
    answer_by: Option<Instant>,
    /// Set when the pull is dropped.
    pub(super) stop: Arc<AtomicBool>,
}

/// What a name stands for.
enum Resolved {
    /// An image that is here as the registry has it.
    Here(Box<Image>),
    /// A manifest or index.
    Document {
        digest: Digest,
        content: Vec<u8>,
        /// Who said so, to be asked first for the rest.
        endpoint: usize,
    },
}

/// The manifest of an image.
struct Found {
    digest: Digest,
    content: Vec<u8>,
    manifest: Manifest,
    /// Whether it stands in an index that does not say what it runs on, so that its configuration
    /// has to. Source: containerd `core/images/image.go`, `Manifest`.
    unlabelled: bool,
}

/// A document that is asked for.
struct Wanted<'a> {
    /// Below `/v2/<repository>/`.
    path: String,
    accept: String,
    digest: Option<&'a Digest>,
    /// The most bytes that it may have.
    limit: u64,
    /// When the answer has to be there.
    by: Option<Instant>,
}

/// What a request failed with, and those that failed before it.
pub(super) struct Failed {
    pub(super) endpoint: usize,
    pub(super) error: RequestError,
    pub(super) others: Vec<(usize, RequestError)>,
}

/// A [`PullProblem`] with what mirrors said before.
pub(super) struct Problem {
    problem: Box<PullProblem>,
    others: Vec<String>,
}

// === impl Puller ===

impl Puller {
    /// Pulls into `store`.
    pub fn new(store: Store, config: RegistryConfig) -> Self {
        Self { store, config: Arc::new(config) }
    }

    /// Pulls an image, or what is missing of it. On success the name leads to what the registry
    /// has under it now.
    pub async fn pull(&self, request: &PullRequest) -> Result<Image, PullError> {
        let reference = request.reference.without_redundant_tag();
        let failed = |Problem { problem, others }| PullError {
            reference: request.reference.clone(),
            others,
            problem,
        };
        let endpoints = self.endpoints(&reference);
        let session = Session::new(Arc::clone(&self.config), reference.path());
        for endpoint in &endpoints {
            let host = known_as(endpoint, &reference);
            session.set_credentials(endpoint, request.keyring.find(host, reference.path()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let pull = Pull {
            store: &self.store,
            config: &self.config,
            request,
            session,
            endpoints,
            answer_by: request.answer_within.map(|within| Instant::now() + within),
            stop: Arc::clone(&stop),
        };
        let _stop = StopOnDrop(stop);
        pull.run(&reference).await.map_err(failed)
    }
}

impl Puller {
    /// Whoever may be asked for an image, as [`Keyring`] knows them.
    pub fn hosts(&self, reference: &Reference) -> Vec<String> {
        let endpoints = self.endpoints(reference);
        endpoints.iter().map(|endpoint| known_as(endpoint, reference).to_owned()).collect()
    }

    /// Mirrors first, the registry last.
    fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        let host = self.config.hosts.get(reference.domain()).cloned().unwrap_or_default();
        let mirrors = host.mirrors.iter().map(|mirror| mirror.mirroring(reference.domain()));
        let registry = Endpoint::of_registry(reference, host.plain_http);
        mirrors.chain([registry]).collect()
    }
}

/// Docker Hub is known by its name, not by the host that serves it.
fn known_as<'a>(endpoint: &'a Endpoint, reference: &'a Reference) -> &'a str {
    match &endpoint.mirror_of {
        Some(_) => &endpoint.authority,
        None => reference.domain(),
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// === impl Pull ===

impl Pull<'_> {
    async fn run(&self, reference: &Reference) -> Result<Image, Problem> {
        let resolving = self.resolve(reference);
        let resolved = match (self.answer_by, self.request.answer_within) {
            (Some(by), Some(waited)) => {
                let answer = timeout_at(by, resolving).await;
                let endpoint =
                    || self.endpoints.last().map(ToString::to_string).unwrap_or_default();
                answer.unwrap_or_else(|_| {
                    Err(PullProblem::NoAnswer { endpoint: endpoint(), waited }.into())
                })?
            }
            _ => resolving.await?,
        };
        let (digest, content, endpoint) = match resolved {
            Resolved::Here(image) => return Ok(*image),
            Resolved::Document { digest, content, endpoint } => (digest, content, endpoint),
        };
        let mut references = vec![reference.with_digest(digest.clone())];
        if reference.digest().is_none() {
            references.push(reference.clone());
        }
        let Found { digest: manifest_digest, content: manifest_bytes, manifest, unlabelled } =
            self.manifest(digest, content, endpoint).await?;
        let (config_bytes, config) = self.image_config(&manifest_digest, &manifest).await?;
        let wanted = &self.config.platform;
        if unlabelled && !wanted.runs(&config.platform) {
            let available = vec![config.platform.to_string()];
            return Err(PullProblem::Platform { wanted: wanted.clone(), available }.into());
        }
        if let Some(note) = wanted.note(&reference.to_string(), &config.platform) {
            (self.request.progress)(Event::Note(note));
        }
        let new = NewImage {
            id: manifest.config.digest.clone(),
            manifest: Some(manifest_digest.clone()),
            diff_ids: config.diff_ids.clone(),
            references,
        };
        let job = {
            let (store, new) = (self.store.clone(), new.clone());
            self.blocking(move || {
                let blobs = vec![new.id.clone(), manifest_digest.clone()];
                let job = store.start_job(new.diff_ids, blobs)?;
                store.put_blob(&new.id, &config_bytes)?;
                store.put_blob(&manifest_digest, &manifest_bytes)?;
                Ok(job)
            })
            .await?
        };
        self.layers(reference, &manifest, &config).await?;
        let (store, stop) = (self.store.clone(), Arc::clone(&self.stop));
        self.blocking(move || {
            let go_on = || !stop.load(Ordering::Relaxed);
            let image = store.publish(std::slice::from_ref(&new), &go_on)?.pop();
            drop(job);
            image.ok_or_else(|| StoreError::NotFound(new.id.to_string()))
        })
        .await
    }

    async fn resolve(&self, reference: &Reference) -> Result<Resolved, Problem> {
        let present = {
            let (store, reference) = (self.store.clone(), reference.clone());
            // A damaged one counts as absent: the pull mends it.
            self.blocking(move || Ok(store.find_reference(&reference).unwrap_or(None))).await?
        };
        if let Some(present) = present {
            let digest = match reference.digest() {
                Some(_) => return Ok(Resolved::Here(Box::new(present))),
                None => self.remote_digest(reference).await?,
            };
            let same = digest.map(|digest| reference.with_digest(digest));
            if same.is_some_and(|same| present.digests.contains(&same)) {
                return Ok(Resolved::Here(Box::new(present)));
            }
        }
        let wanted = Wanted {
            path: format!("manifests/{}", reference.manifest_name()),
            accept: ACCEPTED.join(", "),
            digest: reference.digest(),
            limit: DOCUMENT_MAX,
            by: self.answer_by,
        };
        let (endpoint, content) = self.document(0, wanted).await?;
        let digest = reference.digest().cloned().unwrap_or_else(|| Digest::of(&content));
        Ok(Resolved::Document { digest, content, endpoint })
    }

    /// The digest that the registry has under a name, if it says so without sending everything.
    async fn remote_digest(&self, reference: &Reference) -> Result<Option<Digest>, Problem> {
        let path = format!("{}/manifests/{}", reference.path(), reference.manifest_name());
        let accept = ACCEPTED.join(", ");
        let fetch = |endpoint| {
            let ask = Ask { method: &Method::HEAD, path: &path, accept: &accept, from: 0 };
            async move {
                let (response, _) = self.session.ask(endpoint, ask).await?;
                let digest = response.headers().get("docker-content-digest");
                Ok(digest.and_then(|value| value.to_str().ok()?.parse().ok()))
            }
        };
        match self.anywhere(0, &path, self.answer_by, fetch).await {
            Ok((_, digest)) => Ok(digest),
            Err(failed) if failed.error.is_transient() => Err(self.problem(failed)),
            // A registry that does not know `HEAD`; whatever else it is, `GET` will tell.
            Err(_) => Ok(None),
        }
    }

    /// The manifest for this machine, through indexes.
    async fn manifest(
        &self,
        mut digest: Digest,
        mut content: Vec<u8>,
        endpoint: usize,
    ) -> Result<Found, Problem> {
        let mut unlabelled = false;
        for _ in 0..DEPTH_MAX {
            let document = Document::parse(&content)
                .map_err(|source| PullProblem::Document { digest: digest.clone(), source })?;
            let index = match document {
                Document::Manifest(manifest) => {
                    return Ok(Found { digest, content, manifest, unlabelled });
                }
                Document::Index(index) => index,
            };
            let entry = self.choose(index)?;
            let wanted = Wanted {
                path: format!("manifests/{}", entry.digest),
                accept: ACCEPTED.join(", "),
                digest: Some(&entry.digest),
                limit: DOCUMENT_MAX,
                by: None,
            };
            (_, content) = self.document(endpoint, wanted).await?;
            unlabelled |= entry.platform.is_none();
            digest = entry.digest;
        }
        Err(PullProblem::TooDeep(digest).into())
    }

    fn choose(&self, index: Index) -> Result<Descriptor, Problem> {
        let (with, without): (Vec<_>, Vec<_>) =
            index.manifests.into_iter().partition(|entry| entry.platform.is_some());
        let platforms = || with.iter().filter_map(|entry| entry.platform.as_ref());
        let wanted = &self.config.platform;
        let chosen = wanted.choose(platforms()).map(|place| with[place].clone());
        // An entry without a platform fits any machine, if there is nothing better.
        chosen.or_else(|| without.into_iter().next()).ok_or_else(|| {
            let available = platforms().map(ToString::to_string).collect();
            PullProblem::Platform { wanted: wanted.clone(), available }.into()
        })
    }

    async fn image_config(
        &self,
        manifest_digest: &Digest,
        manifest: &Manifest,
    ) -> Result<(Vec<u8>, ImageConfig), Problem> {
        let digest = &manifest.config.digest;
        let known = {
            let (store, digest) = (self.store.clone(), digest.clone());
            self.blocking(move || Ok(store.blob(&digest, CONFIG_MAX)?)).await?
        };
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let wanted = Wanted {
                    path: format!("blobs/{digest}"),
                    accept: "*/*".into(),
                    digest: Some(digest),
                    limit: CONFIG_MAX,
                    by: None,
                };
                self.document(0, wanted).await?.1
            }
        };
        let config = ImageConfig::parse(&bytes)
            .map_err(|source| PullProblem::Config { digest: digest.clone(), source })?;
        if manifest.layers.len() != config.diff_ids.len() {
            return Err(PullProblem::LayerCount {
                digest: manifest_digest.clone(),
                layers: manifest.layers.len(),
                diff_ids: config.diff_ids.len(),
            }
            .into());
        }
        Ok((bytes, config))
    }

    /// A document, and who had it. `first` is whom to ask first.
    async fn document(
        &self,
        first: usize,
        wanted: Wanted<'_>,
    ) -> Result<(usize, Vec<u8>), Problem> {
        let Wanted { path, accept, digest, limit, by } = &wanted;
        let path = format!("{}/{path}", self.request.reference.path());
        let fetch = |endpoint| {
            let ask = Ask { method: &Method::GET, path: &path, accept, from: 0 };
            async move {
                let (_, body) = self.session.ask(endpoint, ask).await?;
                let host = body.host.clone();
                let content = body.read(*limit).await?;
                match *digest {
                    Some(expected) if !expected.matches(&content) => {
                        let (expected, found) = (expected.clone(), Digest::of(&content));
                        Err(RequestError::Digest { host, expected, found })
                    }
                    _ => Ok(content),
                }
            }
        };
        let answer = self.anywhere(first, &path, *by, fetch).await;
        answer.map_err(|failed| self.problem(failed))
    }

    /// Asks one endpoint after the other, starting with `first`, until one answers as it should.
    /// Only the registry itself is asked again after a failure that may pass: mirrors are there to
    /// be quicker, so while there is another one, it is asked instead.
    async fn anywhere<'s, T, F>(
        &'s self,
        first: usize,
        key: &str,
        by: Option<Instant>,
        fetch: impl Fn(&'s Endpoint) -> F,
    ) -> Result<(usize, T), Failed>
    where
        F: Future<Output = Result<T, RequestError>>,
    {
        let last = self.endpoints.len() - 1;
        let order = (first..=last).chain(0..first);
        let mut others = Vec::new();
        for place in order {
            let mut failures = 0;
            let error = loop {
                let error = match fetch(&self.endpoints[place]).await {
                    Ok(answer) => return Ok((place, answer)),
                    Err(error) => error,
                };
                failures += 1;
                if place != last {
                    break error;
                }
                match self.wait(key, failures, &error, by) {
                    Some(wait) => wait.await,
                    None => break error,
                }
            };
            others.push((place, error));
        }
        // The registry's own word counts, whoever was asked last.
        let own = others.iter().position(|(place, _)| *place == last).unwrap_or(0);
        let (endpoint, error) = others.remove(own);
        Err(Failed { endpoint, error, others })
    }

    /// The wait before something is tried again, or `None` if that would be of no use, or too late.
    pub(super) fn wait(
        &self,
        key: &str,
        failures: u32,
        error: &RequestError,
        by: Option<Instant>,
    ) -> Option<Sleep> {
        if !error.is_transient() {
            return None;
        }
        let after = self.config.retry.delay(key, failures, error.retry_after())?;
        if by.is_some_and(|by| Instant::now() + after >= by) {
            return None;
        }
        (self.request.progress)(Event::Retry { error: chain(error), after });
        Some(sleep(after))
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        match spawn_blocking(work).await {
            Ok(result) => result.map_err(|error| PullProblem::Store(error).into()),
            Err(_) => Err(self.gone()),
        }
    }

    /// The runtime ends, or work on a thread of its own did.
    pub(super) fn gone(&self) -> Problem {
        PullProblem::Store(StoreError::File(shutting_down())).into()
    }

    pub(super) fn problem(&self, Failed { endpoint, error, others }: Failed) -> Problem {
        if error.kind() == (PullErrorKind::Unauthorized { anonymous: true })
            && let PullRequest { reference, keyring, .. } = self.request
            && let Some(failure) = keyring.failure(reference.domain())
        {
            return PullProblem::Helper(failure).into();
        }
        let name = |place: usize| self.endpoints[place].to_string();
        let others =
            others.iter().map(|(place, error)| format!("{}: {}", name(*place), chain(error)));
        let problem = Box::new(PullProblem::Request { endpoint: name(endpoint), source: error });
        Problem { problem, others: others.collect() }
    }
}

// === impl Failed ===

impl Failed {
    pub(super) fn at(endpoint: usize, error: RequestError) -> Self {
        Self { endpoint, error, others: Vec::new() }
    }
}

impl<T: Into<PullProblem>> From<T> for Problem {
    fn from(problem: T) -> Self {
        Self { problem: Box::new(problem.into()), others: Vec::new() }
    }
}

pub(super) fn shutting_down() -> FileError {
    let source = io::Error::other("it was cut short, as the process is ending");
    FileError { step: "working in", path: "work".into(), source }
}
