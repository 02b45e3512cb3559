use futures_util::FutureExt;
use mainstay_plan::resize::Requirements;
use mainstay_pod::Amounts;

use super::*;

fn key(name: &str) -> PodKey {
    let source = mainstay_plan::pod::SourceKind::File;
    PodKey { source, namespace: "default".into(), name: name.into() }
}

fn record(manifest: &str) -> Record {
    let pod = mainstay_testkit::pods::pod(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n\
         spec: {containers: [{name: main, image: x}]}",
    );
    let path = PathBuf::from(manifest);
    Record {
        path,
        place: vec![(1, u64::MAX)],
        pod,
        started: false,
        finished: None,
        incarnation: None,
        stop: None,
        began: Some(Timestamp::UNIX_EPOCH),
        added: vec![Added {
            container: EphemeralContainer { name: "d".into(), ..Default::default() },
            started: true,
        }],
        rollback: vec!["x".to_owned()],
        resizing: Some(resizing()),
    }
}

fn resizing() -> Arc<Resizing> {
    let amounts = |cpu, memory| Amounts {
        cpu_milli: cpu,
        memory_bytes: memory,
        ephemeral_storage_bytes: None,
    };
    let pod =
        Requirements { requests: amounts(Some(100), None), limits: amounts(None, Some(1 << 40)) };
    Arc::new(Resizing {
        generation: 3,
        since: Timestamp::UNIX_EPOCH,
        error: Some("e".to_owned()),
        pod,
        containers: [("main".to_owned(), Requirements { limits: pod.requests, ..pod })].into(),
    })
}

fn manifests(directory: &Path) -> Vec<String> {
    let (_ledger, records) = Ledger::open(directory).unwrap();
    let path = |record: &Record| {
        assert_eq!(record.place, [(1, u64::MAX)]);
        assert_eq!(record.began, Some(Timestamp::UNIX_EPOCH));
        assert!(matches!(&*record.added, [it] if it.started && it.container.name == "d"));
        assert_eq!(record.rollback, ["x"]);
        assert_eq!(record.resizing, Some(resizing()));
        record.path.display().to_string()
    };
    records.values().map(path).collect()
}

#[tokio::test]
async fn what_is_flushed_is_there_and_what_is_removed_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(directory.path()).unwrap();
    ledger.put(&key("web-n1"), record("first"));
    ledger.put(&key("web-n1"), record("second"));
    ledger.flush().await.unwrap();
    assert_eq!(manifests(directory.path()), ["second"]);
    ledger.remove(&key("web-n1"));
    ledger.flush().await.unwrap();
    assert!(manifests(directory.path()).is_empty());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_writer_that_panicked_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(directory.path()).unwrap();
    assert!(ledger.ended().now_or_never().is_none());
    // Its ends of the channels are gone, as a panic leaves them.
    ledger.changes = mpsc::channel().0;
    ledger.writer = watch::channel(()).1;
    ledger.put(&key("web-n1"), record("first"));
    assert!(ledger.flush().await.is_err());
    ledger.ended().await;
}

#[test]
fn what_an_agent_that_was_killed_had_not_synced_counts_when_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(file_name(&key("web-n1")));
    stage(&path, 7, &record("first")).unwrap();
    commit(&path).unwrap();
    stage(&path, 8, &record("second")).unwrap();
    assert_eq!(manifests(directory.path()), ["second"]);
    stage(&path, 9, &record("third")).unwrap();
    let whole = fs::read(path.with_extension(STAGED)).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(path.with_extension(STAGED), &whole[..length]).unwrap();
        assert_eq!(manifests(directory.path()), ["second"], "{length} bytes");
    }
    fs::write(path.with_extension(STAGED), &whole).unwrap();
    assert_eq!(manifests(directory.path()), ["third"]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn long_names_stay_apart_and_fit() {
    let (a, b) = (key(&format!("{}a", "x".repeat(250))), key(&format!("{}b", "x".repeat(250))));
    assert_ne!(file_name(&a), file_name(&b));
    assert!(file_name(&a).len() <= 255);
    assert_eq!(file_name(&key("web-n1")), "file_default_web-n1.json");
}
