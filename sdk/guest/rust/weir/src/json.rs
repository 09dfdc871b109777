/// One member of a JSON object. The slices lie in the document.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    /// Where the name begins in the document, behind its quote.
    pub name_at: usize,
    /// Where the value begins in the document.
    pub value_at: usize,
    /// The value's text, a string with its quotes.
    pub value: &'a [u8],
}

const LOWS: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Has bit 7 set in the lowest byte of `w` that is `byte`, and in none below it.
#[inline(always)]
fn bytes_equal(w: u64, byte: u8) -> u64 {
    let x = w ^ (LOWS * byte as u64);
    x.wrapping_sub(LOWS) & !x & HIGHS
}

/// The 8 bytes of `doc` from `i` on, or None at its end.
#[inline(always)]
fn word(doc: &[u8], i: usize) -> Option<u64> {
    let bytes = doc.get(i..i + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Finds the first member called `name` of the JSON object in `doc`. It looks at 8
/// bytes at a time, only at quotes and braces, and reads nothing behind the member: it
/// is a scanner, not a validator. A name that the document spells with escapes is
/// compared as it is spelt.
pub fn find<'a>(doc: &'a [u8], name: &[u8]) -> Option<Field<'a>> {
    let mut i = space(doc, 0);
    let letter = *name.first()?;
    if doc.get(i) != Some(&b'{') {
        return None;
    }
    i += 1;
    // whether i lies in a string, and bit 7 of the byte before i: it is the quote that opens or closes one
    let (mut inside, mut last) = (false, 0u64);
    while let Some(w) = word(doc, i) {
        let x = w ^ (LOWS * b'"' as u64);
        let quotes = !(((x & !HIGHS) + !HIGHS) | x) & HIGHS; // exactly the quotes
        let names = (quotes << 8 | last) & bytes_equal(w, letter);
        let m = bytes_equal(w, b'\\') | bytes_equal(w, b'{') | names;
        if m == 0 {
            inside ^= quotes.count_ones() & 1 == 1;
            last = quotes >> 56;
            i += 8;
            continue;
        }
        // a backslash, a brace, or the first letter of a string that begins as name does
        inside ^= (quotes & ((m & m.wrapping_neg()) - 1)).count_ones() & 1 == 1;
        last = 0;
        i += (m.trailing_zeros() >> 3) as usize;
        match doc[i] {
            b'{' if !inside => i = object(doc, i)?,
            b'\\' => i += 2,
            _ if inside && doc[i - 1] == b'"' && is_name(doc, i, name) => return member(doc, i, name.len()),
            _ => i += 1,
        }
    }
    find_tail(doc, i, inside, last != 0, name)
}

/// `find` for the last few bytes. `opened`: the byte before `i` is a quote.
fn find_tail<'a>(doc: &'a [u8], mut i: usize, mut inside: bool, mut opened: bool, name: &[u8]) -> Option<Field<'a>> {
    while i < doc.len() {
        let after_quote = core::mem::take(&mut opened);
        match doc[i] {
            b'\\' => i += 1,
            b'"' => {
                inside = !inside;
                opened = true;
            }
            b'{' if !inside => i = object(doc, i)? - 1,
            _ if inside && after_quote && is_name(doc, i, name) => return member(doc, i, name.len()),
            _ => {}
        }
        i += 1;
    }
    None
}

/// Tells whether the string whose first letter is at `i` is `name`, before a colon.
fn is_name(doc: &[u8], i: usize, name: &[u8]) -> bool {
    let end = i + name.len();
    doc.get(end) == Some(&b'"') && &doc[i..end] == name && doc.get(space(doc, end + 1)) == Some(&b':')
}

/// The member whose name is at `name_at`.
fn member(doc: &[u8], name_at: usize, name_len: usize) -> Option<Field<'_>> {
    let value_at = space(doc, space(doc, name_at + name_len + 1) + 1);
    let end = value_end(doc, value_at)?;
    Some(Field { name_at, value_at, value: &doc[value_at..end] })
}

