/**
 * Write a Weir module in AssemblyScript: a WebAssembly file that Weir runs over batches of
 * records.
 *
 *     import { Bytes, Field, Record, find, onRecord } from "./weir";
 *     export { weir_abi_1, weir_buffer, weir_process } from "./weir";
 *
 *     const TEMP = Bytes.of("temp");
 *     const REASON = Bytes.of("no number in field temp");
 *     const temp = new Field();
 *
 *     onRecord((r: Record): void => {
 *       if (!find(r.data, TEMP, temp) || isNaN(temp.number())) r.fail(1, REASON);
 *       else if (temp.number() < 25) r.drop();
 *     });
 *
 * What a handler may say about a record (nothing said = pass it on unchanged):
 *
 *     replace       pass on other data in its place
 *     forward       pass it on unchanged, to a chosen output
 *     emit          one more record, to any output; may be called many times
 *     setKey        choose the partition key of what replace and forward pass on
 *     partitionKey  set the keys for a delivery stream's dynamic partitioning
 *     drop          pass nothing on; this is not a failure
 *     fail          processing failed: on_error of the manifest decides
 *     retry         not now: run the batch again later
 *
 * A record that emitted is replaced by what it emitted; call forward too to keep the
 * original.
 *
 * Nothing is copied on the way in, and nothing is allocated per record: Bytes are an address
 * and a length, and the classes here are unmanaged, so that the garbage collector has nothing
 * to do. Make Bytes and Fields once, at the top of the file. What the input region holds is
 * valid until the batch ends; what is given to replace, emit and so on must stay as it is
 * until then: use the input itself, a constant, or the writer.
 *
 * The module's side of the contract weir/1 (wasm/abi/ABI.md).
 */

/** A borrowed run of bytes. */
@unmanaged
export class Bytes {
  constructor(
    /** Its address. */
    public ptr: usize = 0,
    /** Its length in bytes. */
    public len: i32 = 0,
  ) {}

  /** Returns the text as UTF-8, for good. For constants: it allocates. */
  static of(text: string): Bytes {
    const n = String.UTF8.byteLength(text);
    const p = heap.alloc(<usize>n);
    String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, p);
    return new Bytes(p, n);
  }

  /** Makes this the n bytes at p. */
  @inline set(p: usize, n: i32): Bytes {
    this.ptr = p;
    this.len = n;
    return this;
  }

  /** Makes this a copy of b that is kept for good, for what a configure handler reads. */
  keep(b: Bytes): Bytes {
    const p = heap.alloc(<usize>b.len);
    memory.copy(p, b.ptr, b.len);
    return this.set(p, b.len);
  }

  /** Tells whether both hold the same bytes. */
  equals(b: Bytes): bool {
    return this.len == b.len && same(this.ptr, b.ptr, this.len);
  }

  /** Returns the bytes as a managed string. It allocates. */
  toString(): string {
    return String.UTF8.decodeUnsafe(this.ptr, this.len);
  }
}

// @ts-ignore: decorator
@inline
function same(p: usize, q: usize, n: i32): bool {
  const end = p + n;
  for (; p + 8 <= end; p += 8, q += 8) {
    if (load<u64>(p) != load<u64>(q)) return false;
  }
  for (; p < end; p++, q++) {
    if (load<u8>(p) != load<u8>(q)) return false;
  }
  return true;
}

/** Copies short runs with 8-byte moves: memory.copy costs a call in the host. */
// @ts-ignore: decorator
@inline
function copy(to: usize, from: usize, n: i32): void {
  if (n > 512) {
    memory.copy(to, from, n);
    return;
  }
  if (n < 8) {
    for (; n > 0; n--) store<u8>(to++, load<u8>(from++));
    return;
  }
  const tail = load<u64>(from + n - 8);
  const last = to + n - 8;
  for (; to < last; to += 8, from += 8) store<u64>(to, load<u64>(from));
  store<u64>(last, tail);
}

// ---- JSON

const QUOTE: u8 = 0x22;
const SLASH: u8 = 0x5c;

/** One member of a JSON object, filled by find. Make one per field, once. */
@unmanaged
export class Field {
  /** Address of the name in the document, behind its quote. */
  name: usize = 0;
  /** The value's text, a string with its quotes. */
  value: Bytes = new Bytes();
  /** What stands between the quotes when the value is a string, escapes as they are. */
  text: Bytes = new Bytes();
  /** Whether the value is a string. */
  isString: bool = false;

  /** The value as a number, NaN when it is none. */
  number(): f64 {
    return number(this.value);
  }

  /** The value as a whole number of at most 18 digits, i64.MIN_VALUE when it is none. */
  integer(): i64 {
    return integer(this.value);
  }
}

// @ts-ignore: decorator
@inline
function space(p: usize, end: usize): usize {
  while (p < end && load<u8>(p) <= 0x20) p++;
  return p;
}

