// anomaly: emit an alert for a reading that is far from the device's last ones.
//
// A consumer: the state holds the last window values of each device. A value whose distance
// from their mean is more than z standard deviations is an alert; it enters the window all the
// same, so that a new level becomes normal.
//
// in:     {"device":"pump-1","value":12.5}
// out:    {"device":"pump-1","value":99,"mean":12.4,"z":8.21}
// config: {"z": 4, "window": 32, "warmup": 8}
import { Bytes, Field, Record, find, onConfigure, onRecord, stateGet, statePut, writer } from "../assembly/weir";
export { weir_abi_1, weir_buffer, weir_configure, weir_process } from "../assembly/weir";

const Z = Bytes.of("z");
const WINDOW = Bytes.of("window");
const WARMUP = Bytes.of("warmup");
const DEVICE = Bytes.of("device");
const VALUE = Bytes.of("value");
const HEAD = Bytes.of('{"device":"');
const READING = Bytes.of('","value":');
const MEAN = Bytes.of(',"mean":');
const SCORE = Bytes.of(',"z":');
const UNREADABLE = Bytes.of("expecting device and value");
const FULL = Bytes.of("the state is full");

const MAX_WINDOW = 128;

// The state holds, under a device's name: u32 count, u32 place of the next value, then window
// values as f64.
const state = memory.data(8 + 8 * 128, 8);
let zLimit: f64 = 4;
let window: i64 = 32;
let warmup: i64 = 8;
const device = new Field();
const value = new Field();

onConfigure((json: Bytes): bool => {
  if (find(json, Z, value)) zLimit = value.number();
  if (find(json, WINDOW, value)) window = value.integer();
  if (find(json, WARMUP, value)) warmup = value.integer();
  return zLimit > 0 && window <= MAX_WINDOW && warmup >= 2 && warmup <= window;
});

// @ts-ignore: decorator
@inline
function valueAt(i: u32): f64 {
  return load<f64>(state + 8 + ((<usize>i) << 3));
}

// Compares v with the count values in the state.
function judge(r: Record, v: f64, count: u32): void {
  let sum: f64 = 0;
  for (let i: u32 = 0; i < count; i++) sum += valueAt(i);
  const mean = sum / <f64>count;
  let squares: f64 = 0;
  for (let i: u32 = 0; i < count; i++) squares += (valueAt(i) - mean) * (valueAt(i) - mean);
  const deviation = sqrt(squares / <f64>count);
  const distance = abs(v - mean);
  if (distance <= zLimit * deviation || distance <= 1e-9) return;
  writer.begin().bytes(HEAD).bytes(device.text).bytes(READING).fixed(v, 3).bytes(MEAN).fixed(mean, 3);
  writer.bytes(SCORE).fixed(deviation > 0 ? distance / deviation : 1e6, 2).byte(0x7d);
  r.emit(0, device.text, writer.end());
}

onRecord((r: Record): void => {
  const readable = find(r.data, DEVICE, device) && device.text.len && find(r.data, VALUE, value);
  if (!readable || isNaN(value.number())) return r.fail(1, UNREADABLE);
  const v = value.number();
  const size = 8 + 8 * <i32>window;
  if (stateGet(device.text, state, size) != size) memory.fill(state, 0, size);
  const count = load<u32>(state);
  const next = load<u32>(state, 4);
  if (count >= <u32>warmup) judge(r, v, count);
  store<f64>(state + 8 + ((<usize>next) << 3), v);
  store<u32>(state, min<u32>(count + 1, <u32>window));
  store<u32>(state, (next + 1) % <u32>window, 4);
  if (statePut(device.text, state, size) < 0) r.fail(2, FULL);
});
