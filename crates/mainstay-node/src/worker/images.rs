//! Images, before containers are made of them.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Container;
use mainstay_cri::{ErrorKind, Image, ImageId, ImageSpec, PullRequest, PullSecret};
use mainstay_plan::image::{self, Decision, Presence, PullPolicy};
use mainstay_plan::pod::{PodKey, RunGoal};
use mainstay_plan::pull_secrets;
use mainstay_plan::translate;
use mainstay_pod::Pod;

use super::perform::{Done, PerformError, Performer, Retry, container};
use crate::publish::{self, EventKind, about};
use crate::sources::merge::key_of;

impl Performer {
    /// Sees to a container's image, and to those of the volumes that it mounts.
    pub(super) async fn ensure_image(
        &self,
        run: &RunGoal,
        name: &str,
    ) -> Result<Done, PerformError> {
        let Some(container) = container(run, name) else { return Ok(Done::AsAsked) };
        for (volume, image, policy) in images_of_volumes(&run.pod, container) {
            let ensured = self.ensure(run, None, image, policy).await;
            ensured.map_err(|error| PerformError {
                message: format!("the image of volume {volume:?}: {}", error.message),
                ..error
            })?;
        }
        let (image, policy) = image_of(&run.pod, container);
        self.ensure(run, Some(name), image, policy).await?;
        Ok(Done::Image { version: run.pod.uid().to_owned(), image: image.to_owned() })
    }

    /// Whether all that [`Performer::ensure_image`] sees to is here, so that it would be used, also if that is after
    /// a pull in vain.
    pub(super) async fn has_images(&self, run: &RunGoal, name: &str) -> bool {
        let Some(container) = container(run, name) else { return false };
        let of_volumes =
            images_of_volumes(&run.pod, container).map(|(_, image, policy)| (image, policy));
        for (image, policy) in of_volumes.chain([image_of(&run.pod, container)]) {
            let Ok(present) = self.image(image).await else { return false };
            match image::decide(policy, presence_of(present.as_ref())) {
                Decision::Use | Decision::Pull { patience: Some(_) } => {}
                Decision::Pull { patience: None } | Decision::Refuse => return false,
            }
        }
        true
    }

    /// Sees to it that an image is here, for a container or for the whole pod.
    async fn ensure(
        &self,
        run: &RunGoal,
        container: Option<&str>,
        image: &str,
        policy: PullPolicy,
    ) -> Result<(), PerformError> {
        let present = self.image(image).await?;
        let presence = presence_of(present.as_ref());
        let show = |reason, message: String| {
            self.events.show(about(&run.pod, container), EventKind::Normal, reason, message);
        };
        match image::decide(policy, presence) {
            Decision::Use => {
                let message = format!(
                    "Container image {image:?} already present on machine and can be accessed by \
                     the pod"
                );
                show("Pulled", message);
                Ok(())
            }
            Decision::Refuse => Err(PerformError {
                reason: "ErrImageNeverPull",
                message: format!(
                    "Container image {image:?} is not present with pull policy of Never; import it \
                     with {}",
                    self.images.importer()
                ),
                retry: Retry::WhenChanged,
            }),
            Decision::Pull { patience } => {
                let secrets = self.pull_secrets(run).await;
                let request = PullRequest { image: ImageSpec(image.to_owned()), secrets, patience };
                let key = key_of(&run.pod);
                let (about, pulling) =
                    (about(&run.pod, container), format!("Pulling image {image:?}"));
                self.events.announce(&key, about, EventKind::Normal, "Pulling", pulling);
                let began = Instant::now();
                let pulled = tokio::select! {
                    // Cancel-safe: a turn that is dropped is somebody else's, and what is pulled as of the docs
                    // on `Images::pull_image`.
                    pulled = self.pull(&request) => pulled,
                    // A file stands above registries also when it comes during a pull.
                    () = self.provision(image), if policy != PullPolicy::Always => return Ok(()),
                };
                match pulled {
                    Ok(alone) => {
                        let message = format!("Successfully pulled image {image:?}");
                        let took = publish::duration(began.elapsed());
                        let alone = publish::duration(alone);
                        let size = self.image(image).await.ok().flatten().map_or(0, |it| it.size);
                        let shown = format!(
                            "{message} in {alone} ({took} including waiting). Image size: {size} bytes."
                        );
                        show("Pulled", shown);
                        self.events.tell(&key, EventKind::Normal, "Pulled", message);
                        Ok(())
                    }
                    Err(error) => self.make_do(&key, policy, image, &error).await,
                }
            }
        }
    }

