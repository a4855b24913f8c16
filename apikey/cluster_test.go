package apikey_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
)

const (
	raceNodes     = 2
	raceMaxActive = 5
	noNode        = -1
)

// A history is what has happened to one key. Its settings only ever narrow.
type history struct {
	owner, text string
	parent      string // the ID of the key that it is derived from
	effects     []effect
}

// An effect is a change in the store.
type effect struct {
	at    time.Time // when the store has made the change
	end   time.Time // from when on the key is refused; zero for never
	write bool      // whether the key has the scope "write"
	// known is from when on a node must respect the effect, strictly later; zero means
	// never.
	known [raceNodes]time.Time
}

// A cluster is several nodes over one store, and the history of every key.
type cluster struct {
	t     *testing.T
	store *apikey.Memory
	bound time.Duration // how long after an effect the other nodes may not know it

	mu   sync.Mutex
	ids  []string
	keys map[string]*history

	accepted, refused, unavailable, changes, limited int
}

// ended reports whether a key must be refused by a node at this time, as an effect is
// known there; or, with no node, whether it may be refused.
func (c *cluster) ended(id string, node int, at time.Time) bool {
	k := c.keys[id]
	for _, e := range k.effects {
		if c.knows(&e, node, at) && !e.end.IsZero() && !at.Before(e.end) {
			return true
		}
	}
	return k.parent != "" && c.ended(k.parent, node, at)
}

// narrowed is ended for the loss of the scope "write".
func (c *cluster) narrowed(id string, node int, at time.Time) bool {
	k := c.keys[id]
	for _, e := range k.effects {
		if c.knows(&e, node, at) && !e.write {
			return true
		}
	}
	return k.parent != "" && c.narrowed(k.parent, node, at)
}

// knows reports whether an effect is known to a node at this time; with no node it is.
func (c *cluster) knows(e *effect, node int, at time.Time) bool {
	return node == noNode || !e.known[node].IsZero() && at.After(e.known[node]) || at.After(e.at.Add(c.bound))
}

// A slowStore is the store as one node sees it: its calls take time, before and after they
// take effect, some longer than the node waits, and some fail although they have taken
// effect. If the lateness is not zero, it also has notices, which are late.
type slowStore struct {
	apikey.Store
	*cluster
	node int

	random sync.Mutex
	*rand.Rand
}

func (s *slowStore) intN(n int) int {
	s.random.Lock()
	defer s.random.Unlock()
	return s.IntN(n)
}

// wait takes up to 20 ms, and once in 400 calls longer than a node waits.
func (s *slowStore) wait() {
	d := time.Duration(1+s.intN(20_000)) * time.Microsecond
	if s.intN(400) == 0 {
		d = 3500 * time.Millisecond
	}
	time.Sleep(d)
}

var errUnclear = errors.New("the connection is lost")

// change makes a change of the keys with these IDs, and records its effects.
func (s *slowStore) change(do func() error, owner string, ids ...string) error {
	s.wait()
	s.mu.Lock()
	err := do()
	if err == nil {
		s.changes++
		for _, id := range ids {
			s.record(owner, id)
		}
	}
	s.mu.Unlock()
	s.wait()
	s.mu.Lock()
	if err == nil {
		for _, id := range ids {
			s.keys[id].respect(s.node, time.Now())
		}
	}
	s.mu.Unlock()
	if err == nil && s.intN(100) == 0 {
		return errUnclear
	}
	return err
}

// record adds the state of a key to its history.
func (c *cluster) record(owner, id string) {
	r, err := c.store.Find(context.Background(), owner, id)
	if err != nil {
		c.t.Error(err)
		return
	}
	e := effect{at: time.Now(), end: r.ExpiresAt, write: slices.Contains(r.Scopes, "write")}
	if !r.RevokedAt.IsZero() || !r.DisabledAt.IsZero() {
		e.end = e.at
	}
	k := c.keys[id]
	if k == nil {
		k = &history{owner: owner, parent: r.DerivedFrom}
		c.keys[id] = k
	}
	k.effects = append(k.effects, e)
}

