/* demo: drop idle readings and mark high ones. A reading whose value is below
 * min is dropped; the others get a member "state", "high" from the limit on and
 * "ok" below it:
 *
 *   {"sensor":"cpu0","seq":7,...,"value":91.5}
 *   {"sensor":"cpu0","seq":7,...,"value":91.5,"state":"high"}
 *
 * config: {"min": 0.5, "high": 80} */
#include "weir.h"

static double min = 0.5, high = 80;

static bool on_configure(weir_bytes json) {
    weir_field f;
    if (weir_json_find(json, WEIR_STR("min"), &f) && !weir_number(f.value, &min)) return false;
    if (weir_json_find(json, WEIR_STR("high"), &f) && !weir_number(f.value, &high)) return false;
    return true;
}

static void on_record(weir_record *r) {
    weir_field f;
    double v;
    if (!weir_json_find(r->data, WEIR_STR("value"), &f) || !weir_number(f.value, &v)) {
        weir_fail(r, 1, WEIR_STR("no value"));
        return;
    }
    if (v < min) {
        weir_drop(r);
        return;
    }
    weir_writer w = weir_write_begin();
    weir_write_bytes(&w, weir_between(r->data.ptr, r->data.ptr + r->data.len - 1)); /* without the last brace */
    weir_write_bytes(&w, v >= high ? WEIR_STR(",\"state\":\"high\"}") : WEIR_STR(",\"state\":\"ok\"}"));
    weir_replace(r, weir_write_end(&w));
}

WEIR_ON_CONFIGURE(on_configure)
WEIR_ON_RECORD(on_record)
