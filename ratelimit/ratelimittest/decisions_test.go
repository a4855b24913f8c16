package ratelimittest_test

import (
	"context"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

// A bubble runs functions in a synctest bubble, for a caller outside it.
type bubble struct {
	run  chan func()
	done chan struct{}
}

func newBubble(t *testing.T) bubble {
	b := bubble{make(chan func()), make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		synctest.Test(t, func(*testing.T) {
			for f := range b.run {
				f()
				b.done <- struct{}{}
			}
		})
	}()
	t.Cleanup(func() {
		close(b.run)
		<-ended
	})
	return b
}

// do runs f in the bubble, whose time it is then.
func (b bubble) do(f func()) {
	b.run <- f
	<-b.done
}

func (b bubble) setClock(to time.Time) { b.do(func() { time.Sleep(time.Until(to)) }) }

func TestAMemoryPassesTestDecisions(t *testing.T) {
	ratelimittest.TestDecisions(t, func(testing.TB) (ratelimit.Store, func(time.Time)) {
		b := newBubble(t)
		var m ratelimit.Store
		b.do(func() { m = newMemory() })
		return inBubble{b, m}, b.setClock
	})
}

// An inBubble is a store that is called in a bubble.
type inBubble struct {
	bubble
	store ratelimit.Store
}

func (s inBubble) Take(ctx context.Context, d *ratelimit.Decision) (err error) {
	s.do(func() { err = s.store.Take(ctx, d) })
	return err
}

func (s inBubble) Adjust(ctx context.Context, d *ratelimit.Decision) (err error) {
	s.do(func() { err = s.store.Adjust(ctx, d) })
	return err
}

func (s inBubble) Renew(ctx context.Context, places []ratelimit.Place, lease time.Duration) (lost []ratelimit.Place, err error) {
	s.do(func() { lost, err = s.store.Renew(ctx, places, lease) })
	return lost, err
}

func (s inBubble) Reset(ctx context.Context, counters []ratelimit.Counter) (err error) {
	s.do(func() { err = s.store.Reset(ctx, counters) })
	return err
}

func (s inBubble) Close() error { return s.store.Close() }

// decisionMistakes are mistakes that only exact results show.
var decisionMistakes = map[string]wrap{
	"holds one unit less in one call of a thousand": func(s ratelimit.Store) ratelimit.Store {
		n := 0
		return askedTo(func(c *ratelimit.Charge) {
			if n++; n%1000 == 0 && c.Limit.Quota() > 1 {
				c.Limit = larger(c.Limit, -1)
			}
		}, nil)(s)
	},
	"holds one unit more in one call of a thousand": func(s ratelimit.Store) ratelimit.Store {
		n := 0
		return askedTo(func(c *ratelimit.Charge) {
			if n++; n%1000 == 0 {
				c.Limit = larger(c.Limit, 1)
			}
		}, nil)(s)
	},
	"reports a Wait that is a microsecond too short": results(func(c *ratelimit.Charge) {
		if c.Wait > 0 {
			c.Wait -= time.Microsecond
		}
	}),
	"rounds Wait down": results(func(c *ratelimit.Charge) {
		if c.Wait > 0 {
			c.Wait = c.Wait.Truncate(time.Microsecond)
		}
	}),
	"rounds Reset down":          results(func(c *ratelimit.Charge) { c.Reset = c.Reset.Truncate(time.Microsecond) }),
	"rounds Reset to the second": results(func(c *ratelimit.Charge) { c.Reset = c.Reset.Round(time.Second) }),
	"keeps Reset in a float32":   results(func(c *ratelimit.Charge) { c.Reset = time.Duration(float32(c.Reset)) }),
	"reports a Wait that is a microsecond too long for one algorithm": results(func(c *ratelimit.Charge) {
		if c.Wait > 0 && c.Limit.Algorithm() == ratelimit.AlgorithmCalendarWindow {
			c.Wait += time.Microsecond
		}
	}),
	"ends calendar windows a microsecond late": asked(func(c *ratelimit.Charge) {
		for i := range c.Windows {
			if !c.Windows[i].End.IsZero() {
				c.Windows[i].End = c.Windows[i].End.Add(time.Microsecond)
			}
		}
	}),
	"ends leases a microsecond late": asked(func(c *ratelimit.Charge) {
		if c.Lease > 0 {
			c.Lease += time.Microsecond
		}
	}),
	"ends rolling windows a microsecond late": asked(func(c *ratelimit.Charge) {
		if c.Limit.Algorithm() == ratelimit.AlgorithmRollingWindow {
			c.Limit = ratelimit.RollingWindow(int(c.Limit.Quota()), c.Limit.Per()+time.Microsecond)
		}
	}),
	"earns tokens one in a billion slower": asked(func(c *ratelimit.Charge) {
		if l := c.Limit; l.Algorithm() == ratelimit.AlgorithmTokenBucket {
			c.Limit = ratelimit.TokenBucket(int(l.Quota()), l.Per()+l.Per()/1_000_000_000, int(l.Burst()))
		}
	}),
	"refunds at another instant":  askedTo(nil, func(c *ratelimit.Charge) { c.TakenAt += int64(time.Microsecond) }),
	"keeps three limits of a key": func(s ratelimit.Store) ratelimit.Store { return forgets(3)(s.(*ratelimit.Memory)) },
	"remembers a call for a millisecond": func(s ratelimit.Store) ratelimit.Store {
		known := make(map[ratelimit.ID]time.Time)
		return store{Store: s, take: func(ctx context.Context, d *ratelimit.Decision) error {
			id := d.ID
			if at, ok := known[id]; ok && time.Since(at) > time.Millisecond {
				id = newID()
			} else if !ok {
				known[id] = time.Now()
			}
			return under(ctx, id, s.Take, d)
		}}
	},
	"moves again when an Adjust is repeated": func(s ratelimit.Store) ratelimit.Store {
		return store{Store: s, adjust: asNewCall(s.Adjust)}
	},
	"renews five places of a call": func(s ratelimit.Store) ratelimit.Store {
		return renews(func(places []ratelimit.Place) []ratelimit.Place { return places[:min(5, len(places))] })(s.(*ratelimit.Memory))
	},
	"begins windows that are not the present ones": asked(func(c *ratelimit.Charge) {
		if c.Limit.Algorithm() == ratelimit.AlgorithmCalendarWindow && !time.Now().Before(c.Windows[1].End) {
			c.Windows = [2]ratelimit.Window{}
		}
	}),
	"begins windows with a peek": func(s ratelimit.Store) ratelimit.Store {
		return looks(func(d *ratelimit.Decision) { takesNothing(d); d.ID = newID() })(s.(*ratelimit.Memory))
	},
	"charges a hold at once": asked(func(c *ratelimit.Charge) { c.Hold = false }),
	"charges the end of a hold at the instant of Take": func(s ratelimit.Store) ratelimit.Store {
		return askedTo(nil, func(c *ratelimit.Charge) {
			if c.Hold && c.EndHold {
				end := *c
				end.Cost = 0
				_ = s.Adjust(context.Background(), &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{end}})
				c.Hold, c.Cost = false, max(c.Cost, 0)
			}
		})(s)
	},
	"overdraws up to twice the burst": askedTo(nil, func(c *ratelimit.Charge) {
		if c.Overdraw && c.Limit.Algorithm() == ratelimit.AlgorithmTokenBucket {
			c.Cost = min(c.Cost, c.Limit.Burst())
		}
	}),
	"keeps windows from a clock that was ahead": func(s ratelimit.Store) ratelimit.Store {
		return keepsLater(false)(s.(*ratelimit.Memory))
	},
	"resets nothing": func(s ratelimit.Store) ratelimit.Store {
		return resets(func([]ratelimit.Counter) []ratelimit.Counter { return nil })(s.(*ratelimit.Memory))
	},
	"counts anchors by their instant": func(s ratelimit.Store) ratelimit.Store { return byInstant(s.(*ratelimit.Memory)) },
	"refunds a unit that is partly earned again as none": askedTo(nil, func(c *ratelimit.Charge) {
		if c.Cost < -1 {
			c.Cost++
		}
	}),
}

// coarse is a wrong store that is not wrong in what it is asked.
const coarse = "a clock in milliseconds"

func TestWrongDecisionsFail(t *testing.T) {
	wrong := maps.Clone(decisionMistakes)
	wrong[coarse] = nil
	storetest.WantFailures(t, "TestWrongDecisions", wrong, func(wrap) string { return "" })
}

func TestWrongDecisions(t *testing.T) {
	name := storetest.Wrong(t)
	change := decisionMistakes[name]
	coarse := name == coarse
	if coarse {
		change = same
	}
	ratelimittest.TestDecisions(t, func(testing.TB) (ratelimit.Store, func(time.Time)) {
		b := newBubble(t)
		var s ratelimit.Store
		b.do(func() { s = change(newMemory()) })
		return inBubble{b, s}, func(to time.Time) {
			if coarse {
				to = to.Truncate(time.Millisecond)
			}
			b.setClock(to)
		}
	})
}
