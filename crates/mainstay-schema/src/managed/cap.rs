//! No object has more than ten updaters: the oldest are merged into one.
//!
//! Source: `staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal/capmanagers.go`.

use std::collections::BTreeMap;

use super::entries::{Entries, Manager, Operation};

/// Updaters that an object has at most.
const MAX_UPDATERS: usize = 10;

/// Merges the oldest updaters until there are few enough.
pub(super) fn cap(managed: &mut Entries) {
    let mut updaters: Vec<(i64, Manager)> = managed
        .iter()
        .filter(|(manager, _)| manager.operation == Operation::Update)
        .map(|(manager, held)| (held.time.unwrap_or(0), manager.clone()))
        .collect();
    let mut count = updaters.len();
    updaters.sort();

    let mut first: BTreeMap<String, Manager> = BTreeMap::new();
    for (time, manager) in updaters {
        if count <= MAX_UPDATERS {
            return;
        }
        let Some(version) = managed.get(&manager).map(|held| held.api_version.clone()) else {
            continue;
        };
        let bucket = Manager::new("ancient-changes", Operation::Update, &version, "");
        let Some(oldest) = first.get(&version) else {
            first.insert(version, manager);
            continue;
        };
        if !managed.contains_key(&bucket)
            && let Some(held) = managed.remove(oldest)
        {
            managed.insert(bucket.clone(), held);
        }
        let Some(held) = managed.remove(&manager) else { continue };
        count -= 1;
        if let Some(there) = managed.get_mut(&bucket) {
            there.fields = std::mem::take(&mut there.fields).union(held.fields);
            there.time = Some(time);
        }
    }
}
