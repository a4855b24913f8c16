// Package ushertest helps test servers that use the middlewares of this module, or any
// others.
//
// [Watch] shows whether a request reaches a middleware, which a test of the responses
// alone cannot: a limiter that was forgotten refuses nobody, and one outside
// authentication counts addresses instead of callers.
//
//	limiter := ushertest.Watch(newLimiter())
//	h := newServer(limiter)
//	arrived, err := limiter.Reached(h, httptest.NewRequest("GET", "/notes", nil))
//
// [Authenticator] replaces the credentials of a whole server, and [Issuer] signs tokens
// for a real jwtauth.Verifier. A test of one handler needs neither: [usher.WithPrincipal]
// gives its request a caller, and clientip.WithAddr an address.
package ushertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/usher-go/usher"
)

// A Watched wraps a middleware and reports whether requests reach it. Otherwise it
// behaves like that middleware.
type Watched struct{ middleware usher.Middleware }

// Watch returns a middleware to mount in place of m.
func Watch(m usher.Middleware) *Watched { return &Watched{m} }

// ErrNotReached is wrapped by the error of [Watched.Reached].
var ErrNotReached = errors.New("ushertest: the middleware was not reached")

// visits is the context key of the visit that Reached looks for.
type visits struct{}

type visit struct {
	to      *Watched
	request *http.Request
}

// Reached sends r through h and returns the request as it arrives at w, from which
// [usher.PrincipalFrom] reads the caller that was authenticated on the way. The
// middleware and everything inside it do not run, so a limiter charges nothing;
// everything outside handles r like any other request.
//
// If r does not reach w, the error matches [ErrNotReached] and names the status with
// which h has responded instead.
func (w *Watched) Reached(h http.Handler, r *http.Request) (*http.Request, error) {
	v := &visit{to: w}
	response := httptest.NewRecorder()
	h.ServeHTTP(response, r.WithContext(context.WithValue(r.Context(), visits{}, v)))
	if v.request == nil {
		return nil, fmt.Errorf("%w: the status of %s %s is %d", ErrNotReached, r.Method, r.URL.Path, response.Code)
	}
	return v.request, nil
}

// Wrap returns a handler that runs the middleware before next.
func (w *Watched) Wrap(next http.Handler) http.Handler {
	wrapped := w.middleware.Wrap(next)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !w.visited(rw, r) {
			wrapped.ServeHTTP(rw, r)
		}
	})
}

// ServeNext runs the middleware before next.
func (w *Watched) ServeNext(rw http.ResponseWriter, r *http.Request, next http.Handler) {
	if !w.visited(rw, r) {
		w.middleware.ServeNext(rw, r, next)
	}
}

// visited responds to a request of Reached.
func (w *Watched) visited(rw http.ResponseWriter, r *http.Request) bool {
	v, ok := r.Context().Value(visits{}).(*visit)
	if !ok || v.to != w {
		return false
	}
	v.request = r
	rw.WriteHeader(http.StatusNoContent)
	return true
}

// Authenticator returns an authenticator that accepts every request as coming from p, as
// if it had a credential in Authorization:
//
//	auth := usher.Authenticate(ushertest.Authenticator(usher.Principal{ID: "ann"}))
//	h := newServer(auth)
func Authenticator(p usher.Principal) usher.Authenticator { return &authenticator{p} }

type authenticator struct{ principal usher.Principal }

func (a *authenticator) Authenticate(*http.Request) (*usher.Principal, error) {
	return &a.principal, nil
}

// Carriers implements [usher.CarrierLister]: responses have the Vary of most servers.
func (*authenticator) Carriers() []string { return []string{"Authorization"} }
