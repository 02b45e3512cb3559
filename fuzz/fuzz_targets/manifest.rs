//! From a file's bytes to pods: no bytes make it panic, and what is accepted is accepted again, as
//! the same pod, in the form in which the ledger keeps it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_pod::{Entry, NodeName, Pod, ReadOptions, SourceKind, Validation, read};

fuzz_target!(|bytes: &[u8]| {
    for validation in [Validation::Strict, Validation::Ignore] {
        let options = ReadOptions {
            validation,
            node_name: NodeName::new("n1").unwrap(),
            source: SourceKind::File,
            seen: "2026-01-01T00:00:00Z".into(),
        };
        for entry in read("fuzz.yaml", bytes, &options).entries {
            if let Entry::Pod { pod, .. } = entry {
                let again = Pod::from_stored(&pod.to_stored()).unwrap();
                assert_eq!(again.uid(), pod.uid());
            }
        }
    }
});
