package ratelimit_test

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// TestEveryDayIsInOneWindow checks the windows of days from 1970 to 2040 in all time zones,
// at random times of the day: of some days, or of each with USHER_SOAK=1. Every window
// contains the time that it was asked for, ends after it, ends where the next begins, and
// begins at its anniversary.
func TestEveryDayIsInOneWindow(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	day := func(month time.Month, day, hour, minute int) time.Time {
		return time.Date(2024, month, day, hour, minute, 0, 0, time.UTC)
	}
	anchors := []time.Time{{}, day(1, 31, 2, 30), day(2, 29, 0, 0), day(10, 17, 23, 59), day(7, 4, 13, 7)}
	units := []ratelimit.Unit{ratelimit.Day, ratelimit.Week, ratelimit.Month, ratelimit.Year}
	for _, zone := range zones(t) {
		step, some := func() int { return 1 + random.IntN(2500) }, func() []time.Time { return anchors }
		if os.Getenv("USHER_SOAK") != "" {
			step = func() int { return 1 }
			some = func() []time.Time { return []time.Time{{}, anchors[1+random.IntN(len(anchors)-1)]} }
		}
		for at := day(1, 1, 0, 0).AddDate(-54, 0, 0); at.Year() <= 2040; at = at.AddDate(0, 0, step()) {
			now := at.Add(time.Duration(random.Int64N(int64(24 * time.Hour))))
			for _, unit := range units {
				for _, anchor := range some() {
					l := ratelimit.CalendarWindow(1, unit).In(zone).From(anchor)
					if wrong := wrongWindow(l, unit, now, anchor, zone); wrong != "" {
						_, text := l.Calendar()
						t.Fatalf("seed %d: %v of %s at %v: %s", seed, unit, text, now.In(zone), wrong)
					}
				}
			}
			for _, unit := range []ratelimit.Unit{ratelimit.Minute, ratelimit.Hour} {
				l := ratelimit.CalendarWindow(1, unit).In(zone)
				if wrong := wrongBounds(l, now); wrong != "" {
					t.Fatalf("seed %d: %v of %v at %v: %s", seed, unit, zone, now.In(zone), wrong)
				}
			}
		}
	}
}

// wrongBounds describes what is wrong with the bounds of the window of now.
func wrongBounds(l ratelimit.Limit, now time.Time) string {
	start, end := l.Window(now)
	first, _ := l.Window(start)
	last, lastEnd := l.Window(end.Add(-1))
	next, _ := l.Window(end)
	switch {
	case start.After(now) || !end.After(now):
		return "its window is " + start.String() + " to " + end.String()
	case !first.Equal(start) || !last.Equal(start) || !lastEnd.Equal(end) || !next.Equal(end):
		return "the windows of its bounds differ: " + start.String() + " to " + end.String()
	case end.Sub(start) > l.Per()+25*time.Hour:
		return "its window is as long as " + end.Sub(start).String()
	}
	return ""
}

// wrongWindow also looks where the window begins.
func wrongWindow(l ratelimit.Limit, unit ratelimit.Unit, now, anchor time.Time, zone *time.Location) string {
	if wrong := wrongBounds(l, now); wrong != "" {
		return wrong
	}
	start, _ := l.Window(now)
	if anchor.IsZero() {
		anchor = time.Date(2024, 1, 1, 0, 0, 0, 0, zone) // a Monday
	}
	anchor = anchor.In(zone)
	shown := func(at time.Time) time.Time {
		at = at.In(zone)
		_, offset := at.Zone()
		return at.Add(time.Duration(offset) * time.Second).UTC()
	}
	// The clocks show the anniversary when the window begins, or they skip it then.
	for days := -1; days <= 1; days++ {
		year, month, day := shown(start).AddDate(0, 0, days).Date()
		due := time.Date(year, month, day, anchor.Hour(), anchor.Minute(), anchor.Second(), 0, time.UTC)
		if anniversary(unit, due, anchor) && !shown(start).Before(due) && shown(start.Add(-time.Second)).Before(due) {
			return ""
		}
	}
	return "its window begins at " + start.In(zone).String()
}

// anniversary reports whether a date is an anniversary of the anchor.
func anniversary(unit ratelimit.Unit, date, anchor time.Time) bool {
	last := date.AddDate(0, 0, 1).Day() == 1
	onDay := date.Day() == anchor.Day() || last && date.Day() < anchor.Day()
	switch unit {
	case ratelimit.Day:
		return true
	case ratelimit.Week:
		return date.Weekday() == anchor.Weekday()
	case ratelimit.Month:
		return onDay
	default:
		return onDay && date.Month() == anchor.Month()
	}
}
