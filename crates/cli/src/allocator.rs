//! Main memory that ends in the middle of the work. Rust then says how many bytes could not be had and ends the process by SIGABRT;
//! here that becomes an error that says what to lower.
//!
//! An allocator may not panic, and a caller that can do without the memory must not be ended, so the allocator only notes what it
//! could not give, and the signal, where it comes to that, does the rest.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::OnceLock,
};

/// The system's allocator, which notes what it could not give.
struct Noting;

#[global_allocator]
static ALLOCATOR: Noting = Noting;

thread_local! {
    /// Bytes of this thread's request that was refused last; 0 while none was.
    static REFUSED: Cell<usize> = const { Cell::new(0) };
}

/// What to lower, which is said after what could not be had.
static ADVICE: OnceLock<String> = OnceLock::new();

impl Noting {
    fn noted(start: *mut u8, bytes: usize) -> *mut u8 {
        if start.is_null() {
            REFUSED.set(bytes);
        }
        start
    }
}

#[allow(unsafe_code)]
// SAFETY: everything is the system's allocator's, under the same conditions
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::noted(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::noted(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        Self::noted(unsafe { System.realloc(start, layout, bytes) }, bytes)
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        unsafe { System.dealloc(start, layout) }
    }
}

/// Something panicked on this thread: should the process end by the same signal now, that is not for want of the memory that was refused
/// before.
pub fn forget() {
    REFUSED.set(0);
}

/// From now on a process that ends because an allocation failed says so with this advice, and exits with code 1; where the system
/// has no such signals it ends as Rust ends it.
pub fn explain_with(advice: &str) {
    // now, because nothing can be allocated when it is needed
    if ADVICE.set(format!("{advice}\n")).is_ok() {
        #[cfg(unix)]
        signal::install();
    }
}

#[cfg(unix)]
mod signal {
    use std::io::Write;

    use super::*;

    /// Takes the place of what SIGABRT does by itself.
    #[allow(unsafe_code)]
    pub(super) fn install() {
        let handler: extern "C" fn(libc::c_int) = explain;
        // SAFETY: the handler only reads what lies in static memory and calls what signal-safety(7) allows
        unsafe { libc::signal(libc::SIGABRT, handler as libc::sighandler_t) };
    }

    /// The thread whose allocation failed is the one that comes here.
    extern "C" fn explain(_: libc::c_int) {
        match REFUSED.get() {
            // by another, or for another reason: as if this were not here
            0 => again(),
            bytes => {
                say(sentence(bytes, &mut [0; LENGTH]));
                say(ADVICE.get().map(String::as_bytes).unwrap_or_default());
                exit();
            }
        }
    }

    /// More than what is said of the largest number.
    const LENGTH: usize = 160;

    /// What happened, written without an allocation.
    fn sentence(bytes: usize, text: &mut [u8; LENGTH]) -> &[u8] {
        let mut rest = &mut text[..];
        let written = write!(
            rest,
            "error: the memory of this machine, or what this process may have of it, does not suffice ({bytes} bytes could not be had). "
        );
        let left = if written.is_ok() { rest.len() } else { 0 };
        &text[..LENGTH - left]
    }

    /// Ends the process by the signal, once the handler has returned.
    #[allow(unsafe_code)]
    fn again() {
        // SAFETY: both may be called in a handler
        unsafe {
            libc::signal(libc::SIGABRT, libc::SIG_DFL);
            libc::raise(libc::SIGABRT);
        }
    }

    #[allow(unsafe_code)]
    fn say(mut text: &[u8]) {
        while !text.is_empty() {
            // SAFETY: these bytes are there to read
            let written = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
            let Ok(written @ 1..) = usize::try_from(written) else { return };
            text = &text[written..];
        }
    }

    #[allow(unsafe_code)]
    fn exit() -> ! {
        // SAFETY: it ends the process, and calls nothing of ours before
        unsafe { libc::_exit(1) }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn numbers_are_written_in_decimal() {
            for number in [0, 7, 10, 1_234_567_890, usize::MAX] {
                let text = String::from_utf8_lossy(sentence(number, &mut [0; LENGTH])).into_owned();
                assert!(text.ends_with(&format!(" ({number} bytes could not be had). ")), "{text}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_noted_and_the_caller_may_go_on() {
        let bytes = isize::MAX as usize;
        assert!(Vec::<u8>::new().try_reserve_exact(bytes).is_err());
        assert_eq!(REFUSED.get(), bytes);
        forget();
        assert_eq!(REFUSED.get(), 0);
    }
}
