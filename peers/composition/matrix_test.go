package composition_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
)

// A router is a framework as the matrix sees it. M is its kind of middleware.
type router[M any] struct {
	name string
	// mount makes a middleware of the framework from one of this module.
	mount func(usher.Middleware) M
	// errors, if not nil, renders the errors of handlers. It runs directly inside the
	// envelope.
	errors func() M
	// serve serves the handlers of s behind the middlewares use, from the outside in.
	serve func(s *service, use []M) http.Handler
	// native are the scenarios of handlers in the framework's own form.
	native     []scenario
	neighbours []neighbour[M]
}

// A neighbour is a middleware of others.
type neighbour[M any] struct {
	kind kind
	name string // as users write it
	make func() M
	// outside and inside are the documented differences when it runs outside and inside
	// of the whole stack.
	outside, inside []difference
}

type kind string

const (
	compression kind = "compression"
	recovery    kind = "recovery"
	requestID   kind = "request ID"
	timeout     kind = "timeout"
	crossOrigin kind = "CORS"
	logging     kind = "logging"
	tracing     kind = "tracing"
	other       kind = "other"
)

type place string

const (
	outside place = "outside"
	inside  place = "inside"
)

// A difference is a documented difference: in each of the scenarios, the response differs
// from the one without the neighbour, for at least one encoding, and is what instead
// accepts. Without scenarios, those differ that no other difference names, at least one.
type difference struct {
	what      string // which responses, for users; by default the scenarios
	scenarios []string
	instead   func(cell) error
	reason    string // for users
}

// A cell is the response to one scenario, beside what it is compared with.
type cell struct {
	got       response
	plain     response        // without the neighbour
	unwrapped response        // without the neighbour and without envelope.Config.Wrap
	alone     func() response // with the neighbour, and without this module
}

func (n neighbour[M]) differences(p place) []difference {
	if p == outside {
		return n.outside
	}
	return n.inside
}

// test runs all scenarios with each neighbour in each place, and compares the responses
// with those without it.
func (r router[M]) test(t *testing.T) {
	list := slices.Concat(scenarios, r.native)
	plain := r.client(t, true).run(t, list)
	unwrapped := r.client(t, false).run(t, list)
	for _, s := range list {
		for _, encoding := range encodings {
			resp := plain[cellName(s, encoding)]
			if strings.Contains(resp.body, secret) {
				t.Errorf("%s reveals %s without any neighbour", cellName(s, encoding), secret)
			}
		}
	}
	for _, n := range r.neighbours {
		for _, p := range []place{outside, inside} {
			t.Run(n.name+" "+string(p), func(t *testing.T) {
				t.Parallel()
				got := r.clientWith(t, n, p).run(t, list)
				alone := sync.OnceValue(func() *client {
					s := newService(t, true)
					s.patience = briefly
					return newClient(t, s, r.serve(s, []M{n.make()}))
				})
				check(t, list, n.differences(p), func(s scenario, encoding string) cell {
					name := cellName(s, encoding)
					return cell{got[name], plain[name], unwrapped[name], func() response { return alone().do(t, s, encoding) }}
				})
				compressed := slices.ContainsFunc(list, func(s scenario) bool { return got[cellName(s, "gzip")].encoded })
				if compressed != (n.kind == compression) {
					t.Errorf("compressed is %t", compressed)
				}
			})
		}
	}
}

// check compares each cell with what is declared.
func check(t *testing.T, list []scenario, differences []difference, cellOf func(s scenario, encoding string) cell) {
	observed := make([]map[string]bool, len(differences))
	for i := range observed {
		observed[i] = make(map[string]bool)
	}
	for _, s := range list {
		i := slices.IndexFunc(differences, func(d difference) bool { return slices.Contains(d.scenarios, s.name) })
		if i < 0 {
			i = slices.IndexFunc(differences, func(d difference) bool { return d.scenarios == nil })
		}
		for _, encoding := range encodings {
			name, c := cellName(s, encoding), cellOf(s, encoding)
			if encoding == "identity" && c.got.encoded {
				t.Errorf("%s: encoded for a client that accepts no encoding", name)
			}
			err := compare(c.plain, c.got)
			switch {
			case err == nil:
			case i < 0:
				t.Errorf("%s: %v", name, err)
			default:
				observed[i][s.name] = true
				if instead := differences[i].instead(c); instead != nil {
					t.Errorf("%s: %v\nwhich is not the declared difference: %v", name, err, instead)
				}
			}
		}
	}
	for i, d := range differences {
		if len(observed[i]) == 0 {
			t.Errorf("nothing differs, though this is declared: %s", d.reason)
		}
		for _, name := range d.scenarios {
			if !observed[i][name] {
				t.Errorf("%s is declared to differ, but does not: %s", name, d.reason)
			}
		}
	}
}

// briefly is for streams that are known not to arrive in time.
const briefly = 100 * time.Millisecond

// client starts a service without a neighbour.
func (r router[M]) client(t *testing.T, wrap bool) *client {
	s := newService(t, wrap)
	return newClient(t, s, r.serve(s, r.stack(s)))
}

func (r router[M]) clientWith(t *testing.T, n neighbour[M], p place) *client {
	s := newService(t, true)
	if slices.ContainsFunc(n.differences(p), func(d difference) bool { return slices.Contains(d.scenarios, "stream") }) {
		s.patience = briefly
	}
	use := r.stack(s)
	if p == outside {
		use = append([]M{n.make()}, use...)
	} else {
		use = append(use, n.make())
	}
	return newClient(t, s, r.serve(s, use))
}

func (r router[M]) stack(s *service) []M {
	use := []M{r.mount(s.envelope)}
	if r.errors != nil {
		use = append(use, r.errors())
	}
	for _, m := range s.rest {
		use = append(use, r.mount(m))
	}
	return use
}
