//! Write a Weir module in Rust: a WebAssembly file that Weir runs over batches of
//! records.
//!
//! ```ignore
//! use weir::{find, number, Record};
//!
//! weir::module!(record = on_record);
//!
//! fn on_record(r: &mut Record) {
//!     match find(r.data(), b"temp").and_then(|f| number(f.value)) {
//!         None => r.fail(1, b"no number in field temp"),
//!         Some(v) if v < 25.0 => r.drop(),
//!         Some(_) => {}
//!     }
//! }
//! ```
//!
//! `cargo build --release --target wasm32-unknown-unknown`, with
//! `crate-type = ["cdylib"]`.
//!
//! What a handler may say about a record (nothing said = pass it on unchanged):
//!
//! | | |
//! |---|---|
//! | [`Record::replace`] | pass on other data in its place |
//! | [`Record::forward`] | pass it on unchanged, to a chosen output |
//! | [`Record::emit`] | one more record, to any output; may be called many times |
//! | [`Record::set_key`] | choose the partition key of what replace and forward pass on |
//! | [`Record::partition_key`] | set the keys for a delivery stream's dynamic partitioning |
//! | [`Record::drop`] | pass nothing on; this is not a failure |
//! | [`Record::fail`] | processing failed: `on_error` of the manifest decides |
//! | [`Record::retry`] | not now: run the batch again later |
//!
//! A record that emitted is replaced by what it emitted; call `forward` too to keep
//! the original.
//!
//! Nothing is copied on the way in: `data` and `key` borrow from the input region for
//! the lifetime of the batch. What is given to `replace`, `emit` and so on must live
//! as long, which the borrow checker sees to: use the input itself, a literal, or a
//! [`Writer`], which costs no allocation.
//!
//! The crate is the module's side of the contract weir/1 (wasm/abi/ABI.md). It keeps
//! nothing between batches but its buffers. It needs `alloc` only, so that it works in
//! `no_std` modules that bring an allocator and a panic handler.
#![no_std]
#![warn(missing_docs)]

extern crate alloc;

pub mod host;
mod json;
mod record;
mod writer;

pub use host::Error;
pub use json::{find, integer, number, string, Field};
pub use record::{Batch, Record, Tick};
pub use writer::Writer;

#[doc(hidden)]
pub use record::{__buffer, __process, __region, __tick};

/// Makes handlers the module. `record` is needed, the others are optional, in this
/// order:
///
/// - `record: fn(&mut Record)` handles one record.
/// - `configure: fn(&[u8]) -> Result<(), &'static str>` reads the manifest's config, a
///   JSON object, before the first batch. An error refuses it and is logged.
/// - `tick: fn(&mut Tick)` is a consumer's timer; the manifest says how often it runs.
/// - `migrate: fn(u32) -> Result<(), &'static str>` brings state that an older
///   `state_version` wrote up to this module's.
#[macro_export]
macro_rules! module {
    (record = $record:path $(, configure = $configure:path)? $(, tick = $tick:path)? $(, migrate = $migrate:path)? $(,)?) => {
        #[no_mangle]
        pub extern "C" fn weir_abi_1() {}
        #[no_mangle]
        pub extern "C" fn weir_buffer(least: u32) -> u32 {
            $crate::__buffer(least)
        }
        #[no_mangle]
        pub extern "C" fn weir_process(ptr: u32, len: u32) -> i64 {
            $crate::__process(ptr, len, $record)
        }
        $(#[no_mangle]
        pub extern "C" fn weir_configure(ptr: u32, len: u32) -> i32 {
            $crate::host::__answer($configure($crate::__region(ptr, len)))
        })?
        $(#[no_mangle]
        pub extern "C" fn weir_tick(now_ms: i64) -> i64 {
            $crate::__tick(now_ms, $tick)
        })?
        $(#[no_mangle]
        pub extern "C" fn weir_migrate(from: u32) -> i32 {
            $crate::host::__answer($migrate(from))
        })?
    };
}
