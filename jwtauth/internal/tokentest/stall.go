package tokentest

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/jwtauth"
)

// ErrDown is the error of a store that fails.
var ErrDown = errors.New("the store is down")

// A Stall is the behavior of a call of a failing store: the call ends with an error, or
// does not end before the test does.
type Stall struct {
	Do      func() error
	release chan struct{}
	End     func()                 // ends the calls that hang
	On      atomic.Pointer[string] // the method that stalls
	Calls   atomic.Int64
}

// NewStall returns a Stall that hangs, panics, fails or exits, by its kind.
func NewStall(tb testing.TB, kind string) *Stall {
	tb.Helper()
	s := &Stall{release: make(chan struct{})}
	s.End = sync.OnceFunc(func() { close(s.release) })
	tb.Cleanup(s.End)
	s.Do = map[string]func() error{
		"hangs":  func() error { <-s.release; return ErrDown },
		"panics": func() error { panic("no") },
		"fails":  func() error { return ErrDown },
		"exits":  func() error { runtime.Goexit(); return nil },
	}[kind]
	return s
}

// At stalls if the method is the one that On names.
func (s *Stall) At(method string) error {
	if on := s.On.Load(); on == nil || *on != method {
		return nil
	}
	s.Calls.Add(1)
	return s.Do()
}

// Before is At with another signature.
func (s *Stall) Before(_ context.Context, method string) error { return s.At(method) }

// Stalling is a Revoker whose calls may stall.
type Stalling struct {
	list jwtauth.RevocationList
	*Stall
}

// Revoked implements [jwtauth.Revocations].
func (s *Stalling) Revoked(ctx context.Context, t *jwtauth.Token) (bool, error) {
	if err := s.At("Revoked"); err != nil {
		return false, err
	}
	return s.list.Revoked(ctx, t)
}

// RevokeToken implements [jwtauth.Revoker].
func (s *Stalling) RevokeToken(ctx context.Context, issuer, id string, until time.Time) error {
	if err := s.At("RevokeToken"); err != nil {
		return err
	}
	return s.list.RevokeToken(ctx, issuer, id, until)
}

// RevokeSession implements [jwtauth.Revoker].
func (s *Stalling) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	if err := s.At("RevokeSession"); err != nil {
		return err
	}
	return s.list.RevokeSession(ctx, issuer, id, until)
}

// RevokeSubject implements [jwtauth.Revoker].
func (s *Stalling) RevokeSubject(ctx context.Context, issuer, subject string, issuedBefore, until time.Time) error {
	if err := s.At("Revoker.RevokeSubject"); err != nil {
		return err
	}
	return s.list.RevokeSubject(ctx, issuer, subject, issuedBefore, until)
}

// Patient makes a client give up long after each deadline of the tests.
func Patient(c *http.Client) *http.Client {
	c.Timeout = 10 * time.Second
	return c
}

// Impatience is the timeout of stores that stall.
const Impatience = 400 * time.Millisecond

// A RoundTrip is an [http.RoundTripper].
type RoundTrip func(*http.Request) (*http.Response, error)

// RoundTrip implements [http.RoundTripper].
func (f RoundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
