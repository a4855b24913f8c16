package contract

import (
	"net/http"
	"testing"
	"testing/synctest"
)

// TestServices runs the contracts of the five services on the router of mount,
// over HTTP/1.1 and over HTTP/2. As every body is compared as a whole, a service
// that passes answers alike over both.
func TestServices(t *testing.T, mount Mount) {
	t.Run("Kisara", func(t *testing.T) { run(t, mount, newKisara, kisaraRows) })
	t.Run("Kaie", func(t *testing.T) { run(t, mount, newKaie, kaieRows) })
	t.Run("Kynetra", func(t *testing.T) { run(t, mount, newKynetra, kynetraRows) })
	t.Run("Kaiko", func(t *testing.T) { run(t, mount, newKaiko, kaikoRows) })
	t.Run("InsiteChat", func(t *testing.T) { run(t, mount, newInsiteChat, insiteChatRows) })
}

// A service is put together anew for every row.
type service interface{ app() App }

// A row is one promise of a service S.
type row[S service] struct {
	name string
	// timed rows run in a bubble, where time passes only when all wait for it.
	timed bool
	test  func(c *client, s S)
}

func run[S service](t *testing.T, mount Mount, start func(testing.TB) S, rows []row[S]) {
	one := func(t *testing.T, r row[S], over transport) {
		s := start(t)
		r.test(serve(t, mount(t, s.app()), over), s)
	}
	for _, over := range []transport{http1, http2} {
		t.Run(string(over), func(t *testing.T) {
			for _, r := range rows {
				if !r.timed {
					t.Run(r.name, func(t *testing.T) { one(t, r, over) })
				}
			}
		})
	}
	t.Run("in fake time", func(t *testing.T) {
		for _, r := range rows {
			if r.timed {
				t.Run(r.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { one(t, r, memory) })
				})
			}
		}
	})
}

// must returns v. The configurations here are constants, so an error is a fault
// of this package or of what it tests.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func handle(f func(http.ResponseWriter, *http.Request)) http.Handler { return http.HandlerFunc(f) }
