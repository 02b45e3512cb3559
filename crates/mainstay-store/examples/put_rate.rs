//! How many durable writes a store does in a second, from one caller and from eight.
//!
//! `cargo run --release -p mainstay-store --example put_rate -- DIRECTORY`

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_store::embedded::{EmbeddedStore, Options};
use mainstay_store::{Change, Durability, Expect, Store, StoreError, Write};
use tokio::task::JoinSet;

/// The bytes of a value.
const VALUE: usize = 600;
/// How long each measurement takes.
const TIME: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = directory.join(format!("put-rate-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let result = measure(&directory).await;
    std::fs::remove_dir_all(&directory)?;
    result
}

async fn measure(directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let sync = bare_sync(&directory.join("bare"))?;
    println!("a bare write of 4 KiB with fdatasync: {sync:.0?}");

    let path = directory.join("store");
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&path, Options::default())?);
    for (durability, tasks) in [
        (Durability::Synced, 1),
        (Durability::Synced, 8),
        (Durability::Synced, 64),
        (Durability::Lazy, 1),
    ] {
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for task in 0..tasks {
            running.spawn(put(store.clone(), durability, task, begun));
        }
        let mut puts = 0;
        while let Some(done) = running.join_next().await {
            puts += done??;
        }
        let rate = f64::from(puts) / begun.elapsed().as_secs_f64();
        println!("{durability:?}, {tasks} at once: {rate:.0} puts/s");
    }
    drop(store);
    println!("the file has {} KiB", std::fs::metadata(&path)?.len() >> 10);

    let begun = Instant::now();
    let store = EmbeddedStore::open(&path, Options::default())?;
    println!("opened in {:.0?}", begun.elapsed());
    let begun = Instant::now();
    let page = store.list("/", &mainstay_store::ListOptions::default()).await?;
    println!("{} entries listed in {:.0?}", page.entries.len(), begun.elapsed());
    Ok(())
}

async fn put(
    store: Arc<dyn Store>,
    durability: Durability,
    task: u32,
    begun: Instant,
) -> Result<u32, StoreError> {
    let mut puts = 0;
    while begun.elapsed() < TIME {
        let write = Write {
            key: format!("/registry/pods/default/{task}-{}", puts % 200).into(),
            expect: Expect::Any,
            change: Change::Put(Bytes::from(vec![b'x'; VALUE])),
            ttl: None,
        };
        store.commit(vec![write], durability).await?;
        puts += 1;
    }
    Ok(puts)
}

/// The median of a write and a sync of one page of a file that has its length.
fn bare_sync(path: &Path) -> std::io::Result<Duration> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all_at(&vec![1; 1 << 20], 0)?;
    file.sync_all()?;
    let mut times = Vec::new();
    for page in 0..500_u64 {
        let begun = Instant::now();
        file.write_all_at(&[2; 4096], page % 256 * 4096)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}
