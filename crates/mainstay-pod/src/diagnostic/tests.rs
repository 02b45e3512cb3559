use expect_test::expect;

use super::*;

const TEXT: &str = "spec:\n  containers:\n  - name: web\n    workdir: /srv\n    name: wéb\n";

fn diagnostic() -> Diagnostic {
    let source = Source::new("web.yaml", TEXT);
    let at = TEXT.find("workdir").expect("it is there");
    Finding::error(Span::new(at, at + 7), "spec.containers[0].workdir", "unknown field")
        .hint("did you mean workingDir?".to_owned())
        .cause(Cause::UnknownField)
        .into_diagnostic(&source, 1)
}

#[test]
fn one_line() {
    expect!["web.yaml:4:5: spec.containers[0].workdir: unknown field (did you mean workingDir?)"]
        .assert_eq(&diagnostic().to_string());
    let whole = Diagnostic::error("web.yaml", "the file is not UTF-8", None);
    assert_eq!(whole.to_string(), "web.yaml: the file is not UTF-8");
}

#[test]
fn with_the_line_and_a_caret() {
    expect![[r#"
        error: spec.containers[0].workdir: unknown field
         --> web.yaml:4:5
          |
        4 |     workdir: /srv
          |     ^^^^^^^
          |
          = help: did you mean workingDir?"#]]
    .assert_eq(&diagnostic().render(TEXT, false));
    assert!(diagnostic().render(TEXT, true).contains("\u{1b}["));
    // The text of another file is no reason to panic.
    assert_eq!(diagnostic().render("", false), diagnostic().to_string());
}

#[test]
fn two_places() {
    let source = Source::new("web.yaml", TEXT);
    let (first, second) = (TEXT.find("name").expect("one"), TEXT.rfind("name").expect("two"));
    let span = |at| Span::new(at, at + 4);
    let diagnostic = Finding::duplicate(span(second), "spec.containers[0].name", span(first))
        .into_diagnostic(&source, 1);
    expect![[r#"
        error: spec.containers[0].name: duplicate field, already set on line 3
         --> web.yaml:5:5
          |
        3 |   - name: web
          |     ---- first set here
        4 |     workdir: /srv
        5 |     name: wéb
          |     ^^^^"#]]
    .assert_eq(&diagnostic.render(TEXT, false));
}

#[test]
fn as_json() {
    let diagnostic = diagnostic();
    let wire = serde_json::to_string(&wire::Diagnostic::from(&diagnostic)).expect("it is JSON");
    expect![[r#"{"severity":"error","cause":"unknownField","file":"web.yaml","document":1,"line":4,"column":5,"field":"spec.containers[0].workdir","message":"unknown field","hint":"did you mean workingDir?"}"#]].assert_eq(&wire);
    let whole = Diagnostic::error("web.yaml", "the file is not UTF-8", None);
    let wire = serde_json::to_string(&wire::Diagnostic::from(&whole)).expect("it is JSON");
    expect![[r#"{"severity":"error","cause":"syntax","file":"web.yaml","message":"the file is not UTF-8"}"#]].assert_eq(&wire);
}

#[test]
fn columns_count_characters() {
    let source = Source::new("f", "é: x\nb");
    assert_eq!(source.position(4), (1, 4));
    assert_eq!(source.position(6), (2, 1));
    assert_eq!(source.position(1000), (2, 2));
    assert_eq!(Source::new("f", "").position(1), (1, 1));
}

/// Columns are counted by blocks; whoever counts from the start of the line must come to the same.
#[test]
fn columns_of_long_lines() {
    let text = "aé\u{1f600}".repeat(2000) + "\n" + &"é".repeat(3000);
    let source = Source::new("f", &text);
    for (at, _) in text.char_indices().chain([(text.len(), ' ')]) {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let expected = (1 + usize::from(line > 0), text[line..at].chars().count() + 1);
        assert_eq!(source.position(u32::try_from(at).expect("it is short")), expected);
    }
}
