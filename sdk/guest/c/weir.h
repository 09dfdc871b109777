/* weir.h: write a Weir module in C.
 *
 * A module is a WebAssembly file that Weir runs over batches of records. This
 * header is the whole SDK: include it in exactly one C file, say which
 * function handles a record, and compile for wasm32 with no libc:
 *
 *   #include "weir.h"
 *
 *   static void on_record(weir_record *r) {
 *       weir_field f;
 *       double v;
 *       if (!weir_json_find(r->data, WEIR_STR("temp"), &f) || !weir_number(f.value, &v))
 *           weir_fail(r, 1, WEIR_STR("no number in field temp"));
 *       else if (v < 25)
 *           weir_drop(r);
 *   }
 *   WEIR_ON_RECORD(on_record)
 *
 * What a handler may say about a record (nothing said = pass it on unchanged):
 *
 *   weir_replace        pass on other data in its place
 *   weir_forward        pass it on unchanged, to a chosen output
 *   weir_emit           one more record, to any output; may be called many times
 *   weir_partition_key  choose the partition key of what replace and forward pass on
 *   weir_drop           pass nothing on; this is not a failure
 *   weir_fail           processing failed: on_error of the manifest decides
 *   weir_retry          not now: run the batch again later
 *
 * A record that emitted is replaced by what it emitted; call weir_forward too to
 * keep the original.
 *
 * Bytes are never copied on the way in: r->data and r->key point into the input
 * region and are valid until the handler's batch ends. Bytes handed to the host
 * (weir_replace, weir_emit, ...) must stay as they are until the batch ends: use
 * the input itself, string literals, or a weir_writer. Nothing is allocated per
 * record; the writer's memory is taken once and used again for every batch.
 *
 * The byte layouts are those of wasm/abi/ABI.md, version weir/1.
 */
#ifndef WEIR_H
#define WEIR_H

#if !defined(__wasm32__)
#error "weir.h: compile with --target=wasm32"
#endif
#if !defined(__wasm_simd128__)
#error "weir.h: compile with -msimd128"
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <wasm_simd128.h>

/* ---- bytes ------------------------------------------------------------- */

/* weir_bytes is a borrowed run of bytes, not NUL-terminated. */
typedef struct {
    const uint8_t *ptr;
    uint32_t len;
} weir_bytes;

/* WEIR_STR makes weir_bytes of a string literal. */
#define WEIR_STR(literal) ((weir_bytes){(const uint8_t *)("" literal), sizeof(literal) - 1})

#define WEIR__INLINE static inline __attribute__((always_inline, unused))
#define WEIR__NOINLINE static __attribute__((noinline, unused))

typedef uint64_t weir__u64u __attribute__((aligned(1), may_alias));
typedef uint32_t weir__u32u __attribute__((aligned(1), may_alias));
typedef double weir__f64u __attribute__((aligned(1), may_alias));

/* weir_between is the bytes from `from` up to `to`. */
WEIR__INLINE weir_bytes weir_between(const uint8_t *from, const uint8_t *to) {
    return (weir_bytes){from, (uint32_t)(to - from)};
}

/* weir_equal tells whether two runs of bytes are the same. */
WEIR__INLINE bool weir_equal(weir_bytes a, weir_bytes b) {
    if (a.len != b.len) return false;
    const uint8_t *p = a.ptr, *q = b.ptr, *end = p + a.len;
    for (; end - p >= 8; p += 8, q += 8)
        if (*(const weir__u64u *)p != *(const weir__u64u *)q) return false;
    for (; p < end; p++, q++)
        if (*p != *q) return false;
    return true;
}

/* weir_copy copies n bytes; the two must not overlap. Short copies, the usual
 * ones, are moves of 16 bytes: memory.copy costs a call in the host. */
WEIR__INLINE void weir_copy(void *to, const void *from, uint32_t n) {
    uint8_t *d = (uint8_t *)to;
    const uint8_t *s = (const uint8_t *)from;
    if (n > 512) {
        __builtin_memcpy(d, s, n);
        return;
    }
    if (n >= 16) {
        v128_t tail = wasm_v128_load(s + n - 16);
        uint8_t *last = d + n - 16;
        for (; last - d > 16; d += 32, s += 32) {
            v128_t a = wasm_v128_load(s), b = wasm_v128_load(s + 16);
            wasm_v128_store(d, a);
            wasm_v128_store(d + 16, b);
        }
        if (d < last) wasm_v128_store(d, wasm_v128_load(s));
        wasm_v128_store(last, tail);
        return;
    }
    if (n >= 8) {
        uint64_t tail = *(const weir__u64u *)(s + n - 8);
        *(weir__u64u *)d = *(const weir__u64u *)s;
        *(weir__u64u *)(d + n - 8) = tail;
        return;
    }
    for (; n; n--) *d++ = *s++;
}

/* weir_load_f64 and its sisters read and write little-endian values at any
 * address, for what a module keeps in its state. */
WEIR__INLINE double weir_load_f64(const void *p) { return *(const weir__f64u *)p; }
WEIR__INLINE void weir_store_f64(void *p, double v) { *(weir__f64u *)p = v; }
WEIR__INLINE uint64_t weir_load_u64(const void *p) { return *(const weir__u64u *)p; }
WEIR__INLINE void weir_store_u64(void *p, uint64_t v) { *(weir__u64u *)p = v; }
WEIR__INLINE uint32_t weir_load_u32(const void *p) { return *(const weir__u32u *)p; }
WEIR__INLINE void weir_store_u32(void *p, uint32_t v) { *(weir__u32u *)p = v; }

/* ---- memory ------------------------------------------------------------ */

extern uint8_t __heap_base;
static uint32_t weir__heap;

