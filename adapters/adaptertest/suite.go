package adaptertest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// Test checks that router has every behaviour, except those that it declares to lack, and
// that it differs where it declares to.
func Test(t *testing.T, router Router) {
	if err := router.fault(); err != nil {
		t.Error(err)
	}
	checkDeclaration(t, router)
	for _, row := range rows {
		t.Run(fmt.Sprintf("%02d %s", row.number, row.name), func(t *testing.T) {
			for _, b := range row.behaviours {
				if b.check != nil {
					t.Run(b.word, func(t *testing.T) { testBehaviour(t, router, row, b) })
				}
			}
		})
	}
}

// A row is a row of the table of all routers.
type row struct {
	number     int
	name       string
	behaviours []behaviour
}

// A behaviour is one promise of a row.
type behaviour struct {
	word  string
	check func(b *bench) error // nil if another test checks it
	http1 bool                 // whether it makes sense only over HTTP/1.1
}

func (r row) id(b behaviour) string { return fmt.Sprintf("%d.%s", r.number, b.word) }

// A bench is what a check works with. The check returns an error if the router differs,
// and calls Fatal if it cannot run.
type bench struct {
	testing.TB
	router Router
	over   transport
}

func testBehaviour(t *testing.T, router Router, row row, b behaviour) {
	id := row.id(b)
	if _, lacks := router.Lacks[id]; lacks {
		return
	}
	transports := []transport{http1, http2}
	if b.http1 {
		transports = transports[:1]
	}
	for _, over := range transports {
		t.Run(string(over), func(t *testing.T) {
			if err := router.verify(id, b.check(&bench{t, router, over})); err != nil {
				t.Error(err)
			}
		})
	}
}

// verify compares the result of a check with what the router declares.
func (r Router) verify(id string, result error) error {
	difference, declared := r.Differences[id]
	switch {
	case !declared && result != nil:
		return fmt.Errorf("%s: %w", id, result)
	case declared && result == nil:
		return fmt.Errorf("%s is declared to differ, but does not: %s", id, difference.Reason)
	case declared && !strings.Contains(result.Error(), difference.Observed):
		return fmt.Errorf("%s: %w\ndeclared: %s", id, result, difference.Observed)
	}
	return nil
}

// fault reports declarations that are incomplete or name an unknown behaviour.
func (r Router) fault() error {
	known := make(map[string]bool)
	for _, row := range rows {
		for _, b := range row.behaviours {
			known[row.id(b)] = true
		}
	}
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(r.Differences)) {
		if d := r.Differences[id]; !known[id] || d.Reason == "" || d.Observed == "" {
			errs = append(errs, fmt.Errorf("declared difference %q: no such behaviour, no reason, or nothing observed", id))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.Lacks)) {
		if !known[id] || r.Lacks[id] == "" {
			errs = append(errs, fmt.Errorf("declared lack %q: no such behaviour, or no reason", id))
		}
		if _, both := r.Differences[id]; both {
			errs = append(errs, fmt.Errorf("%q is declared both in Lacks and in Differences", id))
		}
	}
	return errors.Join(errs...)
}

// same returns an error unless got equals want.
func same[T comparable](what string, got, want T) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%s is %s, want %s", what, show(got), show(want))
}

func show(v any) string {
	s := fmt.Sprintf("%#v", v)
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// first returns the first error, which explains the later ones.
func first(errs ...error) error { return cmp.Or(errs...) }

// all joins all errors.
func all(errs ...error) error { return errors.Join(errs...) }
