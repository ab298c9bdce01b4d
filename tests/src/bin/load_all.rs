//! Has the running kernel verify every XDP program in a directory of eBPF
//! objects, in each variant in which vipd loads it, and prints a line for each.
//! Nothing is attached and nothing stays.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    EbpfLoader,
    programs::{Program, Xdp},
};
use vipd_abi::{DecapVerdict, map};

/// Constants that vipd writes into an object before it loads it: name and value.
type Globals = &'static [(&'static str, u8)];

/// The variants of the objects that have several: what the verifier sees as
/// dead code differs between them.
const VARIANTS: &[(&str, &str, Globals)] = &[
    ("balancer", "without its log", &[("AYA_LOG_LEVEL", 0)]),
    ("balancer", "with its log", &[("AYA_LOG_LEVEL", 4)]),
];

fn main() -> ExitCode {
    let Some(directory) = env::args_os().nth(1) else {
        eprintln!("Usage: load_all DIRECTORY\n\nLoads every eBPF object in it, once.");
        return ExitCode::FAILURE;
    };
    match load_all(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // aya's error holds the verifier's words.
            println!("refused: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load_all(directory: &Path) -> Result<()> {
    let listed =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut objects: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    objects.sort();
    ensure!(!objects.is_empty(), "{} is empty", directory.display());
    for path in objects {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let variants = VARIANTS.iter().filter(|(object, ..)| *object == name);
        let mut variants: Vec<_> = variants.map(|(_, told, it)| (*told, *it)).collect();
        if variants.is_empty() {
            variants.push(("as it is", &[]));
        }
        let object = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        for (told, globals) in variants {
            load(&object, &name, told, globals).with_context(|| format!("{name}, {told}"))?;
        }
    }
    Ok(())
}

fn load(object: &[u8], name: &str, told: &str, globals: Globals) -> Result<()> {
    // Room for one processor: as laid out, the counters fill half a gigabyte.
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(map::COUNTS, 1)
        .map_max_entries(map::DECAP_COUNTERS, DecapVerdict::PLACES);
    for (global, value) in globals {
        loader.override_global(global, value, true);
    }
    let mut ebpf = loader.load(object).context("its maps")?;
    for (section, program) in ebpf.programs_mut() {
        let program: &mut Xdp = match program {
            Program::Xdp(program) => program,
            other => anyhow::bail!("{section} is {:?}, no XDP program", other.prog_type()),
        };
        program.load().with_context(|| section.to_owned())?;
        let info = program.info().context("what the kernel says of it")?;
        let verified = info.verified_instruction_count();
        println!(
            "loaded {name}, {told}: {section}, {} bytes, verified in {} instructions",
            info.size_translated().unwrap_or(0),
            verified.map_or_else(|| String::from("untold"), |count| count.to_string()),
        );
    }
    Ok(())
}
