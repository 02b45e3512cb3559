//! `$(NAME)` in commands, arguments and variables.
//!
//! Source: `third_party/forked/golang/expansion/expand.go`: an unknown name stays as it is
//! written, and `$$` is one dollar.

/// Replaces what `lookup` knows.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match lookup(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_as_kubernetes_does() {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            "REF" => Some("$(A)".to_owned()),
            _ => None,
        };
        for (text, expanded) in [
            ("", ""),
            ("$(A)-$(A)", "1-1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A ${A}", "$A ${A}"),
            ("$(A", "$(A"),
            ("$(EMPTY)x", "x"),
            ("$(REF)", "$(A)"),
            ("end$", "end$"),
            ("ü$(A)ü", "ü1ü"),
        ] {
            assert_eq!(expand(text, lookup), expanded, "{text}");
        }
    }
}