/// What follows the object at `i`, None when it isn't closed.
fn object(doc: &[u8], mut i: usize) -> Option<usize> {
    let mut depth = 0u32;
    while i < doc.len() {
        match doc[i] {
            b'"' => i = closing(doc, i + 1),
            b'\\' => i += 1,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

#[inline(always)]
fn space(doc: &[u8], mut i: usize) -> usize {
    while i < doc.len() && doc[i] <= b' ' {
        i += 1;
    }
    i
}

/// The index of the first unescaped quote from `i` on, or the document's length.
#[inline(always)]
fn closing(doc: &[u8], mut i: usize) -> usize {
    while i < doc.len() {
        if let Some(w) = word(doc, i) {
            let m = bytes_equal(w, b'"') | bytes_equal(w, b'\\');
            if m == 0 {
                i += 8;
                continue;
            }
            i += (m.trailing_zeros() >> 3) as usize;
        }
        match doc[i] {
            b'"' => return i,
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
    doc.len()
}

/// The end of the value at `at`, None when there is no whole one.
fn value_end(doc: &[u8], at: usize) -> Option<usize> {
    match doc.get(at)? {
        b'"' => match closing(doc, at + 1) {
            end if end < doc.len() => Some(end + 1),
            _ => None,
        },
        b'{' | b'[' => nested(doc, at),
        _ => {
            let mut end = at;
            while end < doc.len() && doc[end] > b' ' && doc[end] != b',' && doc[end] | 0x20 != b'}' {
                end += 1;
            }
            if end > at { Some(end) } else { None }
        }
    }
}

/// The end of the object or array at `i`, None when it isn't closed.
fn nested(doc: &[u8], mut i: usize) -> Option<usize> {
    let mut depth = 0u32;
    while i < doc.len() {
        match doc[i] {
            b'"' => i = closing(doc, i + 1),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

pub(crate) const POW10: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Reads a JSON number. Up to 15 significant digits and exponents within ±22 it is the
/// nearest f64; beyond, it may be off by a few units in the last place. All SDKs give
/// the same bits.
pub fn number(v: &[u8]) -> Option<f64> {
    const FULL: u64 = 1_000_000_000_000_000_000;
    let negative = v.first() == Some(&b'-');
    let mut i = negative as usize;
    let (mut m, mut exp) = (0u64, 0i32);
    let mut digits = i;
    while i < v.len() && v[i].is_ascii_digit() {
        if m < FULL {
            m = m * 10 + (v[i] - b'0') as u64;
        } else {
            exp += 1;
        }
        i += 1;
    }
    if i == digits {
        return None;
    }
    if v.get(i) == Some(&b'.') {
        i += 1;
        digits = i;
        while i < v.len() && v[i].is_ascii_digit() {
            if m < FULL {
                m = m * 10 + (v[i] - b'0') as u64;
                exp -= 1;
            }
            i += 1;
        }
        if i == digits {
            return None;
        }
    }
    if i < v.len() {
        exp += exponent(&v[i..])?;
    }
    let f = scale(m as f64, exp);
    Some(if negative { -f } else { f })
}

/// Reads what follows the digits of a number, as `e-5`.
fn exponent(v: &[u8]) -> Option<i32> {
    if v[0] | 0x20 != b'e' {
        return None;
    }
    let (sign, digits) = match v.get(1) {
        Some(b'-') => (-1, &v[2..]),
        Some(b'+') => (1, &v[2..]),
        _ => (1, &v[1..]),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let e = digits.iter().fold(0i32, |e, c| if e < 100_000 { e * 10 + (c - b'0') as i32 } else { e });
    Some(sign * e)
}

/// `f` times ten to the power of `exp`.
fn scale(mut f: f64, exp: i32) -> f64 {
    let mut exp = exp.clamp(-400, 400);
    while exp > 22 {
        f *= 1e22;
        exp -= 22;
    }
    while exp < -22 {
        f /= 1e22;
        exp += 22;
    }
    if exp < 0 {
        f / POW10[-exp as usize]
    } else {
        f * POW10[exp as usize]
    }
}

/// Reads a whole number of at most 18 digits, written without point and exponent.
pub fn integer(v: &[u8]) -> Option<i64> {
    let negative = v.first() == Some(&b'-');
    let digits = &v[negative as usize..];
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits.iter().fold(0i64, |n, c| n * 10 + (c - b'0') as i64);
    Some(if negative { -n } else { n })
}

/// What stands between the quotes of a JSON string, escapes as they are.
pub fn string(v: &[u8]) -> Option<&[u8]> {
    if v.len() < 2 || v[0] != b'"' {
        return None;
    }
    Some(&v[1..v.len() - 1])
}
