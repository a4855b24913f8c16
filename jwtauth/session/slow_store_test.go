package session_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/jwtauth/session"
)

// A hangingUpdate is a Store whose lookups take some time and whose updates hang.
type hangingUpdate struct{ session.Store }

func (u *hangingUpdate) Lookup(ctx context.Context, h [32]byte) (session.Record, error) {
	time.Sleep(time.Millisecond)
	return u.Store.Lookup(ctx, h)
}

func (u *hangingUpdate) Update(ctx context.Context, _ session.Record) error {
	<-ctx.Done()
	return ctx.Err()
}

// The timeout that a request has for all of its calls ends before that of its last call.
// A store that exhausts it counts as failed all the same, and its calls soon fail fast.
func TestAStoreWhoseUpdatesHangFailsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &hangingUpdate{Store: newMemory(t, 0)}
		m := newManager(t, func(c *session.Config) { c.Store = store })
		h := newHandler(t, m, nil)
		text := login(t, m).RefreshToken()
		fast := make(chan bool, 600)
		for range cap(fast) {
			go func() {
				began := time.Now()
				if w := post(t, h.Refresh, refreshBody(text)); w.Code != 503 {
					t.Errorf("%d %s", w.Code, w.Body)
				}
				fast <- time.Since(began) < 10*time.Millisecond
			}()
			time.Sleep(10 * time.Millisecond)
		}
		n := 0
		for range cap(fast) {
			if <-fast {
				n++
			}
		}
		if n < 60 {
			t.Errorf("%d of %d requests failed fast", n, cap(fast))
		}
		time.Sleep(2 * time.Hour)
	})
}

// A subject for whom Claims fails, for instance because it was deleted, does not keep
// others from logging in, however often it tries.
func TestClaimsThatFailForOneSubjectFailForNoOther(t *testing.T) {
	for name, fail := range map[string]func() error{
		"an error": func() error { return errors.New("no rows") },
		"a panic":  func() error { panic("no rows") },
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, func(c *session.Config) {
				c.Claims = func(_ context.Context, s session.Session) (map[string]any, error) {
					if s.Subject == "gone" {
						return nil, fail()
					}
					return nil, nil
				}
				c.OnError = func(context.Context, error) {}
			})
			for range 50 {
				if _, err := m.Login(t.Context(), session.Session{Subject: "gone"}); err == nil {
					t.Fatal("a login without claims")
				}
			}
			if _, err := m.Login(t.Context(), session.Session{Subject: "ann"}); err != nil {
				t.Error(err)
			}
		})
	}
}
