use super::*;

struct Directory(tempfile::TempDir);

impl Directory {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(directory)
    }

    /// The network's name and plugins, or why there is none.
    fn look(&self) -> String {
        match look(self.0.path()) {
            Ok(Found { network: None, .. }) => "none".to_owned(),
            Ok(Found { network: Some((_, list)), .. }) => {
                let plugins: Vec<_> = list.plugins.iter().map(|it| it.kind.as_str()).collect();
                format!("{}: {}", list.name, plugins.join(" "))
            }
            Err(error) => {
                let text = mainstay_cri::chain(&error);
                text.replace(&self.0.path().display().to_string(), "D")
            }
        }
    }
}

const PODMAN: &str = r#"{"name":"podman","plugins":[{"type":"bridge"}]}"#;
const A: &str = r#"{"name":"a","plugins":[{"type":"x"}]}"#;
const B: &str = r#"{"name":"b","type":"y"}"#;

#[test]
fn the_first_file_says_the_network() {
    for (files, expected) in [
        (&[][..], "none"),
        (&[("README", "")], "none"),
        (&[("10-a.conflist", A), ("20-b.conf", B)], "a: x"),
        (&[("10-b.json", B), ("20-a.conflist", A)], "b: y"),
        (&[("a.conflist/x", "")], "none"),
        // What podman brings is for podman.
        (&[("87-podman-bridge.conflist", PODMAN)], "none"),
        (&[("87-podman-bridge.conflist", PODMAN), ("99-a.conflist", A)], "a: x"),
        // Another file would be another network.
        (
            &[("10-a.conflist", "{"), ("20-b.conf", B)],
            "D/10-a.conflist is no network configuration: it is no JSON: EOF while parsing an \
             object at line 1 column 1",
        ),
        (
            &[("10-a.conflist", r#"{"name":"a"}"#)],
            "D/10-a.conflist has no plugins, and there are none in D/a/*.conf",
        ),
        (
            &[
                ("10-a.conflist", r#"{"name":"a"}"#),
                ("a/2.conf", r#"{"type":"q"}"#),
                ("a/1.conf", r#"{"type":"p"}"#),
                ("a/0.json", "no"),
                ("a/0.conflist", "no"),
            ],
            "a: p q",
        ),
        (&[("10-a.conflist", A), ("a/1.conf", r#"{"type":"p"}"#)], "a: x p"),
        (
            &[
                (
                    "10-a.conflist",
                    r#"{"name":"a","loadOnlyInlinedPlugins":true,"plugins":[{"type":"x"}]}"#,
                ),
                ("a/1.conf", "no"),
            ],
            "a: x",
        ),
        (
            &[("10-a.conflist", A), ("a/1.conf", "{}")],
            "D/a/1.conf is no network configuration: a plugin has no type, which names its \
             program",
        ),
    ] {
        assert_eq!(Directory::new(files).look(), expected, "{files:?}");
    }
    assert!(look(Path::new("/no/such/directory")).unwrap().network.is_none());
}

#[test]
fn a_file_without_an_end_is_not_read_to_it() {
    let directory = Directory::new(&[("a.conflist", &" ".repeat((1 << 20) + 1))]);
    assert_eq!(directory.look(), "cannot read D/a.conflist: it is larger than 1 MiB");
    let directory = Directory::new(&[]);
    std::os::unix::fs::symlink("/dev/zero", directory.0.path().join("a.conflist")).unwrap();
    assert_eq!(directory.look(), "cannot read D/a.conflist: it is no file");
}

#[test]
fn files_that_are_passed_over_are_told() {
    let directory = Directory::new(&[("a.conflist", PODMAN)]);
    let found = look(directory.0.path()).unwrap();
    assert_eq!(found.passed_over, [(directory.0.path().join("a.conflist"), "podman")]);
}
