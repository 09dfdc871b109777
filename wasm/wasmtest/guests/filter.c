/* filter: keeps records whose "temp": is at least 25 and appends a field. */
#include "guest.h"

static int find(const u8 *p, u32 n) {
  for (u32 i = 0; i + 7 <= n; i++)
    if (p[i] == '"' && p[i + 1] == 't' && p[i + 2] == 'e' && p[i + 3] == 'm' && p[i + 4] == 'p' && p[i + 5] == '"' && p[i + 6] == ':') return (int)i + 7;
  return -1;
}

EXPORT(weir_process) i64 weir_process(u32 ptr, u32 len) {
  in_t *in = begin();
  for (u32 i = 0; i < in->count; i++) {
    rec_t *r = record(i);
    u8 *d = data(r);
    u32 n = r->vlen;
    int at = find(d, n);
    table[i] = (ent_t){2, 0, 0, 0};
    if (at < 0) { table[i] = (ent_t){3, 0, 0, 7}; continue; }
    int v = 0;
    for (u32 k = (u32)at; k < n && d[k] >= '0' && d[k] <= '9'; k++) v = v * 10 + d[k] - '0';
    if (v < 25) continue;
    u8 *o = heap + top;
    u32 m = n > 0 && d[n - 1] == '}' ? n - 1 : n;
    __builtin_memcpy(o, d, m);
    __builtin_memcpy(o + m, ",\"hot\":1}", 9);
    top += m + 9;
    replace(i, o, m + 9);
  }
  return (u32)&result;
}
