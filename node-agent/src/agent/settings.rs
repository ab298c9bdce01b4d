//! What the configuration means to each room.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use sha2::{Digest, Sha256};
use vipd_abi::{FlowKey, MACS};

use crate::{
    config::Config,
    dataplane::{apply::Settings, record::TunnelSources},
    engine::Plan,
    local,
};

/// What the engine works by.
pub(super) fn plan(config: &Config, secret: [u8; 16]) -> Plan {
    Plan {
        model: Arc::new(config.model.clone()),
        secret,
        linger: config.linger,
        bgp: config.bgp.clone().map(Arc::new),
        doubt: config.doubt.clone(),
    }
}

/// What it says of addresses of this host, with the number of reloads before.
pub(super) fn local_orders(config: &Config, reloads: u64) -> local::Orders {
    local::Orders {
        bindings: Arc::clone(&config.bindings),
        takes: config.taking.is_some(),
        reloads,
    }
}

/// What holds for all services, as configured.
pub(crate) fn settings(config: &Config, secret: [u8; 16], macs: [u64; MACS]) -> Settings {
    let [low, high] = [0, 8].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&secret[at..at + 8]);
        u64::from_le_bytes(word)
    });
    Settings {
        macs,
        flow_key: FlowKey([low, high]),
        sources: config
            .dataplane
            .as_ref()
            .map(TunnelSources::from)
            .unwrap_or_default(),
    }
}

/// The cluster secret as sixteen bytes: the first of its SHA-256. Without one,
/// zeroes, which everybody knows.
///
/// # Errors
///
/// When the file cannot be read.
pub(crate) fn secret(config: &Config) -> anyhow::Result<[u8; 16]> {
    let Some(file) = &config.node.cluster_secret else {
        return Ok([0; 16]);
    };
    let digest = Sha256::digest(file.read()?.bytes());
    let mut secret = [0; 16];
    secret.copy_from_slice(&digest[..16]);
    Ok(secret)
}

/// All addresses that packets may have to be sent to.
pub(crate) fn backends(config: &Config) -> BTreeSet<IpAddr> {
    let services = config.model.services.iter();
    let forwarded = services.filter(|service| service.mode.forwards());
    forwarded
        .flat_map(|service| service.backends.iter().map(|backend| backend.address))
        .collect()
}
