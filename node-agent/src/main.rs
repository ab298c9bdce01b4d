//! The binary `vipd`; see the library for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    vipd::cli::main()
}
