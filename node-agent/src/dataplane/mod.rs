//! The data plane as the agent sees it: maps as memory, an applier that makes
//! them what is desired, and the XDP program that reads them.

mod account;
pub mod adopt;
pub mod apply;
pub mod census;
pub mod clock;
pub mod driver;
pub mod explainer;
pub mod kernel;
pub mod listing;
pub mod mapped;
pub mod object;
pub mod pins;
pub mod record;
pub mod space;
pub mod tables;
pub mod tap;
pub mod variant;
pub mod vip_table;
