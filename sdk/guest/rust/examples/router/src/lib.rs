//! Chooses each record's partition key, dynamic partition and output by what it says. The
//! data is passed on as it is; nothing is copied.
//!
//! A record goes to output 1 when its match field is equals, to output 0 otherwise, under
//! the partition key that is the value of its key field.
//!
//! config: `{key: site, match: severity, equals: alarm}`

use std::cell::RefCell;
use weir::{find, string, Record};

weir::module!(record = on_record, configure = configure);

struct Config {
    key: Vec<u8>,
    matches: Vec<u8>,
    equals: Vec<u8>,
}

thread_local! {
    static CONFIG: RefCell<Config> = RefCell::new(Config {
        key: b"site".to_vec(),
        matches: b"severity".to_vec(),
        equals: b"alarm".to_vec(),
    });
}

fn configure(json: &[u8]) -> Result<(), &'static str> {
    CONFIG.with(|c| {
        let mut c = c.borrow_mut();
        if let Some(f) = find(json, b"key") {
            c.key = string(f.value).ok_or("key: expecting a string")?.to_vec();
        }
        if let Some(f) = find(json, b"match") {
            c.matches = string(f.value).ok_or("match: expecting a string")?.to_vec();
        }
        if let Some(f) = find(json, b"equals") {
            c.equals = string(f.value).ok_or("equals: expecting a string")?.to_vec();
        }
        Ok(())
    })
}

fn on_record(r: &mut Record) {
    CONFIG.with(|c| {
        let c = c.borrow();
        let data = r.data();
        let site = match find(data, &c.key).and_then(|f| string(f.value)) {
            Some(site) if !site.is_empty() => site,
            _ => return r.fail(1, b"the field to route by is missing or not a string"),
        };
        let alarm = find(data, &c.matches).and_then(|f| string(f.value)) == Some(&c.equals[..]);
        r.set_key(site);
        r.partition_key(site);
        r.forward(alarm as u16);
    })
}
