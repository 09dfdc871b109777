//! Converts a field's unit and renames it, and keeps the rest of the record as it is:
//! `{"temp_f":77.9}` becomes `{"temp_c":25.5}`. The new value is (value + offset) * factor.
//!
//! config: `{from: temp_f, to: temp_c, offset: -32, factor: 0.5555555555555556, decimals: 2}`

use std::cell::RefCell;
use weir::{find, integer, number, string, Record};

weir::module!(record = on_record, configure = configure);

struct Config {
    from: Vec<u8>,
    to: Vec<u8>,
    offset: f64,
    factor: f64,
    decimals: i64,
}

thread_local! {
    static CONFIG: RefCell<Config> = RefCell::new(Config {
        from: b"temp_f".to_vec(),
        to: b"temp_c".to_vec(),
        offset: -32.0,
        factor: 5.0 / 9.0,
        decimals: 2,
    });
}

fn configure(json: &[u8]) -> Result<(), &'static str> {
    CONFIG.with(|c| {
        let mut c = c.borrow_mut();
        if let Some(f) = find(json, b"from") {
            c.from = string(f.value).ok_or("from: expecting a string")?.to_vec();
        }
        if let Some(f) = find(json, b"to") {
            c.to = string(f.value).ok_or("to: expecting a string")?.to_vec();
        }
        if let Some(f) = find(json, b"offset") {
            c.offset = number(f.value).ok_or("offset: expecting a number")?;
        }
        if let Some(f) = find(json, b"factor") {
            c.factor = number(f.value).ok_or("factor: expecting a number")?;
        }
        if let Some(f) = find(json, b"decimals") {
            c.decimals = integer(f.value).ok_or("decimals: expecting a whole number")?;
        }
        Ok(())
    })
}

fn on_record(r: &mut Record) {
    CONFIG.with(|c| {
        let c = c.borrow();
        let data = r.data();
        let field = match find(data, &c.from) {
            Some(f) => f,
            None => return, // nothing to convert: pass it on
        };
        let v = match number(field.value) {
            Some(v) => v,
            None => return r.fail(1, b"the field is not a number"),
        };
        let mut w = r.writer();
        w.bytes(&data[..field.name_at])
            .bytes(&c.to)
            .bytes(&data[field.name_at + c.from.len()..field.value_at])
            .fixed((v + c.offset) * c.factor, c.decimals as usize)
            .bytes(&data[field.value_at + field.value.len()..]);
        r.replace(w.end());
    })
}
