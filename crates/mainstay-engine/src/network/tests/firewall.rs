//! Other programs' packet filters: real ones.

use expect_test::{Expect, expect};
use mainstay_linux::nftables::Family;

use super::super::{Finding, Names, Network, Repair, Traffic};
use super::machine::*;

/// Traffic of all kinds.
fn everything_passes(machine: &Machine, network: &Network) {
    let a = Sandbox::start(network, "a", &[tcp(8080, 80)]);
    let b = Sandbox::start(network, "b", &[]);
    let (in_a, in_b) = (a.listen(80), b.listen(80));
    let outside = Place::In(&machine.outside);
    let far = outside.listen(443);
    seen_as(outside, HOST, 8080, &in_a);
    seen_as(Place::Host, HOST, 8080, &in_a);
    seen_as(b.place(), HOST, 8080, &in_a);
    assert_eq!(seen_as(a.place(), b.address(), 80, &in_b), a.address());
    assert_eq!(seen_as(a.place(), FAR, 443, &far), HOST);
    network.teardown("a").unwrap();
    network.teardown("b").unwrap();
    network.settle().unwrap();
}

/// Expects that connections out of and into a sandbox pass, or do not.
fn passes(machine: &Machine, network: &Network, out: bool, into: bool) {
    let sandbox = Sandbox::start(network, "probe", &[tcp(8888, 80)]);
    let inside = sandbox.listen(80);
    let outside = Place::In(&machine.outside);
    let far = outside.listen(444);
    for (passes, from, address, port, listener) in
        [(out, sandbox.place(), FAR, 444, &far), (into, outside, HOST, 8888, &inside)]
    {
        if passes {
            seen_as(from, address, port, listener);
        } else {
            assert!(!answers(from, address, port), "{address}:{port}");
        }
    }
    network.teardown("probe").unwrap();
    network.settle().unwrap();
}

fn bridge(machine: &Machine) -> String {
    Names::of(&machine.config("a").root_dir).bridge
}

/// What the checks tell of droppings, with the bridge's name replaced.
fn told(machine: &Machine, network: &Network, expected: &Expect) {
    let findings = network.check();
    let dropped = findings.iter().filter(|finding| matches!(finding, Finding::Dropped { .. }));
    let lines: String = dropped.map(|finding| format!("{finding}\n")).collect();
    let mut parts = lines.split("handle ");
    let first = parts.next().unwrap_or_default().to_owned();
    // The kernel's numbering is its own affair.
    let without_handles = parts.fold(first, |text, part| {
        format!("{text}handle N{}", part.trim_start_matches(|c: char| c.is_ascii_digit()))
    });
    expected.assert_eq(&without_handles.replace(&bridge(machine), "BRIDGE"));
}

/// Keeps the instance alive, as checks without sandboxes look at nothing.
fn with_a_sandbox(machine: &Machine) -> (Network, Sandbox) {
    let network = machine.open(&[]);
    let sandbox = Sandbox::start(&network, "resident", &[]);
    (network, sandbox)
}

#[test]
fn a_dropping_forward_policy_of_iptables_is_opened() {
    on_machine(|machine| {
        for bridged in [false, true] {
            machine.filter_bridged(bridged);
            let Some(_) = run("iptables", "-P FORWARD DROP") else { return };
            let (network, _resident) = with_a_sandbox(machine);
            let findings = network.check();
            let opened = Finding::Repaired(Repair::Opened(Family::Ip, "FORWARD".into()));
            assert!(findings.contains(&opened), "{findings:?}");
            everything_passes(machine, &network);
            let bridge = bridge(machine);
            // iptables understands the rules as its own.
            let listed = run("iptables", "-S FORWARD").unwrap();
            assert_eq!(
                listed,
                format!(
                    "-P FORWARD DROP\n-A FORWARD -o {bridge} -j ACCEPT\n\
                     -A FORWARD -i {bridge} -j ACCEPT\n"
                )
            );
            run("iptables", &format!("-C FORWARD -i {bridge} -j ACCEPT")).unwrap();
            run("iptables", &format!("-C FORWARD -o {bridge} -j ACCEPT")).unwrap();
            // A reload of the other program deletes them, and they come back.
            run("iptables", "-F FORWARD").unwrap();
            assert_eq!(network.check(), [opened]);
            assert_eq!(network.check(), []);
            everything_passes(machine, &network);
            network.remove_all().unwrap();
            assert_eq!(run("iptables", "-S FORWARD").unwrap(), "-P FORWARD DROP\n");
        }
    });
}

