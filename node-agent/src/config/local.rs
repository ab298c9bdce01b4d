//! Services that this host serves itself, as validated: how their addresses
//! come to be on it, and that nothing of them is forwarded.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, sync::Arc};

use toml::de::DeValue;
use vipd_control::model::{Backend, Check, Vip};

use super::{
    bfd::Switch,
    report::{Report, Span},
    table::{At, Value},
    text::InterfaceName,
    value::read_text,
    wish::Wish,
    written::{self, ModeName},
};

/// Who binds a virtual address on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Others, on any interface.
    ByOthers,
    /// Others, who have put it where the service takes its addresses from.
    Taken(Arc<Wish>),
    /// We, here.
    At(Place),
}

/// Where vipd binds a virtual address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The interface; `None` is one of vipd's own.
    pub interface: Option<InterfaceName>,
    /// The label, if it is an IPv4 address.
    pub label: Option<Label>,
}

/// All virtual addresses that this host serves itself.
pub type Bindings = BTreeMap<Vip, Binding>;

/// The label of an IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(Arc<str>);

/// The kernel's IFNAMSIZ without the closing zero.
const LABEL_MAX: usize = 15;

/// The name of the backend that stands for this host.
const SELF: &str = "local";

impl Label {
    /// As the kernel knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for Label {
    fn kind() -> String {
        String::from("label")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"lo:web\"", |text| {
            let is_odd = |c: char| c.is_whitespace() || c.is_control();
            let fits = text.len() <= LABEL_MAX && !text.contains(is_odd);
            match text.split_once(':') {
                Some((interface, more)) if fits && !interface.is_empty() && !more.is_empty() => {
                    Ok(Self(text.into()))
                }
                _ => Err(format!(
                    "`{text}` is not a label: the interface's name, a colon, and more, at most \
                     {LABEL_MAX} characters without spaces"
                )),
            }
        })
    }
}

/// The backend of a service without any: this host, which is asked at the
/// first of the service's own addresses. It is asked from there, too, so that no
/// other host that has the address can answer for this one. Addresses that come and
/// go are not asked.
pub fn implicit_backend(service: &written::Service, check: &mut Check) -> Option<Backend> {
    let mut own = service.vips.iter().flat_map(|vips| &vips.value);
    let own = own.find(|vip| !service.has_taken(vip));
    let Some(first) = own.map(|vip| vip.value.address()) else {
        let here = service.vips_from.as_ref().map(|_| Ipv4Addr::LOCALHOST)?;
        return Some(Backend::new(SELF, here.into(), 1));
    };
    if check.address.is_none() && check.source.is_none() {
        check.source = Some(first);
    }
    Some(Backend::new(SELF, first, 1))
}

/// Checks what does not go with the mode of each service, and all addresses
/// together; gives back how the local ones are bound.
pub fn bindings(written: &[At<written::Service>], report: &mut Report) -> Bindings {
    let mut places = BTreeMap::<Vip, (Binding, &Span)>::new();
    for service in written.iter().map(|at| &at.value) {
        let (Some(mode), Some(vips)) = (&service.mode, &service.vips) else {
            continue;
        };
        if mode.value != ModeName::Local {
            refuse(&service.bind, "bind", "local", mode, report);
            refuse(&service.vips_from, "vips_from", "local", mode, report);
            continue;
        }
        refuse(&service.ring_size, "ring_size", "forwarded", mode, report);
        refuse(&service.flow_idle, "flow_idle", "forwarded", mode, report);
        let own = binding(service, report);
        let taken = taken(service);
        for vip in &vips.value {
            let taken = taken.as_ref().filter(|_| service.has_taken(vip));
            let binding = taken.unwrap_or(&own);
            if !vip.value.is_single() {
                report
                    .error(&vip.span, "a prefix cannot be served by this host itself")
                    .help(
                        "write the addresses one by one; a [[bgp.aggregate]] around them \
                         announces the prefix",
                    );
            }
            let (first, span) = places
                .entry(vip.value)
                .or_insert_with(|| (binding.clone(), &vip.span));
            let is_same = match (&*first, binding) {
                (Binding::Taken(_), Binding::Taken(_)) => true,
                (first, binding) => first == binding,
            };
            if !is_same {
                report
                    .error(&vip.span, format!("{} is bound in two ways", vip.value))
                    .related(span, "in another way here")
                    .help("give all services on an address the same `bind`");
            }
        }
    }
    check_forwarded(written, &places, report);
    let places = places.into_iter();
    places.map(|(vip, (binding, _))| (vip, binding)).collect()
}

fn taken(service: &written::Service) -> Option<Binding> {
    let wish = Wish::of(service.vips_from.as_ref()?)?;
    Some(Binding::Taken(Arc::new(wish)))
}

fn binding(service: &written::Service, report: &mut Report) -> Binding {
    let bind = match service.bind.as_ref().map(|at| &at.value) {
        None => return Binding::At(Place::default()),
        Some(Switch(None)) => return Binding::ByOthers,
        Some(Switch(Some(bind))) => bind,
    };
    let interface = bind.interface.as_ref().map(|at| &at.value);
    if let Some(At { value, span }) = &bind.label {
        let of_label = value.0.split_once(':').map(|(interface, _)| interface);
        match interface {
            None => {
                report
                    .error(span, "a label begins with an interface, and none is named")
                    .help("add `interface`, for example interface = \"lo\"");
            }
            Some(interface) if of_label != Some(interface.as_str()) => {
                report
                    .error(span, format!("the label {value} is not one of {interface}"))
                    .help(format!("for example \"{interface}:web\""));
            }
            Some(_) => {}
        }
    }
    Binding::At(Place {
        interface: interface.cloned(),
        label: bind.label.as_ref().map(|at| at.value.clone()),
    })
}

/// Refuses a key that belongs to services of another kind.
fn refuse<T>(
    key: &Option<At<T>>,
    name: &str,
    kind: &str,
    mode: &At<ModeName>,
    report: &mut Report,
) {
    if let Some(key) = key {
        report
            .error(&key.span, format!("`{name}` belongs to {kind} services"))
            .related(&mode.span, "another mode here")
            .help(format!("remove `{name}`, or change the mode"));
    }
}

/// An address whose packets are forwarded never reaches this host's own
/// programs.
fn check_forwarded(
    written: &[At<written::Service>],
    local: &BTreeMap<Vip, (Binding, &Span)>,
    report: &mut Report,
) {
    let services = written.iter().map(|at| &at.value);
    let forwarded = services.filter(|service| service.mode.is_some() && service.forwards());
    let vips = forwarded.flat_map(|service| &service.vips);
    for vip in vips.flat_map(|vips| &vips.value) {
        let mut inside = local.iter();
        if let Some((address, (_, span))) = inside.find(|(other, _)| vip.value.contains(**other)) {
            report
                .error(&vip.span, format!("packets for {address} are forwarded"))
                .related(span, "this host is to serve it itself")
                .help("give one of the services another address or mode");
        }
    }
}

impl written::Service {
    /// The servers that are written.
    pub fn backends(&self) -> &[At<written::Backend>] {
        self.backend.as_ref().map_or(&[], |list| &list.value)
    }

    /// Whether one of its addresses was taken from an interface.
    pub fn has_taken(&self, vip: &At<Vip>) -> bool {
        let from = self.vips_from.as_ref();
        from.is_some_and(|from| from.span == vip.span)
    }

    /// Whether its packets are forwarded, as far as it says.
    pub fn forwards(&self) -> bool {
        let mode = self.mode.as_ref();
        mode.is_none_or(|mode| mode.value != ModeName::Local)
    }
}
