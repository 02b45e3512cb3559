//! What etcd tells, put into memory: all of it at first, then every commit, in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_grpc::{Answers, Code, Status, decode};
use tokio::sync::watch;
use tokio::time::sleep;

use super::client::{Client, Member, RANGE, WATCH};
use super::error::{Remedy, remedy};
use super::keys::Keys;
use super::wire::{
    EventType, RangeRequest, RangeResponse, WatchCreateRequest, WatchEvent, WatchRequest,
    WatchResponse,
};
use super::{Inner, etcd_revision, revision_of};
use crate::view::commit::{Changed, Commit, Held};
use crate::view::state::Entries;
use crate::{Revision, StoreError};

/// How many entries are asked for at once. Source: `maxLimit` of `store.go` is larger, and gets there by
/// doubling.
const PAGE: i64 = 500;

/// What objects of a kube-apiserver begin with. Source: `protoEncodingPrefix` in
/// `staging/src/k8s.io/apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`.
const KUBERNETES: &[u8] = b"k8s\0";

/// The first and the longest wait after etcd did not answer.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Why nothing could be read.
#[derive(Debug)]
pub(crate) enum Failure {
    Status(Status),
    Other(StoreError),
}

/// Why a watch ended.
#[derive(Debug)]
enum End {
    /// What comes next is not known any more, or is of another history.
    Anew,
    /// Another member is asked.
    Moved,
    Failed(Failure),
}

/// Feeds what is in memory.
#[derive(Debug)]
pub(super) struct Follower {
    inner: Arc<Inner>,
    moved: watch::Receiver<Arc<Member>>,
    anew: watch::Receiver<u64>,
}

// === impl Failure ===

impl Failure {
    pub(crate) fn explain(self, client: &Client) -> StoreError {
        match self {
            Self::Status(status) => client.explain(&status),
            Self::Other(error) => error,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            // What is left of the history is gone, or is more than can be told at once.
            Failure::Status(status) if matches!(remedy(&status), Remedy::Anew | Remedy::Less) => {
                Self::Anew
            }
            failure => Self::Failed(failure),
        }
    }
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Failure::Status(status).into()
    }
}

/// Whether less might have been answered. Who has never answered is not there at all.
fn is_too_much(status: &Status, client: &Client) -> bool {
    remedy(status) == Remedy::Less || status.code == Code::DeadlineExceeded && client.has_answered()
}

/// Reads everything there is, as of one revision.
pub(super) async fn load(client: &Client, keys: &Keys) -> Result<(Entries, Revision), Failure> {
    let mut entries = Entries::new();
    let mut request = RangeRequest {
        key: keys.first(),
        range_end: keys.end(),
        limit: PAGE,
        ..RangeRequest::default()
    };
    loop {
        let page = match client.read::<RangeResponse>(RANGE, &request).await {
            Ok(page) => page,
            // Large entries or a slow way, fewer of them.
            Err(status) if is_too_much(&status, client) && request.limit > 1 => {
                request.limit /= 2;
                continue;
            }
            Err(status) => return Err(status.into()),
        };
        client.check(page.header.as_ref())?;
        if request.revision == 0 {
            request.revision = page.header.map(|it| it.revision).unwrap_or_default();
        }
        for kv in &page.kvs {
            // No key of this store.
            let Some(key) = keys.of(&kv.key) else { continue };
            if kv.value.starts_with(KUBERNETES) {
                let text = format!(
                    "{} in etcd was written by a kube-apiserver, whose objects cannot be read; use an etcd \
                     of its own",
                    String::from_utf8_lossy(&kv.key)
                );
                return Err(Failure::Other(StoreError::Unavailable(text.into())));
            }
            // Not a part of the whole answer, which would stay as long as any of its values.
            let value = Bytes::copy_from_slice(&kv.value);
            entries.insert(key, Held { value, revision: revision_of(kv.mod_revision) });
        }
        match page.kvs.last() {
            Some(last) if page.more => {
                request.key = [&last.key[..], &[0]].concat().into();
            }
            _ => return Ok((entries, revision_of(request.revision))),
        }
    }
}

// === impl Follower ===

