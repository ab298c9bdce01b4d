//! Labs with real routers and web servers. They need root; what else they
//! need, they say.

mod bfd;
mod bfd_beside_bgp;
mod bfd_frr;
mod bgp;
mod draining;
mod examples;
mod flooding;
mod flows;
mod forwarding;
mod holding;
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
mod scenario_anycast;
mod scenario_data_centres;
mod session;
mod silent_death;
mod stopping;
mod support;
mod the_lab_itself;
mod the_story;
mod together;
