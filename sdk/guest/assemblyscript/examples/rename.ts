// rename: convert a field's unit and rename it, keep the rest of the record as it is:
// {"temp_f":77.9,...} becomes {"temp_c":25.5,...}. The new value is (value + offset) * factor.
//
// config: {"from": "temp_f", "to": "temp_c", "offset": -32, "factor": 0.5555555555555556, "decimals": 2}
import { Bytes, Field, Record, find, onConfigure, onRecord, writer } from "../assembly/weir";
export { weir_abi_1, weir_buffer, weir_configure, weir_process } from "../assembly/weir";

const FROM = Bytes.of("from");
const TO = Bytes.of("to");
const OFFSET = Bytes.of("offset");
const FACTOR = Bytes.of("factor");
const DECIMALS = Bytes.of("decimals");
const REASON = Bytes.of("the field is not a number");

const from = Bytes.of("temp_f");
const to = Bytes.of("temp_c");
let offset: f64 = -32;
let factor: f64 = 5.0 / 9.0;
let decimals: i64 = 2;
const field = new Field();

onConfigure((json: Bytes): bool => {
  if (find(json, FROM, field)) {
    if (!field.isString) return false;
    from.keep(field.text);
  }
  if (find(json, TO, field)) {
    if (!field.isString) return false;
    to.keep(field.text);
  }
  if (find(json, OFFSET, field)) offset = field.number();
  if (find(json, FACTOR, field)) factor = field.number();
  if (find(json, DECIMALS, field)) decimals = field.integer();
  return !isNaN(offset) && !isNaN(factor) && decimals != i64.MIN_VALUE;
});

onRecord((r: Record): void => {
  if (!find(r.data, from, field)) return; // nothing to convert: pass it on
  const v = field.number();
  if (isNaN(v)) return r.fail(1, REASON);
  const end = field.value.ptr + field.value.len;
  writer.begin();
  writer.between(r.data.ptr, field.name).bytes(to);
  writer.between(field.name + from.len, field.value.ptr).fixed((v + offset) * factor, <i32>decimals);
  writer.between(end, r.data.ptr + r.data.len);
  r.replace(writer.end());
});
