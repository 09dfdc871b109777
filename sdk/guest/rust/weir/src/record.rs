use crate::host::{self, Error};
use crate::writer::{Text, Writer};
use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ptr;

/// What is known about the records handed over together.
#[repr(C)]
pub struct Batch {
    magic: u32,
    version: u16,
    /// [`Batch::REPLAY`], [`Batch::SHADOW`], [`Batch::LAST`].
    pub flags: u16,
    header_len: u32,
    /// Number of records.
    pub records: u32,
    length: u32,
    /// Number of the shard.
    pub shard: u32,
    /// Index in the shard of the first record.
    pub base_index: u64,
    /// The batch's frozen time, ms since 1970.
    pub time_ms: i64,
    /// Number of the batch.
    pub id: u64,
    /// 0 the first time.
    pub attempt: u32,
    /// CPU budget of the call, ms.
    pub cpu_budget_ms: u32,
    /// For random numbers; the same on every attempt.
    pub seed: u64,
}

impl Batch {
    /// The records were handed out before.
    pub const REPLAY: u16 = 1;
    /// The outcome is compared, not used.
    pub const SHADOW: u16 = 2;
    /// The shard is closed and these are its last records.
    pub const LAST: u16 = 4;
}

#[repr(C)]
struct Entry {
    offset: u32,
    key_len: u32,
    data_len: u32,
    reserved: u32,
    timestamp_ms: i64,
    index_delta: u32,
    input: u32,
}

#[repr(C)]
pub(crate) struct Output {
    source: u32,
    output: u16,
    headers: u16,
    key: u32,
    key_len: u32,
    data: u32,
    data_len: u32,
    own: u32, // made by replace or forward; the host doesn't read these two
    unused: u32,
    parts: u32,
    parts_len: u32,
    timestamp_ms: i64,
}

#[repr(C)]
struct Outcome {
    status: u8,
    flags: u8,
    count: u16,
    aux: u32,
}

const NULL: u32 = 0xffff_ffff;
const INHERIT: u32 = 0xffff_ffff;
const UNCHANGED: u8 = 0;
const REPLACED: u8 = 1;
const DROPPED: u8 = 2;
const FAILED: u8 = 3;
const RETRY: u8 = 4;
const RESULT_MAGIC: u32 = 0x3152_5257;

struct State {
    region: Vec<u64>, // 8-aligned
    outcomes: Vec<Outcome>,
    outs: Vec<Output>,
    text: Text,
    result: [u32; 6],
}

static mut STATE: State =
    State { region: Vec::new(), outcomes: Vec::new(), outs: Vec::new(), text: Text::new(), result: [0; 6] };

/// The module's buffers. An instance runs on one thread, and no reference to a part is held
/// across a call that takes another to the same part.
#[inline(always)]
fn state() -> &'static mut State {
    unsafe { &mut *ptr::addr_of_mut!(STATE) }
}

#[inline(always)]
pub(crate) fn text() -> &'static mut Text {
    &mut state().text
}

