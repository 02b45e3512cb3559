use std::fmt::Write;
use std::io;

use expect_test::{Expect, expect};

use super::*;

const NODE: &str = "n1";
const URL: &str = "http://h/pods";

/// A merge with a clock that goes on by a second with each batch.
struct Story {
    merge: Merge,
    second: i64,
}

fn manifest(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  \
         - name: c\n    image: {image}\n"
    )
}

fn reading() -> Reading {
    let (validation, credentials) = (Validation::Strict, None);
    Reading { node_name: NodeName::new(NODE).unwrap(), validation, credentials }
}

fn paths() -> ManifestPaths {
    ManifestPaths { paths: vec!["/m".into()], recursive: false, url: Some(URL.into()) }
}

fn read(file: &str, text: &str) -> Change {
    let (path, bytes) = (format!("/m/{file}").into(), text.as_bytes().to_vec());
    Change::Read { path, bytes, place: vec![(1, 2)], exposed: false }
}

fn ready() -> Change {
    Change::Ready { path: "/m".into() }
}

fn gone(file: &str) -> Change {
    Change::Gone { path: format!("/m/{file}").into() }
}

impl Story {
    fn new() -> Self {
        Self::remembering([])
    }

    fn remembering(pods: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let pods = pods.into_iter().map(|(path, text)| {
            let mut first = Self::new();
            first.then([read("x.yaml", &text), ready()]);
            let goals = first.merge.goals();
            let goal = goals.values().next().unwrap();
            Remembered { path: path.into(), place: vec![(1, 1)], pod: goal.pod.clone() }
        });
        Self { merge: Merge::new(reading(), paths(), pods.collect::<Vec<_>>()), second: 0 }
    }

    fn then(&mut self, changes: impl IntoIterator<Item = Change>) -> &mut Self {
        self.second += 1;
        let now = Timestamp::from_second(self.second).unwrap();
        self.merge.apply(changes.into_iter().collect(), now);
        self
    }

    fn uid(&self, name: &str) -> Option<String> {
        let goals = self.merge.goals();
        let goal = goals.iter().find(|(key, _)| key.name == format!("{name}-{NODE}"))?.1;
        Some(goal.pod.uid().to_owned())
    }

    /// Goals and notes, as text.
    #[track_caller]
    fn check(&mut self, expected: &Expect) -> &mut Self {
        let mut text = String::new();
        for (key, goal) in self.merge.goals() {
            let image = goal.pod.spec().containers[0].image.as_deref().unwrap();
            write!(text, "{} runs {image} from {}", key.name, goal.path.display()).unwrap();
            if let Some(since) = goal.incarnation {
                write!(text, ", anew since {}", since.as_second()).unwrap();
            }
            if let Some(errors) = goal.invalid {
                write!(text, ", kept: {}", errors[0]).unwrap();
            }
            text.push('\n');
        }
        for (name, object) in self.merge.objects() {
            let value = String::from_utf8_lossy(object.0.values["k"].as_bytes()).into_owned();
            writeln!(text, "{name} is {value}").unwrap();
        }
        for (path, notes) in self.merge.notes().files {
            for note in notes {
                let what = match note {
                    Note::Diagnostic(diagnostic) => diagnostic.to_string(),
                    Note::Unreadable(error) => format!("{}: {error}", path.display()),
                    Note::Shadowed { pod, by } => {
                        format!("{}: {} is taken from {}", path.display(), pod.name, by.display())
                    }
                };
                writeln!(text, "- {what}").unwrap();
            }
        }
        expected.assert_eq(&text);
        self
    }
}

