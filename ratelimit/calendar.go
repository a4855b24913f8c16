package ratelimit

import "time"

// calendar is a window of the calendar and what was used in it.
type calendar struct {
	end    time.Time
	opened int64 // the instant at which this key first used the window
	closes int64 // the instant at which it ends, as seen from then
	used   int64
}

func newCalendar(l *Limit, now instant, d debt) *calendar {
	c := new(calendar)
	c.open(l, now)
	if d.until > now.n {
		c.used = min(d.used, l.quota)
	}
	return c
}

// open begins the window that now is in.
func (c *calendar) open(l *Limit, now instant) {
	_, c.end = l.Window(now.time)
	c.opened = now.n
	c.closes = now.n + int64(c.end.Sub(now.time))
	c.used = 0
}

// turn begins the next window if its time has come. A clock that is set back
// stays in the window that has begun.
func (c *calendar) turn(l *Limit, now instant) {
	if !now.time.Before(c.end) {
		c.open(l, now)
	}
}

func (c *calendar) ask(l *Limit, now instant, cost int64) answer {
	c.turn(l, now)
	left := max(c.end.Sub(now.time), 0)
	a := answer{
		ok:        cost == 0 || c.used+cost <= l.quota,
		remaining: max(l.quota-c.used, 0),
		reset:     left,
	}
	if !a.ok {
		a.wait = left
		if cost > l.quota {
			a.wait = never
		}
	}
	return a
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
