package ratelimittest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

// same leaves a store as it is.
func same(s ratelimit.Store) ratelimit.Store { return s }

func TestClientsOfAServerPass(t *testing.T) {
	s := newServer(newMemory(), flaws{})
	ratelimittest.TestShared(t, s.shared(same))
	ratelimittest.TestStore(t, s.shared(same).Open)
}

// A sharedMistake makes a server or its clients wrong in one way.
type sharedMistake struct {
	row    string // that must fail
	flaws  flaws
	client wrap // of every client
	server wrap // of the server's store
}

const (
	rowSilent      = "a call of a silent server ends with its context"
	rowCloseSilent = "Close ends calls of a silent server"
	rowPoison      = "unreadable data is an error, and no allowance"
	rowBeside      = "a decision with unreadable data charges nothing"
	rowPlaces      = "places that cannot be read are lost, and not free"
	rowCutTake     = "a Take whose reply is lost charges once when it is repeated"
	rowCutAdjust   = "an Adjust whose reply is lost moves once when it is repeated"
)

var sharedMistakes = map[string]sharedMistake{
	"counts on each node": {row: "clients count together", client: onEachNode(nil)},
	"counts on each node as well": {
		row: "concurrent requests of two clients take exactly the limit", client: onEachNode(nil),
	},
	"adjusts on each node": {row: "clients count together", client: adjustsOnNode},
	"keeps places on each node": {
		row: "clients see each other's places",
		client: onEachNode(func(d *ratelimit.Decision) bool {
			return d.Charges[0].Limit.Algorithm() == ratelimit.AlgorithmConcurrency
		}),
	},
	"renews what the node has taken alone": {row: "clients see each other's places", client: renewsOwn},
	"keeps places of clients that have gone": {
		row:    "the places of a client that has gone are free once their lease has ended",
		server: asked(func(c *ratelimit.Charge) { c.Lease *= 10_000 }),
	},
	"keeps holds on each node": {
		row:    "clients see each other's holds",
		client: onEachNode(func(d *ratelimit.Decision) bool { return d.Charges[0].Hold }),
	},
	"keeps holds of clients that have gone": {
		row:    "the holds of a client that has gone are free once their lease has ended",
		server: asked(func(c *ratelimit.Charge) { c.Lease *= 10_000 }),
	},
	"resets on each node": {
		row:    "a key that one client resets is that of a new one for all",
		client: func(s ratelimit.Store) ratelimit.Store { return store{Store: s, reset: newMemory().Reset} },
	},
	"looks, and holds later": {
		row: "concurrent holds of two clients take no more than the limit", client: peeks,
	},
	"reads, and writes later": {
		row:    "concurrent requests of two clients take exactly the limit",
		client: peeks,
	},
	"locks in the order of the charges": {
		row:    "overlapping decisions of two clients do not deadlock",
		server: locksInOrder,
	},
	"closes the server": {row: "Close ends one client and no other", flaws: flaws{closesServer: true}},
	"goes on when it is closed": {
		row:    "Close ends one client and no other",
		client: func(s ratelimit.Store) ratelimit.Store { return store{Store: s, close: func() error { return nil }} },
	},

	"repeats a Take as another call": {row: rowCutTake, client: repeatsAs(func(s *store, inner ratelimit.Store) {
		s.take = asNewCall(inner.Take)
	})},
	"repeats an Adjust as another call": {row: rowCutAdjust, client: repeatsAs(func(s *store, inner ratelimit.Store) {
		s.adjust = asNewCall(inner.Adjust)
	})},
	"repeats a Take by itself as another call": {row: rowCutTake, client: repeatsAs(func(s *store, inner ratelimit.Store) {
		s.take = twiceAsNewCall(inner.Take)
	})},
	"repeats an Adjust by itself as another call": {row: rowCutAdjust, client: repeatsAs(func(s *store, inner ratelimit.Store) {
		s.adjust = twiceAsNewCall(inner.Adjust)
	})},
	"admits when the reply is lost": {row: rowCutTake, client: admitsErrors},
	"reports all places lost when the reply is lost": {
		row: "a Renew whose reply is lost can be repeated", client: losesPlaces,
	},

	"resets nothing when the reply is lost": {
		row: "a Reset whose reply is lost can be repeated",
		client: func(s ratelimit.Store) ratelimit.Store {
			return store{Store: s, reset: func(ctx context.Context, counters []ratelimit.Counter) error {
				if err := s.Reset(ctx, nil); err != nil {
					return nil //nolint:nilerr // This is the mistake.
				}
				return s.Reset(ctx, counters)
			}}
		},
	},
	"holds again when the reply is lost": {
		row:    "a hold whose reply is lost holds once when it is repeated",
		client: repeatsAs(func(s *store, inner ratelimit.Store) { s.take = asNewCall(inner.Take) }),
	},
	"ignores the context of Reset": {row: rowSilent, client: func(s ratelimit.Store) ratelimit.Store {
		return store{Store: s, reset: func(ctx context.Context, counters []ratelimit.Counter) error {
			return s.Reset(context.WithoutCancel(ctx), counters)
		}}
	}},

	"ignores the context of Take":              {row: rowSilent, client: ignores(true, false, false)},
	"ignores the context of Adjust":            {row: rowSilent, client: ignores(false, true, false)},
	"ignores the context of Renew":             {row: rowSilent, client: ignores(false, false, true)},
	"respects the deadline of a context alone": {row: rowSilent, client: deadlineAlone},
	"admits when the server is silent":         {row: rowSilent, client: admitsErrors},
	"never works again": {
		row: "a client works again when the server is no longer silent", flaws: flaws{staysDown: true},
	},
	"charges late what is repeated": {
		row:    "a client works again when the server is no longer silent",
		client: repeatsAs(func(s *store, inner ratelimit.Store) { s.take = asNewCall(inner.Take) }),
	},
	"leaves calls running when it is closed": {row: rowCloseSilent, flaws: flaws{leavesCalls: true}},
	"waits for calls when it is closed":      {row: rowCloseSilent, flaws: flaws{awaitsCalls: true}},

	"takes what cannot be read for absent":      {row: rowPoison, flaws: flaws{absent: true}},
	"panics at what cannot be read":             {row: rowPoison, flaws: flaws{panics: true}},
	"removes what cannot be read":               {row: rowPoison, flaws: flaws{repairs: true}},
	"takes what cannot be read for a failure":   {row: rowPoison, flaws: flaws{unavailable: true}},
	"reads the first charge alone":              {row: rowBeside, flaws: flaws{firstAlone: true}},
	"charges what it can read":                  {row: rowBeside, client: chargesReadable},
	"reports no place that cannot be read":      {row: rowPlaces, flaws: flaws{hidesPlaces: true}},
	"fails a renewal for what it cannot read":   {row: rowPlaces, flaws: flaws{failsRenewal: true}},
	"renews nothing beside what cannot be read": {row: rowPlaces, flaws: flaws{renewsNone: true}},
	"reports no hold that cannot be read": {
		row: "holds that cannot be read are lost, and not free", flaws: flaws{hidesPlaces: true},
	},
	"takes holds that cannot be read for absent": {
		row: "holds that cannot be read are lost, and not free", flaws: flaws{absent: true},
	},
	"resets no key that cannot be read": {
		row: "a key whose data cannot be read can be reset", flaws: flaws{keepsUnreadable: true},
	},
	"reads the first place alone": {row: rowPlaces, flaws: flaws{firstAlone: true}},
}

