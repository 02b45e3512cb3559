//! The packet filter, kept as it must be: our table, and a way through those of others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;

use mainstay_linux::netlink;
use mainstay_linux::nftables::{
    Batch, Chain, Comparison, Element, Expression, Family, Meta, NftablesSocket, Policy, Register,
    Rule, Table, Verdict, legacy_forward,
};

use super::finding::{Finding, Repair, Traffic};
use super::firewall::{self, Dropping, Others};
use super::ruleset::{self, Elements, MAPS, Territory};
use super::{IpFamily, NetworkError};

/// Frames between ports of a bridge go through the hooks of IPv4, too, if this says 1, and of IPv6;
/// the files are there while the module br_netfilter is.
const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const BRIDGED6: &str = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";

/// The table and the chains that iptables-nft writes for each kind of addresses, and the one in which Docker wants to find
/// what its users add. Source: docs.docker.com, "Packet filtering and firewalls".
const FILTER: &str = "filter";
const FORWARD: &str = "FORWARD";
const DOCKER_USER: &str = "DOCKER-USER";

/// How often the rules are read again because they were changed, by us or by others.
const PASSES: u32 = 4;

/// The packet filter of one instance.
#[derive(Debug)]
pub(super) struct Filter {
    table: String,
    bridge: String,
    kernel: Kernel,
    /// The generation of the rules at which all was well.
    verified: Option<u32>,
    /// What was not well in spite of that, in other programs' tables.
    dropped: Vec<Finding>,
    /// What has not been told yet.
    untold: Vec<Finding>,
    /// Whether the table has been made: until then its absence is no damage.
    made: bool,
    /// What the rules were made for last.
    territory: Option<Territory>,
    /// How often the table was written as a whole.
    written: u64,
}

/// The way to the kernel.
///
/// The socket is opened at the first need and then kept, because closing a netfilter socket waits
/// for the grace periods of what anybody deleted shortly before. Source:
/// `net/netfilter/nf_tables_api.c`, nft_rcv_nl_event.
#[derive(Debug)]
struct Kernel {
    table: String,
    socket: Option<NftablesSocket>,
}

type Rules = BTreeMap<(Family, String), Vec<Rule>>;

impl Filter {
    /// `made` says that the table should be there already.
    pub(super) fn new(table: &str, bridge: &str, made: bool) -> Self {
        Self {
            table: table.into(),
            bridge: bridge.into(),
            kernel: Kernel { table: table.into(), socket: None },
            verified: None,
            dropped: Vec::new(),
            untold: Vec::new(),
            made,
            territory: None,
            written: 0,
        }
    }

    /// Takes in that the table is to be another one than the agent before had.
    pub(super) fn outdate(&mut self) {
        self.made = false;
    }

    /// Sees to it that the table holds exactly the rules and these elements, and that others let
    /// traffic pass where that is ours to arrange.
    ///
    /// Costs one request if nobody changed any rule since the last time.
    pub(super) fn ensure(
        &mut self,
        territory: &Territory,
        elements: &Elements,
    ) -> Result<(), NetworkError> {
        let told = self.territory.as_ref() != Some(territory);
        if told {
            self.verified = None;
        }
        for _ in 0..PASSES {
            let generation = self.kernel.generation()?;
            if self.verified == Some(generation) {
                return Ok(());
            }
            let changed =
                self.restore(territory, elements, told)? || self.open_others(territory)?;
            if !changed {
                self.territory = Some(territory.clone());
                self.verified = Some(generation);
                return Ok(());
            }
        }
        // Somebody keeps changing rules; what was read last is true enough until the next time.
        self.verified = None;
        Ok(())
    }

    /// Adds elements to a table that was just ensured.
    pub(super) fn add(&mut self, elements: &Elements) -> Result<(), NetworkError> {
        self.change("add host ports", elements, |batch, table, map, elements| {
            batch.add_elements(Family::Inet, table, map, elements);
        })
    }

    /// Deletes elements; those that are gone already do no harm.
    pub(super) fn delete(&mut self, elements: &Elements) -> Result<(), NetworkError> {
        let delete = |batch: &mut Batch, table: &str, map: &str, elements: &[Element]| {
            batch.delete_elements(Family::Inet, table, map, elements);
        };
        match self.change("delete host ports", elements, delete) {
            Err(NetworkError::Filter { source, .. }) if source.is_not_found() => {
                // One of them is gone, or the table: keep to those that are there.
                let Some(there) = self.kernel.elements()? else { return Ok(()) };
                let mut there = there.iter();
                let rest = elements.each_ref().map(|wanted| {
                    there.next().map(|there| intersection(wanted, there)).unwrap_or_default()
                });
                self.change("delete host ports", &rest, delete)
            }
            result => result,
        }
    }

