use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const V1: &str = "credentialprovider.kubelet.k8s.io/v1";

fn provider(program: PathBuf) -> CredentialProvider {
    CredentialProvider {
        name: "p".into(),
        program,
        match_images: vec!["*.example/team".into()],
        default_cache_duration: Duration::ZERO,
        api_version: V1.into(),
        args: vec!["argument".into()],
        env: vec![("OWN".into(), "own".into())],
        duration: |text| text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

#[test]
fn answers_are_understood_or_refused_without_repeating_them() {
    let check = |answer: &str, wanted: Result<(Scope, u64), &str>| {
        let provider = provider(PathBuf::new());
        let said = provider.understand(answer.as_bytes(), "a.example/x:1", "a.example");
        let said = said.map(|it| (it.scope, it.keep.as_secs()));
        assert_eq!(said, wanted.map_err(str::to_owned), "{answer}");
    };
    let answer = |more: &str| {
        format!(r#"{{"kind":"CredentialProviderResponse","apiVersion":"{V1}",{more}}}"#)
    };
    check(&answer(r#""cacheKeyType":"Image""#), Ok((Scope::Image("a.example/x:1".into()), 0)));
    check(
        &answer(r#""cacheKeyType":"Registry","cacheDuration":"5s","auth":null"#),
        Ok((Scope::Registry("a.example".into()), 5)),
    );
    check(&answer(r#""cacheKeyType":"Global","auth":{"x":{}}"#), Ok((Scope::Global, 0)));
    check(
        &answer(r#""cacheKeyType":"Other""#),
        Err("credential provider plugin did not return a valid cacheKeyType: Other"),
    );
    check(
        &answer(r#""cacheKeyType":"Global","cacheDuration":"5""#),
        Err("\"5\" is no cacheDuration"),
    );
    check(
        r#"{"kind":"Other","apiVersion":"x","cacheKeyType":"Image"}"#,
        Err("it did not answer with a CredentialProviderResponse"),
    );
    check(
        r#"{"kind":"CredentialProviderResponse","apiVersion":"x","cacheKeyType":"Image"}"#,
        Err("apiVersion from credential plugin response did not match expected \
             apiVersion:credentialprovider.kubelet.k8s.io/v1, actual apiVersion:x"),
    );
    check(
        &answer(r#""cacheKeyType":"Image","auth":{"x":"hidden"}"#),
        Err("error decoding credential provider plugin response from stdout"),
    );
}

/// A program of one's own writes down what it is asked, and is asked again only when it has to be.
#[tokio::test]
async fn programs_are_asked_for_their_images_and_remembered_as_they_say() {
    let directory = tempfile::tempdir().unwrap();
    let (program, log) = (directory.path().join("p"), directory.path().join("log"));
    let write = |more: &str| {
        let script = format!(
            "#!/bin/sh\necho \"$1 $OWN $(cat)\" >> {}\ncat <<END\n{{\"kind\":\
             \"CredentialProviderResponse\",\"apiVersion\":\"{V1}\",\
             \"auth\":{{\"a.example\":{{\"username\":\"u\",\"password\":\"p\"}}}},{more}}}\nEND\n",
            log.display()
        );
        // Another file each time, so that none is written while it runs.
        let new = directory.path().join("new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, &program).unwrap();
    };
    let providers = CredentialProviders::new(vec![provider(program.clone())]);
    let ask = async |image: &str| {
        let (keyring, failed) = providers.ask(&image.parse().unwrap()).await;
        (format!("{keyring:?}").contains("Password"), failed)
    };
    let asked = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    assert_eq!(ask("b.other/team/x:1").await, (false, vec![]));
    assert_eq!(asked(), 0);
    write(r#""cacheKeyType":"Image""#);
    for n in 1..3 {
        assert_eq!(ask("a.example/team/x:1").await, (true, vec![]));
        assert_eq!(asked(), n, "nothing is kept");
    }
    let line = fs::read_to_string(&log).unwrap();
    let request = format!(
        "argument own {{\"kind\":\"CredentialProviderRequest\",\"apiVersion\":\"{V1}\",\
         \"image\":\"a.example/team/x\"}}"
    );
    assert_eq!(line.lines().next(), Some(request.as_str()));
    write(r#""cacheKeyType":"Registry","cacheDuration":"1000s""#);
    for image in ["a.example/team/x:1", "a.example/team/x:1", "a.example/team/y:1"] {
        assert_eq!(ask(image).await, (true, vec![]));
        assert_eq!(asked(), 3, "{image}");
    }
    assert_eq!(ask("b.example/team/x:1").await, (true, vec![]));
    assert_eq!(asked(), 4);
    fs::write(directory.path().join("new"), "#!/bin/sh\necho hidden\necho why >&2\nexit 3\n")
        .unwrap();
    let failing = directory.path().join("new");
    fs::set_permissions(&failing, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(failing, &program).unwrap();
    let (none, failed) = ask("c.example/team/x:1").await;
    assert_eq!((none, failed), (false, vec![("p".into(), "it failed: why".into())]));
}