/** The first unescaped quote from p on, or end. */
function closing(p: usize, end: usize): usize {
  while (p + 16 <= end) {
    const w = v128.load(p);
    const m = i8x16.bitmask(v128.or(i8x16.eq(w, i8x16.splat(QUOTE)), i8x16.eq(w, i8x16.splat(SLASH))));
    if (!m) {
      p += 16;
      continue;
    }
    p += ctz(m);
    if (load<u8>(p) == QUOTE) return p;
    p += 2;
  }
  for (; p < end; p++) {
    const c = load<u8>(p);
    if (c == QUOTE) return p;
    if (c == SLASH) p++;
  }
  return end;
}

/** What follows the object or array at p, or 0. */
function nested(p: usize, end: usize): usize {
  let depth = 0;
  for (; p < end; p++) {
    const c = load<u8>(p);
    if (c == QUOTE) p = closing(p + 1, end);
    else if ((c | 0x20) == 0x7b) depth++;
    else if ((c | 0x20) == 0x7d && --depth == 0) return p + 1;
  }
  return 0;
}

/** Fills f's value from p, the place behind the colon. */
function readValue(p: usize, end: usize, f: Field): bool {
  p = space(p, end);
  if (p >= end) return false;
  const c = load<u8>(p);
  let q = p;
  f.isString = c == QUOTE;
  f.text.len = 0;
  if (c == QUOTE) {
    q = closing(p + 1, end) + 1;
    if (q > end) return false;
    f.text.set(p + 1, <i32>(q - p - 2));
  } else if ((c | 0x20) == 0x7b) {
    q = nested(p, end);
    if (!q) return false;
  } else {
    while (q < end) {
      const d = load<u8>(q);
      if (d <= 0x20 || d == 0x2c || (d | 0x20) == 0x7d) break;
      q++;
    }
    if (q == p) return false;
  }
  f.value.set(p, <i32>(q - p));
  return true;
}

let escape: u32 = 0;

/** The bits of the bytes that follow a backslash which is not escaped itself. */
function escaped(slashes: u32): u32 {
  let bits = escape;
  for (; slashes; slashes &= slashes - 1) {
    const bit = slashes & (0 - slashes);
    if (!(bits & bit)) bits |= bit << 1;
  }
  escape = bits >> 16;
  return bits & 0xffff;
}

const TAIL = memory.data(16);

/**
 * Finds the first member called name of the JSON object in doc and fills f with it. It looks
 * at 16 bytes at a time, only at quotes and braces, and reads nothing behind the member: it
 * is a scanner, not a validator. A name that the document spells with escapes is compared as
 * it is spelt.
 */
export function find(doc: Bytes, name: Bytes, f: Field): bool {
  const end = doc.ptr + doc.len;
  let p = space(doc.ptr, end);
  if (p >= end || load<u8>(p) != 0x7b || !name.len) return false;
  const letter = i8x16.splat(load<i8>(name.ptr));
  const length = name.len;
  let depth = 0;
  let inside: u32 = 0;
  let opened: u32 = 0;
  escape = 0;
  for (; p < end; p += 16) {
    let from = p;
    if (p + 16 > end) {
      v128.store(TAIL, i8x16.splat(0x20));
      for (let q = p; q < end; q++) store<u8>(TAIL + (q - p), load<u8>(q));
      from = TAIL;
    }
    const w = v128.load(from);
    let quotes: u32 = i8x16.bitmask(i8x16.eq(w, i8x16.splat(QUOTE)));
    const slashes: u32 = i8x16.bitmask(i8x16.eq(w, i8x16.splat(SLASH)));
    let braces: u32 = i8x16.bitmask(v128.or(i8x16.eq(w, i8x16.splat(0x7b)), i8x16.eq(w, i8x16.splat(0x7d))));
    if (slashes | escape) {
      const plain = ~escaped(slashes);
      quotes &= plain;
      braces &= plain;
    }
    // bit i of strings: byte i lies in a string, or opens one
    let strings = quotes ^ (quotes << 1);
    strings ^= strings << 2;
    strings ^= strings << 4;
    strings = (strings ^ (strings << 8) ^ inside) & 0xffff;
    inside = (0 - (strings >> 15)) & 0xffff;
    const opens = quotes & strings;
    const names = ((opens << 1) | opened) & <u32>i8x16.bitmask(i8x16.eq(w, letter));
    opened = opens >> 15;
    braces &= ~strings;
    for (let m = names | braces; m; m &= m - 1) {
      const at = p + ctz(m);
      if (braces & m & (0 - m)) {
        if (load<u8>(at) == 0x7b) depth++;
        else if (depth > 1) depth--;
        continue;
      }
      const quote = at + length;
      if (depth != 1 || quote >= end || load<u8>(quote) != QUOTE || !same(at, name.ptr, length)) continue;
      const colon = space(quote + 1, end);
      if (colon >= end || load<u8>(colon) != 0x3a) continue;
      f.name = at;
      return readValue(colon + 1, end, f);
    }
  }
  return false;
}

