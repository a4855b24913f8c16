package sessiontest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth"
)

func testWholeList(t *testing.T, r Revocations) {
	a, b := r.Open(t), r.Open(t)
	issuer, at := unique(), now()
	var want []jwtauth.Revocation
	for i := range 300 {
		w := jwtauth.Revocation{Kind: jwtauth.RevocationKind(i % 3), Issuer: issuer, Value: fmt.Sprint("v", i), Until: at.Add(time.Hour + time.Duration(i)*time.Microsecond)}
		var err error
		switch w.Kind {
		case jwtauth.RevokedToken:
			err = a.RevokeToken(t.Context(), issuer, w.Value, w.Until)
		case jwtauth.RevokedSession:
			err = b.RevokeSession(t.Context(), issuer, w.Value, w.Until)
		case jwtauth.RevokedSubject:
			w.IssuedBefore = at.Add(time.Duration(i+1) * time.Microsecond)
			err = a.RevokeSubject(t.Context(), issuer, w.Value, w.IssuedBefore, w.Until)
		}
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, w)
	}
	for _, s := range []jwtauth.RevocationSource{a, b} {
		f := follow(t, s, "", issuer)
		f.waitReady()
		atReady := f.atReady
		f.stop()
		if atReady != len(want) {
			t.Errorf("%d revocations were passed on before ready, want %d", atReady, len(want))
		}
		f.want(want)
	}
}

func testAdded(t *testing.T, r Revocations) {
	stores := []jwtauth.RevocationSource{r.Open(t), r.Open(t)}
	issuer := unique()
	f := follow(t, r.Open(t), "", issuer)
	f.waitReady()
	var want []jwtauth.Revocation
	for i := range 50 {
		w := jwtauth.Revocation{Issuer: issuer, Value: strconv.Itoa(i), Until: now().Add(time.Hour)}
		if err := stores[i%2].RevokeToken(t.Context(), issuer, w.Value, w.Until); err != nil {
			t.Fatal(err)
		}
		want = append(want, w)
	}
	f.waitFor(len(want))
	f.stop()
	f.want(want)
}

func testContinue(t *testing.T, r Revocations) {
	a, b := r.Open(t), r.Open(t)
	issuer := unique()
	revoked := 0
	add := func(n int) {
		for range n {
			revokeToken(t, a, issuer, strconv.Itoa(revoked))
			revoked++
		}
	}
	add(20)
	// The first follower leaves in the middle of the list, and the others while nothing
	// happens. Revocations are added in between.
	var got []jwtauth.Revocation
	first := follow(t, a, "", issuer, 7)
	first.waitFor(7)
	first.stop()
	got = append(got, first.revocations()...)
	for range 3 {
		add(5)
		next := follow(t, b, got[len(got)-1].Position, issuer)
		next.waitReady()
		if n := len(got) + next.atReady; n != revoked {
			t.Errorf("%d revocations were passed on before ready, want %d", n, revoked)
		}
		add(3)
		next.waitFor(revoked - len(got))
		next.stop()
		got = append(got, next.revocations()...)
		// Nothing was added since.
		last := follow(t, a, got[len(got)-1].Position, issuer)
		last.waitReady()
		last.stop()
		if n := len(last.revocations()); n != 0 {
			t.Errorf("%d revocations were passed on that are not after the position", n)
		}
	}
	positions := map[string]bool{}
	for i, r := range got {
		if r.Value != strconv.Itoa(i) {
			t.Fatalf("revocation %d is %q: all those passed on are not what was revoked", i, r.Value)
		}
		positions[r.Position] = true
	}
	if len(got) != revoked || len(positions) != revoked || positions[""] {
		t.Errorf("%d revocations and %d positions, want %d", len(got), len(positions), revoked)
	}
}

func testOneOrder(t *testing.T, r Revocations) {
	stores := []jwtauth.RevocationSource{r.Open(t), r.Open(t)}
	issuer := unique()
	followers := []*follower{follow(t, stores[0], "", issuer), follow(t, stores[1], "", issuer)}
	const n = 300
	// Another follower repeatedly connects, receives a few revocations, and leaves. A
	// client needs some time to connect.
	const few = 7
	var (
		coming sync.WaitGroup
		parts  []jwtauth.Revocation
	)
	defer coming.Wait()
	coming.Go(func() {
		after := ""
		for end := time.Now().Add(patience); len(parts) < n && time.Now().Before(end); {
			ctx, cancel := context.WithTimeout(t.Context(), 5*soon)
			enough := len(parts) + few
			_ = stores[0].Follow(ctx, after, func() {}, func(r jwtauth.Revocation) {
				if ctx.Err() != nil {
					return
				}
				if after = r.Position; r.Issuer == issuer {
					if parts = append(parts, r); len(parts) == enough {
						cancel()
					}
				}
			})
			cancel()
		}
	})
	each(8, func(i int) error {
		for j := i; j < n; j += 8 {
			if err := stores[j%2].RevokeSession(t.Context(), issuer, strconv.Itoa(j), now().Add(time.Hour)); err != nil {
				t.Errorf("RevokeSession: %v", err)
			}
		}
		return nil
	})
	for _, f := range followers {
		f.waitFor(n)
		f.stop()
	}
	again := follow(t, stores[0], "", issuer)
	again.waitReady()
	again.stop()
	coming.Wait()
	again.want(parts)
	for _, f := range append(followers, again) {
		f.want(followers[0].revocations())
		values := map[string]bool{}
		for _, r := range f.revocations() {
			values[r.Value] = true
		}
		if len(values) != n {
			t.Errorf("%d revocations, want %d", len(values), n)
		}
	}
}

