//! Emits an alert for a reading that is far from the device's last ones.
//!
//! A consumer: the state holds the last window values of each device. A value whose
//! distance from their mean is more than z standard deviations is an alert; it enters the
//! window all the same, so that a new level becomes normal.
//!
//! - in: `{"device":"pump-1","value":12.5}`
//! - out: `{"device":"pump-1","value":99,"mean":12.4,"z":8.21}`
//! - config: `{z: 4, window: 32, warmup: 8}`

use std::cell::Cell;
use weir::host::{state_get, state_put};
use weir::{find, integer, number, string, Record};

weir::module!(record = on_record, configure = configure);

const MAX_WINDOW: usize = 128;

#[derive(Clone, Copy)]
struct Config {
    z: f64,
    window: i64,
    warmup: i64,
}

thread_local! {
    static CONFIG: Cell<Config> = Cell::new(Config { z: 4.0, window: 32, warmup: 8 });
}

fn configure(json: &[u8]) -> Result<(), &'static str> {
    let mut c = CONFIG.with(Cell::get);
    if let Some(f) = find(json, b"z") {
        c.z = number(f.value).ok_or("z: expecting a number")?;
    }
    if let Some(f) = find(json, b"window") {
        c.window = integer(f.value).ok_or("window: expecting a whole number")?;
    }
    if let Some(f) = find(json, b"warmup") {
        c.warmup = integer(f.value).ok_or("warmup: expecting a whole number")?;
    }
    if c.z <= 0.0 || c.window > MAX_WINDOW as i64 || c.warmup < 2 || c.warmup > c.window {
        return Err("expecting z above 0 and 2 <= warmup <= window <= 128");
    }
    CONFIG.with(|cell| cell.set(c));
    Ok(())
}

/// The state holds, under a device's name: u32 count, u32 place of the next value, then
/// window values as f64, all little-endian.
struct History<'a>(&'a mut [u8]);

impl History<'_> {
    fn u32_at(&self, i: usize) -> u32 {
        u32::from_le_bytes([self.0[i], self.0[i + 1], self.0[i + 2], self.0[i + 3]])
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let count = self.u32_at(0) as usize;
        self.0[8..8 + 8 * count].chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default()))
    }

    fn push(&mut self, v: f64) {
        let window = (self.0.len() as u32 - 8) / 8;
        let (count, next) = (self.u32_at(0), self.u32_at(4));
        let at = 8 + 8 * next as usize;
        self.0[at..at + 8].copy_from_slice(&v.to_le_bytes());
        self.0[..4].copy_from_slice(&(count + 1).min(window).to_le_bytes());
        self.0[4..8].copy_from_slice(&((next + 1) % window).to_le_bytes());
    }

    /// The mean, and how many standard deviations v is away from it, when that is too far.
    fn outlier(&self, v: f64, limit: f64) -> Option<(f64, f64)> {
        let count = self.u32_at(0) as f64;
        // Not sum(): it starts at -0 in newer versions, and all languages give the same bits here.
        let mean = self.values().fold(0.0, |sum, x| sum + x) / count;
        let squares = self.values().fold(0.0, |sum, x| sum + (x - mean) * (x - mean));
        let (deviation, distance) = ((squares / count).sqrt(), (v - mean).abs());
        if distance <= limit * deviation || distance <= 1e-9 {
            return None;
        }
        Some((mean, if deviation > 0.0 { distance / deviation } else { 1e6 }))
    }
}

fn on_record(r: &mut Record) {
    let c = CONFIG.with(Cell::get);
    let data = r.data();
    let device = find(data, b"device").and_then(|f| string(f.value)).filter(|d| !d.is_empty());
    let value = find(data, b"value").and_then(|f| number(f.value));
    let (device, v) = match (device, value) {
        (Some(device), Some(v)) => (device, v),
        _ => return r.fail(1, b"expecting device and value"),
    };
    let mut cell = [0; 8 + 8 * MAX_WINDOW];
    let cell = &mut cell[..8 + 8 * c.window as usize];
    let size = cell.len();
    if state_get(device, cell).map_or(true, |b| b.len() != size) {
        cell.fill(0);
    }
    let mut history = History(cell);
    if history.u32_at(0) as i64 >= c.warmup {
        if let Some((mean, z)) = history.outlier(v, c.z) {
            let mut w = r.writer();
            w.bytes(b"{\"device\":\"").bytes(device).bytes(b"\",\"value\":").fixed(v, 3);
            w.bytes(b",\"mean\":").fixed(mean, 3).bytes(b",\"z\":").fixed(z, 2).bytes(b"}");
            r.emit(0, Some(device), w.end());
        }
    }
    history.push(v);
    if state_put(device, history.0).is_err() {
        r.fail(2, b"the state is full");
    }
}
