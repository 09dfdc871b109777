/* probe: does what a record's "do" says and answers with what it got. The tests
 * run it to see every call of the SDK at work; it is no example. */
#include "weir.h"

static int32_t counter, gauge, histogram;
static uint8_t page[2048];

static bool on_configure(weir_bytes json) {
    counter = weir_counter(WEIR_STR("probe_total"));
    gauge = weir_gauge(WEIR_STR("probe_level"));
    histogram = weir_histogram(WEIR_STR("probe_size"));
    weir_field f;
    return !weir_json_find(json, WEIR_STR("refuse"), &f);
}

static bool on_migrate(uint32_t from) { return from == 1; }

static void on_tick(int64_t now_ms) {
    weir_writer w = weir_write_begin();
    weir_write_int(&w, now_ms);
    weir_emit(NULL, 1, (weir_bytes){NULL, 0}, weir_write_end(&w));
}

static void about(weir_writer *w, weir_record *r) {
    const weir_batch *b = weir_batch_info();
    int64_t numbers[] = {r->has_key, weir_timestamp_ms(r), (int64_t)weir_index(r), weir_input(r), r->number, b->shard,
                         (int64_t)b->base_index, b->time_ms, (int64_t)b->id, b->attempt, b->flags, b->cpu_budget_ms,
                         (int64_t)b->seed, b->record_count, weir_clock_batch_ms(), weir_clock_wall_ms(),
                         weir_clock_monotonic_ns()};
    weir_write_quoted(w, r->key);
    for (uint32_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        weir_write_str(w, " ");
        weir_write_int(w, numbers[i]);
    }
}

static void state(weir_writer *w) {
    weir_bytes k = WEIR_STR("k"), value = WEIR_STR("value");
    uint32_t len = 0;
    int64_t sum = 0;
    weir_write_int(w, weir_state_get(k, page, sizeof page, &len));
    weir_write_int(w, weir_state_put(k, value));
    weir_write_int(w, weir_state_get(k, page, 2, &len));
    weir_write_int(w, len);
    weir_write_int(w, weir_state_get(k, page, sizeof page, &len));
    weir_write_bytes(w, (weir_bytes){page, len});
    weir_write_int(w, weir_state_incr(k, 1, &sum));
    weir_write_int(w, weir_state_del(k));
    weir_write_int(w, weir_state_incr(WEIR_STR("n"), 5, &sum));
    weir_write_int(w, weir_state_incr(WEIR_STR("n"), -12, &sum));
    weir_write_int(w, sum);
}

static void scan(weir_writer *w) {
    uint8_t key[] = "p/00";
    for (int i = 0; i < 100; i++) {
        key[2] = (uint8_t)('0' + i / 10);
        key[3] = (uint8_t)('0' + i % 10);
        weir_state_put((weir_bytes){key, 4}, (weir_bytes){page, (uint32_t)i});
    }
    weir_scan s;
    weir_bytes k, v;
    int64_t entries = 0, bytes = 0;
    weir_scan_begin(&s, WEIR_STR("p/"), page, 256);
    while (weir_scan_next(&s, &k, &v)) entries++, bytes += v.len + k.ptr[3];
    weir_write_int(w, entries);
    weir_write_str(w, " ");
    weir_write_int(w, bytes);
    weir_scan_begin(&s, WEIR_STR("p/"), page, 8);
    weir_write_int(w, weir_scan_next(&s, &k, &v));
    weir_write_int(w, s.error);
}

static void http(weir_writer *w) {
    uint32_t len = 0;
    weir_bytes request = WEIR_STR("POST https://example.com/a\nContent-Type: text/plain\n\nhello");
    weir_write_int(w, weir_http_call(request, page, sizeof page, &len));
    weir_write_str(w, " ");
    weir_write_bytes(w, weir_http_body((weir_bytes){page, len}));
    weir_write_int(w, weir_http_enqueue(request));
}

static void big(weir_writer *w) {
    for (int64_t i = 0; i < 40000; i++) weir_write_int(w, i);
}

static void on_record(weir_record *r) {
    weir_field f;
    weir_bytes what = {NULL, 0};
    if (weir_json_find(r->data, WEIR_STR("do"), &f)) weir_string(f.value, &what);
    weir_writer w = weir_write_begin();
    if (weir_equal(what, WEIR_STR("about"))) about(&w, r);
    else if (weir_equal(what, WEIR_STR("state"))) state(&w);
    else if (weir_equal(what, WEIR_STR("scan"))) scan(&w);
    else if (weir_equal(what, WEIR_STR("http"))) http(&w);
    else if (weir_equal(what, WEIR_STR("big"))) big(&w);
    else if (weir_equal(what, WEIR_STR("log"))) {
        weir_log(WEIR_WARN, r->data);
        weir_metric_add(counter, 2);
        weir_metric_set(gauge, 3.5);
        weir_metric_observe(histogram, 1.25);
    } else if (weir_equal(what, WEIR_STR("number"))) {
        double d;
        int64_t i;
        weir_json_find(r->data, WEIR_STR("v"), &f);
        if (weir_number(f.value, &d)) weir_write_fixed(&w, d, 9);
        weir_write_str(&w, " ");
        if (weir_integer(f.value, &i)) weir_write_int(&w, i);
    } else if (weir_equal(what, WEIR_STR("emit"))) {
        weir_emit(r, 1, WEIR_STR("other"), WEIR_STR("one"));
        weir_emit(r, 1, (weir_bytes){NULL, 0}, WEIR_STR("two"));
        weir_forward(r, 0);
        weir_set_key(r, WEIR_STR("forwarded"));
        weir_drop(r); /* what was emitted stays */
        return;
    } else if (weir_equal(what, WEIR_STR("now"))) {
        weir_write_int(&w, weir_emit_now(r, 1, WEIR_STR("other"), WEIR_STR("at once")));
        weir_write_int(&w, weir_emit_now(r, 0, (weir_bytes){NULL, 0}, WEIR_STR("under its own key")));
    } else if (weir_equal(what, WEIR_STR("keyed"))) {
        weir_set_key(r, WEIR_STR("new key"));
        weir_partition_key(r, WEIR_STR("a=1\nb=2"));
        return;
    } else if (weir_equal(what, WEIR_STR("retry"))) {
        weir_forward(r, 0);
        weir_retry(r);
        return;
    } else if (weir_equal(what, WEIR_STR("code"))) {
        weir_forward(r, 0);
        weir_fail(r, 77, (weir_bytes){NULL, 0});
        return;
    } else {
        weir_forward(r, 0);
        weir_fail(r, 78, what.ptr ? what : WEIR_STR("nothing to do"));
        return;
    }
    weir_replace_to(r, 1, weir_write_end(&w));
}

WEIR_ON_CONFIGURE(on_configure)
WEIR_ON_MIGRATE(on_migrate)
WEIR_ON_TICK(on_tick)
WEIR_ON_RECORD(on_record)
