//! Files that are not what they should be.

use std::fs;

use super::simulated::Random;
use super::*;

fn refusal(path: &Path) -> OpenError {
    let before = fs::read(path).ok();
    let error = EmbeddedStore::open(path, Options::default()).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(fs::read(path).ok(), before);
    error
}

#[test]
fn what_is_not_a_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    fs::write(&path, "").unwrap();
    let place = path.display();
    assert_eq!(
        refusal(&path).to_string(),
        format!(
            "{place} is damaged (it is empty); put a copy of it back, or move it away to begin with an \
             empty store"
        )
    );
    for content in [&b"some text"[..], &[0; 100_000], "x".repeat(100_000).as_bytes()] {
        fs::write(&path, content).unwrap();
        assert!(matches!(refusal(&path), OpenError::Foreign { .. } | OpenError::Damaged { .. }));
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(refusal(&path), OpenError::Unusable { .. }));
    assert!(matches!(refusal(&directory.path().join("none/store")), OpenError::Unusable { .. }));
}

#[test]
fn other_redb_files_and_later_formats_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    let other = redb::TableDefinition::<u64, u64>::new("other");
    let change = |work: &dyn Fn(&redb::WriteTransaction)| {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        work(&transaction);
        transaction.commit().unwrap();
    };
    change(&|transaction| drop(transaction.open_table(other).unwrap().insert(1, 1).unwrap()));
    let error = EmbeddedStore::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");

    fs::remove_file(&path).unwrap();
    drop(open(&path));
    change(&|transaction| drop(transaction.open_table(meta).unwrap().insert("format", 2).unwrap()));
    let error = EmbeddedStore::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { format: 2, known: 1, .. }), "{error}");

    fs::remove_file(&path).unwrap();
    drop(open(&path));
    change(&|transaction| drop(transaction.open_table(meta).unwrap().remove("base").unwrap()));
    let error = EmbeddedStore::open(&path, Options::default()).unwrap_err();
    assert!(error.to_string().contains("its base is missing"), "{error}");
}

/// States of a store, and its file: closed, and as it is while the store is open.
async fn filled(directory: &Path) -> (Vec<Vec<(String, String, Revision)>>, Vec<u8>, Vec<u8>) {
    let path = directory.join("filled");
    let store = EmbeddedStore::open(&path, small()).unwrap();
    let mut states = vec![Vec::new()];
    for number in 0..60_u32 {
        let key = format!("/key/{}", number % 25);
        let length = 100 + usize::try_from(number * 37 % 900).unwrap();
        commit(&store, vec![put(&key, &format!("{number:0>length$}"))]).await;
        states.push(everything(&store).await);
    }
    let open = fs::read(&path).unwrap();
    store.close().unwrap();
    (states, fs::read(&path).unwrap(), open)
}

/// Whatever is changed, what is opened is one of the states there were; a file that was closed is
/// only opened as it was.
async fn check(path: &Path, content: &[u8], states: &[Vec<(String, String, Revision)>]) -> bool {
    fs::write(path, content).unwrap();
    match EmbeddedStore::open(path, small()) {
        Ok(store) => {
            let found = everything(&store).await;
            assert!(states.contains(&found), "{found:?}");
            commit(&store, vec![put("/new", "1")]).await;
            true
        }
        Err(OpenError::Damaged { .. } | OpenError::Foreign { .. } | OpenError::Newer { .. }) => {
            false
        }
        // Such as a place that would be far beyond the end of the file.
        Err(OpenError::Unusable { .. }) => false,
        Err(error @ OpenError::InUse { .. }) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let (states, closed, open) = filled(directory.path()).await;
    let last = &states[states.len() - 1..];
    assert!(check(&path, &closed, last).await);
    assert!(check(&path, &open, last).await);
    let mut random = Random(7);
    let mut opened = 0;
    for round in 0..400 {
        let (file, states) = if round % 2 == 0 { (&closed, last) } else { (&open, &states[..]) };
        let mut content = file.clone();
        for _ in 0..=random.below(3) {
            // Half of the time in the header, where it matters most.
            let end = if random.below(2) == 0 { 320 } else { content.len() };
            content[random.below(end)] ^= 1 << random.below(8);
        }
        opened += u32::from(check(&path, &content, states).await);
    }
    assert!((1..400).contains(&opened), "{opened}");
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_refused_or_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let (states, closed, open) = filled(directory.path()).await;
    let last = &states[states.len() - 1..];
    let mut random = Random(8);
    for round in 0..100 {
        let (file, states) = if round % 2 == 0 { (&closed, last) } else { (&open, &states[..]) };
        let length = match round {
            0..10 => round * 40,
            10..50 => file.len() - 1 - random.below(5000),
            _ => random.below(file.len()),
        };
        check(&path, &file[..length], states).await;
    }
}

/// Pages that were zeroed, and pages that stand where others were.
#[tokio::test]
async fn pages_that_are_not_the_right_ones_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let (states, closed, _) = filled(directory.path()).await;
    let last = &states[states.len() - 1..];
    let mut random = Random(9);
    let pages = closed.len() / 4096;
    for round in 0..100 {
        let mut content = closed.clone();
        let page = random.below(pages) * 4096;
        if round % 2 == 0 {
            content[page..page + 4096].fill(0);
        } else {
            let other = random.below(pages) * 4096;
            content.copy_within(other..other + 4096, page);
        }
        check(&path, &content, last).await;
    }
}
