package idempotencytest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
)

func newMemory(tb testing.TB) *idempotency.Memory {
	tb.Helper()
	m, err := idempotency.NewMemory(idempotency.MemoryConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestMemory(t *testing.T) {
	t.Parallel()
	idempotencytest.TestStore(t, func(tb testing.TB) idempotency.Store { return newMemory(tb) })
}

// observer is a store that records which token has each key.
type observer struct {
	*idempotency.Memory
	mu     sync.Mutex
	owners map[idempotency.Key]idempotency.Token
}

func newObserver(tb testing.TB) *observer {
	return &observer{Memory: newMemory(tb), owners: make(map[idempotency.Key]idempotency.Token)}
}

func (o *observer) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, err := o.Memory.Claim(ctx, c)
	if r.Won {
		o.owners[c.Key] = c.Token
	}
	return r, err
}

// owner returns the token that has the key, or else token.
func (o *observer) owner(key idempotency.Key, token idempotency.Token) idempotency.Token {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t, ok := o.owners[key]; ok {
		return t
	}
	return token
}

// unfencedFinish lets any token finish, as a plain SET would.
type unfencedFinish struct{ *observer }

func (s unfencedFinish) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	c.Token = s.owner(c.Key, c.Token)
	return s.Memory.Finish(ctx, c)
}

// unfencedRelease lets any token release, as a plain DEL would.
type unfencedRelease struct{ *observer }

func (s unfencedRelease) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	if c.Result.State == idempotency.StateReleased {
		c.Token = s.owner(c.Key, c.Token)
	}
	return s.Memory.Finish(ctx, c)
}

type unfencedRenew struct{ *observer }

func (s unfencedRenew) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	claims = slices.Clone(claims)
	for i, c := range claims {
		claims[i].Token = s.owner(c.Key, c.Token)
	}
	return s.Memory.Renew(ctx, claims, lease)
}

// selfConflict mistakes the claim of a repeated call for that of another token.
type selfConflict struct{ *observer }

func (s selfConflict) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	mine := s.owner(c.Key, idempotency.Token{}) == c.Token
	r, err := s.observer.Claim(ctx, c)
	r.Won = r.Won && !mine
	return r, err
}

// oneGeneration gives every claim the same generation.
type oneGeneration struct{ *observer }

func (s oneGeneration) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	r, err := s.observer.Claim(ctx, c)
	r.Generation = 1
	return r, err
}

// checkThenAct first checks whether the key is free and then takes it.
type checkThenAct struct{ *observer }

func (s checkThenAct) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	if _, taken := s.holder(c.Key); taken {
		return s.observer.Claim(ctx, c)
	}
	time.Sleep(100 * time.Microsecond)
	r, err := s.observer.Claim(ctx, c)
	if err == nil && r.State == idempotency.StateClaimed {
		r.Won = true
	}
	return r, err
}

func (o *observer) holder(key idempotency.Key) (idempotency.Token, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, ok := o.owners[key]
	return t, ok
}

// forgetsTakeover does not say that a claim is taken over.
type forgetsTakeover struct{ *observer }

func (s forgetsTakeover) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	r, err := s.observer.Claim(ctx, c)
	r.TakenOver = false
	return r, err
}

// takesUnknown takes every unknown outcome over.
type takesUnknown struct{ *observer }

func (s takesUnknown) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	c.TakeUnknown = true
	return s.observer.Claim(ctx, c)
}

// takesLapsed takes a claim whose lease has ended over for any request.
type takesLapsed struct{ *observer }

func (s takesLapsed) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	r, err := s.observer.Claim(ctx, c)
	if err != nil || r.State != idempotency.StateClaimed || r.Lease > 0 || r.Won {
		return r, err
	}
	asked := c.Fingerprint
	c.Fingerprint = r.Fingerprint
	if r, err = s.observer.Claim(ctx, c); r.Won {
		r.Fingerprint = asked
	}
	return r, err
}

// unfencedDelete deletes any generation.
type unfencedDelete struct{ *observer }

func (s unfencedDelete) Delete(ctx context.Context, key idempotency.Key, generation uint64) error {
	if r, err := s.Memory.Find(ctx, key); err == nil {
		generation = r.Generation
	}
	return s.Memory.Delete(ctx, key, generation)
}

