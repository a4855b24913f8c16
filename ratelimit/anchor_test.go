package ratelimit_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

func TestAnchoredWindowsBeginAtAnniversaries(t *testing.T) {
	for name, c := range map[string]struct {
		unit   ratelimit.Unit
		zone   string
		anchor string
		at     string   // within the first of the windows
		bounds []string // of windows that follow each other
	}{
		"a month from the 17th": {
			ratelimit.Month, "UTC", "2026-01-17T10:30:00Z", "2026-02-01T00:00:00Z",
			[]string{"2026-01-17T10:30:00Z", "2026-02-17T10:30:00Z", "2026-03-17T10:30:00Z"},
		},
		"before the anchor": {
			ratelimit.Month, "UTC", "2026-01-17T10:30:00Z", "2025-12-01T00:00:00Z",
			[]string{"2025-11-17T10:30:00Z", "2025-12-17T10:30:00Z", "2026-01-17T10:30:00Z"},
		},
		"a month from the 31st": {
			ratelimit.Month, "UTC", "2025-12-31T00:00:00Z", "2026-02-27T23:59:59Z",
			[]string{"2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z", "2026-04-30T00:00:00Z", "2026-05-31T00:00:00Z"},
		},
		"a month from the 30th of a leap year": {
			ratelimit.Month, "UTC", "2023-11-30T12:00:00Z", "2024-02-29T11:59:59Z",
			[]string{"2024-01-30T12:00:00Z", "2024-02-29T12:00:00Z", "2024-03-30T12:00:00Z"},
		},
		"a month from the 29th": {
			ratelimit.Month, "UTC", "2026-01-29T12:00:00Z", "2026-02-28T12:00:00Z",
			[]string{"2026-02-28T12:00:00Z", "2026-03-29T12:00:00Z", "2026-04-29T12:00:00Z"},
		},
		"the day of the zone counts": {
			ratelimit.Month, "Asia/Tokyo", "2026-01-31T20:00:00Z", "2026-02-10T00:00:00Z", // there it is the 1st, 5 o'clock
			[]string{"2026-01-31T20:00:00Z", "2026-02-28T20:00:00Z", "2026-03-31T20:00:00Z"},
		},
		"the time of day stays in summer": {
			ratelimit.Month, "Europe/Berlin", "2026-01-15T08:00:00+01:00", "2026-03-20T00:00:00Z",
			[]string{"2026-03-15T08:00:00+01:00", "2026-04-15T08:00:00+02:00"},
		},
		"a time that is skipped": {
			ratelimit.Day, "Europe/Berlin", "2026-03-01T02:30:00+01:00", "2026-03-29T00:00:00+01:00",
			[]string{"2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"},
		},
		"a time that is shown twice, east": {
			ratelimit.Day, "Europe/Berlin", "2026-03-01T02:30:00+01:00", "2026-10-25T02:20:00+02:00",
			[]string{"2026-10-24T02:30:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"},
		},
		"a time that is shown twice, west": {
			ratelimit.Day, "America/New_York", "2026-03-01T01:30:00-05:00", "2026-11-01T01:20:00-04:00",
			[]string{"2026-10-31T01:30:00-04:00", "2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"},
		},
		"a week from a Thursday": {
			ratelimit.Week, "UTC", "2026-01-01T06:00:00Z", "2026-07-09T05:00:00Z",
			[]string{"2026-07-02T06:00:00Z", "2026-07-09T06:00:00Z", "2026-07-16T06:00:00Z"},
		},
		"a year from a day of leap years": {
			ratelimit.Year, "UTC", "2024-02-29T00:00:00Z", "2026-01-01T00:00:00Z",
			[]string{"2025-02-28T00:00:00Z", "2026-02-28T00:00:00Z", "2027-02-28T00:00:00Z", "2028-02-29T00:00:00Z"},
		},
		"fractions of a second do not count": {
			ratelimit.Day, "UTC", "2026-01-01T06:00:00.9Z", "2026-01-03T00:00:00Z",
			[]string{"2026-01-02T06:00:00Z", "2026-01-03T06:00:00Z"},
		},
		"no anchor": {
			ratelimit.Month, "Europe/Berlin", "0001-01-01T00:00:00Z", "2026-07-09T05:00:00Z",
			[]string{"2026-07-01T00:00:00+02:00", "2026-08-01T00:00:00+02:00"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			anchor := instant(t, c.anchor)
			l := ratelimit.CalendarWindow(1, c.unit)
			for order, l := range map[string]ratelimit.Limit{
				"zone first": l.In(zone(t, c.zone)).From(anchor), "anchor first": l.From(anchor).In(zone(t, c.zone)),
			} {
				start, end := l.Window(instant(t, c.at))
				for i := range c.bounds[1:] {
					if !start.Equal(instant(t, c.bounds[i])) || !end.Equal(instant(t, c.bounds[i+1])) {
						t.Errorf("%s: %v to %v, want %s to %s", order, start, end, c.bounds[i], c.bounds[i+1])
					}
					if s, e := l.Window(end.Add(-1)); !s.Equal(start) || !e.Equal(end) {
						t.Errorf("%s: the window of the last instant is %v to %v", order, s, e)
					}
					start, end = l.Window(end)
				}
			}
		})
	}
}

