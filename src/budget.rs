//! What a compile may take of the controller: memory, time, and work inside of single operations.
//!
//! A template is somebody's program. The engine counts its steps, but one step may print a value that holds itself a million times, and many
//! steps may each keep a little more. So the memory that a thread holds is counted where it is allocated, and routines that walk through values
//! say how far they have walked. Whoever compiles opens a `Budget`; whoever works asks. Without an open one nothing is limited.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::marker::PhantomData;

/// The limits of one compile; settable as `limits` in basalt.yaml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Bytes that are held at the same time.
    pub memory: usize,
    /// Seconds of a processor.
    pub time: u64,
    /// Values that one operation may walk through: a second or so.
    pub values: u64,
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance { memory: 1 << 30, time: 60, values: 10_000_000 }
    }
}

/// The clock is asked after so many values, or so many operations.
const CLOCK: u64 = 4096;
const OPERATIONS: u32 = 16;

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    Memory(usize),
    Time(u64),
    Values,
}

impl Exceeded {
    /// What happened, and what can be done.
    pub fn text(self) -> String {
        match self {
            Exceeded::Memory(bytes) => format!("compiling takes more than {} MiB of memory (`limits: memory` in basalt.yaml)", bytes >> 20),
            Exceeded::Time(seconds) => format!("compiling takes more than {seconds} seconds (`limits: time` in basalt.yaml)"),
            Exceeded::Values => "the operation goes through too many values; does a value hold itself many times over?".to_owned(),
        }
    }
}

#[derive(Clone, Copy)]
struct Open {
    allowance: Allowance,
    /// What the thread may hold at most.
    top: isize,
    /// On the thread's clock, in nanoseconds.
    end: i128,
    /// Values that this operation has walked through.
    values: u64,
    exceeded: Option<Exceeded>,
}

thread_local! {
    /// Bytes allocated by this thread, less those it has freed.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static OPEN: Cell<Option<Open>> = const { Cell::new(None) };
    static DONE: Cell<u32> = const { Cell::new(0) };
}

/// Limits its thread as long as it lives. Within another it changes nothing: the outer one holds.
pub struct Budget {
    opened: bool,
    /// It belongs to its thread.
    _here: PhantomData<*const ()>,
}

impl Budget {
    pub fn open(allowance: Allowance) -> Budget {
        let opened = OPEN.get().is_none();
        if opened {
            let top = HELD.get().saturating_add(isize::try_from(allowance.memory).unwrap_or(isize::MAX));
            let end = clock() + i128::from(allowance.time) * 1_000_000_000;
            OPEN.set(Some(Open { allowance, top, end, values: 0, exceeded: None }));
        }
        Budget { opened, _here: PhantomData }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        if self.opened {
            OPEN.set(None);
        }
    }
}

/// Processor time of this thread, in nanoseconds: a machine that is busy with other things takes nothing away.
fn clock() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

impl Open {
    fn look_at_memory(&mut self) {
        if self.exceeded.is_none() && HELD.get() > self.top {
            self.exceeded = Some(Exceeded::Memory(self.allowance.memory));
        }
    }

    fn look_at_clock(&mut self) {
        if self.exceeded.is_none() && clock() > self.end {
            self.exceeded = Some(Exceeded::Time(self.allowance.time));
        }
    }
}

/// Counts values that an operation walks through. False once there is too much of anything: stop, whoever asked will be told.
pub fn work(values: usize) -> bool {
    let Some(mut open) = OPEN.get() else { return true };
    if open.exceeded.is_some() {
        return false;
    }
    let before = open.values;
    open.values = before.saturating_add(values as u64);
    if open.values > open.allowance.values {
        open.exceeded = Some(Exceeded::Values);
    }
    if before / CLOCK != open.values / CLOCK {
        open.look_at_clock();
    }
    open.look_at_memory();
    OPEN.set(Some(open));
    open.exceeded.is_none()
}

/// Ends an operation: whether nothing was exceeded so far.
pub fn done() -> Result<(), Exceeded> {
    let Some(mut open) = OPEN.get() else { return Ok(()) };
    open.look_at_memory();
    DONE.set(DONE.get().wrapping_add(1));
    if DONE.get().is_multiple_of(OPERATIONS) {
        open.look_at_clock();
    }
    open.values = 0;
    OPEN.set(Some(open));
    open.exceeded.map_or(Ok(()), Err)
}

/// Whether nothing was exceeded so far.
pub fn check() -> Result<(), Exceeded> {
    let Some(mut open) = OPEN.get() else { return Ok(()) };
    open.look_at_memory();
    OPEN.set(Some(open));
    open.exceeded.map_or(Ok(()), Err)
}

/// The same, before so many bytes more are taken at once.
pub fn check_for(bytes: usize) -> Result<(), Exceeded> {
    check()?;
    let Some(open) = OPEN.get() else { return Ok(()) };
    let more = isize::try_from(bytes).unwrap_or(isize::MAX);
    if HELD.get().saturating_add(more) > open.top { Err(Exceeded::Memory(open.allowance.memory)) } else { Ok(()) }
}

/// Gives memory that is free back to the system. Whoever runs for months does it when there is nothing to do: the allocator keeps what is free
/// between what is not, a little more of it each time.
pub fn give_back() {
    // SAFETY: it only looks at what is free, whatever other threads do meanwhile.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::malloc_trim(0) };
}

/// The system's allocator, counting by thread. What another thread frees stays counted here, which is little.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize, sign: isize) {
    HELD.set(HELD.get().wrapping_add(sign.wrapping_mul(bytes as isize)));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches only a number of this thread that needs no destructor
// and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_while_it_is_held() {
        let budget = Budget::open(Allowance { memory: 1 << 20, ..Allowance::default() });
        let held = vec![0_u8; 900 << 10];
        assert_eq!(check(), Ok(()));
        assert_eq!(check_for(200 << 10), Err(Exceeded::Memory(1 << 20)));
        drop(held);
        assert_eq!(check_for(200 << 10), Ok(()));
        {
            // Within another: the outer one holds.
            let _inner = Budget::open(Allowance::default());
            let _held = vec![0_u8; 2 << 20];
            assert_eq!(check(), Err(Exceeded::Memory(1 << 20)));
        }
        assert!(!work(1), "what was exceeded stays so");
        drop(budget);
        assert!(check().is_ok() && work(1));
    }

    #[test]
    fn work_and_time_come_to_an_end() {
        let budget = Budget::open(Allowance::default());
        assert!(work(1000) && !work(usize::MAX));
        assert_eq!(check(), Err(Exceeded::Values));
        drop(budget);
        let _budget = Budget::open(Allowance { time: 0, ..Allowance::default() });
        let mut steps = 0;
        while work(1) {
            steps += 1;
        }
        assert!(steps <= CLOCK && check() == Err(Exceeded::Time(0)), "{steps}");
    }
}
