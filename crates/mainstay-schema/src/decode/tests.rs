//! The texts and results were compared with those of Kubernetes' own decoders.

#![expect(clippy::needless_pass_by_value, reason = "cases read better without references")]

use serde_json::{Value, json};

use super::{DecodeError, Decoded, from_patched, from_slice, from_value, json};
use crate::types;

/// As much of quantities as the cases need.
fn quantities(text: &str) -> Option<String> {
    match text {
        "1024Ki" => Some("1Mi".to_owned()),
        "0.5" => Some("500m".to_owned()),
        "x" => None,
        other => Some(other.to_owned()),
    }
}

fn decode(kind: &str, text: &str) -> Result<Decoded, DecodeError> {
    let of = types::kinds().filter(|(_, _, known)| *known == kind).last().unwrap();
    from_slice(text.as_bytes(), types::of(of.0, of.1, of.2).unwrap(), quantities)
}

#[track_caller]
fn reads(kind: &str, text: &str, expected: Value, problems: &[&str]) {
    let decoded = decode(kind, text).unwrap();
    assert_eq!(decoded.object, expected);
    assert_eq!(decoded.problems, problems);
}

#[track_caller]
fn fails(kind: &str, text: &str, expected: &str) {
    assert_eq!(decode(kind, text).unwrap_err().to_string(), expected);
}

#[test]
fn what_go_writes_comes_out() {
    reads(
        "Pod",
        r#"{"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "", "labels": {"x": null}, "creationTimestamp": null,
                         "annotations": {}, "finalizers": []},
            "spec": {"hostNetwork": false, "priority": 0, "nodeSelector": {}, "restartPolicy": null,
                     "containers": [{"name": "c", "ports": [null], "tty": true,
                                     "resources": {"limits": {"cpu": 0.5, "memory": "1024Ki"}}}]}}"#,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"x": ""}},
            "spec": {
                "priority": 0,
                "containers": [{
                    "name": "c", "ports": [{"containerPort": 0}], "tty": true,
                    "resources": {"limits": {"cpu": "500m", "memory": "1Mi"}},
                }],
            },
            "status": {},
        }),
        &[],
    );
    reads("Role", "{}", json!({"metadata": {}, "rules": null}), &[]);
    reads("Role", r#"{"rules": []}"#, json!({"metadata": {}, "rules": null}), &[]);
    reads(
        "Event",
        r#"{"note": "x", "eventTime": "2026-01-02T03:04:05.000006+01:00", "series": {}}"#,
        json!({
            "metadata": {}, "regarding": {}, "note": "x", "eventTime": "2026-01-02T02:04:05.000006Z",
            "series": {"count": 0, "lastObservedTime": null},
            "deprecatedSource": {}, "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": null,
        }),
        &[],
    );
}