    /// Pulls an image when it is its turn. Answers how long the pull itself took.
    async fn pull(&self, request: &PullRequest) -> mainstay_cri::Result<Duration> {
        let _turn = self.pulls.turn().await;
        if !self.pulls.may_begin() {
            // Source: `throttledImageService` in `pkg/kubelet/images/helpers.go`.
            let kind = ErrorKind::RegistryUnavailable;
            return Err(mainstay_cri::Error::new(kind, "pull QPS exceeded"));
        }
        let began = Instant::now();
        let _: ImageId = self.images.pull_image(request).await?;
        Ok(began.elapsed())
    }

    /// The credentials that a goal's pod brings along.
    async fn pull_secrets(&self, run: &RunGoal) -> Vec<PullSecret> {
        if run.pod.spec().image_pull_secrets.is_none() {
            return Vec::new();
        }
        let found = pull_secrets::of(&run.pod, &*self.referenced(&run.pod).await);
        for message in found.warnings() {
            let (kind, reason) = (EventKind::Warning, "FailedToRetrieveImagePullSecret");
            self.events.announce(&key_of(&run.pod), about(&run.pod, None), kind, reason, message);
        }
        found.secrets
    }

    /// Judges a pull that failed: whether the image that is here by now is used.
    async fn make_do(
        &self,
        key: &PodKey,
        policy: PullPolicy,
        image: &str,
        error: &mainstay_cri::Error,
    ) -> Result<(), PerformError> {
        // It may have been imported meanwhile.
        let present = self.image(image).await?;
        let presence = presence_of(present.as_ref());
        if image::decide(policy, presence) == Decision::Use {
            return Ok(());
        }
        if !image::use_after_failure(policy, presence, error.kind) {
            return Err(PerformError {
                reason: "ErrImagePull",
                message: error.chain(),
                retry: Retry::Backoff,
            });
        }
        let message = format!(
            "Using the present image {image:?}, since a newer one cannot be had: {}",
            error.chain()
        );
        self.events.tell(key, EventKind::Warning, "ImageNotRefreshed", message);
        Ok(())
    }

    /// Resolves when an image comes from a file in the instance's image directory.
    async fn provision(&self, name: &str) {
        loop {
            let change = self.images.changed();
            let present = self.image(name).await;
            if present.is_ok_and(|image| presence_of(image.as_ref()) == Presence::Provided) {
                return;
            }
            change.await;
        }
    }

    pub(super) async fn image(&self, name: &str) -> Result<Option<Image>, PerformError> {
        let found = self.images.image_status(&ImageSpec(name.to_owned())).await;
        found.map_err(|error| PerformError::new("ImageInspectError", &error))
    }
}

/// The image of a container, and when it is pulled.
fn image_of<'a>(pod: &Pod, container: &'a Container) -> (&'a str, PullPolicy) {
    let written = pod.has_written_pull_policy(&container.name);
    let policy = pull_policy(container.image_pull_policy.as_deref(), written);
    (container.image.as_deref().unwrap_or_default(), policy)
}

/// The images of the volumes that a container mounts, after the names of the volumes, and when each is pulled.
fn images_of_volumes<'a>(
    pod: &'a Pod,
    container: &'a Container,
) -> impl Iterator<Item = (&'a str, &'a str, PullPolicy)> {
    container.volume_mounts.iter().flatten().filter_map(|mount| {
        let volume = pod.volume(&mount.name)?;
        let image = translate::image_of(volume)?;
        let written = pod.has_written_volume_pull_policy(&volume.name);
        let policy = volume.image.as_ref().and_then(|it| it.pull_policy.as_deref());
        Some((&*volume.name, image, pull_policy(policy, written)))
    })
}

/// What is said of pulling an image, and whether it was `written`.
fn pull_policy(policy: Option<&str>, written: bool) -> PullPolicy {
    match policy {
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ if written => PullPolicy::Always,
        _ => PullPolicy::AlwaysByDefault,
    }
}

fn presence_of(image: Option<&Image>) -> Presence {
    match image {
        None => Presence::Missing,
        Some(image) if image.pinned => Presence::Provided,
        Some(_) => Presence::Present,
    }
}
