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

// Test checks every behaviour on router, or that it is otherwise as declared.
func Test(t *testing.T, router Router) {
	checkDeclared(t, router)
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

// A row is a line of the table of all routers.
type row struct {
	number     int
	name       string
	behaviours []behaviour
}

// A behaviour is one promise of a row.
type behaviour struct {
	word  string
	check func(b *bench) error // nil if another test checks it
	http1 bool                 // whether it makes sense over HTTP/1.1 alone
}

func (r row) id(b behaviour) string { return fmt.Sprintf("%d.%s", r.number, b.word) }

// A bench is what a check works with. What a router does otherwise is the error of
// the check; what prevents the check from being made is fatal.
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
			err := b.check(&bench{t, router, over})
			difference, differs := router.Differences[id]
			switch {
			case !differs && err != nil:
				t.Errorf("%s: %v", id, err)
			case differs && err == nil:
				t.Errorf("%s is as elsewhere, but declared to be different: %s", id, difference.Reason)
			case differs && !strings.Contains(err.Error(), difference.Observed):
				t.Errorf("%s: %v\ndeclared: %s", id, err, difference.Observed)
			}
		})
	}
}

// checkDeclared finds declarations of what the suite does not know, or without
// what makes them one.
func checkDeclared(t *testing.T, router Router) {
	known := make(map[string]bool)
	for _, row := range rows {
		for _, b := range row.behaviours {
			known[row.id(b)] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(router.Differences)) {
		if d := router.Differences[id]; !known[id] || d.Reason == "" || d.Observed == "" {
			t.Errorf("Differences[%q]: no such behaviour, no reason, or nothing observed", id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(router.Lacks)) {
		if !known[id] || router.Lacks[id] == "" {
			t.Errorf("Lacks[%q]: no such behaviour, or no reason", id)
		}
		if _, both := router.Differences[id]; both {
			t.Errorf("%q is both lacking and different", id)
		}
	}
	checkDeclaration(t, router)
}

// same is an error unless got is want.
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

// first returns the first error, which is the one to look at.
func first(errs ...error) error { return cmp.Or(errs...) }

// all returns all errors.
func all(errs ...error) error { return errors.Join(errs...) }