    /// Takes away everything that this instance has in the packet filter.
    pub(super) fn remove(&mut self) -> Result<(), NetworkError> {
        let tables = self.kernel.tables()?;
        let mut batch = Batch::new();
        if tables.iter().any(|table| is_table(table, Family::Inet, &self.table)) {
            batch.delete_table(Family::Inet, &self.table);
        }
        for family in [Family::Ip, Family::Ip6] {
            if !tables.iter().any(|table| is_table(table, family, FILTER)) {
                continue;
            }
            let rules = self.kernel.rules(family, FILTER)?;
            let ours = accepting(&self.bridge);
            for rule in rules.iter().filter(|rule| ours.contains(&rule.expressions)) {
                batch.delete_rule(family, FILTER, &rule.chain, rule.handle);
            }
        }
        self.made = false;
        self.verified = None;
        self.territory = None;
        self.dropped.clear();
        self.kernel.commit("delete everything", batch)
    }

    /// What is wrong now, and what was put right since the last time this was asked.
    pub(super) fn findings(&mut self) -> Vec<Finding> {
        let mut findings = std::mem::take(&mut self.untold);
        findings.extend(self.dropped.iter().cloned());
        if let Some(territory) = self.territory.as_ref().filter(|_| self.made) {
            let families = territory.ranges.families();
            findings.extend(families.filter_map(|family| legacy(family, &self.bridge)));
        }
        findings
    }

    /// How often the table was written as a whole.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// What other programs' tables drop, as it was found last.
    pub(super) fn dropped(&self) -> &[Finding] {
        &self.dropped
    }

    fn change(
        &mut self,
        step: &'static str,
        elements: &Elements,
        change: impl Fn(&mut Batch, &str, &str, &[Element]),
    ) -> Result<(), NetworkError> {
        let mut batch = Batch::new();
        for (map, elements) in MAPS.iter().zip(elements) {
            change(&mut batch, &self.table, map.name, elements);
        }
        if batch.is_empty() {
            return Ok(());
        }
        // Each batch counts the generation up by one: if it is that one, nobody else changed
        // anything meanwhile.
        let ours = self.verified.take().map(|verified| verified.wrapping_add(1));
        self.kernel.commit(step, batch)?;
        let now = self.kernel.generation()?;
        self.verified = ours.filter(|ours| *ours == now);
        Ok(())
    }

    /// Puts our table right; tells whether anything had to be done.
    ///
    /// Replacing it as a whole disturbs nothing that runs: translated connections are remembered
    /// elsewhere, and the batch takes effect at one moment.
    ///
    /// `told` says that it is we who want other rules now.
    fn restore(
        &mut self,
        territory: &Territory,
        wanted: &Elements,
        told: bool,
    ) -> Result<bool, NetworkError> {
        let there = self.kernel.elements()?;
        let intact = there.is_some() && self.is_intact(territory)?;
        let batch = match there {
            Some(there) if intact => {
                let mut batch = Batch::new();
                for ((map, there), wanted) in MAPS.iter().zip(&there).zip(wanted) {
                    let (table, family) = (&self.table, Family::Inet);
                    batch.delete_elements(family, table, map.name, &difference(there, wanted));
                    batch.add_elements(family, table, map.name, &difference(wanted, there));
                }
                batch
            }
            _ => {
                self.written += 1;
                ruleset::replace(&self.table, &self.bridge, territory, wanted)
            }
        };
        let changed = !batch.is_empty();
        self.kernel.commit("write the rules", batch)?;
        let expected = told && self.territory.is_some();
        if changed && self.made && !expected {
            self.untold.push(Finding::Repaired(Repair::Table));
        }
        self.made = true;
        Ok(changed)
    }

    /// Whether our chains and rules are as they should be.
    fn is_intact(&mut self, territory: &Territory) -> Result<bool, NetworkError> {
        let mut chains = self.kernel.chains()?;
        chains.retain(|chain| chain.family == Family::Inet && chain.table == self.table);
        let wanted = ruleset::chains(&self.table);
        if chains.len() != wanted.len() || !wanted.iter().all(|chain| chains.contains(chain)) {
            return Ok(false);
        }
        let rules = self.kernel.rules(Family::Inet, &self.table)?;
        let wanted = ruleset::rules(&self.bridge, territory);
        let in_chain = |rules: &[Rule], chain: &Chain| -> Vec<_> {
            let rules = rules.iter().filter(|rule| rule.chain == chain.name);
            rules.map(|rule| (rule.expressions.clone(), rule.comment.clone())).collect()
        };
        Ok(chains.iter().all(|chain| in_chain(&rules, chain) == in_chain(&wanted, chain)))
    }

