use http::{HeaderName, HeaderValue};

use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().map(|it| (*it).to_owned()).collect();
    User { name: name.to_owned(), groups, ..User::default() }
}

#[test]
fn what_headers_ask_for() {
    let mut found = headers(&[
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "devs"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Uid", "42"),
        ("Impersonate-Extra-Scopes", "view"),
        ("Impersonate-Extra-scopes", "edit"),
        ("Impersonate-Extra-Acme.io%2fProject", "x"),
        ("Impersonate-Extra-a%zz", "y"),
        ("Accept", "*/*"),
    ]);
    let wanted = requested(&mut found).unwrap().unwrap();
    assert_eq!((wanted.name.as_str(), wanted.uid.as_str()), ("jane", "42"));
    assert_eq!(wanted.groups, ["devs", "ops"]);
    let extra: Vec<_> =
        wanted.extra.iter().map(|(key, values)| format!("{key}={values:?}")).collect();
    assert_eq!(extra, ["a%zz=[\"y\"]", "acme.io/project=[\"x\"]", "scopes=[\"view\", \"edit\"]"]);
    assert_eq!(found.len(), 1);
    assert_eq!(requested(&mut headers(&[("accept", "*/*")])).unwrap(), None);
    let without =
        requested(&mut headers(&[("impersonate-group", "a"), ("impersonate-extra-k", "v")]));
    let error = without.unwrap_err();
    assert_eq!(error.code, 400);
    assert_eq!(
        error.message,
        "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"a\"}, \
         Extra:map[string][]string{\"k\":[]string{\"v\"}}} without impersonating a user name"
    );
}

/// What somebody may do, as `VERB [GROUP/]RESOURCE[/SUBRESOURCE] NAME`.
fn ask(sender: &User, wanted: &User, rights: &[&str]) -> std::result::Result<Vec<String>, String> {
    let decide = |attributes: &Attributes<'_>| {
        let Attributes { verb, group, resource, subresource, namespace, name, .. } = *attributes;
        let mut what = format!("{verb} ");
        for part in [group, namespace] {
            if !part.is_empty() {
                what.push_str(&format!("{part}/"));
            }
        }
        what.push_str(resource);
        if !subresource.is_empty() {
            what.push_str(&format!("/{subresource}"));
        }
        what.push_str(&format!(" {name}"));
        match rights.contains(&what.trim()) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion(String::new()),
        }
    };
    let request = Attributes {
        user: sender,
        verb: "list",
        group: "",
        resource: "pods",
        subresource: "",
        namespace: "",
        name: "",
        path: "/api/v1/pods",
        is_resource: true,
        fields: &[],
        labels: &[],
    };
    match impersonate(wanted, &request, &decide) {
        Ok(user) => Ok(user.groups),
        Err(error) => Err(error.message),
    }
}

#[test]
fn the_old_way() {
    let sender = user("joe", &["system:authenticated"]);
    let all = [
        "impersonate users jane",
        "impersonate groups devs",
        "impersonate authentication.k8s.io/uids 42",
        "impersonate authentication.k8s.io/userextras/scopes view",
    ];
    let mut wanted = user("jane", &["devs"]);
    wanted.uid = "42".to_owned();
    wanted.extra.insert("scopes".to_owned(), vec!["view".to_owned()]);
    assert_eq!(ask(&sender, &wanted, &all).unwrap(), ["devs", "system:authenticated"]);
    for left_out in 0..all.len() {
        let mut rights = all.to_vec();
        rights.remove(left_out);
        assert!(ask(&sender, &wanted, &rights).is_err(), "without {}", all[left_out]);
    }
    // Nobody gets more groups than he asks for.
    let account = "system:serviceaccount:web:shop";
    for (wanted, right, expected) in [
        (user("jane", &[]), "impersonate users jane", vec!["system:authenticated"]),
        (
            user("system:anonymous", &[]),
            "impersonate users system:anonymous",
            vec!["system:unauthenticated"],
        ),
        (
            user(account, &[]),
            "impersonate web/serviceaccounts shop",
            vec!["system:serviceaccounts", "system:serviceaccounts:web", "system:authenticated"],
        ),
        (
            user("system:node:n1", &[]),
            "impersonate users system:node:n1",
            vec!["system:authenticated"],
        ),
    ] {
        assert_eq!(ask(&sender, &wanted, &[right]).unwrap(), expected, "{}", wanted.name);
    }
    let rights = ["impersonate users jane", "impersonate groups system:unauthenticated"];
    let groups = ask(&sender, &user("jane", &["system:unauthenticated"]), &rights);
    assert_eq!(groups.unwrap(), ["system:unauthenticated"]);
    let masters = ["impersonate users jane", "impersonate groups system:masters"];
    assert!(ask(&sender, &user("jane", &["system:masters"]), &masters).is_ok());
}

