package apikey_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/apikey"
)

// A node is one process of the service.
type node struct {
	*cluster
	n       int
	manager *apikey.Manager
	cache   *apikey.Cache
	// Two authenticators share the cache, as those of two routes do.
	authenticators [2]*apikey.Authenticator
}

// pick returns a key, preferably a recent one.
func (c *cluster) pick(random *rand.Rand) (id, owner, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ids) == 0 {
		return "", "", ""
	}
	i := random.IntN(len(c.ids))
	if n := len(c.ids) - 12; n > 0 && random.IntN(4) > 0 {
		i = n + random.IntN(12)
	}
	id = c.ids[i]
	return id, c.keys[id].owner, c.keys[id].text
}

func (c *cluster) add(id string, text apikey.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[id].text = text.Reveal()
	c.ids = append(c.ids, id)
}

// authenticate sends a request with a key, and checks the verdict against its history.
func (n *node) authenticate(id, text string, random *rand.Rand) apikey.Verdict {
	began := time.Now()
	n.mu.Lock()
	mustRefuse, mustLack := n.ended(id, n.n, began), n.narrowed(id, n.n, began)
	n.mu.Unlock()
	p, err := n.authenticators[random.IntN(2)].Authenticate(request("X-API-Key", text))
	v := verdictOf(n.t, err)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch v {
	case apikey.Accepted:
		n.accepted++
		if mustRefuse {
			n.t.Errorf("node %d accepts a key at %v: %+v", n.n, began, n.keys[id])
		}
		if p.HasScopes("write") && mustLack {
			n.t.Errorf("node %d grants a scope at %v that was taken away: %+v", n.n, began, n.keys[id])
		}
		if !p.HasScopes("write") && !n.narrowed(id, noNode, time.Now()) {
			n.t.Errorf("node %d does not grant a scope of a key: %+v", n.n, n.keys[id])
		}
	case apikey.Unavailable:
		n.unavailable++
	default:
		n.refused++
		if !n.ended(id, noNode, time.Now()) {
			n.t.Errorf("node %d refuses a valid key as %v: %+v", n.n, v, n.keys[id])
		}
	}
	return v
}

// change makes one change at random. Once a change has returned, the node that made it
// respects it at once.
func (n *node) change(random *rand.Rand) {
	ctx := context.Background()
	id, owner, text := n.pick(random)
	kind := random.IntN(12)
	if id == "" {
		kind = 0
	}
	switch kind {
	case 0, 1, 2, 3: // create
		owner := []string{"ann", "bob", "eve"}[random.IntN(3)]
		k, secret, err := n.manager.Create(ctx, server, apikey.Key{Owner: owner, Name: "x", Scopes: []string{"read", "write"}})
		if err == nil {
			n.add(k.ID, secret)
			if v := n.authenticate(k.ID, secret.Reveal(), random); v == apikey.Unknown {
				n.t.Errorf("node %d refuses a key that it has issued", n.n)
			}
		}
	case 4, 5: // rotate
		grace := time.Duration(random.IntN(3)) * 5 * time.Second
		k, secret, err := n.manager.Rotate(ctx, server, owner, id, grace)
		if err == nil {
			n.add(k.ID, secret)
			if v := n.authenticate(id, text, random); grace == 0 && v == apikey.Accepted {
				n.t.Errorf("node %d accepts a key that it has replaced", n.n)
			}
		}
	case 6, 7: // narrow
		what := random.IntN(3)
		_, err := n.manager.Update(ctx, server, owner, id, func(k *apikey.Key) {
			switch end := time.Now().Add(time.Duration(random.IntN(5000)) * time.Millisecond); what {
			case 0:
				k.Scopes = []string{"read"}
			case 1:
				if k.ExpiresAt.IsZero() || end.Before(k.ExpiresAt) {
					k.ExpiresAt = end
				}
			case 2:
				k.DisabledAt = time.Now()
			}
		})
		if err == nil && what == 2 && n.authenticate(id, text, random) == apikey.Accepted {
			n.t.Errorf("node %d accepts a key that it has disabled", n.n)
		}
	case 8, 9: // derive
		n.derive(owner, id, random)
	default: // revoke
		_, err := n.manager.Revoke(ctx, server, owner, id)
		if err == nil && n.authenticate(id, text, random) == apikey.Accepted {
			n.t.Errorf("node %d accepts a key that it has revoked", n.n)
		}
	}
}

