//! Hands the eBPF objects to the compiler, which puts them into the binary.
//!
//! `cargo xtask build` makes the objects first and names their directory in
//! `VIPD_BPF_DIR`. Without them the agent still compiles, so that everybody
//! can run the tests that need no kernel; it then says at start what is
//! missing.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=VIPD_BPF_DIR");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let objects = env::var_os("VIPD_BPF_DIR").map(PathBuf::from);
    for name in ["balancer", "balancer-explain", "balancer-capture", "decap"] {
        let object = objects.as_ref().map(|dir| dir.join(name));
        let bytes = object.as_ref().and_then(|path| fs::read(path).ok());
        if let Some(path) = &object {
            println!("cargo::rerun-if-changed={}", path.display());
        }
        fs::write(out.join(name), bytes.unwrap_or_default()).expect("OUT_DIR is writable");
    }
}