    /// Looks for other programs' chains that drop our traffic, and opens the one that may be
    /// opened; tells whether it did.
    fn open_others(&mut self, territory: &Territory) -> Result<bool, NetworkError> {
        let tables = self.kernel.tables()?;
        let mut chains = self.kernel.chains()?;
        chains.retain(|chain| {
            let mut tables = tables.iter().filter(|table| !table.dormant);
            tables.any(|table| is_table(table, chain.family, &chain.table))
        });
        let families: Vec<_> = territory.ranges.families().collect();
        let matters = |chain: &Chain| families.iter().any(|it| firewall::matters(chain, *it));
        let mut rules = Rules::new();
        for chain in chains.iter().filter(|chain| matters(chain)) {
            let key = (chain.family, chain.table.clone());
            if let Entry::Vacant(entry) = rules.entry(key) {
                entry.insert(self.kernel.rules(chain.family, &chain.table)?);
            }
        }
        let mut dropping: Vec<Dropping> = Vec::new();
        for family in families {
            let bridged = if family == IpFamily::V4 { BRIDGED } else { BRIDGED6 };
            let bridged = fs::read_to_string(bridged).is_ok_and(|text| text.trim() == "1");
            let peers = territory.peers.iter().any(|peer| peer.family() == family);
            let others = Others { family, bridged, peers };
            // What a chain for both kinds drops of both is told once.
            for chain in firewall::dropping(&chains, &rules, &self.bridge, others) {
                if !dropping.contains(&chain) {
                    dropping.push(chain);
                }
            }
        }
        for family in [Family::Ip, Family::Ip6] {
            let Some((chain, missing)) = opening(family, &dropping, &chains, &rules, &self.bridge)
            else {
                continue;
            };
            let mut batch = Batch::new();
            for expressions in missing {
                batch.insert_rule(family, FILTER, chain, &expressions, "");
            }
            self.kernel.commit("open table filter", batch)?;
            self.untold.push(Finding::Repaired(Repair::Opened(family, chain.into())));
            return Ok(true);
        }
        self.dropped = dropping.into_iter().map(|chain| dropped(chain, &self.bridge)).collect();
        Ok(false)
    }
}

// === impl Kernel ===

impl Kernel {
    fn call<T>(
        &mut self,
        step: &'static str,
        call: impl FnOnce(&mut NftablesSocket) -> Result<T, netlink::Error>,
    ) -> Result<T, NetworkError> {
        let result = match &mut self.socket {
            Some(socket) => call(socket),
            none => NftablesSocket::open().and_then(|socket| call(none.insert(socket))),
        };
        result.map_err(self.failed(step))
    }

    fn failed(&self, step: &'static str) -> impl FnOnce(netlink::Error) -> NetworkError {
        let table = self.table.clone();
        move |source| NetworkError::Filter { step, table, source }
    }

    fn generation(&mut self) -> Result<u32, NetworkError> {
        self.call("read the generation", NftablesSocket::generation)
    }

    fn chains(&mut self) -> Result<Vec<Chain>, NetworkError> {
        self.call("list the chains", NftablesSocket::chains)
    }

    fn rules(&mut self, family: Family, table: &str) -> Result<Vec<Rule>, NetworkError> {
        self.call("list the rules", |socket| socket.rules(family, table))
    }

    fn commit(&mut self, step: &'static str, batch: Batch) -> Result<(), NetworkError> {
        if batch.is_empty() {
            // A kernel without nf_tables can do that.
            return Ok(());
        }
        self.call(step, |socket| socket.commit(batch))
    }

    /// All tables; none on a kernel without nf_tables.
    fn tables(&mut self) -> Result<Vec<Table>, NetworkError> {
        self.call("list the tables", NftablesSocket::tables).or_else(|error| match error {
            NetworkError::Filter { source, .. } if source.is_unsupported() => Ok(Vec::new()),
            error => Err(error),
        })
    }

    /// The elements of all maps of our table; `None` if it or one of them is gone.
    fn elements(&mut self) -> Result<Option<Elements>, NetworkError> {
        let table = self.table.clone();
        self.call("list host ports", |socket| {
            let mut all = Elements::default();
            for (map, found) in MAPS.iter().zip(&mut all) {
                match socket.elements(Family::Inet, &table, map.name) {
                    Err(error) if error.is_not_found() => return Ok(None),
                    result => *found = result?,
                }
            }
            Ok(Some(all))
        })
    }
}

