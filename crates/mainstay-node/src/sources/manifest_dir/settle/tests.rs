use super::*;

/// Events as (milliseconds, event); returns orders as (milliseconds, name, order).
fn play(events: &[(u64, Heard)]) -> Vec<(u128, String, Order)> {
    let start = Instant::now();
    let mut settle = Settle::default();
    let mut orders = Vec::new();
    let mut rest = events;
    let mut now = start;
    loop {
        // What happens at one moment is heard together.
        let until = rest.iter().take_while(|(at, _)| start + Duration::from_millis(*at) <= now);
        let heard: Vec<Heard> = until.map(|(_, event)| event.clone()).collect();
        rest = &rest[heard.len()..];
        settle.hear(&heard, now);
        for (name, order) in settle.take_due(now) {
            orders.push((now.duration_since(start).as_millis(), name, order));
        }
        let next = rest.first().map(|(at, _)| start + Duration::from_millis(*at));
        match next.into_iter().chain(settle.next_due()).min() {
            Some(later) => now = later,
            None => return orders,
        }
    }
}

fn order(at: u128, name: &str, order: Order) -> (u128, String, Order) {
    (at, name.to_owned(), order)
}

fn named(event: fn(String) -> Heard, name: &str) -> Heard {
    event(name.to_owned())
}

fn closed(name: &str) -> Heard {
    named(|name| Heard::Closed { name }, name)
}

fn touched(name: &str) -> Heard {
    named(|name| Heard::Touched { name }, name)
}

#[test]
fn a_file_that_is_renamed_into_place_is_read_at_once() {
    let events = [
        (0, touched("web.yaml.tmp")),
        (5, closed("web.yaml.tmp")),
        (6, Heard::MovedFrom { name: "web.yaml.tmp".into(), cookie: 1 }),
        (6, Heard::MovedTo { name: "web.yaml".into(), cookie: 1 }),
    ];
    assert_eq!(play(&events)[..1], [order(6, "web.yaml", Order::Read)]);
}

#[test]
fn a_file_that_is_written_in_pieces_is_read_when_it_is_left_alone() {
    let events = [
        (0, touched("a.yaml")),
        (10, closed("a.yaml")),
        (100, touched("a.yaml")),
        (150, touched("a.yaml")),
        (160, closed("a.yaml")),
    ];
    assert_eq!(play(&events), [order(360, "a.yaml", Order::Read)]);
}

#[test]
fn a_change_of_rights_holds_nothing_up() {
    let changed = Heard::Attributes { name: "a.yaml".into() };
    let events = [(0, touched("a.yaml")), (10, closed("a.yaml")), (20, changed.clone())];
    assert_eq!(play(&events), [order(210, "a.yaml", Order::Read)]);
    assert_eq!(play(&[(0, changed)]), [order(200, "a.yaml", Order::Read)]);
}

#[test]
fn a_file_that_stays_open_is_read_in_the_end() {
    assert_eq!(play(&[(0, touched("a.yaml"))]), [order(1000, "a.yaml", Order::Read)]);
}

#[test]
fn a_removed_file_is_dropped_at_once() {
    let events = [(0, closed("a.yaml")), (50, Heard::Removed { name: "a.yaml".into() })];
    assert_eq!(play(&events), [order(50, "a.yaml", Order::Drop)]);
}

/// As vim saves: the old version is put aside, the new one is written, the old one removed.
#[test]
fn an_editor_that_puts_the_old_version_aside_drops_nothing() {
    let events = [
        (0, touched("4913")),
        (1, Heard::Removed { name: "4913".into() }),
        (2, Heard::MovedFrom { name: "a.yaml".into(), cookie: 7 }),
        (2, Heard::MovedTo { name: "a.yaml~".into(), cookie: 7 }),
        (3, touched("a.yaml")),
        (40, closed("a.yaml")),
        (41, Heard::Removed { name: "a.yaml~".into() }),
    ];
    let of_file: Vec<_> =
        play(&events).into_iter().filter(|(_, name, _)| name == "a.yaml").collect();
    assert_eq!(of_file, [order(240, "a.yaml", Order::Read)]);
}

#[test]
fn a_file_that_was_put_aside_for_good_is_dropped() {
    let events = [
        (0, Heard::MovedFrom { name: "a.yaml".into(), cookie: 7 }),
        (0, Heard::MovedTo { name: "a.yaml.bak".into(), cookie: 7 }),
    ];
    let of_file: Vec<_> =
        play(&events).into_iter().filter(|(_, name, _)| name == "a.yaml").collect();
    assert_eq!(of_file, [order(1000, "a.yaml", Order::Drop)]);
}

#[test]
fn a_renamed_manifest_is_dropped_and_read_in_one_go() {
    let events = [
        (0, Heard::MovedFrom { name: "b.yaml".into(), cookie: 7 }),
        (0, Heard::MovedTo { name: "a.yaml".into(), cookie: 7 }),
    ];
    assert_eq!(play(&events), [order(0, "a.yaml", Order::Read), order(0, "b.yaml", Order::Drop)]);
}

#[test]
fn a_rename_whose_halves_are_heard_apart_is_one_thing_all_the_same() {
    let from = |name: &str| Heard::MovedFrom { name: name.into(), cookie: 7 };
    let to = |name: &str| Heard::MovedTo { name: name.into(), cookie: 7 };
    assert_eq!(
        play(&[(0, from("b.yaml")), (1, to("a.yaml"))]),
        [order(1, "a.yaml", Order::Read), order(1, "b.yaml", Order::Drop)]
    );
    // Put aside by an editor.
    let events = [(0, from("a.yaml")), (1, to("a.yaml~")), (60, closed("a.yaml"))];
    let of_file: Vec<_> =
        play(&events).into_iter().filter(|(_, name, _)| name == "a.yaml").collect();
    assert_eq!(of_file, [order(260, "a.yaml", Order::Read)]);
    // What has been written anew meanwhile is not dropped.
    let events = [(0, from("b.yaml")), (1, closed("b.yaml")), (2, to("a.yaml"))];
    assert_eq!(play(&events), [order(2, "a.yaml", Order::Read), order(201, "b.yaml", Order::Read)]);
}

#[test]
fn a_file_that_is_renamed_to_somewhere_else_is_dropped_a_little_later() {
    let events = [(0, Heard::MovedFrom { name: "a.yaml".into(), cookie: 7 })];
    assert_eq!(play(&events), [order(50, "a.yaml", Order::Drop)]);
}
