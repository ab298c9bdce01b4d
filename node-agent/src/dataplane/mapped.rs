//! A BPF array seen as memory: no system call per entry, in either direction.

use std::{
    io,
    marker::PhantomData,
    os::fd::AsRawFd,
    ptr::addr_of_mut,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use vipd_abi::{BackendRecord, FLOWS_PER_BUCKET, FlowBucket, FlowEntry, NextHop, Plain, Slot};

/// An array of `T` shared with the kernel.
///
/// The kernel's side reads (and, for counters, writes) at any time, so every
/// access is a volatile one, and what packets read changes only by
/// [`Mapped::publish`].
pub struct Mapped<T> {
    memory: MmapRaw,
    /// Bytes in front of the first entry.
    offset: usize,
    len: u32,
    plain: PhantomData<T>,
}

/// Types that fit one aligned word and may thus change under the packets.
pub trait Word: Plain {
    /// The word as a number.
    fn bits(self) -> u64;
}

impl Word for u64 {
    fn bits(self) -> u64 {
        self
    }
}

impl Word for Slot {
    fn bits(self) -> u64 {
        self.0
    }
}

impl Word for NextHop {
    fn bits(self) -> u64 {
        self.0
    }
}

impl<T: Plain> Mapped<T> {
    /// The kernel rounds the size of an array's value up to 8 bytes
    /// (kernel/bpf/arraymap.c).
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps `len` entries of a BPF array with `BPF_F_MMAPABLE` that start
    /// `offset` bytes into it, a multiple of 8.
    ///
    /// The caller has compared the map's value size and length with what lies
    /// there.
    ///
    /// # Errors
    ///
    /// What `mmap` says.
    pub fn of_map(fd: &impl AsRawFd, offset: usize, len: u32) -> io::Result<Self> {
        let memory = MmapOptions::new()
            .len(offset + len as usize * Self::STRIDE)
            .map_raw(fd.as_raw_fd())?;
        Ok(Self::new(memory, offset, len))
    }

    /// Memory of the same shape that no kernel reads, for tests.
    ///
    /// # Errors
    ///
    /// What `mmap` says.
    pub fn anonymous(len: u32) -> io::Result<Self> {
        let memory = MmapMut::map_anon(len as usize * Self::STRIDE)?;
        Ok(Self::new(memory.into(), 0, len))
    }

    fn new(memory: MmapRaw, offset: usize, len: u32) -> Self {
        Self {
            memory,
            offset,
            len,
            plain: PhantomData,
        }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no entries at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, index: u32) -> *mut T {
        assert!(index < self.len, "index {index} of {} entries", self.len);
        // SAFETY: the index is within the mapping, as just checked.
        unsafe {
            self.memory
                .as_mut_ptr()
                .add(self.offset + index as usize * Self::STRIDE)
                .cast()
        }
    }

    /// The entry's present value. Entries wider than a word may be torn if
    /// the kernel is writing them.
    #[must_use]
    pub fn load(&self, index: u32) -> T {
        // SAFETY: within the mapping and aligned to 8; T is `Plain`, so any
        // bytes are a value.
        unsafe { self.at(index).read_volatile() }
    }

    /// Writes an entry that no packet can be reading now.
    pub fn store(&self, index: u32, value: T) {
        // SAFETY: within the mapping and aligned to 8.
        unsafe { self.at(index).write_volatile(value) }
    }
}

impl<T: Word> Mapped<T> {
    /// Writes an entry that packets read: one aligned store, ordered after
    /// everything that was stored before. Says whether it made a difference.
    pub fn publish(&self, index: u32, value: T) -> bool {
        // SAFETY: within the mapping, aligned to 8, and 8 bytes wide.
        let word = unsafe { AtomicU64::from_ptr(self.at(index).cast()) };
        let differs = word.load(Ordering::Relaxed) != value.bits();
        if differs {
            word.store(value.bits(), Ordering::Release);
        }
        differs
    }
}

impl Mapped<FlowBucket> {
    /// An entry's present word; `place` is below [`FLOWS_PER_BUCKET`].
    #[must_use]
    pub fn entry(&self, bucket: u32, place: usize) -> FlowEntry {
        FlowEntry(self.word(bucket, place).load(Ordering::Acquire))
    }

    /// Replaces an entry that packets may be changing, if it is still `old`;
    /// says whether it did.
    pub fn swap(&self, bucket: u32, place: usize, old: FlowEntry, new: FlowEntry) -> bool {
        self.word(bucket, place)
            .compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    fn word(&self, bucket: u32, place: usize) -> &AtomicU64 {
        assert!(place < FLOWS_PER_BUCKET, "place {place} of a bucket");
        // SAFETY: within the mapping, aligned to 8, and the kernel too changes
        // an entry only as a whole.
        unsafe { AtomicU64::from_ptr(self.at(bucket).cast::<u64>().add(place)) }
    }
}

impl Mapped<BackendRecord> {
    /// Writes a record that no packet can be reading now. Its kind comes last:
    /// whoever finds one after a crash finds all of it.
    pub fn fill(&self, index: u32, record: BackendRecord) {
        let kind = BackendRecord::default().kind;
        self.store(index, BackendRecord { kind, ..record });
        std::sync::atomic::fence(Ordering::Release);
        self.store(index, record);
    }

    /// Marks a record that no packet can be reading now as unused, before the
    /// rest of it goes.
    pub fn clear(&self, index: u32) {
        let kind = BackendRecord::default().kind;
        let record = self.load(index);
        self.store(index, BackendRecord { kind, ..record });
        std::sync::atomic::fence(Ordering::Release);
        self.store(index, BackendRecord::default());
    }

    /// Changes the state of a record under the packets: one aligned store.
    pub fn set_state(&self, index: u32, state: u32) {
        // SAFETY: within the mapping, and a u32 of a repr(C) struct is aligned
        // to 4.
        let word = unsafe { AtomicU32::from_ptr(addr_of_mut!((*self.at(index)).state)) };
        word.store(state, Ordering::Release);
    }
}