const POW10: StaticArray<f64> = [
  1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
  1e21, 1e22,
];

// @ts-ignore: decorator
@inline
function pow10(n: i32): f64 {
  return load<f64>(changetype<usize>(POW10) + (<usize>n << 3));
}

// @ts-ignore: decorator
@inline
function digit(p: usize): u32 {
  return <u32>load<u8>(p) - 0x30;
}

/**
 * Reads a JSON number; NaN: v is not one. Up to 15 significant digits and exponents within ±22
 * it is the nearest f64; beyond, it may be off by a few units in the last place. All SDKs give
 * the same bits.
 */
export function number(v: Bytes): f64 {
  let p = v.ptr;
  const end = p + v.len;
  const negative = p < end && load<u8>(p) == 0x2d;
  if (negative) p++;
  let m: u64 = 0;
  let exp: i32 = 0;
  let digits = p;
  for (; p < end && digit(p) < 10; p++) {
    if (m < 1000000000000000000) m = m * 10 + digit(p);
    else exp++;
  }
  if (p == digits) return NaN;
  if (p < end && load<u8>(p) == 0x2e) {
    digits = ++p;
    for (; p < end && digit(p) < 10; p++) {
      if (m >= 1000000000000000000) continue;
      m = m * 10 + digit(p);
      exp--;
    }
    if (p == digits) return NaN;
  }
  if (p < end) {
    if ((load<u8>(p++) | 0x20) != 0x65) return NaN;
    const minus = p < end && load<u8>(p) == 0x2d;
    if (minus || (p < end && load<u8>(p) == 0x2b)) p++;
    if (p == end) return NaN;
    let e = 0;
    for (; p < end; p++) {
      if (digit(p) >= 10) return NaN;
      if (e < 100000) e = e * 10 + digit(p);
    }
    exp += minus ? -e : e;
  }
  const f = scale(<f64>m, exp);
  return negative ? -f : f;
}

function scale(f: f64, exp: i32): f64 {
  exp = min(max(exp, -400), 400);
  for (; exp > 22; exp -= 22) f *= 1e22;
  for (; exp < -22; exp += 22) f /= 1e22;
  return exp < 0 ? f / pow10(-exp) : f * pow10(exp);
}

/** Reads a whole number of at most 18 digits; i64.MIN_VALUE: v is not one. */
export function integer(v: Bytes): i64 {
  let p = v.ptr;
  const end = p + v.len;
  const negative = p < end && load<u8>(p) == 0x2d;
  if (negative) p++;
  if (p == end || end - p > 18) return i64.MIN_VALUE;
  let n: i64 = 0;
  for (; p < end; p++) {
    if (digit(p) >= 10) return i64.MIN_VALUE;
    n = n * 10 + digit(p);
  }
  return negative ? -n : n;
}

// ---- writer

// A chunk is its next one's address, its size, and the bytes.
const CHUNK_HEAD: usize = 8;
let firstChunk: usize = 0;
let chunk: usize = 0;
let top: usize = 0;
let topEnd: usize = 0;

function startChunks(): void {
  chunk = firstChunk;
  top = chunk ? chunk + CHUNK_HEAD : 0;
  topEnd = chunk ? top + load<usize>(chunk, 4) : 0;
}

/** Moves on to a chunk with room for n bytes. */
function nextChunk(n: usize): void {
  let previous = chunk;
  let c: usize = chunk ? load<usize>(chunk) : firstChunk;
  while (c && load<usize>(c, 4) < n) {
    previous = c;
    c = load<usize>(c);
  }
  if (!c) {
    let size: usize = 64 << 10;
    while (size < n) size <<= 1;
    c = heap.alloc(size + CHUNK_HEAD);
    store<usize>(c, 0);
    store<usize>(c, size, 4);
    if (previous) store<usize>(previous, c);
    else firstChunk = c;
  }
  chunk = c;
  top = c + CHUNK_HEAD;
  topEnd = top + load<usize>(c, 4);
}

const HEX = memory.data<u8>([48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 97, 98, 99, 100, 101, 102]);
const DIGITS = memory.data(32);

/** Builds bytes that live until the batch ends, one run at a time: begin, write, end. */
@unmanaged
export class Writer {
  private start: usize = 0;
  private p: usize = 0;
  private end_: usize = 0;
  private out: Bytes = new Bytes();

  /** Starts a run of bytes. */
  @inline begin(): Writer {
    this.start = top;
    this.p = top;
    this.end_ = topEnd;
    return this;
  }

