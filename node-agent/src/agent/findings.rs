//! What an operator should know about this node, found at a start and at each
//! reload.

use tracing::info;

use crate::{
    config::Config,
    netlink::Netlink,
    preflight::{self, Severity},
};

/// What was found.
pub(super) struct Findings {
    /// What would lose traffic, so that the configuration must not come into
    /// force.
    pub errors: Vec<String>,
    /// What may lose some.
    pub warnings: Vec<String>,
}

/// Looks at this host as the configuration would have it. Takes about a second
/// when a backend cannot be reached.
pub(super) async fn look(config: &Config, netlink: &Netlink) -> Findings {
    let mut found = Findings {
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    if config.dataplane.is_some() && config.node.cluster_secret.is_none() {
        found.warnings.push(
            "no node.cluster_secret_file: the flow hash is keyed with a value that everybody \
             knows, so flows can be aimed at one backend"
                .to_owned(),
        );
    }
    for finding in preflight::inspect(config, netlink).await {
        match finding.severity {
            Severity::Error => found.errors.push(finding.to_string()),
            Severity::Warning => found.warnings.push(finding.to_string()),
            Severity::Info => info!("{finding}"),
        }
    }
    found
}
