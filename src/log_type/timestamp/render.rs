//! Renders a point in time in the form that it was read in.
use super::{
    CLF, DAY_MICROS, EPOCH, EPOCH_MILLIS, FIRST_OFFSET_MINUTES, FRACTIONS, MICROS, MONTHS, SPACE,
    SYSLOG_SPACE, ZONE_FIRST_OFFSET, ZONE_Z, date_from_days,
};

/// Appends the text of `micros` as `form` writes it. [`OTHER`](super::OTHER) has no text of its own.
pub fn render(micros: i64, form: u16, out: &mut Vec<u8>) {
    if form < SPACE {
        let (zone, digits) = (form / FRACTIONS, form % FRACTIONS);
        let offset = zone.checked_sub(ZONE_FIRST_OFFSET).map(offset_minutes);
        render_date_time(micros + offset.unwrap_or(0) * 60 * MICROS, b'T', digits, out);
        match offset {
            Some(minutes) => render_offset(minutes, true, out),
            None if zone == ZONE_Z => out.push(b'Z'),
            None => {}
        }
    } else if form < CLF {
        let (zone, digits) = ((form - SPACE) / 3, (form - SPACE) % 3 * 3);
        render_date_time(micros, b' ', digits, out);
        if zone == ZONE_Z {
            out.push(b'Z');
        }
    } else if form < SYSLOG_SPACE {
        let minutes = offset_minutes(form - CLF);
        let local = micros + minutes * 60 * MICROS;
        let (year, month, day) = date_from_days(local.div_euclid(DAY_MICROS));
        push_number(day, 2, b'0', out);
        out.push(b'/');
        out.extend_from_slice(MONTHS[month as usize - 1]);
        out.push(b'/');
        push_number(year, 4, b'0', out);
        out.push(b':');
        render_clock(local, out);
        out.push(b' ');
        render_offset(minutes, false, out);
    } else if form < EPOCH {
        let (_, month, day) = date_from_days(micros.div_euclid(DAY_MICROS));
        out.extend_from_slice(MONTHS[month as usize - 1]);
        out.push(b' ');
        push_number(day, 2, if form == SYSLOG_SPACE { b' ' } else { b'0' }, out);
        out.push(b' ');
        render_clock(micros, out);
    } else if form < EPOCH_MILLIS {
        push_number(micros.div_euclid(MICROS), 1, b'0', out);
        render_fraction(micros, form - EPOCH, out);
    } else if form == EPOCH_MILLIS {
        push_number(micros.div_euclid(1000), 1, b'0', out);
    }
}

/// The text of a timestamp that no form is stored for: RFC 3339, UTC, with 0, 3 or 6 digits, the fewest that hold it.
pub fn render_plain(micros: i64, out: &mut Vec<u8>) {
    let digits = match micros {
        _ if micros % MICROS == 0 => 0,
        _ if micros % 1000 == 0 => 3,
        _ => 6,
    };
    render(micros, ZONE_Z * FRACTIONS + digits, out);
}

fn offset_minutes(index: u16) -> i64 {
    FIRST_OFFSET_MINUTES + i64::from(index) * 30
}

fn render_date_time(micros: i64, separator: u8, digits: u16, out: &mut Vec<u8>) {
    let (year, month, day) = date_from_days(micros.div_euclid(DAY_MICROS));
    push_number(year, 4, b'0', out);
    out.push(b'-');
    push_number(month, 2, b'0', out);
    out.push(b'-');
    push_number(day, 2, b'0', out);
    out.push(separator);
    render_clock(micros, out);
    render_fraction(micros, digits, out);
}

fn render_clock(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros.rem_euclid(DAY_MICROS) / MICROS;
    push_number(seconds / 3600, 2, b'0', out);
    out.push(b':');
    push_number(seconds / 60 % 60, 2, b'0', out);
    out.push(b':');
    push_number(seconds % 60, 2, b'0', out);
}

fn render_fraction(micros: i64, digits: u16, out: &mut Vec<u8>) {
    if digits > 0 {
        out.push(b'.');
        let fraction = micros.rem_euclid(MICROS) / 10_i64.pow(6 - u32::from(digits));
        push_number(fraction, usize::from(digits), b'0', out);
    }
}

fn render_offset(minutes: i64, colon: bool, out: &mut Vec<u8>) {
    out.push(if minutes < 0 { b'-' } else { b'+' });
    push_number(minutes.abs() / 60, 2, b'0', out);
    if colon {
        out.push(b':');
    }
    push_number(minutes.abs() % 60, 2, b'0', out);
}

/// Appends a number of at least `width` characters, filled on the left.
fn push_number(number: i64, width: usize, fill: u8, out: &mut Vec<u8>) {
    let mut digits = [fill; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}
