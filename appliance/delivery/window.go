package delivery

import (
	"fmt"
	"time"
)

// window is a time of day in which a stream may send, in minutes.
type window struct{ from, to int }

// parseWindows reads "22:00-06:00" forms. An end before its start is the next
// day's.
func parseWindows(texts []string) ([]window, error) {
	var out []window
	for _, text := range texts {
		var fh, fm, th, tm int
		var rest string
		n, _ := fmt.Sscanf(text, "%d:%d-%d:%d%s", &fh, &fm, &th, &tm, &rest)
		if n != 4 || fh < 0 || fh > 24 || th < 0 || th > 24 || fm < 0 || fm > 59 || tm < 0 || tm > 59 || fh*60+fm > 1440 || th*60+tm > 1440 {
			return nil, fmt.Errorf("%q is not a window like 22:00-06:00", text)
		}
		w := window{fh*60 + fm, th*60 + tm}
		if w.from == w.to || w.from == 24*60 && w.to == 0 {
			return nil, fmt.Errorf("window %q is empty", text)
		}
		out = append(out, w)
	}
	return out, nil
}

// untilOpen is how long until one of the windows is open; 0 when one is, or
// when there are none.
func untilOpen(windows []window, now time.Time) time.Duration {
	if len(windows) == 0 {
		return 0
	}
	minute := now.Hour()*60 + now.Minute()
	wait := 24 * 60
	for _, w := range windows {
		open := minute >= w.from && minute < w.to
		if w.to < w.from {
			open = minute >= w.from || minute < w.to
		}
		if open {
			return 0
		}
		wait = min(wait, (w.from-minute+1440)%1440)
	}
	return time.Duration(wait)*time.Minute - time.Duration(now.Second())*time.Second
}
