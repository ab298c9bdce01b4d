//! Segments that the kernel drops without a word, by its own count: what is
//! seen here of a password or a TTL that does not fit.

use std::fs;

/// Segments dropped on this host since it started, whoever sent them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Unsigned ones from a peer with a password.
    pub unsigned: u64,
    /// Signed ones from a peer without a password.
    pub unexpected: u64,
    /// Ones signed with another password.
    pub forged: u64,
    /// Ones with a TTL below what is taken.
    pub too_far: u64,
}

impl Dropped {
    /// The counts as they are now; zero where the kernel does not count.
    #[must_use]
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
        Self::parse(&text)
    }

    /// What has come since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            unsigned: self.unsigned.saturating_sub(before.unsigned),
            unexpected: self.unexpected.saturating_sub(before.unexpected),
            forged: self.forged.saturating_sub(before.forged),
            too_far: self.too_far.saturating_sub(before.too_far),
        }
    }

    /// Reads `/proc/net/netstat`: per group a line of names and one of values.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut group = text
            .lines()
            .filter_map(|line| line.strip_prefix("TcpExt: "))
            .map(str::split_whitespace);
        let (Some(names), Some(values)) = (group.next(), group.next()) else {
            return Self::default();
        };
        let mut dropped = Self::default();
        for (name, value) in names.zip(values) {
            let field = match name {
                "TCPMD5NotFound" => &mut dropped.unsigned,
                "TCPMD5Unexpected" => &mut dropped.unexpected,
                "TCPMD5Failure" => &mut dropped.forged,
                "TCPMinTTLDrop" => &mut dropped.too_far,
                _ => continue,
            };
            *field = value.parse().unwrap_or_default();
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_by_their_names() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMinTTLDrop\n\
                    TcpExt: 9 3 4 5\n\
                    IpExt: InNoRoutes TCPMD5Failure\n\
                    IpExt: 7 8\n";
        let dropped = Dropped {
            unsigned: 3,
            unexpected: 4,
            forged: 0,
            too_far: 5,
        };
        assert_eq!(Dropped::parse(text), dropped);
        assert_eq!(Dropped::parse(""), Dropped::default());
    }

    #[test]
    fn this_kernel_counts_them() {
        let text = fs::read_to_string("/proc/self/net/netstat").unwrap();
        for name in [
            "TCPMD5NotFound",
            "TCPMD5Unexpected",
            "TCPMD5Failure",
            "TCPMinTTLDrop",
        ] {
            assert!(text.contains(name), "no {name} in {text}");
        }
    }
}
