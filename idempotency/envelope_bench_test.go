package idempotency_test

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// BenchmarkWithinAnEnvelope measures requests whose responses the envelope shapes.
func BenchmarkWithinAnEnvelope(b *testing.B) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
	}{
		{"plain", func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{"application/json"}
			_, _ = w.Write([]byte(`{"id":7}`))
		}},
		{"Respond", func(w http.ResponseWriter, r *http.Request) {
			usher.Respond(w, r, usher.Reply{Data: map[string]int{"id": 7}})
		}},
		{"Fail", func(w http.ResponseWriter, r *http.Request) {
			usher.Fail(w, r, &usher.Error{Status: 422, Code: "declined", Message: "the card is declined"})
		}},
	} {
		env, err := envelope.New(envelope.Config{Wrap: true})
		if err != nil {
			b.Fatal(err)
		}
		r := usher.WithPrincipal(post("/", "", anonymous), alice)
		r.Body = http.NoBody
		w := sink{http.Header{}}
		serve := func(h http.Handler, key string) {
			clear(w.header)
			r.Header["Idempotency-Key"] = []string{key}
			h.ServeHTTP(&w, r)
		}
		b.Run("first/"+c.name, func(b *testing.B) {
			var h http.Handler
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if n%10_000 == 0 {
					h = env.Wrap(newMiddleware(b, idempotency.Config{}).Wrap(c.handler))
				}
				serve(h, strconv.Itoa(n))
			}
		})
		b.Run("replay/"+c.name, func(b *testing.B) {
			h := env.Wrap(newMiddleware(b, idempotency.Config{}).Wrap(c.handler))
			b.ReportAllocs()
			for b.Loop() {
				serve(h, "again")
			}
		})
	}
}
