// downsample: from readings a second apart to one record a minute and device, with count,
// mean, min and max.
//
// A consumer: the open window of each device is kept in the state, and commits together with
// the records it came from and the ones it emits. A window is emitted when a reading of a later
// one arrives, or by the tick when its time and the grace are over. Readings of a window that
// was emitted are counted as late.
//
// in:     {"device":"pump-1","ts":1700000000123,"value":12.5}    ts in ms
// out:    {"device":"pump-1","window":1699999980000,"count":60,"mean":12.41,"min":11.9,"max":13.2}
// config: {"window_ms": 60000, "grace_ms": 5000}
import {
  Bytes, Field, Metric, Record, Scan, emit, find, onConfigure, onRecord, onTick, stateDelete, stateGet, statePut, writer,
} from "../assembly/weir";
export { weir_abi_1, weir_buffer, weir_configure, weir_process, weir_tick } from "../assembly/weir";

const WINDOW_MS = Bytes.of("window_ms");
const GRACE_MS = Bytes.of("grace_ms");
const DEVICE = Bytes.of("device");
const TS = Bytes.of("ts");
const VALUE = Bytes.of("value");
const HEAD = Bytes.of('{"device":"');
const START = Bytes.of('","window":');
const COUNT = Bytes.of(',"count":');
const MEAN = Bytes.of(',"mean":');
const MIN = Bytes.of(',"min":');
const MAX = Bytes.of(',"max":');
const UNREADABLE = Bytes.of("expecting device, ts and value");
const FULL = Bytes.of("the state is full");
const EVERYTHING = new Bytes();

let windowMs: i64 = 60000;
let graceMs: i64 = 5000;
const late = Metric.counter("late");
const device = new Field();
const ts = new Field();
const value = new Field();

// What the state holds under a device's name.
@unmanaged
class Window {
  start: i64; // ms
  count: u64;
  sum: f64;
  min: f64;
  max: f64;
}

const SIZE = <i32>offsetof<Window>();
const window = new Window();
const scan = new Scan(memory.data(16384), 16384);
const text = new Bytes();
const key = new Bytes();

onConfigure((json: Bytes): bool => {
  if (find(json, WINDOW_MS, value)) windowMs = value.integer();
  if (find(json, GRACE_MS, value)) graceMs = value.integer();
  return windowMs > 0 && graceMs >= 0;
});

// Writes the record to emit to text, and where the device's name is in it to key.
function write(w: Window, name: Bytes): void {
  writer.begin().bytes(HEAD).bytes(name);
  writer.bytes(START).int(w.start).bytes(COUNT).int(w.count);
  writer.bytes(MEAN).fixed(w.sum / <f64>w.count, 3);
  writer.bytes(MIN).fixed(w.min, 3).bytes(MAX).fixed(w.max, 3).byte(0x7d);
  const out = writer.end();
  text.set(out.ptr, out.len);
  key.set(out.ptr + HEAD.len, name.len);
}

onRecord((r: Record): void => {
  const readable = find(r.data, DEVICE, device) && device.text.len && find(r.data, TS, ts) && find(r.data, VALUE, value);
  if (!readable || ts.integer() < 0 || isNaN(value.number())) return r.fail(1, UNREADABLE);
  const v = value.number();
  const w = window;
  const start = ts.integer() - (ts.integer() % windowMs);
  let open = stateGet(device.text, changetype<usize>(w), SIZE) == SIZE;
  if (open && start < w.start) {
    late.add(1);
    return r.drop();
  }
  if (open && start > w.start) {
    write(w, device.text);
    r.emit(0, key, text);
    open = false;
  }
  if (!open) {
    w.start = start;
    w.count = 0;
    w.sum = 0;
    w.min = v;
    w.max = v;
  }
  w.count++;
  w.sum += v;
  if (v < w.min) w.min = v;
  if (v > w.max) w.max = v;
  if (statePut(device.text, changetype<usize>(w), SIZE) < 0) r.fail(2, FULL);
});

onTick((nowMs: i64): void => {
  scan.begin(EVERYTHING);
  while (scan.next()) {
    if (scan.value.len != SIZE) continue;
    memory.copy(changetype<usize>(window), scan.value.ptr, SIZE);
    if (window.start + windowMs + graceMs > nowMs) continue;
    write(window, scan.key);
    emit(0, key, text);
    stateDelete(scan.key);
  }
});
