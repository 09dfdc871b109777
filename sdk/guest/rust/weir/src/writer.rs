use crate::json::POW10;
use alloc::vec::Vec;
use core::marker::PhantomData;

/// Text made during a batch lies in a list of chunks that the next batch uses again.
pub(crate) struct Text {
    chunks: Vec<Vec<u8>>,
    current: usize,
    used: usize,
    open: bool, // a Writer is
}

const CHUNK: usize = 64 << 10;

impl Text {
    pub(crate) const fn new() -> Text {
        Text { chunks: Vec::new(), current: 0, used: 0, open: false }
    }

    pub(crate) fn reset(&mut self) {
        self.current = 0;
        self.used = 0;
    }

    /// A pointer to room for `n` bytes, and how many there are.
    fn room(&mut self, n: usize) -> (*mut u8, usize) {
        loop {
            if self.current == self.chunks.len() {
                self.chunks.push(Vec::with_capacity(CHUNK.max(n.next_power_of_two())));
            }
            let chunk = &mut self.chunks[self.current];
            if chunk.capacity() - self.used >= n {
                // within the chunk's capacity, and taken by nobody else until the batch ends
                return (unsafe { chunk.as_mut_ptr().add(self.used) }, chunk.capacity() - self.used);
            }
            self.current += 1;
            self.used = 0;
        }
    }
}

/// Builds bytes that live until the batch ends. One is open at a time: opening a second
/// one panics. See [`crate::Record::writer`].
pub struct Writer<'a> {
    start: *mut u8,
    len: usize,
    cap: usize,
    batch: PhantomData<&'a [u8]>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new() -> Writer<'a> {
        let text = crate::record::text();
        if text.open {
            panic!("weir: a writer is open already");
        }
        text.open = true;
        let (start, cap) = text.room(256);
        Writer { start, len: 0, cap, batch: PhantomData }
    }

    #[inline(always)]
    fn need(&mut self, n: usize) {
        if self.cap - self.len < n {
            self.grow(n);
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, n: usize) {
        let (start, cap) = crate::record::text().room(self.len + n);
        // the new room is behind or in another chunk than the old one, which is at least len long
        unsafe { core::ptr::copy(self.start, start, self.len) };
        self.start = start;
        self.cap = cap;
    }

    /// Appends bytes.
    #[inline(always)]
    pub fn bytes(&mut self, b: &[u8]) -> &mut Self {
        self.need(b.len());
        // need has made room for them
        unsafe { copy(b.as_ptr(), self.start.add(self.len), b.len()) };
        self.len += b.len();
        self
    }

    /// Appends `v` in decimal.
    pub fn int(&mut self, v: i64) -> &mut Self {
        if v < 0 {
            self.bytes(b"-");
        }
        self.digits(v.unsigned_abs(), 1)
    }

    fn digits(&mut self, mut v: u64, least: usize) -> &mut Self {
        let mut tmp = [0u8; 20];
        let mut i = tmp.len();
        while v > 0 || tmp.len() - i < least {
            i -= 1;
            tmp[i] = b'0' + (v % 10) as u8;
            v /= 10;
        }
        self.bytes(&tmp[i..])
    }

    /// Appends `v` with at most `decimals` (0 to 9) digits after the point, rounded half
    /// away from zero, trailing zeros cut. Appends null for what JSON can't hold (NaN,
    /// infinities) and when |v|·10^decimals is 9.2e18 or more. All SDKs write the same
    /// digits.
    pub fn fixed(&mut self, v: f64, decimals: usize) -> &mut Self {
        let decimals = decimals.min(9);
        let size = if v < 0.0 { -v } else { v };
        let scaled = size * POW10[decimals] + 0.5;
        if !(scaled < 9.2e18) {
            return self.bytes(b"null");
        }
        let (n, unit) = (scaled as u64, POW10[decimals] as u64);
        if v < 0.0 && n > 0 {
            self.bytes(b"-");
        }
        self.digits(n / unit, 1);
        if n % unit == 0 {
            return self;
        }
        self.bytes(b".").digits(n % unit, decimals);
        // the last byte written is a digit behind the point; one of them isn't 0
        while unsafe { *self.start.add(self.len - 1) } == b'0' {
            self.len -= 1;
        }
        self
    }

    /// Appends `s` as a JSON string: quotes around it, and quotes, backslashes and control
    /// characters escaped. Bytes from 0x80 go through.
    pub fn quoted(&mut self, s: &[u8]) -> &mut Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        self.bytes(b"\"");
        for &c in s {
            match c {
                0..=0x1f => self.bytes(&[b'\\', b'u', b'0', b'0', HEX[(c >> 4) as usize], HEX[(c & 15) as usize]]),
                b'"' | b'\\' => self.bytes(&[b'\\', c]),
                _ => self.bytes(&[c]),
            };
        }
        self.bytes(b"\"")
    }

    /// Closes the writer and returns what it wrote.
    pub fn end(self) -> &'a [u8] {
        crate::record::text().used += self.len;
        // The chunk isn't moved, freed or written to here again before the batch ends, and 'a ends before that.
        unsafe { core::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        crate::record::text().open = false;
    }
}

/// Copies short runs with 8-byte moves: memory.copy costs a call in the host.
///
/// # Safety
/// As `core::ptr::copy_nonoverlapping`.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, n: usize) {
    if n > 512 {
        core::ptr::copy_nonoverlapping(from, to, n);
    } else if n >= 8 {
        let tail = (from.add(n - 8) as *const u64).read_unaligned();
        let mut i = 0;
        while i + 8 < n {
            let w = (from.add(i) as *const u64).read_unaligned();
            (to.add(i) as *mut u64).write_unaligned(w);
            i += 8;
        }
        (to.add(n - 8) as *mut u64).write_unaligned(tail);
    } else {
        let mut i = 0;
        while i < n {
            *to.add(i) = *from.add(i);
            i += 1;
        }
    }
}
