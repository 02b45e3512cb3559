use k8s_openapi::api::core::v1::ContainerStatus;
use mainstay_cri::ContainerId;
use serde_json::json;

use super::container_of;

fn check(status: serde_json::Value, previous: bool, expected: Result<&str, &str>) {
    let mut status = status;
    let fields =
        json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0});
    status.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let status: ContainerStatus = serde_json::from_value(status).unwrap();
    let got = container_of("web", "c", Some(&status), previous);
    let expected = expected.map(|id| ContainerId(id.into())).map_err(str::to_owned);
    assert_eq!(got, expected, "{status:?}");
}

#[test]
fn the_run_that_is_meant_follows_from_the_status() {
    let now = "2026-01-02T03:04:05Z";
    let running = json!({"running": {"startedAt": now}});
    let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let here = "mainstay://new";
    check(json!({"state": running, "containerID": here}), false, Ok("new"));
    check(
        json!({"state": running, "containerID": here}),
        true,
        Err("previous terminated container \"c\" in pod \"web\" not found"),
    );
    let restarted =
        json!({"state": running, "containerID": here, "lastState": ended("mainstay://old")});
    check(restarted.clone(), true, Ok("old"));
    check(restarted, false, Ok("new"));
    check(json!({"state": ended(here)}), false, Ok("new"));
    check(json!({"state": ended(""), "lastState": ended("mainstay://old")}), false, Ok("old"));
    check(json!({"state": ended("")}), false, Err("container \"c\" in pod \"web\" is terminated"));
    let backing_off = waiting("CrashLoopBackOff");
    check(json!({"state": backing_off, "lastState": ended("mainstay://old")}), false, Ok("old"));
    for (reason, text) in [
        ("ErrImagePull", "image can't be pulled"),
        ("ImagePullBackOff", "trying and failing to pull image"),
        ("ContainerCreating", "ContainerCreating"),
    ] {
        let text = format!("container \"c\" in pod \"web\" is waiting to start: {text}");
        check(json!({"state": waiting(reason)}), false, Err(&text));
    }
    let text = "container \"c\" in pod \"web\" is waiting to start - no logs yet";
    check(json!({}), false, Err(text));
    let none = container_of("web", "c", None, false);
    assert_eq!(none, Err("container \"c\" in pod \"web\" is not available".to_owned()));
}
