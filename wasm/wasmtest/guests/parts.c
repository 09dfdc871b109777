/* parts: takes "PARTITION|DATA" apart: the record goes on as DATA, with
 * PARTITION as its dynamic partition. A record without | fails. */
#include "guest.h"

EXPORT(weir_process) i64 weir_process(u32 ptr, u32 len) {
  in_t *in = begin();
  for (u32 i = 0; i < in->count; i++) {
    rec_t *r = record(i);
    u8 *d = data(r);
    u32 n = r->vlen, at = 0;
    while (at < n && d[at] != '|') at++;
    table[i] = (ent_t){3, 0, 0, 9};
    if (at == n) continue;
    table[i] = (ent_t){1, 0, 1, result.nouts};
    out_t *o = emit(i, d + at + 1, n - at - 1);
    o->pptr = (u32)d;
    o->plen = at;
  }
  return (u32)&result;
}
