/* anomaly: emit an alert for a reading that is far from the device's last ones.
 *
 * A consumer: the state holds the last `window` values of each device. A value
 * whose distance from their mean is more than z standard deviations is an alert;
 * it enters the window all the same, so that a new level becomes normal.
 *
 * in:     {"device":"pump-1","value":12.5}
 * out:    {"device":"pump-1","value":99,"mean":12.4,"z":8.21}
 * config: {"z": 4, "window": 32, "warmup": 8} */
#include "weir.h"

enum { MAX_WINDOW = 128 };

static double z_limit = 4;
static int64_t window = 32, warmup = 8;

/* What the state holds under a device's name: the first 8 + 8 * window bytes. */
typedef struct {
    uint32_t count; /* values there are, at most window */
    uint32_t next;  /* where the next one goes */
    double values[MAX_WINDOW];
} history;

static bool on_configure(weir_bytes json) {
    weir_field f;
    if (weir_json_find(json, WEIR_STR("z"), &f) && !weir_number(f.value, &z_limit)) return false;
    if (weir_json_find(json, WEIR_STR("window"), &f) && !weir_integer(f.value, &window)) return false;
    if (weir_json_find(json, WEIR_STR("warmup"), &f) && !weir_integer(f.value, &warmup)) return false;
    return z_limit > 0 && window >= 2 && window <= MAX_WINDOW && warmup >= 2 && warmup <= window;
}

static void alert(weir_record *r, weir_bytes device, double v, double mean, double z) {
    weir_writer t = weir_write_begin();
    weir_write_str(&t, "{\"device\":\"");
    weir_write_bytes(&t, device);
    weir_write_str(&t, "\",\"value\":");
    weir_write_fixed(&t, v, 3);
    weir_write_str(&t, ",\"mean\":");
    weir_write_fixed(&t, mean, 3);
    weir_write_str(&t, ",\"z\":");
    weir_write_fixed(&t, z, 2);
    weir_write_str(&t, "}");
    weir_emit(r, 0, device, weir_write_end(&t));
}

static void on_record(weir_record *r) {
    static history h;
    weir_field f;
    weir_bytes device;
    double v;
    if (!weir_json_find(r->data, WEIR_STR("device"), &f) || !weir_string(f.value, &device) || !device.len ||
        !weir_json_find(r->data, WEIR_STR("value"), &f) || !weir_number(f.value, &v)) {
        weir_fail(r, 1, WEIR_STR("expecting device and value"));
        return;
    }
    uint32_t size = 8 + 8 * (uint32_t)window, len;
    if (weir_state_get(device, &h, size, &len) != 0 || len != size) h = (history){0};
    if (h.count >= (uint32_t)warmup) {
        double sum = 0, squares = 0;
        for (uint32_t i = 0; i < h.count; i++) sum += h.values[i];
        double mean = sum / h.count;
        for (uint32_t i = 0; i < h.count; i++) squares += (h.values[i] - mean) * (h.values[i] - mean);
        double deviation = __builtin_sqrt(squares / h.count), distance = v < mean ? mean - v : v - mean;
        if (distance > z_limit * deviation && distance > 1e-9) alert(r, device, v, mean, deviation > 0 ? distance / deviation : 1e6);
    }
    h.values[h.next] = v;
    h.next = (h.next + 1) % (uint32_t)window;
    if (h.count < (uint32_t)window) h.count++;
    if (weir_state_put(device, (weir_bytes){(const uint8_t *)&h, size}) < 0)
        weir_fail(r, 2, WEIR_STR("the state is full"));
}

WEIR_ON_CONFIGURE(on_configure)
WEIR_ON_RECORD(on_record)
