//! Defaults of volumes.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Volume, VolumeProjection};

use super::{default_text, divisor, image, is_unset, round};

/// `SetDefaults_Volume`, then what lies inside a volume.
pub(super) fn apply(volume: &mut Volume) {
    let name = std::mem::take(&mut volume.name);
    let is_bare = *volume == Volume::default();
    volume.name = name;
    if is_bare {
        volume.empty_dir = Some(k8s_openapi::api::core::v1::EmptyDirVolumeSource::default());
    }
    if let Some(image) = volume.image.as_mut().filter(|image| is_unset(image.pull_policy.as_ref()))
    {
        let reference = image.reference.as_deref().unwrap_or("");
        image.pull_policy = Some(image::pull_policy(reference).to_owned());
    }
    if let Some(path) = &mut volume.host_path {
        path.type_.get_or_insert_default();
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(0o644);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_mode.get_or_insert(0o644);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(0o644);
        for file in downward.items.iter_mut().flatten() {
            downward_file(file);
        }
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(0o644);
        for source in projected.sources.iter_mut().flatten() {
            projection(source);
        }
    }
    remote(volume);
    claim(volume);
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        default_text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut file.resource_field_ref {
        divisor(resource);
    }
}

fn projection(source: &mut VolumeProjection) {
    for file in source.downward_api.iter_mut().flat_map(|it| it.items.iter_mut().flatten()) {
        downward_file(file);
    }
    if let Some(token) = &mut source.service_account_token {
        token.expiration_seconds.get_or_insert(60 * 60);
    }
}

fn remote(volume: &mut Volume) {
    if let Some(iscsi) = &mut volume.iscsi {
        default_text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        default_text(&mut rbd.pool, "rbd");
        default_text(&mut rbd.user, "admin");
        default_text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".to_owned());
        disk.fs_type.get_or_insert_with(|| "ext4".to_owned());
        disk.read_only.get_or_insert(false);
        disk.kind.get_or_insert_with(|| "Shared".to_owned());
    }
    if let Some(scale_io) = &mut volume.scale_io {
        default_text(&mut scale_io.storage_mode, "ThinProvisioned");
        default_text(&mut scale_io.fs_type, "xfs");
    }
}

fn claim(volume: &mut Volume) {
    let template = volume.ephemeral.as_mut().and_then(|it| it.volume_claim_template.as_mut());
    let Some(template) = template else { return };
    template.spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
    if let Some(resources) = &mut template.spec.resources {
        for list in [&mut resources.limits, &mut resources.requests].into_iter().flatten() {
            round(list);
        }
    }
}
