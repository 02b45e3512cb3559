//! Objects in the store.

use std::sync::Arc;

use bytes::Bytes;
use mainstay_store::{
    Change, Durability, Entry, Expect, ListOptions, Page, Revision, Store, StoreError, Write,
};

use crate::housekeeping::EVENT_TTL;
use crate::kind::Resource;
use crate::kinds;
use crate::object::Object;
use crate::rules::{self, Rules};
use crate::status::{ApiError, Result};

/// The store, in terms of resources.
pub(crate) struct Storage {
    pub(crate) store: Arc<dyn Store>,
    /// What follows from the objects for who may do what.
    pub(crate) rules: Arc<Rules>,
}

/// An object as it is in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// In the version of the resource that it was read as.
    pub(crate) object: Object,
    pub(crate) revision: Revision,
}

/// Why a write was not done.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// What is there is not what was expected; somebody else was faster.
    Conflict,
    /// Anything else.
    Other(ApiError),
}

impl Storage {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, rules: Arc::default() }
    }

    /// The stored bytes of an object.
    pub(crate) async fn entry(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Entry>> {
        Ok(self.store.get(&resource.key(namespace, name)).await?.0)
    }

    pub(crate) async fn find(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Stored>> {
        match self.entry(resource, namespace, name).await? {
            Some(entry) => {
                let object = decode(resource, &entry.value, entry.revision)?;
                Ok(Some(Stored { object, revision: entry.revision }))
            }
            None => Ok(None),
        }
    }

    /// # Errors
    ///
    /// 404 when there is none.
    pub(crate) async fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Stored> {
        let found = self.find_current(resource, namespace, name).await?;
        found.ok_or_else(|| ApiError::not_found(resource, name))
    }

    /// An object that somebody may have made this moment through another server.
    pub(crate) async fn find_current(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Stored>> {
        let found = self.find(resource, namespace, name).await?;
        if found.is_some() || !self.store.is_shared() {
            return Ok(found);
        }
        self.store.catch_up().await?;
        self.find(resource, namespace, name).await
    }

    /// Whether an object is still what was found: somebody may have changed it this moment through another
    /// server. A write compares it with what is there; what is not written has to be.
    ///
    /// Source: `origStateIsCurrent` of `GuaranteedUpdate` in `storage/etcd3/store.go`.
    pub(crate) async fn is_current(&self, resource: &Resource, found: &Stored) -> Result<bool> {
        if !self.store.is_shared() {
            return Ok(true);
        }
        self.store.catch_up().await?;
        let (namespace, name) = (found.object.namespace(), found.object.name());
        let there = self.entry(resource, namespace, name).await?;
        Ok(there.is_some_and(|there| there.revision == found.revision))
    }

    pub(crate) async fn page(
        &self,
        resource: &Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Page> {
        Ok(self.store.list(&resource.prefix(namespace), options).await?)
    }

    /// All objects of a namespace, or of all, as of now.
    pub(crate) async fn all(&self, resource: &Resource, namespace: &str) -> Result<Vec<Object>> {
        let page = self.page(resource, namespace, &ListOptions::default()).await?;
        page.entries.iter().map(|entry| decode(resource, &entry.value, entry.revision)).collect()
    }

    /// Writes an object that has to be new, or as it was at a revision. Answers it with its revision.
    pub(crate) async fn put(
        &self,
        resource: &Resource,
        object: Object,
        expect: Expect,
        durability: Durability,
    ) -> std::result::Result<Stored, WriteError> {
        self.put_with(resource, object, expect, durability, None).await
    }

    /// The same in one commit with something else.
    pub(crate) async fn put_with(
        &self,
        resource: &Resource,
        object: Object,
        expect: Expect,
        durability: Durability,
        also: Option<Write>,
    ) -> std::result::Result<Stored, WriteError> {
        let key = resource.key(object.namespace(), object.name()).into();
        let change = Change::Put(encode(resource, &object));
        let ttl = (resource.storage == kinds::EVENTS.storage).then_some(EVENT_TTL);
        let mut writes = vec![Write { key, expect, change, ttl }];
        writes.extend(also);
        let revision = self.commit(resource, writes, durability).await?;
        let mut object = object;
        object.set_revision(revision);
        Ok(Stored { object, revision })
    }

    /// Takes an object out that is as it was at a revision.
    pub(crate) async fn remove(
        &self,
        resource: &Resource,
        stored: &Stored,
    ) -> std::result::Result<Revision, WriteError> {
        let key = resource.key(stored.object.namespace(), stored.object.name()).into();
        let expect = Expect::At(stored.revision);
        let write = Write { key, expect, change: Change::Delete, ttl: None };
        self.commit(resource, vec![write], durability(resource)).await
    }

    async fn commit(
        &self,
        resource: &Resource,
        writes: Vec<Write>,
        durability: Durability,
    ) -> std::result::Result<Revision, WriteError> {
        match self.store.commit(writes, durability).await {
            Ok(revision) => {
                if rules::matters(resource) {
                    self.rules.reached(revision).await;
                }
                Ok(revision)
            }
            Err(StoreError::Conflict { .. }) => Err(WriteError::Conflict),
            Err(other) => Err(WriteError::Other(other.into())),
        }
    }
}

/// How a resource's objects are written.
pub(crate) fn durability(resource: &Resource) -> Durability {
    match resource.lazy {
        true => Durability::Lazy,
        false => Durability::Synced,
    }
}

pub(crate) fn decode(resource: &Resource, stored: &[u8], revision: Revision) -> Result<Object> {
    let mut object = Object::decode(stored, revision).map_err(|error| {
        ApiError::internal(format!(
            "a stored object of {} cannot be read: {error}",
            resource.plural
        ))
    })?;
    resource.strategy.served(&mut object);
    Ok(object)
}

fn encode(resource: &Resource, object: &Object) -> Bytes {
    match resource.strategy.converts() {
        false => object.encode(),
        true => {
            let mut object = object.clone();
            resource.strategy.stored(&mut object);
            object.encode()
        }
    }
}
