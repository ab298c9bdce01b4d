//! What the agent keeps for the next one, as it is written.

use std::path::PathBuf;

use toml::de::DeValue;

use crate::config::{
    report::{Report, Span},
    table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
};

table! {
    /// What the agent keeps in files for the next one, besides what is pinned.
    ///
    /// ```toml
    /// [state]
    /// directory = "/var/lib/vipd"
    /// ```
    State = "[state]" {
        /// Where these files are; of one agent only. Made when it is missing.
        directory: PathBuf, default "\"/var/lib/vipd\"";
    }
}
