package usherredis_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherredis"
)

// A call that breaks the contract fails, and changes nothing.
func TestCallsThatBreakTheContract(t *testing.T) {
	s := servers.Redis(t)
	r := open(t, s.Addr, newPrefix())
	l, i := r.Limits(), r.Idempotency()
	limit := limits["rolling window"]
	many := decision()
	for n := range 17 {
		many.Charges = append(many.Charges, charge(strings.Repeat("p", n+1), limit, 1))
	}
	noID := decision(charge("p", limit, 1))
	noID.ID = ratelimit.ID{}
	twice := decision(charge("p", limit, 1), charge("q", limit, 1), charge("p", limit, 1))
	distant := decision(charge("p", limits["calendar window"], 1))
	for w := range distant.Charges[0].Windows {
		distant.Charges[0].Windows[w] = ratelimit.Window{Start: time.Unix(1, 0), End: time.Unix(2, 0)}
	}
	large := decision(charge("p", ratelimit.RollingWindow(1e9+1, time.Hour), 1))
	claim := newClaim()
	claim.Token = idempotency.Token{}
	for name, call := range map[string]func() error{
		"17 policies":       func() error { return l.Take(t.Context(), many) },
		"no ID":             func() error { return l.Take(t.Context(), noID) },
		"no ID of a refund": func() error { return l.Adjust(t.Context(), noID) },
		"a policy twice":    func() error { return l.Take(t.Context(), twice) },
		"distant clocks":    func() error { return l.Take(t.Context(), distant) },
		"a quota above 1e9": func() error { return l.Take(t.Context(), large) },
		"1,001 places":      func() error { _, err := l.Renew(t.Context(), make([]ratelimit.Place, 1001), time.Minute); return err },
		"1,001 counters":    func() error { return l.Reset(t.Context(), make([]ratelimit.Counter, 1001)) },
		"1,001 claims": func() error {
			_, err := i.Renew(t.Context(), make([]idempotency.ClaimID, 1001), time.Minute)
			return err
		},
		"no token":           func() error { _, err := i.Claim(t.Context(), claim); return err },
		"no token to finish": func() error { _, err := i.Finish(t.Context(), done(claim, "")); return err },
	} {
		t.Run(name, func(t *testing.T) {
			if err := call(); err == nil {
				t.Error("no error")
			}
		})
	}
	if n := len(keys(t, s.Addr)); n != 0 {
		t.Errorf("%d keys are stored", n)
	}
}

func TestTwoCallsWithOneIDAreAnError(t *testing.T) {
	l := open(t, servers.Redis(t).Addr, newPrefix()).Limits()
	d := take(t, l, charge("p", limits["rolling window"], 1))
	if err := l.Adjust(t.Context(), d); err == nil {
		t.Error("Adjust accepts the ID of a Take")
	}
	d.Charges = append(d.Charges, charge("q", limits["rolling window"], 1))
	if err := l.Take(t.Context(), d); err == nil {
		t.Error("Take accepts the ID of another Take")
	}
	wantLeft(t, l, charge("p", limits["rolling window"], 1), 4)
	wantLeft(t, l, charge("q", limits["rolling window"], 1), 5)
}

func TestCostsBeyondEveryLimit(t *testing.T) {
	l := open(t, servers.Redis(t).Addr, newPrefix()).Limits()
	for name, limit := range limits {
		t.Run(name, func(t *testing.T) {
			c := take(t, l, charge(name, limit, 3)).Charges[0]
			if d := take(t, l, charge(name, limit, math.MaxInt64)); d.Admitted || d.Charges[0].Wait >= 0 {
				t.Errorf("admitted %v, wait %v, want never", d.Admitted, d.Charges[0].Wait)
			}
			for _, cost := range []int64{math.MaxInt64, math.MinInt64} {
				c.Cost = cost
				d := decision(c)
				if err := l.Adjust(t.Context(), d); err != nil {
					t.Fatal(err)
				}
				// Of a bucket and a calendar window, all that is in use can be refunded.
				if moved, want := d.Charges[0].Moved, map[bool]int64{true: 2, false: -5}[cost > 0]; moved != want {
					t.Errorf("an adjustment by %d moves %d units, want %d", cost, moved, want)
				}
			}
			wantLeft(t, l, c, 5)
		})
	}
}

// The texts of keys and limits have any bytes.
func TestKeysAndLimitsWithAnyBytes(t *testing.T) {
	l := open(t, servers.Redis(t).Addr, newPrefix()).Limits()
	zone := time.FixedZone("a zone} of {its own \x00\n", 3600)
	for _, text := range []string{"", "{", "}", "a:b", "\x00\xff\r\n", strings.Repeat("long", 10_000)} {
		c := charge("p", ratelimit.CalendarWindow(5, ratelimit.Year).In(zone), 1)
		c.Key = ratelimit.TextKey(text)
		take(t, l, c)
		wantLeft(t, l, c, 4)
	}
}

// An ID is found only where a row of the places begins, not wherever its bytes are.
func TestAnIDWhoseBytesAreThoseOfTwoFields(t *testing.T) {
	l := open(t, servers.Redis(t).Addr, newPrefix()).Limits()
	now := time.UnixMicro(1_800_000_000_000_000)
	usherredis.SetClock(l, func() time.Time { return now })
	c := charge("p", limits["concurrency"], 1)
	d := &ratelimit.Decision{ID: ratelimit.ID{Node: 7, Seq: 8}, Charges: []ratelimit.Charge{c}}
	if err := l.Take(t.Context(), d); err != nil || !d.Admitted {
		t.Fatal(d.Admitted, err)
	}
	// The bytes that are stored after Node are Seq, the number of places, and the end of
	// the lease.
	ends := uint64(now.Add(c.Lease).UnixMicro())
	other := ratelimit.ID{Node: 8, Seq: 1<<32 | ends>>32}
	c.TakenBy, c.Cost = other, -1
	back := decision(c)
	if err := l.Adjust(t.Context(), back); err != nil || back.Charges[0].Moved != 0 {
		t.Errorf("%d places are free, %v", back.Charges[0].Moved, err)
	}
	lost, err := l.Renew(t.Context(), []ratelimit.Place{{Policy: "p", Key: c.Key, TakenBy: other}}, time.Hour)
	if err != nil || len(lost) != 1 {
		t.Errorf("Renew: %v, %v, want it lost", lost, err)
	}
	wantLeft(t, l, c, 4)
}
