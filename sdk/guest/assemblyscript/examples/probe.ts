// probe: does what a record's "do" says and answers with what it got. The tests run it to see
// every call of the SDK at work; it is no example.
import {
  Bytes, Field, Level, Metric, Record, Scan, batchInfo, batchTimeMs, emit, find, httpBody, httpCall, httpEnqueue, integer, log,
  monotonicNs, needed, number, onConfigure, onMigrate, onRecord, onTick, stateDelete, stateGet, stateIncr, statePut, sum,
  wallTimeMs, writer,
} from "../assembly/weir";
export { weir_abi_1, weir_buffer, weir_configure, weir_migrate, weir_process, weir_tick } from "../assembly/weir";

const PAGE = memory.data(2048, 8);
const DO = Bytes.of("do");
const V = Bytes.of("v");
const REFUSE = Bytes.of("refuse");
const K = Bytes.of("k");
const N = Bytes.of("n");
const P = Bytes.of("p/");
const P00 = Bytes.of("p/00");
const VALUE = Bytes.of("value");
const OTHER = Bytes.of("other");
const ONE = Bytes.of("one");
const TWO = Bytes.of("two");
const AT_ONCE = Bytes.of("at once");
const OWN_KEY = Bytes.of("under its own key");
const FORWARDED = Bytes.of("forwarded");
const NEW_KEY = Bytes.of("new key");
const PARTS = Bytes.of("a=1\nb=2");
const NOTHING = Bytes.of("nothing to do");
const REQUEST = Bytes.of("POST https://example.com/a\nContent-Type: text/plain\n\nhello");
const EMPTY = new Bytes();

const field = new Field();
const response = new Bytes();
const counter = Metric.counter("probe_total");
const gauge = Metric.gauge("probe_level");
const histogram = Metric.histogram("probe_size");
const scan = new Scan(PAGE, 256);
const narrow = new Scan(PAGE, 8);

onConfigure((json: Bytes): bool => !find(json, REFUSE, field));
onMigrate((from: u32): bool => from == 1);
onTick((nowMs: i64): void => {
  emit(1, null, writer.begin().int(nowMs).end());
});

function item(v: i64): void {
  writer.byte(0x20).int(v);
}

function about(r: Record): void {
  const b = batchInfo()!;
  writer.quoted(r.key);
  item(r.hasKey ? 1 : 0);
  item(r.timestampMs);
  item(r.index);
  item(r.input);
  item(r.number);
  item(b.shard);
  item(b.baseIndex);
  item(b.timeMs);
  item(b.id);
  item(b.attempt);
  item(b.flags);
  item(b.cpuBudgetMs);
  item(b.seed);
  item(b.records);
  item(batchTimeMs());
  item(wallTimeMs());
  item(monotonicNs());
}

function state(): void {
  writer.int(min(stateGet(K, PAGE, 2048), 0)).int(statePut(K, VALUE.ptr, VALUE.len));
  writer.int(stateGet(K, PAGE, 2)).int(needed());
  const n = stateGet(K, PAGE, 2048);
  writer.int(min(n, 0)).raw(PAGE, n).int(stateIncr(K, 1)).int(stateDelete(K));
  writer.int(stateIncr(N, 5)).int(stateIncr(N, -12)).int(sum());
}

function scanAll(): void {
  for (let i = 0; i < 100; i++) {
    store<u8>(P00.ptr + 2, <u8>(0x30 + i / 10));
    store<u8>(P00.ptr + 3, <u8>(0x30 + (i % 10)));
    statePut(P00, PAGE, i);
  }
  let entries: i64 = 0;
  let bytes: i64 = 0;
  scan.begin(P);
  while (scan.next()) {
    entries++;
    bytes += scan.value.len + load<u8>(scan.key.ptr + 3);
  }
  writer.int(entries).byte(0x20).int(bytes);
  narrow.begin(P);
  writer.int(narrow.next() ? 1 : 0).int(narrow.error);
}

function http(): void {
  const status = httpCall(REQUEST, PAGE, 2048, response);
  writer.int(status).byte(0x20).bytes(httpBody(response)).int(httpEnqueue(REQUEST));
}

function readNumber(r: Record): void {
  find(r.data, V, field);
  const d = number(field.value);
  const i = integer(field.value);
  if (!isNaN(d)) writer.fixed(d, 9);
  writer.byte(0x20);
  if (i != i64.MIN_VALUE) writer.int(i);
}

function verdict(r: Record, what: string): void {
  if (what == "keyed") {
    r.setKey(NEW_KEY);
    r.partitionKey(PARTS);
    return;
  }
  if (what == "emit") {
    r.emit(1, OTHER, ONE);
    r.emit(1, null, TWO);
    r.forward(0);
    r.setKey(FORWARDED);
    return r.drop(); // what was emitted stays
  }
  r.forward(0);
  if (what == "retry") r.retry();
  else if (what == "code") r.fail(77, EMPTY);
  else r.fail(78, what.length ? field.text : NOTHING);
}

onRecord((r: Record): void => {
  const what = find(r.data, DO, field) ? field.text.toString() : "";
  writer.begin();
  if (what == "about") about(r);
  else if (what == "state") state();
  else if (what == "scan") scanAll();
  else if (what == "http") http();
  else if (what == "big") for (let i = 0; i < 40000; i++) writer.int(i);
  else if (what == "log") {
    log(Level.Warn, r.data);
    counter.add(2);
    gauge.set(3.5);
    histogram.observe(1.25);
  } else if (what == "number") readNumber(r);
  else if (what == "now") writer.int(r.emitNow(1, OTHER, AT_ONCE)).int(r.emitNow(0, null, OWN_KEY));
  else return verdict(r, what);
  r.replace(writer.end(), 1);
});
