//! The rack of the benchmark: a router with BIRD, and three pairs of hosts that
//! keep an address in service each.

use anyhow::{Context as _, Result};
use vipd_tests::{Bird, Lab, Rack, Size};

use crate::pairs::{Exabgp, LOCAL_AS, Pair, ROUTER_AS, VipdPair, VrrpPair};

/// Everything that runs.
pub struct Stage {
    pub vipd: VipdPair,
    pub keepalived: VrrpPair,
    pub exabgp: Exabgp,
    pub router: Bird,
    pub rack: Rack,
}

impl Stage {
    /// Builds it; the pairs may still be coming up.
    pub fn build(lab: &Lab) -> Result<Self> {
        let rack = Rack::build(
            lab,
            Size {
                balancers: 6,
                backends: 2,
            },
        )?;
        let (vipd, others) = rack.balancers.split_at(2);
        let (keepalived, exabgp) = others.split_at_checked(2).context("six balancers")?;
        let config = [
            Bird::router_config(ROUTER_AS),
            VipdPair::BIRD_BFD.to_owned(),
            Bird::sessions(vipd, LOCAL_AS, VipdPair::BIRD_SESSION),
            Bird::sessions(exabgp, LOCAL_AS, ""),
        ];
        let router = Bird::start(&rack.router, &config.concat())?;
        Ok(Self {
            vipd: VipdPair::start(&rack, vipd)?,
            keepalived: VrrpPair::start(keepalived)?,
            exabgp: Exabgp::start(&rack, exabgp)?,
            router,
            rack,
        })
    }

    /// Those whom vipd is compared with, by their places in a row.
    pub fn other(&mut self, number: usize) -> (&Rack, &mut dyn Pair) {
        let pair: &mut dyn Pair = if number.is_multiple_of(2) {
            &mut self.keepalived
        } else {
            &mut self.exabgp
        };
        (&self.rack, pair)
    }
}
