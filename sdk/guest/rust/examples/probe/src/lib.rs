//! Does what a record's "do" says and answers with what it got. The tests run it to see
//! every call of the SDK at work; it is no example.

use weir::host::{self, Metric};
use weir::{find, integer, number, string, Error, Record, Tick, Writer};

weir::module!(record = on_record, configure = configure, tick = tick, migrate = migrate);

fn configure(json: &[u8]) -> Result<(), &'static str> {
    match find(json, b"refuse") {
        Some(_) => Err("refused"),
        None => Ok(()),
    }
}

fn migrate(from: u32) -> Result<(), &'static str> {
    if from == 1 {
        Ok(())
    } else {
        Err("can't")
    }
}

fn tick(t: &mut Tick) {
    let mut w = t.writer();
    w.int(t.now_ms());
    t.emit(1, None, w.end());
}

/// An answer as the host gave it.
fn code<T>(r: &Result<T, Error>) -> i64 {
    match r {
        Ok(_) => 0,
        Err(Error::NotFound) => -1,
        Err(Error::BufferTooSmall(_)) => -2,
        Err(Error::Invalid) => -3,
        Err(Error::Denied) => -4,
        Err(Error::Quota) => -5,
        Err(Error::Timeout) => -6,
        Err(Error::Unavailable) => -7,
    }
}

fn about(w: &mut Writer, r: &Record) {
    let b = r.batch();
    w.quoted(r.key().unwrap_or_default());
    let numbers = [
        r.key().is_some() as i64, r.timestamp_ms(), r.index() as i64, r.input() as i64, r.number() as i64, b.shard as i64,
        b.base_index as i64, b.time_ms, b.id as i64, b.attempt as i64, b.flags as i64, b.cpu_budget_ms as i64,
        b.seed as i64, b.records as i64, host::batch_time_ms(), host::wall_time_ms(), host::monotonic_ns(),
    ];
    for n in numbers {
        w.bytes(b" ").int(n);
    }
}

fn state(w: &mut Writer) {
    let mut page = [0; 2048];
    w.int(code(&host::state_get(b"k", &mut page)));
    w.int(code(&host::state_put(b"k", b"value")));
    let small = host::state_get(b"k", &mut page[..2]);
    w.int(code(&small));
    if let Err(Error::BufferTooSmall(n)) = small {
        w.int(n as i64);
    }
    let value = host::state_get(b"k", &mut page);
    w.int(code(&value)).bytes(value.unwrap_or_default());
    w.int(code(&host::state_incr(b"k", 1)));
    w.int(code(&host::state_delete(b"k")));
    w.int(code(&host::state_incr(b"n", 5)));
    let sum = host::state_incr(b"n", -12);
    w.int(code(&sum)).int(sum.unwrap_or_default());
}

fn scan(w: &mut Writer) {
    let mut page = [0; 2048];
    for i in 0..100u8 {
        let key = [b'p', b'/', b'0' + i / 10, b'0' + i % 10];
        let _ = host::state_put(&key, &page[..i as usize]);
    }
    let (mut entries, mut bytes) = (0, 0);
    let _ = host::state_scan(b"p/", &mut page[..256], |k, v| {
        entries += 1;
        bytes += v.len() as i64 + k[3] as i64;
        true
    });
    w.int(entries).bytes(b" ").int(bytes);
    let mut found = 0;
    let end = host::state_scan(b"p/", &mut page[..8], |_, _| {
        found = 1;
        true
    });
    w.int(found).int(code(&end));
}

fn http(w: &mut Writer) {
    let mut page = [0; 2048];
    let request = b"POST https://example.com/a\nContent-Type: text/plain\n\nhello";
    match host::http_call(request, &mut page) {
        Ok((status, response)) => w.int(status as i64).bytes(b" ").bytes(host::http_body(response)),
        error => w.int(code(&error)).bytes(b" "),
    };
    w.int(code(&host::http_enqueue(request)));
}

fn log(r: &Record) {
    host::log(host::Level::Warn, r.data());
    Metric::counter("probe_total").add(2.0);
    Metric::gauge("probe_level").set(3.5);
    Metric::histogram("probe_size").observe(1.25);
}

fn on_record(r: &mut Record) {
    let data = r.data();
    let what = find(data, b"do").and_then(|f| string(f.value)).unwrap_or_default();
    let mut w = r.writer();
    match what {
        b"about" => about(&mut w, r),
        b"state" => state(&mut w),
        b"scan" => scan(&mut w),
        b"http" => http(&mut w),
        b"big" => {
            for i in 0..40000 {
                w.int(i);
            }
        }
        b"log" => log(r),
        b"number" => {
            let value = find(data, b"v").map_or(&b""[..], |f| f.value);
            if let Some(d) = number(value) {
                w.fixed(d, 9);
            }
            w.bytes(b" ");
            if let Some(i) = integer(value) {
                w.int(i);
            }
        }
        b"now" => {
            w.int(code(&r.emit_now(1, Some(b"other"), b"at once")));
            w.int(code(&r.emit_now(0, None, b"under its own key")));
        }
        _ => return verdict(r, what),
    }
    r.replace_to(1, w.end());
}

fn verdict<'a>(r: &mut Record<'a>, what: &'a [u8]) {
    match what {
        b"emit" => {
            r.emit(1, Some(b"other"), b"one");
            r.emit(1, None, b"two");
            r.forward(0);
            r.set_key(b"forwarded");
            r.drop(); // what was emitted stays
        }
        b"keyed" => {
            r.set_key(b"new key");
            r.partition_key(b"a=1\nb=2");
        }
        b"retry" => {
            r.forward(0);
            r.retry();
        }
        b"code" => {
            r.forward(0);
            r.fail(77, b"");
        }
        b"" => r.fail(78, b"nothing to do"),
        _ => {
            r.forward(0);
            r.fail(78, what);
        }
    }
}