func instant(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestCalendarIdentifiesWhenWindowsBegin(t *testing.T) {
	at := func(s string) time.Time { return instant(t, s) }
	berlin := zone(t, "Europe/Berlin")
	month := ratelimit.CalendarWindow(1, ratelimit.Month)
	texts := map[string]ratelimit.Limit{
		"UTC":                       month,
		"Europe/Berlin":             month.In(berlin),
		"Etc/GMT+5":                 month.In(zone(t, "Etc/GMT+5")),
		"UTC@17T10:30:00":           month.From(at("2026-01-17T10:30:00Z")),
		"Europe/Berlin@17T11:30:00": month.From(at("2026-01-17T10:30:00Z")).In(berlin),
		"Europe/Berlin@17T12:30:00": month.From(at("2026-07-17T10:30:00Z")).In(berlin),
		"UTC@T10:30:00":             ratelimit.CalendarWindow(1, ratelimit.Day).From(at("2026-01-17T10:30:00Z")),
		"UTC@SatT10:30:00":          ratelimit.CalendarWindow(1, ratelimit.Week).From(at("2026-01-17T10:30:00Z")),
		"UTC@01-17T10:30:00":        ratelimit.CalendarWindow(1, ratelimit.Year).From(at("2026-01-17T10:30:00Z")),
		"a%20zone%25%40":            month.In(time.FixedZone("a zone%@", 3600)),
		"%c3%a9%00":                 month.In(time.FixedZone("é\x00", 3600)),
		"":                          ratelimit.RollingWindow(1, time.Hour),
	}
	for want, l := range texts {
		if _, got := l.Calendar(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// The anchor of one renewal is as good as that of another.
	_, january := month.From(at("2026-01-17T10:30:00Z")).Calendar()
	_, march := month.From(at("2026-03-17T10:30:00Z")).Calendar()
	if january != march {
		t.Errorf("%q and %q", january, march)
	}
}

// What an owner has used must count under the limit of each renewal.
func TestOneAnniversaryIsOneLimit(t *testing.T) {
	m := newMemory()
	now := time.Now().UTC()
	last := time.Date(now.Year(), now.Month(), 10, 12, 0, 0, 0, time.UTC)
	for i, months := range []int{-1, 0, 1, 12, 0} {
		l := ratelimit.CalendarWindow(9, ratelimit.Month).From(last.AddDate(0, months, 0))
		if c := takeOne(t, m, ratelimit.Charge{Policy: "p", Limit: l, Cost: 2}); c.Remaining != max(7-2*int64(i), 1) {
			t.Errorf("charge %d: remaining %d", i, c.Remaining)
		}
	}
}

func TestAnAnchorNeedsADay(t *testing.T) {
	for _, unit := range []ratelimit.Unit{ratelimit.Minute, ratelimit.Hour, ratelimit.Day, ratelimit.Week, ratelimit.Month, ratelimit.Year} {
		_, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{
			forAll("p", ratelimit.CalendarWindow(5, unit).From(time.Now())),
		}})
		if faulty := slices.Contains([]ratelimit.Unit{ratelimit.Minute, ratelimit.Hour}, unit); (err != nil) != faulty {
			t.Errorf("%v: error %v", unit, err)
		}
		if err != nil && !strings.Contains(err.Error(), "anchor") {
			t.Errorf("%v: the error does not name the anchor: %v", unit, err)
		}
	}
}
