//! Asks the balancer what it would do with a frame.
//!
//! The program that answers is built from the source of the one that forwards
//! and reads the same maps, so the answer is what packets get; it writes none
//! of them.

use aya::programs::{TestRun as _, TestRunOptions};
use vipd_abi::{BackendRecord, Trace, map};

use super::{
    kernel::{KernelError, chain},
    mapped::Mapped,
    object,
    pins::Pins,
    variant::Variant,
};

/// The program that explains, loaded over a living data plane.
pub struct Explainer {
    variant: Variant,
    traces: Mapped<Trace>,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What XDP would do with it (`enum xdp_action`).
    pub action: u32,
    /// How the decision came about.
    pub trace: Trace,
    /// The frame as it leaves, or as it came.
    pub frame: Vec<u8>,
    /// The backend's record, if one was chosen.
    pub record: Option<BackendRecord>,
}

/// Room for the frame with what is put in front of it.
const LONGEST: usize = 4096;

impl Explainer {
    /// Loads the program.
    ///
    /// # Errors
    ///
    /// When no data plane is pinned, or the kernel refuses.
    pub fn load(pins: &Pins) -> Result<Self, KernelError> {
        let variant = Variant::load(object::EXPLAIN, pins)?;
        let traces = variant.memory(map::TRACES, 1)?;
        Ok(Self { variant, traces })
    }

    /// What packets like `frame` get that come by the interface of that index.
    ///
    /// # Errors
    ///
    /// When the kernel does not run the program, mostly since there is no such
    /// interface.
    pub fn ask(&mut self, frame: &[u8], ingress: u32) -> Result<Answer, KernelError> {
        let mut out = vec![0; LONGEST];
        let context = context(frame.len(), ingress);
        let result = self.variant.program()?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        });
        let result = result.map_err(|error| KernelError::Run(chain(&error)))?;
        out.truncate(result.data_size_out as usize);
        let trace = self.traces.load(0);
        Ok(Answer {
            action: result.return_value,
            trace,
            frame: out,
            record: self.variant.record(trace.backend),
        })
    }
}

/// A `struct xdp_md` (include/uapi/linux/bpf.h): begin and end of the data, no
/// metadata, ingress interface, receive queue 0, no egress interface.
fn context(length: usize, ingress: u32) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    [0, length, 0, ingress, 0, 0]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect()
}
