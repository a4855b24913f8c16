package ratelimit_test

import (
	"archive/zip"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// zones returns every time zone that Go has data for.
func zones(t *testing.T) []*time.Location {
	t.Helper()
	//nolint:staticcheck // the toolchain that runs the test has the file
	archive, err := zip.OpenReader(filepath.Join(runtime.GOROOT(), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		if os.Getenv("USHER_REQUIRE_SERVICES") != "" {
			t.Fatal(err)
		}
		t.Skip("the toolchain has no list of time zones")
	}
	defer func() { _ = archive.Close() }()
	var all []*time.Location
	for _, f := range archive.File {
		if !strings.HasSuffix(f.Name, "/") {
			all = append(all, zone(t, f.Name))
		}
	}
	if len(all) < 500 {
		t.Fatalf("%d time zones, want them all", len(all))
	}
	return all
}

// TestCalendarWindowsTile checks the windows around every change of the clocks of every
// zone: each ends after the time that it contains, and the next begins where it ends.
func TestCalendarWindowsTile(t *testing.T) {
	units := []ratelimit.Unit{
		ratelimit.Minute, ratelimit.Hour, ratelimit.Day, ratelimit.Week, ratelimit.Month, ratelimit.Year,
	}
	changes := 0
	for _, zone := range zones(t) {
		at := time.Date(1940, 1, 1, 0, 0, 0, 0, time.UTC).In(zone)
		for {
			_, change := at.ZoneBounds()
			if change.IsZero() || change.Year() > 2040 {
				break
			}
			if !change.After(at) {
				// ZoneBounds errs on the last day of a leap year.
				at = at.Add(24 * time.Hour)
				continue
			}
			at = change
			changes++
			for _, unit := range units {
				l := ratelimit.CalendarWindow(1, unit).In(zone)
				for _, around := range []time.Duration{-time.Hour, -time.Second, 0, time.Hour} {
					now := change.Add(around)
					start, end := l.Window(now)
					if start.After(now) || !end.After(now) {
						t.Errorf("%v %v: the window of %v is %v to %v", zone, unit, now, start, end)
					}
					if s, e := l.Window(start); !s.Equal(start) || !e.Equal(end) {
						t.Errorf("%v %v: the window of %v is %v to %v, that of its start %v to %v", zone, unit, now, start, end, s, e)
					}
					if s, _ := l.Window(end); !s.Equal(end) {
						t.Errorf("%v %v: the window of %v ends at %v, the next begins at %v", zone, unit, now, end, s)
					}
				}
			}
		}
	}
	if changes < 10_000 {
		t.Errorf("%d changes of clocks looked at, want them all", changes)
	}
}

func TestADayIsLimitedWhereClocksGoForwardAtMidnight(t *testing.T) {
	for _, c := range []struct {
		name, zone string
		at         string // half an hour before midnight
		unit       ratelimit.Unit
	}{
		{"a day west of UTC", "America/Havana", "2026-03-07T23:30:00-05:00", ratelimit.Day},
		{"another", "America/Santiago", "2026-09-05T23:30:00-04:00", ratelimit.Day},
		{"a day east of UTC", "Africa/Cairo", "2026-04-23T23:30:00+02:00", ratelimit.Day},
		{"a week", "America/Asuncion", "2017-10-01T00:30:00-03:00", ratelimit.Week},
		{"a month", "America/Asuncion", "2017-09-30T23:30:00-04:00", ratelimit.Month},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at, err := time.Parse(time.RFC3339, c.at)
				if err != nil {
					t.Fatal(err)
				}
				h := limiterOf(t, forAll("p", ratelimit.CalendarWindow(5, c.unit).In(zone(t, c.zone)))).Wrap(ok)
				// The bubble begins in 2000.
				time.Sleep(time.Until(at))
				wantCodes(t, codes(8, h), 200, 200, 200, 200, 200, 429, 429, 429)
				w := do(h)
				if w.Header().Get("RateLimit") == `"p";r=0` || seconds(w.Header().Get("Retry-After")) <= 0 {
					t.Errorf("fields %v", w.Header())
				}
				time.Sleep(seconds(w.Header().Get("Retry-After")))
				wantCodes(t, codes(1, h), 200)
			})
		})
	}
}

