//! Which addresses are public, and which belong to a private network.
//!
//! The rule is the conservative one: an address is public only if the special-purpose registries (RFC 6890
//! and its updates) leave it globally reachable. Addresses that carry an IPv4 address inside (mapped,
//! compatible, NAT64, 6to4, Teredo) are never public by themselves; a mapped address is judged as its IPv4
//! address, because the kernel connects to that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// An address of the public Internet.
    Public,
    /// Loopback, private, shared, reserved, multicast, documentation or a transition mechanism.
    Private,
    /// Link-local, and the metadata addresses of clouds: a wide allow rule does not open them.
    Metadata,
}

/// Whether an address is public, private or a metadata address.
#[must_use]
pub fn reach(address: IpAddr) -> Reach {
    match address.to_canonical() {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        // Link-local (metadata of most clouds); metadata of Alibaba and of Oracle.
        [169, 254, ..] | [100, 100, 100, 200] | [192, 0, 0, 192] => Reach::Metadata,
        [0 | 10 | 127 | 224..=255, ..]
        | [100, 64..=127, ..]
        | [172, 16..=31, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [192, 168, ..]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let groups = address.segments();
    if groups[0] & 0xffc0 == 0xfe80 || groups == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] {
        return Reach::Metadata;
    }
    if let Some(inner) = embedded(groups) {
        return if reach_v4(inner) == Reach::Metadata { Reach::Metadata } else { Reach::Private };
    }
    match groups {
        // 2001::/23 holds protocol assignments (Teredo, benchmarking, ORCHID).
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Private,
        // 2620:4f:8000::/48 is a sink for reverse lookups of private space.
        [0x2620, 0x4f, 0x8000, ..] => Reach::Private,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Private,
    }
}

/// The IPv4 address that a transition address carries.
fn embedded(groups: [u16; 8]) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match groups {
        // IPv4-compatible; `::` and `::1` land here too and are not public either way.
        [0, 0, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        // IPv4-translated (RFC 2765).
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(join(high, low)),
        // NAT64, the well-known and the local prefix.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => {
            Some(join(high, low))
        }
        // 6to4.
        [0x2002, high, low, ..] => Some(join(high, low)),
        // Teredo: the client's address, inverted.
        [0x2001, 0, _, _, _, _, high, low] => Some(join(!high, !low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_each_range_are_on_the_right_side() {
        for (text, reach_expected) in [
            ("0.255.255.255", Reach::Private),
            ("1.0.0.0", Reach::Public),
            ("9.255.255.255", Reach::Public),
            ("10.0.0.0", Reach::Private),
            ("11.0.0.0", Reach::Public),
            ("100.63.255.255", Reach::Public),
            ("100.64.0.0", Reach::Private),
            ("100.127.255.255", Reach::Private),
            ("100.128.0.0", Reach::Public),
            ("126.255.255.255", Reach::Public),
            ("127.255.255.255", Reach::Private),
            ("169.253.255.255", Reach::Public),
            ("169.254.169.254", Reach::Metadata),
            ("172.15.255.255", Reach::Public),
            ("172.31.255.255", Reach::Private),
            ("172.32.0.0", Reach::Public),
            ("192.0.1.0", Reach::Public),
            ("192.88.98.255", Reach::Public),
            ("198.17.255.255", Reach::Public),
            ("198.20.0.0", Reach::Public),
            ("223.255.255.255", Reach::Public),
            ("224.0.0.0", Reach::Private),
            ("255.255.255.255", Reach::Private),
            ("::ffff:8.8.8.8", Reach::Public),
            ("::ffff:169.254.0.1", Reach::Metadata),
            ("1fff:ffff::", Reach::Private),
            ("2000::", Reach::Public),
            ("2001:200::", Reach::Public),
            ("2001:db7:ffff::", Reach::Public),
            ("2001:db9::", Reach::Public),
            ("2606:4700::1111", Reach::Public),
            ("3ffe:ffff::", Reach::Public),
            ("3fff:1000::", Reach::Public),
            ("4000::", Reach::Private),
            ("fe7f::1", Reach::Private),
            ("fe80::1", Reach::Metadata),
            ("64:ff9b::a9fe:a9fe", Reach::Metadata),
            ("2002:a9fe:a9fe::1", Reach::Metadata),
        ] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(reach(address), reach_expected, "{text}");
        }
    }
}