fn is_table(table: &Table, family: Family, name: &str) -> bool {
    table.family == family && table.name == name
}

/// The rules that let everything from and to the bridge pass, in exactly the form in which
/// iptables-nft writes them, so that `iptables -S` lists them and `iptables -D` deletes them.
fn accepting(bridge: &str) -> [Vec<Expression>; 2] {
    let mut name = bridge.as_bytes().to_vec();
    name.push(0);
    [Meta::InputName, Meta::OutputName].map(|key| {
        vec![
            Expression::Meta { key, to: Register(0) },
            Expression::Compare {
                from: Register(0),
                comparison: Comparison::Equal,
                data: name.clone(),
            },
            Expression::Counter,
            Expression::Verdict(Verdict::Accept),
        ]
    })
}

/// Which chain of iptables-nft's filter table to open, and with which rules; `None` if it drops
/// nothing of ours or there is nothing left to try.
fn opening(
    family: Family,
    dropping: &[Dropping],
    chains: &[Chain],
    rules: &Rules,
    bridge: &str,
) -> Option<(&'static str, Vec<Vec<Expression>>)> {
    let drops = |chain: &Dropping| (chain.family, chain.table.as_str()) == (family, FILTER);
    dropping.iter().find(|chain| drops(chain) && chain.chain == FORWARD)?;
    let rules = rules.get(&(family, FILTER.into()))?;
    [DOCKER_USER, FORWARD].into_iter().find_map(|name| {
        let exists = chains.iter().any(|chain| {
            (chain.family, chain.table.as_str(), chain.name.as_str()) == (family, FILTER, name)
        });
        let mut missing = accepting(bridge).to_vec();
        missing.retain(|expressions| {
            !rules.iter().any(|rule| rule.chain == name && rule.expressions == *expressions)
        });
        (exists && !missing.is_empty()).then_some((name, missing))
    })
}

fn dropped(chain: Dropping, bridge: &str) -> Finding {
    let Dropping { family, table, chain, rule, certain, traffic } = chain;
    let to_machine = |it: &Traffic| matches!(it, Traffic::ToMachine | Traffic::Questions);
    let directions: &[&str] = match traffic.iter().all(to_machine) {
        true => &["iifname"],
        false => &["iifname", "oifname"],
    };
    let remedy = if table == "firewalld" {
        format!(
            "firewall-cmd --permanent --zone=trusted --add-interface={bridge} && \
             firewall-cmd --reload"
        )
    } else if table == FILTER && chain == "INPUT" && matches!(family, Family::Ip | Family::Ip6) {
        let program = if family == Family::Ip { "iptables" } else { "ip6tables" };
        format!("{program} -I INPUT -i {bridge} -j ACCEPT")
    } else {
        let rules = directions.iter().map(|direction| {
            format!("nft insert rule {family} {table} {chain} {direction} {bridge} accept")
        });
        rules.collect::<Vec<_>>().join(" && ")
    };
    Finding::Dropped { family: Some(family), table, chain, rule, certain, traffic, remedy }
}

/// What the older xtables do to our traffic: their rules are not ours to change.
fn legacy(family: IpFamily, bridge: &str) -> Option<Finding> {
    let program = match family {
        IpFamily::V4 => "iptables",
        IpFamily::V6 => "ip6tables",
    };
    let forward = match legacy_forward(family == IpFamily::V6) {
        Ok(forward) => forward?,
        Err(error) => {
            let error = format!("cannot read the chain FORWARD of {program}-legacy: {error}");
            return Some(Finding::NotRepaired { error });
        }
    };
    let accepted = |names: &[String]| names.iter().any(|name| name == bridge);
    let open = accepted(&forward.accepted_inputs) && accepted(&forward.accepted_outputs);
    if forward.policy == Policy::Accept || open {
        return None;
    }
    Some(Finding::Dropped {
        family: None,
        table: FILTER.into(),
        chain: FORWARD.into(),
        rule: None,
        certain: false,
        traffic: vec![Traffic::Leaving, Traffic::Entering],
        remedy: format!(
            "{program}-legacy -I FORWARD -i {bridge} -j ACCEPT && \
             {program}-legacy -I FORWARD -o {bridge} -j ACCEPT, or switch to {program}-nft"
        ),
    })
}

fn intersection(left: &[Element], right: &[Element]) -> Vec<Element> {
    left.iter().filter(|element| right.contains(element)).cloned().collect()
}

fn difference(left: &[Element], right: &[Element]) -> Vec<Element> {
    left.iter().filter(|element| !right.contains(element)).cloned().collect()
}
