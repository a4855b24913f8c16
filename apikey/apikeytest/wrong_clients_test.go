package apikeytest_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/apikey/apikeytest"
	"github.com/usher-go/usher/internal/storetest"
)

// A flaw makes the clients of a server wrong in one way.
type flaw struct {
	row  string
	make func(*client)
}

const (
	another   = "each client finds what another has stored"
	atALimit  = "every limit holds across clients"
	oneOfTwo  = "one of the parallel changes by two clients succeeds"
	byAnother = "a client is notified of the changes by another"
	cutOff    = "a call whose reply is lost fails, and can be repeated"
	blocked   = "no call outlasts its context while the server is silent"
	unwatched = "a watch ends when the server is silent"
	cached    = "no key in a cache outlasts a silent watch"
	others    = "a client that is closed leaves the others open"
	poison    = "unreadable data is never taken for missing"
)

// retried repeats a call if its reply is lost.
func (c *client) retried(ctx context.Context, f func(context.Context) error) error {
	err := c.over(ctx, f)
	if errors.Is(err, usher.ErrUnavailable) && ctx.Err() == nil {
		err = c.over(ctx, f)
	}
	return err
}

// instead returns a call that fails with another error than want.
func instead(want, other error) func(*client) {
	return func(c *client) {
		c.call = func(ctx context.Context, f func(context.Context) error) error {
			err := c.over(ctx, f)
			if errors.Is(err, want) {
				err = other
			}
			return err
		}
	}
}

