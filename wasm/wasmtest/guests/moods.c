/* moods: the first byte of a record says what to do with it, politely or not. */
#include "guest.h"

IMPORT(weir_log, write) i32 log_write(i32, const void *, u32);

static u32 deep(u32 n) { volatile u32 x = n; return n == 0 ? 0 : deep(n + 1) + x; }
static u32 counter; /* survives calls, not instances */

static u32 u(const u8 *p) { u32 v = 0; while (*p >= '0' && *p <= '9') v = v * 10 + *p++ - '0'; return v; }

EXPORT(weir_process) i64 weir_process(u32 ptr, u32 len) {
  in_t *in = begin();
  counter++;
  for (u32 i = 0; i < in->count; i++) {
    rec_t *r = record(i);
    u8 *d = data(r);
    table[i] = (ent_t){0, 0, 0, 0};
    if (r->vlen == 0) continue;
    switch (d[0]) {
    case 'd': table[i].status = 2; break;                         /* drop */
    case 'r': replace(i, d + 1, r->vlen - 1); break;              /* replace by its tail, a slice of the input */
    case '2': replace(i, d + 1, r->vlen - 1); replace(i, "second", 6); break;
    case 'p': replace(i, 0, 0); outs[result.nouts - 1].vptr = 0xffffffffu; outs[result.nouts - 1].pptr = (u32)d + 1; outs[result.nouts - 1].plen = r->vlen - 1; break;
    case 'k': replace(i, "v", 1); outs[result.nouts - 1].kptr = (u32)d + 1; outs[result.nouts - 1].klen = r->vlen - 1; break;
    case 'o': replace(i, "v", 1); outs[result.nouts - 1].stream = (u16)u(d + 1); break;
    case 'e': replace(i, d, 0); break;                            /* replaced by nothing at all */
    case 'f': table[i] = (ent_t){3, 0, 0, u(d + 1)}; break;       /* fail with a code */
    case 'F': { out_t *o = emit(i, d + 1, r->vlen - 1); o->ts = 9; table[i] = (ent_t){3, 1, 0, result.nouts - 1}; break; }
    case 'y': if (in->attempt < u(d + 1)) table[i].status = 4; break; /* retry until the n-th attempt */
    case 'Y': if (in->attempt < u(d + 1)) return -2; break;
    case 'B': return -1;
    case 'T': __builtin_trap();
    case 'L': for (volatile u32 x = 0;; x++) {} break;
    case 'R': table[i].aux = deep(1); break;
    case 'M': while (__builtin_wasm_memory_grow(0, 16) != (u32)-1) {} __builtin_trap();
    case 'G': for (u32 n = 0; n < 1000; n++) log_write(1, d, r->vlen); break;
    case 'U': table[i].status = 77; break;                        /* unknown status: a failure */
    /* lies */
    case '0': return 0x7ffffff0;
    case '1': result.magic = 1; return (u32)&result;
    case '3': result.results = 0xfffffff0u; return (u32)&result;
    case '4': result.outs = 8; result.nouts = 0x7fffffffu; return (u32)&result;
    case '5': replace(i, (void *)0xfffffff0u, 100); break;
    case '6': replace(i, d, 1); outs[result.nouts - 1].src = i + 1; break;
    case '7': table[i] = (ent_t){1, 0, 65535, 0}; break;
    case '8': replace(i, heap, 0x7fffffff); break;
    case '9': result.flags = 0x4000; break;
    case 'O': for (u32 n = 0; n < 15; n++) replace(i, heap, REGION); break; /* output bomb */
    case 'c': { static u8 s[8]; copy(s, "calls=", 6); s[6] = '0' + counter % 10; replace(i, s, 7); break; }
    }
  }
  return (u32)&result;
}
