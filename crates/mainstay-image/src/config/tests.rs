use std::error::Error;

use expect_test::{Expect, expect};

use super::*;

fn check(json: &str, expected: &Expect) {
    expected.assert_eq(&match ImageConfig::parse(json.as_bytes()) {
        Ok(config) => format!("{config:#?}\n"),
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            format!("{error}{source}")
        }
    });
}

#[test]
fn a_whole_configuration() {
    check(
        r#"{"architecture":"arm","os":"linux","variant":"v7","created":"2026-01-02T03:04:05Z",
               "config":{"Env":["PATH=/bin","EMPTY="],"Entrypoint":["/bin/sh"],"Cmd":["-c","true"],
               "User":"1000:1000","WorkingDir":"/srv","StopSignal":"SIGQUIT",
               "ExposedPorts":{"80/tcp":{},"53/udp":{}},"Volumes":{"/data":{}},"Labels":{"a":"b"}},
               "rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
               "history":[{"created_by":"x"}]}"#,
        &expect![[r#"
                ImageConfig {
                    platform: Platform {
                        os: "linux",
                        architecture: "arm",
                        variant: "v7",
                    },
                    created: Some(
                        "2026-01-02T03:04:05Z",
                    ),
                    env: [
                        "PATH=/bin",
                        "EMPTY=",
                    ],
                    entrypoint: [
                        "/bin/sh",
                    ],
                    cmd: [
                        "-c",
                        "true",
                    ],
                    user: "1000:1000",
                    working_dir: "/srv",
                    stop_signal: "SIGQUIT",
                    exposed_ports: [
                        "53/udp",
                        "80/tcp",
                    ],
                    volumes: [
                        "/data",
                    ],
                    labels: {
                        "a": "b",
                    },
                    diff_ids: [
                        sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855,
                    ],
                }
            "#]],
    );
}

#[test]
fn nulls_are_empty_as_go_writes_them() {
    let json = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":null,
            "ExposedPorts":null,"Labels":null,"User":null},"rootfs":{"diff_ids":null}}"#;
    let config = ImageConfig::parse(json.as_bytes()).unwrap();
    assert!(config.env.is_empty() && config.cmd.is_empty() && config.labels.is_empty());
    let bare = r#"{"config":null,"rootfs":{}}"#;
    assert!(ImageConfig::parse(bare.as_bytes()).unwrap().diff_ids.is_empty());
}

#[test]
fn what_cannot_be_run_is_refused() {
    check(
        "{",
        &expect!["not an image configuration: EOF while parsing an object at line 1 column 1"],
    );
    check("{}", &expect!["not an image configuration: missing field `rootfs` at line 1 column 2"]);
    check(
        r#"{"rootfs":{"type":"verity"}}"#,
        &expect![[r#"image configuration has rootfs type "verity": only "layers" is supported"#]],
    );
    check(
        r#"{"config":{"Env":["PATH"]},"rootfs":{}}"#,
        &expect![[
            r#"image configuration has the environment entry "PATH", which is not NAME=value"#
        ]],
    );
    check(
        r#"{"config":{"Cmd":"sh"},"rootfs":{}}"#,
        &expect![[
            r#"not an image configuration: invalid type: string "sh", expected a sequence at line 1 column 21"#
        ]],
    );
    let digest = Digest::of(b"");
    let many = vec![format!("\"{digest}\""); 128].join(",");
    check(
        &format!(r#"{{"rootfs":{{"diff_ids":[{many}]}}}}"#),
        &expect!["image has 128 layers: at most 127 are supported"],
    );
}
