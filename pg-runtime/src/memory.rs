//! The memory that the machine has. Systems promise more than there is, and end the process that comes to use it: what
//! a user's numbers make large is compared first.

use std::io;
use std::sync::OnceLock;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// More memory is needed than there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLarge {
    /// Bytes needed.
    pub needed: u64,
    /// Bytes that the machine has, where that is known and is the reason.
    pub total: Option<u64>,
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of memory are needed at once, ", self.needed)?;
        match self.total {
            Some(total) => write!(f, "and this machine has {total}")?,
            None => write!(f, "which the system does not give")?,
        }
        write!(f, ": take a smaller model or batch, or a machine with more memory")
    }
}

impl std::error::Error for TooLarge {}

impl From<TooLarge> for io::Error {
    fn from(error: TooLarge) -> io::Error {
        io::Error::new(io::ErrorKind::OutOfMemory, error)
    }
}

/// Bytes of memory of the machine, or of the control group that the process is in; `None` where it is not known.
///
/// All of it, not what is free: that changes from moment to moment, and what is cached makes room.
pub fn total() -> Option<u64> {
    static TOTAL: OnceLock<Option<u64>> = OnceLock::new();
    *TOTAL.get_or_init(|| {
        let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(ram).ok()?;
        let group = system.cgroup_limits().map(|limits| limits.total_memory);
        [Some(system.total_memory()), group].into_iter().flatten().filter(|bytes| *bytes > 0).min()
    })
}

/// Checks that the machine has `bytes` of memory.
///
/// # Errors
/// If it is known to have less.
pub fn check(bytes: u64) -> Result<(), TooLarge> {
    match total() {
        Some(total) if bytes > total => Err(TooLarge { needed: bytes, total: Some(total) }),
        _ => Ok(()),
    }
}

/// A vector of `len` values of an iterator that has as many.
///
/// # Errors
/// If memory cannot hold them.
pub fn collect<T>(len: usize, values: impl Iterator<Item = T>) -> Result<Vec<T>, TooLarge> {
    let needed = (len as u64).saturating_mul(size_of::<T>() as u64);
    check(needed)?;
    let mut all = Vec::new();
    all.try_reserve_exact(len).map_err(|_| TooLarge { needed, total: None })?;
    all.extend(values.take(len));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_is_refused() {
        check(1 << 20).unwrap();
        assert_eq!(collect(3, 1..9), Ok(vec![1, 2, 3]));
        let error = collect(usize::MAX / 8, std::iter::repeat(0u64)).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{} bytes of memory", usize::MAX / 8 * 8)), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_machines_memory_is_known() {
        assert!(total().is_some_and(|bytes| bytes > 1 << 24), "{:?}", total());
    }
}
