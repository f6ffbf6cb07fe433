//! `PackStream`, the values of Bolt: everything that JSON has, and 64-bit integers. Written from [`Value`], and read into it.
//!
//! What JSON hasn't is read as near as can be: a structure (a node, a time) as the list of its fields, bytes as null. Nobody here asks for
//! either.

use serde_json::{Map, Value};

/// Values inside values, at most.
const DEPTH: usize = 100;

/// What isn't `PackStream`, or is too deep.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Appends a structure: a message is one.
pub fn structure(out: &mut Vec<u8>, tag: u8, fields: &[&Value]) {
    // Messages have three fields at most.
    out.extend([0xB0 | u8::try_from(fields.len()).unwrap_or(0x0F), tag]);
    for field in fields {
        value(out, field);
    }
}

fn value(out: &mut Vec<u8>, v: &Value) {
    match v {
        Value::Null => out.push(0xC0),
        Value::Bool(flag) => out.push(if *flag { 0xC3 } else { 0xC2 }),
        Value::Number(number) => {
            if let Some(integer) = number.as_i64() {
                int(out, integer);
            } else {
                out.push(0xC1);
                // One beyond 64 bits has no other form either.
                out.extend(number.as_f64().unwrap_or(f64::NAN).to_be_bytes());
            }
        }
        Value::String(text) => string(out, text),
        Value::Array(items) => {
            head(out, items.len(), 0x90, [0xD4, 0xD5, 0xD6]);
            for item in items {
                value(out, item);
            }
        }
        Value::Object(entries) => {
            head(out, entries.len(), 0xA0, [0xD8, 0xD9, 0xDA]);
            for (key, item) in entries {
                string(out, key);
                value(out, item);
            }
        }
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    head(out, text.len(), 0x80, [0xD0, 0xD1, 0xD2]);
    out.extend(text.as_bytes());
}

/// The shortest form: what is tiny stands in the marker.
fn head(out: &mut Vec<u8>, length: usize, tiny: u8, markers: [u8; 3]) {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 16 => out.push(tiny | short),
        (Ok(short), _) => out.extend([markers[0], short]),
        (_, Ok(long)) => {
            out.push(markers[1]);
            out.extend(long.to_be_bytes());
        }
        _ => {
            out.push(markers[2]);
            // An episode is far below 4 GiB.
            out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

fn int(out: &mut Vec<u8>, integer: i64) {
    if let Ok(byte) = i8::try_from(integer) {
        if byte < -16 {
            out.push(0xC8);
        }
        out.extend(byte.to_be_bytes());
    } else if let Ok(short) = i16::try_from(integer) {
        out.push(0xC9);
        out.extend(short.to_be_bytes());
    } else if let Ok(long) = i32::try_from(integer) {
        out.push(0xCA);
        out.extend(long.to_be_bytes());
    } else {
        out.push(0xCB);
        out.extend(integer.to_be_bytes());
    }
}

/// Reads a message: its tag and its fields.
pub fn message(mut bytes: &[u8]) -> Result<(u8, Vec<Value>), Malformed> {
    let [marker @ 0xB0..=0xBF, tag] = take(&mut bytes)? else { return Err(Malformed) };
    let fields = list(&mut bytes, usize::from(marker & 0x0F), 0)?;
    if bytes.is_empty() { Ok((tag, fields)) } else { Err(Malformed) }
}

fn read(bytes: &mut &[u8], depth: usize) -> Result<Value, Malformed> {
    if depth > DEPTH {
        return Err(Malformed);
    }
    let [marker] = take(bytes)?;
    Ok(match marker {
        0xC0 => Value::Null,
        0xC1 => f64::from_be_bytes(take(bytes)?).into(),
        0xC2 => false.into(),
        0xC3 => true.into(),
        0x00..=0x7F | 0xF0..=0xFF => i8::from_be_bytes([marker]).into(),
        0xC8 => i8::from_be_bytes(take(bytes)?).into(),
        0xC9 => i16::from_be_bytes(take(bytes)?).into(),
        0xCA => i32::from_be_bytes(take(bytes)?).into(),
        0xCB => i64::from_be_bytes(take(bytes)?).into(),
        0x80..=0x8F | 0xD0..=0xD2 => {
            let length = length(bytes, marker, 0xD0)?;
            text(bytes, length)?.into()
        }
        0x90..=0x9F | 0xD4..=0xD6 => {
            let length = length(bytes, marker, 0xD4)?;
            Value::Array(list(bytes, length, depth)?)
        }
        0xA0..=0xAF | 0xD8..=0xDA => {
            let mut entries = Map::new();
            for _ in 0..length(bytes, marker, 0xD8)? {
                let Value::String(key) = read(bytes, depth + 1)? else { return Err(Malformed) };
                entries.insert(key, read(bytes, depth + 1)?);
            }
            Value::Object(entries)
        }
        0xB0..=0xBF => {
            let [_tag] = take(bytes)?;
            Value::Array(list(bytes, usize::from(marker & 0x0F), depth)?)
        }
        0xCC..=0xCE => {
            let length = length(bytes, marker, 0xCC)?;
            bytes.split_off(..length).ok_or(Malformed)?;
            Value::Null
        }
        _ => return Err(Malformed),
    })
}

fn list(bytes: &mut &[u8], length: usize, depth: usize) -> Result<Vec<Value>, Malformed> {
    (0..length).map(|_| read(bytes, depth + 1)).collect()
}

fn text<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a str, Malformed> {
    std::str::from_utf8(bytes.split_off(..length).ok_or(Malformed)?).map_err(|_| Malformed)
}

/// A length, by the marker before it; `first` is that of a length in one byte.
fn length(bytes: &mut &[u8], marker: u8, first: u8) -> Result<usize, Malformed> {
    Ok(match marker.checked_sub(first) {
        None => usize::from(marker & 0x0F),
        Some(0) => usize::from(u8::from_be_bytes(take(bytes)?)),
        Some(1) => usize::from(u16::from_be_bytes(take(bytes)?)),
        Some(_) => usize::try_from(u32::from_be_bytes(take(bytes)?)).map_err(|_| Malformed)?,
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (first, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn packed(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        structure(&mut out, 0x71, &[value]);
        out
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-200_i64..200).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            (0_usize..70_000).prop_map(|n| "x".repeat(n).into()),
        ];
        leaf.prop_recursive(4, 64, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..20)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_again(value in values()) {
            prop_assert_eq!(message(&packed(&value)), Ok((0x71, vec![value])));
        }

        #[test]
        fn no_bytes_do_any_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = message(&bytes);
        }

        #[test]
        fn a_message_that_is_cut_is_malformed(value in values(), at in any::<prop::sample::Index>()) {
            let whole = packed(&value);
            prop_assert_eq!(message(&whole[..at.index(whole.len())]), Err(Malformed));
        }
    }

    /// As the specification's examples write them.
    #[test]
    fn values_look_as_the_specification_says() {
        for (value, bytes) in [
            (json!(42), &[0x2A][..]),
            (json!(-16), &[0xF0]),
            (json!(-17), &[0xC8, 0xEF]),
            (json!(-128), &[0xC8, 0x80]),
            (json!(128), &[0xC9, 0x00, 0x80]),
            (json!(1.23), &[0xC1, 0x3F, 0xF3, 0xAE, 0x14, 0x7A, 0xE1, 0x47, 0xAE]),
            (json!("A"), &[0x81, 0x41]),
            (json!("Größenmaßstäbe"), b"\xD0\x12Gr\xC3\xB6\xC3\x9Fenma\xC3\x9Fst\xC3\xA4be"),
            (json!([1, 2, 3]), &[0x93, 0x01, 0x02, 0x03]),
            (json!({"one": "eins"}), b"\xA1\x83one\x84eins"),
            (json!(i64::MIN), &[0xCB, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(packed(&value)[2..], *bytes, "{value}");
        }
    }

    #[test]
    fn nobody_makes_the_reader_fall_too_deep() {
        let mut bytes = vec![0xB1, 0x71];
        bytes.resize(100_000, 0x91);
        assert_eq!(message(&bytes), Err(Malformed));
    }
}
