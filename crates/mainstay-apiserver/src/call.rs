//! One request about objects on its way through the server, and its answer.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::authn::User;
use crate::body::Body;
use crate::kind::Resource;
use crate::request::{Accept, RequestInfo, Shape};
use crate::selector::Selector;
use crate::server::Inner;
use crate::status::{ApiError, Result};
use crate::table::IncludeObject;

/// A request about objects: who asks for what.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Inner,
    pub(crate) info: &'a RequestInfo,
    pub(crate) user: &'a User,
    pub(crate) resource: &'static Resource,
    pub(crate) accept: Accept,
    pub(crate) headers: &'a HeaderMap,
    /// The body; empty of what has none.
    pub(crate) body: Bytes,
}

/// What a request is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) content: Content,
    /// Sentences for the client's user, in `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

/// The body of an answer.
pub(crate) enum Content {
    /// JSON that is written already.
    Json(Vec<u8>),
    /// JSON, or YAML if the client prefers that.
    Value(Value),
    /// Anything, with its type.
    Stream(&'static str, Body),
}

impl Call<'_> {
    /// The namespace in the path; empty of resources without.
    pub(crate) fn namespace(&self) -> &str {
        self.info.namespace_of(self.resource)
    }

    /// Whether objects are answered as they are stored, so that nothing but a selector looks at them.
    pub(crate) fn is_raw(&self) -> bool {
        let Accept { shape, yaml } = &self.accept;
        *shape == Shape::Plain
            && !yaml
            && !self.info.query.is_pretty()
            && !self.resource.strategy.converts()
    }

    /// What the rows of a table carry.
    pub(crate) fn include(&self) -> IncludeObject {
        IncludeObject::parse(self.info.query.get("includeObject"))
    }

    /// The only key that a selector picks, if it says so. What the key tells is not asked of objects any more, which
    /// then need not be read for it.
    pub(crate) fn take_only_key(&self, selector: &mut Selector) -> Option<String> {
        let namespace = self.namespace();
        if self.resource.namespaced && namespace.is_empty() {
            return None;
        }
        let name = selector.take_name()?;
        Some(self.resource.key(namespace, &name))
    }

    /// Waits until what is asked for has been seen, if another server has told of it.
    ///
    /// # Errors
    ///
    /// 400 for a version that is none, 504 for one of the future.
    pub(crate) async fn not_older_than_asked(&self) -> Result<()> {
        match self.info.query.get("resourceVersion") {
            "" | "0" => Ok(()),
            text => {
                let asked = crate::verbs::list::revision(text)?;
                let store = &self.server.storage.store;
                let (_, mut current) = store.get("").await?;
                if asked > current {
                    current = store.catch_up().await?;
                }
                if asked > current {
                    return Err(mainstay_store::StoreError::Future { asked, current }.into());
                }
                Ok(())
            }
        }
    }

    /// The selector of a path that names one object, as a watch of it does.
    pub(crate) fn named(&self, selector: Selector) -> Result<Selector> {
        match (self.info.name.as_str(), selector.name()) {
            ("", _) => Ok(selector),
            (name, Some(other)) if name != other => Err(ApiError::bad_request(format!(
                "fieldSelector metadata.name={other} doesn't match requested name {name}"
            ))),
            (name, _) => {
                let text = format!("metadata.name={name}");
                Selector::parse(self.resource, self.info.query.get("labelSelector"), &text)
            }
        }
    }
}

impl Answer {
    pub(crate) fn json(value: Value) -> Self {
        Self { code: StatusCode::OK, content: Content::Value(value), warnings: Vec::new() }
    }

    pub(crate) fn json_bytes(bytes: Vec<u8>) -> Self {
        Self { code: StatusCode::OK, content: Content::Json(bytes), warnings: Vec::new() }
    }

    pub(crate) fn stream(media_type: &'static str, body: Body) -> Self {
        let content = Content::Stream(media_type, body);
        Self { code: StatusCode::OK, content, warnings: Vec::new() }
    }

    #[must_use]
    pub(crate) fn with_code(mut self, code: StatusCode) -> Self {
        self.code = code;
        self
    }

    #[must_use]
    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json(bytes) => write!(f, "{}", String::from_utf8_lossy(bytes)),
            Self::Value(value) => write!(f, "{value}"),
            Self::Stream(media_type, _) => write!(f, "{media_type}"),
        }
    }
}