/* weir__alloc takes n bytes, 16-aligned, for good; NULL when the memory limit
 * is reached. Only buffers that are used again for every batch come from here. */
WEIR__NOINLINE void *weir__alloc(uint32_t n) {
    if (!weir__heap) weir__heap = ((uint32_t)&__heap_base + 15) & ~15u;
    uint32_t start = weir__heap;
    if (n > 0x7ffffff0u - start) return NULL;
    uint32_t end = (start + n + 15) & ~15u;
    uint32_t have = (uint32_t)__builtin_wasm_memory_size(0) << 16;
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + 0xffff) >> 16) == (size_t)-1) return NULL;
    weir__heap = end;
    return (void *)start;
}

/* Text made during a batch lies in a list of chunks that the next batch uses again. */
typedef struct weir__chunk {
    struct weir__chunk *next;
    uint32_t cap;
    uint8_t bytes[];
} weir__chunk;

static struct {
    weir__chunk *first, *cur;
    uint8_t *top, *end;
} weir__text;

/* weir__room makes [top,end) at least n bytes long and keeps the bytes from
 * `open` to `open_end`, which it moves to the new top. It traps when the memory
 * limit is reached: the host then fails the batch and finds the record. */
WEIR__NOINLINE uint8_t *weir__room(const uint8_t *open, const uint8_t *open_end, uint32_t n) {
    uint32_t kept = (uint32_t)(open_end - open), need = kept + n;
    weir__chunk *c = weir__text.cur ? weir__text.cur->next : weir__text.first, *prev = weir__text.cur;
    while (c && c->cap < need) prev = c, c = c->next;
    if (!c) {
        uint32_t cap = 64 << 10;
        while (cap < need) cap *= 2;
        c = (weir__chunk *)weir__alloc(cap + sizeof(weir__chunk));
        if (!c) __builtin_trap();
        c->next = NULL;
        c->cap = cap;
        if (prev) prev->next = c;
        else weir__text.first = c;
    }
    weir__text.cur = c;
    weir__text.top = c->bytes;
    weir__text.end = c->bytes + c->cap;
    weir_copy(c->bytes, open, kept);
    return c->bytes;
}

/* ---- writer ------------------------------------------------------------ */

/* weir_writer builds bytes that live until the batch ends. One writer is open
 * at a time. */
typedef struct {
    uint8_t *start, *p, *end;
} weir_writer;

/* weir_write_begin opens a writer. */
WEIR__INLINE weir_writer weir_write_begin(void) {
    return (weir_writer){weir__text.top, weir__text.top, weir__text.end};
}

WEIR__INLINE void weir__need(weir_writer *w, uint32_t n) {
    if (__builtin_expect((uint32_t)(w->end - w->p) >= n, 1)) return;
    uint32_t used = (uint32_t)(w->p - w->start);
    w->start = weir__room(w->start, w->p, n);
    w->p = w->start + used;
    w->end = weir__text.end;
}

/* weir_write_bytes appends b. */
WEIR__INLINE void weir_write_bytes(weir_writer *w, weir_bytes b) {
    weir__need(w, b.len);
    weir_copy(w->p, b.ptr, b.len);
    w->p += b.len;
}

/* weir_write_str appends a string literal. */
#define weir_write_str(w, literal) weir_write_bytes((w), WEIR_STR(literal))

WEIR__NOINLINE uint8_t *weir__digits(uint8_t *p, uint64_t v, uint32_t min) {
    uint8_t tmp[20];
    uint32_t n = 0;
    do {
        tmp[n++] = (uint8_t)('0' + v % 10);
        v /= 10;
    } while (v);
    while (n < min) tmp[n++] = '0';
    while (n) *p++ = tmp[--n];
    return p;
}

/* weir_write_int appends v in decimal. */
WEIR__INLINE void weir_write_int(weir_writer *w, int64_t v) {
    weir__need(w, 20);
    uint64_t u = (uint64_t)v;
    if (v < 0) {
        *w->p++ = '-';
        u = 0 - u;
    }
    w->p = weir__digits(w->p, u, 1);
}

static const double weir__pow10[23] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const uint32_t weir__tens[10] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000};

WEIR__NOINLINE uint8_t *weir__fixed(uint8_t *p, double v, uint32_t decimals) {
    if (decimals > 9) decimals = 9;
    double scaled = (v < 0 ? -v : v) * weir__pow10[decimals] + 0.5;
    if (!(scaled < 9.2e18)) {
        weir_copy(p, "null", 4);
        return p + 4;
    }
    uint64_t n = (uint64_t)scaled;
    if (v < 0 && n) *p++ = '-';
    if (n > 0xffffffffu) {
        uint64_t unit = (uint64_t)weir__pow10[decimals], frac = n % unit;
        p = weir__digits(p, n / unit, 1);
        if (!frac) return p;
        *p++ = '.';
        p = weir__digits(p, frac, decimals);
        while (p[-1] == '0') p--;
        return p;
    }
    /* The usual ones: in 32 bits a division by ten is a multiplication. */
    uint32_t u = (uint32_t)n;
    while (decimals && u % 10 == 0) u /= 10, decimals--;
    uint32_t len = 1;
    while (len < 10 && u >= weir__tens[len]) len++;
    if (len <= decimals) len = decimals + 1;
    uint8_t *end = p + len, *q = end;
    if (decimals) {
        q = ++end;
        for (; decimals; decimals--, u /= 10) *--q = (uint8_t)('0' + u % 10);
        *--q = '.';
    }
    for (; q > p; u /= 10) *--q = (uint8_t)('0' + u % 10);
    return end;
}

