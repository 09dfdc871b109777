package prefix

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Pattern is a parsed DateTimeFormatter pattern: the letters below, quoted
// text, and any other characters as they are. Letters of Java's that are not
// here (eras, padding, optional sections and the like) are refused by name.
//
//	y u  year of era, year        a    AM or PM
//	Y    week-based year (US)     h K  hour of half day 1-12, 0-11
//	Q q  quarter                  H k  hour of day 0-23, 1-24
//	M L  month                    m s  minute, second
//	w    week of year (US)        S    fraction of the second
//	d D  day of month, of year    n A  nanosecond; millisecond of day
//	E e c day of week             z VV zone abbreviation, zone id
//	                              Z X x offset
//
// Weeks are those of the United States, which is the locale Firehose runs
// in: they start on Sunday and week 1 holds January 1.
type Pattern struct{ fields []field }

type field struct {
	letter byte // 0: text
	count  int
	text   string
}

// maxCount is how many times each letter may stand in a row, as in
// DateTimeFormatterBuilder.parseField.
var maxCount = map[byte]int{
	'y': 15, 'u': 15, 'Y': 15, 'Q': 5, 'q': 5, 'M': 5, 'L': 5, 'w': 2, 'd': 2, 'D': 3,
	'E': 5, 'e': 5, 'c': 5, 'a': 1, 'h': 2, 'K': 2, 'H': 2, 'k': 2, 'm': 2, 's': 2,
	'S': 9, 'n': 15, 'A': 15, 'z': 3, 'V': 2, 'Z': 5, 'X': 5, 'x': 5,
}

// ParsePattern reads a DateTimeFormatter pattern.
func ParsePattern(s string) (*Pattern, error) {
	p := &Pattern{}
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			n := 1
			for i+n < len(s) && s[i+n] == c {
				n++
			}
			if err := checkLetter(c, n); err != nil {
				return nil, fmt.Errorf("pattern %q: %w", s, err)
			}
			p.fields = append(p.fields, field{letter: c, count: n})
			i += n
		case c == '\'':
			text, next, err := quoted(s, i)
			if err != nil {
				return nil, err
			}
			p.text(text)
			i = next
		case strings.IndexByte("[]{}#", c) >= 0:
			return nil, fmt.Errorf("pattern %q: %q is reserved; quote it: '%c'", s, c, c)
		default:
			p.text(s[i : i+1])
			i++
		}
	}
	return p, nil
}

func checkLetter(c byte, n int) error {
	most, known := maxCount[c]
	switch {
	case !known:
		return fmt.Errorf("letter %q is not supported", c)
	case n > most:
		return fmt.Errorf("too many pattern letters: %q stands %d times, at most %d", c, n, most)
	case c == 'V' && n != 2:
		return fmt.Errorf("pattern letter count must be 2: 'V'")
	case c == 'c' && n == 2:
		return fmt.Errorf("invalid pattern \"cc\"")
	}
	return nil
}

// quoted returns the text of the quoted run that starts at s[i], in which ”
// stands for a quote; outside of a run ” is a quote too.
func quoted(s string, i int) (text string, next int, err error) {
	var b strings.Builder
	start := i
	for i++; i < len(s); i++ {
		if s[i] != '\'' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		if b.Len() == 0 {
			return "'", i + 1, nil
		}
		return b.String(), i + 1, nil
	}
	return "", 0, fmt.Errorf("pattern %q: string starting at %d is not closed by '", s, start)
}

func (p *Pattern) text(s string) {
	if n := len(p.fields); n > 0 && p.fields[n-1].letter == 0 {
		p.fields[n-1].text += s
		return
	}
	p.fields = append(p.fields, field{text: s})
}

// Format writes t, in t's own zone.
func (p *Pattern) Format(t time.Time) string {
	var b strings.Builder
	p.format(&b, t)
	return b.String()
}

func (p *Pattern) format(b *strings.Builder, t time.Time) {
	for _, f := range p.fields {
		switch f.letter {
		case 0:
			b.WriteString(f.text)
		case 'y', 'u':
			year(b, t.Year(), f.count)
		case 'Y':
			y, _ := usWeek(t)
			year(b, y, f.count)
		case 'w':
			_, w := usWeek(t)
			number(b, w, f.count)
		case 'Q', 'q':
			quarter(b, (int(t.Month())-1)/3+1, f.count)
		case 'M', 'L':
			named(b, int(t.Month()), t.Month().String(), f.count, 2)
		case 'd':
			number(b, t.Day(), f.count)
		case 'D':
			number(b, t.YearDay(), f.count)
		case 'E':
			named(b, 0, t.Weekday().String(), max(f.count, 3), 0)
		case 'e', 'c':
			named(b, int(t.Weekday())+1, t.Weekday().String(), f.count, 2)
		default:
			clockField(b, f, t)
		}
	}
}

