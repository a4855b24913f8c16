package jwtauth_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/jwtauth"
)

// A line is a RevocationSource whose followers can be cut off.
type line struct {
	jwtauth.RevocationList
	mu     sync.Mutex
	cut    context.CancelCauseFunc // of the follower
	broken error                   // of calls of Follow, or nil
	after  []string                // the positions of these calls
	asked  int                     // calls of Revoked
}

func (l *line) Follow(ctx context.Context, after string, ready func(), changed func(jwtauth.Revocation)) error {
	short, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	l.mu.Lock()
	l.cut = cut
	l.after = append(l.after, after)
	broken := l.broken
	l.mu.Unlock()
	if broken != nil {
		return broken
	}
	err := l.RevocationList.Follow(short, after, ready, changed)
	if ctx.Err() == nil && err == nil {
		return context.Cause(short)
	}
	return err
}

func (l *line) Revoked(ctx context.Context, t *jwtauth.Token) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.RevocationList.Revoked(ctx, t)
}

// breaks ends the follower, and makes later calls of Follow fail with err, or none if err
// is nil.
func (l *line) breaks(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = err
	if l.cut != nil {
		l.cut(errors.New("the line is cut"))
	}
}

func (l *line) positions() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.after)
}

func newMirror(tb testing.TB, source jwtauth.RevocationSource, change func(*jwtauth.RevocationMirrorConfig)) *jwtauth.RevocationMirror {
	tb.Helper()
	c := jwtauth.RevocationMirrorConfig{Source: source, OnError: func(context.Context, error) {}}
	if change != nil {
		change(&c)
	}
	m, err := jwtauth.NewRevocationMirror(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.Close() })
	return m
}

// errorLog records the errors that are reported.
type errorLog struct {
	mu   sync.Mutex
	errs []error
}

func (l *errorLog) add(_ context.Context, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

// last returns how many errors were reported, and the last one.
func (l *errorLog) last() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errs) == 0 {
		return 0, nil
	}
	return len(l.errs), l.errs[len(l.errs)-1]
}

// wantState fails unless m decides about a token as it should.
func wantState(tb testing.TB, m *jwtauth.RevocationMirror, id string, revoked bool, err error) {
	tb.Helper()
	got, gotErr := m.Revoked(tb.Context(), &jwtauth.Token{Issuer: issuer, ID: id})
	if got != revoked || !errors.Is(gotErr, err) || err == nil && gotErr != nil {
		tb.Errorf("%s: %t, %v; want %t, %v", id, got, gotErr, revoked, err)
	}
}

func revokes(tb testing.TB, r jwtauth.Revoker, ids ...string) {
	tb.Helper()
	for _, id := range ids {
		if err := r.RevokeToken(tb.Context(), issuer, id, time.Now().Add(time.Hour)); err != nil {
			tb.Fatal(err)
		}
	}
}

func TestAMirrorHasTheRevocationsOfAllProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := new(line)
		revokes(t, source, "before")
		one, other := newMirror(t, source, nil), newMirror(t, source, nil)
		// The first call waits until the mirror has the list.
		for _, m := range []*jwtauth.RevocationMirror{one, other} {
			wantState(t, m, "before", true, nil)
			wantState(t, m, "x", false, nil)
		}
		now := time.Now()
		for name, tt := range map[string]struct {
			revoke func(jwtauth.Revoker) error
			token  jwtauth.Token
		}{
			"a token": {
				func(r jwtauth.Revoker) error { return r.RevokeToken(t.Context(), issuer, "t", now.Add(time.Hour)) },
				jwtauth.Token{Issuer: issuer, ID: "t"},
			},
			"a session": {
				func(r jwtauth.Revoker) error { return r.RevokeSession(t.Context(), issuer, "s", now.Add(time.Hour)) },
				jwtauth.Token{Issuer: issuer, SessionID: "s"},
			},
			"a subject": {
				func(r jwtauth.Revoker) error {
					return r.RevokeSubject(t.Context(), issuer, "u", now, now.Add(time.Hour))
				},
				jwtauth.Token{Issuer: issuer, Subject: "u", IssuedAt: now.Add(-time.Second)},
			},
		} {
			if revoked(t, one, &tt.token) {
				t.Errorf("%s is revoked already", name)
			}
			if err := tt.revoke(one); err != nil {
				t.Fatal(err)
			}
			if !revoked(t, one, &tt.token) {
				t.Errorf("%s is not revoked at once where it was revoked", name)
			}
			synctest.Wait()
			if !revoked(t, other, &tt.token) {
				t.Errorf("%s is not revoked elsewhere", name)
			}
		}
		if source.asked > 0 {
			t.Errorf("the source was asked %d times about a token", source.asked)
		}
	})
}

func TestAMirrorThatIsNotCurrentIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports errorLog
		source := new(line)
		m := newMirror(t, source, func(c *jwtauth.RevocationMirrorConfig) { c.OnError = reports.add })
		v := verifier(t, func(c *jwtauth.Config) { c.Revocations = m })
		want(t, v, good(), jwtauth.Accepted)
		revokes(t, m, "known")
		synctest.Wait()
		source.breaks(faulty.ErrStore)
		revokes(t, source, "missed")
		time.Sleep(500*time.Millisecond - 1)
		wantState(t, m, "x", false, nil)
		want(t, v, good(), jwtauth.Accepted)
		time.Sleep(1 * time.Nanosecond)
		wantState(t, m, "known", true, nil)
		for _, id := range []string{"x", "missed"} {
			wantState(t, m, id, false, usher.ErrUnavailable)
		}
		want(t, v, good(), jwtauth.Unavailable)
		if w := respond(t, v, request(t, good())); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		// A revocation by this process still takes effect.
		revokes(t, m, "own")
		wantState(t, m, "own", true, nil)
		time.Sleep(time.Hour)
		wantState(t, m, "x", false, usher.ErrUnavailable)
		synctest.Wait()
		if n, err := reports.last(); n < 3600 || n > 2*3600 || !errors.Is(err, faulty.ErrStore) {
			t.Errorf("%d reports of an hour, the last one is %v", n, err)
		}
		source.breaks(nil)
		time.Sleep(time.Second) // the longest pause
		revokes(t, source, "later")
		synctest.Wait()
		wantState(t, m, "x", false, nil)
		wantState(t, m, "later", true, nil)
		want(t, v, good(), jwtauth.Accepted)
	})
}

func TestAMirrorContinuesWithoutAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := new(line)
		m := newMirror(t, source, nil)
		synctest.Wait()
		const n = 200
		for i := range n {
			revokes(t, source, fmt.Sprint("a", i))
			source.breaks(nil) // somewhere in the middle
			revokes(t, source, fmt.Sprint("b", i))
			time.Sleep(20 * time.Millisecond)
			wantState(t, m, fmt.Sprint("a", i), true, nil)
			wantState(t, m, fmt.Sprint("b", i), true, nil)
			wantState(t, m, "x", false, nil)
		}
		at := source.positions()
		if len(at) != n+1 || at[0] != "" || slices.Contains(at[2:], at[0]) {
			t.Errorf("%d connections, from %q", len(at), at[:3])
		}
	})
}

// Otherwise all processes would constantly call a server that is down, and at the same
// moments.
func TestAMirrorReconnectsAtGrowingIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := new(line)
		newMirror(t, source, nil)
		synctest.Wait()
		source.breaks(faulty.ErrStore)
		time.Sleep(time.Second)
		if n := len(source.positions()); n < 7 || n > 10 {
			t.Errorf("%d connections within a second", n)
		}
		time.Sleep(time.Minute)
		if n := len(source.positions()); n < 60 || n > 140 {
			t.Errorf("%d connections within a minute", n)
		}
	})
}

func TestAMirrorBeginsAgainIfItsPositionIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := new(line), new(line)
		var source moving
		source.line = old
		m := newMirror(t, &source, nil)
		revokes(t, m, "old")
		synctest.Wait()
		revokes(t, fresh, "new")
		source.line = fresh // which does not know the positions of the old one
		old.breaks(nil)
		time.Sleep(100 * time.Millisecond)
		wantState(t, m, "old", true, nil) // it is still revoked
		wantState(t, m, "new", true, nil)
		wantState(t, m, "x", false, nil)
		if at := fresh.positions(); len(at) != 2 || at[0] == "" || at[1] != "" {
			t.Errorf("connections from %q", at)
		}
	})
}