// forcefulDelete ends a claim to delete it.
type forcefulDelete struct{ *observer }

func (s forcefulDelete) Delete(ctx context.Context, key idempotency.Key, generation uint64) error {
	if r, err := s.Memory.Find(ctx, key); err == nil && r.Generation == generation {
		id := idempotency.ClaimID{Key: key, Token: s.owner(key, idempotency.Token{1})}
		_, _ = s.Memory.Renew(ctx, []idempotency.ClaimID{id}, 0)
	}
	return s.Memory.Delete(ctx, key, generation)
}

// idleDelete deletes nothing.
type idleDelete struct{ *observer }

func (s idleDelete) Delete(ctx context.Context, key idempotency.Key, generation uint64) error {
	r, err := s.Memory.Find(ctx, key)
	if err == nil && (r.Generation != generation || r.Lease > 0) {
		err = idempotency.ErrLost
	}
	return err
}

// staleFind returns the record that it has found first.
type staleFind struct {
	*observer
	found *sync.Map
}

func (s staleFind) Find(ctx context.Context, key idempotency.Key) (idempotency.Record, error) {
	r, err := s.Memory.Find(ctx, key)
	if err != nil {
		return r, err
	}
	first, _ := s.found.LoadOrStore(key, r)
	return first.(idempotency.Record), nil
}

func TestHistoriesOfBrokenStoresAreRejected(t *testing.T) {
	for name, store := range map[string]idempotency.Store{
		"unfenced finish":    unfencedFinish{newObserver(t)},
		"unfenced release":   unfencedRelease{newObserver(t)},
		"unfenced renew":     unfencedRenew{newObserver(t)},
		"conflict with self": selfConflict{newObserver(t)},
		"one generation":     oneGeneration{newObserver(t)},
		"check, then act":    checkThenAct{newObserver(t)},
		"forgotten takeover": forgetsTakeover{newObserver(t)},
		"eager takeover":     takesUnknown{newObserver(t)},
		"any takeover":       takesLapsed{newObserver(t)},
		"unfenced delete":    unfencedDelete{newObserver(t)},
		"forceful delete":    forcefulDelete{newObserver(t)},
		"idle delete":        idleDelete{newObserver(t)},
		"stale find":         staleFind{newObserver(t), new(sync.Map)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := idempotencytest.CheckLinearizable(t.Context(), store, 60)
			if err == nil || !strings.Contains(err.Error(), "not linearizable") {
				t.Errorf("60 histories were accepted: %v", err)
			}
		})
	}
}

// lossy loses some calls, and some replies.
type lossy struct {
	*idempotency.Memory
	mu     sync.Mutex
	random *rand.Rand
}

var errReset = errors.New("connection reset")

func (s *lossy) fate() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.random.IntN(30)
}

func (s *lossy) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	fate := s.fate()
	if fate == 0 {
		return idempotency.Record{}, errReset
	}
	r, err := s.Memory.Claim(ctx, c)
	if fate == 1 {
		return idempotency.Record{}, errReset
	}
	return r, err
}

func (s *lossy) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	fate := s.fate()
	if fate == 0 {
		return 0, errReset
	}
	kept, err := s.Memory.Finish(ctx, c)
	if fate == 1 {
		return 0, errReset
	}
	return kept, err
}

func (s *lossy) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	fate := s.fate()
	if fate == 0 {
		return nil, errReset
	}
	lost, err := s.Memory.Renew(ctx, claims, lease)
	if fate == 1 {
		return nil, errReset
	}
	return lost, err
}

func (s *lossy) Find(ctx context.Context, key idempotency.Key) (idempotency.Record, error) {
	if s.fate() == 0 {
		return idempotency.Record{}, errReset
	}
	return s.Memory.Find(ctx, key)
}

func (s *lossy) Delete(ctx context.Context, key idempotency.Key, generation uint64) error {
	fate := s.fate()
	if fate == 0 {
		return errReset
	}
	err := s.Memory.Delete(ctx, key, generation)
	if fate == 1 {
		return errReset
	}
	return err
}

func TestHistoriesWithLostRepliesAreAccepted(t *testing.T) {
	s := &lossy{Memory: newMemory(t), random: rand.New(rand.NewPCG(1, 2))}
	if err := idempotencytest.CheckLinearizable(t.Context(), s, 30); err != nil {
		t.Error(err)
	}
}
