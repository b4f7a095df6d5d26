//! Arguments -> exit code.
use std::process::ExitCode;

fn main() -> ExitCode {
    share_memory_between_threads();
    ExitCode::from(pipeline::cli::main())
}

/// By default the allocator gives every thread memory of its own. Chunks are made on one thread and freed on
/// another, so that what is free in one place is asked for anew in the next: peak memory grew by a fifth from 2
/// to 20 million lines, and by a fifteenth with two such places.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a setting of the C library's allocator has no safe interface")]
fn share_memory_between_threads() {
    // SAFETY: it changes a number that the allocator reads later; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn share_memory_between_threads() {}
