//! What an order is about.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use vipd_control::model::{Model, Service};

/// A service, or a backend of it, by the names of the configuration: `SERVICE` or
/// `SERVICE/BACKEND`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    /// Name of the service.
    pub service: Arc<str>,
    /// Name of the backend; of the service as a whole there is none.
    pub backend: Option<Arc<str>>,
}

/// Why a text names nothing.
const FORM: &str = "a backend is given as SERVICE/BACKEND, for example web/b1, and a service by its \
                    name";

impl Target {
    /// A backend.
    #[must_use]
    pub fn backend(service: &str, backend: &str) -> Self {
        Self {
            service: service.into(),
            backend: Some(backend.into()),
        }
    }

    /// A service.
    #[must_use]
    pub fn service(service: &str) -> Self {
        Self {
            service: service.into(),
            backend: None,
        }
    }

    /// A backend by `SERVICE/BACKEND`.
    ///
    /// # Errors
    ///
    /// When the text does not name one.
    pub fn parse_backend(text: &str) -> Result<Self, &'static str> {
        let target: Self = text.parse()?;
        match target.backend {
            Some(_) => Ok(target),
            None => Err(FORM),
        }
    }

    /// Whether a configuration has it.
    #[must_use]
    pub fn is_in(&self, model: &Model) -> bool {
        let service = find(model, &self.service);
        service.is_some_and(|service| match &self.backend {
            Some(name) => service.backends.iter().any(|backend| backend.name == *name),
            None => true,
        })
    }
}

/// The service of that name.
pub(super) fn find<'a>(model: &'a Model, name: &str) -> Option<&'a Arc<Service>> {
    model.services.iter().find(|service| *service.name == *name)
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((service, backend)) if !service.is_empty() && !backend.is_empty() => {
                Ok(Self::backend(service, backend))
            }
            None if !text.is_empty() => Ok(Self::service(text)),
            _ => Err(FORM),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backend {
            Some(backend) => write!(f, "{}/{backend}", self.service),
            None => f.write_str(&self.service),
        }
    }
}