#[test]
fn problems_come_in_the_order_of_the_text() {
    reads(
        "ConfigMap",
        r#"{"dta": {"a": 1}, "metadata": {"name": "a", "name": "b", "x": 1, "x": 2},
            "data": {"a": "1", "a": "2"}, "foo": [{"name": 1, "name": 2}]}"#,
        json!({"metadata": {"name": "b"}, "data": {"a": "2"}}),
        &[
            r#"unknown field "dta""#,
            r#"duplicate field "metadata.name""#,
            r#"unknown field "metadata.x""#,
            r#"duplicate field "data.a""#,
            r#"unknown field "foo""#,
        ],
    );
    reads(
        "Pod",
        r#"{"spec": {"containers": [{"name": "a"}, {"Image": "b", "ports": [{"port": 1}]}]}}"#,
        json!({
            "metadata": {},
            "spec": {"containers": [
                {"name": "a", "resources": {}},
                {"name": "", "resources": {}, "ports": [{"containerPort": 0}]},
            ]},
            "status": {},
        }),
        &[
            r#"unknown field "spec.containers[1].Image""#,
            r#"unknown field "spec.containers[1].ports[0].port""#,
        ],
    );
    let many: String = (0..200).map(|number| format!(r#""x{number}": 1,"#)).collect();
    let decoded = decode("ConfigMap", &format!("{{{many} \"y\": 1}}")).unwrap();
    assert_eq!(decoded.problems.len(), 100);
}

#[test]
fn wrong_types_have_gos_texts() {
    let container = |text: &str| format!(r#"{{"spec": {{"containers": [{{{text}}}]}}}}"#);
    let cases = [
        (
            container(r#""image": 5"#),
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
        ),
        (
            container(r#""ports": [{"containerPort": "x"}]"#),
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            container(r#""ports": [{"containerPort": 1.5}]"#),
            "json: cannot unmarshal number 1.5 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            container(r#""args": "x""#),
            "json: cannot unmarshal string into Go struct field Container.spec.containers.args of type []string",
        ),
        (
            container(r#""args": [true]"#),
            "json: cannot unmarshal bool into Go struct field Container.spec.containers.args of type string",
        ),
        (
            container(r#""livenessProbe": {"httpGet": {"port": true}}"#),
            "json: cannot unmarshal bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
        ),
        (
            container(r#""resources": {"limits": {"cpu": "x"}}"#),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            container(r#""resources": {"limits": []}"#),
            "json: cannot unmarshal array into Go struct field ResourceRequirements.spec.containers.resources.limits of type v1.ResourceList",
        ),
        (
            r#"{"spec": {"volumes": [{"emptyDir": []}]}}"#.to_owned(),
            "json: cannot unmarshal array into Go struct field Volume.spec.volumes.VolumeSource.emptyDir of type v1.EmptyDirVolumeSource",
        ),
        (
            r#"{"spec": {"containers": {}, "restartPolicy": 1}}"#.to_owned(),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec": {"restartPolicy": 1}}"#.to_owned(),
            "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            r#"{"metadata": {"labels": {"a": 1}}}"#.to_owned(),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"metadata": {"creationTimestamp": "2020"}}"#.to_owned(),
            r#"parsing time "2020" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "-""#,
        ),
        (
            r#"{"metadata": {"creationTimestamp": "2026-02-30T00:00:00Z"}}"#.to_owned(),
            r#"parsing time "2026-02-30T00:00:00Z": day out of range"#,
        ),
        (
            r#"{"metadata": {"creationTimestamp": 1}}"#.to_owned(),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        ("[]".to_owned(), "json: cannot unmarshal array into Go value of type v1.Pod"),
    ];
    for (text, expected) in cases {
        fails("Pod", &text, expected);
    }
    fails("Secret", r#"{"data": {"a": "Y!=="}}"#, "illegal base64 data at input byte 1");
    assert!(matches!(decode("Pod", "{\"spec\": "), Err(DecodeError::Syntax(_))));
    assert!(matches!(decode("Pod", "{} {}"), Err(DecodeError::Syntax(_))));
}

#[test]
fn times_and_bytes_are_canonical() {
    let time = |text: &str| {
        let text = format!(r#"{{"metadata": {{"creationTimestamp": "{text}"}}}}"#);
        decode("Pod", &text).unwrap().object["metadata"]["creationTimestamp"].clone()
    };
    assert_eq!(time("2026-01-01T00:30:00.75+02:00"), "2025-12-31T22:30:00Z");
    assert_eq!(time("2026-01-02T3:04:05Z"), "2026-01-02T03:04:05Z");
    assert_eq!(time("0001-01-01T00:00:00Z"), Value::Null);
    let bytes = |text: &str| decode("Secret", text).unwrap().object["data"].clone();
    assert_eq!(
        bytes(r#"{"data": {"a": "YR==", "b": "YWI\n=", "c": ""}}"#),
        json!({"a": "YQ==", "b": "YWI=", "c": ""})
    );
}

#[test]
fn patched_objects_have_the_converters_texts() {
    let of = types::of("", "v1", "Pod").unwrap();
    let text = |value: Value| from_patched(value, of, quantities).unwrap_err().to_string();
    let spec = |spec: Value| json!({ "spec": spec });
    assert_eq!(text(spec(json!({"restartPolicy": 1}))), "cannot convert int64 to v1.RestartPolicy");
    assert_eq!(text(spec(json!({"restartPolicy": []}))), "unrecognized type: string");
    assert_eq!(text(spec(json!({"containers": "x"}))), "cannot restore slice from string");
    assert_eq!(text(spec(json!({"nodeSelector": 1}))), "cannot restore map from int64");
    assert_eq!(text(spec(json!([]))), "cannot restore struct from: slice");
    assert_eq!(text(spec(json!({"priority": 1.5}))), "cannot convert float64 to int32");
    let decoded = from_patched(
        json!({"spec": {"priority": 1.0, "b": 1, "a\"": 2, "containers": null}}),
        of,
        quantities,
    );
    let decoded = decoded.unwrap();
    assert_eq!(decoded.object["spec"]["priority"], 1);
    assert_eq!(decoded.problems, [r#"unknown field "spec.a"""#, r#"unknown field "spec.b""#]);
}

#[test]
fn json_of_no_type_tells_duplicates() {
    let (value, duplicates) = json(br#"{"a": [{"b": 1, "b": 2}], "a": 3}"#).unwrap();
    assert_eq!(value, json!({"a": 3}));
    assert_eq!(duplicates, [r#"duplicate field "a[0].b""#, r#"duplicate field "a""#]);
}

#[test]
fn hostile_input_is_bounded() {
    let list = format!(r#"{{"spec": {{"containers": [{}{{}}]}}}}"#, "{},".repeat(300_000));
    assert_eq!(decode("Pod", &list), Err(DecodeError::TooLarge));
    let nested = format!(r#"{{"data": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(decode("ControllerRevision", &nested), Err(DecodeError::Syntax(_))));
    let unknown = format!(r#"{{"x": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode("ConfigMap", &unknown).is_ok());
}

proptest::proptest! {
    #[test]
    fn decoding_again_changes_nothing(text in "[ -~\n]{0,12}", number in -3_i64..5_000_000_000) {
        let of = types::of("", "v1", "Pod").unwrap();
        let value = json!({
            "metadata": {"name": text, "labels": {"a": text}, "generation": number},
            "spec": {"containers": [{"name": text, "args": [text, ""]}], "hostname": text},
        });
        let once = from_value(value, of, quantities).unwrap();
        let twice = from_value(once.object.clone(), of, quantities).unwrap();
        proptest::prop_assert_eq!(once.object, twice.object);
    }

    #[test]
    fn no_text_stops_the_reader(text in "[\\[\\]{}:,\"a0-9.enul-]{0,40}") {
        for kind in ["Pod", "Secret", "ControllerRevision"] {
            let _ = decode(kind, &text);
        }
        let _ = json(text.as_bytes());
    }
}
