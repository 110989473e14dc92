//! From where an address can be reached, and who may send others there: a server that answers with a redirect to an
//! address behind a firewall makes condaimg a way through it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{address, is_loopback};

/// From where an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// Its own link: there lie the metadata services of clouds, which give credentials to whoever asks.
    Link,
    /// This machine.
    Loopback,
    /// A network that is not the world's (IANA's special-purpose registries).
    Private,
    /// Everywhere.
    World,
}

impl Reach {
    /// The reach of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// The reach of a host (with or without a port) by its text alone; names count as the world's.
    pub(crate) fn of_host(host: &str) -> Self {
        match address(host) {
            Some(address) => Self::of(address),
            None if is_loopback(host) => Self::Loopback,
            None => Self::World,
        }
    }

    /// Whether a server that lies here may send others to an address there.
    ///
    /// # Errors
    /// When it may not: what that address is.
    pub(crate) fn may_send_to(self, there: Self) -> Result<(), &'static str> {
        match (self, there) {
            (_, Self::World) | (Self::Loopback, Self::Loopback | Self::Private) | (Self::Private, Self::Private) => {
                Ok(())
            }
            (_, Self::Link) => Err("a link-local address"),
            (_, Self::Loopback) => Err("a loopback address"),
            (_, Self::Private) => Err("a private address"),
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        _ if address.is_link_local() => Reach::Link,
        // The kernel takes the unspecified address for this machine.
        _ if address.is_loopback() || address.is_unspecified() => Reach::Loopback,
        // Carriers' networks (RFC 6598), protocol assignments, benchmarks (RFC 2544), and what is reserved.
        [0, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] | [224..=255, ..] => Reach::Private,
        _ if address.is_private() => Reach::Private,
        _ => Reach::World,
    }
}

fn of_v6(address: Ipv6Addr) -> Reach {
    let [first, second, third, .., high, low] = address.segments();
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match first {
        _ if address.is_unicast_link_local() => Reach::Link,
        _ if address.is_loopback() || address.is_unspecified() => Reach::Loopback,
        // Addresses of IPv4 in others: NAT64 (RFC 6052), 6to4 (RFC 3056), compatible ones.
        0x64 if second == 0xff9b => inner(high, low),
        0x2002 => inner(second, third),
        0 if address.segments()[..6] == [0; 6] => inner(high, low),
        _ if address.is_unique_local() || address.is_multicast() || first & 0xffc0 == 0xfec0 => Reach::Private,
        _ => Reach::World,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_of_addresses_in_every_disguise() {
        for (text, expected) in [
            ("169.254.169.254", Reach::Link),
            ("[fe80::1]", Reach::Link),
            ("[::ffff:169.254.169.254]:80", Reach::Link),
            ("[64:ff9b::a9fe:a9fe]", Reach::Link),
            ("[2002:a9fe:a9fe::1]", Reach::Link),
            ("[::169.254.169.254]", Reach::Link),
            ("127.8.9.1:5000", Reach::Loopback),
            ("[::1]", Reach::Loopback),
            ("0.0.0.0", Reach::Loopback),
            ("[::]", Reach::Loopback),
            ("localhost:80", Reach::Loopback),
            ("[::ffff:127.0.0.1]", Reach::Loopback),
            ("10.1.2.3", Reach::Private),
            ("172.31.0.1", Reach::Private),
            ("192.168.0.1", Reach::Private),
            ("100.100.100.200", Reach::Private),
            ("198.18.0.1", Reach::Private),
            ("239.0.0.1", Reach::Private),
            ("255.255.255.255", Reach::Private),
            ("[fd00:ec2::254]", Reach::Private),
            ("[ff02::1]", Reach::Private),
            ("1.1.1.1", Reach::World),
            ("[2606:4700::1]", Reach::World),
            ("[64:ff9b::101:101]", Reach::World),
            ("host.example", Reach::World),
        ] {
            assert_eq!(Reach::of_host(text), expected, "{text}");
        }
    }

    #[test]
    fn senders_reach_no_further_in_than_they_lie() {
        use Reach::{Link, Loopback, Private, World};
        for (from, to, allowed) in [
            (World, World, true),
            (World, Private, false),
            (World, Loopback, false),
            (World, Link, false),
            (Private, World, true),
            (Private, Private, true),
            (Private, Loopback, false),
            (Private, Link, false),
            (Loopback, Loopback, true),
            (Loopback, Private, true),
            (Loopback, Link, false),
            (Link, Link, false),
        ] {
            assert_eq!(from.may_send_to(to).is_ok(), allowed, "{from:?} {to:?}");
        }
    }
}