/// One record, valid while its handler runs. What it lends lives until the batch ends.
pub struct Record<'a> {
    data: &'a [u8],
    key: Option<&'a [u8]>,
    entry: &'a Entry,
    batch: &'a Batch,
    number: u32,
    first: usize,
    verdict: u8,
    code: u32,
    reason: &'a [u8],
    out_key: Option<&'a [u8]>,
    out_parts: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// The record's data.
    #[inline(always)]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Its partition key, if it has one.
    #[inline(always)]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Its arrival, ms since 1970.
    pub fn timestamp_ms(&self) -> i64 {
        self.entry.timestamp_ms
    }

    /// Its index in the shard.
    pub fn index(&self) -> u64 {
        self.batch.base_index + self.entry.index_delta as u64
    }

    /// Its number in the batch, from 0.
    pub fn number(&self) -> usize {
        self.number as usize
    }

    /// The stream it came from, an index into the manifest's inputs.
    pub fn input(&self) -> usize {
        self.entry.input as usize
    }

    /// What is known about the records handed over together.
    pub fn batch(&self) -> &'a Batch {
        self.batch
    }

    /// Opens a writer for data to replace the record with, or to emit.
    #[inline(always)]
    pub fn writer(&self) -> Writer<'a> {
        Writer::new()
    }

    /// Passes `data` on in place of the record, to output 0.
    #[inline(always)]
    pub fn replace(&mut self, data: &'a [u8]) {
        self.replace_to(0, data)
    }

    /// Passes `data` on in place of the record.
    #[inline(always)]
    pub fn replace_to(&mut self, output: u16, data: &'a [u8]) {
        let mut o = Output::new(self.number, output, None, Some(data));
        o.own = 1;
        state().outs.push(o);
    }

    /// Passes the record's own data on to an output. Nothing is copied.
    #[inline(always)]
    pub fn forward(&mut self, output: u16) {
        let mut o = Output::new(self.number, output, None, None);
        o.own = 1;
        state().outs.push(o);
    }

    /// Adds a record to an output. Without a key it takes the record's own.
    pub fn emit(&mut self, output: u16, key: Option<&'a [u8]>, data: &'a [u8]) {
        state().outs.push(Output::new(self.number, output, key, Some(data)));
    }

    /// `emit` that hands the record to the host at once, so that key and data need not
    /// live on: for more output than fits into memory. It takes effect with the batch.
    /// Consumers with the emit capability.
    pub fn emit_now(&mut self, output: u16, key: Option<&[u8]>, data: &[u8]) -> Result<(), Error> {
        host::emit_chunk(&Output::new(self.number, output, key, Some(data)))
    }

    /// Chooses the partition key of the records that `replace` and `forward` pass on;
    /// alone, it passes the record on under that key.
    pub fn set_key(&mut self, key: &'a [u8]) {
        self.out_key = Some(key);
    }

    /// Sets the keys for a delivery stream's dynamic partitioning: `name=value` lines, or
    /// one value. Copies nothing of the data.
    pub fn partition_key(&mut self, keys: &'a [u8]) {
        self.out_parts = Some(keys);
    }

    /// Leaves the record out; not a failure. What it emitted stays.
    pub fn drop(&mut self) {
        self.verdict = DROPPED;
    }

    /// Says that the record can't be processed, with a code of the module's own and a
    /// reason for people (at most 1,024 bytes are kept). What it emitted is taken back.
    pub fn fail(&mut self, code: u32, reason: &'a [u8]) {
        self.verdict = FAILED;
        self.code = code;
        self.reason = reason;
    }

    /// Asks for the record again after a pause. What it emitted is taken back.
    pub fn retry(&mut self) {
        self.verdict = RETRY;
    }

    /// Tells whether the handler said nothing.
    #[inline(always)]
    fn untouched(&self, outs: usize) -> bool {
        self.verdict == UNCHANGED && outs == self.first && self.out_key.is_none() && self.out_parts.is_none()
    }

    /// Turns what the handler said into an outcome.
    #[inline(never)]
    fn settle(&mut self) -> Outcome {
        let outs = &mut state().outs;
        match self.verdict {
            FAILED => {
                outs.truncate(self.first);
                if self.reason.is_empty() {
                    return Outcome { status: FAILED, flags: 0, count: 0, aux: self.code };
                }
                let mut o = Output::new(self.number, 0, None, Some(self.reason));
                o.timestamp_ms = self.code as i64;
                outs.push(o);
                return Outcome { status: FAILED, flags: 1, count: 1, aux: self.first as u32 };
            }
            RETRY => {
                outs.truncate(self.first);
                return Outcome { status: RETRY, flags: 0, count: 0, aux: 0 };
            }
            DROPPED if outs.len() == self.first => return Outcome { status: DROPPED, flags: 0, count: 0, aux: 0 },
            _ => {}
        }
        if outs.len() == self.first {
            self.forward(0);
        }
        let count = outs.len() - self.first;
        if count > 0xffff {
            panic!("weir: more than 65,535 outputs of one record");
        }
        for o in outs[self.first..].iter_mut().filter(|o| o.own == 1) {
            if let Some(key) = self.out_key {
                o.key = address(key);
                o.key_len = key.len() as u32;
            }
            if let Some(parts) = self.out_parts {
                o.parts = address(parts);
                o.parts_len = parts.len() as u32;
            }
        }
        Outcome { status: REPLACED, flags: 0, count: count as u16, aux: self.first as u32 }
    }
}

