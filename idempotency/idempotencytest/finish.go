package idempotencytest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

func (s suite) done(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	want := result("\x00\xff{\"a\":1}\r\n'\"\\")
	s.finish(t, c, want)
	for range 3 {
		s.wantRecord(t, c, want)
	}
	if err := s.renewOne(t.Context(), c, time.Hour); !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("Renew of a finished claim: %v, want it to be lost", err)
	}
	s.wantRecord(t, c, want)
}

// States without a response have no payload, even if a caller sets one.
func (s suite) bodiless(t *testing.T) {
	for _, state := range []idempotency.State{idempotency.StateTombstone, idempotency.StateUnknown} {
		for _, payload := range []string{"", "why"} {
			c := newClaim()
			s.win(t, c)
			given := ending(state)
			given.Payload = []byte(payload)
			s.finish(t, c, given)
			s.wantRecord(t, c, ending(state))
			s.wantRecord(t, c, ending(state))
		}
	}
	c := newClaim()
	s.win(t, c)
	given := result("why")
	given.State = idempotency.StateReleased
	s.finish(t, c, given)
	s.win(t, rival(c))
}

func (s suite) kept(t *testing.T) {
	for _, r := range endings {
		c := newClaim()
		s.win(t, c)
		s.finish(t, c, r)
		if r.State != idempotency.StateReleased {
			s.wantRecord(t, c, r)
		}
		lost := rival(c)
		if kept, err := s.store.Finish(t.Context(), completion(lost, r)); kept != 0 || !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Finish of a token without a claim: kept %d, %v", kept, err)
		}
	}
}

func (s suite) finishAgain(t *testing.T) {
	var claims [4]idempotency.Claim
	for i, first := range endings {
		c := newClaim()
		claims[i] = c
		s.win(t, c)
		s.finish(t, c, first)
		for _, again := range endings {
			again.Status, again.TTL = 204, short
			for range 2 {
				if kept, err := s.store.Finish(t.Context(), completion(c, again)); kept != first.State || err != nil {
					t.Errorf("Finish with state %d after %d: kept %d, %v", again.State, first.State, kept, err)
				}
			}
		}
	}
	wait()
	for i, first := range endings {
		s.wantEnded(t, claims[i], first)
	}
}

// wantEnded fails unless c has ended with r and its record is still there.
func (s suite) wantEnded(t *testing.T, c idempotency.Claim, r idempotency.Result) {
	t.Helper()
	if r.State != idempotency.StateReleased {
		s.wantRecord(t, c, r)
		return
	}
	if _, err := s.store.Claim(t.Context(), c); !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("Claim by a token that has released the key: %v, want ErrLost", err)
	}
	s.win(t, rival(c))
	s.wantLost(t, c)
}

func (s suite) released(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	s.finish(t, c, release)
	for range 2 {
		if r, err := s.store.Claim(t.Context(), c); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Claim by a token that has released the key: %+v, %v, want ErrLost", r, err)
		}
	}
	if err := s.renewOne(t.Context(), c, time.Hour); !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("Renew after release: %v, want the claim to be lost", err)
	}
	next := rival(c)
	s.win(t, next)
	s.lose(t, rival(c), next)
	s.wantLost(t, c)
	s.lose(t, c, next)
	s.finish(t, next, result("next"))
	s.wantRecord(t, next, result("next"))
}

func (s suite) releasedAgain(t *testing.T) {
	c := newClaim()
	for range 5 {
		c = rival(c)
		s.win(t, c)
		r := release
		r.Status = 503
		s.finish(t, c, r)
	}
	c = rival(c)
	s.win(t, c)
	s.finish(t, c, result("a"))
	s.wantRecord(t, c, result("a"))
}

func (s suite) noClaim(t *testing.T) {
	c := newClaim()
	s.wantLost(t, c)
	s.win(t, c)
	s.wantLost(t, rival(c))
	s.finish(t, c, result("mine"))
	s.wantLost(t, rival(c))
	s.wantRecord(t, c, result("mine"))
}

func (s suite) badState(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	for _, state := range []idempotency.State{0, idempotency.StateClaimed, idempotency.StateUnknown + 1, 255} {
		if kept, err := s.store.Finish(t.Context(), completion(c, ending(state))); err == nil {
			t.Errorf("Finish accepted the state %d, and kept %d", state, kept)
		}
	}
	s.lose(t, rival(c), c)
	s.finish(t, c, result("a"))
}