func TestWrongServersFail(t *testing.T) {
	storetest.WantFailures(t, "TestWrongServer", sharedMistakes, func(m sharedMistake) string { return m.row })
}

func TestWrongServer(t *testing.T) {
	m := sharedMistakes[storetest.Wrong(t)]
	var s ratelimit.Store = newMemory()
	if m.server != nil {
		s = m.server(s)
	}
	if m.client == nil {
		m.client = same
	}
	ratelimittest.TestShared(t, newServer(s, m.flaws).shared(m.client))
}

// onEachNode decides on the node itself if the function returns true.
func onEachNode(here func(*ratelimit.Decision) bool) wrap {
	return func(s ratelimit.Store) ratelimit.Store {
		node := newMemory()
		at := func(d *ratelimit.Decision) ratelimit.Store {
			if here == nil || here(d) {
				return node
			}
			return s
		}
		return store{
			Store:  s,
			take:   func(ctx context.Context, d *ratelimit.Decision) error { return at(d).Take(ctx, d) },
			adjust: func(ctx context.Context, d *ratelimit.Decision) error { return at(d).Adjust(ctx, d) },
		}
	}
}

func adjustsOnNode(s ratelimit.Store) ratelimit.Store {
	return store{Store: s, adjust: onEachNode(nil)(s).Adjust}
}

