//! Images.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_cri::{ImageSpec, PullRequest, PullSecret};
use serde_json::json;

use super::sandboxes::check_handler;
use super::{Answer, Server, failed, needed};
use crate::wire;

impl Server {
    pub(super) async fn list_images(
        self: Arc<Self>,
        request: wire::ListImagesRequest,
    ) -> Answer<wire::ListImagesResponse> {
        let wanted = request.filter.and_then(|filter| filter.image).unwrap_or_default().image;
        let images = if wanted.is_empty() {
            self.images.list_images().await.map_err(failed)?
        } else {
            let found = self.images.image_status(&named(wanted)).await.map_err(failed)?;
            found.into_iter().collect()
        };
        Ok(wire::ListImagesResponse { images: images.iter().map(Into::into).collect() })
    }

    /// Its user's group has no place in the image: clients look for it in what servers say beside. Source:
    /// `getUserFromImage` and `toCRIImageInfo` in `internal/cri/server/images/image_status.go` of containerd.
    pub(super) async fn image_status(
        self: Arc<Self>,
        request: wire::ImageStatusRequest,
    ) -> Answer<wire::ImageStatusResponse> {
        let image = named(needed("image", request.image)?.image);
        let found = self.images.image_status(&image).await.map_err(failed)?;
        let mut info = BTreeMap::new();
        if let Some(found) = found.as_ref().filter(|_| request.verbose) {
            let said = json!({ "imageSpec": { "config": { "User": found.user } } });
            info.insert("info".to_owned(), said.to_string());
        }
        Ok(wire::ImageStatusResponse { image: found.as_ref().map(Into::into), info })
    }

    pub(super) async fn pull_image(
        self: Arc<Self>,
        request: wire::PullImageRequest,
    ) -> Answer<wire::PullImageResponse> {
        let image = needed("image", request.image)?;
        check_handler(&image.runtime_handler)?;
        let image = ImageSpec::from(image);
        let secrets = request.auth.and_then(|auth| secret(&image, auth)).into_iter().collect();
        let request = PullRequest { image, secrets, patience: None };
        let pulled = self.images.pull_image(&request).await.map_err(failed)?;
        Ok(wire::PullImageResponse { image_ref: pulled.0 })
    }

    /// With all its names, by whichever of them it is called.
    pub(super) async fn remove_image(
        self: Arc<Self>,
        request: wire::RemoveImageRequest,
    ) -> Answer<wire::RemoveImageResponse> {
        let image = named(needed("image", request.image)?.image);
        if let Some(found) = self.images.image_status(&image).await.map_err(failed)? {
            self.images.remove_image(&ImageSpec(found.id.0)).await.map_err(failed)?;
        }
        Ok(wire::RemoveImageResponse {})
    }
}

/// An image by whatever it is called. An id may come without its algorithm, and nothing else is called so.
/// Source: `ParseAnyReference` of `github.com/distribution/reference`.
fn named(image: String) -> ImageSpec {
    let is_digit = |it: u8| matches!(it, b'0'..=b'9' | b'a'..=b'f');
    match image.len() == 64 && image.bytes().all(is_digit) {
        true => ImageSpec(format!("sha256:{image}")),
        false => ImageSpec(image),
    }
}

/// Credentials for an image's registry, as `docker login` writes them. Those of another server are not for it.
/// Source: `ParseAuth` in `internal/cri/server/images/image_pull.go` of containerd.
fn secret(image: &ImageSpec, auth: wire::AuthConfig) -> Option<PullSecret> {
    let registry = registry_of(&image.0);
    let wire::AuthConfig {
        username,
        password,
        auth,
        server_address,
        identity_token,
        registry_token,
    } = auth;
    let given = [&username, &password, &auth, &identity_token, &registry_token];
    if given.iter().all(|text| text.is_empty()) {
        return None;
    }
    let server = host_of(&server_address);
    if !server.is_empty() && server != registry {
        tracing::debug!(
            server,
            registry,
            "credentials of another server are not used for an image"
        );
        return None;
    }
    let entry = json!({
        "username": username,
        "password": password,
        "auth": auth,
        "identitytoken": identity_token,
        "registrytoken": registry_token,
    });
    let config = json!({ "auths": { registry: entry } }).to_string().into_bytes();
    Some(PullSecret { name: "of the request".to_owned(), config })
}

/// The registry that an image's name leads to. Source: `splitDockerDomain` of
/// `github.com/distribution/reference`.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => usual_host(first),
        _ => usual_host("docker.io"),
    }
}

/// The host of an address with or without scheme and path.
fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    usual_host(rest.split('/').next().unwrap_or_default())
}

/// Docker's own registry has several names.
fn usual_host(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_come_without_its_algorithm() {
        let id = "0a".repeat(32);
        for (image, expected) in [
            (id.clone(), format!("sha256:{id}")),
            (format!("sha256:{id}"), format!("sha256:{id}")),
            (id.to_uppercase(), id.to_uppercase()),
            ("nginx:1".to_owned(), "nginx:1".to_owned()),
        ] {
            assert_eq!(named(image).0, expected);
        }
    }

    #[test]
    fn credentials_are_for_the_registry_of_the_image() {
        let check = |image: &str, server: &str, expected: Option<&str>| {
            let auth = wire::AuthConfig {
                username: "me".into(),
                password: "secret".into(),
                server_address: server.into(),
                ..Default::default()
            };
            let secret = secret(&ImageSpec(image.into()), auth);
            let config = secret.map(|it| serde_json::from_slice::<serde_json::Value>(&it.config));
            let config = config.map(Result::unwrap);
            let registry =
                config.as_ref().map(|it| it["auths"].as_object().unwrap().keys().next().unwrap());
            assert_eq!(registry.map(String::as_str), expected, "{image} {server}");
        };
        check("nginx:1", "", Some("docker.io"));
        check("library/nginx", "https://index.docker.io/v1/", Some("docker.io"));
        check("localhost/a", "localhost", Some("localhost"));
        check("127.0.0.1:5000/a:1", "http://127.0.0.1:5000", Some("127.0.0.1:5000"));
        check("example.org/a@sha256:0", "", Some("example.org"));
        check("example.org/a", "example.net", None);
        let nothing = wire::AuthConfig { server_address: "a".into(), ..Default::default() };
        assert_eq!(secret(&ImageSpec("a".into()), nothing), None);
    }
}