// derive stores a key that is derived from another one.
func (n *node) derive(owner, id string, random *rand.Rand) {
	parent, err := n.store.Find(context.Background(), owner, id)
	if err != nil || parent.DerivedFrom != "" || !parent.Active(time.Now()) {
		return
	}
	secret := apikey.NewSecret(generate(n.t, native, ""))
	h, err := n.manager.Hash(secret)
	if err != nil {
		n.t.Error(err)
		return
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	child := apikey.Record{Hash: h, DerivedFromHash: parent.Hash, Key: apikey.Key{
		ID: secret.Reveal()[9:31], Owner: owner, Name: "x", Scopes: []string{"read", "write"}, Level: parent.Level,
		Environment: parent.Environment, CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(20 * time.Second),
		DerivedFrom: parent.ID, Revision: 1,
	}}
	if n.cache.Insert(context.Background(), child, apikey.Limits{}) == nil {
		n.add(child.ID, secret)
		_ = n.authenticate(child.ID, secret.Reveal(), random)
	}
}

func newCluster(t *testing.T, bound time.Duration, wrap func(*slowStore) apikey.Store) (*cluster, []*node) {
	c := &cluster{t: t, store: apikey.NewMemory(), bound: bound, keys: map[string]*history{}}
	var nodes []*node
	for i := range raceNodes {
		s := wrap(&slowStore{Store: c.store, cluster: c, node: i, Rand: rand.New(rand.NewPCG(16, uint64(i)))})
		cache := newCache(t, apikey.CacheConfig{Store: s, OnError: func(context.Context, error) {}})
		n := &node{cluster: c, n: i, cache: cache, manager: newManager(t, apikey.ManagerConfig{
			Store: cache, MaxActive: raceMaxActive, OnError: func(context.Context, error) {},
		})}
		for j := range n.authenticators {
			a, err := apikey.New(apikey.Config{Manager: n.manager, LastUseInterval: -1, OnError: func(context.Context, error) {}})
			if err != nil {
				t.Fatal(err)
			}
			n.authenticators[j] = a
		}
		nodes = append(nodes, n)
	}
	return c, nodes
}

// Two nodes create, rotate, narrow, disable, derive and revoke keys, and authenticate with
// them, all at the same time, over a store that is slow, fails after it has made a change,
// and hangs for longer than a node waits. The node that made a change respects it once the
// call has returned, and the other one when the documented bound has passed. No valid key
// is refused, and the number of keys of an owner never exceeds its limit.
func TestNoNodeAcceptsAKeyOnceItMustKnowOfItsEnd(t *testing.T) {
	const lasts = 40 * time.Second
	for _, test := range []struct {
		name  string
		bound time.Duration
		wrap  func(*slowStore) apikey.Store
	}{
		{"without notices", 10 * time.Second, func(s *slowStore) apikey.Store { return silent{s} }},
		{"with late notices", 2 * time.Second, func(s *slowStore) apikey.Store { return &lateStore{slowStore: s, lateness: 2 * time.Second} }},
		{"with late notices that are lost at times", 2 * time.Second, func(s *slowStore) apikey.Store {
			return &lateStore{slowStore: s, lateness: 2 * time.Second, breaks: 3 * time.Second}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, nodes := newCluster(t, test.bound, test.wrap)
				end := time.Now().Add(lasts)
				var workers sync.WaitGroup
				for i, n := range nodes {
					for j := range 4 {
						workers.Go(func() {
							for random := rand.New(rand.NewPCG(uint64(i), uint64(j))); time.Now().Before(end); {
								n.change(random)
								time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
							}
						})
						workers.Go(func() {
							for random := rand.New(rand.NewPCG(uint64(i), uint64(100+j))); time.Now().Before(end); {
								if id, _, text := n.pick(random); id != "" {
									_ = n.authenticate(id, text, random)
								}
								time.Sleep(time.Duration(1+random.IntN(10)) * time.Millisecond)
							}
						})
					}
				}
				workers.Wait()
				time.Sleep(time.Minute) // the calls that hang
				c.mu.Lock()
				defer c.mu.Unlock()
				for _, owner := range []string{"ann", "bob", "eve"} {
					if active, replaced := c.count(owner, time.Now()); active > raceMaxActive || replaced > raceMaxActive {
						t.Errorf("%s has %d active keys, and %d replaced ones", owner, active, replaced)
					}
				}
				t.Logf("%d changes, %d refused at a limit; %d requests accepted, %d refused, %d without a result",
					c.changes, c.limited, c.accepted, c.refused, c.unavailable)
				if c.changes < 1000 || c.limited < 20 || c.accepted < 3000 || c.refused < 3000 || c.unavailable > c.accepted {
					t.Error("too little has happened")
				}
			})
		})
	}
}
