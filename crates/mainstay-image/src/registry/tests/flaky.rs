//! Registries that fail now and then.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::fake::{Answer, Fake, content, honest};
use super::*;

/// A registry that answers requests whose path has `part` with `answers`, one after the other, and
/// everything else, and then everything, honestly.
fn flaky(part: &str, answers: Vec<Answer>) -> Fake {
    let (content, part) = (content("app", "1", &image()), part.to_owned());
    let asked_before = AtomicUsize::new(0);
    Fake::start(move |asked| {
        if asked.path.contains(&part) {
            let n = asked_before.fetch_add(1, Ordering::Relaxed);
            if let Some(answer) = answers.get(n) {
                return answer.clone();
            }
        }
        honest(&content, asked)
    })
}

fn name(registry: &Fake) -> String {
    format!("{}/app:1", registry.host())
}

/// The first `n` bytes of the big layer, after which the connection breaks.
fn cut_at(n: usize) -> Answer {
    Answer { cut: Some(n), ..Answer::new(200, big_layer()) }
}

#[tokio::test]
async fn what_fails_for_the_moment_is_tried_again() {
    if not_root() {
        return;
    }
    for part in ["/manifests/", "/blobs/"] {
        let busy = Answer::new(503, "").header("retry-after", "0");
        let registry = flaky(
            part,
            vec![busy, Answer::new(429, ""), Answer { cut: Some(0), ..Answer::new(200, "x") }],
        );
        let fixture = Fixture::new();
        fixture.pull(&name(&registry)).await.unwrap();
        assert_eq!(fixture.retries(), 3, "{part}");
    }
}

#[tokio::test]
async fn what_fails_for_good_is_not() {
    if not_root() {
        return;
    }
    let fixture = Fixture::new();
    let registry = flaky("/manifests/", vec![Answer::new(503, ""); 100]);
    let text = fixture.failure(&name(&registry)).await;
    expect_test::expect!["RegistryUnavailable: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: it answered 503 Service Unavailable"].assert_eq(&text.replace(&registry.host(), "REGISTRY"));
    assert_eq!(registry.log().len(), 5);
    let fixture = Fixture::new();
    let registry = flaky("/manifests/", vec![Answer::new(404, ""); 100]);
    let text = fixture.failure(&name(&registry)).await;
    expect_test::expect!["NotFound: cannot pull REGISTRY/app:1: asking https://REGISTRY failed: it answered 404 Not Found"].assert_eq(&text.replace(&registry.host(), "REGISTRY"));
    assert_eq!((registry.log().len(), fixture.retries()), (1, 0));
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    if not_root() {
        return;
    }
    let registry =
        flaky(&big_blob(), vec![cut_at(100_000), Answer { cut: Some(0), ..Answer::new(200, "x") }]);
    let fixture = Fixture::new();
    fixture.pull(&name(&registry)).await.unwrap();
    let ranges: Vec<String> =
        registry.log().into_iter().filter(|line| line.contains(&big_blob())).collect();
    assert_eq!(ranges.len(), 3);
    // The second attempt asked for the rest, and was answered with something else.
    assert!(ranges[1].ends_with("bytes=100000-"), "{ranges:?}");
}

#[tokio::test]
async fn a_download_goes_on_after_a_restart() {
    if not_root() {
        return;
    }
    let mut answers = vec![cut_at(100_000)];
    answers.extend(vec![Answer::new(503, ""); 5]);
    let registry = flaky(&big_blob(), answers);
    let fixture = Fixture::new();
    let text = fixture.failure(&name(&registry)).await;
    assert!(text.starts_with("RegistryUnavailable: "), "{text}");
    // What comes next has no memory of it but the file.
    let store = Store::open(fixture.store.dir()).unwrap();
    let before = registry.log().len();
    Puller::new(store, fixture.config.clone())
        .pull(&fixture.request(&name(&registry)))
        .await
        .unwrap();
    let asked = registry.log().split_off(before);
    assert!(asked.iter().any(|line| line.ends_with("bytes=100000-")), "{asked:?}");
    assert!(fixture.store.verify().unwrap().is_empty());
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_for_the_whole() {
    if not_root() {
        return;
    }
    let registry = flaky(&big_blob(), vec![cut_at(100_000), Answer::new(200, big_layer())]);
    let fixture = Fixture::new();
    fixture.pull(&name(&registry)).await.unwrap();
    assert_eq!(registry.count(&big_blob()), 2);
}

#[tokio::test]
async fn what_was_begun_wrong_is_begun_anew() {
    if not_root() {
        return;
    }
    // Another content under the same length: what a power cut or a bad mirror leaves.
    let registry = registry();
    let fixture = Fixture::new();
    let diff_id = crate::digest::Digest::of(&image().layers[1]);
    let job = fixture.store.layer_job(&diff_id).unwrap();
    let partial = job.partial(&crate::digest::Digest::of(&big_layer()));
    std::fs::write(&partial, vec![0; 1000]).unwrap();
    drop(job);
    fixture.pull(&name(&registry)).await.unwrap();
    assert_eq!(registry.count(&big_blob()), 2);
    assert!(registry.log().iter().any(|line| line.ends_with("bytes=1000-")));

    // Longer than the whole can be.
    let fixture = Fixture::new();
    let job = fixture.store.layer_job(&diff_id).unwrap();
    let partial = job.partial(&crate::digest::Digest::of(&big_layer()));
    std::fs::write(&partial, vec![0; 1 << 20]).unwrap();
    drop(job);
    fixture.pull(&name(&registry)).await.unwrap();
}

#[tokio::test]
async fn a_mirror_that_sends_nonsense_is_passed_over() {
    if not_root() {
        return;
    }
    let registry = registry();
    let mirror = flaky(&big_blob(), vec![Answer::new(200, vec![7; big_layer().len()]); 100]);
    let mut fixture = Fixture::new();
    mirrors(&mut fixture, &registry.host(), &[format!("http://{}", mirror.host())]);
    fixture.pull(&name(&registry)).await.unwrap();
    assert_eq!((mirror.count(&big_blob()), registry.count(&big_blob())), (1, 1));
}

#[tokio::test]
async fn a_mirror_that_breaks_off_is_gone_on_with_elsewhere() {
    if not_root() {
        return;
    }
    let registry = registry();
    let answers = vec![cut_at(100_000), Answer::new(500, "")];
    let mirror = flaky(&big_blob(), answers);
    let mut fixture = Fixture::new();
    mirrors(&mut fixture, &registry.host(), &[format!("http://{}", mirror.host())]);
    fixture.pull(&name(&registry)).await.unwrap();
    assert_eq!(mirror.count(&big_blob()), 2);
    let asked = registry.log();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].ends_with("bytes=100000-"), "{asked:?}");
}

