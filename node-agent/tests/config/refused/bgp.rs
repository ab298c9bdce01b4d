//! What is wrong about BGP in broken files.

use super::Case;

/// Sessions that cannot be.
pub const BGP: &[Case] = &[
    (
        "a virtual address as router id",
        &[(
            "router_id = \"192.0.2.11\"",
            "router_id = \"198.51.100.10\"",
        )],
    ),
    (
        "a virtual address as the session's source",
        &[("source = \"192.0.2.11\"", "source = \"198.51.100.10\"")],
    ),
    (
        "a virtual address as peer",
        &[("\"192.0.2.2\"", "\"198.51.100.10\"")],
    ),
    (
        "a virtual address as next hop",
        &[(
            "next_hop_ipv6 = \"2001:db8::11\"",
            "next_hop_ipv6 = \"2001:db8:100::53\"",
        )],
    ),
    (
        "source and peer of different families",
        &[("source = \"192.0.2.11\"", "source = \"2001:db8::11\"")],
    ),
    (
        "a reserved AS number",
        &[("local_as = 64500", "local_as = 23456")],
    ),
    ("two peers of one name", &[("\"int\"", "\"ext\"")]),
    (
        "two sessions to one address",
        &[("\"192.0.2.2\"", "\"192.0.2.1\"")],
    ),
    (
        "a hold time of 2 seconds",
        &[("source = \"192.0.2.11\"", "hold_time = \"2s\"")],
    ),
    (
        "a hold time in milliseconds",
        &[("source = \"192.0.2.11\"", "hold_time = \"3500ms\"")],
    ),
    (
        "a local preference over eBGP",
        &[("source = \"192.0.2.11\"", "local_preference = 200")],
    ),
    (
        "prepends over iBGP",
        &[("local_preference = 200", "prepend = 2")],
    ),
    ("a TTL of 0", &[("source = \"192.0.2.11\"", "multihop = 0")]),
    (
        "a TTL for packets that must have the highest",
        &[("local_preference = 200", "multihop = 2\nttl_security = 1")],
    ),
    (
        "a router that may be as far as any",
        &[("local_preference = 200", "ttl_security = 255")],
    ),
    (
        "a session over an interface that cannot be",
        &[("local_preference = 200", "interface = \"eth0:1\"")],
    ),
    (
        "a router that can only connect to us, and may not",
        &[
            ("local_as = 64500", "local_as = 64500\nlisten = false"),
            ("local_preference = 200", "passive = true"),
        ],
    ),
    (
        "a session without families",
        &[("source = \"192.0.2.11\"", "families = []")],
    ),
    (
        "IPv6 routes over an IPv4 session without a next hop",
        &[("local_preference = 200", "families = [\"ipv4\", \"ipv6\"]")],
    ),
];

/// Where tables of `[bgp]` are put in.
const SERVICE: &str = "[[service]]\nname = \"web\"";

/// Rules and aggregates that cannot be meant.
pub const POLICY: &[Case] = &[
    (
        "a rule for a peer and a service that nobody knows",
        &[(
            SERVICE,
            "[[bgp.rule]]\npeers = [\"ext\", \"itn\"]\nservices = [\"webb\", \"mail\"]\nmed = 1\n\
             [[service]]\nname = \"web\"",
        )],
    ),
    (
        "a rule that changes nothing",
        &[(
            SERVICE,
            "[[bgp.rule]]\npeers = [\"ext\"]\n[[service]]\nname = \"web\"",
        )],
    ),
    (
        "steps over no list, and from a place that is not there",
        &[(
            SERVICE,
            "[[bgp.rule]]\nmed_step = 1\n[[bgp.rule]]\nprefixes = [\"198.51.100.10\"]\n\
             med_step = 1\nmed_start = 1\n[[bgp.rule]]\nmed = 1\nmed_start = 1\n\
             [[service]]\nname = \"web\"",
        )],
    ),
    (
        "damping that would never let go",
        &[(
            SERVICE,
            "[bgp.damping]\nhalf_life = \"0s\"\nsuppress = 1200\nreuse = 1200\n\
             [[service]]\nname = \"web\"",
        )],
    ),
    (
        "a rule for nobody, never",
        &[(
            SERVICE,
            "[[bgp.rule]]\npeers = []\nstates = []\nmed = 1\n[[service]]\nname = \"web\"",
        )],
    ),
    (
        "a rule whose keys have nothing in common",
        &[(
            SERVICE,
            "[[bgp.rule]]\nprefixes = [\"198.51.100.10\"]\nservices = [\"dns\"]\nmed = 1\n\
             [[service]]\nname = \"web\"",
        )],
    ),
    (
        "a rule for aggregates where there are none",
        &[(
            SERVICE,
            "[[bgp.rule]]\naggregate = true\nmed = 1\n[[service]]\nname = \"web\"",
        )],
    ),
    (
        "a state nobody knows",
        &[(
            SERVICE,
            "[[bgp.rule]]\nstates = [\"dwon\"]\nmed = 1\n[[service]]\nname = \"web\"",
        )],
    ),
    (
        "a rule that gives an eBGP peer a local preference, and an iBGP peer prepends",
        &[(
            SERVICE,
            "[[bgp.rule]]\npeers = [\"ext\"]\nlocal_preference = 1\n\
             [[bgp.rule]]\npeers = [\"int\", \"ext\"]\nprepend = 1\n\
             [[service]]\nname = \"web\"",
        )],
    ),
    (
        "a rule with a virtual address as next hop",
        &[(
            SERVICE,
            "[[bgp.rule]]\nnext_hop_ipv4 = \"198.51.100.53\"\n[[service]]\nname = \"web\"",
        )],
    ),
    (
        "a rule with a path that is too long",
        &[(
            SERVICE,
            "[[bgp.rule]]\nas_path = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]\n\
             [[service]]\nname = \"web\"",
        )],
    ),
    (
        "an extended community that is none",
        &[(
            "local_preference = 200",
            "communities = [\"rt:65536:65536\"]",
        )],
    ),
    (
        "an iBGP peer as upstream",
        &[("local_preference = 200", "upstream = true")],
    ),
    (
        "an aggregate twice, and one that is a virtual address itself",
        &[(
            SERVICE,
            "[[bgp.aggregate]]\nprefix = \"198.51.100.0/24\"\n\
             [[bgp.aggregate]]\nprefix = \"198.51.100.0/24\"\n\
             [[bgp.aggregate]]\nprefix = \"198.51.100.10\"\n\
             [[service]]\nname = \"web\"",
        )],
    ),
    (
        "an aggregate that wants more alive than are inside",
        &[(
            SERVICE,
            "[[bgp.aggregate]]\nprefix = \"198.51.100.0/24\"\nmin_alive = 3\n\
             [[service]]\nname = \"web\"",
        )],
    ),
];
