//! The heap of this process. Source: mallopt(3).

use std::io;

/// Has all threads take their memory from this many heaps, instead of up to eight for each processor: what is free
/// in one is of no use to the others. To be called before there is a second thread. A C library that has
/// no such choice is left alone.
///
/// # Errors
///
/// `InvalidInput` when the number is none that there can be.
pub fn limit_heaps(count: u8) -> io::Result<()> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the call takes numbers only, and changes a setting of the allocator under its own lock.
        if unsafe { libc::mallopt(libc::M_ARENA_MAX, count.into()) } != 1 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::limit_heaps;

    #[test]
    fn one_heap_is_enough_for_all_threads() {
        limit_heaps(1).unwrap();
        let made = std::thread::spawn(|| vec![1_u8; 4096]).join().unwrap();
        assert_eq!(made.iter().map(|it| usize::from(*it)).sum::<usize>(), 4096);
    }
}
