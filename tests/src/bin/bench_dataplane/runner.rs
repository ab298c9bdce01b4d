//! Runs a program of the kernel on many packets and says what they cost.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp},
};
use rustix::time::{ClockId, clock_gettime};
use vipd::dataplane::mapped::Mapped;

use crate::plan::Plan;

/// The wrapper, and what it calls.
pub struct Runner {
    ebpf: Ebpf,
    plan: Mapped<Plan>,
    /// The program that does nothing.
    nothing: Ebpf,
}

/// What a run has shown.
pub struct Ran {
    /// Thread CPU time per packet, in nanoseconds.
    pub nanos: f64,
    /// XDP's verdict on the last packet.
    pub action: u32,
    /// Length of the last frame.
    pub length: u32,
}

/// What the kernel has made of a program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Instructions after verification, all functions together.
    pub instructions: u32,
    /// Bytes of machine code.
    pub machine_code: u32,
}

impl Program {
    /// What the kernel says.
    pub fn of(program: &Xdp) -> Result<Self> {
        let info = program.info()?;
        Ok(Self {
            instructions: info.size_translated().unwrap_or(0) / 8,
            machine_code: info.size_jitted(),
        })
    }
}

impl Runner {
    /// Loads the wrapper.
    pub fn load() -> Result<Self> {
        let mut ebpf = object("wrapper")?;
        load(&mut ebpf, "wrapper")?;
        let map = ebpf.map("BENCH_PLAN").context("the wrapper has no plan")?;
        let aya::maps::Map::Array(data) = map else {
            bail!("the wrapper's plan is no array");
        };
        let plan = Mapped::of_map(&std::os::fd::AsFd::as_fd(data.fd()), 0, 1)?;
        let mut nothing = object("pass")?;
        load(&mut nothing, "pass")?;
        Ok(Self {
            ebpf,
            plan,
            nothing,
        })
    }

    /// What a packet costs before any program has seen it, the call of one
    /// that does nothing included.
    pub fn run_nothing(&mut self, plan: &mut Plan, frame: &[u8], packets: u32) -> Result<Ran> {
        let nothing: &Xdp = self
            .nothing
            .program("pass")
            .context("no program")?
            .try_into()?;
        let target = nothing.fd()?.try_clone()?;
        self.run(&target, plan, frame, packets)
    }

    /// Hands packets to the target; the plan says which, and goes on where it
    /// was.
    pub fn run(
        &mut self,
        target: &ProgramFd,
        plan: &mut Plan,
        frame: &[u8],
        packets: u32,
    ) -> Result<Ran> {
        let map = self.ebpf.map_mut("BENCH_TARGET").context("no target")?;
        ProgramArray::try_from(map)?.set(0, target, 0)?;
        // Each call of the kernel has a frame of its own.
        plan.start = 0;
        self.plan.store(0, *plan);
        let wrapper: &mut Xdp = self
            .ebpf
            .program_mut("wrapper")
            .context("no wrapper")?
            .try_into()?;
        let start = thread_nanos();
        let result = wrapper.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat: packets,
            ..TestRunOptions::default()
        })?;
        let nanos = (thread_nanos() - start) as f64;
        let made = self.plan.load(0).made - plan.made;
        ensure!(
            made == u64::from(packets),
            "the wrapper made {made} packets of {packets}"
        );
        plan.made += made;
        Ok(Ran {
            nanos: nanos / f64::from(packets),
            action: result.return_value,
            length: result.data_size_out,
        })
    }
}

/// What this thread has had of the processor, in nanoseconds. Unlike wall
/// time, it does not grow while others run.
fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// An object that `cargo xtask build` has made.
pub fn object(name: &str) -> Result<Ebpf> {
    let path = path(name);
    Ebpf::load_file(&path).with_context(|| {
        format!(
            "cannot load {}; `cargo xtask bench dataplane` builds it",
            path.display()
        )
    })
}

/// Where it is.
pub fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/bpf")
        .join(name)
}

/// Loads a program into the kernel.
pub fn load<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program: &mut Xdp = ebpf
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()?;
    program
        .load()
        .with_context(|| format!("the kernel does not take {name}"))?;
    Ok(program)
}
