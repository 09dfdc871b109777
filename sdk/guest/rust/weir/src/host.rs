//! What a module may ask of the box: log, metrics, clock, state, HTTP.

use crate::record::Output;
use core::fmt;

/// What a host call answers when it does not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// No such key.
    NotFound,
    /// The buffer is too small for so many bytes.
    BufferTooSmall(usize),
    /// An argument is out of range.
    Invalid,
    /// Not granted by the manifest.
    Denied,
    /// A limit of the manifest is reached.
    Quota,
    /// The call took longer than it may.
    Timeout,
    /// The box can't do this now.
    Unavailable,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::NotFound => "not found",
            Error::BufferTooSmall(_) => "buffer too small",
            Error::Invalid => "invalid",
            Error::Denied => "denied",
            Error::Quota => "quota",
            Error::Timeout => "timeout",
            Error::Unavailable => "unavailable",
        })
    }
}

fn check(code: i32, needed: u32) -> Result<i32, Error> {
    match code {
        0.. => Ok(code),
        -1 => Err(Error::NotFound),
        -2 => Err(Error::BufferTooSmall(needed as usize)),
        -4 => Err(Error::Denied),
        -5 => Err(Error::Quota),
        -6 => Err(Error::Timeout),
        -7 => Err(Error::Unavailable),
        _ => Err(Error::Invalid),
    }
}

#[doc(hidden)]
pub fn __answer(r: Result<(), &'static str>) -> i32 {
    match r {
        Ok(()) => 0,
        Err(why) => {
            log(Level::Error, why.as_bytes());
            -3
        }
    }
}

mod sys {
    #[link(wasm_import_module = "weir_log")]
    extern "C" {
        #[link_name = "write"]
        pub fn log_write(level: i32, p: *const u8, n: usize) -> i32;
    }
    #[link(wasm_import_module = "weir_metric")]
    extern "C" {
        #[link_name = "define"]
        pub fn metric_define(kind: i32, p: *const u8, n: usize) -> i32;
        #[link_name = "add"]
        pub fn metric_add(id: i32, v: f64) -> i32;
        #[link_name = "set"]
        pub fn metric_set(id: i32, v: f64) -> i32;
        #[link_name = "observe"]
        pub fn metric_observe(id: i32, v: f64) -> i32;
    }
    #[link(wasm_import_module = "weir_clock")]
    extern "C" {
        #[link_name = "now"]
        pub fn clock_now(kind: i32) -> i64;
    }
    #[link(wasm_import_module = "weir_state")]
    extern "C" {
        #[link_name = "get"]
        pub fn state_get(k: *const u8, kn: usize, buf: *mut u8, cap: usize, out: *mut u32) -> i32;
        #[link_name = "put"]
        pub fn state_put(k: *const u8, kn: usize, v: *const u8, vn: usize) -> i32;
        #[link_name = "del"]
        pub fn state_del(k: *const u8, kn: usize) -> i32;
        #[link_name = "incr"]
        pub fn state_incr(k: *const u8, kn: usize, delta: i64, out: *mut i64) -> i32;
        #[link_name = "scan"]
        pub fn state_scan(
            prefix: *const u8, pn: usize, after: *const u8, an: usize, limit: i32, buf: *mut u8, cap: usize, out: *mut u32,
        ) -> i32;
    }
    #[link(wasm_import_module = "weir_emit")]
    extern "C" {
        #[link_name = "chunk"]
        pub fn emit_chunk(outs: *const u8, count: u32) -> i32;
    }
    #[link(wasm_import_module = "weir_http")]
    extern "C" {
        #[link_name = "call"]
        pub fn http_call(req: *const u8, n: usize, buf: *mut u8, cap: usize, out: *mut u32) -> i32;
        #[link_name = "enqueue"]
        pub fn http_enqueue(req: *const u8, n: usize) -> i32;
    }
}

pub(crate) fn emit_chunk(o: &Output) -> Result<(), Error> {
    check(unsafe { sys::emit_chunk(o as *const Output as *const u8, 1) }, 0).map(|_| ())
}

/// The weight of a log line.
#[derive(Clone, Copy)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// Worth knowing.
    Info,
    /// Worth looking at.
    Warn,
    /// Wrong.
    Error,
}

/// Writes one line to the module's log. Lines are cut at 1 KiB; above the manifest's rate
/// the host drops them.
pub fn log(level: Level, line: &[u8]) {
    unsafe { sys::log_write(level as i32, line.as_ptr(), line.len()) };
}

/// A number the box shows to its operator. What is counted in a batch is added when the
/// batch succeeds. Define metrics in `configure` or once, not per record; names are
/// `[a-z_][a-z0-9_]*`. Using one that the host refused does nothing.
#[derive(Clone, Copy)]
pub struct Metric(i32);

impl Metric {
    /// A metric to which [`Metric::add`] adds.
    pub fn counter(name: &str) -> Metric {
        Metric::define(0, name)
    }

    /// A metric that [`Metric::set`] sets.
    pub fn gauge(name: &str) -> Metric {
        Metric::define(1, name)
    }

