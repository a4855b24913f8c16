package ratelimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// A bubble has no clock that is set back, so the first decision has the windows of a process
// whose clock is ahead, and the store takes them for its own.
func TestAClockThatWasAheadLocksNobodyOutForLongerThanOneWindow(t *testing.T) {
	for name, given := range map[string]bool{"windows of the caller": true, "windows of the store": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				l := ratelimit.CalendarWindow(5, ratelimit.Day)
				now := time.Now() // at midnight
				windows := func(at time.Time) (w [2]ratelimit.Window) {
					for i := range w {
						w[i].Start, w[i].End = l.Window(at)
						at = w[i].End
					}
					return w
				}
				ahead := ratelimit.Charge{Policy: "p", Limit: l, Cost: 3, Windows: windows(now.AddDate(1, 0, 0))}
				present := ratelimit.Charge{Policy: "p", Limit: l, Cost: 1}
				if given {
					present.Windows = windows(now)
				}
				ahead = takeOne(t, m, ahead)
				if ahead.Violated || ahead.Reset < 365*24*time.Hour {
					t.Fatalf("violated %v, reset %v, want a window in a year", ahead.Violated, ahead.Reset)
				}
				// What was used counts in the present window.
				for i := range 3 {
					c := takeOne(t, m, present)
					if c.Violated != (i == 2) || c.Reset != 24*time.Hour {
						t.Errorf("request %d: violated %v, reset %v", i+1, c.Violated, c.Reset)
					}
				}
				// The process whose clock is ahead does not change that.
				if c := takeOne(t, m, ahead); !c.Violated || c.Wait != 24*time.Hour {
					t.Errorf("ahead: violated %v, wait %v", c.Violated, c.Wait)
				}
				if n := adjustBy(t, m, ahead, -1); n != -1 {
					t.Errorf("%d units refunded, want 1", -n)
				}
				time.Sleep(24 * time.Hour)
				if given {
					present.Windows = windows(time.Now())
				}
				present.Cost = 5
				if c := takeOne(t, m, present); c.Violated || c.Reset != 24*time.Hour {
					t.Errorf("in the next window: violated %v, reset %v", c.Violated, c.Reset)
				}
			})
		})
	}
}