// moving is a source that can be replaced.
type moving struct{ *line }

// A mirror that has no room for the list does not know which revocations it lacks.
func TestAMirrorThatIsFullIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := new(line)
		var reports errorLog
		m := newMirror(t, source, func(c *jwtauth.RevocationMirrorConfig) { c.Capacity, c.OnError = 2, reports.add })
		revokes(t, source, "1", "2")
		synctest.Wait()
		wantState(t, m, "x", false, nil)
		revokes(t, source, "3")
		synctest.Wait()
		wantState(t, m, "2", true, nil)
		wantState(t, m, "3", false, usher.ErrUnavailable)
		wantState(t, m, "x", false, usher.ErrUnavailable)
		if _, err := reports.last(); !errors.Is(err, usher.ErrFull) {
			t.Errorf("reported: %v", err)
		}
		if err := m.RevokeToken(t.Context(), issuer, "4", time.Now().Add(2*time.Hour)); !errors.Is(err, usher.ErrFull) {
			t.Errorf("RevokeToken: %v", err)
		}
		// Once others have expired, there is room.
		time.Sleep(time.Hour + time.Minute)
		wantState(t, m, "4", true, nil)
		wantState(t, m, "x", false, nil)
	})
}

func TestAMirrorThatWasNeverCurrentWaitsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := new(line)
		source.breaks(faulty.ErrStore)
		m := newMirror(t, source, func(c *jwtauth.RevocationMirrorConfig) { c.StaleAfter = 300 * time.Millisecond })
		began := time.Now()
		wantState(t, m, "x", false, usher.ErrUnavailable)
		if took := time.Since(began); took != 300*time.Millisecond {
			t.Errorf("the first call took %v", took)
		}
		wantState(t, m, "x", false, usher.ErrUnavailable)
		if took := time.Since(began); took != 300*time.Millisecond {
			t.Errorf("both calls took %v", took)
		}
		source.breaks(nil)
		time.Sleep(time.Second)
		wantState(t, m, "x", false, nil)

		slow := new(line)
		slow.breaks(faulty.ErrStore)
		other := newMirror(t, slow, nil)
		time.AfterFunc(100*time.Millisecond, func() { slow.breaks(nil) })
		wantState(t, other, "x", false, nil) // as soon as it can
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		slow.breaks(faulty.ErrStore)
		third := newMirror(t, slow, nil)
		began = time.Now()
		if _, err := third.Revoked(ctx, new(jwtauth.Token)); err == nil || time.Since(began) > 0 {
			t.Errorf("a call whose context has ended: %v after %v", err, time.Since(began))
		}
	})
}

func TestAClosedMirrorDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := new(line)
		m := newMirror(t, source, nil)
		revokes(t, m, "known")
		wantState(t, m, "x", false, nil)
		for range 2 {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		wantState(t, m, "known", true, nil)
		wantState(t, m, "x", false, usher.ErrClosed)
	})
}

// A source that does not keep its contract makes no token valid.
func TestAMirrorOfASourceThatMisbehaves(t *testing.T) {
	for name, follow := range map[string]func(ready func(), changed func(jwtauth.Revocation)) error{
		"panics":          func(func(), func(jwtauth.Revocation)) error { panic("no") },
		"returns at once": func(func(), func(jwtauth.Revocation)) error { return nil },
		"is never ready": func(_ func(), changed func(jwtauth.Revocation)) error {
			changed(jwtauth.Revocation{Position: "1", Issuer: issuer, Value: "y"})
			return faulty.ErrStore
		},
		"passes on no issuers": func(ready func(), changed func(jwtauth.Revocation)) error {
			changed(jwtauth.Revocation{Position: "1"})
			ready()
			return nil
		},
		"panics once it is ready": func(ready func(), _ func(jwtauth.Revocation)) error {
			ready()
			panic("no")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reports errorLog
				m := newMirror(t, followFunc{follow: follow}, func(c *jwtauth.RevocationMirrorConfig) { c.OnError = reports.add })
				synctest.Wait()
				if n, _ := reports.last(); n == 0 {
					t.Error("nothing was reported")
				}
				if name != "panics once it is ready" {
					wantState(t, m, "x", false, usher.ErrUnavailable)
				}
			})
		})
	}
}

