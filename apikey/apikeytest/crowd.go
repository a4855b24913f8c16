package apikeytest

import (
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/storetest"
)

// A bound is one of the limits.
type bound struct {
	name string
	of   func(*apikey.Limits) *int
	err  error
}

var (
	active   = bound{"active", func(l *apikey.Limits) *int { return &l.Active }, apikey.ErrLimit}
	replaced = bound{"replaced", func(l *apikey.Limits) *int { return &l.Replaced }, apikey.ErrLimit}
	working  = bound{"working", func(l *apikey.Limits) *int { return &l.Working }, apikey.ErrLimit}
	derived  = bound{"derived", func(l *apikey.Limits) *int { return &l.Derived }, apikey.ErrLimit}
	total    = bound{"total", func(l *apikey.Limits) *int { return &l.Total }, apikey.ErrFull}

	bounds = []bound{active, replaced, working, derived, total}
)

// at returns the limit n of b, and no other.
func (b bound) at(n int) (l apikey.Limits) {
	*b.of(&l) = n
	return l
}

func derive(r *apikey.Record) {
	r.Parent, r.Line = "", ""
	r.DerivedFrom, r.DerivedFromHash = "key_"+unique(), newHash()
}

func replace(r *apikey.Record) { r.ReplacedBy = "key_" + unique() }

func revoke(r *apikey.Record) { r.RevokedAt = r.CreatedAt }

// A crowd has keys of every kind and in every state, of one owner.
type crowd struct {
	owner  string
	at     time.Time     // at which they are counted, later than now
	active apikey.Record // one of them
	counts apikey.Limits
}

func newCrowd(t *testing.T, s apikey.Store) *crowd {
	t.Helper()
	c := &crowd{owner: "owner_" + unique(), at: now().Add(time.Hour)}
	add := func(alter ...func(*apikey.Record)) {
		r := newRecord()
		r.Owner = c.owner
		for _, f := range alter {
			f(&r)
		}
		c.active = insert(t, s, r)
		c.counts.Total++
	}
	for _, kind := range []struct {
		more  int
		alter []func(*apikey.Record)
	}{
		{3, []func(*apikey.Record){derive}},
		{1, []func(*apikey.Record){derive, replace}},
		{2, []func(*apikey.Record){replace}},
		{1, nil},
	} {
		with := func(f func(*apikey.Record)) []func(*apikey.Record) { return append(slices.Clone(kind.alter), f) }
		// These have ended.
		add(with(func(r *apikey.Record) { r.ExpiresAt = c.at })...)
		add(with(revoke)...)
		// These have not.
		add(with(func(r *apikey.Record) { r.DisabledAt = r.CreatedAt })...)
		add(with(func(r *apikey.Record) { r.ExpiresAt = c.at.Add(time.Microsecond) })...)
		add(with(func(r *apikey.Record) { r.ExpiresAt = time.Time{} })...)
		for range kind.more {
			add(kind.alter...)
		}
	}
	c.counts.Active, c.counts.Replaced, c.counts.Working, c.counts.Derived = 4, 5, 9, 10
	return c
}

// limits returns limits that each permit one more key, except those of which the owner has
// as many keys as permitted.
func (c *crowd) limits(reached ...bound) (l apikey.Limits) {
	for _, b := range bounds {
		*b.of(&l) = *b.of(&c.counts) + 1
	}
	for _, b := range reached {
		*b.of(&l)--
	}
	return l
}

func (c *crowd) next() apikey.Record {
	r := newRecord()
	r.Owner, r.CreatedAt, r.UpdatedAt = c.owner, c.at, c.at
	return r
}

func testCounts(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	c := newCrowd(t, s)
	insert := func(limits apikey.Limits) error { return s.Insert(ctx, c.next(), limits) }
	rotate := func(limits apikey.Limits) error {
		old, next := c.active, c.next()
		old.ReplacedBy = next.ID
		return s.Rotate(ctx, old, next, limits)
	}
	for name, change := range map[string]func(apikey.Limits) error{"Insert": insert, "Rotate": rotate} {
		for _, b := range bounds {
			storetest.WantError(t, name+" at the limit "+b.name, change(c.limits(b)), b.err)
			storetest.WantError(t, name+" at the limit "+b.name+" alone", change(b.at(*b.of(&c.counts))), b.err)
			storetest.WantError(t, name+" beyond the limit "+b.name, change(b.at(1)), b.err)
		}
		for _, b := range bounds[:4] {
			storetest.WantError(t, name+" at the limits total and "+b.name, change(c.limits(b, total)), apikey.ErrLimit)
		}
	}
	full := c.limits(bounds...)
	storetest.WantError(t, "Insert of a key that is stored, at all limits", s.Insert(ctx, c.active, full), apikey.ErrConflict)
	storetest.WantError(t, "Rotate to a key that is stored, at all limits", s.Rotate(ctx, c.active, c.active, full), apikey.ErrConflict)
	storetest.WantError(t, "Rotate of an unknown key, at all limits", s.Rotate(ctx, c.next(), c.next(), full), apikey.ErrNotFound)
	want(t, s, c.active)
	if _, n, err := s.List(ctx, c.owner, 0, 1); err != nil || n != c.counts.Total {
		t.Errorf("after changes that were refused: %d keys, %v; want %d", n, err, c.counts.Total)
	}
	if err := rotate(c.limits()); err != nil {
		t.Errorf("Rotate below every limit: %v", err)
	}
	// There are as many active keys as before.
	c.counts.Replaced, c.counts.Working, c.counts.Total = c.counts.Replaced+1, c.counts.Working+1, c.counts.Total+1
	storetest.WantError(t, "Insert after the rotation", insert(c.limits(replaced)), apikey.ErrLimit)
	if err := insert(c.limits()); err != nil {
		t.Errorf("Insert below every limit: %v", err)
	}
}

func testParallelChanges(t *testing.T, s apikey.Store) { parallelChanges(t, s) }

// parallelChanges changes the keys of an owner concurrently, where there is room for fewer
// changes than there are, with each limit.
func parallelChanges(t *testing.T, clients ...apikey.Store) {
	t.Helper()
	const calls, free = 40, 5
	for _, c := range []struct {
		bound
		old   int // keys that there are, which are rotated
		count int // of them at first
		alter func(*apikey.Record)
	}{
		{active, 0, 0, func(*apikey.Record) {}},
		{replaced, calls, 0, nil},
		{working, calls / 2, calls / 2, func(*apikey.Record) {}},
		{derived, 0, 0, derive},
		{total, calls / 2, calls / 2, revoke},
	} {
		owner, at := "owner_"+unique(), now()
		old := make([]apikey.Record, c.old)
		for i := range old {
			r := newRecord()
			r.Owner = owner
			old[i] = insert(t, clients[0], r)
		}
		counts := each(calls, func(i int) error {
			client, next := clients[i%len(clients)], newRecord()
			next.Owner, next.CreatedAt = owner, at
			if i < c.old {
				r := old[i]
				r.ReplacedBy = next.ID
				return client.Rotate(t.Context(), r, next, c.at(c.count+free))
			}
			c.alter(&next)
			return client.Insert(t.Context(), next, c.at(c.count+free))
		})
		if counts[nil] != free || counts[c.err] != calls-free {
			t.Errorf("at the limit %s: outcomes: %v, want %d without error and %d with %v", c.name, counts, free, calls-free, c.err)
		}
		if _, n, err := clients[0].List(t.Context(), owner, 0, 1); err != nil || n != c.old+free {
			t.Errorf("at the limit %s: List: %d keys, %v; want %d", c.name, n, err, c.old+free)
		}
	}
}