  private need(n: usize): void {
    if (this.end_ - this.p >= n) return;
    const from = this.start;
    const used = this.p - from;
    nextChunk(used + n);
    copy(top, from, <i32>used);
    this.start = top;
    this.p = top + used;
    this.end_ = topEnd;
  }

  /** Appends bytes. */
  bytes(b: Bytes): Writer {
    return this.raw(b.ptr, b.len);
  }

  /** Appends the n bytes at p. */
  raw(p: usize, n: i32): Writer {
    this.need(n);
    copy(this.p, p, n);
    this.p += n;
    return this;
  }

  /** Appends the bytes from one address up to another. */
  between(from: usize, to: usize): Writer {
    return this.raw(from, <i32>(to - from));
  }

  /** Appends one byte. */
  byte(c: u8): Writer {
    this.need(1);
    store<u8>(this.p++, c);
    return this;
  }

  /** Appends v in decimal. */
  int(v: i64): Writer {
    if (v < 0) this.byte(0x2d);
    return this.digits(v < 0 ? 0 - <u64>v : <u64>v, 1);
  }

  private digits(v: u64, least: i32): Writer {
    let at = DIGITS + 32;
    const end = at;
    while (v || <i32>(end - at) < least) {
      store<u8>(--at, <u8>(0x30 + v % 10));
      v /= 10;
    }
    return this.raw(at, <i32>(end - at));
  }

  /**
   * Appends v with at most decimals (0 to 9) digits after the point, rounded half away from
   * zero, trailing zeros cut. Appends null for what JSON can't hold (NaN, infinities) and when
   * |v|·10^decimals is 9.2e18 or more. All SDKs write the same digits.
   */
  fixed(v: f64, decimals: i32): Writer {
    decimals = min(max(decimals, 0), 9);
    const scaled = (v < 0 ? -v : v) * pow10(decimals) + 0.5;
    if (!(scaled < 9.2e18)) return this.raw(NULL.ptr, NULL.len);
    const n = <u64>scaled;
    const unit = <u64>pow10(decimals);
    if (v < 0 && n) this.byte(0x2d);
    this.digits(n / unit, 1);
    if (!(n % unit)) return this;
    this.byte(0x2e).digits(n % unit, decimals);
    while (load<u8>(this.p - 1) == 0x30) this.p--;
    return this;
  }

  /**
   * Appends b as a JSON string: quotes around it, and quotes, backslashes and control
   * characters escaped. Bytes from 0x80 go through.
   */
  quoted(b: Bytes): Writer {
    this.byte(QUOTE);
    for (let p = b.ptr, end = p + b.len; p < end; p++) {
      const c = load<u8>(p);
      if (c < 0x20) {
        this.byte(SLASH).byte(0x75).byte(0x30).byte(0x30);
        this.byte(load<u8>(HEX + (c >> 4))).byte(load<u8>(HEX + (c & 15)));
        continue;
      }
      if (c == QUOTE || c == SLASH) this.byte(SLASH);
      this.byte(c);
    }
    return this.byte(QUOTE);
  }

  /** Ends the run and returns it. The object returned is the same each time; what it points to lives until the batch ends. */
  @inline end(): Bytes {
    top = this.p;
    return this.out.set(this.start, <i32>(this.p - this.start));
  }
}

const NULL = Bytes.of("null");

/** The module's writer. */
export const writer = new Writer();

// ---- host calls

/** Answers of host calls that did not succeed. */
export const NOT_FOUND: i32 = -1;
export const BUFFER_TOO_SMALL: i32 = -2;
export const INVALID: i32 = -3;
export const DENIED: i32 = -4;
export const QUOTA: i32 = -5;
export const TIMEOUT: i32 = -6;
export const UNAVAILABLE: i32 = -7;

// @ts-ignore: decorator
@external("weir_log", "write")
declare function log_write(level: i32, p: usize, n: i32): i32;
// @ts-ignore: decorator
@external("weir_metric", "define")
declare function metric_define(kind: i32, p: usize, n: i32): i32;
// @ts-ignore: decorator
@external("weir_metric", "add")
declare function metric_add(id: i32, v: f64): i32;
// @ts-ignore: decorator
@external("weir_metric", "set")
declare function metric_set(id: i32, v: f64): i32;
// @ts-ignore: decorator
@external("weir_metric", "observe")
declare function metric_observe(id: i32, v: f64): i32;
// @ts-ignore: decorator
@external("weir_clock", "now")
declare function clock_now(kind: i32): i64;
// @ts-ignore: decorator
@external("weir_state", "get")
declare function state_get(k: usize, kn: i32, buf: usize, cap: i32, out: usize): i32;
// @ts-ignore: decorator
@external("weir_state", "put")
declare function state_put(k: usize, kn: i32, v: usize, vn: i32): i32;
// @ts-ignore: decorator
@external("weir_state", "del")
declare function state_del(k: usize, kn: i32): i32;
// @ts-ignore: decorator
@external("weir_state", "incr")
declare function state_incr(k: usize, kn: i32, delta: i64, out: usize): i32;
// @ts-ignore: decorator
@external("weir_state", "scan")
declare function state_scan(prefix: usize, pn: i32, after: usize, an: i32, limit: i32, buf: usize, cap: i32, out: usize): i32;
// @ts-ignore: decorator
@external("weir_emit", "chunk")
declare function emit_chunk(outs: usize, count: i32): i32;
// @ts-ignore: decorator
@external("weir_http", "call")
declare function http_call(req: usize, n: i32, buf: usize, cap: i32, out: usize): i32;
// @ts-ignore: decorator
@external("weir_http", "enqueue")
declare function http_enqueue(req: usize, n: i32): i32;

