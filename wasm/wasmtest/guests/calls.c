/* calls: a record is a script of one host call; the output is what it answered.
 * First letter: the call; then fields separated by spaces; addresses may be
 * given as @number to be hostile. */
#include "guest.h"

IMPORT(weir_log, write) i32 log_write(u32, const void *, u32);
IMPORT(weir_metric, define) i32 metric_define(u32, const void *, u32);
IMPORT(weir_metric, add) i32 metric_add(u32, double);
IMPORT(weir_metric, set) i32 metric_set(u32, double);
IMPORT(weir_metric, observe) i32 metric_observe(u32, double);
IMPORT(weir_clock, now) i64 clock_now(u32);
IMPORT(weir_state, get) i32 state_get(const void *, u32, void *, u32, void *);
IMPORT(weir_state, put) i32 state_put(const void *, u32, const void *, u32);
IMPORT(weir_state, del) i32 state_del(const void *, u32);
IMPORT(weir_state, incr) i32 state_incr(const void *, u32, i64, void *);
IMPORT(weir_state, scan) i32 state_scan(const void *, u32, const void *, u32, u32, void *, u32, void *);
IMPORT(weir_emit, chunk) i32 emit_chunk(const void *, u32);
IMPORT(weir_http, call) i32 http_call(const void *, u32, void *, u32, void *);
IMPORT(weir_http, enqueue) i32 http_enqueue(const void *, u32);

static u8 buf[4096];
static u64 cell;

typedef struct { u8 *p; u32 n; } str;
static str args[8];
static u32 nargs;

static void split(u8 *p, u32 n) {
  nargs = 0;
  for (u32 i = 0; i <= n && nargs < 8;) {
    u32 j = i;
    while (j < n && p[j] != ' ') j++;
    args[nargs++] = (str){p + i, j - i};
    i = j + 1;
  }
}
static i64 num(str s) {
  i64 v = 0; u32 i = 0; int neg = s.n && s.p[0] == '-';
  for (i = neg; i < s.n; i++) v = v * 10 + s.p[i] - '0';
  return neg ? -v : v;
}
/* text returns an argument, or a pointer of the script's choice: @ptr:len */
static str text(u32 i) {
  str s = i < nargs ? args[i] : (str){buf, 0};
  if (s.n && s.p[0] == '@') {
    u64 a = 0, b = 0; u32 k = 1;
    while (k < s.n && s.p[k] != ':') a = a * 10 + s.p[k++] - '0';
    k++;
    while (k < s.n) b = b * 10 + s.p[k++] - '0';
    return (str){(u8 *)(u32)a, (u32)b};
  }
  return s;
}
static u32 dec(u8 *p, i64 v) {
  u32 n = 0; u8 t[24]; u32 m = 0;
  if (v < 0) { p[n++] = '-'; v = -v; }
  do { t[m++] = '0' + v % 10; v /= 10; } while (v);
  while (m) p[n++] = t[--m];
  return n;
}

EXPORT(weir_configure) i32 weir_configure(const u8 *p, u32 n) { return n >= 8 && p[2] == 'r' && p[3] == 'e' && p[4] == 'f' ? -5 : 0; }

EXPORT(weir_process) i64 weir_process(u32 ptr, u32 len) {
  in_t *in = begin();
  for (u32 i = 0; i < in->count; i++) {
    rec_t *r = record(i);
    split(data(r), r->vlen);
    i64 code = -99; u32 n = 0; cell = 0;
    str a = text(1), b = text(2);
    switch (args[0].p[0]) {
    case 'L': code = log_write((u32)num(args[1]), b.p, b.n); break;
    case 'D': code = metric_define((u32)num(args[1]), b.p, b.n); break;
    case 'A': code = metric_add((u32)num(args[1]), (double)num(args[2])); break;
    case 'S': code = metric_set((u32)num(args[1]), (double)num(args[2])); break;
    case 'O': code = metric_observe((u32)num(args[1]), (double)num(args[2])); break;
    case 'N': code = 0; for (u32 x = 0; x < 50; x++) code = metric_observe((u32)num(args[1]), __builtin_nan("")); break;
    case 'c': code = clock_now((u32)num(args[1])); break;
    case 'g': code = state_get(a.p, a.n, buf, nargs > 2 ? (u32)num(args[2]) : sizeof buf, &cell); n = code == 0 ? (u32)cell : 0; break;
    case 'h': code = state_get(a.p, a.n, b.p, b.n, text(3).p); break; /* hostile addresses */
    case 'p': code = state_put(a.p, a.n, b.p, b.n); break;
    case 'd': code = state_del(a.p, a.n); break;
    case 'i': code = state_incr(a.p, a.n, num(args[2]), nargs > 3 ? (void *)text(3).p : (void *)&cell); break;
    case 's': code = state_scan(a.p, a.n, b.p, b.n, (u32)num(args[3]), buf, nargs > 4 ? (u32)num(args[4]) : sizeof buf, &cell); n = code > 0 ? (u32)cell : 0; break;
    case 'e': emit(0xffffffffu, b.p, b.n); outs[result.nouts - 1].stream = (u16)num(args[1]); code = emit_chunk(&outs[--result.nouts], 1); break;
    case 'E': code = emit_chunk(a.p, a.n); break;
    case 'H': for (u32 x = 0; x < b.n; x++) if (b.p[x] == '~') b.p[x] = '\n'; else if (b.p[x] == '+') b.p[x] = ' ';
      code = http_call(b.p, b.n, buf, (u32)num(args[1]), &cell); n = code > 0 ? (u32)cell : 0; break;
    case 'P': /* a buffer that is too small, then the response that was kept */
      code = http_call(a.p, a.n, buf, 3, &cell);
      if (code == -2) code = http_call(0, 0, buf, sizeof buf, &cell);
      n = code > 0 ? (u32)cell : 0; break;
    case 'Z': http_enqueue(a.p, a.n); code = http_enqueue(a.p, a.n); break;
    case 'q': code = http_enqueue(a.p, a.n); break;
    case 'w': code = http_call(a.p, a.n, b.p, b.n, &cell); break;
    case 'Q': for (u32 x = 0; x < a.n; x++) if (a.p[x] == '~') a.p[x] = '\n'; else if (a.p[x] == '+') a.p[x] = ' ';
      code = http_enqueue(a.p, a.n); break;
    }
    u8 *o = heap + top;
    top += dec(heap + top, code);
    heap[top++] = ' ';
    top += dec(heap + top, (i64)cell);
    if (n) { heap[top++] = ' '; put(buf, n > sizeof buf ? sizeof buf : n); }
    table[i] = (ent_t){0, 0, 0, 0};
    replace(i, o, (u32)(heap + top - o));
  }
  return (u32)&result;
}
