/* rename: convert a field's unit and rename it, keep the rest of the record as
 * it is: {"temp_f":77.9,...} becomes {"temp_c":25.5,...}.
 *
 * config: {"from": "temp_f", "to": "temp_c", "offset": -32, "factor": 0.5555555555555556, "decimals": 2}
 * new value = (value + offset) * factor */
#include "weir.h"

static weir_bytes from = WEIR_STR("temp_f"), to = WEIR_STR("temp_c");
static double offset = -32, factor = 5.0 / 9.0;
static int64_t decimals = 2;

static bool on_configure(weir_bytes json) {
    weir_field f;
    if (weir_json_find(json, WEIR_STR("from"), &f) && !weir_string(f.value, &from)) return false;
    if (weir_json_find(json, WEIR_STR("to"), &f) && !weir_string(f.value, &to)) return false;
    if (weir_json_find(json, WEIR_STR("offset"), &f) && !weir_number(f.value, &offset)) return false;
    if (weir_json_find(json, WEIR_STR("factor"), &f) && !weir_number(f.value, &factor)) return false;
    if (weir_json_find(json, WEIR_STR("decimals"), &f) && !weir_integer(f.value, &decimals)) return false;
    from = weir_keep(from);
    to = weir_keep(to);
    return true;
}

static void on_record(weir_record *r) {
    weir_field f;
    double v;
    if (!weir_json_find(r->data, from, &f)) return; /* nothing to convert: pass it on */
    if (!weir_number(f.value, &v)) {
        weir_fail(r, 1, WEIR_STR("the field is not a number"));
        return;
    }
    weir_writer w = weir_write_begin();
    weir_write_bytes(&w, weir_between(r->data.ptr, f.name.ptr));
    weir_write_bytes(&w, to);
    weir_write_bytes(&w, weir_between(f.name.ptr + f.name.len, f.value.ptr));
    weir_write_fixed(&w, (v + offset) * factor, (uint32_t)decimals);
    weir_write_bytes(&w, weir_between(f.value.ptr + f.value.len, r->data.ptr + r->data.len));
    weir_replace(r, weir_write_end(&w));
}

WEIR_ON_CONFIGURE(on_configure)
WEIR_ON_RECORD(on_record)
