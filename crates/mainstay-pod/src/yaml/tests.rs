use expect_test::{Expect, expect};

use super::*;

/// Every document as JSON, or where it breaks and why.
#[expect(clippy::needless_pass_by_value, reason = "the expectation is written in the call")]
fn check(text: &str, expected: Expect) {
    let mut out = String::new();
    for document in read(text) {
        if let Some(root) = &document.root {
            out.push_str(&root.to_json().to_string());
            out.push('\n');
        }
        if let Some(error) = &document.error {
            out.push_str(&format!("byte {}: {}", error.span.start, error.message));
            out.push_str(&error.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})")));
            out.push('\n');
        }
    }
    expected.assert_eq(&out);
}

#[test]
fn scalars_mean_what_they_mean_to_kubernetes() {
    check(
        "a: yes\nb: 0777\nc: 1e3\nd: \"yes\"\ne: 'no'\nf: ~\ng:\nh: 2001-01-01\ni: |\n  x\n  y\nj: >-\n  x\n  y\n",
        expect![[r#"
            {"a":true,"b":511,"c":1000,"d":"yes","e":"no","f":null,"g":null,"h":"2001-01-01","i":"x\ny\n","j":"x y"}
        "#]],
    );
}

#[test]
fn keys_become_strings() {
    check(
        "1: a\ntrue: b\nyes: c\n1.5: d\n0x10: e\n\"\": f\n",
        expect![[r#"
        {"":"f","1":"a","1.5":"d","16":"e","true":"c"}
    "#]],
    );
}

#[test]
fn keys_that_cannot_be_strings() {
    check(
        "~: a\n---\n[a]: b\n---\n{a: b}: c\n---\n? x\n: y\n",
        expect![[r#"
        {}
        byte 0: the key of an object cannot be null
        {}
        byte 9: the key of an object cannot be a list
        {}
        byte 20: the key of an object cannot be an object
        {"x":true}
    "#]],
    );
}

#[test]
fn tags() {
    check(
        "[!!str 1, !!int 3, !!float 1, !own x, !!bool yes, !!null ~]",
        expect![[r#"
        ["1",3,1,"x",true,null]
    "#]],
    );
    check(
        "!!int x\n---\n!!binary aGk=\n---\n.inf\n",
        expect![[r#"
            byte 6: cannot decode "x" as a !!int
            byte 21: !!binary is not supported in a manifest (write the base64 text as a string)
            byte 30: .inf is a YAML number that JSON cannot express (write ".inf" if it is meant as text)
        "#]],
    );
}

#[test]
fn anchors_and_aliases() {
    check(
        "a: &x {b: [1, 2]}\nc: *x\nd: &x 3\ne: *x\n",
        expect![[r#"
        {"a":{"b":[1,2]},"c":{"b":[1,2]},"d":3,"e":3}
    "#]],
    );
    check(
        "a: *nowhere\n",
        expect![[r#"
        {}
        byte 3: while parsing node, found unknown anchor
    "#]],
    );
    check(
        "a: &x [*x]\n",
        expect![[r#"
        {"a":[]}
        byte 7: the anchor's value contains this alias of itself
    "#]],
    );
    // Anchors end with their document.
    check(
        "a: &x 1\n---\nb: *x\n",
        expect![[r#"
        {"a":1}
        {}
        byte 15: while parsing node, found unknown anchor
    "#]],
    );
}

#[test]
fn merge_keys() {
    let base = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\n";
    check(
        &format!("{base}c: {{<<: *a, x: 3}}\n"),
        expect![[r#"
        {"a":{"true":1,"x":1},"b":{"true":2,"z":2},"c":{"true":1,"x":3}}
    "#]],
    );
    check(
        &format!("{base}c: {{<<: [*a, *b], q: 3}}\n"),
        expect![[r#"
        {"a":{"true":1,"x":1},"b":{"true":2,"z":2},"c":{"q":3,"true":1,"x":1,"z":2}}
    "#]],
    );
    check(
        &format!("{base}c: {{\"<<\": *a}}\n"),
        expect![[r#"
        {"a":{"true":1,"x":1},"b":{"true":2,"z":2},"c":{"<<":{"true":1,"x":1}}}
    "#]],
    );
    check(
        "a: {<<: 3}\n",
        expect![[r#"
        {}
        byte 4: the merge key << takes an object or a list of objects
    "#]],
    );
}

#[test]
fn a_key_before_a_merge_stays_twice_to_be_refused() {
    let document = read("a: &a {x: 1}\nb: {x: 2, <<: *a}\n").remove(0);
    let root = document.root.expect("it parses");
    let keys: Vec<_> = root.get("b").expect("b").entries().iter().map(|it| &*it.key).collect();
    assert_eq!(keys, ["x", "x"]);
}

#[test]
fn a_bad_document_does_not_harm_its_neighbours() {
    check(
        "a: 1\n---\nb: [1\n---\nc: 3\n---\n\td: 4\n---\ne: 5\n",
        expect![[r#"
        {"a":1}
        {"b":[]}
        byte 12: unclosed bracket '['
        {"c":3}
        {"d":4}
        {"e":5}
    "#]],
    );
}

#[test]
fn empty_documents_are_skipped() {
    check(
        "---\n---\n# nothing\n---\na: 1\n...\n---\n~\n",
        expect![[r#"
        {"a":1}
    "#]],
    );
    check("", expect![[""]]);
    check("# only a comment\n", expect![[""]]);
}

#[test]
fn line_ends_marks_and_tabs() {
    check(
        "\u{feff}a: 1\r\nb:\r\n- x\r\n",
        expect![[r#"
        {"a":1,"b":["x"]}
    "#]],
    );
    check(
        "a:\n\tb: 1\n",
        expect![[r#"
        {}
        byte 4: tabs disallowed within this context (block indentation) (YAML is indented with spaces, never with tabs)
    "#]],
    );
    check(
        "%YAML 1.1\n---\na: on\n",
        expect![[r#"
        {"a":true}
    "#]],
    );
}

#[test]
fn what_came_before_an_error_is_kept() {
    check(
        "metadata:\n  name: web\nspec:\n  containers:\n  - name: a\n    image: [\n",
        expect![[r#"
            {"metadata":{"name":"web"},"spec":{"containers":[{"image":[],"name":"a"}]}}
            byte 65: unclosed bracket '['
        "#]],
    );
}

#[test]
fn spans_point_at_keys_and_values() {
    let text = "spec:\n  name: \"wéb\"\n  list:\n  - a\n";
    let root = read(text).remove(0).root.expect("it parses");
    let slice = |path: &str| {
        let span = root.locate(path);
        &text[span.start as usize..span.end as usize]
    };
    assert_eq!(slice("spec.name"), "\"wéb\"");
    assert_eq!(slice("spec.list[0]"), "a");
    assert_eq!(slice("spec.list"), "list");
    assert_eq!(slice("spec.missing.deeper"), "spec");
}

/// Nesting by brackets, by indentation, by dashes.
#[test]
fn deep_nesting_is_refused() {
    let deep = |open: &str| open.repeat(100_000);
    for text in [deep("["), deep("{a: "), deep("- "), deep("? ")] {
        let error = read(&text).remove(0).error.expect("it is too deep");
        assert!(error.message.contains("100 levels deep"), "{}", error.message);
    }
    let indented: String = (0..3000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(read(&indented)[0].error.is_some());
}

/// Nesting that no line shows: each anchor is as deep as the one before it and what is around its alias.
#[test]
fn deep_nesting_by_aliases_is_refused() {
    let nested =
        |levels: usize, inner: &str| format!("{}{inner}{}", "[".repeat(levels), "]".repeat(levels));
    // The list of the document itself is a level, too.
    let at_most = |levels| format!("- &a {}\n- {}\n", nested(49, "x"), nested(levels, "*a"));
    assert!(read(&at_most(50))[0].error.is_none());
    let text = at_most(51);
    let error = read(&text).remove(0).error.expect("it is too deep");
    assert_eq!(error.message, "nested more than 100 levels deep");
    let alias = text.find("*a").expect("it is there");
    assert_eq!(error.span, Span::new(alias, alias + 2));

    let mut chain = format!("- &a0 {}\n", nested(90, "x"));
    for link in 1..50 {
        chain.push_str(&format!("- &a{link} {}\n", nested(90, &format!("*a{}", link - 1))));
    }
    assert!(read(&chain)[0].error.is_some());
    let merged = "- &a0 {a: {b: c}}\n".to_owned()
        + &(1..200)
            .map(|link| format!("- &a{link} {{a: {{<<: *a{}}}}}\n", link - 1))
            .collect::<String>();
    assert!(read(&merged)[0].error.is_some());
}

#[test]
fn alias_bombs_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        let items = vec![format!("*a{before}"); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(
        read(&bomb)[0].error.as_ref().expect("a bomb").message.contains("aliases are expanded")
    );

    let scalar = "x".repeat(1_000_000);
    let copies = "- *a\n".repeat(100);
    let bomb = format!("- &a {scalar}\n{copies}");
    assert!(
        read(&bomb)[0].error.as_ref().expect("a bomb").message.contains("aliases are expanded")
    );

    // The budget is the file's: many documents cannot share it out.
    let document = format!("- &a {scalar}\n- *a\n- *a\n---\n");
    assert!(read(&document.repeat(8)).iter().any(|it| it.error.is_some()));
}

#[test]
fn many_values_are_refused() {
    let text = "- 1\n".repeat(600_000);
    assert!(read(&text)[0].error.is_some());
}
