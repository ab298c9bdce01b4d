//! Labs with real routers and web servers. They need root; what else they
//! need, they say.

mod backend_health;
mod bfd;
mod bfd_beside_bgp;
mod bfd_frr;
mod bgp;
mod checks;
mod checks_other;
mod doctor;
mod draining;
mod flooding;
mod flows;
mod forwarding;
mod holding;
mod hooks;
mod interfaces;
mod interop;
mod leaving;
mod loading;
mod looking;
mod million;
mod old_kernel;
mod packaged;
mod policy;
mod reload;
mod scenario_floating_ibgp;
mod scenario_private_as;
mod session;
mod silent_death;
mod stopping;
mod support;
mod the_lab_itself;
mod the_story;
mod together;
mod why;
