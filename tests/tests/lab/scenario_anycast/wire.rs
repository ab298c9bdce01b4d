//! The hosts on their segments, and everybody's gateway.

use anyhow::Result;
use vipd_tests::{Lab, Segments};

pub fn wire(lab: &Lab) -> Result<Segments> {
    let net = Segments::build(
        lab,
        &[
            (
                "s1",
                &[
                    ("r1", &["2001:db8:1::1/64"]),
                    ("rs1", &["2001:db8:1::4/64"]),
                ],
            ),
            (
                "s6",
                &[
                    ("r1", &["2001:db8:6::1/64"]),
                    ("w1", &["2001:db8:6::11/64"]),
                ],
            ),
            (
                "s7",
                &[
                    ("r1", &["2001:db8:7::1/64"]),
                    ("w2", &["2001:db8:7::12/64"]),
                ],
            ),
            (
                "s8",
                &[
                    ("r2", &["2001:db8:8::1/64"]),
                    ("rs2", &["2001:db8:8::5/64"]),
                    ("w3", &["2001:db8:8::13/64"]),
                ],
            ),
            (
                "core",
                &[("r1", &["2001:db8:f::1/64"]), ("r2", &["2001:db8:f::2/64"])],
            ),
            (
                "c",
                &[
                    ("r2", &["2001:db8:c::1/64"]),
                    ("client", &["2001:db8:c::10/64"]),
                ],
            ),
        ],
    )?;
    net.forward(&["r1", "r2"])?;
    // Everybody's gateway; next hops are never resolved by a default route.
    for (host, gateway) in [
        ("rs1", "2001:db8:1::1"),
        ("w1", "2001:db8:6::1"),
        ("w2", "2001:db8:7::1"),
        ("w3", "2001:db8:8::1"),
        ("rs2", "2001:db8:8::1"),
        ("client", "2001:db8:c::1"),
    ] {
        net.host(host)?.ip(&format!(
            "route add default via {gateway}\nroute add 2001:db8::/44 via {gateway}\n"
        ))?;
    }
    Ok(net)
}
