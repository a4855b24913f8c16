package ratelimit_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// A crowd is more keys than a Memory has places for. Each has a limit of its own, and a list
// of what it was charged.
type crowd struct {
	random  *rand.Rand
	store   *ratelimit.Memory
	ledgers []*ledger
	taken   [][]ratelimit.Charge
	began   time.Time
	slept   time.Duration
	// forgets is set if the Memory has room for the debts of fewer keys than there are.
	forgets bool

	calls, refused, exempt int
}

// newCrowd returns keys under several limits, or all under the same.
func newCrowd(r *rand.Rand, places, keys int) *crowd {
	c := &crowd{
		random: r, began: time.Now(), forgets: keys > places/8*12,
		store: usher.Must(ratelimit.NewMemory(ratelimit.MemoryConfig{Keys: places})),
		taken: make([][]ratelimit.Charge, keys),
	}
	limits := make([]ratelimit.Limit, pick(r, 1, 1, 3))
	for i := range limits {
		quota := pick(r, 1, 2, 5, 100)
		per := pick(r, time.Second, time.Minute, time.Hour, 24*time.Hour)
		limits[i] = pick(r, ratelimit.TokenBucket(quota, per, pick(r, quota, min(quota, 5), 20)),
			ratelimit.RollingWindow(quota, per), ratelimit.CalendarWindow(quota, pick(r, ratelimit.Minute, ratelimit.Day)))
	}
	for range keys {
		c.ledgers = append(c.ledgers, &ledger{limit: pick(r, limits...), missing: new(big.Rat), at: time.Now()})
	}
	return c
}

