//! What vipd decides, and nothing else: from the configuration and the results
//! of health checks to what is to be forwarded and announced.
//!
//! Everything here is a pure function of its arguments or a state machine that
//! is told the time: no sockets, no clock, no threads.
//!
//! # The way of a change
//!
//! ```text
//!   configuration          probe (outside)
//!        |                    |  Observation
//!        v                    v
//!      model ---------> health_table <-> health
//!        |                    |  who is available
//!        v                    v
//!        +--------> decide <--+  <-> ring
//!                     |  Desired
//!          +----------+----------+
//!          v                     v
//!     data plane (outside) --> gate --> speaker (outside)
//!               acknowledgement     VIPs to announce, each in its state
//! ```
//!
//! It begins with the [`model`]: services, each with virtual addresses (VIPs)
//! in front and backends behind, validated by whoever read the configuration.
//!
//! A *probe* outside this crate asks a backend at the moments that [`schedule`]
//! names, and hands over what it found as an [`check::Observation`]: a word
//! such as `L7STS`, a duration, a detail.
//!
//! [`health_table`] finds the backend that the observation is about and tells
//! its [`health`], a small machine of rise and fall: some failures in a row
//! take a backend down, some successes bring it up. Its [`standing`] goes on:
//! whether the backend takes new flows, keeps old ones, or neither.
//!
//! [`decide`] puts the model and the standings together, and whom the operator
//! has drained. For each service it finds out who is on [`duty`] and in what
//! [`condition`] that leaves it, and works out a [`ring`], which says for each hash of a flow what backend it goes to,
//! and which all nodes of a cluster work out alike without talking to each
//! other. For each VIP it says in what state there is enough behind it to be
//! announced. The outcome is [`decide::Desired`]: a state, not a list of changes.
//!
//! The *data plane* outside compares that state with what the kernel holds,
//! writes the difference by the rules of [`phases`], so that no flow is moved, and acknowledges each VIP by the fingerprint of what
//! it applied. The [`gate`] sees both, and lets the BGP *speaker* announce a VIP
//! only once its packets would be forwarded, and no longer than they should be.
//! It says in what [`announcement`] state a VIP is. An [`aggregate`] is announced
//! for the VIPs inside it. Last, [`damping`] has improvements wait where routers
//! would take offence at more of them.

pub mod aggregate;
pub mod announcement;
pub mod check;
pub mod condition;
pub mod damping;
pub mod decide;
pub mod doubt;
pub mod duty;
pub mod gate;
mod hash;
pub mod health;
pub mod health_table;
pub mod model;
pub mod phases;
pub mod ring;
pub mod schedule;
pub mod slow_start;
pub mod standing;
#[cfg(test)]
mod story;
