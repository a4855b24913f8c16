package ratelimittest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

var windowMistakes = map[string]mistake{
	"reports no Reset": {
		"Reset is the time until more is left",
		results(func(c *ratelimit.Charge) { c.Reset = 0 }).made,
	},
	"reports a Reset that is a year off": {
		"Reset is the time until more is left",
		results(func(c *ratelimit.Charge) { c.Reset += 365 * 24 * time.Hour }).made,
	},
	"reports as Reset when all is left": {
		"Reset is the time until more is left",
		results(func(c *ratelimit.Charge) {
			if c.Limit.Algorithm() == ratelimit.AlgorithmTokenBucket {
				c.Reset += c.Limit.Per() / time.Duration(c.Limit.Quota()) * time.Duration(c.Limit.Burst()-c.Remaining-1)
			}
		}).made,
	},
	"reports Reset in milliseconds as seconds": {
		"Reset is the time until more is left",
		results(func(c *ratelimit.Charge) { c.Reset /= 1000 }).made,
	},
	"reports no Wait": {
		"Wait is the time until the cost fits",
		results(func(c *ratelimit.Charge) { c.Wait = min(c.Wait, 0) }).made,
	},
	"reports Reset as Wait": {
		"Wait is the time until the cost fits",
		results(func(c *ratelimit.Charge) {
			if c.Wait > 0 {
				c.Wait = c.Reset
			}
		}).made,
	},
	"reports a Wait for what it admits": {
		"Wait is the time until the cost fits",
		results(func(c *ratelimit.Charge) {
			if c.Wait == 0 {
				c.Wait = c.Reset
			}
		}).made,
	},
	"reports the Wait of a calendar an hour too short": {
		"Wait is the time until the cost fits",
		results(func(c *ratelimit.Charge) {
			if c.Wait > 0 && c.Limit.Algorithm() == ratelimit.AlgorithmCalendarWindow {
				c.Wait -= time.Hour
			}
		}).made,
	},
	"computes Wait for the cost alone": {
		"Wait is the time until the cost fits",
		results(func(c *ratelimit.Charge) {
			if c.MinRemaining > c.Cost {
				c.Wait = 0
			}
		}).made,
	},
	"never ends a window": {"after the wait the cost fits", neverEnds},
	"never ends a calendar window": {
		"a calendar window ends when the charge says, and the next begins",
		asked(func(c *ratelimit.Charge) { c.Windows[0].End = c.Windows[0].End.Add(time.Hour) }).made,
	},
	"computes the windows of the calendar itself": {
		"a calendar window ends when the charge says, and the next begins",
		asked(func(c *ratelimit.Charge) { c.Windows = [2]ratelimit.Window{} }).made,
	},
	"takes the later of the windows": {
		"a calendar window ends when the charge says, and the next begins",
		asked(func(c *ratelimit.Charge) { c.Windows[0] = c.Windows[1] }).made,
	},
	"counts by the window of the caller": {
		"a calendar window stays until it has ended",
		asked(func(c *ratelimit.Charge) {
			if end := c.Windows[0].End; !end.IsZero() {
				c.Policy += end.String()
			}
		}).made,
	},
	"begins a window that has ended": {
		"calendar windows that have ended are an error",
		asked(func(c *ratelimit.Charge) {
			if c.Limit.Algorithm() == ratelimit.AlgorithmCalendarWindow && time.Now().After(c.Windows[1].End) {
				c.Windows = [2]ratelimit.Window{}
			}
		}).made,
	},
	"charges the other policies when windows have ended": {
		"calendar windows that have ended are an error", oneByOne,
	},
	"keeps a window from a clock that was ahead": {
		"the present calendar window takes the place of a later one", keepsLater(false),
	},
	"forgets what was used when a clock is set back": {
		"the present calendar window takes the place of a later one", keepsLater(true),
	},
	"finds the present window in Take alone": {
		"the present calendar window takes the place of a later one",
		askedTo(nil, func(c *ratelimit.Charge) {
			if end := c.Windows[0].End; !end.IsZero() && time.Until(end) < 8000*time.Hour {
				c.Windows[0].End, c.Windows[1].End = end.AddDate(1, 0, 0), end.AddDate(1, 0, 1)
			}
		}).made,
	},
	"identifies a calendar window by its unit": {
		"a calendar window is identified by its zone and its anchor",
		asked(func(c *ratelimit.Charge) {
			if unit, _ := c.Limit.Calendar(); unit != 0 {
				c.Limit = ratelimit.CalendarWindow(int(c.Limit.Quota()), unit)
			}
		}).made,
	},
	"identifies a calendar window by its zone": {
		"a calendar window is identified by its zone and its anchor",
		asked(func(c *ratelimit.Charge) {
			if unit, begin := c.Limit.Calendar(); unit != 0 {
				zone, _, _ := strings.Cut(begin, "@")
				c.Limit = ratelimit.CalendarWindow(int(c.Limit.Quota()), unit).In(time.FixedZone(zone, 0))
			}
		}).made,
	},
	"identifies a calendar window by the instant of its anchor": {
		"a calendar window is identified by its zone and its anchor", byInstant,
	},
}

// neverEnds makes short windows long, and reports the Wait of short ones.
func neverEnds(m *ratelimit.Memory) ratelimit.Store {
	return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
		return results(func(c *ratelimit.Charge) {
			if c.Wait > 0 {
				c.Wait = min(c.Limit.Per(), 10*time.Millisecond)
			}
		})(asked(func(c *ratelimit.Charge) {
			if c.Limit.Algorithm() == ratelimit.AlgorithmRollingWindow {
				c.Limit = ratelimit.RollingWindow(int(c.Limit.Quota()), 1000*c.Limit.Per())
			}
		})(m)).Take(ctx, d)
	}}
}

// keepsLater lets no window end before another has, or forgets the key.
func keepsLater(forgets bool) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		latest := make(map[string][2]ratelimit.Window)
		return asked(func(c *ratelimit.Charge) {
			if c.Windows[0].End.IsZero() {
				return
			}
			known, ok := latest[c.Policy]
			switch {
			case !ok || c.Windows[0].End.After(known[0].End):
				latest[c.Policy] = c.Windows
			case forgets && c.Windows[0].End.Before(known[0].End):
				latest[c.Policy] = c.Windows
				_ = m.Reset(context.Background(), []ratelimit.Counter{{Policy: c.Policy, Key: c.Key}})
			default:
				c.Windows = known
			}
		})(m)
	}
}

// byInstant counts two anchors apart even if they have the same anniversaries.
func byInstant(m *ratelimit.Memory) ratelimit.Store {
	var known []ratelimit.Limit
	return asked(func(c *ratelimit.Charge) {
		i := slices.Index(known, c.Limit)
		if i < 0 {
			i, known = len(known), append(known, c.Limit)
		}
		if unit, _ := c.Limit.Calendar(); unit != 0 {
			c.Policy += fmt.Sprint("-", i)
		}
	})(m)
}
