//! tmp
use super::super::*;
use arrow::array::*;
use arrow::datatypes::*;
use std::sync::Arc;
use std::time::Instant;
fn rnd(s: &mut u64) -> u64 {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    *s
}
fn dict(n: usize, s: &mut u64, values: Vec<String>, nulls: bool) -> ArrayRef {
    let keys: Int32Array = (0..n)
        .map(|_| {
            let k = rnd(s);
            (!nulls || !k.is_multiple_of(20)).then_some(((k >> 8) % values.len() as u64) as i32)
        })
        .collect();
    Arc::new(DictionaryArray::new(keys, Arc::new(StringArray::from(values))))
}
fn batch(n: usize, nulls: bool) -> Vec<(PgType, ArrayRef)> {
    let mut s = 88172645463325252u64;
    let s = &mut s;
    let t = |l: &[&str]| l.iter().map(|x| x.to_string()).collect::<Vec<_>>();
    let src = (1..255).map(|i| format!("192.168.1.{i}")).collect::<Vec<_>>();
    let dst = (0..500).map(|_| std::net::Ipv4Addr::from(rnd(s) as u32).to_string()).collect::<Vec<_>>();
    let mut ok = {
        let mut q = 1234567u64;
        move || !nulls || !rnd(&mut q).is_multiple_of(20)
    };
    vec![
        (
            PgType::Timestamptz,
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(
                    (0..n as i64).map(|i| 1_705_276_803_000_000 + i * 1000),
                )
                .with_timezone("UTC"),
            ),
        ),
        (PgType::Text, dict(n, s, t(&["accept", "drop", "reject"]), nulls)),
        (PgType::Inet, dict(n, s, src, nulls)),
        (PgType::Inet, dict(n, s, dst, nulls)),
        (PgType::Text, dict(n, s, t(&["TCP", "UDP", "ICMP"]), nulls)),
        (
            PgType::Int4,
            Arc::new((0..n).map(|_| ok().then_some((rnd(s) % 65536) as i32)).collect::<Int32Array>()),
        ),
        (
            PgType::Int4,
            Arc::new((0..n).map(|_| ok().then_some((rnd(s) % 65536) as i32)).collect::<Int32Array>()),
        ),
        (
            PgType::Int8,
            Arc::new((0..n).map(|_| ok().then_some((rnd(s) % 65536) as i64)).collect::<Int64Array>()),
        ),
        (
            PgType::Text,
            dict(
                n,
                s,
                t(&[
                    "web_access",
                    "dns_allow",
                    "ssh_admin",
                    "block_malware",
                    "default_drop",
                    "vpn_access",
                    "internal_only",
                ]),
                nulls,
            ),
        ),
        (PgType::Int8, Arc::new(Int64Array::from(vec![1234567890123; n]))),
        (PgType::Int4, Arc::new(Int32Array::from_iter_values(0..n as i32))),
        (PgType::Int2, Arc::new(Int16Array::from(vec![5; n]))),
        (
            PgType::Bytea,
            if nulls {
                Arc::new(
                    (0..n).map(|i| i.is_multiple_of(20).then_some(&[b'x'; 120][..])).collect::<BinaryArray>(),
                )
            } else {
                Arc::new(BinaryArray::new_null(n))
            },
        ),
        (
            PgType::Jsonb,
            if nulls {
                Arc::new(
                    (0..n)
                        .map(|i| i.is_multiple_of(20).then_some("{\"zone\":\"dmz\"}"))
                        .collect::<StringArray>(),
                )
            } else {
                Arc::new(StringArray::new_null(n))
            },
        ),
    ]
}
#[test]
#[ignore]
fn bench() {
    let n = 60_000;
    for nulls in [false, true] {
        let columns = batch(n, nulls);
        let cols: Vec<_> = columns.iter().map(|(t, a)| (*t, a)).collect();
        let picked: Vec<u32> = (0..n as u32).filter(|i| i % 3 != 0).collect();
        for (name, which) in [
            ("run", 0),
            ("picked 2/3", 1),
            ("try_new only", 2),
            ("encode only, no limit", 3),
            ("encode only 256K", 4),
        ] {
            let encoder = CopyEncoder::try_new(&cols).unwrap();
            let (mut best, mut bytes, mut rows_n) = (f64::MAX, 0, n);
            let mut out = Vec::with_capacity(2 << 20);
            for _ in 0..60 {
                let t = Instant::now();
                bytes = 0;
                let made;
                let encoder = if which <= 2 {
                    made = CopyEncoder::try_new(&cols).unwrap();
                    &made
                } else {
                    &encoder
                };
                if which == 3 {
                    out.clear();
                    encoder.encode_rows(Rows::Run(0..n), &mut out);
                    bytes = out.len();
                } else if which != 2 {
                    let mut rows = if which == 1 {
                        rows_n = picked.len();
                        Rows::Picked(&picked)
                    } else {
                        Rows::Run(0..n)
                    };
                    while !rows.is_empty() {
                        out.clear();
                        encoder.encode_until_full(&mut rows, 256 << 10, &mut out);
                        bytes += out.len();
                        std::hint::black_box(&out);
                    }
                }
                best = best.min(t.elapsed().as_secs_f64());
            }
            println!(
                "nulls {nulls} {name}: {:.1} M rows/s, {:.0} MB/s, {:.1} ns/row, {} B/row",
                rows_n as f64 / best / 1e6,
                bytes as f64 / best / 1e6,
                best / rows_n as f64 * 1e9,
                bytes / rows_n
            );
        }
        let mut stream = HEADER.to_vec();
        CopyEncoder::try_new(&cols).unwrap().encode_rows(Rows::Run(0..n), &mut stream);
        stream.extend(TRAILER);
        let types: Vec<_> = cols.iter().map(|c| c.0).collect();
        let schema = Arc::new(Schema::new(
            types.iter().map(|t| Field::new("c", t.arrow_type(), true)).collect::<Vec<_>>(),
        ));
        let mut best = f64::MAX;
        for _ in 0..20 {
            let t = Instant::now();
            let mut d = CopyDecoder::try_new(schema.clone(), types.clone()).unwrap();
            for piece in stream.chunks(65536) {
                d.push(piece).unwrap();
                while let Some(b) = d.next_batch() {
                    std::hint::black_box(b);
                }
            }
            d.flush().unwrap();
            best = best.min(t.elapsed().as_secs_f64());
        }
        println!(
            "nulls {nulls} decode: {:.2} M rows/s {:.0} MB/s",
            n as f64 / best / 1e6,
            stream.len() as f64 / best / 1e6
        );
        let times = columns[0].1.as_primitive::<TimestampMicrosecondType>().clone();
        let mut best = f64::MAX;
        for _ in 0..20 {
            let t = Instant::now();
            std::hint::black_box(crate::warehouse::split_by_day(&times, 20000));
            best = best.min(t.elapsed().as_secs_f64());
        }
        println!("split_by_day: {:.2} ns/row", best / n as f64 * 1e9);
    }
}
