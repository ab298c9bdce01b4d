//! Follows one packet through a program, instruction by instruction, and
//! counts: time says how long a packet takes, this says what it does.
//!
//! The instructions are those of the object, before the kernel makes machine
//! code of them. Maps are read from the kernel; what the packet writes into
//! them stays here.

mod kernel;
mod memory;

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya_obj::{Object, generated::bpf_insn};

use self::memory::Memory;

/// What a packet makes a program do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    pub instructions: u32,
    pub lookups: u32,
    /// XDP's verdict.
    pub action: u32,
}

/// No packet takes so many.
const MOST: u32 = 100_000;

/// Counts for one frame, with the maps that the object was loaded with.
pub fn count(object: &[u8], loaded: &Ebpf, program: &str, frame: &[u8]) -> Result<Steps> {
    let mut object = Object::parse(object)?;
    let maps: Vec<_> = object.maps.clone().into_iter().collect();
    let sections: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let numbered = (0..)
        .zip(&maps)
        .map(|(number, (name, map))| (name.as_str(), number, map));
    object.relocate_maps(numbered, &sections)?;
    object.relocate_calls(&sections)?;
    let key = object.programs.get(program).context("no such program")?;
    let code = &object.functions[&key.function_key()].instructions;
    let mut machine = Machine {
        code,
        memory: Memory::new(frame),
        maps: maps
            .iter()
            .map(|(name, map)| MapInfo {
                name,
                key_size: map.key_size() as usize,
                data: map.data(),
            })
            .collect(),
        values: HashMap::new(),
        loaded,
        registers: [0; 11],
        callers: Vec::new(),
        steps: Steps::default(),
    };
    machine.run()?;
    Ok(machine.steps)
}

struct MapInfo<'a> {
    name: &'a str,
    key_size: usize,
    /// Of a section of globals.
    data: &'a [u8],
}

struct Machine<'a> {
    code: &'a [bpf_insn],
    memory: Memory,
    maps: Vec<MapInfo<'a>>,
    /// Addresses of the values that were looked up.
    values: HashMap<(usize, Vec<u8>), u64>,
    loaded: &'a Ebpf,
    registers: [u64; 11],
    /// Where each caller goes on, and its registers 6 to 10.
    callers: Vec<(usize, [u64; 5])>,
    steps: Steps,
}

// Parts of an instruction's code (include/uapi/linux/bpf_common.h, bpf.h).
const CLASS: u8 = 0x07;
const LD: u8 = 0;
const LDX: u8 = 1;
const ST: u8 = 2;
const STX: u8 = 3;
const ALU: u8 = 4;
const JMP: u8 = 5;
const JMP32: u8 = 6;
const ALU64: u8 = 7;
const BY_REGISTER: u8 = 0x08;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const MODE: u8 = 0xe0;
const MEM: u8 = 0x60;
const ATOMIC: u8 = 0xc0;
const BYTESWAP: u8 = 0xd0;

// Atomic operations, by an instruction's constant.
const FETCH: i32 = 1;
const CMPXCHG: i32 = 0xf1;

// What the registers of an `ld_imm64` or a call are about.
const OF_MAP: u8 = 1;
const OF_MAP_VALUE: u8 = 2;
const OF_PROGRAM: u8 = 1;

