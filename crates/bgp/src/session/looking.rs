//! What an operator may see of a session besides its [`Status`]; worked out
//! only when asked for.
//!
//! [`Status`]: super::Status

use ipnet::IpNet;

use super::Session;
use crate::wire::Attributes;

impl Session {
    /// The routes the peer has been told of, with the attributes it was told,
    /// in the order of their prefixes.
    pub fn told(&self) -> impl Iterator<Item = (&IpNet, Attributes)> {
        self.rib.told()
    }

    /// Whether the peer has been told of a prefix on this session and has not been
    /// told of its end.
    #[must_use]
    pub fn has_told(&self, prefix: &IpNet) -> bool {
        self.rib.has_written(prefix)
    }
}
