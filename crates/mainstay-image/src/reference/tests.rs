use std::error::Error;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

const F64: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

fn check(text: &str, expected: &Expect) {
    expected.assert_eq(&match text.parse::<Reference>() {
        Ok(reference) => {
            let again: Reference = reference.to_string().parse().expect("canonical form parses");
            assert_eq!(again, reference);
            format!("{reference} ~ {}", reference.familiar()).replace(F64, "f*64")
        }
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            format!("{error}{source}").replace(F64, "f*64")
        }
    });
}

/// Names that `TestValidateReferenceName`, `TestValidateRemoteName` and `TestReferenceParse` of
/// distribution/reference accept or refuse.
#[test]
fn the_same_names_are_accepted_and_refused_as_by_distribution() {
    let accepted = [
        "docker/docker",
        "library/debian",
        "debian",
        "localhost/library/debian",
        "localhost/debian",
        "LOCALDOMAIN/library/debian",
        "LOCALDOMAIN/debian",
        "docker.io/docker/docker",
        "docker.io/debian",
        "index.docker.io/docker/docker",
        "index.docker.io/debian",
        "127.0.0.1:5000/docker/docker",
        "127.0.0.1:5000/debian",
        "192.168.0.1",
        "192.168.0.1:80",
        "192.168.0.1:8/debian",
        "thisisthesongthatneverendsitgoesonandonandonthisisthesongthatnev",
        "[fc00::1]:5000/docker",
        "[fc00:1:2:3:4:5:6:7]:5000/library/debian",
        "docker.io/1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a",
        "Docker/docker",
        "docker-rules/docker",
        "docker---rules/docker",
        "d/docker",
        "dock__er/docker",
        "test.com:5000",
        "test:5000/repo:tag",
        "lowercase:Uppercase",
        "foo_bar.com:8080",
        "foo/foo_bar.com:8080",
        "b.gcr.io/test.example.com/my-app:test.example.com",
        "xn--n3h.com/myimage:xn--n3h.com",
        "[2001:db8::1]/repo",
        "[2001:db8::]:5000/repo",
        "[::1]:5000/repo",
    ];
    for text in accepted {
        assert!(text.parse::<Reference>().is_ok(), "{text}: {:?}", text.parse::<Reference>());
    }
    let refused = [
        "",
        ":justtag",
        "https://github.com/docker/docker",
        "docker/Docker",
        "-docker",
        "-docker/docker",
        "-docker.io/docker/docker",
        "docker///docker",
        "docker.io/docker/Docker",
        "docker.io/docker///docker",
        "[fc00::1]",
        "[fc00::1]:5000",
        "fc00::1:5000/debian",
        "[fe80::1%eth0]:5000/debian",
        "[2001:db8:3:4::192.0.2.33]:5000/debian",
        "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a",
        "docker-/docker",
        "____/____",
        "_docker/_docker",
        "dock..er/docker",
        "dock_.er/docker",
        "dock-.er/docker",
        "docker/",
        "Uppercase:tag",
        "test:5000/Uppercase/lowercase:tag",
        "aa/asdf$$^/aa",
        "repo@sha256:ffffffffffffffffffffffffffffffffff",
        "@sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];
    for text in refused {
        assert!(text.parse::<Reference>().is_err(), "{text}");
    }
}

#[test]
fn what_is_left_out_is_supplied() {
    check("nginx", &expect!["docker.io/library/nginx:latest ~ nginx:latest"]);
    check("local/x:latest", &expect!["docker.io/local/x:latest ~ local/x:latest"]);
    check("docker.io/nginx:1.27", &expect!["docker.io/library/nginx:1.27 ~ nginx:1.27"]);
    check("index.docker.io/nginx", &expect!["docker.io/library/nginx:latest ~ nginx:latest"]);
    check("localhost/x", &expect!["localhost/x:latest ~ localhost/x:latest"]);
    check("localhost:5000/x:1", &expect!["localhost:5000/x:1 ~ localhost:5000/x:1"]);
    check(
        "registry.k8s.io/etcd:3.6.0-0",
        &expect!["registry.k8s.io/etcd:3.6.0-0 ~ registry.k8s.io/etcd:3.6.0-0"],
    );
    check("test.com:5000", &expect!["docker.io/library/test.com:5000 ~ test.com:5000"]);
    check(
        &format!("nginx@sha256:{F64}"),
        &expect!["docker.io/library/nginx@sha256:f*64 ~ nginx@sha256:f*64"],
    );
    check(
        &format!("nginx:1@sha256:{F64}"),
        &expect!["docker.io/library/nginx:1@sha256:f*64 ~ nginx:1@sha256:f*64"],
    );
}

#[test]
fn the_short_form_never_means_another_image() {
    check(
        "docker.io/localhost/x",
        &expect!["docker.io/localhost/x:latest ~ docker.io/localhost/x:latest"],
    );
    check("docker.io/a.b/x", &expect!["docker.io/a.b/x:latest ~ docker.io/a.b/x:latest"]);
    check(&format!("docker.io/{F64}"), &expect!["docker.io/library/f*64:latest ~ f*64:latest"]);
    check("docker.io/library/a/b", &expect!["docker.io/library/a/b:latest ~ library/a/b:latest"]);
}

#[test]
fn errors_name_the_part() {
    check("", &expect!["image reference is empty"]);
    check(
        F64,
        &expect![[
            r#"image reference "f*64" is an image id: a repository cannot be named like one"#
        ]],
    );
    check(
        "https://ghcr.io/a/b",
        &expect![[
            r#"image reference "https://ghcr.io/a/b" must not start with "https://": write the registry's name only"#
        ]],
    );
    check(
        "my_host.com:5000/x",
        &expect![[
            r#"registry "my_host.com:5000" in image reference "my_host.com:5000/x" is not a host name with an optional port"#
        ]],
    );
    check(
        "host:port/x",
        &expect![[
            r#"registry "host:port" in image reference "host:port/x" is not a host name with an optional port"#
        ]],
    );
    check(
        "ghcr.io/Owner/app",
        &expect![[
            r#"repository "Owner/app" in image reference "ghcr.io/Owner/app" must be lower-case"#
        ]],
    );
    check(
        "Nginx",
        &expect![[r#"repository "library/Nginx" in image reference "Nginx" must be lower-case"#]],
    );
    check(
        "ghcr.io/a//b",
        &expect![[
            r#"repository "a//b" in image reference "ghcr.io/a//b" is wrong at "": each part between slashes is letters and digits, joined by one of . _ __ or dashes"#
        ]],
    );
    check(
        "nginx:",
        &expect![[
            r#"tag "" in image reference "nginx:" is not 1 to 128 letters, digits, _ . or -, the first neither . nor -"#
        ]],
    );
    check(
        "nginx:a b",
        &expect![[
            r#"tag "a b" in image reference "nginx:a b" is not 1 to 128 letters, digits, _ . or -, the first neither . nor -"#
        ]],
    );
    check(
        "nginx@sha256:12",
        &expect![[
            r#"digest in image reference "nginx@sha256:12" is wrong: digest "sha256:12" should have 64 lower-case hexadecimal digits after sha256:"#
        ]],
    );
    check(
        "nginx@md5:12",
        &expect![[
            r#"digest in image reference "nginx@md5:12" is wrong: digest algorithm "md5" is not supported: sha256 and sha512 are"#
        ]],
    );
    check(
        " nginx",
        &expect![[
            r#"repository "library/ nginx" in image reference " nginx" is wrong at " nginx": each part between slashes is letters and digits, joined by one of . _ __ or dashes"#
        ]],
    );
    let long = format!("{}a", "a/".repeat(128));
    assert_eq!(long.parse::<Reference>(), Err(ReferenceError::TooLong(long.clone())));
}

proptest! {
    #[test]
    fn both_forms_parse_back(text in "([a-zA-Z0-9.:-]{1,12}/)?[a-z0-9._/-]{1,20}(:[A-Za-z0-9_.-]{1,8})?") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference.clone()));
            prop_assert_eq!(reference.familiar().parse::<Reference>(), Ok(reference));
        }
    }

    #[test]
    fn no_text_panics(text in ".*") {
        let _ = text.parse::<Reference>();
    }
}