func renewsOwn(s ratelimit.Store) ratelimit.Store {
	own := make(map[ratelimit.ID]bool)
	return store{
		Store: s,
		take: func(ctx context.Context, d *ratelimit.Decision) error {
			own[d.ID] = true
			return s.Take(ctx, d)
		},
		renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) (lost []ratelimit.Place, err error) {
			for _, p := range places {
				if !own[p.TakenBy] {
					lost = append(lost, p)
					continue
				}
				some, err := s.Renew(ctx, []ratelimit.Place{p}, lease)
				if err != nil {
					return nil, err
				}
				lost = append(lost, some...)
			}
			return lost, nil
		},
	}
}

func repeatsAs(change func(s *store, inner ratelimit.Store)) wrap {
	return func(inner ratelimit.Store) ratelimit.Store {
		s := store{Store: inner}
		change(&s, inner)
		return s
	}
}

type decide = func(context.Context, *ratelimit.Decision) error

// asNewCall makes every call under another ID.
func asNewCall(f decide) decide {
	var mu sync.Mutex
	known := make(map[ratelimit.ID]bool)
	return func(ctx context.Context, d *ratelimit.Decision) error {
		mu.Lock()
		id := d.ID
		if known[id] {
			id = newID()
		}
		known[d.ID] = true
		mu.Unlock()
		return under(ctx, id, f, d)
	}
}

// twiceAsNewCall repeats a call that has failed, under another ID.
func twiceAsNewCall(f decide) decide {
	return func(ctx context.Context, d *ratelimit.Decision) error {
		if err := f(ctx, d); err == nil || ctx.Err() != nil {
			return err
		}
		return under(ctx, newID(), f, d)
	}
}

func admitsErrors(s ratelimit.Store) ratelimit.Store {
	return store{Store: s, take: func(ctx context.Context, d *ratelimit.Decision) error {
		if err := s.Take(ctx, d); err != nil {
			d.Admitted = true
		}
		return nil
	}}
}

func losesPlaces(s ratelimit.Store) ratelimit.Store {
	return store{Store: s, renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
		lost, err := s.Renew(ctx, places, lease)
		if err != nil {
			return places, nil
		}
		return lost, nil
	}}
}

// ignores ignores the contexts of some methods.
func ignores(take, adjust, renew bool) wrap {
	ctxOf := func(ctx context.Context, ignored bool) context.Context {
		if ignored {
			return context.WithoutCancel(ctx)
		}
		return ctx
	}
	return func(s ratelimit.Store) ratelimit.Store {
		return store{
			Store:  s,
			take:   func(ctx context.Context, d *ratelimit.Decision) error { return s.Take(ctxOf(ctx, take), d) },
			adjust: func(ctx context.Context, d *ratelimit.Decision) error { return s.Adjust(ctxOf(ctx, adjust), d) },
			renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
				return s.Renew(ctxOf(ctx, renew), places, lease)
			},
		}
	}
}

// deadlineAlone sets the deadline of a connection, and does not look at the context later.
func deadlineAlone(s ratelimit.Store) ratelimit.Store {
	return store{Store: s, take: func(ctx context.Context, d *ratelimit.Decision) error {
		at, ok := ctx.Deadline()
		ctx = context.WithoutCancel(ctx)
		if ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, at)
			defer cancel()
		}
		return s.Take(ctx, d)
	}}
}

// chargesReadable charges the policies one by one, and then reports the error.
func chargesReadable(s ratelimit.Store) ratelimit.Store {
	return store{Store: s, take: func(ctx context.Context, d *ratelimit.Decision) error {
		d.Admitted = true
		var failed error
		for i := range d.Charges {
			one := &ratelimit.Decision{ID: newID(), Charges: d.Charges[i : i+1]}
			if err := s.Take(ctx, one); err != nil {
				failed = err
			}
			d.Admitted = d.Admitted && one.Admitted
		}
		if failed == nil {
			return nil
		}
		d.Admitted = false
		return failed
	}}
}