#[test]
fn a_manifest_that_breaks_keeps_what_it_had() {
    let mut story = Story::new();
    story.then([ready()]).then([read("a.yaml", &manifest("web", "i:1"))]);
    let uid = story.uid("web");
    story
        .then([read("a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: web\n")])
        .check(&expect![[r#"
            web-n1 runs i:1 from /m/a.yaml, anew since 2, kept: /m/a.yaml:3:11: unclosed bracket '{'
            - /m/a.yaml:3:11: unclosed bracket '{'
        "#]])
        .then([read("a.yaml", &manifest("web", "i:2").replace("image", "imaeg"))]);
    assert_eq!(story.uid("web"), uid);
    story.then([read("a.yaml", &manifest("web", "i:1"))]).check(&expect![[r#"
            web-n1 runs i:1 from /m/a.yaml, anew since 2
        "#]]);
    story
        .then([Change::Unreadable {
            path: "/m/a.yaml".into(),
            error: io::Error::from(io::ErrorKind::PermissionDenied),
        }])
        .check(&expect![[r#"
            web-n1 runs i:1 from /m/a.yaml, anew since 2
            - /m/a.yaml: permission denied
        "#]]);
    story.then([gone("a.yaml")]).check(&expect![""]);
}

#[test]
fn a_refused_document_keeps_its_own_pod_and_no_other() {
    let both = format!("{}---\n{}", manifest("a", "i:1"), manifest("b", "i:1"));
    let mut story = Story::new();
    story.then([read("x.yaml", &both), ready()]);
    // The first goes, the second is not valid any more.
    let second = manifest("b", "i:1").replace("name: c", "name: C");
    story.then([read("x.yaml", &second)]).check(&expect![[r#"
        b-n1 runs i:1 from /m/x.yaml, kept: /m/x.yaml:7:11: spec.containers[0].name: Invalid value: "C": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        - /m/x.yaml:7:11: spec.containers[0].name: Invalid value: "C": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
    "#]]);
}

#[test]
fn of_two_manifests_for_one_pod_the_one_that_runs_wins() {
    let mut story = Story::new();
    story
        .then([ready()])
        .then([read("b.yaml", &manifest("web", "i:1"))])
        .then([read("a.yaml", &manifest("web", "i:2"))])
        .check(&expect![[r#"
            web-n1 runs i:1 from /m/b.yaml, anew since 2
            - /m/a.yaml: web-n1 is taken from /m/b.yaml
        "#]])
        .then([gone("b.yaml")])
        .check(&expect![[r#"
            web-n1 runs i:2 from /m/a.yaml, anew since 3
        "#]]);
    // At a first start nothing runs, and the lower path counts.
    Story::new()
        .then([
            read("b.yaml", &manifest("web", "i:1")),
            read("a.yaml", &manifest("web", "i:2")),
            ready(),
        ])
        .check(&expect![[r#"
            web-n1 runs i:2 from /m/a.yaml
            - /m/b.yaml: web-n1 is taken from /m/a.yaml
        "#]]);
    // At a later one the ledger knows.
    Story::remembering([("/m/b.yaml", manifest("web", "i:1"))])
        .then([
            read("a.yaml", &manifest("web", "i:2")),
            read("b.yaml", &manifest("web", "i:1")),
            ready(),
        ])
        .check(&expect![[r#"
            web-n1 runs i:1 from /m/b.yaml
            - /m/a.yaml: web-n1 is taken from /m/b.yaml
        "#]]);
}

#[test]
fn a_file_that_is_renamed_keeps_its_pod_as_it_is() {
    let mut story = Story::new();
    let text = manifest("web", "i:1");
    story
        .then([ready()])
        .then([read("a.yaml", &text)])
        .then([gone("a.yaml"), read("b.yaml", &text)]);
    story.check(&expect![[r#"
        web-n1 runs i:1 from /m/b.yaml
    "#]]);
    // Put back after it was taken away, it starts anew.
    story.then([gone("b.yaml")]).then([read("b.yaml", &text)]).check(&expect![[r#"
        web-n1 runs i:1 from /m/b.yaml, anew since 5
    "#]]);
}

#[test]
fn the_ledger_counts_until_its_file_is_seen_to_be_gone() {
    let web = || Story::remembering([("/m/a.yaml", manifest("web", "i:1"))]);
    // Broken before the agent came: the version of the ledger is kept.
    web().then([read("a.yaml", "{"), ready()]).check(&expect![[r#"
        web-n1 runs i:1 from /m/a.yaml, kept: /m/a.yaml:1:2: expected a key in double quotes, found the end of the file
        - /m/a.yaml:1:2: expected a key in double quotes, found the end of the file
    "#]]);
    // Taken away before the agent came.
    web().then([gone("a.yaml"), ready()]).check(&expect![""]);
    // Its directory is away.
    let away = || Change::Directory { path: "/m".into(), error: Some("away".into()) };
    web().then([away(), ready()]).check(&expect![[r#"
        web-n1 runs i:1 from /m/a.yaml
    "#]]);
    // Its directory is not watched any more.
    Story::remembering([("/old/a.yaml", manifest("web", "i:1"))]).check(&expect![""]);
}

#[test]
fn a_goal_knows_where_its_manifest_was_seen_last() {
    let place = |story: &Story| story.merge.goals().values().next().unwrap().place.clone();
    let text = manifest("web", "i:1");
    let mut story = Story::remembering([("/m/a.yaml", text.clone())]);
    assert_eq!(place(&story), [(1, 1)]);
    // Elsewhere, with the same bytes.
    for somewhere in [vec![(1, 2)], vec![(3, 4), (5, 6)]] {
        let bytes = text.as_bytes().to_vec();
        story.then([Change::Read {
            path: "/m/a.yaml".into(),
            bytes,
            place: somewhere.clone(),
            exposed: false,
        }]);
        assert_eq!(place(&story), somewhere);
    }
}

#[test]
fn a_path_that_hangs_holds_up_no_other_and_keeps_its_pods() {
    let other = |file: &str| Change::Read {
        path: format!("/other/{file}").into(),
        bytes: manifest("b", "i:2").into_bytes(),
        place: vec![(3, 4)],
        exposed: false,
    };
    let story = || {
        let mut story = Story::remembering([("/m/a.yaml", manifest("a", "i:1"))]);
        story.merge.manifests.paths.push("/other".into());
        story.merge.awaited.insert("/other".into());
        story
    };
    let mut hanging = story();
    hanging.then([other("b.yaml"), Change::Ready { path: "/other".into() }]);
    assert!(!hanging.merge.is_ready());
    hanging.merge.go_without();
    assert!(hanging.merge.is_ready());
    let unreadable = hanging.merge.notes().unreadable;
    assert_eq!(unreadable.keys().collect::<Vec<_>>(), [Path::new("/m")]);
    hanging.check(&expect![[r#"
        a-n1 runs i:1 from /m/a.yaml
        b-n1 runs i:2 from /other/b.yaml
    "#]]);
    // When it answers, what it has may be running already.
    hanging.then([read("a.yaml", &manifest("a", "i:3")), ready()]).check(&expect![[r#"
        a-n1 runs i:3 from /m/a.yaml
        b-n1 runs i:2 from /other/b.yaml
    "#]]);
    assert_eq!(hanging.merge.notes().unreadable, BTreeMap::new());
    // Which path is looked at first does not count.
    story()
        .then([other("b.yaml"), Change::Ready { path: "/other".into() }])
        .then([read("c.yaml", &manifest("b", "i:1")), gone("a.yaml"), ready()])
        .check(&expect![[r#"
            b-n1 runs i:1 from /m/c.yaml
            - /other/b.yaml: b-n1 is taken from /m/c.yaml
        "#]]);
}

#[test]
fn what_pods_refer_to_is_kept_as_they_are() {
    let map = |name: &str, value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: {value}}}\n---\n"
        )
    };
    let mut story = Story::new();
    story
        .then([ready(), read("b.yaml", &format!("{}{}", map("one", "b1"), map("two", "b2")))])
        // Another file with the same one: what was there first counts.
        .then([read("a.yaml", &map("one", "a1"))])
        .check(&expect![[r#"
            ConfigMap default/one is b1
            ConfigMap default/two is b2
            - /m/a.yaml: ConfigMap default/one is taken from /m/b.yaml; remove one of the two
        "#]])
        // One document breaks, and then the whole file.
        .then([read("b.yaml", &format!("{}{}", map("one", "[]"), map("two", "b3")))])
        .then([read("b.yaml", &format!("{}{}", map("one", "b4"), "}"))])
        .check(&expect![[r#"
            ConfigMap default/one is b4
            ConfigMap default/two is b3
            - /m/a.yaml: ConfigMap default/one is taken from /m/b.yaml; remove one of the two
            - /m/b.yaml:6:1: misplaced bracket
        "#]])
        // Of what it breaks in not even the name is known.
        .then([read("b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {")])
        .check(&expect![[r#"
            ConfigMap default/one is b4
            ConfigMap default/two is b3
            - /m/a.yaml: ConfigMap default/one is taken from /m/b.yaml; remove one of the two
            - /m/b.yaml:3:11: unclosed bracket '{'
        "#]])
        .then([gone("b.yaml")])
        .check(&expect![[r#"
            ConfigMap default/one is a1
        "#]]);
    // A credential that cannot be had is as a document that is wrong.
    let kept = |value: &str| {
        let credentials = "annotations: {mainstay.dev/credentials: x=missing}";
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: c, {credentials}}}\nstringData: {{k: {value}}}\n"
        )
    };
    let plain = kept("c1").replace("x=missing", "");
    story
        .then([read("c.yaml", &plain), read("c.yaml", &kept("c2"))])
        .check(&expect![[r#"
            ConfigMap default/one is a1
            Secret default/c is c1
            - /m/c.yaml: Secret default/c: its key "x" is the credential "missing", and the service has none ($CREDENTIALS_DIRECTORY is not set) (give the service of mainstay LoadCredentialEncrypted= for it, and start that again)
        "#]])
        .then([gone("c.yaml")]);
    // What was read again and is the same is in memory once.
    let name = |name: &str| {
        let (kind, namespace) = (mainstay_pod::ObjectKind::ConfigMap, "default".to_owned());
        ObjectName { kind, namespace, name: name.to_owned() }
    };
    let one = |story: &Story| story.merge.objects()[&name("one")].0.clone();
    let before = one(&story);
    story.then([read("a.yaml", &format!("{}{}", map("one", "a1"), map("new", "x")))]);
    assert!(Arc::ptr_eq(&before, &story.merge.files[Path::new("/m/a.yaml")].objects[&name("one")]));
    story.then([read("a.yaml", &map("one", "a1"))]);
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: v}\n";
    for (exposed, warned) in [(true, 1), (false, 0), (true, 1)] {
        let (path, bytes) = ("/m/s.yaml".into(), secret.as_bytes().to_vec());
        story.then([Change::Read { path, bytes, place: vec![], exposed }]);
        let notes = story.merge.notes().files;
        assert_eq!(notes.get(Path::new("/m/s.yaml")).map_or(0, Vec::len), warned);
    }
    story.check(&expect![[r#"
        ConfigMap default/one is a1
        Secret default/s is v
        - /m/s.yaml: Secret default/s can be read by everybody on this machine (chmod 600 /m/s.yaml)
    "#]]);
}

/// Until all has been read once, nothing is known to be missing; from then on everything is known.
#[test]
fn what_has_not_been_read_may_have_what_pods_refer_to() {
    const BROKEN: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {";
    let map = |more: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{k: v{more}}}\n")
    };
    let directory = |error: Option<&str>| {
        let error = error.map(str::to_owned);
        Change::Directory { path: "/m".into(), error }
    };
    let unreadable = || {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        Change::Unreadable { path: "/m/a.yaml".into(), error }
    };
    let no_pods = || served("apiVersion: v1\nkind: PodList\nitems: []\n");
    // What comes, what could not be read then, and what mends it.
    let rows = [
        (vec![read("a.yaml", BROKEN)], "/m/a.yaml", vec![read("a.yaml", &map(""))]),
        (vec![read("a.yaml", &map(", a b: c"))], "/m/a.yaml", vec![read("a.yaml", &map(""))]),
        (vec![read("a.yaml", BROKEN)], "/m/a.yaml", vec![gone("a.yaml")]),
        (vec![unreadable()], "/m/a.yaml", vec![read("a.yaml", &map(""))]),
        (vec![directory(Some("away"))], "/m", vec![directory(None), read("a.yaml", &map(""))]),
    ];
    for (changes, place, mended) in rows {
        let what = format!("{changes:?}");
        let mut story = Story::new();
        assert!(story.merge.unread().unwrap().contains("/m could not: "), "{what}");
        story.then([no_pods(), ready()].into_iter().chain(changes));
        let why = story.merge.unread().unwrap();
        assert!(why.contains(&format!("{place} could not: ")), "{what}: {why}");
        story.then(mended);
        assert_eq!(story.merge.unread(), None, "{what}");
        // What breaks now keeps what it had.
        story.then([read("a.yaml", BROKEN), read("b.yaml", BROKEN), directory(Some("away"))]);
        assert_eq!(story.merge.unread(), None, "{what}");
    }
    // Of pods that are refused it is known that they are no objects.
    let mut story = Story::new();
    story.then([read("a.yaml", &manifest("a", "i").replace("image", "imaeg")), ready()]);
    assert!(story.merge.unread().unwrap().contains(URL));
    story.then([no_pods()]);
    assert_eq!(story.merge.unread(), None);
    // What the ledger has of a directory in whose place another one is may have lain beside more.
    let mut story = Story::remembering([("/m/a.yaml", manifest("a", "i"))]);
    story.then([no_pods(), ready()]);
    assert!(story.merge.unread().unwrap().contains("/m/a.yaml"));
    story.then([read("a.yaml", &manifest("a", "i"))]);
    assert_eq!(story.merge.unread(), None);
    // Also when it is not waited for any longer.
    let mut story = Story::new();
    story.then([no_pods(), read("a.yaml", &map(""))]).merge.go_without();
    assert!(story.merge.unread().unwrap().contains("it does not answer"));
    story.then([ready()]);
    assert_eq!(story.merge.unread(), None);
}

/// What a server has.
fn served(text: &str) -> Change {
    let bytes = text.as_bytes().to_vec();
    Change::Read { path: URL.into(), bytes, place: Place::default(), exposed: false }
}

fn running(story: &Story) -> Vec<String> {
    let told = |(key, goal): (&PodKey, &GoalPod)| {
        let image = goal.pod.spec().containers[0].image.clone().unwrap_or_default();
        format!("{} {} {image}", key.source.as_str(), key.name)
    };
    story.merge.goals().iter().map(told).collect()
}

#[test]
fn what_a_server_has_runs_until_it_says_that_it_has_it_not() {
    let mut story = Story::new();
    story.then([ready(), served(&manifest("web", "v1"))]);
    let goals = story.merge.goals();
    let goal = goals.values().next().unwrap();
    assert_eq!(
        goal.pod.metadata().annotations.as_ref().unwrap()["kubernetes.io/config.source"],
        "http"
    );
    // It may have been running before this agent.
    assert_eq!(goal.incarnation, None);
    let v1 = ["http web-n1 v1"];
    for ill in ["<html>", "null", "---\n", "[]", "kind: Pod", "kind: ConfigMapList\nitems: []"] {
        story.then([served(ill)]);
        assert_eq!(running(&story), v1, "{ill}");
        assert!(story.merge.notes().files.contains_key(Path::new(URL)), "{ill}");
    }
    story.then([Change::Directory { path: URL.into(), error: Some("away".into()) }]);
    assert_eq!(running(&story), v1);
    story.then([served(&manifest("web", "v2"))]);
    assert_eq!(running(&story), ["http web-n1 v2"]);
    story.then([served("apiVersion: v1\nkind: PodList\nitems: []\n")]);
    assert_eq!(running(&story), [""; 0]);
}

#[test]
fn what_a_server_had_runs_on_over_a_restart_without_being_waited_for() {
    let mut first = Story::new();
    first.then([ready(), served(&manifest("web", "v1"))]);
    let pod = first.merge.goals().values().next().unwrap().pod.clone();
    // Also when it is called otherwise now.
    for url in [URL, "https://earlier/pods"] {
        let remembered = Remembered { path: url.into(), place: Place::default(), pod: pod.clone() };
        let mut story = Story { merge: Merge::new(reading(), paths(), [remembered]), second: 0 };
        story.then([ready()]);
        assert!(story.merge.is_ready());
        assert_eq!(running(&story), ["http web-n1 v1"]);
        story.then([served(&manifest("web", "v1"))]);
        assert_eq!(running(&story), ["http web-n1 v1"]);
        story.then([served("apiVersion: v1\nkind: PodList\nitems: []\n")]);
        assert_eq!(running(&story), [""; 0], "{url}");
    }
}

#[test]
fn a_name_is_one_pods_wherever_its_manifest_is() {
    let mut story = Story::new();
    let web = |image| manifest("web", image);
    story.then([ready(), served(&web("server")), read("a.yaml", &web("file"))]);
    assert_eq!(running(&story), ["file web-n1 file"]);
    assert!(story.merge.notes().files.contains_key(Path::new(URL)));
    story.then([gone("a.yaml")]);
    assert_eq!(running(&story), ["http web-n1 server"]);
    // What runs stays.
    story.then([read("a.yaml", &web("file"))]);
    assert_eq!(running(&story), ["http web-n1 server"]);
    assert!(story.merge.notes().files.contains_key(Path::new("/m/a.yaml")));
}
