//! Threads that stay on one processor, where the operating system lets them.

/// From now on this thread, and what it starts, runs on processor `number` only; false if that cannot be had (too
/// few processors, or not Linux).
#[cfg(target_os = "linux")]
pub fn pin(number: usize) -> bool {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return false };
    let mut own = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let Some(cpu) = own.nth(number) else { return false };
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).is_ok()
}

/// Only on Linux.
#[cfg(not(target_os = "linux"))]
pub fn pin(_: usize) -> bool {
    false
}