#[inline(always)]
fn address(b: &[u8]) -> u32 {
    b.as_ptr() as usize as u32
}

impl Output {
    #[inline(always)]
    fn new(source: u32, output: u16, key: Option<&[u8]>, data: Option<&[u8]>) -> Output {
        Output {
            source,
            output,
            headers: 0,
            key: key.map_or(INHERIT, address),
            key_len: key.map_or(0, |k| k.len() as u32),
            data: data.map_or(INHERIT, address),
            data_len: data.map_or(0, |d| d.len() as u32),
            own: 0,
            unused: 0,
            parts: INHERIT,
            parts_len: 0,
            timestamp_ms: 0,
        }
    }
}

/// A consumer's timer, valid while its handler runs.
pub struct Tick<'a> {
    now_ms: i64,
    batch: PhantomData<&'a [u8]>,
}

impl<'a> Tick<'a> {
    /// The time, ms since 1970.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Opens a writer for data to emit.
    pub fn writer(&self) -> Writer<'a> {
        Writer::new()
    }

    /// Adds a record that stems from no other to an output. Without a key the host chooses
    /// one.
    pub fn emit(&mut self, output: u16, key: Option<&'a [u8]>, data: &'a [u8]) {
        let mut o = Output::new(NULL, output, key, Some(data));
        if key.is_none() {
            o.key = 0;
            o.key_len = NULL;
        }
        state().outs.push(o);
    }
}

fn begin() {
    let s = state();
    s.outs.clear();
    s.text.reset();
}

fn end(all_unchanged: bool, outcomes: u32) -> i64 {
    let s = state();
    s.result = [
        RESULT_MAGIC,
        1 | (all_unchanged as u32) << 16,
        outcomes,
        s.outs.as_ptr() as usize as u32,
        s.outs.len() as u32,
        0,
    ];
    s.result.as_ptr() as usize as i64
}

#[doc(hidden)]
pub fn __buffer(least: u32) -> u32 {
    let words = (least as usize + 7) / 8;
    let region = &mut state().region;
    if region.len() < words {
        *region = Vec::new();
        region.resize(words.next_power_of_two().max(8 << 10), 0);
    }
    region.as_ptr() as usize as u32
}

#[doc(hidden)]
pub fn __region(ptr: u32, len: u32) -> &'static [u8] {
    // the host hands back what __buffer gave it, and writes to it between calls only
    unsafe { core::slice::from_raw_parts(ptr as usize as *const u8, len as usize) }
}

#[doc(hidden)]
pub fn __tick(now_ms: i64, handle: impl for<'a> Fn(&mut Tick<'a>)) -> i64 {
    begin();
    handle(&mut Tick { now_ms, batch: PhantomData });
    end(false, 0)
}

#[doc(hidden)]
#[inline(always)]
pub fn __process(ptr: u32, len: u32, handle: impl for<'a> Fn(&mut Record<'a>)) -> i64 {
    let region = __region(ptr, len);
    // the host wrote a header and header.records entries, as the contract says
    let (batch, entries) = unsafe {
        let batch = &*(region.as_ptr() as *const Batch);
        let first = region.as_ptr().add(batch.header_len as usize) as *const Entry;
        (batch, core::slice::from_raw_parts(first, batch.records as usize))
    };
    begin();
    state().outcomes.clear();
    state().outcomes.reserve(entries.len());
    let mut all_unchanged = true;
    for (i, entry) in entries.iter().enumerate() {
        let at = entry.offset as usize;
        let has_key = entry.key_len != NULL;
        let data_at = at + if has_key { entry.key_len as usize } else { 0 };
        let mut r = Record {
            data: &region[data_at..data_at + entry.data_len as usize],
            key: if has_key { Some(&region[at..data_at]) } else { None },
            entry,
            batch,
            number: i as u32,
            first: state().outs.len(),
            verdict: UNCHANGED,
            code: 0,
            reason: &[],
            out_key: None,
            out_parts: None,
        };
        handle(&mut r);
        let outcome = if r.untouched(state().outs.len()) {
            Outcome { status: UNCHANGED, flags: 0, count: 0, aux: 0 }
        } else {
            all_unchanged = false;
            r.settle()
        };
        state().outcomes.push(outcome);
    }
    end(all_unchanged, state().outcomes.as_ptr() as usize as u32)
}