func testExtended(t *testing.T, r Revocations) {
	s := r.Open(t)
	issuer, at := unique(), now()
	f := follow(t, r.Open(t), "", issuer)
	f.waitReady()
	// Each call extends the revocation in one way.
	for i, times := range [][2]time.Duration{{0, 0}, {time.Second, 0}, {time.Second, time.Minute}} {
		if err := s.RevokeSubject(t.Context(), issuer, "x", at.Add(times[0]), at.Add(time.Hour+times[1])); err != nil {
			t.Fatal(err)
		}
		f.waitFor(i + 1)
	}
	f.stop()
	got := f.revocations()
	for i, r := range got {
		if i > 0 && r.Position == got[i-1].Position {
			t.Error("the revocation was extended, and kept its position")
		}
	}
	if last := got[len(got)-1]; !last.IssuedBefore.Equal(at.Add(time.Second)) || !last.Until.Equal(at.Add(time.Hour+time.Minute)) {
		t.Errorf("%+v", last)
	}
	next := follow(t, s, got[0].Position, issuer)
	next.waitReady()
	next.stop()
	if n := len(next.revocations()); n == 0 {
		t.Error("a revocation that was extended after the position is not passed on")
	}
}

func testPosition(t *testing.T, r Revocations) {
	s := r.Open(t)
	revokeToken(t, s, unique(), "x")
	for _, position := range []string{"no position", "-1", strings.Repeat("9", 60), "0-0-0"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := s.Follow(ctx, position, func() { t.Errorf("%q: ready", position) }, func(r jwtauth.Revocation) { t.Errorf("%q: %+v", position, r) })
		cancel()
		storetest.WantError(t, fmt.Sprintf("Follow from %q", position), err, jwtauth.ErrPosition)
	}
}

func testRevocationsContext(t *testing.T, r Revocations) {
	s := r.Open(t)
	issuer := unique()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- s.Follow(ended, "", func() {}, func(jwtauth.Revocation) {}) }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Follow: %v", err)
		}
	case <-time.After(patience):
		t.Error("Follow has not ended")
	}
	// A follower that waits, and one that is receiving a revocation.
	for range 2 {
		f := follow(t, s, "", issuer)
		f.waitReady()
		f.stop()
		revokeToken(t, s, issuer, unique())
		time.Sleep(soon / 2) // nothing more may be passed on
	}
}

func testSilence(t *testing.T, r Revocations) {
	a, b := r.Open(t), r.Open(t)
	issuer := unique()
	revokeToken(t, a, issuer, "0")
	f := follow(t, b, "", issuer)
	f.waitReady()
	unblock := sync.OnceFunc(r.Block(t))
	defer unblock()
	var running sync.WaitGroup
	for what, call := range map[string]func(context.Context) error{
		"Revoked": func(ctx context.Context) error {
			_, err := a.Revoked(ctx, &jwtauth.Token{Issuer: issuer, ID: "0"})
			return err
		},
		"RevokeToken":   func(ctx context.Context) error { return a.RevokeToken(ctx, issuer, "1", now().Add(time.Hour)) },
		"RevokeSession": func(ctx context.Context) error { return a.RevokeSession(ctx, issuer, "1", now().Add(time.Hour)) },
		"RevokeSubject": func(ctx context.Context) error { return a.RevokeSubject(ctx, issuer, "1", now(), now().Add(time.Hour)) },
	} {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			if call(ctx) == nil {
				t.Errorf("%s: no error", what)
			}
		})
	}
	late := time.AfterFunc(patience, unblock)
	defer late.Stop()
	running.Wait()
	select {
	case err := <-f.done:
		if err == nil || errors.Is(err, jwtauth.ErrPosition) {
			t.Errorf("Follow: %v, want that the server is silent", err)
		}
	case <-time.After(patience):
		t.Errorf("Follow has not ended after %v of silence", patience)
		unblock()
		f.stop()
	}
	unblock()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := a.RevokeToken(t.Context(), issuer, "2", now().Add(time.Hour))
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("RevokeToken once the server responds again: %v", err)
		}
	}
	next := follow(t, b, f.revocations()[0].Position, issuer)
	next.waitReady()
	next.stop()
	got := map[string]bool{}
	for _, r := range next.revocations() {
		got[r.Value] = true
	}
	if !got["2"] || got["0"] {
		t.Errorf("the follower that continued got %v", got)
	}
}

func testPoisonedList(t *testing.T, r Revocations) {
	s := r.Open(t)
	issuer := unique()
	revokeToken(t, s, issuer, "x")
	r.Poison(t)
	_, err := s.Revoked(t.Context(), &jwtauth.Token{Issuer: issuer, ID: "x"})
	storetest.WantError(t, "Revoked", err, usher.ErrCorrupt)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = s.Follow(ctx, "", func() { t.Error("ready, although the list cannot be read") }, func(jwtauth.Revocation) {})
	storetest.WantError(t, "Follow", err, usher.ErrCorrupt)
}
