use serde_json::json;

use super::*;

fn service(name: &str, spec: &Value) -> Object {
    Object::from_json(json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec }))
}

fn give(new: &mut Object, old: Option<&Object>, others: &[Object]) -> Result<(), Refused> {
    let taken = Taken::by(others, new);
    allocate(new, old, ServiceRange::default(), taken, &mut |_| 0)
}

#[test]
fn a_range_has_a_first_address_and_ends() {
    let range = ServiceRange::default();
    assert_eq!(range.first(), Ipv4Addr::new(10, 96, 0, 1));
    assert_eq!(range.to_string(), "10.96.0.0/12");
    assert!(range.contains(Ipv4Addr::new(10, 111, 255, 254)));
    for outside in [[10, 96, 0, 0], [10, 111, 255, 255], [10, 112, 0, 1], [10, 95, 255, 255]] {
        assert!(!range.contains(outside.into()), "{outside:?}");
    }
}

#[test]
fn nobody_gets_what_others_have() {
    let spec = json!({ "type": "NodePort", "ports": [{ "port": 80, "protocol": "TCP" }] });
    let mut services: Vec<Object> = Vec::new();
    for name in ["a", "b", "c"] {
        let mut new = service(name, &spec);
        give(&mut new, None, &services).unwrap();
        services.push(new);
    }
    let addresses: BTreeSet<&str> =
        services.iter().map(|it| it.str_at(&["spec", "clusterIP"])).collect();
    let ports: BTreeSet<i64> = services.iter().flat_map(super::super::node_ports).collect();
    assert_eq!((addresses.len(), ports.len()), (3, 3));
}

#[test]
fn a_change_keeps_what_was_given() {
    let spec = json!({ "type": "NodePort", "ports": [{ "port": 80, "name": "a" }] });
    let mut old = service("a", &spec);
    give(&mut old, None, &[]).unwrap();
    let mut new = service("a", &spec);
    give(&mut new, Some(&old), &[old.clone()]).unwrap();
    assert_eq!(new, old);
}

#[test]
fn what_is_taken_or_outside_is_refused() {
    let mut one = service("one", &json!({ "type": "ClusterIP", "clusterIP": "10.96.0.9" }));
    give(&mut one, None, &[]).unwrap();
    for (address, part) in
        [("10.96.0.9", "already allocated"), ("10.1.0.1", "not in the valid range")]
    {
        let mut other = service("other", &json!({ "type": "ClusterIP", "clusterIP": address }));
        let Err(Refused::Fields(errors)) = give(&mut other, None, &[one.clone()]) else {
            panic!("{address} was given");
        };
        assert!(errors[0].message.contains(part), "{errors:?}");
    }
    let ports = json!([{ "port": 1, "nodePort": 80 }]);
    let mut low = service("low", &json!({ "type": "NodePort", "ports": ports }));
    assert!(matches!(give(&mut low, None, &[]), Err(Refused::Fields(_))));
}

#[test]
fn one_port_of_two_protocols_has_one_node_port() {
    let ports = json!([{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" }]);
    let mut new = service("dns", &json!({ "type": "NodePort", "ports": ports }));
    give(&mut new, None, &[]).unwrap();
    assert_eq!(super::super::node_ports(&new), [30_000, 30_000]);
}

#[test]
fn headless_ones_have_no_address() {
    let mut new = service("h", &json!({ "type": "ClusterIP", "clusterIP": "None" }));
    give(&mut new, None, &[]).unwrap();
    assert_eq!(new.at(&["spec", "clusterIPs"]), Some(&json!(["None"])));
    assert_eq!(new.at(&["spec", "ipFamilies"]), Some(&json!(["IPv4", "IPv6"])));
}