/// As Docker leaves it: its chain for users, and rules for its own bridge. Other tables of the
/// instance's neighbours stay as they are.
#[test]
fn docker_is_opened_in_its_chain_for_users() {
    on_machine(|machine| {
        let rules = [
            "-P FORWARD DROP",
            "-N DOCKER-USER",
            "-N DOCKER-FORWARD",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -j DOCKER-FORWARD",
            "-A DOCKER-USER -j RETURN",
            "-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A DOCKER-FORWARD -i docker0 -j ACCEPT",
        ];
        for rule in rules {
            let Some(_) = run("iptables", rule) else { return };
        }
        let before = run("iptables", "-S").unwrap();
        let network = machine.open(&[]);
        let other = Network::open(machine.config("b"), &[], &[]);
        let other_sandbox = Sandbox::start(&other, "other", &[tcp(9090, 80)]);
        let in_other = other_sandbox.listen(80);
        everything_passes(machine, &network);
        let users = run("iptables", "-S DOCKER-USER").unwrap();
        let bridge = bridge(machine);
        assert!(users.contains(&format!("-A DOCKER-USER -i {bridge} -j ACCEPT")), "{users}");
        assert_eq!(run("iptables", "-S FORWARD").unwrap().lines().count(), 3);
        network.remove_all().unwrap();
        seen_as(Place::In(&machine.outside), HOST, 9090, &in_other);
        other.remove_all().unwrap();
        assert_eq!(run("iptables", "-S").unwrap(), before);
    });
}

/// The chain for users is there, but nothing leads to it any more.
#[test]
fn a_deserted_docker_chain_is_not_relied_on() {
    on_machine(|machine| {
        for rule in ["-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN"] {
            let Some(_) = run("iptables", rule) else { return };
        }
        everything_passes(machine, &machine.open(&[]));
    });
}

