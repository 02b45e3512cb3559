//! The machine's own servers.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::PORT;

/// How many servers are asked one after the other. Source: `MAXNS` of resolv.conf(5).
const MOST: usize = 3;

/// The servers that a text of the form of resolv.conf(5) names, without those that listen at `own`
/// addresses: they would ask themselves. `link` knows the numbers of links.
pub fn servers(text: &str, own: &[IpAddr], link: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        server(words.next()?, &link)
    });
    named.filter(|server| !own.contains(&server.ip())).take(MOST).collect()
}

fn server(text: &str, link: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    match text.split_once('%') {
        None => Some(SocketAddr::new(text.parse().ok()?, PORT)),
        Some((address, scope)) => {
            let scope = scope.parse().ok().or_else(|| link(scope))?;
            Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_those_that_are_not_this_one() {
        let text = "# nameserver 1.1.1.1\nsearch nameserver\nnameserver 127.0.0.53\nnameserver x\n\
                    nameserver\nnameserver 10.1.0.1\n nameserver  fe80::1%eth0\nnameserver fe80::2%7\n\
                    nameserver fe80::3%gone\nnameserver 9.9.9.9\n";
        let own = ["10.1.0.1".parse().unwrap()];
        let link = |name: &str| (name == "eth0").then_some(4);
        let found: Vec<_> = servers(text, &own, link).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53:53", "[fe80::1%4]:53", "[fe80::2%7]:53"]);
        assert_eq!(servers("", &own, link), []);
    }
}
