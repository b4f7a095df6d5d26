//! A panic within a stage ends its stream as if that had come to its end, and what was to come would be missing
//! without a word. So a worker ends with its first panic, and a coordinator shows no answer that saw one.
//!
//! A task that is given up is no such panic, though who waited for it may say so by one: nobody takes its rows any more.
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static SEEN: AtomicU64 = AtomicU64::new(0);

/// Ends the process with the first panic, after it was printed.
pub(super) fn end_with_the_first() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !is_given_up(panic) {
                print(panic);
                std::process::abort();
            }
        }));
    });
}

/// Panics of this process since they were counted first.
pub(in crate::query) fn seen() -> u64 {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !is_given_up(panic) {
                SEEN.fetch_add(1, Ordering::SeqCst);
                print(panic);
            }
        }));
    });
    SEEN.load(Ordering::SeqCst)
}

/// Tokio's words for a task that was aborted.
fn is_given_up(panic: &PanicHookInfo<'_>) -> bool {
    panic.payload_as_str().is_some_and(|text| text.starts_with("task ") && text.ends_with(" was cancelled"))
}
