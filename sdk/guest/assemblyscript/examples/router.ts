// router: choose each record's partition key, dynamic partition and output by what it says. The
// data is passed on as it is; nothing is copied.
//
// A record goes to output 1 when its match field is equals, to output 0 otherwise, under the
// partition key that is the value of its key field.
//
// config: {"key": "site", "match": "severity", "equals": "alarm"}
import { Bytes, Field, Record, find, onConfigure, onRecord } from "../assembly/weir";
export { weir_abi_1, weir_buffer, weir_configure, weir_process } from "../assembly/weir";

const KEY = Bytes.of("key");
const MATCH = Bytes.of("match");
const EQUALS = Bytes.of("equals");
const REASON = Bytes.of("the field to route by is missing or not a string");

const key = Bytes.of("site");
const match = Bytes.of("severity");
const equals = Bytes.of("alarm");
const site = new Field();
const severity = new Field();

// Reads a string of the config into `to`; false when it is something else.
function read(json: Bytes, name: Bytes, to: Bytes): bool {
  if (!find(json, name, site)) return true;
  if (site.isString) to.keep(site.text);
  return site.isString;
}

onConfigure((json: Bytes): bool => read(json, KEY, key) && read(json, MATCH, match) && read(json, EQUALS, equals));

onRecord((r: Record): void => {
  if (!find(r.data, key, site) || !site.text.len) return r.fail(1, REASON);
  const alarm = find(r.data, match, severity) && severity.isString && severity.text.equals(equals);
  r.setKey(site.text);
  r.partitionKey(site.text);
  r.forward(alarm ? 1 : 0);
});