func TestADayBeginsWhenItsDateDoes(t *testing.T) {
	for name, c := range map[string]struct {
		offset int    // in hours
		change string // in local time, by an hour forward
	}{
		"clocks go forward at midnight, west":        {-5, "2026-03-08T00:00:00Z"},
		"clocks go forward at midnight, east":        {+5, "2026-03-08T00:00:00Z"},
		"clocks go forward across midnight, west":    {-5, "2026-03-07T23:30:00Z"},
		"clocks go forward across midnight, east":    {+5, "2026-03-07T23:30:00Z"},
		"clocks go forward across midnight, far off": {+13, "2026-03-07T23:30:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			local, err := time.Parse(time.RFC3339, c.change)
			if err != nil {
				t.Fatal(err)
			}
			change := local.Add(-time.Duration(c.offset) * time.Hour)
			l := ratelimit.CalendarWindow(1, ratelimit.Day).In(shifted(t, change, c.offset*3600))
			if _, end := l.Window(change.Add(-time.Second)); !end.Equal(change) {
				t.Errorf("the day before ends at %v, want %v", end, change)
			}
			if start, _ := l.Window(change); !start.Equal(change) {
				t.Errorf("the day begins at %v, want %v", start, change)
			}
		})
	}
}

// The clocks of the zone go forward at midnight, which is in half an hour.
func TestADayWithoutMidnightIsLimitedOverASocket(t *testing.T) {
	change := time.Now().UTC().Truncate(time.Minute).Add(30 * time.Minute)
	west := change.Hour()*3600 + change.Minute()*60
	zone := shifted(t, change, -west)
	if before, after := change.Add(-1).In(zone).Hour(), change.In(zone).Hour(); before != 23 || after != 1 {
		t.Fatalf("the clocks go from %d to %d hours", before, after)
	}
	s := httptest.NewServer(limiterOf(t, forAll("p", ratelimit.CalendarWindow(5, ratelimit.Day).In(zone))).Wrap(ok))
	defer s.Close()
	admitted := 0
	for range 20 {
		if res, _ := get(t, s.URL); res.StatusCode == http.StatusOK {
			admitted++
		}
	}
	if admitted != 5 {
		t.Errorf("%d of 20 admitted, want 5", admitted)
	}
}

