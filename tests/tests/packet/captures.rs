//! Captures come and go: what is in the links then, and what the guard is told.

use std::{
    future::Future,
    path::PathBuf,
    pin::pin,
    process::Command,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use aya::maps::MapData;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::timeout,
};
use vipd::{
    capture::{Captures, Request},
    dataplane::{
        apply::Applied,
        kernel::{Kernel, Mode},
        pins::Pins,
        tap::{self, Tap},
    },
};
use vipd_abi::map;
use vipd_tests::Scratch;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_capture_whose_asker_leaves_while_it_loads_is_over_when_another_can_begin() {
    let host = Host::new("capture-left");
    runtime().block_on(async {
        let (captures, _applied) = host.captures();
        let mut program = captures.program();
        {
            // Asked once, it loads in the background; then its asker leaves.
            let mut asked = pin!(captures.start(Request::default()));
            let polled = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Pending), "it loads");
        }
        let stopped = timeout(PATIENCE, captures.stop()).await;
        let stopped = stopped.expect("it comes to its end");
        // Nobody can name a program any more, so nobody is about to.
        drop((captures, stopped));
        assert_eq!(*program.borrow_and_update(), None);
        assert!(program.has_changed().is_err(), "something of it still runs");
    });
    assert_eq!(host.attached(), [host.ours; 2]);
}

#[test]
fn a_capture_is_in_every_link_and_named_until_it_is_out_again() {
    let host = Host::new("capture-links");
    runtime().block_on(async {
        let (captures, _applied) = host.captures();
        let mut program = captures.program();
        let messages = captures.start(Request::default()).await.expect("it begins");
        let named = program.borrow_and_update().expect("it is named");
        assert_ne!(named, host.ours);
        assert_eq!(host.attached(), [named; 2]);
        drop(messages);
        let cleared = timeout(PATIENCE, program.wait_for(Option::is_none)).await;
        drop(cleared.expect("in time").expect("the captures live"));
        assert_eq!(host.attached(), [host.ours; 2]);
    });
}

#[test]
fn a_link_that_fails_keeps_no_other_from_its_program_and_the_name_stays() {
    let host = Host::with_bad_pins("capture-stuck");
    let pins = host.pins();
    let mut tap = Tap::load(&pins).expect("the program is taken");
    let id = tap.program_id().expect("an id");
    tap.put_in().expect_err("some pins are no links");
    assert_eq!(host.attached(), [id; 2]);
    tap::put_back(&pins).expect_err("some pins are no links");
    assert_eq!(host.attached(), [host.ours; 2]);
    drop(tap);

    runtime().block_on(async {
        let (captures, _applied) = host.captures();
        let program = captures.program();
        let refused = captures.start(Request::default()).await;
        refused.expect_err("some pins are no links");
        let stuck = program.borrow().expect("it may still be in a link");
        captures
            .start(Request::default())
            .await
            .expect_err("the one before is stuck");
        assert_eq!(*program.borrow(), Some(stuck));

        for pin in &host.bad {
            std::fs::remove_file(pin).expect("the pin is there");
        }
        let messages = captures.start(Request::default()).await;
        let _messages = messages.expect("the one before can be taken out now");
        let named = program.borrow().expect("it is named");
        assert_ne!(named, stuck);
        assert_eq!(host.attached(), [named; 2]);
        drop(timeout(PATIENCE, captures.stop()).await.expect("an end"));
        assert_eq!(*program.borrow(), None);
    });
    assert_eq!(host.attached(), [host.ours; 2]);
}

/// A network namespace of this test's thread, with the program on two
/// interfaces.
struct Host {
    /// Lives as long as what is in the links.
    _kernel: Kernel,
    /// The program's id.
    ours: u32,
    /// Pins that are named like links and are none.
    bad: Vec<PathBuf>,
    scratch: Scratch,
}

impl Host {
    fn new(name: &str) -> Self {
        Self::build(name, false)
    }

    /// With a bad pin made before those of the links, and one after: whichever
    /// way they are listed, a bad one comes first.
    fn with_bad_pins(name: &str) -> Self {
        Self::build(name, true)
    }

    fn build(name: &str, with_bad_pins: bool) -> Self {
        let network = rustix::thread::UnshareFlags::NEWNET;
        // SAFETY: the thread keeps its table of open files.
        unsafe { rustix::thread::unshare_unsafe(network) }.expect("the packet tier needs root");
        ip("link add left type veth peer name right");
        let scratch = Scratch::new(name);
        let (mut kernel, _) = Kernel::load(Some(scratch.path()), false).unwrap_or_else(|error| {
            panic!("{error}\nthe packet tier needs root and `cargo xtask build`")
        });
        let ours = kernel.program_id().expect("an id");
        let pins = Pins::new(scratch.path());
        let mut bad = Vec::new();
        let mut spoil = |name: &str| {
            if with_bad_pins {
                let path = pins.directory().join(name);
                let counts = MapData::from_pin(pins.map(map::COUNTS)).expect("it is pinned");
                counts.pin(&path).expect("can be pinned again");
                bad.push(path);
            }
        };
        spoil("link-first");
        for name in INTERFACES {
            let attached = kernel.attach(name, index(name), Mode::Native, None);
            attached.unwrap_or_else(|error| panic!("{error}"));
        }
        spoil("link-last");
        Self {
            _kernel: kernel,
            ours,
            bad,
            scratch,
        }
    }

    fn pins(&self) -> Pins {
        Pins::new(self.scratch.path())
    }

    /// Captures, and what keeps them going.
    fn captures(&self) -> (Captures, watch::Sender<Arc<Applied>>) {
        let (applied_in, applied) = watch::channel(Arc::default());
        (Captures::new(self.pins(), applied), applied_in)
    }

    /// The kernel's ids of the programs on both interfaces.
    fn attached(&self) -> [u32; 2] {
        INTERFACES.map(|name| {
            let text = ip(&format!("-details link show {name}"));
            let id = text.split_once("prog/xdp id ").map(|(_, rest)| rest);
            let id = id.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            id.unwrap_or_else(|| panic!("no XDP program in {text}"))
        })
    }
}

const INTERFACES: [&str; 2] = ["left", "right"];

fn index(name: &str) -> u32 {
    let text = ip(&format!("-oneline link show {name}"));
    let index = text
        .split_once(':')
        .and_then(|(index, _)| index.parse().ok());
    index.unwrap_or_else(|| panic!("no index in {text}"))
}

/// Runs `ip` in the thread's network namespace.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.expect("`ip` of iproute2 is there");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}