/** The weight of a log line. */
export enum Level {
  Debug,
  Info,
  Warn,
  Error,
}

/** Writes one line to the module's log. Lines are cut at 1 KiB; above the manifest's rate the host drops them. */
export function log(level: Level, line: Bytes): void {
  log_write(level, line.ptr, line.len);
}

/**
 * A number the box shows to its operator. What is counted in a batch is added when the batch
 * succeeds. Define metrics in a configure handler or once, not per record; names are
 * [a-z_][a-z0-9_]*. Using one that the host refused does nothing.
 */
@unmanaged
export class Metric {
  constructor(private id: i32) {}

  /** A metric to which add adds. */
  static counter(name: string): Metric {
    return Metric.define(0, Bytes.of(name));
  }

  /** A metric that set sets. */
  static gauge(name: string): Metric {
    return Metric.define(1, Bytes.of(name));
  }

  /** A metric that shows how what observe is given is distributed. */
  static histogram(name: string): Metric {
    return Metric.define(2, Bytes.of(name));
  }

  private static define(kind: i32, name: Bytes): Metric {
    return new Metric(metric_define(kind, name.ptr, name.len));
  }

  /** Adds to a counter or gauge. */
  add(v: f64): void {
    metric_add(this.id, v);
  }

  /** Sets a gauge. */
  set(v: f64): void {
    metric_set(this.id, v);
  }

  /** Adds a value to a histogram. */
  observe(v: f64): void {
    metric_observe(this.id, v);
  }
}

/** The batch's frozen time, ms since 1970. */
export function batchTimeMs(): i64 {
  return clock_now(0);
}

/**
 * The wall clock, ms since 1970, when the manifest grants `clock: real`; the batch's time
 * otherwise, so that a replay gives the same answer.
 */
export function wallTimeMs(): i64 {
  return clock_now(1);
}

/** A clock that never goes back, in ns; granted as wallTimeMs is. */
export function monotonicNs(): i64 {
  return clock_now(2);
}

const OUT = memory.data(8, 8);

/**
 * Copies the value of key to buf, of cap bytes, and returns its length. NOT_FOUND;
 * BUFFER_TOO_SMALL: needed() is the size. State is for consumers, private to the module and
 * the shard, and commits with the batch.
 */
export function stateGet(key: Bytes, buf: usize, cap: i32): i32 {
  const code = state_get(key.ptr, key.len, buf, cap, OUT);
  return code < 0 ? code : load<i32>(OUT);
}

/** The size needed, after BUFFER_TOO_SMALL. */
export function needed(): i32 {
  return load<i32>(OUT);
}

/** Stores the n bytes at p under key (1 to 1,024 bytes). Negative: why it didn't. */
export function statePut(key: Bytes, p: usize, n: i32): i32 {
  return state_put(key.ptr, key.len, p, n);
}

/** Removes key; 0 also when there was none. */
export function stateDelete(key: Bytes): i32 {
  return state_del(key.ptr, key.len);
}

/** Adds delta to the counter under key, 0 when absent. sum() is the result; negative: why it didn't. */
export function stateIncr(key: Bytes, delta: i64): i32 {
  return state_incr(key.ptr, key.len, delta, OUT);
}

/** The sum that stateIncr made. */
export function sum(): i64 {
  return load<i64>(OUT);
}

/** Walks the keys that begin with a prefix, in order, a buffer full at a time. The module may put and delete while it walks. */
@unmanaged
export class Scan {
  /** The entry's key, valid until the next call of next. */
  key: Bytes = new Bytes();
  /** Its value, valid as long. */
  value: Bytes = new Bytes();
  /** Why next gave up; 0 at the end of the keys. */
  error: i32 = 0;
  private prefix: Bytes = new Bytes();
  private after: usize = heap.alloc(1024);
  private afterLen: i32 = 0;
  private left: i32 = 0;
  private p: usize = 0;

  constructor(
    private buf: usize,
    private cap: i32,
  ) {}

