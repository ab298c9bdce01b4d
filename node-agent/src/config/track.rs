//! Backends that have the health of another, as written and as validated.

use std::collections::BTreeMap;

use toml::de::DeValue;
use vipd_control::model::{Service, Tracked};

use super::{
    report::{Report, Span},
    table::{At, Value, nearest},
    value::read_text,
    written,
};

/// A backend by the names of the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrackName {
    service: String,
    backend: String,
}

impl Value for TrackName {
    fn kind() -> String {
        String::from("\"SERVICE/BACKEND\"")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"web/b1\"", |text| {
            match text.split_once('/') {
                Some((service, backend)) if !service.is_empty() && !backend.is_empty() => {
                    Ok(Self {
                        service: service.to_owned(),
                        backend: backend.to_owned(),
                    })
                }
                _ => Err(format!("`{text}` is not SERVICE/BACKEND")),
            }
        })
    }
}

/// Fills in whom the backends of `services` follow. The backends of a service
/// stand in the order of their names, whatever that of the file is.
pub fn resolve(written: &[At<written::Service>], services: &mut [Service], report: &mut Report) {
    let backend = |name: &TrackName, services: &[Service]| {
        let service = services.iter().find(|s| *s.name == *name.service)?;
        let backend = service.backends.iter().find(|b| *b.name == *name.backend)?;
        Some(Tracked::of(service, backend))
    };
    let mut follows = BTreeMap::new();
    for at in written {
        let backends = at.value.backend.iter().flat_map(|list| &list.value);
        for follower in backends {
            let (Some(service), Some(name), Some(track)) =
                (&at.value.name, &follower.value.name, &follower.value.track)
            else {
                continue;
            };
            let own = TrackName {
                service: service.value.to_string(),
                backend: name.value.to_string(),
            };
            if backend(&track.value, services).is_none() {
                unknown(track, services, report);
            }
            follows.insert(own, track);
        }
    }
    for (own, track) in &follows {
        let mut next = &track.value;
        for _ in 0..follows.len() {
            if next == own {
                report
                    .error(
                        &track.span,
                        "a backend that follows itself, by way of others or not",
                    )
                    .help("let one of the circle be checked: remove its `track`");
                break;
            }
            let Some(further) = follows.get(next) else {
                break;
            };
            next = &further.value;
        }
    }
    for (own, track) in &follows {
        let leader = backend(&track.value, services);
        let service = services.iter_mut().find(|s| *s.name == *own.service);
        let backends = service
            .into_iter()
            .flat_map(|service| &mut service.backends);
        for follower in backends.filter(|b| *b.name == *own.backend) {
            follower.track.clone_from(&leader);
        }
    }
}

fn unknown(track: &At<TrackName>, services: &[Service], report: &mut Report) {
    let TrackName { service, backend } = &track.value;
    let written = format!("{service}/{backend}");
    let named = |service: &Service| {
        let backends = service.backends.iter();
        let names = backends.map(|backend| format!("{}/{}", service.name, backend.name));
        names.collect::<Vec<_>>()
    };
    let names: Vec<_> = services.iter().flat_map(named).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let help = match nearest(&written, &names) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => String::from("the names of a service and of one of its backends"),
    };
    report
        .error(
            &track.span,
            format!("there is no backend {written} to follow"),
        )
        .help(help);
}