func (s suite) expiry(t *testing.T) {
	for name, end := range map[string]idempotency.Result{
		"claimed":   {},
		"done":      result("x"),
		"tombstone": ending(idempotency.StateTombstone),
		"unknown":   ending(idempotency.StateUnknown),
		"released":  release,
	} {
		t.Run(name, func(t *testing.T) {
			c := newClaim()
			if end.State == 0 {
				c.Lease, c.TTL = short, short
			}
			first := s.win(t, c)
			if end.State != 0 {
				end.TTL = short
				s.finish(t, c, end)
			}
			wait()
			s.wantLost(t, c)
			if second := s.win(t, rival(c)); second.Generation <= first.Generation {
				// A store need not keep the generation, but then it follows the clock.
				t.Errorf("the generation went from %d to %d", first.Generation, second.Generation)
			}
		})
	}
}

func (s suite) finishSetsTTL(t *testing.T) {
	inTime(func(d time.Duration) (check func()) {
		var claims [4]idempotency.Claim
		var errs error
		for i, r := range endings {
			c := newClaim()
			c.Lease, c.TTL = d, d
			claims[i] = c
			s.win(t, c)
			_, err := s.store.Finish(t.Context(), completion(c, r))
			errs = errors.Join(errs, err)
		}
		return func() {
			if errs != nil {
				t.Fatal(errs)
			}
			for i, r := range endings {
				s.wantEnded(t, claims[i], r)
			}
		}
	})
}

func (s suite) generations(t *testing.T) {
	c := newClaim()
	last := uint64(0)
	for i := range 6 {
		next := rival(c)
		r := s.win(t, next)
		if r.Generation <= last {
			t.Fatalf("the generation went from %d to %d", last, r.Generation)
		}
		last = r.Generation
		if i%2 == 0 {
			s.finish(t, next, release)
			continue
		}
		end := result("a")
		if i < 5 {
			end.TTL = short
		}
		s.finish(t, next, end)
		if i == 5 && s.claim(t, rival(c)).Generation != last {
			t.Errorf("the generation of the record is not %d", last)
		}
		wait()
	}
}

func (s suite) statuses(t *testing.T) {
	for _, status := range []int{0, 100, 200, 255, 256, 404, 500, 599, 999} {
		for _, r := range endings[:3] {
			c := newClaim()
			s.win(t, c)
			r.Status = status
			s.finish(t, c, r)
			s.wantRecord(t, c, r)
		}
	}
}

// payloads are payloads that a store with a text format, or a type for JSON, changes.
func payloads() map[string][]byte {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	large := make([]byte, 1<<20)
	random(large)
	return map[string][]byte{
		"empty": {}, "one byte": {'a'}, "a NUL": {0}, "NULs at both ends": []byte("\x00a\x00"), "every byte": all,
		"no UTF-8": []byte("\xff\xfe\xc3\x28\xed\xa0\x80"), "blanks": []byte(" \t\r\n a \t\r\n "),
		"JSON": []byte("{ \"b\" : 1.0,\n\"a\":1, \"a\":2 }\n"), "null": []byte("null"), "quotes": []byte(`'"\"''--`),
		"a text format": []byte(`\x00ff`), "4 KiB": bytes.Repeat([]byte{0, 1}, 2048), "zeros": make([]byte, 64<<10), "1 MiB": large,
	}
}

func (s suite) payloads(t *testing.T) {
	for name, payload := range payloads() {
		t.Run(name, func(t *testing.T) {
			c := newClaim()
			s.win(t, c)
			want := result(string(payload))
			s.finish(t, c, want)
			s.wantRecord(t, c, want)
		})
	}
}

func (s suite) isolation(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	ids := []idempotency.ClaimID{idOf(c)}
	if _, err := s.store.Renew(t.Context(), ids, time.Hour); err != nil {
		t.Fatal(err)
	}
	random(ids[0].Token[:])
	given := result("unchanged")
	s.finish(t, c, given)
	copy(given.Payload, "CHANGED!!")
	s.wantRecord(t, c, result("unchanged"))
}