  /** Starts a walk. */
  begin(prefix: Bytes): void {
    this.prefix.set(prefix.ptr, prefix.len);
    this.afterLen = 0;
    this.left = 0;
    this.error = 0;
  }

  /** Goes to the next entry, false when there is none. */
  next(): bool {
    if (!this.left) {
      this.left = state_scan(this.prefix.ptr, this.prefix.len, this.after, this.afterLen, 1000, this.buf, this.cap, OUT);
      this.p = this.buf;
      if (this.left <= 0) {
        this.error = this.left;
        this.left = 0;
        return false;
      }
    }
    const p = this.p;
    this.key.set(p + 8, load<i32>(p));
    this.value.set(p + 8 + this.key.len, load<i32>(p, 4));
    this.p = this.value.ptr + this.value.len;
    this.left--;
    this.afterLen = this.key.len;
    copy(this.after, this.key.ptr, this.key.len);
    return true;
  }
}

/**
 * Sends a request and waits: transforms only, hosts of the manifest only. The request is text,
 * "POST https://host/path\nname: value\n\n" and the body. Returns the HTTP status or a negative
 * code; response becomes what lies in buf, in the same form. After BUFFER_TOO_SMALL, calling
 * again with an empty request and a larger buffer fetches the response.
 */
export function httpCall(request: Bytes, buf: usize, cap: i32, response: Bytes): i32 {
  const status = http_call(request.ptr, request.len, buf, cap, OUT);
  response.set(buf, status < 0 ? 0 : load<i32>(OUT));
  return status;
}

/** Cuts a response down to what follows its headers. */
export function httpBody(response: Bytes): Bytes {
  const end = response.ptr + response.len;
  for (let p = response.ptr; p + 2 <= end; p++) {
    if (load<u16>(p) == 0x0a0a) return response.set(p + 2, <i32>(end - p - 2));
  }
  return response.set(end, 0);
}

/** Puts a request into the outbox: consumers only. It is sent after the batch is committed, at least once. */
export function httpEnqueue(request: Bytes): i32 {
  return http_enqueue(request.ptr, request.len);
}

// ---- records

/** What is known about the records handed over together. Lies in the input region. */
@unmanaged
export class Batch {
  private magic: u32;
  private version: u16;
  /** 1 replay, 2 shadow, 4 last of a closed shard. */
  flags: u16;
  private headerLen: u32;
  /** Number of records. */
  records: u32;
  private length: u32;
  shard: u32;
  /** Index in the shard of the first record. */
  baseIndex: u64;
  /** The batch's frozen time, ms since 1970. */
  timeMs: i64;
  id: u64;
  /** 0 the first time. */
  attempt: u32;
  cpuBudgetMs: u32;
  /** For random numbers; the same on every attempt. */
  seed: u64;
}

const ENTRY: usize = 32;
const OUTPUT: usize = 48;
const OUTCOME: usize = 8;
const NONE: u32 = 0xffffffff;
const INHERIT: u32 = 0xffffffff;
const UNCHANGED: u32 = 0;
const REPLACED: u32 = 1;
const DROPPED: u32 = 2;
const FAILED: u32 = 3;
const RETRY: u32 = 4;

let batch: usize = 0;
let region: usize = 0;
let regionCap: usize = 0;
let outcomes: usize = 0;
let outcomesCap: u32 = 0;
let outs: usize = 0;
let outsN: u32 = 0;
let outsCap: u32 = 0;
const RESULT = memory.data(24, 8);

/** Describes the batch in hand; null outside of one. */
export function batchInfo(): Batch | null {
  return batch ? changetype<Batch>(batch) : null;
}

function resize(p: usize, n: usize): usize {
  return p ? heap.realloc(p, n) : heap.alloc(n);
}

function growOuts(): void {
  outsCap = outsCap ? outsCap * 2 : 512;
  outs = resize(outs, <usize>outsCap * OUTPUT);
}

/** Writes an output entry. own: made by replace or forward, kept in a field that the host doesn't read. */
// @ts-ignore: decorator
@inline
function fill(o: usize, source: u32, output: u32, key: u32, keyLen: u32, data: u32, dataLen: u32, own: u32): void {
  store<u32>(o, source);
  store<u32>(o, output & 0xffff, 4);
  store<u32>(o, key, 8);
  store<u32>(o, keyLen, 12);
  store<u32>(o, data, 16);
  store<u32>(o, dataLen, 20);
  store<u32>(o, own, 24);
  store<u32>(o, 0, 28);
  store<u32>(o, INHERIT, 32);
  store<u32>(o, 0, 36);
  store<u64>(o, 0, 40);
}

// @ts-ignore: decorator
@inline
function add(source: u32, output: u32, key: u32, keyLen: u32, data: u32, dataLen: u32, own: u32): void {
  if (outsN == outsCap) growOuts();
  fill(outs + <usize>(outsN++) * OUTPUT, source, output, key, keyLen, data, dataLen, own);
}

