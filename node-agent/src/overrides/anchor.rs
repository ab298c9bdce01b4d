//! By what a backend or service is known again that has got another name: a backend
//! by its address, a service by what it serves.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vipd_control::model::{Model, Service};

use super::{Target, target::find};

/// What a target was when the configuration had it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Virtual addresses of the service.
    vips: Vec<String>,
    /// Protocol and ports that it takes on them.
    protocol: String,
    /// See `protocol`.
    ports: String,
    /// The backend's address; of the service as a whole there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
}

impl Anchor {
    /// That of a target; `None` if the configuration does not have it.
    pub(super) fn of(target: &Target, model: &Model) -> Option<Self> {
        let service = find(model, &target.service)?;
        let address = match &target.backend {
            Some(name) => {
                let mut backends = service.backends.iter();
                Some(backends.find(|backend| backend.name == *name)?.address)
            }
            None => None,
        };
        Some(Self {
            vips: service.vips.iter().map(ToString::to_string).collect(),
            protocol: service.protocol.to_string(),
            ports: service.ports.to_string(),
            address,
        })
    }

    /// What the target is called in a configuration that has it under other names.
    pub(super) fn find(&self, target: &Target, model: &Model) -> Option<Target> {
        let mut services = model.services.iter();
        let service = find(model, &target.service);
        let service = service.or_else(|| services.find(|service| self.is_of(service)))?;
        let Some(address) = self.address else {
            return Some(Target::service(&service.name));
        };
        let mut backends = service.backends.iter();
        let backend = backends.find(|backend| backend.address == address)?;
        Some(Target::backend(&service.name, &backend.name))
    }

    /// Whether a service wants packets of the same address, protocol and ports.
    fn is_of(&self, service: &Service) -> bool {
        let mut vips = service.vips.iter().map(ToString::to_string);
        self.protocol == service.protocol.to_string()
            && self.ports == service.ports.to_string()
            && vips.any(|vip| self.vips.contains(&vip))
    }
}