/// As ufw makes it: its own chains are gone through first, and what is left is rejected.
#[test]
fn ufw_is_opened() {
    on_machine(|machine| {
        let rules = [
            "-P INPUT DROP",
            "-P FORWARD DROP",
            "-N ufw-before-forward",
            "-N ufw-reject-forward",
            "-A FORWARD -j ufw-before-forward",
            "-A FORWARD -j ufw-reject-forward",
            "-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A ufw-reject-forward -j REJECT",
            "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A INPUT -p tcp --dport 22 -j ACCEPT",
        ];
        for rule in rules {
            let Some(_) = run("iptables", rule) else { return };
        }
        let (network, resident) = with_a_sandbox(machine);
        everything_passes(machine, &network);
        // What the machine itself offers is its operator's business.
        told(
            machine,
            &network,
            &expect![[r#"
            chain INPUT of table ip filter probably drops connections from sandboxes to this machine (its policy is drop); to let them pass: iptables -I INPUT -i BRIDGE -j ACCEPT
        "#]],
        );
        let on_host = Place::Host.listen(7000);
        assert!(!answers(resident.place(), HOST, 7000));
        run("iptables", &format!("-I INPUT -i {} -j ACCEPT", bridge(machine))).unwrap();
        told(machine, &network, &expect![""]);
        seen_as(resident.place(), HOST, 7000, &on_host);
    });
}

#[test]
fn a_foreign_table_is_told_with_a_remedy_that_works() {
    on_machine(|machine| {
        let ruleset = "add table inet mine\n\
            add chain inet mine forward { type filter hook forward priority 0; policy drop; }\n\
            add rule inet mine forward ct state established,related accept\n\
            add rule inet mine forward iifname \"other0\" accept\n";
        if !nft(machine, ruleset) {
            return;
        }
        let (network, _resident) = with_a_sandbox(machine);
        passes(machine, &network, false, false);
        told(
            machine,
            &network,
            &expect![[r#"
            chain forward of table inet mine drops connections from sandboxes to other machines and connections from other machines to host ports (its policy is drop); to let them pass: nft insert rule inet mine forward iifname BRIDGE accept && nft insert rule inet mine forward oifname BRIDGE accept
        "#]],
        );
        let findings = network.check();
        let [Finding::Dropped { remedy, traffic, .. }] = &findings[..] else {
            panic!("{findings:?}")
        };
        assert_eq!(traffic, &[Traffic::Leaving, Traffic::Entering]);
        for command in remedy.split(" && ") {
            run("nft", command.strip_prefix("nft ").unwrap()).unwrap();
        }
        assert_eq!(network.check(), []);
        everything_passes(machine, &network);
    });
}

/// Rules that let only the one or the other pass are understood.
#[test]
fn foreign_rules_are_understood() {
    on_machine(|machine| {
        let bridge = bridge(machine);
        let ruleset = format!(
            "add table ip mine\n\
             add chain ip mine FORWARD {{ type filter hook forward priority 10; policy accept; }}\n\
             add chain ip mine ours\n\
             add rule ip mine FORWARD ct state invalid drop\n\
             add rule ip mine FORWARD ct state established,related counter accept\n\
             add rule ip mine FORWARD iifname \"{bridge}\" jump ours\n\
             add rule ip mine FORWARD log reject\n\
             add rule ip mine ours accept\n"
        );
        if !nft(machine, &ruleset) {
            return;
        }
        let (network, _resident) = with_a_sandbox(machine);
        passes(machine, &network, true, false);
        told(
            machine,
            &network,
            &expect![[r#"
                chain FORWARD of table ip mine drops connections from other machines to host ports (the rule with handle N in FORWARD); to let them pass: nft insert rule ip mine FORWARD iifname BRIDGE accept && nft insert rule ip mine FORWARD oifname BRIDGE accept
            "#]],
        );
        nft(machine, "insert rule ip mine FORWARD ct status dnat accept\n");
        assert_eq!(network.check(), []);
        everything_passes(machine, &network);
        nft(machine, "flush chain ip mine FORWARD\n");
        nft(machine, "add rule ip mine FORWARD iifname \"ms*\" drop\n");
        passes(machine, &network, false, false);
        told(
            machine,
            &network,
            &expect![[r#"
                chain FORWARD of table ip mine drops connections from sandboxes to other machines and connections from other machines to host ports (the rule with handle N in FORWARD); to let them pass: nft insert rule ip mine FORWARD iifname BRIDGE accept && nft insert rule ip mine FORWARD oifname BRIDGE accept
            "#]],
        );
        // Switched off, it drops nothing.
        nft(machine, "add table ip mine { flags dormant; }\n");
        assert_eq!(network.check(), []);
    });
}

/// The shape of firewalld's table: zones by link, and everything else rejected.
#[test]
fn firewalld_is_told() {
    on_machine(|machine| {
        let ruleset = "add table inet firewalld\n\
            add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }\n\
            add chain inet firewalld filter_FORWARD_ZONES\n\
            add rule inet firewalld filter_FORWARD ct state { established, related } accept\n\
            add rule inet firewalld filter_FORWARD ct status dnat accept\n\
            add rule inet firewalld filter_FORWARD iifname \"lo\" accept\n\
            add rule inet firewalld filter_FORWARD ct state invalid drop\n\
            add rule inet firewalld filter_FORWARD jump filter_FORWARD_ZONES\n\
            add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited\n";
        if !nft(machine, ruleset) {
            return;
        }
        let (network, _resident) = with_a_sandbox(machine);
        passes(machine, &network, false, true);
        told(
            machine,
            &network,
            &expect![[r#"
                chain filter_FORWARD of table inet firewalld probably drops connections from sandboxes to other machines (the rule with handle N in filter_FORWARD); to let them pass: firewall-cmd --permanent --zone=trusted --add-interface=BRIDGE && firewall-cmd --reload
            "#]],
        );
        let zone = format!(
            "insert rule inet firewalld filter_FORWARD_ZONES iifname \"{}\" accept\n",
            bridge(machine)
        );
        nft(machine, &zone);
        passes(machine, &network, true, true);
    });
}

/// As Docker does for a container that has the port of the machine.
#[test]
fn rules_of_others_do_not_lead_questions_elsewhere() {
    on_machine(|machine| {
        let ruleset = "add table ip nat\n\
            add chain ip nat PREROUTING { type nat hook prerouting priority -100; policy accept; }\n\
            add chain ip nat OUTPUT { type nat hook output priority -100; policy accept; }\n\
            add chain ip nat DOCKER\n\
            add rule ip nat PREROUTING fib daddr type local jump DOCKER\n\
            add rule ip nat OUTPUT fib daddr type local jump DOCKER\n";
        if !nft(machine, ruleset) {
            return;
        }
        let network = machine.open(&[]);
        let a = Sandbox::start(&network, "a", &[]);
        let b = Sandbox::start(&network, "b", &[]);
        let rule = format!("add rule ip nat DOCKER tcp dport 53 dnat to {}:53\n", b.address());
        nft(machine, &rule);
        let in_b = b.listen(53);
        seen_as(a.place(), a.gateway(), 53, &in_b);
        let (_udp, tcp) = resolver(&network, a.gateway());
        network.lead_questions(true).unwrap();
        for place in [a.place(), Place::Host] {
            seen_as(place, a.gateway(), 53, &tcp);
        }
        seen_as(a.place(), HOST, 53, &in_b);
    });
}

/// What lets translated connections pass to the machine lets questions pass, as firewalld does.
#[test]
fn questions_are_told_apart_from_what_else_the_machine_is_asked() {
    on_machine(|machine| {
        let ruleset = "add table inet mine\n\
            add chain inet mine input { type filter hook input priority 10; policy drop; }\n\
            add rule inet mine input ct state established,related accept\n";
        if !nft(machine, ruleset) {
            return;
        }
        let (network, resident) = with_a_sandbox(machine);
        let (_udp, tcp) = resolver(&network, resident.gateway());
        network.lead_questions(true).unwrap();
        network.check();
        let on_host = Place::Host.listen(7000);
        assert!(network.shut().is_some());
        assert!(!answers(resident.place(), resident.gateway(), 53));
        nft(machine, "add rule inet mine input ct status dnat accept\n");
        told(
            machine,
            &network,
            &expect![[r#"
            chain input of table inet mine drops connections from sandboxes to this machine (its policy is drop); to let them pass: nft insert rule inet mine input iifname BRIDGE accept
        "#]],
        );
        assert_eq!(network.shut(), None);
        assert!(!answers(resident.place(), resident.gateway(), 7000));
        seen_as(resident.place(), resident.gateway(), 53, &tcp);
        drop(on_host);
    });
}

#[test]
fn the_older_xtables_are_told() {
    on_machine(|machine| {
        let Some(_) = run("iptables-legacy", "-P FORWARD DROP") else { return };
        let (network, _resident) = with_a_sandbox(machine);
        passes(machine, &network, false, false);
        told(
            machine,
            &network,
            &expect![[r#"
            chain FORWARD of table xtables filter probably drops connections from sandboxes to other machines and connections from other machines to host ports (its policy is drop); to let them pass: iptables-legacy -I FORWARD -i BRIDGE -j ACCEPT && iptables-legacy -I FORWARD -o BRIDGE -j ACCEPT, or switch to iptables-nft
        "#]],
        );
        for direction in ["-i", "-o"] {
            let rule = format!("-I FORWARD {direction} {} -j ACCEPT", bridge(machine));
            run("iptables-legacy", &rule).unwrap();
        }
        told(machine, &network, &expect![""]);
        everything_passes(machine, &network);
    });
}

/// Runs commands of nft(8); false if it is not installed.
fn nft(machine: &Machine, commands: &str) -> bool {
    let file = machine.config("a").root_dir.join("commands.nft");
    std::fs::write(&file, commands).unwrap();
    run("nft", &format!("-f {}", file.display())).is_some()
}