/* weir_write_fixed appends v with at most `decimals` (0..9) digits after the
 * point, rounded half away from zero, trailing zeros cut. It appends null for
 * what JSON can't hold (NaN, infinities) and for |v|*10^decimals >= 9.2e18. All
 * SDKs write the same digits. */
WEIR__INLINE void weir_write_fixed(weir_writer *w, double v, uint32_t decimals) {
    weir__need(w, 32);
    w->p = weir__fixed(w->p, v, decimals);
}

/* weir_write_quoted appends b as a JSON string: quotes around it, and quotes,
 * backslashes and control characters escaped. Bytes from 0x80 go through. */
WEIR__NOINLINE void weir_write_quoted(weir_writer *w, weir_bytes b) {
    static const char hex[] = "0123456789abcdef";
    if (b.len > 0x10000000u) __builtin_trap();
    weir__need(w, 6 * b.len + 2);
    uint8_t *p = w->p;
    *p++ = '"';
    for (uint32_t i = 0; i < b.len; i++) {
        uint8_t c = b.ptr[i];
        if (c < 0x20) {
            weir_copy(p, "\\u00", 4);
            p[4] = (uint8_t)hex[c >> 4];
            p[5] = (uint8_t)hex[c & 15];
            p += 6;
            continue;
        }
        if (c == '"' || c == '\\') *p++ = '\\';
        *p++ = c;
    }
    *p++ = '"';
    w->p = p;
}

/* weir_write_end closes the writer and returns what it wrote. */
WEIR__INLINE weir_bytes weir_write_end(weir_writer *w) {
    weir__text.top = w->p;
    return (weir_bytes){w->start, (uint32_t)(w->p - w->start)};
}

/* ---- JSON -------------------------------------------------------------- */

/* weir_field is one member of a JSON object. `name` is what stands between the
 * quotes, `value` is the value's text, a string with its quotes. Both point into
 * the document, so that a module can copy the document around a field. */
typedef struct {
    weir_bytes name, value;
} weir_field;

WEIR__INLINE const uint8_t *weir__space(const uint8_t *p, const uint8_t *end) {
    while (p < end && *p <= ' ') p++;
    return p;
}

WEIR__INLINE uint32_t weir__mask(v128_t is) { return (uint32_t)wasm_i8x16_bitmask(is); }

/* weir__quote returns the first unescaped quote from p on, or end. */
WEIR__INLINE const uint8_t *weir__quote(const uint8_t *p, const uint8_t *end) {
    while (end - p >= 16) {
        v128_t w = wasm_v128_load(p);
        uint32_t m = weir__mask(wasm_i8x16_eq(w, wasm_i8x16_const_splat('"')) |
                                wasm_i8x16_eq(w, wasm_i8x16_const_splat('\\')));
        if (!m) {
            p += 16;
            continue;
        }
        p += __builtin_ctz(m);
        if (*p == '"') return p;
        p += 2;
    }
    for (; p < end && *p != '"'; p++)
        if (*p == '\\') p++;
    return p < end ? p : end;
}

/* weir__nested returns what follows the object or array at p, or NULL. */
WEIR__NOINLINE const uint8_t *weir__nested(const uint8_t *p, const uint8_t *end) {
    uint32_t depth = 0;
    for (; p < end; p++) {
        if (*p == '"') p = weir__quote(p + 1, end);
        else if ((*p | 0x20) == '{') depth++;
        else if ((*p | 0x20) == '}' && --depth == 0) return p + 1;
    }
    return NULL;
}

/* weir__value fills f->value from p, the place behind the colon. */
WEIR__INLINE bool weir__value(const uint8_t *p, const uint8_t *end, weir_field *f) {
    p = weir__space(p, end);
    if (p >= end) return false;
    const uint8_t *q = p;
    if (*p == '"') {
        q = weir__quote(p + 1, end);
        if (q++ >= end) return false;
    } else if ((*p | 0x20) == '{') {
        q = weir__nested(p, end);
        if (!q) return false;
    } else {
        while (q < end && *q > ' ' && *q != ',' && (*q | 0x20) != '}') q++;
        if (q == p) return false;
    }
    f->value = (weir_bytes){p, (uint32_t)(q - p)};
    return true;
}

/* weir__object returns what follows the object at p, or NULL. */
WEIR__NOINLINE const uint8_t *weir__object(const uint8_t *p, const uint8_t *end) {
    uint32_t depth = 0;
    for (; p < end; p++) {
        if (*p == '"') p = weir__quote(p + 1, end);
        else if (*p == '\\') p++;
        else if (*p == '{') depth++;
        else if (*p == '}' && --depth == 0) return p + 1;
    }
    return NULL;
}

/* weir__is_name tells whether the string that begins at `at` is name, before a
 * colon, which *colon gets. */
WEIR__INLINE bool weir__is_name(const uint8_t *at, const uint8_t *end, weir_bytes name, const uint8_t **colon) {
    if ((uint32_t)(end - at) <= name.len || at[name.len] != '"' || !weir_equal((weir_bytes){at, name.len}, name))
        return false;
    *colon = weir__space(at + name.len + 1, end);
    return *colon < end && **colon == ':';
}

/* weir_json_find finds the first member called `name` of the object in doc. It
 * looks at 16 bytes at a time, only at quotes and braces, and reads nothing
 * behind the member: it is a scanner, not a validator. A name that the document
 * spells with escapes is compared as it is spelt. Names are 1 byte or longer.
 *
 * Whether a byte lies in a string, the parity of the quotes before it, matters
 * only where a backslash, a brace, or what may begin the name is. So the loop
 * folds the quotes it passes into `seen` and counts them when there is such a
 * byte. */