    /// A metric that shows how what [`Metric::observe`] is given is distributed.
    pub fn histogram(name: &str) -> Metric {
        Metric::define(2, name)
    }

    fn define(kind: i32, name: &str) -> Metric {
        Metric(unsafe { sys::metric_define(kind, name.as_ptr(), name.len()) })
    }

    /// Adds to a counter or gauge.
    pub fn add(self, v: f64) {
        unsafe { sys::metric_add(self.0, v) };
    }

    /// Sets a gauge.
    pub fn set(self, v: f64) {
        unsafe { sys::metric_set(self.0, v) };
    }

    /// Adds a value to a histogram.
    pub fn observe(self, v: f64) {
        unsafe { sys::metric_observe(self.0, v) };
    }
}

/// The batch's frozen time, ms since 1970.
pub fn batch_time_ms() -> i64 {
    unsafe { sys::clock_now(0) }
}

/// The wall clock, ms since 1970, when the manifest grants `clock: real`; the batch's time
/// otherwise, so that a replay gives the same answer.
pub fn wall_time_ms() -> i64 {
    unsafe { sys::clock_now(1) }
}

/// A clock that never goes back, in ns; granted as [`wall_time_ms`] is.
pub fn monotonic_ns() -> i64 {
    unsafe { sys::clock_now(2) }
}

/// Copies the value of `key` into `buf` and returns the part of it that is the value. State
/// is for consumers, private to the module and the shard, and commits with the batch.
pub fn state_get<'b>(key: &[u8], buf: &'b mut [u8]) -> Result<&'b mut [u8], Error> {
    let mut len = 0;
    let code = unsafe { sys::state_get(key.as_ptr(), key.len(), buf.as_mut_ptr(), buf.len(), &mut len) };
    check(code, len)?;
    Ok(&mut buf[..len as usize])
}

/// Stores `value` under `key` (1 to 1,024 bytes).
pub fn state_put(key: &[u8], value: &[u8]) -> Result<(), Error> {
    check(unsafe { sys::state_put(key.as_ptr(), key.len(), value.as_ptr(), value.len()) }, 0).map(|_| ())
}

/// Removes `key`; no error when there was none.
pub fn state_delete(key: &[u8]) -> Result<(), Error> {
    check(unsafe { sys::state_del(key.as_ptr(), key.len()) }, 0).map(|_| ())
}

/// Adds `delta` to the counter under `key`, 0 when absent, and returns the sum.
pub fn state_incr(key: &[u8], delta: i64) -> Result<i64, Error> {
    let mut sum = 0;
    check(unsafe { sys::state_incr(key.as_ptr(), key.len(), delta, &mut sum) }, 0)?;
    Ok(sum)
}

/// Calls `each` with each key that begins with `prefix` and its value, in order, until it
/// returns false. It fetches a buffer full at a time. `each` may put and delete.
pub fn state_scan(prefix: &[u8], buf: &mut [u8], mut each: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error> {
    let mut after = [0u8; 1024];
    let mut after_len = 0;
    loop {
        let mut used = 0;
        let code = unsafe {
            sys::state_scan(
                prefix.as_ptr(), prefix.len(), after.as_ptr(), after_len, 1000, buf.as_mut_ptr(), buf.len(), &mut used,
            )
        };
        let entries = check(code, used)?;
        if entries == 0 {
            return Ok(());
        }
        let mut page = &buf[..used as usize];
        for _ in 0..entries {
            let (head, rest) = page.split_at(8);
            let (key, rest) = rest.split_at(load(&head[..4]));
            let (value, rest) = rest.split_at(load(&head[4..]));
            page = rest;
            after_len = key.len();
            after[..after_len].copy_from_slice(key);
            if !each(key, value) {
                return Ok(());
            }
        }
    }
}

fn load(b: &[u8]) -> usize {
    u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize
}

/// Sends a request and waits: transforms only, hosts of the manifest only. The request is
/// text, `POST https://host/path\nname: value\n\n` and the body. Returns the HTTP status and
/// the response in `buf`, in the same form. After [`Error::BufferTooSmall`], calling again with
/// an empty request and a larger buffer fetches the response.
pub fn http_call<'b>(request: &[u8], buf: &'b mut [u8]) -> Result<(u32, &'b [u8]), Error> {
    let mut len = 0;
    let code = unsafe { sys::http_call(request.as_ptr(), request.len(), buf.as_mut_ptr(), buf.len(), &mut len) };
    let status = check(code, len)?;
    Ok((status as u32, &buf[..len as usize]))
}

/// What follows the headers of a response.
pub fn http_body(response: &[u8]) -> &[u8] {
    match response.windows(2).position(|w| w == b"\n\n") {
        Some(at) => &response[at + 2..],
        None => &[],
    }
}

/// Puts a request into the outbox: consumers only. It is sent after the batch is
/// committed, at least once.
pub fn http_enqueue(request: &[u8]) -> Result<(), Error> {
    check(unsafe { sys::http_enqueue(request.as_ptr(), request.len()) }, 0).map(|_| ())
}
