/* The few lines every test guest shares: the region the host writes to, the
 * result it reads, and the imports, written out from ABI.md without an SDK. */
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int64_t i64;

#define EXPORT(name) __attribute__((export_name(#name)))
#define IMPORT(mod, name) __attribute__((import_module(#mod), import_name(#name)))

#define REGION (2 << 20)
#define MAXREC 10000
#define MAXOUT 20000

typedef struct { u32 off, klen, vlen; u16 nhdr, attr; i64 ts; u32 delta, stream; } rec_t;
typedef struct { u32 magic; u16 version, flags; u32 hlen, count, total, shard; u64 base; i64 time; u64 id; u32 attempt, cpu; u64 seed; } in_t;
typedef struct { u32 magic; u16 version, flags; u32 results, outs, nouts, zero; } res_t;
typedef struct { u8 status, flags; u16 count; u32 aux; } ent_t;
typedef struct { u32 src; u16 stream, nhdr; u32 kptr, klen, vptr, vlen, hptr, hlen, pptr, plen; i64 ts; } out_t;

static u8 region[REGION] __attribute__((aligned(16)));
static u8 heap[REGION] __attribute__((aligned(16)));
static u32 top;
static ent_t table[MAXREC];
static out_t outs[MAXOUT];
static res_t result;

EXPORT(weir_abi_1) void weir_abi_1(void) {}
EXPORT(weir_buffer) u32 weir_buffer(u32 min) { return min <= REGION ? (u32)region : 0; }

static in_t *begin(void) {
  in_t *in = (in_t *)region;
  top = 0;
  result = (res_t){0x31525257, 1, 0, (u32)table, (u32)outs, 0, 0};
  return in;
}
static rec_t *record(u32 i) { return (rec_t *)(region + 64) + i; }
static u8 *key(rec_t *r) { return region + r->off; }
static u8 *data(rec_t *r) { return region + r->off + (r->klen == 0xffffffffu ? 0 : r->klen); }

static out_t *emit(u32 src, const void *p, u32 n) {
  out_t *o = &outs[result.nouts++];
  *o = (out_t){src, 0, 0, 0xffffffffu, 0, (u32)p, n, 0, 0, 0xffffffffu, 0, 0};
  return o;
}
static void replace(u32 i, const void *p, u32 n) {
  if (table[i].count == 0) table[i] = (ent_t){1, 0, 0, result.nouts};
  table[i].count++;
  emit(i, p, n);
}
static void *copy(void *d, const void *s, u32 n) {
  u8 *a = d; const u8 *b = s;
  while (n--) *a++ = *b++;
  return d;
}
static u8 *put(const void *s, u32 n) { u8 *p = heap + top; copy(p, s, n); top += n; return p; }
