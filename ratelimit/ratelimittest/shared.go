package ratelimittest

import (
	"context"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// Shared is a server whose clients are stores, for [TestShared]. Only Open is required: the
// tests that need another function are skipped if it is nil. Block, Cut and Poison affect
// all clients of the server, not only those that Open returns.
type Shared struct {
	// Open returns another client of the server. The test closes it.
	Open func(testing.TB) ratelimit.Store
	// Block makes the server silent for all clients: it accepts connections and data, and
	// does not respond. It may execute the calls when the test calls unblock.
	Block func(testing.TB) (unblock func())
	// Cut makes the server execute the next call of each client and lose the reply.
	Cut func(testing.TB)
	// Poison makes all data unreadable that the server keeps for these stores: it replaces
	// each value by one that no version of the store has written.
	Poison func(testing.TB)
}

// TestShared checks what [TestStore] cannot: that several clients of one server are one
// store, and what a client does when the server is silent, when a reply is lost and when
// stored data cannot be read. Call TestStore as well.
func TestShared(t *testing.T, server Shared) {
	for _, c := range []struct {
		name  string
		needs bool
		test  func(shared, *testing.T)
	}{
		{"clients count together", true, shared.together},
		{"clients see each other's places", true, shared.places},
		{"the places of a client that has gone are free once their lease has ended", true, shared.gone},
		{"clients see each other's holds", true, shared.holds},
		{"the holds of a client that has gone are free once their lease has ended", true, shared.goneHolds},
		{"a key that one client resets is that of a new one for all", true, shared.reset},
		{"concurrent holds of two clients take no more than the limit", true, shared.holdConcurrently},
		{"concurrent requests of two clients take exactly the limit", true, shared.concurrent},
		{"overlapping decisions of two clients do not deadlock", true, shared.overlapping},
		{"Close ends one client and no other", true, shared.closeOne},

		{"a Take whose reply is lost charges once when it is repeated", server.Cut != nil, shared.cutTake},
		{"an Adjust whose reply is lost moves once when it is repeated", server.Cut != nil, shared.cutAdjust},
		{"a Renew whose reply is lost can be repeated", server.Cut != nil, shared.cutRenew},
		{"a Reset whose reply is lost can be repeated", server.Cut != nil, shared.cutReset},
		{"a hold whose reply is lost holds once when it is repeated", server.Cut != nil, shared.cutHold},

		{"a call of a silent server ends with its context", server.Block != nil, shared.silent},
		{"a client works again when the server is no longer silent", server.Block != nil, shared.worksAgain},
		{"Close ends calls of a silent server", server.Block != nil, shared.closeSilent},

		{"unreadable data is an error, and no allowance", server.Poison != nil, shared.poison},
		{"a decision with unreadable data charges nothing", server.Poison != nil, shared.poisonBeside},
		{"places that cannot be read are lost, and not free", server.Poison != nil, shared.poisonPlaces},
		{"holds that cannot be read are lost, and not free", server.Poison != nil, shared.poisonHolds},
		{"a key whose data cannot be read can be reset", server.Poison != nil, shared.poisonReset},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !c.needs {
				t.Skip("the server cannot be made to fail in this way")
			}
			c.test(shared{server}, t)
		})
	}
}

type shared struct{ server Shared }

// open returns a client that is closed at the end of the test.
func (s shared) open(t *testing.T) suite {
	c := suite{s.server.Open(t)}
	t.Cleanup(func() { _ = c.store.Close() })
	return c
}

func (s shared) together(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		a, b := s.open(t), s.open(t)
		c.Cost = 3
		first := a.take(t, c).Charges[0]
		b.wantLeft(t, c, 2)
		c.Cost = 2
		if !b.take(t, c).Admitted {
			t.Error("what is left is refused to the other client")
		}
		a.wantLeft(t, c, 0)
		b.adjust(t, first, -2, -2)
		a.wantLeft(t, c, 2)
		s.open(t).wantLeft(t, c, 2)
	})
}

func (s shared) places(t *testing.T) {
	a, b := s.open(t), s.open(t)
	var c ratelimit.Charge
	period, due := soon(t, func(period time.Duration) error {
		c = charge(ratelimit.Concurrency(2))
		c.Cost, c.Lease = 2, period
		c = a.take(t, c).Charges[0]
		return b.renewAll(t, []ratelimit.Place{place(c)})
	})
	time.Sleep(time.Until(due.Add(period)))
	b.wantLeft(t, c, 0)
	b.adjust(t, c, -1, -1)
	b.adjust(t, c, -1, -1)
	a.adjust(t, c, -1, 0)
	a.wantLost(t, []ratelimit.Place{place(c)}, time.Hour, place(c))
	a.wantLeft(t, c, 2)
}

func (s shared) gone(t *testing.T) {
	a, b := s.open(t), s.open(t)
	c := charge(ratelimit.Concurrency(2))
	c.Cost, c.Lease = 2, 100*time.Millisecond
	a.take(t, c)
	due := time.Now().Add(c.Lease)
	if err := a.store.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	eventually(t, due, "places stay in use though their lease has ended", func() bool { return b.take(t, c).Admitted })
}

func (s shared) holds(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		a, b := s.open(t), s.open(t)
		taken := a.hold(t, c, 3)
		b.wantLeft(t, c, 2)
		b.adjust(t, taken, -1, -1)
		b.wantLost(t, []ratelimit.Place{place(taken)}, time.Hour)
		a.wantLeft(t, c, 3)
		b.endHold(t, taken, 1, 1)
		a.wantLeft(t, c, 4)
		a.wantLost(t, []ratelimit.Place{place(taken)}, time.Hour, place(taken))
	})
}