#[tokio::test]
async fn a_mirror_that_breaks_off_after_nonsense_is_forgotten() {
    if not_root() {
        return;
    }
    let registry = registry();
    let nonsense = Answer::new(200, vec![7; big_layer().len()]);
    let answers = vec![Answer { cut: Some(100_000), ..nonsense }, Answer::new(500, "")];
    let mirror = flaky(&big_blob(), answers);
    let mut fixture = Fixture::new();
    mirrors(&mut fixture, &registry.host(), &[format!("http://{}", mirror.host())]);
    fixture.pull(&name(&registry)).await.unwrap();
    // The rest, and then the whole.
    assert_eq!((mirror.count(&big_blob()), registry.count(&big_blob())), (2, 2));
}

#[tokio::test]
async fn a_stalled_download_is_given_up_and_gone_on_with() {
    if not_root() {
        return;
    }
    let stalled = Answer { hang: Some(100_000), ..Answer::new(200, big_layer()) };
    let registry = flaky(&big_blob(), vec![stalled]);
    let mut fixture = Fixture::new();
    // So that nothing else has stalled, on a machine that is busy with other things.
    fixture.config.timeouts.stalled = Duration::from_secs(3);
    fixture.pull(&name(&registry)).await.unwrap();
    assert!(registry.log().iter().any(|line| line.ends_with("bytes=100000-")));
}

#[tokio::test]
async fn whoever_cannot_wait_is_told_in_time() {
    if not_root() {
        return;
    }
    let mut fixture = Fixture::new();
    fixture.config.timeouts.stalled = Duration::from_secs(3);
    let within = |reference: &str, limit: u64| PullRequest {
        answer_within: Some(Duration::from_millis(limit)),
        ..fixture.request(reference)
    };
    let show = |error: PullError, host: &str| {
        format!("{:?}: {}", error.kind(), chain(&error)).replace(host, "REGISTRY")
    };
    // Takes the connection, and nothing more.
    let silent = Fake::start(|_| Answer { hang: Some(0), ..Answer::new(200, "x") });
    let error = fixture.puller().pull(&within(&name(&silent), 300)).await.unwrap_err();
    expect_test::expect!["RegistryUnavailable: cannot pull REGISTRY/app:1: https://REGISTRY did not answer within 300 ms"].assert_eq(&show(error, &silent.host()));
    // Nobody there: the reason is told, and not only that time ran out.
    let gone = silent.host();
    drop(silent);
    let error = fixture.puller().pull(&within(&format!("{gone}/app:1"), 3_000)).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::RegistryUnavailable);
    let text = show(error, &gone);
    assert!(text.ends_with("Connection refused (os error 111)"), "{text}");
    // A registry that answers in time has all the time for the rest: this one stalls for longer.
    let stalled = Answer { hang: Some(1000), ..Answer::new(200, big_layer()) };
    let slow = flaky(&big_blob(), vec![stalled, Answer::new(503, "")]);
    fixture.puller().pull(&within(&name(&slow), 2_000)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_is_dropped_leaves_nothing_half_visible() {
    if not_root() {
        return;
    }
    let stalled = Answer { hang: Some(100_000), ..Answer::new(200, big_layer()) };
    let registry = flaky(&big_blob(), vec![stalled]);
    let fixture = Fixture::new();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let request = PullRequest {
        progress: Arc::new(move |event| drop(sender.send(event))),
        ..fixture.request(&name(&registry))
    };
    let puller = fixture.puller();
    let mut pull = Box::pin(puller.pull(&request));
    // Until the other layer is there: by then the big one has been asked for.
    loop {
        tokio::select! {
            result = &mut pull => panic!("{result:?}"),
            event = receiver.recv() => {
                if matches!(event, Some(Event::Layer { phase: Phase::Done, .. })) {
                    break;
                }
            }
        }
    }
    drop(pull);
    assert!(fixture.store.list().unwrap().0.is_empty());
    let store = Store::open(fixture.store.dir()).unwrap();
    assert_eq!(std::fs::read_dir(store.dir().join("jobs")).unwrap().count(), 0);
    let pulled = fixture.pull(&name(&registry)).await.unwrap();
    assert_eq!(pulled.id, image().id());
    assert!(store.verify().unwrap().is_empty());
}
