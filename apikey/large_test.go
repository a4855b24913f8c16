package apikey_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
)

// An owner who creates and revokes keys in a loop slows down neither lists nor other owners
// who share the lock.
func BenchmarkMemoryOfAnOwnerWithManyKeys(b *testing.B) {
	for _, n := range []int{10, 60_000} {
		s := apikey.NewMemory()
		number := 0
		add := func(limit int) apikey.Record {
			r := record(number)
			r.CreatedAt = at0.Add(time.Duration(number) * time.Second)
			number++
			if err := s.Insert(b.Context(), r, apikey.Limits{Active: limit}); err != nil {
				b.Fatal(err)
			}
			return r
		}
		revoke := func(r apikey.Record) {
			if _, err := s.Revoke(b.Context(), r.Owner, r.ID, at0); err != nil {
				b.Fatal(err)
			}
		}
		for range n {
			revoke(add(5))
		}
		for _, bench := range []struct {
			name string
			call func()
		}{
			{"list of 20", func() { _, _, _ = s.List(b.Context(), "ann", 0, 20) }},
			{"select of 20", func() {
				_, _, _ = s.Select(b.Context(), apikey.Query{Filter: apikey.Filter{CreatedBy: "nobody"}, Limit: 20})
			}},
			{"select all", func() { _, _, _ = s.Select(b.Context(), apikey.Query{Limit: 20, Sort: apikey.SortExpires}) }},
			{"purge of none", func() { _, _ = s.Purge(b.Context(), at0.Add(-time.Hour), 20) }},
			{"create and revoke", func() { revoke(add(5)) }}, // last, as it adds more
		} {
			b.Run(fmt.Sprintf("%d/%s", n, bench.name), func(b *testing.B) {
				for b.Loop() {
					bench.call()
				}
			})
		}
	}
}

// TestAnOwnerWithManyKeysSlowsNothingDown allows a factor of 20, where visiting all keys
// would mean a factor of a thousand.
func TestAnOwnerWithManyKeysSlowsNothingDown(t *testing.T) {
	s := apikey.NewMemory()
	number := 0
	create := func() {
		r := record(number)
		r.CreatedAt = at0.Add(time.Duration(number) * time.Second)
		number++
		if err := s.Insert(t.Context(), r, apikey.Limits{Active: 5}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Revoke(t.Context(), r.Owner, r.ID, at0); err != nil {
			t.Fatal(err)
		}
	}
	list := func() {
		if _, total, err := s.List(t.Context(), "ann", 0, 20); err != nil || total != number {
			t.Fatal(total, err)
		}
	}
	fastest := func(call func()) (best time.Duration) {
		for i := range 20 {
			start := time.Now()
			call()
			if took := time.Since(start); i == 0 || took < best {
				best = took
			}
		}
		return best
	}
	for range 20 {
		create()
	}
	fewCreate, fewList := fastest(create), fastest(list)
	for number < 20_000 {
		create()
	}
	if took := fastest(create); took > 20*fewCreate+20*time.Microsecond {
		t.Errorf("a new key takes %v, and took %v for few", took, fewCreate)
	}
	if took := fastest(list); took > 20*fewList+20*time.Microsecond {
		t.Errorf("a list takes %v, and took %v for few", took, fewList)
	}
}

// The counts by which a Memory enforces limits agree with its keys after any changes.
func TestTheCountsOfAMemoryAreExact(t *testing.T) {
	const seed = 7
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // reproducible
	s := apikey.NewMemory()
	ctx := t.Context()
	second := func() time.Time { return at0.Add(time.Duration(random.IntN(60)) * time.Second) }
	end := func() time.Time {
		if random.IntN(3) == 0 {
			return time.Time{}
		}
		return second()
	}
	number := 0
	fresh := func(at time.Time) apikey.Record {
		r := record(number)
		r.Owner = fmt.Sprint("owner", random.IntN(3))
		r.CreatedAt, r.ExpiresAt = at, end()
		number++
		return r
	}
	limits := func() (l apikey.Limits) {
		for _, limit := range []*int{&l.Active, &l.Replaced, &l.Working, &l.Derived, &l.Total} {
			if random.IntN(3) == 0 {
				*limit = 1 + random.IntN(8)
			}
		}
		l.Total *= 4
		return l
	}
	// limited returns the error of a change at a limit.
	limited := func(owner string, at time.Time, l apikey.Limits) error {
		keys, total, err := s.List(ctx, owner, 0, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		var active, replaced, derived int
		for _, k := range keys {
			switch {
			case k.Ended(at):
			case k.DerivedFrom != "":
				derived++
			case k.ReplacedBy != "":
				replaced++
			default:
				active++
			}
		}
		reached := func(n, limit int) bool { return limit > 0 && n >= limit }
		switch {
		case reached(active, l.Active), reached(replaced, l.Replaced), reached(active+replaced, l.Working), reached(derived, l.Derived):
			return apikey.ErrLimit
		case reached(total, l.Total):
			return apikey.ErrFull
		}
		return nil
	}
	outcomes := make(map[error]int)
	check := func(what string, err, want error) {
		t.Helper()
		outcomes[want]++
		if !errors.Is(err, want) {
			t.Fatalf("key %d: %s: %v, want %v", number, what, err, want)
		}
	}
	for range 5000 {
		at, limit := second(), limits()
		old, err := s.Lookup(ctx, record(random.IntN(number+1)).Hash)
		switch op := random.IntN(10); {
		case op < 5 || err != nil:
			r := fresh(at)
			if random.IntN(3) == 0 {
				r.DerivedFrom = "k"
			}
			want := limited(r.Owner, at, limit)
			check("Insert", s.Insert(ctx, r, limit), want)
		case op < 6:
			old.ExpiresAt = end()
			if err := s.Update(ctx, old); err != nil {
				t.Fatal(err)
			}
		case op < 8:
			next := fresh(at)
			next.Owner, old.ReplacedBy, old.ExpiresAt = old.Owner, next.ID, end()
			want := limited(old.Owner, at, limit)
			check("Rotate", s.Rotate(ctx, old, next, limit), want)
		case op < 9:
			if _, err := s.Revoke(ctx, old.Owner, old.ID, at); err != nil {
				t.Fatal(err)
			}
		case random.IntN(2) == 0:
			if _, err := s.Purge(ctx, at, 3); err != nil {
				t.Fatal(err)
			}
		default:
			if _, _, err := s.RevokeAll(ctx, apikey.Filter{Owner: old.Owner}, at, 2); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, err := range []error{nil, apikey.ErrLimit, apikey.ErrFull} {
		if outcomes[err] < 100 {
			t.Errorf("%d changes end with %v: the test shows little", outcomes[err], err)
		}
	}
}