/** Adds a record that stems from no other to an output, in a tick handler. Without a key the host chooses one. */
export function emit(output: u32, key: Bytes | null, data: Bytes): void {
  if (key) add(NONE, output, <u32>key.ptr, key.len, <u32>data.ptr, data.len, 0);
  else add(NONE, output, 0, NONE, <u32>data.ptr, data.len, 0);
}

const ONE = memory.data(48, 8);

/** One record, valid while its handler runs. */
@unmanaged
export class Record {
  /** Its data. */
  data: Bytes = new Bytes();
  /** Its partition key; empty when hasKey is false. */
  key: Bytes = new Bytes();
  hasKey: bool = false;
  /** Its number in the batch, from 0. */
  number: u32 = 0;

  // Not for modules.
  entry: usize = 0;
  first: u32 = 0;
  verdict: u32 = 0;
  code: u32 = 0;
  reason: usize = 0;
  reasonLen: i32 = 0;
  outKey: usize = 0;
  outKeyLen: i32 = 0;
  outParts: usize = 0;
  outPartsLen: i32 = 0;

  /** Its arrival, ms since 1970. */
  get timestampMs(): i64 {
    return load<i64>(this.entry, 16);
  }

  /** Its index in the shard. */
  get index(): u64 {
    return load<u64>(batch, 24) + load<u32>(this.entry, 24);
  }

  /** The stream it came from, an index into the manifest's inputs. */
  get input(): u32 {
    return load<u32>(this.entry, 28);
  }

  /** Passes data on in place of the record. */
  @inline replace(data: Bytes, output: u32 = 0): void {
    add(this.number, output, INHERIT, 0, <u32>data.ptr, data.len, 1);
  }

  /** Passes the record's own data on to an output. Nothing is copied. */
  @inline forward(output: u32): void {
    add(this.number, output, INHERIT, 0, INHERIT, 0, 1);
  }

  /** Adds a record to an output. Without a key it takes the record's own. */
  emit(output: u32, key: Bytes | null, data: Bytes): void {
    if (key) add(this.number, output, <u32>key.ptr, key.len, <u32>data.ptr, data.len, 0);
    else add(this.number, output, INHERIT, 0, <u32>data.ptr, data.len, 0);
  }

  /**
   * emit that hands the record to the host at once, so that key and data may be overwritten
   * afterwards: for more output than fits into memory. It takes effect with the batch. Consumers
   * with the emit capability.
   */
  emitNow(output: u32, key: Bytes | null, data: Bytes): i32 {
    fill(ONE, this.number, output, key ? <u32>key.ptr : INHERIT, key ? key.len : 0, <u32>data.ptr, data.len, 0);
    return emit_chunk(ONE, 1);
  }

  /** Chooses the partition key of the records that replace and forward pass on; alone, it passes the record on under that key. */
  setKey(key: Bytes): void {
    this.outKey = key.ptr;
    this.outKeyLen = key.len;
  }

  /** Sets the keys for a delivery stream's dynamic partitioning: "name=value" lines, or one value. Copies nothing of the data. */
  partitionKey(keys: Bytes): void {
    this.outParts = keys.ptr;
    this.outPartsLen = keys.len;
  }

  /** Leaves the record out; not a failure. What it emitted stays. */
  @inline drop(): void {
    this.verdict = DROPPED;
  }

  /**
   * Says that the record can't be processed, with a code of the module's own and a reason for
   * people (at most 1,024 bytes are kept). What it emitted is taken back.
   */
  fail(code: u32, reason: Bytes): void {
    this.verdict = FAILED;
    this.code = code;
    this.reason = reason.ptr;
    this.reasonLen = reason.len;
  }

  /** Asks for the record again after a pause. What it emitted is taken back. */
  retry(): void {
    this.verdict = RETRY;
  }
}

const record = new Record();

/** Turns what the handler said into the outcome at o, for every case but "nothing said". */
function settle(r: Record, o: usize): void {
  if (r.verdict == FAILED) {
    outsN = r.first;
    if (!r.reasonLen) return outcome(o, FAILED, r.code);
    add(r.number, 0, INHERIT, 0, <u32>r.reason, r.reasonLen, 0);
    store<u64>(outs + <usize>r.first * OUTPUT, r.code, 40);
    return outcome(o, FAILED | (1 << 8) | (1 << 16), r.first);
  }
  if (r.verdict == RETRY) {
    outsN = r.first;
    return outcome(o, RETRY, 0);
  }
  if (outsN == r.first) {
    if (r.verdict == DROPPED) return outcome(o, DROPPED, 0);
    r.forward(0);
  }
  const count = outsN - r.first;
  if (count > 0xffff) throw new Error("more than 65,535 outputs of one record");
  if (r.outKey || r.outParts) rekey(r);
  outcome(o, REPLACED | (count << 16), r.first);
}

