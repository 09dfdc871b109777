//! Passes on the records whose field is at least min and drops the others.
//!
//! config: `{field: temp, min: 25}`

use std::cell::RefCell;
use weir::{find, number, string, Record};

weir::module!(record = on_record, configure = configure);

struct Config {
    field: Vec<u8>,
    min: f64,
}

thread_local! {
    static CONFIG: RefCell<Config> = RefCell::new(Config { field: b"temp".to_vec(), min: 25.0 });
}

fn configure(json: &[u8]) -> Result<(), &'static str> {
    CONFIG.with(|c| {
        let mut c = c.borrow_mut();
        if let Some(f) = find(json, b"field") {
            c.field = string(f.value).ok_or("field: expecting a string")?.to_vec();
        }
        if let Some(f) = find(json, b"min") {
            c.min = number(f.value).ok_or("min: expecting a number")?;
        }
        Ok(())
    })
}

fn on_record(r: &mut Record) {
    CONFIG.with(|c| {
        let c = c.borrow();
        match find(r.data(), &c.field).and_then(|f| number(f.value)) {
            None => r.fail(1, b"the field is missing or not a number"),
            Some(v) if v < c.min => r.drop(),
            Some(_) => {}
        }
    })
}
