use proptest::prelude::*;

use super::*;

#[test]
fn files_are_read_as_a_kubelet_reads_them() {
    let check = |text: &str, key: &str, wanted: Result<Option<&str>, &str>| {
        let found = parse(text, key);
        assert_eq!(
            found,
            wanted.map(|it| it.map(str::to_owned)).map_err(str::to_owned),
            "{text:?}"
        );
    };
    let at = |line: usize, why: &str| {
        format!("invalid environment variable format at line {line}: {why}")
    };
    let text =
        "   KEY1='val1'\n\t\tKEY2='val2'\r\n\n  # comment\nKEY3='a\nb # c\n'  # comment\nKEY1='x'";
    check(text, "KEY1", Ok(Some("val1")));
    check(text, "KEY2", Ok(Some("val2")));
    check(text, "KEY3", Ok(Some("a\nb # c\n")));
    check(text, "KEY4", Ok(None));
    check("", "A", Ok(None));
    check("A=''", "A", Ok(Some("")));
    check(r#"A='$B \n "c" =d'"#, "A", Ok(Some(r#"$B \n "c" =d"#)));
    check("A= 'x'\nA='y'", "A", Ok(None));
    check("A= 'x'\nB='y'", "B", Ok(Some("y")));
    // What comes after what was sought is not looked at.
    check("A='x'\nwrong", "A", Ok(Some("x")));
    check("A='x'\nwrong", "B", Err(&at(2, "missing '='")));
    check("='x'", "A", Err(&at(1, "empty variable name")));
    check("A ='x'", "A", Err(&at(1, "whitespace before '=' is not allowed")));
    for value in ["x", "\"x\"", "x'y'", ""] {
        let wanted = at(2, "value must be enclosed in single quotes");
        check(&format!("\nA={value}"), "B", Err(&wanted));
    }
    check("A='x\ny'z", "A", Err(&at(2, "unexpected content after closing quote")));
    let open = "invalid environment variable format starting at line 2: unclosed single quote";
    check("\nA='x\ny\n", "A", Err(open));
}

#[test]
fn what_is_missing_is_an_error_unless_it_need_not_be_there() {
    let file = EnvFile { volume: "v".into(), path: "f".into() };
    let check = |content: Result<&str, &str>, optional, wanted: Result<Option<&str>, &str>| {
        let content = content.map(|it| it.as_bytes().to_vec()).map_err(str::to_owned);
        let files = [(file.clone(), content)].into();
        let (volume_name, path, key) = ("v".into(), "f".into(), "A".into());
        let selector = FileKeySelector { volume_name, path, key, optional };
        let found = value(&selector, &files).map_err(|error| error.to_string());
        assert_eq!(found, wanted.map(|it| it.map(str::to_owned)).map_err(str::to_owned));
    };
    check(Ok("A='x'"), None, Ok(Some("x")));
    let missing = "environment variable key \"A\" not found in file \"f\" of volume \"v\"";
    for content in ["", "A=''", "A= 'x'"] {
        check(Ok(content), None, Err(missing));
        check(Ok(content), Some(false), Err(missing));
        check(Ok(content), Some(true), Ok(None));
    }
    let cannot = |why: &str| format!("couldn't parse env file \"f\" of volume \"v\": {why}");
    check(Err("gone"), Some(true), Err(&cannot("gone")));
    let wrong = cannot("invalid environment variable format at line 1: missing '='");
    check(Ok("x"), Some(true), Err(&wrong));
    let nul = cannot("a value has a NUL byte, which a variable cannot hold");
    check(Ok("A='\0'"), None, Err(&nul));
}

proptest! {
    /// Nothing in single quotes means anything, and no content makes it go wrong otherwise.
    #[test]
    fn quoted_values_are_kept_and_nothing_panics(
        value in "[^'\r]{0,40}", before in "([A-Z]='[^'\r]{0,9}'\n){0,3}", any in ".{0,60}",
    ) {
        let text = format!("{before}KEY='{value}'\n{any}");
        prop_assert_eq!(parse(&text, "KEY"), Ok(Some(value)));
        let _ = parse(&any, "KEY");
    }
}
