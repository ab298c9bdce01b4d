//! The names of findings, which operators may build on.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! names {
    ($($name:ident $word:literal,)*) => {
        /// What kind of finding it is: a word that stays the same, and is explained
        /// in docs/doctor.md.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Name {
            $(#[doc = concat!("`", $word, "`")] $name,)*
        }

        impl Name {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

names! {
    Agent "agent",
    Arp "arp",
    BfdProcess "bfd-process",
    BpfFs "bpf-fs",
    BpfJit "bpf-jit",
    CutOff "cut-off",
    DecapsulationMissing "decapsulation-missing",
    Driver "driver",
    FilterUnread "filter-unread",
    Forwarding "forwarding",
    InterfaceDown "interface-down",
    InterfaceMissing "interface-missing",
    Kernel "kernel",
    Merging "merging",
    Mtu "mtu",
    MtuHole "mtu-hole",
    MultipathHash "multipath-hash",
    NeighbourFixed "neighbour-fixed",
    NeighbourLimit "neighbour-limit",
    NoEthernet "no-ethernet",
    NotAsked "not-asked",
    OpenFiles "open-files",
    OtherInterface "other-interface",
    PortBlocked "port-blocked",
    PortTaken "port-taken",
    Preflight "preflight",
    Processors "processors",
    Program "program",
    ProgramUser "program-user",
    RpFilter "rp-filter",
    RxVlan "rx-vlan",
    Silent "silent",
    TcpMd5 "tcp-md5",
    Unreached "unreached",
    VipMissing "vip-missing",
    Xdp "xdp",
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_name_has_a_row_in_the_documentation_and_no_other_has_one() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");
        let page = fs::read_to_string(page).expect("docs/doctor.md is there");
        let tables = page.split("| name | what is wrong |\n").skip(1);
        let rows = tables.flat_map(|table| table.lines().take_while(|line| line.starts_with('|')));
        let words = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next());
        let mut explained: Vec<_> = words.collect();
        explained.sort_unstable();
        let mut known: Vec<_> = Name::ALL.iter().map(|name| name.word()).collect();
        known.sort_unstable();
        assert_eq!(explained, known);
    }
}
