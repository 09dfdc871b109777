/* router: choose each record's partition key, dynamic partition and output by
 * what it says. The data is passed on as it is; nothing is copied.
 *
 * A record goes to output 1 when its `match` field is `equals`, to output 0
 * otherwise, under the partition key that is the value of its `key` field.
 *
 * config: {"key": "site", "match": "severity", "equals": "alarm"} */
#include "weir.h"

static weir_bytes key = WEIR_STR("site"), match = WEIR_STR("severity"), equals = WEIR_STR("alarm");

static bool on_configure(weir_bytes json) {
    weir_field f;
    if (weir_json_find(json, WEIR_STR("key"), &f) && !weir_string(f.value, &key)) return false;
    if (weir_json_find(json, WEIR_STR("match"), &f) && !weir_string(f.value, &match)) return false;
    if (weir_json_find(json, WEIR_STR("equals"), &f) && !weir_string(f.value, &equals)) return false;
    key = weir_keep(key);
    match = weir_keep(match);
    equals = weir_keep(equals);
    return true;
}

static void on_record(weir_record *r) {
    weir_field f;
    weir_bytes site, severity;
    if (!weir_json_find(r->data, key, &f) || !weir_string(f.value, &site) || !site.len) {
        weir_fail(r, 1, WEIR_STR("the field to route by is missing or not a string"));
        return;
    }
    bool alarm = weir_json_find(r->data, match, &f) && weir_string(f.value, &severity) && weir_equal(severity, equals);
    weir_set_key(r, site);
    weir_partition_key(r, site);
    weir_forward(r, alarm ? 1 : 0);
}

WEIR_ON_CONFIGURE(on_configure)
WEIR_ON_RECORD(on_record)