WEIR__NOINLINE bool weir_json_find(weir_bytes doc, weir_bytes name, weir_field *f) {
    const uint8_t *end = doc.ptr + doc.len, *p = weir__space(doc.ptr, end);
    if (p >= end || *p++ != '{' || !name.len) return false;
    const v128_t letter = wasm_i8x16_splat((int8_t)name.ptr[0]);
    const v128_t none = wasm_i8x16_const_splat(0), one = wasm_i8x16_const(-1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    const uint8_t *whole = p; /* no quote before it opens a string */
    v128_t seen = none;
    uint8_t tail[17];
    for (;;) {
        const uint8_t *from = p;
        if (end - p < 16) {
            if (p >= end) return false;
            wasm_v128_store(tail + 1, wasm_i8x16_const_splat(' '));
            for (int32_t i = -1; p + i < end; i++) tail[i + 1] = p[i];
            from = tail + 1;
        }
        v128_t w = wasm_v128_load(from), before = wasm_v128_load(from - 1);
        v128_t quotes = wasm_i8x16_eq(w, wasm_i8x16_const_splat('"'));
        v128_t stops = wasm_i8x16_eq(w, wasm_i8x16_const_splat('\\')) | wasm_i8x16_eq(w, wasm_i8x16_const_splat('{')) |
                       (wasm_i8x16_eq(before, wasm_i8x16_const_splat('"')) & wasm_i8x16_eq(w, letter));
        if (__builtin_expect(!wasm_v128_any_true(stops), 1)) {
            seen ^= quotes;
            p += 16;
            continue;
        }
        uint32_t opened = weir__mask(seen), passed = weir__mask(quotes);
        const uint8_t *next = NULL;
        for (uint32_t m = weir__mask(stops); m; m &= m - 1) {
            const uint8_t *at = p + __builtin_ctz(m), *colon;
            uint32_t below = passed & ((m & (0 - m)) - 1);
            bool in = (__builtin_popcount(opened) + __builtin_popcount(below)) & 1;
            if (in && at > whole && at[-1] == '"' && weir__is_name(at, end, name, &colon)) {
                f->name = (weir_bytes){at, name.len};
                return weir__value(colon + 1, end, f);
            }
            if (*at == '\\') next = at + 2;
            else if (*at == '{' && !in) next = weir__object(at, end);
            else continue;
            if (!next) return false;
            seen = in ? one : none;
            break;
        }
        if (next) {
            whole = p = next;
        } else {
            seen ^= quotes;
            p += 16;
        }
    }
}

/* weir_number reads a JSON number. False: v is not one. Up to 15 significant
 * digits and exponents within +-22 it is the nearest double; beyond, it may be
 * off by a few units in the last place. All SDKs give the same bits. */
WEIR__NOINLINE bool weir_number(weir_bytes v, double *out) {
    const uint8_t *p = v.ptr, *end = p + v.len;
    bool neg = p < end && *p == '-';
    p += neg;
    uint64_t m = 0;
    int32_t exp = 0;
    const uint8_t *digits = p;
    for (uint32_t c; p < end && (c = *p - (uint32_t)'0') < 10; p++) {
        if (m < 1000000000000000000u) m = m * 10 + c;
        else exp++;
    }
    if (p == digits) return false;
    if (p < end && *p == '.') {
        digits = ++p;
        for (uint32_t c; p < end && (c = *p - (uint32_t)'0') < 10; p++) {
            if (m >= 1000000000000000000u) continue;
            m = m * 10 + c;
            exp--;
        }
        if (p == digits) return false;
    }
    if (p < end && (*p | 0x20) == 'e') {
        bool minus = ++p < end && *p == '-';
        int32_t e = 0;
        p += p < end && (*p == '-' || *p == '+');
        digits = p;
        for (; p < end && (uint8_t)(*p - '0') < 10; p++)
            if (e < 100000) e = e * 10 + (*p - '0');
        if (p == digits) return false;
        exp += minus ? -e : e;
    }
    if (p != end) return false;
    double d = (double)m;
    if (exp > 400) exp = 400;
    if (exp < -400) exp = -400;
    for (; exp > 22; exp -= 22) d *= 1e22;
    for (; exp < -22; exp += 22) d /= 1e22;
    d = exp < 0 ? d / weir__pow10[-exp] : d * weir__pow10[exp];
    *out = neg ? -d : d;
    return true;
}

/* weir_integer reads a JSON number that is a whole number within int64 and is
 * written without point and exponent. */
WEIR__INLINE bool weir_integer(weir_bytes v, int64_t *out) {
    const uint8_t *p = v.ptr, *end = p + v.len;
    bool neg = p < end && *p == '-';
    p += neg;
    if (p == end || end - p > 18) return false;
    int64_t n = 0;
    for (; p < end; p++) {
        if ((uint8_t)(*p - '0') >= 10) return false;
        n = n * 10 + (*p - '0');
    }
    *out = neg ? -n : n;
    return true;
}

/* weir_string gives what stands between the quotes of a JSON string, escapes as
 * they are. False: v is not a string. */
WEIR__INLINE bool weir_string(weir_bytes v, weir_bytes *out) {
    if (v.len < 2 || v.ptr[0] != '"') return false;
    *out = (weir_bytes){v.ptr + 1, v.len - 2};
    return true;
}

/* ---- host calls -------------------------------------------------------- */

/* What a host call answers when it does not succeed. */
enum {
    WEIR_NOT_FOUND = -1,
    WEIR_BUFFER_TOO_SMALL = -2,
    WEIR_INVALID = -3,
    WEIR_DENIED = -4, /* not granted by the manifest */
    WEIR_QUOTA = -5,  /* a limit of the manifest is reached */
    WEIR_TIMEOUT = -6,
    WEIR_UNAVAILABLE = -7,
};

#define WEIR__IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

WEIR__IMPORT("weir_log", "write") int32_t weir__log_write(int32_t level, const void *p, uint32_t n);
WEIR__IMPORT("weir_metric", "define") int32_t weir__metric_define(int32_t kind, const void *p, uint32_t n);
WEIR__IMPORT("weir_metric", "add") int32_t weir__metric_add(int32_t id, double v);
WEIR__IMPORT("weir_metric", "set") int32_t weir__metric_set(int32_t id, double v);
WEIR__IMPORT("weir_metric", "observe") int32_t weir__metric_observe(int32_t id, double v);
WEIR__IMPORT("weir_clock", "now") int64_t weir__clock_now(int32_t kind);
WEIR__IMPORT("weir_state", "get")
int32_t weir__state_get(const void *k, uint32_t kn, void *buf, uint32_t cap, uint32_t *out);
WEIR__IMPORT("weir_state", "put") int32_t weir__state_put(const void *k, uint32_t kn, const void *v, uint32_t vn);
WEIR__IMPORT("weir_state", "del") int32_t weir__state_del(const void *k, uint32_t kn);
WEIR__IMPORT("weir_state", "incr") int32_t weir__state_incr(const void *k, uint32_t kn, int64_t delta, int64_t *out);
WEIR__IMPORT("weir_state", "scan")
int32_t weir__state_scan(const void *prefix, uint32_t pn, const void *after, uint32_t an, int32_t limit, void *buf,
                         uint32_t cap, uint32_t *out);
WEIR__IMPORT("weir_emit", "chunk") int32_t weir__emit_chunk(const void *outs, uint32_t count);
WEIR__IMPORT("weir_http", "call")
int32_t weir__http_call(const void *req, uint32_t n, void *buf, uint32_t cap, uint32_t *out);
WEIR__IMPORT("weir_http", "enqueue") int32_t weir__http_enqueue(const void *req, uint32_t n);

/* weir_log writes one line to the module's log. Lines are cut at 1 KiB; above
 * the manifest's rate the host drops them. */
enum { WEIR_DEBUG, WEIR_INFO, WEIR_WARN, WEIR_ERROR };
WEIR__INLINE void weir_log(int32_t level, weir_bytes line) { weir__log_write(level, line.ptr, line.len); }

/* weir_counter, weir_gauge and weir_histogram define a metric and return its id,
 * negative when the host refuses. Define in on_configure or once, not per
 * record. Names are [a-z_][a-z0-9_]*. What is counted in a batch is added when
 * the batch succeeds. */
WEIR__INLINE int32_t weir_counter(weir_bytes name) { return weir__metric_define(0, name.ptr, name.len); }
WEIR__INLINE int32_t weir_gauge(weir_bytes name) { return weir__metric_define(1, name.ptr, name.len); }
WEIR__INLINE int32_t weir_histogram(weir_bytes name) { return weir__metric_define(2, name.ptr, name.len); }
WEIR__INLINE void weir_metric_add(int32_t id, double v) { weir__metric_add(id, v); }
WEIR__INLINE void weir_metric_set(int32_t id, double v) { weir__metric_set(id, v); }
WEIR__INLINE void weir_metric_observe(int32_t id, double v) { weir__metric_observe(id, v); }

/* weir_clock_batch_ms is the batch's frozen time, ms since 1970. The other two
 * are the batch's time as well unless the manifest grants `clock: real`; without
 * it a replay gives the same answer. */
WEIR__INLINE int64_t weir_clock_batch_ms(void) { return weir__clock_now(0); }
WEIR__INLINE int64_t weir_clock_wall_ms(void) { return weir__clock_now(1); }
WEIR__INLINE int64_t weir_clock_monotonic_ns(void) { return weir__clock_now(2); }

/* weir_state_get copies the value of key into buf. 0: *len is its length;
 * WEIR_NOT_FOUND; WEIR_BUFFER_TOO_SMALL: *len is the size needed. State is for
 * consumers, private to the module and the shard, and commits with the batch. */
WEIR__INLINE int32_t weir_state_get(weir_bytes key, void *buf, uint32_t cap, uint32_t *len) {
    return weir__state_get(key.ptr, key.len, buf, cap, len);
}

/* weir_state_put stores value under key (1 to 1,024 bytes). */
WEIR__INLINE int32_t weir_state_put(weir_bytes key, weir_bytes value) {
    return weir__state_put(key.ptr, key.len, value.ptr, value.len);
}

/* weir_state_del removes key; 0 also when there was none. */
WEIR__INLINE int32_t weir_state_del(weir_bytes key) { return weir__state_del(key.ptr, key.len); }

/* weir_state_incr adds delta to the counter under key, 0 when absent, and gives
 * the sum in *sum. */
WEIR__INLINE int32_t weir_state_incr(weir_bytes key, int64_t delta, int64_t *sum) {
    return weir__state_incr(key.ptr, key.len, delta, sum);
}

/* weir_scan walks the keys that begin with a prefix, in order, a buffer full at
 * a time. The module may put and delete while it walks. */
typedef struct {
    weir_bytes prefix;
    uint8_t *buf;
    uint32_t cap, pos, used, after_len;
    int32_t left;  /* entries not yet given of the buffer */
    int32_t error; /* why weir_scan_next gave up; 0 at the end of the keys */
    uint8_t after[1024];
} weir_scan;

/* weir_scan_begin starts a walk that uses buf, of cap bytes. */
WEIR__INLINE void weir_scan_begin(weir_scan *s, weir_bytes prefix, void *buf, uint32_t cap) {
    s->prefix = prefix;
    s->buf = (uint8_t *)buf;
    s->cap = cap;
    s->pos = s->used = s->after_len = 0;
    s->left = s->error = 0;
}

/* weir_scan_next gives the next entry; key and value lie in the buffer and are
 * valid until the next call. */
WEIR__NOINLINE bool weir_scan_next(weir_scan *s, weir_bytes *key, weir_bytes *value) {
    if (s->left == 0) {
        s->left = weir__state_scan(s->prefix.ptr, s->prefix.len, s->after, s->after_len, 1000, s->buf, s->cap, &s->used);
        s->pos = 0;
        if (s->left <= 0) {
            s->error = s->left;
            s->left = 0;
            return false;
        }
    }
    uint8_t *p = s->buf + s->pos;
    *key = (weir_bytes){p + 8, weir_load_u32(p)};
    *value = (weir_bytes){p + 8 + key->len, weir_load_u32(p + 4)};
    s->pos += 8 + key->len + value->len;
    s->left--;
    s->after_len = key->len;
    weir_copy(s->after, key->ptr, key->len);
    return true;
}

/* weir_http_call sends a request and waits: transforms only, hosts of the
 * manifest only. The request is text, "POST https://host/path\nname: value\n\n"
 * and the body; make it with a weir_writer. The answer is the HTTP status or a
 * negative code; *len is the response's length in buf, in the same form. */
WEIR__INLINE int32_t weir_http_call(weir_bytes request, void *buf, uint32_t cap, uint32_t *len) {
    return weir__http_call(request.ptr, request.len, buf, cap, len);
}

/* weir_http_body gives what follows the headers of a response. */
WEIR__NOINLINE weir_bytes weir_http_body(weir_bytes response) {
    const uint8_t *end = response.ptr + response.len;
    for (const uint8_t *p = response.ptr; end - p >= 2; p++)
        if (p[0] == '\n' && p[1] == '\n') return (weir_bytes){p + 2, (uint32_t)(end - p - 2)};
    return (weir_bytes){end, 0};
}

/* weir_http_enqueue puts a request into the outbox: consumers only. It is sent
 * after the batch is committed, at least once. */
WEIR__INLINE int32_t weir_http_enqueue(weir_bytes request) {
    return weir__http_enqueue(request.ptr, request.len);
}

/* ---- records ----------------------------------------------------------- */

/* weir_batch is what is known about the records handed over together. */
typedef struct {
    uint32_t magic;
    uint16_t version, flags; /* WEIR_REPLAY, WEIR_SHADOW, WEIR_LAST */
    uint32_t header_len, record_count, total_len, shard;
    uint64_t base_index; /* index in the shard of the first record */
    int64_t time_ms;     /* ms since 1970, frozen for the batch */
    uint64_t id;
    uint32_t attempt; /* 0 the first time */
    uint32_t cpu_budget_ms;
    uint64_t seed; /* the same on every attempt */
} weir_batch;

enum { WEIR_REPLAY = 1, WEIR_SHADOW = 2, WEIR_LAST = 4 };

typedef struct {
    uint32_t offset, key_len, data_len, reserved;
    int64_t timestamp_ms;
    uint32_t index_delta, input;
} weir__entry;

typedef struct {
    uint32_t source;
    uint16_t output, headers;
    const uint8_t *key;
    uint32_t key_len;
    const uint8_t *data;
    uint32_t data_len;
    uint32_t own, unused; /* own: made by replace or forward. The host doesn't read these two */
    const uint8_t *parts;
    uint32_t parts_len;
    int64_t timestamp_ms;
} weir__output;

typedef struct {
    uint8_t status, flags;
    uint16_t count;
    uint32_t aux;
} weir__outcome;

_Static_assert(sizeof(weir_batch) == 64 && sizeof(weir__entry) == 32 && sizeof(weir__output) == 48 &&
                   sizeof(weir__outcome) == 8,
               "weir/1 layouts");

enum { WEIR__UNCHANGED, WEIR__REPLACED, WEIR__DROPPED, WEIR__FAILED, WEIR__RETRY };

#define WEIR__INHERIT ((const uint8_t *)0xffffffffu)

/* weir_record is one record, valid while its handler runs. */
typedef struct {
    weir_bytes data; /* the record's data, 0 or more bytes */
    weir_bytes key;  /* its partition key; empty when has_key is false */
    bool has_key;
    uint32_t number; /* in the batch, from 0 */

    /* Not for modules. */
    const weir__entry *entry;
    uint32_t first, verdict, code;
    weir_bytes reason, out_key, out_parts;
} weir_record;

static struct {
    const weir_batch *batch;
    uint8_t *region;
    uint32_t region_cap;
    weir__outcome *outcomes;
    uint32_t outcomes_cap;
    weir__output *outs;
    uint32_t outs_n, outs_cap;
    uint32_t result[6];
} weir__m;

/* weir_batch_info describes the batch in hand; NULL outside of one. */
WEIR__INLINE const weir_batch *weir_batch_info(void) { return weir__m.batch; }

/* weir_timestamp_ms is the record's arrival, ms since 1970. */
WEIR__INLINE int64_t weir_timestamp_ms(const weir_record *r) { return r->entry->timestamp_ms; }

/* weir_index is the record's index in its shard. */
WEIR__INLINE uint64_t weir_index(const weir_record *r) { return weir__m.batch->base_index + r->entry->index_delta; }

/* weir_input is the stream it came from, an index into the manifest's inputs. */
WEIR__INLINE uint32_t weir_input(const weir_record *r) { return r->entry->input; }

WEIR__NOINLINE void weir__grow_outs(void) {
    uint32_t cap = weir__m.outs_cap ? weir__m.outs_cap * 2 : 512;
    weir__output *outs = (weir__output *)weir__alloc(cap * sizeof(weir__output));
    if (!outs) __builtin_trap();
    weir_copy(outs, weir__m.outs, weir__m.outs_n * sizeof(weir__output));
    weir__m.outs = outs;
    weir__m.outs_cap = cap;
}

WEIR__INLINE void weir__fill(weir__output *o, const weir_record *r, uint32_t output, const uint8_t *key, uint32_t key_len,
                             const uint8_t *data, uint32_t data_len, uint32_t own) {
    *o = (weir__output){r ? r->number : 0xffffffffu, (uint16_t)output, 0, key, key_len, data, data_len, own, 0,
                        WEIR__INHERIT, 0, 0};
    if (!r) o->parts = NULL, o->parts_len = 0;
}

WEIR__INLINE void weir__add(const weir_record *r, uint32_t output, const uint8_t *key, uint32_t key_len,
                            const uint8_t *data, uint32_t data_len, uint32_t own) {
    if (__builtin_expect(weir__m.outs_n == weir__m.outs_cap, 0)) weir__grow_outs();
    weir__fill(&weir__m.outs[weir__m.outs_n++], r, output, key, key_len, data, data_len, own);
}

/* weir_replace passes `data` on in place of the record, to output 0. */
WEIR__INLINE void weir_replace(weir_record *r, weir_bytes data) {
    weir__add(r, 0, WEIR__INHERIT, 0, data.ptr, data.len, 1);
}

/* weir_replace_to is weir_replace to another output of the manifest. */
WEIR__INLINE void weir_replace_to(weir_record *r, uint32_t output, weir_bytes data) {
    weir__add(r, output, WEIR__INHERIT, 0, data.ptr, data.len, 1);
}

/* weir_forward passes the record's own data on to an output. */
WEIR__INLINE void weir_forward(weir_record *r, uint32_t output) {
    weir__add(r, output, WEIR__INHERIT, 0, WEIR__INHERIT, 0, 1);
}

/* weir_emit adds a record to an output. key.ptr NULL takes the record's own
 * key. r NULL, in on_tick: a record that stems from none. */
WEIR__INLINE void weir_emit(weir_record *r, uint32_t output, weir_bytes key, weir_bytes data) {
    const uint8_t *k = key.ptr;
    uint32_t n = key.len;
    if (!k) k = r ? WEIR__INHERIT : NULL, n = r ? 0 : 0xffffffffu;
    weir__add(r, output, k, n, data.ptr, data.len, 0);
}

/* weir_emit_now is weir_emit that hands the record to the host at once, so that
 * key and data may be overwritten afterwards: for more output than fits into
 * memory. It takes effect with the batch. Consumers with the emit capability. */
WEIR__INLINE int32_t weir_emit_now(weir_record *r, uint32_t output, weir_bytes key, weir_bytes data) {
    weir__output o;
    const uint8_t *k = key.ptr;
    uint32_t n = key.len;
    if (!k) k = r ? WEIR__INHERIT : NULL, n = r ? 0 : 0xffffffffu;
    weir__fill(&o, r, output, k, n, data.ptr, data.len, 0);
    return weir__emit_chunk(&o, 1);
}

/* weir_set_key chooses the partition key of the records that replace and forward
 * pass on; alone, it passes the record on under that key. */
WEIR__INLINE void weir_set_key(weir_record *r, weir_bytes key) { r->out_key = key; }

/* weir_partition_key sets the keys for a delivery stream's dynamic
 * partitioning: "name=value" lines, or one value. Copies nothing of the data. */
WEIR__INLINE void weir_partition_key(weir_record *r, weir_bytes keys) { r->out_parts = keys; }

/* weir_drop leaves the record out; not a failure. What it emitted stays. */
WEIR__INLINE void weir_drop(weir_record *r) { r->verdict = WEIR__DROPPED; }

/* weir_fail says that the record can't be processed, with a code of the module's
 * own and a reason for people (at most 1,024 bytes are kept). What it emitted is
 * taken back. */
WEIR__INLINE void weir_fail(weir_record *r, uint32_t code, weir_bytes reason) {
    r->verdict = WEIR__FAILED;
    r->code = code;
    r->reason = reason;
}

/* weir_retry asks for the record again after a pause. What it emitted is taken
 * back. */
WEIR__INLINE void weir_retry(weir_record *r) { r->verdict = WEIR__RETRY; }

/* ---- module ------------------------------------------------------------ */

__attribute__((export_name("weir_abi_1"))) void weir_abi_1(void) {}

__attribute__((export_name("weir_buffer"))) void *weir_buffer(uint32_t min) {
    if (min > weir__m.region_cap) {
        uint32_t cap = 64 << 10;
        while (cap < min && cap < 0x40000000u) cap *= 2;
        uint8_t *p = (uint8_t *)weir__alloc(cap);
        if (!p) {
            cap = min;
            p = (uint8_t *)weir__alloc(cap);
        }
        if (!p) return NULL;
        weir__m.region = p;
        weir__m.region_cap = cap;
    }
    return weir__m.region;
}

/* weir_keep copies b for good, for what on_configure reads: the configuration
 * itself is gone when it returns. */
WEIR__NOINLINE weir_bytes weir_keep(weir_bytes b) {
    uint8_t *p = (uint8_t *)weir__alloc(b.len);
    if (!p) __builtin_trap();
    weir_copy(p, b.ptr, b.len);
    return (weir_bytes){p, b.len};
}

WEIR__INLINE void weir__batch_begin(void) {
    weir__m.outs_n = 0;
    weir__text.cur = weir__text.first;
    if (weir__text.first) {
        weir__text.top = weir__text.first->bytes;
        weir__text.end = weir__text.top + weir__text.first->cap;
    }
}

WEIR__INLINE int64_t weir__batch_end(bool all_unchanged, weir__outcome *outcomes) {
    weir__m.batch = NULL;
    weir__m.result[0] = 0x31525257;
    weir__m.result[1] = 1 | (all_unchanged ? 1u << 16 : 0);
    weir__m.result[2] = (uint32_t)outcomes;
    weir__m.result[3] = (uint32_t)weir__m.outs;
    weir__m.result[4] = weir__m.outs_n;
    weir__m.result[5] = 0;
    return (int64_t)(uint32_t)&weir__m.result;
}

/* weir__settle turns what the handler said into an outcome, for every case but
 * "nothing said". */
WEIR__NOINLINE weir__outcome weir__settle(weir_record *r) {
    if (r->verdict == WEIR__FAILED) {
        weir__m.outs_n = r->first;
        if (!r->reason.len) return (weir__outcome){WEIR__FAILED, 0, 0, r->code};
        weir__add(r, 0, WEIR__INHERIT, 0, r->reason.ptr, r->reason.len, 0);
        weir__m.outs[r->first].timestamp_ms = r->code;
        return (weir__outcome){WEIR__FAILED, 1, 1, r->first};
    }
    if (r->verdict == WEIR__RETRY) {
        weir__m.outs_n = r->first;
        return (weir__outcome){WEIR__RETRY, 0, 0, 0};
    }
    bool keyed = r->out_key.ptr || r->out_parts.ptr;
    if (weir__m.outs_n == r->first) {
        if (r->verdict == WEIR__DROPPED) return (weir__outcome){WEIR__DROPPED, 0, 0, 0};
        if (keyed) weir_forward(r, 0);
    }
    uint32_t count = weir__m.outs_n - r->first;
    if (keyed) {
        for (weir__output *o = weir__m.outs + r->first, *end = o + count; o < end; o++) {
            if (!o->own) continue;
            if (r->out_key.ptr) o->key = r->out_key.ptr, o->key_len = r->out_key.len;
            if (r->out_parts.ptr) o->parts = r->out_parts.ptr, o->parts_len = r->out_parts.len;
        }
    }
    if (count > 0xffff) __builtin_trap();
    return (weir__outcome){WEIR__REPLACED, 0, (uint16_t)count, r->first};
}

WEIR__INLINE int64_t weir__process(uint8_t *region, void (*on_record)(weir_record *)) {
    const weir_batch *batch = (const weir_batch *)region;
    uint32_t n = batch->record_count;
    if (n > weir__m.outcomes_cap) {
        uint32_t cap = weir__m.outcomes_cap ? weir__m.outcomes_cap : 512;
        while (cap < n) cap *= 2;
        weir__m.outcomes = (weir__outcome *)weir__alloc(cap * sizeof(weir__outcome));
        if (!weir__m.outcomes) return -1;
        weir__m.outcomes_cap = cap;
    }
    weir__batch_begin();
    weir__m.batch = batch;
    const weir__entry *e = (const weir__entry *)(region + batch->header_len);
    weir__outcome *o = weir__m.outcomes;
    bool all_unchanged = true;
    for (uint32_t i = 0; i < n; i++, e++, o++) {
        weir_record r;
        const uint8_t *key = region + e->offset;
        r.has_key = e->key_len != 0xffffffffu;
        r.key = (weir_bytes){key, r.has_key ? e->key_len : 0};
        r.data = (weir_bytes){key + r.key.len, e->data_len};
        r.number = i;
        r.entry = e;
        r.first = weir__m.outs_n;
        r.verdict = r.code = 0;
        r.reason = r.out_key = r.out_parts = (weir_bytes){NULL, 0};
        on_record(&r);
        if (r.verdict == 0 && weir__m.outs_n == r.first && !r.out_key.ptr && !r.out_parts.ptr) {
            *o = (weir__outcome){0, 0, 0, 0};
            continue;
        }
        *o = weir__settle(&r);
        all_unchanged = false;
    }
    return weir__batch_end(all_unchanged, weir__m.outcomes);
}

/* WEIR_ON_RECORD makes `handler`, a static void (weir_record *), the module's
 * record handler. Every module has one. */
#define WEIR_ON_RECORD(handler)                                                                   \
    __attribute__((export_name("weir_process"))) int64_t weir_process(uint8_t *region, uint32_t len) { \
        (void)len;                                                                                \
        return weir__process(region, handler);                                                    \
    }

/* WEIR_ON_CONFIGURE makes `handler`, a static bool (weir_bytes json), read the
 * manifest's config before the first batch. false refuses it. */
#define WEIR_ON_CONFIGURE(handler)                                                                \
    __attribute__((export_name("weir_configure"))) int32_t weir_configure(uint8_t *p, uint32_t len) { \
        return handler((weir_bytes){p, len}) ? 0 : WEIR_INVALID;                                  \
    }

/* WEIR_ON_TICK makes `handler`, a static void (int64_t now_ms), the consumer's
 * timer; the manifest says how often. It emits with weir_emit(NULL, ...). */
#define WEIR_ON_TICK(handler)                                                  \
    __attribute__((export_name("weir_tick"))) int64_t weir_tick(int64_t now_ms) { \
        weir__batch_begin();                                                   \
        handler(now_ms);                                                       \
        return weir__batch_end(false, NULL);                                   \
    }

/* WEIR_ON_MIGRATE makes `handler`, a static bool (uint32_t from), bring state
 * that an older state_version wrote up to this module's. false: it can't. */
#define WEIR_ON_MIGRATE(handler)                                                     \
    __attribute__((export_name("weir_migrate"))) int32_t weir_migrate(uint32_t from) { \
        return handler(from) ? 0 : WEIR_INVALID;                                     \
    }

#endif
