//! What is in a volume that shows objects and the pod itself: configMap, secret, downwardAPI, projected.
//!
//! Source: `MakePayload` in `pkg/volume/{configmap,secret}`, `CollectData` in
//! `pkg/volume/downwardapi/downwardapi.go`, `pkg/volume/projected/projected.go`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, KeyToPath,
    ProjectedVolumeSource, SecretVolumeSource, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};
use mainstay_pod::{ObjectKind, Pod};

use crate::downward::{self, Surroundings};
use crate::references::SourceError;
use crate::tokens::WantedToken;
use crate::translate::run_as_user;

/// The permission bits of a file of which nobody says any. Source: `pkg/apis/core/v1/defaults.go`,
/// `ConfigMapVolumeSourceDefaultMode` and its like.
const DEFAULT_MODE: i32 = 0o644;

/// The longest name, and the longest path of a file, in bytes. Source:
/// `pkg/volume/util/atomic_writer.go`.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// What is in it.
    pub content: Cow<'a, [u8]>,
    /// Its permission bits.
    pub mode: u32,
    /// The user whose it is; root's if nobody's.
    pub owner: Option<u32>,
}

/// The files of a volume by their paths in it, which stay in it: names with a slash between them.
pub type Files<'a> = BTreeMap<String, File<'a>>;

