/* filter: pass on the records whose field is at least min, drop the others.
 *
 * config: {"field": "temp", "min": 25} */
#include "weir.h"

static weir_bytes field = WEIR_STR("temp");
static double min = 25;

static bool on_configure(weir_bytes json) {
    weir_field f;
    if (weir_json_find(json, WEIR_STR("field"), &f) && !weir_string(f.value, &field)) return false;
    if (weir_json_find(json, WEIR_STR("min"), &f) && !weir_number(f.value, &min)) return false;
    field = weir_keep(field);
    return true;
}

static void on_record(weir_record *r) {
    weir_field f;
    double v;
    if (!weir_json_find(r->data, field, &f) || !weir_number(f.value, &v))
        weir_fail(r, 1, WEIR_STR("the field is missing or not a number"));
    else if (v < min)
        weir_drop(r);
}

WEIR_ON_CONFIGURE(on_configure)
WEIR_ON_RECORD(on_record)
