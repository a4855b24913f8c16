package ratelimit_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// TestNothingIsOverspent makes random calls for a key, in which it charges, peeks, holds,
// settles, refunds, overdraws and is reset, under several limits that change from one call to
// the next. What each limit has charged is kept in plain lists: nothing may be admitted that
// its own list forbids, and under a single limit nothing may be refused that it allows. There
// are 10,000 calls, and a million with USHER_SOAK=1.
func TestNothingIsOverspent(t *testing.T) {
	calls := 10_000
	if soak {
		calls = 1_000_000
	}
	random := rand.New(rand.NewPCG(seedOf(t), 2))
	const perBubble = 200
	for range calls / perBubble {
		synctest.Test(t, func(t *testing.T) {
			s := newSpender(random)
			for i := range perBubble {
				if wrong := s.step(t); wrong != "" {
					t.Fatalf("call %d, under %v: %s", i+1, s.ledgers, wrong)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

// A spender is a key, with what it has been charged under each limit.
type spender struct {
	random  *rand.Rand
	store   *ratelimit.Memory
	ledgers []*ledger
	seq     uint64
	taken   []ratelimit.Charge
	holds   map[ratelimit.ID]*reservation
	began   time.Time // of the clock of the store
	slept   time.Duration
}

type reservation struct {
	n   int64
	end time.Time
}

// A ledger has what was charged under one limit, less what was refunded.
type ledger struct {
	limit   ratelimit.Limit
	entries []entry
	missing *big.Rat // tokens of a bucket
	at      time.Time
}

type entry struct {
	at   time.Time
	id   int64 // TakenAt
	cost int64
}

func (l *ledger) String() string { return l.limit.String() }

func newSpender(r *rand.Rand) *spender {
	s := &spender{random: r, store: newMemory(), began: time.Now(), holds: make(map[ratelimit.ID]*reservation)}
	zone := pick(r, time.UTC, time.FixedZone("a zone", 20_700))
	anchor := time.Date(2000, 1, 1+r.IntN(31), r.IntN(24), r.IntN(60), 0, 0, time.UTC)
	for range pick(r, 1, 1, 1, 2, 3) {
		quota := pick(r, 1, 3, 10, 100, 1_000_000_000)
		per := pick(r, 10*time.Microsecond, time.Second, time.Hour, 24*time.Hour, 10*366*24*time.Hour)
		l := pick(r, ratelimit.TokenBucket(quota, per, pick(r, quota, min(quota, 5))), ratelimit.RollingWindow(quota, per),
			ratelimit.CalendarWindow(quota, pick(r, ratelimit.Minute, ratelimit.Hour)).In(zone),
			ratelimit.CalendarWindow(quota, pick(r, ratelimit.Day, ratelimit.Week, ratelimit.Month, ratelimit.Year)).In(zone).From(anchor))
		same := func(known *ledger) bool { return known.limit.String() == l.String() }
		if !slices.ContainsFunc(s.ledgers, same) {
			s.ledgers = append(s.ledgers, &ledger{limit: l, missing: new(big.Rat), at: time.Now()})
		}
	}
	return s
}

// left returns how many units may be charged, by what the ledger has.
func (l *ledger) left(now time.Time) int64 {
	quota := l.limit.Quota()
	switch l.limit.Algorithm() {
	case ratelimit.AlgorithmTokenBucket:
		l.earn(now)
		used := new(big.Int).Neg(new(big.Int).Div(new(big.Int).Neg(l.missing.Num()), l.missing.Denom()))
		return l.limit.Burst() - used.Int64()
	case ratelimit.AlgorithmRollingWindow:
		for _, e := range l.entries {
			if now.Sub(e.at) < l.limit.Per() {
				quota -= e.cost
			}
		}
	default:
		start, _ := l.limit.Window(now)
		for _, e := range l.entries {
			if !e.at.Before(start) {
				quota -= e.cost
			}
		}
	}
	return quota
}

func (l *ledger) earn(now time.Time) {
	earned := big.NewRat(int64(now.Sub(l.at)), int64(l.limit.Per()))
	l.at = now
	if l.missing.Sub(l.missing, earned.Mul(earned, big.NewRat(l.limit.Quota(), 1))); l.missing.Sign() < 0 {
		l.missing.SetInt64(0)
	}
}

// charge records what was charged or refunded.
func (l *ledger) charge(now time.Time, id, cost int64) {
	switch {
	case l.limit.Algorithm() == ratelimit.AlgorithmTokenBucket:
		l.earn(now)
		if l.missing.Add(l.missing, big.NewRat(cost, 1)); l.missing.Sign() < 0 {
			l.missing.SetInt64(0)
		}
	case cost > 0 || l.limit.Algorithm() == ratelimit.AlgorithmCalendarWindow:
		l.entries = append(l.entries, entry{now, id, cost})
	default:
		i := slices.IndexFunc(l.entries, func(e entry) bool { return e.id == id && e.cost >= -cost })
		for ; cost < 0; i++ {
			if e := &l.entries[max(i, 0)%len(l.entries)]; e.id == id {
				n := min(e.cost, -cost)
				e.cost -= n
				cost += n
			}
		}
	}
}

func (s *spender) reserved(now time.Time, but ratelimit.ID) (n int64) {
	for id, h := range s.holds {
		if now.Before(h.end) && id != but {
			n += h.n
		}
	}
	return n
}

func (s *spender) call(t *testing.T, method string, peek bool, c ratelimit.Charge) (ratelimit.Charge, bool) {
	t.Helper()
	s.seq++
	d := ratelimit.Decision{ID: ratelimit.ID{Node: 1, Seq: s.seq}, Peek: peek, Charges: []ratelimit.Charge{c}}
	call := s.store.Take
	if method == "Adjust" {
		call = s.store.Adjust
	}
	if err := call(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	return d.Charges[0], d.Admitted
}

func (s *spender) step(t *testing.T) string {
	r := s.random
	pause := pick(r, 1, 1, 1, time.Duration(r.Int64N(1000)), time.Duration(r.Int64N(int64(time.Minute))), time.Minute, time.Hour,
		time.Duration(r.Int64N(int64(40*24*time.Hour))))
	if r.IntN(100) == 0 {
		pause = 3 * 366 * 24 * time.Hour
	}
	if s.slept += pause; s.slept > 60*366*24*time.Hour {
		s.slept, pause = s.slept-pause, 1
	}
	time.Sleep(pause) // never 0, so that no two charges have one instant
	now := time.Now()
	l := pick(r, s.ledgers...)
	switch {
	case len(s.taken) > 0 && r.IntN(3) == 0:
		return s.settle(t, now)
	case r.IntN(60) == 0:
		if err := s.store.Reset(t.Context(), []ratelimit.Counter{{Policy: "p"}}); err != nil {
			t.Fatal(err)
		}
		for _, l := range s.ledgers {
			l.entries, l.missing = nil, new(big.Rat)
		}
		return ""
	}
	most := l.limit.Quota()
	if l.limit.Algorithm() == ratelimit.AlgorithmTokenBucket {
		most = l.limit.Burst()
	}
	c := ratelimit.Charge{Policy: "p", Limit: l.limit, Lease: pick(r, time.Second, time.Hour, 24*time.Hour)}
	c.Cost = pick(r, 0, 1, 1, 2, 1+r.Int64N(most), 1+r.Int64N(most)/2, most, most+1)
	c.Hold = r.IntN(3) == 0
	peek := r.IntN(8) == 0
	left := l.left(now) - s.reserved(now, ratelimit.ID{})
	got, admitted := s.call(t, "Take", peek, c)
	fits := c.Cost == 0 || c.Cost <= left
	switch {
	case admitted && !fits:
		return fmt.Sprintf("a cost of %d is admitted, with %d left", c.Cost, left)
	case !admitted && fits && len(s.ledgers) == 1:
		return fmt.Sprintf("a cost of %d is refused, with %d left", c.Cost, left)
	case len(s.ledgers) == 1 && (!admitted || peek) && got.Remaining != max(left, 0):
		return fmt.Sprintf("remaining %d, want %d", got.Remaining, left)
	case peek || !admitted:
		return ""
	case c.Hold && c.Cost > 0:
		s.holds[got.TakenBy] = &reservation{c.Cost, now.Add(c.Lease)}
	case !c.Hold:
		l.charge(now, got.TakenAt, c.Cost)
	}
	if s.taken = append(s.taken, got); len(s.taken) > 10 {
		s.taken = s.taken[1:]
	}
	return ""
}

// settle changes or refunds what an earlier call has charged, or ends its hold.
func (s *spender) settle(t *testing.T, now time.Time) string {
	r := s.random
	i := r.IntN(len(s.taken))
	c := s.taken[i]
	l := s.ledgers[slices.IndexFunc(s.ledgers, func(l *ledger) bool { return l.limit == c.Limit })]
	c.Cost = pick(r, c.Cost, -c.Cost, 1, -1, 5)
	c.Overdraw = c.Limit.Algorithm() == ratelimit.AlgorithmTokenBucket && r.IntN(3) == 0
	c.EndHold = r.IntN(2) == 0
	if !c.Hold && len(s.ledgers) > 1 {
		// A refund may also be of what another limit has charged, which is not in this list.
		c.Cost = max(c.Cost, 0)
	}
	own := s.holds[c.TakenBy]
	if own != nil && !now.Before(own.end) {
		own = nil
	}
	before := c.Cost
	left := l.left(now) - s.reserved(now, ratelimit.ID{})
	if c.Hold && c.EndHold {
		before = max(before, 0)
		left = l.left(now) - s.reserved(now, c.TakenBy)
	}
	got, _ := s.call(t, "Adjust", false, c)
	moved := got.Moved
	switch {
	case moved > max(before, 0) || moved < min(before, 0):
		return fmt.Sprintf("an adjustment by %d has moved %d", c.Cost, moved)
	case moved > max(left, 0) && !c.Overdraw:
		return fmt.Sprintf("%d units were charged, with %d left", moved, left)
	case len(s.ledgers) == 1 && before > 0 && moved < min(before, left) && (!c.Hold || c.EndHold || own != nil):
		return fmt.Sprintf("%d of %d units were charged, with %d left", moved, before, left)
	case c.Hold && c.EndHold:
		delete(s.holds, c.TakenBy)
		l.charge(now, now.UnixNano(), moved)
	case c.Hold && own == nil:
		if moved != 0 {
			return fmt.Sprintf("a hold that has ended has moved %d", moved)
		}
	case c.Hold:
		if own.n += moved; own.n < 0 {
			return fmt.Sprintf("a hold has shrunk by %d, below zero", -moved)
		} else if own.n == 0 {
			delete(s.holds, c.TakenBy)
		}
	case moved != 0:
		at := now
		if moved > 0 && l.limit.Algorithm() == ratelimit.AlgorithmRollingWindow {
			// It is added to the charge, if that counts.
			if taken := s.began.Add(time.Duration(c.TakenAt)); now.Sub(taken) < l.limit.Per() {
				at = taken
			}
		}
		l.charge(at, c.TakenAt, moved)
	}
	return ""
}
