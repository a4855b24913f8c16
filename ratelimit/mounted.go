package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/usher-go/usher"
)

// ErrNotMounted is matched by what [CheckMounted] returns for a limiter that a
// request does not reach.
var ErrNotMounted = errors.New("ratelimit: limiter not reached")

// CheckMounted sends r through h, for a test or a check at start-up, and returns
// nil if r reaches l. It is not charged to l, and the handler behind l does not
// run; what stands outside l handles r as any other request.
//
// A limiter that is forgotten, or that stands behind an authentication which
// refuses r, is an error that matches [ErrNotMounted] and says with which
// status h answered instead. To check that a limiter stands inside
// authentication, give r a good credential and set authenticated: then a request
// that reaches l without a principal is an error as well.
func CheckMounted(h http.Handler, r *http.Request, l *Limiter, authenticated bool) error {
	p := new(probe)
	if !l.probe.CompareAndSwap(nil, p) {
		return errors.New("ratelimit: another check of this limiter is going on")
	}
	defer l.probe.Store(nil)
	w := &statusWriter{header: make(http.Header)}
	h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), probeKey{}, p)))
	switch {
	case !p.reached:
		return fmt.Errorf("%w: %s %s was answered with status %d", ErrNotMounted, r.Method, r.URL.Path, w.status)
	case authenticated && !p.authenticated:
		return fmt.Errorf("ratelimit: %s %s reaches the limiter before authentication", r.Method, r.URL.Path)
	}
	return nil
}

// statusWriter forgets everything but the status.
type statusWriter struct {
	header http.Header
	status int
}

func (w *statusWriter) Header() http.Header { return w.header }

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *statusWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(p), nil
}

type probeKey struct{}

type probe struct{ reached, authenticated bool }

// probed answers r if it is a probe for l.
func (l *Limiter) probed(w http.ResponseWriter, r *http.Request) bool {
	p := l.probe.Load()
	if p == nil || r.Context().Value(probeKey{}) != any(p) {
		return false
	}
	p.reached = true
	_, p.authenticated = usher.PrincipalFrom(r.Context())
	w.WriteHeader(http.StatusNoContent)
	return true
}