/// A volume whose files are made.
#[derive(Clone, Copy, Debug)]
pub enum Projection<'a> {
    /// Of one ConfigMap.
    ConfigMap(&'a ConfigMapVolumeSource),
    /// Of one Secret.
    Secret(&'a SecretVolumeSource),
    /// Of the pod itself.
    DownwardApi(&'a DownwardAPIVolumeSource),
    /// Of several of these.
    Projected(&'a ProjectedVolumeSource),
}

impl<'a> Projection<'a> {
    /// A volume, if it is one.
    pub fn of(volume: &'a Volume) -> Option<Self> {
        let config_map = volume.config_map.as_ref().map(Self::ConfigMap);
        let secret = || volume.secret.as_ref().map(Self::Secret);
        let downward = || volume.downward_api.as_ref().map(Self::DownwardApi);
        let projected = || volume.projected.as_ref().map(Self::Projected);
        config_map.or_else(secret).or_else(downward).or_else(projected)
    }

    /// What a kubelet calls the directory of such volumes.
    pub fn directory(self) -> &'static str {
        match self {
            Self::ConfigMap(_) => "kubernetes.io~configmap",
            Self::Secret(_) => "kubernetes.io~secret",
            Self::DownwardApi(_) => "kubernetes.io~downward-api",
            Self::Projected(_) => "kubernetes.io~projected",
        }
    }

    /// Whether it is kept in memory, so that a secret is on no disk. Source: `wrappedVolumeSpec` of each.
    pub fn is_in_memory(self) -> bool {
        !matches!(self, Self::ConfigMap(_))
    }

    /// What is in it.
    ///
    /// # Errors
    ///
    /// When something of it cannot be had.
    pub fn files(self, pod: &Pod, around: &Surroundings<'a>) -> Result<Files<'a>, SourceError> {
        let mut files = Collected { pod, around, default: DEFAULT_MODE, files: Files::new() };
        match self {
            Self::ConfigMap(source) => {
                files.default = source.default_mode.unwrap_or(DEFAULT_MODE);
                let items = source.items.as_deref();
                files.object(ObjectKind::ConfigMap, &source.name, items, source.optional)?;
            }
            Self::Secret(source) => {
                files.default = source.default_mode.unwrap_or(DEFAULT_MODE);
                let name = source.secret_name.as_deref().unwrap_or_default();
                let items = source.items.as_deref();
                files.object(ObjectKind::Secret, name, items, source.optional)?;
            }
            Self::DownwardApi(source) => {
                files.default = source.default_mode.unwrap_or(DEFAULT_MODE);
                files.downward(source.items.as_deref())?;
            }
            Self::Projected(source) => {
                files.default = source.default_mode.unwrap_or(DEFAULT_MODE);
                for source in source.sources.iter().flatten() {
                    files.projected(source)?;
                }
            }
        }
        Ok(files.files)
    }
}

/// Whether a pod has a volume whose files are made of what may change: objects, or its own labels and
/// annotations.
pub fn has_any(pod: &Pod) -> bool {
    pod.spec().volumes.iter().flatten().any(|volume| Projection::of(volume).is_some())
}

/// Files as they are collected.
struct Collected<'a, 'b> {
    pod: &'b Pod,
    around: &'b Surroundings<'a>,
    default: i32,
    files: Files<'a>,
}

impl<'a> Collected<'a, '_> {
    fn put(
        &mut self,
        path: &str,
        mode: Option<i32>,
        content: Cow<'a, [u8]>,
    ) -> Result<(), SourceError> {
        let path = clean(path).ok_or_else(|| SourceError::Path(path.to_owned()))?;
        let mode = mode.unwrap_or(self.default);
        // Validation keeps it between 0 and 0777.
        let mode = u32::try_from(mode).unwrap_or(0) & 0o7777;
        self.files.insert(path, File { content, mode, owner: None });
        Ok(())
    }

    /// All of an object, or of it what is named.
    fn object(
        &mut self,
        kind: ObjectKind,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), SourceError> {
        let objects = self.around.objects;
        let Some(object) = objects.get(kind, self.pod, name, optional)? else { return Ok(()) };
        let items = items.unwrap_or_default();
        if items.is_empty() {
            for (key, value) in &object.values {
                self.put(key, None, Cow::Borrowed(value.as_bytes()))?;
            }
        }
        for item in items {
            match object.values.get(&item.key) {
                Some(value) => {
                    self.put(&item.path, item.mode, Cow::Borrowed(value.as_bytes()))?;
                }
                None if optional == Some(true) => {}
                None => return Err(SourceError::NoItem { kind, key: item.key.clone() }),
            }
        }
        Ok(())
    }

    fn downward(&mut self, items: Option<&[DownwardAPIVolumeFile]>) -> Result<(), SourceError> {
        for item in items.unwrap_or_default() {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => downward::field(self.pod, &field.field_path)?,
                (None, Some(selector)) => {
                    downward::resource_for_file(self.pod, selector, self.around)?
                }
                (None, None) => String::new(),
            };
            self.put(&item.path, item.mode, Cow::Owned(text.into_bytes()))?;
        }
        Ok(())
    }

    /// A token, for those only who are to use it.
    fn token(&mut self, source: &ServiceAccountTokenProjection) -> Result<(), SourceError> {
        let token = match self.around.tokens.get(&WantedToken::of(source)) {
            Some(Ok(token)) => token,
            Some(Err(why)) => return Err(SourceError::NoToken(why.clone())),
            None => return Err(SourceError::NoToken("failed to fetch token".into())),
        };
        let owner = user(self.pod);
        let security = self.pod.spec().security_context.as_ref();
        let grouped = security.is_some_and(|security| security.fs_group.is_some());
        // The group's rights come with its volumes.
        let mode = (owner.is_some() || grouped).then_some(0o600);
        self.put(&source.path, mode, Cow::Borrowed(token.as_bytes()))?;
        if let Some(file) = clean(&source.path).and_then(|path| self.files.get_mut(&path)) {
            file.owner = owner;
        }
        Ok(())
    }

    fn projected(&mut self, source: &VolumeProjection) -> Result<(), SourceError> {
        if let Some(source) = &source.secret {
            let items = source.items.as_deref();
            self.object(ObjectKind::Secret, &source.name, items, source.optional)
        } else if let Some(source) = &source.config_map {
            let items = source.items.as_deref();
            self.object(ObjectKind::ConfigMap, &source.name, items, source.optional)
        } else if let Some(source) = &source.downward_api {
            self.downward(source.items.as_deref())
        } else if let Some(source) = &source.service_account_token {
            self.token(source)
        } else {
            // Others are refused when the pod is read.
            Ok(())
        }
    }
}

/// The user that all containers of a pod run as, if they say one and the same. Source: `FsUserFrom` in
/// `pkg/volume/util/util.go`.
fn user(pod: &Pod) -> Option<u32> {
    let mut users = pod.containers().map(|(_, container)| run_as_user(pod, container));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

/// A path without what means nothing; `None` for one that is none of a file in a volume. Names that begin
/// with two dots are the volume's own. Source: `validatePath`.
fn clean(path: &str) -> Option<String> {
    if path.starts_with('/') || path.len() > PATH_MAX || path.contains('\0') {
        return None;
    }
    let names: Vec<&str> =
        path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    let fits = |name: &&str| *name != ".." && name.len() <= NAME_MAX;
    let own = names.first().is_none_or(|name| name.starts_with(".."));
    (!own && names.iter().all(fits)).then(|| names.join("/"))
}

/// The directories that have to be in a volume for others that are mounted in it, since nothing can be made
/// in it later. Source: `getNestedMountpoints` in `pkg/volume/util/nested_volumes.go`.
pub fn nested_mount_points(pod: &Pod, volume: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (_, container) in pod.containers() {
        let mounts = container.volume_mounts.iter().flatten();
        let path = |path: &str| clean(path.trim_start_matches('/'));
        let mut all: Vec<_> = mounts
            .filter_map(|mount| Some((path(&mount.mount_path)?, mount.name == volume)))
            .collect();
        all.sort();
        for (own, _) in all.iter().filter(|(_, is_own)| *is_own) {
            let mut below: Vec<&str> = Vec::new();
            for (path, _) in &all {
                let Some(rest) =
                    path.strip_prefix(own.as_str()).and_then(|it| it.strip_prefix('/'))
                else {
                    continue;
                };
                let is_in = |outer: &&str| {
                    rest.strip_prefix(*outer).is_some_and(|rest| rest.starts_with('/'))
                };
                if !below.iter().any(is_in) {
                    below.push(rest);
                }
            }
            found.extend(below.into_iter().map(str::to_owned));
        }
    }
    found
}

#[cfg(test)]
mod tests;
