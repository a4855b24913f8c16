package ratelimit

import (
	"fmt"
	"strings"
	"time"
)

var unitLengths = [...]time.Duration{
	Minute: time.Minute,
	Hour:   time.Hour,
	Day:    24 * time.Hour,
	Week:   7 * 24 * time.Hour,
	Month:  31 * 24 * time.Hour,
	Year:   366 * 24 * time.Hour,
}

// Window returns the window of a [CalendarWindow] that contains t: its first instant, and
// the first instant after it, which is always after t. One window begins where another
// ends. Both are zero for any other limit.
func (l Limit) Window(t time.Time) (start, end time.Time) {
	if l.zone == nil {
		return time.Time{}, time.Time{}
	}
	t = t.In(l.zone)
	if l.unit == Minute || l.unit == Hour {
		return elapsed(t, unitLengths[l.unit])
	}
	// Where clocks go back over midnight, a date occurs a second time after the next one
	// has begun. So the position of t among the bounds counts, not its date.
	from := l.begin()
	bound := func(n int) time.Time { return earliest(from.anniversary(l.unit, t, n), l.zone) }
	start, end = bound(0), bound(1)
	for n := 2; !t.Before(end); n++ {
		start, end = end, bound(n)
	}
	for n := -1; t.Before(start); n-- {
		start, end = bound(n), start
	}
	return start, end
}

// Calendar returns the unit of a calendar window, and a text that is the same for two of
// them if and only if their windows begin at the same times of a time zone with the same
// name. The text has no spaces. Both are zero for any other limit.
func (l Limit) Calendar() (unit Unit, begin string) {
	switch {
	case l.zone == nil:
		return 0, ""
	case !l.anchored:
		return l.unit, escape(l.zone.String())
	default:
		return l.unit, escape(l.zone.String()) + "@" + l.begin().text(l.unit)
	}
}

// escape returns a name without any of the bytes that could be taken for something else.
// Names of the tz database have none of them.
func escape(name string) string {
	plain := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/_+-.:", c) >= 0
	}
	escaped := 0
	for i := range len(name) {
		if !plain(name[i]) {
			escaped++
		}
	}
	if escaped == 0 {
		return name
	}
	b := make([]byte, 0, len(name)+2*escaped)
	for i := range len(name) {
		if c := name[i]; plain(c) {
			b = append(b, c)
		} else {
			b = fmt.Appendf(b, "%%%02x", c)
		}
	}
	return string(b)
}

// windows returns the window that contains t, and the next one.
func (l Limit) windows(t time.Time) (w [2]Window) {
	w[0].Start, w[0].End = l.Window(t)
	w[1].Start, w[1].End = l.Window(w[0].End)
	return w
}

// elapsed returns the window that contains t in elapsed time, not by the wall clock: an
// hour that the end of summer time repeats is two windows. Some zones are offset by
// minutes, and a window ends where the offset changes.
func elapsed(t time.Time, length time.Duration) (start, end time.Time) {
	_, offset := t.Zone()
	shift := time.Duration(offset) * time.Second
	start = t.Add(shift).Truncate(length).Add(-shift)
	end = start.Add(length)
	// Not every bound that ZoneBounds returns is a change of the offset.
	if _, before := start.Zone(); before != offset {
		start, _ = t.ZoneBounds()
	}
	if _, after := end.Add(-1).Zone(); after != offset {
		_, end = t.ZoneBounds()
	}
	return start, end
}

// A local is a time by the wall clock of some zone, as a time in UTC.
type local = time.Time

// A begin is when windows begin: their time of day, and their day of the week, of the month
// or of the year.
type begin struct {
	month   time.Month
	day     int
	weekday time.Weekday
	clock   time.Duration
}

// begin returns when the windows of l begin.
func (l *Limit) begin() begin {
	if !l.anchored {
		return begin{time.January, 1, time.Monday, 0}
	}
	t := time.Unix(l.anchor, 0).In(l.zone)
	hour, minute, second := t.Clock()
	clock := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second
	return begin{t.Month(), t.Day(), t.Weekday(), clock}
}

// text returns a text that is the same for two begins only if windows of this unit begin at
// the same times.
func (b begin) text(unit Unit) string {
	day := ""
	switch unit {
	case Week:
		day = b.weekday.String()[:3]
	case Month:
		day = fmt.Sprintf("%02d", b.day)
	case Year:
		day = fmt.Sprintf("%02d-%02d", b.month, b.day)
	}
	return day + "T" + time.Unix(0, int64(b.clock)).UTC().Format("15:04:05")
}

// anniversary returns the anniversary in the day, week, month or year that contains t, or the
// n-th one after it.
func (b begin) anniversary(unit Unit, t time.Time, n int) local {
	year, month, day := t.Date()
	switch unit {
	case Day:
		day += n
	case Week:
		day += 7*n - int(t.Weekday()-b.weekday+7)%7
	case Month:
		year, month, _ = time.Date(year, month+time.Month(n), 1, 0, 0, 0, 0, time.UTC).Date()
		day = min(b.day, length(year, month))
	default:
		year, month = year+n, b.month
		day = min(b.day, length(year, month))
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Add(b.clock)
}

// length returns the number of days of a month.
func length(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// earliest returns the first instant of a zone at which its clocks show a time, or a later
// one. Where clocks go forward, they skip times, for which [time.Date] may return an instant
// before or after. Where they go back, they show times twice.
func earliest(d local, zone *time.Location) time.Time {
	year, month, day := d.Date()
	hour, minute, second := d.Clock()
	t := time.Date(year, month, day, hour, minute, second, 0, zone)
	from, to := t.ZoneBounds()
	_, offset := t.Zone()
	switch shown := t.Unix() + int64(offset); {
	case shown < d.Unix():
		return to
	case shown > d.Unix():
		return from
	case from.IsZero():
		return t
	}
	_, before := from.Add(-1).Zone()
	if first := t.Add(time.Duration(offset-before) * time.Second); first.Before(from) {
		return first
	}
	return t
}