/** Applies setKey and partitionKey to what replace and forward made. */
function rekey(r: Record): void {
  for (let i = r.first; i < outsN; i++) {
    const out = outs + <usize>i * OUTPUT;
    if (!load<u32>(out, 24)) continue;
    if (r.outKey) {
      store<u32>(out, <u32>r.outKey, 8);
      store<u32>(out, r.outKeyLen, 12);
    }
    if (r.outParts) {
      store<u32>(out, <u32>r.outParts, 32);
      store<u32>(out, r.outPartsLen, 36);
    }
  }
}

// @ts-ignore: decorator
@inline
function outcome(o: usize, head: u32, aux: u32): void {
  store<u32>(o, head);
  store<u32>(o, aux, 4);
}

// ---- module

let recordHandler: (r: Record) => void = (r: Record): void => {};
let configureHandler: (json: Bytes) => bool = (json: Bytes): bool => true;
let tickHandler: (nowMs: i64) => void = (nowMs: i64): void => {};
let migrateHandler: (from: u32) => bool = (from: u32): bool => false;

/** Makes handler the module's record handler. Export weir_abi_1, weir_buffer and weir_process. */
export function onRecord(handler: (r: Record) => void): void {
  recordHandler = handler;
}

/** Makes handler read the manifest's config, a JSON object, before the first batch; false refuses it. Export weir_configure. */
export function onConfigure(handler: (json: Bytes) => bool): void {
  configureHandler = handler;
}

/** Makes handler the consumer's timer; the manifest says how often it runs. Export weir_tick. */
export function onTick(handler: (nowMs: i64) => void): void {
  tickHandler = handler;
}

/** Makes handler bring state that an older state_version wrote up to this module's; false: it can't. Export weir_migrate. */
export function onMigrate(handler: (from: u32) => bool): void {
  migrateHandler = handler;
}

/** Logs why the module stops. The compiler calls it (option `use` in asconfig.json). */
export function onAbort(message: string | null, file: string | null, line: u32, column: u32): void {
  const why = Bytes.of((file ? file : "") + ":" + line.toString() + ": " + (message ? message : "aborted"));
  log_write(Level.Error, why.ptr, why.len);
  unreachable();
}

export function weir_abi_1(): void {}

export function weir_buffer(least: u32): usize {
  if (least > <u32>regionCap) {
    if (region) heap.free(region);
    regionCap = max<usize>(<usize>least + (<usize>least >> 2), 64 << 10);
    region = heap.alloc(regionCap);
  }
  return region;
}

const configJson = new Bytes();

export function weir_configure(p: usize, n: i32): i32 {
  return configureHandler(configJson.set(p, n)) ? 0 : INVALID;
}

export function weir_migrate(from: u32): i32 {
  return migrateHandler(from) ? 0 : INVALID;
}

function finish(allUnchanged: bool, table: usize): i64 {
  batch = 0;
  store<u32>(RESULT, 0x31525257);
  store<u32>(RESULT, allUnchanged ? 0x10001 : 1, 4);
  store<u32>(RESULT, <u32>table, 8);
  store<u32>(RESULT, <u32>outs, 12);
  store<u32>(RESULT, outsN, 16);
  store<u32>(RESULT, 0, 20);
  return <i64>RESULT;
}

export function weir_tick(nowMs: i64): i64 {
  outsN = 0;
  startChunks();
  tickHandler(nowMs);
  return finish(false, 0);
}

export function weir_process(p: usize, n: i32): i64 {
  const records = load<u32>(p, 12);
  if (records > outcomesCap) {
    outcomesCap = max<u32>(records, 512);
    outcomes = resize(outcomes, <usize>outcomesCap * OUTCOME);
  }
  outsN = 0;
  startChunks();
  batch = p;
  let allUnchanged = true;
  const r = record;
  const handler = recordHandler;
  let e = p + load<u32>(p, 8);
  let o = outcomes;
  for (let i: u32 = 0; i < records; i++, e += ENTRY, o += OUTCOME) {
    const key = p + load<u32>(e);
    const keyLen = load<u32>(e, 4);
    r.hasKey = keyLen != NONE;
    r.key.set(key, r.hasKey ? keyLen : 0);
    r.data.set(key + r.key.len, load<i32>(e, 8));
    r.number = i;
    r.entry = e;
    r.first = outsN;
    r.verdict = UNCHANGED;
    r.reasonLen = 0;
    r.outKey = 0;
    r.outParts = 0;
    handler(r);
    if (r.verdict == UNCHANGED && outsN == r.first && !r.outKey && !r.outParts) {
      store<u64>(o, 0);
      continue;
    }
    settle(r, o);
    allUnchanged = false;
  }
  return finish(allUnchanged, outcomes);
}