impl Follower {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let (moved, anew) = (inner.client.moved(), inner.anew.subscribe());
        Self { inner, moved, anew }
    }

    /// Follows etcd for ever.
    pub(super) async fn run(mut self) {
        let (mut wait, mut told) = (FIRST_WAIT, None);
        loop {
            let before = *self.inner.seen.borrow();
            let mut end = self.watch().await;
            if matches!(end, End::Anew) {
                end = match self.begin_anew().await {
                    Ok(()) => End::Moved,
                    Err(failure) => End::Failed(failure),
                };
            }
            if *self.inner.seen.borrow() != before {
                (wait, told) = (FIRST_WAIT, None);
            }
            let End::Failed(failure) = end else { continue };
            let error = failure.explain(&self.inner.client).to_string();
            // Once for each outage.
            if told.as_ref() != Some(&error) {
                tracing::warn!(
                    error,
                    "what others write to etcd is not seen for now; it is tried again"
                );
                told = Some(error);
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Watches from where memory is, until that ends.
    async fn watch(&mut self) -> End {
        let inner = self.inner.clone();
        self.anew.borrow_and_update();
        let next = Revision(inner.shared.read().revision().0 + 1);
        let create = WatchCreateRequest {
            key: inner.keys.first(),
            range_end: inner.keys.end(),
            start_revision: etcd_revision(next),
            fragment: true,
        };
        let request = WatchRequest { create_request: Some(create) };
        let (member, mut answers) = match inner.client.follow(WATCH, &request).await {
            Ok(answered) => answered,
            Err(status) => return status.into(),
        };
        if !Arc::ptr_eq(&member, &self.moved.borrow_and_update()) {
            return End::Moved;
        }
        let mut events = Vec::new();
        loop {
            let answer = tokio::select! {
                // Cancel-safe per docs on `Answers::next`.
                answer = next_of(&mut answers) => answer,
                // Cancel-safe per docs on `watch::Receiver::changed`.
                Ok(()) = self.moved.changed() => return End::Moved,
                // As above.
                Ok(()) = self.anew.changed() => return End::Anew,
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(status) => {
                    inner.client.leave(&member);
                    return status.into();
                }
            };
            if let Err(status) = inner.client.check(answer.header.as_ref()) {
                return status.into();
            }
            if answer.canceled {
                if answer.compact_revision > 0 {
                    return End::Anew;
                }
                return inner.turned_away(&member, answer.cancel_reason).await.into();
            }
            events.extend(answer.events);
            // A commit may be in several answers.
            if !answer.fragment {
                inner.apply(std::mem::take(&mut events));
            }
        }
    }

    async fn begin_anew(&self) -> Result<(), Failure> {
        let inner = &self.inner;
        let (entries, revision) = load(&inner.client, &inner.keys).await?;
        tracing::info!(revision = revision.0, "what is in etcd has been read anew");
        inner.shared.replace(entries, revision);
        inner.seen.send_replace(revision);
        Ok(())
    }
}

async fn next_of(answers: &mut Answers) -> Result<WatchResponse, Status> {
    let over = || Status::new(Code::Unavailable, "the watch has ended");
    decode(answers.next().await?.ok_or_else(over)?)
}

impl Inner {
    /// What a member means that ends a watch. It does not say whether it does not know any more who asks, or
    /// knows and does not allow it: so it is told anew.
    async fn turned_away(&self, member: &Arc<Member>, reason: String) -> Status {
        let is_of_users = ["permission denied", "auth"].iter().any(|word| reason.contains(word));
        if !is_of_users {
            self.client.leave(member);
            return Status::new(Code::Unavailable, reason);
        }
        match self.client.introduce(member).await {
            Ok(()) => Status::new(Code::PermissionDenied, reason),
            Err(status) => status,
        }
    }

    /// Takes whole commits, in their order.
    fn apply(&self, events: Vec<WatchEvent>) {
        let mut events = events.into_iter().peekable();
        let revision_at = |event: &WatchEvent| {
            revision_of(event.kv.as_ref().map(|it| it.mod_revision).unwrap_or_default())
        };
        while let Some(revision) = events.peek().map(revision_at) {
            let mut changes = Vec::new();
            {
                let state = self.shared.read();
                let is_new = revision > state.revision();
                while let Some(event) = events.next_if(|event| revision_at(event) == revision) {
                    let changed = is_new.then(|| changed(event, &self.keys, |key| state.held(key)));
                    changes.extend(changed.flatten());
                }
                if !is_new {
                    continue;
                }
            }
            let commit = Arc::new(Commit::new(revision, changes));
            drop(self.shared.publish(&[commit], Instant::now()));
            self.seen.send_replace(revision);
        }
    }
}

/// What an event changes; `None` if nothing, as when what is gone was not there.
fn changed<'a>(
    event: WatchEvent,
    keys: &Keys,
    held: impl FnOnce(&str) -> Option<&'a Held>,
) -> Option<Changed> {
    let kind = event.r#type();
    let kv = event.kv?;
    let key = keys.of(&kv.key)?;
    let previous = held(&key).cloned();
    match kind {
        EventType::Put => {
            let value = Some(Bytes::copy_from_slice(&kv.value));
            Some(Changed { key, value, previous })
        }
        EventType::Delete => previous.is_some().then_some(Changed { key, value: None, previous }),
    }
}
