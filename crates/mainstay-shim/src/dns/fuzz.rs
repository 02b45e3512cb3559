//! What reads bytes that somebody else made, for fuzzing: none of it may panic, or answer with more than it may.

use std::net::{IpAddr, Ipv4Addr};

use mainstay_shim_protocol::{Zone, ZoneHost};

use super::{Decision, Names, Transport, answer, belongs, is_failure, servers};

/// Anything as a question, as the response to one, and as the machine's file.
pub fn fuzz(bytes: &[u8]) {
    let source = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
    let host = ZoneHost {
        names: vec!["web.default.svc".to_owned()],
        addresses: vec![source],
        by_address: "default.pod".to_owned(),
        reverse: true,
    };
    let names = Names::of(&Zone {
        domain: "cluster.local".to_owned(),
        askers: vec![(source, 24)],
        hosts: vec![host],
        ..Zone::default()
    });
    let Some(names) = names else { return };
    for (transport, longest) in [(Transport::Udp, 1232), (Transport::Tcp, usize::from(u16::MAX))] {
        if let Decision::Answer(response) = answer(&names, bytes, source, transport) {
            assert!(response.len() <= longest);
            assert_eq!(response.get(..2), bytes.get(..2));
        }
    }
    let section = b"\x03web\0\0\x01\0\x01";
    assert!(!belongs(bytes, 7, section) || bytes.first_chunk() == Some(&[0, 7]));
    is_failure(bytes);
    let found = servers(&String::from_utf8_lossy(bytes), &[source], |_| Some(7));
    assert!(found.iter().all(|server| server.ip() != source));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn anything_is_read_without_harm(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..600), is_question: bool
        ) {
            // Most bytes are no question at all, and would be looked at no further.
            if let Some(header) = bytes.first_chunk_mut::<12>().filter(|_| is_question) {
                header[2..].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
            }
            super::fuzz(&bytes);
        }
    }
}