// clockField writes the letters of the time of day and of the zone.
func clockField(b *strings.Builder, f field, t time.Time) {
	switch f.letter {
	case 'a':
		b.WriteString(t.Format("PM"))
	case 'h':
		number(b, (t.Hour()+11)%12+1, f.count)
	case 'K':
		number(b, t.Hour()%12, f.count)
	case 'H':
		number(b, t.Hour(), f.count)
	case 'k':
		number(b, (t.Hour()+23)%24+1, f.count)
	case 'm':
		number(b, t.Minute(), f.count)
	case 's':
		number(b, t.Second(), f.count)
	case 'S':
		b.WriteString(fmt.Sprintf("%09d", t.Nanosecond())[:f.count])
	case 'n':
		number(b, t.Nanosecond(), f.count)
	case 'A':
		midnight := (t.Hour()*60+t.Minute())*60 + t.Second()
		number(b, midnight*1000+t.Nanosecond()/1e6, f.count)
	case 'z':
		name, _ := t.Zone()
		b.WriteString(name)
	case 'V':
		b.WriteString(t.Location().String())
	case 'Z', 'X', 'x':
		offset(b, f, t)
	}
}

// year writes a year as appendValue does: two letters are the last two
// digits, otherwise at least count digits.
func year(b *strings.Builder, y, count int) {
	if count == 2 {
		number(b, y%100, 2)
		return
	}
	number(b, y, count)
}

func number(b *strings.Builder, v, width int) {
	s := strconv.Itoa(v)
	for n := len(s); n < width; n++ {
		b.WriteByte('0')
	}
	b.WriteString(s)
}

// named writes a number for up to digits letters, then the short, full and
// one-letter names.
func named(b *strings.Builder, v int, name string, count, digits int) {
	switch {
	case count <= digits:
		number(b, v, count)
	case count == 3:
		b.WriteString(name[:3])
	case count == 4:
		b.WriteString(name)
	default:
		b.WriteString(name[:1])
	}
}

func quarter(b *strings.Builder, q, count int) {
	switch count {
	case 1, 2:
		number(b, q, count)
	case 3:
		fmt.Fprintf(b, "Q%d", q)
	case 4:
		b.WriteString([]string{"1st", "2nd", "3rd", "4th"}[q-1] + " quarter")
	default:
		number(b, q, 1)
	}
}

// offset writes Z, X and x: the letter decides what zero looks like, the
// count the colons, minutes and seconds.
func offset(b *strings.Builder, f field, t time.Time) {
	_, seconds := t.Zone()
	count := f.count
	if f.letter == 'Z' {
		switch {
		case count <= 3:
			count = 2 // +hhmm
		case count == 4:
			localizedOffset(b, seconds)
			return
		}
	}
	if seconds == 0 && (f.letter == 'X' || f.letter == 'Z' && count == 5) {
		b.WriteByte('Z')
		return
	}
	sign := byte('+')
	if seconds < 0 {
		sign, seconds = '-', -seconds
	}
	b.WriteByte(sign)
	colon := ""
	if count == 3 || count == 5 {
		colon = ":"
	}
	number(b, seconds/3600, 2)
	if count > 1 || seconds/60%60 != 0 {
		b.WriteString(colon)
		number(b, seconds/60%60, 2)
	}
	if count >= 4 && seconds%60 != 0 {
		b.WriteString(colon)
		number(b, seconds%60, 2)
	}
}

func localizedOffset(b *strings.Builder, seconds int) {
	b.WriteString("GMT")
	if seconds == 0 {
		return
	}
	sign := byte('+')
	if seconds < 0 {
		sign, seconds = '-', -seconds
	}
	b.WriteByte(sign)
	number(b, seconds/3600, 2)
	b.WriteByte(':')
	number(b, seconds/60%60, 2)
}

// usWeek returns the week-based year and week of t by the rule of the United
// States: weeks start on Sunday, week 1 holds January 1.
func usWeek(t time.Time) (year, week int) {
	year = t.Year()
	sunday := t.YearDay() - 1 - int(t.Weekday()) // day of year, 0-based, of this week's Sunday
	if sunday+6 >= daysIn(year) {
		return year + 1, 1 // this week holds the next January 1
	}
	return year, (sunday + 13) / 7
}

func daysIn(year int) int {
	return time.Date(year, 12, 31, 0, 0, 0, 0, time.UTC).YearDay()
}