type followFunc struct {
	*jwtauth.RevocationList
	follow func(ready func(), changed func(jwtauth.Revocation)) error
}

func (f followFunc) Follow(_ context.Context, _ string, ready func(), changed func(jwtauth.Revocation)) error {
	return f.follow(ready, changed)
}

func TestAMirrorPassesTheErrorsOfItsSourceOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMirror(t, &jwtauth.RevocationList{Capacity: 1}, nil)
		revokes(t, m, "1")
		until := time.Now().Add(time.Hour)
		for what, err := range map[string]error{
			"RevokeToken":   m.RevokeToken(t.Context(), issuer, "2", until),
			"RevokeSession": m.RevokeSession(t.Context(), issuer, "2", until),
			"RevokeSubject": m.RevokeSubject(t.Context(), issuer, "2", until, until),
		} {
			if !errors.Is(err, usher.ErrFull) {
				t.Errorf("%s: %v", what, err)
			}
		}
		wantState(t, m, "2", false, nil)
	})
}

func TestAMirrorNeedsASource(t *testing.T) {
	if m, err := jwtauth.NewRevocationMirror(jwtauth.RevocationMirrorConfig{}); err == nil {
		t.Errorf("%+v", m)
	}
}

func TestAllocationsOfAMirror(t *testing.T) {
	source := new(jwtauth.RevocationList)
	m := newMirror(t, source, nil)
	revokes(t, m, "1")
	wantState(t, m, "x", false, nil)
	token := &jwtauth.Token{Issuer: issuer, ID: "x", SessionID: "y", Subject: "z"}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { _, _ = m.Revoked(ctx, token) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	v, r := verifier(t, func(c *jwtauth.Config) { c.Revocations = m }), request(t, good())
	want(t, v, good(), jwtauth.Accepted) // and remembered
	if n := testing.AllocsPerRun(100, func() { _, _ = v.Authenticate(r) }); n > 0 {
		t.Errorf("%v allocations of a request", n)
	}
}

// A list passes on each revocation that matters to its many followers, while it is changed
// and its entries expire.
func TestFollowersOfAListMissNothingThatMatters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &jwtauth.RevocationList{Capacity: 10_000}
		var followers []*jwtauth.RevocationMirror
		for i := range 2000 {
			until := time.Now().Add(time.Duration(1+i%7) * time.Minute)
			if err := l.RevokeToken(t.Context(), issuer, fmt.Sprint(i), until); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				followers = append(followers, newMirror(t, l, nil))
			}
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		for i := range 2000 {
			age, lifetime := time.Duration(2000-i)*100*time.Millisecond, time.Duration(1+i%7)*time.Minute
			for _, m := range followers {
				if got := revoked(t, m, &jwtauth.Token{Issuer: issuer, ID: fmt.Sprint(i)}); age < lifetime && !got {
					t.Fatalf("revocation %d is missing", i)
				}
			}
		}
		if n := l.Len(); n > 1700 {
			t.Errorf("%d revocations, although 343 have expired", n)
		}
		if n := jwtauth.LogLen(l) - len(followers); n != l.Len() {
			t.Errorf("%d entries in the log of %d revocations", n, l.Len())
		}
		for _, m := range followers {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		if n := jwtauth.LogLen(l); n != l.Len() {
			t.Errorf("%d entries in the log of %d revocations, once all followers have left", n, l.Len())
		}
	})
}

func TestRevocationsAreNotFollowedFromAPositionThatTheyHaveNotReached(t *testing.T) {
	var l jwtauth.RevocationList
	revokes(t, &l, "1")
	ctx, cancel := context.WithCancel(t.Context())
	var position string
	if err := l.Follow(ctx, "", cancel, func(r jwtauth.Revocation) { position = r.Position }); err != nil {
		t.Fatal(err)
	}
	for _, after := range []string{position + "0", position + "x", strings.TrimSuffix(position, "1"), "1", ".1"} {
		if err := l.Follow(t.Context(), after, nil, nil); !errors.Is(err, jwtauth.ErrPosition) {
			t.Errorf("Follow from %q: %v", after, err)
		}
	}
}
