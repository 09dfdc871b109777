/* The C SDK's rename example behind Extism's contract: the same scanner and the
 * same digits, a record a call (rename) or lines (rename_lines). */
#include "weir.h"

#define EXTISM(name) __attribute__((import_module("extism:host/env"), import_name(#name)))
EXTISM(input_length) uint64_t input_length(void);
EXTISM(input_load_u64) uint64_t input_load_u64(uint64_t at);
EXTISM(input_load_u8) uint32_t input_load_u8(uint64_t at);
EXTISM(alloc) uint64_t extism_alloc(uint64_t n);
EXTISM(store_u64) void store_u64(uint64_t at, uint64_t v);
EXTISM(store_u8) void store_u8(uint64_t at, uint32_t v);
EXTISM(output_set) void output_set(uint64_t at, uint64_t n);

static uint8_t in[1 << 18] __attribute__((aligned(8))), out[1 << 18] __attribute__((aligned(8)));

static uint32_t load(void) {
    uint32_t n = (uint32_t)input_length(), i = 0;
    if (n > sizeof in) __builtin_trap();
    for (; i + 8 <= n; i += 8) *(uint64_t *)(in + i) = input_load_u64(i);
    for (; i < n; i++) in[i] = (uint8_t)input_load_u8(i);
    return n;
}

static void store(uint32_t n) {
    uint64_t at = extism_alloc(n);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) store_u64(at + i, *(uint64_t *)(out + i));
    for (; i < n; i++) store_u8(at + i, out[i]);
    output_set(at, n);
}

static uint8_t *append(uint8_t *p, const uint8_t *from, const uint8_t *to) {
    weir_copy(p, from, (uint32_t)(to - from));
    return p + (to - from);
}

static uint8_t *convert(uint8_t *p, weir_bytes record) {
    weir_field f;
    double v;
    if (!weir_json_find(record, WEIR_STR("temp"), &f) || !weir_number(f.value, &v)) __builtin_trap();
    p = append(p, record.ptr, f.name.ptr);
    p = append(p, (const uint8_t *)"temp_f", (const uint8_t *)"temp_f" + 6);
    p = append(p, f.name.ptr + f.name.len, f.value.ptr);
    p = weir__fixed(p, (v + 17.77777777777778) * 1.8, 2);
    return append(p, f.value.ptr + f.value.len, record.ptr + record.len);
}

__attribute__((export_name("rename"))) int32_t rename_one(void) {
    uint32_t n = load();
    store((uint32_t)(convert(out, (weir_bytes){in, n}) - out));
    return 0;
}

__attribute__((export_name("rename_lines"))) int32_t rename_lines(void) {
    uint32_t n = load(), from = 0;
    uint8_t *p = out;
    for (uint32_t i = 0; i < n; i++) {
        if (in[i] != '\n') continue;
        p = convert(p, (weir_bytes){in + from, i - from});
        *p++ = '\n';
        from = i + 1;
    }
    store((uint32_t)(p - out));
    return 0;
}
