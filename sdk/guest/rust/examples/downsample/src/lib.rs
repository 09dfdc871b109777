//! Turns readings a second apart into one record a minute and device, with count, mean,
//! min and max.
//!
//! A consumer: the open window of each device is kept in the state, and commits together
//! with the records it came from and the ones it emits. A window is emitted when a reading
//! of a later one arrives, or by the tick when its time and the grace are over. Readings of
//! a window that was emitted are counted as late.
//!
//! - in: `{"device":"pump-1","ts":1700000000123,"value":12.5}`, ts in ms
//! - out: `{"device":"pump-1","window":1699999980000,"count":60,"mean":12.41,"min":11.9,"max":13.2}`
//! - config: `{window_ms: 60000, grace_ms: 5000}`

use std::cell::Cell;
use weir::host::{state_delete, state_get, state_put, state_scan, Metric};
use weir::{find, integer, number, string, Record, Tick, Writer};

weir::module!(record = on_record, configure = configure, tick = tick);

#[derive(Clone, Copy)]
struct Config {
    window_ms: i64,
    grace_ms: i64,
    late: Option<Metric>,
}

thread_local! {
    static CONFIG: Cell<Config> = Cell::new(Config { window_ms: 60000, grace_ms: 5000, late: None });
}

fn configure(json: &[u8]) -> Result<(), &'static str> {
    let mut c = CONFIG.with(Cell::get);
    if let Some(f) = find(json, b"window_ms") {
        c.window_ms = integer(f.value).ok_or("window_ms: expecting a whole number")?;
    }
    if let Some(f) = find(json, b"grace_ms") {
        c.grace_ms = integer(f.value).ok_or("grace_ms: expecting a whole number")?;
    }
    if c.window_ms <= 0 || c.grace_ms < 0 {
        return Err("expecting window_ms above 0 and grace_ms not below");
    }
    c.late = Some(Metric::counter("late"));
    CONFIG.with(|cell| cell.set(c));
    Ok(())
}

const SIZE: usize = 40;

/// What the state holds under a device's name, as 40 little-endian bytes.
struct Window {
    start: i64, // ms
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Window {
    fn load(b: &[u8]) -> Option<Window> {
        let b: &[u8; SIZE] = b.try_into().ok()?;
        let at = |i: usize| u64::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3], b[i + 4], b[i + 5], b[i + 6], b[i + 7]]);
        Some(Window {
            start: at(0) as i64,
            count: at(8),
            sum: f64::from_bits(at(16)),
            min: f64::from_bits(at(24)),
            max: f64::from_bits(at(32)),
        })
    }

    fn store(&self) -> [u8; SIZE] {
        let mut b = [0; SIZE];
        b[..8].copy_from_slice(&self.start.to_le_bytes());
        b[8..16].copy_from_slice(&self.count.to_le_bytes());
        b[16..24].copy_from_slice(&self.sum.to_le_bytes());
        b[24..32].copy_from_slice(&self.min.to_le_bytes());
        b[32..].copy_from_slice(&self.max.to_le_bytes());
        b
    }

    fn add(&mut self, v: f64) {
        self.count += 1;
        self.sum += v;
        if v < self.min {
            self.min = v;
        }
        if v > self.max {
            self.max = v;
        }
    }

    /// The record to emit, and the device's name in it.
    fn text<'a>(&self, mut w: Writer<'a>, device: &[u8]) -> (&'a [u8], &'a [u8]) {
        const HEAD: &[u8] = b"{\"device\":\"";
        w.bytes(HEAD).bytes(device);
        w.bytes(b"\",\"window\":").int(self.start);
        w.bytes(b",\"count\":").int(self.count as i64);
        w.bytes(b",\"mean\":").fixed(self.sum / self.count as f64, 3);
        w.bytes(b",\"min\":").fixed(self.min, 3);
        w.bytes(b",\"max\":").fixed(self.max, 3);
        w.bytes(b"}");
        let data = w.end();
        (&data[HEAD.len()..HEAD.len() + device.len()], data)
    }
}

/// Device, time and value of a reading.
fn read(data: &[u8]) -> Option<(&[u8], i64, f64)> {
    let device = string(find(data, b"device")?.value).filter(|d| !d.is_empty())?;
    let ts = integer(find(data, b"ts")?.value).filter(|ts| *ts >= 0)?;
    Some((device, ts, number(find(data, b"value")?.value)?))
}

fn on_record(r: &mut Record) {
    let c = CONFIG.with(Cell::get);
    let (device, ts, v) = match read(r.data()) {
        Some(reading) => reading,
        None => return r.fail(1, b"expecting device, ts and value"),
    };
    let start = ts - ts % c.window_ms;
    let mut cell = [0; SIZE];
    let mut open = state_get(device, &mut cell).ok().and_then(|b| Window::load(b));
    match &open {
        Some(w) if start < w.start => {
            if let Some(late) = c.late {
                late.add(1.0);
            }
            return r.drop();
        }
        Some(w) if start > w.start => {
            let (key, data) = w.text(r.writer(), device);
            r.emit(0, Some(key), data);
            open = None;
        }
        _ => {}
    }
    let mut w = open.unwrap_or(Window { start, count: 0, sum: 0.0, min: v, max: v });
    w.add(v);
    if state_put(device, &w.store()).is_err() {
        r.fail(2, b"the state is full");
    }
}

fn tick(t: &mut Tick) {
    let c = CONFIG.with(Cell::get);
    let mut page = [0; 16384];
    let _ = state_scan(b"", &mut page, |device, value| {
        match Window::load(value) {
            Some(w) if w.start + c.window_ms + c.grace_ms <= t.now_ms() => {
                let (key, data) = w.text(t.writer(), device);
                t.emit(0, Some(key), data);
                let _ = state_delete(device);
            }
            _ => {}
        }
        true
    });
}
