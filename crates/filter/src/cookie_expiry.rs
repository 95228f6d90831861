//! Whether a `Set-Cookie` line deletes its cookie, as browsers read it (RFC 6265 sections 5.1.1, 5.2 and 5.3).

use session::time::UnixSeconds;

const MONTHS: [&[u8; 3]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];

/// Whether a browser that gets this line drops the cookie. `Max-Age` takes precedence over `Expires`, and for each of
/// them the last readable one counts.
pub(crate) fn is_deletion(line: &[u8], now: UnixSeconds) -> bool {
    let (mut max_age, mut expires) = (None, None);
    for attribute in line.split(|byte| *byte == b';').skip(1) {
        let mut parts = attribute.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let value = parts.next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"max-age") {
            max_age = is_over(value).or(max_age);
        } else if name.eq_ignore_ascii_case(b"expires") {
            expires = date(value).or(expires);
        }
    }
    max_age.unwrap_or_else(|| expires.is_some_and(|expires| expires <= now))
}

/// Whether a `Max-Age` leaves no time; `None` if it is no number (section 5.2.2).
fn is_over(value: &[u8]) -> Option<bool> {
    let (is_negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| is_negative || digits.iter().all(|digit| *digit == b'0'))
}

/// The date of an `Expires` (section 5.1.1): its parts come in any order, between any delimiters. One before 1970 is
/// 1970.
fn date(text: &[u8]) -> Option<UnixSeconds> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for part in text.split(|byte| is_delimiter(*byte)).filter(|part| !part.is_empty()) {
        if time.is_none()
            && let Some(found) = clock(part)
        {
            time = Some(found);
        } else if day.is_none()
            && let Some((found, _)) = number(part, 1, 2)
        {
            day = Some(found);
        } else if month.is_none()
            && let Some(found) = month_of(part)
        {
            month = Some(found);
        } else if year.is_none()
            && let Some((found, _)) = number(part, 2, 4)
        {
            year = Some(match found {
                70..=99 => found + 1900,
                0..=69 => found + 2000,
                found => found,
            });
        }
    }
    let ([hour, minute, second], day, month, year) = (time?, day?, month?, year?);
    let is_date = year >= 1601 && (1..=days_in(month, year)).contains(&day) && hour < 24 && minute < 60 && second < 60;
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    is_date.then(|| UnixSeconds::new(u64::try_from(seconds).unwrap_or_default()))
}

const fn is_delimiter(byte: u8) -> bool {
    matches!(byte, 0x09 | 0x20..=0x2F | 0x3B..=0x40 | 0x5B..=0x60 | 0x7B..=0x7E)
}

/// A number of `min` to `max` digits at the beginning, and the rest, which does not begin with a digit.
fn number(text: &[u8], min: usize, max: usize) -> Option<(i64, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(length)?;
    let value = digits
        .iter()
        .try_fold(0_i64, |value, digit| value.checked_mul(10)?.checked_add(i64::from(*digit) - i64::from(b'0')));
    (min..=max).contains(&length).then_some((value?, rest))
}

/// `hh:mm:ss`, one or two digits each.
fn clock(part: &[u8]) -> Option<[i64; 3]> {
    let (hour, rest) = number(part, 1, 2)?;
    let (minute, rest) = number(rest.strip_prefix(b":")?, 1, 2)?;
    let (second, _) = number(rest.strip_prefix(b":")?, 1, 2)?;
    Some([hour, minute, second])
}

/// 1 to 12.
fn month_of(part: &[u8]) -> Option<i64> {
    let name = part.get(..3)?;
    (1..).zip(MONTHS).find_map(|(number, month)| name.eq_ignore_ascii_case(month).then_some(number))
}

const fn days_in(month: i64, year: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// In the Gregorian calendar. Years are counted from March, so that the leap day comes last.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let before_year = year * 365 + year / 4 - year / 100 + year / 400;
    let before_month = (month * 153 + 2) / 5;
    before_year + before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_of_the_wild_are_read() {
        let expected = Some(UnixSeconds::new(1_784_111_696));
        for text in [
            "Wed, 15 Jul 2026 10:34:56 GMT",
            "Wednesday, 15-Jul-26 10:34:56 GMT",
            "Wed Jul 15 10:34:56 2026",
            "2026 july 15 10:34:56",
            "10:34:56 15Jul x",
        ] {
            let read = date(text.as_bytes());
            assert_eq!(read, if text.ends_with('x') { None } else { expected }, "{text}");
        }
        assert_eq!(date(b"Thu, 01-Jan-1970 00:00:01 GMT"), Some(UnixSeconds::new(1)), "PHP");
        assert_eq!(date(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(UnixSeconds::new(0)));
        assert_eq!(date(b"Mon, 01 Jan 1601 00:00:00 GMT"), Some(UnixSeconds::new(0)));
        for text in
            ["", "0", "-1", "Mon, 30 Feb 2026 00:00:00 GMT", "1 Jan 2026", "1 Jan 2026 24:00:00", "1 Jan 1600 0:0:0"]
        {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn max_age_counts_before_expires_and_the_last_of_each() {
        let now = UnixSeconds::new(1_784_111_696);
        let rows = [
            ("a=b", false),
            ("a=b; Max-Age=0", true),
            ("a=b; max-age = -5 ", true),
            ("a=b; Max-Age=00", true),
            ("a=b; Max-Age=1", false),
            ("a=b; Max-Age=99999999999999999999999", false),
            ("a=b; Max-Age=; Max-Age=-; Max-Age=x0", false),
            ("a=b; Max-Age=0; Max-Age=9", false),
            ("a=b; Max-Age=9; Max-Age=0; Max-Age=x", true),
            ("a=b; Max-Age=9; Expires=Thu, 01 Jan 1970 00:00:00 GMT", false),
            ("a=b; Max-Age=0; Expires=Fri, 01 Jan 2100 00:00:00 GMT", true),
            ("a=b; EXPIRES=Thu, 01-Jan-1970 00:00:01 GMT", true),
            ("a=b; Expires=Thu, 01-Jan-1970 00:00:01 GMT; Expires=never", true),
            ("Max-Age=0", false),
        ];
        for (line, expected) in rows {
            assert_eq!(is_deletion(line.as_bytes(), now), expected, "{line}");
        }
    }

    /// One day after the other.
    fn naive(year: i64, month: i64, day: i64) -> i64 {
        let mut days = day - 1;
        for year in 1970..year {
            days += (1..=12).map(|month| days_in(month, year)).sum::<i64>();
        }
        days + (1..month).map(|month| days_in(month, year)).sum::<i64>()
    }

    proptest! {
        #[test]
        fn the_calendar_is_that_of_counting_days(year in 1970..2400_i64, month in 1..=12_i64, day in 1..=31_i64) {
            prop_assume!(day <= days_in(month, year));
            prop_assert_eq!(days_since_1970(year, month, day), naive(year, month, day));
        }

        #[test]
        fn arbitrary_bytes_are_some_line(line: Vec<u8>, now: u64) {
            is_deletion(&line, UnixSeconds::new(now));
            date(&line);
        }
    }
}
