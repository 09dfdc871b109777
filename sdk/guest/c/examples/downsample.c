/* downsample: from readings a second apart to one record a minute and device,
 * with count, mean, min and max.
 *
 * A consumer: the open window of each device is kept in the state, and commits
 * together with the records it came from and the ones it emits. A window is
 * emitted when a reading of a later one arrives, or by the tick when its time and
 * the grace are over. Readings of a window that was emitted are counted as late.
 *
 * in:     {"device":"pump-1","ts":1700000000123,"value":12.5}    ts in ms
 * out:    {"device":"pump-1","window":1699999980000,"count":60,"mean":12.41,"min":11.9,"max":13.2}
 * config: {"window_ms": 60000, "grace_ms": 5000} */
#include "weir.h"

static int64_t window_ms = 60000, grace_ms = 5000;
static int32_t late;

/* What the state holds under a device's name. */
typedef struct {
    int64_t start; /* of the window, ms */
    uint64_t count;
    double sum, min, max;
} window;

static bool on_configure(weir_bytes json) {
    weir_field f;
    if (weir_json_find(json, WEIR_STR("window_ms"), &f) && !weir_integer(f.value, &window_ms)) return false;
    if (weir_json_find(json, WEIR_STR("grace_ms"), &f) && !weir_integer(f.value, &grace_ms)) return false;
    return window_ms > 0 && grace_ms >= 0;
}

static void emit(weir_record *r, weir_bytes device, const window *w) {
    weir_writer t = weir_write_begin();
    weir_write_str(&t, "{\"device\":\"");
    weir_write_bytes(&t, device);
    weir_write_str(&t, "\",\"window\":");
    weir_write_int(&t, w->start);
    weir_write_str(&t, ",\"count\":");
    weir_write_int(&t, (int64_t)w->count);
    weir_write_str(&t, ",\"mean\":");
    weir_write_fixed(&t, w->sum / (double)w->count, 3);
    weir_write_str(&t, ",\"min\":");
    weir_write_fixed(&t, w->min, 3);
    weir_write_str(&t, ",\"max\":");
    weir_write_fixed(&t, w->max, 3);
    weir_write_str(&t, "}");
    weir_bytes data = weir_write_end(&t);
    /* the key lies in the data: what is handed over has to outlive this call */
    weir_emit(r, 0, (weir_bytes){data.ptr + 11, device.len}, data);
}

static void on_record(weir_record *r) {
    weir_field f;
    weir_bytes device;
    int64_t ts;
    double v;
    if (!weir_json_find(r->data, WEIR_STR("device"), &f) || !weir_string(f.value, &device) || !device.len ||
        !weir_json_find(r->data, WEIR_STR("ts"), &f) || !weir_integer(f.value, &ts) || ts < 0 ||
        !weir_json_find(r->data, WEIR_STR("value"), &f) || !weir_number(f.value, &v)) {
        weir_fail(r, 1, WEIR_STR("expecting device, ts and value"));
        return;
    }
    window w;
    uint32_t len;
    int64_t start = ts - ts % window_ms;
    bool open = weir_state_get(device, &w, sizeof w, &len) == 0 && len == sizeof w;
    if (open && start < w.start) {
        if (late == 0) late = weir_counter(WEIR_STR("late")) + 1;
        weir_metric_add(late - 1, 1);
        weir_drop(r);
        return;
    }
    if (open && start > w.start) {
        emit(r, device, &w);
        open = false;
    }
    if (!open) w = (window){start, 0, 0, v, v};
    w.count++;
    w.sum += v;
    if (v < w.min) w.min = v;
    if (v > w.max) w.max = v;
    if (weir_state_put(device, (weir_bytes){(const uint8_t *)&w, sizeof w}) < 0)
        weir_fail(r, 2, WEIR_STR("the state is full"));
}

static void on_tick(int64_t now_ms) {
    static uint8_t page[16384];
    weir_scan s;
    weir_bytes device, value;
    window w;
    weir_scan_begin(&s, (weir_bytes){NULL, 0}, page, sizeof page);
    while (weir_scan_next(&s, &device, &value)) {
        if (value.len != sizeof w) continue;
        weir_copy(&w, value.ptr, sizeof w);
        if (w.start + window_ms + grace_ms > now_ms) continue;
        emit(NULL, device, &w);
        weir_state_del(device);
    }
}

WEIR_ON_CONFIGURE(on_configure)
WEIR_ON_TICK(on_tick)
WEIR_ON_RECORD(on_record)