func (c *crowd) step(t *testing.T) string {
	r := c.random
	pause := pick(r, 1, 1, 1, 1, time.Duration(r.Int64N(int64(time.Second))), time.Duration(r.Int64N(int64(time.Minute))), time.Hour)
	if c.slept += pause; c.slept > 40*24*time.Hour {
		pause = 1
	}
	time.Sleep(pause) // never 0, so that no two charges have one instant
	now := time.Now()
	c.calls++
	// Some keys come back often.
	k := r.IntN(len(c.ledgers))
	if r.IntN(2) == 0 {
		k = r.IntN(min(len(c.ledgers), 4))
	}
	l := c.ledgers[k]
	key := ratelimit.TextKey(fmt.Sprint("key-", k))
	switch {
	case len(c.taken[k]) > 0 && r.IntN(4) == 0:
		return c.settle(t, now, k)
	case r.IntN(200) == 0:
		if err := c.store.Reset(t.Context(), []ratelimit.Counter{{Policy: "p", Key: key}}); err != nil {
			t.Fatal(err)
		}
		l.entries, l.missing, c.taken[k] = nil, new(big.Rat), nil
		return ""
	}
	most := l.limit.Quota()
	if l.limit.Algorithm() == ratelimit.AlgorithmTokenBucket {
		most = l.limit.Burst()
	}
	d := ratelimit.Decision{Peek: r.IntN(8) == 0, Charges: []ratelimit.Charge{{
		Policy: "p", Key: key, Limit: l.limit, Cost: pick(r, 0, 1, 1, 1, 2, 1+r.Int64N(most), most),
	}}}
	if err := c.store.Take(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	got, left := d.Charges[0], l.left(now)
	if d.Admitted && !d.Peek {
		l.charge(now, got.TakenAt, got.Cost)
		c.taken[k] = append(c.taken[k], got)
	}
	fits := got.Cost == 0 || got.Cost <= left
	switch {
	case d.Admitted && !fits && !c.forgets:
		return fmt.Sprintf("key %d under %v: a cost of %d is admitted, with %d left", k, l, got.Cost, left)
	case d.Admitted && !fits && !d.Peek && got.Remaining > 0:
		return fmt.Sprintf("key %d under %v: a cost of %d is admitted, with %d left, and %d are left after it", k, l, got.Cost, left, got.Remaining)
	case d.Admitted && !fits && !d.Peek:
		c.exempt++
		l.forgive(now)
	case !d.Admitted && fits:
		c.refused++
		if !c.forgets && l.limit.Algorithm() == ratelimit.AlgorithmTokenBucket {
			return fmt.Sprintf("key %d under %v: a cost of %d is refused, with %d left", k, l, got.Cost, left)
		}
	}
	return ""
}

// forgive drops what exceeds the limit, because one more request was admitted.
func (l *ledger) forgive(now time.Time) {
	excess := -l.left(now)
	if l.limit.Algorithm() == ratelimit.AlgorithmTokenBucket {
		if most := big.NewRat(l.limit.Burst(), 1); l.missing.Cmp(most) > 0 {
			l.missing.Set(most)
		}
		return
	}
	if l.limit.Algorithm() == ratelimit.AlgorithmCalendarWindow {
		l.entries = append(l.entries, entry{now, 0, -excess})
		return
	}
	for i := range l.entries {
		if e := &l.entries[i]; excess > 0 && now.Sub(e.at) < l.limit.Per() {
			n := min(e.cost, excess)
			e.cost, excess = e.cost-n, excess-n
		}
	}
}

// settle refunds a part of what a request has charged, or charges more for it.
func (c *crowd) settle(t *testing.T, now time.Time, k int) string {
	r, l := c.random, c.ledgers[k]
	i := r.IntN(len(c.taken[k]))
	charge := c.taken[k][i]
	c.taken[k] = slices.Delete(c.taken[k], i, i+1)
	charge.Cost = pick(r, -charge.Cost, -charge.Cost/2, 1, 5, 50)
	// What a forgotten key had overdrawn is forgotten, too.
	charge.Overdraw = !c.forgets && l.limit.Algorithm() == ratelimit.AlgorithmTokenBucket && r.IntN(3) == 0
	left := l.left(now)
	d := ratelimit.Decision{Charges: []ratelimit.Charge{charge}}
	if err := c.store.Adjust(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	moved := d.Charges[0].Moved
	if moved == 0 {
		return ""
	}
	at := now
	if moved > 0 && l.limit.Algorithm() == ratelimit.AlgorithmRollingWindow {
		if taken := c.began.Add(time.Duration(charge.TakenAt)); now.Sub(taken) < l.limit.Per() {
			at = taken
		}
	}
	if moved > max(left, 0) && !charge.Overdraw {
		if !c.forgets {
			return fmt.Sprintf("key %d under %v: %d are charged with %d left", k, l, moved, left)
		}
		c.exempt++
		l.charge(at, charge.TakenAt, moved)
		l.forgive(now)
		return ""
	}
	if moved < 0 && l.limit.Algorithm() == ratelimit.AlgorithmRollingWindow {
		// Of what was charged then, some may have been forgiven.
		for i := range l.entries {
			if e := &l.entries[i]; e.id == charge.TakenAt && moved < 0 {
				n := min(e.cost, -moved)
				e.cost, moved = e.cost-n, moved+n
			}
		}
		return ""
	}
	l.charge(at, charge.TakenAt, moved)
	return ""
}

// While a set remembers all keys that it has evicted, nothing is forgotten. After that, a key
// may have one more request admitted, with which it has nothing left.
func TestEvictedKeysGainNothing(t *testing.T) {
	bubbles := 300
	if soak {
		bubbles = 30_000
	}
	random := rand.New(rand.NewPCG(seedOf(t), 3))
	for name, size := range map[string]struct{ places, keys int }{
		"as many keys as are remembered": {8, 12},
		"more keys than are remembered":  {8, 40},
		"two sets":                       {16, 100},
		"eight sets":                     {64, 300},
	} {
		t.Run(name, func(t *testing.T) {
			calls, refused, exempt := 0, 0, 0
			for range bubbles {
				synctest.Test(t, func(t *testing.T) {
					c := newCrowd(random, size.places, size.keys)
					for i := range 10 * size.keys {
						if wrong := c.step(t); wrong != "" {
							t.Fatalf("call %d: %s", i+1, wrong)
						}
					}
					calls, refused, exempt = calls+c.calls, refused+c.refused, exempt+c.exempt
				})
				if t.Failed() {
					return
				}
			}
			t.Logf("%d calls: %d refused that would fit if nothing were forgotten, %d admitted that would not", calls, refused, exempt)
		})
	}
}
