//! What is to be captured, as asked for and as the program takes it.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vipd_abi::{CaptureFilter, Verdict};

use crate::{
    dataplane::tables::mapped,
    explain::{Names, Transport},
};

/// How long a capture takes when nobody says.
const SECONDS: u64 = 60;
/// The longest capture.
const MOST_SECONDS: u64 = 3600;
/// Most packets in a second on one processor.
const MOST_RATE: u32 = 100_000;
/// Most packets in a second on one processor that are copied to be judged: not
/// fewer than may be captured.
const COPIES: u32 = MOST_RATE;

/// What is to be captured. Conditions are joined by "and".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Source addresses.
    pub source: Option<IpNet>,
    /// Destination addresses.
    pub destination: Option<IpNet>,
    /// Source or destination port.
    pub port: Option<u16>,
    /// Transport protocol.
    pub protocol: Option<Transport>,
    /// Names of verdicts, any of them; all when empty.
    pub verdicts: Vec<String>,
    /// Name of the service.
    pub service: Option<String>,
    /// One packet in so many.
    pub sample: Option<u32>,
    /// Most packets in a second on one processor; 1,000 when not given.
    pub rate: Option<u32>,
    /// Packets after which it ends.
    pub count: Option<u64>,
    /// Seconds after which it ends; a minute when not given.
    pub seconds: Option<u64>,
}

/// Why a request cannot be had.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// No verdict of that name.
    #[error("there is no verdict `{0}`: see docs/verdicts.md, or `vipd status`")]
    Verdict(String),
    /// No service of that name.
    #[error("there is no service `{0}`; there are: {1}")]
    Service(String, String),
    /// A capture without a bound.
    #[error("{0} must be from 1 to {1}")]
    Bound(&'static str, u64),
}

impl Request {
    /// How long it takes at most.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(SECONDS))
    }

    /// As the program takes it, without a deadline.
    ///
    /// # Errors
    ///
    /// When it names what there is not, or is not bounded.
    pub fn filter(&self, names: &Names) -> Result<CaptureFilter, Refused> {
        let rate = self.rate.unwrap_or(1000);
        let bounds = [
            ("--seconds", self.seconds.unwrap_or(SECONDS), MOST_SECONDS),
            ("--rate", rate.into(), MOST_RATE.into()),
            ("--sample", self.sample.unwrap_or(1).into(), u32::MAX.into()),
            ("--count", self.count.unwrap_or(1), u64::MAX),
        ];
        for (name, value, most) in bounds {
            if !(1..=most).contains(&value) {
                return Err(Refused::Bound(name, most));
            }
        }
        let mut verdicts = 0;
        for name in &self.verdicts {
            let mut all = Verdict::ALL.iter();
            let found = all.find(|verdict| verdict.label() == name);
            let verdict = found.ok_or_else(|| Refused::Verdict(name.clone()))?;
            verdicts |= 1 << *verdict as u32;
        }
        let service = match &self.service {
            None => 0,
            Some(name) => names.number(name).ok_or_else(|| {
                let all: Vec<_> = names.services().collect();
                Refused::Service(name.clone(), all.join(", "))
            })?,
        };
        let (source, source_mask) = prefix(self.source);
        let (destination, destination_mask) = prefix(self.destination);
        Ok(CaptureFilter {
            until: 0,
            verdicts,
            source,
            source_mask,
            destination,
            destination_mask,
            port: self.port.map_or(0, |port| port.to_be().into()),
            protocol: self.protocol.map_or(0, |p| p.number().into()),
            service,
            sample: self.sample.unwrap_or(1),
            rate,
            copies: COPIES,
        })
    }
}

/// Address and mask as words of memory, IPv4 in its mapped form.
fn prefix(net: Option<IpNet>) -> ([u32; 4], [u32; 4]) {
    let Some(net) = net else {
        return ([0; 4], [0; 4]);
    };
    let length = match net {
        IpNet::V4(net) => 96 + u32::from(net.prefix_len()),
        IpNet::V6(net) => net.prefix_len().into(),
    };
    let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    (words(mapped(net.network())), words(mask.to_be_bytes()))
}

fn words(bytes: [u8; 16]) -> [u32; 4] {
    let word = |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    [word(0), word(4), word(8), word(12)]
}
