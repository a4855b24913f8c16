package benchmarks_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/usher-go/usher/benchmarks/internal/stacks"
)

// stacked sends the work to a whole stack, which has been checked.
func stacked(name stacks.Name, work stacks.Work) contestant {
	return func(tb testing.TB) subject {
		build := func() *stacks.Stack {
			s := must(stacks.New(stacks.Config{Stack: name, Credential: work.Credential}))
			tb.Cleanup(func() { _ = s.Close() })
			return s
		}
		s := build()
		r := work.NewRequest("run", 0)
		reader := bytes.NewReader(work.Body)
		body := &struct {
			io.Reader
			io.Closer
		}{reader, io.NopCloser(nil)}
		n := 0
		c := call{
			handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.ServeHTTP(w, r) }),
			request: r, want: work.Status,
		}
		if work.Body != nil {
			c.prepare = func() {
				n++
				reader.Reset(work.Body)
				r.Body = body
				r.Header["Idempotency-Key"] = []string{work.IdempotencyKey("run", n)}
			}
		}
		subject := c.subject()
		check := subject.check
		subject.check = func() error {
			if err := s.Check(); err != nil {
				return err
			}
			return check()
		}
		if work.Body != nil {
			// Keeping every response would measure the garbage collector.
			subject.every, subject.renew = 10_000, func() { s = build() }
		}
		return subject
	}
}

func stackWorks() suite {
	works := make(suite)
	for _, work := range stacks.Works() {
		all := make(map[string]contestant)
		for _, name := range stacks.Names() {
			all[string(name)] = stacked(name, work)
		}
		works["Stack/"+work.Name] = all
	}
	return works
}
