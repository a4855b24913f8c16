package contract

import (
	"io"
	"testing"
	"testing/synctest"

	"github.com/usher-go/usher/examples/internal/web"
)

// A Service is a service under test.
type Service interface {
	App() web.App
	io.Closer
}

// A Row is one promise of a service S.
type Row[S Service] struct {
	Name string
	// Timed rows run in a bubble, where time passes only when all wait for it.
	Timed bool
	Test  func(c *Client, s S)
}

// Run runs rows on every router, over HTTP/1.1 and over HTTP/2, each with a service
// of its own. As every body is compared as a whole, a service that passes responds
// alike everywhere.
func Run[S Service](t *testing.T, start func() S, rows []Row[S]) {
	for _, router := range Routers() {
		t.Run(router.Name, func(t *testing.T) { runOn(t, router, start, rows) })
	}
}

func runOn[S Service](t *testing.T, router Router, start func() S, rows []Row[S]) {
	one := func(t *testing.T, r Row[S], over Transport) {
		s := start()
		t.Cleanup(func() { _ = s.Close() })
		r.Test(Serve(t, router.Mount(s.App()), over), s)
	}
	for _, over := range []Transport{HTTP1, HTTP2} {
		t.Run(string(over), func(t *testing.T) {
			for _, r := range rows {
				if !r.Timed {
					t.Run(r.Name, func(t *testing.T) { one(t, r, over) })
				}
			}
		})
	}
	t.Run("in fake time", func(t *testing.T) {
		for _, r := range rows {
			if r.Timed {
				t.Run(r.Name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { one(t, r, Memory) })
				})
			}
		}
	})
}
