//! What can be wrong with timing, tracking and BFD of backends.

use super::Case;

/// The check of `web`, to which keys are added.
const CHECK: &str = "path = \"/healthz\"";

/// The end of its backend `b1`.
const B1: &str = "address = \"192.0.2.21\"\nweight = 1\n";

/// That of the next one.
const B2: &str = "address = \"192.0.2.22\"\nweight = 2\n";

/// A key of the service.
const SERVICE: &str = "min_healthy = 2";

pub const HEALTH: &[Case] = &[
    (
        "a fast interval that is longer than the interval",
        &[(CHECK, "fast_interval = \"2s\"")],
    ),
    (
        "intervals that are too short",
        &[(CHECK, "fast_interval = \"1ms\"\ndown_interval = \"0s\"")],
    ),
    ("a time-out of nothing", &[(CHECK, "timeout = \"0s\"")]),
    ("a hold-down of a day", &[(CHECK, "hold_down = \"24h\"")]),
    (
        "an initial state that there is not",
        &[(CHECK, "initial = \"downn\"")],
    ),
    (
        "flows that are to be something else",
        &[(CHECK, "on_down = \"close\"")],
    ),
    (
        "a slow start of a day",
        &[(SERVICE, "slow_start = \"24h\"")],
    ),
    (
        "a backend that follows one that there is not",
        &[(B1, "address = \"192.0.2.21\"\ntrack = \"dns/n2\"\n")],
    ),
    (
        "a backend that follows who knows whom",
        &[(B1, "address = \"192.0.2.21\"\ntrack = \"n1\"\n")],
    ),
    (
        "backends that follow each other",
        &[
            (B1, "address = \"192.0.2.21\"\ntrack = \"web/b2\"\n"),
            (B2, "address = \"192.0.2.22\"\ntrack = \"web/b1\"\n"),
        ],
    ),
    (
        "BFD that is too fast, and with a key that nobody uses",
        &[(
            SERVICE,
            "bfd = { min_tx = \"1ms\", key_file = \"bfd.key\", multihop = false }",
        )],
    ),
    (
        "anchors that answer always",
        &[(
            "[bgp]\n",
            "[doubt]\nanchors = [\"198.51.100.10\", \"192.0.2.11\"]\n[bgp]\n",
        )],
    ),
    (
        "an anchor that may be silent to us, and a fast interval that is too long",
        &[
            ("[bgp]\n", "[doubt]\nanchors = [\"192.0.2.1\"]\n[bgp]\n"),
            ("source = \"192.0.2.11\"", "ttl_security = 1"),
            (CHECK, "fast_interval = \"2s\""),
        ],
    ),
    (
        "one address with two kinds of BFD",
        &[
            (SERVICE, "bfd = { multihop = false }"),
            (
                "port = 53\n",
                "port = 53\nbfd = { min_tx = \"50ms\", multihop = false }\n",
            ),
            ("address = \"2001:db8:2::31\"", "address = \"192.0.2.21\""),
            (
                "vips = [\"198.51.100.53\", \"2001:db8:100::53\"]",
                "vips = [\"198.51.100.53\"]",
            ),
        ],
    ),
];
