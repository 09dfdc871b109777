/* counter: a consumer that counts records per key in its state, one put per
 * record, and emits "key=count" for each; a tick emits "tick". The key "sum"
 * holds the number of records, through incr. A record "T" traps, "f" fails, "s"
 * is counted and emits nothing, "?" emits "key=input/flags". */
#include "guest.h"

IMPORT(weir_state, get) i32 state_get(const void *, u32, void *, u32, u32 *);
IMPORT(weir_state, put) i32 state_put(const void *, u32, const void *, u32);
IMPORT(weir_state, incr) i32 state_incr(const void *, u32, i64, i64 *);
IMPORT(weir_emit, chunk) i32 emit_chunk(const void *, u32);

static u32 decimal(u8 *p, u64 v) {
  u8 t[20]; u32 n = 0;
  do { t[n++] = '0' + v % 10; v /= 10; } while (v);
  for (u32 i = 0; i < n; i++) p[i] = t[n - 1 - i];
  return n;
}

EXPORT(weir_process) i64 weir_process(u32 ptr, u32 len) {
  in_t *in = begin();
  for (u32 i = 0; i < in->count; i++) {
    rec_t *r = record(i);
    u8 *d = data(r);
    table[i] = (ent_t){0, 0, 0, 0};
    if (r->vlen == 1 && d[0] == 'T') __builtin_trap();
    if (r->vlen == 1 && d[0] == 'f') { table[i] = (ent_t){3, 0, 0, 42}; continue; }
    u32 klen = r->klen == 0xffffffffu ? 0 : r->klen, got = 0;
    u64 n = 0;
    state_get(key(r), klen, &n, 8, &got);
    n++;
    if (state_put(key(r), klen, &n, 8) != 0) { table[i] = (ent_t){3, 0, 0, 43}; continue; }
    if (r->vlen == 1 && d[0] == 's') continue;
    u8 *o = put(key(r), klen);
    heap[top++] = '=';
    if (r->vlen == 1 && d[0] == '?') {
      top += decimal(heap + top, r->stream);
      heap[top++] = '/';
      n = in->flags;
    }
    top += decimal(heap + top, n);
    replace(i, o, (u32)(heap + top - o));
  }
  i64 sum;
  if (in->count) state_incr("sum", 3, in->count, &sum);
  return (u32)&result;
}

EXPORT(weir_tick) i64 weir_tick(i64 now) {
  begin();
  i64 n;
  state_incr("ticks", 5, 1, &n);
  emit(0xffffffffu, "tick", 4)->klen = 0xffffffffu;
  outs[0].kptr = 0;
  return (u32)&result;
}
