//! The lab: hosts as network namespaces with real routers, web servers and
//! agents in them, used by the lab tests, the demo and the benchmarks.
//!
//! ```text
//!   client ------- router ------- switch --+-- lb1, lb2, ..   (vipd)
//!        203.0.113.0/24    192.0.2.0/24    +-- b1, b2, b3, .. (nginx)
//!        2001:db8:c::/64   2001:db8:1::/64
//! ```
//!
//! Start at [`Lab::new`], build a [`Rack`], start processes on its machines.
//! Everything a lab makes carries its [`LabId`] in its name and is taken away
//! by one function (`removal::remove`): when the lab is dropped, at Ctrl-C, or
//! by the next lab after the owner was killed. Pins of tests without a lab are
//! a [`Scratch`].

mod agent_config;
pub mod bench;
mod bfd;
mod bird;
mod bird_socket;
mod client;
mod door;
mod emulator;
mod exabgp;
mod feed;
mod feeder;
mod flood;
mod flows;
mod frr;
mod gobgp;
mod host;
mod interrupt;
mod keepalived;
mod lab;
mod nginx;
mod nsd;
mod owner;
mod process;
mod rack;
mod removal;
mod scratch;
mod segments;
mod site;
mod udp_echo;
pub mod usage;
mod vipd;
mod wait;

pub use agent_config::{AgentConfig, QUICK};
pub use bfd::{Attendance, BFD_TIMING, BIRD_BFD_TIMING, Bfd, BirdBfd, FRR_BFD_TIMING};
pub use bird::{Bird, BirdReceived, BirdRoute, BirdSession};
pub use bird_socket::BirdSocket;
pub use client::{Attempt, Held, HeldConnection, HeldReport, ProbeReport, Probes, ask, ask_udp};
pub use door::Door;
pub use emulator::{Emulator, Guest, Ran};
pub use exabgp::start_exabgp;
pub use feed::{Fed, Feed};
pub use feeder::{Batch, Feeder, MOST_PER_UPDATE};
pub use flood::{Flood, Flooded, flood, flood_sources};
pub use flows::{Fate, Flow, FlowPlan, FlowReport, Flows};
pub use frr::Frr;
pub use gobgp::Gobgp;
pub use host::Host;
pub use keepalived::Keepalived;
pub use lab::{Lab, LabId};
pub use nginx::Nginx;
pub use nsd::Nsd;
pub use process::Process;
pub use rack::{
    BALANCERS_AS, CLIENT_IPV4, CLIENT_IPV6, Machine, ROUTER_AS, ROUTER_IPV4, ROUTER_IPV6, Rack,
    Size, connect, pass_object,
};
pub use removal::remove_leftovers;
pub use scratch::Scratch;
pub use segments::{Segment, Segments};
pub use site::{Configure, Site, host_prefix, start_servers};
pub use udp_echo::UdpEcho;
pub use vipd::{Decapsulator, Vipd};
pub use wait::wait_until;