var flaws = map[string]flaw{
	"keeps its own data": {another, func(c *client) {
		c.server = &server{data: apikey.NewMemory()}
		c.Memory = c.server.data
		c.connect()
	}},
	"keeps what it has looked up": {another, func(c *client) {
		var mu sync.Mutex
		kept := map[apikey.Hash]apikey.Record{}
		lookup := c.lookup
		c.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			mu.Lock()
			defer mu.Unlock()
			if r, ok := kept[h]; ok {
				return r, nil
			}
			r, err := lookup(ctx, h)
			if err == nil {
				kept[h] = r
			}
			return r, err
		}
	}},
	"counts the keys that it has added": {atALimit, func(c *client) {
		var mu sync.Mutex
		n := map[string]int{}
		insert := c.insert
		c.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			mu.Lock()
			defer mu.Unlock()
			if limits.Active > 0 && n[r.Owner] >= limits.Active {
				return apikey.ErrLimit
			}
			n[r.Owner]++
			return insert(ctx, r, apikey.Limits{})
		}
	}},
	"compares revisions under a lock of its own": {oneOfTwo, func(c *client) {
		var mu sync.Mutex
		c.update = func(ctx context.Context, r apikey.Record) error {
			mu.Lock()
			defer mu.Unlock()
			stored, err := c.find(ctx, r.Owner, r.ID)
			if err == nil && stored.Revision != r.Revision {
				err = apikey.ErrConflict
			}
			if err != nil {
				return err
			}
			time.Sleep(100 * time.Millisecond)
			if stored, err = c.find(ctx, r.Owner, r.ID); err == nil {
				r.Revision = stored.Revision
				err = c.server.data.Update(ctx, r)
			}
			return err
		}
	}},
	"reports its own changes only": {byAnother, func(c *client) {
		var mu sync.Mutex
		own := map[apikey.Hash]bool{}
		insert := c.insert
		c.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			mu.Lock()
			own[r.Hash] = true
			mu.Unlock()
			return insert(ctx, r, limits)
		}
		c.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			return c.follow(ctx, ready, func(h apikey.Hash) {
				mu.Lock()
				is := own[h]
				mu.Unlock()
				if is {
					changed(h)
				}
			})
		}
	}},
	"repeats an Insert whose reply is lost": {cutOff, func(c *client) {
		c.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			return c.retried(ctx, func(ctx context.Context) error { return c.server.data.Insert(ctx, r, limits) })
		}
	}},
	"repeats an Update whose reply is lost": {cutOff, func(c *client) {
		c.update = func(ctx context.Context, r apikey.Record) error {
			return c.retried(ctx, func(ctx context.Context) error { return c.server.data.Update(ctx, r) })
		}
	}},
	"repeats a Rotate whose reply is lost": {cutOff, func(c *client) {
		c.rotate = func(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
			return c.retried(ctx, func(ctx context.Context) error { return c.server.data.Rotate(ctx, old, next, limits) })
		}
	}},
	"repeats a RevokeAll whose reply is lost": {cutOff, func(c *client) {
		c.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, limit int) (revoked []apikey.Record, more bool, err error) {
			err = c.retried(ctx, func(ctx context.Context) (err error) {
				revoked, more, err = c.server.data.RevokeAll(ctx, f, at, limit)
				return err
			})
			return revoked, more, err
		}
	}},
	"takes a lost reply for none": {cutOff, func(c *client) {
		c.call = func(ctx context.Context, f func(context.Context) error) error {
			if c.cut.Swap(false) {
				return usher.ErrUnavailable // the server has not executed the call
			}
			return c.over(ctx, f)
		}
	}},
	"calls a lost reply missing": {cutOff, instead(usher.ErrUnavailable, apikey.ErrNotFound)},
	"waits for a silent server": {blocked, func(c *client) {
		c.call = func(ctx context.Context, f func(context.Context) error) error {
			return c.over(context.WithoutCancel(ctx), f)
		}
	}},
	"waits for a silent server to look up a key": {blocked, func(c *client) {
		c.lookup = func(ctx context.Context, h apikey.Hash) (r apikey.Record, err error) {
			err = c.over(context.WithoutCancel(ctx), func(ctx context.Context) (err error) { r, err = c.server.data.Lookup(ctx, h); return err })
			return r, err
		}
	}},
	"finds nothing on a silent server":  {blocked, instead(usher.ErrUnavailable, apikey.ErrNotFound)},
	"has errors of its own for silence": {blocked, instead(usher.ErrUnavailable, errors.New("i/o timeout"))},
	"does not recover from silence": {blocked, func(c *client) {
		var failed atomic.Bool
		c.call = func(ctx context.Context, f func(context.Context) error) error {
			if failed.Load() {
				return usher.ErrUnavailable
			}
			err := c.over(ctx, f)
			if errors.Is(err, usher.ErrUnavailable) {
				failed.Store(true)
			}
			return err
		}
	}},
	"watches a silent server": {unwatched, func(c *client) { c.watch = c.server.data.Watch }},
	"ends a silent watch without an error": {unwatched, func(c *client) {
		c.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			_ = c.follow(ctx, ready, changed)
			return nil
		}
	}},
	"reports nothing after silence": {unwatched, func(c *client) {
		var was atomic.Bool
		c.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			return c.follow(ctx, ready, func(h apikey.Hash) {
				if !was.Load() {
					changed(h)
				}
			})
		}
		go func() {
			for c.server.quiet() == nil {
				time.Sleep(time.Millisecond)
			}
			was.Store(true)
		}()
	}},
	"loses its watch with a connection that is silent": {cached, func(c *client) {
		c.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			_ = c.follow(ctx, ready, changed)
			<-ctx.Done()
			return ctx.Err()
		}
	}},
	"is ready before it follows again": {cached, func(c *client) {
		var again atomic.Bool
		c.watch = func(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
			if again.Swap(true) {
				ready()
				<-ctx.Done()
				return ctx.Err()
			}
			return c.follow(ctx, ready, changed)
		}
	}},
	"closes the server":                   {others, func(c *client) { c.close = c.server.data.Close }},
	"stays open":                          {others, func(c *client) { c.close = func() error { return nil } }},
	"finds nothing where it cannot read":  {poison, instead(usher.ErrCorrupt, apikey.ErrNotFound)},
	"is unavailable where it cannot read": {poison, instead(usher.ErrCorrupt, usher.ErrUnavailable)},
	"has no error where it cannot read":   {poison, instead(usher.ErrCorrupt, nil)},
	"panics where it cannot read": {poison, func(c *client) {
		c.find = func(ctx context.Context, owner, id string) (apikey.Record, error) {
			if c.server.poisoned.Load() {
				panic("unexpected end of input")
			}
			return c.server.data.Find(ctx, owner, id)
		}
	}},
	"has room where it cannot read": {poison, func(c *client) {
		insert := c.insert
		c.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			if c.server.poisoned.Load() {
				return nil
			}
			return insert(ctx, r, limits)
		}
	}},
	"has room for derived keys where it cannot read": {poison, func(c *client) {
		insert := c.insert
		c.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			if limits.Derived = 0; limits == (apikey.Limits{}) && c.server.poisoned.Load() {
				return nil
			}
			return insert(ctx, r, limits)
		}
	}},
	"lists nothing where it cannot read": {poison, func(c *client) {
		list := c.list
		c.list = func(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
			if c.server.poisoned.Load() {
				return nil, 0, nil
			}
			return list(ctx, owner, offset, limit)
		}
	}},
	"revokes nothing where it cannot read": {poison, func(c *client) {
		revokeAll := c.revokeAll
		c.revokeAll = func(ctx context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error) {
			if c.server.poisoned.Load() {
				return nil, false, nil
			}
			return revokeAll(ctx, f, at, limit)
		}
	}},
}

// allFlaws are flaws, and a client for each limit whose lock is its own.
func allFlaws() map[string]flaw {
	all := maps.Clone(flaws)
	for name, of := range eachLimit {
		all["holds the limit "+name+" by a lock of its own"] = flaw{atALimit, func(c *client) {
			insert, rotate := c.insert, c.rotate
			var mu sync.Mutex
			counts(c.store, &mu, &mu, slowly)
			alone(c.store, of, insert, rotate)
		}}
	}
	return all
}

func TestWrongClientsFail(t *testing.T) {
	storetest.WantFailures(t, "TestWrongClient", allFlaws(), func(f flaw) string { return f.row })
}

func TestWrongClient(t *testing.T) {
	f := allFlaws()[storetest.Wrong(t)]
	apikeytest.SetPatience(time.Second)
	apikeytest.TestShared(t, shared(f.make))
}
