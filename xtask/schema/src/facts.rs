//! `facts.tsv`, read.

use std::collections::BTreeMap;

/// What is known of one field besides its schema; `-` in the file is empty here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fact {
    pub(crate) go: String,
    pub(crate) omit: String,
    pub(crate) embed: String,
    pub(crate) merge: Merge,
    pub(crate) default: String,
    pub(crate) allowed: String,
    pub(crate) required: bool,
}

/// How a field's value merges with another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Merge {
    pub(crate) strategy: String,
    pub(crate) key: String,
    pub(crate) list: String,
    pub(crate) keys: String,
    pub(crate) map: String,
}

/// By type and field; the field `.` is the type itself.
pub(crate) fn read() -> BTreeMap<(String, String), Fact> {
    let mut facts = BTreeMap::new();
    for line in include_str!("../facts.tsv").lines().filter(|line| !line.starts_with('#')) {
        let column: Vec<String> = line
            .split('\t')
            .map(|text| if text == "-" { String::new() } else { text.to_owned() })
            .collect();
        let [
            owner,
            field,
            go,
            omit,
            embed,
            strategy,
            key,
            list,
            keys,
            map,
            default,
            allowed,
            required,
        ] = <[String; 13]>::try_from(column).expect("a line of facts.tsv has thirteen columns");
        let merge = Merge { strategy, key, list, keys, map };
        let fact =
            Fact { go, omit, embed, merge, default, allowed, required: required == "required" };
        assert!(facts.insert((owner, field), fact).is_none(), "twice in facts.tsv: {line}");
    }
    facts
}