#[test]
fn the_new_ways() {
    let sender = user("joe", &["system:authenticated"]);
    let on = "impersonate-on:user-info:list pods";
    let jane = "impersonate:user-info authentication.k8s.io/users jane";
    let group = "impersonate:user-info authentication.k8s.io/groups";
    let devs = &*format!("{group} devs");
    assert_eq!(ask(&sender, &user("jane", &[]), &[on, jane]).unwrap(), ["system:authenticated"]);
    assert!(ask(&sender, &user("jane", &[]), &[jane]).is_err());
    assert!(ask(&sender, &user("jane", &[]), &[on]).is_err());
    assert!(ask(&sender, &user("jane", &["devs"]), &[on, jane]).is_err());
    assert!(ask(&sender, &user("jane", &["devs"]), &[on, jane, devs]).is_ok());
    // Many groups can be allowed at once, but nobody becomes a master.
    let any = &*format!("{group} *");
    assert!(ask(&sender, &user("jane", &["a", "b", "c", "d"]), &[on, jane, any]).is_ok());
    assert!(ask(&sender, &user("jane", &["a", "b", "c"]), &[on, jane, any]).is_err());
    let masters = &*format!("{group} system:masters");
    let error = ask(&sender, &user("jane", &["system:masters"]), &[on, jane, any, masters]);
    assert_eq!(
        error.unwrap_err(),
        "groups.authentication.k8s.io \"system:masters\" is forbidden: User \"joe\" cannot \
         impersonate:user-info resource \"groups\" in API group \"authentication.k8s.io\" at the cluster \
         scope: impersonating the system:masters group is not allowed"
    );
    let node = "system:node:n1";
    let rights = [
        "impersonate-on:arbitrary-node:list pods",
        "impersonate:arbitrary-node authentication.k8s.io/nodes n1",
    ];
    let groups = ask(&sender, &user(node, &[]), &rights).unwrap();
    assert_eq!(groups, ["system:nodes", "system:authenticated"]);
    let rights = [
        "impersonate-on:serviceaccount:list pods",
        "impersonate:serviceaccount authentication.k8s.io/web/serviceaccounts shop",
    ];
    let account = user("system:serviceaccount:web:shop", &[]);
    assert_eq!(ask(&sender, &account, &rights).unwrap().len(), 3);
    // A pod as the node that it is on.
    let mut pod = account;
    let key = "authentication.kubernetes.io/node-name".to_owned();
    pod.extra.insert(key, vec!["n1".to_owned()]);
    let rights = [
        "impersonate-on:associated-node:list pods",
        "impersonate:associated-node authentication.k8s.io/nodes *",
    ];
    assert!(ask(&pod, &user(node, &[]), &rights).is_ok());
    assert!(ask(&pod, &user("system:node:n2", &[]), &rights).is_err());
    assert!(ask(&sender, &user(node, &[]), &rights).is_err());
}

#[test]
fn the_refusal_is_that_of_the_first_way() {
    let sender = user("joe", &["system:authenticated"]);
    for (wanted, verb) in [
        (user("jane", &[]), "impersonate-on:user-info:list"),
        (user("system:node:n1", &[]), "impersonate-on:arbitrary-node:list"),
        (user("system:serviceaccount:web:shop", &[]), "impersonate-on:serviceaccount:list"),
    ] {
        assert_eq!(
            ask(&sender, &wanted, &[]).unwrap_err(),
            format!(
                "pods is forbidden: User \"joe\" cannot {verb} resource \"pods\" in API group \"\" at \
                 the cluster scope"
            )
        );
    }
    let error = ask(&sender, &user("system:node:n1", &["devs"]), &[]).unwrap_err();
    assert_eq!(
        error,
        "users \"system:node:n1\" is forbidden: User \"joe\" cannot impersonate resource \"users\" in API \
         group \"\" at the cluster scope"
    );
}

#[test]
fn extra_that_nobody_may_have() {
    for (key, values, fit) in [
        ("acme.io/project", vec!["x"], true),
        ("acme.io/project", vec![""], false),
        ("acme.io/project", vec![], false),
        ("acme.io/Project", vec!["x"], false),
        ("scopes", vec!["x"], false),
        ("", vec!["x"], false),
        ("acme.io/", vec!["x"], false),
    ] {
        let values: Vec<String> = values.into_iter().map(str::to_owned).collect();
        assert_eq!(unfit(key, &values).is_none(), fit, "{key} {values:?}");
    }
}