// respect records that a node must respect the effects so far from now on.
func (k *history) respect(node int, now time.Time) {
	for i := range k.effects {
		if e := &k.effects[i]; e.known[node].IsZero() && e.at.Before(now) {
			e.known[node] = now
		}
	}
}

// count returns how many keys of owner are active, and how many are replaced but still
// valid, independently of how the store counts.
func (c *cluster) count(owner string, now time.Time) (active, replaced int) {
	keys, _, err := c.store.List(context.Background(), owner, 0, 1<<20)
	if err != nil {
		c.t.Error(err)
	}
	for i := range keys {
		switch k := &keys[i]; {
		case k.Ended(now) || k.DerivedFrom != "":
		case k.ReplacedBy != "":
			replaced++
		default:
			active++
		}
	}
	return active, replaced
}

// limit checks that a change is refused exactly if there is no room for it.
func (c *cluster) limit(what string, err error, before int) {
	if errors.Is(err, apikey.ErrLimit) {
		c.limited++
	}
	if full := before >= raceMaxActive; full != errors.Is(err, apikey.ErrLimit) && !errors.Is(err, apikey.ErrConflict) {
		c.t.Errorf("%s, with %d keys before it: %v", what, before, err)
	}
}

func (s *slowStore) Insert(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
	return s.change(func() error {
		active, _ := s.count(r.Owner, r.CreatedAt)
		err := s.store.Insert(context.WithoutCancel(ctx), r, limits)
		if r.DerivedFrom == "" {
			s.limit("Insert", err, active)
		}
		return err
	}, r.Owner, r.ID)
}

func (s *slowStore) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	s.wait()
	r, err := s.store.Lookup(context.WithoutCancel(ctx), h)
	s.wait()
	return r, err
}

func (s *slowStore) Find(ctx context.Context, owner, id string) (apikey.Record, error) {
	s.wait()
	r, err := s.store.Find(context.WithoutCancel(ctx), owner, id)
	s.wait()
	return r, err
}

func (s *slowStore) Update(ctx context.Context, r apikey.Record) error {
	return s.change(func() error { return s.store.Update(context.WithoutCancel(ctx), r) }, r.Owner, r.ID)
}

func (s *slowStore) Rotate(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
	return s.change(func() error {
		_, replaced := s.count(old.Owner, next.CreatedAt)
		err := s.store.Rotate(context.WithoutCancel(ctx), old, next, limits)
		if !old.Ended(next.CreatedAt) {
			s.limit("Rotate", err, replaced)
		}
		return err
	}, old.Owner, old.ID, next.ID)
}

func (s *slowStore) Revoke(ctx context.Context, owner, id string, at time.Time) (r apikey.Record, err error) {
	err = s.change(func() error {
		var err error
		r, err = s.store.Revoke(context.WithoutCancel(ctx), owner, id, at)
		return err
	}, owner, id)
	return r, err
}

// A lateStore also has notices, which are late, and a watch that breaks.
type lateStore struct {
	*slowStore
	lateness time.Duration
	breaks   time.Duration // how long a watch lasts; 0 if it never breaks
}

func (s *lateStore) Watch(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
	if s.breaks > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, s.breaks)
		defer stop()
	}
	type notice struct {
		h   apikey.Hash
		due time.Time
	}
	var (
		mu    sync.Mutex
		queue []notice
		wg    sync.WaitGroup
	)
	wg.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(time.Millisecond)
			mu.Lock()
			for len(queue) > 0 && !time.Now().Before(queue[0].due) {
				changed(queue[0].h)
				queue = queue[1:]
			}
			mu.Unlock()
		}
	})
	defer wg.Wait()
	return s.store.Watch(ctx, ready, func(h apikey.Hash) {
		mu.Lock()
		defer mu.Unlock()
		queue = append(queue, notice{h, time.Now().Add(time.Duration(s.intN(int(s.lateness))))})
		if n := len(queue); n > 1 && queue[n-1].due.Before(queue[n-2].due) {
			queue[n-1].due = queue[n-2].due
		}
	})
}