impl Machine<'_> {
    fn run(&mut self) -> Result<()> {
        self.registers[1] = Memory::CONTEXT;
        self.registers[10] = self.memory.push_frame();
        let mut at = 0;
        loop {
            let instruction = self.code.get(at).context("it ran out of the program")?;
            self.steps.instructions += 1;
            if self.steps.instructions > MOST {
                bail!("more than {MOST} instructions");
            }
            match instruction.code {
                EXIT => match self.callers.pop() {
                    None => {
                        self.steps.action = self.registers[0] as u32;
                        return Ok(());
                    }
                    Some((back, saved)) => {
                        self.memory.pop_frame();
                        self.registers[6..].copy_from_slice(&saved);
                        at = back;
                    }
                },
                CALL if instruction.src_reg() == OF_PROGRAM => {
                    let mut saved = [0; 5];
                    saved.copy_from_slice(&self.registers[6..]);
                    self.callers.push((at + 1, saved));
                    self.registers[10] = self.memory.push_frame();
                    at = step(at, instruction.imm);
                }
                CALL => {
                    self.registers[0] = self.help(instruction.imm)?;
                    at += 1;
                }
                _ => at = self.execute(instruction, at)?,
            }
        }
    }

    /// Any instruction but calls and exits; returns where to go on.
    fn execute(&mut self, instruction: &bpf_insn, at: usize) -> Result<usize> {
        let code = instruction.code;
        let (dst, src) = (
            usize::from(instruction.dst_reg()),
            usize::from(instruction.src_reg()),
        );
        let imm = i64::from(instruction.imm) as u64;
        let operand = if code & BY_REGISTER != 0 {
            self.registers[src]
        } else {
            imm
        };
        let offset = i64::from(instruction.off) as u64;
        match code & CLASS {
            ALU | ALU64 => {
                let wide = code & CLASS == ALU64;
                let old = self.registers[dst];
                self.registers[dst] = if code & 0xf0 == BYTESWAP {
                    swapped(old, instruction.imm, code & BY_REGISTER != 0)?
                } else {
                    arithmetic(code & 0xf0, old, operand, wide)?
                };
            }
            JMP | JMP32 => {
                let wide = code & CLASS == JMP;
                if condition(code & 0xf0, self.registers[dst], operand, wide)? {
                    return Ok(step(at, i32::from(instruction.off)));
                }
            }
            LD => {
                let high = self.code.get(at + 1).context("half an instruction")?.imm;
                self.registers[dst] = match instruction.src_reg() {
                    OF_MAP => imm,
                    OF_MAP_VALUE => self.global(imm as usize)? + u64::from(high as u32),
                    _ => u64::from(instruction.imm as u32) | u64::from(high as u32) << 32,
                };
                return Ok(at + 2);
            }
            LDX if code & MODE == MEM => {
                let place = self.registers[src].wrapping_add(offset);
                self.registers[dst] = self.memory.load(place, size(code))?;
            }
            ST if code & MODE == MEM => {
                let place = self.registers[dst].wrapping_add(offset);
                self.memory.store(place, size(code), imm)?;
            }
            STX if code & MODE == MEM => {
                let place = self.registers[dst].wrapping_add(offset);
                self.memory.store(place, size(code), self.registers[src])?;
            }
            STX if code & MODE == ATOMIC => {
                let place = self.registers[dst].wrapping_add(offset);
                let old = self.memory.load(place, size(code))?;
                match instruction.imm {
                    CMPXCHG => {
                        if old == self.registers[0] {
                            self.memory.store(place, size(code), self.registers[src])?;
                        }
                        self.registers[0] = old;
                    }
                    operation => {
                        let change = self.registers[src];
                        let new = arithmetic((operation & 0xf0) as u8, old, change, true)?;
                        self.memory.store(place, size(code), new)?;
                        if operation & FETCH != 0 {
                            self.registers[src] = old;
                        }
                    }
                }
            }
            _ => bail!("instruction {code:#x} is not known here"),
        }
        Ok(at + 1)
    }

    /// The kernel's helpers, by number (include/uapi/linux/bpf.h).
    fn help(&mut self, number: i32) -> Result<u64> {
        let [_, first, second, ..] = self.registers;
        match number {
            // bpf_map_lookup_elem
            1 => self.look_up(first as usize, second),
            // bpf_ktime_get_ns, bpf_ktime_get_coarse_ns
            5 | 160 => Ok(kernel::coarse_nanos()),
            // bpf_get_smp_processor_id
            8 => Ok(0),
            // bpf_redirect: XDP_REDIRECT
            23 => Ok(4),
            // bpf_csum_diff
            28 => self.sum(),
            // bpf_xdp_adjust_head, bpf_xdp_adjust_tail
            44 => Ok(self.memory.move_head(second as i32)),
            65 => Ok(self.memory.move_tail(second as i32)),
            _ => bail!("helper {number} is not known here"),
        }
    }

    fn look_up(&mut self, map: usize, key: u64) -> Result<u64> {
        self.steps.lookups += 1;
        let info = self.maps.get(map).context("no such map")?;
        let key = self.memory.bytes(key, info.key_size)?;
        if let Some(address) = self.values.get(&(map, key.clone())) {
            return Ok(*address);
        }
        let Some(value) = kernel::entry(self.loaded, info.name, &key)? else {
            return Ok(0);
        };
        let address = self.memory.add(value);
        self.values.insert((map, key), address);
        Ok(address)
    }

    /// Internet checksum, not folded to its end, of words that come less those
    /// that go.
    fn sum(&mut self) -> Result<u64> {
        let [_, from, from_size, to, to_size, seed, ..] = self.registers;
        let mut sum = seed & 0xffff_ffff;
        for (address, size, flip) in [(from, from_size, u32::MAX), (to, to_size, 0)] {
            for offset in (0..size).step_by(4) {
                let word = self.memory.load(address + offset, 4)? as u32;
                sum += u64::from(word ^ flip);
            }
        }
        while sum > 0xffff_ffff {
            sum = (sum & 0xffff_ffff) + (sum >> 32);
        }
        Ok(sum)
    }

    /// Where a section of globals starts.
    fn global(&mut self, map: usize) -> Result<u64> {
        let data = self.maps.get(map).context("no such section")?.data;
        let memory = &mut self.memory;
        let place = self.values.entry((map, Vec::new()));
        Ok(*place.or_insert_with(|| memory.add(data.to_vec())))
    }
}