func (s shared) goneHolds(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		a, b := s.open(t), s.open(t)
		c = holding(c, 5)
		c.Lease = 100 * time.Millisecond
		a.take(t, c)
		due := time.Now().Add(c.Lease)
		if err := a.store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		eventually(t, due, "units stay on hold though their lease has ended", func() bool { return b.take(t, c).Admitted })
	})
}

func (s shared) reset(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		a, b := s.open(t), s.open(t)
		a.fill(t, c)
		b.forget(t, counterOf(c))
		a.wantLeft(t, c, 5)
	})
}

func (s shared) holdConcurrently(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		a := s.open(t)
		n := holdRace(t, c, a.store, s.open(t).store)
		if n == 0 || n > 5 {
			t.Errorf("%d units charged, want up to 5", n)
		}
		a.wantLeft(t, c, 5-n)
	})
}

func (s shared) concurrent(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		if n := race(t, c, s.open(t).store, s.open(t).store); n != 5 {
			t.Errorf("%d admitted, want 5", n)
		}
	})
}

func (s shared) overlapping(t *testing.T) { overlap(t, s.open(t).store, s.open(t).store) }

func (s shared) closeOne(t *testing.T) {
	a, b := s.open(t), s.open(t)
	c := charge(ratelimit.RollingWindow(5, time.Hour))
	a.take(t, c)
	if err := a.store.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wantClosed(t, a.store)
	b.take(t, c)
	s.open(t).wantLeft(t, c, 3)
}

// insist makes a call, and repeats it until it does not fail.
func insist(t *testing.T, name string, call func(context.Context) error) {
	t.Helper()
	const soonEnough = 5 * time.Second
	for end := time.Now().Add(soonEnough); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := call(ctx)
		cancel()
		switch {
		case err == nil:
			return
		case time.Now().After(end):
			t.Fatalf("%s still fails after %v: %v", name, soonEnough, err)
		}
	}
}

// repeat repeats the call d until it does not fail, and sets its results in d.
func (s suite) repeat(t *testing.T, m method, d *ratelimit.Decision) {
	t.Helper()
	insist(t, m.String(), func(ctx context.Context) error {
		*d = m.request(d)
		return m.of(s.store)(ctx, d)
	})
}

func (s shared) cutTake(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		a := s.open(t)
		a.wantLeft(t, c, 5)
		beside := charge(ratelimit.RollingWindow(9, time.Hour))
		d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c, beside}}
		s.server.Cut(t)
		a.repeat(t, take, d)
		if got := d.Charges[0]; !d.Admitted || got.Remaining != 4 || got.TakenBy != d.ID {
			t.Errorf("admitted %v, remaining %d, taken by %x, want 4 and %x", d.Admitted, got.Remaining, got.TakenBy, d.ID)
		}
		a.again(t, "", take, d)
		a.wantLeft(t, c, 4)
		a.wantLeft(t, beside, 8)

		c.Cost = 5
		d = &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
		s.server.Cut(t)
		a.repeat(t, take, d)
		if d.Admitted || !d.Charges[0].Violated || d.Charges[0].Remaining != 4 {
			t.Errorf("a cost of 5: admitted %v, remaining %d", d.Admitted, d.Charges[0].Remaining)
		}
	})
}

func (s shared) cutAdjust(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		a := s.open(t)
		c = a.take(t, c).Charges[0]
		for i, cost := range []int64{2, -1} {
			c.Cost = cost
			d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
			s.server.Cut(t)
			a.repeat(t, adjust, d)
			if got := d.Charges[0].Moved; got != cost {
				t.Errorf("an adjustment by %d has moved %d units", cost, got)
			}
			a.wantLeft(t, c, []int64{2, 3}[i])
		}
	})
}

func (s shared) cutRenew(t *testing.T) {
	a := s.open(t)
	c := charge(ratelimit.Concurrency(2))
	used := a.take(t, c).Charges[0]
	refunded := a.take(t, c).Charges[0]
	a.adjust(t, refunded, -1, -1)
	s.server.Cut(t)
	var lost []ratelimit.Place
	insist(t, "Renew", func(ctx context.Context) (err error) {
		lost, err = a.store.Renew(ctx, []ratelimit.Place{place(used), place(refunded)}, time.Hour)
		return err
	})
	if len(lost) != 1 || lost[0] != place(refunded) {
		t.Errorf("lost: %v, want the place that was refunded", lost)
	}
	a.wantLeft(t, c, 1)
}

func (s shared) cutReset(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		a := s.open(t)
		a.fill(t, c)
		s.server.Cut(t)
		insist(t, "Reset", func(ctx context.Context) error { return a.store.Reset(ctx, []ratelimit.Counter{counterOf(c)}) })
		a.wantLeft(t, c, 5)
	})
}

func (s shared) cutHold(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		a := s.open(t)
		a.wantLeft(t, c, 5)
		d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{holding(c, 2)}}
		s.server.Cut(t)
		a.repeat(t, take, d)
		if !d.Admitted || d.Charges[0].Remaining != 3 {
			t.Errorf("admitted %v, remaining %d, want 3", d.Admitted, d.Charges[0].Remaining)
		}
		a.wantLeft(t, c, 3)
		end := d.Charges[0]
		end.Cost, end.EndHold = 1, true
		d = &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{end}}
		s.server.Cut(t)
		a.repeat(t, adjust, d)
		if got := d.Charges[0].Moved; got != 1 {
			t.Errorf("the end of the hold has charged %d units, want 1", got)
		}
		a.wantLeft(t, c, 4)
	})
}
