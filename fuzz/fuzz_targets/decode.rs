//! Any bytes, decoded with the built-in log types.
#![no_main]
use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use pipeline::decode::Decoder;
use pipeline::log_type::LogTypes;

thread_local! {
    // one decoder for all inputs: nothing of a chunk may be left to the next one
    static DECODER: RefCell<(LogTypes, Decoder)> = RefCell::new({
        let types = LogTypes::load(None).expect("the built-in types compile");
        let decoder = Decoder::new(&types);
        (types, decoder)
    });
}

fuzz_target!(|bytes: &[u8]| {
    DECODER.with_borrow_mut(|(types, decoder)| pipeline_fuzz::check(types, decoder, bytes));
});
