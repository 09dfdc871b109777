// filter: pass on the records whose field is at least min, drop the others.
//
// config: {"field": "temp", "min": 25}
import { Bytes, Field, Record, find, onConfigure, onRecord } from "../assembly/weir";
export { weir_abi_1, weir_buffer, weir_configure, weir_process } from "../assembly/weir";

const FIELD = Bytes.of("field");
const MIN = Bytes.of("min");
const REASON = Bytes.of("the field is missing or not a number");

const name = Bytes.of("temp");
let least: f64 = 25;
const field = new Field();

onConfigure((json: Bytes): bool => {
  if (find(json, FIELD, field)) {
    if (!field.isString) return false;
    name.keep(field.text);
  }
  if (find(json, MIN, field)) least = field.number();
  return !isNaN(least);
});

onRecord((r: Record): void => {
  const v = find(r.data, name, field) ? field.number() : NaN;
  if (isNaN(v)) r.fail(1, REASON);
  else if (v < least) r.drop();
});
