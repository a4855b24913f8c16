package ratelimit

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// A Limit says how much a key may use, and how that is counted. Its
// constructors are [TokenBucket], [RollingWindow], [CalendarWindow],
// [Concurrency], [Unlimited] and [Nothing]. A quota of 0 admits nothing, whichever
// of them made it. The zero Limit is not valid.
type Limit struct {
	algorithm Algorithm
	unit      Unit
	quota     int64
	burst     int64
	per       time.Duration
	zone      *time.Location
}

// An Algorithm is how a [Limit] counts. Stores read it; users choose it by the
// constructor.
type Algorithm uint8

// The algorithms.
const (
	algorithmNone Algorithm = iota
	AlgorithmTokenBucket
	AlgorithmRollingWindow
	AlgorithmCalendarWindow
	AlgorithmConcurrency
	AlgorithmUnlimited
	AlgorithmNothing
)

// TokenBucket is a limit of quota units per period on the long run, of which
// burst may be used at once. A key that has been idle may therefore use up to
// burst + quota within one period: where that is too much, choose a burst below
// the quota or a [RollingWindow].
//
// It keeps one number and one time a key, and is what most services want.
func TokenBucket(quota int, per time.Duration, burst int) Limit {
	return Limit{algorithm: AlgorithmTokenBucket, quota: int64(quota), per: per, burst: int64(burst)}
}

// RollingWindow is a limit of quota units in any span of this length, wherever
// it begins: never one more. It keeps a time for each request within the
// window, 16 bytes each, so it is for quotas of up to some thousands.
func RollingWindow(quota int, per time.Duration) Limit {
	return Limit{algorithm: AlgorithmRollingWindow, quota: int64(quota), per: per}
}

// CalendarWindow is a quota for each minute, hour, day, week, month or year of
// the calendar in a time zone; a nil zone means UTC. Astride a boundary up to
// twice the quota may be used within the length of one window.
//
// A day in a zone with summer time may have 23 or 25 hours, and the quota is
// for the day.
func CalendarWindow(quota int, unit Unit, zone *time.Location) Limit {
	if zone == nil {
		zone = time.UTC
	}
	return Limit{algorithm: AlgorithmCalendarWindow, quota: int64(quota), unit: unit, zone: zone}
}

// Concurrency is a limit of n requests at the same time. A place is free again
// when the handler has returned or panicked.
func Concurrency(n int) Limit {
	return Limit{algorithm: AlgorithmConcurrency, quota: int64(n)}
}

// Unlimited is a limit that is never reached, for instance for a plan.
func Unlimited() Limit { return Limit{algorithm: AlgorithmUnlimited} }

// Nothing is a limit that refuses every request that costs anything, for instance
// of a suspended account. Refusals have no Retry-After, as no wait helps.
func Nothing() Limit { return Limit{algorithm: AlgorithmNothing} }

// A Unit is a unit of the calendar.
type Unit uint8

// The units. Weeks begin on Monday.
const (
	Minute Unit = iota + 1
	Hour
	Day
	Week
	Month
	Year
)

// Algorithm returns how the limit counts.
func (l Limit) Algorithm() Algorithm { return l.algorithm }

// Quota returns how many units may be used in a period, or at the same time.
func (l Limit) Quota() int64 { return l.quota }

// Burst returns how many units a token bucket holds.
func (l Limit) Burst() int64 { return l.burst }

// Per returns the length of the period, or 0 for a limit that has none. For a
// calendar window it is the length of the longest one.
func (l Limit) Per() time.Duration {
	if l.algorithm == AlgorithmCalendarWindow {
		return unitLengths[l.unit]
	}
	return l.per
}

// Calendar returns the unit and the time zone of a calendar window.
func (l Limit) Calendar() (Unit, *time.Location) { return l.unit, l.zone }

var unitLengths = [...]time.Duration{
	Minute: time.Minute,
	Hour:   time.Hour,
	Day:    24 * time.Hour,
	Week:   7 * 24 * time.Hour,
	Month:  31 * 24 * time.Hour,
	Year:   366 * 24 * time.Hour,
}

// Window returns the calendar window that t is in: its first instant, and the
// first one after it, which is always after t. One window begins where another
// ends. Both are zero for a limit that is no calendar window.
func (l Limit) Window(t time.Time) (start, end time.Time) {
	if l.zone == nil {
		return time.Time{}, time.Time{}
	}
	t = t.In(l.zone)
	if l.unit == Minute || l.unit == Hour {
		return elapsed(t, unitLengths[l.unit])
	}
	// Where clocks go back over midnight the date of t may be one for the second
	// time, when the next has begun: what counts is where t lies among midnights.
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

// elapsed returns the window of elapsed time, not of the wall clock, that t is in:
// an hour that summer time repeats is two. Zones are offset by whole minutes, some
// not by whole hours, and a window ends where the offset changes.
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

// dates returns the first day of the n-th unit after the one that t is in, by the
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

// String describes the limit for operators, for instance "60 in any 1m0s".
func (l Limit) String() string {
	switch l.algorithm {
	case AlgorithmTokenBucket:
		return fmt.Sprintf("%d per %v, burst %d", l.quota, l.per, l.burst)
	case AlgorithmRollingWindow:
		return fmt.Sprintf("%d in any %v", l.quota, l.per)
	case AlgorithmCalendarWindow:
		return fmt.Sprintf("%d each %v", l.quota, l.unit)
	case AlgorithmConcurrency:
		return fmt.Sprintf("%d at once", l.quota)
	case AlgorithmUnlimited:
		return "unlimited"
	case AlgorithmNothing:
		return "nothing"
	default:
		return "no limit"
	}
}

var unitNames = [...]string{Minute: "minute", Hour: "hour", Day: "day", Week: "week", Month: "month", Year: "year"}

// String returns the name of the unit.
func (u Unit) String() string {
	if u >= Minute && u <= Year {
		return unitNames[u]
	}
	return "Unit(" + strconv.Itoa(int(u)) + ")"
}

// maxQuota keeps sums of units and the integers of RFC 9651 far from overflow.
const maxQuota = 1_000_000_000

// validate returns every fault of the limit.
func (l Limit) validate() error {
	var errs []error
	fault := func(bad bool, reason string) {
		if bad {
			errs = append(errs, errors.New(reason))
		}
	}
	switch l.algorithm {
	case algorithmNone:
		return errors.New("required: use TokenBucket, RollingWindow, CalendarWindow, Concurrency, Unlimited or Nothing")
	case AlgorithmUnlimited, AlgorithmNothing:
		return nil
	case AlgorithmTokenBucket:
		fault(l.per <= 0, "period must be positive")
		fault(l.quota > 0 && l.burst < 1 || l.burst > maxQuota, "burst must be from 1 to 1e9")
	case AlgorithmRollingWindow:
		fault(l.per <= 0, "period must be positive")
	case AlgorithmCalendarWindow:
		fault(l.unit < Minute || l.unit > Year, "unknown calendar unit")
	}
	fault(l.quota < 0 || l.quota > maxQuota, "quota must be from 0 to 1e9")
	return errors.Join(errs...)
}

// firstReset returns the time until more is left than the first request of a key
// has left.
func (l *Limit) firstReset() time.Duration {
	if l.algorithm == AlgorithmTokenBucket {
		return time.Duration(l.tokenNanos())
	}
	return l.per
}
