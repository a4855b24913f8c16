package ratelimit

import "time"

// A calendar is the present window, and how much was used in it. Times of the wall clock
// are nanoseconds since 1970.
type calendar struct {
	end int64 // of the window, by the wall clock
	// next is the end of the window after that, as the caller has given it. It is 0 if the
	// caller has given no windows, and equals end if that window is unknown.
	next   int64
	opened int64 // the instant at which the key first used the window
	closes int64 // the instant at which the window ends, as expected when it was opened
	used   int64
}

// newCalendar needs an instant with the charge of a calendar limit.
func newCalendar(l *Limit, now instant, d debt) *calendar {
	c := new(calendar)
	c.open(l, now, now.calendar.wall)
	if d.until > now.n {
		c.used = min(d.used, l.quota)
	}
	return c
}

// time returns the time by the wall clock. For an instant without a charge, it is the time
// that was expected when the window was opened.
func (c *calendar) time(now instant) int64 {
	if now.calendar == nil {
		return c.end + now.n - c.closes
	}
	return now.calendar.wall
}

// open begins the window that contains t.
func (c *calendar) open(l *Limit, now instant, t int64) {
	switch charge := now.calendar; {
	case charge == nil && c.next != 0:
		c.end = c.next
	case charge == nil || charge.Windows[0].End.IsZero():
		_, end := l.Window(time.Unix(0, t))
		c.end, c.next = end.UnixNano(), 0
	default:
		c.end, c.next = charge.Windows[0].End.UnixNano(), charge.Windows[1].End.UnixNano()
		if t >= c.end {
			c.end = c.next
		}
	}
	c.opened = now.n
	c.closes = now.n + c.end - t
	c.used = 0
}

// turn begins the next window if the present one has ended, and returns the time until the
// end of the window. If the clock is set back, the window that has begun stays.
func (c *calendar) turn(l *Limit, now instant) (left time.Duration) {
	t := c.time(now)
	if t >= c.end {
		c.open(l, now, t)
	}
	return time.Duration(c.end - t)
}

// unknown reports whether now is after the last window that is known.
func (c *calendar) unknown(now instant) bool { return c.next != 0 && c.time(now) >= c.next }

func (c *calendar) check(l *Limit, now instant, cost int64) result {
	left := c.turn(l, now)
	res := result{
		ok:        cost == 0 || c.used+cost <= l.quota,
		remaining: max(l.quota-c.used, 0),
		reset:     left,
	}
	if !res.ok {
		res.wait = left
		if cost > l.quota {
			res.wait = never
		}
	}
	return res
}

func (c *calendar) take(_ *Limit, _ instant, cost int64) { c.used += cost }

func (c *calendar) adjust(l *Limit, now instant, at, cost int64) (moved int64) {
	c.turn(l, now)
	switch {
	case cost > 0:
		moved = min(cost, max(l.quota-c.used, 0))
	case at >= c.opened:
		moved = max(cost, -c.used)
	}
	c.used += moved
	return moved
}

func (c *calendar) debt(*Limit, instant) debt { return debt{used: c.used, until: c.closes} }

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
	// has begun. So the position of t among the midnights counts, not its date.
	from, to := l.dates(t, 0)
	start, end = midnight(from, l.zone), midnight(to, l.zone)
	for n := 1; !t.Before(end); n++ {
		_, to = l.dates(t, n)
		start, end = end, midnight(to, l.zone)
	}
	for n := -1; t.Before(start); n-- {
		from, _ = l.dates(t, n)
		start, end = midnight(from, l.zone), start
	}
	return start, end
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

// A date is a day of the calendar without a time zone: midnight of it in UTC.
type date = time.Time

// dates returns the first day of the n-th unit after the one that contains t, by the
// calendar of its zone, and the first day after that unit.
func (l Limit) dates(t time.Time, n int) (from, to date) {
	year, month, day := t.Date()
	on := func(y int, m time.Month, d int) date { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }
	switch l.unit {
	case Day:
		return on(year, month, day+n), on(year, month, day+n+1)
	case Week:
		day -= (int(t.Weekday()) + 6) % 7
		return on(year, month, day+7*n), on(year, month, day+7*n+7)
	case Month:
		return on(year, month+time.Month(n), 1), on(year, month+time.Month(n)+1, 1)
	default:
		return on(year+n, 1, 1), on(year+n+1, 1, 1)
	}
}

// midnight returns the first instant of a day in a zone. Where clocks go forward
// over midnight the day begins with the new time, for which [time.Date] may return
// an instant before or after.
func midnight(d date, zone *time.Location) time.Time {
	year, month, day := d.Date()
	t := time.Date(year, month, day, 0, 0, 0, 0, zone)
	_, offset := t.Zone()
	switch shown := t.Unix() + int64(offset); {
	case shown < d.Unix():
		_, t = t.ZoneBounds()
	case shown > d.Unix():
		t, _ = t.ZoneBounds()
	}
	return t
}
