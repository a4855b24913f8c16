package ratelimit

import (
	"fmt"
	"strconv"
	"time"

	"github.com/usher-go/usher/internal/config"
)

// A Limit is how much a key may use, and how that is counted. Most services want a
// [TokenBucket]. The other constructors are [RollingWindow], [CalendarWindow],
// [Concurrency], [Unlimited] and [Nothing]. A quota of 0 admits nothing, whatever the
// constructor, and the largest one is 1e9. The zero Limit is not valid. Constructors return
// no error: [New] reports what is wrong with a limit. A Limit never changes.
type Limit struct {
	algorithm Algorithm
	unit      Unit
	anchored  bool
	quota     int64
	burst     int64
	per       time.Duration
	zone      *time.Location
	anchor    int64 // in seconds since 1970, if anchored
}

// An Algorithm is how a [Limit] counts. The constructor of the Limit chooses it, and
// stores read it.
type Algorithm uint8

// The algorithms, named after the constructors of their limits. The zero value is that of the
// zero Limit, which is not valid.
const (
	algorithmNone Algorithm = iota
	AlgorithmTokenBucket
	AlgorithmRollingWindow
	AlgorithmCalendarWindow
	AlgorithmConcurrency
	AlgorithmUnlimited
	AlgorithmNothing
)

// TokenBucket allows quota units per period on average, and bursts of up to burst. A
// key that has been idle can therefore use up to burst + quota within one period:
// where that is too much, choose a burst below the quota or a [RollingWindow].
//
// It is the fair limit for a rate per second, with a small burst such as 2: a client that
// sends 10 requests a second, some of them 20 ms late, is never refused under
// TokenBucket(10, time.Second, 2), which lets at most 11 pass in any second. A window of a
// second refuses such a client again and again.
//
// It keeps one instant for each key, and is what most services want. Per must be a whole
// number of microseconds and at most ten years, and must earn a burst within 100 years.
func TokenBucket(quota int, per time.Duration, burst int) Limit {
	return Limit{algorithm: AlgorithmTokenBucket, quota: int64(quota), per: per, burst: int64(burst)}
}

// RollingWindow allows quota units in any period of length per, wherever it begins: never one
// more. A short one is hard on clients that send at exactly its rate, as their requests do not
// arrive evenly; see [TokenBucket]. It keeps the time of each request within the window, at 16
// bytes each, so it suits quotas of up to a few thousand. Per must be a whole number of
// microseconds and at most ten years.
func RollingWindow(quota int, per time.Duration) Limit {
	return Limit{algorithm: AlgorithmRollingWindow, quota: int64(quota), per: per}
}

// CalendarWindow is a quota for each minute, hour, day, week, month or year of the
// calendar in UTC. [Limit.In] chooses another time zone. Around a boundary a key can
// use up to twice its quota within the length of one window.
func CalendarWindow(quota int, unit Unit) Limit {
	return Limit{algorithm: AlgorithmCalendarWindow, quota: int64(quota), unit: unit, zone: time.UTC}
}

// In returns a [CalendarWindow] in another time zone, and any other limit as it is. A
// day on which summer time begins or ends has 23 or 25 hours, and its usual quota.
func (l Limit) In(zone *time.Location) Limit {
	if l.algorithm == AlgorithmCalendarWindow {
		l.zone = zone
	}
	return l
}

// From returns a [CalendarWindow] whose windows begin at the anniversaries of an instant, by
// the calendar of the limit's time zone: at its time of day, to the second, and on its day of
// the week, of the month or of the year. Where a month has no such day, the window begins on
// the last day of the month. So a plan that has begun on the 31st is renewed at the end of
// each month. Windows of a minute or an hour cannot have an anchor. From returns any other
// limit as it is, and any limit if the instant is zero.
func (l Limit) From(anchor time.Time) Limit {
	if l.algorithm == AlgorithmCalendarWindow && !anchor.IsZero() {
		l.anchored, l.anchor = true, anchor.Unix()
	}
	return l
}

// Concurrency is a limit of n requests at the same time. A place is free again when
// the handler has returned or panicked. In a store that processes share, the place of a
// process that has died is free after [Config.Lease].
//
// A hijacked connection therefore takes no place once its handler has returned: the handler
// must serve it until its end. A handler that runs on behind an [http.TimeoutHandler] takes
// no place either, so put that outside the limiter, or use [usher.Deadline].
func Concurrency(n int) Limit {
	return Limit{algorithm: AlgorithmConcurrency, quota: int64(n)}
}

// Unlimited is a limit that is never reached, for instance of a plan.
func Unlimited() Limit { return Limit{algorithm: AlgorithmUnlimited} }

// Nothing is a limit that refuses every request that costs anything, for instance
// for a suspended account. Refusals have no Retry-After, as no wait helps.
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

// same reports whether two limits have the same bound, and so share one count.
func (l *Limit) same(o *Limit) bool {
	return l.quota == o.quota && l.per == o.per && l.burst == o.burst && l.algorithm == o.algorithm &&
		(l.zone == nil || l.sameCalendar(o))
}

func (l *Limit) sameCalendar(o *Limit) bool {
	if *l == *o {
		return true
	}
	unit, begin := l.Calendar()
	otherUnit, otherBegin := o.Calendar()
	return unit == otherUnit && begin == otherBegin
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

// The longest times keep sums of instants far from overflow in every store.
const (
	maxPeriod = 10 * 366 * 24 * time.Hour
	maxRefill = 10 * maxPeriod

	faultyPeriod = "must have a period of whole microseconds, above 0 and at most ten years"
)

// validPeriod reports whether stores with clocks of microseconds and of nanoseconds can
// agree on a period.
func validPeriod(per time.Duration) bool {
	return per > 0 && per <= maxPeriod && per%time.Microsecond == 0
}

// faults returns what is wrong with the limit.
func (l Limit) faults() (reasons []string) {
	add := func(faulty bool, reason string) {
		if faulty {
			reasons = append(reasons, reason)
		}
	}
	switch l.algorithm {
	case algorithmNone:
		return []string{config.Required}
	case AlgorithmUnlimited, AlgorithmNothing:
		return nil
	case AlgorithmTokenBucket:
		add(!validPeriod(l.per), faultyPeriod)
		add(l.quota > 0 && l.burst < 1 || l.burst > maxQuota, "must have a burst from 1 to 1e9")
		add(len(reasons) == 0 && l.quota > 0 && l.span(l.burst).whole >= int64(maxRefill),
			"must earn a burst within 100 years")
	case AlgorithmRollingWindow:
		add(!validPeriod(l.per), faultyPeriod)
	case AlgorithmCalendarWindow:
		add(l.unit < Minute || l.unit > Year, "must have one of the Units")
		add(l.zone == nil, "must have a time zone")
		add(l.anchored && l.unit < Day, "must be a day, week, month or year to have an anchor")
	}
	add(l.quota < 0 || l.quota > maxQuota, "must have a quota from 0 to 1e9")
	return reasons
}

// firstReset returns the time until more is left than right after the first request of a
// key.
func (l *Limit) firstReset() time.Duration {
	if l.algorithm == AlgorithmTokenBucket {
		return time.Duration(l.span(1).up())
	}
	return l.per
}