// shifted returns a zone of this offset whose clocks go forward by an hour at an
// instant, in the format of RFC 9636.
func shifted(t testing.TB, change time.Time, offset int) *time.Location {
	t.Helper()
	be := func(n int64, size int) []byte {
		b := make([]byte, size)
		for i := range b {
			b[size-1-i] = byte(n >> (8 * i))
		}
		return b
	}
	block := func(size int) []byte {
		b := []byte("TZif2" + strings.Repeat("\x00", 15))
		for _, n := range []int64{0, 0, 0, 1, 2, 4} {
			b = append(b, be(n, 4)...)
		}
		b = append(b, be(change.Unix(), size)...)
		b = append(b, 1) // the second type from then on
		b = append(append(b, be(int64(offset), 4)...), 0, 0)
		b = append(append(b, be(int64(offset)+3600, 4)...), 1, 0)
		return append(b, "AAA\x00"...)
	}
	zone, err := time.LoadLocationFromTZData("shifted", append(append(block(4), block(8)...), "\n\n"...))
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// The caller gives the windows, of which the store's clock chooses one.
func TestACalendarUsesTheWindowsOfItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		l := ratelimit.CalendarWindow(2, ratelimit.Hour)
		base := time.Now()
		at := func(d time.Duration) time.Time { return base.Add(d) }
		charge := func(cost int64) ratelimit.Charge {
			return ratelimit.Charge{Policy: "p", Limit: l, Cost: cost, Windows: [2]ratelimit.Window{
				{Start: at(-time.Minute), End: at(time.Minute)}, {Start: at(time.Minute), End: at(3 * time.Minute)},
			}}
		}
		take := func(cost, left int64, reset time.Duration) {
			t.Helper()
			d := &ratelimit.Decision{Charges: []ratelimit.Charge{charge(cost)}}
			if err := m.Take(t.Context(), d); err != nil || d.Charges[0].Remaining != left || d.Charges[0].Reset != reset {
				t.Errorf("%d left, more in %v, want %d and %v (%v)", d.Charges[0].Remaining, d.Charges[0].Reset, left, reset, err)
			}
		}
		take(2, 0, time.Minute)
		time.Sleep(time.Minute)
		take(1, 1, 2*time.Minute)
		time.Sleep(2 * time.Minute)
		beside := ratelimit.Charge{Policy: "q", Limit: ratelimit.RollingWindow(5, time.Hour), Cost: 1}
		d := &ratelimit.Decision{Charges: []ratelimit.Charge{beside, charge(1)}}
		if err := m.Take(t.Context(), d); err == nil {
			t.Error("no error although neither window contains the present time")
		}
		d = &ratelimit.Decision{Charges: []ratelimit.Charge{beside}}
		if err := m.Take(t.Context(), d); err != nil || d.Charges[0].Remaining != 4 {
			t.Errorf("%d left after a decision that failed, want 4 (%v)", d.Charges[0].Remaining, err)
		}
	})
}

// While a key is used under another limit, the next window follows the present one, as its
// end is known from the last caller. At the end of the next window the count is dropped.
// The calendar then begins again as any limit does, with the debt of the other limit.
func TestACalendarAmongOtherLimitsKeepsTheNextWindow(t *testing.T) {
	for _, c := range []struct {
		name  string
		other time.Duration // the period of the other limit
		pause time.Duration // from the beginning until the other limit is used
		left  int64         // of 10
		reset time.Duration
	}{
		{"in its window", 10 * time.Second, 30 * time.Second, 10 - 1 - 3, 15 * time.Second},
		{"in the next window", 10 * time.Second, 70 * time.Second, 10 - 3, 95 * time.Second},
		{"at the end of the next window", 10 * time.Second, 3 * time.Minute, 10, 105 * time.Second},
		{"at the end of the next window, with a debt", time.Hour, 3 * time.Minute, 10 - 3, 105 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				calendar, other := ratelimit.CalendarWindow(10, ratelimit.Hour), ratelimit.RollingWindow(9, c.other)
				base := time.Now()
				take := func(l ratelimit.Limit, cost int64) ratelimit.Charge {
					d := &ratelimit.Decision{Charges: []ratelimit.Charge{{Policy: "p", Limit: l, Cost: cost}}}
					if l == calendar {
						// The windows end one minute and three minutes after the beginning, and
						// then every two minutes.
						end := base.Add(time.Minute)
						for !time.Now().Before(end) {
							end = end.Add(2 * time.Minute)
						}
						d.Charges[0].Windows[0].End, d.Charges[0].Windows[1].End = end, end.Add(2*time.Minute)
					}
					if err := m.Take(t.Context(), d); err != nil || !d.Admitted {
						t.Fatal(d.Admitted, err)
					}
					return d.Charges[0]
				}
				take(calendar, 1)
				take(other, 0)
				time.Sleep(c.pause)
				take(other, 3)
				time.Sleep(15 * time.Second)
				if got := take(calendar, 0); got.Remaining != c.left || got.Reset != c.reset {
					t.Errorf("%d left, more in %v, want %d and %v", got.Remaining, got.Reset, c.left, c.reset)
				}
			})
		})
	}
}
