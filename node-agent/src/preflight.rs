//! placeholder
use crate::{config::Config, netlink::Netlink};
/// placeholder
pub async fn run(_config: &Config, _netlink: &Netlink) -> Vec<String> {
    Vec::new()
}
