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
	forgery     kind = "request forgery"
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

// test runs all scenarios with each neighbour in each place, over each protocol, and
// compares the responses with those without it.
func (r router[M]) test(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(protocol, func(t *testing.T) { r.testOver(t, protocol) })
	}
}

func (r router[M]) testOver(t *testing.T, protocol string) {
	list := slices.Concat(scenarios, r.native)
	if protocol == "HTTP/2" {
		list = slices.DeleteFunc(list, func(s scenario) bool { return s.name == "upgrade" })
	}
	start := func(t *testing.T, wrap bool, patience time.Duration, use func(*service) []M) *client {
		s := newService(t, wrap)
		s.patience = patience
		return newClient(t, protocol, s, r.serve(s, use(s)))
	}
	plain := start(t, true, patience, r.stack).run(t, list)
	unwrapped := start(t, false, patience, r.stack).run(t, list)
	for _, s := range list {
		for _, encoding := range encodings {
			name := cellName(s, encoding)
			switch resp := plain[name]; {
			case resp.status != s.status, resp.broken != (s.name == "late panic"), resp.encoded:
				t.Errorf("%s, without a neighbour: %s, want %d", name, resp.line(), s.status)
			case strings.Contains(resp.body, secret):
				t.Errorf("%s, without a neighbour, reveals %s", name, secret)
			case s.twice && s.status < 429 && resp.header.Get("Idempotency-Replayed") != "true":
				t.Errorf("%s, without a neighbour, is no replay", name)
			}
		}
	}
	for _, n := range r.neighbours {
		for _, p := range []place{outside, inside} {
			t.Run(n.name+" "+string(p), func(t *testing.T) {
				t.Parallel()
				c := start(t, true, n.patience(p), func(s *service) []M {
					if p == outside {
						return slices.Concat([]M{n.make()}, r.stack(s))
					}
					return append(r.stack(s), n.make())
				})
				alone := sync.OnceValue(func() *client {
					return start(t, true, briefly, func(*service) []M { return []M{n.make()} })
				})
				got := c.run(t, list)
				check(t, list, n.differences(p), func(s scenario, encoding string) cell {
					name := cellName(s, encoding)
					return cell{got[name], plain[name], unwrapped[name], func() response { return alone().do(t, s, encoding) }}
				})
				n.check(t, p, got)
				if protocol == "HTTP/1.1" {
					c.crowd(t, list, got)
				}
			})
		}
	}
}

// check compares all responses with what a neighbour of this kind is for.
func (n neighbour[M]) check(t *testing.T, p place, got map[string]response) {
	compressed := 0
	for name, resp := range got {
		if resp.encoded {
			compressed++
		}
		allowed := resp.header["Access-Control-Allow-Origin"]
		readable := len(allowed) == 1 || resp.broken || resp.status == http.StatusSwitchingProtocols
		if n.kind == crossOrigin && p == outside && !readable {
			t.Errorf("%s: a page of another origin cannot read it: %q", name, allowed)
		}
	}
	if (compressed > 0) != (n.kind == compression) {
		t.Errorf("%d responses are compressed", compressed)
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
			known := slices.ContainsFunc(list, func(s scenario) bool { return s.name == name })
			if !observed[i][name] && (known || name != "upgrade") {
				t.Errorf("%s is declared to differ, but does not: %s", name, d.reason)
			}
		}
	}
}

// How long a stream waits for its client, and how long if it is known to arrive too late.
const (
	patience = 10 * time.Second
	briefly  = 100 * time.Millisecond
)

func (n neighbour[M]) patience(p place) time.Duration {
	late := func(d difference) bool { return slices.Contains(d.scenarios, "stream") }
	if slices.ContainsFunc(n.differences(p), late) {
		return briefly
	}
	return patience
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
