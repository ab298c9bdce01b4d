//! Builds a small lab, tells its name, and waits to be killed: the other
//! process of the tests of interrupted labs.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use vipd_tests::{Lab, Nginx, Rack, Size};

fn main() -> Result<()> {
    let lab = Lab::new()?;
    let size = Size {
        balancers: 2,
        backends: 2,
    };
    let rack = Rack::build(&lab, size)?;
    let _server = Nginx::start(&rack.backends[0].host)?;
    println!("lab {}", lab.id());
    sleep(Duration::from_secs(60));
    Ok(())
}
