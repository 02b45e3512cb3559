//! What can be wrong with a strategic merge patch.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::go;

/// Why a patch cannot be merged. The texts are Kubernetes', from `apimachinery/pkg/util/mergepatch`
/// and `strategicpatch`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatchError {
    /// A key begins with `$deleteFromPrimitiveList` but names no field.
    #[error("invalid patch format of primitive list")]
    BadPrimitiveList,
    /// `$retainKeys` is no list, or the patch sets a field that it does not name.
    #[error("invalid patch format of retainKeys")]
    BadRetainKeys,
    /// `$setElementOrder` is no list or names no field.
    #[error("invalid patch format of setElementOrder list")]
    BadSetElementOrder,
    /// A list that merges holds lists.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// An item of a list that merges has no merge key.
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The item.
        map: String,
        /// The merge key.
        key: &'static str,
    },
    /// A `$patch` with another value than is understood in its place.
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective {
        /// The value of `$patch`.
        directive: String,
        /// The object that holds it.
        map: String,
    },
    /// `$patch: merge` in a list.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    /// A value of another type than the place needs.
    #[error("expected a {expected}, but received a {actual}")]
    BadType {
        /// The name of a type in Go.
        expected: &'static str,
        /// The name of a type in Go.
        actual: &'static str,
    },
    /// Something in a list is no object, in a list whose items have a merge key.
    #[error("value for key {at} is not a map")]
    NotMap {
        /// Its place in the list.
        at: usize,
    },
    /// A list that merges has items of several types.
    #[error("list element types are not identical: {lists}")]
    MixedList {
        /// The lists.
        lists: String,
    },
    /// There is an order but nothing that has it.
    #[error("no elements in any of the given slices")]
    NoElements,
    /// The order of the patch's items is not the one that it asks for.
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    OrderMismatch {
        /// The patch's list.
        patch: String,
        /// The list of the order.
        order: String,
    },
    /// A list merges without a merge key.
    #[error("cannot merge lists without merge key for {kind}")]
    ListWithoutMergeKey {
        /// What the items are in Go.
        kind: &'static str,
    },
    /// An object or list that merges is in no field of the type.
    #[error("unable to find api field in struct {object} for the json field {}", go::quote(field))]
    NoField {
        /// The name of the type in Go.
        object: &'static str,
        /// The name of the field in JSON.
        field: String,
    },
    /// An object or list merges where no fields are known.
    #[error("merging an object in json but data type is not struct, instead is: {kind}")]
    NotStruct {
        /// What is there in Go.
        kind: &'static str,
    },
    /// A list merges where the type has none.
    #[error("expected slice or array type, but got: {kind}")]
    NotList {
        /// What is around it in Go.
        kind: &'static str,
    },
}

/// Which response Kubernetes gives to a patch that cannot be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 400, reason `BadRequest`.
    BadRequest,
    /// 422 without a reason of its own.
    Unprocessable,
    /// 500 without a reason.
    Internal,
}

// === impl PatchError ===

impl PatchError {
    /// Which response Kubernetes gives, `interpretStrategicMergePatchError` in
    /// `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::BadPrimitiveList | Self::BadRetainKeys | Self::BadSetElementOrder => {
                Verdict::BadRequest
            }
            Self::ListOfLists => Verdict::Unprocessable,
            Self::NoMergeKey { .. }
            | Self::UnknownDirective { .. }
            | Self::MergeDirective
            | Self::BadType { .. }
            | Self::NotMap { .. }
            | Self::MixedList { .. }
            | Self::NoElements
            | Self::OrderMismatch { .. }
            | Self::ListWithoutMergeKey { .. }
            | Self::NoField { .. }
            | Self::NotStruct { .. }
            | Self::NotList { .. } => Verdict::Internal,
        }
    }

    pub(super) fn unknown_directive(directive: &Value, map: &Map<String, Value>) -> Self {
        let directive = go::display(directive);
        Self::UnknownDirective { directive, map: go::display(&Value::Object(map.clone())) }
    }

    pub(super) fn no_merge_key(map: &Map<String, Value>, key: &'static str) -> Self {
        Self::NoMergeKey { map: go::display(&Value::Object(map.clone())), key }
    }

    pub(super) fn expected_map(actual: &Value) -> Self {
        Self::BadType { expected: "map[string]interface {}", actual: go::type_name(actual) }
    }

    pub(super) fn expected_list(actual: &Value) -> Self {
        Self::BadType { expected: "[]interface {}", actual: go::type_name(actual) }
    }
}