fn step(at: usize, by: i32) -> usize {
    (at + 1).wrapping_add_signed(by as isize)
}

fn size(code: u8) -> usize {
    match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}

fn arithmetic(operation: u8, old: u64, operand: u64, wide: bool) -> Result<u64> {
    let (a, b) = if wide {
        (old, operand)
    } else {
        (old & 0xffff_ffff, operand & 0xffff_ffff)
    };
    let bits = if wide { 63 } else { 31 };
    let result = match operation {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 => a.checked_div(b).unwrap_or(0),
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a << (b & bits),
        0x70 => a >> (b & bits),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(b).unwrap_or(a),
        0xa0 => a ^ b,
        0xb0 => b,
        0xc0 if wide => (a.cast_signed() >> (b & bits)).cast_unsigned(),
        0xc0 => u64::from(((a as i32) >> (b & bits)).cast_unsigned()),
        _ => bail!("operation {operation:#x} is not known here"),
    };
    Ok(if wide { result } else { result & 0xffff_ffff })
}

/// To the order of the network, or back.
fn swapped(old: u64, bits: i32, to_big: bool) -> Result<u64> {
    Ok(match (bits, to_big) {
        (16, true) => u64::from((old as u16).swap_bytes()),
        (32, true) => u64::from((old as u32).swap_bytes()),
        (64, true) => old.swap_bytes(),
        (16, false) => u64::from(old as u16),
        (32, false) => u64::from(old as u32),
        (64, false) => old,
        _ => bail!("a swap of {bits} bits"),
    })
}

fn condition(operation: u8, a: u64, b: u64, wide: bool) -> Result<bool> {
    let (a, b) = if wide {
        (a, b)
    } else {
        // Signs go along, so that both comparisons are right.
        (
            i64::from(a as i32).cast_unsigned(),
            i64::from(b as i32).cast_unsigned(),
        )
    };
    let (signed_a, signed_b) = (a.cast_signed(), b.cast_signed());
    Ok(match operation {
        0x00 => true,
        0x10 => a == b,
        0x20 => a > b,
        0x30 => a >= b,
        0x40 => a & b != 0,
        0x50 => a != b,
        0x60 => signed_a > signed_b,
        0x70 => signed_a >= signed_b,
        0xa0 => a < b,
        0xb0 => a <= b,
        0xc0 => signed_a < signed_b,
        0xd0 => signed_a <= signed_b,
        _ => bail!("jump {operation:#x} is not known here"),
    })
}
