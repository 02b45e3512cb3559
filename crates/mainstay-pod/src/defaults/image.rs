//! The pull policy that follows from how an image is named.
//!
//! Source: `pkg/util/parsers` over the grammar of github.com/distribution/reference. mainstay-image has the
//! same grammar for pulling, with reasons for people; a test of the program holds the two together.

/// `Always` for the tag `latest` or none, else `IfNotPresent`; also for a name that is none.
pub(super) fn pull_policy(image: &str) -> &'static str {
    if tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag of a well-formed image name; `latest` if it has neither tag nor digest, empty if it has only a
/// digest.
fn tag(image: &str) -> Option<&str> {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].find(':') {
        Some(at) => (&rest[..slash + at], Some(&rest[slash + at + 1..])),
        None => (rest, None),
    };
    let well_formed = is_name(name)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
        && !(name.len() == 64 && tag.is_none() && digest.is_none() && is_hex(name));
    well_formed.then(|| tag.unwrap_or(if digest.is_some() { "" } else { "latest" }))
}

fn is_name(name: &str) -> bool {
    let (domain, path) = match name.split_once('/') {
        // The first part is a registry only if it looks like one; else the name is Docker Hub's.
        Some((first, path))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first != first.to_lowercase() =>
        {
            (first, path)
        }
        _ => ("docker.io", name),
    };
    // Docker Hub's images of a single name are those of `library`.
    let hub = matches!(domain, "docker.io" | "index.docker.io");
    let library = if hub && !path.contains('/') { "library/".len() } else { 0 };
    is_domain(domain) && path.split('/').all(is_component) && library + path.len() <= 255
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rfind(':') {
        Some(at) if !domain.ends_with(']') => (&domain[..at], Some(&domain[at + 1..])),
        _ => (domain, None),
    };
    let port_ok =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if let Some(address) = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        return port_ok
            && !address.is_empty()
            && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    port_ok
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Lower-case words joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_in_words =
        bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    ends_in_words
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    let length = match digest.split_once(':') {
        Some(("sha256", _)) => 64,
        Some(("sha384", _)) => 96,
        Some(("sha512", _)) => 128,
        _ => return false,
    };
    digest.split_once(':').is_some_and(|(_, hex)| {
        hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_tag_or_with_latest_is_always_pulled() {
        let always =
            ["nginx", "nginx:latest", "localhost:5000/a/b", "registry.example/a:latest", "a/b"];
        for image in always {
            assert_eq!(pull_policy(image), "Always", "{image}");
        }
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        let id = "0".repeat(64);
        let present = [
            "nginx:1.27",
            "localhost:5000/a:v1",
            "",
            "Nginx",
            "a b",
            "nginx:",
            "-a",
            "a//b",
            &digest,
            &id,
            "registry.example/A:latest",
            "a@sha256:00",
        ];
        for image in present {
            assert_eq!(pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
