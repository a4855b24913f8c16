package ratelimit

import "time"

// A calendar is the present window, and how much was used in it. Times of the wall clock
// are nanoseconds since 1970.
type calendar struct {
	// The window by the wall clock. Its start is 0 if the caller has not given it.
	start, end int64
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
	if charge := now.calendar; charge == nil && c.next != 0 {
		c.start, c.end = c.end, c.next
	} else {
		c.choose(l, charge, t)
	}
	c.opened = now.n
	c.closes = now.n + c.end - t
	c.used = 0
}

// choose makes the window that contains t the present one.
func (c *calendar) choose(l *Limit, charge *Charge, t int64) {
	if charge == nil || charge.Windows[0].End.IsZero() {
		start, end := l.Window(time.Unix(0, t))
		c.start, c.end, c.next = start.UnixNano(), end.UnixNano(), 0
		return
	}
	w := charge.Windows[0]
	c.next = charge.Windows[1].End.UnixNano()
	if t >= w.End.UnixNano() {
		w = charge.Windows[1]
	}
	c.start, c.end = 0, w.End.UnixNano()
	if !w.Start.IsZero() {
		c.start = w.Start.UnixNano()
	}
}

// early reports whether t is in a window before the present one, because the clock was
// ahead and has been set back.
func (c *calendar) early(charge *Charge, t int64) bool {
	if charge == nil || charge.Windows[0].End.IsZero() {
		return charge != nil && t < c.start
	}
	end := charge.Windows[0].End.UnixNano()
	return t < end && end < c.end
}

// turn begins the next window if the present one has ended, and returns the time until the
// end of the window. If the clock was ahead, the window that contains the present time takes
// the place of the later one, with what was used in it: a key is refused for no longer than
// one window, and the step gives it no more than one quota.
func (c *calendar) turn(l *Limit, now instant) (left time.Duration) {
	switch t := c.time(now); {
	case t >= c.end:
		c.open(l, now, t)
	case c.early(now.calendar, t):
		c.choose(l, now.calendar, t)
		c.closes = now.n + c.end - t
	}
	return time.Duration(c.end - c.time(now))
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
