//! Numbers as the report prints them: whole ones grouped, others to four digits, money to the cent.

/// `1234567.4` -> `1,234,567`, `12.3456` -> `12.35`, `0.00012345` -> `0.0001234`.
pub(super) fn plain(value: f64) -> String {
    let size = value.abs();
    if size >= 10_000.0 || value.fract() == 0.0 {
        return grouped(&format!("{value:.0}"));
    }
    // so many places that four digits are shown
    let places = (3 - size.log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    grouped(text)
}

/// Dollars: cents below 10,000, and three digits of what is below a cent.
pub(super) fn dollars(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000.0 => grouped(&format!("{value:.0}")),
        size if size >= 0.01 || size == 0.0 => grouped(&format!("{value:.2}")),
        _ => plain(value),
    }
}

/// Puts commas between each three digits before the point.
fn grouped(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |text| ("-", text));
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, part)| (whole, Some(part)));
    let mut out = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits_and_money_its_cents() {
        for (value, text) in [
            (0.0, "0"),
            (3.0, "3"),
            (1_000_000.0, "1,000,000"),
            (1_234_567.4, "1,234,567"),
            (1234.5678, "1,235"),
            (12.3456, "12.35"),
            (0.5, "0.5"),
            (0.000_123_456, "0.0001235"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(plain(value), text);
        }
        for (value, text) in [(0.0, "0.00"), (1234.5, "1,234.50"), (123_456.7, "123,457"), (0.004, "0.004")] {
            assert_eq!(dollars(value), text);
        }
    }
}
